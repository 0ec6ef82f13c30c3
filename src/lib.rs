//! bearerd: an authenticating reverse proxy in front of Microsoft Graph.
//!
//! A map of the house. Open `proxy` next: one request, top to bottom. Then `vault`: the only door to access tokens.
//! A module uses the layers below its own only; `tests/it/layers.rs` holds everyone to that.

// 0 words: what everyone may say
pub mod account;
pub mod audit;
pub mod claims;
pub mod clock;
pub mod fault;
pub mod hosts;
pub mod metrics;
pub mod process;
pub mod secret;
pub mod tasks;
pub mod tls;

// 1 knowledge: no I/O but for the configuration's own files
pub mod config;
pub mod graph;

// 2 adapters
pub mod oauth;
pub mod store;
pub mod traces;

// 3 the only door to access tokens
pub mod vault;

// 4 surfaces: they never import each other
pub mod admin;
pub mod proxy;
pub mod signin;

// 5 the shell
pub mod app;
pub mod cli;
pub mod front;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod server;
pub mod telemetry;

//! The simulated Entra ID and Graph, driven over the wire: what other tests rely on is true.
#![cfg(feature = "sandbox")]

mod batch;
mod challenges;
mod client;
mod codings;
mod docs;
mod entra;
mod faults;
mod files;
mod grants;
mod graph;
mod identities;
mod links;
mod throttling;
mod tokens;

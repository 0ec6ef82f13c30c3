//! The `oauth` room against a provider that is a real HTTP server: what was sent is looked at, not only what came back.

mod classify;
mod credentials;
mod identity;
mod keys;
mod provider;
mod refresh;
mod signin;
mod tls;
mod tokens;

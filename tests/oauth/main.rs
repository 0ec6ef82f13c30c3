//! The `oauth` room against a provider that is a real HTTP server: what was sent is looked at, not only what came back.

mod claims;
mod classify;
mod credentials;
mod grants;
mod identity;
mod keys;
mod managed_identity;
mod provider;
mod refresh;
mod signin;
mod tls;
mod tokens;
mod verifier;

//! `bearerd accounts ...`, the built binary, as an operator runs it: on a store of its own and beside a running proxy.

mod beside;
pub mod house;
mod import;
mod keys;
mod msal_cache;
mod verbs;

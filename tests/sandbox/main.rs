//! The simulated Entra ID and Graph, driven over the wire: what other tests rely on is true.
#![cfg(feature = "sandbox")]

mod challenges;
mod client;
mod docs;
mod entra;
mod faults;
mod grants;
mod graph;
mod identities;
mod tokens;

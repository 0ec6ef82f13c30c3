//! The simulated Entra ID and Graph, driven over the wire: what other tests rely on is true.
#![cfg(feature = "sandbox")]

mod client;
mod entra;
mod faults;
mod graph;
mod tokens;

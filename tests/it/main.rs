//! The integration tests, one binary: each module looks at the library or the binary from outside.

mod accounts_cli;
mod challenges;
mod cli;
mod config;
mod credentials;
mod errors;
mod fault_matrix;
mod framing;
mod fresh;
mod harness;
mod healing;
mod hosts;
mod identities;
mod layers;
mod outage;
mod outbound;
mod policy;
mod raw_upstream;
mod refresh_faults;
mod secrets;
mod signin;
mod streaming;
mod upstreams;
mod vault;

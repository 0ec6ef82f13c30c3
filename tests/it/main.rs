//! The integration tests, one binary: each module looks at the library or the binary from outside.

mod accounts_cli;
mod cli;
mod config;
mod credentials;
mod errors;
mod framing;
mod harness;
mod healing;
mod hosts;
mod layers;
mod outbound;
mod policy;
mod raw_upstream;
mod refresh_faults;
mod secrets;
mod signin;
mod streaming;
mod upstreams;
mod vault;

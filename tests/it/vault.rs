//! The vault between a real store and a simulated provider that counts: how often a refresh token is presented, and what is
//! served meanwhile.

mod account;
mod freshness;
mod import;
mod ownership;
mod reject;
pub mod rig;
mod single_flight;

//! The vault between a real store and a simulated provider that counts: how often a refresh token is presented, and what is
//! served meanwhile.

mod account;
mod app;
mod challenges;
mod freshness;
mod import;
mod interaction;
mod on_behalf_of;
mod ownership;
mod reject;
mod revoke;
pub mod rig;
mod several;
mod single_flight;

//! Everything that can go wrong with a refresh, and what becomes of the grant: no fault but the provider's clear word signs anybody
//! out, no refresh token is presented once too often, and what lives is served.

mod answers;
mod credential;
mod death;
mod lost;
mod order;
mod storage;

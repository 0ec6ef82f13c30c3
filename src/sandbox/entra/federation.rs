//! Client assertions that somebody else made: a managed identity of this tenant, or the service account of a cluster.
//!
//! Registered are exactly two pairs of issuer and subject; their tokens are signed by the tenant's keys, which is nobody's
//! business but ours.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::Keyring;
use super::managed::OBJECT_ID;
use super::{State, jwt};
use crate::sandbox::fault::TokenFault;
use crate::sandbox::random;

/// What such a token has to be meant for.
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";
/// Issuer and subject of the cluster's service account.
pub const CLUSTER_ISSUER: &str = "https://cluster.example";
pub const CLUSTER_SUBJECT: &str = "system:serviceaccount:default:bearerd";
const SKEW: i64 = 300;

/// A token of the cluster, as it projects one into a file.
pub(super) fn cluster_token(state: &State, life: i64) -> String {
    mint(state, CLUSTER_ISSUER, CLUSTER_SUBJECT, life)
}

/// A token of the managed identity.
pub(super) fn identity_token(state: &State, life: i64) -> String {
    mint(state, &state.issuer(&state.options.tenant), OBJECT_ID, life)
}

/// Whether this assertion is not the client's own.
pub(super) fn is_foreign(state: &State, assertion: &str) -> bool {
    let claims = assertion.split('.').nth(1).and_then(jwt::decode);
    claims.is_some_and(|claims| claims["iss"].as_str() != Some(&state.options.client_id))
}

pub(super) fn check(state: &State, assertion: &str) -> Result<(), TokenFault> {
    let bad = || TokenFault::aadsts(700_027);
    let (input, signature) = assertion.rsplit_once('.').ok_or_else(bad)?;
    let claims = input.split('.').nth(1).and_then(jwt::decode).ok_or_else(bad)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| bad())?;
    let registered = match claims["iss"].as_str() {
        Some(CLUSTER_ISSUER) => CLUSTER_SUBJECT,
        Some(issuer) if issuer == state.issuer(&state.options.tenant) => OBJECT_ID,
        _ => return Err(TokenFault::aadsts(700_211)),
    };
    if claims["sub"] != registered {
        return Err(TokenFault::aadsts(700_213));
    }
    if claims["aud"] != EXCHANGE_AUDIENCE {
        return Err(TokenFault::aadsts(700_212));
    }
    if !Keyring::made(input.as_bytes(), &signature) {
        return Err(bad());
    }
    let now = state.clock.now().secs();
    let alive = claims["exp"].as_i64().is_some_and(|exp| exp + SKEW > now);
    if alive { Ok(()) } else { Err(TokenFault::aadsts(700_024)) }
}

fn mint(state: &State, issuer: &str, subject: &str, life: i64) -> String {
    let now = state.clock.now().secs();
    let claims: Value = json!({
        "aud": EXCHANGE_AUDIENCE, "iss": issuer, "sub": subject, "iat": now, "nbf": now, "exp": now + life,
        "jti": random::guid(),
    });
    jwt::signed(state, claims, None)
}

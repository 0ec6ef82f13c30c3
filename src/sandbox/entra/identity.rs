//! Identity tokens as Entra v2.0 makes them, and with one rule broken on demand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::keys::{self, KeyName};
use super::{CONSUMER_TENANT, State};
use crate::sandbox::fault::Flaw;
use crate::sandbox::random;
use crate::sandbox::user::User;

const LIFE: i64 = 3600;

/// A signed identity token for `user`.
pub(super) fn token(state: &State, user: &User, scope: &str, nonce: Option<&str>, flaw: Option<Flaw>) -> String {
    let user = match flaw {
        Some(Flaw::OtherUser) => state.users.iter().find(|other| other.oid != user.oid).unwrap_or(user),
        _ => user,
    };
    let mut claims = claims(state, user, scope, nonce);
    let key = match flaw {
        Some(Flaw::ConsumerKey) => keys::key(KeyName::Consumer),
        _ => state.keys.signing(),
    };
    let mut header = json!({ "typ": "JWT", "alg": "RS256", "kid": key.kid });
    match flaw {
        None | Some(Flaw::Signature | Flaw::ConsumerKey | Flaw::OtherUser) => {}
        Some(Flaw::NotAToken) => return "not.a.token".to_owned(),
        Some(Flaw::Issuer) => claims["iss"] = json!(format!("https://issuer.example/{}/v2.0", state.options.tenant)),
        Some(Flaw::Audience) => claims["aud"] = json!(random::guid()),
        Some(Flaw::Expired) => {
            let now = state.clock.now().secs();
            claims["iat"] = json!(now - 2 * LIFE);
            claims["nbf"] = json!(now - 2 * LIFE);
            claims["exp"] = json!(now - LIFE);
        }
        Some(Flaw::NotYetValid) => claims["nbf"] = json!(state.clock.now().secs() + LIFE / 2),
        Some(Flaw::NoNonce) => drop(claims.as_object_mut().and_then(|claims| claims.remove("nonce"))),
        Some(Flaw::WrongNonce) => claims["nonce"] = json!(random::text(22)),
        Some(Flaw::Tenant) => claims["tid"] = json!(CONSUMER_TENANT),
        Some(Flaw::NoSubject) => drop(claims.as_object_mut().and_then(|claims| claims.remove("sub"))),
        Some(Flaw::NoObjectId) => drop(claims.as_object_mut().and_then(|claims| claims.remove("oid"))),
        Some(Flaw::UnknownKey) => header["kid"] = json!(random::text(27)),
        Some(Flaw::NoKeyId) => drop(header.as_object_mut().and_then(|header| header.remove("kid"))),
        Some(Flaw::AlgorithmNone) => header["alg"] = json!("none"),
        Some(Flaw::AlgorithmHmac) => header["alg"] = json!("HS256"),
    }
    let input = format!("{}.{}", encode(&header), encode(&claims));
    let signature = match flaw {
        Some(Flaw::AlgorithmNone) => String::new(),
        Some(Flaw::AlgorithmHmac) => {
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.modulus().as_bytes());
            URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, input.as_bytes()))
        }
        Some(Flaw::Signature) => key.sign(&format!("{input}.")),
        _ => key.sign(&input),
    };
    format!("{input}.{signature}")
}

/// The `client_info` of a token answer.
pub(super) fn client_info(state: &State, user: &User) -> String {
    encode(&json!({ "uid": user.oid, "utid": state.options.tenant }))
}

fn claims(state: &State, user: &User, scope: &str, nonce: Option<&str>) -> Value {
    let now = state.clock.now().secs();
    let mut claims = json!({
        "aud": state.options.client_id,
        "iss": state.issuer(&state.options.tenant),
        "iat": now,
        "nbf": now,
        "exp": now + LIFE + 300,
        "sub": pairwise(&state.options.client_id, &user.oid),
        "tid": state.options.tenant,
        "uti": random::text(22),
        "ver": "2.0",
    });
    let asked = |name| scope.split(' ').any(|word| word == name);
    if asked("profile") {
        claims["oid"] = json!(user.oid);
        claims["name"] = json!(user.name);
        claims["preferred_username"] = json!(user.mail);
    }
    if asked("email") {
        claims["email"] = json!(user.mail);
    }
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    claims
}

/// The subject differs per application and never changes.
fn pairwise(client: &str, oid: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{client}/{oid}")))
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

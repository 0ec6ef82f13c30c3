//! Signed JSON Web Tokens, with one rule broken on demand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{self, KeyName};
use super::{CONSUMER_TENANT, State};
use crate::sandbox::fault::Flaw;
use crate::sandbox::random;
use crate::sandbox::user::User;

const LIFE: i64 = 3600;

/// The user that a token is about.
pub(super) fn subject<'a>(state: &'a State, user: &'a User, flaw: Option<Flaw>) -> &'a User {
    match flaw {
        Some(Flaw::OtherUser) => state.users.iter().find(|other| other.oid != user.oid).unwrap_or(user),
        _ => user,
    }
}

/// RS256, by the key that signs at present.
pub(super) fn signed(state: &State, mut claims: Value, flaw: Option<Flaw>) -> String {
    let key = match flaw {
        Some(Flaw::ConsumerKey) => keys::key(KeyName::Consumer),
        _ => state.keys.signing(),
    };
    let mut header = json!({ "typ": "JWT", "alg": "RS256", "kid": key.kid });
    let now = state.clock.now().secs();
    match flaw {
        None | Some(Flaw::Signature | Flaw::ConsumerKey | Flaw::OtherUser) => {}
        Some(Flaw::NotAToken) => return "not.a.token".to_owned(),
        Some(Flaw::Issuer) => claims["iss"] = json!(format!("https://issuer.example/{}/v2.0", state.options.tenant)),
        Some(Flaw::Audience) => claims["aud"] = json!(random::guid()),
        Some(Flaw::SeveralAudiences) => claims["aud"] = json!([claims["aud"], random::guid()]),
        Some(Flaw::AuthorizedParty) => claims["azp"] = json!(random::guid()),
        Some(Flaw::Expired) => {
            claims["iat"] = json!(now - 2 * LIFE);
            claims["nbf"] = json!(now - 2 * LIFE);
            claims["exp"] = json!(now - LIFE);
        }
        Some(Flaw::ExpiryText) => claims["exp"] = json!(claims["exp"].to_string()),
        Some(Flaw::NotYetValid) => claims["nbf"] = json!(now + LIFE / 2),
        Some(Flaw::NotBeforeText) => claims["nbf"] = json!(claims["nbf"].to_string()),
        Some(Flaw::NoNonce) => drop(remove(&mut claims, "nonce")),
        Some(Flaw::WrongNonce) => claims["nonce"] = json!(random::text(22)),
        Some(Flaw::Tenant) => claims["tid"] = json!(CONSUMER_TENANT),
        Some(Flaw::NoSubject) => drop(remove(&mut claims, "sub")),
        Some(Flaw::NoObjectId) => drop(remove(&mut claims, "oid")),
        Some(Flaw::TooLarge) => claims["padding"] = json!("x".repeat(300_000)),
        Some(Flaw::UnknownKey) => header["kid"] = json!(random::text(27)),
        Some(Flaw::NoKeyId) => drop(remove(&mut header, "kid")),
        Some(Flaw::EmbeddedKey) => {
            drop(remove(&mut header, "kid"));
            header["jwk"] = key.public();
        }
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

/// A part of a token.
pub(super) fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

pub(super) fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn remove(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut()?.remove(name)
}

//! The keys that a provider signs identity tokens with. An unknown `kid` leads to a new fetch, but seldom: whoever invents
//! one a thousand times costs the provider one request. Nothing that a token names is ever fetched.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value;
use url::Url;

use super::cached::Cached;
use super::http::Http;
use crate::clock::Clock;

/// After a fetch failed.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(30);

pub(super) struct Keys(Cached<Vec<Key>>);

pub(super) struct Key {
    kid: Option<String>,
    algorithm: Option<String>,
    shape: Shape,
    pub(super) decoding: DecodingKey,
    /// Entra says for which issuer a key may speak: exactly, or as a template.
    pub(super) issuer: Option<String>,
    pub(super) cloud_instance_name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why there is no key.
pub(super) enum NoKey {
    /// The key set can't be had.
    Unreachable(String),
    /// The key set has none that fits.
    Unknown(String),
}

impl Keys {
    pub(super) fn new(clock: Clock) -> Self {
        Self(Cached::new(clock, COOL_DOWN))
    }

    /// Makes sure that there are keys.
    pub(super) async fn load(&self, http: &Http, jwks_uri: &Url) -> Result<Arc<Vec<Key>>, String> {
        self.0.get(async |limit| fetch(http, jwks_uri, limit).await).await
    }

    /// The keys among which `find` finds one, fetched anew where those at hand have none and the rate allows.
    pub(super) async fn having(
        &self,
        http: &Http,
        jwks_uri: &Url,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<(Arc<Vec<Key>>, usize), NoKey> {
        let keys = self.load(http, jwks_uri).await.map_err(NoKey::Unreachable)?;
        if let Some(index) = find(&keys, kid, algorithm) {
            return Ok((keys, index));
        }
        let lacking = |keys: &Vec<Key>| find(keys, kid, algorithm).is_none();
        let renewed = self.0.renew(lacking, async |limit| fetch(http, jwks_uri, limit).await).await;
        let keys = renewed.map_err(NoKey::Unreachable)?;
        match find(&keys, kid, algorithm) {
            Some(index) => Ok((keys, index)),
            None => Err(NoKey::Unknown("no key of the provider fits its kid and alg".to_owned())),
        }
    }
}

/// By `kid`; without one only where a single key fits.
fn find(keys: &[Key], kid: Option<&str>, algorithm: Algorithm) -> Option<usize> {
    let fits = |key: &Key| {
        key.shape.signs(algorithm)
            && key.algorithm.as_ref().is_none_or(|named| named.parse() == Ok(algorithm))
            && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
    };
    let mut fitting = keys.iter().enumerate().filter(|(_, key)| fits(key)).map(|(index, _)| index);
    let first = fitting.next()?;
    (kid.is_some() || fitting.next().is_none()).then_some(first)
}

async fn fetch(http: &Http, jwks_uri: &Url, limit: Duration) -> Result<Vec<Key>, String> {
    let body = http.get(jwks_uri, limit).await?;
    let keys = parse(&body);
    if keys.is_empty() { Err(format!("{jwks_uri}: no key in it can be used")) } else { Ok(keys) }
}

/// The keys that can be used; others are no reason to refuse the set.
fn parse(body: &[u8]) -> Vec<Key> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    document.get("keys").and_then(Value::as_array).into_iter().flatten().filter_map(key).collect()
}

fn key(value: &Value) -> Option<Key> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|r#use| *r#use != PublicKeyUse::Signature) {
        return None;
    }
    let shape = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Shape::Rsa,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Shape::P256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Shape::P384,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Shape::Ed25519,
        _ => return None,
    };
    Some(Key {
        kid: text("kid"),
        algorithm: text("alg"),
        shape,
        decoding: DecodingKey::from_jwk(&jwk).ok()?,
        issuer: text("issuer"),
        cloud_instance_name: text("cloud_instance_name"),
    })
}

impl Shape {
    fn signs(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(changes: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "kid": "a", "use": "sig", "n": "AQAB", "e": "AQAB"});
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn set(keys: &[Value]) -> Vec<Key> {
        parse(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn keys_that_can_t_be_used_are_left_out() {
        let keys = set(&[
            rsa(&json!({})),
            rsa(&json!({"use": "enc"})),
            rsa(&json!({"kty": "oct", "k": "AAAA"})),
            rsa(&json!({"n": "not base64!"})),
            json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
            json!("key"),
        ]);
        assert_eq!(keys.len(), 1);
        assert!(parse(b"{}").is_empty() && parse(b"<html>").is_empty() && parse(br#"{"keys":{}}"#).is_empty());
    }

    #[test]
    fn a_key_is_found_by_kid_and_type() {
        let p256 = json!({"kty": "EC", "crv": "P-256", "kid": "b", "x": "AA", "y": "AA"});
        let keys = set(&[rsa(&json!({})), rsa(&json!({"kid": "p", "alg": "PS256"})), p256]);
        assert_eq!(find(&keys, Some("a"), Algorithm::RS256), Some(0));
        assert_eq!(find(&keys, Some("p"), Algorithm::RS256), None, "the key is for another algorithm");
        assert_eq!(find(&keys, Some("b"), Algorithm::ES256), Some(2));
        assert_eq!(find(&keys, Some("b"), Algorithm::ES384), None);
        assert_eq!(find(&keys, Some("a"), Algorithm::ES256), None);
        assert_eq!(find(&keys, Some("../../etc/passwd"), Algorithm::RS256), None);
        assert_eq!(find(&keys, None, Algorithm::RS256), Some(0), "one key fits");
        assert_eq!(find(&keys, None, Algorithm::PS256), None, "two keys fit");
    }
}

//! Tokens made by hand, good and bad.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use sha2::Sha256;

pub const RSA_A: &str = include_str!("../keys/rsa_a.pem");
pub const RSA_A_PUBLIC: &str = include_str!("../keys/rsa_a.pub.pem");
const RSA_B: &str = include_str!("../keys/rsa_b.pem");
const P256: &str = include_str!("../keys/p256.pem");

pub struct Key {
    key: EncodingKey,
    algorithm: Algorithm,
}

/// `a` or `b`.
pub fn rsa(name: &str) -> Key {
    bearerd::oauth::jwt::install();
    let pem = if name == "a" { RSA_A } else { RSA_B };
    Key { key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(), algorithm: Algorithm::RS256 }
}

pub fn p256() -> Key {
    bearerd::oauth::jwt::install();
    Key { key: EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(), algorithm: Algorithm::ES256 }
}

impl Key {
    /// The entry of a JWKS.
    pub fn public(&self, kid: &str) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// For JSON that no value can hold: keys that stand twice, numbers without a value.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// With the header that a provider would give it.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        self.sign(&json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": kid}), claims)
    }
}

pub fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims))
}

pub fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(&header.to_string(), &claims.to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

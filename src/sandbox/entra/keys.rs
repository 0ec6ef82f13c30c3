//! The signing keys. Published with the source: see `../keys/README.md`.

use std::sync::{LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::sandbox::locked;

/// A key of the tenant, or the key of personal accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyName {
    First,
    Second,
    Consumer,
}

/// Which keys are published and which one signs.
pub(super) struct Keyring(Mutex<Choice>);

struct Choice {
    signing: KeyName,
    published: Vec<KeyName>,
}

pub(super) struct SigningKey {
    pair: RsaKeyPair,
    pub kid: String,
    modulus: String,
    exponent: String,
}

static KEYS: LazyLock<[SigningKey; 3]> = LazyLock::new(|| {
    [include_str!("../keys/first.pem"), include_str!("../keys/second.pem"), include_str!("../keys/consumer.pem")]
        .map(SigningKey::new)
});

impl Default for Keyring {
    fn default() -> Self {
        let published = vec![KeyName::Second, KeyName::First, KeyName::Consumer];
        Self(Mutex::new(Choice { signing: KeyName::First, published }))
    }
}

impl Keyring {
    pub fn signing(&self) -> &'static SigningKey {
        key(locked(&self.0).signing)
    }

    pub fn sign_with(&self, name: KeyName) {
        locked(&self.0).signing = name;
    }

    /// Whether a key of the tenant made this signature.
    pub fn made(input: &[u8], signature: &[u8]) -> bool {
        [KeyName::First, KeyName::Second].iter().any(|name| key(*name).made(input, signature))
    }

    pub fn publish(&self, names: &[KeyName]) {
        locked(&self.0).published = names.to_vec();
    }

    /// The JWKS, of the published keys or of `only` these; each key says whose tokens it may sign: `tenant` for the tenant's,
    /// `consumers` for personal accounts'.
    pub fn jwks(&self, only: Option<&[KeyName]>, tenant: &str, consumers: &str) -> Value {
        let published = only.map_or_else(|| locked(&self.0).published.clone(), <[KeyName]>::to_vec);
        let keys: Vec<Value> = published
            .into_iter()
            .map(|name| {
                let issuer = if name == KeyName::Consumer { consumers } else { tenant };
                let mut entry = key(name).public();
                entry["issuer"] = json!(issuer);
                entry["cloud_instance_name"] = json!(super::CLOUD_INSTANCE);
                entry
            })
            .collect();
        json!({ "keys": keys })
    }
}

pub(super) fn key(name: KeyName) -> &'static SigningKey {
    match name {
        KeyName::First => &KEYS[0],
        KeyName::Second => &KEYS[1],
        KeyName::Consumer => &KEYS[2],
    }
}

impl SigningKey {
    fn new(pem: &str) -> Self {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("an embedded key is PEM");
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("an embedded key is an RSA key");
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let kid = URL_SAFE_NO_PAD.encode(&Sha256::digest(&public.n)[..20]);
        Self { pair, kid, modulus: URL_SAFE_NO_PAD.encode(public.n), exponent: URL_SAFE_NO_PAD.encode(public.e) }
    }

    /// What a careless verifier would take for an HMAC secret.
    pub fn modulus(&self) -> &str {
        &self.modulus
    }

    /// As JWK.
    pub fn public(&self) -> Value {
        let Self { kid, modulus, exponent, .. } = self;
        json!({ "kty": "RSA", "use": "sig", "kid": kid, "x5t": kid, "n": modulus, "e": exponent })
    }

    /// Whether it made this RS256 signature.
    pub fn made(&self, input: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.pair.public().as_ref());
        key.verify(input, signature).is_ok()
    }

    /// RS256 over `input`, base64url.
    pub fn sign(&self, input: &str) -> String {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
            .expect("an RSA key of 2048 bits signs SHA-256");
        URL_SAFE_NO_PAD.encode(signature)
    }
}

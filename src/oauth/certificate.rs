//! A certificate of the app registration: the client assertions that its key signs (RFC 7523, section 2.2). Each is made for
//! one request, with a `jti` of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Dialect;
use super::authority::Target;
use super::http::guid;
use crate::clock::Timestamp;
use crate::secret::Secret;

/// The life of an assertion, in seconds.
const ASSERTION_LIFE: i64 = 600;

pub(super) struct Certificate {
    key: EncodingKey,
    /// base64url of the SHA-256 of the certificate.
    thumbprint: String,
    /// base64url of its SHA-1, for servers that know nothing newer.
    legacy_thumbprint: String,
    pub(super) not_after: Timestamp,
    /// It was said that it has expired.
    told: AtomicBool,
}

#[derive(Serialize)]
struct Assertion<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Certificate {
    pub(super) fn new(cert_pem: &str, key_pem: &Secret<String>, dialect: Dialect) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|e| format!("the certificate can't be read: {e}"))?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|e| format!("the certificate can't be read: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.expose().as_bytes())
            .map_err(|_| "the private key can't be read as PEM".to_owned())?;
        let (key, public) = signing_key(key.secret_der())?;
        if parsed.public_key().subject_public_key.data != public {
            return Err("the private key does not belong to the certificate".to_owned());
        }
        if dialect == Dialect::Entra && key.family() != AlgorithmFamily::Rsa {
            return Err("Entra ID takes RSA keys only".to_owned());
        }
        Ok(Self {
            key,
            thumbprint: BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)),
            legacy_thumbprint: BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &certificate)),
            not_after: Timestamp::from_secs(parsed.validity().not_after.timestamp()),
            told: AtomicBool::new(false),
        })
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.not_after < now
    }

    /// True once: whoever is told that it has expired says so.
    pub(super) fn tell(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    pub(super) fn assert(
        &self,
        client_id: &str,
        target: &Target,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<Secret<String>, String> {
        let algorithm = match self.key.family() {
            AlgorithmFamily::Ec => Algorithm::ES256,
            _ if target.methods.pss => Algorithm::PS256,
            _ => Algorithm::RS256,
        };
        let mut header = Header::new(algorithm);
        match algorithm {
            Algorithm::RS256 => header.x5t = Some(self.legacy_thumbprint.clone()),
            _ => header.x5t_s256 = Some(self.thumbprint.clone()),
        }
        if dialect == Dialect::Oidc {
            header.kid = Some(self.thumbprint.clone());
        }
        let now = now.secs();
        let claims = Assertion {
            aud: target.url.as_str(),
            iss: client_id,
            sub: client_id,
            jti: guid(),
            iat: now,
            nbf: now,
            exp: now + ASSERTION_LIFE,
        };
        let assertion = jsonwebtoken::encode(&header, &claims, &self.key);
        assertion.map(Secret::new).map_err(|e| format!("the certificate's key can't sign: {e}"))
    }
}

/// The key and its public part as a certificate has it.
fn signing_key(der: &[u8]) -> Result<(EncodingKey, Vec<u8>), String> {
    if let Ok(key) = RsaKeyPair::from_der(der).or_else(|_| RsaKeyPair::from_pkcs8(der)) {
        return Ok((EncodingKey::from_rsa_der(der), key.public().as_ref().to_vec()));
    }
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new());
    let key =
        key.map_err(|_| "the private key is neither RSA (2048 bits or more) nor P-256 in PKCS #8 form".to_owned())?;
    Ok((EncodingKey::from_ec_der(der), key.public_key().as_ref().to_vec()))
}

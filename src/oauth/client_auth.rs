//! How the token endpoint knows our app registration: not at all (a public client), by a secret, by a certificate, or by a
//! token that somebody else issued for us. Several may be configured; whichever works is remembered.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use reqwest::header::HeaderValue;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::authority::Target;
use super::http::{Form, guid};
use super::{BuildError, Dialect};
use crate::clock::Timestamp;
use crate::config::AppCredential;
use crate::secret::Secret;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The life of an assertion, in seconds.
const ASSERTION_LIFE: i64 = 600;

pub(super) struct ClientAuth {
    client_id: String,
    dialect: Dialect,
    credentials: Vec<Credential>,
    /// The attempt that worked last.
    preferred: AtomicUsize,
}

enum Credential {
    Secret(Secret<String>),
    Certificate(Certificate),
    File(PathBuf),
}

pub(super) struct Certificate {
    key: EncodingKey,
    /// base64url of the SHA-256 of the certificate.
    thumbprint: String,
}

/// What a token endpoint accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Methods {
    post: bool,
    basic: bool,
    /// Assertions with PSS padding; else with that of PKCS #1 v1.5.
    pss: bool,
}

/// One way to show one credential.
#[derive(Clone, Copy)]
pub(super) enum Attempt<'a> {
    Public,
    Post(&'a Secret<String>),
    Basic(&'a Secret<String>),
    Certificate(&'a Certificate),
    File(&'a Path),
}

impl Methods {
    pub(super) fn entra() -> Self {
        Self { post: true, basic: false, pss: true }
    }

    pub(super) fn discovered(methods: Option<&[String]>, algorithms: Option<&[String]>) -> Self {
        let among = |list: Option<&[String]>, name: &str| list.is_some_and(|list| list.iter().any(|item| item == name));
        // Silence means client_secret_basic (OpenID Connect Discovery 1.0, section 3).
        let basic = methods.is_none() || among(methods, "client_secret_basic");
        let post = among(methods, "client_secret_post") || !basic;
        Self { post, basic, pss: among(algorithms, "PS256") || !among(algorithms, "RS256") }
    }
}

impl ClientAuth {
    pub(super) fn new(client_id: &str, dialect: Dialect, credentials: &[AppCredential]) -> Result<Self, BuildError> {
        let credentials = credentials.iter().map(|credential| Credential::new(credential, dialect));
        Ok(Self {
            client_id: client_id.to_owned(),
            dialect,
            credentials: credentials.collect::<Result<_, _>>()?,
            preferred: AtomicUsize::new(0),
        })
    }

    /// What to try, in this order, with a number for `worked`. Never empty.
    pub(super) fn attempts(&self, methods: &Methods) -> Vec<(usize, Attempt<'_>)> {
        let mut attempts = Vec::new();
        for credential in &self.credentials {
            match credential {
                // A server that offers both may still hold each client to one of them.
                Credential::Secret(secret) => {
                    attempts.extend(methods.post.then_some(Attempt::Post(secret)));
                    attempts.extend(methods.basic.then_some(Attempt::Basic(secret)));
                }
                Credential::Certificate(certificate) => attempts.push(Attempt::Certificate(certificate)),
                Credential::File(path) => attempts.push(Attempt::File(path)),
            }
        }
        if attempts.is_empty() {
            attempts.push(Attempt::Public);
        }
        let first = self.preferred.load(Ordering::Relaxed) % attempts.len();
        let mut numbered: Vec<_> = attempts.into_iter().enumerate().collect();
        numbered.rotate_left(first);
        numbered
    }

    pub(super) fn worked(&self, number: usize) {
        self.preferred.store(number, Ordering::Relaxed);
    }

    /// `form` with the credential in it, and the `Authorization` header that goes with it. An error says why the credential
    /// can't be used.
    pub(super) async fn apply(
        &self,
        attempt: Attempt<'_>,
        form: Form,
        target: &Target,
        now: Timestamp,
    ) -> Result<(Form, Option<HeaderValue>), String> {
        let with_id = |form: Form| form.plain("client_id", &self.client_id);
        let with_assertion = |form: Form, assertion: &Secret<String>| {
            with_id(form).plain("client_assertion_type", JWT_BEARER).secret("client_assertion", assertion)
        };
        match attempt {
            Attempt::Public => Ok((with_id(form), None)),
            Attempt::Post(secret) => Ok((with_id(form).secret("client_secret", secret), None)),
            Attempt::Basic(secret) => {
                let credentials = basic(&self.client_id, secret);
                let text = Zeroizing::new(format!("Basic {}", credentials.expose()));
                let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
                value.set_sensitive(true);
                Ok((form.beside(secret.clone()).beside(credentials), Some(value)))
            }
            Attempt::Certificate(certificate) => {
                let assertion = certificate.assert(&self.client_id, target, self.dialect, now)?;
                Ok((with_assertion(form, &assertion), None))
            }
            Attempt::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
                let text = text.map_err(|e| format!("the federated token file can't be read: {}", e.kind()))?;
                let assertion = Secret::from(text.trim());
                if assertion.expose().is_empty() {
                    return Err("the federated token file is empty".to_owned());
                }
                Ok((with_assertion(form, &assertion), None))
            }
        }
    }
}

/// RFC 6749, section 2.3.1: both parts are form-encoded first.
fn basic(client_id: &str, secret: &Secret<String>) -> Secret<String> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    BASE64_STANDARD.encode(pair.as_bytes()).into()
}

impl Credential {
    fn new(configured: &AppCredential, dialect: Dialect) -> Result<Self, BuildError> {
        let credential = match configured {
            AppCredential::Secret(secret) => Self::Secret(secret.clone()),
            AppCredential::FederatedTokenFile(path) => Self::File(path.clone()),
            AppCredential::Certificate { cert_pem, key_pem } => {
                let wrong = |why: String| BuildError { key: "credentials".to_owned(), why };
                let certificate = Certificate::new(cert_pem, key_pem).map_err(wrong)?;
                if dialect == Dialect::Entra && certificate.key.family() != AlgorithmFamily::Rsa {
                    return Err(wrong("Entra ID takes RSA keys only".to_owned()));
                }
                Self::Certificate(certificate)
            }
        };
        Ok(credential)
    }
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
    fn new(cert_pem: &str, key_pem: &Secret<String>) -> Result<Self, String> {
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
        Ok(Self { key, thumbprint: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate)) })
    }

    fn assert(
        &self,
        client_id: &str,
        target: &Target,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<Secret<String>, String> {
        let mut header = Header::new(match self.key.family() {
            AlgorithmFamily::Ec => Algorithm::ES256,
            _ if target.methods.pss => Algorithm::PS256,
            _ => Algorithm::RS256,
        });
        header.x5t_s256 = Some(self.thumbprint.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_of_basic_are_form_encoded() {
        let value = basic("a b:c", &"p%+&:\u{e4}/ =".into());
        let text = String::from_utf8(BASE64_STANDARD.decode(value.expose()).unwrap()).unwrap();
        assert_eq!(text, "a+b%3Ac:p%25%2B%26%3A%C3%A4%2F+%3D");
    }

    #[test]
    fn methods_of_discovery() {
        let methods = |names: Option<&[&str]>| {
            let names: Option<Vec<String>> = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            let found = Methods::discovered(names.as_deref(), None);
            (found.post, found.basic)
        };
        assert_eq!(methods(None), (false, true));
        assert_eq!(methods(Some(&["client_secret_basic"])), (false, true));
        assert_eq!(methods(Some(&["client_secret_post"])), (true, false));
        assert_eq!(methods(Some(&["client_secret_basic", "client_secret_post"])), (true, true));
        assert_eq!(methods(Some(&["private_key_jwt"])), (true, false));
    }

    #[test]
    fn the_attempt_that_worked_comes_first() {
        let credentials = ["one", "two", "three"].map(|text| AppCredential::Secret(text.into()));
        let auth = ClientAuth::new("app", Dialect::Entra, &credentials).unwrap();
        let order = || auth.attempts(&Methods::entra()).iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        auth.worked(2);
        assert_eq!(order(), [2, 0, 1]);
    }
}

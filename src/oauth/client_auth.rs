//! How the token endpoint knows our app registration: not at all (a public client), by a secret, by a certificate, or by a
//! token that somebody else issued for us. Several may be configured; whichever works is remembered.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::authority::{Authority, Target};
use super::certificate::Certificate;
use super::exchange::not_sent;
use super::http::{Deadline, Form};
use super::managed_identity;
use super::{BuildError, Class, Dialect, TokenError};
use crate::clock::{Clock, Timestamp};
use crate::config::AppCredential;
use crate::secret::Secret;

/// RFC 7523, section 2.2: an assertion that shows who the client is.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) struct ClientAuth {
    client_id: String,
    dialect: Dialect,
    credentials: Vec<Credential>,
    /// The attempt that worked last.
    preferred: AtomicUsize,
    clock: Clock,
}

enum Credential {
    Secret { secret: Secret<String>, expires: Option<Timestamp> },
    Certificate(Certificate),
    File(PathBuf),
    ManagedIdentity(Box<managed_identity::Identity>),
}

/// What a token endpoint accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Methods {
    post: bool,
    basic: bool,
    /// Assertions with PSS padding; else with that of PKCS #1 v1.5.
    pub(super) pss: bool,
}

/// One way to show one credential; without one we are a public client.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// The credential's place in the list.
    place: usize,
    credential: Option<&'a Credential>,
    /// A secret in the `Authorization` header, not in the form.
    basic: bool,
}

/// A credential that the provider accepted.
pub(super) struct Accepted {
    /// In the list of the configuration, from 1.
    pub(super) number: usize,
    pub(super) kind: &'static str,
    /// The one before was another one.
    pub(super) changed: bool,
}

impl Attempt<'_> {
    /// Unique among the attempts, whatever a server accepts.
    fn id(&self) -> usize {
        self.place * 2 + usize::from(self.basic)
    }
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
    pub(super) fn new(
        client_id: &str,
        authority: &Authority,
        credentials: &[AppCredential],
        clock: Clock,
    ) -> Result<Self, BuildError> {
        let credentials = credentials.iter().map(|credential| Credential::new(credential, authority, &clock));
        Ok(Self {
            client_id: client_id.to_owned(),
            dialect: authority.dialect,
            credentials: credentials.collect::<Result<_, _>>()?,
            preferred: AtomicUsize::new(0),
            clock,
        })
    }

    pub(super) fn is_public(&self) -> bool {
        self.credentials.is_empty()
    }

    /// The managed identity that is the application itself: there is no registration beside it.
    pub(super) fn itself(&self) -> Option<&managed_identity::Identity> {
        self.credentials.iter().find_map(|credential| match credential {
            Credential::ManagedIdentity(identity) if self.client_id.is_empty() => Some(&**identity),
            _ => None,
        })
    }

    /// What to try, in this order. Never empty. A certificate that has expired is left out while there is anything else.
    pub(super) fn attempts(&self, methods: &Methods) -> Vec<Attempt<'_>> {
        let now = self.clock.now();
        let all_expired = self.credentials.iter().all(|credential| credential.has_expired(now));
        let mut attempts = Vec::new();
        for (place, credential) in self.credentials.iter().enumerate() {
            let attempt = |basic| Attempt { place, credential: Some(credential), basic };
            match credential {
                // A server that offers both may still hold each client to one of them.
                Credential::Secret { .. } => {
                    attempts.extend(methods.post.then(|| attempt(false)));
                    attempts.extend(methods.basic.then(|| attempt(true)));
                }
                Credential::Certificate(certificate) if !all_expired && certificate.has_expired(now) => {
                    if certificate.tell() {
                        let (client_id, number) = (&self.client_id, place + 1);
                        tracing::warn!(%client_id, number, "a certificate of the app registration has expired and is not used");
                    }
                }
                _ => attempts.push(attempt(false)),
            }
        }
        if attempts.is_empty() {
            attempts.push(Attempt { place: 0, credential: None, basic: false });
        }
        let preferred = self.preferred.load(Ordering::Relaxed);
        let exactly = attempts.iter().position(|attempt| attempt.id() == preferred);
        // It may have expired meanwhile, or not be wanted in this way: then the next one.
        let next = || attempts.iter().position(|attempt| attempt.place >= preferred / 2);
        let first = exactly.or_else(next).unwrap_or(0);
        attempts.rotate_left(first);
        attempts
    }

    /// Of the credential that worked last.
    pub(super) fn expiry(&self) -> Option<Timestamp> {
        match self.credentials.get(self.preferred.load(Ordering::Relaxed) / 2)? {
            Credential::Secret { expires, .. } => *expires,
            Credential::Certificate(certificate) => Some(certificate.not_after),
            Credential::File(_) | Credential::ManagedIdentity(_) => None,
        }
    }

    pub(super) fn accepted(&self, attempt: Attempt<'_>) -> Accepted {
        let before = self.preferred.swap(attempt.id(), Ordering::Relaxed);
        Accepted {
            number: attempt.place + 1,
            kind: attempt.credential.map_or("none", Credential::kind),
            changed: before / 2 != attempt.place,
        }
    }

    pub(super) fn refused(attempt: Attempt<'_>) {
        if let Some(Credential::ManagedIdentity(identity)) = attempt.credential {
            identity.forget();
        }
    }

    /// `form` with the credential in it, and the `Authorization` header that goes with it. An error says why the credential
    /// can't be used.
    pub(super) async fn apply(
        &self,
        attempt: Attempt<'_>,
        form: Form,
        target: &Target,
        deadline: &mut Deadline,
    ) -> Result<(Form, Option<HeaderValue>), TokenError> {
        let with_id = |form: Form| form.plain("client_id", &self.client_id);
        let unusable = |why: String| not_sent(Class::AppCredential, why);
        let assertion = match attempt.credential {
            None => return Ok((with_id(form), None)),
            Some(Credential::Secret { secret, .. }) if attempt.basic => {
                let credentials = basic(&self.client_id, secret);
                let text = Zeroizing::new(format!("Basic {}", credentials.expose()));
                let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
                value.set_sensitive(true);
                return Ok((form.beside(secret.clone()).beside(credentials), Some(value)));
            }
            Some(Credential::Secret { secret, .. }) => {
                return Ok((with_id(form).secret("client_secret", secret), None));
            }
            Some(Credential::Certificate(certificate)) => {
                certificate.assert(&self.client_id, target, self.dialect, self.clock.now()).map_err(unusable)?
            }
            Some(Credential::File(path)) => {
                let text = deadline.race(tokio::fs::read_to_string(path)).await;
                let text = text.map_err(|late| not_sent(Class::Retry, late))?.map(Zeroizing::new);
                let text =
                    text.map_err(|e| unusable(format!("the federated token file can't be read: {}", e.kind())))?;
                let assertion = Secret::from(text.trim());
                if assertion.expose().is_empty() {
                    return Err(unusable("the federated token file is empty".to_owned()));
                }
                assertion
            }
            Some(Credential::ManagedIdentity(identity)) => identity.assertion(deadline).await?,
        };
        let form = with_id(form).plain("client_assertion_type", ASSERTION_TYPE).secret("client_assertion", &assertion);
        Ok((form, None))
    }
}

/// RFC 6749, section 2.3.1: both parts are form-encoded first.
fn basic(client_id: &str, secret: &Secret<String>) -> Secret<String> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    BASE64_STANDARD.encode(pair.as_bytes()).into()
}

impl Credential {
    fn new(configured: &AppCredential, authority: &Authority, clock: &Clock) -> Result<Self, BuildError> {
        Ok(match configured {
            AppCredential::Secret { secret, expires } => Self::Secret { secret: secret.clone(), expires: *expires },
            AppCredential::FederatedTokenFile(path) => Self::File(path.clone()),
            AppCredential::ManagedIdentity(identity) => {
                let audience = authority.token_exchange_audience();
                Self::ManagedIdentity(Box::new(managed_identity::Identity::new(identity, audience, clock.clone())?))
            }
            AppCredential::Certificate { cert_pem, key_pem } => {
                let certificate = Certificate::new(cert_pem, key_pem, authority.dialect);
                Self::Certificate(certificate.map_err(|why| BuildError { key: "credentials".to_owned(), why })?)
            }
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Secret { .. } => "secret",
            Self::Certificate(_) => "certificate",
            Self::File(_) => "federated token file",
            Self::ManagedIdentity(_) => "managed identity",
        }
    }

    /// For sure. What the operator says of a secret is not believed against the provider.
    fn has_expired(&self, now: Timestamp) -> bool {
        matches!(self, Self::Certificate(certificate) if certificate.has_expired(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProviderKind;

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
        let credentials = [1, 2, 3].map(|at| AppCredential::Secret {
            secret: "s".into(),
            expires: (at > 1).then_some(Timestamp::from_secs(at)),
        });
        let clock = Clock::manual(Timestamp::from_secs(0));
        let kind = ProviderKind::Oidc { issuer: "https://idp.test".parse().unwrap() };
        let authority = Authority::new(&kind, clock.clone()).unwrap();
        let auth = ClientAuth::new("app", &authority, &credentials, clock).unwrap();
        let (post, both) = (Methods::entra(), Methods { post: true, basic: true, pss: true });
        let order = |methods: &Methods| auth.attempts(methods).iter().map(Attempt::id).collect::<Vec<_>>();
        assert_eq!((order(&post), auth.expiry()), (vec![0, 2, 4], None));
        for (attempt, changed, expiry) in [(5, true, 3), (4, false, 3), (2, true, 2), (2, false, 2)] {
            let attempts = auth.attempts(&both);
            let attempt = attempts.iter().find(|a| a.id() == attempt).unwrap();
            let accepted = auth.accepted(*attempt);
            assert_eq!((accepted.number, accepted.changed), (attempt.place + 1, changed));
            assert_eq!(auth.expiry(), Some(Timestamp::from_secs(expiry)));
        }
        assert_eq!(order(&post), [2, 4, 0]);
        assert_eq!(order(&both), [2, 3, 4, 5, 0, 1]);
    }
}

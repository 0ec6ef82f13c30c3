//! Where a provider's endpoints are. Entra's token endpoints follow from authority and tenant, so that a refresh needs no
//! discovery; a generic provider's are discovered. Whatever discovery says stays on https (or on the loopback interface,
//! where the configuration itself is there), and Entra's stays on the authority's own hosts.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;
use url::{Host, Url};

use super::cached::Cached;
pub(super) use super::classify::JWT_BEARER;
use super::client_auth::Methods;
use super::http::Http;
use super::{BuildError, Dialect, cloud};
use crate::clock::Clock;
use crate::config::{ProviderKind, is_several_tenants};

pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// After discovery failed.
const COOL_DOWN: Duration = Duration::from_secs(5);

pub(super) struct Authority {
    /// Entra: the authority with the tenant; generic: the issuer.
    base: Url,
    /// The tenant as configured; generic providers have none.
    pub(super) tenant: Option<String>,
    pub(super) dialect: Dialect,
    documents: Cached<Metadata>,
}

/// What we need of a discovery document, checked.
pub(super) struct Metadata {
    /// Verbatim. Entra's `common` and `organizations` have `{tenantid}` in it.
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) device_endpoint: Option<Url>,
    pub(super) revocation: Option<Target>,
    pub(super) jwks_uri: Url,
    /// Of identity tokens, the asymmetric ones.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) methods: Methods,
    /// The provider promises `iss` in its callbacks (RFC 9207).
    pub(super) names_itself: bool,
    pub(super) cloud_instance_name: Option<String>,
    /// Of the two ways to act on behalf of a user the provider names RFC 8693 and not RFC 7523.
    pub(super) exchanges_tokens: bool,
}

/// An endpoint and how it knows us.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) methods: Methods,
    /// A success may be one without a JSON object.
    pub(super) says_nothing: bool,
}

impl Target {
    pub(super) fn new(url: Url, methods: Methods) -> Self {
        Self { url, methods, says_nothing: false }
    }
}

impl Authority {
    pub(super) fn new(kind: &ProviderKind, clock: Clock) -> Result<Self, BuildError> {
        let (base, tenant, dialect, key) = match kind {
            ProviderKind::Entra { authority, tenant } => {
                (below(authority, &[tenant]), Some(tenant.clone()), Dialect::Entra, "authority")
            }
            ProviderKind::Oidc { issuer } => (issuer.clone(), None, Dialect::Oidc, "issuer"),
        };
        let wrong = |why: &str| BuildError { key: key.to_owned(), why: why.to_owned() };
        if base.cannot_be_a_base() || !matches!(base.scheme(), "https" | "http") {
            return Err(wrong("an https URL is needed"));
        }
        if base.scheme() == "http" && !is_loopback(&base) {
            return Err(wrong("plain http is for the loopback interface only"));
        }
        Ok(Self { base, tenant, dialect, documents: Cached::new(clock, COOL_DOWN) })
    }

    /// The configured origin speaks plain HTTP (on the loopback interface).
    pub(super) fn is_plaintext(&self) -> bool {
        self.base.scheme() == "http"
    }

    pub(super) async fn metadata(&self, http: &Http) -> Result<Arc<Metadata>, String> {
        self.documents
            .get(async |limit| {
                let body = http.get(&self.discovery_url(), limit).await?;
                let document = serde_json::from_slice(&body).map_err(|e| format!("the discovery document: {e}"))?;
                self.check(document).map_err(|why| format!("the discovery document: {why}"))
            })
            .await
    }

    pub(super) async fn target(&self, http: &Http) -> Result<Target, String> {
        match self.dialect {
            Dialect::Entra => Ok(Target::new(self.oauth2("token"), Methods::entra())),
            Dialect::Oidc => {
                let metadata = self.metadata(http).await?;
                Ok(Target::new(metadata.token_endpoint.clone(), metadata.methods.clone()))
            }
        }
    }

    pub(super) async fn authorization_endpoint(&self, http: &Http) -> Result<Url, String> {
        match self.dialect {
            Dialect::Entra => Ok(self.oauth2("authorize")),
            Dialect::Oidc => Ok(self.metadata(http).await?.authorization_endpoint.clone()),
        }
    }

    pub(super) async fn device_endpoint(&self, http: &Http) -> Result<Url, String> {
        match self.dialect {
            Dialect::Entra => Ok(self.oauth2("devicecode")),
            Dialect::Oidc => {
                let endpoint = self.metadata(http).await?.device_endpoint.clone();
                endpoint.ok_or_else(|| "the provider has no device flow".to_owned())
            }
        }
    }

    /// Where refresh tokens are given back; Entra has no such place.
    pub(super) async fn revocation(&self, http: &Http) -> Result<Option<Target>, String> {
        match self.dialect {
            Dialect::Entra => Ok(None),
            Dialect::Oidc => Ok(self.metadata(http).await?.revocation.clone()),
        }
    }

    /// Why tokens without a signed-in user can't be had here.
    pub(super) fn one_tenant(&self, provider: &str) -> Result<(), String> {
        match &self.tenant {
            Some(tenant) if is_several_tenants(tenant) => {
                Err(format!("providers.{provider}.tenant has to name one tenant for this, not {tenant:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Of tokens that stand in for a credential of an app registration.
    pub(super) fn token_exchange_audience(&self) -> &'static str {
        cloud::token_exchange_audience(self.base.host_str().unwrap_or_default())
    }

    fn oauth2(&self, what: &str) -> Url {
        below(&self.base, &["oauth2", "v2.0", what])
    }

    fn discovery_url(&self) -> Url {
        let version: &[&str] = if self.dialect == Dialect::Entra { &["v2.0"] } else { &[] };
        below(&below(&self.base, version), &[".well-known", "openid-configuration"])
    }

    fn check(&self, document: Document) -> Result<Metadata, String> {
        match self.dialect {
            Dialect::Oidc if trimmed(&document.issuer) != trimmed(self.base.as_str()) => {
                return Err(format!("it is {:?} who speaks, not {:?}", document.issuer, self.base.as_str()));
            }
            Dialect::Oidc => {}
            Dialect::Entra => {
                let issuer = Url::parse(&document.issuer).map_err(|e| format!("issuer: {e}"))?;
                self.check_place("issuer", &issuer)?;
            }
        }
        let place = |name: &str, text: &str| {
            let url = Url::parse(text).map_err(|e| format!("{name}: {e}"))?;
            self.check_place(name, &url).map(|()| url)
        };
        let algorithms = match &document.id_token_signing_alg_values_supported {
            _ if self.dialect == Dialect::Entra => vec![Algorithm::RS256],
            None => vec![Algorithm::RS256],
            Some(names) => names.iter().filter_map(|name| name.parse().ok()).filter(|a| is_asymmetric(*a)).collect(),
        };
        if algorithms.is_empty() {
            return Err("no signature algorithm that can be accepted".to_owned());
        }
        let methods = match self.dialect {
            Dialect::Entra => Methods::entra(),
            Dialect::Oidc => Methods::discovered(
                document.token_endpoint_auth_methods_supported.as_deref(),
                document.token_endpoint_auth_signing_alg_values_supported.as_deref(),
            ),
        };
        let revocation = document.revocation_endpoint.as_deref().map(|text| {
            let url = place("revocation_endpoint", text)?;
            let own = document.revocation_endpoint_auth_methods_supported.as_deref();
            let algorithms = document.token_endpoint_auth_signing_alg_values_supported.as_deref();
            // RFC 8414 means client_secret_basic by silence; who is silent here nearly always means the token endpoint's methods.
            let methods = own.map_or_else(|| methods.clone(), |own| Methods::discovered(Some(own), algorithms));
            Ok::<_, String>(Target { says_nothing: true, ..Target::new(url, methods) })
        });
        let grants = document.grant_types_supported.unwrap_or_default();
        let offers = |grant: &str| grants.iter().any(|offered| offered == grant);
        Ok(Metadata {
            jwks_uri: place("jwks_uri", &document.jwks_uri)?,
            authorization_endpoint: place("authorization_endpoint", &document.authorization_endpoint)?,
            token_endpoint: place("token_endpoint", &document.token_endpoint)?,
            device_endpoint: document
                .device_authorization_endpoint
                .as_deref()
                .map(|text| place("device_authorization_endpoint", text))
                .transpose()?,
            revocation: revocation.transpose()?,
            issuer: document.issuer,
            algorithms,
            methods,
            names_itself: document.authorization_response_iss_parameter_supported,
            cloud_instance_name: document.cloud_instance_name,
            exchanges_tokens: offers(TOKEN_EXCHANGE) && !offers(JWT_BEARER),
        })
    }

    /// Whether an address that discovery named may be used.
    fn check_place(&self, name: &str, url: &Url) -> Result<(), String> {
        let local = self.is_plaintext() && url.scheme() == "http" && is_loopback(url);
        if url.scheme() != "https" && !local {
            return Err(format!("{name} is not https"));
        }
        let (here, there) = (self.base.host_str().unwrap_or_default(), url.host_str().unwrap_or_default());
        if self.dialect == Dialect::Entra && !cloud::is_one_cloud(here, there) {
            return Err(format!("{name} is on another host, {there:?}"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    revocation_endpoint_auth_methods_supported: Option<Vec<String>>,
    grant_types_supported: Option<Vec<String>>,
    jwks_uri: String,
    id_token_signing_alg_values_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    cloud_instance_name: Option<String>,
}

fn is_asymmetric(algorithm: Algorithm) -> bool {
    algorithm.family() != AlgorithmFamily::Hmac
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

pub(super) fn below(url: &Url, segments: &[&str]) -> Url {
    let mut url = url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// An issuer as it stands in the key of an account.
pub(super) fn trimmed(issuer: &str) -> &str {
    issuer.strip_suffix('/').unwrap_or(issuer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;

    fn authority(kind: &ProviderKind) -> Result<Authority, BuildError> {
        Authority::new(kind, Clock::manual(Timestamp::from_secs(0)))
    }

    fn entra(authority_url: &str, tenant: &str) -> Result<Authority, BuildError> {
        authority(&ProviderKind::Entra { authority: authority_url.parse().unwrap(), tenant: tenant.to_owned() })
    }

    fn oidc(issuer: &str) -> Result<Authority, BuildError> {
        authority(&ProviderKind::Oidc { issuer: issuer.parse().unwrap() })
    }

    fn document(issuer: &str, origin: &str) -> Document {
        serde_json::from_value(json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{origin}/authorize"),
            "token_endpoint": format!("{origin}/token"),
            "jwks_uri": format!("{origin}/keys"),
        }))
        .unwrap()
    }

    #[test]
    fn endpoints_of_entra() {
        let authority = entra("https://login.microsoftonline.com", "organizations").unwrap();
        let base = "https://login.microsoftonline.com/organizations";
        assert_eq!(authority.oauth2("token").as_str(), format!("{base}/oauth2/v2.0/token"));
        assert_eq!(authority.discovery_url().as_str(), format!("{base}/v2.0/.well-known/openid-configuration"));
        let strange = entra("https://login.microsoftonline.com/", "a/../b?").unwrap();
        assert_eq!(strange.oauth2("token").path(), "/a%2F..%2Fb%3F/oauth2/v2.0/token");
    }

    #[test]
    fn discovery_of_a_generic_provider() {
        for (issuer, expected) in [
            ("https://idp.test", "https://idp.test/.well-known/openid-configuration"),
            ("https://idp.test/realms/a", "https://idp.test/realms/a/.well-known/openid-configuration"),
            ("https://idp.test/realms/a/", "https://idp.test/realms/a/.well-known/openid-configuration"),
        ] {
            assert_eq!(oidc(issuer).unwrap().discovery_url().as_str(), expected);
        }
    }

    #[test]
    fn plain_http_is_for_loopback() {
        assert!(oidc("http://idp.test").is_err());
        assert!(oidc("ftp://idp.test").is_err());
        for here in ["http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9"] {
            assert!(oidc(here).is_ok_and(|authority| authority.is_plaintext()), "{here}");
        }
    }

    #[test]
    fn the_issuer_must_be_the_one_that_was_asked() {
        let generic = oidc("https://idp.test/a").unwrap();
        assert!(generic.check(document("https://idp.test/a/", "https://keys.test")).is_ok());
        for other in ["https://idp.test/b", "https://idp.test", "https://idp.test/a/b", "HTTPS://idp.test/a", ""] {
            assert!(generic.check(document(other, "https://idp.test")).is_err(), "{other:?}");
        }
    }

    #[test]
    fn endpoints_stay_encrypted_and_entra_stays_at_home() {
        let generic = oidc("https://idp.test").unwrap();
        for origin in ["http://idp.test", "http://127.0.0.1:1", "file://", "javascript:"] {
            assert!(generic.check(document("https://idp.test", origin)).is_err(), "{origin}");
            let mut revoking = document("https://idp.test", "https://idp.test");
            revoking.revocation_endpoint = Some(format!("{origin}/revoke"));
            assert!(generic.check(revoking).is_err(), "{origin}");
        }
        let cloud = entra("https://login.microsoftonline.com", "common").unwrap();
        let issuer = "https://login.microsoftonline.com/{tenantid}/v2.0";
        assert!(cloud.check(document(issuer, "https://login.microsoftonline.com")).is_ok());
        assert!(cloud.check(document(issuer, "https://login.windows.net")).is_ok(), "an alias");
        assert!(cloud.check(document(issuer, "https://login.microsoftonline.us")).is_err(), "another cloud");
        assert!(cloud.check(document(issuer, "https://evil.test")).is_err());
        assert!(cloud.check(document("https://evil.test/v2.0", "https://login.microsoftonline.com")).is_err());
    }

    #[test]
    fn one_tenant_where_nobody_signs_in() {
        for (tenant, expected) in
            [("common", false), ("Organizations", false), ("consumers", false), ("contoso.com", true)]
        {
            assert_eq!(entra("https://login.test", tenant).unwrap().one_tenant("a").is_ok(), expected, "{tenant}");
        }
        assert_eq!(oidc("https://idp.test").unwrap().one_tenant("a"), Ok(()));
    }

    #[test]
    fn signature_algorithms() {
        let generic = oidc("https://idp.test").unwrap();
        let with = |algorithms: &[&str]| {
            let mut document = document("https://idp.test", "https://idp.test");
            document.id_token_signing_alg_values_supported = Some(algorithms.iter().map(|a| (*a).into()).collect());
            generic.check(document).map(|metadata| metadata.algorithms)
        };
        assert_eq!(with(&["none", "HS256", "ES256", "PS256", "ES512"]), Ok(vec![Algorithm::ES256, Algorithm::PS256]));
        assert!(with(&["HS256", "none"]).is_err());
    }
}

//! Whose token it is that a caller presents: an access token (RFC 9068, or Entra's own shape) of an issuer that the configuration
//! trusts, for one of the audiences that it names. A token that breaks any rule is nobody's; what it carries along (`jwk`, `jku`,
//! `x5u`, `x5c`) is ignored and never fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::authority::{below, is_loopback, trimmed};
use super::cached::Cached;
use super::classify::printable;
use super::http::Http;
use super::id_token::{LEEWAY, Refused, Token, is_guid, of_tenant};
use super::jwks::{COOL_DOWN, Key, Keys, NoKey};
use super::{BuildError, Dialect, jwt};
use crate::clock::{Clock, Timestamp};
use crate::config::JwtIssuer;

/// Everything that is asymmetric and that we can check.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// RFC 9068, section 4; and what issuers said before it.
const TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];

/// What checks the tokens of one issuer.
pub struct Verifier {
    issuer: String,
    audience: Vec<String>,
    required: BTreeMap<String, String>,
    account_claim: Option<String>,
    clock: Clock,
    http: Http,
    place: Place,
    keys: Keys,
}

/// Where the keys are.
enum Place {
    Configured(Url),
    /// Below the issuer is a document that says it.
    Discovered {
        base: Url,
        found: Cached<Url>,
    },
}

/// A token that passed every rule.
#[derive(Clone, Debug)]
pub struct Verified {
    /// `tid` and `oid` where the issuer is that tenant's; else the issuer and `sub`.
    pub tenant: String,
    pub subject: String,
    /// For people to read.
    pub name: Option<String>,
    /// What the account claim says, where one is configured.
    pub account: Option<String>,
    pub expires: Timestamp,
    pub claims: Map<String, Value>,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It breaks a rule; the text names it.
    #[error("the token was refused: {0}")]
    Refused(String),
    /// The issuer's keys can't be had.
    #[error("the keys of the token's issuer can't be had: {0}")]
    Unavailable(String),
}

impl Verifier {
    pub fn new(config: &JwtIssuer, clock: Clock) -> Result<Self, BuildError> {
        jwt::install();
        let wrong = |why: &str| BuildError { key: "issuer".to_owned(), why: why.to_owned() };
        let base = Url::parse(&config.issuer).map_err(|error| wrong(&error.to_string()))?;
        let plaintext = [Some(&base), config.jwks_url.as_ref()].into_iter().flatten().any(|url| url.scheme() == "http");
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            required: config.required.clone(),
            account_claim: config.account_claim.clone(),
            http: Http::new(Dialect::Oidc, config.ca_pem.as_deref(), plaintext)?,
            place: match &config.jwks_url {
                Some(url) => Place::Configured(url.clone()),
                None => Place::Discovered { base, found: Cached::new(clock.clone(), COOL_DOWN) },
            },
            keys: Keys::new(clock.clone()),
            clock,
        })
    }

    /// What stands in `iss` of the tokens that are checked here.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub async fn verify(&self, token: &str) -> Result<Verified, VerifyError> {
        let token = Token::parse(token)?;
        let algorithm = token.algorithm(&ALGORITHMS, &TYPES)?;
        let kid = token.kid(Dialect::Entra)?;
        // Before its signature: what costs nothing, so that only a token that could be good costs a look at the keys.
        let expires = self.lifetime(&token)?;
        self.issued_by(&token)?;
        self.meant_for_us(&token)?;
        self.has_what_is_required(&token)?;
        no_identity_token(&token)?;
        let place = self.place().await.map_err(VerifyError::Unavailable)?;
        let (keys, index) = self.keys.having(&self.http, &place, kid, algorithm).await?;
        let key = &keys[index];
        token.check_signature(key, algorithm)?;
        issuer_of_key(&token, key)?;
        let (tenant, subject) = named_by(&token)?;
        Ok(Verified {
            tenant,
            subject,
            name: name(&token.claims),
            account: self.account(&token)?,
            expires,
            claims: token.claims,
        })
    }

    async fn place(&self) -> Result<Arc<Url>, String> {
        match &self.place {
            Place::Configured(url) => Ok(Arc::new(url.clone())),
            Place::Discovered { base, found } => {
                let fetch = async |limit| {
                    let body = self.http.get(&below(base, &[".well-known", "openid-configuration"]), limit).await?;
                    discovered(&body, &self.issuer).map_err(|why| format!("the discovery document: {why}"))
                };
                found.get(fetch).await
            }
        }
    }

    fn issued_by(&self, token: &Token<'_>) -> Result<(), Refused> {
        let issuer = token.text("iss")?;
        if issuer == self.issuer { Ok(()) } else { Err(format!("its issuer is {:?}", printable(issuer, 200)).into()) }
    }

    fn meant_for_us(&self, token: &Token<'_>) -> Result<(), Refused> {
        let ours = |audience: &Value| self.audience.iter().any(|ours| audience.as_str() == Some(ours));
        match token.claims.get("aud") {
            Some(one @ Value::String(_)) if ours(one) => Ok(()),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) && list.iter().any(ours) => Ok(()),
            Some(Value::String(_) | Value::Array(_)) => Err("its audience is another".into()),
            Some(_) => Err("its aud is neither text nor a list".into()),
            None => Err("it has no aud".into()),
        }
    }

    fn lifetime(&self, token: &Token<'_>) -> Result<Timestamp, Refused> {
        let now = self.clock.now().secs();
        let expires = token.time("exp")?.ok_or("it has no exp")?;
        let begins = token.time("nbf")?.max(token.time("iat")?);
        if expires.saturating_add(LEEWAY) <= now {
            return Err("it has expired".into());
        }
        if begins.is_some_and(|begins| begins > now.saturating_add(LEEWAY)) {
            return Err("it is from the future; is the clock right?".into());
        }
        Ok(Timestamp::from_secs(expires))
    }

    fn has_what_is_required(&self, token: &Token<'_>) -> Result<(), Refused> {
        let lacking = self.required.iter().find(|(name, value)| !says(name, token.claims.get(*name), value));
        match lacking {
            Some((name, _)) => Err(format!("its {name} is not the one that is required").into()),
            None => Ok(()),
        }
    }

    /// Where a claim selects the account, a token without it could select any: it selects none.
    fn account(&self, token: &Token<'_>) -> Result<Option<String>, Refused> {
        self.account_claim.as_ref().map(|claim| token.text(claim).map(str::to_owned)).transpose()
    }
}

impl Verified {
    /// A user stands behind the token, and not the calling application itself.
    pub fn is_of_a_user(&self) -> bool {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let delegated = text("scp").or_else(|| text("scope")).is_some();
        let subject = text("sub");
        let itself = ["azp", "appid", "client_id"].iter().any(|name| subject.is_some() && text(name) == subject);
        delegated && text("idtyp").is_none_or(|kind| !kind.eq_ignore_ascii_case("app")) && !itself
    }
}

/// Who a token says that it is from, if it is a JSON Web Token at all. Nothing is checked: it only chooses who checks.
pub fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.iss)
}

/// It tells an application who signed in. It may have our audience and issuer, even roles, and gives nobody access to anything. Entra
/// names the application that calls in each access token, and in no identity token; Keycloak says `typ`.
fn no_identity_token(token: &Token<'_>) -> Result<(), Refused> {
    let has = |names: &[&str]| names.iter().any(|name| token.claims.contains_key(*name));
    let is_one = has(&["at_hash", "c_hash"])
        || token.claims.get("typ").and_then(Value::as_str) == Some("ID")
        || (has(&["nonce"]) && !has(&["scp", "scope", "roles"]))
        || (tenant_of_issuer(token).is_some() && !has(&["azp", "appid"]));
    if is_one { Err("it is an identity token, not an access token".into()) } else { Ok(()) }
}

/// Entra says for which issuer a key may speak: a key of personal accounts must not speak for an organisation's.
fn issuer_of_key(token: &Token<'_>, key: &Key) -> Result<(), Refused> {
    let tenant = token.claims.get("tid").and_then(Value::as_str).unwrap_or_default();
    match &key.issuer {
        Some(issuer) if of_tenant(issuer, tenant) != token.text("iss")? => Err("its key is another issuer's".into()),
        _ => Ok(()),
    }
}

/// `tid` and `oid` are believed of the issuer that is that tenant only: another could name anybody.
fn named_by(token: &Token<'_>) -> Result<(String, String), Refused> {
    let issuer = token.text("iss")?;
    let subject = token.text("sub")?;
    if let (Some(tenant), Ok(object)) = (tenant_of_issuer(token), token.text("oid")) {
        return Ok((tenant.to_ascii_lowercase(), object.to_ascii_lowercase()));
    }
    Ok((trimmed(issuer).to_owned(), subject.to_owned()))
}

/// Of Entra, whose issuers name their tenant.
fn tenant_of_issuer<'t>(token: &'t Token<'_>) -> Option<&'t str> {
    let (issuer, tenant) = (token.text("iss").ok()?, token.text("tid").ok()?);
    (is_guid(tenant) && issuer.split('/').any(|segment| segment == tenant)).then_some(tenant)
}

fn name(claims: &Map<String, Value>) -> Option<String> {
    ["preferred_username", "upn", "unique_name", "email", "name"].iter().find_map(|name| {
        let text = printable(claims.get(*name)?.as_str()?, 320);
        (!text.is_empty()).then_some(text)
    })
}

/// A claim of one value, or of several of which this is one.
fn says(name: &str, claim: Option<&Value>, value: &str) -> bool {
    match claim {
        Some(Value::String(words)) if matches!(name, "scp" | "scope") => words.split(' ').any(|word| word == value),
        Some(Value::String(text)) => text == value,
        Some(Value::Array(list)) => list.iter().any(|item| item.as_str() == Some(value)),
        Some(Value::Bool(flag)) => flag.to_string() == value,
        Some(Value::Number(number)) => number.to_string() == value,
        _ => false,
    }
}

/// The address of the keys, from the issuer's own document.
fn discovered(body: &[u8], issuer: &str) -> Result<Url, String> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let jwks_uri = Url::parse(&document.jwks_uri).map_err(|error| format!("jwks_uri: {error}"))?;
    if trimmed(&document.issuer) != trimmed(issuer) {
        return Err(format!("it is {:?} who speaks, not {issuer:?}", document.issuer));
    }
    let local = issuer.starts_with("http://") && is_loopback(&jwks_uri);
    match jwks_uri.scheme() {
        "https" => Ok(jwks_uri),
        "http" if local => Ok(jwks_uri),
        _ => Err("jwks_uri is not https".to_owned()),
    }
}

impl From<Refused> for VerifyError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Rule(why) | Refused::Tenant(why) | Refused::Keys(why) | Refused::Clock(why) => Self::Refused(why),
            Refused::Discovery(why) => Self::Unavailable(why),
        }
    }
}

impl From<NoKey> for VerifyError {
    fn from(no: NoKey) -> Self {
        match no {
            NoKey::Unreachable(why) => Self::Unavailable(why),
            NoKey::Unknown(why) => Self::Refused(why),
        }
    }
}

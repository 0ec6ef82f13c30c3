//! Who signed in, by an identity token. Every rule is one function with its own text; a token that breaks any of them names
//! nobody. What a token carries along (`jwk`, `jku`, `x5u`, `x5c`) is ignored and never fetched.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use ring::digest;
use serde_json::{Map, Value};

use super::authority::{Metadata, trimmed};
use super::classify::printable;
use super::jwks::{Key, NoKey};
use super::{Dialect, Identity, Inner, SignInError, json};
use crate::account::AccountKey;
use crate::clock::Timestamp;

const LONGEST_TOKEN: usize = 256_000;
/// How far a provider's clock may be from ours, in seconds.
pub(super) const LEEWAY: i64 = 300;
/// The tenant of personal Microsoft accounts.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// What the token has to go with.
pub(super) struct Wanted<'a> {
    /// As sent with the sign-in.
    pub(super) nonce: Option<&'a str>,
    /// From the same reply.
    pub(super) access_token: Option<&'a str>,
}

/// Why a token names nobody.
#[derive(Debug)]
pub(super) enum Refused {
    Rule(String),
    Tenant(String),
    /// The keys can't be had, or are older than the token's.
    Keys(String),
    Discovery(String),
    /// Too old or too new, by our clock.
    Clock(String),
}

impl From<String> for Refused {
    fn from(rule: String) -> Self {
        Self::Rule(rule)
    }
}

impl From<&str> for Refused {
    fn from(rule: &str) -> Self {
        Self::Rule(rule.to_owned())
    }
}

impl From<Refused> for SignInError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Rule(text) | Refused::Keys(text) | Refused::Clock(text) => Self::Identity(text),
            Refused::Tenant(tenant) => Self::Tenant(tenant),
            Refused::Discovery(text) => Self::Discovery(text),
        }
    }
}

impl Inner {
    pub(super) async fn identify(&self, text: &str, wanted: Wanted<'_>) -> Result<Identity, Refused> {
        let token = Token::parse(text)?;
        let metadata = self.authority.metadata(&self.http).await.map_err(Refused::Discovery)?;
        let algorithm = token.algorithm(&metadata.algorithms, &["JWT"])?;
        let kid = token.kid(self.authority.dialect)?;
        let (keys, index) =
            self.keys.having(&self.http, &metadata.jwks_uri, kid, algorithm).await.map_err(|no| match no {
                NoKey::Unreachable(why) => Refused::Discovery(why),
                NoKey::Unknown(why) => Refused::Keys(why),
            })?;
        let key = &keys[index];
        token.check_signature(key, algorithm)?;
        let context = Context { inner: self, metadata: &metadata, key, algorithm, wanted, now: self.clock.now() };
        RULES.iter().try_for_each(|rule| rule(&token, &context))?;
        self.named_by(&token)
    }

    /// Whom the token names, by its own word alone. For a token that came over TLS from the token endpoint while the keys can't
    /// be had (OpenID Connect Core 1.0, section 3.1.3.7, rule 6).
    pub(super) fn identify_unsigned(&self, text: &str) -> Result<Identity, Refused> {
        self.named_by(&Token::parse(text)?)
    }

    fn named_by(&self, token: &Token<'_>) -> Result<Identity, Refused> {
        let (tenant, subject) = match self.authority.dialect {
            Dialect::Entra => (token.text("tid")?.to_ascii_lowercase(), token.text("oid")?.to_ascii_lowercase()),
            // Issuers with and without a slash at the end are one: discovery compares them so, too.
            Dialect::Oidc => (trimmed(token.text("iss")?).to_owned(), token.text("sub")?.to_owned()),
        };
        let shown = |name: &str| {
            let text = printable(token.claims.get(name)?.as_str()?, 320);
            (!text.is_empty()).then_some(text)
        };
        Ok(Identity {
            key: AccountKey { provider: self.id.clone(), tenant, subject },
            username: shown("preferred_username").or_else(|| shown("email")).or_else(|| shown("upn")),
            name: shown("name"),
        })
    }
}

/// A token taken apart; nothing in it is believed yet.
pub(super) struct Token<'a> {
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    message: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > LONGEST_TOKEN {
            return Err("it is too long".into());
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err("it has not three parts".into());
        };
        let object = |part: &str, name: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("its {name} is not base64url"))?;
            json::object(&bytes).map_err(|e| format!("its {name} can't be read: {e}"))
        };
        let token = Self {
            header: object(header, "header")?,
            claims: object(claims, "payload")?,
            message: &text[..header.len() + 1 + claims.len()],
            signature,
        };
        // Whoever reads claims without regard to case would read another one.
        let mut names: Vec<String> = token.claims.keys().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two of its claims differ by upper and lower case only".into());
        }
        Ok(token)
    }

    /// `types`: what the token may say that it is, in any case; it need not say it.
    pub(super) fn algorithm(&self, allowed: &[Algorithm], types: &[&str]) -> Result<Algorithm, Refused> {
        if self.header.contains_key("crit") {
            return Err("it has a crit header".into());
        }
        // Access tokens, logout tokens and the like name their type; identity tokens are plain.
        let fits = |kind: &Value| kind.as_str().is_some_and(|kind| types.iter().any(|t| t.eq_ignore_ascii_case(kind)));
        if self.header.get("typ").is_some_and(|kind| !fits(kind)) {
            return Err(format!("its typ is not {}", types.join(" or ")).into());
        }
        let name = self.header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let known = name.parse().ok().filter(|algorithm| allowed.contains(algorithm));
        known.ok_or_else(|| format!("its alg {:?} is not allowed", printable(name, 20)).into())
    }

    pub(super) fn kid(&self, dialect: Dialect) -> Result<Option<&str>, Refused> {
        match self.header.get("kid") {
            Some(Value::String(kid)) => Ok(Some(kid)),
            None if dialect == Dialect::Oidc => Ok(None),
            None => Err("it has no kid".into()),
            Some(_) => Err("its kid is no text".into()),
        }
    }

    pub(super) fn check_signature(&self, key: &Key, algorithm: Algorithm) -> Result<(), Refused> {
        match jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key.decoding, algorithm) {
            Ok(true) => Ok(()),
            _ => Err("its signature is wrong".into()),
        }
    }

    /// A claim that has to be there, as text.
    pub(super) fn text(&self, name: &str) -> Result<&str, Refused> {
        match self.claims.get(name) {
            Some(Value::String(text)) if !text.is_empty() && text.len() <= 1024 => Ok(text),
            Some(_) => Err(format!("its {name} is no text, or too long").into()),
            None => Err(format!("it has no {name}").into()),
        }
    }

    /// A time that is not negative, in whole seconds.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Refused> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let seconds = value.as_i64().filter(|seconds| *seconds >= 0);
        seconds.map(Some).ok_or_else(|| format!("its {name} is no time").into())
    }
}

struct Context<'a> {
    inner: &'a Inner,
    metadata: &'a Metadata,
    key: &'a Key,
    algorithm: Algorithm,
    wanted: Wanted<'a>,
    now: Timestamp,
}

type Rule = fn(&Token<'_>, &Context<'_>) -> Result<(), Refused>;

const RULES: &[Rule] = &[
    tenant_shape,
    issuer,
    issuer_of_key,
    cloud_of_key,
    tenant_allowed,
    audience,
    lifetime,
    nonce,
    subject,
    access_hash,
];

fn is_entra(context: &Context<'_>) -> bool {
    context.inner.authority.dialect == Dialect::Entra
}

fn tenant_shape(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    if is_entra(context) && !is_guid(token.text("tid")?) {
        return Err("its tid is no GUID".into());
    }
    Ok(())
}

fn issuer(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    let issuer = token.text("iss")?;
    let wrong = || Err(format!("its issuer is {:?}", printable(issuer, 200)).into());
    if !is_entra(context) {
        return if issuer == context.metadata.issuer { Ok(()) } else { wrong() };
    }
    let tenant = token.text("tid")?;
    let in_path = issuer.split('/').any(|segment| segment == tenant);
    if in_path && issuer == of_tenant(&context.metadata.issuer, tenant) { Ok(()) } else { wrong() }
}

/// A key of personal accounts must not speak for an organisation's.
fn issuer_of_key(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    match &context.key.issuer {
        Some(issuer) if is_entra(context) && of_tenant(issuer, token.text("tid")?) != token.text("iss")? => {
            Err("its key is another issuer's".into())
        }
        _ => Ok(()),
    }
}

fn cloud_of_key(_: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    match (&context.key.cloud_instance_name, &context.metadata.cloud_instance_name) {
        (Some(of_key), Some(ours)) if of_key != ours => Err("its key is another cloud's".into()),
        _ => Ok(()),
    }
}

fn tenant_allowed(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    let Some(configured) = &context.inner.authority.tenant else { return Ok(()) };
    let tenant = token.text("tid")?;
    let is = |other: &str| tenant.eq_ignore_ascii_case(other);
    let listed = &context.inner.allowed_tenants;
    let fits = match configured.as_str() {
        "organizations" => !is(CONSUMERS),
        "consumers" => is(CONSUMERS),
        guid if is_guid(guid) => is(guid),
        _ => true,
    };
    let allowed = listed.is_empty() || listed.iter().any(|other| is(other));
    if fits && allowed { Ok(()) } else { Err(Refused::Tenant(tenant.to_owned())) }
}

fn audience(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    let ours = Value::from(context.inner.client_id.as_str());
    let several = match token.claims.get("aud") {
        Some(one @ Value::String(_)) if *one == ours => false,
        Some(Value::Array(list)) if list.contains(&ours) && list.iter().all(Value::is_string) => list.len() > 1,
        Some(Value::String(_) | Value::Array(_)) => return Err("its audience is not this application".into()),
        Some(_) => return Err("its aud is neither text nor a list".into()),
        None => return Err("it has no aud".into()),
    };
    match token.claims.get("azp") {
        Some(party) if *party != ours => Err("its authorized party is another application".into()),
        None if several => Err("it has several audiences and no azp".into()),
        _ => Ok(()),
    }
}

fn lifetime(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    let now = context.now.secs();
    let expires = token.time("exp")?.ok_or("it has no exp")?;
    let issued = token.time("iat")?.ok_or("it has no iat")?;
    let valid_from = token.time("nbf")?.unwrap_or(issued);
    if expires.saturating_add(LEEWAY) <= now {
        return Err(Refused::Clock("it has expired".to_owned()));
    }
    if valid_from.max(issued) > now.saturating_add(LEEWAY) {
        return Err(Refused::Clock("it is from the future; is the clock right?".to_owned()));
    }
    Ok(())
}

fn nonce(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    match context.wanted.nonce {
        Some(sent) if token.claims.get("nonce").and_then(Value::as_str) != Some(sent) => {
            Err("its nonce is not the one that was sent".into())
        }
        _ => Ok(()),
    }
}

fn subject(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    token.text("sub")?;
    if is_entra(context) {
        token.text("oid")?;
    }
    Ok(())
}

/// OpenID Connect Core 1.0, section 3.1.3.6.
fn access_hash(token: &Token<'_>, context: &Context<'_>) -> Result<(), Refused> {
    let (Some(claimed), Some(access_token)) = (token.claims.get("at_hash"), context.wanted.access_token) else {
        return Ok(());
    };
    let algorithm = match context.algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::PS512 => &digest::SHA512,
        other if other.family() == AlgorithmFamily::Ed => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let hash = digest::digest(algorithm, access_token.as_bytes());
    let half = BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2]);
    if claimed.as_str() == Some(&half) { Ok(()) } else { Err("its at_hash is not the access token's".into()) }
}

/// Entra's issuer for one tenant, from its template.
pub(super) fn of_tenant(issuer: &str, tenant: &str) -> String {
    issuer.replace("{tenantid}", tenant)
}

pub(super) fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

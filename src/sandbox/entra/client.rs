//! Whether the application is who it says: secret by post or Basic, client assertion, or nothing for a public client.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey};
use serde_json::{Value, json};

use super::form::Form;
use super::{State, federation, jwt};
use crate::sandbox::fault::TokenFault;
use crate::sandbox::locked;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SKEW: i64 = 300;

/// How the application proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ClientAuth {
    Public,
    SecretPost,
    SecretBasic,
    /// By a registered certificate.
    Assertion,
    /// A token of somebody else: a managed identity, a cluster.
    Federated,
}

/// AADSTS7000218: a confidential client without a credential.
pub(super) const NO_CREDENTIAL: u32 = 7_000_218;

/// Judges the client of a token request: what it presented, and whether that will do; the error is Entra's.
pub(super) fn check(
    state: &State,
    headers: &HeaderMap,
    form: &Form,
) -> (Option<ClientAuth>, Result<ClientAuth, TokenFault>) {
    let basic = basic(headers);
    let named = form.value("client_id").or(basic.as_ref().map(|(id, _)| id.as_str()));
    match named {
        None => return (None, Err(TokenFault::aadsts(900_144))),
        Some(named) if named != state.options.client_id => return (None, Err(TokenFault::aadsts(700_016))),
        Some(_) => {}
    }
    let how = match (form.value("client_assertion"), form.value("client_secret"), &basic) {
        (Some(assertion), ..) if federation::is_foreign(state, assertion) => ClientAuth::Federated,
        (Some(_), ..) => ClientAuth::Assertion,
        (None, Some(_), _) => ClientAuth::SecretPost,
        (None, None, Some(_)) => ClientAuth::SecretBasic,
        (None, None, None) => ClientAuth::Public,
    };
    let secret = form.value("client_secret").or(basic.as_ref().map(|(_, secret)| secret.as_str()));
    (Some(how), judge(state, form, secret, how).map(|()| how))
}

/// Header and claims of an assertion, for the record.
pub(super) fn shown(assertion: &str) -> Option<Value> {
    let mut parts = assertion.split('.');
    let (header, claims) = (jwt::decode(parts.next()?)?, jwt::decode(parts.next()?)?);
    Some(json!({ "header": header, "claims": claims }))
}

fn judge(state: &State, form: &Form, secret: Option<&str>, how: ClientAuth) -> Result<(), TokenFault> {
    if how == ClientAuth::Public {
        return if confidential(state) { Err(TokenFault::aadsts(NO_CREDENTIAL)) } else { Ok(()) };
    }
    if !confidential(state) {
        return Err(TokenFault::aadsts(700_025));
    }
    if let Some(assertion) = form.value("client_assertion") {
        if form.value("client_assertion_type") != Some(ASSERTION) {
            return Err(TokenFault::aadsts(900_144));
        }
        return match how {
            ClientAuth::Federated => federation::check(state, assertion),
            _ => check_assertion(state, assertion),
        };
    }
    match &state.options.client_secret {
        Some(expected) if Some(expected.as_str()) == secret => Ok(()),
        _ => Err(TokenFault::aadsts(7_000_215)),
    }
}

fn confidential(state: &State) -> bool {
    state.options.client_secret.is_some() || state.options.client_certificate.is_some()
}

/// Client id and secret of a Basic header, each form-encoded inside (RFC 6749, 2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |part: &str| {
        let pair = format!("x={part}");
        form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}

/// A client assertion is a JWT of the client for this token endpoint, in its time, and, if that is asked for, never seen before.
fn check_assertion(state: &State, assertion: &str) -> Result<(), TokenFault> {
    let bad = || TokenFault::aadsts(700_027);
    let (input, signature) = assertion.rsplit_once('.').ok_or_else(bad)?;
    let (header, claims) = input.split_once('.').ok_or_else(bad)?;
    let header = jwt::decode(header).ok_or_else(bad)?;
    let claims = jwt::decode(claims).ok_or_else(bad)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| !bytes.is_empty()).ok_or_else(bad)?;
    if let Some(certificate) = &state.options.client_certificate {
        verify(certificate, &header, input.as_bytes(), &signature).ok_or_else(bad)?;
    }
    if claims["iss"].as_str() != Some(&state.options.client_id) {
        return Err(bad());
    }
    if claims["sub"] != claims["iss"] {
        return Err(TokenFault::aadsts(50048));
    }
    let audience = match &claims["aud"] {
        Value::String(one) => one.starts_with(&state.origin),
        Value::Array(all) => all.iter().any(|one| one.as_str().is_some_and(|one| one.starts_with(&state.origin))),
        _ => false,
    };
    let now = state.clock.now().secs();
    let in_time = number(&claims["exp"]).is_some_and(|exp| exp + SKEW > now)
        && number(&claims["nbf"]).is_none_or(|nbf| nbf - SKEW <= now);
    let once = state.options.single_use_assertions;
    let fresh = !once || claims["jti"].as_str().is_none_or(|jti| locked(&state.assertions).insert(jti.to_owned()));
    if audience && in_time && fresh { Ok(()) } else { Err(TokenFault::aadsts(50012)) }
}

/// A time: RFC 7519 wants a number, MSAL for .NET sends a string, MSAL for Python a fraction. Entra takes them all.
#[expect(clippy::cast_possible_truncation, reason = "the fraction of a second is what goes")]
fn number(value: &Value) -> Option<i64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    Some(number as i64)
}

/// The signature of the registered certificate, which the header names by its digest.
fn verify(certificate: &str, header: &Value, input: &[u8], signature: &[u8]) -> Option<()> {
    let algorithm: &'static RsaParameters = match header["alg"].as_str()? {
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        _ => return None,
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (named, expected) = match (header["x5t#S256"].as_str(), header["x5t"].as_str()) {
        (Some(named), _) => (named, digest(&SHA256, &pem.contents)),
        (None, named) => (named?, digest(&SHA1_FOR_LEGACY_USE_ONLY, &pem.contents)),
    };
    // Some write the padding.
    if named.trim_end_matches('=') != URL_SAFE_NO_PAD.encode(expected) {
        return None;
    }
    let certificate = pem.parse_x509().ok()?;
    let key = certificate.public_key().subject_public_key.data.to_vec();
    UnparsedPublicKey::new(algorithm, key).verify(input, signature).ok()
}

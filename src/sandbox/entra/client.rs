//! Whether the application is who it says: secret by post or Basic, client assertion, or nothing for a public client.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey};
use serde_json::Value;

use super::State;
use super::form::Form;
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
    Assertion,
}

/// Judges the client of a token request; the error is Entra's.
pub(super) fn check(state: &State, headers: &HeaderMap, form: &Form) -> Result<ClientAuth, TokenFault> {
    let basic = basic(headers);
    let named = form.value("client_id").or(basic.as_ref().map(|(id, _)| id.as_str()));
    let named = named.ok_or_else(|| TokenFault::aadsts(900_144))?;
    if named != state.options.client_id {
        return Err(TokenFault::aadsts(700_016));
    }
    if let Some(assertion) = form.value("client_assertion") {
        refuse_public(state)?;
        if form.value("client_assertion_type") != Some(ASSERTION) {
            return Err(TokenFault::aadsts(900_144));
        }
        return check_assertion(state, assertion).map(|()| ClientAuth::Assertion);
    }
    let (secret, how) = match (form.value("client_secret"), &basic) {
        (Some(secret), _) => (secret, ClientAuth::SecretPost),
        (None, Some((_, secret))) => (secret.as_str(), ClientAuth::SecretBasic),
        (None, None) if confidential(state) => return Err(TokenFault::aadsts(7_000_218)),
        (None, None) => return Ok(ClientAuth::Public),
    };
    refuse_public(state)?;
    match &state.options.client_secret {
        Some(expected) if expected == secret => Ok(how),
        _ => Err(TokenFault::aadsts(7_000_215)),
    }
}

fn confidential(state: &State) -> bool {
    state.options.client_secret.is_some() || state.options.client_certificate.is_some()
}

fn refuse_public(state: &State) -> Result<(), TokenFault> {
    if confidential(state) { Ok(()) } else { Err(TokenFault::aadsts(700_025)) }
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

/// A client assertion is a JWT of the client for this token endpoint, in its time, and never seen before.
fn check_assertion(state: &State, assertion: &str) -> Result<(), TokenFault> {
    let bad = || TokenFault::aadsts(700_027);
    let (input, signature) = assertion.rsplit_once('.').ok_or_else(bad)?;
    let (header, claims) = input.split_once('.').ok_or_else(bad)?;
    let header: Value = decode(header).ok_or_else(bad)?;
    let claims: Value = decode(claims).ok_or_else(bad)?;
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
    let fresh = claims["jti"].as_str().is_none_or(|jti| locked(&state.assertions).insert(jti.to_owned()));
    if audience && in_time && fresh { Ok(()) } else { Err(TokenFault::aadsts(50012)) }
}

/// MSAL sends times as strings, RFC 7519 wants numbers: Entra takes both.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn verify(certificate: &str, header: &Value, input: &[u8], signature: &[u8]) -> Option<()> {
    let algorithm: &'static RsaParameters = match header["alg"].as_str()? {
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        _ => return None,
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let key = certificate.public_key().subject_public_key.data.to_vec();
    UnparsedPublicKey::new(algorithm, key).verify(input, signature).ok()
}

//! The errors of the token endpoint, in Entra's words and shape.

use http::{HeaderValue, Response};
use serde_json::json;

use super::aadsts::ROWS;
use super::{State, answers};
use crate::sandbox::content::Content;
use crate::sandbox::fault::TokenFault;
use crate::sandbox::random;

impl TokenFault {
    /// The error with this AADSTS number, as Entra sends it; an unknown number becomes an `invalid_grant`.
    pub fn aadsts(code: u32) -> Self {
        let (_, status, error, suberror, _) =
            ROWS.iter().find(|row| row.0 == code).copied().unwrap_or((code, 400, "invalid_grant", "", ""));
        Self {
            status,
            error: error.to_owned(),
            suberror: (!suberror.is_empty()).then(|| suberror.to_owned()),
            code,
            claims: None,
            retry_after: None,
        }
    }

    /// The usual error with this name, such as `invalid_grant`.
    pub fn named(error: &str) -> Option<Self> {
        if error == "slow_down" {
            return Some(Self { error: error.to_owned(), suberror: None, ..Self::aadsts(70016) });
        }
        ROWS.iter().find(|row| row.2 == error).map(|row| Self::aadsts(row.0))
    }

    /// This word and nothing else: no number, no `suberror`.
    pub fn bare(error: &str) -> Self {
        let status = ROWS.iter().find(|row| row.2 == error).map_or(400, |row| row.1);
        Self { status, error: error.to_owned(), suberror: None, code: 0, claims: None, retry_after: None }
    }

    #[must_use]
    pub fn with_claims(self, claims: &str) -> Self {
        Self { claims: Some(claims.to_owned()), ..self }
    }
}

/// The error as an answer, in the recorded shape.
pub(super) fn answer(state: &State, fault: &TokenFault) -> Response<Content> {
    let text = ROWS.iter().find(|row| row.0 == fault.code).map_or("The sandbox was told to fail.", |row| row.4);
    let number = if fault.code == 0 { String::new() } else { format!("AADSTS{}: ", fault.code) };
    let time = state.clock.now().to_string().replace('T', " ");
    let (trace, correlation) = (random::guid(), random::guid());
    let mut body = json!({
        "error": fault.error,
        "error_description": format!(
            "{number}{text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}"
        ),
        "timestamp": time,
        "trace_id": trace,
        "correlation_id": correlation,
    });
    if fault.code != 0 {
        body["error_codes"] = json!([fault.code]);
        body["error_uri"] = json!(format!("{}/error?code={}", state.origin, fault.code));
    }
    if let Some(suberror) = &fault.suberror {
        body["suberror"] = json!(suberror);
    }
    if let Some(claims) = &fault.claims {
        body["claims"] = json!(claims);
    }
    let mut response = answers::uncached_json(fault.status, &body);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(format!("1,{},0,,", fault.code)) {
        headers.insert("x-ms-clitelem", value);
    }
    if let Some(Ok(value)) = fault.retry_after.as_deref().map(HeaderValue::try_from) {
        headers.insert(http::header::RETRY_AFTER, value);
    }
    response
}

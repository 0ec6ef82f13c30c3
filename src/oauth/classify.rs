//! What an answer of the token endpoint means: one table (`table`), read from the top, the first row that fits decides.
//!
//! `error` counts first, then `suberror`, then `claims`; AADSTS numbers only refine. A grant is called dead only by an answer
//! that says so: what is not understood never is.

mod table;

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Map, Value};

use self::table::TABLE;
pub use self::table::{Example, JWT_BEARER, Row};
use super::exchange::Failed;
use super::http::{Answer, Form};
use super::{Class, Delivery, Dialect, TokenError, json};
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::graph::retry_after;

/// An answer that is no success.
#[derive(Default)]
pub(super) struct Refusal {
    status: u16,
    error: Option<String>,
    suberror: Option<String>,
    codes: Vec<u64>,
    claims: Option<Claims>,
    description: Option<String>,
}

/// All rows, in the order in which they are read.
pub fn classification() -> &'static [Row] {
    TABLE
}

/// What follows from a class: for the grant, and for whoever asked for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// Of the grant, as it is stored and shown. `None`: there is no grant.
    pub state: Option<&'static str>,
    /// What becomes of the refresh token.
    pub token: &'static str,
    /// The proxy's `Bearerd-Error`.
    pub error: &'static str,
    pub status: u16,
}

impl Class {
    pub const ALL: [Self; 8] = [
        Self::Dead,
        Self::Interact,
        Self::User,
        Self::AppCredential,
        Self::Config,
        Self::Assertion,
        Self::Backoff,
        Self::Retry,
    ];

    pub fn consequence(self) -> Consequence {
        let (state, token, error, status) = match self {
            Self::Dead => {
                (Some("reauth"), "never presented again; marked, and erased after 24 hours", "signin_required", 403)
            }
            Self::Interact | Self::User => {
                (Some("reauth"), "kept; not presented for this until somebody signs in", "signin_required", 403)
            }
            Self::AppCredential => (
                Some("active"),
                "kept; presented again when our credential is tried again",
                "app_credential_invalid",
                502,
            ),
            Self::Config => (Some("active"), "kept; presented again after a pause", "provider_misconfigured", 502),
            Self::Assertion => (None, "there is none", "client_unauthenticated", 401),
            Self::Backoff | Self::Retry => {
                (Some("active"), "kept; presented again after a pause", "provider_unavailable", 503)
            }
        };
        Consequence { state, token, error, status }
    }
}

impl Refusal {
    /// `body` is the answer's JSON object where it is one.
    pub(super) fn new(status: StatusCode, body: Option<&Map<String, Value>>) -> Self {
        let text = |name: &str| body?.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let code = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let codes = body.and_then(|body| body.get("error_codes")?.as_array());
        Self {
            status: status.as_u16(),
            error: text("error"),
            suberror: text("suberror"),
            codes: codes.into_iter().flatten().filter_map(code).collect(),
            claims: text("claims").as_deref().and_then(Claims::parse),
            description: text("error_description"),
        }
    }

    /// The first row that fits. `grant_type`: of the request that was refused.
    fn decide(&self, dialect: Dialect, grant_type: Option<&str>) -> &'static Row {
        let fits = |row: &&Row| {
            let among = |list: &[&str], value: &Option<String>| {
                list.is_empty() || value.as_deref().is_some_and(|value| list.contains(&value))
            };
            row.dialect.is_none_or(|wanted| wanted == dialect)
                && row.grant_type.is_none_or(|wanted| Some(wanted) == grant_type)
                && row.status.is_none_or(|(low, high)| (low..=high).contains(&self.status))
                && among(row.errors, &self.error)
                && among(row.suberrors, &self.suberror)
                && (row.codes.is_empty() || row.codes.iter().any(|code| self.codes.contains(code)))
                && (!row.claims || self.claims.is_some())
                && (!row.any_error || self.error.is_some())
        };
        TABLE.iter().find(fits).expect("the last row has no condition")
    }

    fn delivery(&self) -> Delivery {
        match self.status {
            // Nobody is there to do anything: an outage must not cost the grants of a provider that rotates strictly.
            503 if self.error.is_none() => Delivery::Answered,
            // A server that failed half-way may have used the refresh token.
            500.. if self.error.as_deref().is_none_or(|error| error == "server_error") => Delivery::Unknown,
            300.. => Delivery::Answered,
            _ if self.error.is_some() => Delivery::Answered,
            _ => Delivery::Unknown,
        }
    }

    /// `AADSTS50173 invalid_grant (bad_token): the first line of the description`, without anything that was sent in secret.
    fn text(&self, sent: &Form) -> String {
        let Some(error) = &self.error else {
            return match self.status {
                200..300 => "the provider's answer can't be read".to_owned(),
                status => format!("HTTP {status}"),
            };
        };
        let shown = |text: &str, length: usize| {
            let clean = printable(text, length);
            if repeats(&clean, sent) { "[withheld]".to_owned() } else { clean }
        };
        let code = self.codes.first().map(|code| format!("AADSTS{code} "));
        let suberror = self.suberror.as_deref().map(|suberror| format!(" ({})", shown(suberror, 64)));
        let line = self.description.as_deref().map(first_line).filter(|line| !line.is_empty());
        let line = line.map(|line| format!(": {}", shown(line, 200)));
        [code, Some(shown(error, 64)), suberror, line].into_iter().flatten().collect()
    }
}

/// What `answer` says, where it is no success.
pub(super) fn failed(
    dialect: Dialect,
    answer: &Answer,
    body: Option<&Map<String, Value>>,
    sent: &Form,
    now: Timestamp,
) -> Failed {
    let refusal = Refusal::new(answer.status, body);
    let row = refusal.decide(dialect, sent.grant_type());
    let said = answer.headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
    let asked = retry_after::parse(said, now);
    let error = TokenError {
        class: row.class,
        whose: row.whose,
        delivery: refusal.delivery(),
        text: refusal.text(sent),
        retry_after: asked.max((row.wait > 0).then_some(Duration::from_secs(row.wait))),
        claims: refusal.claims,
    };
    Failed { word: refusal.error, error }
}

/// The JSON object of an answer, if it is one. Keys that stand twice make it none.
pub(super) fn object(answer: &Answer) -> Option<Map<String, Value>> {
    json::object(answer.body.as_deref()?).ok()
}

/// Before the trace id, and without the number that stands in front of the text already.
fn first_line(description: &str) -> &str {
    let line = description.lines().next().unwrap_or_default();
    let line = line.split("Trace ID:").next().unwrap_or_default().trim();
    match line.split_once(": ") {
        Some((number, rest)) if number.starts_with("AADSTS") => rest,
        _ => line,
    }
}

/// At most `length` characters, none of which can move a cursor or turn a line around.
pub(super) fn printable(text: &str, length: usize) -> String {
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().filter(|c| !invisible(*c)).take(length).collect()
}

/// Whether `text` repeats a secret that was sent, or a piece of one: as it is, or as it stood in the form.
fn repeats(text: &str, sent: &Form) -> bool {
    const PIECE: usize = 12;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let readings = [text.to_owned(), decoded(text), decoded(&text.replace('+', " "))];
    sent.secrets().filter(|secret| !secret.is_empty()).any(|secret| {
        let in_piece = |piece: &[u8]| secret.as_bytes().windows(PIECE).any(|part| part == piece);
        readings.iter().any(|text| text.contains(secret) || text.as_bytes().windows(PIECE).any(in_piece))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Whose;
    use super::*;

    fn refusal(example: &Example) -> Refusal {
        let mut body = Map::new();
        let words = [("error", example.error), ("suberror", example.suberror), ("claims", example.claims)];
        for (name, value) in words.into_iter().filter(|(_, value)| !value.is_empty()) {
            body.insert(name.to_owned(), value.into());
        }
        if example.code != 0 {
            body.insert("error_codes".to_owned(), json!([example.code]));
        }
        let status = StatusCode::from_u16(example.status).unwrap();
        Refusal::new(status, (!example.error.is_empty()).then_some(&body))
    }

    #[test]
    fn every_row_decides_what_it_shows() {
        for row in classification() {
            let dialect = row.dialect.unwrap_or(Dialect::Entra);
            for example in row.examples() {
                let decided = refusal(&example).decide(dialect, row.grant_type.or(Some("refresh_token")));
                assert!(std::ptr::eq(decided, row), "{example:?} is decided by {decided:#?}");
            }
            assert!(row.examples().contains(&row.example) || row.codes.is_empty(), "{row:?}");
            assert!(row.meaning.ends_with('.'), "{row:?}");
        }
    }

    #[test]
    fn only_what_is_exchanged_on_behalf_of_somebody_is_an_assertion() {
        for code in [500_133, 50013, 50027] {
            let example = Example { status: 400, error: "invalid_grant", suberror: "", code, claims: "" };
            let class = |grant_type| refusal(&example).decide(Dialect::Entra, Some(grant_type)).class;
            assert_eq!(class(JWT_BEARER), Class::Assertion);
            assert_eq!(class("refresh_token"), Class::Interact, "as anything that is not understood");
            let ours = Example { error: "invalid_client", ..example };
            assert_eq!(refusal(&ours).decide(Dialect::Entra, Some(JWT_BEARER)).class, Class::AppCredential);
        }
    }

    #[test]
    fn a_loop_is_one_grants_trouble_and_throttling_is_everybodys() {
        let row = |status, error, code| {
            refusal(&Example { status, error, suberror: "", code, claims: "" }).decide(Dialect::Entra, None)
        };
        assert_eq!(
            (row(400, "invalid_grant", 50196).class, row(400, "invalid_grant", 50196).whose),
            (Class::Backoff, Whose::Grant)
        );
        assert_eq!(row(429, "", 0).whose, Whose::Provider);
        assert_eq!(row(400, "invalid_request", 90055).whose, Whose::Provider);
        assert_eq!(row(503, "", 0).whose, Whose::Grant);
    }
}

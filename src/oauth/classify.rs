//! What an answer of the token endpoint means: one table, read from the top, the first row that fits decides.
//!
//! `error` counts first, then `suberror`, then `claims`; AADSTS numbers only refine. A grant is called dead only by an answer
//! that says so: what is not understood never is.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Map, Value};

use super::Class::{self, AppCredential, Backoff, Config, Dead, Interact, Retry, User};
use super::exchange::Failed;
use super::http::{Answer, Form};
use super::{Delivery, Dialect, TokenError, json};
use crate::clock::Timestamp;
use crate::graph::retry_after;

/// Of a challenge that is worth keeping with a grant.
const LONGEST_CLAIMS: usize = 16 * 1024;

/// An answer that is no success.
#[derive(Default)]
pub(super) struct Refusal {
    status: u16,
    error: Option<String>,
    suberror: Option<String>,
    codes: Vec<u64>,
    claims: Option<String>,
    description: Option<String>,
}

/// A row fits where each condition that it has holds.
struct Row {
    dialect: Option<Dialect>,
    status: Option<(u16, u16)>,
    errors: &'static [&'static str],
    suberrors: &'static [&'static str],
    codes: &'static [u64],
    claims: bool,
    class: Class,
    /// The shortest wait, in seconds.
    wait: u64,
}

const ROW: Row =
    Row { dialect: None, status: None, errors: &[], suberrors: &[], codes: &[], claims: false, class: Retry, wait: 0 };

/// The errors under which Entra speaks of a user's grant.
const GRANT: &[&str] = &["invalid_grant", "interaction_required", "consent_required", "login_required"];

const TABLE: &[Row] = &[
    // The provider asks for peace, or is not well. It may say anything besides: AADSTS50196 arrives as `invalid_grant`.
    Row { status: Some((429, 429)), class: Backoff, ..ROW },
    Row { codes: &[50196], class: Backoff, wait: 120, ..ROW },
    Row { codes: &[90055], class: Backoff, ..ROW },
    Row { status: Some((500, 599)), class: Retry, ..ROW },
    Row { status: Some((408, 408)), class: Retry, ..ROW },
    Row { errors: &["temporarily_unavailable", "server_error", "request_timeout"], class: Retry, ..ROW },
    Row { codes: &[90033, 90006, 90012, 90024, 90090, 50033, 50087, 50000, 40010], class: Retry, ..ROW },
    // Our own credential.
    Row { errors: &["invalid_client"], class: AppCredential, ..ROW },
    Row { codes: &[7_000_215, 7_000_222, 700_027, 50012, 7_000_218, 700_025, 50048], class: AppCredential, ..ROW },
    // The user, whatever `suberror` says: `bad_token` was seen with 50034.
    Row { codes: &[50034, 50057, 51004, 50020, 16000, 50053], class: User, ..ROW },
    // `suberror`.
    Row { errors: GRANT, suberrors: &["bad_token", "token_expired"], class: Dead, ..ROW },
    Row {
        errors: GRANT,
        suberrors: &["basic_action", "additional_action", "consent_required", "user_password_expired"],
        class: Interact,
        ..ROW
    },
    Row {
        errors: GRANT,
        suberrors: &["message_only", "protection_policy_required", "device_authentication_failed"],
        class: User,
        ..ROW
    },
    Row { errors: GRANT, suberrors: &["client_mismatch"], class: Config, ..ROW },
    // A challenge can be met by a sign-in.
    Row { errors: GRANT, claims: true, class: Interact, ..ROW },
    // Numbers: expired, revoked, sign-in frequency.
    Row {
        errors: &["invalid_grant"],
        codes: &[700_082, 70008, 50173, 700_084, 70043, 50089, 50132, 50133, 50085],
        class: Dead,
        ..ROW
    },
    // Several factors, Conditional Access, consent.
    Row { codes: &[50076, 50079, 50072, 50074, 50078], class: Interact, ..ROW },
    Row {
        codes: &[53000, 53001, 53002, 53003, 53004, 53011, 530_032, 530_034, 50131, 50158, 50097, 50105],
        class: Interact,
        ..ROW
    },
    Row { codes: &[65001, 65004, 90094, 90095, 90008], class: Interact, ..ROW },
    // A code or a device code that can't be redeemed (again): start over.
    Row { codes: &[54005, 501_481, 50147, 700_005, 70018, 70019], class: Interact, ..ROW },
    // Entra's word for a refresh token or a code that it can't decode; under `invalid_request` it is about the request.
    Row { errors: &["invalid_grant"], codes: &[9_002_313], class: Interact, ..ROW },
    // Our registration or our request.
    Row {
        codes: &[
            700_016, 700_011, 70001, 7_000_112, 50001, 500_011, 650_052, 650_057, 70011, 28002, 28003, 900_144, 90014,
            9_002_313, 90002, 50194, 9_001_023, 70003, 700_022,
        ],
        class: Config,
        ..ROW
    },
    // Nothing but `error`.
    Row {
        errors: &["interaction_required", "consent_required", "login_required", "account_selection_required"],
        class: Interact,
        ..ROW
    },
    Row { errors: &["access_denied", "authorization_declined"], class: User, ..ROW },
    Row { errors: &["expired_token", "bad_verification_code"], class: Interact, ..ROW },
    // Entra says more where a token is dead for good; the standard has this one word.
    Row { errors: &["invalid_grant"], dialect: Some(Dialect::Entra), class: Interact, ..ROW },
    Row { errors: &["invalid_grant"], dialect: Some(Dialect::Oidc), class: Dead, ..ROW },
];

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
            claims: text("claims").filter(|claims| claims.len() <= LONGEST_CLAIMS),
            description: text("error_description"),
        }
    }

    fn decide(&self, dialect: Dialect) -> (Class, u64) {
        let fits = |row: &&Row| {
            let among = |list: &[&str], value: &Option<String>| {
                list.is_empty() || value.as_deref().is_some_and(|value| list.contains(&value))
            };
            row.dialect.is_none_or(|wanted| wanted == dialect)
                && row.status.is_none_or(|(low, high)| (low..=high).contains(&self.status))
                && among(row.errors, &self.error)
                && among(row.suberrors, &self.suberror)
                && (row.codes.is_empty() || row.codes.iter().any(|code| self.codes.contains(code)))
                && (!row.claims || self.claims.is_some())
        };
        match TABLE.iter().find(fits) {
            Some(row) => (row.class, row.wait),
            // A refusal in the protocol's form that nobody knows is about the request; anything else is noise on the way.
            None if self.error.is_some() => (Config, 0),
            None => (Retry, 0),
        }
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
    let (class, wait) = refusal.decide(dialect);
    let said = answer.headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
    let asked = retry_after::parse(said, now);
    let error = TokenError {
        class,
        delivery: refusal.delivery(),
        text: refusal.text(sent),
        retry_after: asked.max((wait > 0).then_some(Duration::from_secs(wait))),
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

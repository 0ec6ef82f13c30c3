//! An explanation as it is shown: names, states and times, and nothing that is secret.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::error::Refusal;
use super::super::policy::{Decision, DeniedBy};
use crate::clock::Timestamp;
use crate::graph::scopes;
use crate::store::{Grant, Parked};
use crate::vault::{Foreseen, Freshness, Next, Subject};

/// Everything that decides about a request, as far as it is known before the request is made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    pub method: String,
    pub path: String,
    /// `None`: there is no such client.
    pub client: Option<Asking>,
    pub account: Option<Account>,
    /// `None`: the path leads nowhere.
    pub upstream: Option<Destination>,
    /// The form of the path that rules are matched against; `None`: it has none, or leads nowhere.
    pub canonical: Option<String>,
    pub rule: Option<Rule>,
    /// `None`: no account's grant is used, or it is not known whose.
    pub grant: Option<GrantState>,
    pub notes: Vec<String>,
    pub verdict: Verdict,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Asking {
    pub name: String,
    pub proof: String,
    pub identity: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedAccount")]
pub struct Account {
    pub alias: String,
    /// The client's `accounts` name it, and no other selector contradicts.
    pub may_act: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Destination {
    pub name: String,
    /// Where the request would go, and what of the client's target is forwarded.
    pub url: String,
    pub target: String,
    pub provider: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Rule {
    pub permits: bool,
    /// `allow[0]`, `deny[0]`, `read_only`, `allow` (none of them matches), `members` (of a `$batch`), `alias`, `none`.
    pub decides: String,
    /// The rule as the configuration has it, or what is meant.
    pub text: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct GrantState {
    /// `active`, `uncertain`, `reauth`, `revoked`, or `none`: there is no such account.
    pub state: &'static str,
    pub reason: Option<String>,
    pub since: Option<String>,
    pub parked: Vec<Waiting>,
    pub scopes: Vec<String>,
    /// Scopes of the upstream that were not granted.
    pub missing_scopes: Vec<String>,
    /// For this upstream.
    pub token: Option<Token>,
    pub next_try: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Waiting {
    pub scopes: String,
    /// Only where a claims challenge is answered.
    pub challenged: bool,
    pub reason: String,
    pub since: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Token {
    /// `fresh`, `ageing`, `expiring`, `expired`.
    pub state: &'static str,
    pub expires_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Verdict {
    pub sent: bool,
    pub text: String,
    /// The value of `Bearerd-Error`, the status and the message that the client would get.
    pub error: Option<&'static str>,
    pub status: Option<u16>,
    pub message: Option<String>,
}

impl Rule {
    pub(super) fn new(decision: Decision<'_>) -> Self {
        let (permits, said) = match decision {
            Decision::Allowed { rule: Some(rule) } => (true, rule),
            Decision::Allowed { rule: None } => (true, "none: nothing restricts it"),
            Decision::EachMember => (true, "members: each is judged as the request that it is"),
            Decision::Denied { by: DeniedBy::Rule(rule) } => (false, rule),
            Decision::Denied { by: DeniedBy::NotListed } => (false, "allow: no rule matches"),
            Decision::Denied { by: DeniedBy::ReadOnly } => (false, "read_only: GET and HEAD only"),
            Decision::Denied { by: DeniedBy::HalfBatch } => (false, "members: it may be read as a $batch"),
            Decision::Denied { by: DeniedBy::Alias } => (false, "alias: what the path stands for is said in the query"),
        };
        let (decides, text) = said.split_once(": ").unwrap_or((said, ""));
        Self { permits, decides: decides.to_owned(), text: text.to_owned() }
    }
}

impl Verdict {
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let (error, status) = (refusal.kind.name(), refusal.kind.status().as_u16());
        Self {
            sent: false,
            text: format!("would be refused: {error} {status}, because {}", refusal.message),
            error: Some(error),
            status: Some(status),
            message: Some(refusal.message.clone()),
        }
    }

    pub(super) fn sent(explanation: &Explanation, subject: Option<&Subject>, next: Next) -> Self {
        let url = explanation.upstream.as_ref().map_or("", |upstream| &upstream.url);
        let (whom, how) = match (subject, next) {
            (Some(Subject::User(alias)), Next::Take) => (alias.to_string(), ""),
            (Some(Subject::User(alias)), Next::Ask) => (alias.to_string(), ", once the provider has given a new token"),
            (Some(Subject::App), _) => {
                ("the application itself".to_owned(), ", once the provider has given a token, if none is in memory")
            }
            (Some(Subject::OnBehalfOf(_)) | None, _) => {
                ("the user of the token that is presented".to_owned(), ", once the provider has exchanged that token")
            }
        };
        let text = format!("would be sent as {whom} to {url}{how}");
        Self { sent: true, text, error: None, status: None, message: None }
    }
}

impl GrantState {
    pub(super) fn new(foreseen: &Foreseen, wanted: &[String], now: Timestamp) -> Self {
        let token = foreseen.token.map(|(freshness, expires)| Token {
            state: match freshness {
                Freshness::Fresh => "fresh",
                Freshness::Ageing => "ageing",
                Freshness::Expiring => "expiring",
                Freshness::Expired => "expired",
            },
            expires_at: expires.to_string(),
        });
        let grant = foreseen.grant.as_ref();
        let reason = grant.and_then(Grant::reason);
        let scopes = grant.map(|grant| grant.scopes.clone()).unwrap_or_default();
        Self {
            state: grant.map_or("none", Grant::state),
            reason: reason.map(|reason| reason.text.clone()),
            since: reason.map(|reason| reason.since.to_string()),
            parked: grant.map(|grant| grant.parked.iter().map(Waiting::new).collect()).unwrap_or_default(),
            missing_scopes: scopes::missing(wanted, &scopes),
            scopes,
            token,
            next_try: grant.and_then(|grant| grant.next_try).filter(|at| *at > now).map(|at| at.to_string()),
        }
    }
}

impl Waiting {
    fn new(parked: &Parked) -> Self {
        Self {
            scopes: parked.scope_set.clone(),
            challenged: parked.asked.is_some(),
            reason: parked.reason.text.clone(),
            since: parked.reason.since.to_string(),
        }
    }
}

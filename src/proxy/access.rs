//! The one event per request, written at the end of it, and its sample for the metrics. Says who, for whom, what, and how it ended; never
//! a query, a header or a body.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::PeerAddress;
use super::error::{Kind, Refusal};
use super::gates::Place;
use super::limits::Pass;
use crate::clock::{Clock, Moment};
use crate::config::AccessLog;
use crate::metrics::{Metrics, Origin, RequestSample};
use crate::vault::Subject;

/// What is known of a request so far. Written when it is dropped.
pub struct Access {
    pub client: Arc<str>,
    pub subject: Option<Subject>,
    pub upstream: Arc<str>,
    pub error: Option<Kind>,
    pub attempts: u32,
    pub upstream_took: Option<Duration>,
    /// Kept until the answer is done.
    pub passes: [Option<Pass>; 2],
    /// Likewise: at the gate of the upstream's workload.
    pub place: Option<Place>,
    pub started: Moment,
    method: Method,
    path: String,
    request_id: String,
    peer: PeerAddress,
    status: StatusCode,
    bytes: u64,
    broke_off: Option<String>,
    log: AccessLog,
    clock: Clock,
    metrics: Metrics,
}

impl Access {
    pub fn new(
        head: &http::request::Parts,
        peer: PeerAddress,
        request_id: &str,
        log: AccessLog,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Self {
        Self {
            client: Arc::default(),
            subject: None,
            upstream: Arc::default(),
            error: None,
            attempts: 0,
            upstream_took: None,
            passes: [None, None],
            place: None,
            started: clock.moment(),
            method: head.method.clone(),
            path: if log == AccessLog::Path { head.uri.path().to_owned() } else { String::new() },
            request_id: request_id.to_owned(),
            peer,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            bytes: 0,
            broke_off: None,
            log,
            clock: clock.clone(),
            metrics: metrics.clone(),
        }
    }

    /// The head of the answer is ready.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status;
        self.metrics.request(&RequestSample {
            client: &self.client,
            upstream: &self.upstream,
            method: &self.method,
            status,
            origin: if self.error.is_some() { Origin::Proxy } else { Origin::Upstream },
            took: self.clock.moment().since(self.started),
            upstream_took: self.upstream_took,
        });
    }

    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub fn broke_off(&mut self, why: &str) {
        self.broke_off = Some(why.to_owned());
    }
}

/// For whom, as logs say it: an alias, `app`, or `obo:` and the name that the caller's token gives its user.
pub fn account(subject: &Subject) -> Cow<'_, str> {
    match subject {
        Subject::User(alias) => alias.as_str().into(),
        Subject::App => "app".into(),
        Subject::OnBehalfOf(user) => format!("obo:{}", user.name.as_deref().unwrap_or(&user.subject)).into(),
    }
}

/// How much of a refusal's message is logged: a member of a batch may have any length.
const LONGEST_REASON: usize = 300;

/// For the audit log: what a client was denied, and by which rule of the configuration. Only `because` names the member of a batch.
pub fn denied(refusal: &Refusal, client: &str, subject: &Subject, method: &Method, path: &str) {
    if refusal.kind == Kind::PolicyDenied {
        let (account, rule) = (account(subject), refusal.rule.as_deref().unwrap_or(&refusal.message));
        let because: String = refusal.message.chars().take(LONGEST_REASON).collect();
        tracing::info!(target: "bearerd::audit", event = "policy_denied", client, account = &*account, %method, path, rule, because);
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.log == AccessLog::Off {
            return;
        }
        let took = self.clock.moment().since(self.started);
        let account = self.subject.as_ref().map(account);
        tracing::info!(
            target: "bearerd::access",
            request_id = self.request_id,
            peer = %self.peer,
            client = &*self.client,
            account = account.as_deref(),
            upstream = &*self.upstream,
            method = %self.method,
            path = self.path,
            status = self.status.as_u16(),
            error = self.error.map(Kind::name),
            attempts = self.attempts,
            bytes = self.bytes,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            upstream_ms = self.upstream_took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            broke_off = self.broke_off,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Alias;
    use crate::clock::Timestamp;
    use crate::vault::Assertion;

    #[test]
    fn for_whom_as_logs_say_it() {
        let on_behalf_of = |name: Option<&str>| {
            Subject::OnBehalfOf(Arc::new(Assertion {
                token: "secret".into(),
                tenant: "t".to_owned(),
                subject: "s".to_owned(),
                name: name.map(str::to_owned),
                expires: Timestamp::default(),
            }))
        };
        assert_eq!(account(&Subject::User(Alias::new("alice").unwrap())), "alice");
        assert_eq!(account(&Subject::App), "app");
        assert_eq!(account(&on_behalf_of(Some("alice@contoso.com"))), "obo:alice@contoso.com");
        assert_eq!(account(&on_behalf_of(None)), "obo:s");
    }
}

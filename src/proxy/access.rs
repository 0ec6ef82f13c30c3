//! The one line per request, written at the end of it, and its sample for the metrics. Says who, for whom, what, and how it ended; never
//! a query, a header or a body.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::PeerAddress;
use super::error::{Kind, Refusal};
use super::gates::Place;
use super::request_id::RequestId;
use super::shared::Passes;
use crate::audit::{Denials, Entry as Record, Event, Outcome, Who};
use crate::clock::{Clock, Moment};
use crate::metrics::{Metrics, Origin, RequestSample};
use crate::traces::{Digits, Trace};
use crate::vault::Subject;

mod line;
mod lines;
mod spans;

pub use self::line::Entry;
pub use self::lines::AccessLog;
use self::lines::Lines;

/// Where one worker writes its requests down: a line of the access log for each, and its place in the metrics. Shared with no other worker.
pub struct Ledger {
    clock: Clock,
    metrics: Metrics,
    lines: Option<Arc<Lines>>,
}

/// What is known of a request so far. Written down when it is dropped.
pub struct Access {
    pub client: Option<Arc<str>>,
    pub subject: Option<Subject>,
    /// The account that was named, where the client may not act for it.
    pub asked: Option<String>,
    pub upstream: Option<Arc<str>>,
    pub error: Option<Kind>,
    pub attempts: u32,
    pub upstream_took: Option<Duration>,
    /// Kept until the answer is done.
    pub passes: Option<Passes>,
    /// Likewise: at the gate of the upstream's workload.
    pub place: Option<Place>,
    /// `None`: nothing is traced.
    pub trace: Option<Box<Trace>>,
    pub started: Moment,
    method: Method,
    path: String,
    request_id: RequestId,
    peer: PeerAddress,
    status: Option<StatusCode>,
    bytes: u64,
    broke_off: Option<String>,
    ledger: Arc<Ledger>,
}

impl Ledger {
    pub fn new(log: &AccessLog, clock: &Clock, metrics: &Metrics) -> Self {
        Self { clock: clock.clone(), metrics: metrics.of_worker(), lines: log.worker() }
    }

    /// Writes the lines that wait. To be called before the worker sleeps.
    pub fn write_out(&self) {
        if let Some(lines) = &self.lines {
            lines.write_out();
        }
    }
}

impl Access {
    pub fn new(
        head: &http::request::Parts,
        peer: PeerAddress,
        request_id: RequestId,
        trace: Option<Box<Trace>>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let trace = trace.map(|trace| trace.of(head));
        let says_path = ledger.lines.is_some() || trace.as_ref().is_some_and(|trace| trace.says_paths());
        Self {
            client: None,
            subject: None,
            asked: None,
            upstream: None,
            error: None,
            attempts: 0,
            upstream_took: None,
            passes: None,
            place: None,
            trace,
            started: ledger.clock.moment(),
            method: head.method.clone(),
            path: if says_path { head.uri.path().to_owned() } else { String::new() },
            request_id,
            peer,
            status: None,
            bytes: 0,
            broke_off: None,
            ledger: Arc::clone(ledger),
        }
    }

    /// The head of the answer is ready.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some(error) = self.error {
            self.ledger.metrics.erred(error.name());
        }
        self.ledger.metrics.request(&RequestSample {
            client: self.client.as_ref(),
            upstream: self.upstream.as_ref(),
            method: &self.method,
            status,
            origin: if self.error.is_some() { Origin::Proxy } else { Origin::Upstream },
            took: self.ledger.clock.moment().since(self.started),
            upstream_took: self.upstream_took,
        });
    }

    /// What a client was denied, and by which rule of the configuration, for the audit log.
    pub fn denied(&self, refusal: &Refusal, denials: &Denials) {
        let event = match refusal.kind {
            Kind::PolicyDenied => Event::PolicyDenied,
            Kind::AccountForbidden => Event::AccountDenied,
            _ => return,
        };
        let Some(client) = &self.client else { return };
        let rule = refusal.rule.as_deref();
        let entry = Record::new(event, Who::Client(client.to_string())).with(Outcome::Denied);
        let entry = match rule {
            Some(rule) => entry.because(format_args!("{rule}: {}", refusal.message)),
            None => entry.because(&refusal.message),
        };
        let account = self.subject.as_ref().map(account).or(self.asked.as_deref().map(Cow::Borrowed));
        let entry = account.into_iter().fold(entry, Record::named);
        denials.note(entry.asked(self.request_id.as_str(), &self.peer), rule);
    }

    /// The request is sent to the upstream once more.
    pub fn retries(&mut self, reason: &'static str) {
        self.ledger.metrics.retried(reason);
        if let Some(trace) = &mut self.trace {
            trace.again = Some(reason);
        }
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

impl Access {
    /// Without an answer: its client didn't wait for one, unless it is our own fault.
    fn status(&self) -> StatusCode {
        let none = || if std::thread::panicking() { StatusCode::INTERNAL_SERVER_ERROR } else { hung_up() };
        self.status.unwrap_or_else(none)
    }

    fn write_down(&self) {
        let Some(lines) = &self.ledger.lines else { return };
        let took = self.ledger.clock.moment().since(self.started);
        let account = self.subject.as_ref().map(account);
        let trace_id = self.trace.as_ref().map(|trace| trace.id().digits());
        let entry = Entry {
            request_id: self.request_id.as_str(),
            peer: &self.peer,
            client: self.client.as_deref().unwrap_or_default(),
            account: account.as_deref(),
            upstream: self.upstream.as_deref().unwrap_or_default(),
            method: &self.method,
            path: &self.path,
            status: self.status().as_u16(),
            error: self.error.map(Kind::name),
            attempts: self.attempts,
            bytes: self.bytes,
            took_ms: millis(took),
            upstream_ms: self.upstream_took.map(millis),
            broke_off: self.broke_off.as_deref(),
            trace_id: trace_id.as_ref().map(Digits::as_str),
        };
        lines.add(&entry, &self.ledger.clock);
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.status.is_none() && !std::thread::panicking() {
            self.broke_off("the client hung up before the answer");
        }
        self.write_down();
        if let Some(trace) = self.trace.take() {
            self.finish(*trace);
        }
    }
}

/// What logs commonly say of a request whose client did not wait for the answer. Nobody gets it.
fn hung_up() -> StatusCode {
    StatusCode::from_u16(499).expect("three digits")
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
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

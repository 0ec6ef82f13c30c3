//! What of a request its trace says, in the words of OpenTelemetry's semantic conventions for HTTP where they have one, else of ours
//! (`bearerd.*`). The names are public (`docs/operations.md`).
//!
//! Says no more than the access log does: no query, no header, no body.

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::{Access, account};
use crate::proxy::PeerAddress;
use crate::proxy::error::{Kind as ErrorKind, Refusal};
use crate::proxy::upstream::Template;
use crate::proxy::verdict::{Failure, Outcome};
use crate::traces::{Attributes, Context, Ended, Kind, Step, Trace, Value, method_name};
use crate::vault::LeaseError;

impl Access {
    /// A known client asks: its word on the trace counts.
    pub fn is_from(&mut self, client: &Arc<str>, headers: &HeaderMap) {
        self.client = Some(Arc::clone(client));
        if let Some(trace) = &mut self.trace {
            trace.follow(headers);
        }
    }

    /// Leaves of the client's headers what goes on beside the attempt's own `traceparent`.
    pub fn passes_on(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.clear(headers);
        }
    }

    /// A step that begins, and what goes on detached in it needs to know.
    pub fn step_with_context(&mut self) -> (Option<Step>, Option<Context>) {
        let Some(trace) = &mut self.trace else { return (None, None) };
        let step = trace.step();
        (Some(step), trace.context(step))
    }

    /// A token was asked for: the first, or another one because of what the upstream said.
    pub fn leased(&mut self, step: Option<Step>, reason: Option<&'static str>, error: Option<&LeaseError>) {
        let (Some(trace), Some(step)) = (&mut self.trace, step) else { return };
        trace.end(step, "lease", Kind::Internal, || {
            let attributes = reason.map(|reason| ("bearerd.reason", Value::Word(reason))).into_iter().collect();
            let error = error.map(|error| Value::Word(Refusal::from(error.clone()).kind.name()));
            Ended { attributes, error, message: None }
        });
    }

    /// An attempt begins. Its `traceparent` goes with it.
    pub fn attempt(&mut self) -> (Option<Step>, Option<HeaderValue>) {
        let Some(trace) = &mut self.trace else { return (None, None) };
        let step = trace.step();
        (Some(step), Some(trace.header(step)))
    }

    /// It has brought the head of an answer, or none.
    pub fn attempted(&mut self, step: Option<Step>, upstream: &Template, method: &Method, outcome: Outcome) {
        let (Some(trace), Some(step)) = (&mut self.trace, step) else { return };
        let (again, resent) = (trace.again.take(), u64::from(self.attempts.saturating_sub(1)));
        trace.end(step, method_name(method), Kind::Client, || {
            let mut attributes = method_attributes(method);
            attributes.push(("server.address", Value::cut(upstream.destination.authority.host())));
            let port = upstream.config.url.port_or_known_default();
            attributes.extend(port.map(|port| ("server.port", Value::Number(port.into()))));
            attributes.push(("bearerd.upstream", Value::Shared(Arc::clone(&upstream.name))));
            if resent > 0 {
                attributes.push(("http.request.resend_count", Value::Number(resent)));
            }
            attributes.extend(again.map(|reason| ("bearerd.retry_reason", Value::Word(reason))));
            let error = match outcome {
                Outcome::Answer { status, .. } => {
                    attributes.push(("http.response.status_code", Value::Number(status.into())));
                    (status >= 400).then(|| Value::Text(status.to_string()))
                }
                Outcome::Failed(failure) => Some(Value::Word(failure_name(failure))),
            };
            Ended { attributes, error, message: None }
        });
    }

    /// All that is known at the end.
    pub(super) fn finish(&self, mut trace: Trace) {
        let is_server_error = self.status().is_server_error();
        // Who hangs up before there is an answer says nothing of the server.
        let failed = is_server_error || (self.broke_off.is_some() && self.status.is_some());
        let says_path = trace.says_paths();
        let host = trace.host.take();
        let scheme = if trace.secure { "https" } else { "http" };
        let version = if trace.version == Version::HTTP_2 { "2" } else { "1.1" };
        trace.finish(method_name(&self.method), failed, self.client.is_some(), || {
            let mut attributes = method_attributes(&self.method);
            attributes.push(("http.response.status_code", Value::Number(self.status().as_u16().into())));
            if says_path {
                attributes.push(("url.path", Value::cut(&self.path)));
            }
            attributes.extend(host.as_deref().map(server_attributes).unwrap_or_default());
            attributes.push(("url.scheme", Value::Word(scheme)));
            attributes.push(("network.protocol.version", Value::Word(version)));
            match &self.peer {
                PeerAddress::Tcp(address) => {
                    attributes.push(("client.address", Value::Text(address.ip().to_string())));
                    attributes.push(("client.port", Value::Number(address.port().into())));
                }
                unix @ PeerAddress::Unix { .. } => attributes.push(("client.address", Value::Text(unix.to_string()))),
            }
            attributes.push(("bearerd.request_id", Value::Text(self.request_id.as_str().to_owned())));
            attributes.extend(self.client.clone().map(|client| ("bearerd.client", Value::Shared(client))));
            let account = self.subject.as_ref().map(account).map(Cow::into_owned);
            attributes.extend(account.map(|account| ("bearerd.account", Value::cut(&account))));
            attributes.extend(self.upstream.clone().map(|upstream| ("bearerd.upstream", Value::Shared(upstream))));
            attributes.push(("bearerd.attempts", Value::Number(self.attempts.into())));
            let status = || is_server_error.then(|| Value::Text(self.status().as_u16().to_string()));
            let broke_off = || self.broke_off.is_some().then_some(Value::Word("broke_off"));
            let error = self.error.map(|error| Value::Word(ErrorKind::name(error))).or_else(broke_off).or_else(status);
            Ended { attributes, error, message: self.broke_off.clone() }
        });
    }
}

fn method_attributes(method: &Method) -> Attributes {
    let name = method_name(method);
    let mut attributes = Vec::with_capacity(12);
    attributes.push(("http.request.method", Value::Word(name)));
    if method != name {
        attributes.push(("http.request.method_original", Value::cut(method.as_str())));
    }
    attributes
}

fn server_attributes(host: &str) -> Attributes {
    let Ok(authority) = host.parse::<Authority>() else { return Attributes::new() };
    let port = authority.port_u16().map(|port| ("server.port", Value::Number(port.into())));
    [("server.address", Value::cut(authority.host()))].into_iter().chain(port).collect()
}

/// As `error.type` of an attempt has it.
fn failure_name(failure: Failure) -> &'static str {
    match failure {
        Failure::NotSent => "not_sent",
        Failure::TimedOut => "timed_out",
        Failure::Died | Failure::ReusedDied => "connection_lost",
        Failure::Body => "request_body",
    }
}

//! What is recorded of one request: its own span, and one for each step of it. Plain values; nothing here waits.
//!
//! A trace that somebody else sampled, or we did, is recorded; any other one only passes its name on. The clock is read by the caller.

use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::context::{self, SpanId, TRACEPARENT, TRACESTATE};
use super::{Parent, TraceId, Tracer};
use crate::clock::{Clock, Moment};

/// Of one request: a `$batch` may send parts of itself many times.
const MOST_SPANS: usize = 64;
/// Of a text in a span; the rest is cut off.
const LONGEST: usize = 1024;

pub type Attributes = Vec<(&'static str, Value)>;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Word(&'static str),
    Shared(Arc<str>),
    Number(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Internal,
    Client,
}

/// How a step ended.
#[derive(Default)]
pub struct Ended {
    pub attributes: Attributes,
    /// Its `error.type`.
    pub error: Option<Value>,
    /// What went wrong, for people; no secret can be in it.
    pub message: Option<String>,
}

/// A step that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    id: SpanId,
    began: Moment,
}

pub struct Span {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    /// The parent is somebody else's.
    pub remote: bool,
    pub name: &'static str,
    pub kind: Kind,
    pub began: Moment,
    pub ended: Moment,
    pub how: Ended,
    /// The span says that something failed; an error of the client's is none of the server.
    pub failed: bool,
}

/// Spans of one trace on their way out.
pub struct Spans {
    pub trace: TraceId,
    pub zero: Zero,
    pub list: Vec<Span>,
}

/// One moment on both clocks, so that all spans of a trace are in order.
#[derive(Clone, Copy, Debug)]
pub struct Zero {
    moment: Moment,
    micros: i64,
}

/// One request.
pub struct Trace {
    tracer: Arc<Tracer>,
    id: TraceId,
    parent: Option<SpanId>,
    /// The caller's `tracestate` goes on.
    keeps_state: bool,
    sampled: bool,
    zero: Zero,
    root: u64,
    made: u64,
    spans: Vec<Span>,
    lost: usize,
    /// As the client names us; `None`: it does not.
    pub host: Option<String>,
    pub version: Version,
    pub secure: bool,
    /// Why the next attempt is not the first.
    pub again: Option<&'static str>,
}

/// Where a step that goes on detached from its request belongs.
#[derive(Clone)]
pub struct Context {
    tracer: Arc<Tracer>,
    trace: TraceId,
    span: SpanId,
    zero: Zero,
}

impl Zero {
    fn now(clock: &Clock) -> Self {
        Self { moment: clock.moment(), micros: clock.now_micros() }
    }

    /// In nanoseconds since the Unix epoch.
    pub fn nanos(self, at: Moment) -> u64 {
        let micros = u64::try_from(self.micros).unwrap_or_default();
        let after = u64::try_from(at.since(self.moment).as_nanos()).unwrap_or_default();
        micros.saturating_mul(1_000).saturating_add(after)
    }
}

impl Trace {
    pub(super) fn begin(tracer: &Arc<Tracer>, secure: bool) -> Self {
        let [trace, root] = random();
        // The lower half decides, as every part of the system may that knows the share.
        let part = f64::from(u32::from_be_bytes([trace[12], trace[13], trace[14], trace[15]])) / f64::from(u32::MAX);
        Self {
            tracer: Arc::clone(tracer),
            id: TraceId(trace),
            parent: None,
            keeps_state: false,
            sampled: tracer.sample > 0.0 && part <= tracer.sample,
            zero: Zero::now(&tracer.clock),
            root: u64::from_be_bytes(root[..8].try_into().expect("eight of sixteen")),
            made: 0,
            spans: Vec::new(),
            lost: 0,
            host: None,
            version: Version::HTTP_11,
            secure,
            again: None,
        }
    }

    /// Notes what is said of the request as it came.
    #[must_use]
    pub fn of(mut self: Box<Self>, head: &Parts) -> Box<Self> {
        let host = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
        self.host = head.uri.host().or_else(host).map(str::to_owned);
        self.version = head.version;
        self
    }

    /// It is a known client's: the trace that the request says it belongs to is the one that goes on, sampled or not.
    pub fn follow(&mut self, headers: &HeaderMap) {
        let Some(parent) = context::parent(headers) else { return };
        (self.id, self.parent, self.sampled) = (parent.trace, Some(parent.span), parent.sampled);
        self.keeps_state = context::has_sound_state(headers);
    }

    /// Takes out what of the client's headers is ours to say, or can't go on.
    pub fn clear(&self, headers: &mut HeaderMap) {
        headers.remove(TRACEPARENT);
        if !self.keeps_state {
            headers.remove(TRACESTATE);
        }
    }

    pub fn id(&self) -> TraceId {
        self.id
    }

    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Spans say the path.
    pub fn says_paths(&self) -> bool {
        self.tracer.paths
    }

    pub fn step(&mut self) -> Step {
        self.made += 1;
        Step { id: self.span_id(self.made), began: self.tracer.clock.moment() }
    }

    /// What the step says of itself to whom it asks.
    pub fn header(&self, step: Step) -> HeaderValue {
        context::write(Parent { trace: self.id, span: step.id, sampled: self.sampled })
    }

    /// For what goes on detached in this step. `None`: it is not recorded.
    pub fn context(&self, step: Step) -> Option<Context> {
        let context = || Context { tracer: Arc::clone(&self.tracer), trace: self.id, span: step.id, zero: self.zero };
        self.sampled.then(context)
    }

    /// `how` is asked only if it is recorded.
    pub fn end(&mut self, step: Step, name: &'static str, kind: Kind, how: impl FnOnce() -> Ended) {
        if !self.sampled {
            return;
        }
        if self.spans.len() >= MOST_SPANS {
            self.lost += 1;
            return;
        }
        let parent = Some(self.span_id(0));
        let ended = self.tracer.clock.moment();
        self.spans.push(Span::new(step, parent, name, kind, ended, how()));
    }

    /// The request is over.
    pub fn finish(mut self, name: &'static str, failed: bool, of_known_client: bool, how: impl FnOnce() -> Ended) {
        if !self.sampled {
            return;
        }
        let step = Step { id: self.span_id(0), began: self.zero.moment };
        let span = Span::new(step, self.parent, name, Kind::Server, self.tracer.clock.moment(), how());
        self.spans.push(Span { remote: self.parent.is_some(), failed, ..span });
        let Self { tracer, id, zero, spans, lost, .. } = self;
        tracer.queue.lost(lost);
        tracer.queue.put(Spans { trace: id, zero, list: spans }, of_known_client);
    }

    /// Other than all of this trace, and not to be guessed from outside.
    fn span_id(&self, number: u64) -> SpanId {
        let id = self.root.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        SpanId(id.max(1).to_be_bytes())
    }
}

impl Context {
    /// A step has gone on since `began`, and is over.
    pub fn ended(&self, name: &'static str, kind: Kind, began: Moment, how: Ended) {
        let [id, _] = random();
        let id = u64::from_be_bytes(id[..8].try_into().expect("eight of sixteen"));
        let step = Step { id: SpanId(id.max(1).to_be_bytes()), began };
        let span = Span::new(step, Some(self.span), name, kind, self.tracer.clock.moment(), how);
        self.tracer.queue.put(Spans { trace: self.trace, zero: self.zero, list: vec![span] }, true);
    }
}

impl Span {
    fn new(step: Step, parent: Option<SpanId>, name: &'static str, kind: Kind, ended: Moment, how: Ended) -> Self {
        let Step { id, began } = step;
        let failed = how.error.is_some();
        Self { id, parent, remote: false, name, kind, began, ended, how, failed }
    }
}

impl Value {
    /// As much of it as goes into a span.
    pub fn cut(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(LONGEST)].to_owned())
    }
}

/// What the semantic conventions know; anybody can send anything as a method.
pub fn method_name(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    known.into_iter().find(|known| method == known).unwrap_or("_OTHER")
}

/// Never zeros: that is no name.
fn random() -> [[u8; 16]; 2] {
    let mut bytes = [[0; 16]; 2];
    if getrandom::fill(bytes.as_flattened_mut()).is_err() || bytes[0] == [0; 16] {
        bytes[0][15] = 1;
    }
    bytes
}

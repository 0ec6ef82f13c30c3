//! Traces by OpenTelemetry: what became of a request, and how long each step took, sent to a collector by OTLP over HTTP.
//!
//! `context` is the W3C header that ties our spans to those of clients and upstreams; `span` is what is recorded of a request; `export`
//! carries it away, `encode` and `collector` write and send it.
//!
//! Invariants: no request waits for a span, and none fails for one: what the queue or the collector does not take is dropped and counted.
//! No query, header, body or token is ever in a span. Off, a request pays for a branch.

mod collector;
mod context;
mod encode;
mod export;
mod span;

use std::sync::Arc;
use std::time::Duration;

use self::collector::Collector;
use self::context::Parent;
pub use self::context::{Digits, TRACEPARENT, TRACESTATE, TraceId};
use self::export::Queue;
pub use self::span::{Attributes, Context, Ended, Kind, Step, Trace, Value, method_name};
use crate::clock::Clock;
use crate::config::{self, LogAccess};
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// Spans can't be sent as the configuration says.
#[derive(Debug, thiserror::Error)]
#[error("traces.{key}: {why}")]
pub struct TracesError {
    key: &'static str,
    why: String,
}

/// A handle on what records and sends spans; clones share it. The default is off.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tracer>>);

struct Tracer {
    queue: Queue,
    clock: Clock,
    sample: f64,
    /// Spans say the path, as the access log does.
    paths: bool,
}

impl Traces {
    /// Sends what is recorded until nobody can record any more. `log`: whether a path is said.
    pub fn start(
        config: &config::Traces,
        log: LogAccess,
        clock: &Clock,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Self, TracesError> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self::default()) };
        let collector = Collector::new(endpoint, config)?;
        let queue = export::start(collector, encode::resource(&config.service_name), tasks, metrics);
        let tracer = Tracer { queue, clock: clock.clone(), sample: config.sample, paths: log == LogAccess::Path };
        Ok(Self(Some(Arc::new(tracer))))
    }

    /// The trace of a request that has just come. `None`: nothing is traced.
    /// `secure`: it came over TLS.
    pub fn begin(&self, secure: bool) -> Option<Box<Trace>> {
        self.0.as_ref().map(|tracer| Box::new(Trace::begin(tracer, secure)))
    }

    /// Sends what waits, for at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        let Some(tracer) = &self.0 else { return };
        if tokio::time::timeout(limit, tracer.queue.flush()).await.is_err() {
            tracing::warn!("spans were still waiting at the end of the drain");
        }
    }
}

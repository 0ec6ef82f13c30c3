//! From requests to the collector: a queue that never waits, and one task that empties it in batches.
//!
//! Invariant: every recorded span is counted once: sent, or dropped where there was no room, or failed where the collector did not take
//! it. A batch is sent once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::collector::Collector;
use super::encode;
use super::span::Spans;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// Requests whose spans wait.
const ROOM: usize = 2048;
/// Spans are sent when there are so many, or when the first of them has waited for so long.
const MANY: usize = 512;
const LONG: Duration = Duration::from_secs(1);
/// The whole exchange with the collector.
const EXCHANGE: Duration = Duration::from_secs(10);

enum Item {
    Spans(Spans),
    /// To be told when everything before it was sent, or given up.
    Flush(oneshot::Sender<()>),
}

pub struct Queue {
    items: Sender<Item>,
    metrics: Metrics,
    /// A full queue was logged.
    told: Arc<AtomicBool>,
}

struct Exporter {
    collector: Collector,
    resource: Resource,
    metrics: Metrics,
    told: Arc<AtomicBool>,
    /// The last batch failed, and the log says so.
    fails: bool,
}

/// Starts the task; it ends when the queue is gone, and sends the rest before.
pub fn start(collector: Collector, resource: Resource, tasks: &Tasks, metrics: &Metrics) -> Queue {
    let (items, receiver) = mpsc::channel(ROOM);
    let (told, metrics) = (Arc::<AtomicBool>::default(), metrics.clone());
    let exporter = Exporter { collector, resource, metrics: metrics.clone(), told: told.clone(), fails: false };
    tasks.spawn_forever(exporter.run(receiver));
    Queue { items, metrics, told }
}

impl Queue {
    /// Half of the room is for requests of known clients: a flood of strangers doesn't push them out.
    pub fn put(&self, spans: Spans, of_known_client: bool) {
        if !of_known_client && self.items.capacity() <= ROOM / 2 {
            self.lost(spans.list.len());
        } else if let Err(refused) = self.items.try_send(Item::Spans(spans)) {
            if let Item::Spans(Spans { list, .. }) = refused.into_inner() {
                self.lost(list.len());
            }
        } else {
            return;
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("spans are dropped: the collector does not keep up");
        }
    }

    pub fn lost(&self, spans: usize) {
        if spans > 0 {
            self.metrics.traced("dropped", spans);
        }
    }

    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.items.send(Item::Flush(done)).await.is_ok() {
            // The task is gone where nobody answers.
            let _ = wait.await;
        }
    }
}

impl Exporter {
    async fn run(mut self, mut items: Receiver<Item>) {
        let (mut batch, mut spans, mut due) = (Vec::new(), 0, Instant::now());
        loop {
            let item = tokio::select! {
                biased;
                () = sleep_until(due), if spans > 0 => None,
                item = items.recv() => match item {
                    Some(item) => Some(item),
                    None => break,
                },
            };
            let mut asked = None;
            match item {
                Some(Item::Spans(more)) => {
                    if spans == 0 {
                        due = Instant::now() + LONG;
                    }
                    spans += more.list.len();
                    batch.push(more);
                    if spans < MANY {
                        continue;
                    }
                }
                Some(Item::Flush(done)) => asked = Some(done),
                None => {}
            }
            self.send(std::mem::take(&mut batch), std::mem::take(&mut spans)).await;
            if items.len() < ROOM / 4 && !self.fails && self.told.swap(false, Ordering::Relaxed) {
                tracing::info!("spans are kept again");
            }
            if let Some(done) = asked {
                // Whoever asked may not wait any more.
                let _ = done.send(());
            }
        }
        self.send(batch, spans).await;
    }

    async fn send(&mut self, batch: Vec<Spans>, spans: usize) {
        if spans == 0 {
            return;
        }
        let message = encode::request(&self.resource, batch).encode_to_vec();
        let answer = timeout(EXCHANGE, self.collector.post(message)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", EXCHANGE.as_secs())));
        match answer {
            Ok(answer) => {
                let said = ExportTraceServiceResponse::decode(answer).unwrap_or_default().partial_success;
                let rejected = said.map_or(0, |said| usize::try_from(said.rejected_spans).unwrap_or(0)).min(spans);
                if rejected > 0 {
                    self.metrics.traced("failed", rejected);
                }
                self.metrics.traced("sent", spans - rejected);
                if std::mem::take(&mut self.fails) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(why) => {
                self.metrics.traced("failed", spans);
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(why, "the collector does not take spans; they are dropped until it does");
                }
            }
        }
    }
}

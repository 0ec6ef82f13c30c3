//! A histogram of durations without a lock: the library's own takes one for each observation, which all workers would share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in microseconds: from an answer of the store to a slow upload.
const BOUNDS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    15_000_000, 60_000_000,
];

/// The counts of a histogram.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    counts: [u64; BOUNDS.len() + 1],
    sum_micros: u64,
}

/// Counted by all threads; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

/// Makes the histograms of a family.
#[derive(Clone, Copy, Debug)]
pub struct Histograms;

impl Buckets {
    pub fn count(&mut self, took: Duration) {
        let micros = micros(took);
        self.counts[bucket(micros)] += 1;
        self.sum_micros = self.sum_micros.wrapping_add(micros);
    }

    pub fn add(&mut self, others: &Self) {
        for (count, other) in self.counts.iter_mut().zip(others.counts) {
            *count += other;
        }
        self.sum_micros = self.sum_micros.wrapping_add(others.sum_micros);
    }

    pub fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // The encoder writes `f64::MAX` as `+Inf` and adds the buckets up.
        let bounds = BOUNDS.iter().map(|micros| seconds(*micros)).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.counts).collect();
        let count = self.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(self.sum_micros), count, &buckets, None)
    }
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let micros = micros(took);
        self.0.counts[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl MetricConstructor<Histogram> for Histograms {
    fn new_metric(&self) -> Histogram {
        Histogram::default()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let now = Buckets {
            counts: self.0.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            sum_micros: self.0.sum_micros.load(Ordering::Relaxed),
        };
        now.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn bucket(micros: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < micros)
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

//! Answered requests. Each worker counts its own in a tally of its own, and what is rendered is the sum: a request costs a lock that
//! nobody else wants, and no two workers write to the same memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashMapExt as _};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::RequestSample;
use super::histogram::Buckets;
use super::labels::{MethodLabel, Name, RequestLabels};

/// The tallies of all workers; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<Vec<Arc<Tally>>>>);

/// One worker's; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    series: Vec<(RequestLabels, u64)>,
    /// Where in `series` each of them is.
    index: HashMap<RequestLabels, usize>,
    /// The same of those seen last, without reading their names.
    places: [usize; PLACES],
    took: Buckets,
    upstream_took: Buckets,
}

/// More than the kinds of requests that a worker sees often; a power of two.
const PLACES: usize = 256;

/// A histogram over all tallies.
#[derive(Clone, Debug)]
pub struct Durations {
    requests: Requests,
    of: fn(&Counts) -> &Buckets,
}

impl Requests {
    pub fn tally(&self) -> Arc<Tally> {
        let tally = Arc::<Tally>::default();
        lock(&self.0).push(Arc::clone(&tally));
        tally
    }

    pub fn durations(&self) -> Durations {
        Durations { requests: self.clone(), of: |counts| &counts.took }
    }

    pub fn upstream_durations(&self) -> Durations {
        Durations { requests: self.clone(), of: |counts| &counts.upstream_took }
    }

    /// How many were answered with a status below 400, with 4xx and with 5xx.
    pub fn by_status(&self) -> [u64; 3] {
        let mut sums = [0; 3];
        self.each(|counts| {
            for (labels, count) in &counts.series {
                let class = match labels.status {
                    ..400 => 0,
                    400..500 => 1,
                    500.. => 2,
                };
                sums[class] += count;
            }
        });
        sums
    }

    fn each(&self, mut see: impl FnMut(&Counts)) {
        let tallies = lock(&self.0).clone();
        for tally in tallies {
            see(&lock(&tally.0));
        }
    }
}

impl Tally {
    pub fn count(&self, sample: &RequestSample<'_>) {
        let mut counts = lock(&self.0);
        *counts.series_of(sample) += 1;
        counts.took.count(sample.took);
        if let Some(took) = sample.upstream_took {
            counts.upstream_took.count(took);
        }
    }
}

impl Counts {
    fn series_of(&mut self, sample: &RequestSample<'_>) -> &mut u64 {
        let method = MethodLabel::of(sample.method);
        let place = &mut self.places[place(sample, method)];
        if !self.series.get(*place).is_some_and(|(labels, _)| fits(labels, sample, method)) {
            let labels = labels(sample, method);
            *place = *self.index.entry(labels).or_insert_with_key(|labels| {
                self.series.push((labels.clone(), 0));
                self.series.len() - 1
            });
        }
        &mut self.series[*place].1
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            series: Vec::new(),
            index: HashMap::new(),
            places: [0; PLACES],
            took: Buckets::default(),
            upstream_took: Buckets::default(),
        }
    }
}

/// By where the names are, not by what they say: they are made once.
fn place(sample: &RequestSample<'_>, method: MethodLabel) -> usize {
    let address = |name: Option<&Arc<str>>| name.map_or(0, |name| name.as_ptr().addr());
    let parts = [address(sample.client), address(sample.upstream), method.address(), sample.status.as_u16().into()];
    let mixed = parts.into_iter().fold(sample.origin as u64, |mixed, part| {
        (mixed.rotate_left(5) ^ u64::try_from(part).unwrap_or_default()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    usize::try_from(mixed >> (u64::BITS - PLACES.trailing_zeros())).unwrap_or_default()
}

fn fits(labels: &RequestLabels, sample: &RequestSample<'_>, method: MethodLabel) -> bool {
    let same = |name: &Name, other: Option<&Arc<str>>| match other {
        Some(other) => Arc::ptr_eq(&name.0, other) || name.0 == *other,
        None => name.0.is_empty(),
    };
    labels.status == sample.status.as_u16()
        && labels.method == method
        && labels.origin == sample.origin
        && same(&labels.client, sample.client)
        && same(&labels.upstream, sample.upstream)
}

fn labels(sample: &RequestSample<'_>, method: MethodLabel) -> RequestLabels {
    RequestLabels {
        client: Name(sample.client.cloned().unwrap_or_default()),
        upstream: Name(sample.upstream.cloned().unwrap_or_default()),
        method,
        status: sample.status.as_u16(),
        origin: sample.origin,
    }
}

impl EncodeMetric for Requests {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut totals = BTreeMap::<RequestLabels, u64>::new();
        self.each(|counts| {
            for (labels, count) in &counts.series {
                *totals.entry(labels.clone()).or_default() += count;
            }
        });
        for (labels, total) in &totals {
            encoder.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(total, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        let mut is_empty = true;
        self.each(|counts| is_empty &= counts.series.is_empty());
        is_empty
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut sum = Buckets::default();
        self.requests.each(|counts| sum.add((self.of)(counts)));
        sum.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A panic while it was held can have lost one request's count at most.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

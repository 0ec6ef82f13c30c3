//! What the operating system says of this process, read when it is asked for. The names are those of Prometheus's own clients, without
//! our prefix. What can't be read is left out, never 0.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::process::{memory, of_status};

/// The collector of these metrics.
#[derive(Debug, Default)]
pub struct Process {
    /// Does not change, and costs more to read than the rest.
    started: OnceLock<Option<f64>>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let cpu = ConstCounter::new(cpu_seconds());
        tell(to, "process_cpu", "CPU time used, of user and system together", Some(&Unit::Seconds), &cpu)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = memory::resident_by(&status) {
            let bytes = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            tell(to, "process_resident_memory", "Memory in use that is not swapped out", Some(&Unit::Bytes), &bytes)?;
        }
        if let Some(threads) = of_status(&status, "Threads:") {
            tell(to, "process_threads", "Threads", None, &ConstGauge::new(i64::try_from(threads).unwrap_or(i64::MAX)))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = i64::try_from(open.count()).unwrap_or(i64::MAX) - 1;
            tell(to, "process_open_fds", "Open file descriptors", None, &ConstGauge::new(open))?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let most = ConstGauge::new(i64::try_from(most).unwrap_or(i64::MAX));
            tell(to, "process_max_fds", "File descriptors that may be open", None, &most)?;
        }
        if let Some(started) = self.started.get_or_init(started) {
            let help = "When the process began, in seconds since 1970";
            tell(to, "process_start_time", help, Some(&Unit::Seconds), &ConstGauge::new(*started))?;
        }
        Ok(())
    }
}

fn tell(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

#[expect(clippy::cast_precision_loss, reason = "a metric: nobody runs for ten million years")]
fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn started() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    started_at(&stat, booted.trim().parse().ok()?, clock_ticks_per_second())
}

/// The process's name, the second field, may hold blanks and parentheses; the start, in ticks since the boot, is the 22nd.
#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 are exact in an f64 for longer than there are such systems"
)]
fn started_at(stat: &str, booted: u64, ticks_per_second: u64) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(19)?.parse().ok()?;
    Some(booted as f64 + ticks as f64 / ticks_per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1234 (a) b) {}", fields.join(" "));
        assert_eq!(started_at(&stat, 1_700_000_000, 100), Some(1_700_000_000.22));
        assert_eq!(started_at("1 (x) R", 0, 100), None);
    }
}

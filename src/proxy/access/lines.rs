//! Lines of the access log on their way out: each worker gathers its own, and writes many at once.
//!
//! They leave before the worker sleeps, when there are many of them, and at the end; whole lines only, in the order in which the worker's
//! requests ended. So a quiet proxy says everything at once, and a busy one makes a system call for many requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Entry;
use crate::clock::{Clock, Timestamp};
use crate::config::LogFormat;

/// So much is written without waiting for the worker to have nothing to do.
const MANY: usize = 32 << 10;
/// Room for the line that goes past `MANY`.
const ONE: usize = 2 << 10;

/// Takes whole lines.
type Output = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The access log of the process; clones are one.
#[derive(Clone)]
pub struct AccessLog(Option<Arc<Log>>);

struct Log {
    format: LogFormat,
    output: Output,
    workers: Mutex<Vec<Arc<Lines>>>,
}

/// The lines of one worker that wait to be written.
pub struct Lines {
    format: LogFormat,
    output: Output,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    second: Second,
}

/// The time of the last line: all but its fraction is the same for thousands.
#[derive(Default)]
struct Second {
    since_epoch: i64,
    shown: Vec<u8>,
}

impl AccessLog {
    /// No access log.
    pub fn off() -> Self {
        Self(None)
    }

    pub fn new(format: LogFormat, output: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Log { format, output: Arc::new(output), workers: Mutex::default() })))
    }

    /// The lines of one more worker; `None` where nobody wants them.
    pub(super) fn worker(&self) -> Option<Arc<Lines>> {
        let log = self.0.as_ref()?;
        let lines = Lines { format: log.format, output: Arc::clone(&log.output), waiting: Mutex::default() };
        let lines = Arc::new(lines);
        lock(&log.workers).push(Arc::clone(&lines));
        Some(lines)
    }

    /// Writes what waits, of all workers.
    pub fn write_out(&self) {
        let Some(log) = &self.0 else { return };
        let workers = lock(&log.workers).clone();
        for lines in workers {
            lines.write_out();
        }
    }
}

impl Lines {
    pub fn add(&self, entry: &Entry<'_>, clock: &Clock) {
        let micros = clock.now_micros();
        let mut waiting = lock(&self.waiting);
        let Waiting { lines, second } = &mut *waiting;
        if second.shift_to(micros) {
            // Nothing stays for long, however busy the worker is.
            self.write(lines);
        }
        entry.write(self.format, &second.shown, lines);
        if lines.len() >= MANY {
            self.write(lines);
        }
    }

    /// Writes what waits.
    pub fn write_out(&self) {
        self.write(&mut lock(&self.waiting).lines);
    }

    fn write(&self, lines: &mut Vec<u8>) {
        if !lines.is_empty() {
            (self.output)(lines);
            lines.clear();
            lines.shrink_to(MANY + ONE);
        }
    }
}

impl Second {
    /// Shows `micros`, in RFC 3339. Has another second begun?
    fn shift_to(&mut self, micros: i64) -> bool {
        let (second, mut fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        let began = self.shown.is_empty() || second != self.since_epoch;
        if began {
            let shown = Timestamp::from_secs(second).to_string();
            self.since_epoch = second;
            self.shown = format!("{}.000000Z", shown.trim_end_matches('Z')).into_bytes();
        }
        for digit in self.shown.iter_mut().rev().skip(1).take(6) {
            *digit = b'0' + u8::try_from(fraction % 10).unwrap_or_default();
            fraction /= 10;
        }
        began
    }
}

/// What waits is whole whenever the lock is free: a line that panicked halfway is none, but no reason to lose others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::proxy::PeerAddress;

    /// What one worker writes, write by write.
    struct Rig {
        log: AccessLog,
        worker: Arc<Lines>,
        clock: Clock,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Rig {
        fn new() -> Self {
            let written = Arc::<Mutex<Vec<String>>>::default();
            let log = AccessLog::new(LogFormat::Text, {
                let written = Arc::clone(&written);
                move |lines| lock(&written).push(String::from_utf8(lines.to_vec()).unwrap())
            });
            let worker = log.worker().unwrap();
            Self { log, worker, clock: Clock::manual(Timestamp::from_millis(1_800_000_000_007)), written }
        }

        fn add(&self, to: &Lines, path: &str) {
            let entry = Entry {
                request_id: "id",
                peer: &PeerAddress::Unix { uid: 1, gid: 1 },
                client: "payroll",
                account: Some("alice"),
                upstream: "graph",
                method: &Method::GET,
                path,
                status: 200,
                error: None,
                attempts: 1,
                bytes: 2,
                took_ms: 3,
                upstream_ms: None,
                broke_off: None,
                trace_id: None,
            };
            to.add(&entry, &self.clock);
        }

        fn written(&self) -> Vec<String> {
            std::mem::take(&mut *lock(&self.written))
        }
    }

    #[test]
    fn lines_share_a_write() {
        let rig = Rig::new();
        rig.add(&rig.worker, "/1");
        rig.clock.advance(Duration::from_millis(990));
        rig.add(&rig.worker, "/2");
        assert_eq!(rig.written(), Vec::<String>::new());
        rig.worker.write_out();
        let line = |at: &str, path: &str| {
            format!(
                "2027-01-15T08:00:00.{at}000Z  INFO bearerd::access: request_id=\"id\" peer=unix:uid=1 client=\"payroll\" \
                 account=\"alice\" upstream=\"graph\" method=GET path=\"{path}\" status=200 attempts=1 bytes=2 took_ms=3\n"
            )
        };
        assert_eq!(rig.written(), [line("007", "/1") + &line("997", "/2")]);
        rig.worker.write_out();
        assert_eq!(rig.written(), Vec::<String>::new(), "an empty write is none");
    }

    #[test]
    fn many_lines_and_old_ones_do_not_wait() {
        let rig = Rig::new();
        rig.add(&rig.worker, "/old");
        rig.clock.advance(Duration::from_secs(1));
        rig.add(&rig.worker, "/new");
        let written = rig.written();
        assert!(written.len() == 1 && written[0].contains("/old") && !written[0].contains("/new"), "{written:?}");
        for number in 0..1_000 {
            rig.add(&rig.worker, &format!("/{number}"));
        }
        let before = rig.written();
        assert!(before.len() > 3 && before.iter().all(|lines| (MANY..MANY + ONE).contains(&lines.len())), "{before:?}");
        rig.worker.write_out();
        let all = before.concat() + &rig.written().concat();
        assert_eq!(all.lines().count(), 1_001);
        assert!(all.lines().skip(1).enumerate().all(|(number, line)| line.contains(&format!("path=\"/{number}\" "))));
    }

    #[test]
    fn one_long_line_leaves_no_large_buffer() {
        let rig = Rig::new();
        rig.add(&rig.worker, &"\u{7f}".repeat(64 << 10));
        assert_eq!(rig.written().len(), 1);
        assert!(lock(&rig.worker.waiting).lines.capacity() <= MANY + ONE);
    }

    #[test]
    fn what_waits_anywhere_can_be_written_at_the_end() {
        let rig = Rig::new();
        let other = rig.log.worker().unwrap();
        rig.add(&rig.worker, "/1");
        rig.add(&other, "/2");
        rig.log.write_out();
        assert_eq!(rig.written().len(), 2);
        rig.log.write_out();
        assert_eq!(rig.written().len(), 0);
        assert!(AccessLog::off().worker().is_none());
    }
}

//! How much memory this process uses, how much it may use, and whether that is too much.
//!
//! Invariant: between the two marks nothing turns, so that a process at its limit does not refuse and admit by turns.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::of_status;

/// Of the mark: below that much, memory is no matter any more.
const LOW_PERCENT: u64 = 95;
/// Of what the system allows: the mark, where nobody has set one.
const MARK_PERCENT: u64 = 90;
/// What is no limit: version 1 says "unlimited" in numbers like this.
const UNLIMITED: u64 = 1 << 60;

/// Whether too much memory is in use; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<AtomicBool>);

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    High,
    Low,
}

impl Pressure {
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// So much is in use; past `mark` it is too much. `None`: it never is.
    pub fn look(&self, used: u64, mark: Option<u64>) -> Option<Turn> {
        let was_high = self.is_high();
        let is_high = mark.is_some_and(|mark| used > if was_high { percent(mark, LOW_PERCENT) } else { mark });
        self.0.store(is_high, Ordering::Relaxed);
        match (was_high, is_high) {
            (false, true) => Some(Turn::High),
            (true, false) => Some(Turn::Low),
            _ => None,
        }
    }
}

/// `/proc/self/status`, held open: a process that has no file descriptor left sees its memory too.
#[derive(Debug)]
pub struct Status(File);

impl Status {
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/status").map(Self)
    }

    /// Memory that is not swapped out, in bytes.
    pub fn resident(&self) -> Option<u64> {
        let mut text = [0; 8192];
        let length = self.0.read_at(&mut text, 0).ok()?;
        resident_by(&String::from_utf8_lossy(&text[..length]))
    }
}

/// The same, by `/proc/self/status`, where sizes are in KiB.
pub fn resident_by(status: &str) -> Option<u64> {
    of_status(status, "VmRSS:").map(|kibibytes| kibibytes.saturating_mul(1024))
}

/// The mark that follows from the limit of our control group, where it has one.
pub fn usual_mark() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limit = limit(&groups, |file| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok())?;
    Some(percent(limit, MARK_PERCENT))
}

/// The tightest limit of the groups that we are in, by `/proc/self/cgroup`. Inside a container the group may be named as its host knows it, and
/// stand at the root.
fn limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let of_version = |version: &str, root: &str, file: &str| {
        let group = groups.lines().find_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|controller| controller == version).then_some(group)
        })?;
        let group = PathBuf::from(group.trim_start_matches('/'));
        let bytes = |group: &Path| read(&Path::new(root).join(group).join(file))?.trim().parse().ok();
        group.ancestors().filter_map(bytes).filter(|bytes: &u64| *bytes < UNLIMITED).min()
    };
    // Version 2 has one group for all controllers, which it does not name.
    of_version("memory", "memory", "memory.limit_in_bytes").or_else(|| of_version("", "", "memory.max"))
}

fn percent(whole: u64, percent: u64) -> u64 {
    whole / 100 * percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_the_marks_nothing_turns() {
        let pressure = Pressure::default();
        let turns: Vec<_> = [1000, 1001, 999, 951, 950, 999, 1000, 1001]
            .into_iter()
            .map(|used| (pressure.look(used, Some(1000)), pressure.is_high()))
            .collect();
        let (high, low) = (Some(Turn::High), Some(Turn::Low));
        assert_eq!(
            turns,
            [
                (None, false),
                (high, true),
                (None, true),
                (None, true),
                (low, false),
                (None, false),
                (None, false),
                (high, true)
            ]
        );
        assert_eq!((pressure.look(u64::MAX, None), pressure.is_high()), (low, false), "without a mark there is enough");
    }

    #[test]
    fn limits_of_both_versions() {
        let found = |groups: &str, files: &[(&str, &str)]| {
            limit(groups, |file| {
                let known = files.iter().find(|(path, _)| Path::new(path) == file);
                known.map(|(_, text)| format!("{text}\n"))
            })
        };
        let unlimited = "9223372036854771712";
        assert_eq!(found("0::/\n", &[("memory.max", "1000000")]), Some(1_000_000), "in a container");
        assert_eq!(found("0::/a/b\n", &[("a/b/memory.max", "max"), ("a/memory.max", "7")]), Some(7), "the one above");
        assert_eq!(found("0::/a\n", &[("a/memory.max", "max")]), None);
        assert_eq!(found("0::/host/docker/1\n", &[("memory.max", "5")]), Some(5), "as its host knows it");
        assert_eq!(found("3:cpu,memory:/a\n0::/\n", &[("memory/a/memory.limit_in_bytes", "9")]), Some(9));
        assert_eq!(found("3:memory:/a\n", &[("memory/memory.limit_in_bytes", unlimited)]), None);
        assert_eq!(found("", &[]), None);
        assert_eq!(found("nonsense\n", &[("memory.max", "5")]), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(Status::open().unwrap().resident().is_some_and(|bytes| bytes > 100_000));
    }
}

//! What a process that holds tokens asks of its operating system: no core dumps, no peeking by its neighbours, enough
//! file descriptors for its connections.

pub mod memory;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// A request to the operating system that failed; the process can go on without it, and the log should say so.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct HardeningError {
    what: &'static str,
    #[source]
    source: std::io::Error,
}

/// Keeps memory out of core dumps, and keeps other processes of the same user from attaching to this one.
pub fn forbid_dumps() -> Result<(), HardeningError> {
    let failed =
        |source: rustix::io::Errno| HardeningError { what: "core dumps can't be forbidden", source: source.into() };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}

/// Raises the soft limit of open files to the hard one and returns it; `None`: unlimited. Each proxied connection needs two.
pub fn raise_open_files() -> Result<Option<u64>, HardeningError> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|source| HardeningError { what: "the limit of open files can't be raised", source: source.into() })?;
    Ok(limit.maximum)
}

/// The number behind `name` in `/proc/self/status`.
pub fn of_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn the_process_leaves_no_dump_and_may_open_what_the_system_allows() {
        forbid_dumps().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let raised = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
    }

    #[test]
    fn numbers_of_the_status() {
        let status = "Name:\tbearerd\nVmRSS:\t    5120 kB\nThreads:\t7\n";
        let found = ["VmRSS:", "Threads:", "VmSwap:"].map(|name| of_status(status, name));
        assert_eq!((found, memory::resident_by(status)), ([Some(5120), Some(7), None], Some(5 << 20)));
    }
}

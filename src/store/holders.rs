//! Which processes work on the embedded store: each holds an operating system's lock on a file of its own, so that a process
//! that died, however it died, is known to be dead.
//!
//! What a process says of itself stands in its file, for those who may read the store: a line with its id and the key ring that it has
//! opened, and one with the address where its operators reach it.
//!
//! Invariant: a process that lives is never called dead. Whatever can't be found out counts as alive.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::seal::NoRandom;
use crate::config::Listen;

/// Far more than the races that can be lost.
const ATTEMPTS: u32 = 100;

/// The random name of one opening of the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HolderId(pub u128);

impl HolderId {
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if canonical { u128::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Our own lock, and the way to ask for the others'.
#[derive(Debug)]
pub struct Holders {
    directory: PathBuf,
    own: HolderId,
    /// Locked as long as it is open, which is as long as this process lives at most.
    lock: File,
    /// What stands in it.
    said: Mutex<Said>,
}

/// What a process says of itself.
#[derive(Debug, Default)]
struct Said {
    generation: u64,
    admin: Option<Listen>,
}

/// A process that works on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, as it sees itself; 0: it doesn't say.
    pub pid: u32,
    /// The key ring that it has opened; 0: it doesn't say.
    pub generation: u64,
}

impl Holders {
    /// Takes a lock of our own in `directory` and clears away the files of the dead.
    pub fn register(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        for _ in 0..ATTEMPTS {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(NoRandom::from(error)))?;
            let own = HolderId(u128::from_be_bytes(random));
            let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file_of(&directory, own))?;
            // Between making the file and locking it, another process may have taken it for a dead one's.
            match lock.try_lock() {
                Ok(()) if lock.metadata()?.nlink() > 0 => {
                    let holders = Self { directory, own, lock, said: Mutex::default() };
                    holders.clear_the_dead()?;
                    return Ok(holders);
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other("this file system can't hold locks"))
    }

    /// Tells the others which key ring this process has opened. What can't be told is taken for not known.
    pub fn knows(&self, generation: u64) {
        self.say(|said| said.generation = generation);
    }

    /// Tells the others where this process's admin listener is; `None`: nowhere, from now on.
    pub fn is_reached_at(&self, admin: Option<&Listen>) {
        self.say(|said| said.admin = admin.cloned());
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut said);
        let admin = said.admin.as_ref().map(|admin| format!("{admin}\n")).unwrap_or_default();
        let text = format!("{} {}\n{admin}", std::process::id(), said.generation);
        // The first line never gets shorter: a reader finds the old text, or the new one before the rest of the old, and both are true.
        let written = self.lock.write_all_at(text.as_bytes(), 0);
        let _ = written.and_then(|()| self.lock.set_len(text.len() as u64));
    }

    /// The other processes that live.
    pub fn others(&self) -> io::Result<Vec<Process>> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !id_of(&path).is_some_and(|id| id != self.own && !self.is_dead(id)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut words = text.split_ascii_whitespace();
            let pid = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let generation = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            others.push(Process { pid, generation });
        }
        Ok(others)
    }

    pub fn own(&self) -> HolderId {
        self.own
    }

    /// True only if the process behind `id` is surely gone.
    pub fn is_dead(&self, id: HolderId) -> bool {
        if id == self.own {
            return false;
        }
        match File::open(file_of(&self.directory, id)) {
            Ok(file) => file.try_lock_shared().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    fn clear_the_dead(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if id_of(&path).is_none_or(|id| id == self.own) {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                // Locked by us now: nobody can start to live in it while it is unlinked.
                Ok(()) => fs::remove_file(&path).or_else(ignore_missing)?,
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        let _ = fs::remove_file(file_of(&self.directory, self.own));
    }
}

/// Those processes that surely live, and where their admin listeners are, asked by one that is no holder itself.
pub fn servers(directory: &Path) -> Vec<(HolderId, Listen)> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let id = id_of(&entry.path())?;
            let admin = fs::read_to_string(entry.path()).ok()?.lines().nth(1)?.parse().ok()?;
            is_alive(directory, id).then_some((id, admin))
        })
        .collect()
}

/// Whether the process behind `id` surely lives, asked by one that is no holder itself.
fn is_alive(directory: &Path, id: HolderId) -> bool {
    File::open(file_of(directory, id)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn file_of(directory: &Path, id: HolderId) -> PathBuf {
    directory.join(format!("{id}.lock"))
}

fn id_of(path: &Path) -> Option<HolderId> {
    path.file_name().and_then(|name| name.to_str()?.strip_suffix(".lock")).and_then(HolderId::parse)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_dead_once_its_lock_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let first = Holders::register(directory.path().join("holders")).unwrap();
        let second = Holders::register(directory.path().join("holders")).unwrap();
        assert!(!first.is_dead(first.own()) && !first.is_dead(second.own()) && !second.is_dead(first.own()));
        second.knows(12);
        first.knows(3);
        let pid = std::process::id();
        assert_eq!(first.others().unwrap(), [Process { pid, generation: 12 }]);
        let gone = second.own();
        let holders = directory.path().join("holders");
        assert!(is_alive(&holders, gone) && !is_alive(directory.path(), gone));
        let at: Listen = "127.0.0.1:8081".parse().unwrap();
        second.is_reached_at(Some(&at));
        second.knows(13);
        assert_eq!(servers(&holders), [(gone, at)], "the first serves nobody");
        assert_eq!(first.others().unwrap(), [Process { pid, generation: 13 }]);
        second.is_reached_at(None);
        assert!(is_alive(&holders, gone) && servers(&holders).is_empty());
        second.knows(100);
        assert!(servers(&holders).is_empty());
        drop(second);
        assert!(!is_alive(&holders, gone) && servers(&holders).is_empty());
        assert!(first.is_dead(gone) && first.others().unwrap().is_empty());
    }

    #[test]
    fn the_file_of_a_killed_process_is_cleared_and_a_living_ones_stays() {
        let directory = tempfile::tempdir().unwrap();
        let living = Holders::register(directory.path().to_owned()).unwrap();
        let killed = HolderId(7);
        fs::write(file_of(directory.path(), killed), "7 1\n127.0.0.1:8081\n").unwrap();
        assert!(servers(directory.path()).is_empty(), "what the dead say is no address");
        fs::write(directory.path().join("notes.txt"), "not ours").unwrap();
        assert!(living.is_dead(killed), "nobody locks it");

        let next = Holders::register(directory.path().to_owned()).unwrap();
        assert!(!file_of(directory.path(), killed).exists() && living.is_dead(killed));
        assert!(file_of(directory.path(), living.own()).exists() && !next.is_dead(living.own()));
        assert!(directory.path().join("notes.txt").exists());
    }

    #[test]
    fn names_that_are_no_holder() {
        assert_eq!(HolderId::parse(&HolderId(u128::MAX - 1).to_string()), Some(HolderId(u128::MAX - 1)));
        for text in
            ["", "..", "+0000000000000000000000000000007", "ABCDEF00000000000000000000000000", "../../../etc/passwd"]
        {
            assert_eq!(HolderId::parse(text), None, "{text}");
        }
    }
}

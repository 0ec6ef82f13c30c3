//! The store's keys, as far as they may be known, and their change while everybody serves.
//!
//! A rotation has three phases, each durable, and goes on where it was cut off: (1) a new key is put into the ring, and every process
//! on the store opens it; (2) it seals what is new; (3) what older keys sealed is sealed anew, a few records at a time, and then they
//! are erased. No refresh waits longer than for one slice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

pub use super::holders::Process;
pub use super::sqlite::{Phase, Position};
use super::{Sqlite, Store, StoreError};
use crate::clock::Timestamp;

/// How often processes are asked whether they have opened the new key.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Between two slices: others write meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    pub id: u32,
    pub made_at: Timestamp,
    pub state: KeyState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// In the ring, and seals nothing yet.
    Prepared,
    /// New records are sealed with it.
    Active,
    /// Opens what it sealed before.
    OpensOld,
}

/// Names and dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReport {
    /// The oldest first.
    pub keys: Vec<KeyStatus>,
    /// The names of the master keys that open the store: one, but while that changes.
    pub masters: BTreeSet<String>,
}

/// What became of a change of the master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterRotated {
    /// The new key alone opens the store.
    Done { id: String },
    /// Both keys open the store. `placed`: the new one is where the configuration looks for it, or why not.
    Both { id: String, placed: Result<(), String> },
}

/// What a rotation is at.
#[derive(Debug)]
pub enum Progress<'a> {
    /// These processes have not opened the new key yet.
    Waiting(&'a [Process]),
    /// Records that are done, and about how many there are.
    Resealing { done: u64, of: u64 },
}

/// Why a rotation is not over. It goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing was sealed by the new key.
    #[error("{} on this store did not open the new key", processes(.0))]
    Behind(Vec<Process>),
    /// The old key stays for these.
    #[error("{count} sealed values can't be opened, so the old key stays: {}", .names.join("; "))]
    Left { count: u64, names: Vec<String> },
}

fn processes(processes: &[Process]) -> String {
    let pids: Vec<_> = processes.iter().map(|process| process.pid.to_string()).collect();
    format!("process{} {}", if pids.len() == 1 { "" } else { "es" }, pids.join(", "))
}

impl KeyReport {
    /// A rotation was begun and is not over.
    pub fn is_rotating(&self) -> bool {
        self.keys.len() > 1 || self.masters.len() > 1
    }
}

impl Store {
    /// The data keys of the ring and the names of the master keys.
    pub async fn keys(&self) -> Result<KeyReport, StoreError> {
        self.run("keys", Sqlite::key_report).await
    }

    /// How many sealed values there are of each data key. Looks at every record, a thousand at a time.
    pub async fn sealed_by(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let (mut at, mut counts) = (Position::Grants(0), BTreeMap::new());
        while at != Position::End {
            let mut slice = BTreeMap::new();
            (at, slice) = self
                .run("count_sealed", move |backend| backend.count_sealed(at, &mut slice).map(|at| (at, slice)))
                .await?;
            for (key, count) in slice {
                *counts.entry(key).or_default() += count;
            }
        }
        Ok(counts)
    }

    /// The other processes that work on this store now.
    pub async fn processes(&self) -> Result<Vec<Process>, StoreError> {
        self.run("processes", Sqlite::processes).await
    }

    /// Changes the data key, or finishes a change that was cut off. `patience`: how long other processes may take to open the new
    /// key; a running server takes a quarter of a second.
    pub async fn rotate(&self, patience: Duration, mut tell: impl FnMut(Progress<'_>)) -> Result<(), RotateError> {
        let _lock = self.run("lock_rotation", Sqlite::lock_rotation).await?;
        let mut phase = self.run("phase", Sqlite::phase).await?;
        if phase == Phase::Idle {
            self.run("add_key", Sqlite::add_key).await?;
            phase = self.run("phase", Sqlite::phase).await?;
        }
        if let Phase::Prepared(new) = phase {
            self.known_to_all(patience, &mut tell).await?;
            self.run("activate", move |backend| backend.activate(new)).await?;
        }
        let (mut at, mut left) = (Position::Grants(0), Vec::new());
        while at != Position::End {
            let (done, of) = self.run("progress", move |backend| backend.progress(at)).await?;
            tell(Progress::Resealing { done, of });
            let mut names = Vec::new();
            (at, names) =
                self.run("reseal", move |backend| backend.reseal(at, &mut names).map(|at| (at, names))).await?;
            left.extend(names);
            tokio::time::sleep(PAUSE).await;
        }
        let Phase::Active(old) = self.run("phase", Sqlite::phase).await? else { return Ok(()) };
        let counts = self.sealed_by().await?;
        let count = old.iter().filter_map(|key| counts.get(key)).sum();
        if count > 0 {
            return Err(RotateError::Left { count, names: left });
        }
        Ok(self.run("retire", Sqlite::retire).await?)
    }

    /// Changes the master key to the one in `file`, which stays where it is; a second call ends the old one.
    pub async fn rotate_master(&self, file: &Path) -> Result<MasterRotated, StoreError> {
        let _lock = self.run("lock_rotation", Sqlite::lock_rotation).await?;
        let file = file.to_owned();
        self.run("rotate_master", move |backend| backend.rotate_master(&file)).await
    }

    /// Waits until every process has opened the ring as it is now.
    async fn known_to_all(&self, patience: Duration, tell: &mut impl FnMut(Progress<'_>)) -> Result<(), RotateError> {
        let asked = patience.as_millis().div_ceil(ASK_EVERY.as_millis());
        for _ in 0..asked {
            let behind = self.run("behind", Sqlite::behind).await?;
            if behind.is_empty() {
                return Ok(());
            }
            tell(Progress::Waiting(&behind));
            tokio::time::sleep(ASK_EVERY).await;
        }
        match self.run("behind", Sqlite::behind).await? {
            behind if behind.is_empty() => Ok(()),
            behind => Err(RotateError::Behind(behind)),
        }
    }
}

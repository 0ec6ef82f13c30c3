//! Where grants are kept: sealed, durable, and changed only by the steps of the refresh protocol.
//!
//! Invariants: a commit that returned is on disk; no state of an older epoch is ever stored; a refresh token leaves the store
//! only through `claim`, or through the `revoke` that has erased it. Every backend sees sealed bytes only (`seal`), and every backend decides by the same pure steps (`refresh`).

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::account::{AccountKey, Alias};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::config::Rotation;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::tasks::Tasks;

pub use self::audit::{AuditFlaw, AuditPage, AuditQuery};
pub use self::backup::{Gone, Restored};
pub use self::grant::{
    AccessToken, Change, Claim, Commit, Committed, Failed, Failure, FailureKind, Fingerprint, Grant, Parked, Reason,
    Refusal, SignIn, Status, TicketKind, scope_set,
};
pub use self::key_file::generate_key;
pub use self::keys::{KeyReport, KeyState, KeyStatus, MasterRotated, Phase, Process, Progress, RotateError};
pub use self::refresh::Decision;
use self::sqlite::Sqlite;

mod audit;
mod backup;
mod grant;
mod holders;
mod key_file;
mod keys;
mod refresh;
mod seal;
mod sqlite;

/// Where nobody says otherwise.
const AUDIT_KEPT: Duration = Duration::from_hours(400 * 24);

/// A handle on the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Arc<Sqlite>,
    tasks: Tasks,
    observer: Option<(Metrics, Clock)>,
    audit_kept: Duration,
}

/// Which accounts a page shows.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// As `Grant::state` calls it.
    pub state: Option<&'static str>,
    pub provider: Option<String>,
    /// A part of the alias or of the user's name, upper and lower case alike.
    pub search: Option<String>,
    /// Only aliases that come after this one.
    pub after: Option<String>,
    pub limit: usize,
}

/// A page of accounts.
#[derive(Debug)]
pub struct Listed {
    pub grants: Vec<Grant>,
    /// After which alias the next page begins; `None`: this is the last. A page that is not full, or empty, may have a next one.
    pub next: Option<String>,
}

/// How an account came by a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is the current one.
    Now,
    /// The current one was got by presenting it.
    Before,
    Never,
}

/// A grant that was revoked, and is to be revoked at the provider too.
#[derive(Debug)]
pub struct Revoked {
    /// What was erased; `None`: there was nothing left of it, or nothing that opens.
    pub refresh_token: Option<Secret<String>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store can't be used now: locked, disk full, I/O.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    #[error("the alias {0} is taken by another account")]
    AliasTaken(Alias),
    /// A record doesn't open: wrong key, or the file was changed by someone else. No token of it is used.
    #[error("record {record} of the store can't be opened: {why}")]
    Corrupt { record: String, why: String },
    /// `store.path` or `store.key_file` can't be used at all.
    #[error("{key}: {why}")]
    Setup { key: &'static str, why: String },
}

impl Store {
    /// Whether there is a store at this place: `open` makes one where there is none.
    pub fn exists(config: &config::Store) -> bool {
        sqlite::exists(config)
    }

    /// The living processes that have the store of this place open, as they call themselves in `opened_by`, and where their admin listeners
    /// are. They say so themselves, in files that nobody else can write.
    pub fn servers(config: &config::Store) -> Vec<(String, config::Listen)> {
        sqlite::servers(config).into_iter().map(|(process, admin)| (process.to_string(), admin)).collect()
    }

    /// Tells `servers` where this process's admin listener is: after it listens, and `None` before it ceases to.
    pub fn is_reached_at(&self, admin: Option<&config::Listen>) {
        self.backend.is_reached_at(admin);
    }

    /// A random name of this opening of the store.
    pub fn opened_by(&self) -> String {
        self.backend.opened_by()
    }

    /// Opens the store, making it (and its key file) on the first start.
    pub async fn open(config: &config::Store, clock: Clock, tasks: Tasks) -> Result<Self, StoreError> {
        let config = config.clone();
        let backend = finished(tasks.spawn_blocking(move || Sqlite::open(&config, clock)).await)?;
        Ok(Self { backend: Arc::new(backend), tasks, observer: None, audit_kept: AUDIT_KEPT })
    }

    /// How long records of the audit log stay.
    #[must_use]
    pub fn keeping_audit(mut self, kept: Duration) -> Self {
        self.audit_kept = kept;
        self
    }

    /// The duration of each step is told to `metrics`.
    #[must_use]
    pub fn observed_by(mut self, metrics: Metrics, clock: Clock) -> Self {
        self.observer = Some((metrics, clock));
        self
    }

    /// A read and the key check: what `/readyz` asks.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.run("ready", Sqlite::ready).await
    }

    pub async fn find(&self, alias: &str) -> Result<Option<Grant>, StoreError> {
        let alias = alias.to_owned();
        self.run("find", move |backend| backend.find(&alias)).await
    }

    pub async fn load(&self, key: &AccountKey) -> Result<Option<Grant>, StoreError> {
        let key = key.clone();
        self.run("load", move |backend| backend.load(&key)).await
    }

    /// Whether the account's refresh token is this one, or was got by presenting this one.
    pub async fn holds(&self, key: &AccountKey, refresh_token: &Secret<String>) -> Result<Held, StoreError> {
        let (key, refresh_token) = (key.clone(), refresh_token.clone());
        self.run("holds", move |backend| backend.holds(&key, &refresh_token)).await
    }

    /// The account of this name, which `AccountKey::id` makes.
    pub async fn by_id(&self, id: &str) -> Result<Option<Grant>, StoreError> {
        let id = id.to_owned();
        self.run("by_id", move |backend| backend.by_id(&id)).await
    }

    /// Grants in the order of their aliases, after `after`, without tokens.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Grant>, StoreError> {
        let wanted = Wanted { after: after.map(str::to_owned), limit, ..Wanted::default() };
        Ok(self.page(wanted).await?.grants)
    }

    /// The next accounts of those that are wanted, in the order of their aliases, without tokens.
    pub async fn page(&self, wanted: Wanted) -> Result<Listed, StoreError> {
        self.run("page", move |backend| backend.page(&wanted)).await
    }

    /// Active grants of `provider` whose refresh token nobody has used since `before`, the longest idle first, without tokens;
    /// `skip` of them are left out.
    pub async fn idle(
        &self,
        provider: &str,
        before: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let provider = provider.to_owned();
        self.run("idle", move |backend| backend.idle(&provider, before, skip, limit)).await
    }

    /// (provider, state) -> number, of those in which an account ever was. States: `active`, `uncertain`, `reauth`, `revoked`.
    pub async fn counts(&self) -> Result<Vec<(String, &'static str, u64)>, StoreError> {
        self.run("counts", Sqlite::counts).await
    }

    /// What `claim` would answer now, and the status that it would leave. Nothing is written.
    pub async fn would_claim(
        &self,
        key: &AccountKey,
        epoch: u64,
        version: u64,
        rotation: Rotation,
    ) -> Result<(Decision, Status), StoreError> {
        let key = key.clone();
        self.run("would_claim", move |backend| backend.would_claim(&key, (epoch, version), rotation)).await
    }

    pub async fn claim(
        &self,
        key: &AccountKey,
        epoch: u64,
        version: u64,
        lease: Duration,
        rotation: Rotation,
    ) -> Result<Claim, StoreError> {
        let key = key.clone();
        self.run("claim", move |backend| backend.claim(&key, (epoch, version), lease, rotation, false)).await
    }

    /// A claim by order of an operator: skips a backoff. What is parked never stops a claim; a dead grant always does.
    pub async fn claim_forced(
        &self,
        key: &AccountKey,
        epoch: u64,
        version: u64,
        lease: Duration,
        rotation: Rotation,
    ) -> Result<Claim, StoreError> {
        let key = key.clone();
        self.run("claim_forced", move |backend| backend.claim(&key, (epoch, version), lease, rotation, true)).await
    }

    /// Stores an answer. What waited for a sign-in and got its token with it waits no longer.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.run("commit", move |backend| backend.commit(&commit)).await
    }

    pub async fn fail(&self, failure: Failure, rotation: Rotation) -> Result<Failed, StoreError> {
        self.run("fail", move |backend| backend.fail(&failure, rotation)).await
    }

    /// Strict only: `uncertain` becomes `reauth` once the last access token has expired and no late commit can come. Returns
    /// the status as it is now; `None`: there is no such account, or this is not its epoch.
    pub async fn settle(&self, key: &AccountKey, epoch: u64) -> Result<Option<Status>, StoreError> {
        let key = key.clone();
        self.run("settle", move |backend| backend.settle(&key, epoch)).await
    }

    /// A new life of the grant: raises the epoch, clears intent, backoff and all that waited for it. Returns the grant as it is now.
    pub async fn sign_in(&self, sign_in: SignIn) -> Result<Grant, StoreError> {
        self.run("sign_in", move |backend| backend.sign_in(&sign_in)).await
    }

    /// Ends the life of the grant: raises the epoch, erases its tokens. The account stays. `None`: there is no such account.
    pub async fn revoke(&self, key: &AccountKey) -> Result<Option<Revoked>, StoreError> {
        let key = key.clone();
        self.run("revoke", move |backend| backend.revoke(&key)).await
    }

    /// Erases the account. Its epoch and fence are remembered, so that a later sign-in goes on from there.
    pub async fn remove(&self, key: &AccountKey) -> Result<bool, StoreError> {
        let key = key.clone();
        self.run("remove", move |backend| backend.remove(&key)).await
    }

    /// Erases previous refresh tokens past their grace, tokens that have been dead for 24 h, expired tickets, and records of the audit
    /// log whose time is over, a few at a time.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let kept = self.audit_kept;
        while self.run("sweep", move |backend| backend.sweep(kept)).await? {}
        Ok(())
    }

    /// Changes after `sequence`, made by anyone, this process included. Cheap when there is none. Several changes of one
    /// account come as the newest of them; a very long list comes in parts, the oldest first.
    pub async fn changes(&self, sequence: u64) -> Result<Vec<Change>, StoreError> {
        self.run("changes", move |backend| backend.changes(sequence)).await
    }

    /// The sequence number of the newest change.
    pub async fn sequence(&self) -> Result<u64, StoreError> {
        self.run("sequence", Sqlite::sequence).await
    }

    /// Keeps `payload` under `id` until `expires`; takes the place of what is there.
    pub async fn put_ticket(
        &self,
        kind: TicketKind,
        id: &str,
        payload: Vec<u8>,
        expires: Timestamp,
    ) -> Result<(), StoreError> {
        let (id, payload) = (id.to_owned(), Zeroizing::new(payload));
        self.run("put_ticket", move |backend| backend.put_ticket(kind, &id, &payload, expires)).await
    }

    pub async fn read_ticket(&self, kind: TicketKind, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let id = id.to_owned();
        self.run("read_ticket", move |backend| backend.read_ticket(kind, &id)).await
    }

    /// At most one caller ever gets it.
    pub async fn take_ticket(&self, kind: TicketKind, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let id = id.to_owned();
        self.run("take_ticket", move |backend| backend.take_ticket(kind, &id)).await
    }

    /// A step runs to its end, whether the caller still waits or not.
    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        step: impl FnOnce(&Sqlite) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let backend = Arc::clone(&self.backend);
        let started = self.observer.as_ref().map(|(_, clock)| clock.moment());
        let outcome = finished(self.tasks.spawn_blocking(move || step(&backend)).await);
        if let (Some((metrics, clock)), Some(started)) = (&self.observer, started) {
            metrics.stored(op, clock.moment().since(started));
            if matches!(outcome, Err(StoreError::Unavailable(_) | StoreError::Corrupt { .. })) {
                metrics.store_failed(op);
            }
        }
        outcome
    }
}

fn finished<T>(outcome: Result<Result<T, StoreError>, tokio::task::JoinError>) -> Result<T, StoreError> {
    outcome.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("a step of the store was cut off: {error}"))))
}

//! A store to test, its clock in our hand, and the usual accounts.
//!
//! A test of the contract asks for `Rig::every()`: one rig per backend. `open` again is a second process on the same store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bearerd::account::{AccountKey, Alias};
use bearerd::claims::Claims;
use bearerd::clock::{Clock, Timestamp};
use bearerd::config;
use bearerd::config::Rotation;
use bearerd::secret::Secret;
use bearerd::store::{AccessToken, Claim, Commit, Failure, FailureKind, Fingerprint, Grant, SignIn, Store, StoreError};
use bearerd::tasks::Tasks;
use tempfile::TempDir;

pub const LEASE: Duration = Duration::from_secs(25);
pub const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A place for a store, with a clock.
pub struct Rig {
    path: PathBuf,
    /// Goes when the rig goes; `None`: somebody else's.
    _directory: Option<TempDir>,
    pub clock: Clock,
    pub tasks: Tasks,
}

/// What a claim handed out.
pub struct Held {
    pub grant: Grant,
    pub fence: u64,
    pub refresh_token: String,
    pub fingerprint: Fingerprint,
    pub took_over: bool,
    pub last_resort: bool,
}

impl Rig {
    /// One per backend.
    pub fn every() -> Vec<Self> {
        vec![Self::embedded()]
    }

    pub fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        Self { _directory: Some(directory), ..Self::at(path) }
    }

    /// The store that another process has made.
    pub fn at(path: PathBuf) -> Self {
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        Self { path, _directory: None, clock: Clock::manual(START), tasks }
    }

    pub fn config(&self) -> config::Store {
        config::Store { key_file: self.path.join("store.key"), path: self.path.clone(), key: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub async fn open(&self) -> Store {
        self.open_as(&self.config()).await.unwrap()
    }

    pub async fn open_as(&self, config: &config::Store) -> Result<Store, StoreError> {
        Store::open(config, self.clock.clone(), self.tasks.clone()).await
    }

    /// Why the store doesn't open, and that the attempt changed nothing.
    pub async fn refused(&self, config: &config::Store) -> (&'static str, String) {
        let before = self.snapshot();
        let error = self.open_as(config).await.unwrap_err();
        assert_eq!(self.snapshot(), before, "{error}");
        match error {
            StoreError::Setup { key, why } => (key, why),
            other => panic!("{other:?}"),
        }
    }

    /// The database, past all of bearerd's own code.
    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path().join("store.db")).unwrap()
    }

    /// Every file with its mode and its content, but for SQLite's own shared memory.
    pub fn snapshot(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let mut files = Vec::new();
        let mut directories = vec![self.path.clone()];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    directories.push(path);
                } else if !path.ends_with("store.db-shm") {
                    let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                    files.push((path, metadata.permissions().mode() & 0o7777, content));
                }
            }
        }
        files.sort();
        files
    }
}

pub fn key(name: &str) -> AccountKey {
    AccountKey { provider: "entra".into(), tenant: "contoso".into(), subject: format!("object-{name}") }
}

pub fn alias(name: &str) -> Alias {
    Alias::new(name).unwrap()
}

/// Refresh token `rt-NAME-0`, access token `at-NAME-0`, for an hour.
pub fn sign_in(name: &str) -> SignIn {
    SignIn {
        key: key(name),
        alias: alias(name),
        refresh_token: format!("rt-{name}-0").into(),
        access: Some(access(&format!("at-{name}-0"), Duration::from_hours(1))),
        scopes: vec!["User.Read".into(), "Mail.Read".into()],
        username: Some(format!("{name}@contoso.com")),
    }
}

pub fn access(token: &str, life: Duration) -> AccessToken {
    AccessToken {
        scope_set: "Mail.Read User.Read".into(),
        token: Secret::from(token),
        expires: START.plus(life),
        obtained: START,
        refresh_after: None,
        claims: None,
    }
}

pub async fn signed_in(store: &Store, name: &str) -> Grant {
    store.sign_in(sign_in(name)).await.unwrap()
}

pub async fn found(store: &Store, name: &str) -> Grant {
    store.find(name).await.unwrap().unwrap_or_else(|| panic!("no account {name}"))
}

pub async fn claim(store: &Store, name: &str, rotation: Rotation) -> Claim {
    let grant = found(store, name).await;
    store.claim(&grant.key, grant.epoch, grant.version, LEASE, rotation).await.unwrap()
}

pub async fn claimed(store: &Store, name: &str, rotation: Rotation) -> Held {
    let grant = found(store, name).await;
    match store.claim(&grant.key, grant.epoch, grant.version, LEASE, rotation).await.unwrap() {
        Claim::Claimed { fence, refresh_token, fingerprint, took_over, last_resort } => {
            Held { grant, fence, refresh_token: refresh_token.expose().clone(), fingerprint, took_over, last_resort }
        }
        other => panic!("{other:?}"),
    }
}

impl Held {
    /// The provider answered with `rt-NEW` and `at-NEW`.
    pub fn commit(&self, new: &str) -> Commit {
        Commit {
            key: self.grant.key.clone(),
            epoch: self.grant.epoch,
            parent: self.fingerprint,
            fence: self.fence,
            refresh_token: Some(format!("rt-{new}").into()),
            access: access(&format!("at-{new}"), Duration::from_hours(2)),
            scopes: None,
            grace: Duration::from_mins(5),
        }
    }

    pub fn failure(&self, kind: FailureKind) -> Failure {
        Failure {
            key: self.grant.key.clone(),
            epoch: self.grant.epoch,
            presented: self.fingerprint,
            fence: self.fence,
            kind,
        }
    }
}

/// The provider wants to see the person before it gives a token for these scopes, asked with these claims.
pub fn park(scope_set: &str, asked: Option<&Claims>, text: &str) -> FailureKind {
    let asked = asked.cloned();
    FailureKind::Park { scope_set: scope_set.into(), claims: asked.clone(), asked, text: text.into() }
}

pub fn dead() -> FailureKind {
    FailureKind::Final { text: "AADSTS50173: the grant was revoked".into(), claims: None }
}

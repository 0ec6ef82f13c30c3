//! The words of the audit log: who did what to which account, what came of it, and why. The store keeps records; whoever acts writes one.
//!
//! Invariants: no secret is in a record. An act of an operator is recorded before it is done. What can happen many times a second goes
//! through `Denials`: bounded, merged, and what is lost is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::account::AccountKey;
use crate::clock::{Moment, Timestamp};

/// How much of a reason is kept: what is quoted in it may have any length.
const LONGEST: usize = 500;
/// Kinds of denials that are told apart at a time.
const MOST: usize = 1024;
/// Denials of one kind within this time are one record.
const WINDOW: Duration = Duration::from_mins(1);

/// An enumeration and the stable names of its members, said once.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $member:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$note])* $member,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$member),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$member => $text,)+ }
            }

            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
    };
}

named!(
    /// What happened.
    Event {
        SignIn = "sign_in",
        LinkMade = "link_made",
        LinkUsed = "link_used",
        Import = "import",
        Refresh = "refresh",
        RefreshFailed = "refresh_failed",
        Revoke = "revoke",
        Remove = "remove",
        KeysRotated = "keys_rotated",
        MasterKeyRotated = "master_key_rotated",
        PolicyDenied = "policy_denied",
        AccountDenied = "account_denied",
        ConfigReload = "config_reload",
        Backup = "backup",
        Restore = "restore",
        /// Denials that nobody can be told more about: there were too many kinds of them.
        DenialsDropped = "denials_dropped",
    }
);

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Client(String),
    /// On the command line.
    Cli,
    /// Through the admin listener.
    Admin,
    /// The person of the account, in a browser.
    User,
    Bearerd,
}

named!(
    /// What came of it.
    Outcome {
        /// It is about to be done.
        Intended = "intended",
        Done = "done",
        Failed = "failed",
        Denied = "denied",
    }
);

/// What is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub event: Event,
    pub who: Who,
    pub account: Option<String>,
    /// `AccountKey::id`.
    pub account_id: Option<String>,
    pub outcome: Outcome,
    pub why: Option<String>,
    pub request_id: Option<String>,
    pub peer: Option<String>,
    /// How many of them this one stands for.
    pub count: u64,
}

/// What was recorded, under the names that exports and logs have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    #[serde(serialize_with = "rfc_3339", deserialize_with = "from_rfc_3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    pub sequence: u64,
    pub event: String,
    pub who: String,
    pub account: Option<String>,
    pub account_id: Option<String>,
    pub outcome: String,
    pub why: Option<String>,
    pub request_id: Option<String>,
    pub peer: Option<String>,
    /// How many of them this one stands for.
    pub count: u64,
    /// The record that was written before the effect.
    pub intent: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn rfc_3339<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn from_rfc_3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let time = jiff::Timestamp::deserialize(deserializer)?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(name) => write!(f, "client:{name}"),
            Self::Cli => f.write_str("operator:cli"),
            Self::Admin => f.write_str("operator:admin"),
            Self::User => f.write_str("user"),
            Self::Bearerd => f.write_str("bearerd"),
        }
    }
}

impl Entry {
    /// Something that was done.
    pub fn new(event: Event, who: Who) -> Self {
        Self {
            event,
            who,
            account: None,
            account_id: None,
            outcome: Outcome::Done,
            why: None,
            request_id: None,
            peer: None,
            count: 1,
        }
    }

    #[must_use]
    pub fn of(mut self, alias: impl fmt::Display, key: &AccountKey) -> Self {
        self.account_id = Some(key.id());
        self.named(alias)
    }

    /// Of an account whose identity is not known yet.
    #[must_use]
    pub fn named(mut self, alias: impl fmt::Display) -> Self {
        self.account = Some(alias.to_string());
        self
    }

    #[must_use]
    pub fn because(mut self, why: impl fmt::Display) -> Self {
        self.why = Some(why.to_string().chars().take(LONGEST).collect());
        self
    }

    #[must_use]
    pub fn with(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// In answer to a request.
    #[must_use]
    pub fn asked(mut self, request_id: &str, peer: impl fmt::Display) -> Self {
        self.request_id = Some(request_id.to_owned());
        self.peer = Some(peer.to_string());
        self
    }

    /// By whom, as the system knows it.
    #[must_use]
    pub fn from_peer(mut self, peer: impl fmt::Display) -> Self {
        self.peer = Some(peer.to_string());
        self
    }
}

impl Record {
    /// Not numbered yet.
    pub fn new(entry: Entry, intent: Option<u64>, time: Timestamp) -> Self {
        Self {
            time,
            sequence: 0,
            event: entry.event.name().to_owned(),
            who: entry.who.to_string(),
            account: entry.account,
            account_id: entry.account_id,
            outcome: entry.outcome.name().to_owned(),
            why: entry.why,
            request_id: entry.request_id,
            peer: entry.peer,
            count: entry.count,
            intent,
        }
    }

    /// One line in the log, with the same names as an export.
    pub fn log(&self) {
        let Self { sequence, event, who, account, account_id, outcome, why, request_id, peer, count, intent, .. } =
            self;
        tracing::info!(target: "bearerd::audit", sequence, event, who, account, account_id, outcome, why, request_id, peer, count, intent);
    }
}

/// Denials on their way to the store: noted on the data path, written elsewhere. Clones share it.
#[derive(Clone, Default)]
pub struct Denials(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    kinds: BTreeMap<(Event, Who, Option<String>), Kind>,
    dropped: u64,
}

struct Kind {
    /// The first of them; none since the last record.
    entry: Option<Entry>,
    /// Not before this.
    due: Moment,
}

impl Denials {
    /// `rule`: what decided. Denials with the same event, client and rule are merged: the first one is told of in full, the others are
    /// counted.
    pub fn note(&self, entry: Entry, rule: Option<&str>) {
        let waiting = &mut *self.waiting();
        let key = (entry.event, entry.who.clone(), rule.map(str::to_owned));
        let room = waiting.kinds.len() < MOST;
        match waiting.kinds.get_mut(&key) {
            Some(Kind { entry: Some(known), .. }) => known.count += entry.count,
            Some(kind) => kind.entry = Some(entry),
            None if room => {
                waiting.kinds.insert(key, Kind { entry: Some(entry), due: Moment::default() });
            }
            None => waiting.dropped += entry.count,
        }
    }

    /// What is to be recorded now: the first of a kind at once, more of it a minute later. With `all`: whatever waits.
    pub fn take(&self, now: Moment, all: bool) -> Vec<Entry> {
        let mut waiting = self.waiting();
        let mut entries = Vec::new();
        waiting.kinds.retain(|_, kind| {
            if kind.due > now && !all {
                return true;
            }
            kind.due = now.plus(WINDOW);
            match kind.entry.take() {
                Some(entry) => {
                    entries.push(entry);
                    true
                }
                None => false,
            }
        });
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            let entry = Entry::new(Event::DenialsDropped, Who::Bearerd).with(Outcome::Denied);
            entries.push(Entry { count: dropped, ..entry });
        }
        entries
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(client: &str) -> Entry {
        Entry::new(Event::PolicyDenied, Who::Client(client.to_owned())).with(Outcome::Denied)
    }

    #[test]
    fn many_of_a_kind_are_one_record_a_minute() {
        let (denials, start) = (Denials::default(), Moment::default());
        for id in ["first", "second", "third"] {
            denials.note(denial("payroll").asked(id, "127.0.0.1:1"), Some("deny[0]"));
        }
        denials.note(denial("payroll"), Some("deny[1]"));
        let taken = denials.take(start, false);
        assert_eq!(taken.iter().map(|entry| entry.count).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(taken[0].request_id.as_deref(), Some("first"));

        for _ in 0..1000 {
            denials.note(denial("payroll"), Some("deny[0]"));
        }
        assert!(denials.take(start.plus(Duration::from_secs(59)), false).is_empty(), "it was told of just now");
        let taken = denials.take(start.plus(WINDOW), false);
        assert_eq!(taken.iter().map(|entry| entry.count).collect::<Vec<_>>(), [1000]);
        denials.note(denial("payroll"), Some("deny[0]"));
        assert_eq!(denials.take(start.plus(WINDOW), true).len(), 1, "the end waits for nothing");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let denials = Denials::default();
        for number in 0..MOST + 7 {
            denials.note(denial(&number.to_string()), None);
        }
        let taken = denials.take(Moment::default(), false);
        assert_eq!(taken.len(), MOST + 1);
        let last = taken.last().unwrap();
        assert_eq!((last.event, last.count), (Event::DenialsDropped, 7));
        // Kinds that were silent for a minute leave, and there is room again.
        assert!(denials.take(Moment::default().plus(WINDOW), false).is_empty());
        denials.note(denial("new"), None);
        assert_eq!(denials.take(Moment::default().plus(WINDOW), false).len(), 1);
    }
}

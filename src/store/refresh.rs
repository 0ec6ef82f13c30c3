//! The pure steps of the refresh protocol: every backend asks them what to do, inside the transaction that then does it.
//!
//! Invariants: a strict provider's refresh token is presented once, but for one last resort per token; a real successor of the
//! current epoch is never refused because of a lock or a clock; epoch, version and fence never go back. No I/O, no time and no
//! sealed bytes in here: a step says what becomes of the bytes, the backend moves them.

use std::time::Duration;

use super::grant::{Committed, Failed, FailureKind, Fingerprint, Parked, Reason, Refusal, Status};
use super::holders::HolderId;
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::config::Rotation;

/// How long after its deadline an answer may still come: the total time-out of a token request.
const LATE_ANSWER: Duration = Duration::from_secs(8);

/// How much of a grant may wait for a sign-in: APIs choose the claims, so this is bounded.
const PARKED: usize = 16;

/// Times further away than these were written by a clock that was wrong: nobody waits for them.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);
const LONGEST_LEASE: Duration = Duration::from_secs(60);

const LOST: &str = "the answer to the last refresh was lost, and the provider takes a refresh token only once";
const LOST_AGAIN: &str = "two refreshes in a row were cut off, and the provider takes a refresh token only once";

/// What the steps decide by: the record of a grant without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub epoch: u64,
    pub version: u64,
    pub fence: u64,
    pub status: Status,
    /// Which refresh token is stored; `None`: none.
    pub token: Option<Fingerprint>,
    /// Which refresh token was presented to get it, and under which claim.
    pub parent: Option<Fingerprint>,
    pub parent_fence: u64,
    /// The claim of the newest stored commit.
    pub committed_fence: u64,
    pub intent: Option<Intent>,
    /// The epoch in which the last resort of this token was used; 0: it was not.
    pub last_resort_epoch: u64,
    pub fail_count: u32,
    pub next_try: Option<Timestamp>,
    /// When the last of the stored access tokens expires. Read only.
    pub access_until: Option<Timestamp>,
    /// What waits for a sign-in while the refresh token lives, the oldest first.
    pub parked: Vec<Parked>,
}

/// Somebody is about to present a refresh token, or died while doing so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    pub fence: u64,
    pub token: Fingerprint,
    /// Until when others leave it alone.
    pub deadline: Timestamp,
    pub holder: HolderId,
    pub last_resort: bool,
}

/// Who wants to present the refresh token of what they have seen.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub epoch: u64,
    pub version: u64,
    pub lease: Duration,
    pub rotation: Rotation,
    pub holder: HolderId,
    /// An operator asks: a backoff is skipped.
    pub forced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Claimed { fence: u64, took_over: bool, last_resort: bool },
    Uncertain,
    Busy { until: Timestamp },
    Backoff { until: Timestamp },
    Stale,
}

/// A provider's answer without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Successor<'a> {
    pub epoch: u64,
    pub parent: Fingerprint,
    pub fence: u64,
    /// `None`: the answer had no refresh token.
    pub token: Option<Fingerprint>,
    pub grace: Duration,
    /// What the access token that came along is for, and the claims that it answers.
    pub scope_set: &'a str,
    pub claims: Option<&'a Claims>,
}

/// What becomes of the sealed refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Keep,
    /// The new one takes the place; the old one becomes the previous one until then.
    KeepPrevious {
        until: Timestamp,
    },
    /// The new one takes the place; nothing else is left.
    Replace,
    /// The new one takes the place; the previous one stays as it is.
    ReplaceSibling,
    Erase,
}

impl Intent {
    fn is_open(&self, now: Timestamp) -> bool {
        ahead(self.deadline, now, LONGEST_LEASE)
    }
}

fn ahead(time: Timestamp, now: Timestamp, believable: Duration) -> bool {
    time > now && time.since(now) <= believable
}

impl Row {
    /// A grant that nobody has signed in to yet.
    pub fn new() -> Self {
        Self {
            epoch: 0,
            version: 0,
            fence: 0,
            status: Status::Revoked,
            token: None,
            parent: None,
            parent_fence: 0,
            committed_fence: 0,
            intent: None,
            last_resort_epoch: 0,
            fail_count: 0,
            next_try: None,
            access_until: None,
            parked: Vec::new(),
        }
    }

    fn last_resort_is_left(&self) -> bool {
        self.last_resort_epoch != self.epoch && self.intent.is_some_and(|intent| !intent.last_resort)
    }

    fn ends_lost(&mut self, text: &str, now: Timestamp) {
        self.status = Status::Reauth(Reason { dead: true, text: text.to_owned(), claims: None, since: now });
        self.intent = None;
    }
}

/// CLAIM: may this refresh token be presented now? `holder_dead`: the holder of the open intent is known to be dead.
pub fn claim(row: &mut Row, ask: &Ask, now: Timestamp, holder_dead: bool) -> Decision {
    let Some(token) = row.token else { return Decision::Stale };
    if (row.epoch, row.version) != (ask.epoch, ask.version) {
        return Decision::Stale;
    }
    match &row.status {
        Status::Active | Status::Uncertain => {}
        Status::Reauth(_) | Status::Revoked => return Decision::Stale,
    }
    if let Some(until) = row.next_try.filter(|until| ahead(*until, now, LONGEST_BACKOFF) && !ask.forced) {
        return Decision::Backoff { until };
    }
    let strict = ask.rotation == Rotation::Strict;
    let uncertain = row.status == Status::Uncertain;
    let (took_over, last_resort) = match row.intent {
        None if strict && uncertain => return Decision::Uncertain,
        None => (false, false),
        Some(_) if holder_dead && !strict => (true, false),
        Some(_) if holder_dead && row.last_resort_is_left() => (true, true),
        Some(_) if holder_dead => {
            row.ends_lost(LOST_AGAIN, now);
            return Decision::Stale;
        }
        Some(intent) if intent.is_open(now) && !uncertain => return Decision::Busy { until: intent.deadline },
        Some(_) if strict => {
            row.status = Status::Uncertain;
            return Decision::Uncertain;
        }
        Some(intent) if intent.is_open(now) => return Decision::Busy { until: intent.deadline },
        Some(_) => (true, false),
    };
    row.is_certain();
    if last_resort {
        row.last_resort_epoch = row.epoch;
    }
    row.fence += 1;
    let deadline = now.plus(ask.lease);
    row.intent = Some(Intent { fence: row.fence, token, deadline, holder: ask.holder, last_resort });
    Decision::Claimed { fence: row.fence, took_over, last_resort }
}

/// COMMIT by lineage: what was presented decides, not who holds a claim.
pub fn commit(row: &mut Row, successor: &Successor<'_>, now: Timestamp) -> (Committed, Bytes) {
    let refused = |why| (Committed::Refused(why), Bytes::Keep);
    let already = (Committed::Already { version: row.version }, Bytes::Keep);
    if row.status == Status::Revoked {
        return refused(Refusal::Revoked);
    }
    if row.epoch != successor.epoch {
        return refused(Refusal::Epoch);
    }
    let advances = row.token == Some(successor.parent);
    // A provider that doesn't rotate may send the presented token back: that is no new one.
    let Some(token) = successor.token.filter(|token| *token != successor.parent) else {
        if !advances {
            return refused(Refusal::Lineage);
        }
        if row.committed_fence == successor.fence {
            return already;
        }
        return (row.succeeds(successor), Bytes::Keep);
    };
    if row.token == Some(token) {
        return already;
    }
    let sibling = row.parent == Some(successor.parent) && row.parent_fence < successor.fence;
    let bytes = match (advances, sibling) {
        (true, _) if successor.grace.is_zero() => Bytes::Replace,
        (true, _) => Bytes::KeepPrevious { until: now.plus(successor.grace) },
        (false, true) => Bytes::ReplaceSibling,
        (false, false) => return refused(Refusal::Lineage),
    };
    row.token = Some(token);
    row.parent = Some(successor.parent);
    row.parent_fence = successor.fence;
    (row.succeeds(successor), bytes)
}

impl Row {
    fn succeeds(&mut self, successor: &Successor<'_>) -> Committed {
        let Successor { fence, scope_set, claims, .. } = *successor;
        // Another one's intent stays: it may still present the parent, so nobody may use up the successor meanwhile.
        self.intent = self.intent.filter(|intent| intent.fence != fence);
        self.version += 1;
        self.status = Status::Active;
        self.committed_fence = fence;
        // The new token has a last resort of its own.
        self.last_resort_epoch = 0;
        self.fail_count = 0;
        self.next_try = None;
        self.parked.retain(|parked| parked.scope_set != scope_set || !parked.is_answered_by(claims));
        Committed::Stored { version: self.version }
    }
}

/// FAIL: a presentation brought no token. It counts only while the record still is what was presented.
pub fn fail(
    row: &mut Row,
    epoch: u64,
    presented: Fingerprint,
    fence: u64,
    kind: &FailureKind,
    rotation: Rotation,
    now: Timestamp,
) -> Failed {
    let mine = row.intent.is_some_and(|intent| (intent.fence, intent.token) == (fence, presented));
    if row.epoch != epoch || !mine {
        return Failed::Ignored;
    }
    if row.token != Some(presented) {
        // An older claim was faster: this one is over, and what it heard says nothing of the new token.
        row.intent = None;
        return Failed::Ignored;
    }
    if !matches!(kind, FailureKind::Untried | FailureKind::Park { .. }) {
        row.fail_count = row.fail_count.saturating_add(1);
    }
    match kind {
        FailureKind::Untried => {
            row.intent = None;
            row.is_certain();
        }
        FailureKind::Final { text, claims } => {
            let reason = Reason { dead: true, text: text.clone(), claims: claims.clone(), since: now };
            row.status = Status::Reauth(reason);
            row.intent = None;
            row.next_try = None;
        }
        FailureKind::Park { scope_set, asked, text, claims } => {
            let reason = Reason { dead: false, text: text.clone(), claims: claims.clone(), since: now };
            row.park(Parked { scope_set: scope_set.clone(), asked: asked.clone(), reason });
            row.intent = None;
            row.next_try = None;
            row.is_certain();
        }
        // The intent stays: without it the token would be presented a second time.
        FailureKind::Unknown { .. } if rotation == Rotation::Strict => row.status = Status::Uncertain,
        FailureKind::Transient { backoff } | FailureKind::Unknown { backoff } => {
            row.intent = None;
            row.next_try = Some(now.plus((*backoff).min(LONGEST_BACKOFF)));
            row.is_certain();
        }
    }
    Failed::Applied
}

impl Row {
    fn park(&mut self, new: Parked) {
        self.parked.retain(|parked| (&parked.scope_set, &parked.asked) != (&new.scope_set, &new.asked));
        let surplus = (self.parked.len() + 1).saturating_sub(PARKED);
        self.parked.drain(..surplus);
        self.parked.push(new);
    }

    fn is_certain(&mut self) {
        if self.status == Status::Uncertain {
            self.status = Status::Active;
        }
    }
}

/// SETTLE: an uncertain grant needs a sign-in once its access token is gone, no late commit can come and nothing is left to try.
pub fn settle(row: &mut Row, now: Timestamp, holder_dead: bool) {
    if row.status != Status::Uncertain || row.access_until.is_some_and(|until| until > now) {
        return;
    }
    let late = |intent: Intent| ahead(intent.deadline.plus(LATE_ANSWER), now, LONGEST_LEASE + LATE_ANSWER);
    let waits = row.intent.is_some_and(|intent| !holder_dead && late(intent));
    if waits || (holder_dead && row.last_resort_is_left()) {
        return;
    }
    row.ends_lost(LOST, now);
}

/// REVOKE: the life of the grant ends, whatever is under way.
pub fn revoke(row: &mut Row) -> Bytes {
    row.begins_life(None, Status::Revoked);
    Bytes::Erase
}

/// SIGN-IN or IMPORT: a new life of the grant.
pub fn sign_in(row: &mut Row, token: Fingerprint) -> Bytes {
    row.begins_life(Some(token), Status::Active);
    Bytes::Replace
}

/// RESTORE from a backup: a new life with the old tokens. A strict provider may have taken the refresh token since: that is as if the
/// process that presents it had died, `nobody` being dead.
pub fn restore(row: &mut Row, rotation: Rotation, nobody: HolderId, now: Timestamp) {
    row.epoch += 1;
    row.version += 1;
    row.intent = None;
    row.next_try = None;
    let Some(token) = row.token.filter(|_| rotation == Rotation::Strict && !matches!(row.status, Status::Reauth(_)))
    else {
        return;
    };
    row.fence += 1;
    row.status = Status::Uncertain;
    row.last_resort_epoch = 0;
    row.intent = Some(Intent { fence: row.fence, token, deadline: now, holder: nobody, last_resort: false });
}

impl Row {
    fn begins_life(&mut self, token: Option<Fingerprint>, status: Status) {
        *self = Self {
            epoch: self.epoch + 1,
            version: self.version + 1,
            fence: self.fence,
            committed_fence: self.committed_fence,
            last_resort_epoch: self.last_resort_epoch,
            status,
            token,
            ..Self::new()
        };
    }
}

impl Parked {
    /// Whether a token that was got with these claims is what is waited for.
    fn is_answered_by(&self, claims: Option<&Claims>) -> bool {
        self.asked.as_ref().is_none_or(|asked| claims.is_some_and(|claims| claims.covers(asked)))
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

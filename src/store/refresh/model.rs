//! The real steps under every interleaving: claims, run-out leases, presentations, lost replies, commits, crashes, revokes and
//! new sign-ins, with a provider of each kind. The invariants are the ones of the protocol (I1 to I4, I8).
//!
//! Time is an adversary: a lease may run out at any moment. Steps are atomic, as every backend makes them.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use self::provider::{Provider, bit, fingerprint};
use super::{Ask, Decision, Row, Successor, claim, commit, fail, revoke, settle, sign_in};
use crate::clock::Timestamp;
use crate::config::Rotation;
use crate::store::grant::{Committed, FailureKind, Status};
use crate::store::holders::HolderId;

mod provider;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const LONG_AGO: Timestamp = Timestamp::from_secs(0);
const LEASE: Duration = Duration::from_secs(25);
const GRACE: Duration = Duration::from_mins(1);

/// What is explored, and how much of it may happen on one path.
#[derive(Clone, Copy)]
struct Setting {
    rotation: Rotation,
    /// Nobody starts to send once the own lease has run out.
    guard: bool,
    /// A dead holder is known to be dead (the embedded store).
    embedded: bool,
    processes: usize,
    budget: Budget,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    claims: u8,
    crashes: u8,
    revokes: u8,
    sign_ins: u8,
    /// Requests that never arrive, and replies that get lost.
    losses: u8,
    /// How often the provider asks for the person.
    parks: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    row: Row,
    provider: Provider,
    processes: Vec<Process>,
    left: Budget,
    revoked: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Process {
    /// Grows with each crash: the next process has a lock of its own.
    life: u8,
    doing: Doing,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    /// `true`: its own lease still runs, as far as it knows.
    Claimed(Held, bool),
    Answered(Held, u8),
    Rejected(Held),
    Unanswered(Held),
    Unreached(Held),
    /// The provider asked for the person, and has left the token as it is.
    Parked(Held),
    /// A commit of this successor was refused.
    Dropped(Held, u8),
}

/// A claim, as its holder remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    token: u8,
    fence: u64,
    epoch: u64,
    last_resort: bool,
}

impl Setting {
    fn start(&self) -> World {
        let mut row = Row::new();
        sign_in(&mut row, fingerprint(0));
        let processes = vec![Process { life: 0, doing: Doing::Nothing }; self.processes];
        World { row, provider: Provider::new(0), processes, left: self.budget, revoked: false }
    }

    fn holder(world: &World, process: usize) -> HolderId {
        HolderId(((process as u128) << 8) | u128::from(world.processes[process].life))
    }

    fn holder_dead(&self, world: &World) -> bool {
        let Some(intent) = world.row.intent else { return false };
        self.embedded && !(0..self.processes).any(|process| Self::holder(world, process) == intent.holder)
    }

    fn grace(&self) -> Duration {
        if self.rotation == Rotation::Strict { Duration::ZERO } else { GRACE }
    }

    /// Everything that may happen next.
    fn nexts(&self, world: &World) -> Vec<(String, World)> {
        let mut nexts = Vec::new();
        let mut add = |what: String, change: &dyn Fn(&mut World)| {
            let mut next = world.clone();
            change(&mut next);
            // Counters that decide nothing would only multiply the states.
            (next.row.fail_count, next.row.next_try) = (0, None);
            nexts.push((what, next));
        };
        if world.row.intent.is_some_and(|intent| intent.deadline > NOW) {
            add("the lease runs out".into(), &|next| {
                let Some(intent) = &mut next.row.intent else { return };
                intent.deadline = LONG_AGO;
                for process in &mut next.processes {
                    if let Doing::Claimed(held, in_time) = &mut process.doing {
                        *in_time &= held.fence != intent.fence;
                    }
                }
            });
        }
        if world.left.revokes > 0 && world.row.status != Status::Revoked {
            add("an operator revokes".into(), &|next| {
                revoke(&mut next.row);
                next.left.revokes -= 1;
                next.revoked = true;
            });
        }
        if world.left.sign_ins > 0 {
            add("the user signs in".into(), &|next| {
                next.provider = Provider::new(next.provider.next);
                sign_in(&mut next.row, fingerprint(next.provider.current));
                next.left.sign_ins -= 1;
                next.revoked = false;
            });
        }
        if world.row.status == Status::Uncertain {
            add("settle".into(), &|next| settle(&mut next.row, NOW, self.holder_dead(world)));
        }
        for (index, process) in world.processes.iter().enumerate() {
            let does = |what: &str| format!("P{index} {what}");
            match process.doing {
                Doing::Nothing if world.left.claims > 0 => add(does("claims"), &|next| self.claim(next, index)),
                Doing::Nothing => {}
                Doing::Claimed(held, in_time) => {
                    if self.guard && in_time {
                        let late = Doing::Claimed(held, false);
                        add(does("is slow"), &|next| next.processes[index].doing = late);
                    }
                    if self.guard && !in_time {
                        add(does("is too late to send"), &|next| next.processes[index].doing = Doing::Nothing);
                    } else {
                        add(does("presents"), &|next| {
                            next.processes[index].doing = match next.provider.present(held, self.rotation) {
                                Some(successor) => Doing::Answered(held, successor),
                                None => Doing::Rejected(held),
                            };
                        });
                        if world.left.parks > 0 {
                            add(does("presents, and the person is asked for"), &|next| {
                                next.left.parks -= 1;
                                next.processes[index].doing = Doing::Parked(held);
                            });
                        }
                        if world.left.losses > 0 {
                            add(does("presents, the reply is lost"), &|next| {
                                next.left.losses -= 1;
                                next.provider.present(held, self.rotation);
                                next.processes[index].doing = Doing::Unanswered(held);
                            });
                            add(does("doesn't reach the provider"), &|next| {
                                next.left.losses -= 1;
                                next.processes[index].doing = Doing::Unreached(held);
                            });
                        }
                    }
                }
                Doing::Answered(held, successor) => {
                    add(does("commits"), &|next| self.commit(next, index, held, successor));
                }
                Doing::Rejected(held) => add(does("tells of the rejection"), &|next| {
                    let kind = FailureKind::Final { text: "invalid_grant".into(), claims: None };
                    self.fail(next, index, held, &kind);
                }),
                Doing::Unanswered(held) => add(does("tells that nobody knows"), &|next| {
                    self.fail(next, index, held, &FailureKind::Unknown { backoff: Duration::ZERO });
                }),
                Doing::Unreached(held) => add(does("tells that it sent nothing"), &|next| {
                    self.fail(next, index, held, &FailureKind::Transient { backoff: Duration::ZERO });
                }),
                Doing::Parked(held) => add(does("tells that the person is asked for"), &|next| {
                    // A scope set of its own for each life: so it shows where one comes from.
                    let scope_set = held.epoch.to_string();
                    let kind = FailureKind::Park { scope_set, asked: None, text: String::new(), claims: None };
                    self.fail(next, index, held, &kind);
                }),
                Doing::Dropped(..) => add(does("goes on"), &|next| next.processes[index].doing = Doing::Nothing),
            }
            if process.doing != Doing::Nothing && world.left.crashes > 0 {
                add(does("crashes"), &|next| {
                    next.left.crashes -= 1;
                    next.processes[index] = Process { life: process.life + 1, doing: Doing::Nothing };
                });
            }
        }
        nexts
    }

    fn claim(&self, world: &mut World, process: usize) {
        let Row { epoch, version, .. } = world.row;
        let holder = Self::holder(world, process);
        let ask = Ask { epoch, version, lease: LEASE, rotation: self.rotation, holder, forced: false };
        let token = world.row.token;
        let holder_dead = self.holder_dead(world);
        if let Decision::Claimed { fence, .. } = claim(&mut world.row, &ask, NOW, holder_dead) {
            let token = token.expect("a claim without a token").0[0];
            // A last resort that didn't reach the provider is still to come.
            let last_resort = world.row.last_resort_epoch == epoch;
            world.processes[process].doing = Doing::Claimed(Held { token, fence, epoch, last_resort }, true);
            world.left.claims -= 1;
        }
    }

    fn commit(&self, world: &mut World, process: usize, held: Held, successor: u8) {
        let Held { fence, epoch, .. } = held;
        let parent = fingerprint(held.token);
        let grace = self.grace();
        let token = Some(fingerprint(successor));
        let scope_set = &epoch.to_string();
        let successor_of = Successor { epoch, parent, fence, token, grace, scope_set, claims: None };
        let (committed, _) = commit(&mut world.row, &successor_of, NOW);
        world.processes[process].doing = match committed {
            Committed::Stored { version } => {
                let stored = world.row.clone();
                let (again, _) = commit(&mut world.row, &successor_of, NOW);
                assert!(
                    again == Committed::Already { version } && world.row == stored,
                    "a repeated commit is no change"
                );
                Doing::Nothing
            }
            Committed::Already { .. } => Doing::Nothing,
            Committed::Refused(_) => Doing::Dropped(held, successor),
        };
    }

    fn fail(&self, world: &mut World, process: usize, held: Held, kind: &FailureKind) {
        fail(&mut world.row, held.epoch, fingerprint(held.token), held.fence, kind, self.rotation, NOW);
        world.processes[process].doing = Doing::Nothing;
    }

    /// What is wrong in this world, if anything is.
    fn violation(&self, world: &World) -> Option<&'static str> {
        let World { row, provider, processes, left, revoked } = world;
        let strict = self.rotation == Rotation::Strict;
        let rotates = self.rotation != Rotation::Tolerant;
        if strict && (provider.unasked_repeats > 0 || provider.repeats > u8::from(self.embedded)) {
            return Some("I1: a refresh token was presented twice");
        }
        let busy = processes.iter().any(|process| matches!(process.doing, Doing::Claimed(..) | Doing::Answered(..)));
        let valid = row.token == Some(fingerprint(provider.current)) || provider.dead;
        for process in processes {
            if let Doing::Dropped(held, successor) = process.doing
                && (rotates && !busy && !valid && held.epoch == row.epoch && successor == provider.current)
            {
                return Some("I2: a valid successor was thrown away");
            }
        }
        if *revoked && row.status != Status::Revoked {
            return Some("I3: a revoked grant came back");
        }
        if row.token.is_some_and(|token| provider.family & bit(token.0[0]) == 0) {
            return Some("I3: a token of an older sign-in was stored");
        }
        if !strict && row.status == Status::Uncertain {
            return Some("uncertain is for strict providers");
        }
        let calm = processes.iter().all(|process| process.doing == Doing::Nothing);
        if row.parked.iter().any(|parked| parked.scope_set != row.epoch.to_string()) {
            return Some("I3: what an older sign-in waited for is kept");
        }
        let Budget { crashes, revokes, sign_ins, losses, .. } = self.budget;
        let undisturbed =
            (left.crashes, left.revokes, left.sign_ins, left.losses) == (crashes, revokes, sign_ins, losses);
        let graced = !strict && provider.previous.map(fingerprint) == row.token;
        if rotates && calm && undisturbed && row.status == Status::Active && (provider.dead || !(valid || graced)) {
            return Some("I8: a dead token is stored, though nothing crashed");
        }
        None
    }

    /// The number of states, or the shortest way to a violation.
    fn explore(&self) -> Result<usize, String> {
        let mut seen = HashSet::new();
        let mut worlds: Vec<(World, usize, String)> = vec![(self.start(), 0, "start".into())];
        let mut queue = VecDeque::from([0]);
        seen.insert(hash(&worlds[0].0));
        while let Some(index) = queue.pop_front() {
            let world = worlds[index].0.clone();
            if let Some(violation) = self.violation(&world) {
                return Err(format!("{violation}: {}", way(&worlds, index)));
            }
            for (what, next) in self.nexts(&world) {
                let (old, new) = (&world.row, &next.row);
                assert!(
                    new.epoch >= old.epoch && new.version >= old.version && new.fence >= old.fence,
                    "I4: {what} after {}",
                    way(&worlds, index)
                );
                if seen.insert(hash(&next)) {
                    queue.push_back(worlds.len());
                    worlds.push((next, index, what));
                }
            }
        }
        Ok(worlds.len())
    }
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn way(worlds: &[(World, usize, String)], mut index: usize) -> String {
    let mut steps = Vec::new();
    while index > 0 {
        steps.push(worlds[index].2.as_str());
        index = worlds[index].1;
    }
    steps.reverse();
    steps.join("; ")
}

const SMALL: Budget = Budget { claims: 3, crashes: 1, revokes: 1, sign_ins: 0, losses: 1, parks: 1 };
const STRICT: Setting =
    Setting { rotation: Rotation::Strict, guard: false, embedded: true, processes: 2, budget: SMALL };

fn holds(setting: Setting, at_least: usize) {
    match setting.explore() {
        Ok(states) => assert!(states >= at_least, "only {states} states: the model lost some of its events"),
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn strict_with_replicas_needs_no_send_guard() {
    holds(Setting { embedded: false, ..STRICT }, 100);
}

#[test]
fn strict_embedded_presents_again_once_at_most() {
    holds(Setting { budget: Budget { claims: 4, crashes: 2, sign_ins: 1, ..SMALL }, ..STRICT }, 1_000);
}

#[test]
fn grace_holds_with_the_send_guard() {
    let setting = Setting { rotation: Rotation::Grace(GRACE), guard: true, ..STRICT };
    holds(setting, 1_000);
    holds(Setting { embedded: false, budget: Budget { sign_ins: 1, ..SMALL }, ..setting }, 1_000);
}

#[test]
fn grace_breaks_without_the_send_guard() {
    let violation = Setting { rotation: Rotation::Grace(GRACE), embedded: false, ..STRICT }.explore().unwrap_err();
    assert!(violation.starts_with("I2") || violation.starts_with("I8"), "{violation}");
}

#[test]
fn tolerant_needs_no_send_guard() {
    holds(Setting { rotation: Rotation::Tolerant, budget: Budget { sign_ins: 1, ..SMALL }, ..STRICT }, 1_000);
}

#[test]
fn three_processes() {
    let budget = Budget { claims: 3, crashes: 1, revokes: 0, sign_ins: 1, losses: 0, parks: 0 };
    holds(Setting { processes: 3, budget, ..STRICT }, 500);
    holds(Setting { rotation: Rotation::Grace(GRACE), guard: true, processes: 3, budget, ..STRICT }, 1_000);
}

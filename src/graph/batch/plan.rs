//! Which members of a batch are worth sending again: never one that succeeded, and after throttling only what may be repeated.
//!
//! With them go those that were not executed because they depend on them (424), so far as everything else that these depend on succeeded.

use std::collections::HashMap;
use std::time::Duration;

use super::answer::Item;
use super::{Answers, Batch, Member};
use crate::claims::Claims;
use crate::clock::Timestamp;

/// Members to send again, in the batch's order, and what that takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Again {
    pub members: Vec<usize>,
    /// What a new token has to be got with; of all refusals together.
    pub claims: Option<Claims>,
    /// The longest wait that any member was told.
    pub wait: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The reason for sending again.
    Seed,
    /// Not executed (424).
    Skipped,
    Succeeded,
    Other,
}

impl Batch<'_> {
    /// The members whose token was refused: they were not executed, whatever their method.
    pub fn refused(&self, answers: &Answers<'_>) -> Option<Again> {
        let answered = answers.by_key();
        let claims = |item: &Item<'_>| matches!(item.status, 401 | 403).then(|| item.challenge()).flatten();
        let members = self.again(&answered, |_, item| item.status == 401 || claims(item).is_some());
        let claims = members.iter().filter_map(|at| claims(answered.get(&*self.members()[*at].key)?));
        let claims = claims.reduce(|all, more| all.merge(&more));
        (!members.is_empty()).then_some(Again { members, claims, wait: None })
    }

    /// The members that were throttled and may be repeated.
    pub fn throttled(&self, answers: &Answers<'_>, now: Timestamp) -> Option<Again> {
        let answered = answers.by_key();
        let members = self.again(&answered, |at, item| item.is_throttled() && self.members()[at].is_safe());
        let waits = answered.values().filter(|item| item.is_throttled()).filter_map(|item| item.retry_after(now));
        let wait = waits.max();
        (!members.is_empty()).then_some(Again { members, claims: None, wait })
    }

    /// The members that are told of too many requests (429), and how long each was told to wait.
    pub fn too_many<'s>(
        &'s self,
        answers: &'s Answers<'_>,
        now: Timestamp,
    ) -> impl Iterator<Item = (usize, Option<Duration>)> + 's {
        let answered = answers.by_key();
        let throttled = move |(at, member): (usize, &Member<'_>)| {
            let item = answered.get(&*member.key).filter(|item| item.status == 429)?;
            Some((at, item.retry_after(now)))
        };
        self.members().iter().enumerate().filter_map(throttled)
    }

    fn again(&self, answered: &HashMap<&str, &Item<'_>>, seed: impl Fn(usize, &Item<'_>) -> bool) -> Vec<usize> {
        let members = self.members();
        let state = |(at, key): (usize, &str)| match answered.get(key) {
            Some(item) if seed(at, item) => State::Seed,
            Some(item) => match item.status {
                424 => State::Skipped,
                200..400 => State::Succeeded,
                _ => State::Other,
            },
            None => State::Other,
        };
        let states: Vec<State> = members.iter().enumerate().map(|(at, member)| state((at, &member.key))).collect();
        let places: HashMap<&str, usize> = members.iter().enumerate().map(|(at, member)| (&*member.key, at)).collect();

        // Who waits for whom, and for how many; one whose parent failed for a reason of its own waits for ever.
        let mut children = vec![Vec::new(); members.len()];
        let mut waits_for = vec![0_usize; members.len()];
        for (at, member) in members.iter().enumerate() {
            for parent in member.parents.iter().flatten() {
                match places.get(&**parent).map(|parent| (*parent, states[*parent])) {
                    Some((_, State::Succeeded)) => {}
                    Some((parent, State::Seed | State::Skipped)) => {
                        children[parent].push(at);
                        waits_for[at] += 1;
                    }
                    _ => waits_for[at] += 1,
                }
            }
        }
        let is_ready = |at: &usize| states[*at] == State::Seed && waits_for[*at] == 0;
        let mut ready: Vec<usize> = (0..members.len()).filter(is_ready).collect();
        let mut taken = Vec::new();
        while let Some(at) = ready.pop() {
            taken.push(at);
            for child in &children[at] {
                waits_for[*child] -= 1;
                if waits_for[*child] == 0 && matches!(states[*child], State::Seed | State::Skipped) {
                    ready.push(*child);
                }
            }
        }
        taken.sort_unstable();
        taken
    }
}

//! Seats: how many requests are under way in all, and a short wait where every seat is taken.
//!
//! Under overload not everybody can be served in time, so those are who still have somebody waiting for the answer: the newest first. The oldest
//! has waited longest, and its caller is the next to give up. Clients take turns, and where too many wait the oldest of the client that has
//! the most gives way: one client's flood is its own matter.
//!
//! Invariants: no seat is free while somebody waits for it; whoever hangs up leaves; a request that is refused was sent to nobody, and its
//! body was not read. While seats are free nothing is locked and nothing allocated.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::{Kind, Refusal};
use crate::config::ServerLimits;
use crate::metrics::{Metrics, Ongoing};
use crate::process::memory::Pressure;

/// Those who are refused together are told 1 to so many seconds in turn, so that they don't come back together.
const SPREAD: u64 = 3;

/// All seats, of all workers and of every configuration: limits come with each request.
pub struct Admission {
    taken: AtomicUsize,
    /// How many wait, to be read without the lock.
    waiting: AtomicUsize,
    /// As the last one said who found every seat taken.
    seats: AtomicUsize,
    queue: Mutex<Queue>,
    refused: AtomicU64,
    pressure: Pressure,
    metrics: Metrics,
}

/// A request's own; somebody else's when dropped.
pub struct Seat(Arc<Admission>);

/// One request that waits.
struct Waiting {
    admission: Arc<Admission>,
    client: Arc<str>,
    ticket: u64,
    turn: oneshot::Receiver<Seat>,
    outcome: &'static str,
    _counted: Ongoing,
}

/// Who waits: for each client a line, in the order of their turns.
#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    tickets: u64,
}

/// One client's, the oldest first; never empty.
struct Line {
    client: Arc<str>,
    turns: VecDeque<(u64, Turn)>,
}

type Turn = oneshot::Sender<Seat>;

impl Admission {
    pub fn new(pressure: Pressure, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            seats: AtomicUsize::new(0),
            queue: Mutex::default(),
            refused: AtomicU64::new(0),
            pressure,
            metrics,
        })
    }

    /// Refuses while the process has too little memory: whatever else a request would cost comes after this.
    pub fn spare_memory(&self) -> Result<(), Refusal> {
        if self.pressure.is_high() {
            return Err(self.refuse("memory", "bearerd is short of memory"));
        }
        Ok(())
    }

    /// A seat, if one is free.
    pub fn take(self: &Arc<Self>, limits: &ServerLimits) -> Option<Seat> {
        if self.taken.fetch_add(1, Ordering::SeqCst) < limits.requests {
            return Some(Seat(Arc::clone(self)));
        }
        self.free();
        None
    }

    /// A seat, as soon as one is free and nobody comes first.
    pub async fn wait(self: &Arc<Self>, client: &Arc<str>, limits: &ServerLimits) -> Result<Seat, Refusal> {
        const TAKEN: &str = "too many requests are under way, and too many wait";
        if limits.wait.is_zero() || limits.waiting == 0 {
            return Err(self.refuse("requests", "too many requests are under way"));
        }
        let mut waiting = self.stand_in_line(client, limits);
        let turn = tokio::time::timeout(limits.wait, &mut waiting.turn).await;
        waiting.outcome = if matches!(turn, Ok(Ok(_))) { "admitted" } else { "refused" };
        match turn {
            Ok(Ok(seat)) => Ok(seat),
            Ok(Err(_)) => Err(self.refuse("requests", TAKEN)),
            Err(_) => Err(self.refuse("wait", "too many requests are under way, and none of them ended in time")),
        }
    }

    fn stand_in_line(self: &Arc<Self>, client: &Arc<str>, limits: &ServerLimits) -> Waiting {
        self.seats.store(limits.requests, Ordering::Relaxed);
        let (sender, turn) = oneshot::channel();
        let mut queue = self.queue();
        let ticket = queue.join(client, sender);
        let mut given_way = None;
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= limits.waiting {
            given_way = queue.give_way();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(queue);
        drop(given_way);
        // A seat may have been given back after it was asked for and before anybody was in line.
        self.hand_out();
        Waiting {
            admission: Arc::clone(self),
            client: Arc::clone(client),
            ticket,
            turn,
            outcome: "left",
            _counted: self.metrics.waits_for_a_seat(),
        }
    }

    /// Gives free seats to those who wait.
    fn hand_out(self: &Arc<Self>) {
        let seats = self.seats.load(Ordering::Relaxed);
        let one_more = |taken| (taken < seats).then_some(taken + 1);
        while self.waiting.load(Ordering::SeqCst) > 0
            && self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
        {
            match self.next() {
                // Who has just hung up lets go of it, which is somebody else's turn.
                Some(turn) => drop(turn.send(Seat(Arc::clone(self)))),
                None => _ = self.taken.fetch_sub(1, Ordering::SeqCst),
            }
        }
    }

    /// One seat less is taken. Whoever stands in line looks at the seats after that, or is seen here.
    fn free(self: &Arc<Self>) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.hand_out();
    }

    /// From one to the next, so that nobody who has just come is faster; unless there are fewer seats by now.
    fn leave(self: &Arc<Self>) {
        let is_one_of_them = || self.taken.load(Ordering::SeqCst) <= self.seats.load(Ordering::Relaxed);
        if self.waiting.load(Ordering::SeqCst) > 0
            && is_one_of_them()
            && let Some(turn) = self.next()
        {
            drop(turn.send(Seat(Arc::clone(self))));
        } else {
            self.free();
        }
    }

    fn next(&self) -> Option<Turn> {
        let turn = self.queue().next()?;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Some(turn)
    }

    fn refuse(&self, reason: &'static str, why: &'static str) -> Refusal {
        self.metrics.overloaded(reason);
        let turn = self.refused.fetch_add(1, Ordering::Relaxed) % SPREAD;
        Kind::Overloaded.because(why).after(Duration::from_secs(1 + turn))
    }

    /// A panic while it was held can have lost one turn at most, whose request is refused.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn join(&mut self, client: &Arc<str>, turn: Turn) -> u64 {
        self.tickets += 1;
        let turn = (self.tickets, turn);
        match self.lines.iter_mut().find(|line| line.client == *client) {
            Some(line) => line.turns.push_back(turn),
            None => self.lines.push_back(Line { client: Arc::clone(client), turns: [turn].into() }),
        }
        self.tickets
    }

    /// The newest of the client whose turn it is.
    fn next(&mut self) -> Option<Turn> {
        let mut line = self.lines.pop_front()?;
        let (_, turn) = line.turns.pop_back()?;
        if !line.turns.is_empty() {
            self.lines.push_back(line);
        }
        Some(turn)
    }

    /// The oldest of the client that has the most; of equals, of the one that has waited longest.
    fn give_way(&mut self) -> Option<Turn> {
        let oldest = |line: &Line| Reverse(line.turns.front().map(|(ticket, _)| *ticket));
        let (at, _) = self.lines.iter().enumerate().max_by_key(|(_, line)| (line.turns.len(), oldest(line)))?;
        self.remove(at, 0)
    }

    fn leave(&mut self, client: &Arc<str>, ticket: u64) -> Option<Turn> {
        let line = self.lines.iter().position(|line| line.client == *client)?;
        let at = self.lines[line].turns.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        self.remove(line, at)
    }

    fn remove(&mut self, line: usize, at: usize) -> Option<Turn> {
        let (_, turn) = self.lines[line].turns.remove(at)?;
        if self.lines[line].turns.is_empty() {
            self.lines.remove(line);
        }
        Some(turn)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.admission.metrics.waited(self.outcome);
        let turn = self.admission.queue().leave(&self.client, self.ticket);
        if turn.is_some() {
            self.admission.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests;

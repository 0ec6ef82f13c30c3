//! The faults that wait for their requests, and what happens to a request that meets some.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Response;

use super::{Effect, Fault, Place, retry_after};
use crate::clock::Clock;
use crate::sandbox::content::Content;
use crate::sandbox::locked;
use crate::sandbox::wire::Reply;

/// The faults that wait for their request; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// How many there are: the usual answer, none, costs no lock.
    count: AtomicUsize,
    list: Mutex<Vec<Fault>>,
}

impl Faults {
    pub fn push(&self, fault: Fault) {
        let mut list = locked(&self.0.list);
        list.push(fault);
        self.0.count.store(list.len(), Ordering::Release);
    }

    pub fn clear(&self) {
        let mut list = locked(&self.0.list);
        list.clear();
        self.0.count.store(0, Ordering::Release);
    }

    /// How many were pushed and are not used up.
    pub fn waiting(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Uses up what happens to one request: any number of colours, and, if `ends`, at most one end.
    pub(in crate::sandbox) fn take(&self, user: Option<&str>, ends: bool, here: impl Fn(&Place) -> bool) -> Effects {
        if self.waiting() == 0 {
            return Effects::default();
        }
        let mut taken = Effects::default();
        let mut list = locked(&self.0.list);
        for fault in list.iter_mut() {
            let concerned = fault.user.as_deref().is_none_or(|alias| Some(alias) == user);
            if !concerned || !here(&fault.place) || ((taken.end.is_some() || !ends) && !fault.effect.colours()) {
                continue;
            }
            if let Some(times) = &mut fault.times {
                let Some(left) = times.checked_sub(1) else { continue };
                *times = left;
            }
            if fault.effect.colours() {
                taken.colours.push(fault.effect.clone());
            } else {
                taken.end = Some(fault.effect.clone());
            }
        }
        list.retain(|fault| fault.times != Some(0));
        self.0.count.store(list.len(), Ordering::Release);
        taken
    }
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Effects {
    pub end: Option<Effect>,
    pub colours: Vec<Effect>,
}

impl Effects {
    /// Sits out delays and closed gates.
    pub async fn wait(&self) {
        for effect in &self.colours {
            match effect {
                Effect::Delay(time) => tokio::time::sleep(*time).await,
                Effect::Hold(gate) => gate.pass().await,
                _ => {}
            }
        }
    }

    /// The answer as it leaves, after everything was done.
    pub async fn finish(&self, clock: &Clock, mut response: Response<Content>) -> Reply {
        retry_after::spell_out(clock, response.headers_mut());
        for effect in &self.colours {
            if let Effect::HoldAnswer(gate) = effect {
                gate.pass().await;
            }
        }
        match &self.end {
            Some(Effect::DropBefore | Effect::DropAfter) => Reply::Close,
            Some(Effect::Down(time)) => Reply::Down(*time),
            Some(Effect::DropAfterHead) => Reply::Answer(response.map(|content| content.cut(false))),
            Some(Effect::CutBody) => Reply::Answer(response.map(|content| content.cut(true))),
            Some(Effect::Raw(bytes)) => Reply::Raw(bytes.clone()),
            _ => Reply::Answer(response),
        }
    }

    /// What ends the request before anything is done.
    pub fn refused(&self) -> Option<Reply> {
        match &self.end {
            Some(Effect::DropBefore) => Some(Reply::Close),
            Some(Effect::Down(time)) => Some(Reply::Down(*time)),
            _ => None,
        }
    }

    /// What the record says of an end that the client does not read as an answer.
    pub fn broken(&self) -> Option<&'static str> {
        match &self.end {
            Some(Effect::DropBefore | Effect::Down(_)) => Some("dropped before"),
            Some(Effect::DropAfter) => Some("dropped after"),
            Some(Effect::DropAfterHead) => Some("dropped after the head"),
            Some(Effect::CutBody) => Some("cut in the body"),
            Some(Effect::Raw(_)) => Some("raw bytes"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::fault::Denial;

    #[test]
    fn ends_come_one_by_one_and_colours_join_them() {
        let faults = Faults::default();
        faults.push(Fault::token(Effect::DropAfter));
        faults.push(Fault::token(Effect::html(503, None)).times(2));
        faults.push(Fault::token(Effect::NoRefreshToken).always());
        let ends: Vec<_> = (0..4).map(|_| faults.take(None, true, |place| *place == Place::Token)).collect();
        assert!(matches!(ends[0].end, Some(Effect::DropAfter)));
        assert!(matches!(ends[1].end, Some(Effect::Http { status: 503, .. })));
        assert!(matches!(ends[2].end, Some(Effect::Http { status: 503, .. })));
        assert!(ends[3].end.is_none());
        assert!(ends.iter().all(|effects| effects.colours.len() == 1));
        assert_eq!(faults.waiting(), 1);
    }

    #[test]
    fn a_fault_waits_for_its_user_and_its_place() {
        let faults = Faults::default();
        faults.push(Fault::graph("/v1.0/me", Effect::Denied(Denial::Expired)).for_user("alice"));
        let graph = |path: &'static str| move |place: &Place| matches!(place, Place::Graph(prefix) if path.starts_with(prefix.as_str()));
        assert!(faults.take(Some("bob"), true, graph("/v1.0/me")).end.is_none());
        assert!(faults.take(None, true, graph("/v1.0/me")).end.is_none());
        assert!(faults.take(Some("alice"), true, graph("/v1.0/users")).end.is_none());
        assert!(faults.take(Some("alice"), true, |place| *place == Place::Token).end.is_none());
        assert!(faults.take(Some("alice"), true, graph("/v1.0/me/messages")).end.is_some());
        assert_eq!(faults.waiting(), 0);
    }
}

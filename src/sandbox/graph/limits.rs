//! What Graph throttles: requests to one mailbox at the same time, units a minute for files, and, where it is told to be flaky,
//! every nth request. Counts always, refuses only where the manner of a request says so.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::State;
use super::answer::{Answer, Ids};
use super::manner::Manner;
use crate::clock::Timestamp;
use crate::sandbox::locked;

const MAILBOX: &[&str] = &[
    "messages",
    "mailFolders",
    "sendMail",
    "events",
    "calendar",
    "calendars",
    "calendarView",
    "contacts",
    "contactFolders",
];
const FILES: &[&str] = &["drive", "drives", "sites", "shares"];
/// From here on identity's answers to 429 say whose limit it was.
const IDENTITY: &[&str] = &["users", "groups", "directoryObjects"];
const WINDOW: Duration = Duration::from_mins(1);

#[derive(Default)]
pub(super) struct Limits {
    mailboxes: Mutex<HashMap<String, AtOnce>>,
    files: Mutex<Window>,
    counted: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct AtOnce {
    now: usize,
    most: usize,
}

#[derive(Default)]
struct Window {
    since: Timestamp,
    used: u64,
}

/// A request to a mailbox that is under way, until it is dropped.
pub(super) struct UnderWay<'a> {
    limits: &'a Limits,
    mailbox: String,
    /// With this one.
    pub at_once: usize,
}

impl Limits {
    /// A request to a mailbox begins. `None`: the path leads elsewhere.
    pub fn enter(&self, state: &State, segments: &[String], user: &str) -> Option<UnderWay<'_>> {
        let mailbox = mailbox(state, segments, user)?;
        let mut mailboxes = locked(&self.mailboxes);
        let count = mailboxes.entry(mailbox.clone()).or_default();
        count.now += 1;
        count.most = count.most.max(count.now);
        Some(UnderWay { limits: self, mailbox, at_once: count.now })
    }

    /// The highest number of requests to each mailbox that were under way at the same time.
    pub fn most_at_once(&self) -> HashMap<String, usize> {
        locked(&self.mailboxes).iter().map(|(mailbox, count)| (mailbox.clone(), count.most)).collect()
    }

    /// Forgets the records, not what is under way.
    pub fn clear(&self) {
        let mut mailboxes = locked(&self.mailboxes);
        mailboxes.retain(|_, count| count.now > 0);
        mailboxes.values_mut().for_each(|count| count.most = count.now);
    }

    /// Every nth request: 429 and 503 in turn.
    pub fn flaw(&self, manner: &Manner, ids: &Ids) -> Option<Answer> {
        let nth = manner.flaky?;
        let counted = self.counted.fetch_add(1, Ordering::Relaxed) + 1;
        if !counted.is_multiple_of(nth) {
            return None;
        }
        let answer = if (counted / nth).is_multiple_of(2) {
            Answer::error(ids, 503, "ServiceNotAvailable", "The service is temporarily unavailable.")
        } else {
            Answer::error(ids, 429, "TooManyRequests", "The request has been throttled.")
        };
        Some(answer.with("Retry-After", "1"))
    }

    /// What a request for files costs, and the headers that say what is left; or the refusal.
    pub fn files(
        &self,
        state: &State,
        manner: &Manner,
        ids: &Ids,
        method: &Method,
        segments: &[String],
    ) -> Result<Vec<(String, String)>, Answer> {
        let Some(quota) = manner.file_quota.filter(|_| names(segments, FILES)) else { return Ok(Vec::new()) };
        let many = segments.last().is_some_and(|last| last == "children");
        let cost = if many || !method.is_safe() { 2 } else { 1 };
        let now = state.clock.now();
        let mut window = locked(&self.files);
        if now.since(window.since) >= WINDOW {
            *window = Window { since: now, used: 0 };
        }
        // A refused request counts too.
        window.used += cost;
        let reset = WINDOW.saturating_sub(now.since(window.since)).as_millis().div_ceil(1000).to_string();
        if window.used * 100 < quota.saturating_mul(80) {
            return Ok(Vec::new());
        }
        let left = quota.saturating_sub(window.used);
        let said = [("RateLimit-Limit", quota.to_string()), ("RateLimit-Remaining", left.to_string())];
        let said = said.into_iter().chain([("RateLimit-Reset", reset.clone())]);
        let headers: Vec<_> = said.map(|(name, value)| (name.to_owned(), value)).collect();
        if window.used <= quota {
            return Ok(headers);
        }
        let inner = json!({ "code": "throttledRequest", "innerError": { "code": "quota" } });
        let message = "The request has been throttled";
        let body = json!({ "error": { "code": "activityLimitReached", "message": message, "innerError": inner } });
        drop(window);
        Err(Answer::json(429, body).with("Retry-After", &reset).with_all(&headers).identified(ids))
    }
}

impl UnderWay<'_> {
    /// The refusal, if there are too many.
    pub fn refusal(&self, manner: &Manner, ids: &Ids) -> Option<Answer> {
        let message = "Application is over its MailboxConcurrency limit.";
        let many = manner.mailbox_concurrency.is_some_and(|most| self.at_once > most);
        many.then(|| Answer::error(ids, 429, "ApplicationThrottled", message).with("Retry-After", "1"))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(count) = locked(&self.limits.mailboxes).get_mut(&self.mailbox) {
            count.now -= 1;
        }
    }
}

/// What a 429 of identity's services says besides.
pub(super) fn scope(state: &State, segments: &[String]) -> Vec<(String, String)> {
    let first = segments.first().map(String::as_str);
    if !first.is_some_and(|first| IDENTITY.contains(&first)) || names(segments, MAILBOX) || names(segments, FILES) {
        return Vec::new();
    }
    let options = state.entra.options();
    let scope = format!("Tenant_Application/ReadWrite/{}/{}", options.client_id, options.tenant);
    vec![
        ("x-ms-throttle-scope".to_owned(), scope),
        ("x-ms-throttle-information".to_owned(), "ResourceUnitLimitExceeded".to_owned()),
    ]
}

/// Whose mailbox the path names: an alias, or, of somebody unknown, what the path says.
fn mailbox(state: &State, segments: &[String], user: &str) -> Option<String> {
    if !names(segments, MAILBOX) {
        return None;
    }
    match segments {
        [first, ..] if first == "me" => Some(user.to_owned()),
        [first, id, ..] if first == "users" => {
            let known = state.entra.options().users.iter().find(|user| user.is(id));
            Some(known.map_or_else(|| id.clone(), |user| user.alias.clone()))
        }
        _ => None,
    }
}

/// Whether the path, after whose things they are, goes on with one of these.
fn names(segments: &[String], of: &[&str]) -> bool {
    let after = match segments.first().map(String::as_str) {
        Some("me") => 1,
        Some("users" | "groups") => 2,
        _ => 0,
    };
    segments.get(after).is_some_and(|segment| of.contains(&segment.as_str()))
}

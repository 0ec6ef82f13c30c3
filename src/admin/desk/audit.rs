//! What happened, for operators to read: records of the audit log page by page, and how the refreshes of an account went.

use std::cmp::Reverse;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Desk, LARGEST_LIMIT, USUAL_LIMIT};
use crate::admin::problem::Problem;
use crate::audit::{Event, Outcome, Record};
use crate::clock::Timestamp;
use crate::store::AuditQuery;

/// Which records a page shows.
#[derive(Clone, Debug, Default)]
pub struct AuditWanted {
    /// The alias or the id of an account.
    pub account: Option<String>,
    pub event: Option<Event>,
    pub outcome: Option<Outcome>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    pub limit: Option<usize>,
}

/// A page of records, the newest first.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct AuditRecords {
    pub records: Vec<Record>,
    /// The `cursor` of the next page; null: this is the last. A page may be short, even empty, and have a next one.
    pub next: Option<String>,
}

/// One refresh of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    pub at: Timestamp,
    pub outcome: Refreshed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// So long the provider took for its answer.
    Well(Duration),
    /// What the provider said.
    Failed(String),
}

impl Desk {
    /// The next records of those that are wanted.
    pub async fn audit(&self, wanted: &AuditWanted) -> Result<AuditRecords, Problem> {
        let limit = wanted.limit.unwrap_or(USUAL_LIMIT);
        if !(1..=LARGEST_LIMIT).contains(&limit) {
            return Err(Problem::parameter("limit", format!("has to be 1 to {LARGEST_LIMIT}")));
        }
        let mut query = AuditQuery {
            since: wanted.since,
            until: wanted.until,
            event: wanted.event,
            outcome: wanted.outcome,
            after: wanted.cursor.as_deref().map(sequence).transpose()?,
            newest_first: true,
            limit,
            ..AuditQuery::default()
        };
        if let Some(account) = &wanted.account {
            query.account_id = match self.0.store.find(account).await? {
                Some(grant) => Some(grant.key.id()),
                None if is_id(account) => Some(account.clone()),
                None => return Ok(AuditRecords::default()),
            };
        }
        let page = self.0.store.audit_page(query).await?;
        Ok(AuditRecords { records: page.records, next: page.next.map(|next| next.to_string()) })
    }

    /// The last refreshes of an account, the newest first: those that went well as far as this process remembers, those that failed
    /// as far as they are recorded.
    pub async fn refreshes(&self, id: &str, limit: usize) -> Result<Vec<Refresh>, Problem> {
        let key = self.grant(id).await?.key;
        let failed = AuditQuery {
            account_id: Some(id.to_owned()),
            event: Some(Event::RefreshFailed),
            newest_first: true,
            limit,
            ..AuditQuery::default()
        };
        let failed = self.0.store.audit_page(failed).await?.records.into_iter();
        let failed = failed
            .map(|Record { time, why, .. }| Refresh { at: time, outcome: Refreshed::Failed(why.unwrap_or_default()) });
        let well = self.0.vault.recent_refreshes(&key, limit).into_iter();
        let well = well.map(|refresh| Refresh { at: refresh.at, outcome: Refreshed::Well(refresh.took) });
        let mut all: Vec<_> = well.chain(failed).collect();
        all.sort_by_key(|refresh| Reverse(refresh.at));
        all.truncate(limit);
        Ok(all)
    }
}

/// The member of an enumeration that a parameter names.
pub fn named<T: Copy>(parameter: &str, name: &str, all: &[T], word: fn(T) -> &'static str) -> Result<T, Problem> {
    all.iter().copied().find(|one| word(*one) == name).ok_or_else(|| {
        let words: Vec<_> = all.iter().copied().map(word).collect();
        Problem::parameter(parameter, format!("has to be one of {}", words.join(", ")))
    })
}

fn sequence(cursor: &str) -> Result<u64, Problem> {
    let is_number = cursor.len() <= 18 && cursor.bytes().all(|byte| byte.is_ascii_digit());
    let number = Some(cursor).filter(|_| is_number).and_then(|cursor| cursor.parse().ok());
    number.ok_or_else(|| Problem::parameter("cursor", "is none that a page has given"))
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_number_and_an_id_is_hexadecimal() {
        assert_eq!(sequence("007").unwrap(), 7);
        for text in ["", "+1", "-1", "1 ", "1234567890123456789", "x"] {
            assert_eq!(sequence(text).unwrap_err().parameter.as_deref(), Some("cursor"), "{text}");
        }
        assert!(is_id("0123456789abcdef0123456789abcdef"));
        assert!(!is_id("alice@contoso.com") && !is_id("0123456789ABCDEF0123456789ABCDEF"));
    }
}

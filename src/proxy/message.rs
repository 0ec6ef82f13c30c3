//! The message as it goes out: judged, and what in it names us turned to what the upstream knows.
//!
//! Invariant: what was judged is what is sent.

use http::Method;
use http::request::Parts;

use super::batch::{Batch, is_batch};
use super::error::Refusal;
use super::policy::Verdict;
use super::replay::Replay;
use super::shared::Shared;
use super::terms::Terms;
use super::{media, naming};

pub enum Message {
    Plain(Replay),
    /// A batch that was understood: it is healed member by member.
    Batch(Batch),
}

impl Message {
    pub async fn judged(terms: &Terms<'_>, shared: &Shared, head: &Parts, body: Replay) -> Result<Self, Refusal> {
        let rule_path = terms.rule_path();
        let client = &terms.caller.client;
        match client.policy.permit(&terms.asked(head, &rule_path)) {
            Ok(Verdict::JudgeMembers) => Batch::open(terms, Some(&client.policy), shared, body).await,
            Ok(Verdict::Permitted) if may_be_batch(terms, head) => Batch::open(terms, None, shared, body).await,
            Ok(Verdict::Permitted) => naming::translate(terms, shared, head, body).await.map(Self::Plain),
            Err(denied) => Err(denied),
        }
    }
}

/// A batch says, or does not deny, that it is JSON: OData has batches of other kinds.
fn may_be_batch(terms: &Terms<'_>, head: &Parts) -> bool {
    let is_json = || !head.headers.contains_key(http::header::CONTENT_TYPE) || media::is_json(&head.headers);
    head.method == Method::POST
        && terms.is_graph()
        && is_batch(&terms.path.text)
        && is_json()
        && media::is_plain(&head.headers)
}

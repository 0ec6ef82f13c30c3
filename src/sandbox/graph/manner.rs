//! How one request is answered, whatever it asks for: what always holds, and what the faults of this request say.

use http::HeaderMap;

use super::compress;
use crate::sandbox::fault::{BatchOrder, ChallengeShape, Coding, Effect};

#[derive(Debug, Default)]
pub(super) struct Manner {
    /// Whether the coding depends on what the client accepts.
    pub negotiated: bool,
    pub coding: Option<Coding>,
    pub pieces: Option<usize>,
    pub batch_order: BatchOrder,
    pub mailbox_concurrency: Option<usize>,
    pub file_quota: Option<u64>,
    pub flaky: Option<u64>,
    /// How a claims challenge is written.
    pub shapes: Vec<ChallengeShape>,
}

impl Manner {
    /// Of two that contradict each other the later one counts.
    pub fn of<'a>(colours: impl Iterator<Item = &'a Effect>, headers: &HeaderMap) -> Self {
        let mut manner = Self::default();
        for colour in colours {
            match colour {
                Effect::Compress(coding) => {
                    manner.negotiated = coding.is_none();
                    manner.coding = coding.or_else(|| compress::accepted(headers));
                }
                Effect::Pieces(size) => manner.pieces = Some(*size),
                Effect::BatchOrder(order) => manner.batch_order = *order,
                Effect::MailboxConcurrency(most) => manner.mailbox_concurrency = Some(*most),
                Effect::FileQuota(units) => manner.file_quota = Some(*units),
                Effect::Flaky(nth) => manner.flaky = Some(nth.get()),
                Effect::Challenge(shape) => manner.shapes.push(*shape),
                _ => {}
            }
        }
        manner
    }
}

//! `$batch`: read whole, judged and cleaned member by member (`members`), and healed member by member (`heal`).
//!
//! For a client with rules what can't be judged is refused: it is so read that nobody can read it in another way. For all others what is
//! not understood goes out as it came, byte for byte, and so does its answer. What was judged is what is sent.

mod heal;
mod members;

use bytes::Bytes;

use self::members::Members;
use super::error::{Kind, Refusal};
use super::message::Message;
use super::policy::Policy;
use super::replay::Replay;
use super::shared::Shared;
use super::terms::Terms;
use crate::graph::batch;

/// A `$batch` is at most 20 requests; what is longer than this is not looked into.
const LONGEST: usize = 4 << 20;

/// A batch that was understood, as it goes out.
pub struct Batch {
    text: Bytes,
    body: Replay,
    has_parts: bool,
}

impl Batch {
    /// Reads the body of a batch. One that is not understood, and need not be, is left alone. `rules`: those of a client that has any.
    pub async fn open(
        terms: &Terms<'_>,
        rules: Option<&Policy>,
        shared: &Shared,
        body: Replay,
    ) -> Result<Message, Refusal> {
        let text = match (body.read_all(LONGEST, terms.upstream.timeout).await?, rules) {
            (Some(text), _) => text,
            (None, None) => return Ok(Message::Plain(body)),
            (None, Some(_)) => return Err(Kind::BodyTooLarge.because("the $batch is too long to be judged")),
        };
        let batch = match batch::Batch::read(&text) {
            Some(batch) if rules.is_some() || batch.is_served() => batch,
            None if rules.is_some() => {
                return Err(Kind::BadRequest.because("the $batch body is not what JSON batching prescribes"));
            }
            _ => return Ok(Message::Plain(body)),
        };
        let (cleaned, has_parts) = (Members { terms, rules }.clean(&batch)?, batch.has_parts());
        Ok(Message::Batch(match cleaned.map(Bytes::from) {
            Some(text) => Self { body: shared.body(text.clone()), text, has_parts },
            None => Self { text, body, has_parts },
        }))
    }
}

pub(super) fn is_batch(path: &str) -> bool {
    path.trim_end_matches('/').ends_with("/$batch")
}

#[cfg(test)]
mod tests;

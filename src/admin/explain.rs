//! What a request would meet, as the data path says it: it lies in a room that this one doesn't enter.

use std::pin::Pin;

use schemars::{Schema, SchemaGenerator};

/// Says what a request would meet, and sends nothing.
pub trait Explain: Send + Sync {
    /// From one JSON document to another. `Err`: what is wrong with the question, in words for whoever asked.
    fn explain<'a>(
        &'a self,
        question: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Result<serde_json::Value, String>> + Send + 'a>>;

    /// What a question and an explanation look like.
    fn schemas(&self, generator: &mut SchemaGenerator) -> [Schema; 2];
}

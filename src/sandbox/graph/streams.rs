//! Resources that Graph does not have and tests need: an echo, a long download, a stream of events.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use serde_json::json;
use tokio::sync::mpsc;

use super::answer::Answer;
use super::intake::Seen;
use super::routes::Call;
use super::{State, files};
use crate::sandbox::content::Content;
use crate::sandbox::locked;

const LARGEST_CHUNK: usize = 1 << 20;

/// What arrived, as it arrived.
pub(super) fn echo(seen: &Seen) -> Answer {
    Answer::json(
        200,
        json!({
            "method": seen.method,
            "target": seen.target,
            "version": seen.version,
            "headers": seen.headers,
            "body_len": seen.body_len,
            "body_sha256": seen.body_sha256,
            "user": seen.user,
        }),
    )
}

/// `?bytes=N&chunk=M`: N times the letter `b`, chunked; with `&sized=1` the head says the length.
pub(super) fn bulk(call: &Call<'_>) -> Answer {
    let number = |name, otherwise: u64| match call.option(name) {
        None => Some(otherwise),
        Some(text) => text.parse().ok(),
    };
    let (Some(bytes), Some(chunk)) = (number("bytes", 1 << 20), number("chunk", 16 << 10)) else {
        return call.error(400, "BadRequest", "bytes and chunk are numbers.");
    };
    let chunk = usize::try_from(chunk).unwrap_or(LARGEST_CHUNK).clamp(1, LARGEST_CHUNK);
    let sized = call.option("sized").is_some();
    let content = Content::Repeated { left: bytes, piece: vec![b'b'; chunk].into(), sized };
    Answer::stream("application/octet-stream", content)
}

/// `?bytes=N`: so much of a pattern, straight from Graph, with ranges and an ETag.
pub(super) fn blob(call: &Call<'_>) -> Answer {
    let Some(bytes) = call.option("bytes").and_then(|bytes| bytes.parse::<u64>().ok()) else {
        return call.error(400, "BadRequest", "bytes is a number.");
    };
    let etag = format!("\"blob-{bytes}\"");
    if call.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str()) {
        return Answer::empty(304).with("ETag", &etag);
    }
    let Some((range, partial)) = files::range(call.headers, bytes) else {
        let unsatisfied = call.error(416, "invalidRange", "No such range.");
        return unsatisfied.with("Content-Range", &format!("bytes */{bytes}"));
    };
    let content = Content::Pattern { at: range.start, end: range.end };
    let answer = Answer::stream("application/octet-stream", content).with("ETag", &etag).with("Accept-Ranges", "bytes");
    if partial {
        let said = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
        return answer.status(206).with("Content-Range", &said);
    }
    answer
}

/// Events that a test says (`Graph::say`), or, with `?count=N&interval=MS`, N ticks on the system's time.
pub(super) fn events(call: &Call<'_>) -> Answer {
    let (sender, receiver) = mpsc::unbounded_channel();
    match call.option("count").and_then(|count| count.parse::<u64>().ok()) {
        None => locked(&call.state.listeners).push(sender),
        Some(count) => {
            let interval = call.option("interval").and_then(|millis| millis.parse().ok()).unwrap_or(1000);
            call.state.tasks.spawn_forever(async move {
                for number in 1..=count {
                    if sender.send(event(&format!("tick {number}"))).is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(interval)).await;
                }
            });
        }
    }
    Answer::stream("text/event-stream", Content::Dribble(receiver))
}

/// Says it to everybody who still listens.
pub(super) fn say(state: &State, text: &str) -> usize {
    let mut listeners = locked(&state.listeners);
    listeners.retain(|listener| listener.send(event(text)).is_ok());
    listeners.len()
}

fn event(text: &str) -> Bytes {
    Bytes::from(format!("data: {text}\n\n"))
}

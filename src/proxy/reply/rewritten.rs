//! A body whose links are rewritten on their way: decoded if it is coded, rewritten, passed on as soon as it comes.
//!
//! Memory is bounded whatever the upstream sends, and a body that breaks off or can't be decoded to its end never looks whole.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::decode::{Coding, DecodeError, Decoder};
use super::{Content, ReplyBody, ReplyError, SETTLES_WITHIN, Streaming};
use crate::graph::links::{Links, Rewriter};

/// A body of known length up to here is rewritten whole, so that its length is known again. Of a coded one no more is kept until it
/// has shown that it can be decoded.
const SHORT: usize = 64 << 10;

pub struct Rewritten {
    streaming: Streaming,
    translation: Translation,
    /// Nothing more is to be read.
    over: bool,
}

/// The steps between what the upstream sends and what the client gets. Pure.
pub struct Translation {
    decoder: Option<Decoder>,
    rewriter: Rewriter,
}

impl ReplyBody {
    /// Rewrites the links of a JSON body. `false`: its bytes are what they were.
    pub async fn rewrite(&mut self, links: &Links<'_>, coding: Coding) -> bool {
        if self.is_short() && coding == Coding::Identity {
            let settled = self.settle(SHORT).await;
            if let Some(whole) = self.whole() {
                let rewritten = links.whole(&whole);
                let changed = rewritten.is_some();
                self.content = Self::full(rewritten.map_or(whole, Bytes::from)).content;
                return changed;
            }
            // Broken off: the client knows by the length that was promised.
            if settled {
                return false;
            }
        }
        let streaming = match std::mem::take(&mut self.content) {
            Content::Streaming(streaming) => streaming,
            other => {
                self.content = other;
                return false;
            }
        };
        let begun = match coding.decoder() {
            None => Ok(Rewritten::new(streaming, Translation::new(None, links))),
            Some(decoder) => Rewritten::begin(streaming, decoder, links).await,
        };
        let changed = begun.is_ok();
        self.content = begun.map_or_else(Content::Streaming, |rewritten| Content::Rewritten(Box::new(rewritten)));
        changed
    }

    fn is_short(&self) -> bool {
        match &self.content {
            Content::Streaming(streaming) => streaming.size_hint().exact().is_some_and(|size| size <= SHORT as u64),
            Content::Full(_) => true,
            Content::Empty | Content::Rewritten(_) => false,
        }
    }

    /// All of it, if it is all there.
    fn whole(&mut self) -> Option<Bytes> {
        match &mut self.content {
            Content::Full(bytes) => Some(bytes.clone()),
            Content::Streaming(streaming) => streaming.whole(),
            Content::Empty | Content::Rewritten(_) => None,
        }
    }
}

impl Rewritten {
    fn new(streaming: Streaming, translation: Translation) -> Self {
        Self { streaming, translation, over: false }
    }

    /// Reads until the first piece is decoded. `Err`: that can't be done, here is the body as it was.
    async fn begin(mut streaming: Streaming, mut decoder: Decoder, links: &Links<'_>) -> Result<Self, Streaming> {
        let mut kept = Vec::new();
        let mut size = 0;
        let mut patience = pin!(tokio::time::sleep(SETTLES_WITHIN));
        let first = loop {
            let next = tokio::select! {
                next = poll_fn(|cx| streaming.poll_data(cx)) => next,
                () = &mut patience => break Ok(None),
            };
            // A body without anything in it may stay what it is.
            let Some(next) = next else { break Err(()) };
            let coded = next.as_ref().ok().cloned();
            kept.push(next);
            let Some(coded) = coded else { break Err(()) };
            size += coded.len();
            decoder.feed(coded);
            match decoder.next() {
                Ok(None) if size <= SHORT => {}
                Ok(piece) => break Ok(piece),
                Err(_) => break Err(()),
            }
        };
        let Ok(first) = first else {
            kept.extend(streaming.ahead.drain(..));
            streaming.ahead = kept.into();
            return Err(streaming);
        };
        let mut translation = Translation::new(Some(decoder), links);
        if let Some(piece) = first {
            translation.rewriter.feed(piece);
        }
        Ok(Self::new(streaming, translation))
    }

    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        loop {
            match self.translation.next() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) if self.over => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return self.fail(error.into()),
            }
            match ready!(self.streaming.poll_data(cx)) {
                Some(Ok(data)) => self.translation.feed(data),
                Some(Err(error)) => return self.fail(error),
                None => {
                    self.over = true;
                    if let Err(error) = self.translation.end() {
                        return self.fail(error.into());
                    }
                }
            }
        }
    }

    fn fail(&mut self, error: ReplyError) -> Poll<Option<Result<Bytes, ReplyError>>> {
        self.over = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl Translation {
    pub fn new(decoder: Option<Decoder>, links: &Links<'_>) -> Self {
        Self { decoder, rewriter: links.rewriter() }
    }

    /// To be called when `next` has nothing more.
    pub fn feed(&mut self, data: Bytes) {
        match &mut self.decoder {
            Some(decoder) => decoder.feed(data),
            None => self.rewriter.feed(data),
        }
    }

    /// What is ready, never nothing at all.
    pub fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        loop {
            if let Some(ready) = self.ready() {
                return Ok(Some(ready));
            }
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            match decoder.next()? {
                Some(piece) => self.rewriter.feed(piece),
                None => return Ok(None),
            }
        }
    }

    /// In one piece: a page has hundreds of links, and each frame its price.
    fn ready(&mut self) -> Option<Bytes> {
        let first = self.rewriter.next()?;
        let Some(second) = self.rewriter.next() else { return Some(first) };
        let mut joined = BytesMut::with_capacity(2 * (first.len() + second.len()));
        joined.extend_from_slice(&first);
        joined.extend_from_slice(&second);
        while let Some(piece) = self.rewriter.next() {
            joined.extend_from_slice(&piece);
        }
        Some(joined.freeze())
    }

    /// Nothing more will be fed. What was held back is to be had from `next`, unless the coded body is cut off.
    pub fn end(&mut self) -> Result<(), DecodeError> {
        self.decoder.as_ref().map_or(Ok(()), Decoder::end)?;
        self.rewriter.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::decode::tests::{WAYS, coded};
    use super::*;

    const UPSTREAM: &str = "https://graph.microsoft.com";

    /// Keys and values that look like links, and such as don't.
    fn any_json() -> impl Strategy<Value = Value> {
        let url = prop_oneof![
            Just(UPSTREAM.to_owned()),
            Just(format!("{UPSTREAM}/v1.0/me/messages?$skiptoken=a%2Bb")),
            Just(format!("{UPSTREAM}.evil/v1.0")),
            Just(format!("{UPSTREAM}:444/")),
            Just("/v1.0/me".to_owned()),
            Just(format!("<a href=\"{UPSTREAM}/v1.0\">")),
            any::<String>(),
        ];
        let key = prop_oneof![
            Just("@odata.nextLink".to_owned()),
            Just("members@odata.nextLink".to_owned()),
            Just("@odata.context".to_owned()),
            Just("@odata.id".to_owned()),
            Just("resourceLocation".to_owned()),
            Just("uploadUrl".to_owned()),
            Just("content".to_owned()),
            ".{0,8}",
        ];
        let leaf = prop_oneof![
            3 => url.prop_map(Value::String),
            1 => any::<bool>().prop_map(Value::Bool),
            1 => any::<f64>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| pairs.into_iter().collect()),
            ]
        })
    }

    fn any_body() -> impl Strategy<Value = Vec<u8>> {
        let valid = (any_json(), any::<bool>()).prop_map(|(json, pretty)| {
            if pretty { serde_json::to_vec_pretty(&json).unwrap() } else { serde_json::to_vec(&json).unwrap() }
        });
        // What is no JSON at some byte, or ends too early.
        let broken = (any_json(), any::<prop::sample::Index>(), any::<Option<u8>>()).prop_map(|(json, place, byte)| {
            let mut bytes = serde_json::to_vec(&json).unwrap();
            let place = place.index(bytes.len());
            match byte {
                Some(byte) => bytes[place] = byte,
                None => bytes.truncate(place),
            }
            bytes
        });
        prop_oneof![3 => valid, 1 => broken]
    }

    /// What comes out of a body that comes in pieces of these sizes, over and over.
    fn translated(links: &Links<'_>, coding: Coding, mut bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
        let mut translation = Translation::new(coding.decoder(), links);
        let mut out = Vec::new();
        let mut drain = |translation: &mut Translation| {
            while let Some(piece) = translation.next().unwrap() {
                out.extend_from_slice(&piece);
            }
        };
        for size in sizes.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            let (chunk, rest) = bytes.split_at((*size).min(bytes.len()));
            bytes = rest;
            translation.feed(Bytes::copy_from_slice(chunk));
            drain(&mut translation);
        }
        translation.end().unwrap();
        drain(&mut translation);
        out
    }

    proptest! {
        #[test]
        fn any_body_in_any_coding_and_any_pieces_is_what_it_is_as_a_whole(
            body in any_body(),
            way in prop::sample::select([&["plain"][..], &WAYS[..]].concat()),
            sizes in prop::collection::vec(1..40_usize, 1..8),
        ) {
            let links = Links::new(UPSTREAM, "http://127.0.0.1:8080/as/alice").unwrap();
            let whole = links.whole(&body).unwrap_or_else(|| body.clone());
            let (coding, bytes) = coded(way, &body);
            prop_assert_eq!(translated(&links, coding, &bytes, &sizes), whole);
        }
    }
}

//! Links that name the upstream's origin, and what its client knows it by. Pure: bytes in, bytes out.
//!
//! Only string values of known keys are touched, and of these only an origin that they begin with: mail bodies hold such URLs and stay.
//! Keys and values are compared as they are written, and nothing is encoded anew. What is no valid JSON may keep its links; no byte of it
//! is lost.
//!
//! No parser runs over answers: the origin's host is searched for, and what stands before it is read backwards. In valid JSON a quote
//! after a key's last letter is a closing one, since only `{`, `[`, `,`, `:`, white space or nothing stand before an opening one, and since
//! the quotes within strings follow a backslash. After a closing quote, white space and `:` mean that a key has ended, and the next quote
//! opens its value: so the few bytes before a URL prove that it is a link, and text that looks like a link never passes.

mod keys;
mod request;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use memchr::memrchr;

use self::keys::Passed;
pub use self::keys::URLS;
pub use self::request::in_request;

/// The upstream's origin, and what stands for it in what the client sees: the origin that the client used and the prefix (`/as/alice`).
#[derive(Clone, Debug)]
pub struct Links<'c> {
    upstream: Arc<Origin>,
    /// In pieces: few answers need it whole.
    client: [&'c str; 4],
}

/// Rewrites one JSON answer as it streams, in bounded memory, wherever it is cut into chunks.
#[derive(Debug)]
pub struct Rewriter {
    origin: Arc<Origin>,
    /// What is put in, as it stands within a JSON string.
    client: Bytes,
    passed: Passed,
    /// What may be the beginning of an origin that the next chunk completes.
    held: Vec<u8>,
    ready: VecDeque<Bytes>,
}

impl<'c> Links<'c> {
    /// Both without a slash at the end. `None`: they are the same, nothing has to be rewritten.
    pub fn new(upstream: &str, client: &'c str) -> Option<Self> {
        Self::to(&Arc::new(Origin::new(upstream)), [client, "", "", ""])
    }

    /// The same with an upstream that is ready, and the pieces of what stands for it.
    pub fn to(upstream: &Arc<Origin>, client: [&'c str; 4]) -> Option<Self> {
        let mut left = Some(&*upstream.text);
        for piece in client {
            left = left.and_then(|left| left.strip_prefix(piece));
        }
        (left != Some("")).then(|| Self { upstream: Arc::clone(upstream), client })
    }

    /// The value of a header (`Location`), if it names the upstream.
    pub fn url(&self, value: &str) -> Option<String> {
        let (origin, rest) = value.split_at_checked(self.upstream.text.len())?;
        let names_it = origin.eq_ignore_ascii_case(&self.upstream.text);
        (names_it && (rest.is_empty() || rest.starts_with(['/', '?', '#']))).then(|| self.client.concat() + rest)
    }

    pub fn rewriter(&self) -> Rewriter {
        Rewriter {
            origin: Arc::clone(&self.upstream),
            client: self.quoted(),
            passed: Passed::default(),
            held: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// A whole JSON answer. `None`: nothing in it has to change.
    pub fn whole(&self, body: &[u8]) -> Option<Vec<u8>> {
        let passed = Passed::default();
        let mut links = self.upstream.links(body, &passed).peekable();
        links.peek()?;
        let client = self.quoted();
        let mut rewritten = Vec::with_capacity(body.len() + client.len());
        let mut done = 0;
        for link in links {
            rewritten.extend_from_slice(&body[done..link.start]);
            rewritten.extend_from_slice(&client);
            done = link.end;
        }
        rewritten.extend_from_slice(&body[done..]);
        Some(rewritten)
    }

    /// What is put in, as it stands within a JSON string.
    fn quoted(&self) -> Bytes {
        let quoted = serde_json::Value::from(self.client.concat()).to_string();
        Bytes::copy_from_slice(&quoted.as_bytes()[1..quoted.len() - 1])
    }
}

impl Rewriter {
    /// Takes the next piece; what can be sent on then is to be had from `next`.
    pub fn feed(&mut self, mut chunk: Bytes) {
        while !self.held.is_empty() && !chunk.is_empty() {
            let mut joint = std::mem::take(&mut self.held);
            // One byte more than the longest that can be in doubt.
            let needed = (self.origin.longest() + 1 - joint.len()).min(chunk.len());
            joint.extend_from_slice(&chunk.split_to(needed));
            self.scan(&joint.into());
        }
        self.scan(&chunk);
    }

    /// The answer is over: what was held back is to be had from `next`.
    pub fn end(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.send(held.into());
    }

    /// What is ready, in order.
    #[expect(clippy::should_implement_trait, reason = "there is more after `None`")]
    pub fn next(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Without a link the chunk goes on as it is; else it is copied once, links replaced.
    fn scan(&mut self, chunk: &Bytes) {
        let mut done = 0;
        let mut rewritten = BytesMut::new();
        for link in self.origin.links(chunk, &self.passed) {
            if done == 0 {
                rewritten.reserve(chunk.len() + chunk.len() / 8 + self.client.len());
            }
            rewritten.extend_from_slice(&chunk[done..link.start]);
            rewritten.extend_from_slice(&self.client);
            done = link.end;
        }
        let cut = self.origin.cut(chunk, done, &self.passed);
        self.held.extend_from_slice(&chunk[cut..]);
        self.passed.append(&chunk[..cut]);
        if done == 0 {
            self.send(chunk.slice(..cut));
        } else {
            rewritten.extend_from_slice(&chunk[done..cut]);
            self.send(rewritten.freeze());
        }
    }

    fn send(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.ready.push_back(piece);
        }
    }
}

/// How an upstream's origin is found where it begins a string; made once. A slash may be written `\/`.
#[derive(Debug)]
pub struct Origin {
    /// `https://graph.microsoft.com`
    text: Box<str>,
    /// With its colon.
    scheme: Box<[u8]>,
    /// A slash and the host: what is searched for. Two of them never overlap.
    host: Finder<'static>,
}

/// What a text begins with.
#[derive(Debug, PartialEq, Eq)]
enum Begins {
    /// The origin, so many bytes long.
    With(usize),
    /// The text is over before that is certain.
    Perhaps,
    Otherwise,
}

impl Origin {
    /// `text`: without a slash at the end.
    pub fn new(text: &str) -> Self {
        let (scheme, host) = text.split_once("://").unwrap_or(("", text));
        Self {
            text: text.into(),
            scheme: format!("{scheme}:").into_bytes().into(),
            host: Finder::new(&format!("/{host}")).into_owned(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The longest text that may yet become an origin: scheme, two slashes written long, host and the backslash after it.
    fn longest(&self) -> usize {
        self.before_host() + self.host.needle().len() + 1
    }

    /// The most that stands before what is searched for: scheme, a slash written long and the backslash of the next.
    fn before_host(&self) -> usize {
        self.scheme.len() + 3
    }

    /// Where `text`, which follows what passed, has the origin in a link.
    fn links<'t>(&'t self, text: &'t [u8], passed: &'t Passed) -> impl Iterator<Item = Range<usize>> + 't {
        let mut done = 0;
        self.host.find_iter(text).filter_map(move |host| {
            let start = after_last_quote(text, host.saturating_sub(self.before_host() + 1), host)?;
            let Begins::With(length) = self.begins(&text[start..]) else { return None };
            (start >= done && passed.announces_link(&text[..start])).then(|| {
                done = start + length;
                start..done
            })
        })
    }

    /// Where the end of `text` begins that has to wait for more.
    fn cut(&self, text: &[u8], done: usize, passed: &Passed) -> usize {
        let end = text.len();
        match after_last_quote(text, end.saturating_sub(self.longest() + 1), end) {
            Some(start)
                if start >= done
                    && start < end
                    && self.begins(&text[start..]) == Begins::Perhaps
                    && passed.announces_link(&text[..start]) =>
            {
                start
            }
            _ => end,
        }
    }

    fn begins(&self, text: &[u8]) -> Begins {
        let read = || {
            let at = literal(text, 0, &self.scheme)?;
            let at = slash(text, at)?;
            // The second slash is part of what is searched for, and may have its backslash.
            let at = at + usize::from(text[at..].starts_with(b"\\"));
            let at = literal(text, at, self.host.needle())?;
            match &text[at..] {
                [b'/' | b'?' | b'#' | b'"', ..] | [b'\\', b'/', ..] => Ok(at),
                [] | [b'\\'] => Err(Begins::Perhaps),
                _ => Err(Begins::Otherwise),
            }
        };
        read().map_or_else(|begins| begins, Begins::With)
    }
}

/// Where the string begins that covers `to`, if it begins behind `from` or with the text.
fn after_last_quote(text: &[u8], from: usize, to: usize) -> Option<usize> {
    match memrchr(b'"', &text[from..to]) {
        Some(quote) => Some(from + quote + 1),
        None => (from == 0).then_some(0),
    }
}

fn literal(text: &[u8], at: usize, literal: &[u8]) -> Result<usize, Begins> {
    let text = &text[at..];
    if text.starts_with(literal) {
        Ok(at + literal.len())
    } else if literal.starts_with(text) {
        Err(Begins::Perhaps)
    } else {
        Err(Begins::Otherwise)
    }
}

fn slash(text: &[u8], at: usize) -> Result<usize, Begins> {
    match &text[at..] {
        [b'/', ..] => Ok(at + 1),
        [b'\\', b'/', ..] => Ok(at + 2),
        [] | [b'\\'] => Err(Begins::Perhaps),
        _ => Err(Begins::Otherwise),
    }
}

#[cfg(test)]
mod tests;

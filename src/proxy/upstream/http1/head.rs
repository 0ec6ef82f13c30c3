//! Heads on the wire of HTTP/1.1: ours written, the upstream's read. Pure.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::framing::{Framing, FramingError};
use crate::proxy::outbound::Attempt;
use crate::proxy::reply;

/// An answer's head is no longer, and has no more lines.
const LONGEST: usize = 128 << 10;
const MOST_LINES: usize = 128;
/// So many interim answers (1xx) are skipped before an answer.
pub const MOST_INTERIM: u32 = 100;
/// Whose values decide what becomes of others on the way to the client, or are set or added to there.
const DECIDING: [HeaderName; 5] =
    [header::CONNECTION, header::CONTENT_TYPE, header::VARY, header::CONTENT_SECURITY_POLICY, header::CACHE_CONTROL];

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing is said: there is none.
    Nothing,
    Length(u64),
    Chunked,
}

/// An answer's head, and what follows from it.
#[derive(Debug)]
pub struct Head {
    pub response: Response<()>,
    pub framing: Framing,
    /// The connection can be used again after the body.
    pub keeps: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error("its head is no HTTP: {0}")]
    Malformed(#[from] httparse::Error),
    #[error("its head is longer than {LONGEST} bytes")]
    TooLong,
    #[error("a header of its head is malformed")]
    Header,
    #[error("more than {MOST_INTERIM} interim answers come before it")]
    Interim,
    #[error(transparent)]
    Framing(#[from] FramingError),
}

pub fn write(output: &mut Vec<u8>, attempt: &Attempt<'_>, sent: Sent) {
    let line = |output: &mut Vec<u8>, name: &str, value: &[u8]| {
        output.extend_from_slice(name.as_bytes());
        output.extend_from_slice(b": ");
        output.extend_from_slice(value);
        output.extend_from_slice(b"\r\n");
    };
    output.extend_from_slice(attempt.head.method.as_str().as_bytes());
    output.push(b' ');
    output.extend_from_slice(attempt.head.target().as_bytes());
    output.extend_from_slice(b" HTTP/1.1\r\n");
    line(output, "host", attempt.head.host.as_bytes());
    for (name, value) in attempt.head.lines() {
        line(output, name.as_str(), value.as_bytes());
    }
    line(output, "authorization", attempt.authorization.as_bytes());
    if let Some(traceparent) = attempt.traceparent {
        line(output, "traceparent", traceparent.as_bytes());
    }
    match sent {
        Sent::Nothing => {}
        Sent::Length(length) => line(output, "content-length", length.to_string().as_bytes()),
        Sent::Chunked => line(output, "transfer-encoding", b"chunked"),
    }
    output.extend_from_slice(b"\r\n");
}

/// The last head of a connection. An upstream says nearly the same again and again: to compare and to copy costs a fraction of what it
/// costs to read each head, and make its headers, anew.
#[derive(Default)]
pub struct Last {
    /// As it came, and where its values lie. Empty where that can't tell another head from it.
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
    start: Start,
    /// Names as they were spelled, in their order. Empty where one came twice: then the order of `headers` is another.
    names: Vec<Box<[u8]>>,
    headers: HeaderMap,
    /// What of them reaches the client.
    passed: HeaderMap,
    connection: Said,
}

#[derive(Clone, Default)]
struct Start {
    status: StatusCode,
    version: Version,
    /// One that is not the usual one.
    reason: Option<ReasonPhrase>,
}

/// What `Connection` says.
#[derive(Clone, Copy, Default)]
struct Said {
    close: bool,
    keep_alive: bool,
}

impl Last {
    /// The head of an answer to `method`, if `input` has all of it; taken out of `input`. Interim answers (1xx) are heads too. Headers that
    /// are not for the client are gone.
    pub fn read(&mut self, input: &mut BytesMut, method: &Method) -> Result<Option<Head>, HeadError> {
        let length = match self.repeated(input) {
            Some(length) => length,
            None => match self.parse(input)? {
                Some(length) => length,
                None => return if input.len() < LONGEST { Ok(None) } else { Err(HeadError::TooLong) },
            },
        };
        let _ = input.split_to(length);
        let Start { status, version, ref reason } = self.start;
        let (framing, clear) = Framing::of(method, status, &self.headers)?;
        // Chunks are none of HTTP/1.0: what such a server means by them is not certain (RFC 9112, section 6.1).
        let clear = clear && !(version == Version::HTTP_10 && matches!(framing, Framing::Chunked(_)));
        let keeps = clear && framing != Framing::ToTheEnd && self.connection.lives_on(version);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.version_mut() = version;
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason.clone());
        }
        response.headers_mut().clone_from(&self.passed);
        if !clear {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        Ok(Some(Head { response, framing, keeps }))
    }

    /// The length of the head in `input`, if it is the same but for values of the same length.
    fn repeated(&mut self, input: &[u8]) -> Option<usize> {
        let head = input.get(..self.bytes.len()).filter(|head| !head.is_empty())?;
        let mut end = 0;
        for place in &self.places {
            let between = std::mem::replace(&mut end, place.end)..place.start;
            if head[between.clone()] != self.bytes[between] || head[place.clone()].trim_ascii().len() != place.len() {
                return None;
            }
        }
        if head[end..] != self.bytes[end..] {
            return None;
        }
        // What holds the end of a line is no value.
        let places = std::mem::take(&mut self.places);
        let updated = self.update(places.iter().map(|place| &head[place.clone()]));
        self.places = places;
        if updated.is_err() {
            // Some values are new already, and nothing has been made of them: the head is learned from its beginning.
            self.names.clear();
        }
        updated.is_ok().then_some(self.bytes.len())
    }

    /// Reads a head of any kind, and remembers it. `None`: it has not come whole.
    fn parse(&mut self, input: &[u8]) -> Result<Option<usize>, HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; MOST_LINES];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = config.parse_response_with_uninit_headers(&mut parsed, input, &mut lines)?;
        let httparse::Status::Complete(length) = length else { return Ok(None) };
        self.bytes.clear();
        self.places.clear();
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HeadError::Header)?;
        let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let reason = parsed.reason.filter(|reason| !reason.is_empty() && status.canonical_reason() != Some(*reason));
        let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes().to_vec()).ok());
        self.start = Start { status, version, reason };
        if self.is_like(parsed.headers) {
            self.update(parsed.headers.iter().map(|line| line.value))?;
        } else {
            self.learn(parsed.headers)?;
        }
        if !self.names.is_empty() && parsed.headers.iter().all(|line| !line.value.is_empty()) {
            let place = |line: &httparse::Header<'_>| {
                let start = line.value.as_ptr().addr() - input.as_ptr().addr();
                start..start + line.value.len()
            };
            self.places.extend(parsed.headers.iter().map(place));
            self.bytes.extend_from_slice(&input[..length]);
        }
        Ok(Some(length))
    }

    fn is_like(&self, lines: &[httparse::Header<'_>]) -> bool {
        !self.names.is_empty()
            && self.names.len() == lines.len()
            && self.names.iter().zip(lines).all(|(name, line)| **name == *line.name.as_bytes())
    }

    /// The values of a head with the same lines.
    fn update<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>) -> Result<(), HeadError> {
        let mut decides = false;
        for ((name, value), new) in self.headers.iter_mut().zip(values) {
            if value.as_bytes() == new {
                continue;
            }
            *value = HeaderValue::from_bytes(new).map_err(|_| HeadError::Header)?;
            decides |= DECIDING.contains(name);
            if let Some(passed) = self.passed.get_mut(name) {
                passed.clone_from(value);
            }
        }
        if decides {
            self.pass();
        }
        Ok(())
    }

    fn learn(&mut self, lines: &[httparse::Header<'_>]) -> Result<(), HeadError> {
        self.names.clear();
        self.headers = HeaderMap::with_capacity(lines.len());
        for line in lines {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| HeadError::Header)?;
            self.headers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| HeadError::Header)?);
        }
        if self.headers.keys_len() == lines.len() {
            self.names.extend(lines.iter().map(|line| line.name.as_bytes().into()));
        }
        self.pass();
        Ok(())
    }

    fn pass(&mut self) {
        self.passed.clone_from(&self.headers);
        reply::filter(&mut self.passed);
        self.connection = Said::of(&self.headers);
    }
}

impl Said {
    fn of(headers: &HeaderMap) -> Self {
        let says = |word: &[u8]| {
            let values = headers.get_all(header::CONNECTION).iter();
            let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(word))
        };
        Self { close: says(b"close"), keep_alive: says(b"keep-alive") }
    }

    /// RFC 9112, section 9.3.
    fn lives_on(self, version: Version) -> bool {
        !self.close && (self.keep_alive || version == Version::HTTP_11)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::framing::Chunk;
    use super::*;

    fn read_all(text: &str) -> Result<Option<Head>, HeadError> {
        Last::default().read(&mut BytesMut::from(text), &Method::GET)
    }

    #[test]
    fn a_head_however_it_is_cut() {
        let text = "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-Twice: a\r\nx-twice:  b \r\nEmpty:\r\nObs: \u{e9}\r\n\r\nhello";
        let whole = text.len() - 5;
        let mut last = Last::default();
        for cut in 0..whole {
            let mut input = BytesMut::from(&text.as_bytes()[..cut]);
            assert!(last.read(&mut input, &Method::GET).unwrap().is_none(), "{cut}");
            assert_eq!(input.len(), cut);
        }
        let mut input = BytesMut::from(text);
        let head = last.read(&mut input, &Method::GET).unwrap().unwrap();
        assert_eq!(&input[..], b"hello");
        assert_eq!((head.framing, head.keeps), (Framing::Length(5), true));
        let headers = head.response.headers();
        let twice: Vec<_> = headers.get_all("x-twice").iter().collect();
        assert_eq!(twice, ["a", "b"]);
        assert_eq!((headers["empty"].as_bytes(), headers["obs"].as_bytes()), (&b""[..], "\u{e9}".as_bytes()));
        assert_eq!(head.response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Fine");
    }

    fn headers_of(last: &mut Last, lines: &[(&str, &str)]) -> Vec<(HeaderName, HeaderValue)> {
        let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", lines.concat());
        let head = last.read(&mut BytesMut::from(&*text), &Method::GET).unwrap().unwrap();
        let mut headers: Vec<_> =
            head.response.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.sort_by(|one, other| (one.0.as_str(), one.1.as_bytes()).cmp(&(other.0.as_str(), other.1.as_bytes())));
        headers
    }

    proptest! {
        #[test]
        fn a_head_is_what_it_says_whatever_the_last_one_was(
            names in prop::collection::vec(
                prop::sample::select(vec!["Connection", "connection", "Vary", "Content-Type", "Etag", "etag", "X-Hop", "Cache-Control"]),
                0..6,
            ),
            heads in prop::collection::vec(
                prop::collection::vec(prop::sample::select(vec!["close", "x-hop", "text/html", "etag, vary", "cache-control", "", "1", "2", "vary "]), 6),
                1..5,
            ),
            cut in 0..6_usize,
        ) {
            let mut last = Last::default();
            for (at, values) in heads.iter().enumerate() {
                let names = if at % 2 == 1 { &names[..names.len().min(cut)] } else { &names[..] };
                let lines: Vec<_> = names.iter().copied().zip(values.iter().copied()).collect();
                prop_assert_eq!(headers_of(&mut last, &lines), headers_of(&mut Last::default(), &lines));
            }
        }
    }

    #[test]
    fn a_line_that_comes_in_place_of_a_value_is_a_line() {
        let mut last = Last::default();
        assert_eq!(headers_of(&mut last, &[("a", "12345678"), ("b", "1")]).len(), 4);
        let lines = [("a", "1\r\nx: 78"), ("b", "1")];
        let headers = headers_of(&mut last, &lines);
        assert_eq!(headers, headers_of(&mut Last::default(), &lines));
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn what_the_body_adds_to_a_shorter_head_decides_nothing() {
        for (deciding, old, new) in [
            ("Content-Type", "application/json", "text/html;abcdef"),
            ("Connection", "x-one", "close"),
            ("Connection", "x-one", "x-two"),
        ] {
            let head = |value: &str, last: &str, behind: &str| {
                let text = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Two: 2\r\n{deciding}: {value}\r\nX-Last: {last}\r\n\r\n{behind}"
                );
                BytesMut::from(&*text)
            };
            let mut last = Last::default();
            last.read(&mut head(old, "12345678", ""), &Method::GET).unwrap().unwrap();
            // The end of the first head stands in the body of the second.
            let mut input = head(new, "12", "34\r\n\r\n567");
            let read = last.read(&mut input, &Method::GET).unwrap().unwrap();
            let fresh = Last::default().read(&mut head(new, "12", ""), &Method::GET).unwrap().unwrap();
            assert_eq!(&input[..], b"34\r\n\r\n567");
            assert_eq!(
                (read.response.headers(), read.keeps),
                (fresh.response.headers(), fresh.keeps),
                "{deciding}: {new}"
            );
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "220 smtp.example ESMTP\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ] {
            assert!(read_all(text).is_err(), "{text:?}");
        }
        let many = (0..2 * MOST_LINES).map(|number| format!("a{number}: b\r\n")).collect::<Vec<_>>().concat();
        assert!(read_all(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
        let long = "x".repeat(LONGEST);
        assert!(read_all(&format!("HTTP/1.1 200 OK\r\na: {long}")).is_err());
    }

    #[test]
    fn which_connections_live_on() {
        for (text, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1", true),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 1", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive", true),
            ("HTTP/1.1 200 OK", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1", false),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive", false),
        ] {
            assert_eq!(read_all(&format!("{text}\r\n\r\n")).unwrap().unwrap().keeps, keeps, "{text}");
        }
        let both =
            read_all("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n").unwrap().unwrap();
        assert_eq!(both.framing, Framing::Chunked(Chunk::Size));
        assert!(!both.response.headers().contains_key(header::CONTENT_LENGTH));
    }
}

//! Where an answer's body ends (RFC 9112, section 6.3), and its data without the framing. Pure: bytes in, bytes out.
//!
//! What could be understood in two ways is an error: the connection is closed, and nothing behind it is taken for another answer.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};

/// The line of a chunk's size with its extensions, or all trailers, are no longer than this.
const LONGEST_LINE: usize = 16 << 10;
/// Trailers are dropped; more of them are no HTTP that anybody means.
const MOST_TRAILERS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunk),
    /// The end of the connection is the end of the body.
    ToTheEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The line with its size comes next.
    Size,
    Data(u64),
    /// The end of its last line comes next.
    End,
    Trailers,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("its Content-Length is malformed or there are several")]
    Length,
    #[error("its Transfer-Encoding is not chunked")]
    Coding,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("its trailers are malformed or too long")]
    Trailers,
}

impl Framing {
    /// How the body of an answer is framed, and whether its head leaves no doubt: if there is one, the connection is not used again.
    pub fn of(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<(Self, bool), FramingError> {
        if *method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Ok((Self::Length(0), true));
        }
        let lengths = headers.get_all(header::CONTENT_LENGTH);
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
                return Err(FramingError::Coding);
            }
            return Ok((Self::Chunked(Chunk::Size), lengths.iter().next().is_none()));
        }
        let mut lengths = lengths.iter();
        let Some(length) = lengths.next() else { return Ok((Self::ToTheEnd, true)) };
        if lengths.any(|other| other != length) || !length.as_bytes().iter().all(u8::is_ascii_digit) {
            return Err(FramingError::Length);
        }
        let length = length.to_str().ok().and_then(|digits| digits.parse().ok());
        Ok((Self::Length(length.ok_or(FramingError::Length)?), true))
    }

    /// The next data in `input`. `None`: more has to come, unless the body is over.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        match self {
            Self::ToTheEnd => Ok((!input.is_empty()).then(|| input.split().freeze())),
            Self::Length(left) => Ok(up_to(left, input)),
            Self::Chunked(chunk) => chunk.next(input),
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Over))
    }

    /// The connection has ended. Whether the body may end there.
    pub fn may_end(self) -> bool {
        self.is_over() || self == Self::ToTheEnd
    }

    /// The length of what is still to come, where it is known.
    pub fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(Chunk::Over) => Some(0),
            Self::Chunked(_) | Self::ToTheEnd => None,
        }
    }

    /// How many bytes it makes sense to have before `next` is asked: all that is known to come, or as much as there is.
    pub fn wants(self) -> u64 {
        match self {
            Self::Length(left) => left,
            Self::Chunked(Chunk::Over) => 0,
            Self::Chunked(_) | Self::ToTheEnd => u64::MAX,
        }
    }
}

impl Chunk {
    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        loop {
            match self {
                Self::Size => match chunk_size(input)? {
                    Some((line, size)) => {
                        input.advance(line);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    None => return Ok(None),
                },
                Self::Data(left) => {
                    let data = up_to(left, input);
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(data);
                }
                Self::End => match input.first_chunk::<2>() {
                    Some(b"\r\n") => {
                        input.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(FramingError::Chunk),
                    None => return Ok(None),
                },
                Self::Trailers => {
                    let mut trailers = [httparse::EMPTY_HEADER; MOST_TRAILERS];
                    match httparse::parse_headers(input, &mut trailers) {
                        Ok(httparse::Status::Complete((length, _))) => {
                            input.advance(length);
                            *self = Self::Over;
                        }
                        Ok(httparse::Status::Partial) if input.len() <= LONGEST_LINE => return Ok(None),
                        Ok(httparse::Status::Partial) | Err(_) => return Err(FramingError::Trailers),
                    }
                }
                Self::Over => return Ok(None),
            }
        }
    }
}

/// The line with a chunk's size, if it has come whole: its length, and the size. httparse reads a line without digits as a zero, and a bare
/// end of a line as a part of an extension.
fn chunk_size(input: &[u8]) -> Result<Option<(usize, u64)>, FramingError> {
    if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(FramingError::Chunk);
    }
    match httparse::parse_chunk_size(input) {
        Ok(httparse::Status::Complete((line, _))) if input[..line - 2].contains(&b'\n') => Err(FramingError::Chunk),
        Ok(httparse::Status::Complete((line, size))) => Ok(Some((line, size))),
        Ok(httparse::Status::Partial) if input.len() <= LONGEST_LINE => Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => Err(FramingError::Chunk),
    }
}

fn up_to(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    (length > 0).then(|| input.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(status: u16, headers: &[(&'static str, &'static str)]) -> Result<(Framing, bool), FramingError> {
        let line = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = headers.iter().map(line).collect();
        Framing::of(&Method::GET, StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn where_a_body_ends() {
        let chunked = Framing::Chunked(Chunk::Size);
        assert_eq!(of(200, &[("content-length", "5")]), Ok((Framing::Length(5), true)));
        assert_eq!(of(200, &[("content-length", "5"), ("content-length", "5")]), Ok((Framing::Length(5), true)));
        assert_eq!(of(200, &[]), Ok((Framing::ToTheEnd, true)));
        assert_eq!(of(200, &[("transfer-encoding", "Chunked")]), Ok((chunked, true)));
        for status in [204, 304] {
            assert_eq!(of(status, &[("content-length", "5")]), Ok((Framing::Length(0), true)));
        }
        let head = Framing::of(&Method::HEAD, StatusCode::OK, &HeaderMap::new());
        assert_eq!(head, Ok((Framing::Length(0), true)));
        // Two ways to read it: the coding counts, and nothing else comes over this connection.
        let both = of(200, &[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(both, Ok((chunked, false)));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for length in ["", "+5", "-5", "5 5", "0x5", "5,5", "5, 6", "99999999999999999999999"] {
            assert_eq!(of(200, &[("content-length", length)]), Err(FramingError::Length), "{length:?}");
        }
        assert_eq!(of(200, &[("content-length", "5"), ("content-length", "6")]), Err(FramingError::Length));
        for coding in ["", "gzip, chunked", "chunked, identity", "xchunked", "chunked,", "identity"] {
            assert_eq!(of(200, &[("transfer-encoding", coding)]), Err(FramingError::Coding), "{coding:?}");
        }
        let twice = of(200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]);
        assert_eq!(twice, Err(FramingError::Coding));
    }

    #[test]
    fn chunks_that_are_none() {
        for bytes in [
            "x\r\n",
            "-1\r\n",
            "\r\n\r\n",
            " \r\n\r\n",
            " 0\r\n\r\n",
            ";a\r\n\r\n",
            "5;a\nb\r\nhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n\n",
            "fffffffffffffffff\r\n",
            "0\r\na b\r\n\r\n",
        ] {
            let mut framing = Framing::Chunked(Chunk::Size);
            let mut input = BytesMut::from(bytes);
            let failed = std::iter::from_fn(|| framing.next(&mut input).transpose()).any(|next| next.is_err());
            assert!(failed, "{bytes:?}");
        }
        for endless in [&b"0"[..], b"0\r\na: "] {
            let mut framing = Framing::Chunked(Chunk::Size);
            let mut input = BytesMut::from(endless);
            input.extend_from_slice(&vec![b'0'; 2 * LONGEST_LINE]);
            assert!(framing.next(&mut input).is_err(), "{endless:?}");
        }
    }

    proptest! {
        #[test]
        fn data_comes_out_whatever_the_chunks_and_pieces(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            trailers in prop::sample::select(vec!["", "a: b\r\n", "a: b\r\nc: d\r\n"]),
            extension in prop::sample::select(vec!["", ";a=b", "; a=\"b\""]),
            sizes in prop::collection::vec(1..30_usize, 1..8),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            let end = wire.len();
            wire.extend_from_slice(b"HTTP/1.1 200 OK\r\n");

            let mut framing = Framing::Chunked(Chunk::Size);
            let (mut input, mut data, mut fed) = (BytesMut::new(), Vec::new(), 0);
            for size in sizes.iter().cycle() {
                while let Some(piece) = framing.next(&mut input).unwrap() {
                    prop_assert!(!piece.is_empty());
                    data.extend_from_slice(&piece);
                }
                if framing.is_over() {
                    break;
                }
                prop_assert!(fed < end && !framing.may_end());
                let piece = &wire[fed..(fed + size).min(wire.len())];
                input.extend_from_slice(piece);
                fed += piece.len();
            }
            prop_assert_eq!(data, chunks.concat());
            // What lies behind the body is not touched.
            prop_assert_eq!(&input[..], &wire[end..fed]);
        }
    }
}

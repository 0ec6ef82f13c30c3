//! Content codings, undone piece by piece. Pure: bytes in, bytes out.
//!
//! However much a body swells, one step makes at most `PIECE` bytes of it; nothing is decoded before it is asked for.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::{Buf as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// The most that one step decodes.
const PIECE: usize = 32 << 10;
/// The largest window of deflate, as a power of two.
const WINDOW: u8 = 15;

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the upstream's {0} body is malformed")]
    Malformed(Coding),
    #[error("the upstream's {0} body is cut off")]
    CutOff(Coding),
    #[error("something follows the upstream's {0} body")]
    Trailing(Coding),
}

/// Undoes one coding.
pub struct Decoder {
    coding: Coding,
    codec: Codec,
    input: Bytes,
    output: Box<[u8]>,
    /// Nothing is missing: what follows, if anything does, is another member.
    over: bool,
}

enum Codec {
    /// `deflate` is zlib's format, or the bare one that is older servers' reading of the name: the first two bytes tell.
    Undecided,
    Inflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
}

struct Step {
    read: usize,
    written: usize,
    over: bool,
}

impl Coding {
    /// `None`: one that is not known here, or several.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut coding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                let named = match &*name.to_ascii_lowercase() {
                    b"" | b"identity" => continue,
                    b"gzip" | b"x-gzip" => Self::Gzip,
                    b"deflate" => Self::Deflate,
                    b"br" => Self::Brotli,
                    _ => return None,
                };
                if coding != Self::Identity {
                    return None;
                }
                coding = named;
            }
        }
        Some(coding)
    }

    /// `None`: there is nothing to undo.
    pub fn decoder(self) -> Option<Decoder> {
        let codec = match self {
            Self::Identity => return None,
            Self::Gzip => Codec::Inflate(Decompress::new_gzip(WINDOW)),
            Self::Deflate => Codec::Undecided,
            Self::Brotli => {
                let alloc = StandardAlloc::default;
                Codec::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
        };
        let output = vec![0; PIECE].into_boxed_slice();
        Some(Decoder { coding: self, codec, input: Bytes::new(), output, over: false })
    }
}

impl Decoder {
    /// Takes the next of the coded body. To be called when `next` has nothing more.
    pub fn feed(&mut self, coded: Bytes) {
        if self.input.is_empty() {
            self.input = coded;
        } else {
            let mut joined = BytesMut::from(&*self.input);
            joined.extend_from_slice(&coded);
            self.input = joined.freeze();
        }
    }

    /// The next piece of what was fed, never an empty one.
    pub fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        loop {
            if self.over {
                match &mut self.codec {
                    _ if self.input.is_empty() => return Ok(None),
                    // gzip may have several members, one after the other.
                    Codec::Inflate(inflate) if self.coding == Coding::Gzip => *inflate = Decompress::new_gzip(WINDOW),
                    _ => return Err(DecodeError::Trailing(self.coding)),
                }
            }
            if matches!(self.codec, Codec::Undecided) {
                let Some(&[first, second]) = self.input.first_chunk() else { return Ok(None) };
                self.codec = Codec::Inflate(Decompress::new(is_zlib(first, second)));
            }
            let step = self.codec.step(&self.input, &mut self.output).ok_or(DecodeError::Malformed(self.coding))?;
            self.input.advance(step.read);
            self.over = step.over;
            if step.written > 0 {
                return Ok(Some(Bytes::copy_from_slice(&self.output[..step.written])));
            }
            if step.read == 0 && !step.over {
                return if self.input.is_empty() { Ok(None) } else { Err(DecodeError::Malformed(self.coding)) };
            }
        }
    }

    /// The coded body is over. Says whether it may end here; to be called when `next` has nothing more.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.over { Ok(()) } else { Err(DecodeError::CutOff(self.coding)) }
    }
}

impl Codec {
    /// `None`: malformed.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Option<Step> {
        match self {
            Self::Undecided => None,
            Self::Inflate(inflate) => {
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, output, FlushDecompress::None).ok()?;
                Some(Step {
                    read: usize::try_from(inflate.total_in() - read).ok()?,
                    written: usize::try_from(inflate.total_out() - written).ok()?,
                    over: status == Status::StreamEnd,
                })
            }
            Self::Brotli(state) => {
                let (mut read, mut written, mut total) = (0, 0, 0);
                let (mut unread, mut free) = (input.len(), output.len());
                let result = BrotliDecompressStream(
                    &mut unread,
                    &mut read,
                    input,
                    &mut free,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                let over = match result {
                    BrotliResult::ResultFailure => return None,
                    BrotliResult::ResultSuccess => true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
                };
                Some(Step { read, written, over })
            }
        }
    }
}

/// Whether two bytes are the header of RFC 1950.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    /// The ways in which servers code a body.
    pub const WAYS: [&str; 5] = ["gzip", "zlib", "raw", "br", "members"];

    pub fn coded(way: &str, plain: &[u8]) -> (Coding, Vec<u8>) {
        let level = Compression::default();
        match way {
            "gzip" => (Coding::Gzip, write(GzEncoder::new(Vec::new(), level), plain, GzEncoder::finish)),
            "members" => {
                let (first, second) = plain.split_at(plain.len() / 2);
                (Coding::Gzip, [coded("gzip", first).1, coded("gzip", second).1].concat())
            }
            "zlib" => (Coding::Deflate, write(ZlibEncoder::new(Vec::new(), level), plain, ZlibEncoder::finish)),
            "raw" => (Coding::Deflate, write(DeflateEncoder::new(Vec::new(), level), plain, DeflateEncoder::finish)),
            "br" => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
                encoder.write_all(plain).unwrap();
                (Coding::Brotli, encoder.into_inner())
            }
            _ => (Coding::Identity, plain.to_vec()),
        }
    }

    fn write<W: std::io::Write>(mut to: W, plain: &[u8], end: fn(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
        to.write_all(plain).unwrap();
        end(to).unwrap()
    }

    /// Decodes what comes in pieces of `size`; also how much came out before it failed.
    fn decode(coding: Coding, bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), DecodeError>) {
        let mut decoder = coding.decoder().unwrap();
        let mut plain = Vec::new();
        for chunk in bytes.chunks(size) {
            decoder.feed(Bytes::copy_from_slice(chunk));
            loop {
                match decoder.next() {
                    Ok(Some(piece)) => {
                        assert!((1..=PIECE).contains(&piece.len()));
                        plain.extend_from_slice(&piece);
                    }
                    Ok(None) => break,
                    Err(error) => return (plain, Err(error)),
                }
            }
        }
        (plain, decoder.end())
    }

    #[test]
    fn every_coding_wherever_it_is_cut() {
        let plain: Vec<u8> =
            (0..20_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        for way in WAYS {
            for plain in [&plain[..], &plain[..300], b"{}", b""] {
                let (coding, bytes) = coded(way, plain);
                for size in [1, 2, 3, 7, 1000, bytes.len()] {
                    let (decoded, end) = decode(coding, &bytes, size);
                    assert_eq!(end, Ok(()), "{way} {size}");
                    assert!(decoded == plain, "{way} {size}");
                }
            }
        }
    }

    #[test]
    fn what_is_broken_fails() {
        let plain: Vec<u8> = (0..50_000_u32).flat_map(|number| (number * number).to_be_bytes()).collect();
        for way in WAYS {
            let (coding, bytes) = coded(way, &plain);
            for size in [1, 1000, bytes.len()] {
                for cut in [1, 2, bytes.len() / 3, bytes.len() - 1] {
                    let (decoded, end) = decode(coding, &bytes[..cut], size);
                    assert_eq!(end, Err(DecodeError::CutOff(coding)), "{way} cut off at {cut}");
                    assert!(plain.starts_with(&decoded));
                }
                let trailing = [&bytes[..], b"garbage"].concat();
                let (decoded, end) = decode(coding, &trailing, size);
                assert!(end.is_err() && plain.starts_with(&decoded), "{way} with something behind it");
            }
            let wrong = decode(coding, b"{\"value\":[\"this is not coded at all\"]}", 1000);
            assert_eq!(wrong, (Vec::new(), Err(DecodeError::Malformed(coding))), "{way}");
        }
        // The checksum is what tells.
        for (way, from_end) in [("gzip", 8), ("zlib", 1)] {
            let (coding, mut bytes) = coded(way, b"{\"value\":[]}");
            let place = bytes.len() - from_end;
            bytes[place] ^= 1;
            assert_eq!(decode(coding, &bytes, 1).1, Err(DecodeError::Malformed(coding)), "{way}");
        }
    }

    #[test]
    fn what_swells_comes_out_piece_by_piece() {
        let zeros = vec![0; 20 << 20];
        for way in WAYS {
            let (coding, bytes) = coded(way, &zeros);
            assert!(bytes.len() < 100_000);
            let (decoded, end) = decode(coding, &bytes, bytes.len());
            assert!(end.is_ok() && decoded.len() == zeros.len(), "{way}");
        }
    }

    #[test]
    fn what_was_flushed_is_there() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
        let (mut gunzip, mut unbr) = (Coding::Gzip.decoder().unwrap(), Coding::Brotli.decoder().unwrap());
        for number in 0..100 {
            let line = format!("{{\"number\":{number}}}\n");
            let flushed = |bytes: &mut Vec<u8>| Bytes::from(std::mem::take(bytes));
            gzip.write_all(line.as_bytes()).unwrap();
            gzip.flush().unwrap();
            gunzip.feed(flushed(gzip.get_mut()));
            assert_eq!(gunzip.next(), Ok(Some(line.clone().into())));
            assert_eq!(gunzip.next(), Ok(None));
            br.write_all(line.as_bytes()).unwrap();
            br.flush().unwrap();
            unbr.feed(flushed(br.get_mut()));
            assert_eq!(unbr.next(), Ok(Some(line.into())));
            assert_eq!(unbr.next(), Ok(None));
        }
    }

    #[test]
    fn codings_by_name() {
        let of = |values: &[&'static str]| {
            let value = |value: &&'static str| (CONTENT_ENCODING, HeaderValue::from_static(value));
            Coding::of(&values.iter().map(value).collect())
        };
        for (values, coding) in [
            (&[][..], Coding::Identity),
            (&["identity"], Coding::Identity),
            (&["", "identity, "], Coding::Identity),
            (&["gzip"], Coding::Gzip),
            (&["X-GZip"], Coding::Gzip),
            (&["identity", "br"], Coding::Brotli),
            (&["deflate"], Coding::Deflate),
        ] {
            assert_eq!(of(values), Some(coding), "{values:?}");
        }
        for values in [&["zstd"][..], &["gzip, br"], &["gzip", "gzip"], &["aws-chunked"], &["gzip;q=1"]] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }
}

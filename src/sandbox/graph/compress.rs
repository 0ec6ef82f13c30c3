//! The content codings that Graph speaks: which one a client accepts, and a whole body in it.

use std::cmp::Reverse;
use std::io::Read;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::{HeaderMap, header};

use crate::sandbox::fault::Coding;

/// The best one of `Accept-Encoding`. `None`: as it is.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut offers: Vec<(&str, u32)> = values.flat_map(|value| value.split(',')).map(offer).collect();
    // Of equals the first one stays the first.
    offers.sort_by_key(|(_, weight)| Reverse(*weight));
    offers.iter().filter(|(_, weight)| *weight > 0).find_map(|(name, _)| match name.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" | "*" => Some(Coding::Gzip),
        "br" => Some(Coding::Brotli),
        "deflate" => Some(Coding::Deflate),
        _ => None,
    })
}

/// What `Content-Encoding` says, and the body.
pub(super) fn encoded(coding: Coding, body: &[u8]) -> (&'static str, Bytes) {
    let level = Compression::fast();
    let (name, bytes) = match coding {
        Coding::Gzip => ("gzip", all(GzEncoder::new(body, level))),
        Coding::Deflate => ("deflate", all(ZlibEncoder::new(body, level))),
        Coding::RawDeflate => ("deflate", all(DeflateEncoder::new(body, level))),
        Coding::Brotli => ("br", all(brotli::CompressorReader::new(body, 4096, 5, 22))),
        Coding::Broken => {
            let mut half = all(GzEncoder::new(body, level));
            half.truncate(half.len() / 2);
            ("gzip", half)
        }
    };
    (name, bytes.into())
}

/// The name and the weight, in thousandths.
fn offer(text: &str) -> (&str, u32) {
    let (name, weight) = text.split_once(';').unwrap_or((text, ""));
    let weight = weight.trim().strip_prefix("q=").map_or(1000, |weight| {
        let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
        let digits = whole.chars().chain(rest.chars().chain("000".chars()).take(3));
        digits.collect::<String>().parse().unwrap_or(0)
    });
    (name.trim(), weight)
}

fn all(mut source: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).expect("memory is read without errors");
    bytes
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_best_coding_that_a_client_accepts() {
        for (said, best) in [
            ("gzip", Some(Coding::Gzip)),
            ("br, gzip", Some(Coding::Brotli)),
            ("gzip;q=0.5, deflate;q=0.75, br;q=0", Some(Coding::Deflate)),
            ("identity", None),
            ("gzip; q=0", None),
            ("*", Some(Coding::Gzip)),
            ("zstd, BR;q=1.0", Some(Coding::Brotli)),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(said))]);
            assert_eq!(accepted(&headers), best, "{said}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }
}

//! What a message says of its own content: its type, alphabet and coding. Pure.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// The codings of answers whose links are rewritten (`reply::decode`).
const READ: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"br", b"identity"];

/// JSON, or one of the types built on it, said once.
pub fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = essence(only);
    essence.is(b"application/json") || essence.ends_with(b"+json")
}

/// What we read is what the other side reads: no coding, no alphabet but UTF-8.
pub fn is_plain(headers: &HeaderMap) -> bool {
    let utf_8 = |value: &str| {
        value.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
    };
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_TYPE).iter().all(|value| value.to_str().is_ok_and(utf_8))
        && headers.get_all(CONTENT_ENCODING).iter().all(identity)
}

/// Takes the codings out of `Accept-Encoding` that answers could not be read in.
pub fn accept_what_we_read(headers: &mut HeaderMap) {
    let is_read = |offer: &&[u8]| {
        let coding = offer.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        READ.iter().any(|read| coding.eq_ignore_ascii_case(read))
    };
    let offers = |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').all(|offer| is_read(&offer));
    if headers.get_all(ACCEPT_ENCODING).iter().all(offers) {
        return;
    }
    let all = headers.get_all(ACCEPT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let kept = all.filter(is_read).map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b", "[..]);
    match HeaderValue::from_bytes(&kept) {
        Ok(kept) if !kept.is_empty() => headers.insert(ACCEPT_ENCODING, kept),
        _ => headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    };
}

/// A media type without its parameters. Case does not count.
#[derive(Clone, Copy, Debug)]
pub struct Essence<'v>(&'v [u8]);

pub fn essence(value: &HeaderValue) -> Essence<'_> {
    let value = value.as_bytes();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    Essence(value[..end].trim_ascii())
}

impl Essence<'_> {
    pub fn is(self, kind: &[u8]) -> bool {
        self.0.eq_ignore_ascii_case(kind)
    }

    pub fn ends_with(self, end: &[u8]) -> bool {
        self.0.len().checked_sub(end.len()).is_some_and(|at| self.0[at..].eq_ignore_ascii_case(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_is_json() {
        for (types, expected) in [
            (&["application/json"][..], true),
            (&["Application/JSON ; odata.metadata=minimal"], true),
            (&["application/scim+json"], true),
            (&["text/json"], false),
            (&["application/jsonp"], false),
            (&["application/json", "text/html"], false),
            (&[], false),
        ] {
            let pairs: Vec<_> = types.iter().map(|&value| ("content-type", value)).collect();
            assert_eq!(is_json(&headers(&pairs)), expected, "{types:?}");
        }
    }

    #[test]
    fn only_codings_that_we_read_are_offered() {
        for (offered, expected) in [
            (&[][..], None),
            (&["gzip, deflate, br"], Some("gzip, deflate, br")),
            (&["gzip, deflate, br, zstd"], Some("gzip, deflate, br")),
            (&["zstd;q=1.0 , GZIP;q=0.8", "*;q=0.1"], Some("GZIP;q=0.8")),
            (&["zstd"], Some("identity")),
            (&["*"], Some("identity")),
        ] {
            let pairs: Vec<_> = offered.iter().map(|&value| ("accept-encoding", value)).collect();
            let mut headers = headers(&pairs);
            accept_what_we_read(&mut headers);
            let left: Vec<_> = headers.get_all("accept-encoding").iter().collect();
            assert_eq!(left, expected.into_iter().collect::<Vec<_>>(), "{offered:?}");
        }
    }

    #[test]
    fn what_everybody_reads_alike() {
        for (pairs, expected) in [
            (&[][..], true),
            (&[("content-type", "application/json; Charset=\"UTF-8\""), ("content-encoding", "Identity")], true),
            (&[("content-type", "application/json; a=b; charset=utf-16")], false),
            (&[("content-encoding", "gzip")], false),
            (&[("content-encoding", "identity, gzip")], false),
        ] {
            assert_eq!(is_plain(&headers(pairs)), expected, "{pairs:?}");
        }
    }
}

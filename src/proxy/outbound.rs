//! The head that goes out. It can only point at the configured upstream.
//!
//! Order matters: what `Connection` names is stripped first, then every header that we own is deleted, then ours are set. Path and
//! query are forwarded byte for byte. Framing is never copied: it follows from the body.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::error::{Kind, Refusal};

pub const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

/// Never forwarded, besides every `bearerd-*` and what `Connection` names.
const STRIPPED: [&str; 34] = [
    // hop by hop (RFC 9110, 7.6.1)
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "content-length",
    // credentials and identity
    "authorization",
    "x-api-key",
    "cookie",
    "cookie2",
    "x-ms-client-principal",
    "x-ms-client-principal-id",
    "x-ms-client-principal-name",
    "x-ms-client-principal-idp",
    // where the request came from
    "host",
    "origin",
    "forwarded",
    "via",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-original-method",
    "x-client-ip",
    // methods in disguise
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "alt-used",
];
const STRIPPED_PREFIXES: [&str; 3] = ["bearerd-", "x-forwarded-", "x-ms-token-"];
/// What `Connection` may not take away: the meaning of the request depends on it.
const PROTECTED: [&str; 3] = ["client-request-id", "content-type", "content-encoding"];

/// A request head for the upstream, without its token.
#[derive(Clone, Debug)]
pub struct OutboundHead {
    pub method: Method,
    target: PathAndQuery,
    pub headers: HeaderMap,
}

/// The upstream's authority, computed once.
#[derive(Clone, Debug)]
pub struct Destination {
    pub scheme: http::uri::Scheme,
    pub authority: http::uri::Authority,
    pub host: HeaderValue,
}

impl OutboundHead {
    /// `target` is what is forwarded of the client's own target.
    pub fn new(head: Parts, target: &str, request_id: &str, destination: &Destination) -> Result<Self, Refusal> {
        let Parts { method, uri, mut headers, .. } = head;
        let own = uri.path_and_query().filter(|own| own.as_str() == target).cloned();
        let target = match own {
            Some(target) => target,
            None => PathAndQuery::try_from(target).map_err(|_| Kind::BadRequest.because("the target is malformed"))?,
        };
        strip(&mut headers);
        headers.insert(header::HOST, destination.host.clone());
        if !headers.contains_key(&CLIENT_REQUEST_ID)
            && let Ok(id) = HeaderValue::try_from(request_id)
        {
            headers.insert(CLIENT_REQUEST_ID, id);
        }
        Ok(Self { method, target, headers })
    }

    /// The head of one attempt, with this token.
    pub fn attempt(&self, authorization: &HeaderValue) -> Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = Uri::from(self.target.clone());
        parts.headers.clone_from(&self.headers);
        parts.headers.insert(header::AUTHORIZATION, authorization.clone());
        parts
    }
}

/// Takes the form that the protocol of the connection wants: HTTP/2 has the authority in the URI and frames every body; HTTP/1.1 has
/// `Host`, and headers for what hyper leaves unsaid.
pub fn for_version(parts: &mut Parts, body: &impl http_body::Body, destination: &Destination, version: Version) {
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::TRANSFER_ENCODING);
    if version == Version::HTTP_2 {
        parts.headers.remove(header::HOST);
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(destination.scheme.clone());
        uri.authority = Some(destination.authority.clone());
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
    } else {
        parts.headers.insert(header::HOST, destination.host.clone());
        if parts.uri.authority().is_some() {
            parts.uri = parts.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        }
        // Servers answer 411 to a POST that says nothing of its length.
        if body.is_end_stream() && matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        // hyper takes a GET of unknown length for one without a body.
        if body.size_hint().exact().is_none() && matches!(parts.method, Method::GET | Method::HEAD) {
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    parts.version = version;
}

fn strip(headers: &mut HeaderMap) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(name.trim_ascii())
                && !PROTECTED.contains(&name.as_str())
            {
                doomed.push(name);
            }
        }
    }
    doomed.extend(headers.keys().filter(|name| is_stripped(name.as_str())).cloned());
    for name in doomed {
        headers.remove(name);
    }
}

fn is_stripped(name: &str) -> bool {
    STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.contains('_')
}

/// Header names with an underscore are dropped; one that some backend would fold to a name of ours is refused.
pub fn refuse_folding_names(headers: &HeaderMap) -> Result<(), Refusal> {
    let folds = |name: &str| {
        let folded = name.replace('_', "-");
        folded.starts_with("bearerd-") || folded == "x-api-key" || folded == "client-request-id"
    };
    match headers.keys().map(HeaderName::as_str).find(|name| name.contains('_') && folds(name)) {
        Some(name) => {
            Err(Kind::BadRequest.because(format!("the header {name} looks like one of ours; write it with '-'")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> Destination {
        Destination {
            scheme: http::uri::Scheme::HTTPS,
            authority: http::uri::Authority::from_static("graph.microsoft.com"),
            host: HeaderValue::from_static("graph.microsoft.com"),
        }
    }

    fn outbound(target: &str, headers: &[(&str, &str)]) -> OutboundHead {
        let mut request = http::Request::builder().method("POST").uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        OutboundHead::new(request.body(()).unwrap().into_parts().0, target, "our-id", &destination()).unwrap()
    }

    #[test]
    fn nothing_that_is_ours_comes_from_the_client() {
        let head = outbound(
            "/v1.0/me",
            &[
                ("host", "evil"),
                ("authorization", "Bearer theirs"),
                ("x-api-key", "k"),
                ("bearerd-account", "a"),
                ("bearerd-anything", "a"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-uri", "/healthz"),
                ("forwarded", "for=1"),
                ("via", "1.1 x"),
                ("cookie", "a=b"),
                ("origin", "http://x"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
                ("te", "trailers"),
                ("trailer", "x"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("expect", "100-continue"),
                ("x-ms-client-principal", "x"),
                ("x-ms-token-aad-access-token", "x"),
                ("x_forwarded_user", "root"),
                ("prefer", "respond-async"),
                ("x-ms-throttle-priority", "High"),
            ],
        );
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["client-request-id", "host", "prefer", "x-ms-throttle-priority"]);
        assert_eq!(head.headers["host"], "graph.microsoft.com");
    }

    #[test]
    fn connection_strips_what_it_names_before_ours_are_set_and_never_ours() {
        let head = outbound(
            "/v1.0/me",
            &[
                ("connection", "close, X-Custom, Authorization"),
                ("connection", "host, content-length, client-request-id"),
                ("x-custom", "1"),
                ("client-request-id", "theirs"),
            ],
        );
        assert!(!head.headers.contains_key("x-custom"));
        assert_eq!(head.headers["client-request-id"], "theirs");
        let sent = head.attempt(&HeaderValue::from_static("Bearer ours"));
        assert_eq!(sent.headers["authorization"], "Bearer ours");
        assert_eq!(sent.headers["host"], "graph.microsoft.com");
    }

    #[test]
    fn targets_stay_as_they_came() {
        for target in [
            "/v1.0/me/items/A%21b!c:d?$top=1&%24skip=2&$filter=x%20eq%20'y'+z",
            "/v1.0/me?",
            "/beta/a%2Bb?$skiptoken=X%2744%27",
        ] {
            let mut parts = outbound(target, &[]).attempt(&HeaderValue::from_static("b"));
            assert_eq!(parts.uri.to_string(), target);
            let body = http_body_util::Empty::<&[u8]>::new();
            for_version(&mut parts, &body, &destination(), Version::HTTP_2);
            assert_eq!(parts.uri.to_string(), format!("https://graph.microsoft.com{target}"));
            for_version(&mut parts, &body, &destination(), Version::HTTP_11);
            assert_eq!(parts.uri.to_string(), target);
        }
    }

    #[test]
    fn names_that_fold_to_ours_are_refused() {
        for name in ["bearerd_account", "Bearerd_Account", "bearerd__account", "x_api_key", "x-api_key"] {
            let headers: HeaderMap =
                [(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("x"))].into_iter().collect();
            assert_eq!(refuse_folding_names(&headers).unwrap_err().kind, Kind::BadRequest, "{name}");
        }
        let headers: HeaderMap =
            [(HeaderName::from_static("my_header"), HeaderValue::from_static("x"))].into_iter().collect();
        assert!(refuse_folding_names(&headers).is_ok());
    }
}

//! The head that goes out. It can only point at the configured upstream.
//!
//! Of the client's headers those go out that are neither ours to set nor named by its `Connection`. Path and query are forwarded byte for
//! byte. Framing is never copied: it follows from the body.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{self, PathAndQuery};
use http::{Method, Request, Uri, Version};

use super::error::{Kind, Refusal};
use crate::clock::Moment;
use crate::traces::TRACEPARENT;

pub const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

/// What `Connection` may not take away: the meaning of the request depends on it.
const PROTECTED: [&str; 4] = ["accept-encoding", "client-request-id", "content-type", "content-encoding"];

/// A request head for the upstream, without its token.
#[derive(Clone, Debug)]
pub struct OutboundHead {
    pub method: Method,
    target: PathAndQuery,
    pub host: HeaderValue,
    /// The client's, and ours in their place. What of them goes out is `lines`.
    pub headers: HeaderMap,
    /// What the client's `Connection` names.
    hidden: Vec<HeaderName>,
}

/// A head with its token.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub head: &'a OutboundHead,
    pub authorization: &'a HeaderValue,
    /// The trace that it belongs to, where there is one of ours.
    pub traceparent: Option<&'a HeaderValue>,
    /// When it is made.
    pub at: Moment,
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
        let hidden = named(&headers);
        if let Entry::Vacant(place) = headers.entry(CLIENT_REQUEST_ID)
            && let Ok(id) = HeaderValue::try_from(request_id)
        {
            place.insert(id);
        }
        Ok(Self { method, target, host: destination.host.clone(), headers, hidden })
    }

    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    /// What of the client's headers goes out, besides `Host`, the token and the framing.
    pub fn lines(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let goes = |name: &HeaderName| !is_stripped(name.as_str()) && !self.hidden.contains(name);
        self.headers.iter().filter(move |(name, _)| goes(name))
    }

    /// One attempt, with this token.
    pub fn attempt<'a>(&'a self, authorization: &'a HeaderValue, at: Moment) -> Attempt<'a> {
        Attempt { head: self, authorization, traceparent: None, at }
    }
}

impl<'a> Attempt<'a> {
    #[must_use]
    pub fn traced(self, traceparent: Option<&'a HeaderValue>) -> Self {
        Self { traceparent, ..self }
    }

    /// As HTTP/2 wants it: the authority in the URI, and every body framed by the protocol itself.
    pub fn http2<B>(&self, body: B, destination: &Destination) -> Request<B> {
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.head.method);
        let mut uri = uri::Parts::default();
        uri.scheme = Some(destination.scheme.clone());
        uri.authority = Some(destination.authority.clone());
        uri.path_and_query = Some(self.head.target.clone());
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        for (name, value) in self.head.lines() {
            headers.append(name, value.clone());
        }
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        if let Some(traceparent) = self.traceparent {
            headers.insert(TRACEPARENT, traceparent.clone());
        }
        request
    }
}

/// What `Connection` names, and may name.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !PROTECTED.contains(&name.as_str()))
        .collect()
}

/// Whether a header of the client is never forwarded: what concerns the hop (RFC 9110, 7.6.1), credentials and identity, where the request came
/// from, methods in disguise, and what is ours to set.
fn is_stripped(name: &str) -> bool {
    let known = match name.as_bytes().first() {
        Some(b'a') => matches!(name, "authorization" | "alt-used"),
        Some(b'b') => name.starts_with("bearerd-"),
        Some(b'c') => matches!(name, "connection" | "content-length" | "cookie" | "cookie2"),
        Some(b'e') => name == "expect",
        Some(b'f') => name == "forwarded",
        Some(b'h') => matches!(name, "host" | "http2-settings"),
        Some(b'k') => name == "keep-alive",
        Some(b'o') => name == "origin",
        Some(b'p') => matches!(name, "proxy-connection" | "proxy-authenticate" | "proxy-authorization"),
        Some(b't') => matches!(name, "te" | "trailer" | "transfer-encoding"),
        Some(b'u') => name == "upgrade",
        Some(b'v') => name == "via",
        Some(b'x') => {
            matches!(
                name,
                "x-api-key"
                    | "x-ms-client-principal"
                    | "x-ms-client-principal-id"
                    | "x-ms-client-principal-name"
                    | "x-ms-client-principal-idp"
                    | "x-real-ip"
                    | "x-original-url"
                    | "x-rewrite-url"
                    | "x-original-host"
                    | "x-original-method"
                    | "x-client-ip"
                    | "x-http-method"
                    | "x-http-method-override"
                    | "x-method-override"
            ) || name.starts_with("x-forwarded-")
                || name.starts_with("x-ms-token-")
        }
        _ => false,
    };
    known || memchr::memchr(b'_', name.as_bytes()).is_some()
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
        let mut left: Vec<_> = head.lines().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["client-request-id", "prefer", "x-ms-throttle-priority"]);
        assert_eq!(head.host, "graph.microsoft.com");
    }

    #[test]
    fn connection_strips_what_it_names_and_never_ours() {
        let head = outbound(
            "/v1.0/me",
            &[
                ("connection", "close, X-Custom, Authorization"),
                ("connection", "host, content-length, client-request-id, accept-encoding"),
                ("x-custom", "1"),
                ("accept-encoding", "gzip"),
                ("client-request-id", "theirs"),
            ],
        );
        let mut lines: Vec<_> = head.lines().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        lines.sort_unstable();
        assert_eq!(lines, [("accept-encoding", &b"gzip"[..]), ("client-request-id", b"theirs")]);
        let sent = head.attempt(&HeaderValue::from_static("Bearer ours"), Moment::default()).http2((), &destination());
        assert_eq!(sent.headers().len(), 3);
        assert_eq!(sent.headers()["authorization"], "Bearer ours");
        assert_eq!(sent.uri().authority().unwrap(), "graph.microsoft.com");
    }

    #[test]
    fn the_attempts_own_trace_stands_in_for_the_clients() {
        let mut head = outbound("/v1.0/me", &[("connection", "traceparent")]);
        head.headers.remove(&TRACEPARENT);
        let (token, trace) = (HeaderValue::from_static("b"), HeaderValue::from_static("00-1-2-01"));
        let attempt = head.attempt(&token, Moment::default());
        assert!(!attempt.http2((), &destination()).headers().contains_key(&TRACEPARENT));
        let traced = attempt.traced(Some(&trace)).http2((), &destination());
        assert_eq!(traced.headers().get_all(&TRACEPARENT).iter().collect::<Vec<_>>(), [&trace]);
    }

    #[test]
    fn targets_stay_as_they_came() {
        for target in [
            "/v1.0/me/items/A%21b!c:d?$top=1&%24skip=2&$filter=x%20eq%20'y'+z",
            "/v1.0/me?",
            "/beta/a%2Bb?$skiptoken=X%2744%27",
        ] {
            let head = outbound(target, &[]);
            assert_eq!(head.target(), target);
            let http2 = head.attempt(&HeaderValue::from_static("b"), Moment::default()).http2((), &destination());
            assert_eq!(http2.uri().to_string(), format!("https://graph.microsoft.com{target}"));
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

//! Which host names are ours, and which requests a browser page of another origin has sent.
//!
//! Invariant: a name passes only by being equal to a configured or loopback name; there are no suffixes, no patterns and no
//! look-ups, so a name that merely resolves to us (DNS rebinding) never passes. Nothing here is used to choose where to connect.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::{Method, Version};
use url::{Origin, Url};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The names by which clients may address a listener.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Lower case, without a port.
    names: Vec<Box<str>>,
    /// IPv6 addresses among the names: these have more than one spelling.
    addresses: Vec<Ipv6Addr>,
    /// Serialised origins of our own pages.
    origins: Vec<Box<str>>,
}

/// Why a request's host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostRefusal {
    #[error("the host is not one of ours")]
    NotAllowed,
    #[error("the request has no Host")]
    Missing,
    #[error("the request has more than one Host")]
    Doubled,
    #[error("the request's Host is malformed")]
    Malformed,
}

impl Hosts {
    /// `public_urls`: where clients and browsers reach us; pages from there are our own. `allowed`: further names of ours.
    /// `upstreams`: APIs whose names clients may address us by. Loopback names are always ours.
    pub fn new<'u>(
        public_urls: impl IntoIterator<Item = &'u Url>,
        allowed: &[String],
        upstreams: impl IntoIterator<Item = &'u Url>,
    ) -> Self {
        let mut hosts = Self { names: Vec::new(), addresses: Vec::new(), origins: Vec::new() };
        for url in public_urls {
            hosts.add(url.host_str().unwrap_or_default());
            if let origin @ Origin::Tuple(..) = url.origin() {
                hosts.origins.push(origin.ascii_serialization().into());
            }
        }
        for name in allowed {
            hosts.add(name);
        }
        for url in upstreams {
            hosts.add(url.host_str().unwrap_or_default());
        }
        hosts
    }

    fn add(&mut self, name: &str) {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            self.addresses.push(address);
        } else if !name.is_empty() {
            self.names.push(name.to_ascii_lowercase().into());
        }
    }

    /// The host that the request names, without its port; `None` for an HTTP/1.0 request that names none.
    ///
    /// An absolute-form target counts, and so does the `Host` beside it: both have to be ours.
    pub fn check<'h>(&self, head: &'h Parts) -> Result<Option<&'h str>, HostRefusal> {
        let mut lines = head.headers.get_all(HOST).iter();
        let header = lines.next();
        if lines.next().is_some() {
            return Err(HostRefusal::Doubled);
        }
        let header = header.map(|value| value.to_str().map_err(|_| HostRefusal::Malformed)).transpose()?;
        let target = head.uri.authority().map(http::uri::Authority::as_str);
        match (target, header) {
            (Some(target), Some(header)) if head.version == Version::HTTP_2 => {
                // `:authority` is the host; a `Host` beside it may only repeat it (RFC 9113, 8.3.1).
                if !target.eq_ignore_ascii_case(header) {
                    return Err(HostRefusal::Malformed);
                }
                self.ours(target).map(Some)
            }
            (Some(target), Some(header)) => {
                self.ours(header)?;
                self.ours(target).map(Some)
            }
            (Some(target), None) if head.version != Version::HTTP_11 => self.ours(target).map(Some),
            (None, Some(header)) => self.ours(header).map(Some),
            (None, None) if head.version <= Version::HTTP_10 => Ok(None),
            (_, None) => Err(HostRefusal::Missing),
        }
    }

    /// Whether a page of another origin sent this request, or a browser asks on behalf of one (a CORS preflight).
    ///
    /// `secure`: the connection is TLS. Programs send none of these headers and pass.
    pub fn cross_site(&self, head: &Parts, secure: bool) -> bool {
        if let Some(site) = head.headers.get(&SEC_FETCH_SITE)
            && site != "same-origin"
            && site != "none"
        {
            return true;
        }
        if head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return true;
        }
        let mut origins = head.headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => false,
            (Some(origin), None) => !origin.to_str().is_ok_and(|origin| self.own_origin(origin, head, secure)),
            (Some(_), Some(_)) => true,
        }
    }

    fn own_origin(&self, origin: &str, head: &Parts, secure: bool) -> bool {
        if self.origins.iter().any(|own| own.eq_ignore_ascii_case(origin)) {
            return true;
        }
        // The page came from the very name that this request is sent to, and `check` vouches for that name. On plaintext a
        // TLS terminator may stand in front of us.
        let authority = match origin.split_once("://") {
            Some(("https", authority)) => authority,
            Some(("http", authority)) if !secure => authority,
            _ => return false,
        };
        let host = head.headers.get(HOST).and_then(|value| value.to_str().ok());
        let addressed = head.uri.authority().map(http::uri::Authority::as_str).or(host);
        addressed.is_some_and(|addressed| addressed.eq_ignore_ascii_case(authority))
    }

    /// The host of `authority` if it is ours.
    fn ours<'h>(&self, authority: &'h str) -> Result<&'h str, HostRefusal> {
        let host = split_host(authority)?;
        let known = if let Some(literal) = host.strip_prefix('[') {
            let literal = literal.strip_suffix(']').ok_or(HostRefusal::Malformed)?;
            let address: Ipv6Addr = literal.parse().map_err(|_| HostRefusal::Malformed)?;
            address == Ipv6Addr::LOCALHOST || self.addresses.contains(&address)
        } else {
            host.eq_ignore_ascii_case("localhost")
                || self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
                || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        };
        if known { Ok(host) } else { Err(HostRefusal::NotAllowed) }
    }
}

/// Whether the request names its host by an IP address. A page of another origin that has its own name point at us can't.
pub fn is_address(head: &Parts) -> bool {
    let header = head.headers.get(HOST).and_then(|value| value.to_str().ok());
    let named = |authority: &str| {
        let host = split_host(authority)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        bare.parse::<std::net::IpAddr>().map_err(|_| HostRefusal::Malformed)
    };
    let authorities = head.uri.authority().map(http::uri::Authority::as_str).into_iter().chain(header);
    authorities.map(named).fold(None, |_, named| Some(named.is_ok())).unwrap_or(false)
}

/// Whether this is a person following a link to us, the one thing that another site's page may cause: the way back from an
/// identity provider is one.
pub fn is_navigation(head: &Parts) -> bool {
    let says = |name: &HeaderName, word: &str| head.headers.get(name).is_some_and(|value| value == word);
    matches!(head.method, Method::GET | Method::HEAD)
        && !head.headers.contains_key(ORIGIN)
        && says(&SEC_FETCH_MODE, "navigate")
        && says(&SEC_FETCH_DEST, "document")
}

/// The host of `host[:port]`; an IPv6 address keeps its brackets.
fn split_host(authority: &str) -> Result<&str, HostRefusal> {
    let end = if authority.starts_with('[') {
        authority.find(']').ok_or(HostRefusal::Malformed)? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    if let Some(digits) = port.strip_prefix(':') {
        // `parse` alone would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.parse::<u16>().is_err() {
            return Err(HostRefusal::Malformed);
        }
    } else if !port.is_empty() {
        return Err(HostRefusal::Malformed);
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(legal) {
        return Err(HostRefusal::Malformed);
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hosts() -> Hosts {
        let url = |text: &str| Url::parse(text).unwrap();
        Hosts::new(
            [&url("https://Graph.Example:8443"), &url("https://[fd00::1]")],
            &["alias.example".to_owned(), "10.0.0.5".to_owned()],
            [&url("https://graph.microsoft.com")],
        )
    }

    fn head(version: Version, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(version: Version, target: &str, lines: &[&str]) -> Result<Option<String>, HostRefusal> {
        let headers: Vec<_> = lines.iter().map(|line| ("host", *line)).collect();
        hosts().check(&head(version, target, &headers)).map(|host| host.map(str::to_owned))
    }

    fn host(line: &str) -> Result<(), HostRefusal> {
        check(Version::HTTP_11, "/v1.0/me", &[line]).map(drop)
    }

    #[test]
    fn our_names_pass_with_any_port_and_in_any_case() {
        for line in [
            "graph.example",
            "GRAPH.example:1",
            "alias.example:8443",
            "graph.microsoft.com",
            "localhost",
            "LocalHost:9",
            "127.0.0.1:8080",
            "127.255.3.4",
            "[::1]",
            "[::1]:8080",
            "[0:0:0:0:0:0:0:1]",
            "[fd00::1]:443",
            "[FD00:0::1]",
            "10.0.0.5",
        ] {
            assert_eq!(host(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for line in [
            "localhost.evil.com",
            "127.0.0.1.nip.io",
            "0.0.0.0:8080",
            "evil.com:8080",
            "graph.microsoft.com.evil",
            "evilgraph.example",
            "graph.example.",
            "localhost.",
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "128.0.0.1",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(host(line), Err(HostRefusal::NotAllowed), "{line}");
        }
    }

    #[test]
    fn malformed_hosts_are_refused() {
        for line in [
            "",
            ":8080",
            "localhost:99999",
            "localhost:+80",
            "localhost:80:80",
            "localhost:",
            "localhost, evil.com",
            "localhost evil",
            "user@localhost",
            "[fe80::1%25eth0]",
            "[::1",
            "[::1]evil",
            "::1",
            "localhost/x",
            "localhost\\evil",
            "%6cocalhost",
            "*",
        ] {
            assert_eq!(host(line), Err(HostRefusal::Malformed), "{line}");
        }
    }

    #[test]
    fn one_host_in_http_1_1_and_perhaps_none_in_http_1_0() {
        assert_eq!(check(Version::HTTP_11, "/", &[]), Err(HostRefusal::Missing));
        assert_eq!(check(Version::HTTP_11, "http://localhost/", &[]), Err(HostRefusal::Missing));
        assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(check(Version::HTTP_10, "/", &["evil.com"]), Err(HostRefusal::NotAllowed));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(check(version, "/", &["localhost", "localhost"]), Err(HostRefusal::Doubled));
        }
    }

    #[test]
    fn the_authority_of_a_target_counts_and_so_does_the_host_beside_it() {
        let absolute = |target: &str, line: &str| check(Version::HTTP_11, target, &[line]);
        assert_eq!(
            absolute("http://graph.microsoft.com/v1.0/me", "localhost"),
            Ok(Some("graph.microsoft.com".to_owned()))
        );
        assert_eq!(absolute("http://169.254.169.254/x", "localhost"), Err(HostRefusal::NotAllowed));
        assert_eq!(absolute("http://localhost/x", "evil.com"), Err(HostRefusal::NotAllowed));
        assert_eq!(absolute("http://graph.microsoft.com@evil/x", "localhost"), Err(HostRefusal::Malformed));
        assert_eq!(check(Version::HTTP_10, "http://evil.com/", &[]), Err(HostRefusal::NotAllowed));
    }

    #[test]
    fn http_2_names_its_host_in_the_authority() {
        let h2 = |target: &str, lines: &[&str]| check(Version::HTTP_2, target, lines);
        assert_eq!(h2("http://localhost:80/", &[]), Ok(Some("localhost".to_owned())));
        assert_eq!(h2("http://localhost/", &["localhost"]), Ok(Some("localhost".to_owned())));
        assert_eq!(h2("http://localhost/", &["alias.example"]), Err(HostRefusal::Malformed));
        assert_eq!(h2("http://evil.com/", &[]), Err(HostRefusal::NotAllowed));
        assert_eq!(h2("/", &[]), Err(HostRefusal::Missing));
    }

    #[test]
    fn pages_of_other_origins_are_told_from_ours() {
        let cross = |headers: &[(&str, &str)]| {
            let mut all = vec![("host", "127.0.0.1:8080")];
            all.extend_from_slice(headers);
            hosts().cross_site(&head(Version::HTTP_11, "/v1.0/me", &all), false)
        };
        for headers in [
            &[("origin", "null")][..],
            &[("origin", "https://evil.com")],
            &[("origin", "https://graph.example")],
            &[("origin", "https://graph.example:8443.evil.com")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://127.0.0.1:8081")],
            &[("origin", "https://graph.example:8443"), ("origin", "https://graph.example:8443")],
            &[("origin", "https://graph.example:8443"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "whatever")],
        ] {
            assert!(cross(headers), "{headers:?}");
        }
        for headers in [
            &[][..],
            &[("origin", "https://graph.example:8443")],
            &[("origin", "http://127.0.0.1:8080")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")],
        ] {
            assert!(!cross(headers), "{headers:?}");
        }
    }

    #[test]
    fn a_preflight_is_cross_site_whatever_its_origin() {
        let mut preflight = head(
            Version::HTTP_11,
            "/v1.0/me",
            &[
                ("host", "localhost"),
                ("origin", "http://localhost"),
                ("access-control-request-method", "GET"),
                ("access-control-request-private-network", "true"),
            ],
        );
        preflight.method = Method::OPTIONS;
        assert!(hosts().cross_site(&preflight, false));
    }

    #[test]
    fn plain_pages_are_foreign_to_a_tls_listener() {
        let parts = head(Version::HTTP_11, "/", &[("host", "localhost"), ("origin", "http://localhost")]);
        assert!(hosts().cross_site(&parts, true));
        assert!(!hosts().cross_site(&parts, false));
    }

    #[test]
    fn only_following_a_link_is_a_navigation() {
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let mut parts = head(Version::HTTP_11, "/.bearerd/callback/entra", &link);
        assert!(is_navigation(&parts));
        parts.method = Method::POST;
        assert!(!is_navigation(&parts));
        let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!is_navigation(&head(Version::HTTP_11, "/", &frame)));
        assert!(!is_navigation(&head(Version::HTTP_11, "/", &[])));
    }
}

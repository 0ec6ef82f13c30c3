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
mod tests;

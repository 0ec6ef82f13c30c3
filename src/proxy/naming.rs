//! What the client calls us, and what that means to the upstream: links in answers are turned to the one, links in requests to the other.
//!
//! Only origins that are ours to answer for are understood: the one that this client used, `server.public_url`, and those of the upstreams.
//! What a target means is settled here, before any rule is asked about it.

mod body;

use std::borrow::Cow;
use std::sync::Arc;

use http::header;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version};

pub use self::body::translate;
use super::Peer;
use super::error::{Kind, Refusal};
use super::forwarded;
use super::route::{Route, Routes, split_alias};
use super::shared::Shared;
use crate::graph::links::{self, Links};

/// The names that count for one request.
pub struct Naming<'a> {
    client: ClientName,
    origins: &'a Origins,
    routes: &'a Routes,
}

/// The names that the configuration knows; made once.
pub struct Origins {
    /// Of `server.public_url`.
    pub public: Box<str>,
    /// In their order.
    pub upstreams: Box<[Arc<links::Origin>]>,
    /// How long the scheme of `public` is.
    public_scheme: usize,
}

/// What the client calls us. Its text is the request's own.
enum ClientName {
    /// As `server.public_url`. A TLS terminator may stand in front of us: the configuration knows the scheme.
    Public,
    Host {
        scheme: &'static str,
        host: HeaderValue,
    },
    Target {
        scheme: &'static str,
        authority: Authority,
    },
}

/// `scheme://authority`
#[derive(Clone, Copy)]
struct Origin<'o> {
    scheme: &'o str,
    authority: &'o str,
}

impl Origins {
    pub fn new(public: &str, upstreams: impl Iterator<Item = String>) -> Self {
        Self {
            public: public.into(),
            upstreams: upstreams.map(|origin| Arc::new(links::Origin::new(&origin))).collect(),
            public_scheme: Origin::of(public).scheme.len(),
        }
    }

    fn public(&self) -> Origin<'_> {
        let (scheme, rest) = self.public.split_at(self.public_scheme);
        Origin { scheme, authority: rest.strip_prefix("://").unwrap_or(rest) }
    }
}

impl Shared {
    /// `Host` was checked before.
    pub(super) fn naming(&self, head: &Parts, peer: &Peer) -> Naming<'_> {
        let by_tls = || peer.secure || forwarded::by_tls(&peer.address, &head.headers, &self.trusted_proxies);
        let scheme = match head.uri.scheme_str() {
            Some("https") => "https",
            // A client that takes us for its HTTP proxy means what it writes.
            Some(_) if head.version < Version::HTTP_2 => "http",
            _ if by_tls() => "https",
            _ => "http",
        };
        let public = self.origins.public();
        let is_public = |authority: &str| public.is_at(authority);
        let client = match (head.uri.authority(), head.headers.get(header::HOST)) {
            (Some(authority), _) if !is_public(authority.as_str()) => {
                ClientName::Target { scheme, authority: authority.clone() }
            }
            (None, Some(host)) if host.to_str().is_ok_and(|host| !is_public(host)) => {
                ClientName::Host { scheme, host: host.clone() }
            }
            _ => ClientName::Public,
        };
        Naming { client, origins: &self.origins, routes: &self.routes }
    }
}

#[cfg(test)]
impl<'a> Naming<'a> {
    pub fn of(client: &str, upstreams: &[String], routes: &'a Routes) -> Self {
        let origins = Box::leak(Box::new(Origins::new(client, upstreams.iter().cloned())));
        Self { client: ClientName::Public, origins, routes }
    }
}

impl Naming<'_> {
    /// Where a request leads whose target means `target`; `host` is the name that the client used, without a port.
    pub fn lead<'t>(&self, target: &'t str, host: Option<&str>) -> Result<Route<'t>, Refusal> {
        self.routes.find(target, host).ok_or_else(|| {
            Kind::NotFound.because("neither an upstream's path nor one of ours; Graph's begin with /v1.0/ or /beta/")
        })
    }

    /// What has to be rewritten in answers to a request that came by `route`. `None`: the client uses the upstream's own names.
    pub fn links<'n>(&'n self, route: &Route<'n>) -> Option<Links<'n>> {
        let Origin { scheme, authority } = self.client();
        Links::to(&self.origins.upstreams[route.upstream], [scheme, "://", authority, route.prefix])
    }

    /// The origin of an upstream.
    pub fn origin(&self, upstream: usize) -> &str {
        self.origins.upstreams[upstream].as_str()
    }

    /// Where an absolute URL leads that names us or an upstream.
    pub fn route<'u>(&self, url: &'u str) -> Option<Route<'u>> {
        let named = |(upstream, origin): (usize, &Arc<links::Origin>)| {
            Origin::of(origin.as_str()).before(url).map(|target| Route { upstream, alias: None, prefix: "", target })
        };
        self.own(url).or_else(|| self.origins.upstreams.iter().enumerate().find_map(named))
    }

    /// The path that rules are matched against, of a canonical one of an upstream.
    pub fn rule_path<'p>(&self, upstream: usize, path: &'p str) -> Cow<'p, str> {
        self.routes.rule_path(upstream, path)
    }

    /// Where an absolute URL leads that names us.
    pub fn own<'u>(&self, url: &'u str) -> Option<Route<'u>> {
        let (own, target) = self.own_target(url)?;
        self.routes.find(target, Some(own.host()))
    }

    /// The origin of ours that the URL begins with, and the rest of it.
    fn own_target<'u>(&self, url: &'u str) -> Option<(Origin<'_>, &'u str)> {
        let ours = [self.client(), self.origins.public()];
        ours.into_iter().find_map(|own| own.before(url).map(|target| (own, target)))
    }

    fn client(&self) -> Origin<'_> {
        match &self.client {
            ClientName::Public => self.origins.public(),
            ClientName::Host { scheme, host } => Origin { scheme, authority: host.to_str().unwrap_or_default() },
            ClientName::Target { scheme, authority } => Origin { scheme, authority: authority.as_str() },
        }
    }

    /// The target that a client means, who may have made it from a link in a way of its own:
    /// - one who takes a link over plain http for a relative one: `/v1.0/http://us/v1.0/me`;
    /// - one who follows a relative `Location` that has no version: `/teams('1')/operations('2')`.
    pub fn meant<'t>(&self, target: &'t str, host: Option<&str>) -> Result<Cow<'t, str>, Refusal> {
        let target = match self.undoubled(target) {
            Some((outer, inner)) => of_same_account(outer, inner)?,
            None => Cow::Borrowed(target),
        };
        Ok(self.routes.with_version(&target, host).map_or(target, Cow::Owned))
    }

    /// What stands before an absolute URL of ours in a target, and the target in that URL.
    fn undoubled<'t>(&self, target: &'t str) -> Option<(&'t str, &'t str)> {
        let path = target.split('?').next().unwrap_or_default();
        // Next to no path has one.
        if !path.contains(':') {
            return None;
        }
        let start = path.find("/http://").or_else(|| path.find("/https://"))?;
        // The base that such a client has: no more than a version, or the name of an upstream.
        let outer = &target[..start];
        let (_, base) = split_alias(outer);
        let is_base = base.strip_prefix('/').unwrap_or(base).bytes().all(|byte| byte != b'/');
        let (_, inner) = self.own_target(&target[start + 1..]).filter(|_| is_base)?;
        Some((outer, inner))
    }
}

/// The inner target of a doubled one, for the account that either names.
fn of_same_account<'t>(outer: &str, inner: &'t str) -> Result<Cow<'t, str>, Refusal> {
    match (split_alias(outer), split_alias(inner)) {
        ((None, _), _) => Ok(Cow::Borrowed(inner)),
        ((Some(outer), _), (Some(alias), _)) if alias == outer => Ok(Cow::Borrowed(inner)),
        ((Some(_), _), (Some(_), _)) => {
            Err(Kind::AccountAmbiguous.because("the path and the link in it name different accounts"))
        }
        ((Some(_), base), (None, _)) => Ok(Cow::Owned(format!("{}{inner}", &outer[..outer.len() - base.len()]))),
    }
}

impl<'o> Origin<'o> {
    fn of(text: &'o str) -> Self {
        let (scheme, authority) = text.split_once("://").unwrap_or(("", text));
        Self { scheme, authority }
    }

    /// What follows the origin in a URL: a path.
    fn before(self, url: &str) -> Option<&str> {
        let rest = without_prefix(url, self.scheme)?.strip_prefix("://")?;
        without_prefix(rest, self.authority).filter(|rest| rest.starts_with('/'))
    }

    /// Without a port.
    fn host(self) -> &'o str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => self.authority,
        }
    }

    /// Whether an authority is its own, with or without the port that goes without saying.
    fn is_at(self, authority: &str) -> bool {
        let port = if self.scheme == "https" { ":443" } else { ":80" };
        self.authority.eq_ignore_ascii_case(authority.strip_suffix(port).unwrap_or(authority))
    }
}

fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::super::route::tests::routes;
    use super::*;

    const GRAPH: &str = "https://graph.microsoft.com";

    fn upstreams() -> [String; 2] {
        [GRAPH.to_owned(), "https://billing.example".to_owned()]
    }

    #[test]
    fn links_come_back_as_the_client_can_follow_them() {
        let (upstreams, routes) = (upstreams(), routes());
        for (client, target, expected) in [
            ("http://127.0.0.1:8080", "/v1.0/me", Some("http://127.0.0.1:8080/v1.0/me?x")),
            ("http://proxy", "/as/a%40b/v1.0/me", Some("http://proxy/as/a%40b/v1.0/me?x")),
            ("http://proxy", "/graph/v1.0/me", Some("http://proxy/graph/v1.0/me?x")),
            // `http_proxy`
            ("http://graph.microsoft.com", "/v1.0/me", Some("http://graph.microsoft.com/v1.0/me?x")),
            // The upstream's own name over TLS.
            (GRAPH, "/v1.0/me", None),
            (GRAPH, "/as/alice/v1.0/me", Some("https://graph.microsoft.com/as/alice/v1.0/me?x")),
        ] {
            let naming = Naming::of(client, &upstreams, &routes);
            let links = naming.links(&routes.find(target, None).unwrap());
            let link = links.map(|links| links.url("https://graph.microsoft.com/v1.0/me?x").unwrap());
            assert_eq!(link.as_deref(), expected, "{client} {target}");
        }
    }

    #[test]
    fn absolute_urls_lead_to_an_upstream() {
        let (upstreams, routes) = (upstreams(), routes());
        for (client, url, expected) in [
            ("http://proxy", "http://proxy/v1.0/me?x", Some((0, None, "/v1.0/me?x"))),
            ("http://proxy", "HTTP://PROXY/as/a%40b/v1.0/me", Some((0, Some("a@b"), "/v1.0/me"))),
            ("http://proxy", "http://proxy/billing/items", Some((1, None, "/items"))),
            ("http://billing.example:80", "http://billing.example:80/items", Some((1, None, "/items"))),
            ("http://proxy", "https://graph.microsoft.com/v2/1/x", Some((0, None, "/v2/1/x"))),
            ("http://proxy", "http://proxy:8080/v1.0/me", None),
            ("http://proxy", "http://proxy.evil/v1.0/me", None),
            ("http://proxy", "https://proxy/v1.0/me", None),
            ("http://proxy", "/v1.0/me", None),
        ] {
            let route = Naming::of(client, &upstreams, &routes).route(url);
            let route = route.as_ref().map(|route| (route.upstream, route.alias.as_deref(), route.target));
            assert_eq!(route, expected, "{client} {url}");
        }
        assert_eq!(Origin::of("http://[::1]:8080").host(), "[::1]");
        assert_eq!(Origin::of("http://[::1]").host(), "[::1]");
        for (origin, authority) in
            [("https://Proxy", "proxy:443"), ("http://proxy", "proxy:80"), ("http://[::1]", "[::1]")]
        {
            assert!(Origin::of(origin).is_at(authority), "{origin} {authority}");
        }
        for (origin, authority) in
            [("https://proxy", "proxy:80"), ("https://proxy", "proxy:8443"), ("http://proxy", "x")]
        {
            assert!(!Origin::of(origin).is_at(authority), "{origin} {authority}");
        }
    }

    #[test]
    fn what_clients_make_of_links_is_understood() {
        let (upstreams, routes) = (upstreams(), routes());
        let naming = Naming::of("http://proxy:8080", &upstreams, &routes);
        let meant = |target: &str| naming.meant(target, Some("proxy")).map(Cow::into_owned).map_err(|error| error.kind);
        for (target, expected) in [
            ("/v1.0/http://proxy:8080/v1.0/me?$skip=%2B", "/v1.0/me?$skip=%2B"),
            ("/http://proxy:8080/beta/me", "/beta/me"),
            ("/as/alice/v1.0/http://proxy:8080/v1.0/me", "/as/alice/v1.0/me"),
            ("/as/%61lice/v1.0/http://proxy:8080/as/alice/v1.0/me", "/as/alice/v1.0/me"),
            ("/v1.0/http://proxy:8080/as/alice/v1.0/me", "/as/alice/v1.0/me"),
            ("/v1.0/http://proxy:8080/teams('1')/operations('2')", "/v1.0/teams('1')/operations('2')"),
            ("/teams('1')/operations('2')", "/v1.0/teams('1')/operations('2')"),
            ("/as/alice/teams(%271%27)?x", "/as/alice/v1.0/teams(%271%27)?x"),
            ("/chats('19:a')/operations('2')", "/v1.0/chats('19:a')/operations('2')"),
        ] {
            assert_eq!(meant(target).as_deref(), Ok(expected), "{target}");
        }
        for same in [
            "/v1.0/me?x=/http://proxy:8080/v1.0/me",
            "/v1.0/http://proxy/v1.0/me",
            "/v1.0/https://proxy:8080/v1.0/me",
            "/v1.0/http://proxy:8080.evil/v1.0/me",
            "/v1.0/http://user@proxy:8080/v1.0/me",
            "/v1.0/me/http://proxy:8080/v1.0/me",
            "/v1.0/https://graph.microsoft.com/v1.0/me",
            "/v1.0/teams('1')",
            "/teams/1",
            "/teams",
            "/as/alice",
        ] {
            assert_eq!(meant(same).as_deref(), Ok(same), "{same}");
        }
        assert_eq!(meant("/as/bob/v1.0/http://proxy:8080/as/alice/v1.0/me"), Err(Kind::AccountAmbiguous));
        assert_eq!(naming.meant("/teams('1')", Some("billing.example")).ok().as_deref(), Some("/teams('1')"));
    }
}

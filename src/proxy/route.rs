//! Which upstream a target means, and which account its path names. Pure.
//!
//! `/v1.0/...` and `/beta/...` are the root upstream's own paths; `/{upstream}/...` is a further one; `/as/{alias}` may stand before either.
//! What is left is forwarded byte for byte.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::canonical::{Canonical, canonical, name_of};
use super::error::Refusal;

/// Where a target leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Index of the upstream.
    pub upstream: usize,
    /// The alias of `/as/{alias}`, decoded.
    pub alias: Option<Cow<'a, str>>,
    /// The part of the target that belongs to us (`/as/alice`), and the part that is forwarded (`/v1.0/me?$top=1`).
    pub prefix: &'a str,
    pub target: &'a str,
}

impl<'a> Route<'a> {
    /// The canonical form of the path that is forwarded.
    pub fn canonical(&self) -> Result<Canonical<'a>, Refusal> {
        Ok(canonical(self.target.split('?').next().unwrap_or_default())?)
    }
}

/// The names of the upstreams, in their order; which one is served at the root; and the host names that select one,
/// empty for one that has none.
pub struct Routes {
    pub names: Vec<String>,
    pub hosts: Vec<String>,
    pub root: Option<usize>,
}

impl Routes {
    /// `None`: neither an upstream's path nor ours. `host` is the name that the client used, without a port.
    pub fn find<'a>(&self, target: &'a str, host: Option<&str>) -> Option<Route<'a>> {
        let (alias, rest) = split_alias(target);
        if alias.is_none() && rest.starts_with("/as/") {
            return None;
        }
        let (upstream, forwarded) = self.upstream(rest, host)?;
        let prefix = &target[..target.len() - forwarded.len()];
        Some(Route { upstream, alias, prefix, target: forwarded })
    }

    /// A target that Graph gives without its version, in a relative `Location` (`/teams('1')/operations('2')`), with it.
    pub fn with_version(&self, target: &str, host: Option<&str>) -> Option<String> {
        let (_, path) = split_alias(target);
        let is_versionless = ["/teams(", "/chats("].iter().any(|start| path.starts_with(start));
        if !is_versionless || self.root.is_none() || self.find(target, host).is_some() {
            return None;
        }
        Some(format!("{}/v1.0{path}", &target[..target.len() - path.len()]))
    }

    /// The path that rules are matched against, from the canonical one that is forwarded: `/v1.0/...` and `/beta/...` are the root upstream's,
    /// everything else begins with the name of its upstream, however the upstream was selected. No rule covers a path of two upstreams.
    pub fn rule_path<'p>(&self, upstream: usize, path: &'p str) -> Cow<'p, str> {
        let is_version = |name: &str| matches!(name, "v1.0" | "beta");
        let first = path.split('/').nth(1).unwrap_or_default();
        // What a careless server takes for a version is judged as one.
        if Some(upstream) == self.root && (is_version(first) || is_version(name_of(first))) {
            Cow::Borrowed(path)
        } else {
            Cow::Owned(format!("/{}{path}", self.names[upstream]))
        }
    }

    fn upstream<'a>(&self, target: &'a str, host: Option<&str>) -> Option<(usize, &'a str)> {
        let first = target.strip_prefix('/')?.split(['/', '?']).next()?;
        if let Some(root) = self.root
            && matches!(first, "v1.0" | "beta")
        {
            return Some((root, target));
        }
        if let Some(index) = self.names.iter().position(|name| name == first) {
            let forwarded = &target[1 + first.len()..];
            return forwarded.starts_with('/').then_some((index, forwarded));
        }
        let host = host?;
        let index = self.hosts.iter().position(|own| own.eq_ignore_ascii_case(host))?;
        (Some(index) != self.root).then_some((index, target))
    }
}

/// The alias of `/as/{alias}`, decoded, and what follows it. A target without one, or with one that is no text, is all rest.
pub fn split_alias(target: &str) -> (Option<Cow<'_, str>>, &str) {
    let named = || {
        let after = target.strip_prefix("/as/")?;
        let end = after.find('/').unwrap_or(after.len());
        Some((Some(percent_decode_str(&after[..end]).decode_utf8().ok()?), &after[end..]))
    };
    named().unwrap_or((None, target))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn routes() -> Routes {
        Routes {
            names: vec!["graph".into(), "billing".into()],
            hosts: vec!["graph.microsoft.com".into(), "billing.example".into()],
            root: Some(0),
        }
    }

    #[test]
    fn targets_find_their_upstream() {
        for (target, host, expected) in [
            ("/v1.0/me?$top=1", None, Some((0, None, "", "/v1.0/me?$top=1"))),
            ("/beta/me", None, Some((0, None, "", "/beta/me"))),
            ("/as/alice/v1.0/me", None, Some((0, Some("alice"), "/as/alice", "/v1.0/me"))),
            ("/as/a%40b.com/v1.0/me%2F", None, Some((0, Some("a@b.com"), "/as/a%40b.com", "/v1.0/me%2F"))),
            ("/graph/v1.0/me", None, Some((0, None, "/graph", "/v1.0/me"))),
            ("/billing/items?x", None, Some((1, None, "/billing", "/items?x"))),
            ("/as/bob/billing/items", None, Some((1, Some("bob"), "/as/bob/billing", "/items"))),
            ("/items", Some("billing.example"), Some((1, None, "", "/items"))),
            ("/items", Some("graph.microsoft.com"), None),
            ("/billing", None, None),
            ("/V1.0/me", None, None),
            ("/v1.0x/me", None, None),
            ("/as/alice", None, None),
            ("/as/alice", Some("billing.example"), None),
            ("/as/%ff/items", Some("billing.example"), None),
            ("/as/alice/as/items", Some("billing.example"), Some((1, Some("alice"), "/as/alice", "/as/items"))),
            ("/", None, None),
            ("/healthz", None, None),
        ] {
            let found = routes().find(target, host);
            let found = found.as_ref().map(|r| (r.upstream, r.alias.as_deref(), r.prefix, r.target));
            assert_eq!(found, expected, "{target} {host:?}");
        }
    }

    #[test]
    fn rules_see_the_upstream_in_the_path_wherever_it_was_named() {
        for (target, host, expected) in [
            ("/as/alice/v1.0/me", None, "/v1.0/me"),
            ("/graph/v1.0/me", None, "/v1.0/me"),
            ("/graph/v1.0", None, "/v1.0"),
            ("/graph/billing/items", None, "/graph/billing/items"),
            ("/billing/v1.0/me", None, "/billing/v1.0/me"),
            ("/items", Some("billing.example"), "/billing/items"),
            ("/as/bob/billing/", None, "/billing/"),
            ("/graph/v1.0;x=1/users", None, "/v1.0;x=1/users"),
            ("/graph/beta./users", None, "/beta./users"),
        ] {
            let route = routes().find(target, host).unwrap();
            assert_eq!(routes().rule_path(route.upstream, route.target), expected, "{target}");
        }
    }
}

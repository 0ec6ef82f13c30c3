//! Which upstream a target means, and which account its path names. Pure.
//!
//! `/v1.0/...` and `/beta/...` are the root upstream's own paths; `/{upstream}/...` is a further one; `/as/{alias}` may stand before either.
//! What is left is forwarded byte for byte.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

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

/// The names of the upstreams, in their order; which one is served at the root; and the host names that select one.
pub struct Routes {
    pub names: Vec<String>,
    pub hosts: Vec<String>,
    pub root: Option<usize>,
}

impl Routes {
    /// `None`: neither an upstream's path nor ours. `host` is the name that the client used, without a port.
    pub fn find<'a>(&self, target: &'a str, host: Option<&str>) -> Option<Route<'a>> {
        let (alias, rest) = match target.strip_prefix("/as/") {
            Some(after) => {
                let end = after.find('/')?;
                let alias = percent_decode_str(&after[..end]).decode_utf8().ok()?;
                (Some(alias), &after[end..])
            }
            None => (None, target),
        };
        let (upstream, forwarded) = self.upstream(rest, host)?;
        let prefix = &target[..target.len() - forwarded.len()];
        Some(Route { upstream, alias, prefix, target: forwarded })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
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
            ("/", None, None),
            ("/healthz", None, None),
        ] {
            let found = routes().find(target, host);
            let found = found.as_ref().map(|r| (r.upstream, r.alias.as_deref(), r.prefix, r.target));
            assert_eq!(found, expected, "{target} {host:?}");
        }
    }
}

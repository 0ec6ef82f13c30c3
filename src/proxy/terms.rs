//! What is settled about a request before its body is read: for whom it is, where it leads, and what that means to rules. Built once.
//!
//! Invariant: nothing here is decided again later; what the body says of places and accounts is held against it.

use std::borrow::Cow;

use http::request::Parts;

use super::canonical::Canonical;
use super::error::{Kind, Refusal};
use super::naming::Naming;
use super::policy::Asked;
use super::route::Route;
use super::subject::Caller;
use crate::config::{self, UpstreamKind};
use crate::graph::links::Links;
use crate::vault::Subject;

#[derive(Clone, Copy)]
pub struct Terms<'a> {
    pub naming: &'a Naming<'a>,
    pub route: &'a Route<'a>,
    /// Of what is forwarded.
    pub path: &'a Canonical<'a>,
    pub caller: &'a Caller,
    pub subject: &'a Subject,
    pub upstream: &'a config::Upstream,
}

impl<'a> Terms<'a> {
    /// What rules are asked. `rule_path` is `self.rule_path()`.
    pub fn asked<'q>(&self, head: &'q Parts, rule_path: &'q str) -> Asked<'q> {
        Asked {
            method: &head.method,
            path: rule_path,
            doubt: self.path.doubt,
            headers: &head.headers,
            kind: self.upstream.kind,
        }
    }

    pub fn rule_path(&self) -> Cow<'a, str> {
        self.naming.rule_path(self.route.upstream, &self.path.text)
    }

    /// JSON batching is Graph's; what others have under that name is theirs.
    pub fn is_graph(&self) -> bool {
        self.upstream.kind == UpstreamKind::Graph
    }

    /// What of an answer has to be rewritten. `None`: nothing.
    pub fn links(&self) -> Option<Links<'a>> {
        if self.upstream.rewrite_links { self.naming.links(self.route) } else { None }
    }

    /// What the upstream knows a link in the request as that names us, if that is another URL. One to another upstream stays: it says
    /// nothing that this one could misread.
    pub fn link(&self, key: &str, url: &str) -> Result<Option<String>, Refusal> {
        let Some(route) = self.naming.own(url).filter(|route| route.upstream == self.route.upstream) else {
            return Ok(None);
        };
        if !self.is_ours(&route) {
            let why = format!("the link in {key} names another account than the one that the request is for");
            return Err(Kind::BadRequest.because(why));
        }
        let translated = format!("{}{}", self.naming.origin(self.route.upstream), route.target);
        Ok(Some(translated).filter(|translated| translated != url))
    }

    /// Whether a route leads where the request leads: to the same upstream, and for no other account.
    pub fn is_ours(&self, route: &Route<'_>) -> bool {
        let is_for = |alias: &str| match (self.caller.subject([Some(alias), None, None]), self.subject) {
            (Ok(Subject::User(named)), Subject::User(own)) => named == *own,
            (named, _) => named.is_ok(),
        };
        route.upstream == self.route.upstream && route.alias.as_deref().is_none_or(is_for)
    }
}

//! May this client do that? Methods and paths, on one canonical form.
//!
//! Paths come in their canonical form (`canonical`), as the client writes them (`Routes::rule_path`); what is forwarded stays as it came. Deny
//! rules are looked at first. A `$batch` needs no rule of its own: its members are judged (`batch`).

mod patterns;
mod rules;
mod tree;

use http::{HeaderMap, HeaderName, Method};

use self::rules::Rules;
use super::batch::is_batch;
use super::canonical::{Unclear, careless};
use super::error::{Kind, Refusal};
use super::media::is_plain;
use crate::config::{self, UpstreamKind};

/// What a client may do.
pub struct Policy {
    allow: Rules,
    deny: Rules,
    read_only: bool,
}

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a Method,
    /// Canonical, as `Routes::rule_path` gives it.
    pub path: &'a str,
    /// What is unclear about the path.
    pub doubt: Option<Unclear>,
    pub headers: &'a HeaderMap,
    pub kind: UpstreamKind,
}

/// Headers by which OData services let a POST stand for another method.
pub(super) const TUNNELS: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// What becomes of a request, and which rule says so. A rule is named with its place: `allow[0]: GET /v1.0/me/**`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'p> {
    /// `None`: nothing restricts it.
    Allowed {
        rule: Option<&'p str>,
    },
    /// A `$batch`: each of its members is judged as the request that it is.
    EachMember,
    Denied {
        by: DeniedBy<'p>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedBy<'p> {
    Rule(&'p str),
    ReadOnly,
    /// There are allow rules, and none that covers it.
    NotListed,
    /// What the path stands for is said in the query (`users(@u)?@u='x'`).
    Alias,
    /// A `$batch` to a careless server, whose members nobody would have judged (`$batch;x=1`).
    HalfBatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Permitted,
    /// A `$batch`: each of its members has to be judged.
    JudgeMembers,
}

impl Policy {
    pub fn new(client: &config::Client) -> Self {
        Self {
            allow: Rules::new("allow", &client.allow, None),
            deny: Rules::new("deny", &client.deny, Some("/**")),
            read_only: client.read_only,
        }
    }

    /// `path` is canonical. Of several rules that match, the first in the order of the configuration decides.
    pub fn decide(&self, method: &Method, path: &str) -> Decision<'_> {
        let by = |by| Decision::Denied { by };
        if self.is_open() {
            return Decision::Allowed { rule: None };
        }
        // Whatever a careless server behind may see in the path: the stricter reading counts.
        let careless = careless(path);
        let careless = careless.as_deref();
        let denied = |path: &str| self.deny.first(method, path);
        if let Some(rule) = denied(path).or_else(|| careless.and_then(denied)) {
            return by(DeniedBy::Rule(rule));
        }
        // Whatever the method is called: the members decide, and what is no batch is refused.
        if is_batch(path) {
            return Decision::EachMember;
        }
        if careless.is_some_and(is_batch) {
            return by(DeniedBy::HalfBatch);
        }
        if self.read_only && method != Method::GET && method != Method::HEAD {
            return by(DeniedBy::ReadOnly);
        }
        if self.allow.is_empty() && self.deny.is_empty() {
            return Decision::Allowed { rule: None };
        }
        if has_alias(path) {
            return by(DeniedBy::Alias);
        }
        if self.allow.is_empty() {
            return Decision::Allowed { rule: None };
        }
        let allowed = |path: &str| self.allow.first(method, path);
        match allowed(path).filter(|_| careless.is_none_or(|path| allowed(path).is_some())) {
            Some(rule) => Decision::Allowed { rule: Some(rule) },
            None => by(DeniedBy::NotListed),
        }
    }

    /// Paths that rules can't be sure of pass only where there are none.
    pub fn understands(&self, doubt: Option<Unclear>) -> Result<(), Refusal> {
        doubt.filter(|_| !self.is_open()).map_or(Ok(()), |unclear| Err(unclear.into()))
    }

    pub fn permit(&self, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
        let &Asked { method, path, doubt, headers, kind } = asked;
        if self.is_open() {
            return Ok(Verdict::Permitted);
        }
        self.understands(doubt)?;
        if headers.keys().map(HeaderName::as_str).any(is_tunnel) {
            return Err(Kind::PolicyDenied.because("a method override header can't be used by a client with rules"));
        }
        match self.decide(method, path) {
            Decision::Allowed { .. } => Ok(Verdict::Permitted),
            Decision::Denied { by } => Err(by.refusal(method, path)),
            Decision::EachMember if kind != UpstreamKind::Graph => {
                Err(Kind::PolicyDenied.because("a $batch can be judged only where the upstream is Graph"))
            }
            Decision::EachMember if is_plain(headers) => Ok(Verdict::JudgeMembers),
            Decision::EachMember => {
                Err(Kind::PolicyDenied.because("a $batch that is judged has to be plain JSON in UTF-8"))
            }
        }
    }

    /// A member of a `$batch`. `path` is canonical.
    pub(super) fn judge(&self, method: &Method, path: &str) -> Result<(), Refusal> {
        match self.decide(method, path) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Denied { by } => Err(by.refusal(method, path)),
            Decision::EachMember => Err(Kind::PolicyDenied.because("a $batch can't contain a $batch")),
        }
    }

    fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && !self.read_only
    }
}

impl DeniedBy<'_> {
    /// What the client is told; the rule itself is for the log.
    fn refusal(self, method: &Method, path: &str) -> Refusal {
        let why = match self {
            Self::Rule(_) => "a rule denies it to this client",
            Self::ReadOnly => "this client may only read",
            Self::NotListed => "no rule allows it to this client",
            Self::Alias => "a parameter alias can't be used by a client with rules",
            Self::HalfBatch => "it may be read as a $batch",
        };
        let mut refusal = Kind::PolicyDenied.because(format!("{method} {path} is denied: {why}"));
        refusal.rule = Some(self.rule().into());
        refusal
    }

    /// For the log: the rule, or what else decides.
    pub fn rule(&self) -> &str {
        match self {
            Self::Rule(rule) => rule,
            Self::ReadOnly => "read_only",
            Self::NotListed => "allow: no rule matches",
            Self::Alias => "a parameter alias",
            Self::HalfBatch => "what may be read as a $batch",
        }
    }
}

/// Whether some server takes this header for another method than that of the request. Some fold `_` to `-`.
pub(super) fn is_tunnel(name: &str) -> bool {
    // Asked about every header of every request.
    if !name.starts_with(['x', 'X']) {
        return false;
    }
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || a == b'_' && b == b'-';
    TUNNELS.iter().any(|own| own.len() == name.len() && name.bytes().zip(own.bytes()).all(|(a, b)| same(a, b)))
}

/// `users(@u)`, `f(x=@u)`.
fn has_alias(path: &str) -> bool {
    path.contains('(') && path.split(['(', '=']).skip(1).any(|value| value.trim_start().starts_with('@'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::canonical::canonical;
    use super::*;
    use crate::config::{Client, ClientCredential, ClientLimits};

    pub(crate) fn policy(allow: &[&str], deny: &[&str], read_only: bool) -> Policy {
        let texts = |rules: &[&str]| rules.iter().map(|&rule| rule.to_owned()).collect();
        Policy::new(&Client {
            name: "c".into(),
            credential: ClientCredential::PeerUid(1),
            identity: crate::config::Identity::User,
            accounts: Vec::new(),
            allow: texts(allow),
            deny: texts(deny),
            read_only,
            limits: ClientLimits::default(),
        })
    }

    fn verdict(policy: &Policy, method: &str, path: &str, headers: &HeaderMap) -> Result<Verdict, Kind> {
        let (method, canonical) = (method.parse().unwrap(), canonical(path).unwrap());
        let kind = if path.starts_with("/billing/") { UpstreamKind::Rest } else { UpstreamKind::Graph };
        let asked = Asked { method: &method, path: &canonical.text, doubt: canonical.doubt, headers, kind };
        policy.permit(&asked).map_err(|refusal| refusal.kind)
    }

    fn permits(policy: &Policy, method: &str, path: &str) -> bool {
        verdict(policy, method, path, &HeaderMap::new()) == Ok(Verdict::Permitted)
    }

    #[test]
    fn deny_comes_first_then_read_only_then_allow() {
        let me = policy(
            &["GET /v1.0/me/**", "GET /v1.0/me", "POST /v1.0/me/sendMail"],
            &["* /v1.0/me/messages/secret"],
            false,
        );
        assert!(permits(&me, "GET", "/v1.0/me/messages"));
        assert!(permits(&me, "POST", "/v1.0/me/sendmail"));
        assert!(permits(&me, "GET", "/v1.0/ME"));
        assert!(!permits(&me, "GET", "/v1.0/me/messages/secret"));
        assert!(!permits(&me, "GET", "/v1.0/me/messages/SECRET"));
        assert!(!permits(&me, "DELETE", "/v1.0/me/messages"));
        assert!(!permits(&me, "GET", "/v1.0/users"));
        let reader = policy(&[], &[], true);
        assert!(permits(&reader, "GET", "/v1.0/users") && permits(&reader, "HEAD", "/v1.0/users"));
        assert!(!permits(&reader, "PATCH", "/v1.0/users/x"));
        assert!(permits(&policy(&[], &[], false), "DELETE", "/v1.0/users/x"));
        assert!(!permits(&policy(&[], &["* /v1.0/users/*"], false), "GET", "/v1.0/users('x')"));
    }

    #[test]
    fn a_decision_names_the_first_rule_that_matches() {
        let denied = |by| Decision::Denied { by };
        let me = policy(
            &["POST /v1.0/me/**", "GET /v1.0/me/**", "GET /v1.0/me/m*"],
            &["* /v1.0/me/x", "GET /v1.0/me/{x,y}"],
            false,
        );
        for (method, path, decision) in [
            ("GET", "/v1.0/me/messages", Decision::Allowed { rule: Some("allow[1]: GET /v1.0/me/**") }),
            ("GET", "/v1.0/me/x", denied(DeniedBy::Rule("deny[0]: * /v1.0/me/x"))),
            ("get", "/v1.0/me/y", denied(DeniedBy::Rule("deny[1]: GET /v1.0/me/{x,y}"))),
            ("GET", "/v1.0/me/y;a=b", denied(DeniedBy::Rule("deny[1]: GET /v1.0/me/{x,y}"))),
            ("GET", "/v1.0/me/f(@p)", denied(DeniedBy::Alias)),
            ("GET", "/v1.0/me", denied(DeniedBy::NotListed)),
            ("GET", "/v1.0/me;a=b/messages", denied(DeniedBy::NotListed)),
            ("POST", "/v1.0/$batch", Decision::EachMember),
        ] {
            assert_eq!(me.decide(&method.parse().unwrap(), path), decision, "{method} {path}");
        }
        let reader = policy(&[], &[], true);
        assert_eq!(reader.decide(&Method::PUT, "/v1.0/me"), denied(DeniedBy::ReadOnly));
        assert_eq!(reader.decide(&Method::GET, "/v1.0/f(@p)"), Decision::Allowed { rule: None });
        assert_eq!(policy(&[], &[], false).decide(&Method::POST, "/v1.0/$batch"), Decision::Allowed { rule: None });
        let refusal = me.judge(&Method::GET, "/v1.0/me/x").unwrap_err();
        assert_eq!(refusal.rule.as_deref(), Some("deny[0]: * /v1.0/me/x"));
        assert!(!refusal.message.contains("deny[0]"), "{}", refusal.message);
    }

    #[test]
    fn lookalikes_pass_where_there_are_no_rules() {
        let path = "/v1.0/me/drive/root:/a\u{ff0f}b.txt";
        assert!(permits(&policy(&[], &[], false), "GET", path));
        for rules in [policy(&["* /**"], &[], false), policy(&[], &["* /v1.0/users"], false), policy(&[], &[], true)] {
            assert_eq!(verdict(&rules, "GET", path, &HeaderMap::new()), Err(Kind::BadRequest));
        }
    }

    #[test]
    fn tunnelled_methods_do_not_get_past_rules() {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("x-http-method"), "DELETE".parse().unwrap())].into_iter().collect();
        assert!(verdict(&policy(&[], &[], true), "GET", "/v1.0/me", &headers).is_err());
        assert!(verdict(&policy(&[], &[], false), "GET", "/v1.0/me", &headers).is_ok());
    }

    #[test]
    fn a_rule_means_what_it_says_however_it_is_written() {
        let denies = |rule: &str, path: &str| !permits(&policy(&[], &[rule], false), "GET", path);
        assert!(denies("* /v1.0/users('x')/**", "/v1.0/users/x/messages"));
        assert!(denies("* /v1.0/users/**", "/v1.0/users(id='x')/messages"));
        assert!(denies("* /v1.0/users/[A-Z]*", "/v1.0/users/x"));
        assert!(denies("* /v1.0/me/Microsoft.Graph.sendMail", "/v1.0/me/sendMail"));
        assert!(denies("* /v1.0/me/microsoft.graph.sendMail", "/v1.0/me/microsoft.graph.sendMail"));
        assert!(denies("* /v1.0/me/messages/", "/v1.0/me/messages"));
        assert!(denies("* /v1.0/Users/[Z-a]*", "/v1.0/users/Z"), "a range that is none in lower case");
    }

    #[test]
    fn a_batch_is_judged_whatever_its_method_unless_a_rule_forbids_it() {
        let verdict = |policy: &Policy, method: &str, headers: &[(&'static str, &'static str)]| {
            let pair = |&(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            };
            super::tests::verdict(policy, method, "/v1.0/$batch", &headers.iter().map(pair).collect())
        };
        let reader = policy(&[], &["* /v1.0/users/**"], false);
        for method in ["POST", "post", "PUT", "GET"] {
            assert_eq!(verdict(&reader, method, &[]), Ok(Verdict::JudgeMembers), "{method}");
        }
        let none = policy(&[], &["POST /v1.0/$batch"], false);
        assert_eq!(verdict(&none, "POST", &[]), Err(Kind::PolicyDenied));
        let elsewhere = super::tests::verdict(&reader, "POST", "/billing/$batch", &HeaderMap::new());
        assert_eq!(elsewhere, Err(Kind::PolicyDenied), "nobody knows how it would be read");
        for (name, value) in [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity, gzip"),
            ("content-type", "application/json; charset=utf-7"),
            ("content-type", "application/json;odata.metadata=minimal; Charset=\"UTF-16\""),
        ] {
            assert_eq!(verdict(&reader, "POST", &[(name, value)]), Err(Kind::PolicyDenied), "{value}");
        }
        for (name, value) in [
            ("content-encoding", "identity"),
            ("content-type", "application/json"),
            ("content-type", "application/json; charset=UTF-8"),
        ] {
            assert_eq!(verdict(&reader, "POST", &[(name, value)]), Ok(Verdict::JudgeMembers), "{value}");
        }
    }

    #[test]
    fn what_only_a_careless_server_takes_for_a_batch_is_refused() {
        let rules = [policy(&["* /v1.0/**"], &[], false), policy(&[], &["* /v1.0/users/**"], false)];
        for path in ["/v1.0/$batch;x=1", "/v1.0/$batch.", "/v1.0/$batch%20", "/v1.0/%20%24batch", "/v1.0/$batch;/"] {
            assert!(rules.iter().all(|rules| !permits(rules, "POST", path)), "{path}");
        }
    }
}

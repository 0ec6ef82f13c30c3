//! May this client do that? Methods and paths, on one canonical form.
//!
//! Paths come in their canonical form (`canonical`); what is forwarded stays as it came. Deny rules are looked at first. A `$batch` needs no
//! rule of its own: its members are judged (`batch`).

use globset::{GlobBuilder, GlobMatcher};
use http::{HeaderMap, Method};

use super::batch::{is_batch, is_plain_json};
use super::canonical::{keys_as_segments, without_end_slash, without_namespace};
use super::error::{Kind, Refusal};
use crate::config;

/// What a client may do.
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    read_only: bool,
}

/// `GET /v1.0/me/**`
struct Rule {
    method: Option<Method>,
    path: GlobMatcher,
}

/// Headers by which OData services let a POST stand for another method.
pub(super) const TUNNELS: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Permitted,
    /// A `$batch` of a client that has rules: its members have to be judged.
    JudgeMembers,
}

impl Policy {
    pub fn new(client: &config::Client) -> Self {
        let rules = |texts: &[String]| texts.iter().filter_map(|text| Rule::new(text)).collect();
        Self { allow: rules(&client.allow), deny: rules(&client.deny), read_only: client.read_only }
    }

    /// `path` is canonical.
    pub fn permit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Verdict, Refusal> {
        if self.is_open() {
            return Ok(Verdict::Permitted);
        }
        if TUNNELS.iter().any(|name| headers.contains_key(*name)) {
            return Err(Kind::PolicyDenied.because("a method override header can't be used by a client with rules"));
        }
        // Whatever the method is called: the members decide, and what is no batch is refused. A deny rule may still forbid batches.
        if is_batch(path) {
            if self.deny.iter().any(|rule| rule.matches(method, path)) {
                return Err(Kind::PolicyDenied.because(format!("{method} {path} is denied to this client by a rule")));
            }
            if !is_plain_json(headers) {
                return Err(Kind::PolicyDenied.because("a $batch that is judged has to be plain JSON in UTF-8"));
            }
            return Ok(Verdict::JudgeMembers);
        }
        self.judge(method, path).map(|()| Verdict::Permitted)
    }

    pub(super) fn judge(&self, method: &Method, path: &str) -> Result<(), Refusal> {
        let denied = |why: &str| Err(Kind::PolicyDenied.because(format!("{method} {path} {why}")));
        if self.deny.iter().any(|rule| rule.matches(method, path)) {
            return denied("is denied to this client by a rule");
        }
        if self.read_only && method != Method::GET && method != Method::HEAD {
            return denied("is denied: this client may only read");
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|rule| rule.matches(method, path)) {
            return denied("is not among what this client is allowed to do");
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && !self.read_only
    }
}

impl Rule {
    /// Graph reads paths without regard to case, so rules do too. A key in a rule is written in either way, as in a path.
    fn new(text: &str) -> Option<Self> {
        let (method, path) = text.trim().split_once(char::is_whitespace)?;
        let path = without_end_slash(without_namespace(&keys_as_segments(path.trim())).into());
        let glob = GlobBuilder::new(&path).literal_separator(true).case_insensitive(true).build();
        match glob {
            Ok(glob) => Some(Self {
                method: Some(method).filter(|method| *method != "*").and_then(|method| method.parse().ok()),
                path: glob.compile_matcher(),
            }),
            Err(error) => {
                tracing::error!(rule = text, %error, "a rule is ignored");
                None
            }
        }
    }

    /// Methods in any case: many servers take `delete` for DELETE.
    fn matches(&self, method: &Method, path: &str) -> bool {
        let own = self.method.as_ref().map(Method::as_str);
        own.is_none_or(|own| own.eq_ignore_ascii_case(method.as_str())) && self.path.is_match(path)
    }
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

    fn permits(policy: &Policy, method: &str, path: &str) -> bool {
        let path = canonical(path).unwrap();
        matches!(policy.permit(&method.parse().unwrap(), &path, &HeaderMap::new()), Ok(Verdict::Permitted))
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
    fn tunnelled_methods_do_not_get_past_rules() {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("x-http-method"), "DELETE".parse().unwrap())].into_iter().collect();
        assert!(policy(&[], &[], true).permit(&Method::GET, "/v1.0/me", &headers).is_err());
        assert!(policy(&[], &[], false).permit(&Method::GET, "/v1.0/me", &headers).is_ok());
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
            let headers = headers.iter().map(pair).collect();
            policy.permit(&method.parse().unwrap(), "/v1.0/$batch", &headers).map_err(|refusal| refusal.kind)
        };
        let reader = policy(&[], &["* /v1.0/users/**"], false);
        for method in ["POST", "post", "PUT", "GET"] {
            assert_eq!(verdict(&reader, method, &[]), Ok(Verdict::JudgeMembers), "{method}");
        }
        let none = policy(&[], &["POST /v1.0/$batch"], false);
        assert_eq!(verdict(&none, "POST", &[]), Err(Kind::PolicyDenied));
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
}

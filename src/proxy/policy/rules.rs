//! A list of rules as it is written, ready to be asked: which is the first that matches? Pure.
//!
//! A rule means what globset makes of its path, without regard to case, where `*` and `?` stay within a segment. The tree is only a faster
//! way to the same answer; rules that can't be taken apart into segments are asked one by one.

use std::borrow::Cow;
use std::iter;

use globset::{GlobBuilder, GlobMatcher};
use http::Method;
use percent_encoding::percent_decode_str;

use super::super::canonical::{folded, plainly, without_end_slash};
use super::tree::{Tree, segments};

/// Rules of one kind, in their order.
pub(super) struct Rules {
    /// With their places: `allow[0]: GET /v1.0/me/**`.
    texts: Vec<String>,
    tree: Tree,
    others: Vec<Other>,
}

/// A rule that the tree has no place for.
struct Other {
    at: usize,
    method: Option<String>,
    path: GlobMatcher,
}

impl Rules {
    /// `kind`: the key of the configuration. `unreadable`: the path that stands for one that is no pattern.
    pub(super) fn new(kind: &str, texts: &[String], unreadable: Option<&str>) -> Self {
        let mut rules = Self { texts: Vec::new(), tree: Tree::default(), others: Vec::new() };
        for (at, text) in texts.iter().enumerate() {
            rules.texts.push(format!("{kind}[{at}]: {text}"));
            let (method, path) = text.trim().split_once(char::is_whitespace).unwrap_or(("*", text));
            let method = Some(method).filter(|method| *method != "*");
            if let Err(error) = rules.add(at, method, &normal(path.trim())) {
                tracing::error!(rule = rules.texts[at], %error, "a rule can't be read");
                if let Some(path) = unreadable {
                    rules.add(at, None, path).expect("it is a pattern");
                }
            }
        }
        rules
    }

    fn add(&mut self, at: usize, method: Option<&str>, path: &str) -> Result<(), globset::Error> {
        let whole = matcher(path)?;
        match segments(path) {
            Some(segments) => self.tree.add(at, method, &segments),
            None => self.others.push(Other { at, method: method.map(str::to_owned), path: whole }),
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The first rule that covers this, with its place. `path` is canonical.
    pub(super) fn first(&self, method: &Method, path: &str) -> Option<&str> {
        let others = self.others.iter().filter(|other| is_method(other.method.as_deref(), method));
        let other = others.filter(|other| other.path.is_match(path)).map(|other| other.at).next();
        let at = iter::chain(self.tree.first(method, path), other).min()?;
        Some(&self.texts[at])
    }
}

/// Methods in any case: many servers take `delete` for DELETE.
pub(super) fn is_method(own: Option<&str>, method: &Method) -> bool {
    own.is_none_or(|own| own.eq_ignore_ascii_case(method.as_str()))
}

pub(super) fn matcher(glob: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(glob).literal_separator(true).case_insensitive(true).build()?;
    Ok(glob.compile_matcher())
}

/// A rule's path in the form that canonical paths have. ASCII letters stay: a class such as `[A-z]` depends on them.
fn normal(path: &str) -> String {
    let decoded = unescaped(path);
    let folded: String = decoded.chars().map(|c| if c.is_ascii() { c } else { folded(c) }).collect();
    without_end_slash(plainly(&folded).into()).into_owned()
}

/// Somebody may write `%20`, as in a URL. What it stands for is itself, never a part of the pattern.
fn unescaped(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut parts = path.split('%');
    let mut escaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.map(char::from).filter(|c| "*?[]{}\\,".contains(*c)) {
            Some(special) => {
                escaped.extend(['\\', special]);
                escaped.push_str(&part[2..]);
            }
            None => escaped.extend(["%", part]),
        }
    }
    match percent_decode_str(&escaped).decode_utf8() {
        Ok(plain) => Cow::Owned(plain.into_owned()),
        Err(_) => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain list of matchers that the tree stands for.
    fn first_of_list(rules: &[String], method: &Method, path: &str) -> Option<usize> {
        rules.iter().position(|rule| {
            let (own, glob) = rule.split_once(' ').unwrap();
            let own = Some(own).filter(|own| *own != "*");
            is_method(own, method) && matcher(&normal(glob)).is_ok_and(|glob| glob.is_match(path))
        })
    }

    fn segment() -> impl Strategy<Value = String> {
        let whole = prop::sample::select(vec![
            "*", "**", "a", "b", "ab", "A", "a*", "*b", "?", "a?", "**b", "a**", "***", "[ab]", "[!a]", "[A-Z]",
            "[+-9]", "[^/]", "{a,b}", "{a,b*}", "{a/b,b}", "{**,b}", "{a,**/b}", "a*b", "a*a", "A{a,b}B", "[ab]b",
            "\\*", "\\a", "a,b", "]", "", "é", "É*", "%2A", "{", "}", "[a", "a\\", ".", "x('*')",
        ]);
        prop_oneof![4 => whole.prop_map(str::to_owned), 1 => "[a-b*?.]{0,3}"]
    }

    fn rule() -> impl Strategy<Value = String> {
        let method = prop::sample::select(vec!["*", "GET", "POST"]);
        let path = prop::collection::vec(segment(), 1..5).prop_map(|segments| format!("/{}", segments.join("/")));
        (method, path).prop_map(|(method, path)| format!("{method} {path}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_tree_decides_as_the_list_of_matchers_does(
            rules in prop::collection::vec(rule(), 0..8),
            path in prop::collection::vec("[ab*]{0,2}|é|x|-|a,b", 0..6),
            method in prop::sample::select(vec!["GET", "get", "DELETE"]),
        ) {
            let (path, method) = (format!("/{}", path.join("/")), method.parse().unwrap());
            let expected = first_of_list(&rules, &method, &path).map(|at| format!("r[{at}]: {}", rules[at]));
            let rules = Rules::new("r", &rules, None);
            prop_assert_eq!(rules.first(&method, &path), expected.as_deref());
        }
    }

    #[test]
    fn what_is_escaped_in_a_rule_is_no_pattern() {
        let first = |rule: &str, path: &str| {
            Rules::new("allow", &[rule.to_owned()], None).first(&Method::GET, path).map(str::to_owned)
        };
        let text = "GET /a%20b/%2a/caf%C3%89";
        assert_eq!(first(text, "/a b/*/café").as_deref(), Some("allow[0]: GET /a%20b/%2a/caf%C3%89"));
        assert_eq!(first(text, "/a b/x/café"), None);
        assert_eq!(first("* /%7Ba,b%7D", "/{a,b}").as_deref(), Some("allow[0]: * /%7Ba,b%7D"));
        assert_eq!(first("* /100%", "/100%").as_deref(), Some("allow[0]: * /100%"));
    }

    #[test]
    fn a_deny_rule_that_nobody_can_read_denies_everything_and_such_an_allow_rule_allows_nothing() {
        let rules = |unreadable| Rules::new("deny", &["GET /a[".to_owned()], unreadable);
        assert_eq!(rules(Some("/**")).first(&Method::POST, "/b"), Some("deny[0]: GET /a["));
        assert_eq!(rules(None).first(&Method::GET, "/a["), None);
    }

    #[test]
    fn loops_over_any_number_of_segments_end() {
        let rules: Vec<String> = (0..50).map(|n| format!("GET /**/a/**/b/**/c{n}")).collect();
        let path = "/a/b".repeat(2000);
        assert_eq!(Rules::new("allow", &rules, None).first(&Method::GET, &path), None);
        let path = format!("{path}/c7");
        let first = Rules::new("allow", &rules, None).first(&Method::GET, &path).map(str::to_owned);
        assert_eq!(first.as_deref(), Some("allow[7]: GET /**/a/**/b/**/c7"));
    }
}

//! `allow` and `deny` of a client: what is no rule is a mistake, what never matches at least a warning.
//!
//! Rules are matched on the canonical form of a path (`proxy::canonical`), which has no query, no dot segments and no account.

use std::collections::BTreeMap;

use globset::GlobBuilder;

use crate::config::Upstream;
use crate::config::mistakes::Reported;
use crate::config::read::Section;

const METHODS: [&str; 9] = ["*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "MERGE"];
/// What the root upstream's paths begin with.
const VERSIONS: [&str; 2] = ["v1.0", "beta"];

/// The rules under `key`. `upstreams` is `None` where they could not be resolved: then nothing is said about them here.
pub fn rules(
    section: &Section<'_>,
    key: &str,
    upstreams: Option<&BTreeMap<String, Upstream>>,
) -> Result<Vec<String>, Reported> {
    let rules = section.list(key, |text| rule(text, upstreams))?;
    for (at, (method, path)) in rules.iter().filter_map(|rule| rule.split_once(' ')).enumerate() {
        let place = format!("{key}[{at}]");
        if !METHODS.contains(&method) {
            section.warn(&place, format!("{method} is none of {}", METHODS[1..].join(", ")));
        }
        if upstreams.is_some_and(|upstreams| !is_served(path, upstreams)) {
            section.warn(&place, "never matches: no upstream serves such a path");
        }
    }
    Ok(rules)
}

/// `METHOD /path/glob`.
fn rule(text: &str, upstreams: Option<&BTreeMap<String, Upstream>>) -> Result<String, String> {
    let what = || "must be \"METHOD /path/glob\", such as \"GET /v1.0/**\" or \"* /v1.0/me/**\"".to_owned();
    let (method, path) = text.split_once(' ').ok_or_else(what)?;
    if method.bytes().all(|b| b.is_ascii_alphabetic()) && method.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(format!("the method is written in capitals: {}", method.to_ascii_uppercase()));
    }
    let token = method == "*" || (!method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'));
    if !token || !path.starts_with('/') || path.contains(char::is_whitespace) {
        return Err(what());
    }
    let segments: Vec<_> = path[1..].split('/').collect();
    let reason = if has_query(path) {
        "a rule is about the path, without a query ('?' stands for any one character)"
    } else if segments
        .iter()
        .any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
    {
        "never matches: paths with dot segments are refused"
    } else if segments.split_last().is_some_and(|(_, before)| before.contains(&"")) {
        "never matches: paths with empty segments are refused"
    } else if segments[0] == "as" {
        "a rule is about the path without /as/ALIAS; for whom a client may act is said by accounts"
    } else if !are_escapes_plain(path) {
        "a percent sign must begin the escape of a character in UTF-8 (%25 is the sign itself), and of no slash or backslash"
    } else if has_class_of_bytes(path) {
        "a class [...] has ASCII characters only; use {a,b}"
    } else {
        ""
    };
    if !reason.is_empty() {
        return Err(reason.to_owned());
    }
    if let Some(root) = upstreams.and_then(root)
        && let [name, version, ..] = segments[..]
        && (name, VERSIONS.contains(&version)) == (root, true)
    {
        return Err(format!(
            "never matches: paths of {root} are judged without its name, as {:?}",
            &path[1 + root.len()..]
        ));
    }
    glob(path).map(|()| text.to_owned())
}

pub fn glob(text: &str) -> Result<(), String> {
    match GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not a pattern: {}", error.kind())),
    }
}

/// `?$top=1`, `?x=1`
fn has_query(path: &str) -> bool {
    path.split('?').skip(1).any(|after| {
        let name = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
        after.starts_with('$') || name.len() < after.len() && name.starts_with('=')
    })
}

fn are_escapes_plain(path: &str) -> bool {
    let plain = |part: &str| {
        let byte = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        byte.is_some_and(|digits| !["2f", "5c", "00"].contains(&digits.to_ascii_lowercase().as_str()))
    };
    path.split('%').skip(1).all(plain) && percent_encoding::percent_decode_str(path).decode_utf8().is_ok()
}

/// A class is one byte.
fn has_class_of_bytes(path: &str) -> bool {
    path.split('[').skip(1).any(|after| !after.split(']').next().unwrap_or_default().is_ascii())
}

/// `graph`, or the only one.
fn root(upstreams: &BTreeMap<String, Upstream>) -> Option<&str> {
    let mut names = upstreams.keys().map(String::as_str);
    match (upstreams.contains_key("graph"), upstreams.len()) {
        (true, _) => Some("graph"),
        (false, 1) => names.next(),
        _ => None,
    }
}

/// Whether some upstream has paths that begin as this one does.
fn is_served(path: &str, upstreams: &BTreeMap<String, Upstream>) -> bool {
    let first = path[1..].split('/').next().unwrap_or_default();
    // What goes on in the next segment is no pattern alone, and judged by nobody here.
    let Ok(first) = GlobBuilder::new(first).case_insensitive(true).build() else { return true };
    let first = first.compile_matcher();
    let versions = VERSIONS.iter().filter(|_| root(upstreams).is_some());
    upstreams.keys().map(String::as_str).chain(versions.copied()).any(|prefix| first.is_match(prefix))
}

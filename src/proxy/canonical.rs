//! The one form of a path that rules are matched against, as Graph reads it. Pure.
//!
//! A path whose segments could be read in two ways has no canonical form, and is refused for everybody.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// An action or function may be called by its full name.
const NAMESPACE: &str = "/microsoft.graph.";

/// The one form of a path that rules are matched against: percent-decoded once, lower case, `name('key')` as `name/key`, names without
/// Graph's namespace (`microsoft.graph.sendMail`), no slash at the end. `None`: the path could be read in two ways.
pub fn canonical(path: &str) -> Option<Cow<'_, str>> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-$".contains(&byte);
    let decoded = if path.bytes().all(plain) {
        Cow::Borrowed(path)
    } else {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        if hides_structure(path, &decoded) {
            return None;
        }
        Cow::Owned(decoded.to_lowercase())
    };
    let body = decoded.strip_prefix('/')?;
    let body = body.strip_suffix('/').unwrap_or(body);
    let ambiguous = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default();
        segment.is_empty() || name == "." || name == ".."
    };
    if !body.is_empty() && body.split('/').any(ambiguous) || decoded.contains(['\\', '\0', '\r', '\n']) {
        return None;
    }
    let keys = match decoded {
        Cow::Owned(text) if text.contains('(') => Cow::Owned(keys_as_segments(&text)),
        other => other,
    };
    let names = if keys.contains(NAMESPACE) { Cow::Owned(without_namespace(&keys)) } else { keys };
    Some(without_end_slash(names))
}

/// `/me/microsoft.graph.sendMail` as `/me/sendMail`, in any case.
pub(super) fn without_namespace(path: &str) -> String {
    let lower = path.to_ascii_lowercase();
    let mut plain = String::with_capacity(path.len());
    let mut at = 0;
    for (start, _) in lower.match_indices(NAMESPACE) {
        plain.push_str(&path[at..=start]);
        at = start + NAMESPACE.len();
    }
    plain + &path[at..]
}

/// Graph takes `/me/` for `/me`.
pub(super) fn without_end_slash(path: Cow<'_, str>) -> Cow<'_, str> {
    match path {
        Cow::Borrowed(text) if text.len() > 1 => Cow::Borrowed(text.strip_suffix('/').unwrap_or(text)),
        Cow::Owned(mut text) if text.len() > 1 && text.ends_with('/') => {
            text.pop();
            Cow::Owned(text)
        }
        short => short,
    }
}

/// `name('key')` and `name(id='key')` as `name/key`, which mean the same to Graph. Functions of several parameters stay as they are.
pub(super) fn keys_as_segments(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('(') {
        plain.push_str(before);
        let unnamed = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let quoted = if unnamed.len() == after.len() { after.strip_prefix('\'') } else { unnamed.strip_prefix("='") };
        match quoted.and_then(|quoted| quoted.split_once("')")) {
            Some((key, left)) if !key.contains("',") => {
                plain.push('/');
                plain.push_str(key);
                rest = left;
            }
            _ => {
                plain.push('(');
                rest = after;
            }
        }
    }
    plain + rest
}

/// Escapes that a further decoding would turn into structure. Plain `%2e` is none in a `path` that is decoded here anyway.
fn hides_structure(path: &str, decoded: &str) -> bool {
    let escaped = |text: &str, codes: &[&str]| {
        let lower = text.to_ascii_lowercase();
        lower.match_indices('%').any(|(at, _)| {
            let nested = lower[at + 1..].trim_start_matches("25");
            codes.iter().any(|code| nested.starts_with(code))
        })
    };
    escaped(path, &["2f", "5c", "00"]) || escaped(decoded, &["2f", "5c", "00", "2e"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_can_be_read_in_two_ways_have_no_canonical_form() {
        for path in [
            "/v1.0/me/../users",
            "/v1.0/me/%2e%2e/users",
            "/v1.0/me/.%2e/users",
            "/v1.0/me/..%2fusers",
            "/v1.0/me/..;/users",
            "/v1.0/me/..;x=1/users",
            "/v1.0//users",
            "/v1.0/me%5c..%5cusers",
            "/v1.0/me\\users",
            "/v1.0/me/%252e%252e/users",
            "/v1.0/me%00",
            "/v1.0/me%2Fusers",
            "/v1.0/me%252fusers",
            "/v1.0/me%25252Fusers",
            "/v1.0/./me",
            "/v1.0/me/%2E",
            "/v1.0/%ff",
            "/v1.0/me%0d%0a",
            "v1.0/me",
            "/v1.0/me/%25%32%65%25%32%65/users",
            "/v1.0/me/%25%32%66users",
            "/v1.0/me/%%32%66users",
        ] {
            assert_eq!(canonical(path), None, "{path}");
        }
    }

    #[test]
    fn odd_but_clear_paths_have_one() {
        for (path, expected) in [
            ("/v1.0/me", "/v1.0/me"),
            ("/v1.0/ME/Messages/", "/v1.0/me/messages"),
            ("/v1.0/users('x')/messages", "/v1.0/users/x/messages"),
            ("/v1.0/users(%27x%27)", "/v1.0/users/x"),
            ("/v1.0/users(id='x')/messages", "/v1.0/users/x/messages"),
            ("/v1.0/me/f(a='x',b='y')", "/v1.0/me/f(a='x',b='y')"),
            ("/v1.0/me/drive/root:/a%20(1).txt", "/v1.0/me/drive/root:/a (1).txt"),
            ("/v1.0/me/drive/root:/a%20b.txt:/content", "/v1.0/me/drive/root:/a b.txt:/content"),
            ("/v1.0/me/messages/AAMk%3D%21", "/v1.0/me/messages/aamk=!"),
            ("/v1.0/%24batch", "/v1.0/$batch"),
            ("/v1.0/100%25", "/v1.0/100%"),
        ] {
            assert_eq!(canonical(path).as_deref(), Some(expected), "{path}");
        }
    }
}

//! What of the upstream's head reaches the client.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use crate::proxy::media::essence;

/// What of the upstream's head reaches the client.
pub fn filter(headers: &mut HeaderMap) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let names = value.as_bytes().split(|byte| *byte == b',');
        let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        doomed.extend(names.filter(|name| *name != header::CONTENT_LENGTH));
    }
    doomed.extend(headers.keys().filter(|name| is_stripped(name.as_str())).cloned());
    for name in doomed {
        headers.remove(name);
    }
    if let Entry::Vacant(place) = headers.entry(header::CACHE_CONTROL) {
        place.insert(HeaderValue::from_static("private"));
    }
    headers.append(header::VARY, HeaderValue::from_static("Authorization, X-Api-Key, Bearerd-Account"));
    if may_hold_scripts(headers) {
        headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
}

/// Hop by hop, or not for the client: `Set-Cookie` and CORS grants would work against us in a browser.
fn is_stripped(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'a') => name == "alt-svc" || name.starts_with("access-control-"),
        Some(b'b') => name.starts_with("bearerd-"),
        Some(b'c') => name == "connection",
        Some(b'k') => name == "keep-alive",
        Some(b'p') => matches!(name, "proxy-connection" | "proxy-authenticate"),
        Some(b's') => name == "set-cookie",
        Some(b't') => matches!(name, "transfer-encoding" | "trailer"),
        Some(b'u') => name == "upgrade",
        _ => false,
    }
}

/// A page from somebody's mail must not act as a page of ours, next to the sign-in pages and with the browser's Basic credential.
fn may_hold_scripts(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .map(essence)
        .is_some_and(|kind| kind.ends_with(b"html") || kind.ends_with(b"+xml") || kind.ends_with(b"/xml"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered(pairs: &[(&'static str, &'static str)]) -> Vec<String> {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap = pairs.iter().map(pair).collect();
        filter(&mut headers);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn what_would_work_against_us_in_a_browser_does_not_pass() {
        let vary = "vary: Authorization, X-Api-Key, Bearerd-Account";
        let lines = filtered(&[
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "x"),
            ("set-cookie", "a=b"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("bearerd-error", "fake"),
            ("etag", "W/\"1\""),
            ("content-length", "5"),
        ]);
        assert_eq!(lines, ["cache-control: private", "content-length: 5", "etag: W/\"1\"", vary]);
        let lines = filtered(&[("cache-control", "no-store")]);
        assert_eq!(lines, ["cache-control: no-store", vary]);
    }

    #[test]
    fn pages_of_others_are_no_pages_of_ours() {
        for kind in ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "text/xml"] {
            let lines = filtered(&[("content-type", kind), ("content-security-policy", "x")]);
            assert!(lines.contains(&"content-security-policy: sandbox".to_owned()), "{kind}");
            assert!(lines.contains(&"content-security-policy: x".to_owned()), "{kind}");
        }
        for kind in ["application/json;odata.metadata=minimal", "image/png", "text/plain"] {
            let lines = filtered(&[("content-type", kind)]);
            assert!(!lines.iter().any(|line| line.starts_with("content-security-policy")), "{kind}");
        }
    }

    const STRIPPED: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "transfer-encoding",
        "trailer",
        "upgrade",
        "set-cookie",
        "alt-svc",
    ];

    type Lines = Vec<(String, Vec<u8>)>;

    /// The same rules again, on a plain list.
    fn model(head: &Lines) -> Lines {
        let listed: Vec<String> = values(head, "connection")
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b',').map(|name| String::from_utf8_lossy(name).into_owned()))
            .map(|name| name.trim_matches([' ', '\t']).to_ascii_lowercase())
            .filter(|name| name != "content-length")
            .collect();
        let passes = |name: &str| {
            let hop = STRIPPED.contains(&name) || listed.iter().any(|own| own == name);
            let grant = name.starts_with("access-control-") || name.starts_with("bearerd-");
            !hop && !grant
        };
        let mut out: Lines = head.iter().filter(|(name, _)| passes(name)).cloned().collect();
        let mut add = |name: &str, value: &str| out.push((name.to_owned(), value.as_bytes().to_vec()));
        if values(head, "cache-control").is_empty() || listed.iter().any(|name| name == "cache-control") {
            add("cache-control", "private");
        }
        add("vary", "Authorization, X-Api-Key, Bearerd-Account");
        if !listed.iter().any(|name| name == "content-type")
            && values(head, "content-type").first().is_some_and(|value| value.starts_with(b"text/html"))
        {
            add("content-security-policy", "sandbox");
        }
        out.sort_unstable();
        out
    }

    fn values<'a>(head: &'a Lines, name: &str) -> Vec<&'a [u8]> {
        head.iter().filter(|(known, _)| known == name).map(|(_, value)| &value[..]).collect()
    }

    fn any_head() -> impl Strategy<Value = Lines> {
        let known = prop::sample::select(vec![
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "transfer-encoding",
            "trailer",
            "upgrade",
            "set-cookie",
            "alt-svc",
            "access-control-allow-origin",
            "access-control-x",
            "bearerd-error",
            "strict-transport-security",
            "cache-control",
            "vary",
            "content-type",
            "content-length",
            "content-security-policy",
            "etag",
            "location",
            "x-hop",
        ]);
        let name = prop_oneof![4 => known.prop_map(str::to_owned), 1 => "[a-z][a-z0-9-]{0,12}"];
        let value = prop_oneof![
            prop::sample::select(vec![
                "close",
                "X-Hop ,\tetag",
                "content-length, cache-control",
                "Content-Type",
                "transfer-encoding",
                ", ,;,",
                "text/html; charset=utf-8",
                "application/json",
            ])
            .prop_map(|value| value.as_bytes().to_vec()),
            prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..20),
        ];
        prop::collection::vec((name, value), 0..12)
    }

    proptest! {
        #[test]
        fn any_head_is_filtered_as_the_model_filters_it(head in any_head()) {
            let pair = |(name, value): &(String, Vec<u8>)| {
                (HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value).unwrap())
            };
            let mut headers: HeaderMap = HeaderMap::new();
            for (name, value) in head.iter().map(pair) {
                headers.append(name, value);
            }
            filter(&mut headers);
            let line = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
            let mut filtered: Lines = headers.iter().map(line).collect();
            filtered.sort_unstable();
            prop_assert_eq!(filtered, model(&head));
        }
    }
}

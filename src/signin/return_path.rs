//! Where a person goes after a sign-in: only to a path of our own origin.
//!
//! Decided by an allow-list over bytes, not by looking for known tricks: a browser repairs what it is given (tabs and line
//! feeds vanish, `\` becomes `/`), and every repair has been somebody's open redirect. Never asks a URL parser for a second
//! opinion where bytes already say no.

/// `None`: not a path that every reader reads in the same way.
pub(super) fn check(text: &str) -> Option<&str> {
    const LONGEST: usize = 1024;
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let fine = text.len() <= LONGEST
        && path.starts_with('/')
        && is_plain(path, b"/-._~!$&'()*+,;=:@", b"/\\%.?#;@:")
        && is_plain(query, b"/-._~!$&()*+,;=:@?", b"\\")
        && is_unambiguous(path);
    fine.then_some(text)
}

/// Only letters, digits, `marks` (they mean the same to everyone) and escapes. An escape stands for no control character and for
/// nothing `structural`, which could become structure after one more decoding.
fn is_plain(text: &str, marks: &[u8], structural: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match bytes.get(at + 1..at + 3).and_then(unescape) {
                Some(byte) if !byte.is_ascii_control() && !structural.contains(&byte) => at += 3,
                _ => return false,
            },
            byte if byte.is_ascii_alphanumeric() || marks.contains(&byte) => at += 1,
            _ => return false,
        }
    }
    true
}

fn unescape(hex: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(hex[0])? * 16 + digit(hex[1])?).ok()
}

/// No authority (`//host`), no segment that walks.
fn is_unambiguous(path: &str) -> bool {
    !path.contains("//") && path.split('/').all(|segment| !matches!(segment.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    const GOOD: [&str; 10] = [
        "/",
        "/app",
        "/app/start?page=2&x=a%20b",
        "/v1.0/me",
        "/a.b/..c/c..",
        "/as/alice@contoso.com/v1.0/me",
        "/%C3%A4",
        "/a:b",
        "/a;b=1",
        "/?next=/inner&u=%2Fa%3Fb",
    ];

    #[test]
    fn paths_of_our_own() {
        let base = Url::parse("https://bearerd.example/.bearerd/done").unwrap();
        for text in GOOD {
            assert_eq!(check(text), Some(text));
            let joined = base.join(text).unwrap();
            assert_eq!(joined.origin(), base.origin(), "{text}");
            assert_eq!(&joined.as_str()["https://bearerd.example".len()..], text, "a browser would change it");
        }
    }

    /// T307. Every way in, times every way of writing a foreign place.
    #[test]
    fn two_hundred_ways_out_are_refused() {
        let ways_in = [
            "//",
            "/\\",
            "\\\\",
            "\\/",
            "/\t/",
            "/\n/",
            "/\r/",
            "\t//",
            " //",
            "/%09/",
            "/%0a/",
            "/%0d/",
            "/%5c",
            "/%2f",
            "%2f%2f",
            "/%2F",
            "/.//",
            "/..//",
            "/a//",
            "///",
            "////",
            "/;//",
            "/ /",
            "/\u{0}/",
            "/%00/",
            "/\u{2028}/",
            "/\u{ff0f}",
            "\u{ff0f}\u{ff0f}",
            "https:",
            "https:/",
            "https://",
            "https:\\\\",
            "http://",
            "HtTpS://",
            "//https://",
            "javascript:alert(1)//",
            "data:text/html,",
            "vbscript:",
            "file:///",
            "ftp://",
            "//bearerd.example@",
            "https://bearerd.example@",
            "https://bearerd.example.",
            "https://bearerd.example:80@",
            "@",
            ".",
            "..",
            "",
            "/%252f%252f",
            "/%2e%2e//",
            "/./\\",
            "\u{b}//",
            "\u{c}//",
            "/\u{7f}/",
            "/\u{a0}/",
            "\u{feff}//",
            "http:",
            "blob:https://",
        ];
        let places = ["evil.example", "evil-bearerd.example", "xn--bearrd-example", "[::1]", "evil.example/%2e%2e"];
        let mut vectors = 0;
        for way in ways_in {
            for place in places {
                let text = format!("{way}{place}");
                assert_eq!(check(&text), None, "{text:?}");
                vectors += 1;
            }
        }
        assert!(vectors >= 200, "{vectors}");
    }

    #[test]
    fn single_traps() {
        for text in [
            "",
            "a",
            "?x",
            "#x",
            "/#x",
            "/a#b",
            "/..",
            "/../x",
            "/a/../b",
            "/a/..;x/b",
            "/.",
            "/%2e%2e/x",
            "/%2E/",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%-1",
            "/ä",
            "/a b",
            "/\"",
            "/<script>",
            "/a\\b",
            "/?x=\r\nSet-Cookie:a",
            "/?x=%0d%0aSet-Cookie:a",
            "/{x}",
            "/|",
            "/^",
            "/`",
            "/?a=%00",
            "/?u=%5cevil",
            "javascript:alert(1)",
        ] {
            assert_eq!(check(text), None, "{text:?}");
        }
        assert_eq!(check(&format!("/{}", "a".repeat(1024))), None);
    }

    proptest::proptest! {
        /// Whatever passes leads a browser to our own origin, and unchanged.
        #[test]
        fn what_passes_stays_at_home(text in "[/\\\\?#%@:;.a-c0-9\\t ]{0,12}") {
            if let Some(path) = check(&text) {
                let base = Url::parse("https://bearerd.example/.bearerd/done").unwrap();
                let joined = base.join(path).unwrap();
                proptest::prop_assert_eq!(joined.origin(), base.origin());
                proptest::prop_assert!(joined.as_str().ends_with(path));
            }
        }
    }
}

//! Which paths have a canonical form, and that servers read it in no other way.

use proptest::prelude::*;

use super::*;

/// As it is to clients with rules.
fn canonical(path: &str) -> Result<Cow<'_, str>, Unclear> {
    super::canonical(path).and_then(Canonical::certain)
}

#[test]
fn lookalikes_are_a_doubt_and_all_else_is_refused() {
    for (path, expected) in [
        ("/v1.0/me/drive/root:/A\u{ff0f}B.txt", Ok("/v1.0/me/drive/root:/a\u{ff0f}b.txt")),
        ("/v1.0/me/drive/root:/a%EF%BC%8F..%EF%BC%8Fb/", Ok("/v1.0/me/drive/root:/a\u{ff0f}..\u{ff0f}b")),
        ("/v1.0/me/\u{ff0e}\u{ff0e}/x", Ok("/v1.0/me/\u{ff0e}\u{ff0e}/x")),
        ("/v1.0/\u{ff0f}/../me", Err(Unclear::DotSegment)),
        ("/v1.0/\u{ff0f}%2fme", Err(Unclear::EncodedSlash)),
        ("/v1.0/\u{ff0f}%25EF", Err(Unclear::DoubledEncoding)),
        ("/v1.0/\u{ff0f}//me", Err(Unclear::EmptySegment)),
    ] {
        let canonical = super::canonical(path);
        let doubt = canonical.as_ref().ok().map(|canonical| canonical.doubt);
        assert_eq!(canonical.map(|canonical| canonical.text.into_owned()), expected.map(str::to_owned), "{path}");
        assert!(doubt.is_none_or(|doubt| doubt == Some(Unclear::Lookalike)), "{path}");
    }
}

#[test]
fn paths_that_can_be_read_in_two_ways_have_no_canonical_form() {
    use Unclear::*;
    for (unclear, paths) in [
        (NoSlash, &["v1.0/me", "", "*", "me/..", "%2E/me"][..]),
        (
            Percent,
            &["/v1.0/100%", "/v1.0/%zz", "/v1.0/me%2", "/v1.0/%u002fme", "/v1.0/me/%%32%66users", "/%+1", "/% 1"],
        ),
        (EncodedSlash, &["/v1.0/me/..%2fusers", "/v1.0/me%2Fusers", "/v1.0/users('a%2Fb')"]),
        (EncodedBackslash, &["/v1.0/me%5c..%5cusers", "/v1.0/me%5Cusers"]),
        (Backslash, &["/v1.0/me\\users", "/v1.0/me/..\\users"]),
        (
            DoubledEncoding,
            &[
                "/v1.0/me/%252e%252e/users",
                "/v1.0/me/%25252e/users",
                "/v1.0/me%252fusers",
                "/v1.0/me%25252Fusers",
                "/v1.0/me%255cusers",
                "/v1.0/me%2500",
                "/v1.0/mess%2561ges",
                "/v1.0/me/%25%32%65%25%32%65/users",
                "/v1.0/me/%25%32%66users",
                "/v1.0/me%25u002fusers",
                "/v1.0/me%25U2215users",
            ],
        ),
        (
            NotUtf8,
            &[
                "/v1.0/%ff",
                "/v1.0/me%c0%afusers",
                "/v1.0/me/%c0%ae%c0%ae/users",
                "/v1.0/me%e0%80%afusers",
                "/v1.0/%ed%a0%80",
            ],
        ),
        (
            Control,
            &[
                "/v1.0/me%00",
                "/v1.0/me/..%00",
                "/v1.0/me/..%01/users",
                "/v1.0/me%0d%0a",
                "/v1.0/me%09",
                "/v1.0/me%7f",
                "/v1.0/me%c2%85",
            ],
        ),
        (
            Lookalike,
            &[
                "/v1.0/me%EF%BC%8Fusers",
                "/v1.0/me\u{ff0f}users",
                "/v1.0/me%E2%88%95users",
                "/v1.0/me%e2%81%84users",
                "/v1.0/me/%ef%bc%8e%ef%bc%8e/users",
                "/v1.0/me/%e2%80%a4%e2%80%a4/users",
                "/v1.0/me/%ef%b9%92./users",
                "/v1.0/me%ef%bc%bcusers",
                "/v1.0/me%ef%b9%a8users",
                "/v1.0/%e2%84%80",
            ],
        ),
        (
            DotSegment,
            &[
                "/v1.0/me/../users",
                "/v1.0/me/%2e%2e/users",
                "/v1.0/me/%2E%2e/users",
                "/v1.0/me/.%2e/users",
                "/v1.0/me/..;/users",
                "/v1.0/me/..;x=1/users",
                "/v1.0/me/..%3b/users",
                "/v1.0/./me",
                "/v1.0/me/.",
                "/v1.0/me/%2E/",
                "/v1.0/me/.../users",
                "/v1.0/me/..%20/users",
                "/v1.0/me/%20../users",
                "/v1.0/me/.%20./users",
                "/v1.0/me/%c2%a0../users",
                "/v1.0/me/%e2%80%a5/users",
                "/v1.0/me/%e2%80%a6",
                "/v1.0/me/microsoft.graph.../users",
                "/..",
            ],
        ),
        (
            EmptySegment,
            &[
                "/v1.0//users",
                "/v1.0///users",
                "/v1.0/me//",
                "//v1.0/me",
                "//",
                "/v1.0/;x=1/me",
                "/v1.0/%20/me",
                "/v1.0/%E3%80%80/me",
                "/v1.0/microsoft.graph./me",
                "/v1.0/()/me",
            ],
        ),
        (
            Key,
            &[
                "/v1.0/users('x')('y')",
                "/v1.0/users()('x')",
                "/v1.0/users('')",
                "/v1.0/users('..')/x",
                "/v1.0/users(id='.')",
                "/v1.0/users('a/b')",
                "/v1.0/users(ID='a/b')",
                "/v1.0/users('a(''b'')')",
            ],
        ),
    ] {
        for path in paths {
            assert_eq!(canonical(path), Err(unclear), "{path}");
        }
    }
}

#[test]
fn odd_but_clear_paths_have_one() {
    for (path, expected) in [
        ("/", "/"),
        ("/v1.0/me", "/v1.0/me"),
        ("/v1.0/ME/Messages/", "/v1.0/me/messages"),
        ("/v1.0/m%45/mess%61ges", "/v1.0/me/messages"),
        ("/v1.0/users('x')/messages", "/v1.0/users/x/messages"),
        ("/v1.0/users(%27x%27)", "/v1.0/users/x"),
        ("/v1.0/users%28'x'%29", "/v1.0/users/x"),
        ("/v1.0/users(id='x')/messages", "/v1.0/users/x/messages"),
        ("/v1.0/users(%20id%20=%20'x'%20)/messages", "/v1.0/users/x/messages"),
        ("/v1.0/users('O''Neil')", "/v1.0/users/o'neil"),
        ("/v1.0/users('O'')Neil')", "/v1.0/users/o')neil"),
        ("/v1.0/users/O%27Neil", "/v1.0/users/o'neil"),
        ("/v1.0/users('x');a=b/messages", "/v1.0/users/x;a=b/messages"),
        ("/v1.0/users('x')y", "/v1.0/users('x')y"),
        ("/v1.0/users(@u)", "/v1.0/users(@u)"),
        ("/v1.0/items(5)", "/v1.0/items(5)"),
        ("/v1.0/users/x%23EXT%23@t", "/v1.0/users/x#ext#@t"),
        ("/v1.0/me/messages%3f$top=1", "/v1.0/me/messages?$top=1"),
        ("/v1.0/me;a=b", "/v1.0/me;a=b"),
        ("/v1.0/me%20", "/v1.0/me "),
        ("/v1.0/me.", "/v1.0/me."),
        ("/v1.0/me/messages()/$count", "/v1.0/me/messages/$count"),
        ("/v1.0/me/sendMail(%20)", "/v1.0/me/sendmail"),
        ("/v1.0/me/photo/$value/", "/v1.0/me/photo/$value"),
        ("/v1.0/me/f(a='x',b='y')", "/v1.0/me/f(a='x',b='y')"),
        ("/v1.0/me/drive/root/search(q='')", "/v1.0/me/drive/root/search(q='')"),
        ("/v1.0/me/drive/root/search(q='f()')", "/v1.0/me/drive/root/search(q='f()')"),
        ("/v1.0/sites/root/getByPath(path='/a/b')", "/v1.0/sites/root/getbypath(path='/a/b')"),
        ("/v1.0/me/drive/root:/a%20(1).txt", "/v1.0/me/drive/root:/a (1).txt"),
        ("/v1.0/me/drive/root%3A/A('1')/b:/items('2')", "/v1.0/me/drive/root:/a('1')/b:/items/2"),
        ("/v1.0/me/drive/root:/a%20b.txt:/content", "/v1.0/me/drive/root:/a b.txt:/content"),
        ("/v1.0/me/drive/root:/wait%E2%80%A6.txt", "/v1.0/me/drive/root:/wait\u{2026}.txt"),
        ("/v1.0/me/microsoft.graph.microsoft.graph.sendMail", "/v1.0/me/sendmail"),
        ("/v1.0/me/Microsoft%2EGraph.sendMail()", "/v1.0/me/sendmail"),
        ("/v1.0/me/messages/AAMk%3D%21", "/v1.0/me/messages/aamk=!"),
        ("/v1.0/%24batch", "/v1.0/$batch"),
        ("/v1.0/100%25", "/v1.0/100%"),
        ("/v1.0/CAF%C3%89", "/v1.0/caf\u{e9}"),
        ("/v1.0/\u{39f}\u{394}\u{3a3}", "/v1.0/\u{3bf}\u{3b4}\u{3c3}"),
        ("/v1.0/\u{3bf}\u{3b4}\u{3c2}", "/v1.0/\u{3bf}\u{3b4}\u{3c3}"),
        ("/v1.0/u%C5%BFers/%E2%84%AA", "/v1.0/u\u{17f}ers/\u{212a}"),
    ] {
        assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn a_careless_reader_drops_parameters_dots_and_spaces() {
    for (path, expected) in [
        ("/v1.0/me/a.b", None),
        ("/v1.0/a b/c", None),
        ("/v1.0/me;x=1/users", Some("/v1.0/me/users")),
        ("/v1.0/me. ./users;", Some("/v1.0/me/users")),
        ("/v1.0/me\u{3000}", Some("/v1.0/me")),
        ("/v1.0/ users/x", Some("/v1.0/users/x")),
    ] {
        assert_eq!(careless(path).as_deref(), expected, "{path}");
    }
}

/// Pieces of which paths are made that servers have stumbled over.
#[test]
fn nearly_all_paths_are_plain() {
    for path in [
        "/v1.0/me/mailFolders/inbox/messages",
        "/beta/users/a.b@contoso.com/drive/root:/a-b.txt:/content",
        "/v1.0/$batch",
    ] {
        assert!(plain(path).is_some(), "{path}");
    }
    for path in [
        "",
        "/",
        "v1.0/me",
        "/v1.0/",
        "/a//b",
        "/a./b",
        "/a/..",
        "/a/.",
        "/a b",
        "/a%20",
        "/a(b)",
        "/a;b",
        "/a\\b",
        "/\u{e9}",
        "/me/Microsoft.Graph.x",
        "/a\t",
    ] {
        assert!(plain(path).is_none(), "{path}");
    }
}

fn path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "a",
        "B",
        "0",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%5C",
        "%25",
        "%",
        "\\",
        "(",
        ")",
        "()",
        "'",
        "''",
        "('x')",
        "(id='",
        "('",
        "')",
        ":",
        ":/",
        ";",
        "=",
        " ",
        "%20",
        "@",
        "é",
        "%C3%89",
        "Σ",
        "İ",
        "ﬀ",
        "…",
        "%ff",
        "%00",
        "microsoft.graph.",
        "/Microsoft.Graph.",
        "$batch",
        ",",
        "\u{ff0f}",
        "K",
        "_",
        "~",
    ]);
    prop_oneof![
        4 => prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat())),
        1 => any::<String>(),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

/// Every byte as an escape.
fn escaped_wholly(path: &str) -> String {
    path.bytes().map(|byte| if byte == b'/' { "/".to_owned() } else { format!("%{byte:02X}") }).collect()
}

/// The plainest reading: decoded, in lower case, without what stands for nothing. For paths without parentheses and drives.
fn model(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8().unwrap();
    let segments = decoded.split('/').map(|segment| {
        let mut segment: String = segment.chars().map(folded).collect();
        while let Some(name) = segment.strip_prefix("microsoft.graph.") {
            segment = name.to_owned();
        }
        segment
    });
    let path = segments.collect::<Vec<_>>().join("/");
    if path.len() > 1 { path.strip_suffix('/').map(str::to_owned).unwrap_or(path) } else { path }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_accepted_is_read_in_one_way(path in path()) {
        let Ok(accepted) = canonical(&path) else { return Ok(()) };
        prop_assert!(accepted.starts_with('/'));
        // Again, as a server behind another one would read it.
        let again = canonical(&escaped_wholly(&accepted)).map(Cow::into_owned);
        prop_assert_eq!(again.as_deref(), Ok(&*accepted));
        let further = percent_decode_str(&accepted).decode_utf8().unwrap();
        prop_assert_eq!(&*further, &*accepted);
        let upwards = |segment: &str| segment.trim_matches(|c: char| c == '.' || c.is_whitespace()).is_empty();
        prop_assert!(*accepted == *"/" || !accepted[1..].split('/').any(upwards), "{}", accepted);
        prop_assert!(!accepted.contains(['\\', '\0', '\r', '\n', '\u{ff0f}']), "{}", accepted);
        if let Some(careless) = careless(&accepted) {
            prop_assert!(!careless[1..].split('/').any(upwards), "{}", careless);
        }
        if !accepted.contains(['(', ':']) && !path.contains(['(', '%']) {
            prop_assert_eq!(&*accepted, model(&path));
        }
    }

    #[test]
    fn what_looks_plain_is_what_a_closer_look_makes_of_it(path in path()) {
        if plain(&path).is_some() {
            let canonical = super::canonical(&path).unwrap();
            prop_assert!(!canonical.text.split('/').any(|segment| name_of(segment).len() != segment.len()), "{}", path);
            prop_assert_eq!(Ok(canonical), undone(&path), "{}", path);
        }
    }

    #[test]
    fn escapes_of_what_needs_none_change_nothing(path in path(), which in any::<u64>()) {
        let (mut escaped, mut bytes, mut bits) = (String::new(), path.char_indices(), which);
        while let Some((at, c)) = bytes.next() {
            bits = bits.rotate_left(1);
            if c == '%' {
                // What follows belongs to it.
                let end = path[at + 1..].char_indices().map(|(at, c)| at + c.len_utf8()).nth(1).unwrap_or(path[at + 1..].len());
                escaped.push_str(&path[at..=at + end]);
                bytes.by_ref().take(path[at + 1..=at + end].chars().count()).for_each(drop);
            } else if bits & 1 == 1 && (c.is_ascii_alphanumeric() || "-._~".contains(c)) {
                escaped.extend(["%", &format!("{:02x}", u32::from(c))]);
            } else {
                escaped.push(c);
            }
        }
        prop_assert_eq!(canonical(&escaped), canonical(&path), "{}", escaped);
    }

    #[test]
    fn folding_is_done_once(c in any::<char>()) {
        prop_assert_eq!(folded(folded(c)), folded(c));
        prop_assert!(c.is_ascii() || !folded(c).is_ascii());
    }
}

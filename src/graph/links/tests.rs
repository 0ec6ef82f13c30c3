//! The rewriter against a plain model, which takes a whole JSON text apart from its first byte to its last.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const UPSTREAM: &str = "https://graph.microsoft.com";
const CLIENT: &str = "http://proxy:8080/as/al\"ice";

fn links() -> Links<'static> {
    Links::new(UPSTREAM, CLIENT).unwrap()
}

/// What comes out, and the most that was withheld at any time.
fn streamed(text: &[u8], cuts: &[usize]) -> (Vec<u8>, usize) {
    let mut rewriter = links().rewriter();
    let mut out = Vec::new();
    let mut withheld = 0;
    let mut rest = Bytes::copy_from_slice(text);
    for size in cuts.iter().copied().cycle() {
        if rest.is_empty() {
            break;
        }
        rewriter.feed(rest.split_to(size.min(rest.len())));
        while let Some(piece) = rewriter.next() {
            assert!(!piece.is_empty());
            out.extend_from_slice(&piece);
        }
        withheld = withheld.max(rewriter.held.len());
    }
    rewriter.end();
    out.extend(std::iter::from_fn(|| rewriter.next()).flatten());
    (out, withheld)
}

/// The model: a JSON text, value by value.
struct Model<'t> {
    text: &'t str,
    at: usize,
    out: String,
}

impl<'t> Model<'t> {
    fn of(text: &str) -> String {
        let mut model = Model { text, at: 0, out: String::new() };
        model.value(None);
        model.space();
        assert_eq!(model.at, text.len(), "the generator makes valid JSON");
        model.out
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes()[self.at]
    }

    fn copy(&mut self, length: usize) {
        self.out.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.copy(rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len());
    }

    /// The inside of the string that begins here.
    fn string(&self) -> &'t str {
        let inside = &self.text[self.at + 1..];
        let mut escaped = false;
        let end = inside.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        &inside[..end.unwrap()]
    }

    fn value(&mut self, key: Option<&str>) {
        self.space();
        match self.peek() {
            b'"' => {
                let inside = self.string();
                self.at += inside.len() + 2;
                let link = key.filter(|key| is_link(key)).and_then(|_| rewritten(inside));
                self.out.extend(["\"", link.as_deref().unwrap_or(inside), "\""]);
            }
            open @ (b'{' | b'[') => {
                self.copy(1);
                self.space();
                while !matches!(self.peek(), b'}' | b']') {
                    let key = (open == b'{').then(|| {
                        self.space();
                        let key = self.string();
                        self.copy(key.len() + 2);
                        self.space();
                        self.copy(1);
                        key
                    });
                    self.value(key);
                    self.space();
                    if self.peek() == b',' {
                        self.copy(1);
                    }
                }
                self.copy(1);
            }
            _ => {
                let rest = &self.text[self.at..];
                self.copy(rest.find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(rest.len()));
            }
        }
    }
}

fn is_link(key: &str) -> bool {
    const NAMES: &str =
        "nextLink deltaLink id context navigationLink editLink readLink mediaReadLink mediaEditLink associationLink";
    matches!(key, "resourceLocation" | "targetResourceLocation")
        || NAMES.split(' ').any(|name| key.ends_with(&format!("@odata.{name}")))
}

fn rewritten(inside: &str) -> Option<String> {
    let spellings = ["//", r"\/\/", r"/\/", r"\//"].map(|slashes| UPSTREAM.replace("//", slashes));
    let rest = spellings.iter().find_map(|origin| inside.strip_prefix(origin.as_str()))?;
    let ends = rest.is_empty() || ["/", r"\/", "?", "#"].iter().any(|start| rest.starts_with(start));
    ends.then(|| format!("{}{rest}", CLIENT.replace('"', "\\\"")))
}

/// The inside of a string, as it is written: pieces that mislead.
fn inside() -> impl Strategy<Value = String> {
    let piece = select(
        &[
            UPSTREAM,
            r"https:\/\/graph.microsoft.com",
            r"https:\//graph.microsoft.com",
            "https://graph.microsoft.com.evil",
            "https://graph.microsoft.com@evil",
            "https://graph.microsoft.com:8443",
            "https://u:p@graph.microsoft.com",
            "http://graph.microsoft.com",
            "xhttps://graph.microsoft.com",
            "//graph.microsoft.com",
            "https://graph.micr",
            r#"\"@odata.nextLink\":\"https://graph.microsoft.com/"#,
            r#"\\\"@odata.id\" : \"https:\/\/graph.microsoft.com/"#,
            r#"\",\"resourceLocation\":\""#,
            "@odata.nextLink",
            "resourceLocation",
            r"\\",
            r#"\""#,
            r"\/",
            "/",
            "?$skiptoken=%2b%2F'x'",
            "#",
            ":",
            "  ",
            "é\u{1F600}",
            r"\u0022",
            "h",
        ][..],
    );
    prop_oneof![
        3 => vec(piece.clone(), 0..4).prop_map(|pieces| pieces.concat()),
        3 => vec(piece, 0..3).prop_map(|pieces| format!("{UPSTREAM}/{}", pieces.concat())),
        1 => Just(UPSTREAM.to_owned()),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = select(
        &[
            "@odata.nextLink",
            "@odata.deltaLink",
            "@odata.id",
            "@odata.context",
            "@odata.navigationLink",
            "@odata.mediaReadLink",
            "@odata.associationLink",
            "messages@odata.nextLink",
            r"a\\@odata.id",
            r#"a\"b@odata.readLink"#,
            "resourceLocation",
            "targetResourceLocation",
            r#"\"resourceLocation"#,
            r#"\\\"targetResourceLocation"#,
            "myresourceLocation",
            "@odata.nextLinks",
            "odata.nextLink",
            "@microsoft.graph.downloadUrl",
            "uploadUrl",
            "webUrl",
        ][..],
    );
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => inside()]
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,60}"]
}

/// A JSON text.
fn json() -> impl Strategy<Value = String> {
    let string = inside().prop_map(|inside| format!("\"{inside}\""));
    let other = select(&["null", "true", "-1.5e3", "[]", "{}", "[ ]", "{\n}"][..]).prop_map(str::to_owned);
    let spaced = |value: BoxedStrategy<String>| (space(), value, space()).prop_map(|(a, b, c)| a + &b + &c).boxed();
    let leaf = prop_oneof![4 => string, 1 => other].boxed();
    let value = spaced(leaf).prop_recursive(5, 60, 6, move |value| {
        let quoted = spaced(key().prop_map(|key| format!("\"{key}\"")).boxed());
        let member = (quoted, value.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        let object = vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(",")));
        let array = vec(value, 1..4).prop_map(|values| format!("[{}]", values.join(",")));
        spaced(prop_oneof![3 => object, 1 => array].boxed())
    });
    spaced(value.boxed())
}

/// The sizes of chunks.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..4, 1_usize..40, 40_usize..400], 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_json_in_any_chunks_becomes_what_the_model_makes_of_it(text in json(), cuts in cuts()) {
        let expected = Model::of(&text);
        let (out, withheld) = streamed(text.as_bytes(), &cuts);
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected.clone());
        prop_assert!(withheld <= UPSTREAM.len() + 3, "{} bytes", withheld);
        let whole = links().whole(text.as_bytes()).map(|whole| String::from_utf8(whole).unwrap());
        prop_assert_eq!(whole, (expected != text).then_some(expected));
    }

    /// Truncated, cut out, or with bytes in it that don't belong there: however it is cut, the same comes out, and what is not a link is kept.
    #[test]
    fn what_is_no_json_loses_nothing(
        text in json(),
        cuts in cuts(),
        (from, to) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        noise in vec(any::<u8>(), 0..6),
    ) {
        let mut text = text.into_bytes();
        let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
        text.splice(from.min(to)..from.max(to), noise);
        let (out, withheld) = streamed(&text, &cuts);
        prop_assert_eq!(&out, &links().whole(&text).unwrap_or_else(|| text.clone()));
        prop_assert!(withheld <= UPSTREAM.len() + 3);
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(r"\/", "/");
        let client = CLIENT.replace('"', "\\\"");
        prop_assert_eq!(lossy(&out).replace(&client, UPSTREAM), lossy(&text));
    }

    #[test]
    fn bytes_without_a_link_stay(bytes in vec(any::<u8>(), 0..300), cuts in cuts()) {
        prop_assert_eq!(links().whole(&bytes), None);
        prop_assert_eq!(streamed(&bytes, &cuts).0, bytes);
    }
}

#[test]
fn every_cut_of_a_page_gives_the_same() {
    let page = r#"{ "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#x", "@odata.nextLink"
        :    "https:\/\/graph.microsoft.com\/v1.0\/me?$skiptoken=%2B", "value": [ {"body": "<a href=\"https://graph.microsoft.com/\">",
        "a@odata.id":"https://graph.microsoft.com","uploadUrl":"https://graph.microsoft.com/up" } ] }"#;
    let expected = Model::of(page);
    assert_eq!(expected.matches("http://proxy:8080").count(), 3);
    for first in 1..page.len() {
        for second in [1, 2, 7, page.len()] {
            let (out, _) = streamed(page.as_bytes(), &[first, second, page.len()]);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "cut at {first} and {second} later");
        }
    }
}

#[test]
fn a_piece_without_a_link_is_not_copied_and_one_with_links_comes_in_one() {
    let page = Bytes::from(format!("{{\"@odata.nextLink\":\"{UPSTREAM}/a\",\"x\":\"{}\"}}", "y".repeat(100_000)));
    let mut rewriter = links().rewriter();
    rewriter.feed(page.clone());
    assert_eq!(
        rewriter.next().map(|piece| piece.starts_with(b"{\"@odata.nextLink\":\"http://proxy:8080/as/al")),
        Some(true)
    );
    assert_eq!(rewriter.next(), None);
    let rest = page.slice(50_000..);
    rewriter.feed(rest.clone());
    assert_eq!(rewriter.next().map(|piece| piece.as_ptr()), Some(rest.as_ptr()));
}

#[test]
fn a_megabyte_of_white_space_is_no_obstacle_and_not_kept() {
    let text = format!("{{\"@odata.id\"{0}:{0}\"{UPSTREAM}/a\"}}", " \n".repeat(500_000));
    let (out, withheld) = streamed(text.as_bytes(), &[1000]);
    assert_eq!((out.len(), withheld <= UPSTREAM.len()), (text.len() - UPSTREAM.len() + CLIENT.len() + 1, true));
}

#[test]
fn headers_that_name_the_upstream_are_turned() {
    for (value, expected) in [
        ("https://graph.microsoft.com/v1.0/a?b#c", Some("http://proxy:8080/as/al\"ice/v1.0/a?b#c")),
        ("HTTPS://Graph.Microsoft.com", Some("http://proxy:8080/as/al\"ice")),
        ("https://graph.microsoft.com?x", Some("http://proxy:8080/as/al\"ice?x")),
        ("https://graph.microsoft.com.evil/", None),
        ("https://graph.microsoft.com@evil/", None),
        ("https://graph.microsoft.com:443/", None),
        ("https://é", None),
        ("/teams('1')/operations('2')", None),
        ("", None),
    ] {
        assert_eq!(links().url(value).as_deref(), expected, "{value}");
    }
    assert!(Links::new(UPSTREAM, UPSTREAM).is_none());
}

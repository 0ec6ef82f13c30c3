//! Links in request bodies, the other way round: they may name us, in the words that a client knows. Pure.
//!
//! The body must be JSON from its first byte to its last, nested as deeply as it likes; anything else stays as it is. All of it is left as
//! it was written, but for the strings that are replaced.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use memchr::{memchr, memchr2, memmem};
use serde::de::IgnoredAny;

use super::keys;

/// A whole JSON request body, whose links (`@odata.id`, `<property>@odata.bind`) may name us: `translate`, which gets the key and the URL,
/// says what the upstream knows it as, or refuses. `None`: nothing in it has to change.
pub fn in_request<E>(
    body: &[u8],
    mut translate: impl FnMut(&str, &str) -> Result<Option<String>, E>,
) -> Result<Option<Vec<u8>>, E> {
    if !may_have_links(body) || serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Ok(None);
    }
    let mut rewritten = Vec::new();
    let mut done = 0;
    for Link { key, value } in (Scan { body, at: 0, key: None }) {
        let Some(url) = decoded(&body[value.clone()]) else { continue };
        if let Some(url) = translate(&key, &url)? {
            rewritten.extend_from_slice(&body[done..value.start]);
            rewritten.extend_from_slice(serde_json::Value::from(url).to_string().as_bytes());
            done = value.end;
        }
    }
    Ok((done > 0).then(|| {
        rewritten.extend_from_slice(&body[done..]);
        rewritten
    }))
}

/// What each of the keys has.
fn may_have_links(body: &[u8]) -> bool {
    keys::PARTS.iter().any(|part| memmem::find(body, part.as_bytes()).is_some())
}

/// A string that is the value of a key of ours, or in the list that is: with its quotes.
struct Link {
    /// Shared: both the list and its key may be long.
    key: Rc<str>,
    value: Range<usize>,
}

/// The links of a valid JSON text.
struct Scan<'b> {
    body: &'b [u8],
    at: usize,
    /// The key whose list is being read.
    key: Option<Rc<str>>,
}

impl Iterator for Scan<'_> {
    type Item = Link;

    fn next(&mut self) -> Option<Link> {
        loop {
            if let Some(key) = self.key.take() {
                if let Some(value) = self.string_here() {
                    if self.skip(b',') {
                        self.key = Some(Rc::clone(&key));
                    }
                    return Some(Link { key, value });
                }
                continue;
            }
            self.at += memchr(b'"', &self.body[self.at..])?;
            let text = self.string_here()?;
            if !self.skip(b':') {
                continue;
            }
            let Some(key) = decoded(&self.body[text]).filter(|key| keys::is_link_in_request(key)) else { continue };
            if self.skip(b'[') {
                self.key = Some(key.into());
            } else if let Some(value) = self.string_here() {
                return Some(Link { key: key.into(), value });
            }
        }
    }
}

impl Scan<'_> {
    /// The string that begins here, with its quotes.
    fn string_here(&mut self) -> Option<Range<usize>> {
        self.skip_space();
        let start = self.at;
        if self.body.get(start) != Some(&b'"') {
            return None;
        }
        let mut at = start + 1;
        loop {
            at += memchr2(b'"', b'\\', self.body.get(at..)?)?;
            if self.body[at] == b'"' {
                self.at = at + 1;
                return Some(start..self.at);
            }
            at += 2;
        }
    }

    fn skip(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_there = self.body.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_space(&mut self) {
        let space = self.body[self.at..].iter().take_while(|byte| keys::is_space(**byte)).count();
        self.at += space;
    }
}

/// What a string means that has its quotes.
fn decoded(string: &[u8]) -> Option<Cow<'_, str>> {
    if string.contains(&b'\\') {
        serde_json::from_slice(string).ok().map(Cow::Owned)
    } else {
        std::str::from_utf8(&string[1..string.len() - 1]).ok().map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn translated(body: &str) -> Option<String> {
        let translate = |url: &str| url.strip_prefix("http://us/").map(|rest| format!("https://graph/{rest}"));
        let translated = in_request(body.as_bytes(), |_, url| Ok::<_, Infallible>(translate(url)));
        translated.unwrap().map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn links_to_us_are_turned_and_all_else_stays() {
        for (body, expected) in [
            (r#"{"@odata.id":"http://us/v1.0/users/1"}"#, r#"{"@odata.id":"https://graph/v1.0/users/1"}"#),
            (
                r#"{ "@odata.id" : "http:\/\/us\/v1.0\/\u0061" , "é":1.50}"#,
                r#"{ "@odata.id" : "https://graph/v1.0/a" , "é":1.50}"#,
            ),
            (r#"{"manager@odata.bind":"http://us/a"}"#, r#"{"manager@odata.bind":"https://graph/a"}"#),
            (
                r#"{"members@odata.bind":[ "http://us/a","https://else/b" , "http://us/c"],"x":["http://us/d"]}"#,
                r#"{"members@odata.bind":[ "https://graph/a","https://else/b" , "https://graph/c"],"x":["http://us/d"]}"#,
            ),
            (r#"[{"a":{"m\u0040odata.bind":"http://us/a"}}]"#, r#"[{"a":{"m\u0040odata.bind":"https://graph/a"}}]"#),
            (r#"{"resourceLocation":"http://us/a\"b"}"#, r#"{"resourceLocation":"https://graph/a\"b"}"#),
        ] {
            assert_eq!(translated(body).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn what_only_looks_like_a_link_stays() {
        for body in [
            r#"{"body":"{\"@odata.id\":\"http://us/a\"}"}"#,
            r#"{"notificationUrl":"http://us/a","@odata.type":"http://us/b"}"#,
            r#"{"a@odata.bind":{"x":"http://us/a"},"b@odata.bind":[["http://us/a"],{"y":"http://us/a"}]}"#,
            r#"{"@odata.bind":[],"a":"http://us/a"}"#,
            r#"{"@odata.bind":[1,"http://us/a"]}"#,
            r#"["@odata.id","http://us/a"]"#,
            r#"{"@odata.id":"http://us/a"} x"#,
            r#"{"@odata.id":"http://us/a""#,
            r#"{"@odata.id":"http://us/a\"#,
            "\u{feff}{\"@odata.id\":\"http://us/a\"}",
            "",
        ] {
            assert_eq!(translated(body), None, "{body}");
        }
        let deep = |url: &str| format!("{}{{\"@odata.id\":\"{url}\"}}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(translated(&deep("http://us/a")), Some(deep("https://graph/a")));
        let not_utf8 = in_request(b"{\"@odata.id\":\"\xff\"}", |_, _| Ok::<_, Infallible>(Some(String::new())));
        assert_eq!(not_utf8, Ok(None));
    }

    #[test]
    fn the_key_of_a_long_list_is_not_copied_for_each_item() {
        let body = br#"{"\u0061@odata.bind":["http://us/a","http://us/b","http://us/c"]}"#;
        let mut places = Vec::new();
        let read = in_request(body, |key, _| {
            places.push(key.as_ptr());
            Ok::<_, Infallible>(None)
        });
        assert_eq!(read, Ok(None));
        assert!(places.len() == 3 && places.iter().all(|place| *place == places[0]), "{places:?}");
    }

    #[test]
    fn a_refusal_knows_the_key() {
        let body = br#"{"owners@odata.bind":["http://us/a"]}"#;
        assert_eq!(
            in_request(body, |key, url| Err(format!("{key} {url}"))),
            Err("owners@odata.bind http://us/a".to_owned())
        );
    }
}

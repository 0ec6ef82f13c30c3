//! Which keys have links as their values, and how that is read backwards from a value. Pure.
//!
//! Never the pre-authenticated places (`uploadUrl`, `@microsoft.graph.downloadUrl`) or what people open (`webUrl`): those name other hosts,
//! and must reach the client as they are.

use http::header::{CONTENT_LOCATION, HeaderName, LOCATION};

/// After `@odata.`; a property's name may stand before that.
const ANNOTATIONS: [&str; 10] = [
    "nextLink",
    "deltaLink",
    "id",
    "context",
    "navigationLink",
    "editLink",
    "readLink",
    "mediaReadLink",
    "mediaEditLink",
    "associationLink",
];
/// Only in requests.
const BIND: &str = "bind";
/// Properties of operations that take their time.
const PROPERTIES: [&str; 2] = ["resourceLocation", "targetResourceLocation"];

/// Headers whose value is a URL that the client is to follow.
pub const URLS: [HeaderName; 3] = [LOCATION, CONTENT_LOCATION, HeaderName::from_static("operation-location")];

/// One of these is part of each key.
pub const PARTS: [&str; 2] = ["odata.", "esourceLocation"];

/// The longest key, with both its quotes, and what stands before the first.
const LONGEST_KEY: usize = 25;
/// The same, a colon with white space on both sides, and the value's quote.
const ENOUGH: usize = LONGEST_KEY + 4;

/// A key of a request body, without its quotes.
pub fn is_link_in_request(key: &str) -> bool {
    let annotation = key.rsplit_once("@odata.").map(|(_, annotation)| annotation);
    PROPERTIES.contains(&key) || annotation.is_some_and(|name| name == BIND || ANNOTATIONS.contains(&name))
}

/// The end of a text, as far as it may tell that a link follows. Of white space one byte stands for a run.
#[derive(Debug, Default)]
pub struct Passed {
    /// In reverse.
    end: [u8; ENOUGH],
    length: usize,
}

impl Passed {
    pub fn append(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let mut end = [0; ENOUGH];
        let mut length = 0;
        for byte in self.backwards(text) {
            let byte = if is_space(byte) { b' ' } else { byte };
            if length > 0 && byte == b' ' && end[length - 1] == b' ' {
                continue;
            }
            if length == ENOUGH {
                break;
            }
            end[length] = byte;
            length += 1;
        }
        *self = Self { end, length };
    }

    /// Whether what follows `text` is the inside of a string that is a link: what it ends with is a key of ours, a colon and a quote.
    pub fn announces_link(&self, text: &[u8]) -> bool {
        let mut before = self.backwards(text);
        if before.next() != Some(b'"') {
            return false;
        }
        let mut before = before.skip_while(|byte| is_space(*byte));
        if before.next() != Some(b':') {
            return false;
        }
        let mut before = before.skip_while(|byte| is_space(*byte));
        if before.next() != Some(b'"') {
            return false;
        }
        let mut key = [0; LONGEST_KEY];
        let mut start = LONGEST_KEY;
        for (place, byte) in key.iter_mut().rev().zip(before) {
            *place = byte;
            start -= 1;
        }
        ends_with_key(&key[start..])
    }

    fn backwards<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = u8> + 't {
        text.iter().rev().chain(&self.end[..self.length]).copied()
    }
}

/// Whether the key ends so that precedes its closing quote. Of a property's name the beginning counts too: a quote that is not escaped.
fn ends_with_key(text: &[u8]) -> bool {
    let annotated = |name: &&str| text.strip_suffix(name.as_bytes()).is_some_and(|rest| rest.ends_with(b"@odata."));
    let property = |name: &&str| {
        let rest = text.strip_suffix(name.as_bytes());
        rest.is_some_and(|rest| rest.ends_with(b"\"") && !rest.ends_with(b"\\\""))
    };
    ANNOTATIONS.iter().any(annotated) || PROPERTIES.iter().any(property)
}

pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_every_key() {
        assert!(PROPERTIES.iter().all(|name| name.contains(PARTS[1])) && "@odata.".contains(PARTS[0]));
        let keys = ANNOTATIONS.iter().map(|name| name.len() + "@odata.".len());
        let properties = PROPERTIES.iter().map(|name| name.len() + "\\\"".len());
        assert!(keys.chain(properties).all(|needed| needed < LONGEST_KEY));
    }

    #[test]
    fn the_end_of_a_text_is_enough() {
        for (text, expected) in [
            ("{\"@odata.nextLink\":\"", true),
            ("{\"messages@odata.nextLink\" \r\n:\t\t\"", true),
            ("{\"targetResourceLocation\" : \"", true),
            ("{\"a\\\\targetResourceLocation\":\"", false),
            ("{\"\\\"resourceLocation\":\"", false),
            ("{\"myResourceLocation\":\"", false),
            ("{\"@odata.nextLinks\":\"", false),
            ("{\"odata.nextLink\":\"", false),
            ("{\"@odata.type\":\"", false),
            ("{\"@microsoft.graph.downloadUrl\":\"", false),
            ("[\"@odata.nextLink\",\"", false),
            ("{\"@odata.nextLink\":[\"", false),
            ("\"\\\"@odata.nextLink\\\":\\\"", false),
            ("", false),
        ] {
            assert_eq!(Passed::default().announces_link(text.as_bytes()), expected, "{text}");
            let mut passed = Passed::default();
            for byte in text.as_bytes() {
                passed.append(&[*byte]);
            }
            assert_eq!(passed.announces_link(b""), expected, "{text}");
        }
    }
}

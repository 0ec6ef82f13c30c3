//! Secrets that can be recognised, and the search for them, in every form in which they might be written down.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Enough of a secret to be worth something.
const PIECE: usize = 16;

/// Something that came out, and where.
pub struct Output {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Output {
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

/// What must not be found: a name for it, and its forms.
pub struct Canary {
    name: String,
    forms: Vec<String>,
}

impl Canary {
    pub fn new(name: impl Into<String>, secret: &str) -> Self {
        assert!(secret.len() >= PIECE, "too short to be recognised: {secret}");
        let piece = &secret[..PIECE];
        let mut forms = vec![piece.to_owned(), form_urlencoded::byte_serialize(piece.as_bytes()).collect()];
        // Wherever the secret stands in what was encoded, its middle looks one of three ways.
        for shift in 0..3 {
            let shifted = [&b"\0\0"[..shift], piece.as_bytes()].concat();
            let whole = 4 * (shifted.len() / 3);
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                forms.push(engine.encode(&shifted)[4 * shift.min(1)..whole].to_owned());
            }
        }
        let bytes = &piece.as_bytes()[..8];
        forms.push(format!("{bytes:?}").trim_matches(['[', ']']).to_owned());
        forms.push(bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")));
        forms.sort();
        forms.dedup();
        Self { name: name.into(), forms }
    }

    /// A text that every secret of a kind begins with.
    pub fn beginning(name: &str, beginning: &str) -> Self {
        Self { name: name.to_owned(), forms: vec![beginning.to_owned()] }
    }
}

/// Every finding, with what stands around it.
pub fn search(outputs: &[Output], canaries: &[Canary]) -> Vec<String> {
    let mut found = Vec::new();
    for output in outputs {
        let text = String::from_utf8_lossy(&output.bytes);
        for canary in canaries {
            for form in &canary.forms {
                if let Some(at) = text.find(form) {
                    let start = text.floor_char_boundary(at.saturating_sub(120));
                    let end = text.ceil_char_boundary((at + 120).min(text.len()));
                    found.push(format!("{} in {}: ..{}..", canary.name, output.name, &text[start..end]));
                }
            }
        }
    }
    found
}

#[test]
fn the_search_finds_what_it_is_for() {
    let secret = "a+secret/that=is~long-enough";
    let canary = [Canary::new("it", secret)];
    let encoded = |prefix: &str| STANDARD_NO_PAD.encode(format!("{prefix}{secret} and so on"));
    for text in [
        format!("value={secret}"),
        format!("value={}", form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>()),
        encoded(""),
        encoded("x"),
        encoded("xy"),
        encoded("alice:"),
        format!("{:?}", secret.as_bytes()),
        format!("the first part of it: {}", &secret[..PIECE]),
    ] {
        assert!(!search(&[Output::new("here", text.clone())], &canary).is_empty(), "{text}");
    }
    assert!(search(&[Output::new("here", "nothing of the kind")], &canary).is_empty());
}

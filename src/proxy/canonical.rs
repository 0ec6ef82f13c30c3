//! The one form of a path that rules are matched against, as Graph reads it. Pure.
//!
//! A path that could be read in two ways has no canonical form, and is refused for everybody. One that only a reader with rules could
//! misread has one, and a doubt with it. What goes out is the path as it came.

mod keys;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

pub(super) use self::keys::plainly;
use super::error::{Kind, Refusal};

/// The canonical form of a path.
#[derive(Debug, PartialEq, Eq)]
pub struct Canonical<'p> {
    pub text: Cow<'p, str>,
    /// Why rules can't be asked about it.
    pub doubt: Option<Unclear>,
}

/// What makes a path ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error("no slash at its beginning")]
    NoSlash,
    #[error("a percent sign that begins no escape")]
    Percent,
    #[error("an encoded slash")]
    EncodedSlash,
    #[error("an encoded backslash")]
    EncodedBackslash,
    #[error("a backslash")]
    Backslash,
    #[error("a doubled encoding")]
    DoubledEncoding,
    #[error("bytes that are not UTF-8")]
    NotUtf8,
    #[error("a control character")]
    Control,
    #[error("a character that may count as a slash, a backslash or a dot")]
    Lookalike,
    #[error("a dot segment")]
    DotSegment,
    #[error("an empty segment")]
    EmptySegment,
    #[error("a key that may count as several segments")]
    Key,
}

/// How a path is written in which nothing is to be undone but upper case.
enum Plain {
    Lower,
    Mixed,
}

/// Percent-decoded once, in lower case, `name('key')` as `name/key`, `name()` as `name`, names without Graph's namespace
/// (`microsoft.graph.sendMail`), no slash at the end.
pub fn canonical(path: &str) -> Result<Canonical<'_>, Unclear> {
    let text = match plain(path) {
        Some(Plain::Lower) => Cow::Borrowed(path),
        Some(Plain::Mixed) => Cow::Owned(path.to_ascii_lowercase()),
        None => return undone(path),
    };
    Ok(Canonical { text, doubt: None })
}

/// Nearly all paths, told by one look at each byte: visible ASCII without escapes, keys and parameters, and no segment that is empty or ends
/// in a dot. `None`: it takes more than that.
fn plain(path: &str) -> Option<Plain> {
    let (first, rest) = path.as_bytes().split_first()?;
    let (mut before, mut has_upper) = (*first, false);
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            b'/' if matches!(before, b'/' | b'.') => return None,
            b'.' if keys::ends_with_namespace(&path[..=at]) => return None,
            b'%' | b'\\' | b'(' | b';' => return None,
            b'A'..=b'Z' => has_upper = true,
            b'!'..=b'~' => {}
            _ => return None,
        }
        before = *byte;
    }
    let is_clear = *first == b'/' && !matches!(before, b'/' | b'.');
    is_clear.then_some(if has_upper { Plain::Mixed } else { Plain::Lower })
}

/// The same for every path.
fn undone(path: &str) -> Result<Canonical<'_>, Unclear> {
    let decoded = decoded(path)?;
    // File names have such characters, and Graph takes them for what they are.
    let has_lookalike = !decoded.is_ascii() && decoded.contains(is_lookalike);
    if !decoded.starts_with('/') {
        return Err(Unclear::NoSlash);
    }
    let is_root = decoded.len() == 1;
    let named = match without_end_slash(decoded.into()) {
        text if keys::has_any(&text) => Cow::Owned(keys::as_segments(&text)?),
        text => text,
    };
    if !is_root {
        named[1..].split('/').try_for_each(clear)?;
    }
    Ok(Canonical { text: named, doubt: has_lookalike.then_some(Unclear::Lookalike) })
}

impl<'p> Canonical<'p> {
    /// Where rules may be asked about it.
    pub fn certain(self) -> Result<Cow<'p, str>, Unclear> {
        self.doubt.map_or(Ok(self.text), Err)
    }

    /// Whether it is the content of something: a JSON file is its owner's, links and all.
    pub fn is_file(&self) -> bool {
        self.text.ends_with("/$value") || self.text.ends_with("/content")
    }
}

/// How a careless server may read a canonical path: segments without parameters (`;x=1`) and without dots and spaces at their ends, or spaces at
/// their beginnings.
/// `None`: in no other way.
pub(super) fn careless(path: &str) -> Option<String> {
    let differs = |segment: &str| name_of(segment).len() != segment.len();
    if plain(path).is_some() || !path.split('/').any(differs) {
        return None;
    }
    Some(path.split('/').map(name_of).collect::<Vec<_>>().join("/"))
}

/// Upper and lower case as one, as ordinal comparisons without regard to case see it: never one character for several.
pub(super) fn folded(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // The letters that such comparisons leave alone though Unicode pairs them with ASCII.
    if matches!(c, 'ı' | 'ſ') {
        return c;
    }
    let upper = only(c.to_uppercase()).unwrap_or(c);
    let lower = only(upper.to_lowercase()).unwrap_or(upper);
    if only(lower.to_uppercase()) == Some(upper) { lower } else { upper }
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

fn decoded(path: &str) -> Result<String, Unclear> {
    for (at, _) in path.match_indices('%') {
        match escape(&path.as_bytes()[at + 1..]) {
            None => return Err(Unclear::Percent),
            Some(b'/') => return Err(Unclear::EncodedSlash),
            Some(b'\\') => return Err(Unclear::EncodedBackslash),
            Some(_) => {}
        }
    }
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| Unclear::NotUtf8)?;
    for (at, _) in decoded.match_indices('%') {
        let rest = &decoded.as_bytes()[at + 1..];
        let unicode = rest.first().is_some_and(|u| u.eq_ignore_ascii_case(&b'u'));
        if escape(rest).is_some() || unicode && escape(&rest[1..]).is_some() {
            return Err(Unclear::DoubledEncoding);
        }
    }
    let judged = |c: char| match c {
        '\\' => Err(Unclear::Backslash),
        c if c.is_control() => Err(Unclear::Control),
        c => Ok(folded(c)),
    };
    decoded.chars().map(judged).collect()
}

/// The byte that two hex digits stand for.
fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Characters that compatibility normalisation (NFKC) or a narrower alphabet turns into a slash, a backslash or a dot.
fn is_lookalike(c: char) -> bool {
    let slashes = matches!(
        c,
        '\u{2044}' | '\u{2100}' | '\u{2101}' | '\u{2105}' | '\u{2106}' | '\u{2215}' | '\u{29f8}' | '\u{ff0f}'
    );
    let backslashes = matches!(c, '\u{2216}' | '\u{29f5}' | '\u{29f9}' | '\u{fe68}' | '\u{ff3c}');
    slashes || backslashes || matches!(c, '\u{2024}' | '\u{fe52}' | '\u{ff0e}')
}

/// A segment of a canonical path is never one that a reader may skip or follow upwards.
fn clear(segment: &str) -> Result<(), Unclear> {
    match name_of(segment) {
        "" if segment.contains(is_dot) => Err(Unclear::DotSegment),
        "" => Err(Unclear::EmptySegment),
        _ => Ok(()),
    }
}

/// What a careless reader leaves of a segment.
pub(super) fn name_of(segment: &str) -> &str {
    let name = segment.split(';').next().unwrap_or_default();
    name.trim_end_matches(|c: char| is_dot(c) || c.is_whitespace()).trim_start()
}

/// A dot, or what is several dots in one character: in names that is common enough, alone it is not.
fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{2025}' | '\u{2026}' | '\u{fe19}' | '\u{fe30}')
}

fn only(mut chars: impl Iterator<Item = char>) -> Option<char> {
    chars.next().filter(|_| chars.next().is_none())
}

impl From<Unclear> for Refusal {
    fn from(unclear: Unclear) -> Self {
        Kind::BadRequest.because(format!("the path can be read in two ways: it has {unclear}"))
    }
}

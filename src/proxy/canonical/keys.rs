//! Spellings of OData: keys in parentheses, empty parentheses, names with their namespace. As segments without them.
//!
//! Between the colons of a drive's path (`root:/a (1)/b:/content`) names are names and stay as they are.

use std::borrow::Cow;

use super::Unclear;

/// An action or function may be called by its full name.
const NAMESPACE: &str = "microsoft.graph.";

/// Worth looking at.
pub(super) fn has_any(path: &str) -> bool {
    path.contains('(') || path.contains("/microsoft.")
}

/// A dot after this makes the path worth looking at.
pub(super) fn ends_with_namespace(start: &str) -> bool {
    const START: &[u8] = b"/microsoft";
    start.as_bytes().last_chunk().is_some_and(|end: &[u8; START.len()]| end.eq_ignore_ascii_case(START))
}

/// `path` is decoded.
pub(super) fn as_segments(path: &str) -> Result<String, Unclear> {
    rewritten(path, &|key| if key.is_function { Ok(()) } else { Err(Unclear::Key) })
}

/// The same for a rule, in which a key may be a pattern.
pub fn plainly(rule: &str) -> String {
    rewritten(rule, &|_| Ok(())).unwrap_or_else(|_| rule.to_owned())
}

/// What can't be written as a segment.
struct Odd {
    /// It is the argument of a function rather than a key.
    is_function: bool,
}

fn rewritten(path: &str, odd: &dyn Fn(Odd) -> Result<(), Unclear>) -> Result<String, Unclear> {
    let mut plain = String::with_capacity(path.len());
    let mut in_drive = false;
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            plain.push('/');
        }
        if in_drive {
            plain.push_str(segment);
        } else {
            without_parentheses(without_namespace(segment), &mut plain, odd)?;
        }
        in_drive ^= segment.ends_with(':');
    }
    Ok(plain)
}

fn without_namespace(mut segment: &str) -> &str {
    while let Some((_, name)) =
        segment.split_at_checked(NAMESPACE.len()).filter(|(space, _)| space.eq_ignore_ascii_case(NAMESPACE))
    {
        segment = name;
    }
    segment
}

/// `name('key')` and `name(id='key')` as `name/key`, `name()` as `name`. Functions of several parameters stay as they are.
fn without_parentheses(
    segment: &str,
    plain: &mut String,
    odd: &dyn Fn(Odd) -> Result<(), Unclear>,
) -> Result<(), Unclear> {
    let Some((name, after)) = segment.split_once('(') else {
        plain.push_str(segment);
        return Ok(());
    };
    match argument(after) {
        Argument::None { left } => plain.extend([name, left]),
        Argument::Key { key, left } => plain.extend([name, "/", &key, left]),
        Argument::Odd(what) => {
            odd(what)?;
            plain.push_str(segment);
        }
        Argument::Other => plain.push_str(segment),
    }
    Ok(())
}

enum Argument<'s> {
    None { left: &'s str },
    Key { key: Cow<'s, str>, left: &'s str },
    Odd(Odd),
    Other,
}

/// What stands behind an opening parenthesis.
fn argument(text: &str) -> Argument<'_> {
    let text = text.trim_start();
    if let Some(left) = text.strip_prefix(')').filter(|left| ends_name(left)) {
        return if left.contains('(') { Argument::Odd(Odd { is_function: false }) } else { Argument::None { left } };
    }
    let after_name = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let name = &text[..text.len() - after_name.len()];
    let value = match after_name.trim_start().strip_prefix('=') {
        Some(value) if !name.is_empty() => value.trim_start(),
        _ => text,
    };
    let Some(quoted) = value.strip_prefix('\'') else { return Argument::Other };
    let odd = Odd { is_function: !name.is_empty() && !name.eq_ignore_ascii_case("id") };
    let Some(end) = closing_quote(quoted) else { return Argument::Odd(odd) };
    let Some(left) = quoted[end + 1..].trim_start().strip_prefix(')') else { return Argument::Other };
    let key = &quoted[..end];
    let key = if key.contains("''") { Cow::Owned(key.replace("''", "'")) } else { Cow::Borrowed(key) };
    let is_segment = super::clear(&key).is_ok()
        && !key.contains('(')
        && !left.contains('(')
        && !key.ends_with(':')
        && without_namespace(&key).len() == key.len();
    match (ends_name(left), is_segment) {
        (false, _) => Argument::Other,
        (true, false) => Argument::Odd(odd),
        (true, true) => Argument::Key { key, left },
    }
}

/// A quote in a key is doubled.
fn closing_quote(quoted: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + quoted[from..].find('\'')?;
        if !quoted[at + 1..].starts_with('\'') {
            return Some(at);
        }
        from = at + 2;
    }
}

/// What may follow a parenthesis that ends a segment's name: a colon that opens a drive's path, what a careless reader drops, the rest of a
/// rule's braces.
fn ends_name(left: &str) -> bool {
    left.is_empty() || left.starts_with([':', ';', '.', ' ', ',', '}', '('])
}

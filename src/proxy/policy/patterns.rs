//! Patterns for one segment, found by the literal text at their two ends: of a thousand like `*@team7.contoso.com` few are tried.

use foldhash::HashMap;
use globset::GlobMatcher;

/// What each pattern leads to is a node of the tree.
#[derive(Default)]
pub(super) struct Patterns(Vec<(Lengths, ByEnds)>);

/// How long the text is before the first and after the last special character.
type Lengths = (usize, usize);
type ByEnds = HashMap<Box<[u8]>, HashMap<Box<[u8]>, Vec<Pattern>>>;

struct Pattern {
    text: String,
    matcher: GlobMatcher,
    node: usize,
}

impl Patterns {
    /// The node of a pattern; `fresh` where it is new.
    pub(super) fn get_or_insert(&mut self, text: &str, matcher: &GlobMatcher, fresh: usize) -> usize {
        let (start, end) = ends(text);
        let lengths = (start.len(), end.len());
        let at = self.0.iter().position(|(known, _)| *known == lengths).unwrap_or_else(|| {
            self.0.push((lengths, ByEnds::default()));
            self.0.len() - 1
        });
        let [start, end] = [start, end].map(|text| text.to_ascii_lowercase().into_bytes().into_boxed_slice());
        let patterns = self.0[at].1.entry(start).or_default().entry(end).or_default();
        if let Some(known) = patterns.iter().find(|pattern| pattern.text == text) {
            return known.node;
        }
        patterns.push(Pattern { text: text.to_owned(), matcher: matcher.clone(), node: fresh });
        fresh
    }

    /// The nodes of those that match.
    pub(super) fn matching<'a>(&'a self, segment: &'a str) -> impl Iterator<Item = usize> + 'a {
        let candidates = self.0.iter().filter_map(move |((start, end), by_ends)| {
            let start = segment.as_bytes().get(..*start)?;
            let end = &segment.as_bytes()[segment.len().checked_sub(*end)?..];
            by_ends.get(start)?.get(end)
        });
        candidates.flatten().filter(move |pattern| pattern.matcher.is_match(segment)).map(|pattern| pattern.node)
    }
}

fn ends(text: &str) -> (&str, &str) {
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '{' | '}');
    match (text.find(is_special), text.rfind(is_special)) {
        (Some(first), Some(last)) if !text.contains('\\') => (&text[..first], &text[last + 1..]),
        _ => ("", ""),
    }
}

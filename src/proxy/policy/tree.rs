//! Rules by the segments of their paths: what a decision costs depends on the path that is asked for, hardly on the number of rules.
//!
//! A walk keeps the set of nodes that the path so far leads to, so that no arrangement of `**` makes it turn back.

use foldhash::HashMap;
use globset::GlobMatcher;
use http::Method;
use smallvec::SmallVec;

use super::patterns::Patterns;
use super::rules::{is_method, matcher};

/// One segment of a rule's path.
pub(super) enum Segment {
    /// In lower case.
    Literal(String),
    /// `*`
    Any,
    /// `**`: any number of segments; one at least where it is the last.
    Deep,
    Glob(String, GlobMatcher),
}

pub(super) struct Tree {
    nodes: Vec<Node>,
}

/// The nodes that a path leads to: nearly always few.
type Nodes = SmallVec<[usize; 8]>;

#[derive(Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    any: Option<usize>,
    patterns: Patterns,
    /// After a `**` that is not the last: entered together with this node, and kept from segment to segment.
    deep: Option<usize>,
    keeps: bool,
    /// Rules that end here, and those that end in `**` here.
    ends: Ends,
    deep_ends: Ends,
}

/// For each method the first rule.
#[derive(Default)]
struct Ends(Vec<(Option<Box<str>>, usize)>);

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    /// `at`: the rule's place. Places come in their order.
    pub(super) fn add(&mut self, at: usize, method: Option<&str>, segments: &[Segment]) {
        let mut node = 0;
        for (place, segment) in segments.iter().enumerate() {
            let fresh = self.nodes.len();
            let own = &mut self.nodes[node];
            let child = match segment {
                Segment::Deep if place + 1 == segments.len() => return own.deep_ends.add(at, method),
                Segment::Deep => *own.deep.get_or_insert(fresh),
                Segment::Any => *own.any.get_or_insert(fresh),
                Segment::Literal(text) => *own.literals.entry(text.as_str().into()).or_insert(fresh),
                Segment::Glob(text, matcher) => own.patterns.get_or_insert(text, matcher, fresh),
            };
            if child == fresh {
                self.nodes.push(Node { keeps: matches!(segment, Segment::Deep), ..Node::default() });
            }
            node = child;
        }
        self.nodes[node].ends.add(at, method);
    }

    /// The first rule that matches. `path` is canonical.
    pub(super) fn first(&self, method: &Method, path: &str) -> Option<usize> {
        let (mut one, mut other) = (Nodes::new(), Nodes::new());
        let (mut here, mut next) = (&mut one, &mut other);
        let mut found = None;
        let mut find = |ends: &Ends| found = ends.first(method).into_iter().chain(found).min();
        self.enter(0, here);
        for segment in path.strip_prefix('/')?.split('/') {
            for &at in &*here {
                let node = &self.nodes[at];
                find(&node.deep_ends);
                if node.keeps {
                    keep(at, next);
                }
                if let Some(&child) = node.literals.get(segment) {
                    self.enter(child, next);
                }
                if let Some(child) = node.any {
                    self.enter(child, next);
                }
                for child in node.patterns.matching(segment) {
                    self.enter(child, next);
                }
            }
            std::mem::swap(&mut here, &mut next);
            next.clear();
            if here.is_empty() {
                break;
            }
        }
        for &at in &*here {
            find(&self.nodes[at].ends);
        }
        found
    }

    fn enter(&self, at: usize, nodes: &mut Nodes) {
        nodes.push(at);
        if let Some(deep) = self.nodes[at].deep {
            keep(deep, nodes);
        }
    }
}

/// Of all nodes only those after `**` can be reached in two ways at once.
fn keep(at: usize, nodes: &mut Nodes) {
    if !nodes.contains(&at) {
        nodes.push(at);
    }
}

impl Ends {
    fn add(&mut self, at: usize, method: Option<&str>) {
        if !self.0.iter().any(|(known, _)| known.as_deref() == method) {
            self.0.push((method.map(Into::into), at));
        }
    }

    fn first(&self, method: &Method) -> Option<usize> {
        self.0.iter().find(|(own, _)| is_method(own.as_deref(), method)).map(|(_, at)| *at)
    }
}

/// The segments of a pattern; `None`: it says something about several at once.
pub(super) fn segments(glob: &str) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    for text in glob.strip_prefix('/')?.split('/') {
        let segment = segment(text)?;
        // `**/**` is `**`.
        if !matches!((segments.last(), &segment), (Some(Segment::Deep), Segment::Deep)) {
            segments.push(segment);
        }
    }
    Some(segments)
}

fn segment(text: &str) -> Option<Segment> {
    match text {
        "*" => return Some(Segment::Any),
        "**" => return Some(Segment::Deep),
        _ if !text.contains(['*', '?', '[', '{', '}', '\\']) => {
            return Some(Segment::Literal(text.to_ascii_lowercase()));
        }
        _ if text.contains('{') && text.contains("**") || may_match_slash(text) => return None,
        _ => {}
    }
    // Braces and classes that go on in the next segment are no pattern alone.
    matcher(text).ok().map(|matcher| Segment::Glob(text.to_owned(), matcher))
}

/// A class may: one that is negated, or a range across the slash.
fn may_match_slash(text: &str) -> bool {
    let spans = |range: &[u8]| range[0] <= b'/' && range[1] == b'-' && range[2] >= b'/';
    text.contains('[') && (text.contains("[!") || text.contains("[^") || text.as_bytes().windows(3).any(spans))
}

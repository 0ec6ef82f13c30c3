//! Values as written, each with where it was written: in the file, in the environment, on the command line.
//!
//! A tree may hold secrets, so nothing here can be printed.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Kind;
use super::mistakes::Mistake;

pub type Table = BTreeMap<String, Node>;

#[derive(Clone)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
}

#[derive(Clone)]
pub enum Value {
    Text(String),
    Integer(i64),
    Number(f64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { line: usize, column: usize },
    Environment(String),
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line, .. } => write!(f, "line {line}"),
            Self::Environment(name) => write!(f, "from {name}"),
            Self::CommandLine => f.write_str("from the command line"),
        }
    }
}

impl Value {
    /// For messages: what was written instead of what was asked for.
    pub fn described(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Number(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Reads a TOML file. The first syntax error, with its line and column, and without the line's text: that may be a secret. What the
/// parser says after it is mostly about the same bracket.
pub fn parse(name: &str, text: &str) -> Result<Table, Vec<Mistake>> {
    let places = Places::of(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let origin = |span: std::ops::Range<usize>| {
            let (line, column) = places.at(span.start);
            Origin::File { line, column }
        };
        return Ok(table(root.get_ref(), &origin));
    }
    let mistake = |error: &toml::de::Error| {
        let (line, column) = places.at(error.span().map_or(0, |span| span.start));
        let what = error.message().lines().next().unwrap_or("not TOML").to_owned();
        Mistake { path: format!("{name}:{line}:{column}"), what, origin: Origin::Default }
    };
    let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
    Err(first.map(mistake).into_iter().collect())
}

/// A value of that kind from its text form, as in an environment variable. The error says what it should be.
pub fn from_text(kind: Kind, text: &str, origin: &Origin) -> Result<Node, String> {
    let value = match kind {
        Kind::Text | Kind::Secret | Kind::Duration | Kind::Choice(..) => Value::Text(text.to_owned()),
        Kind::Flag => Value::Flag(text.trim().parse().map_err(|_| "must be true or false".to_owned())?),
        Kind::Integer => Value::Integer(text.trim().parse().map_err(|_| "must be an integer".to_owned())?),
        Kind::Number | Kind::Share => Value::Number(text.trim().parse().map_err(|_| "must be a number".to_owned())?),
        Kind::List if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items = items.map(|item| Node { value: Value::Text(item.to_owned()), origin: origin.clone() });
            Value::List(items.collect())
        }
        Kind::List | Kind::Texts | Kind::Table(_) | Kind::Named(_) | Kind::Tables(_) => return literal(text, origin),
    };
    Ok(Node { value, origin: origin.clone() })
}

/// A TOML or JSON array or table.
fn literal(text: &str, origin: &Origin) -> Result<Node, String> {
    if let Ok(value) = DeValue::parse(text.trim()) {
        return Ok(node(&value, &|_| origin.clone()));
    }
    let value = serde_json::from_str(text).map_err(|_| "is neither a TOML nor a JSON array or table".to_owned())?;
    Ok(json(value, origin))
}

fn table(table: &DeTable<'_>, origin: &dyn Fn(std::ops::Range<usize>) -> Origin) -> Table {
    table.iter().map(|(name, value)| (name.get_ref().to_string(), node_at(name.span(), value, origin))).collect()
}

fn node(value: &Spanned<DeValue<'_>>, origin: &dyn Fn(std::ops::Range<usize>) -> Origin) -> Node {
    node_at(value.span(), value, origin)
}

fn node_at(
    span: std::ops::Range<usize>,
    value: &Spanned<DeValue<'_>>,
    origin: &dyn Fn(std::ops::Range<usize>) -> Origin,
) -> Node {
    let here = origin(span);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(item, origin)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, origin)),
        DeValue::Float(number) => Value::Number(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Number(f64::INFINITY),
        },
    };
    Node { value, origin: here }
}

fn json(value: serde_json::Value, origin: &Origin) -> Node {
    let value = match value {
        serde_json::Value::Null => Value::Text(String::new()),
        serde_json::Value::Bool(flag) => Value::Flag(flag),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(|item| json(item, origin)).collect()),
        serde_json::Value::Object(entries) => {
            Value::Table(entries.into_iter().map(|(name, value)| (name, json(value, origin))).collect())
        }
    };
    Node { value, origin: origin.clone() }
}

/// Byte offsets to lines and columns.
struct Places<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, line_starts }
    }

    fn at(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        (line, column)
    }
}

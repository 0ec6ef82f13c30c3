//! JSON batching (`$batch`): what a batch asks, what was answered, which members are worth sending again, and one answer made of two. Pure.
//!
//! Everything that is not understood stays byte for byte: objects are taken apart into the texts of their values, and put together from
//! these texts. What could be read in two ways (a name twice, or in another spelling) is no batch. Nothing here panics, whatever comes.

mod answer;
mod plan;
mod request;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use self::answer::{Answers, finish, merge};
pub use self::plan::Again;
pub use self::request::{Batch, Edit, Member};

/// A JSON object as the texts that it is made of.
#[derive(Debug)]
struct Object<'a> {
    raw: &'a str,
    fields: Vec<Field<'a>>,
}

#[derive(Debug)]
struct Field<'a> {
    /// Decoded.
    name: String,
    /// With its quotes.
    key: &'a str,
    value: &'a str,
}

enum Change<'c> {
    Keep,
    Drop,
    To(Cow<'c, str>),
}

impl<'a> Object<'a> {
    fn read(raw: &'a str) -> Option<Self> {
        let Fields(fields) = serde_json::from_str(raw).ok()?;
        Some(Self { raw, fields })
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.value)
    }

    /// Each of these names (in capitals) stands there once at the most, and as we spell it: others may read names without regard to case.
    fn is_clear(&self, names: &[(&str, &str)]) -> bool {
        let mut met = vec![false; names.len()];
        self.fields.iter().all(|field| {
            let capitals = field.name.trim().to_uppercase();
            match names.iter().position(|(known, _)| *known == capitals) {
                Some(at) => field.name == names[at].1 && !std::mem::replace(&mut met[at], true),
                None => true,
            }
        })
    }

    /// The object with some of its fields changed; the text of all others stays.
    fn with<'c>(&self, change: impl Fn(&Field<'a>) -> Change<'c>) -> String {
        let mut text = String::with_capacity(self.raw.len());
        for field in &self.fields {
            let value = match change(field) {
                Change::Keep => Cow::Borrowed(field.value),
                Change::Drop => continue,
                Change::To(value) => value,
            };
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(field.key);
            text.push(':');
            text.push_str(&value);
        }
        if text.is_empty() {
            text.push('{');
        }
        text + "}"
    }
}

/// `[a,b]` of the texts of its items.
fn array<T: AsRef<str>>(items: impl Iterator<Item = T>) -> String {
    let mut text = String::from("[");
    for item in items {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
    text + "]"
}

/// The texts of an array's items.
fn items(raw: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What an id is told from others by: their case does not count.
fn id_key(raw: &str) -> String {
    string(raw).unwrap_or_else(|| raw.to_owned()).to_lowercase()
}

struct Fields<'a>(Vec<Field<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let name = string(key.get()).ok_or_else(|| A::Error::custom("a name that is no text"))?;
            fields.push(Field { name, key: key.get(), value: value.get() });
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests;

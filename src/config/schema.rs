//! The JSON Schema (2020-12) of the file, made from the table of keys.

use serde_json::{Map, Value, json};

use super::keys::{FILE, Keys, Kind, Presence};

pub fn schema() -> Value {
    let mut schema = object(FILE, "The configuration of bearerd.");
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "bearerd.toml".into());
    schema.into()
}

fn object(keys: Keys, why: &str) -> Map<String, Value> {
    let known = || keys.iter().filter(|key| !matches!(key.presence, Presence::Reserved));
    let properties: Map<String, Value> = known()
        .map(|key| {
            let mut schema = of_kind(key.kind, key.why);
            schema.insert("description".into(), key.why.into());
            if let Presence::Default(text) = key.presence {
                schema.insert("default".into(), default(key.kind, text));
            }
            (key.name.to_owned(), schema.into())
        })
        .collect();
    let required: Vec<&str> =
        known().filter(|key| matches!(key.presence, Presence::Required(_))).map(|key| key.name).collect();
    let mut schema = entries(json!({ "type": "object", "description": why, "additionalProperties": false }));
    schema.insert("properties".into(), properties.into());
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema
}

fn of_kind(kind: Kind, why: &str) -> Map<String, Value> {
    let text = json!({ "type": "string" });
    entries(match kind {
        Kind::Text => text,
        Kind::Secret => json!({ "type": "string", "writeOnly": true, "minLength": 1 }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer => json!({ "type": "integer", "minimum": 0 }),
        Kind::Number => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" }),
        Kind::Choice(words, _) => json!({ "enum": words }),
        Kind::List => json!({ "anyOf": [text, { "type": "array", "items": text }] }),
        Kind::Texts => json!({ "type": "object", "additionalProperties": text }),
        Kind::Table(keys) => return object(keys, why),
        Kind::Tables(keys) => json!({ "type": "array", "items": object(keys, why) }),
        Kind::Named(keys) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9][a-z0-9_-]*$" },
            "additionalProperties": object(keys, why),
        }),
    })
}

fn default(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Flag | Kind::Integer | Kind::Number | Kind::Share => {
            text.parse().expect("a default is of its key's kind")
        }
        Kind::List => text.split(',').filter(|item| !item.is_empty()).collect(),
        _ => text.into(),
    }
}

fn entries(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}

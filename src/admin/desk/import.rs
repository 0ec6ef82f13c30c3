//! A grant from elsewhere, as a JSON object: a line of `accounts import`, the body of `POST /v1/accounts`.
//!
//! Invariant: what is said of a row never holds a value that may be a secret.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::json;

use crate::account::Alias;
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::vault::Import;

/// What `Alias::new` takes, but for the length.
const ALIAS: &str =
    r"^[!$()+\-0-9=A-Z^_`a-z|~]([!$()+\-.0-9=A-Z^_`a-z|~]*@?[!$()+\-.0-9=A-Z^_`a-z|~]*[!$()+\-0-9=A-Z^_`a-z|~])?$";

/// An account to import.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewAccount")]
pub struct Row {
    /// 1 to 255 visible ASCII characters; no delimiters of URLs, paths, patterns and lists, at most one `@`.
    #[schemars(length(min = 1, max = 255), regex(pattern = ALIAS))]
    alias: String,
    /// Its id in the configuration.
    provider: String,
    #[schemars(with = "String", length(min = 1), extend("writeOnly" = true))]
    refresh_token: Secret<String>,
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    access_token: Option<Secret<String>>,
    expires_at: Option<When>,
    /// The tenant's id. Where the row is not verified, Entra needs it.
    tid: Option<String>,
    /// The user's id. Where the row is not verified, it is needed.
    oid: Option<String>,
    /// A list, or a text with spaces between.
    scopes: Option<Scopes>,
}

/// RFC 3339 or seconds since the epoch.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum When {
    Epoch(i64),
    Text(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Scopes {
    List(Vec<String>),
    Text(String),
}

/// Reads one row. `Err`: what is wrong with it, without its values.
pub fn read(text: &[u8]) -> Result<Import, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8")?;
    let row: Row = serde_json::from_str(text).map_err(|error| without_values(&error))?;
    if row.refresh_token.expose().is_empty() {
        return Err("refresh_token: is empty".to_owned());
    }
    Ok(Import {
        alias: Alias::new(&row.alias).map_err(|error| format!("alias: {error}"))?,
        provider: row.provider,
        refresh_token: row.refresh_token,
        access_token: row.access_token,
        expires_at: row.expires_at.map(timestamp).transpose().map_err(|why| format!("expires_at: {why}"))?,
        tenant: row.tid,
        subject: row.oid,
        scopes: row.scopes.map(|scopes| match scopes {
            Scopes::List(list) => list,
            Scopes::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        }),
    })
}

/// What `read` reads.
pub fn write(row: &Import) -> Secret<String> {
    let document = json!({
        "alias": row.alias,
        "provider": row.provider,
        "refresh_token": row.refresh_token.expose(),
        "access_token": row.access_token.as_ref().map(Secret::expose),
        "expires_at": row.expires_at.map(Timestamp::secs),
        "tid": row.tenant,
        "oid": row.subject,
        "scopes": row.scopes,
    });
    document.to_string().into()
}

/// serde quotes values that it did not expect, and those may be secrets.
pub fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.starts_with("missing field") || text.starts_with("unknown field"), error.classify()) {
        (true, _) => text.split(" at line ").next().unwrap_or_default().to_owned(),
        (_, serde_json::error::Category::Data) => format!("a field has the wrong type (column {})", error.column()),
        _ => format!("not JSON (column {})", error.column()),
    }
}

pub fn timestamp(when: When) -> Result<Timestamp, &'static str> {
    let text = match when {
        When::Epoch(seconds) => return Ok(Timestamp::from_secs(seconds)),
        When::Text(text) => text,
    };
    if let Ok(seconds) = text.parse() {
        return Ok(Timestamp::from_secs(seconds));
    }
    let at: jiff::Timestamp = text.parse().map_err(|_| "neither RFC 3339 nor seconds since the epoch")?;
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

impl JsonSchema for When {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "When".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "format": "date-time" },
            { "type": "integer", "description": "seconds since the epoch" },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_row_is_described_without_its_values() {
        for (row, expected) in [
            (r#"{"alias":"a"}"#, "missing field `provider`"),
            (r#"{"alias":"a","provider":"p","refresh_token":"rt-secret","x":1}"#, "unknown field `x`, expected one of"),
            (r#"{"alias":"a","provider":"p","refresh_token":{"rt":"rt-secret"}}"#, "a field has the wrong type"),
            (r#"{"alias":"a","provider":"p","refresh_token":"rt-secret"#, "not JSON"),
            (r#"{"alias":"a","provider":"p","refresh_token":""}"#, "refresh_token: is empty"),
            (r#"{"alias":"a/b","provider":"p","refresh_token":"rt-secret"}"#, "alias: an alias can't contain '/'"),
            ("rt-secret", "not JSON"),
        ] {
            let Err(text) = read(row.as_bytes()) else { panic!("{row}") };
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains("rt-secret"), "{text}");
        }
        assert_eq!(read(b"\xff").unwrap_err(), "not UTF-8");
    }

    #[test]
    fn expiry_is_taken_in_both_forms() {
        let at = |json: &str| timestamp(serde_json::from_str(json).unwrap()).map(Timestamp::secs).ok();
        assert_eq!(at("1635527790"), Some(1_635_527_790));
        assert_eq!(at("\"1635527790\""), Some(1_635_527_790));
        assert_eq!(at("\"2021-10-29T17:16:30Z\""), Some(1_635_527_790));
        assert_eq!(at("\"2021-10-29T19:16:30+02:00\""), Some(1_635_527_790));
        assert_eq!(at("\"tomorrow\""), None);
    }

    #[test]
    fn a_row_that_is_written_reads_as_it_was() {
        for text in [
            r#"{"alias":"a","provider":"p","refresh_token":"r"}"#,
            r#"{"alias":"a@b","provider":"p","refresh_token":"r","access_token":"t","expires_at":1,"tid":"x","oid":"y","scopes":["A","B"]}"#,
        ] {
            let row = read(text.as_bytes()).unwrap();
            let again = read(write(&row).expose().as_bytes()).unwrap();
            let seen = |row: &Import| {
                let Import { alias, provider, refresh_token, access_token, expires_at, tenant, subject, scopes } = row;
                let tokens =
                    (refresh_token.expose().clone(), access_token.as_ref().map(|token| token.expose().clone()));
                (alias.clone(), provider.clone(), tokens, *expires_at, tenant.clone(), subject.clone(), scopes.clone())
            };
            assert_eq!(seen(&row), seen(&again));
        }
    }
}

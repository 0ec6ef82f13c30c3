//! `bearerd clients new`: a key for a calling application. Needs no server, no store and no file.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Format, say, say_json};
use crate::config::client_name;
use crate::secret::Secret;

/// Lets people and secret scanners see what it is.
const KEY_PREFIX: &str = "bk_";

#[derive(Args)]
pub struct New {
    /// The application's name, for logs and metrics
    #[arg(value_parser = client_name)]
    name: String,
    /// An alias or a pattern that it may act for; may be given again
    #[arg(long = "account", value_name = "PATTERN")]
    accounts: Vec<String>,
    /// It uses the app registration's own tokens and acts for no account
    #[arg(long, conflicts_with = "accounts")]
    app: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(new: &New) -> anyhow::Result<()> {
    let key = new_key()?;
    let hash = key_hash(key.expose());
    let stanza = stanza(&new.name, &hash, if new.app { None } else { Some(&new.accounts) });
    match new.format {
        Format::Table => say(&format!(
            "The key of {}, shown only now:\n\n    {}\n\nAdd this to bearerd.toml:\n\n{stanza}",
            new.name,
            key.expose()
        )),
        Format::Json => say_json(&json!({
            "name": new.name,
            "key": key.expose(),
            "key_hash": hash,
            "stanza": stanza,
        })),
    }
}

/// 256 random bits.
pub(super) fn new_key() -> anyhow::Result<Secret<String>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(anyhow::Error::msg)?;
    Ok(Secret::new(format!("{KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))))
}

/// What `key_hash` holds of a key: the digest of all of it, prefix included.
pub(super) fn key_hash(key: &str) -> String {
    Sha256::digest(key).iter().fold("sha256:".to_owned(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    })
}

/// `accounts` is `None` for an application that acts for itself.
fn stanza(name: &str, hash: &str, accounts: Option<&[String]>) -> String {
    let name = toml::Value::from(name);
    let for_whom = match accounts {
        None => "identity = \"app\"".to_owned(),
        Some([]) => "accounts = [] # aliases or patterns that it may act for".to_owned(),
        Some(accounts) => format!("accounts = {}", toml::Value::from(accounts.to_vec())),
    };
    format!("[[clients]]\nname = {name}\nkey_hash = \"{hash}\"\n{for_whom}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stanza_is_toml_whatever_the_name() {
        let text = stanza("say \"hi\" \\ ]", "sha256:00", Some(&["*@contoso.com".into()]));
        let parsed: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(parsed["clients"][0]["name"].as_str(), Some("say \"hi\" \\ ]"));
        assert_eq!(parsed["clients"][0]["accounts"][0].as_str(), Some("*@contoso.com"));
        let text = stanza("daemon", "sha256:00", None);
        let parsed: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(parsed["clients"][0]["identity"].as_str(), Some("app"));
        assert!(parsed["clients"][0].get("accounts").is_none());
    }

    #[test]
    fn the_hash_is_that_of_the_whole_key() {
        assert_eq!(key_hash("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

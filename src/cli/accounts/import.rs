//! `accounts import`: grants from elsewhere, one at a time. A bad one is reported by name and stops nothing.
//!
//! Invariant: what is said of an entry never holds a value that may be a secret.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Deserialize;

use super::msal_cache;
use crate::account::Alias;
use crate::app::Core;
use crate::cli::say;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::secret::Secret;
use crate::vault::{Import, Imported};

/// What wrote the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// An object a line
    #[default]
    JsonLines,
    /// The unified token cache of a Microsoft Authentication Library
    MsalCache,
}

/// One line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    alias: String,
    provider: String,
    refresh_token: Secret<String>,
    access_token: Option<Secret<String>>,
    expires_at: Option<When>,
    tid: Option<String>,
    oid: Option<String>,
    scopes: Option<Scopes>,
}

/// RFC 3339 or seconds since the epoch.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum When {
    Epoch(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    List(Vec<String>),
    Text(String),
}

/// What became of the entries so far.
struct Tally<'a> {
    file: &'a Path,
    progress: indicatif::ProgressBar,
    good: u64,
    bad: u64,
}

pub(super) async fn import(
    core: &Core,
    config: &Config,
    file: &Path,
    layout: Layout,
    verify: bool,
) -> anyhow::Result<()> {
    let source = File::open(file).with_context(|| file.display().to_string())?;
    let metadata = source.metadata().with_context(|| file.display().to_string())?;
    if metadata.is_dir() {
        bail!("{} is a directory; a file is needed", file.display());
    }
    let mut tally = Tally { file, progress: progress(metadata.len()), good: 0, bad: 0 };
    match layout {
        Layout::JsonLines => json_lines(core, source, verify, &mut tally).await?,
        Layout::MsalCache => msal_cache(core, config, source, verify, &mut tally).await?,
    }
    tally.end()
}

async fn json_lines(core: &Core, source: File, verify: bool, tally: &mut Tally<'_>) -> anyhow::Result<()> {
    for (index, line) in BufReader::new(source).split(b'\n').enumerate() {
        let name = format!("line {}", index + 1);
        let line = Secret::new(line.with_context(|| tally.of(&name))?);
        tally.progress.inc(line.expose().len() as u64 + 1);
        if line.expose().trim_ascii().is_empty() {
            continue;
        }
        let outcome = match json_line(line.expose()) {
            Ok(row) => core.vault.import(row, verify).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        tally.take(&name, outcome);
    }
    Ok(())
}

async fn msal_cache(
    core: &Core,
    config: &Config,
    mut source: File,
    verify: bool,
    tally: &mut Tally<'_>,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let read = source.read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    read.with_context(|| tally.file.display().to_string())?;
    let entries = msal_cache::entries(bytes.expose(), config, core.clock.now());
    let entries = entries.with_context(|| tally.file.display().to_string())?;
    tally.progress.set_length(entries.len() as u64);
    let mut taken = HashSet::new();
    for entry in entries {
        tally.progress.inc(1);
        let outcome = match entry.row {
            // MSAL keeps a refresh token for each set of scopes that was asked for; each of them is good for all.
            Ok(_) if taken.contains(&entry.account) => {
                tally.say(&entry.name, "a newer refresh token of this account is imported");
                continue;
            }
            Ok(row) => core.vault.import(row, verify).await.map_err(Into::into),
            Err(why) => Err(anyhow::Error::msg(why)),
        };
        if outcome.is_ok() {
            taken.insert(entry.account);
        }
        tally.take(&entry.name, outcome);
    }
    Ok(())
}

impl Tally<'_> {
    fn take(&mut self, name: &str, outcome: anyhow::Result<Imported>) {
        match outcome {
            Ok(Imported::New(grant)) => {
                self.good += 1;
                self.progress.set_message(grant.alias.to_string());
            }
            Ok(Imported::Already(_)) => {
                self.good += 1;
                self.say(name, "this token is imported already");
            }
            Err(error) => {
                self.bad += 1;
                self.say(name, &format!("{error:#}"));
            }
        }
    }

    fn say(&self, name: &str, what: &str) {
        self.progress.suspend(|| eprintln!("{}: {what}", self.of(name)));
    }

    fn of(&self, name: &str) -> String {
        format!("{} {name}", self.file.display())
    }

    fn end(self) -> anyhow::Result<()> {
        let Self { progress, good, bad, .. } = self;
        progress.finish_and_clear();
        say(&format!("{good} imported, {bad} failed\n"))?;
        if bad > 0 {
            bail!("{bad} of {} rows were not imported", good + bad);
        }
        Ok(())
    }
}

fn json_line(line: &[u8]) -> anyhow::Result<Import> {
    // Some editors put a byte order mark in front of the first line.
    let line = std::str::from_utf8(line).context("not UTF-8")?.trim_start_matches('\u{feff}');
    let row: Row = serde_json::from_str(line).map_err(|error| anyhow::anyhow!("{}", without_values(&error)))?;
    let expires_at = row.expires_at.map(timestamp).transpose().context("expires_at")?;
    let row = Import {
        alias: Alias::new(&row.alias).context("alias")?,
        provider: row.provider,
        refresh_token: row.refresh_token,
        access_token: row.access_token,
        expires_at,
        tenant: row.tid,
        subject: row.oid,
        scopes: row.scopes.map(|scopes| match scopes {
            Scopes::List(list) => list,
            Scopes::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        }),
    };
    if row.refresh_token.expose().is_empty() {
        bail!("refresh_token: is empty");
    }
    Ok(row)
}

/// serde quotes values that it did not expect, and those may be secrets.
pub(super) fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.starts_with("missing field") || text.starts_with("unknown field"), error.classify()) {
        (true, _) => text.split(" at line ").next().unwrap_or_default().to_owned(),
        (_, serde_json::error::Category::Data) => format!("a field has the wrong type (column {})", error.column()),
        _ => format!("not JSON (column {})", error.column()),
    }
}

pub(super) fn timestamp(when: When) -> anyhow::Result<Timestamp> {
    let text = match when {
        When::Epoch(seconds) => return Ok(Timestamp::from_secs(seconds)),
        When::Text(text) => text,
    };
    if let Ok(seconds) = text.parse() {
        return Ok(Timestamp::from_secs(seconds));
    }
    let at: jiff::Timestamp =
        text.parse().map_err(|_| anyhow::anyhow!("neither RFC 3339 nor seconds since the epoch"))?;
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

/// Shown on a terminal only.
fn progress(size: u64) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(size);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {percent:>3}% {eta:>4} {msg}") {
        bar.set_style(style);
    }
    bar
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
            ("rt-secret", "not JSON"),
        ] {
            let Err(error) = serde_json::from_str::<Row>(row) else { panic!("{row}") };
            let text = without_values(&error);
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains("rt-secret"), "{text}");
        }
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
}

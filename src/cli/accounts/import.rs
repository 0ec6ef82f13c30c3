//! `accounts import`: grants from elsewhere, one at a time. A bad one is reported by name and stops nothing.
//!
//! Invariant: what is said of an entry never holds a value that may be a secret.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::{Office, msal_cache};
use crate::admin::desk::Taken;
use crate::admin::desk::import::read;
use crate::cli::say;
use crate::clock::Clock;
use crate::config::Config;
use crate::secret::Secret;
use crate::vault::Import;

/// What wrote the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// An object a line
    #[default]
    JsonLines,
    /// The unified token cache of a Microsoft Authentication Library
    MsalCache,
}

/// What became of the entries so far.
struct Tally<'a> {
    file: &'a Path,
    progress: indicatif::ProgressBar,
    good: u64,
    bad: u64,
}

pub(super) async fn import(
    office: &Office,
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
        Layout::JsonLines => json_lines(office, source, verify, &mut tally).await?,
        Layout::MsalCache => msal_cache(office, config, source, verify, &mut tally).await?,
    }
    tally.end()
}

async fn json_lines(office: &Office, source: File, verify: bool, tally: &mut Tally<'_>) -> anyhow::Result<()> {
    for (index, line) in BufReader::new(source).split(b'\n').enumerate() {
        let name = format!("line {}", index + 1);
        let line = Secret::new(line.with_context(|| tally.of(&name))?);
        tally.progress.inc(line.expose().len() as u64 + 1);
        if line.expose().trim_ascii().is_empty() {
            continue;
        }
        let outcome = match json_line(line.expose()) {
            Ok(row) => office.import(row, verify).await,
            Err(error) => Err(error),
        };
        tally.take(&name, outcome);
    }
    Ok(())
}

async fn msal_cache(
    office: &Office,
    config: &Config,
    mut source: File,
    verify: bool,
    tally: &mut Tally<'_>,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let read = source.read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    read.with_context(|| tally.file.display().to_string())?;
    let entries = msal_cache::entries(bytes.expose(), config, Clock::system().now());
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
            Ok(row) => office.import(row, verify).await,
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
    fn take(&mut self, name: &str, outcome: anyhow::Result<Taken>) {
        match outcome {
            Ok(Taken::New(account)) => {
                self.good += 1;
                self.progress.set_message(account.alias);
            }
            Ok(Taken::Already(_)) => {
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
    read(line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)).map_err(anyhow::Error::msg)
}

/// Shown on a terminal only.
fn progress(size: u64) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(size);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {percent:>3}% {eta:>4} {msg}") {
        bar.set_style(style);
    }
    bar
}

//! `bearerd keys ...`: the store's keys. `generate` never overwrites one: what it sealed would be lost. Nothing here prints a key but
//! `generate` without a file.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use zeroize::Zeroizing;

use super::accounts::{by_operator, open};
use super::serve::{harden, slow_runtime};
use super::{Format, Source, say, say_json};
use crate::app::Core;
use crate::audit::{Entry, Event};
use crate::config::{self, Config};
use crate::store::{KeyState, KeyStatus, MasterRotated, Progress, RotateError, Store, generate_key};

/// How long the other processes on the store may take to open a new key; a server takes a quarter of a second.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn generate(file: Option<&Path>) -> anyhow::Result<()> {
    harden();
    let key = Zeroizing::new(format!("{}\n", generate_key()?.expose()));
    let Some(path) = file else { return say(&key) };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists and is left as it is", path.display()),
        _ => anyhow::Error::new(error).context(path.display().to_string()),
    })?;
    file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())?;
    say(&format!("a new key is in {}; keep a copy of it apart from the store's backups\n", path.display()))
}

/// Which keys the store has, what each of them still seals, and whether a change is under way.
pub fn status(source: &Source, format: Format) -> anyhow::Result<()> {
    let loaded = source.load()?;
    slow_runtime()?.block_on(async {
        let core = open(&loaded.config).await?;
        let place = &loaded.config.store;
        let (report, sealed) = (core.store.keys().await?, core.store.sealed_by().await?);
        let seals = |key: &KeyStatus| sealed.get(&key.id).copied().unwrap_or(0);
        if format == Format::Json {
            let key = |key: &KeyStatus| {
                json!({
                    "id": key.id,
                    "made_at": key.made_at.to_string(),
                    "state": state(key.state),
                    "seals": seals(key),
                })
            };
            return say_json(&json!({
                "store": place.path,
                "master": { "source": master_source(place), "ids": report.masters },
                "keys": report.keys.iter().map(key).collect::<Vec<_>>(),
                "rotating": report.is_rotating(),
            }));
        }
        let masters: Vec<_> = report.masters.iter().map(String::as_str).collect();
        let mut text = format!("store       {}\n", place.path.display());
        let _ = writeln!(text, "master key  {} ({})", master_source(place), masters.join(" and "));
        for key in &report.keys {
            let (id, made, state, seals) = (key.id, key.made_at, state(key.state), seals(key));
            let _ = writeln!(text, "data key    {id} made {made}, {state}, seals {seals} values");
        }
        if report.masters.len() > 1 {
            text += "two master keys open the store: run `bearerd keys rotate --master FILE` again once the new one is in its place\n";
        }
        if report.keys.len() > 1 {
            text += "a rotation is not over: `bearerd keys rotate` goes on with it\n";
        }
        say(&text)
    })
}

/// A new data key, or the rest of a rotation that was cut off.
pub fn rotate(source: &Source, dry_run: bool) -> anyhow::Result<()> {
    on_store(source, async |core, _| {
        let store = &core.store;
        if dry_run {
            return plan(store).await;
        }
        let bar = progress();
        let rotation = store.rotate(PATIENCE, |progress| tell(&bar, &progress));
        let rotated = store.audited(by_operator(Event::KeysRotated), |record, ()| record, rotation).await;
        bar.finish_and_clear();
        rotated.map_err(|error| match error {
            RotateError::Behind(_) => anyhow::anyhow!(
                "{error}; nothing is sealed by it yet. End them, or give them the master key of now and start them again; then run this again"
            ),
            RotateError::Left { .. } => anyhow::anyhow!(
                "{error}. Sign these accounts in again or remove them, then run this again"
            ),
            RotateError::Store(error) => anyhow::anyhow!("{error}; what was done stays done, so run this again"),
        })?;
        let report = store.keys().await?;
        let active = report.keys.iter().map(|key| key.id).max().unwrap_or_default();
        say(&format!("data key {active} seals everything; the keys before it are erased\n"))
    })
}

/// What `rotate` would do.
async fn plan(store: &Store) -> anyhow::Result<()> {
    let (report, sealed) = (store.keys().await?, store.sealed_by().await?);
    let others = store.processes().await?.len();
    let newest = report.keys.last().map(|key| (key.id, key.state));
    let mut text = match newest {
        Some((id, KeyState::Prepared)) => {
            format!("data key {id} would be put in force, after {others} other processes have opened it\n")
        }
        Some((id, KeyState::Active)) if report.keys.len() == 1 => {
            format!(
                "data key {} would be made and put in force, after {others} other processes have opened it\n",
                id + 1
            )
        }
        _ => "a rotation would be finished\n".to_owned(),
    };
    // One that seals alone is replaced; the newest of several replaces the others.
    let kept = newest.filter(|_| report.keys.len() > 1).map(|(id, _)| id);
    for key in report.keys.iter().filter(|key| Some(key.id) != kept) {
        let values = sealed.get(&key.id).copied().unwrap_or(0);
        let _ = writeln!(text, "{values} values of data key {} would be sealed anew, then it would be erased", key.id);
    }
    say(&text)
}

/// The ring wrapped by another master key.
pub fn rotate_master(source: &Source, file: &Path, dry_run: bool) -> anyhow::Result<()> {
    on_store(source, async |core, config| {
        let place = master_source(&config.store);
        if dry_run {
            return say(&format!(
                "the key ring would be opened by the key in {} as well, and that key put into {place}; a second run would end the old one\n",
                file.display()
            ));
        }
        let record = by_operator(Event::MasterKeyRotated);
        match core.store.audited(record, described, core.store.rotate_master(file)).await? {
            MasterRotated::Done { id } => {
                say(&format!("master key {id} alone opens the store; backups made before need the old one\n"))
            }
            MasterRotated::Both { id, placed: Ok(()) } => say(&format!(
                "master key {id} is in {place}, and the old one still opens the store. Keep a copy of it apart from the backups, \
                 see that it survives a restart, then run this again to end the old one\n"
            )),
            MasterRotated::Both { id, placed: Err(why) } => say(&format!(
                "master key {id} and the old one both open the store. Put the new one into its place ({why}), restart, \
                 then run this again to end the old one\n"
            )),
        }
    })
}

fn described(record: Entry, rotated: &MasterRotated) -> Entry {
    match rotated {
        MasterRotated::Done { id } => record.because(format_args!("{id} alone opens the store")),
        MasterRotated::Both { id, .. } => record.because(format_args!("{id} opens the store too")),
    }
}

/// Where there is no store nothing is done: opening it would make one.
pub(super) fn on_store(
    source: &Source,
    work: impl AsyncFnOnce(&Core, &Config) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    if !Store::exists(&loaded.config.store) {
        anyhow::bail!("there is no store in {}", loaded.config.store.path.display());
    }
    slow_runtime()?.block_on(async { work(&open(&loaded.config).await?, &loaded.config).await })
}

fn progress() -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(0);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {percent:>3}% {eta:>4} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn tell(bar: &indicatif::ProgressBar, progress: &Progress<'_>) {
    match progress {
        Progress::Waiting(behind) => bar.set_message(format!("{} processes have to open the new key", behind.len())),
        Progress::Resealing { done, of } => {
            bar.set_length(*of);
            bar.set_position(*done);
            bar.set_message("sealing anew");
        }
    }
}

fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Prepared => "prepared",
        KeyState::Active => "active",
        KeyState::OpensOld => "opens old records",
    }
}

fn master_source(store: &config::Store) -> String {
    match store.key {
        Some(_) => "store.key".to_owned(),
        None => store.key_file.display().to_string(),
    }
}

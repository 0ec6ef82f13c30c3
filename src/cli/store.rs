//! `bearerd store ...`: a backup of the store while it is in use, and a store made from one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;

use super::accounts::by_operator;
use super::keys::on_store;
use super::serve::{harden, slow_runtime};
use super::{Source, say};
use crate::audit::{Event, Record};
use crate::clock::Clock;
use crate::store::{Gone, Store};
use crate::tasks::Tasks;

pub fn backup(source: &Source, file: &Path) -> anyhow::Result<()> {
    on_store(source, async |core, _| {
        let record = by_operator(Event::Backup).because(file.display());
        let size = core.store.audited(record, |record, _| record, core.store.backup(file)).await?;
        say(&format!("{}: {size} bytes; it opens only with the store's key, which is not in it\n", file.display()))
    })
}

pub fn restore(source: &Source, file: &Path, audit: Option<&Path>) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    harden();
    let gone = audit.map(gone).transpose()?.unwrap_or_default();
    slow_runtime()?.block_on(async {
        let config = &loaded.config;
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        let rotations: BTreeMap<_, _> =
            config.providers.iter().map(|(id, provider)| (id.clone(), provider.rotation)).collect();
        let record = by_operator(Event::Restore).because(file.display());
        let restored = Store::restore(&config.store, file, rotations, gone, record, Clock::system(), &tasks).await?;
        let mut text = format!(
            "{}: {} grants are restored, {} that were ended since are ended again\n",
            config.store.path.display(),
            restored.grants,
            restored.ended
        );
        if restored.unreadable > 0 {
            let _ = writeln!(text, "{} grants can't be opened: these accounts need a sign-in", restored.unreadable);
        }
        if audit.is_none() {
            text += "what was revoked or removed after the backup is back: revoke it again\n";
        }
        say(&text)
    })
}

/// What an export of the audit log says of grants that were ended.
fn gone(file: &Path) -> anyhow::Result<Vec<Gone>> {
    let place = || file.display().to_string();
    let mut gone = Vec::new();
    for (index, line) in BufReader::new(File::open(file).with_context(place)?).lines().enumerate() {
        let line = line.with_context(place)?;
        let record: Record = serde_json::from_str(&line).with_context(|| format!("{}: line {}", place(), index + 1))?;
        gone.extend(Gone::of(&record));
    }
    Ok(gone)
}

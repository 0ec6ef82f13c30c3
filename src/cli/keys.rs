//! `bearerd keys ...`: the store's keys. `generate` never overwrites one: what it sealed would be lost.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::accounts::open;
use super::serve::{harden, slow_runtime};
use super::{Source, say};
use crate::store::generate_key;

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

/// Where the master key is, and which data keys it opens. Opening the store proves that it is the right one.
pub fn status(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    slow_runtime()?.block_on(async {
        let core = open(&loaded.config).await?;
        let store = &loaded.config.store;
        let place = match store.key {
            Some(_) => "store.key of the environment or the file".to_owned(),
            None => store.key_file.display().to_string(),
        };
        let mut text = format!("master key  {place}\nstore       {}\n", store.path.display());
        for key in core.store.keys().await? {
            let state = if key.active { "active" } else { "opens old records" };
            let _ = writeln!(text, "data key    {} made {} ({state})", key.id, key.made_at);
        }
        say(&text)
    })
}

//! When the configuration is read again, and what is said about it: in the answer to whoever asked, in the log, and in the metric.
//!
//! Invariants: a configuration with a mistake changes nothing; no value of it is said, only names of keys. A file is read when two looks
//! at it saw the same, so that one that is being written is left alone.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::StartError;
use super::live::Live;
use crate::admin::{NotReloaded, Reload, Reloaded};
use crate::audit::{Entry, Event, Outcome, Who};
use crate::config::{Changes, Files, Loaded, Mistake, Mistakes, Origin, Source};

/// What an operator's request is called.
const API: &str = "POST /v1/reload";
/// The files are looked at so often.
const LOOK: Duration = Duration::from_secs(2);

/// What it takes to read the configuration again.
pub struct Reloadable {
    pub source: Source,
    pub level: SetLevel,
}

/// Sets the level of the log.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What was seen of the files.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What they held when they were read last.
    read: Files,
    /// The last look, if it saw something else.
    seen: Option<Files>,
    /// The look that led to the last reload.
    answered: Option<Files>,
}

impl Watch {
    pub(super) fn of(read: Files) -> Self {
        Self { read, ..Self::default() }
    }

    /// They were read, and held this.
    fn read(&mut self, files: Files) {
        self.answered = self.answered.take().filter(|answered| *answered != files);
        self.read = files;
        self.seen = None;
    }

    /// Whether it is time to read them again.
    fn look(&mut self, now: Files) -> bool {
        if now == self.read || self.answered.as_ref() == Some(&now) {
            self.seen = None;
            return false;
        }
        let settled = self.seen.as_ref() == Some(&now);
        if settled {
            self.answered = Some(now);
        } else {
            self.seen = Some(now);
        }
        settled
    }
}

/// Looks at the files as long as there is anybody to tell.
pub(super) async fn watch_files(live: Weak<Live>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(live) = live.upgrade() else { return };
        // What came of it is in the log.
        drop(live.look_at_files().await);
    }
}

impl Live {
    pub(super) async fn look_at_files(self: &Arc<Self>) -> Option<Result<Reloaded, NotReloaded>> {
        let read = self.in_force().await.watch.read.clone();
        let now = self.core().tasks.spawn_blocking(move || read.now()).await.ok()?;
        if self.in_force().await.watch.look(now) { Some(self.clone().reload("a file has changed").await) } else { None }
    }

    /// Detached: whoever asked may hang up.
    pub(super) async fn reload(self: Arc<Self>, trigger: &'static str) -> Result<Reloaded, NotReloaded> {
        let tasks = self.core().tasks;
        let reloading = tasks.spawn(async move { self.read_and_replace(trigger).await });
        reloading.await.unwrap_or(Err(NotReloaded::Impossible("a bug of ours; see the log")))
    }

    async fn read_and_replace(&self, trigger: &'static str) -> Result<Reloaded, NotReloaded> {
        let Some((started, reloadable)) = &self.reloadable else {
            tracing::warn!(trigger, "nothing is reloaded: this configuration came from no file");
            return Err(NotReloaded::Impossible("this configuration came from no file"));
        };
        // Held to the end: one at a time.
        let mut in_force = self.in_force().await;
        let core = self.core();
        let source = reloadable.source.clone();
        let read = core.tasks.spawn_blocking(move || source.load()).await;
        let read = read.map_err(|_| NotReloaded::Impossible("a bug of ours; see the log"))?;
        let files = match &read {
            Ok(Loaded { files, .. }) | Err(Mistakes { files, .. }) => files.clone(),
        };
        in_force.watch.read(files);
        let result = match read {
            Err(mistakes) => Err(mistakes.list),
            Ok(new) => {
                let changes = Changes::between(started, in_force.loaded.as_ref().unwrap_or(started), &new);
                let replaced = self.replace(&mut in_force, &new, &changes).map_err(|error| vec![mistake(&error)]);
                replaced.map(|()| {
                    if changes.touch("log.level")
                        && let Err(error) = (reloadable.level)(&new.config.log.level)
                    {
                        tracing::warn!(error, "the level of the log stays as it was");
                    }
                    let said = said(&changes, &new);
                    in_force.loaded = Some(new);
                    said
                })
            }
        };
        drop(in_force);
        core.metrics.reloaded(result.as_ref().map_or("refused", |said| said.outcome));
        let record = record(trigger, &result);
        if let Err(error) = core.store.audit(record).await {
            tracing::warn!(%error, "the reload can't be recorded");
        }
        match &result {
            Ok(said) => tell(trigger, said),
            Err(mistakes) => {
                for mistake in mistakes {
                    tracing::error!(trigger, %mistake, "a mistake in the new configuration");
                }
                let mistakes = mistakes.len();
                tracing::error!(trigger, mistakes, "the configuration was not reloaded: everything stays as it was");
            }
        }
        result.map_err(NotReloaded::Mistakes)
    }
}

fn said(changes: &Changes, new: &Loaded) -> Reloaded {
    let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect::<Vec<_>>();
    let applied = names(&mut changes.changed());
    Reloaded {
        outcome: if applied.is_empty() { "unchanged" } else { "applied" },
        changed: applied,
        needs_restart: names(&mut changes.needs_restart()),
        warnings: new.warnings.clone(),
    }
}

/// For the audit log. A store that can't be written to holds up no reload: it may be what mends it.
fn record(trigger: &'static str, result: &Result<Reloaded, Vec<Mistake>>) -> Entry {
    let who = if trigger == API { Who::Admin } else { Who::Bearerd };
    let entry = Entry::new(Event::ConfigReload, who);
    match result {
        Ok(said) if said.changed.is_empty() => entry.because(format!("{trigger}: nothing changed")),
        Ok(said) => entry.because(format!("{trigger}: {}", said.changed.join(", "))),
        Err(mistakes) => {
            let keys: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
            entry.because(format!("{trigger}: mistakes in {}", keys.join(", "))).with(Outcome::Failed)
        }
    }
}

fn tell(trigger: &'static str, said: &Reloaded) {
    for warning in &said.warnings {
        tracing::warn!(trigger, "{warning}");
    }
    let changed = said.changed.join(", ");
    if changed.is_empty() {
        tracing::info!(trigger, "the configuration was read again: nothing has changed that can be put in force");
    } else {
        tracing::info!(trigger, changed, "the configuration was reloaded");
    }
    if !said.needs_restart.is_empty() {
        let keys = said.needs_restart.join(", ");
        tracing::warn!(trigger, keys, "these changes need a restart, and stay as they were until then");
    }
}

/// What could be read and not be made. Its text begins with the key.
fn mistake(error: &StartError) -> Mistake {
    let text = error.to_string();
    let (path, what) = text.split_once(": ").unwrap_or(("", &text));
    Mistake { path: path.to_owned(), what: what.to_owned(), origin: Origin::Default }
}

/// `POST /v1/reload`.
pub(super) struct Handle(pub(super) Weak<Live>);

impl Reload for Handle {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, NotReloaded>> + Send + '_>> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(live) => live.reload(API).await,
                None => Err(NotReloaded::Impossible("everything ends")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_change_counts_when_it_has_settled_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bearerd.toml");
        fs::write(&file, "half = ").unwrap();
        let read = Config::load(Some(&file), &std::collections::BTreeMap::new(), &[]).unwrap_err().files;
        let mut watch = Watch::of(read.clone());
        let look = |watch: &mut Watch| watch.look(read.now());
        assert!(!look(&mut watch) && !look(&mut watch));
        fs::write(&file, "half = 1").unwrap();
        assert!(!look(&mut watch), "it may be half of it");
        fs::write(&file, "half = 12").unwrap();
        assert!(!look(&mut watch), "it was");
        assert!(look(&mut watch));
        assert!(!look(&mut watch) && !look(&mut watch), "once");
        fs::write(&file, "half = ").unwrap();
        assert!(!look(&mut watch) && !look(&mut watch), "as it was read");
        fs::write(&file, "half = 12").unwrap();
        assert!(!look(&mut watch), "that was answered");
        let now = watch.read.now();
        watch.read(now);
        fs::write(&file, "half = ").unwrap();
        let now = watch.read.now();
        watch.read(now);
        fs::write(&file, "half = 12").unwrap();
        assert!(!look(&mut watch) && look(&mut watch), "something else was read meanwhile");
    }
}

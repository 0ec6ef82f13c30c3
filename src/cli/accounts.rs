//! `bearerd accounts ...`: the operator's view of grants. Works on the store, beside a running server or without one; a server
//! follows within a second. Never shows a secret.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};

pub(super) use self::export::ExportAudit;
pub(super) use self::import::Layout;
use super::serve::{harden, slow_runtime};
use super::{Accounts, Source, say};
use crate::app::Core;
use crate::audit::{Entry, Event, Who};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::Grant;
use crate::tasks::Tasks;
use crate::vault::LeaseError;

mod export;
mod import;
mod msal_cache;
mod shown;

pub fn run(source: &Source, verb: &Accounts) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    slow_runtime()?.block_on(async {
        let core = open(&loaded.config).await?;
        match verb {
            Accounts::List { format } => shown::list(&core, &loaded.config.store.path, *format).await,
            Accounts::Show { alias, format } => shown::show(&find(&core, alias).await?, &core, *format),
            Accounts::Refresh { alias } => refresh(&core, alias).await,
            Accounts::Revoke { alias } => revoke(&core, alias).await,
            Accounts::Remove { alias, yes } => remove(&core, alias, *yes).await,
            Accounts::Import { file, from, no_verify } => {
                import::import(&core, &loaded.config, file, *from, !no_verify).await
            }
            Accounts::ExportAudit(wanted) => export::export(&core, wanted).await,
        }
    })
}

/// What works on grants, on the runtime of the caller. From here on the process holds keys and tokens.
pub(super) async fn open(config: &Config) -> anyhow::Result<Core> {
    harden();
    let tasks = Tasks::on(tokio::runtime::Handle::current());
    Ok(Core::open(config, Clock::system(), tasks).await?)
}

async fn find(core: &Core, alias: &str) -> anyhow::Result<Grant> {
    core.store
        .find(alias)
        .await?
        .with_context(|| format!("there is no account {alias:?}; `bearerd accounts list` shows those that there are"))
}

/// What the operator does to an account here, for the record.
fn act(event: Event, grant: &Grant) -> Entry {
    by_operator(event).of(&grant.alias, &grant.key)
}

/// Who that is, the system knows.
pub(super) fn by_operator(event: Event) -> Entry {
    Entry::new(event, Who::Cli).from_peer(format_args!("uid={}", rustix::process::getuid().as_raw()))
}

async fn refresh(core: &Core, alias: &str) -> anyhow::Result<()> {
    let grant = find(core, alias).await?;
    let refresh = core.vault.refresh(&grant.alias);
    let refreshed = core.store.audited(act(Event::Refresh, &grant), |entry, _| entry, refresh).await;
    let refreshed = refreshed.map_err(|error| match error {
        LeaseError::SigninRequired(_) | LeaseError::Revoked => {
            anyhow::anyhow!("{error}\nA sign-in mends it: bearerd login --account {alias} --link")
        }
        _ => error.into(),
    })?;
    say(&format!("{alias} is refreshed; status {}\n", refreshed.state()))
}

async fn revoke(core: &Core, alias: &str) -> anyhow::Result<()> {
    let grant = find(core, alias).await?;
    if !core.store.audited(act(Event::Revoke, &grant), |entry, _| entry, core.vault.revoke(&grant.key)).await? {
        bail!("{alias} was removed meanwhile");
    }
    say(&format!("{alias} is revoked and its tokens are erased; a running server follows within a second\n"))
}

async fn remove(core: &Core, alias: &str, yes: bool) -> anyhow::Result<()> {
    let grant = find(core, alias).await?;
    if !yes {
        if !std::io::stdin().is_terminal() {
            bail!("removing {alias} erases its grant: say --yes");
        }
        eprint!("Remove {alias} and erase its grant? [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was removed");
        }
    }
    if !core.store.audited(act(Event::Remove, &grant), |entry, _| entry, core.store.remove(&grant.key)).await? {
        bail!("{alias} was removed meanwhile");
    }
    say(&format!("{alias} is removed\n"))
}

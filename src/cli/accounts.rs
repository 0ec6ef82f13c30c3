//! `bearerd accounts ...`: the operator's view of grants. Never shows a secret.
//!
//! A running server of the same store does it, so that its memory knows at once and its limits count; without one the store is worked on
//! directly. What is said is the same.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};

pub(super) use self::export::ExportAudit;
pub(super) use self::import::Layout;
use self::remote::{Remote, problem};
use super::serve::{harden, slow_runtime};
use super::{Accounts, Source, say};
use crate::admin::desk::{Account, Page, Query, Taken};
use crate::admin::{Actor, Desk, Kind};
use crate::app::Core;
use crate::audit::{Entry, Event};
use crate::clock::Clock;
use crate::config::Config;
use crate::tasks::Tasks;
use crate::vault::Import;

mod export;
mod import;
mod msal_cache;
mod remote;
mod shown;

/// Who does the work.
enum Office {
    /// We ourselves, on the store.
    Here(Desk),
    /// The server that runs.
    There(Remote),
}

pub fn run(source: &Source, verb: &Accounts) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    slow_runtime()?.block_on(async {
        // Of the store alone: a server has nothing to add.
        if let Accounts::ExportAudit(wanted) = verb {
            return export::export(&open(&loaded.config).await?, wanted).await;
        }
        let office = Office::open(&loaded.config).await?;
        match verb {
            Accounts::List { format } => shown::list(&office, &loaded.config.store.path, *format).await,
            Accounts::Show { alias, format } => shown::show(&office.find(alias).await?, &Clock::system(), *format),
            Accounts::Refresh { alias } => refresh(&office, alias).await,
            Accounts::Revoke { alias } => revoke(&office, alias).await,
            Accounts::Remove { alias, yes } => remove(&office, alias, *yes).await,
            Accounts::Import { file, from, no_verify } => {
                import::import(&office, &loaded.config, file, *from, !no_verify).await
            }
            Accounts::ExportAudit(_) => unreachable!("printed above"),
        }
    })
}

/// What an operator does here, for the record.
pub(super) fn by_operator(event: Event) -> Entry {
    Actor::CommandLine.entry(event)
}

/// What works on grants, on the runtime of the caller. From here on the process holds keys and tokens.
pub(super) async fn open(config: &Config) -> anyhow::Result<Core> {
    harden();
    let tasks = Tasks::on(tokio::runtime::Handle::current());
    Ok(Core::open(config, Clock::system(), tasks).await?)
}

impl Office {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        if let Some(remote) = Remote::find(config).await {
            harden();
            return Ok(Self::There(remote));
        }
        Ok(Self::Here(open(config).await?.desk(config)))
    }

    async fn accounts(&self, query: &Query) -> anyhow::Result<Page> {
        match self {
            Self::Here(desk) => Ok(desk.accounts(query).await?),
            Self::There(remote) => remote.accounts(query).await,
        }
    }

    async fn find(&self, alias: &str) -> anyhow::Result<Account> {
        let query = Query { alias: Some(alias.to_owned()), ..Query::default() };
        self.accounts(&query).await?.accounts.pop().with_context(|| {
            format!("there is no account {alias:?}; `bearerd accounts list` shows those that there are")
        })
    }

    async fn refresh(&self, id: &str) -> anyhow::Result<Account> {
        match self {
            Self::Here(desk) => Ok(desk.refresh(id, &Actor::CommandLine).await?),
            Self::There(remote) => remote.refresh(id).await,
        }
    }

    async fn revoke(&self, id: &str) -> anyhow::Result<Account> {
        match self {
            Self::Here(desk) => Ok(desk.revoke(id, &Actor::CommandLine).await?),
            Self::There(remote) => remote.revoke(id).await,
        }
    }

    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Here(desk) => Ok(desk.remove(id, &Actor::CommandLine).await.map(drop)?),
            Self::There(remote) => remote.remove(id).await,
        }
    }

    async fn import(&self, row: Import, verify: bool) -> anyhow::Result<Taken> {
        match self {
            Self::Here(desk) => Ok(desk.import(row, verify, &Actor::CommandLine).await?),
            Self::There(remote) => remote.import(&row, verify).await,
        }
    }
}

async fn refresh(office: &Office, alias: &str) -> anyhow::Result<()> {
    let account = office.find(alias).await?;
    let refreshed = office.refresh(&account.id).await.map_err(|error| match problem(&error) {
        Some(problem) if problem.kind == Kind::SigninRequired => {
            anyhow::anyhow!("{problem}\nA sign-in mends it: bearerd login --account {alias} --link")
        }
        _ => error,
    })?;
    say(&format!("{alias} is refreshed; status {}\n", refreshed.status))
}

async fn revoke(office: &Office, alias: &str) -> anyhow::Result<()> {
    let account = office.find(alias).await?;
    office.revoke(&account.id).await?;
    let follows = match office {
        Office::Here(_) => "; a running server follows within a second",
        Office::There(_) => "",
    };
    say(&format!("{alias} is revoked and its tokens are erased{follows}\n"))
}

async fn remove(office: &Office, alias: &str, yes: bool) -> anyhow::Result<()> {
    let account = office.find(alias).await?;
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
    office.remove(&account.id).await?;
    say(&format!("{alias} is removed\n"))
}

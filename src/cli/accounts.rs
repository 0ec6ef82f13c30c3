//! `bearerd accounts ...`: the operator's view of grants. Works on the store, beside a running server or without one; a server
//! follows within a second. Never shows a secret.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;

use super::serve::{harden, slow_runtime};
use super::{Accounts, Format, Source, say, say_json};
use crate::account::Alias;
use crate::app::Core;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::secret::Secret;
use crate::store::{Grant, Status};
use crate::tasks::Tasks;
use crate::vault::{Import, Imported, LeaseError};

/// Accounts read from the store at a time.
const PAGE: usize = 1000;

pub fn run(source: &Source, verb: &Accounts) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    slow_runtime()?.block_on(async {
        let core = open(&loaded.config).await?;
        match verb {
            Accounts::List { format } => list(&core, &loaded.config.store.path, *format).await,
            Accounts::Show { alias, format } => show(&find(&core, alias).await?, &core, *format),
            Accounts::Refresh { alias } => refresh(&core, alias).await,
            Accounts::Revoke { alias } => revoke(&core, alias).await,
            Accounts::Remove { alias, yes } => remove(&core, alias, *yes).await,
            Accounts::Import { file, no_verify } => import(&core, file, !no_verify).await,
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

async fn list(core: &Core, store: &Path, format: Format) -> anyhow::Result<()> {
    let mut grants: Vec<Grant> = Vec::new();
    loop {
        let after = grants.last().map(|grant| grant.alias.as_str());
        let page = core.store.list(after, PAGE).await?;
        let last = page.len() < PAGE;
        grants.extend(page);
        if last {
            break;
        }
    }
    if format == Format::Json {
        return say_json(&grants.iter().map(document).collect());
    }
    if grants.is_empty() {
        let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
        return say(&format!(
            "no accounts yet in {}; `bearerd login --account ALIAS --link` makes a sign-in link\n",
            store.display()
        ));
    }
    let mut text = String::new();
    let width = grants.iter().map(|grant| grant.alias.as_str().len()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:width$}  {:9}  {:12}  {:20}  WHY", "ALIAS", "STATUS", "PROVIDER", "REFRESHED");
    for grant in &grants {
        let refreshed = grant.refreshed_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let (status, why) = (status(&grant.status), why(&grant.status));
        let _ = writeln!(
            text,
            "{:width$}  {status:9}  {:12}  {refreshed:20}  {why}",
            grant.alias.as_str(),
            grant.key.provider
        );
    }
    say(&text)
}

fn show(grant: &Grant, core: &Core, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return say_json(&document(grant));
    }
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:12} {value}");
    };
    row("alias", grant.alias.as_str());
    row("id", &grant.key.id());
    row("provider", &grant.key.provider);
    row("tenant", &grant.key.tenant);
    row("subject", &grant.key.subject);
    row("user", grant.username.as_deref().unwrap_or("unknown"));
    row("status", status(&grant.status));
    match &grant.status {
        Status::Reauth(reason) => {
            row("because", &reason.text);
            row("since", &reason.since.to_string());
            row("mend", &format!("bearerd login --account {} --link", grant.alias));
        }
        Status::Revoked => row("mend", &format!("bearerd login --account {} --link", grant.alias)),
        Status::Active | Status::Uncertain => {}
    }
    row("scopes", &grant.scopes.join(" "));
    row("signed in", &grant.signed_in_at.to_string());
    row("refreshed", &grant.refreshed_at.map_or_else(|| "never".to_owned(), |at| at.to_string()));
    if let Some(at) = grant.next_try.filter(|at| *at > core.clock.now()) {
        row("next try", &at.to_string());
    }
    for token in &grant.access {
        let state = if token.expires > core.clock.now() { "expires" } else { "expired" };
        row("access token", &format!("{state} {} ({})", token.expires, token.scope_set));
    }
    say(&text)
}

async fn refresh(core: &Core, alias: &str) -> anyhow::Result<()> {
    let grant = find(core, alias).await?;
    let refreshed = core.vault.refresh(&grant.alias).await.map_err(|error| match error {
        LeaseError::SigninRequired(_) | LeaseError::Revoked => {
            anyhow::anyhow!("{error}\nA sign-in mends it: bearerd login --account {alias} --link")
        }
        _ => error.into(),
    })?;
    say(&format!("{alias} is refreshed; status {}\n", status(&refreshed.status)))
}

async fn revoke(core: &Core, alias: &str) -> anyhow::Result<()> {
    let grant = find(core, alias).await?;
    tracing::info!(target: "bearerd::audit", event = "revoke", account = %grant.alias, id = %grant.key.id(), by = "command line");
    if !core.store.revoke(&grant.key).await? {
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
    tracing::info!(target: "bearerd::audit", event = "remove", account = %grant.alias, id = %grant.key.id(), by = "command line");
    if !core.store.remove(&grant.key).await? {
        bail!("{alias} was removed meanwhile");
    }
    say(&format!("{alias} is removed\n"))
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

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Epoch(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    List(Vec<String>),
    Text(String),
}

/// A bad row is reported with its line number and stops nothing.
async fn import(core: &Core, file: &Path, verify: bool) -> anyhow::Result<()> {
    let reader = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let metadata = reader.metadata().with_context(|| file.display().to_string())?;
    if metadata.is_dir() {
        bail!("{} is a directory; a file of JSON Lines is needed", file.display());
    }
    let size = metadata.len();
    let progress = progress(size);
    let (mut good, mut bad) = (0_u64, 0_u64);
    for (index, line) in BufReader::new(reader).split(b'\n').enumerate() {
        let line = Secret::new(line.with_context(|| format!("{} line {}", file.display(), index + 1))?);
        progress.inc(line.expose().len() as u64 + 1);
        if line.expose().trim_ascii().is_empty() {
            continue;
        }
        match import_row(core, line.expose(), verify).await {
            Ok(imported) => {
                good += 1;
                let (Imported::New(grant) | Imported::Already(grant)) = &imported;
                progress.set_message(grant.alias.to_string());
                if matches!(imported, Imported::Already(_)) {
                    let line = index + 1;
                    progress.suspend(|| eprintln!("{} line {line}: this token is imported already", file.display()));
                }
            }
            Err(error) => {
                bad += 1;
                progress.suspend(|| eprintln!("{} line {}: {error:#}", file.display(), index + 1));
            }
        }
    }
    progress.finish_and_clear();
    say(&format!("{good} imported, {bad} failed\n"))?;
    if bad > 0 {
        bail!("{bad} of {} rows were not imported", good + bad);
    }
    Ok(())
}

async fn import_row(core: &Core, line: &[u8], verify: bool) -> anyhow::Result<Imported> {
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
    Ok(core.vault.import(row, verify).await?)
}

/// serde quotes values that it did not expect, and those may be secrets.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.starts_with("missing field") || text.starts_with("unknown field"), error.classify()) {
        (true, _) => text.split(" at line ").next().unwrap_or_default().to_owned(),
        (_, serde_json::error::Category::Data) => format!("a field has the wrong type (column {})", error.column()),
        _ => format!("not JSON (column {})", error.column()),
    }
}

/// RFC 3339 or seconds since the epoch.
fn timestamp(when: When) -> anyhow::Result<Timestamp> {
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

fn document(grant: &Grant) -> serde_json::Value {
    let reason = match &grant.status {
        Status::Reauth(reason) => json!({"text": reason.text, "dead": reason.dead, "since": reason.since.to_string()}),
        _ => serde_json::Value::Null,
    };
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "alias": grant.alias,
        "id": grant.key.id(),
        "provider": grant.key.provider,
        "tenant": grant.key.tenant,
        "subject": grant.key.subject,
        "username": grant.username,
        "status": status(&grant.status),
        "reason": reason,
        "scopes": grant.scopes,
        "epoch": grant.epoch,
        "version": grant.version,
        "created_at": grant.created_at.to_string(),
        "signed_in_at": grant.signed_in_at.to_string(),
        "refreshed_at": at(grant.refreshed_at),
        "next_try": at(grant.next_try),
        "access_tokens": grant.access.iter().map(|token| json!({
            "scopes": token.scope_set,
            "expires_at": token.expires.to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn status(status: &Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Uncertain => "uncertain",
        Status::Reauth(_) => "reauth",
        Status::Revoked => "revoked",
    }
}

fn why(status: &Status) -> &str {
    match status {
        Status::Reauth(reason) => &reason.text,
        Status::Uncertain => "the outcome of the last refresh is unknown",
        Status::Active | Status::Revoked => "",
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

//! `bearerd login`: signs an account in, by a browser on this machine, by a code, or by a link for somebody else.
//!
//! The browser's way is the pages themselves, served for one sign-in on a port of the loopback interface. The link's secret is never
//! an argument of a program that is started: other users could read it there.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::watch;
use url::Url;

use super::accounts::by_operator;
use crate::account::{AccountKey, Alias};
use crate::app::Core;
use crate::audit::Event;
use crate::claims::Claims;
use crate::config::{self, Config, Listen};
use crate::front::Pages;
use crate::hosts::Hosts;
use crate::oauth::{SignInError, SignedIn};
use crate::server::{Bound, Settings};
use crate::signin::{self, Invite, Outcome, Polled};
use crate::store::Grant;
use crate::vault::SignInFor;

/// For a sign-in by browser, from the first page to the last.
const PATIENCE: Duration = Duration::from_mins(10);
/// For a browser to fetch the last page, and for that page to reach it.
const LAST_PAGE: Duration = Duration::from_secs(3);

/// Whom to sign in, and where.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// `None`: whoever it is, named as the provider names them.
    alias: Option<Alias>,
    /// Whose the alias is, if there is such an account.
    account: Option<AccountKey>,
    provider: String,
    /// What the account waits for: the sign-in has to carry it.
    claims: Option<Claims>,
}

impl Wanted {
    /// An account that exists has its provider; else the one that is named, or the only one.
    pub(crate) async fn find(core: &Core, account: Option<&str>, provider: Option<&str>) -> anyhow::Result<Self> {
        let alias = account.map(Alias::new).transpose().context("--account")?;
        let grant = match &alias {
            Some(alias) => core.store.find(alias.as_str()).await?,
            None => None,
        };
        let claims = grant.as_ref().and_then(Grant::challenge);
        let account = grant.map(|grant| grant.key);
        let known = account.as_ref().map(|key| key.provider.clone());
        let ids: Vec<&str> = core.providers.keys().map(String::as_str).collect();
        let provider = match (provider, known, ids.as_slice()) {
            (Some(named), Some(known), _) if named != known => {
                bail!("--provider: the account was signed in at {known}; remove it first to sign in elsewhere")
            }
            (Some(named), _, _) => named.to_owned(),
            (None, Some(known), _) => known,
            (None, None, [only]) => (*only).to_owned(),
            (None, None, _) => bail!("there are several providers; say which one: --provider {}", ids.join(" or ")),
        };
        if !ids.contains(&provider.as_str()) {
            bail!("--provider: {provider} is not configured; there is {}", ids.join(" and "));
        }
        Ok(Self { alias, account, provider, claims })
    }

    fn invite(&self, core: &Core) -> Invite {
        let invite = Invite::new(self.alias.clone(), &self.provider, "the operator", &core.clock);
        Invite { account: self.account.clone(), claims: self.claims.clone(), ..invite }
    }
}

/// Prints a link to send to the user.
pub(crate) async fn login_link(
    core: &Core,
    config: &Config,
    wanted: &Wanted,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let Some(alias) = &wanted.alias else { bail!("a link is made for one account; name it: --account ALIAS") };
    let invite = wanted.invite(core);
    let record = by_operator(Event::LinkMade).named(alias);
    let made = signin::create_invite(&core.store, &core.clock, &invite);
    let id = core.store.audited(record, |record, _| record, made).await?;
    let link = signin::login_url(&config.signin.public_url, &id);
    writeln!(out, "For {alias}, good for one sign-in until {}:\n\n    {link}\n", invite.expires)?;
    Ok(())
}

/// Prints a code and waits until somebody has entered it.
pub(crate) async fn login_device(
    core: &Core,
    config: &Config,
    wanted: &Wanted,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let provider = core.providers.get(&wanted.provider).context("the provider is not configured")?;
    let scopes = signin::redeem_scopes(&config.upstreams, &wanted.provider);
    let device = provider.start_device(&scopes, wanted.claims.as_ref()).await.map_err(in_words)?;
    writeln!(out, "Open {} and enter the code\n\n    {}\n", device.verification_uri, device.user_code)?;
    writeln!(out, "Enter it yourself; never pass it on to anybody who asks for it. Waiting ...")?;
    out.flush()?;
    let (started, mut interval) = (core.clock.moment(), device.interval.max(Duration::from_secs(1)));
    while core.clock.moment().since(started) < device.expires_in {
        tokio::time::sleep(interval).await;
        match signin::judge(provider.poll_device(&device, &scopes, wanted.claims.as_ref()).await) {
            Polled::Wait { slower } => interval += Duration::from_secs(slower),
            Polled::Done(signed_in) => return store(core, wanted, *signed_in, &scopes, out).await,
            Polled::Over(error) => return Err(in_words(error)),
        }
    }
    bail!("the code was not entered in time")
}

/// Serves the pages on a port of this machine and opens them in a browser. `port` 0: any that is free.
pub(crate) async fn login_browser(
    core: &Core,
    config: &Config,
    wanted: &Wanted,
    port: u16,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let bound = Bound::bind("--port", &[listen], 1)?;
    let Some(Listen::Tcp(address)) = bound.addresses().first() else { bail!("no port was bound") };
    // The name that providers accept for programs on the user's own machine, with any port.
    let public_url = Url::parse(&format!("http://localhost:{}", address.port()))?;
    let section = config::Signin {
        listen: None,
        public_url: public_url.clone(),
        mode: config::SigninMode::Invite,
        device_code: false,
    };
    let pages = core.signin(config, section);
    let outcomes = pages.outcomes();
    let hosts = Arc::new(Hosts::new([&public_url], &[], []));
    let service = Pages { signin: pages, hosts, tasks: core.tasks.clone(), clock: core.clock.clone() };
    let running = bound.start_on(&core.tasks, &Settings::small(), &core.metrics, service)?;

    let id = signin::create_invite(&core.store, &core.clock, &wanted.invite(core)).await?;
    let url = signin::login_url(&public_url, &id);
    let springboard = Springboard::new(&config.store.path, &url);
    if let Ok(springboard) = &springboard {
        open(&springboard.0);
    }
    writeln!(out, "Sign in with the browser. If none has opened, open this yourself:\n\n    {url}\n")?;
    out.flush()?;
    let outcome = tokio::time::timeout(PATIENCE, ended(outcomes)).await;
    drop(springboard);
    running.drain(LAST_PAGE).await;
    match outcome {
        Err(_) => bail!("nobody has signed in within ten minutes"),
        Ok(Outcome::Failed { text }) => bail!(text),
        Ok(Outcome::SignedIn { alias, username }) => tell(&alias, username.as_deref(), out),
    }
}

/// How the sign-in ended; a success not before its page was fetched, if that happens soon.
async fn ended(mut outcomes: watch::Receiver<Option<Outcome>>) -> Outcome {
    loop {
        let seen = outcomes.borrow_and_update().clone();
        match seen {
            Some(outcome @ Outcome::SignedIn { .. }) => {
                // Either way the account is signed in.
                let _ = tokio::time::timeout(LAST_PAGE, outcomes.changed()).await;
                return outcome;
            }
            Some(outcome @ Outcome::Failed { .. }) => return outcome,
            None => {}
        }
        if outcomes.changed().await.is_err() {
            return Outcome::Failed { text: "the pages have ended".to_owned() };
        }
    }
}

async fn store(
    core: &Core,
    wanted: &Wanted,
    signed_in: SignedIn,
    scopes: &[String],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let who = match (wanted.alias.clone(), wanted.account.clone()) {
        (Some(alias), Some(key)) => SignInFor::Account { alias, key },
        (Some(alias), None) => SignInFor::Alias(alias),
        (None, _) => SignInFor::Anyone,
    };
    let grant = core.vault.put(&who, signed_in, scopes).await?;
    tell(grant.alias.as_str(), grant.username.as_deref(), out)
}

fn tell(alias: &str, username: Option<&str>, out: &mut dyn Write) -> anyhow::Result<()> {
    match username {
        Some(username) => writeln!(out, "{alias} is signed in as {username}.")?,
        None => writeln!(out, "{alias} is signed in.")?,
    }
    Ok(())
}

fn in_words(error: SignInError) -> anyhow::Error {
    match signin::plain_words(&error.to_string()) {
        Some(words) => anyhow!("{words} ({error})"),
        None => error.into(),
    }
}

/// A file for this user's eyes that leads to the page: what a browser is started with, in place of the link.
struct Springboard(PathBuf);

impl Springboard {
    fn new(directory: &Path, url: &Url) -> std::io::Result<Self> {
        let path = directory.canonicalize()?.join(format!("login-{}.html", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let springboard = Self(path);
        // The URL is ours, of base64url: nothing in it needs escaping.
        write!(
            file,
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=\"0; url={url}\"><title>bearerd</title>"
        )?;
        Ok(springboard)
    }
}

impl Drop for Springboard {
    fn drop(&mut self) {
        // It leads to a link that has been used or will expire.
        let _ = fs::remove_file(&self.0);
    }
}

/// The desktop's way to open a page. That there is none is no failure: the link is printed, too.
fn open(page: &Path) {
    for program in ["xdg-open", "open"] {
        let mut command = tokio::process::Command::new(program);
        if command.arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_springboard_is_for_its_owner_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let url = Url::parse("http://localhost:1/.bearerd/login?invite=abc").unwrap();
        let springboard = Springboard::new(directory.path(), &url).unwrap();
        let path = springboard.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().contains("url=http://localhost:1/.bearerd/login?invite=abc"));
        drop(springboard);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_success_is_told_once_its_page_was_shown() {
        let (tell, told) = watch::channel(None);
        let done = Outcome::SignedIn { alias: "alice".into(), username: None };
        let wait = ended(told);
        tokio::pin!(wait);
        assert!(futures_ready(&mut wait).await.is_none());
        tell.send_replace(Some(done.clone()));
        assert!(futures_ready(&mut wait).await.is_none(), "the page is not shown yet");
        tell.send_replace(Some(done.clone()));
        assert_eq!(wait.await, done);
    }

    /// One look at a future.
    async fn futures_ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}

//! Accounts as an operator sees them: a list, and one in detail, for people and for programs. Never shows a secret.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::app::Core;
use crate::cli::{Format, say, say_json};
use crate::clock::Timestamp;
use crate::store::{Grant, Parked, Reason, Status};

/// Accounts read from the store at a time.
const PAGE: usize = 1000;

pub async fn list(core: &Core, store: &Path, format: Format) -> anyhow::Result<()> {
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
        let (status, why) = (grant.state(), why(grant));
        let _ = writeln!(
            text,
            "{:width$}  {status:9}  {:12}  {refreshed:20}  {why}",
            grant.alias.as_str(),
            grant.key.provider
        );
    }
    say(&text)
}

pub fn show(grant: &Grant, core: &Core, format: Format) -> anyhow::Result<()> {
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
    row("status", grant.state());
    if let Some(reason) = grant.reason() {
        row("because", &reason.text);
        row("since", &reason.since.to_string());
    }
    if grant.reason().is_some() || grant.status == Status::Revoked {
        row("mend", &format!("bearerd login --account {} --link", grant.alias));
    }
    for parked in &grant.parked {
        let challenge = if parked.asked.is_some() { " when a claims challenge is answered" } else { "" };
        let Reason { text, since, .. } = &parked.reason;
        row("waiting", &format!("{}{challenge}, since {since}: {text}", parked.scope_set));
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

fn document(grant: &Grant) -> Value {
    let reason = |reason: &Reason| json!({"text": reason.text, "dead": reason.dead, "since": reason.since.to_string()});
    let parked = |parked: &Parked| {
        json!({
            "scopes": parked.scope_set,
            "claims": parked.asked.as_ref().map(ToString::to_string),
            "text": parked.reason.text,
            "since": parked.reason.since.to_string(),
        })
    };
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "alias": grant.alias,
        "id": grant.key.id(),
        "provider": grant.key.provider,
        "tenant": grant.key.tenant,
        "subject": grant.key.subject,
        "username": grant.username,
        "status": grant.state(),
        "reason": grant.reason().map(reason),
        "parked": grant.parked.iter().map(parked).collect::<Vec<_>>(),
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

fn why(grant: &Grant) -> &str {
    match (&grant.status, grant.reason()) {
        (Status::Uncertain, _) => "the outcome of the last refresh is unknown",
        (_, Some(reason)) => &reason.text,
        (_, None) => "",
    }
}

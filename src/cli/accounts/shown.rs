//! Accounts as an operator sees them: a list, and one in detail, for people and for programs. Never shows a secret.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::app::Core;
use crate::cli::{Format, say, say_json, say_part};
use crate::clock::Timestamp;
use crate::store::{Grant, Parked, Reason, Status};

/// Accounts read from the store at a time.
const PAGE: usize = 1000;

/// Page by page: a million accounts take no more memory than a thousand.
pub async fn list(core: &Core, store: &Path, format: Format) -> anyhow::Result<()> {
    let mut page = core.store.list(None, PAGE).await?;
    if format == Format::Table && page.is_empty() {
        let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
        return say(&format!(
            "no accounts yet in {}; `bearerd login --account ALIAS --link` makes a sign-in link\n",
            store.display()
        ));
    }
    let mut listing = Listing::begin(format, &page);
    while !page.is_empty() {
        if !say_part(&listing.part(&page))? {
            return Ok(());
        }
        let after = page.last().filter(|_| page.len() == PAGE).map(|grant| grant.alias.clone());
        page = match after {
            Some(after) => core.store.list(Some(after.as_str()), PAGE).await?,
            None => Vec::new(),
        };
    }
    say(listing.end())
}

/// A list as it is printed: one document, whatever its parts.
struct Listing {
    format: Format,
    /// Of the first column, by the first page.
    width: usize,
    begun: bool,
}

impl Listing {
    fn begin(format: Format, first: &[Grant]) -> Self {
        let width = first.iter().map(|grant| grant.alias.as_str().len()).max().unwrap_or(0).max(5);
        Self { format, width, begun: false }
    }

    fn part(&mut self, page: &[Grant]) -> String {
        let mut text = String::new();
        let width = self.width;
        if self.format == Format::Table && !self.begun {
            let _ = writeln!(text, "{:width$}  {:9}  {:12}  {:20}  WHY", "ALIAS", "STATUS", "PROVIDER", "REFRESHED");
        }
        for grant in page {
            if self.format == Format::Json {
                let document = format!("{:#}", document(grant)).replace('\n', "\n  ");
                let before = if self.begun { "," } else { "[" };
                let _ = write!(text, "{before}\n  {document}");
            } else {
                let refreshed = grant.refreshed_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
                let (alias, provider) = (grant.alias.as_str(), &grant.key.provider);
                let (status, why) = (grant.state(), why(grant));
                let _ = writeln!(text, "{alias:width$}  {status:9}  {provider:12}  {refreshed:20}  {why}");
            }
            self.begun = true;
        }
        text
    }

    fn end(&self) -> &'static str {
        match (self.format, self.begun) {
            (Format::Table, _) => "",
            (Format::Json, true) => "\n]\n",
            (Format::Json, false) => "[]\n",
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountKey, Alias};

    fn grant(name: &str) -> Grant {
        let at = Timestamp::from_secs(1_700_000_000);
        Grant {
            key: AccountKey { provider: "entra".into(), tenant: "t".into(), subject: name.into() },
            alias: Alias::new(name).unwrap(),
            epoch: 1,
            version: 1,
            status: Status::Active,
            scopes: Vec::new(),
            access: Vec::new(),
            username: None,
            created_at: at,
            signed_in_at: at,
            refreshed_at: None,
            next_try: None,
            fail_count: 0,
            intent: false,
            parked: Vec::new(),
        }
    }

    #[test]
    fn parts_read_as_one_document() {
        let pages = [vec![grant("alice"), grant("bob")], vec![grant("carol")]];
        let mut listing = Listing::begin(Format::Json, &pages[0]);
        let parts: String = pages.iter().map(|page| listing.part(page)).collect();
        let whole: Value = pages.iter().flatten().map(document).collect();
        assert_eq!(parts + listing.end(), format!("{whole:#}\n"));
        assert_eq!(Listing::begin(Format::Json, &[]).end(), "[]\n");

        let mut listing = Listing::begin(Format::Table, &pages[0]);
        let parts: String = pages.iter().map(|page| listing.part(page)).collect();
        assert_eq!(parts.lines().filter(|line| line.starts_with("ALIAS")).count(), 1);
        assert_eq!(parts.lines().count(), 4);
    }
}

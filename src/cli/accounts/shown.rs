//! Accounts as an operator sees them: a list, and one in detail, for people and for programs. Never shows a secret.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::Office;
use crate::admin::desk::{Account, LARGEST_LIMIT, Parked, Query, State};
use crate::cli::{Format, say, say_json, say_part};
use crate::clock::Clock;

/// Page by page: a million accounts take no more memory than a thousand.
pub async fn list(office: &Office, store: &Path, format: Format) -> anyhow::Result<()> {
    let mut query = Query { limit: Some(LARGEST_LIMIT), ..Query::default() };
    let mut page = office.accounts(&query).await?;
    if format == Format::Table && page.accounts.is_empty() && page.next.is_none() {
        let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
        return say(&format!(
            "no accounts yet in {}; `bearerd login --account ALIAS --link` makes a sign-in link\n",
            store.display()
        ));
    }
    let mut listing = Listing::begin(format, &page.accounts);
    loop {
        if !say_part(&listing.part(&page.accounts))? {
            return Ok(());
        }
        query.cursor = page.next;
        if query.cursor.is_none() {
            return say(listing.end());
        }
        page = office.accounts(&query).await?;
    }
}

/// A list as it is printed: one document, whatever its parts.
struct Listing {
    format: Format,
    /// Of the first column, by the first page.
    width: usize,
    begun: bool,
}

impl Listing {
    fn begin(format: Format, first: &[Account]) -> Self {
        let width = first.iter().map(|account| account.alias.len()).max().unwrap_or(0).max(5);
        Self { format, width, begun: false }
    }

    fn part(&mut self, page: &[Account]) -> String {
        let mut text = String::new();
        let width = self.width;
        if self.format == Format::Table && !self.begun {
            let _ = writeln!(text, "{:width$}  {:9}  {:12}  {:20}  WHY", "ALIAS", "STATUS", "PROVIDER", "REFRESHED");
        }
        for account in page {
            if self.format == Format::Json {
                let document = format!("{:#}", json!(account)).replace('\n', "\n  ");
                let before = if self.begun { "," } else { "[" };
                let _ = write!(text, "{before}\n  {document}");
            } else {
                let refreshed = account.refreshed_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
                let Account { alias, provider, status, .. } = account;
                let _ = writeln!(text, "{alias:width$}  {status:9}  {provider:12}  {refreshed:20}  {}", why(account));
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

pub fn show(account: &Account, clock: &Clock, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return say_json(&json!(account));
    }
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:12} {value}");
    };
    row("alias", &account.alias);
    row("id", &account.id);
    row("provider", &account.provider);
    row("tenant", &account.tenant);
    row("subject", &account.subject);
    row("user", account.username.as_deref().unwrap_or("unknown"));
    row("status", account.status.name());
    if let Some(reason) = &account.reason {
        row("because", &reason.text);
        row("since", &reason.since.to_string());
    }
    if account.reason.is_some() || account.status == State::Revoked {
        row("mend", &format!("bearerd login --account {} --link", account.alias));
    }
    for Parked { scopes, claims, text, since } in &account.parked {
        let challenge = if claims.is_some() { " when a claims challenge is answered" } else { "" };
        row("waiting", &format!("{scopes}{challenge}, since {since}: {text}"));
    }
    row("scopes", &account.scopes.join(" "));
    row("signed in", &account.signed_in_at.to_string());
    row("refreshed", &account.refreshed_at.map_or_else(|| "never".to_owned(), |at| at.to_string()));
    if let Some(at) = account.next_try.filter(|at| at.0 > clock.now()) {
        row("next try", &at.to_string());
    }
    for token in &account.access_tokens {
        let state = if token.expires_at.0 > clock.now() { "expires" } else { "expired" };
        row("access token", &format!("{state} {} ({})", token.expires_at, token.scopes));
    }
    say(&text)
}

fn why(account: &Account) -> &str {
    match (account.status, &account.reason) {
        (State::Uncertain, _) => "the outcome of the last refresh is unknown",
        (_, Some(reason)) => &reason.text,
        (_, None) => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::admin::desk::At;
    use crate::clock::Timestamp;

    fn account(name: &str) -> Account {
        let at = At(Timestamp::from_secs(1_700_000_000));
        Account {
            alias: name.to_owned(),
            id: String::new(),
            provider: "entra".to_owned(),
            tenant: "t".to_owned(),
            subject: name.to_owned(),
            username: None,
            status: State::Active,
            reason: None,
            parked: Vec::new(),
            scopes: Vec::new(),
            epoch: 1,
            version: 1,
            created_at: at,
            signed_in_at: at,
            refreshed_at: None,
            next_try: None,
            access_tokens: Vec::new(),
        }
    }

    #[test]
    fn parts_read_as_one_document() {
        let pages = [vec![account("alice"), account("bob")], vec![account("carol")]];
        let mut listing = Listing::begin(Format::Json, &pages[0]);
        let parts: String = pages.iter().map(|page| listing.part(page)).collect();
        let whole: Value = pages.iter().flatten().map(|account| json!(account)).collect();
        assert_eq!(parts + listing.end(), format!("{whole:#}\n"));
        assert_eq!(Listing::begin(Format::Json, &[]).end(), "[]\n");

        let mut listing = Listing::begin(Format::Table, &pages[0]);
        let parts: String = pages.iter().map(|page| listing.part(page)).collect();
        assert_eq!(parts.lines().filter(|line| line.starts_with("ALIAS")).count(), 1);
        assert_eq!(parts.lines().count(), 4);
    }
}

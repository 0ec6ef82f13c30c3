//! `bearerd explain`: what a request would meet, as a table or as JSON. The decisions are the proxy's own; here they are laid out.

use std::fmt::Write as _;

use clap::Args;

use super::accounts::open;
use super::serve::slow_runtime;
use super::{Format, Source, say, say_json};
use crate::proxy::explain::{Asking, Explanation, GrantState, Question};
use crate::store::Store;

/// `bearerd explain`.
#[derive(Args)]
pub(crate) struct Explain {
    /// The client, as the configuration names it; may be left out where there is only one
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// The account that the client names: Basic user name or Bearerd-Account. In the path it is /as/ALIAS/...
    #[arg(long, value_name = "ALIAS")]
    account: Option<String>,
    /// As the client sends it: GET, POST, ..
    method: String,
    /// As the client sends it: /v1.0/me, or a whole URL
    path: String,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(source: &Source, wanted: &Explain) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    let store = &loaded.config.store;
    // To explain must not be what makes the store, perhaps as another user than the server's.
    anyhow::ensure!(
        Store::exists(store),
        "there is no store in {} yet, so nobody is signed in: `bearerd login` or `bearerd serve` makes it",
        store.path.display()
    );
    let question = Question {
        client: wanted.client.clone(),
        account: wanted.account.clone(),
        method: wanted.method.clone(),
        path: wanted.path.clone(),
    };
    let explanation = slow_runtime()?.block_on(async {
        let core = open(&loaded.config).await?;
        anyhow::Ok(core.explain(&loaded.config, &question).await??)
    })?;
    match wanted.format {
        Format::Json => say_json(&serde_json::to_value(&explanation)?),
        Format::Table => say(&table(&explanation)),
    }
}

fn table(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{}", format!("{name:12} {value}").trim_end());
    };
    row("request", &format!("{} {}", explanation.method, explanation.path));
    match &explanation.client {
        Some(client) => {
            let Asking { name, identity, proof } = client;
            row("client", &format!("{name} (identity {identity}), proves itself by {proof}"));
        }
        None => row("client", "unknown"),
    }
    if let Some(account) = &explanation.account {
        let may = if account.may_act { "" } else { ", for whom this client may not act" };
        row("account", &format!("{}{may}", account.alias));
    }
    match &explanation.upstream {
        Some(upstream) => {
            row("upstream", &format!("{}, with tokens of {}", upstream.name, upstream.provider));
            row("forwarded", &upstream.target);
        }
        None => row("upstream", "none"),
    }
    if explanation.upstream.is_some() {
        row("canonical", explanation.canonical.as_deref().unwrap_or("none"));
    }
    if let Some(rule) = &explanation.rule {
        row("rule", &format!("{}: {}", rule.decides, rule.text));
    }
    if let Some(grant) = &explanation.grant {
        grant_rows(grant, &mut row);
    }
    for note in &explanation.notes {
        row("note", note);
    }
    row("verdict", &explanation.verdict.text);
    text
}

fn grant_rows(grant: &GrantState, row: &mut impl FnMut(&str, &str)) {
    row("grant", if grant.state == "none" { "none: there is no such account" } else { grant.state });
    if let Some(reason) = &grant.reason {
        row("because", reason);
    }
    if let Some(since) = &grant.since {
        row("since", since);
    }
    for waiting in &grant.parked {
        let challenge = if waiting.challenged { " when a claims challenge is answered" } else { "" };
        row("waiting", &format!("{}{challenge}, since {}: {}", waiting.scopes, waiting.since, waiting.reason));
    }
    if grant.state == "none" {
        return;
    }
    row("scopes", &grant.scopes.join(" "));
    if !grant.missing_scopes.is_empty() {
        row("not granted", &grant.missing_scopes.join(" "));
    }
    match &grant.token {
        Some(token) => row("access token", &format!("{}, until {}", token.state, token.expires_at)),
        None => row("access token", "none for this upstream"),
    }
    if let Some(at) = &grant.next_try {
        row("next try", at);
    }
}

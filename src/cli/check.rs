//! `bearerd check`: every mistake of the configuration, or what it amounts to. With `--online` also whether the store, the providers, our
//! credentials there and the upstreams answer.

use std::fmt::Write as _;

use super::accounts::open;
use super::serve::slow_runtime;
use super::{Source, say};
use crate::config::{self, AppCredential, Config, ProviderKind};
use crate::oauth::Provider;
use crate::proxy;

pub fn run(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let mut text = match &loaded.path {
        Some(path) => format!("configuration ok: {}\n", path.display()),
        None => "configuration ok: from the environment\n".to_owned(),
    };
    summarise(&loaded.config, &mut text);
    say(&text)
}

/// Everything is tried, and everything that fails is said.
pub fn online(source: &Source) -> anyhow::Result<()> {
    let loaded = source.load()?;
    run(source)?;
    slow_runtime()?.block_on(async {
        let config = &loaded.config;
        let core = open(config).await?;
        let mut failures = 0;
        let mut report = |what: String, result: Result<String, String>| match result {
            Ok(detail) => say(&format!("  ok      {what}: {detail}\n")),
            Err(why) => {
                failures += 1;
                say(&format!("  FAILED  {what}: {why}\n"))
            }
        };
        let store = core.store.ready().await.map(|()| "opens with the key".to_owned());
        report(format!("store {}", config.store.path.display()), store.map_err(|error| error.to_string()))?;
        for (id, provider) in &core.providers {
            let discovery = provider.ready().await.map(|()| "discovery and keys answer".to_owned());
            report(format!("provider {id}"), discovery.map_err(|error| error.to_string()))?;
            let scopes = config.upstreams.values().find(|upstream| upstream.provider == *id);
            let scopes = scopes.map(|upstream| upstream.scopes.clone()).unwrap_or_default();
            for (key, alone) in each_credential(&config.providers[id]) {
                let credential = match Provider::new(&alone, core.clock.clone()) {
                    Ok(provider) => provider.probe_credential(&scopes).await.map_err(|error| error.text),
                    Err(error) => Err(error.to_string()),
                };
                report(format!("provider {id}, {key}"), credential.map(|()| "accepted".to_owned()))?;
            }
        }
        for upstream in config.upstreams.values() {
            let reached = proxy::probe(upstream, &core.clock, &core.metrics).await;
            report(format!("upstream {} {}", upstream.name, upstream.url), reached)?;
        }
        anyhow::ensure!(failures == 0, "{failures} of the checks failed");
        Ok(())
    })
}

/// The provider as if it had only this one of its credentials, for each: a spare that works must not hide a first one that doesn't.
fn each_credential(provider: &config::Provider) -> Vec<(String, config::Provider)> {
    let key = format!("providers.{}.credentials", provider.id);
    let alone = |(at, credential): (usize, &AppCredential)| {
        (format!("{key}[{at}]"), config::Provider { credentials: vec![credential.clone()], ..provider.clone() })
    };
    match &provider.credentials[..] {
        [] | [_] => vec![(key, provider.clone())],
        several => several.iter().enumerate().map(alone).collect(),
    }
}

fn summarise(config: &Config, text: &mut String) {
    let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
    let tls = if config.server.tls.is_some() { "TLS" } else { "plain HTTP" };
    let _ = writeln!(text, "  listens on  {} ({tls})", listen.join(", "));
    let _ = writeln!(text, "  admin on    {}", config.admin.listen);
    let _ = writeln!(text, "  store       {}", config.store.path.display());
    for provider in config.providers.values() {
        let place = match &provider.kind {
            ProviderKind::Entra { authority, tenant } => format!("{authority}{tenant}"),
            ProviderKind::Oidc { issuer } => issuer.to_string(),
        };
        let credentials = match provider.credentials.len() {
            0 => "public client".to_owned(),
            1 => "1 credential".to_owned(),
            count => format!("{count} credentials"),
        };
        let _ = writeln!(text, "  provider    {}: {place} ({credentials})", provider.id);
    }
    for upstream in config.upstreams.values() {
        let _ =
            writeln!(text, "  upstream    {}: {} with tokens of {}", upstream.name, upstream.url, upstream.provider);
    }
    let names: Vec<_> = config.clients.iter().map(|client| client.name.as_str()).collect();
    let names = if names.is_empty() { "none yet; see `bearerd clients new`".to_owned() } else { names.join(", ") };
    let _ = writeln!(text, "  clients     {names}");
}

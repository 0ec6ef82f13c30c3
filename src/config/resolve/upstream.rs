//! `[upstreams.NAME]`: the APIs that are proxied. With none configured there is one, Microsoft Graph.

use std::collections::BTreeMap;

use url::Url;

use super::OWN_PATHS;
use super::provider::{CLOUDS, Providers};
use crate::config::mistakes::Reported;
use crate::config::read::{Section, every};
use crate::config::values::{self, duration, filled, flag, fraction, integer, is_name, of_text};
use crate::config::{HttpVersion, Provider, ProviderKind, Throttling, Upstream, UpstreamKind};

/// The upstream that needs no explanation.
const GRAPH: &str = "graph";
const GRAPH_SCOPE: &str = "User.Read";
/// After a resource: every permission that an administrator gave the application there.
const EVERYTHING: &str = "/.default";

/// `providers` is `None` where they could not be resolved: then nothing is said about them here.
pub fn upstreams(root: &Section<'_>, providers: Option<&Providers>) -> Result<BTreeMap<String, Upstream>, Reported> {
    let mut sections = root.named("upstreams")?;
    if sections.is_empty() {
        sections.push((GRAPH, root.absent("upstreams", GRAPH)));
    }
    let upstreams = every(sections.iter().map(|(name, section)| upstream(name, section, providers)))?;
    Ok(upstreams.into_iter().map(|upstream| (upstream.name.clone(), upstream)).collect())
}

fn upstream(name: &str, section: &Section<'_>, providers: Option<&Providers>) -> Result<Upstream, Reported> {
    let named = if OWN_PATHS.contains(&name) {
        Err(section.mistake_here("this name is a path of our own; choose another"))
    } else if is_name(name) {
        Ok(())
    } else {
        Err(section.mistake_here("an upstream's name has lower-case letters, digits, '-' and '_' only"))
    };
    let url = section.find("url", of_text(values::safe_origin));
    let provider = provider(section, providers);
    let scopes = section.find_list("scopes", scope);
    let written_app_scopes = section.find_list("app_scopes", scope);
    let rewrite_links = section.get("rewrite_links", flag);
    let ca_pem = section.certificates("ca_file");
    let versions = [("auto", HttpVersion::Auto), ("1", HttpVersion::Http1), ("2", HttpVersion::Http2)];
    let http = section.choice("http", &versions);
    let timeout = section.get("timeout", duration);
    let connect_timeout = section.get("connect_timeout", duration);
    let idle_timeout = section.get("idle_timeout", duration);
    let throttling = section.section("throttling").and_then(|section| throttling(&section));

    let url = url.and_then(|url| match url {
        Some(url) => Ok(url),
        None if name == GRAPH => graph_url(section, &provider, providers),
        None => Err(section.missing("url")),
    });
    let scopes = scopes.and_then(|scopes| match scopes {
        Some(scopes) if !scopes.is_empty() => Ok(scopes),
        None if name == GRAPH => {
            section.derived("scopes", vec![GRAPH_SCOPE]);
            Ok(vec![GRAPH_SCOPE.to_owned()])
        }
        Some(_) => Err(section.mistake("scopes", "is empty")),
        None => Err(section.missing("scopes")),
    });
    named?;
    let (url, scopes) = (url?, scopes?);
    let kind = kind(section, name, &url);
    let app_scopes = match (written_app_scopes?, &provider, providers) {
        (Some(written), Ok(provider), Some(providers)) => {
            check_app_scopes(section, written, &providers.resolved[provider])
        }
        (None, Ok(provider), Some(providers)) => Ok(app_scopes(section, name, &url, &scopes, provider, providers)),
        _ => Err(Reported),
    };
    Ok(Upstream {
        name: name.to_owned(),
        kind: kind?,
        url,
        provider: provider?,
        scopes,
        app_scopes: app_scopes?,
        rewrite_links: rewrite_links?,
        ca_pem: ca_pem?,
        http: http?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        idle_timeout: idle_timeout?,
        throttling: throttling?,
    })
}

fn throttling(section: &Section<'_>) -> Result<Throttling, Reported> {
    let patience = section.get("patience", duration);
    let mailbox_concurrent = section.get("mailbox_concurrent", integer(0..=1000));
    let queue = section.get("queue", integer(0..=1_000_000));
    let retry_budget = section.get("retry_budget", fraction);
    Ok(Throttling {
        patience: patience?,
        mailbox_concurrent: Some(mailbox_concurrent?).filter(|limit| *limit > 0),
        queue: queue?,
        retry_budget: retry_budget?,
    })
}

fn kind(section: &Section<'_>, name: &str, url: &Url) -> Result<UpstreamKind, Reported> {
    let kinds = [("graph", UpstreamKind::Graph), ("rest", UpstreamKind::Rest)];
    if section.has("kind") {
        return section.choice("kind", &kinds);
    }
    let origin = url.origin().ascii_serialization();
    let at = usize::from(name != GRAPH && !CLOUDS.iter().any(|(_, cloud)| cloud.graph == origin));
    let (word, kind) = kinds[at];
    section.derived("kind", word);
    Ok(kind)
}

fn provider(section: &Section<'_>, providers: Option<&Providers>) -> Result<String, Reported> {
    let written = section.find("provider", filled)?;
    let known = &providers.ok_or(Reported)?.resolved;
    let names = || known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match written {
        Some(id) if known.contains_key(&id) => Ok(id),
        Some(id) => Err(section.mistake("provider", format!("there is no provider {id:?}, only {}", names()))),
        None => match known.keys().collect::<Vec<_>>()[..] {
            [only] => {
                section.derived("provider", only.as_str());
                Ok(only.clone())
            }
            _ => Err(section.mistake("provider", format!("is missing: there are several, {}", names()))),
        },
    }
}

/// Graph of the cloud that the provider belongs to.
fn graph_url(
    section: &Section<'_>,
    provider: &Result<String, Reported>,
    providers: Option<&Providers>,
) -> Result<Url, Reported> {
    let (Ok(provider), Some(providers)) = (provider, providers) else { return Err(Reported) };
    let url = providers.graph.get(provider).copied().ok_or(Reported)?;
    section.derived("url", url);
    Ok(Url::parse(url).expect("the clouds' roots of Graph are URLs"))
}

/// What the app registration itself asks for where nobody says so. Entra ID gives everything that was consented to, in one word.
fn app_scopes(
    section: &Section<'_>,
    name: &str,
    url: &Url,
    scopes: &[String],
    provider: &str,
    providers: &Providers,
) -> Vec<String> {
    let scopes = match (&providers.resolved[provider].kind, providers.graph.get(provider)) {
        (ProviderKind::Entra { .. }, Some(graph)) => {
            let own = url.origin().ascii_serialization();
            let resource = if name == GRAPH { graph } else { own.as_str() };
            vec![format!("{resource}{EVERYTHING}")]
        }
        _ => scopes.to_vec(),
    };
    section.derived("app_scopes", scopes.clone());
    scopes
}

/// Entra ID takes one scope there, and refuses every other at the time of the first request.
fn check_app_scopes(section: &Section<'_>, written: Vec<String>, provider: &Provider) -> Result<Vec<String>, Reported> {
    let is_entra = matches!(provider.kind, ProviderKind::Entra { .. });
    match &written[..] {
        [] => Err(section.mistake("app_scopes", "is empty")),
        [only] if only.ends_with(EVERYTHING) => Ok(written),
        _ if is_entra => {
            Err(section.mistake("app_scopes", "must be one scope that ends in /.default: Entra ID gives no other"))
        }
        _ => Ok(written),
    }
}

fn scope(text: &str) -> Result<String, String> {
    // RFC 6749, 3.3
    let fits = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be one scope, without spaces".into())
    }
}

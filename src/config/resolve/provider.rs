//! `[providers.ID]`: which provider, which app registration, which credentials of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::credential::credential;
use crate::config::mistakes::Reported;
use crate::config::read::{Section, every};
use crate::config::values::{self, duration, filled, integer, is_name, of_text, positive_number};
use crate::config::{Provider, ProviderKind, Rotation, TokenRequests};

/// A Microsoft cloud. Tokens of one are worth nothing in another.
#[derive(Clone, Copy)]
pub struct Cloud {
    pub authority: &'static str,
    pub graph: &'static str,
}

pub(super) const CLOUDS: [(&str, Cloud); 4] = [
    ("global", Cloud { authority: "https://login.microsoftonline.com", graph: "https://graph.microsoft.com" }),
    ("usgov", Cloud { authority: "https://login.microsoftonline.us", graph: "https://graph.microsoft.us" }),
    ("dod", Cloud { authority: "https://login.microsoftonline.us", graph: "https://dod-graph.microsoft.us" }),
    (
        "china",
        Cloud {
            authority: "https://login.partner.microsoftonline.cn",
            graph: "https://microsoftgraph.chinacloudapi.cn",
        },
    ),
];

pub struct Providers {
    pub resolved: BTreeMap<String, Provider>,
    /// The root of Graph in the cloud of each provider.
    pub graph: BTreeMap<String, &'static str>,
}

/// A refresh token of Entra ID lapses after 90 days without use.
const IDLE_LIMIT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Announces that we can handle claims challenges.
const CLAIMS_CHALLENGES: &str = "cp1";

pub fn providers(root: &Section<'_>, environment: &BTreeMap<String, String>) -> Result<Providers, Reported> {
    let sections = root.named("providers")?;
    if sections.is_empty() {
        return Err(root.mistake("providers", "at least one is needed: [providers.entra] with tenant and client_id"));
    }
    let providers = every(sections.iter().map(|(id, section)| provider(id, section, environment)))?;
    let graph = providers.iter().map(|(provider, cloud)| (provider.id.clone(), cloud.graph)).collect();
    let resolved = providers.into_iter().map(|(provider, _)| (provider.id.clone(), provider)).collect();
    Ok(Providers { resolved, graph })
}

fn provider(
    id: &str,
    section: &Section<'_>,
    environment: &BTreeMap<String, String>,
) -> Result<(Provider, Cloud), Reported> {
    let name = if is_name(id) {
        Ok(())
    } else {
        Err(section.mistake_here("a provider's id has lower-case letters, digits, '-' and '_' only"))
    };
    let is_entra = section.choice("kind", &[("entra", true), ("oidc", false)]);
    let client_id = section.find("client_id", |value| filled(value).and_then(client_id));
    let tables = section.tables("credentials").map(Option::unwrap_or_default);
    let entra_or_unknown = is_entra.as_ref().map_or(true, |is_entra| *is_entra);
    let client_id = client_id.and_then(|client_id| match (client_id, &tables) {
        (Some(client_id), _) => Ok(client_id),
        // A managed identity is an application of its own.
        (None, Ok(tables)) if !tables.is_empty() && tables.iter().all(|table| table.has("managed_identity")) => {
            Ok(String::new())
        }
        (None, _) => Err(section.missing("client_id")),
    });
    let credentials =
        tables.and_then(|tables| every(tables.iter().map(|table| credential(table, entra_or_unknown, environment))));
    let allowed_tenants = section.list("allowed_tenants", |text| Ok(text.to_owned()));
    let rotation = section.find("rotation", values::rotation);
    let ca_pem = section.certificates("ca_file");
    let client_capabilities = section.find_list("client_capabilities", capability);
    let idle_limit = section.find("idle_limit", duration);
    let token_requests = section.section("token_requests").and_then(|section| token_requests(&section));
    let is_entra = is_entra?;
    let kind = if is_entra { entra(section) } else { oidc(section) };
    name?;
    let (kind, cloud) = kind?;
    let rotation = rotation?.unwrap_or(if is_entra { Rotation::Tolerant } else { Rotation::Strict });
    section.derived("rotation", if is_entra { "tolerant" } else { "strict" });
    let usual: &[&str] = if is_entra { &[CLAIMS_CHALLENGES] } else { &[] };
    section.derived("client_capabilities", usual.to_vec());
    if is_entra {
        section.derived("idle_limit", "90d");
    }
    Ok((
        Provider {
            id: id.to_owned(),
            kind,
            client_id: client_id?,
            credentials: credentials?,
            allowed_tenants: allowed_tenants?,
            rotation,
            ca_pem: ca_pem?,
            client_capabilities: client_capabilities?
                .unwrap_or_else(|| usual.iter().map(|word| (*word).to_owned()).collect()),
            idle_limit: idle_limit?.or(is_entra.then_some(IDLE_LIMIT)),
            token_requests: token_requests?,
        },
        cloud,
    ))
}

fn token_requests(section: &Section<'_>) -> Result<TokenRequests, Reported> {
    let concurrent = section.get("concurrent", integer(1..=10_000));
    let per_second = section.get("per_second", positive_number);
    Ok(TokenRequests { concurrent: concurrent?, per_second: per_second? })
}

/// A word for `xms_cc`, such as `cp1`.
fn capability(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        Ok(text.to_owned())
    } else {
        Err("must be a word such as \"cp1\"".into())
    }
}

fn entra(section: &Section<'_>) -> Result<(ProviderKind, Cloud), Reported> {
    let foreign = refuse(section, &["issuer"], "is for kind = \"oidc\" only");
    let authority = section.find("authority", of_text(values::safe_origin));
    let tenant = section.get("tenant", of_text(tenant));
    let cloud = match &authority {
        Ok(None) => section.choice("cloud", &CLOUDS),
        _ if section.has("cloud") => Err(section.mistake("authority", "give either cloud or authority, not both")),
        Ok(Some(authority)) => Ok(cloud_of(authority)),
        Err(Reported) => Err(Reported),
    };
    foreign?;
    let cloud = cloud?;
    let authority =
        authority?.unwrap_or_else(|| Url::parse(cloud.authority).expect("the clouds' authorities are URLs"));
    Ok((ProviderKind::Entra { authority, tenant: tenant? }, cloud))
}

/// An authority of our own making, such as a simulated one, counts as the global cloud.
fn cloud_of(authority: &Url) -> Cloud {
    let host = |cloud: &Cloud| Url::parse(cloud.authority).is_ok_and(|url| url == *authority);
    CLOUDS.iter().map(|(_, cloud)| *cloud).find(host).unwrap_or(CLOUDS[0].1)
}

fn oidc(section: &Section<'_>) -> Result<(ProviderKind, Cloud), Reported> {
    let foreign = refuse(section, &["cloud", "authority", "tenant"], "is for kind = \"entra\" only");
    let issuer = section.get("issuer", of_text(values::issuer));
    foreign?;
    Ok((ProviderKind::Oidc { issuer: issuer? }, CLOUDS[0].1))
}

/// Any text may be one; what no provider gives is a sample's place holder or a pasted label.
pub fn client_id(text: String) -> Result<String, String> {
    if text.contains(['<', '>']) || text.contains(char::is_whitespace) {
        return Err("must be the application's id at the provider, without '<', '>' or blanks".into());
    }
    Ok(text)
}

/// A directory's id, a domain of it, or a word for several. It becomes a part of URLs.
pub fn tenant(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be a GUID, a domain, \"organizations\" or \"common\"".into())
    }
}

fn refuse(section: &Section<'_>, names: &[&str], what: &str) -> Result<(), Reported> {
    let written = names.iter().filter(|name| section.has(name));
    every(written.map(|name| Err(section.mistake(name, what)))).map(|_: Vec<()>| ())
}

//! `[providers.ID]`: which provider, which app registration, which credentials of ours.

use std::collections::BTreeMap;

use url::Url;

use crate::config::files;
use crate::config::mistakes::Reported;
use crate::config::read::{Section, every};
use crate::config::values::{self, filled, is_name, of_text};
use crate::config::{AppCredential, Provider, ProviderKind, Rotation};

/// A Microsoft cloud. Tokens of one are worth nothing in another.
#[derive(Clone, Copy)]
pub struct Cloud {
    pub authority: &'static str,
    pub graph: &'static str,
}

const CLOUDS: [(&str, Cloud); 4] = [
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

pub fn providers(root: &Section<'_>) -> Result<Providers, Reported> {
    let sections = root.named("providers")?;
    if sections.is_empty() {
        return Err(root.mistake("providers", "at least one is needed: [providers.entra] with tenant and client_id"));
    }
    let providers = every(sections.iter().map(|(id, section)| provider(id, section)))?;
    let graph = providers.iter().map(|(provider, cloud)| (provider.id.clone(), cloud.graph)).collect();
    let resolved = providers.into_iter().map(|(provider, _)| (provider.id.clone(), provider)).collect();
    Ok(Providers { resolved, graph })
}

fn provider(id: &str, section: &Section<'_>) -> Result<(Provider, Cloud), Reported> {
    let name = if is_name(id) {
        Ok(())
    } else {
        Err(section.mistake_here("a provider's id has lower-case letters, digits, '-' and '_' only"))
    };
    let is_entra = section.choice("kind", &[("entra", true), ("oidc", false)]);
    let client_id = section.get("client_id", |value| filled(value).and_then(client_id));
    let credentials = section.tables("credentials").and_then(|tables| match tables {
        Some(tables) => every(tables.iter().map(credential)),
        None => Ok(Vec::new()),
    });
    let allowed_tenants = section.list("allowed_tenants", |text| Ok(text.to_owned()));
    let rotation = section.find("rotation", values::rotation);
    let ca_pem = section.certificates("ca_file");
    let is_entra = is_entra?;
    let kind = if is_entra { entra(section) } else { oidc(section) };
    name?;
    let (kind, cloud) = kind?;
    let rotation = rotation?.unwrap_or(if is_entra { Rotation::Tolerant } else { Rotation::Strict });
    section.derived("rotation", if is_entra { "tolerant" } else { "strict" });
    let provider = Provider {
        id: id.to_owned(),
        kind,
        client_id: client_id?,
        credentials: credentials?,
        allowed_tenants: allowed_tenants?,
        rotation,
        ca_pem: ca_pem?,
    };
    Ok((provider, cloud))
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
fn client_id(text: String) -> Result<String, String> {
    if text.contains(['<', '>']) || text.contains(char::is_whitespace) {
        return Err("must be the application's id at the provider, without '<', '>' or blanks".into());
    }
    Ok(text)
}

/// It becomes a part of URLs.
fn tenant(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be a GUID, a domain, \"organizations\" or \"common\"".into())
    }
}

fn credential(section: &Section<'_>) -> Result<AppCredential, Reported> {
    let secret = section.secret("secret");
    let certificate = section.find("certificate_file", values::path);
    let key = section.find("key_file", values::path);
    let federated = section.find("federated_token_file", values::path);
    match (secret?, certificate?, key?, federated?) {
        (Some(secret), None, None, None) => Ok(AppCredential::Secret(secret)),
        (None, None, None, Some(path)) => Ok(AppCredential::FederatedTokenFile(path)),
        (None, Some(certificate), Some(key), None) => {
            let cert_pem = section.file("certificate_file", &certificate, files::certificates);
            let key_pem = section.file("key_file", &key, files::private_key);
            let (cert_pem, key_pem) = (cert_pem?, key_pem?);
            match files::pair(&cert_pem, &key_pem) {
                Ok(()) => Ok(AppCredential::Certificate { cert_pem, key_pem }),
                Err(what) => Err(section.mistake("key_file", format!("{}: {what}", key.display()))),
            }
        }
        (None, Some(_), None, None) => Err(section.mistake("key_file", "is missing: a certificate needs its key")),
        (None, None, Some(_), None) => {
            Err(section.mistake("certificate_file", "is missing: a key needs its certificate"))
        }
        // What stands in a place that this version does not read was reported already.
        (None, None, None, None) if section.has("managed_identity") => Err(Reported),
        _ => Err(section
            .mistake_here("exactly one of secret, secret_file, certificate_file with key_file, federated_token_file")),
    }
}

fn refuse(section: &Section<'_>, names: &[&str], what: &str) -> Result<(), Reported> {
    let written = names.iter().filter(|name| section.has(name));
    every(written.map(|name| Err(section.mistake(name, what)))).map(|_: Vec<()>| ())
}

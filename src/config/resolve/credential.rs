//! `[[providers.ID.credentials]]`: what proves that we are the application. One of several kinds each; no message quotes a secret.

use std::collections::BTreeMap;

use url::Url;

use super::provider::client_id;
use crate::config::mistakes::Reported;
use crate::config::read::Section;
use crate::config::values::{self, filled, identity_endpoint};
use crate::config::{AppCredential, ManagedIdentity, ManagedIdentitySource, files};
use crate::secret::Secret;

/// The metadata service of a virtual machine, at an address of its own.
const IMDS: &str = "http://169.254.169.254";

pub fn credential(
    section: &Section<'_>,
    is_entra: bool,
    environment: &BTreeMap<String, String>,
) -> Result<AppCredential, Reported> {
    let secret = section.secret("secret");
    let certificate = section.find("certificate_file", values::path);
    let key = section.find("key_file", values::path);
    let federated = section.find("federated_token_file", values::path);
    let managed = section.find("managed_identity", |value| filled(value).and_then(client_id));
    let expires = section.find("expires", values::date);
    let credential = match (secret?, certificate?, key?, federated?, managed?) {
        (Some(secret), None, None, None, None) => return Ok(AppCredential::Secret { secret, expires: expires? }),
        (None, None, None, Some(path), None) => Ok(AppCredential::FederatedTokenFile(path)),
        (None, Some(certificate), Some(key), None, None) => {
            let cert_pem = section.file("certificate_file", &certificate, files::certificates);
            let key_pem = section.file("key_file", &key, files::private_key);
            let (cert_pem, key_pem) = (cert_pem?, key_pem?);
            match files::pair(&cert_pem, &key_pem) {
                Ok(()) => Ok(AppCredential::Certificate { cert_pem, key_pem }),
                Err(what) => Err(section.mistake("key_file", format!("{}: {what}", key.display()))),
            }
        }
        (None, None, None, None, Some(_)) if !is_entra => {
            Err(section.mistake("managed_identity", "is for kind = \"entra\" only"))
        }
        (None, None, None, None, Some(identity)) => managed_identity(section, identity, environment),
        (None, Some(_), None, None, None) => {
            Err(section.mistake("key_file", "is missing: a certificate needs its key"))
        }
        (None, None, Some(_), None, None) => {
            Err(section.mistake("certificate_file", "is missing: a key needs its certificate"))
        }
        _ => Err(section.mistake_here(
            "exactly one of secret, secret_file, certificate_file with key_file, federated_token_file, managed_identity",
        )),
    };
    match (credential, expires?) {
        (Ok(_), Some(_)) => Err(section.mistake("expires", "is for a secret only: the others say it themselves")),
        (credential, _) => credential,
    }
}

/// Where the tokens come from, found as the Azure SDKs find it.
fn managed_identity(
    section: &Section<'_>,
    identity: String,
    environment: &BTreeMap<String, String>,
) -> Result<AppCredential, Reported> {
    let set = |name: &str| environment.get(name).filter(|value| !value.trim().is_empty());
    let url = |name: &str, text: &str| {
        let parsed = identity_endpoint(text.trim());
        parsed.map_err(|what| section.mistake("managed_identity", format!("{name} in the environment {what}")))
    };
    let source = match (set("IDENTITY_ENDPOINT"), set("IDENTITY_HEADER"), set("AZURE_POD_IDENTITY_AUTHORITY_HOST")) {
        (Some(endpoint), Some(header), _) => ManagedIdentitySource::AppService {
            endpoint: url("IDENTITY_ENDPOINT", endpoint)?,
            header: Secret::new(header.clone()),
        },
        (_, _, Some(host)) => {
            let origin = url("AZURE_POD_IDENTITY_AUTHORITY_HOST", host)?;
            if origin.path() != "/" {
                let what = "AZURE_POD_IDENTITY_AUTHORITY_HOST in the environment must be an origin, without a path";
                return Err(section.mistake("managed_identity", what));
            }
            ManagedIdentitySource::Imds(origin)
        }
        _ => ManagedIdentitySource::Imds(Url::parse(IMDS).expect("an address makes a URL")),
    };
    let client_id = Some(identity).filter(|identity| identity != "system");
    Ok(AppCredential::ManagedIdentity(ManagedIdentity { client_id, source }))
}

//! `[[clients]]`: who may call, proven how, for which accounts, and what.

use std::collections::{BTreeMap, HashMap};

use argon2::password_hash::PasswordHash;

use super::identity::Able;
use super::rules::{glob, rules};
use crate::config::mistakes::Reported;
use crate::config::read::{Section, every};
use crate::config::values::{self, filled, flag, integer, of_text, positive_number};
use crate::config::{Client, ClientCredential, ClientLimits, Identity, JwtIssuer, Listen, Server, Upstream};

/// `server`, `upstreams` and `able` are `None` where they could not be resolved.
pub fn clients(
    root: &Section<'_>,
    server: Option<&Server>,
    upstreams: Option<&BTreeMap<String, Upstream>>,
    able: Option<&Able<'_>>,
) -> Result<Vec<Client>, Reported> {
    let sections = root.tables("clients")?.unwrap_or_default();
    let mut taken = HashMap::new();
    every(sections.iter().map(|section| {
        let mut client = client(section, upstreams, able)?;
        let name = unique(section, "name", format!("name {}", client.name), &mut taken);
        let (key, value) = match &client.credential {
            ClientCredential::KeyDigest(digest) => ("key_hash", format!("sha256 {digest:?}")),
            ClientCredential::PasswordHash(hash) => ("key_hash", format!("argon2id {hash}")),
            ClientCredential::MtlsSan(name) => ("mtls_san", format!("san {name}")),
            ClientCredential::PeerUid(uid) => ("peer_uid", format!("uid {uid}")),
            ClientCredential::Jwt(jwt) => {
                let mut audience = jwt.audience.clone();
                audience.sort();
                ("jwt", format!("jwt {} {audience:?} {:?}", jwt.issuer, jwt.required))
            }
        };
        let credential = unique(section, key, value, &mut taken);
        if let Some(server) = server {
            warn_of_the_unreachable(section, &client, server);
        }
        if client.identity != Identity::User {
            client.accounts.clear();
        }
        name.and(credential).map(|()| client)
    }))
}

fn client(
    section: &Section<'_>,
    upstreams: Option<&BTreeMap<String, Upstream>>,
    able: Option<&Able<'_>>,
) -> Result<Client, Reported> {
    let name = section.get("name", of_text(client_name));
    let credential = credential(section);
    let identities = [("user", Identity::User), ("app", Identity::App), ("on-behalf-of", Identity::OnBehalfOf)];
    let identity = section.choice("identity", &identities).and_then(|identity| able_to_be(section, identity, able));
    let accounts = section.list("accounts", account_pattern);
    let allow = rules(section, "allow", upstreams);
    let deny = rules(section, "deny", upstreams);
    let read_only = section.get("read_only", flag);
    if let (Ok(allow), Ok(true)) = (&allow, &read_only) {
        warn_of_writing(section, allow);
    }
    let limits = section.section("limits").and_then(|section| limits(&section));
    Ok(Client {
        name: name?,
        credential: credential?,
        identity: identity?,
        accounts: accounts?,
        allow: allow?,
        deny: deny?,
        read_only: read_only?,
        limits: limits?,
    })
}

/// `read_only` is looked at before `allow`.
fn warn_of_writing(section: &Section<'_>, allow: &[String]) {
    for (at, rule) in allow.iter().enumerate() {
        if !["* ", "GET ", "HEAD "].iter().any(|reading| rule.starts_with(reading)) {
            section.warn(&format!("allow[{at}]"), "never matches: read_only lets GET and HEAD through only");
        }
    }
}

fn able_to_be(section: &Section<'_>, identity: Identity, able: Option<&Able<'_>>) -> Result<Identity, Reported> {
    if identity == Identity::OnBehalfOf && !section.has("jwt") {
        return Err(section.mistake("identity", "on-behalf-of needs a jwt: the token of the user that it acts for"));
    }
    match able.and_then(|able| able.refusal(identity)) {
        Some(why) => Err(section.mistake("identity", why)),
        None => Ok(identity),
    }
}

fn credential(section: &Section<'_>) -> Result<ClientCredential, Reported> {
    let key = section.find("key_hash", of_text(key_hash));
    let san = section.find("mtls_san", of_text(subject_name));
    let uid = section.find("peer_uid", integer(0..=i64::from(u32::MAX) - 1));
    let jwt = section.find_section("jwt").and_then(|section| section.as_ref().map(jwt).transpose());
    match (key?, san?, uid?, jwt?) {
        (Some(key), None, None, None) => Ok(key),
        (None, Some(san), None, None) => Ok(ClientCredential::MtlsSan(san)),
        (None, None, Some(uid), None) => Ok(ClientCredential::PeerUid(uid)),
        (None, None, None, Some(jwt)) => Ok(ClientCredential::Jwt(jwt)),
        _ => Err(section.mistake_here("exactly one of key_hash, mtls_san, peer_uid, jwt")),
    }
}

fn jwt(section: &Section<'_>) -> Result<JwtIssuer, Reported> {
    // Kept as written: `iss` is compared to the letter.
    let issuer = section.get("issuer", of_text(|text| values::issuer(text).map(|_| text.to_owned())));
    let audience = match section.find_list("audience", filled_text) {
        Ok(Some(audience)) if !audience.is_empty() => Ok(audience),
        Ok(Some(_)) => Err(section.mistake("audience", "is empty")),
        Ok(None) => Err(section.missing("audience")),
        Err(reported) => Err(reported),
    };
    let jwks_url = section.find("jwks_url", of_text(values::document));
    let account_claim = section.find("account_claim", filled);
    let required = section.find("required", values::texts);
    let ca_pem = section.certificates("ca_file");
    Ok(JwtIssuer {
        issuer: issuer?,
        audience: audience?,
        jwks_url: jwks_url?,
        account_claim: account_claim?,
        required: required?.unwrap_or_default(),
        ca_pem: ca_pem?,
    })
}

fn filled_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}

fn limits(section: &Section<'_>) -> Result<ClientLimits, Reported> {
    let requests_per_second = section.find("requests_per_second", positive_number);
    let concurrent = section.find("concurrent", integer(1..=i64::MAX));
    Ok(ClientLimits { requests_per_second: requests_per_second?, concurrent: concurrent? })
}

pub fn client_name(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=100 if !text.chars().any(char::is_control) && text.trim() == text => Ok(text.to_owned()),
        _ => Err("must have 1 to 100 characters, no control characters, no spaces at its ends".into()),
    }
}

/// Messages never quote it: the hash of a weak password is as good as the password.
fn key_hash(text: &str) -> Result<ClientCredential, String> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        let digest = digest(hex).ok_or("must have 64 hex digits after sha256:")?;
        return Ok(ClientCredential::KeyDigest(digest));
    }
    if !text.starts_with("$argon2id$") {
        return Err("must be \"sha256:<64 hex digits>\" or an argon2id PHC string".into());
    }
    match PasswordHash::new(text) {
        Ok(hash) if hash.salt.is_some() && hash.hash.is_some() && argon2::Params::try_from(&hash).is_ok() => {
            Ok(ClientCredential::PasswordHash(text.to_owned()))
        }
        _ => Err("is not a whole argon2id PHC string".into()),
    }
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

fn subject_name(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("must be a subject alternative name: a DNS name, a URI, an e-mail address or an IP address".into())
    }
}

fn account_pattern(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    glob(text).map(|()| text.to_owned())
}

/// Two clients with one name or one credential could not be told apart.
fn unique(
    section: &Section<'_>,
    key: &str,
    value: String,
    taken: &mut HashMap<String, String>,
) -> Result<(), Reported> {
    if let Some(other) = taken.get(&value) {
        return Err(section.mistake(key, format!("is the same as that of {other}")));
    }
    taken.insert(value, section.path().to_owned());
    Ok(())
}

fn warn_of_the_unreachable(section: &Section<'_>, client: &Client, server: &Server) {
    match (client.identity, client.accounts.is_empty()) {
        (Identity::User, true) => section.warn("accounts", "is empty: this client may act for nobody"),
        (Identity::App, false) => section.warn("accounts", "is not used: identity = \"app\" acts for no account"),
        (Identity::OnBehalfOf, false) => {
            section.warn("accounts", "is not used: identity = \"on-behalf-of\" acts for the user of its token");
        }
        _ => {}
    }
    let mutual_tls = server.tls.as_ref().is_some_and(|tls| tls.client_ca_pem.is_some());
    if matches!(client.credential, ClientCredential::MtlsSan(_)) && !mutual_tls {
        section.warn("mtls_san", "never matches without server.tls.client_ca_file");
    }
    let unix = server.listen.iter().any(|listen| matches!(listen, Listen::Unix(_)));
    if matches!(client.credential, ClientCredential::PeerUid(_)) && !unix {
        section.warn("peer_uid", "never matches: server.listen has no Unix socket");
    }
}

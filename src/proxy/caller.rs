//! Who asks.
//!
//! A client is known by a credential of its own: a key (Basic password, Bearer, `X-Api-Key`), a token of an issuer that we trust, a
//! client certificate, or the peer of a Unix socket. Identity is decided once, from authenticated evidence only; a header that names an
//! account counts only for an authenticated client that may act for it. Default deny.
//!
//! A key is looked up by its SHA-256: what the time of that tells is about digests, which nobody can choose.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::HeaderName;
use ring::digest::{SHA256, digest};

use super::bearers::Bearers;
use super::error::{Kind, Refusal};
use super::limits::ClientGate;
use super::passwords::Passwords;
use super::policy::Policy;
use super::presented::Place;
pub use super::presented::{Presented, once};
use super::remembered::Remembered;
use super::subject::Accounts;
pub use super::subject::Caller;
use super::{Peer, PeerAddress};
use crate::clock::Clock;
use crate::config::{self, Changes, ClientCredential, Identity};
use crate::oauth::{BuildError, Verifier};
use crate::tasks::Tasks;

pub const BEARERD_ACCOUNT: HeaderName = HeaderName::from_static("bearerd-account");

/// A calling application, ready for use.
pub struct Client {
    pub name: Arc<str>,
    pub policy: Policy,
    pub gate: ClientGate,
    pub identity: Identity,
    pub accounts: Accounts,
    /// How it proves itself, for people to read.
    pub proof: String,
}

/// All clients, found by what they present.
pub struct Clients {
    by_key: foldhash::HashMap<[u8; 32], Arc<Client>>,
    /// Of those, the ones that were there.
    remembered: Remembered,
    passwords: Arc<Passwords>,
    by_password: Vec<Arc<Client>>,
    bearers: Arc<Bearers>,
    by_name: HashMap<String, Arc<Client>>,
    by_uid: HashMap<u32, Arc<Client>>,
    /// In the order of the configuration.
    all: Vec<Arc<Client>>,
}

impl Clients {
    pub fn new(clients: &[config::Client], clock: &Clock, tasks: Tasks) -> Result<Self, BuildError> {
        Self::made(clients, None, clock, tasks)
    }

    /// Those of the next configuration. Who did not change stays the same, with what is known of passwords and keys of issuers.
    pub fn next(
        &self,
        clients: &[config::Client],
        changes: &Changes,
        clock: &Clock,
        tasks: Tasks,
    ) -> Result<Self, BuildError> {
        Self::made(clients, Some((self, changes)), clock, tasks)
    }

    fn made(
        clients: &[config::Client],
        before: Option<(&Self, &Changes)>,
        clock: &Clock,
        tasks: Tasks,
    ) -> Result<Self, BuildError> {
        let same = |name: &str, part: &str| {
            let (before, changes) = before?;
            let same = before.all.iter().find(|client| *client.name == *name);
            same.filter(|_| !changes.touch(&format!("clients[{name}]{part}")))
        };
        let hashes = clients.iter().filter_map(|client| match &client.credential {
            ClientCredential::PasswordHash(phc) => Some(phc.clone()),
            _ => None,
        });
        let hashes: Vec<_> = hashes.collect();
        let passwords = before.map(|(before, _)| &before.passwords).filter(|known| known.are_of(&hashes)).cloned();
        let passwords = passwords.unwrap_or_else(|| Arc::new(Passwords::new(hashes, tasks.clone())));
        let (mut by_key, mut by_name, mut by_uid) = (foldhash::HashMap::default(), HashMap::new(), HashMap::new());
        let (mut by_password, mut verifiers, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (at, config) in clients.iter().enumerate() {
            let client = same(&config.name, "").map_or_else(|| Arc::new(Client::new(config)), Arc::clone);
            all.push(Arc::clone(&client));
            match &config.credential {
                ClientCredential::KeyDigest(digest) => {
                    by_key.insert(*digest, client);
                }
                ClientCredential::PasswordHash(_) => by_password.push(client),
                ClientCredential::MtlsSan(name) => {
                    by_name.insert(name.clone(), client);
                }
                ClientCredential::Jwt(issuer) => {
                    let broken = |e: BuildError| BuildError { key: format!("clients[{at}].jwt.{}", e.key), why: e.why };
                    let known = same(&config.name, ".jwt").zip(before);
                    let known = known.and_then(|(client, (before, _))| before.bearers.verifier(client));
                    let verifier = match known {
                        Some(known) => known,
                        None => Arc::new(Verifier::new(issuer, clock.clone()).map_err(broken)?),
                    };
                    verifiers.push((verifier, client));
                }
                ClientCredential::PeerUid(uid) => {
                    by_uid.insert(*uid, client);
                }
            }
        }
        let bearers = Arc::new(Bearers::new(verifiers, clock.clone(), tasks));
        let remembered = Remembered::new(by_key.len());
        Ok(Self { by_key, remembered, passwords, by_password, bearers, by_name, by_uid, all })
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Client>] {
        &self.all
    }

    /// The client behind a request: by what it presents, else by its connection. A wrong password, `X-Api-Key` or token of an issuer that
    /// we trust was meant for us and makes nobody of the connection's client; an unknown Bearer may be an SDK's dummy.
    pub async fn identify(&self, presented: &Presented, peer: &Peer) -> Result<Caller, Refusal> {
        if let Some(key) = presented.key() {
            if let Some(client) = self.remembered.find(key) {
                return Ok(Caller::known(Arc::clone(client)));
            }
            let digest = sha256(key);
            if let Some(client) = self.by_key.get(&digest) {
                self.remembered.remember(key, client);
                return Ok(Caller::known(Arc::clone(client)));
            }
            if presented.place == Place::Basic
                && let Some(index) = self.passwords.owner(key).await?
            {
                return Ok(Caller::known(Arc::clone(&self.by_password[index])));
            }
            if let (Place::Bearer, Some(token)) = (presented.place, &presented.key)
                && let Some(bearer) = self.bearers.owner(digest, token).await?
            {
                return Ok(Caller::by_token(bearer));
            }
        }
        if !presented.is_meant_for_us
            && let Some(client) = self.by_connection(peer)
        {
            return Ok(Caller::known(client));
        }
        let refusal = Kind::ClientUnauthenticated.because(match presented.key() {
            Some(_) => "the client key is unknown or wrong",
            None => {
                "a client key is needed: as the password of Basic authentication, as a Bearer token, or in X-Api-Key"
            }
        });
        let is_token = presented.place == Place::Bearer && self.bearers.are_expected();
        Err(if is_token { refusal.for_its_token() } else { refusal })
    }

    fn by_connection(&self, peer: &Peer) -> Option<Arc<Client>> {
        if let PeerAddress::Unix { uid, .. } = peer.address
            && let Some(client) = self.by_uid.get(&uid)
        {
            return Some(Arc::clone(client));
        }
        peer.names.iter().find_map(|name| self.by_name.get(name)).cloned()
    }
}

impl Client {
    fn new(config: &config::Client) -> Self {
        Self {
            name: config.name.as_str().into(),
            policy: Policy::new(config),
            gate: ClientGate::new(config.limits),
            identity: config.identity,
            accounts: Accounts::new(&config.accounts),
            proof: proof(&config.credential),
        }
    }
}

fn proof(credential: &ClientCredential) -> String {
    match credential {
        ClientCredential::KeyDigest(_) => "a key of ours".to_owned(),
        ClientCredential::PasswordHash(_) => "a password, by Basic".to_owned(),
        ClientCredential::MtlsSan(name) => format!("a client certificate for {name}"),
        ClientCredential::PeerUid(uid) => format!("a Unix socket's peer with user id {uid}"),
        ClientCredential::Jwt(issuer) => match &issuer.account_claim {
            Some(claim) => format!("a token of {}, whose {claim} names an account", issuer.issuer),
            None => format!("a token of {}", issuer.issuer),
        },
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::passwords;
    use super::super::presented::tests::{basic_value, headers};
    use super::*;
    use crate::config::ClientLimits;

    fn config(credential: ClientCredential, identity: Identity, accounts: &[&str]) -> config::Client {
        config::Client {
            name: "payroll".into(),
            credential,
            identity,
            accounts: accounts.iter().map(|&a| a.to_owned()).collect(),
            allow: Vec::new(),
            deny: Vec::new(),
            read_only: false,
            limits: ClientLimits::default(),
        }
    }

    pub fn client(identity: Identity, accounts: &[&str]) -> Client {
        Client::new(&config(ClientCredential::PeerUid(1), identity, accounts))
    }

    fn clients(credential: ClientCredential, accounts: &[&str]) -> Arc<Clients> {
        let clients = [config(credential, Identity::User, accounts)];
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        Arc::new(Clients::new(&clients, &Clock::system(), tasks).unwrap())
    }

    fn with_key(accounts: &[&str]) -> Arc<Clients> {
        clients(ClientCredential::KeyDigest(sha256("bk_right")), accounts)
    }

    fn tcp() -> Peer {
        Peer { address: PeerAddress::Tcp("127.0.0.1:1".parse().unwrap()), secure: false, names: Vec::new() }
    }

    async fn kind(clients: &Arc<Clients>, pairs: &[(&str, &str)]) -> Result<String, Kind> {
        let presented = Presented::read(&headers(pairs)).map_err(|refusal| refusal.kind)?;
        clients
            .identify(&presented, &tcp())
            .await
            .map(|caller| caller.client.name.to_string())
            .map_err(|refusal| refusal.kind)
    }

    #[tokio::test]
    async fn a_key_is_taken_in_three_places() {
        let clients = with_key(&["alice"]);
        let right = basic_value("alice", "bk_right");
        for pairs in [
            [("authorization", right.as_str())],
            [("authorization", "Bearer bk_right")],
            [("authorization", "bearer  bk_right")],
            [("x-api-key", "bk_right")],
        ] {
            assert_eq!(kind(&clients, &pairs).await, Ok("payroll".into()), "{pairs:?}");
        }
        for pairs in [
            [("authorization", "Bearer bk_wrong")],
            [("authorization", "Digest bk_right")],
            [("x-api-key", "")],
            [("x-other", "bk_right")],
        ] {
            assert_eq!(kind(&clients, &pairs).await, Err(Kind::ClientUnauthenticated), "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn a_wrong_key_does_not_turn_into_the_client_of_the_connection() {
        let clients = clients(ClientCredential::PeerUid(7), &["bob"]);
        let peer = Peer { address: PeerAddress::Unix { uid: 7, gid: 7 }, secure: false, names: Vec::new() };
        let status = async |pairs: &[(&str, &str)]| {
            let presented = Presented::read(&headers(pairs)).unwrap();
            clients.identify(&presented, &peer).await.map(|_| ()).map_err(|refusal| refusal.kind)
        };
        let (wrong, user_only) = (basic_value("bob", "revoked"), basic_value("bob", ""));
        for pairs in [&[][..], &[("authorization", "Bearer dummy")], &[("authorization", &user_only)]] {
            assert_eq!(status(pairs).await, Ok(()), "{pairs:?}");
        }
        for pairs in [
            &[("authorization", wrong.as_str())][..],
            &[("x-api-key", "revoked")],
            &[("authorization", "Bearer dummy"), ("x-api-key", "revoked")],
        ] {
            assert_eq!(status(pairs).await, Err(Kind::ClientUnauthenticated), "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn malformed_and_doubled_credentials_are_bad_requests() {
        let clients = with_key(&["alice"]);
        for pairs in [
            vec![("authorization", "Bearer a"), ("authorization", "Bearer a")],
            vec![("x-api-key", "a"), ("x-api-key", "b")],
            vec![("authorization", "Basic !!!")],
            vec![("authorization", "Basic YWxpY2U=")],
        ] {
            assert_eq!(kind(&clients, &pairs).await, Err(Kind::BadRequest), "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn the_password_of_an_old_application_works_as_a_password_only() {
        let hash = passwords::tests::hash(b"old password");
        let clients = clients(ClientCredential::PasswordHash(hash), &["alice"]);
        let (right, wrong) = (basic_value("alice", "old password"), basic_value("alice", "other"));
        for _ in 0..3 {
            assert_eq!(kind(&clients, &[("authorization", right.as_str())]).await, Ok("payroll".into()));
            assert_eq!(kind(&clients, &[("authorization", wrong.as_str())]).await, Err(Kind::ClientUnauthenticated));
        }
        assert_eq!(
            kind(&clients, &[("authorization", "Bearer old password")]).await,
            Err(Kind::ClientUnauthenticated),
            "a password is no bearer token"
        );
        let long = basic_value(&"u".repeat(300), "other");
        assert_eq!(kind(&clients, &[("authorization", long.as_str())]).await, Err(Kind::ClientUnauthenticated));
    }
}

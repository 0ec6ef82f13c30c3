//! What operators do: find accounts, look at one, refresh, revoke, remove and import; sign-in links, clients, the configuration.
//!
//! Knows nothing of HTTP, pages and terminals: the admin API, the dashboard and the command line all stand on it, so that each of them does
//! and says the same. Invariants: no answer holds a token, a key or a hash; no page reads all accounts.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::account::{AccessToken, Account, At, Page, Parked, Reason, State};
pub use self::audit::{AuditRecords, AuditWanted, Refresh, Refreshed, named};
pub use self::client::{Client, Clients, Credential, CredentialKind, Identity, Limits};
use super::problem::{Kind, Problem};
use crate::account::Alias;
use crate::audit::{Entry, Event, Who};
use crate::clock::Timestamp;
use crate::config::{Config, Masked};
use crate::store::{Grant, Store, StoreError, Wanted};
use crate::tasks::Tasks;
use crate::vault::{Import, Imported, Vault};

mod account;
mod audit;
mod client;
pub mod import;

/// Accounts on a page where nobody says how many.
pub const USUAL_LIMIT: usize = 100;
pub const LARGEST_LIMIT: usize = 1000;
/// In characters; longer than any alias.
pub const LONGEST_SEARCH: usize = 256;

/// A handle on the desk; clones share it.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    store: Store,
    vault: Vault,
    tasks: Tasks,
    clients: Vec<Client>,
    configuration: Masked,
    links: LinkMaker,
}

/// Makes a single-use sign-in link for an account: its URL, and when it lapses. The text is who asks, for the person to read.
type LinkMaker =
    Box<dyn Fn(Grant, String) -> Pin<Box<dyn Future<Output = Result<Link, StoreError>> + Send>> + Send + Sync>;

/// A sign-in link.
pub struct Link {
    pub url: String,
    pub expires: Timestamp,
}

/// Which accounts a page shows.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub state: Option<State>,
    pub provider: Option<String>,
    /// A part of the alias or of the user's name, upper and lower case alike.
    pub search: Option<String>,
    /// This one only; everything else is then not looked at.
    pub alias: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    pub limit: Option<usize>,
}

/// Who does it, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    CommandLine,
    Api(Peer),
    Dashboard(Peer),
}

/// The other end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Address(IpAddr),
    /// Of a Unix socket: the user id.
    User(u32),
}

/// What became of an import.
#[derive(Debug)]
pub enum Taken {
    New(Account),
    /// The grant that lives here came from this very token: nothing was done.
    Already(Account),
}

/// A single-use sign-in link for one account.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SigninLink {
    pub url: String,
    pub expires_at: At,
}

/// Which server this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// A random name. By it the command line knows the server that works on its own store.
    pub instance: String,
}

/// How many accounts of a provider are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    pub provider: String,
    pub status: State,
    pub accounts: u64,
}

impl Desk {
    pub fn new<F>(
        store: Store,
        vault: Vault,
        tasks: Tasks,
        config: &Config,
        links: impl Fn(Grant, String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Link, StoreError>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            store,
            vault,
            tasks,
            clients: config.clients.iter().map(Client::from).collect(),
            configuration: config.masked.clone(),
            links: Box::new(move |grant, by| Box::pin(links(grant, by))),
        }))
    }

    pub fn about(&self) -> About {
        About { instance: self.0.store.opened_by() }
    }

    /// The next accounts of those that are wanted, in the order of their aliases.
    pub async fn accounts(&self, query: &Query) -> Result<Page, Problem> {
        let limit = query.limit.unwrap_or(USUAL_LIMIT);
        if !(1..=LARGEST_LIMIT).contains(&limit) {
            return Err(Problem::parameter("limit", format!("has to be 1 to {LARGEST_LIMIT}")));
        }
        if query.search.as_ref().is_some_and(|search| search.chars().count() > LONGEST_SEARCH) {
            return Err(Problem::parameter("search", format!("is longer than {LONGEST_SEARCH} characters")));
        }
        let after = query.cursor.as_deref().map(after_cursor).transpose()?;
        if let Some(alias) = &query.alias {
            let accounts = self.0.store.find(alias).await?.iter().map(Account::from).collect();
            return Ok(Page { accounts, next: None });
        }
        let wanted = Wanted {
            state: query.state.map(State::name),
            provider: query.provider.clone(),
            search: query.search.clone().filter(|search| !search.is_empty()),
            after,
            limit,
        };
        let listed = self.0.store.page(wanted).await?;
        Ok(Page {
            accounts: listed.grants.iter().map(Account::from).collect(),
            next: listed.next.as_deref().map(cursor),
        })
    }

    /// The account with this `Account::id`, with the expiry of its tokens.
    pub async fn account(&self, id: &str) -> Result<Account, Problem> {
        Ok((&self.grant(id).await?).into())
    }

    /// Presents the refresh token now; may revive an account that waits for interaction.
    pub async fn refresh(&self, id: &str, by: &Actor) -> Result<Account, Problem> {
        let (desk, id, by) = (self.clone(), id.to_owned(), by.clone());
        self.finished(async move { desk.refresh_now(&id, &by).await }).await
    }

    async fn refresh_now(&self, id: &str, by: &Actor) -> Result<Account, Problem> {
        let grant = self.grant(id).await?;
        let refresh = self.0.vault.refresh(&grant.alias);
        let refreshed = self.0.store.audited(by.act(Event::Refresh, &grant), |entry, _| entry, refresh).await?;
        Ok((&refreshed).into())
    }

    /// Ends the grant and erases its tokens; the account stays.
    pub async fn revoke(&self, id: &str, by: &Actor) -> Result<Account, Problem> {
        let (desk, id, by) = (self.clone(), id.to_owned(), by.clone());
        self.finished(async move { desk.revoke_now(&id, &by).await }).await
    }

    async fn revoke_now(&self, id: &str, by: &Actor) -> Result<Account, Problem> {
        let grant = self.grant(id).await?;
        let revoke = self.0.vault.revoke(&grant.key);
        if !self.0.store.audited(by.act(Event::Revoke, &grant), |entry, _| entry, revoke).await? {
            return Err(gone_meanwhile(&grant.alias));
        }
        self.account(id).await
    }

    /// Removes the account and its grant. Returns what it was.
    pub async fn remove(&self, id: &str, by: &Actor) -> Result<Account, Problem> {
        let (desk, id, by) = (self.clone(), id.to_owned(), by.clone());
        self.finished(async move { desk.remove_now(&id, &by).await }).await
    }

    async fn remove_now(&self, id: &str, by: &Actor) -> Result<Account, Problem> {
        let grant = self.grant(id).await?;
        let remove = self.0.vault.remove(&grant.key, &grant.alias);
        if !self.0.store.audited(by.act(Event::Remove, &grant), |entry, _| entry, remove).await? {
            return Err(gone_meanwhile(&grant.alias));
        }
        Ok((&grant).into())
    }

    /// A link by which only the account's own user signs in again.
    pub async fn signin_link(&self, id: &str, by: &Actor) -> Result<SigninLink, Problem> {
        let (desk, id, by) = (self.clone(), id.to_owned(), by.clone());
        self.finished(async move { desk.signin_link_now(&id, &by).await }).await
    }

    async fn signin_link_now(&self, id: &str, by: &Actor) -> Result<SigninLink, Problem> {
        let grant = self.grant(id).await?;
        let entry = by.act(Event::LinkMade, &grant);
        let made = (self.0.links)(grant, "the operator".to_owned());
        let Link { url, expires } = self.0.store.audited(entry, |entry, _| entry, made).await?;
        Ok(SigninLink { url, expires_at: At(expires) })
    }

    /// Takes a grant from elsewhere. `verify`: the refresh token is redeemed once first.
    pub async fn import(&self, row: Import, verify: bool, by: &Actor) -> Result<Taken, Problem> {
        let (desk, by) = (self.clone(), by.clone());
        self.finished(async move { desk.import_now(row, verify, &by).await }).await
    }

    async fn import_now(&self, row: Import, verify: bool, by: &Actor) -> Result<Taken, Problem> {
        Ok(match self.0.vault.import(row, verify, by.entry(Event::Import)).await? {
            Imported::New(grant) => Taken::New((&grant).into()),
            Imported::Already(grant) => Taken::Already((&grant).into()),
        })
    }

    /// Of those states in which an account ever was.
    pub async fn tallies(&self) -> Result<Vec<Tally>, Problem> {
        let counts = self.0.store.counts().await?.into_iter();
        let tally = |(provider, state, accounts)| Some(Tally { provider, status: State::named(state)?, accounts });
        Ok(counts.filter_map(tally).collect())
    }

    pub fn clients(&self) -> &[Client] {
        &self.0.clients
    }

    /// The configuration in effect, secrets masked.
    pub fn configuration(&self) -> &Value {
        &self.0.configuration.json
    }

    /// The same as a file, with where each value came from.
    pub fn configuration_text(&self) -> &str {
        &self.0.configuration.toml
    }

    /// Whoever asked may hang up: what has begun is done to its end, and recorded.
    async fn finished<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let done = self.0.tasks.spawn(act).await;
        done.unwrap_or_else(|_| Err(Kind::InternalError.because("a bug of ours; see the log")))
    }

    async fn grant(&self, id: &str) -> Result<Grant, Problem> {
        self.0.store.by_id(id).await?.ok_or_else(|| Problem::no_account(id))
    }
}

fn gone_meanwhile(alias: &Alias) -> Problem {
    Kind::AccountNotFound.because(format!("{alias} was removed meanwhile"))
}

/// The place after this alias; nobody should read anything in it.
fn cursor(after: &str) -> String {
    after.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Any pair of digits that stands for an ASCII character is a place: nothing depends on who made it.
fn after_cursor(cursor: &str) -> Result<String, Problem> {
    let character = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii).map(char::from)
    };
    let place: Option<String> = cursor.as_bytes().chunks(2).map(character).collect();
    place.ok_or_else(|| Problem::parameter("cursor", "is none that a page has given"))
}

impl Actor {
    /// What is recorded of an act of theirs.
    pub fn entry(&self, event: Event) -> Entry {
        match self {
            // Who that is, the system knows.
            Self::CommandLine => Entry::new(event, Who::Cli).from_peer(Peer::User(rustix::process::getuid().as_raw())),
            Self::Api(peer) | Self::Dashboard(peer) => Entry::new(event, Who::Admin).from_peer(peer),
        }
    }

    fn act(&self, event: Event, grant: &Grant) -> Entry {
        self.entry(event).of(&grant.alias, &grant.key)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(uid) => write!(f, "uid={uid}"),
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("store", &self.0.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        assert_eq!(after_cursor(&cursor("alice@contoso.com")).unwrap(), "alice@contoso.com");
        for text in ["a", "6", "616", "+1", "zz", "alice@contoso.com", "ff", "é"] {
            assert_eq!(after_cursor(text).unwrap_err().parameter.as_deref(), Some("cursor"), "{text}");
        }
        assert_eq!(after_cursor("").unwrap(), "");
    }
}

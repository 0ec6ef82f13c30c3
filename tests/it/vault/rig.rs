//! A vault on a store of its own in front of the simulated Entra ID, with the clock in the test's hand.
//!
//! `process` opens the store once more: what two processes do to one store can be told step by step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bearerd::account::{AccountKey, Alias};
use bearerd::app::Core;
use bearerd::claims::Claims;
use bearerd::clock::{Clock, Timestamp};
use bearerd::config::{self, Config};
use bearerd::oauth::{Identity, SignedIn, TokenReply};
use bearerd::sandbox::{self, Fault, Gate, Options, Sandbox, TokenRequest};
use bearerd::secret::Secret;
use bearerd::store::{Grant, Status};
use bearerd::tasks::Tasks;
use bearerd::vault::{Assertion, Lease, LeaseError, Rejected, SignInFor, Subject, UpstreamId};
use tempfile::TempDir;

pub const HOUR: Duration = Duration::from_secs(3600);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

pub struct Rig {
    home: TempDir,
    pub clock: Clock,
    pub sandbox: Sandbox,
    pub config: Config,
}

/// One process on the store.
#[derive(Clone)]
pub struct Process {
    pub core: Core,
}

/// What a provider does with refresh tokens, and what we believe that it does.
#[derive(Clone, Copy)]
pub enum Mode {
    Tolerant,
    Strict,
    Grace(Duration),
}

impl Rig {
    /// Alice and Bob at a tolerant provider.
    pub fn new() -> Self {
        Self::with(Mode::Tolerant, 2)
    }

    pub fn strict() -> Self {
        Self::with(Mode::Strict, 2)
    }

    pub fn with(mode: Mode, users: usize) -> Self {
        let (there, here) = match mode {
            Mode::Tolerant => (sandbox::Rotation::Tolerant, config::Rotation::Tolerant),
            Mode::Strict => (sandbox::Rotation::Strict, config::Rotation::Strict),
            Mode::Grace(grace) => (sandbox::Rotation::Grace(grace), config::Rotation::Grace(grace)),
        };
        let home = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(START);
        let options = Options { users, rotation: there, ..Options::default() };
        let sandbox = Sandbox::start(options, &clock, &tasks()).expect("free ports");
        let mut config = configuration(home.path(), &sandbox);
        for provider in config.providers.values_mut() {
            provider.rotation = here;
        }
        Self { home, clock, sandbox, config }
    }

    /// One more process on the same store.
    pub async fn process(&self) -> Process {
        Process { core: Core::open(&self.config, self.clock.clone(), tasks()).await.expect("a core") }
    }

    /// The only process, with all users signed in.
    pub async fn signed_in(&self) -> Process {
        let process = self.process().await;
        for user in &self.sandbox.entra.options().users {
            process.sign_in(&self.sandbox, &user.alias).await;
        }
        self.sandbox.entra.clear();
        process
    }

    pub fn fault(&self, fault: Fault) {
        self.sandbox.faults().push(fault);
    }

    /// Token requests stop at this gate, until cleared.
    pub fn hold(&self) -> Gate {
        let gate = Gate::shut();
        self.fault(Fault::token(sandbox::Effect::Hold(gate.clone())).always());
        gate
    }

    /// The provider does what it is asked, and its next answer waits at this gate.
    pub fn hold_answer(&self) -> Gate {
        let gate = Gate::shut();
        self.fault(Fault::token(sandbox::Effect::HoldAnswer(gate.clone())));
        gate
    }

    /// What the token endpoint was asked, oldest first.
    pub fn asked(&self) -> Vec<TokenRequest> {
        self.sandbox.entra.token_requests()
    }

    /// How the token endpoint answered.
    pub fn outcomes(&self) -> Vec<String> {
        self.asked().into_iter().map(|request| request.outcome).collect()
    }

    /// The next answer of the token endpoint: a token with this text, for an hour.
    pub fn next_token(&self, text: &str) {
        let body = format!(r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"{text}"}}"#);
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        self.fault(Fault::token(sandbox::Effect::Http { status: 200, headers, body }));
    }

    /// The claims that the token endpoint was asked for, without those that always are.
    pub fn challenges(&self) -> Vec<Option<Claims>> {
        let asked = self.asked().into_iter();
        let claims = asked.map(|request| request.claims.and_then(|claims| Claims::parse(&claims)));
        let capable = Claims::capabilities(&["cp1".to_owned()]).expect("claims");
        claims.map(|claims| claims.filter(|claims| !capable.covers(claims))).collect()
    }

    /// What a caller shows who acts on behalf of a user: valid for another hour.
    pub fn assertion(&self, user: &str, text: &str) -> Subject {
        Subject::OnBehalfOf(Arc::new(Assertion {
            token: Secret::from(text),
            tenant: self.sandbox.entra.options().tenant.clone(),
            subject: user.to_owned(),
            name: Some(format!("{user}@contoso.example")),
            expires: self.clock.now().plus(HOUR),
        }))
    }

    /// Whose this lease is, by the provider's books.
    pub fn owner(&self, lease: &Lease) -> String {
        let id = token_id(lease);
        let users = &self.sandbox.entra.options().users;
        let issued = |alias: &str| self.sandbox.entra.tokens().access_tokens(alias).iter().any(|token| token.id == id);
        users.iter().map(|user| &user.alias).find(|alias| issued(alias)).cloned().expect("the provider knows the token")
    }

    /// The database, past all of bearerd's own code.
    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.home.path().join("data/store.db")).expect("the database")
    }
}

impl Process {
    pub fn upstream(&self, name: &str) -> UpstreamId {
        self.core.vault.upstream(name).expect("it is configured")
    }

    pub async fn lease(&self, name: &str) -> Result<Arc<Lease>, LeaseError> {
        self.lease_for(name, "graph").await
    }

    pub async fn lease_for(&self, name: &str, upstream: &str) -> Result<Arc<Lease>, LeaseError> {
        self.core.vault.lease(&Subject::User(alias(name)), self.upstream(upstream)).await
    }

    async fn subject(&self, lease: &Lease) -> Subject {
        Subject::User(self.core.store.load(&lease.account).await.expect("a store").expect("an account").alias)
    }

    pub async fn reject(&self, lease: &Lease) -> Result<Rejected, LeaseError> {
        let subject = self.subject(lease).await;
        self.core.vault.reject(&subject, lease, self.upstream("graph"), None).await
    }

    /// The upstream refuses `lease` with a challenge.
    pub async fn challenge(&self, lease: &Lease, claims: &Claims) -> Result<Arc<Lease>, LeaseError> {
        self.challenge_as(&self.subject(lease).await, lease, claims).await
    }

    pub async fn challenge_as(
        &self,
        subject: &Subject,
        lease: &Lease,
        claims: &Claims,
    ) -> Result<Arc<Lease>, LeaseError> {
        match self.core.vault.reject(subject, lease, self.upstream("graph"), Some(claims)).await? {
            Rejected::Renewed(lease) => Ok(lease),
            Rejected::TooYoung => panic!("a challenge is no matter of age"),
        }
    }

    /// A token that needs no grant.
    pub async fn lease_as(&self, subject: &Subject) -> Result<Arc<Lease>, LeaseError> {
        self.core.vault.lease(subject, self.upstream("graph")).await
    }

    /// Everything that was started has ended.
    pub async fn settled(&self) {
        assert!(self.core.tasks.drain(Duration::from_secs(10)).await);
    }

    /// The lease that takes the place of `old`.
    pub async fn renewed(&self, old: &Lease) -> Arc<Lease> {
        match self.reject(old).await {
            Ok(Rejected::Renewed(lease)) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// The user comes and signs in, under an alias that is the user's own.
    pub async fn sign_in(&self, sandbox: &Sandbox, user: &str) -> Grant {
        self.sign_in_as(sandbox, user, user).await
    }

    pub async fn sign_in_as(&self, sandbox: &Sandbox, name: &str, user: &str) -> Grant {
        let scopes = ["User.Read".to_owned(), "Mail.Read".to_owned()];
        let signed_in = signed_in(sandbox, user);
        self.core.vault.put(&SignInFor::Alias(alias(name)), signed_in, &scopes).await.expect("a sign-in")
    }

    pub async fn grant(&self, name: &str) -> Grant {
        self.core.store.find(name).await.expect("a store").expect("an account")
    }

    pub async fn status(&self, name: &str) -> Status {
        self.grant(name).await.status
    }

    pub async fn revoke(&self, name: &str) {
        let key = self.grant(name).await.key;
        assert!(self.core.store.revoke(&key).await.expect("a store").is_some());
    }

    pub async fn remove(&self, name: &str) {
        let key = self.grant(name).await.key;
        assert!(self.core.store.remove(&key).await.expect("a store"));
    }

    /// What the watcher does at each beat.
    pub async fn catch_up(&self) {
        self.core.vault.catch_up().await.expect("a store");
    }
}

pub fn alias(name: &str) -> Alias {
    Alias::new(name).expect("an alias")
}

/// What a sign-in of `user` brings.
pub fn signed_in(sandbox: &Sandbox, user: &str) -> SignedIn {
    let grant = sandbox.grant(user).expect("a user");
    SignedIn {
        identity: Identity {
            key: AccountKey { provider: "entra".into(), tenant: grant.tenant, subject: grant.oid },
            username: Some(format!("{user}@contoso.example")),
            name: None,
        },
        reply: TokenReply {
            access_token: grant.access_token.into(),
            expires_in: grant.expires_in,
            refresh_in: None,
            refresh_token: Some(grant.refresh_token.into()),
            scopes: None,
        },
    }
}

/// What goes out with this lease.
pub fn text(lease: &Lease) -> &str {
    lease.authorization.to_str().expect("text")
}

/// The provider's number of the lease's access token.
pub fn token_id(lease: &Lease) -> u64 {
    let digits =
        text(lease).strip_prefix("Bearer at_").and_then(|text| text.get(..12)).expect("a token of the sandbox");
    digits.parse().expect("a number")
}

fn tasks() -> Tasks {
    Tasks::on(tokio::runtime::Handle::current())
}

/// Two upstreams of one provider with different scopes, and one of another provider.
fn configuration(home: &Path, sandbox: &Sandbox) -> Config {
    let entra = sandbox.entra.options();
    let text = format!(
        "[store]\npath = \"{path}\"\nkey_file = \"{path}/store.key\"\n\
         [providers.entra]\nkind = \"entra\"\nauthority = {authority:?}\ntenant = {tenant:?}\nclient_id = {client:?}\n\
         credentials = [{{ secret = {secret:?} }}]\n\
         [providers.other]\nkind = \"entra\"\nauthority = {authority:?}\ntenant = {tenant:?}\nclient_id = {client:?}\n\
         credentials = [{{ secret = {secret:?} }}]\n\
         [upstreams.graph]\nurl = {graph:?}\nprovider = \"entra\"\nscopes = [\"User.Read\", \"Mail.Read\"]\n\
         [upstreams.onedrive]\nurl = {graph:?}\nprovider = \"entra\"\nscopes = [\"Files.Read\"]\n\
         [upstreams.foreign]\nurl = {graph:?}\nprovider = \"other\"\nscopes = [\"User.Read\"]\n",
        path = home.join("data").display(),
        authority = origin(&sandbox.entra.origin()),
        tenant = entra.tenant,
        client = entra.client_id,
        secret = entra.client_secret.as_deref().unwrap_or_default(),
        graph = origin(&sandbox.graph.origin()),
    );
    let loaded = Config::from_text(Some((Path::new("test.toml"), &text)), &BTreeMap::new(), &[]);
    loaded.unwrap_or_else(|mistakes| panic!("{mistakes}")).config
}

fn origin(url: &url::Url) -> String {
    url.origin().ascii_serialization()
}

/// What `future` is after one look: a lease in memory is there at once.
pub fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Looks at `future` so often, and drops it if it is not done then.
pub async fn given_up_after<F: Future>(looks: usize, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..looks {
        match std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            Poll::Ready(output) => return Some(output),
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    None
}

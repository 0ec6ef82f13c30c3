//! The pages for people, under `/.bearerd/`: sign-in by link or by code, and sign-out.
//!
//! Follow one sign-in: `login` names who asks for what and sends the browser away, `callback` takes it back and redeems the code,
//! `complete` stores the grant. `offer` says what a sign-in asks for, `problem` why there is none, `page` how it all looks.
//!
//! Invariants: a `state` is bound to the browser that started it and taken once, before the code is redeemed; a link is used up
//! only by a sign-in that was completed; nothing is done for a page of another origin. No token ever reaches a page.

mod aadsts;
mod applications;
mod callback;
mod code;
mod complete;
mod device;
#[cfg(test)]
mod gallery;
mod invite;
mod login;
mod offer;
mod page;
mod problem;
mod request;
mod return_path;
mod scopes;
mod signout;
mod ticket;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config;
use crate::oauth::Provider;
use crate::store::Store;
use crate::vault::Vault;

use applications::Applications;
use offer::ProviderScopes;
use page::{Extras, Home, Site};
use problem::Problem;

pub use device::{Polled, judge};
pub use invite::{Invite, LIFE, create_invite, login_url};
pub use offer::redeem_scopes;

/// A handle on the pages; clones share it.
#[derive(Clone, Debug)]
pub struct Signin(Arc<Inner>);

/// In plain words, what the `AADSTS` number in a provider's error means, where we know it.
pub fn plain_words(error: &str) -> Option<&'static str> {
    aadsts::number(error).and_then(aadsts::words).map(|words| words.what)
}

/// How the last sign-in that was under way has ended: for whoever waits at a terminal. Said again when its page was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    SignedIn { alias: String, username: Option<String> },
    Failed { text: String },
}

#[derive(Debug)]
struct Inner {
    site: Site,
    mode: config::SigninMode,
    device_code: bool,
    providers: BTreeMap<String, Provider>,
    scopes: BTreeMap<String, ProviderScopes>,
    applications: Applications,
    store: Store,
    vault: Vault,
    clock: Clock,
    outcomes: watch::Sender<Option<Outcome>>,
}

/// A page, or why there is none.
type Answer = Result<Response<Full<Bytes>>, Problem>;

impl Signin {
    #[expect(clippy::needless_pass_by_value, reason = "the pages own what they were given")]
    pub fn new(
        config: config::Signin,
        providers: BTreeMap<String, Provider>,
        upstreams: BTreeMap<String, config::Upstream>,
        clients: &[config::Client],
        store: Store,
        vault: Vault,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            site: Site::new(&config.public_url),
            mode: config.mode,
            device_code: config.device_code,
            scopes: offer::scopes_by_provider(&upstreams),
            applications: Applications::new(clients),
            providers,
            store,
            vault,
            clock,
            outcomes: watch::Sender::new(None),
        }))
    }

    /// `request` has its whole body (the caller caps it at 64 KiB). The caller has checked its `Host`, and lets this run to its end even
    /// if the browser hangs up: a code that was redeemed has to be stored. Whether a page of another origin is behind the request
    /// is judged here, since people come from links and from the provider.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        match self.route(&request).await {
            Ok(response) => response,
            Err(problem) => {
                let request_id = ticket::random_id()[..16].to_owned();
                let (code, inside) = (problem.code.name(), &problem.inside);
                tracing::info!(request_id, code, inside, path = request.uri().path(), "a sign-in page said no");
                self.0.site.problem(&problem, &request_id)
            }
        }
    }

    /// Tells of each sign-in that came to an end, whichever way.
    pub fn outcomes(&self) -> watch::Receiver<Option<Outcome>> {
        self.0.outcomes.subscribe()
    }

    async fn route(&self, request: &Request<Bytes>) -> Answer {
        let inner = &self.0;
        let path = request.uri().path().strip_prefix("/.bearerd").ok_or_else(Problem::not_found)?;
        let get = request.method() == Method::GET;
        let post = request.method() == Method::POST;
        // HEAD is for link checkers: it sees what GET would show and sets nothing off.
        let look = get || request.method() == Method::HEAD;
        if look && !request::is_navigation(request.headers(), &inner.site.frame.origin) {
            return Err(Problem::cross_site());
        }
        if look && let Some(url) = inner.site.by_its_right_name(request) {
            return inner.site.see_other(&url, Vec::new());
        }
        match path {
            "" | "/" if look => inner.home(),
            "/login" if look => login::page(inner, request).await,
            "/login" if post => login::start(inner, request).await,
            "/done" if look => complete::page(inner, request).await,
            "/device" if look => device::page(inner, request).await,
            "/device" if post => device::start(inner, request).await,
            "/device/wait" if get => device::wait(inner, request).await,
            "/signout" if look => signout::page(inner, request).await,
            "/signout" if post => signout::revoke(inner, request).await,
            _ => match path.strip_prefix("/callback/") {
                Some(provider) if get => callback::answer(inner, provider, request).await,
                _ => Err(Problem::not_found()),
            },
        }
    }
}

impl Inner {
    fn home(&self) -> Answer {
        let open = self.mode == config::SigninMode::Open;
        self.site.page(&Home { frame: &self.site.frame, open }, Extras::default())
    }

    /// Tells whoever waits that a sign-in has failed, and hands the reason on.
    fn failed(&self, problem: Problem) -> Problem {
        self.outcomes.send_replace(Some(Outcome::Failed { text: format!("{}: {}", problem.title, problem.what) }));
        problem
    }
}

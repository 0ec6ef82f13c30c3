//! The operators' listener: health, metrics, the admin API, the dashboard. No answer holds a token or a key, and none allows another origin.
//!
//! A request is judged in this order: the Host, the page that it came from, the bearer token (health is exempt, so that a
//! supervisor needs no secret), the path, the method, the parameters. What operators do is in `desk`, which knows nothing of HTTP;
//! `routes` is the table that the router and the OpenAPI document are made from.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use serde::Serialize;

pub use self::dashboard::{History, Memory};
use self::dashboard::{Place, Visit};
pub use self::desk::{Actor, Desk, Peer};
use self::desk::{AuditWanted, Clients, Query, Taken, import};
use self::door::Door;
pub use self::explain::Explain;
pub use self::problem::{Document, Kind, Problem};
pub use self::ready::{Check, Readiness};
pub use self::reload::{NotReloaded, Reload, Reloaded};
use self::request::Parameters;
use self::routes::{Found, Operation, Route};
use crate::clock::Clock;
use crate::config;
use crate::hosts::{HostRefusal, Hosts, is_address, is_navigation};
use crate::metrics::{self, Metrics};

mod dashboard;
pub mod desk;
mod door;
mod explain;
mod openapi;
mod problem;
mod ready;
mod reload;
mod request;
mod routes;

const JSON: &str = "application/json";

/// A handle on the admin surface; clones share it.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Inner>);

struct Inner {
    door: Door,
    setup: Setup,
    /// The OpenAPI document.
    document: String,
}

/// What the surface stands on.
pub struct Setup {
    pub desk: Desk,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub hosts: Hosts,
    pub explain: Arc<dyn Explain>,
    pub reload: Arc<dyn Reload>,
    /// The dashboard's.
    pub memory: Memory,
    pub clock: Clock,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    pub fn new(config: &config::Admin, setup: Setup) -> Self {
        let door = Door::new(config.token.as_ref(), setup.memory.guesses.clone(), setup.clock.clone());
        let document = openapi::document(&*setup.explain, config.token.is_some()).to_string();
        Self(Arc::new(Inner { door, setup, document }))
    }

    /// Answers one request. Its body is read only where it is of interest.
    pub async fn handle<B>(&self, head: &Parts, body: B, peer: Peer) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let answer = match Place::of(head.uri.path()) {
            Some(place) => self.0.page(place, head, body, peer).await,
            None => self.0.answer(head, body, peer).await,
        };
        answer.unwrap_or_else(|problem| problem.response())
    }
}

impl Inner {
    async fn answer<B>(&self, head: &Parts, body: B, peer: Peer) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let found = routes::find(&head.method, head.uri.path());
        let operation = if let Found::Route { route, .. } = found { Some(route.operation) } else { None };
        self.admit(head, peer, operation)?;
        match found {
            Found::Route { route, id } => self.perform(route, id, head, body, peer).await,
            Found::OtherMethods(allowed) => {
                let problem = Kind::MethodNotAllowed.because(format!("the methods here: {allowed}"));
                let mut answer = problem.response();
                answer.headers_mut().insert(ALLOW, HeaderValue::from_str(&allowed).expect("names of methods"));
                Ok(answer)
            }
            Found::Nothing => Err(Kind::NotFound.because("there is nothing here")),
        }
    }

    /// A page of the dashboard. A person may follow a link to one from anywhere; whether the person may see it, the page decides.
    async fn page<B>(&self, place: Place<'_>, head: &Parts, body: B, peer: Peer) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        self.ours(head, None)?;
        if !is_navigation(head) {
            self.of_one_site(head)?;
        }
        let visit = Visit { memory: &self.setup.memory, door: &self.door, setup: &self.setup, head, peer };
        Ok(visit.answer(place, body).await)
    }

    fn admit(&self, head: &Parts, peer: Peer, operation: Option<Operation>) -> Result<(), Problem> {
        self.ours(head, operation)?;
        self.of_one_site(head)?;
        match operation {
            Some(operation) if operation.is_open() => Ok(()),
            _ => self.door.admit(door::bearer(&head.headers), peer),
        }
    }

    fn ours(&self, head: &Parts, operation: Option<Operation>) -> Result<(), Problem> {
        let hosts = &self.setup.hosts;
        match hosts.check(head) {
            Ok(_) => Ok(()),
            // Supervisors and scrapers call a pod by its address. No page of another origin can: its host is a name.
            Err(HostRefusal::NotAllowed) if operation.is_some_and(Operation::is_for_machines) && is_address(head) => {
                Ok(())
            }
            Err(refusal @ HostRefusal::NotAllowed) => Err(Kind::HostNotAllowed.because(refusal.to_string())),
            Err(refusal) => Err(Kind::BadRequest.because(refusal.to_string())),
        }
    }

    fn of_one_site(&self, head: &Parts) -> Result<(), Problem> {
        if self.setup.hosts.cross_site(head, false) {
            return Err(Kind::CrossSite.because("the request comes from a page of another origin"));
        }
        Ok(())
    }

    async fn perform<B>(&self, route: &Route, id: &str, head: &Parts, body: B, peer: Peer) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let Setup { desk, readiness, metrics, explain, reload, .. } = &self.setup;
        let by = Actor::Api(peer);
        let parameters = Parameters::read(head, route.parameters)?;
        Ok(match route.operation {
            Operation::Live => respond(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            Operation::Ready => {
                let mut report = readiness.report().await;
                if self.door.admit(door::bearer(&head.headers), peer).is_err() {
                    report = report.without_reasons();
                }
                document(if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &report)
            }
            Operation::Metrics => {
                for (check, report) in readiness.report().await.checks {
                    metrics.ready(check, report.ok);
                }
                respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics.render())
            }
            Operation::OpenApi => respond(StatusCode::OK, JSON, self.document.clone()),
            Operation::About => ok(&desk.about()),
            Operation::ListAccounts => ok(&desk.accounts(&Query::read(&parameters)?).await?),
            Operation::ImportAccount => {
                let verify = parameters.flag("verify")?.unwrap_or(true);
                let row = request::json(head, body).await?;
                let row = import::read(&row).map_err(|why| Kind::InvalidBody.because(why))?;
                taken(&desk.import(row, verify, &by).await?)
            }
            Operation::ShowAccount => ok(&desk.account(id).await?),
            Operation::RemoveAccount => {
                desk.remove(id, &by).await?;
                nothing()
            }
            Operation::RefreshAccount => ok(&desk.refresh(id, &by).await?),
            Operation::RevokeAccount => ok(&desk.revoke(id, &by).await?),
            Operation::MakeSigninLink => document(StatusCode::CREATED, &desk.signin_link(id, &by).await?),
            Operation::ListClients => ok(&Clients { clients: desk.clients().to_vec() }),
            Operation::ListAudit => ok(&desk.audit(&AuditWanted::read(&parameters)?).await?),
            Operation::ShowConfig => ok(desk.configuration()),
            Operation::Explain => {
                let question = request::json(head, body).await?;
                let explained = explain.explain(&question).await;
                ok(&explained.map_err(|why| Kind::InvalidBody.because(why))?)
            }
            Operation::Reload => ok(&reload.reload().await?),
        })
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("hosts", &self.setup.hosts).finish_non_exhaustive()
    }
}

fn ok(value: &impl Serialize) -> Answer {
    document(StatusCode::OK, value)
}

fn document(status: StatusCode, value: &impl Serialize) -> Answer {
    respond(status, JSON, serde_json::to_string(value).expect("plain data with text keys"))
}

fn taken(taken: &Taken) -> Answer {
    match taken {
        Taken::Already(account) => ok(account),
        Taken::New(account) => {
            let mut answer = document(StatusCode::CREATED, account);
            let place = HeaderValue::from_str(&format!("/v1/accounts/{}", account.id)).expect("hexadecimal digits");
            answer.headers_mut().insert(LOCATION, place);
            answer
        }
    }
}

fn nothing() -> Answer {
    let mut answer = respond(StatusCode::NO_CONTENT, JSON, "");
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

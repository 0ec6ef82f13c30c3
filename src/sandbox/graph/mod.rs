//! A simulated Microsoft Graph: people, mail, files, batches, and an echo that says what arrived, byte for byte.
//!
//! It answers only to access tokens of its Entra that are alive and meant for it. A second listener plays the hosts of
//! pre-authenticated links: whoever sends a token there has leaked it, and is on record.

mod answer;
mod batch;
mod bearer;
mod compress;
mod directory;
mod drive;
mod files;
mod intake;
mod jobs;
mod limits;
mod mail;
mod manner;
mod page;
mod people;
mod routes;
mod streams;
mod teams;
mod workbook;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use super::control;
use super::entra::Entra;
use super::fault::{Effect, Faults, Place};
use super::record::Records;
use super::wire::{self, Reply, Server};
use super::{locked, random};
use crate::clock::Clock;
use crate::tasks::Tasks;
use answer::{Answer, Ids};
use intake::Body;
use manner::Manner;

pub use files::Leak;
pub use intake::Seen;

/// Of a request's body no more is kept; the rest is counted and hashed.
const KEPT: usize = 8 << 20;

/// How Graph shows itself.
#[derive(Clone, Debug)]
pub struct GraphOptions {
    /// The origin that links name: `https://graph.microsoft.com`, for example. `None`: its own.
    pub public_origin: Option<Url>,
    /// Items per page where the request does not say.
    pub page_size: usize,
    /// Paging tokens get so many characters longer.
    pub link_padding: usize,
    /// Whether requests are put on record; a load test may not want to pay for it.
    pub record: bool,
    /// Colours that every request has: `Effect::Compress(None)`, for example. Faults can add others.
    pub always: Vec<Effect>,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self { public_origin: None, page_size: 10, link_padding: 0, record: true, always: Vec::new() }
    }
}

/// The running server; clones are the same one.
#[derive(Clone)]
pub struct Graph {
    state: Arc<State>,
    server: Server,
    files: Server,
}

/// Shared by the routes.
struct State {
    options: GraphOptions,
    entra: Entra,
    clock: Clock,
    tasks: Tasks,
    /// Its own origin, the one that links name, and the one of the files; without the last `/`.
    origin: String,
    links: String,
    files: String,
    /// What tokens may call it.
    audiences: Vec<String>,
    mail: mail::Mail,
    drives: drive::Drives,
    groups: directory::Groups,
    jobs: jobs::Jobs,
    limits: limits::Limits,
    /// The open event streams that a test feeds.
    listeners: Mutex<Vec<UnboundedSender<Bytes>>>,
    requests: Records<Seen>,
    file_requests: Records<Seen>,
    leaks: Records<Leak>,
    batches: Records<Value>,
}

impl Graph {
    pub fn start(
        listen: SocketAddr,
        options: GraphOptions,
        entra: &Entra,
        clock: Clock,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let listener = wire::bind(listen)?;
        let files_listener = wire::bind(SocketAddr::new(listen.ip(), 0))?;
        let origin = format!("http://{}", listener.local_addr()?);
        let links =
            options.public_origin.as_ref().map_or_else(|| origin.clone(), |url| url.origin().ascii_serialization());
        let known = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];
        let audiences = known.into_iter().map(str::to_owned).chain([origin.clone(), links.clone()]).collect();
        let state = Arc::new(State {
            files: format!("http://{}", files_listener.local_addr()?),
            origin,
            links,
            audiences,
            options,
            entra: entra.clone(),
            clock,
            tasks: tasks.clone(),
            mail: mail::Mail::default(),
            drives: drive::Drives::default(),
            groups: directory::Groups::seeded(&entra.options().users),
            jobs: jobs::Jobs::default(),
            limits: limits::Limits::default(),
            listeners: Mutex::default(),
            requests: Records::default(),
            file_requests: Records::default(),
            leaks: Records::default(),
            batches: Records::default(),
        });
        let (main, second) = (Arc::clone(&state), Arc::clone(&state));
        let service: wire::Service = Arc::new(move |request| {
            let state = Arc::clone(&main);
            Box::pin(async move { state.respond(request).await })
        });
        let files_service: wire::Service = Arc::new(move |request| {
            let state = Arc::clone(&second);
            Box::pin(async move { files::respond(&state, request).await })
        });
        let server = Server::run(listener, service, tasks.clone())?;
        Ok(Self { state, server, files: Server::run(files_listener, files_service, tasks)? })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where it really listens, whatever its links say.
    pub fn origin(&self) -> Url {
        Url::parse(&self.state.origin).expect("an origin is a URL")
    }

    /// The second origin: downloads and uploads that need no token.
    pub fn files_origin(&self) -> Url {
        Url::parse(&self.state.files).expect("an origin is a URL")
    }

    /// Shared with its Entra.
    pub fn faults(&self) -> &Faults {
        self.state.entra.faults()
    }

    /// What it was asked, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.requests.all()
    }

    /// What the second origin was asked.
    pub fn file_requests(&self) -> Vec<Seen> {
        self.state.file_requests.all()
    }

    /// Requests to the second origin that carried credentials.
    pub fn leaks(&self) -> Vec<Leak> {
        self.state.leaks.all()
    }

    /// The bodies of the batches that were sent.
    pub fn batches(&self) -> Vec<Value> {
        self.state.batches.all()
    }

    /// The highest number of requests to this mailbox that were under way at the same time, refused ones counted.
    pub fn most_at_once(&self, alias: &str) -> usize {
        self.state.limits.most_at_once().get(alias).copied().unwrap_or_default()
    }

    /// Forgets the records.
    pub fn clear(&self) {
        self.state.clear();
    }

    /// A standing demand for claims; see `Entra::demand`.
    pub fn demand(&self, user: Option<&str>, prefix: &str, claims: &str) -> bool {
        self.state.entra.demand(user, prefix, claims)
    }

    /// Says one event on every open stream of `/v1.0/sse`; how many there were.
    pub fn say(&self, event: &str) -> usize {
        streams::say(&self.state, event)
    }

    /// Ends every open stream of `/v1.0/sse`.
    pub fn hang_up(&self) {
        locked(&self.state.listeners).clear();
    }

    /// Closes both listeners and all connections: from now on connections are refused.
    pub async fn down(&self) {
        self.server.down().await;
        self.files.down().await;
    }

    /// Listens on the same ports again, with everything that it knew.
    pub fn up(&self) -> io::Result<()> {
        self.server.up()?;
        self.files.up()
    }

    pub fn close_connections(&self) {
        self.server.close_connections();
        self.files.close_connections();
    }
}

impl State {
    async fn respond(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        if let Some(verb) = head.uri.path().strip_prefix(control::PREFIX) {
            let body = wire::whole(body, 1 << 16).await.unwrap_or_default();
            let records = |name: &str| self.records(name);
            return Reply::Answer(control::answer(self.entra.state(), verb, &head, &body, records, || self.clear()));
        }
        let ids = Ids::new(&head.headers, &self.clock);
        let verdict = bearer::check(self, &head.headers, head.uri.path());
        let user = verdict.as_ref().map_or_else(|denied| denied.user.clone(), |token| Some(token.user.to_string()));
        let path = head.uri.path();
        let here = |place: &Place| matches!(place, Place::Graph(prefix) if path.starts_with(prefix.as_str()));
        let effects = self.faults().take(user.as_deref(), verdict.is_ok(), here);
        let mut seen = Seen::new(&head, self.clock.now(), user, verdict.as_ref().ok().map(|token| token.id));
        if let Some(reply) = effects.refused() {
            self.saw(seen);
            return reply;
        }
        let manner = Manner::of(self.options.always.iter().chain(&effects.colours), &head.headers);
        let segments = routes::segments(path);
        let under_way = verdict.as_ref().ok().and_then(|token| self.limits.enter(self, &segments, &token.user));
        let throttled = under_way.as_ref().and_then(|request| request.refusal(&manner, &ids));
        let most = if path.contains("/echo") { 0 } else { KEPT };
        let unread = effects.colours.iter().any(|effect| matches!(effect, Effect::Unread));
        let body = if unread { Body::default() } else { Body::read(body, most, None).await };
        seen.took(&body);
        if throttled.is_none() {
            effects.wait().await;
        }
        let failure = || effects.end.as_ref().and_then(|end| self.failure(end, &ids, path, &manner));
        let answer = match &verdict {
            Err(denied) => denied.answer(self, &ids, &manner.shapes),
            Ok(token) => match throttled.or_else(failure).or_else(|| self.limits.flaw(&manner, &ids)) {
                Some(failure) => failure,
                None => match self.limits.files(self, &manner, &ids, &head.method, &segments) {
                    Err(refusal) => refusal,
                    Ok(left) => routes::answer(self, &head, &body, &ids, token, &seen, &manner).with_all(&left),
                },
            },
        };
        let response = answer.into_response(&ids, head.headers.contains_key(http::header::ORIGIN), &manner);
        let silent = matches!(effects.end, Some(Effect::DropAfter | Effect::Raw(_)));
        seen.status_sent = if silent { 0 } else { response.status().as_u16() };
        self.saw(seen);
        effects.finish(&self.clock, response).await
    }

    /// The answer of a fault that has one.
    fn failure(&self, end: &Effect, ids: &Ids, path: &str, manner: &Manner) -> Option<Answer> {
        match end {
            Effect::Denied(denial) => Some(bearer::denied(self, ids, denial, None, &manner.shapes)),
            Effect::GraphError { status, code, message, headers } => {
                let scope = if *status == 429 { limits::scope(self, &routes::segments(path)) } else { Vec::new() };
                Some(Answer::error(ids, *status, code, message).with_all(headers).with_all(&scope))
            }
            Effect::Http { status, headers, body } => Some(Answer::any(*status, headers, body)),
            _ => None,
        }
    }

    /// What the control endpoint shows under this name.
    fn records(&self, name: &str) -> Option<Value> {
        let shown = |seen: Vec<Seen>| json!(seen.iter().map(Seen::shown).collect::<Vec<_>>());
        Some(match name {
            "requests" => shown(self.requests.all()),
            "file-requests" => shown(self.file_requests.all()),
            "leaks" => json!(
                self.leaks
                    .all()
                    .iter()
                    .map(|leak| json!({ "at": leak.at, "method": leak.method, "target": leak.target }))
                    .collect::<Vec<_>>()
            ),
            "batches" => json!(self.batches.all()),
            "at-once" => json!(self.limits.most_at_once()),
            _ => return None,
        })
    }

    fn faults(&self) -> &Faults {
        self.entra.faults()
    }

    fn saw(&self, seen: Seen) {
        if self.options.record {
            self.requests.push(seen);
        }
    }

    fn clear(&self) {
        self.requests.clear();
        self.file_requests.clear();
        self.leaks.clear();
        self.batches.clear();
        self.limits.clear();
    }

    /// A name for something new.
    fn name(prefix: &str) -> String {
        format!("{prefix}{}", random::typed(24))
    }
}

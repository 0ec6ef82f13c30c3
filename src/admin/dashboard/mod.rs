//! The dashboard: pages for operators at the root of the admin listener. Forms and links only; no script.
//!
//! Invariants: what a page does, the desk does. Nothing is done by a GET; a POST counts only from a form of ours, made for this visitor, on
//! a page of this very origin. Without a session, where a token is configured, nothing is shown but the page that asks for it.

use std::error::Error;

use bytes::Bytes;
use http::header::{ALLOW, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;

use self::form::Fields;
pub use self::history::History;
use self::page::{Frame, Notice, Section};
pub use self::place::Place;
use self::place::{Act, GET, is_page};
use self::session::{Sessions, Visitor};
use self::words::{When, advice};
use super::desk::{Actor, AuditWanted, Peer, State};
use super::door::{Door, Guesses};
use super::problem::{Kind, Problem};
use super::request;
use super::{Setup, ready};
use crate::clock::Clock;

mod form;
#[cfg(test)]
mod gallery;
mod history;
mod page;
mod place;
mod plot;
mod session;
mod words;

/// What outlives a change of the configuration; clones share it.
#[derive(Clone)]
pub struct Memory {
    pub history: History,
    pub(super) guesses: Guesses,
    sessions: Sessions,
}

/// One request, and what it is answered from.
pub struct Visit<'v> {
    pub memory: &'v Memory,
    pub door: &'v Door,
    pub setup: &'v Setup,
    pub head: &'v Parts,
    pub peer: Peer,
}

/// Refreshes and records in the page of an account.
const LAST: usize = 10;

type Answer = Response<Full<Bytes>>;

impl Memory {
    pub fn new(clock: Clock) -> Self {
        Self { history: History::default(), guesses: Guesses::default(), sessions: Sessions::new(clock) }
    }
}

impl Visit<'_> {
    pub async fn answer<B>(&self, place: Place<'_>, body: B) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let visitor = self.memory.sessions.visitor(self.head, self.door.asks(self.peer));
        match self.respond(place, &visitor, body).await {
            Ok(answer) => answer,
            Err(problem) => {
                let mut answer = page::problem(self.frame(&visitor, Section::None), &problem);
                if problem.kind == Kind::MethodNotAllowed {
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(place.methods()));
                }
                answer
            }
        }
    }

    async fn respond<B>(&self, place: Place<'_>, visitor: &Visitor, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let method = if self.head.method == Method::HEAD { &Method::GET } else { &self.head.method };
        if !place.methods().split(", ").any(|one| one == method.as_str()) {
            return Err(Kind::MethodNotAllowed.because(format!("the methods here: {}", place.methods())));
        }
        if *method == Method::GET {
            let may_see = place.is_open() || *visitor != Visitor::Stranger;
            return if may_see { self.show(place, visitor).await } else { self.ask_for_token(place, visitor) };
        }
        let fields = self.own_form(visitor, body).await?;
        match place {
            Place::SignIn => self.sign_in(visitor, &fields),
            Place::SignOut => self.sign_out(visitor),
            Place::Act(act, id) if *visitor != Visitor::Stranger => self.act(act, id, visitor).await,
            _ => Err(Kind::Unauthenticated.because("sign in first")),
        }
    }

    /// The fields of a form that was made for this visitor and is posted by our own page.
    async fn own_form<B>(&self, visitor: &Visitor, body: B) -> Result<Fields, Problem>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        if !session::is_posted_by_us(self.head) {
            return Err(Kind::CrossSite.because("only a page of this dashboard can do that"));
        }
        if !request::is_of_type(&self.head.headers, "application/x-www-form-urlencoded") {
            return Err(Kind::UnsupportedMediaType.because("the body has to be a form"));
        }
        let fields = Fields::parse(&request::whole(body).await?)?;
        let sessions = &self.memory.sessions;
        if !fields.get("form").is_some_and(|token| sessions.is_form_of(visitor, token)) {
            let why = "this page was out of date: load it again, and repeat what you wanted. Nothing was done";
            return Err(Kind::CrossSite.because(why));
        }
        Ok(fields)
    }

    async fn show(&self, place: Place<'_>, visitor: &Visitor) -> Result<Answer, Problem> {
        let desk = &self.setup.desk;
        let frame = self.frame(visitor, place.section());
        match place {
            Place::Style => Ok(page::style()),
            Place::Overview => self.overview(frame).await,
            Place::Accounts => self.accounts(frame).await,
            Place::Account(id) => self.account(id, frame, self.done()?).await,
            Place::Act(act, id) => {
                let account = desk.account(id).await?;
                page::page(StatusCode::OK, &page::Confirm { frame, account: &account, remove: act == Act::Remove })
            }
            Place::Audit => self.audit(frame).await,
            Place::Clients => page::page(StatusCode::OK, &page::Clients { frame, clients: desk.clients() }),
            Place::Configuration => {
                page::page(StatusCode::OK, &page::Configuration { frame, text: desk.configuration_text() })
            }
            Place::SignIn if *visitor == Visitor::Stranger => {
                page::page(StatusCode::OK, &page::Signin { frame, to: "/", problem: None })
            }
            Place::SignIn | Place::SignOut => page::see_other("/"),
        }
    }

    async fn overview(&self, frame: Frame) -> Result<Answer, Problem> {
        let Setup { desk, readiness, metrics, .. } = self.setup;
        let tallies = desk.tallies().await?;
        let count =
            |state: State| tallies.iter().filter(|tally| tally.status == state).map(|tally| tally.accounts).sum();
        let states: Vec<_> =
            State::ALL.map(|state| page::StateCount { state, count: count(state), about: about(state) }).into();
        let (totals, report) = (metrics.totals(), readiness.report().await);
        let minutes = self.memory.history.minutes(totals);
        let reloads = match (totals.reloads, totals.reloads_refused) {
            (0, _) => "none since the start".to_owned(),
            (all, 0) => format!("{all} since the start"),
            (all, refused) => format!("{all} since the start, {refused} refused for mistakes"),
        };
        let overview = page::Overview {
            accounts: states.iter().map(|row| row.count).sum(),
            frame,
            states,
            plots: [plot::traffic(&minutes), plot::refreshes(&minutes)],
            checks: report.checks.iter().map(|(name, check)| check_row(name, check)).collect(),
            ready: report.ready,
            reloads,
        };
        page::page(StatusCode::OK, &overview)
    }

    async fn accounts(&self, frame: Frame) -> Result<Answer, Problem> {
        let query = self.query()?.query()?;
        let found = self.setup.desk.accounts(&query).await?;
        let list = page::Accounts {
            frame,
            notice: self.done()?,
            state: query.state,
            search: query.search.as_deref().unwrap_or_default(),
            rows: &found.accounts,
            next: found.next,
            is_first: query.cursor.is_none(),
        };
        page::page(StatusCode::OK, &list)
    }

    async fn account(&self, id: &str, frame: Frame, notice: Option<Notice>) -> Result<Answer, Problem> {
        let desk = &self.setup.desk;
        let account = desk.account(id).await?;
        let advice = advice(&account, frame.now);
        let wanted = AuditWanted { account: Some(id.to_owned()), limit: Some(LAST), ..AuditWanted::default() };
        let records = desk.audit(&wanted).await?.records;
        let refreshes = desk.refreshes(id, LAST).await?;
        let shown =
            page::AccountPage { frame, notice, account: &account, advice, refreshes: &refreshes, records: &records };
        page::page(StatusCode::OK, &shown)
    }

    async fn audit(&self, frame: Frame) -> Result<Answer, Problem> {
        let wanted = self.query()?.audit()?;
        let found = self.setup.desk.audit(&wanted).await?;
        let list = page::AuditPage { frame, wanted: &wanted, records: &found.records, next: found.next };
        page::page(StatusCode::OK, &list)
    }

    async fn act(&self, act: Act, id: &str, visitor: &Visitor) -> Result<Answer, Problem> {
        let (desk, by) = (&self.setup.desk, Actor::Dashboard(self.peer));
        match act {
            Act::Refresh => match desk.refresh(id, &by).await {
                Ok(_) => page::see_other(&format!("/accounts/{id}?done=refreshed")),
                Err(problem) => {
                    let frame = self.frame(visitor, Section::Accounts);
                    let mut answer = self.account(id, frame, Some(Notice::bad("The refresh failed", &problem))).await?;
                    *answer.status_mut() = problem.kind.status();
                    page::mark(&mut answer, &problem);
                    Ok(answer)
                }
            },
            Act::Link => {
                let link = desk.signin_link(id, &by).await?;
                let account = desk.account(id).await?;
                let frame = self.frame(visitor, Section::Accounts);
                let expires = When::new(link.expires_at, frame.now);
                page::page(StatusCode::CREATED, &page::LinkPage { frame, account: &account, url: &link.url, expires })
            }
            Act::Revoke => {
                desk.revoke(id, &by).await?;
                page::see_other(&format!("/accounts/{id}?done=revoked"))
            }
            Act::Remove => {
                desk.remove(id, &by).await?;
                page::see_other("/accounts?done=removed")
            }
        }
    }

    /// Instead of the page that was asked for, which comes after it.
    fn ask_for_token(&self, place: Place<'_>, visitor: &Visitor) -> Result<Answer, Problem> {
        let wanted = self.head.uri.path_and_query().map_or("/", |target| target.as_str());
        let to = if place.methods() == GET { wanted } else { "/" };
        let problem = Kind::Unauthenticated.because("sign in first");
        let signin = page::Signin { frame: self.frame(visitor, Section::None), to, problem: None };
        let mut answer = page::page(problem.kind.status(), &signin)?;
        page::mark(&mut answer, &problem);
        Ok(answer)
    }

    fn sign_in(&self, visitor: &Visitor, fields: &Fields) -> Result<Answer, Problem> {
        let to = fields.get("to").filter(|to| is_page(to)).unwrap_or("/");
        if let Err(problem) = self.door.admit(Some(fields.get("token").unwrap_or_default()), self.peer) {
            let frame = self.frame(visitor, Section::None);
            let mut answer =
                page::page(problem.kind.status(), &page::Signin { frame, to, problem: Some(&problem.detail) })?;
            page::mark(&mut answer, &problem);
            return Ok(answer);
        }
        let mut answer = page::see_other(to)?;
        if let Some(token) = self.door.asks(self.peer) {
            let cookie = self.memory.sessions.open(token, self.head);
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        Ok(answer)
    }

    fn sign_out(&self, visitor: &Visitor) -> Result<Answer, Problem> {
        let mut answer = page::see_other("/sign-in")?;
        for cookie in self.memory.sessions.close(visitor, self.head) {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(answer)
    }

    fn frame(&self, visitor: &Visitor, section: Section) -> Frame {
        Frame {
            form_token: self.memory.sessions.form_token(visitor),
            signed_in: matches!(visitor, Visitor::SignedIn(_)),
            open: *visitor != Visitor::Stranger,
            ..Frame::new(section, self.setup.clock.now())
        }
    }

    fn query(&self) -> Result<Fields, Problem> {
        Fields::parse(self.head.uri.query().unwrap_or_default().as_bytes())
    }

    /// What the page before did. These words and no others, whoever made the address.
    fn done(&self) -> Result<Option<Notice>, Problem> {
        Ok(self.query()?.get("done").and_then(|done| match done {
            "refreshed" => Some(Notice::good("Refreshed", "The provider gave new tokens.")),
            "revoked" => Some(Notice::good("Revoked", "The grant has ended, and its tokens are erased.")),
            "removed" => Some(Notice::good("Removed", "The account is forgotten, and its tokens are erased.")),
            _ => None,
        }))
    }
}

fn about(state: State) -> &'static str {
    match state {
        State::Active => "all is well",
        State::Uncertain => "the answer to a refresh was lost",
        State::Reauth => "a person has to act",
        State::Revoked => "ended, tokens erased",
    }
}

fn check_row(name: &'static str, check: &ready::CheckReport) -> page::CheckRow {
    let (name, well) = match name {
        "store" => ("Store", "Answers"),
        "providers" => ("Providers", "Answer"),
        "draining" => ("Drain", "None"),
        name => (name, "Fine"),
    };
    page::CheckRow { name, ok: check.ok, said: check.error.clone().unwrap_or_else(|| well.to_owned()) }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

//! The pages: one struct for each template, and the headers that every answer carries.
//!
//! Invariant: everything on a page is escaped by askama. No script, nothing from elsewhere, no page is stored.

use std::fmt::Write as _;
use std::sync::LazyLock;

use askama::Template;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use sha2::{Digest, Sha256};

use super::super::desk::{AccessToken, Account, At, AuditWanted, Client, Identity, Refresh, Refreshed, State};
use super::super::problem::{Kind, Problem};
use super::plot::{self, Plot};
use super::words::{self, Advice, When};
use crate::audit::{Event, Outcome, Record};
use crate::clock::Timestamp;

const STYLE: &str = include_str!("pages/style.css");
/// Its path has its hash in it, so that browsers may keep it for ever.
pub static STYLE_PATH: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(STYLE);
    let hash = digest[..8].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("/style-{hash}.css")
});

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";
const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The entries of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Overview,
    Accounts,
    Audit,
    Clients,
    Configuration,
    /// Sign-in and problems.
    None,
}

/// What every page shows around its own text.
#[derive(Clone, Debug)]
pub struct Frame {
    pub section: Section,
    pub version: &'static str,
    /// The path of the style sheet.
    pub style: &'static str,
    pub form_token: String,
    /// Somebody who can sign out.
    pub signed_in: bool,
    /// Whoever sees it may go on to the other pages.
    pub open: bool,
    pub now: Timestamp,
}

/// Says what has just been done, or why not.
#[derive(Clone, Debug)]
pub struct Notice {
    pub is_bad: bool,
    pub title: String,
    pub text: String,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/overview.html")]
pub struct Overview {
    pub frame: Frame,
    pub states: Vec<StateCount>,
    pub accounts: u64,
    pub plots: [Plot; 2],
    pub checks: Vec<CheckRow>,
    pub ready: bool,
    pub reloads: String,
}

pub struct StateCount {
    pub state: State,
    pub count: u64,
    pub about: &'static str,
}

pub struct CheckRow {
    pub name: &'static str,
    pub ok: bool,
    pub said: String,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/accounts.html")]
pub struct Accounts<'a> {
    pub frame: Frame,
    pub notice: Option<Notice>,
    pub state: Option<State>,
    pub search: &'a str,
    pub rows: &'a [Account],
    /// It goes on behind these.
    pub next: Option<String>,
    pub is_first: bool,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/account.html")]
pub struct AccountPage<'a> {
    pub frame: Frame,
    pub notice: Option<Notice>,
    pub account: &'a Account,
    pub advice: Advice,
    pub refreshes: &'a [Refresh],
    pub records: &'a [Record],
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/audit.html")]
pub struct AuditPage<'a> {
    pub frame: Frame,
    pub wanted: &'a AuditWanted,
    pub records: &'a [Record],
    /// It goes on behind these.
    pub next: Option<String>,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/link.html")]
pub struct LinkPage<'a> {
    pub frame: Frame,
    pub account: &'a Account,
    pub url: &'a str,
    pub expires: When,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/confirm.html")]
pub struct Confirm<'a> {
    pub frame: Frame,
    pub account: &'a Account,
    pub remove: bool,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/clients.html")]
pub struct Clients<'a> {
    pub frame: Frame,
    pub clients: &'a [Client],
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/configuration.html")]
pub struct Configuration<'a> {
    pub frame: Frame,
    pub text: &'a str,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/signin.html")]
pub struct Signin<'a> {
    pub frame: Frame,
    pub to: &'a str,
    pub problem: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "admin/dashboard/pages/problem.html")]
pub struct ProblemPage<'a> {
    pub frame: Frame,
    pub problem: &'a Problem,
}

impl Frame {
    pub fn new(section: Section, now: Timestamp) -> Self {
        let form_token = String::new();
        Self {
            section,
            version: env!("CARGO_PKG_VERSION"),
            style: &STYLE_PATH,
            form_token,
            signed_in: false,
            open: false,
            now,
        }
    }

    fn is(&self, section: Section) -> bool {
        self.section == section
    }

    fn when(&self, at: At) -> When {
        When::new(at, self.now)
    }

    fn as_of(&self) -> String {
        self.when(At(self.now)).full
    }
}

impl Notice {
    pub fn good(title: &str, text: &str) -> Self {
        Self { is_bad: false, title: title.to_owned(), text: text.to_owned() }
    }

    pub fn bad(title: &str, problem: &Problem) -> Self {
        Self { is_bad: true, title: title.to_owned(), text: words::sentence(&problem.detail) }
    }
}

impl Accounts<'_> {
    /// Of another page of the same list.
    fn query(&self, cursor: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(state) = self.state {
            query.append_pair("state", state.name());
        }
        if !self.search.is_empty() {
            query.append_pair("search", self.search);
        }
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        query.finish()
    }
}

impl AccountPage<'_> {
    /// Not with a token that is erased, or that the provider called dead.
    fn can_refresh(&self) -> bool {
        let account = self.account;
        account.status != State::Revoked && !account.reason.as_ref().is_some_and(|reason| reason.dead)
    }

    fn lives(&self, token: &AccessToken) -> bool {
        token.expires_at.0 > self.frame.now
    }
}

impl AuditPage<'_> {
    /// Of another page of the same list.
    fn query(&self, cursor: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("account", self.wanted.account.as_deref()),
            ("event", self.wanted.event.map(Event::name)),
            ("outcome", self.wanted.outcome.map(Outcome::name)),
            ("cursor", cursor),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

pub fn page(status: StatusCode, page: &impl Template) -> Result<Response<Full<Bytes>>, Problem> {
    let html = page.render().map_err(|error| Kind::InternalError.because(error.to_string()))?;
    let mut response = answer(status, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Not `no-referrer`: with it a browser hides the origin of our own forms.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    Ok(response)
}

/// A problem for people to read. `wait` goes with it as it does for programs.
pub fn problem(frame: Frame, problem: &Problem) -> Response<Full<Bytes>> {
    let status = problem.kind.status();
    let mut response = page(status, &ProblemPage { frame, problem })
        .unwrap_or_else(|_| answer(status, "text/plain", problem.detail.clone()));
    mark(&mut response, problem);
    response
}

/// What HTTP itself says of a problem.
pub fn mark(response: &mut Response<Full<Bytes>>, problem: &Problem) {
    let said = problem.response();
    for name in [RETRY_AFTER, WWW_AUTHENTICATE] {
        if let Some(value) = said.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
}

/// 303: the next request is a GET.
pub fn see_other(place: &str) -> Result<Response<Full<Bytes>>, Problem> {
    let place = HeaderValue::from_str(place).map_err(|error| Kind::InternalError.because(error.to_string()))?;
    let mut response = answer(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", String::new());
    response.headers_mut().insert(LOCATION, place);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub fn style() -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::OK, "text/css; charset=utf-8", STYLE);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (COOP, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

//! The pages: one struct per template, and the headers that every answer carries.
//!
//! Invariant: everything on a page is escaped by askama but the style sheet, which is ours and whose hash is the only style that
//! a browser accepts. No script, nothing from elsewhere, never stored.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::LazyLock;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
};
use http::header::{STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use sha2::{Digest, Sha256};
use url::Url;

use super::applications::Application;
use super::problem::Problem;
use super::scopes::Scope;

const CSS: &str = include_str!("pages/style.css");
static CSS_HASH: LazyLock<String> = LazyLock::new(|| STANDARD.encode(Sha256::digest(CSS)));

const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const BEARERD_ERROR: HeaderName = HeaderName::from_static("bearerd-error");

/// What every page shows around its own text.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub css: &'static str,
    /// `https://graph.example.com`
    pub origin: String,
    /// `graph.example.com`
    pub host: String,
}

/// Where the pages live: decides addresses, and whether cookies and headers are those of https.
#[derive(Clone, Debug)]
pub(super) struct Site {
    public_url: Url,
    pub frame: Frame,
    pub secure: bool,
}

#[derive(Template)]
#[template(path = "signin/pages/home.html")]
pub(super) struct Home<'a> {
    pub frame: &'a Frame,
    /// Anyone of an allowed tenant may sign in.
    pub open: bool,
}

/// Names who asks for what, before anyone leaves for the provider.
#[derive(Template)]
#[template(path = "signin/pages/offer.html")]
pub(super) struct Offer<'a> {
    pub frame: &'a Frame,
    /// `None`: the account is whoever signs in.
    pub alias: Option<&'a str>,
    pub username: Option<&'a str>,
    /// Why the account needs a sign-in again: plain words, and what the provider said.
    pub reason: Option<Reason<'a>>,
    pub applications: &'a [Application],
    pub scopes: &'a [Scope],
    /// Who will be asked.
    pub provider_host: &'a str,
    pub created_by: Option<&'a str>,
    pub expires: Option<String>,
    /// The form's address; the device page has its own.
    pub device: bool,
    pub invite: Option<&'a str>,
    pub provider: Option<&'a str>,
    pub return_path: Option<&'a str>,
    /// The device page for the same link, where it is offered.
    pub device_url: Option<String>,
}

pub(super) struct Reason<'a> {
    pub words: Option<&'static str>,
    pub text: &'a str,
    /// The rest of the account goes on.
    pub partly: bool,
    pub since: String,
}

#[derive(Template)]
#[template(path = "signin/pages/choose.html")]
pub(super) struct Choose<'a> {
    pub frame: &'a Frame,
    pub choices: Vec<Choice<'a>>,
}

pub(super) struct Choice<'a> {
    pub id: &'a str,
    pub url: String,
}

#[derive(Template)]
#[template(path = "signin/pages/wait.html")]
pub(super) struct Wait<'a> {
    pub frame: &'a Frame,
    pub alias: Option<&'a str>,
    pub user_code: &'a str,
    pub verification_uri: &'a str,
    pub verification_host: &'a str,
    /// Seconds until the page loads itself again.
    pub refresh: u64,
    pub minutes_left: u64,
}

#[derive(Template)]
#[template(path = "signin/pages/done.html")]
pub(super) struct Done<'a> {
    pub frame: &'a Frame,
    pub alias: &'a str,
    pub username: Option<&'a str>,
    pub applications: &'a [Application],
    pub missing: &'a [String],
    pub return_path: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "signin/pages/signout.html")]
pub(super) struct Signout<'a> {
    pub frame: &'a Frame,
    pub session: Option<SignoutSession<'a>>,
}

pub(super) struct SignoutSession<'a> {
    pub alias: &'a str,
    pub username: Option<&'a str>,
    pub token: &'a str,
}

#[derive(Template)]
#[template(path = "signin/pages/revoked.html")]
pub(super) struct Revoked<'a> {
    pub frame: &'a Frame,
    pub alias: &'a str,
}

#[derive(Template)]
#[template(path = "signin/pages/problem.html")]
struct ProblemPage<'a> {
    frame: &'a Frame,
    problem: &'a Problem,
    request_id: &'a str,
}

/// What an answer carries besides its page.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Where forms may lead besides to us: Chrome asks for redirects, too.
    pub form_target: Option<String>,
    pub cookies: Vec<HeaderValue>,
}

impl Site {
    pub(super) fn new(public_url: &Url) -> Self {
        let origin = public_url.origin().ascii_serialization();
        let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host).to_owned();
        let secure = public_url.scheme() == "https";
        Self { public_url: public_url.clone(), frame: Frame { css: CSS, origin, host }, secure }
    }

    /// The one redirect URI of a provider, byte for byte the same on both legs of a sign-in.
    pub(super) fn redirect_uri(&self, provider: &str) -> String {
        let mut url = self.public_url.clone();
        url.set_query(None);
        url.path_segments_mut().expect("an http URL has a path").clear().extend([".bearerd", "callback", provider]);
        url.into()
    }

    /// `localhost` and `127.0.0.1` are one machine but two names to a browser: cookies of one are not sent to the other. Whoever comes
    /// by the wrong one is sent to the one that the provider will send them back to. Other names are not touched: a proxy in
    /// front may have its own.
    pub(super) fn by_its_right_name(&self, request: &Request<Bytes>) -> Option<String> {
        let host = request.headers().get(HOST).and_then(|value| value.to_str().ok());
        let host = request.uri().authority().map(Authority::as_str).or(host)?;
        let (given, wanted) = (Authority::from_str(host).ok()?, Authority::from_str(&self.frame.host).ok()?);
        let one_machine =
            is_loopback(given.host()) && is_loopback(wanted.host()) && given.port_u16() == wanted.port_u16();
        let target = request.uri().path_and_query()?;
        (one_machine && !given.host().eq_ignore_ascii_case(wanted.host()))
            .then(|| format!("{}{target}", self.frame.origin))
    }

    pub(super) fn page(&self, page: &impl Template, extras: Extras) -> Result<Response<Full<Bytes>>, Problem> {
        let html = page.render().map_err(|error| Problem::internal(&error))?;
        Ok(self.answer(StatusCode::OK, html, extras))
    }

    pub(super) fn problem(&self, problem: &Problem, request_id: &str) -> Response<Full<Bytes>> {
        let page = ProblemPage { frame: &self.frame, problem, request_id };
        let html = page.render().unwrap_or_else(|_| problem.what.clone());
        let mut response = self.answer(problem.code.status(), html, Extras::default());
        response.headers_mut().insert(BEARERD_ERROR, HeaderValue::from_static(problem.code.name()));
        if let Some(seconds) = problem.retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }

    /// 303: whatever the method was, the next request is a GET (RFC 9700 section 4.12).
    pub(super) fn see_other(
        &self,
        location: &str,
        cookies: Vec<HeaderValue>,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        let mut location = HeaderValue::from_str(location).map_err(|error| Problem::internal(&error))?;
        location.set_sensitive(true);
        let mut response = self.answer(StatusCode::SEE_OTHER, String::new(), Extras { form_target: None, cookies });
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }

    fn answer(&self, status: StatusCode, html: String, extras: Extras) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(html)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        self.harden(headers, extras.form_target.as_deref());
        for cookie in extras.cookies {
            headers.append(SET_COOKIE, cookie);
        }
        response
    }

    fn harden(&self, headers: &mut HeaderMap, form_target: Option<&str>) {
        let hash = &*CSS_HASH;
        let target = form_target.map(|target| format!(" {target}")).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'{target}; frame-ancestors 'none'; base-uri 'none'"
        );
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(COOP, HeaderValue::from_static("same-origin"));
        if self.secure {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

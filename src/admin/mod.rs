//! The operators' listener: health, metrics, and what a request would meet. No answer holds a token or a key, and none allows another origin.
//!
//! A request is judged in this order: the Host, the page that it came from, the bearer token (health is exempt, so that a
//! supervisor needs no secret), the path, the method.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use self::explain::Explain;
pub use self::ready::{Check, Readiness};
use crate::config;
use crate::hosts::{HostRefusal, Hosts};
use crate::metrics::{self, Metrics};

mod explain;
mod ready;

/// A handle on the admin pages; clones share it.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Inner>);

struct Inner {
    /// Of the configured token; a digest, so that comparing takes as long for every length.
    token_digest: Option<[u8; 32]>,
    hosts: Hosts,
    readiness: Readiness,
    metrics: Metrics,
    explain: Arc<dyn Explain>,
}

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Live,
    Ready,
    Metrics,
    Explain,
}

impl Page {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            "/v1/explain" => Some(Self::Explain),
            _ => None,
        }
    }

    fn methods(self) -> (&'static [Method], &'static str) {
        match self {
            Self::Live | Self::Ready | Self::Metrics => (&[Method::GET, Method::HEAD], "GET, HEAD"),
            Self::Explain => (&[Method::POST], "POST"),
        }
    }
}

impl Admin {
    pub fn new(
        config: &config::Admin,
        readiness: Readiness,
        metrics: Metrics,
        hosts: Hosts,
        explain: Arc<dyn Explain>,
    ) -> Self {
        let token_digest = config.token.as_ref().map(|token| Sha256::digest(token.expose()).into());
        Self(Arc::new(Inner { token_digest, hosts, readiness, metrics, explain }))
    }

    /// Answers one request. Its body is read only where it is of interest.
    pub async fn handle<B>(&self, head: &Parts, body: B) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let admin = &self.0;
        if let Err(refusal) = admin.hosts.check(head) {
            let status = match refusal {
                HostRefusal::NotAllowed => StatusCode::MISDIRECTED_REQUEST,
                HostRefusal::Missing | HostRefusal::Doubled | HostRefusal::Malformed => StatusCode::BAD_REQUEST,
            };
            return problem(status, &refusal.to_string());
        }
        if admin.hosts.cross_site(head, false) {
            return problem(StatusCode::FORBIDDEN, "the request comes from a page of another origin");
        }
        let page = Page::of(head.uri.path());
        let is_health = matches!(page, Some(Page::Live | Page::Ready));
        if !is_health && !self.may_enter(head) {
            let mut answer = problem(StatusCode::UNAUTHORIZED, "the bearer token of [admin] is missing or wrong");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let Some(page) = page else {
            return problem(StatusCode::NOT_FOUND, "there is nothing here");
        };
        let (methods, allow) = page.methods();
        if !methods.contains(&head.method) {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("the methods here: {allow}"));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return answer;
        }
        match page {
            Page::Live => answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
            Page::Ready => {
                let report = admin.readiness.report().await;
                let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                answer(status, "application/json", serde_json::json!(report).to_string())
            }
            Page::Metrics => {
                for (check, report) in admin.readiness.report().await.checks {
                    admin.metrics.ready(check, report.ok);
                }
                answer(StatusCode::OK, metrics::CONTENT_TYPE, admin.metrics.render())
            }
            Page::Explain => match explain::answer(&*admin.explain, head, body).await {
                Ok(explanation) => answer(StatusCode::OK, "application/json", explanation),
                Err((status, why)) => problem(status, &why),
            },
        }
    }

    fn may_enter(&self, head: &Parts) -> bool {
        let Some(expected) = &self.0.token_digest else { return true };
        let mut lines = head.headers.get_all(AUTHORIZATION).iter();
        let (Some(credential), None) = (lines.next(), lines.next()) else { return false };
        let Some((scheme, token)) = credential.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return false;
        };
        let given: [u8; 32] = Sha256::digest(token).into();
        scheme.eq_ignore_ascii_case("bearer") && bool::from(given.ct_eq(expected))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// An error as an RFC 9457 problem document. `detail` must be safe for everyone to read.
pub fn problem(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let document = serde_json::json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
    });
    answer(status, "application/problem+json", document.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::config::Listen;

    fn admin(token: Option<&str>) -> Admin {
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let config = config::Admin { listen, token: token.map(Into::into) };
        let clock = Clock::manual(Timestamp::from_secs(0));
        let readiness = Readiness::new(clock, vec![Check::new("store", async || Ok(()))]);
        Admin::new(&config, readiness, Metrics::new(), Hosts::new([], &[], []), Arc::new(explain::tests::Echo))
    }

    async fn ask(admin: &Admin, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String, Parts) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let (answer, body) = admin.handle(&head, Full::default()).await.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let mut echo = head;
        echo.headers = answer.headers;
        (answer.status, text, echo)
    }

    #[tokio::test]
    async fn health_needs_no_token_and_the_rest_does() {
        let admin = admin(Some("t0ken"));
        let status = async |path, headers: &[(&str, &str)]| ask(&admin, "GET", path, headers).await.0;
        assert_eq!(status("/livez", &[]).await, StatusCode::OK);
        assert_eq!(status("/readyz", &[]).await, StatusCode::OK);
        assert_eq!(status("/metrics", &[("authorization", "Bearer t0ken")]).await, StatusCode::OK);
        assert_eq!(status("/metrics", &[("authorization", "bearer t0ken")]).await, StatusCode::OK);
        for headers in [
            &[][..],
            &[("authorization", "Bearer t0ke")],
            &[("authorization", "Bearer t0ken ")],
            &[("authorization", "Basic t0ken")],
            &[("authorization", "t0ken")],
            &[("authorization", "Bearer t0ken"), ("authorization", "Bearer t0ken")],
        ] {
            let (status, body, echo) = ask(&admin, "GET", "/metrics", headers).await;
            assert_eq!(
                (status, echo.headers[WWW_AUTHENTICATE].to_str().unwrap()),
                (StatusCode::UNAUTHORIZED, "Bearer")
            );
            assert!(!body.contains("t0ken"), "{body}");
        }
        assert_eq!(status("/nothing", &[]).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn errors_are_problem_documents() {
        let admin = admin(None);
        let (status, body, echo) = ask(&admin, "GET", "/nothing", &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(echo.headers[CONTENT_TYPE], "application/problem+json");
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&document["status"], &document["title"]), (&404.into(), &"Not Found".into()));

        let (status, _, echo) = ask(&admin, "POST", "/metrics", &[]).await;
        assert_eq!((status, echo.headers[ALLOW].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    }

    #[tokio::test]
    async fn other_hosts_and_other_origins_are_refused() {
        let admin = admin(None);
        let foreign = Request::get("/metrics").header("host", "evil.com:8081").body(()).unwrap().into_parts().0;
        assert_eq!(admin.handle(&foreign, Full::default()).await.status(), StatusCode::MISDIRECTED_REQUEST);
        let none = Request::get("/livez").body(()).unwrap().into_parts().0;
        assert_eq!(admin.handle(&none, Full::default()).await.status(), StatusCode::BAD_REQUEST);
        let (status, _, echo) = ask(&admin, "GET", "/metrics", &[("origin", "http://localhost:3000")]).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(echo.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let (status, body, echo) = ask(&admin(None), "GET", "/metrics", &[]).await;
        assert_eq!((status, echo.headers[CONTENT_TYPE].to_str().unwrap()), (StatusCode::OK, metrics::CONTENT_TYPE));
        assert!(body.contains("bearerd_build_info") && body.ends_with("# EOF\n"));
    }
}

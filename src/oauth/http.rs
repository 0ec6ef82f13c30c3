//! One HTTP client per provider, and the only place that touches reqwest: no redirect, no proxy from the environment, no
//! cookie, no retry, no compression, answers capped, every failure told apart by whether the request may have arrived.

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect, retry};
use tokio::time::Sleep;
use url::Url;
use zeroize::Zeroizing;

use super::{BuildError, Dialect};
use crate::claims::Claims;
use crate::secret::Secret;
use crate::tls;

/// Of any answer.
const LONGEST_ANSWER: usize = 1024 * 1024;

const USER_AGENT: &str = concat!("bearerd/", env!("CARGO_PKG_VERSION"));
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

pub(super) struct Http {
    client: Client,
    dialect: Dialect,
}

/// A response whose head came in full. The body is `None` where it broke off or is too long.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

/// No response.
pub(super) struct Failure {
    /// Whether the provider may have seen the request.
    pub(super) sent: bool,
    pub(super) text: String,
}

/// The fields of a form. Those that are secret are known as such, so that nothing repeats them.
#[derive(Clone, Default)]
pub(super) struct Form {
    plain: Vec<(&'static str, String)>,
    secret: Vec<(&'static str, Secret<String>)>,
    /// Secrets that go along in another part of the request.
    beside: Vec<Secret<String>>,
}

impl Form {
    #[must_use]
    pub(super) fn plain(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.plain.push((name, value.into()));
        self
    }

    #[must_use]
    pub(super) fn secret(mut self, name: &'static str, value: &Secret<String>) -> Self {
        self.secret.push((name, value.clone()));
        self
    }

    #[must_use]
    pub(super) fn beside(mut self, value: Secret<String>) -> Self {
        self.beside.push(value);
        self
    }

    /// The `claims` parameter, where there is something to ask for.
    #[must_use]
    pub(super) fn claims(self, claims: Option<&Claims>) -> Self {
        match claims {
            Some(claims) => self.plain("claims", claims.as_str()),
            None => self,
        }
    }

    pub(super) fn grant_type(&self) -> Option<&str> {
        self.plain.iter().find(|(name, _)| *name == "grant_type").map(|(_, value)| value.as_str())
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let inside = self.secret.iter().map(|(_, value)| value);
        inside.chain(&self.beside).map(|value| value.expose().as_str())
    }

    fn encode(&self) -> String {
        let plain = self.plain.iter().map(|(name, value)| (*name, value.as_str()));
        let secret = self.secret.iter().map(|(name, value)| (*name, value.expose().as_str()));
        form_urlencoded::Serializer::new(String::new()).extend_pairs(plain.chain(secret)).finish()
    }
}

impl Http {
    /// `plaintext`: the configured origin is on the loopback interface and speaks plain HTTP.
    pub(super) fn new(dialect: Dialect, ca_pem: Option<&str>, plaintext: bool) -> Result<Self, BuildError> {
        let broken = |why: String| BuildError { key: "ca_file".to_owned(), why };
        let mut tls = tls::client_config(ca_pem).map_err(|e| broken(e.to_string()))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(!plaintext)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(USER_AGENT)
            .default_headers(default_headers(dialect))
            .connect_timeout(Duration::from_secs(5))
            // A server that closes an idle connection while we write to it leaves us not knowing whether a refresh token was
            // used. The shortest common keep-alive is 5 s.
            .pool_idle_timeout(Duration::from_secs(4))
            .build()
            .map_err(|e| broken(cause(&e)))?;
        Ok(Self { client, dialect })
    }

    /// Sends the form, once.
    pub(super) async fn post(
        &self,
        url: &Url,
        form: &Form,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let mut request =
            self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.encode());
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        self.answer(request).await
    }

    /// Asks with these headers, once, and takes whatever comes.
    pub(super) async fn ask(&self, url: &Url, headers: HeaderMap) -> Result<Answer, Failure> {
        self.answer(self.client.get(url.clone()).headers(headers)).await
    }

    /// The body of a document that is there.
    pub(super) async fn get(&self, url: &Url, limit: Duration) -> Result<Vec<u8>, String> {
        let fetch = async {
            let mut response = self.send(self.client.get(url.clone())).await.map_err(|failure| failure.text)?;
            if response.status() != StatusCode::OK {
                return Err(format!("HTTP {}", response.status().as_u16()));
            }
            read(&mut response).await.map(|mut body| std::mem::take(&mut *body))
        };
        let ended = tokio::time::timeout(limit, fetch).await;
        ended.unwrap_or_else(|_| Err(no_answer(limit))).map_err(|why| format!("{url}: {why}"))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut response = self.send(request).await?;
        let body = read(&mut response).await.ok();
        Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        let id = guid();
        if self.dialect == Dialect::Entra {
            request = request.header(CLIENT_REQUEST_ID, &id);
        }
        let result = request.send().await;
        let status = result.as_ref().map(|response| response.status().as_u16()).ok();
        tracing::debug!(client_request_id = %id, ?status, "asked the identity provider");
        result.map_err(|e| Failure { sent: !e.is_connect() && !e.is_builder(), text: cause(&e) })
    }
}

fn default_headers(dialect: Dialect) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if dialect == Dialect::Entra {
        headers.insert("return-client-request-id", HeaderValue::from_static("true"));
        headers.insert("x-ms-lib-capability", HeaderValue::from_static("retry-after, h429"));
    }
    headers
}

async fn read(response: &mut Response) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|e| cause(&e))? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err("the answer is longer than 1 MiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause, which names no URL: `connection refused`.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
        _ if error.source().is_none() => "the request could not be made".to_owned(),
        _ => innermost.to_string(),
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f32())
}

/// What is left of the time for a whole exchange: one timer for all its steps.
pub(super) struct Deadline {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: Box::pin(tokio::time::sleep(limit)) }
    }

    pub(super) fn left(&self) -> Duration {
        self.timer.deadline().saturating_duration_since(tokio::time::Instant::now())
    }

    /// The outcome of `work`, or the text that says that the time is over. `work` is dropped then.
    pub(super) async fn race<T>(&mut self, work: impl Future<Output = T>) -> Result<T, String> {
        tokio::select! {
            biased;
            outcome = work => Ok(outcome),
            () = &mut self.timer => Err(no_answer(self.limit)),
        }
    }
}

/// A random GUID (version 4).
pub(super) fn guid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers once it has started");
    bytes
}

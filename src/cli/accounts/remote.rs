//! The running server of our own store, by its admin API.
//!
//! Invariant: a token, of ours or of an account, goes to no program that has taken the port of `admin.listen`, not even to one that
//! passes on what our server says: the address is the one that a living process which holds a lock in the store's directory has written
//! down there, and it still stands there when that process has told its name. It is withdrawn before the listener ends, so nobody else
//! could listen at it when the connection was made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;

use crate::admin::desk::{About, Account, Page, Query, Taken, import};
use crate::admin::{Document, Kind, Problem};
use crate::config::{Config, Listen};
use crate::secret::Secret;
use crate::store::Store;
use crate::tasks::spawn_here;
use crate::vault::Import;

/// To find out whether a server is there: it is on this machine, or it is none of ours.
const GREETING: Duration = Duration::from_secs(2);
/// Longer than the server waits for a provider.
const PATIENCE: Duration = Duration::from_mins(2);

/// A connection to it.
pub struct Remote {
    connection: Mutex<SendRequest<Full<Bytes>>>,
    token: Option<Secret<String>>,
}

impl Remote {
    /// `None`: no server with our store open answers.
    pub async fn find(config: &Config) -> Option<Self> {
        for (_, admin) in Store::servers(&config.store) {
            if let Some(found) = Self::at(&admin, config).await {
                return Some(found);
            }
        }
        None
    }

    async fn at(admin: &Listen, config: &Config) -> Option<Self> {
        let connection = tokio::time::timeout(GREETING, connect(admin)).await.ok()??;
        let remote = Self { connection: Mutex::new(connection), token: config.admin.token.clone() };
        let question = request(Method::GET, "/v1/about", None);
        let (status, body) = tokio::time::timeout(GREETING, remote.send(question)).await.ok()?.ok()?;
        let about: About = serde_json::from_slice(&body).ok()?;
        // It may have ended just before the connection was made; or it shares its port, and the other one has answered.
        let is_still_there = || Store::servers(&config.store).contains(&(about.instance, admin.clone()));
        (status == StatusCode::OK && is_still_there()).then_some(remote)
    }

    pub async fn accounts(&self, query: &Query) -> anyhow::Result<Page> {
        let mut text = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("alias", &query.alias), ("cursor", &query.cursor)] {
            if let Some(value) = value {
                text.append_pair(name, value);
            }
        }
        if let Some(limit) = query.limit {
            text.append_pair("limit", &limit.to_string());
        }
        Ok(self.ask(Method::GET, &format!("/v1/accounts?{}", text.finish()), None).await?.1)
    }

    pub async fn refresh(&self, id: &str) -> anyhow::Result<Account> {
        Ok(self.ask(Method::POST, &format!("/v1/accounts/{id}/refresh"), None).await?.1)
    }

    pub async fn revoke(&self, id: &str) -> anyhow::Result<Account> {
        Ok(self.ask(Method::POST, &format!("/v1/accounts/{id}/revoke"), None).await?.1)
    }

    pub async fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.exchange(Method::DELETE, &format!("/v1/accounts/{id}"), None).await.map(drop)
    }

    pub async fn import(&self, row: &Import, verify: bool) -> anyhow::Result<Taken> {
        let row = import::write(row);
        let (status, account) = self.ask(Method::POST, &format!("/v1/accounts?verify={verify}"), Some(&row)).await?;
        Ok(if status == StatusCode::CREATED { Taken::New(account) } else { Taken::Already(account) })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&Secret<String>>,
    ) -> anyhow::Result<(StatusCode, T)> {
        let (status, body) = self.exchange(method, target, body).await?;
        let value = serde_json::from_slice(&body).context("the running server says something else than expected")?;
        Ok((status, value))
    }

    /// A problem that the server reports is an error as it would be here.
    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<&Secret<String>>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = request(method, target, body);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).context("admin.token")?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = tokio::time::timeout(PATIENCE, self.send(request)).await;
        let (status, body) = answer.context("the running server does not answer")??;
        if status.is_success() {
            return Ok((status, body));
        }
        Err(match serde_json::from_slice::<Document>(&body) {
            Ok(Document { r#type, detail, .. }) => match Kind::of_uri(&r#type) {
                Some(kind @ (Kind::Unauthenticated | Kind::TooManyWrongTokens)) => {
                    kind.because(format!("the running server takes another admin.token: {detail}")).into()
                }
                Some(kind) => kind.because(detail).into(),
                None => anyhow!("{detail} ({status})"),
            },
            Err(_) => anyhow!("the running server answers {status}"),
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut connection = self.connection.lock().await;
        connection.ready().await.context("the running server has hung up")?;
        let answer: Response<Incoming> =
            connection.send_request(request).await.context("the running server has hung up")?;
        let (head, body) = answer.into_parts();
        Ok((head.status, body.collect().await.context("the running server has hung up")?.to_bytes()))
    }
}

fn request(method: Method, target: &str, body: Option<&Secret<String>>) -> Request<Full<Bytes>> {
    let bytes = body.map(|body| Bytes::copy_from_slice(body.expose().as_bytes())).unwrap_or_default();
    let mut request = Request::new(Full::new(bytes));
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().expect("our own targets are well formed");
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    if body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}

async fn connect(listen: &Listen) -> Option<SendRequest<Full<Bytes>>> {
    match listen {
        Listen::Tcp(address) => over(TcpStream::connect(reachable(*address)).await.ok()?).await,
        Listen::Unix(path) => over(UnixStream::connect(path).await.ok()?).await,
    }
}

async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Option<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    // How it ends is known by the request that finds it so.
    spawn_here(connection);
    Some(sender)
}

/// Where a listener on all addresses answers this machine itself.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// What a problem of the server is, here too.
pub fn problem(error: &anyhow::Error) -> Option<&Problem> {
    error.downcast_ref()
}

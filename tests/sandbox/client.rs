//! A bare HTTP client: one connection per request, nothing followed, nothing added.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{Entra, EntraOptions, Graph, GraphOptions, Options, Sandbox};
use bearerd::tasks::{self, Tasks};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::Value;
use tokio::net::TcpStream;

pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends one request; an error is a connection that ended before the answer did.
pub async fn send(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Reply, hyper::Error> {
    let stream = TcpStream::connect(to).await.expect("the sandbox listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tasks::spawn_here(connection);
    let mut request = Request::builder().method(method).uri(target).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await?;
    let (head, body) = response.into_parts();
    Ok(Reply { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
}

pub async fn get(to: SocketAddr, target: &str) -> Reply {
    send(to, "GET", target, &[], "").await.unwrap()
}

/// A form to the token endpoint, with the client's id and secret.
pub async fn token(entra: &Entra, fields: &[(&str, &str)]) -> Reply {
    try_token(entra, fields).await.unwrap()
}

pub async fn try_token(entra: &Entra, fields: &[(&str, &str)]) -> Result<Reply, hyper::Error> {
    let options = entra.options();
    let secret = options.client_secret.iter().map(|secret| ("client_secret", secret.as_str()));
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", &options.client_id)
        .extend_pairs(secret)
        .extend_pairs(fields)
        .finish();
    post(entra, &format!("/{}/oauth2/v2.0/token", options.tenant), &form).await
}

pub async fn post(entra: &Entra, target: &str, form: &str) -> Result<Reply, hyper::Error> {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    send(entra.address(), "POST", target, &headers, form.to_owned()).await
}

pub async fn refresh(entra: &Entra, refresh_token: &str) -> Reply {
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("scope", "openid profile offline_access User.Read"),
    ];
    token(entra, &fields).await
}

/// A request to Graph with this access token.
pub async fn graph(graph: &Graph, access_token: &str, method: &str, target: &str, body: &str) -> Reply {
    try_graph(graph, access_token, method, target, body).await.unwrap()
}

pub async fn try_graph(
    graph: &Graph,
    access_token: &str,
    method: &str,
    target: &str,
    body: &str,
) -> Result<Reply, hyper::Error> {
    let bearer = format!("Bearer {access_token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    send(graph.address(), method, target, &headers, body.to_owned()).await
}

/// Both servers on free ports, on a clock that stands still.
pub fn sandbox() -> (Sandbox, Clock) {
    let clock = Clock::manual(START);
    (Sandbox::start(Options::default(), &clock, &here()).unwrap(), clock)
}

pub fn entra(options: EntraOptions) -> (Entra, Clock) {
    let clock = Clock::manual(START);
    (Entra::start(free(), options, clock.clone(), here()).unwrap(), clock)
}

pub fn graph_with(options: GraphOptions) -> (Entra, Graph) {
    let (entra, clock) = entra(EntraOptions::default());
    let graph = Graph::start(free(), options, &entra, clock, here()).unwrap();
    (entra, graph)
}

pub fn free() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub fn here() -> Tasks {
    Tasks::on(tokio::runtime::Handle::current())
}

/// Fails a test that would otherwise hang.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it happens soon")
}

/// Header and claims of a token whose signature one of the published keys proves.
pub async fn verified(entra: &Entra, id_token: &str) -> Result<(Value, Value), &'static str> {
    let target = format!("/{}/discovery/v2.0/keys", entra.options().tenant);
    let keys = get(entra.address(), &target).await.json();
    let (input, signature) = id_token.rsplit_once('.').ok_or("shape")?;
    let (header, claims) = input.split_once('.').ok_or("shape")?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: Value = serde_json::from_slice(&decode(header).ok_or("shape")?).map_err(|_| "shape")?;
    let claims: Value = serde_json::from_slice(&decode(claims).ok_or("shape")?).map_err(|_| "shape")?;
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).ok_or("kid")?;
    if key["issuer"] != claims["iss"] {
        return Err("issuer of the key");
    }
    let part = |name: &str| decode(key[name].as_str().unwrap()).unwrap();
    RsaPublicKeyComponents { n: part("n"), e: part("e") }
        .verify(&RSA_PKCS1_2048_8192_SHA256, input.as_bytes(), &decode(signature).unwrap())
        .map_err(|_| "signature")?;
    Ok((header, claims))
}

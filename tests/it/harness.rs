//! A running bearerd in front of the simulated Entra ID and Graph, and clients to talk to it: whole requests by hyper, bytes by hand.
//!
//! Every listener has a port of the system's choice, every store a directory of its own. Waiting is bounded: a test that would
//! hang fails.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearerd::account::Alias;
use bearerd::app::{App, StartError};
use bearerd::audit::{Entry, Event, Who};
use bearerd::clock::Clock;
use bearerd::config::{Config, Listen};
use bearerd::proxy::{AccessLog, Kind};
use bearerd::sandbox::{Graph, Options, Sandbox, Seen, TokenRequest};
use bearerd::secret::Secret;
use bearerd::tasks::{Tasks, spawn_here};
use bearerd::vault::Import;
use bytes::Bytes;
use http::request::Builder;
use http::{Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use toml::{Table, Value};

/// The key of the client `payroll`, which may act for everybody.
pub const KEY: &str = "bearerd-key-of-payroll";

/// Longer than anything takes; shorter than a person waits.
pub const LIMIT: Duration = Duration::from_secs(20);

pub type Body = BoxBody<Bytes, io::Error>;

/// A proxy with both servers behind it. Dropping it ends nothing: the runtime of the test does.
pub struct Rig {
    pub sandbox: Sandbox,
    pub app: App,
    pub clock: Clock,
    /// The first data listener on TCP.
    pub data: SocketAddr,
    pub store: tempfile::TempDir,
}

/// What a test wants otherwise.
pub struct Setup {
    pub clock: Clock,
    pub sandbox: Options,
    /// TOML laid over the usual configuration; lists are replaced. `ENTRA_ISSUER` stands for the simulated issuer.
    pub config: String,
    /// Aliases that are signed in.
    pub signed_in: Vec<&'static str>,
    /// Where the stored access tokens end: `None`, where Entra ID said.
    pub upstream: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            sandbox: Options::default(),
            config: String::new(),
            signed_in: vec!["alice", "bob"],
            upstream: None,
        }
    }
}

impl Rig {
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// `config` is TOML laid over the usual configuration.
    pub async fn with(config: &str) -> Self {
        Setup { config: config.to_owned(), ..Setup::default() }.start().await
    }

    /// In front of another upstream than the simulated Graph: an origin.
    pub async fn before(upstream: &str, config: &str) -> Self {
        Setup { config: config.to_owned(), upstream: Some(upstream.to_owned()), ..Setup::default() }.start().await
    }

    /// What Graph saw, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.sandbox.graph.requests()
    }

    /// The one request that Graph saw.
    pub fn seen_one(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.remove(0)
    }

    pub fn graph(&self) -> &Graph {
        &self.sandbox.graph
    }

    /// What the token endpoint saw, oldest first.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.sandbox.entra.token_requests()
    }

    /// Neither Graph nor the token endpoint was asked for anything.
    pub fn assert_nothing_left(&self) {
        assert!(self.seen().is_empty(), "Graph saw {:#?}", self.seen());
        assert!(self.token_requests().is_empty(), "the token endpoint saw {:#?}", self.token_requests());
    }

    /// Sends over a new HTTP/1.1 connection.
    pub async fn send(&self, request: Request<Body>) -> Response<Bytes> {
        whole(self.http1().await.send_request(request)).await
    }

    /// `GET path` as Alice.
    pub async fn get(&self, path: &str) -> Response<Bytes> {
        self.send(get(path)).await
    }

    /// Sends over a new HTTP/2 connection with prior knowledge.
    pub async fn send_http2(&self, request: Request<Body>) -> Response<Bytes> {
        whole(self.http2().await.send_request(for_http2(request, self.data))).await
    }

    pub async fn http1(&self) -> http1::SendRequest<Body> {
        http1_over(self.connect().await).await
    }

    pub async fn http2(&self) -> http2::SendRequest<Body> {
        http2_over(self.connect().await).await
    }

    /// Sends to the admin listener.
    pub async fn send_to_admin(&self, request: Request<Body>) -> Response<Bytes> {
        let address = match self.app.admin_addresses() {
            [Listen::Tcp(address)] => *address,
            other => panic!("{other:?}"),
        };
        let stream = within(TcpStream::connect(address)).await.expect("the admin listener accepts");
        whole(http1_over(stream).await.send_request(request)).await
    }

    /// A connection to write bytes on.
    pub async fn wire(&self) -> Wire {
        Wire::over(self.connect().await)
    }

    async fn connect(&self) -> TcpStream {
        let stream = within(TcpStream::connect(self.data)).await.expect("the data listener accepts");
        stream.set_nodelay(true).expect("a TCP connection");
        stream
    }

    /// Writes `bytes` on a new connection and reads until the proxy closes it.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.rest().await
    }
}

impl Setup {
    pub async fn start(self) -> Rig {
        self.try_start().await.expect("bearerd starts")
    }

    pub async fn try_start(self) -> Result<Rig, StartError> {
        self.start_logged(&AccessLog::off()).await
    }

    /// With an access log of the test's.
    pub async fn start_logged(self, log: &AccessLog) -> Result<Rig, StartError> {
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        let sandbox = Sandbox::start(self.sandbox, &self.clock, &tasks).expect("the sandbox starts");
        let store = tempfile::tempdir().expect("a directory");
        let graph = sandbox.graph.origin();
        let upstream = self.upstream.as_deref().unwrap_or(graph.as_str());
        let over = self.config.replace("ENTRA_ISSUER", &sandbox.entra.issuer());
        let config = configuration(&sandbox, upstream, store.path(), &over);
        let app = App::logged(&config, log, self.clock.clone(), tasks).await?;
        for alias in self.signed_in {
            sign_in(&app, &sandbox, alias).await;
        }
        let tcp = |addresses: &[Listen]| {
            addresses.iter().find_map(|address| match address {
                Listen::Tcp(address) => Some(*address),
                Listen::Unix(_) => None,
            })
        };
        let data = tcp(app.data_addresses()).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 1)));
        Ok(Rig { sandbox, app, clock: self.clock, data, store })
    }
}

/// Signs a simulated user in without a browser, with the token that Entra ID gives now.
pub async fn sign_in(app: &App, sandbox: &Sandbox, alias: &str) {
    sign_in_as(app, sandbox, alias, alias).await;
}

/// The same under another alias.
pub async fn sign_in_as(app: &App, sandbox: &Sandbox, user: &str, alias: &str) {
    let grant = sandbox.grant(user).expect("the simulated user exists");
    let row = Import {
        alias: Alias::new(alias).expect("an alias"),
        provider: "entra".to_owned(),
        refresh_token: Secret::new(grant.refresh_token),
        access_token: Some(Secret::new(grant.access_token)),
        expires_at: Some(grant.expires_at),
        tenant: Some(grant.tenant),
        subject: Some(grant.oid),
        scopes: None,
    };
    app.core().vault.import(row, false, Entry::new(Event::Import, Who::Cli)).await.expect("the import succeeds");
}

/// The usual configuration with `over` laid over it.
pub fn configuration(sandbox: &Sandbox, upstream: &str, store: &Path, over: &str) -> Config {
    let text = configuration_text(sandbox, upstream, store, over);
    match Config::from_text(Some((Path::new("test.toml"), &text)), &BTreeMap::new(), &[]) {
        Ok(loaded) => loaded.config,
        Err(mistakes) => panic!("{mistakes}\n{text}"),
    }
}

/// The same as a file has it.
pub fn configuration_text(sandbox: &Sandbox, upstream: &str, store: &Path, over: &str) -> String {
    let entra = sandbox.entra.options();
    let mut table: Table = toml::from_str(&format!(
        r#"
        server = {{ listen = "127.0.0.1:0", workers = 1 }}
        admin = {{ listen = "127.0.0.1:0" }}
        store = {{ path = "{store}/data", key_file = "{store}/store.key" }}
        [providers.entra]
        authority = "{authority}"
        tenant = "{tenant}"
        client_id = "{client_id}"
        credentials = [{{ secret = "{secret}" }}]
        [upstreams.graph]
        url = "{upstream}"
        provider = "entra"
        scopes = ["User.Read", "Mail.ReadWrite", "Mail.Send", "Files.ReadWrite"]
        [[clients]]
        name = "payroll"
        key_hash = "{key}"
        accounts = ["*"]
        "#,
        store = store.display(),
        authority = sandbox.entra.origin(),
        tenant = entra.tenant,
        client_id = entra.client_id,
        secret = entra.client_secret.as_deref().unwrap_or_default(),
        key = key_hash(KEY),
    ))
    .expect("the usual configuration is TOML");
    lay(&mut table, toml::from_str(over).expect("the test's configuration is TOML"));
    table.to_string()
}

/// `key_hash` of a client key.
pub fn key_hash(key: &str) -> String {
    format!("sha256:{}", sha256(key.as_bytes()))
}

/// In hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn lay(under: &mut Table, over: Table) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay(below, above),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}

/// The value of `Authorization: Basic`.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A request with a Host and no credential.
pub fn bare(method: &str, path: &str) -> Builder {
    Request::builder().method(method).uri(path).header("host", "127.0.0.1")
}

/// A request as Alice, by Basic.
pub fn alice(method: &str, path: &str) -> Builder {
    bare(method, path).header("authorization", basic("alice", KEY))
}

/// A request with the client key in `X-Api-Key`, which names no account.
pub fn keyed(method: &str, path: &str) -> Builder {
    bare(method, path).header("x-api-key", KEY)
}

/// `[[clients]]` with the client `portal`, which acts on behalf of users of the simulated Entra ID.
pub fn on_behalf_of() -> String {
    let id = bearerd::sandbox::EntraOptions::default().client_id;
    let jwt = format!("{{ issuer = \"ENTRA_ISSUER\", audience = [\"{id}\", \"api://{id}\"] }}");
    format!("[[clients]]\nname = \"portal\"\nidentity = \"on-behalf-of\"\njwt = {jwt}\n")
}

/// `[[clients]]` with one client of the usual key and these further lines.
pub fn client(lines: &str) -> String {
    format!("[[clients]]\nname = \"payroll\"\nkey_hash = \"{}\"\n{lines}\n", key_hash(KEY))
}

/// `GET path` as Alice.
pub fn get(path: &str) -> Request<Body> {
    alice("GET", path).body(empty()).expect("a request")
}

/// `POST path` as Alice.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    alice("POST", path).header("content-type", "application/json").body(full(body)).expect("a request")
}

pub fn empty() -> Body {
    full(Bytes::new())
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The same request as HTTP/2 spells it.
pub fn for_http2(request: Request<Body>, address: SocketAddr) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let host = head.headers.remove("host");
    let host = host.map_or(address.to_string(), |host| host.to_str().expect("a host").to_owned());
    head.uri = Uri::builder()
        .scheme("http")
        .authority(host)
        .path_and_query(head.uri.path_and_query().expect("a path").clone())
        .build()
        .expect("a target");
    Request::from_parts(head, body)
}

pub async fn http1_over<T>(stream: T) -> http1::SendRequest<Body>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("an HTTP/1.1 connection");
    spawn_here(connection);
    sender
}

pub async fn http2_over<T>(stream: T) -> http2::SendRequest<Body>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("an HTTP/2 connection");
    spawn_here(connection);
    sender
}

/// The answer with its body.
pub async fn whole(answer: impl Future<Output = hyper::Result<Response<Incoming>>>) -> Response<Bytes> {
    let (head, body) = within(answer).await.expect("an answer").into_parts();
    Response::from_parts(head, within(body.collect()).await.expect("a whole body").to_bytes())
}

/// The outcome of `work`; a test fails that waits too long.
pub async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(LIMIT, work).await.expect("nothing takes that long")
}

/// The one value of a header; `None` where there is none.
pub fn header<'a, B>(answer: &'a Response<B>, name: &str) -> Option<&'a str> {
    let mut values = answer.headers().get_all(name).iter();
    let value = values.next()?;
    assert!(values.next().is_none(), "{name} twice: {:?}", answer.headers());
    Some(value.to_str().expect("text"))
}

pub fn json(answer: &Response<Bytes>) -> serde_json::Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// An error that the proxy made, in every part of its shape. Returns the document.
pub fn assert_refused(answer: &Response<Bytes>, status: u16, code: &str) -> serde_json::Value {
    let said = (answer.status().as_u16(), header(answer, "bearerd-error").map(str::to_owned));
    assert_eq!(said, (status, Some(code.to_owned())), "{answer:?}");
    assert_eq!(header(answer, "content-type"), Some("application/json"));
    assert_eq!(header(answer, "cache-control"), Some("no-store"));
    let kind = *Kind::ALL.iter().find(|kind| kind.name() == code).expect("a row of the table");
    let proxy_status = format!("bearerd; error={}; details=\"{code}\"", kind.proxy_error());
    assert_eq!(header(answer, "proxy-status"), Some(&*proxy_status));
    let waits = [Kind::ProviderUnavailable, Kind::StoreUnavailable, Kind::Throttled, Kind::Overloaded];
    assert_eq!(answer.headers().contains_key("retry-after"), waits.contains(&kind), "{answer:?}");
    let challenges = answer.headers().get_all("www-authenticate");
    let is_basic = challenges.iter().any(|challenge| challenge == "Basic realm=\"bearerd\", charset=\"UTF-8\"");
    assert_eq!(is_basic, kind == Kind::ClientUnauthenticated, "{answer:?}");
    let document = json(answer);
    let error = &document["error"];
    assert_eq!(error["code"], format!("bearerd.{code}"));
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{document}");
    for id in ["request-id", "client-request-id", "date"] {
        assert!(error["innerError"][id].as_str().is_some_and(|id| id.len() > 10), "{id}: {document}");
    }
    document
}

/// A connection as bytes.
pub struct Wire {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Wire {
    pub fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { stream: Box::new(stream), unread: Vec::new() }
    }

    /// Writes all of it, or as much as the other side takes before it closes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within(self.stream.write_all(bytes.as_ref())).await;
        let _ = within(self.stream.flush()).await;
    }

    /// The next answer; an interim one (1xx) is an answer here.
    pub async fn answer(&mut self) -> Message {
        loop {
            if let Some((message, taken)) = Message::parse(&self.unread, false) {
                self.unread.drain(..taken);
                return message;
            }
            let more = self.read().await;
            assert!(more, "closed after {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Everything until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.unread)
    }

    /// Takes in some bytes; false at the end. A reset is an end too.
    pub async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let count = within(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// A request or an answer of HTTP/1.1 as it stood on the wire.
#[derive(Clone)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
}

impl Message {
    /// The first whole message of `bytes` and its length. Knows what a well-behaved sender sends, and no more.
    pub fn parse(bytes: &[u8], is_request: bool) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| line.split_once(':').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut message = Self { start, headers, body: Vec::new() };
        let rest = &bytes[end + 4..];
        let status = if is_request { 0 } else { message.status() };
        let length = message.header("content-length").map(|length| length.parse::<usize>().expect("a length"));
        let taken = if matches!(status, 100..=199 | 204 | 304) {
            0
        } else if message.header("transfer-encoding").is_some() {
            let (body, taken) = dechunk(rest)?;
            message.body = body;
            taken
        } else {
            let length = length.unwrap_or(0);
            message.body = rest.get(..length)?.to_vec();
            length
        };
        Some((message, end + 4 + taken))
    }

    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The same as an answer of the HTTP library, for `assert_refused`.
    pub fn response(&self) -> Response<Bytes> {
        let mut response = Response::builder().status(self.status());
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        response.body(self.body.clone().into()).expect("an answer")
    }
}

impl Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.start, self.headers, text(&self.body))
    }
}

fn dechunk(mut rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let whole = rest.len();
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        rest = &rest[line + 2..];
        if size == 0 {
            // Trailers, if any, then an empty line.
            let end =
                if rest.starts_with(b"\r\n") { 2 } else { rest.windows(4).position(|four| four == b"\r\n\r\n")? + 4 };
            return Some((body, whole - rest.len() + end));
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// For the messages of assertions.
pub fn text(bytes: impl AsRef<[u8]> + Debug) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

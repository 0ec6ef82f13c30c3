//! The listeners as a client sees them: real sockets on port 0, real TLS, no sleeps.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bearerd::config::{Listen, Tls};
use bearerd::metrics::Metrics;
use bearerd::process::memory::Pressure;
use bearerd::proxy::Peer;
use bearerd::server::{Bound, Drained, Running, Service, Settings};
use bearerd::tasks::{Tasks, spawn_here};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No test takes so long; one that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers by path, for the tests' purposes.
#[derive(Clone)]
struct Fake {
    worker: usize,
    /// `/held` announces itself here ..
    arrived: Arc<Semaphore>,
    /// .. and waits here.
    released: Arc<Semaphore>,
}

/// A body whose length nobody knows.
struct Endless(VecDeque<&'static str>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))))
    }
}

impl Service for Fake {
    type Body = UnsyncBoxBody<Bytes, Infallible>;

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Response<Self::Body> {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/refused" => {
                let mut refused = text("no");
                *refused.status_mut() = StatusCode::UNAUTHORIZED;
                refused
            }
            "/body" => text(&String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes())),
            "/endless" => Response::new(Endless(["one ", "two ", "three"].into()).boxed_unsync()),
            "/panic" => panic!("on purpose"),
            "/held" => {
                self.arrived.add_permits(1);
                self.released.acquire().await.unwrap().forget();
                text("finished")
            }
            "/http2-upstream" => {
                let mut response = text("hello");
                *response.version_mut() = Version::HTTP_2;
                response
            }
            "/peer" => text(&format!("{:?} {peer:?}", head.version)),
            "/worker" => text(&self.worker.to_string()),
            _ => text("hello"),
        }
    }

    fn panicked(&self) -> Response<Self::Body> {
        let mut response = text("a bug");
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

fn text(text: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync())
}

/// A running listener with two workers and what a test needs to talk to it.
struct Rig {
    running: Running,
    metrics: Metrics,
    arrived: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

fn settings() -> Settings {
    Settings {
        tls: None,
        connections: 100,
        header_timeout: PATIENCE,
        header_bytes: 64 * 1024,
        park_after: Duration::ZERO,
        pressure: Pressure::default(),
    }
}

fn rig(settings: &Settings) -> Rig {
    rig_on(&[Listen::Tcp("127.0.0.1:0".parse().unwrap())], settings)
}

fn rig_on(addresses: &[Listen], settings: &Settings) -> Rig {
    let (arrived, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let fake = Fake { worker: 0, arrived: arrived.clone(), released: released.clone() };
    let metrics = Metrics::new();
    let bound = Bound::bind("server.listen", addresses, 2).unwrap();
    let running = bound.start(settings, &metrics, move |worker| Fake { worker, ..fake.clone() }, |_| ()).unwrap();
    Rig { running, metrics, arrived, released }
}

impl Rig {
    fn address(&self) -> SocketAddr {
        match self.running.addresses() {
            [Listen::Tcp(address), ..] => *address,
            other => panic!("no TCP address first: {other:?}"),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// What comes back for `bytes`, up to the end of the connection.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

/// Everything up to the end of the connection; a reset is an end too, and shows as one.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let ended = soon(stream.read_to_end(&mut bytes)).await;
    let all = String::from_utf8_lossy(&bytes).into_owned();
    match ended {
        Ok(_) => all,
        Err(error) => format!("{all}<{:?}>", error.kind()),
    }
}

/// One answer that has a length, from a connection that stays open.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = String::new();
    loop {
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if body.len() >= length.parse().unwrap() {
                return answer;
            }
        }
        let mut byte = [0];
        let count = soon(stream.read(&mut byte)).await.unwrap();
        assert_eq!(count, 1, "the connection ended within {answer:?}");
        answer.push(char::from(byte[0]));
    }
}

async fn http2<S>(stream: S) -> SendRequest<Empty<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    drop(spawn_here(connection));
    sender
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, target: &str) -> (StatusCode, String) {
    let request = Request::get(target).body(Empty::new()).unwrap();
    let (head, body) = soon(sender.send_request(request)).await.unwrap().into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

// HTTP/1

#[tokio::test]
async fn http_1_1_keeps_the_connection_and_every_worker_serves() {
    let rig = rig(&settings());
    let mut stream = rig.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    }
    let mut served = [false; 2];
    while served != [true, true] {
        let answer = rig.exchange(b"GET /worker HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        served[usize::from(answer.ends_with('1'))] = true;
    }
}

#[tokio::test]
async fn http_1_0_is_closed_unless_it_asks_for_more() {
    let rig = rig(&settings());
    let answer = rig.exchange(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(!answer.contains("keep-alive"), "{answer}");

    // What an upstream's HTTP/2 answer leaves in the head must not change the framing.
    for path in ["/", "/http2-upstream"] {
        let mut stream = rig.connect().await;
        for _ in 0..3 {
            let request = format!("GET {path} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read_answer(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
            assert!(answer.contains("connection: keep-alive\r\n") && answer.ends_with("hello"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_ends_with_the_connection_in_http_1_0_and_is_chunked_in_1_1() {
    let rig = rig(&settings());
    let answer = rig.exchange(b"GET /endless HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\none two three"), "{answer}");
    assert!(!answer.contains("keep-alive") && !answer.contains("chunked"), "{answer}");

    let answer = rig.exchange(b"GET /endless HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let rig = rig(&settings());
    let many = "x: y\r\n".repeat(101);
    let answer = rig.exchange(format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let long = "y".repeat(70_000);
    let answer = rig.exchange(format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");

    let huge = "y".repeat(200_000);
    let answer = rig.exchange(format!("GET / HTTP/1.1\r\nHost: x\r\nx: {huge}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_connection_closed() {
    let rig = rig(&settings());
    for request in [
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = rig.exchange(format!("{request}GET /worker HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} -> {answer:?}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{request:?} -> {answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_closed() {
    let rig = rig(&Settings { header_timeout: Duration::from_millis(200), ..settings() });
    for beginning in [&b""[..], b"P", b"PRI * HT", b"GET / HTTP/1.1\r\nHost: x\r\n", PREFACE] {
        let answer = rig.exchange(beginning).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    // And so is one that has had its answer and stays silent.
    let answer = rig.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_preface_that_is_cut_short_is_no_http_2() {
    let rig = rig(&settings());
    for beginning in [&b"P"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut stream = rig.connect().await;
        stream.write_all(beginning).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(!read_all(&mut stream).await.contains("200"));
    }
}

// Bodies that nobody reads

#[tokio::test]
async fn no_100_continue_unless_the_body_is_wanted() {
    let rig = rig(&settings());
    let refused = "POST /refused HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n";
    let answer = rig.exchange(refused.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("no"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");

    let mut stream = rig.connect().await;
    let wanted = "POST /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    stream.write_all(wanted.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    soon(stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"data").await.unwrap();
    assert!(read_answer(&mut stream).await.ends_with("data"));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let rig = rig(&settings());
    let mut stream = rig.connect().await;
    let length = 8 * 1024 * 1024;
    let head = format!("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    // It has more to say than all buffers hold, and in the body what would be a second request.
    let upload = spawn_here(async move {
        let smuggled = b"GET /worker HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
        let mut sent = 0;
        while sent < length && writer.write_all(&smuggled).await.is_ok() {
            sent += smuggled.len();
        }
        let _ = writer.shutdown().await;
    });
    let answer = read_all(&mut reader).await;
    soon(upload).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("\r\n\r\nno"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

// HTTP/2, TLS, Unix sockets

#[tokio::test]
async fn http_2_with_prior_knowledge() {
    let rig = rig(&settings());
    let mut sender = http2(rig.connect().await).await;
    let (status, body) = get(&mut sender, "http://x/peer").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.starts_with("HTTP/2.0") && body.contains("secure: false"), "{body}");
    assert_eq!(get(&mut sender, "http://x/endless").await.1, "one two three");
}

#[tokio::test]
async fn http_2_is_recognised_however_slowly_the_preface_comes() {
    let rig = rig(&settings());
    let mut stream = rig.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in PREFACE {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // An empty SETTINGS frame; the server's own comes back.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut frame = [0; 9];
    soon(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "{frame:?}");
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A certificate for `names` and its key, as PEM.
    fn issue(&self, names: Vec<SanType>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// TLS settings for `localhost`.
    fn tls(&self, client_ca: Option<&Authority>) -> Settings {
        let (cert_pem, key_pem) = self.issue(vec![SanType::DnsName("localhost".try_into().unwrap())]);
        let tls = Tls {
            cert_file: PathBuf::new(),
            cert_pem,
            key_file: PathBuf::new(),
            key_pem: key_pem.into(),
            client_ca_pem: client_ca.map(|authority| authority.issuer.pem()),
        };
        Settings { tls: Some(tls), ..settings() }
    }

    async fn connect(
        &self,
        stream: TcpStream,
        alpn: &[&str],
        identity: Option<(String, String)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

#[tokio::test]
async fn tls_speaks_what_alpn_agrees_on() {
    let authority = Authority::new();
    let rig = rig(&authority.tls(None));

    let stream = authority.connect(rig.connect().await, &["h2", "http/1.1"], None).await.unwrap();
    let (_, body) = get(&mut http2(stream).await, "https://localhost/peer").await;
    assert!(body.starts_with("HTTP/2.0") && body.contains("secure: true, names: []"), "{body}");

    for alpn in [&["http/1.1"][..], &[]] {
        let mut stream = authority.connect(rig.connect().await, alpn, None).await.unwrap();
        stream.write_all(b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.contains("\r\n\r\nHTTP/1.1") && answer.contains("secure: true"), "{answer}");
    }
    assert!(authority.connect(rig.connect().await, &["spdy/3"], None).await.is_err());
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_no_answer() {
    let authority = Authority::new();
    let rig = rig(&authority.tls(None));
    let answer = rig.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!answer.contains("HTTP") && !answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn the_names_in_a_clients_certificate_are_the_peers() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let rig = rig(&authority.tls(Some(&clients)));
    let names = vec![
        SanType::DnsName("payroll.example".try_into().unwrap()),
        SanType::URI("spiffe://example/payroll".try_into().unwrap()),
        SanType::Rfc822Name("payroll@example.com".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
    ];
    let identity = clients.issue(names);
    let stream = authority.connect(rig.connect().await, &["h2"], Some(identity)).await.unwrap();
    let (_, body) = get(&mut http2(stream).await, "https://localhost/peer").await;
    let expected =
        r#"names: ["payroll.example", "spiffe://example/payroll", "payroll@example.com", "192.0.2.7", "2001:db8::7"]"#;
    assert!(body.contains(expected), "{body}");

    // Without a certificate a client has no name.
    let stream = authority.connect(rig.connect().await, &["h2"], None).await.unwrap();
    assert!(get(&mut http2(stream).await, "https://localhost/peer").await.1.contains("names: []"));

    // One of another authority is not let in. In TLS 1.3 the client learns it when it reads.
    let stranger = authority.issue(vec![SanType::DnsName("payroll.example".try_into().unwrap())]);
    if let Ok(mut stream) = authority.connect(rig.connect().await, &["http/1.1"], Some(stranger)).await {
        let _ = stream.write_all(b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = read_all(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn a_silent_tls_client_does_not_hold_up_a_drain() {
    let authority = Authority::new();
    let rig = rig(&authority.tls(None));
    let mut stream = rig.connect().await;
    let mut idle = authority.connect(rig.connect().await, &["http/1.1"], None).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_answer(&mut idle).await;
    assert_eq!(soon(rig.running.drain(PATIENCE)).await, Drained { cut_off: 0 });
    assert_eq!(read_all(&mut stream).await, "");
    // An end without TLS's own farewell would read as an error here.
    assert_eq!(read_all(&mut idle).await, "");
}

#[tokio::test]
async fn a_unix_sockets_peer_is_its_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("graph.sock");
    let rig = rig_on(&[Listen::Unix(path.clone())], &settings());
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    let expected = format!("Unix {{ uid: {}, gid: ", rustix::process::getuid().as_raw());
    assert!(answer.contains(&expected), "{answer}");

    let mut sender = http2(UnixStream::connect(&path).await.unwrap()).await;
    assert!(get(&mut sender, "http://x/peer").await.1.starts_with("HTTP/2.0"));
    drop(sender);

    soon(rig.running.drain(PATIENCE)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn one_listener_has_several_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("graph.sock");
    let addresses =
        [Listen::Tcp("127.0.0.1:0".parse().unwrap()), Listen::Tcp("[::1]:0".parse().unwrap()), Listen::Unix(path)];
    let rig = rig_on(&addresses, &settings());
    let [Listen::Tcp(v4), Listen::Tcp(v6), Listen::Unix(_)] = rig.running.addresses() else {
        panic!("{}", rig.running)
    };
    for address in [v4, v6] {
        assert_ne!(address.port(), 0);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(read_all(&mut stream).await.ends_with("hello"));
    }
}

// Connections that wait: every test here has them parked whenever they do

#[tokio::test]
async fn over_tls_a_parked_connection_serves_on() {
    let authority = Authority::new();
    let rig = rig(&authority.tls(None));
    let mut stream = authority.connect(rig.connect().await, &["http/1.1"], None).await.unwrap();
    for count in 0..100 {
        let request =
            format!("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{count:04}GET /worker HTTP/1.1\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.ends_with(&format!("{count:04}")), "{answer}");
        stream.write_all(b"Host: x\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_connection_waits_is_not_counted_any_more() {
    let rig = rig(&settings());
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = rig.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_answer(&mut stream).await;
        streams.push(stream);
    }
    assert!(rig.metrics.render().contains("bearerd_connections{side=\"client\"} 10"));
    drop(streams);
    soon(async {
        while !rig.metrics.render().contains("bearerd_connections{side=\"client\"} 0") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// Limits and failures

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_room_is_given_back() {
    let rig = rig(&Settings { connections: 2, ..settings() });
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = rig.connect().await;
        stream.write_all(ask).await.unwrap();
        read_answer(&mut stream).await;
        open.push(stream);
    }
    assert!(rig.metrics.render().contains("bearerd_connections{side=\"client\"} 2"));
    let refused = rig.exchange(ask).await;
    assert!(!refused.contains("HTTP"), "{refused}");

    // The server sees the end of a connection before it answers the next: ask until there is room.
    open.pop();
    soon(async { while !rig.exchange(b"GET / HTTP/1.0\r\n\r\n").await.ends_with("hello") {} }).await;
}

#[tokio::test]
async fn a_panic_ends_one_request_only() {
    let rig = rig(&settings());
    let mut stream = rig.connect().await;
    for (path, expected) in [("/panic", "HTTP/1.1 500 "), ("/", "HTTP/1.1 200 "), ("/panic", "HTTP/1.1 500 ")] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    let mut sender = http2(rig.connect().await).await;
    assert_eq!(get(&mut sender, "http://x/panic").await, (StatusCode::INTERNAL_SERVER_ERROR, "a bug".to_owned()));
    assert_eq!(get(&mut sender, "http://x/").await.0, StatusCode::OK);
}

// Draining

#[tokio::test]
async fn a_drain_lets_requests_finish_and_closes_the_rest() {
    let rig = rig(&settings());
    let mut idle = rig.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_answer(&mut idle).await;
    let mut silent = rig.connect().await;

    let mut busy = rig.connect().await;
    busy.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut sender = http2(rig.connect().await).await;
    let stream = spawn_here(async move { get(&mut sender, "http://x/held").await });
    soon(rig.arrived.acquire_many(2)).await.unwrap().forget();

    let address = rig.address();
    let drain = spawn_here(rig.running.drain(PATIENCE));
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut silent).await, "");
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!drain.is_finished());

    rig.released.add_permits(2);
    let answer = read_all(&mut busy).await;
    assert!(answer.contains("connection: close") && answer.ends_with("finished"), "{answer}");
    assert_eq!(soon(stream).await.unwrap(), (StatusCode::OK, "finished".to_owned()));
    assert_eq!(soon(drain).await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn what_was_sent_before_a_drain_is_answered() {
    for _ in 0..20 {
        let rig = rig(&settings());
        let mut stream = rig.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let drain = spawn_here(rig.running.drain(PATIENCE));
        let answer = read_all(&mut stream).await;
        assert!(answer.ends_with("hello"), "{answer}");
        drop(stream);
        assert_eq!(soon(drain).await.unwrap(), Drained { cut_off: 0 });
    }
}

#[tokio::test]
async fn who_leaves_serves_everybody_and_lets_them_go() {
    let rig = rig(&settings());
    let mut there = rig.connect().await;
    there.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(!read_answer(&mut there).await.contains("connection: close"));
    rig.running.leave();
    // Each worker hears of it in its own time.
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    soon(async {
        loop {
            let mut comes = rig.connect().await;
            comes.write_all(request).await.unwrap();
            let answer = read_answer(&mut comes).await;
            assert!(answer.ends_with("hello"), "{answer}");
            if answer.contains("connection: close") {
                assert_eq!(read_all(&mut comes).await, "");
                return;
            }
        }
    })
    .await;
    let mut http2 = http2(rig.connect().await).await;
    assert_eq!(get(&mut http2, "http://x/").await.0, StatusCode::OK);
    soon(async {
        loop {
            there.write_all(request).await.unwrap();
            if read_answer(&mut there).await.contains("connection: close") {
                return;
            }
        }
    })
    .await;
    assert_eq!(read_all(&mut there).await, "");
    assert_eq!(get(&mut http2, "http://x/").await.0, StatusCode::OK, "HTTP/2 has better ways, when the drain begins");
    assert_eq!(soon(rig.running.drain(PATIENCE)).await, Drained { cut_off: 0 });
}

/// On `address`, which others may have too.
fn beside(address: &Listen) -> Running {
    let fake = Fake { worker: 0, arrived: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) };
    let bound = Bound::shared("server.listen", std::slice::from_ref(address), 2).unwrap();
    bound.start(&settings(), &Metrics::new(), move |worker| Fake { worker, ..fake.clone() }, |_| ()).unwrap()
}

#[tokio::test]
async fn of_two_that_share_a_port_one_goes_and_no_connection_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    for address in [Listen::Tcp("127.0.0.1:0".parse().unwrap()), Listen::Unix(directory.path().join("graph.sock"))] {
        let mut serving = beside(&address);
        let address = serving.addresses()[0].clone();
        for _ in 0..4 {
            let next = beside(&address);
            let going = std::mem::replace(&mut serving, next);
            let drain = spawn_here(going.drain(PATIENCE));
            let mut asked = 0;
            while !drain.is_finished() || asked < 50 {
                let answer = match &address {
                    Listen::Tcp(address) => once(soon(TcpStream::connect(address)).await.unwrap()).await,
                    Listen::Unix(path) => once(soon(UnixStream::connect(path)).await.unwrap()).await,
                };
                assert!(answer.ends_with("hello"), "{address:?} {answer}");
                asked += 1;
            }
            assert_eq!(soon(drain).await.unwrap(), Drained { cut_off: 0 });
        }
        assert_eq!(soon(serving.drain(PATIENCE)).await, Drained { cut_off: 0 });
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// One request over a connection of its own.
async fn once(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    read_all(&mut stream).await
}

#[tokio::test]
async fn a_drain_cuts_off_what_does_not_finish() {
    let rig = rig(&settings());
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon(rig.arrived.acquire()).await.unwrap().forget();
    assert_eq!(soon(rig.running.drain(Duration::ZERO)).await, Drained { cut_off: 1 });
    assert!(!read_all(&mut busy).await.contains("HTTP"));
    assert!(rig.metrics.render().contains("bearerd_connections{side=\"client\"} 0"));
}

#[tokio::test]
async fn a_listener_on_the_runtime_of_slow_work_serves_and_drains() {
    let tasks = Tasks::on(tokio::runtime::Handle::current());
    let bound = Bound::bind("admin.listen", &[Listen::Tcp("127.0.0.1:0".parse().unwrap())], 1).unwrap();
    let fake = Fake { worker: 7, arrived: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) };
    let running = bound.start_on(&tasks, &Settings::small(), &Metrics::new(), fake).unwrap();
    let [Listen::Tcp(address)] = running.addresses() else { panic!("{running}") };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /worker HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut stream).await.ends_with('7'));
    assert_eq!(soon(running.drain(PATIENCE)).await, Drained { cut_off: 0 });
    assert_eq!(read_all(&mut stream).await, "");
}

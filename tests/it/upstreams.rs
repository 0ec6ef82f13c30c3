//! Upstreams of every kind: TLS and whom to believe, HTTP/1.1 and HTTP/2, several of them, connections that grow old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

/// Signs certificates that a rig can be told to trust.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The lines of the configuration that trust this authority.
    pub fn trusted(&self) -> String {
        format!("upstreams.graph.ca_file = \"{}\"", self.directory.path().join("ca.pem").display())
    }

    fn acceptor(&self, params: &CertificateParams, alpn: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    pub fn for_name(&self, name: &str, alpn: &[&str]) -> TlsAcceptor {
        self.acceptor(&CertificateParams::new(vec![name.to_owned()]).unwrap(), alpn)
    }
}

/// An upstream over HTTP/2, with TLS or without.
#[derive(Clone, Default)]
struct Http2Upstream(Arc<Mutex<Http2Log>>);

#[derive(Default)]
struct Http2Log {
    connections: usize,
    /// Head, digest of the body.
    requests: Vec<(http::request::Parts, String)>,
    /// Answer 401 to tokens that are not this one; empty: take all.
    refused: Vec<String>,
}

impl Http2Upstream {
    async fn start(tls: Option<TlsAcceptor>) -> (Self, u16) {
        let upstream = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = upstream.clone();
        spawn_here(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let upstream = served.clone();
                let tls = tls.clone();
                upstream.log().connections += 1;
                spawn_here(async move {
                    match tls {
                        None => upstream.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                upstream.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        (upstream, port)
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Http2Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(|request: Request<Incoming>| {
            let upstream = self.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let token = head.headers["authorization"].to_str().unwrap().to_owned();
                let mut log = upstream.log();
                let status = if log.refused.contains(&token) { 401 } else { 200 };
                log.requests.push((head, sha256(&body)));
                Ok::<_, hyper::Error>(
                    Response::builder().status(status).body(Full::new(Bytes::from_static(b"ok"))).unwrap(),
                )
            }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_protocol_is_agreed_upon() {
    let authority = Authority::new();
    let one = RawUpstream::with_tls(authority.for_name("localhost", &["http/1.1"]), |_, _| Play::ok()).await;
    let none = RawUpstream::with_tls(authority.for_name("localhost", &[]), |_, _| Play::ok()).await;
    for upstream in [one, none] {
        let origin = format!("https://localhost:{}", upstream.address.port());
        let rig = Rig::before(&origin, &authority.trusted()).await;
        for _ in 0..2 {
            assert_eq!(rig.send(post("/v1.0/me/x?y=1", "hello")).await.status(), 200);
        }
        let arrived = upstream.arrived();
        assert_eq!(arrived.len(), 2);
        assert_eq!(arrived[0].message.header("host"), Some(&origin["https://".len()..]));
        assert_eq!(arrived[0].message.body, b"hello");
        assert_eq!(upstream.bytes().len(), 1, "one connection for both");
    }

    let (two, port) = Http2Upstream::start(Some(authority.for_name("localhost", &["h2", "http/1.1"]))).await;
    let rig = Rig::before(&format!("https://localhost:{port}"), &authority.trusted()).await;
    let request = alice("POST", "/v1.0/me/x?y=1")
        .header("te", "trailers")
        .header("connection", "te")
        .body(full("hello"))
        .unwrap();
    assert_eq!(rig.send(request).await.status(), 200);
    let log = two.log();
    let (head, digest) = &log.requests[0];
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.to_string(), format!("https://localhost:{port}/v1.0/me/x?y=1"));
    assert_eq!(digest, &sha256(b"hello"));
    for name in ["host", "connection", "te", "transfer-encoding", "upgrade"] {
        assert!(!head.headers.contains_key(name), "{name}: {head:?}");
    }
    assert!(head.headers["authorization"].to_str().unwrap().starts_with("Bearer "));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_can_be_insisted_upon() {
    let authority = Authority::new();
    let upstream = RawUpstream::with_tls(authority.for_name("localhost", &["h2", "http/1.1"]), |_, _| Play::ok()).await;
    let config = format!("{}\nupstreams.graph.http = \"1\"", authority.trusted());
    let rig = Rig::before(&format!("https://localhost:{}", upstream.address.port()), &config).await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(upstream.arrived().len(), 1);
}

/// One connection carries them all.
#[tokio::test(flavor = "multi_thread")]
async fn http2_upstreams_are_shared_by_concurrent_requests() {
    let authority = Authority::new();
    let (upstream, port) = Http2Upstream::start(Some(authority.for_name("localhost", &["h2"]))).await;
    let rig = Arc::new(Rig::before(&format!("https://localhost:{port}"), &authority.trusted()).await);
    assert_eq!(rig.get("/v1.0/first").await.status(), 200);
    let asks: Vec<_> = (0..50)
        .map(|number| {
            let rig = Arc::clone(&rig);
            spawn_here(async move {
                rig.send(post(&format!("/v1.0/{number}"), vec![number; 30_000])).await.status().as_u16()
            })
        })
        .collect();
    for ask in asks {
        assert_eq!(within(ask).await.unwrap(), 200);
    }
    let log = upstream.log();
    assert_eq!((log.connections, log.requests.len()), (1, 51));
    for number in 0..50_u8 {
        let path = format!("/v1.0/{number}");
        let (_, digest) = log.requests.iter().find(|(head, _)| head.uri.path() == path).unwrap();
        assert_eq!(digest, &sha256(&vec![number; 30_000]));
    }
}

/// The promise of the product once more, with an upstream over HTTP/2 as Graph is one.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_posts_heal_over_http2_with_one_refresh() {
    let authority = Authority::new();
    let (upstream, port) = Http2Upstream::start(Some(authority.for_name("localhost", &["h2"]))).await;
    let config = format!("server.workers = 2\n{}", authority.trusted());
    let rig = Arc::new(Rig::before(&format!("https://localhost:{port}"), &config).await);
    assert_eq!(rig.get("/v1.0/first").await.status(), 200);
    {
        let mut log = upstream.log();
        let (head, _) = log.requests.remove(0);
        log.refused.push(head.headers["authorization"].to_str().unwrap().to_owned());
    }
    let posts: Vec<_> = (0..200_u8)
        .map(|number| {
            let rig = Arc::clone(&rig);
            spawn_here(async move { rig.send(post(&format!("/v1.0/{number}"), vec![number; 64 << 10])).await })
        })
        .collect();
    for post in posts {
        assert_eq!(within(post).await.unwrap().status(), 200);
    }
    assert_eq!(rig.token_requests().len(), 1);
    let log = upstream.log();
    for number in 0..200_u8 {
        let path = format!("/v1.0/{number}");
        let digest = sha256(&vec![number; 64 << 10]);
        let attempts: Vec<_> = log.requests.iter().filter(|(head, _)| head.uri.path() == path).collect();
        assert!((1..=2).contains(&attempts.len()), "{number}: {} attempts", attempts.len());
        assert!(attempts.iter().all(|(_, seen)| *seen == digest), "{number}: the body was changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_tls_by_prior_knowledge() {
    let (upstream, port) = Http2Upstream::start(None).await;
    let rig = Rig::before(&format!("http://127.0.0.1:{port}"), "upstreams.graph.http = \"2\"").await;
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(rig.send(alice(method, "/v1.0/me").body(full("x")).unwrap()).await.status(), 200);
    }
    let log = upstream.log();
    assert_eq!((log.connections, log.requests.len()), (1, 3));
    assert!(log.requests.iter().all(|(head, digest)| head.version == Version::HTTP_2 && *digest == sha256(b"x")));
}

/// The token goes to nobody who can't prove to be the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_proves_nothing_gets_nothing() {
    let authority = Authority::new();
    let mut expired = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let cases = [
        ("another authority", Authority::new().for_name("localhost", &["h2", "http/1.1"])),
        ("another name", authority.for_name("graph.evil.example", &["http/1.1"])),
        ("a name in front", authority.for_name("localhost.evil.example", &["http/1.1"])),
        ("expired", authority.acceptor(&expired, &["http/1.1"])),
    ];
    for (name, acceptor) in cases {
        let upstream = RawUpstream::with_tls(acceptor, |_, _| Play::ok()).await;
        let rig = Rig::before(&format!("https://localhost:{}", upstream.address.port()), &authority.trusted()).await;
        for request in [get("/v1.0/me"), post("/v1.0/me/sendMail", "{}")] {
            let answer = rig.send(request).await;
            assert_refused(&answer, 502, "upstream_unreachable");
            assert!(header(&answer, "bearerd-maybe-executed").is_none(), "{name}: nothing left");
        }
        assert!(upstream.bytes().iter().all(Vec::is_empty), "{name}");
        assert!(rig.token_requests().is_empty());
    }
    // No TLS at all.
    let upstream = RawUpstream::ok().await;
    let config = format!("{}\nupstreams.graph.connect_timeout = \"300ms\"", authority.trusted());
    let rig = Rig::before(&format!("https://localhost:{}", upstream.address.port()), &config).await;
    assert_refused(&rig.get("/v1.0/me").await, 502, "upstream_unreachable");
    assert!(upstream.bytes().iter().all(|bytes| !text(bytes).contains("Bearer")));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_long_idle_connections_are_not_used() {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let rig = Setup { clock, ..Setup::default() }.start().await;
    let mut ports = Vec::new();
    // In quick succession; after a minute's silence; and every half minute until the connection is older than five.
    for pause in [0, 1, 60, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30] {
        rig.clock.advance(Duration::from_secs(pause));
        assert_eq!(rig.get("/v1.0/me").await.status(), 200);
        ports.push(rig.seen().pop().unwrap().peer_port);
    }
    assert_eq!(ports[0], ports[1]);
    assert_ne!(ports[1], ports[2], "silent for a minute");
    assert_eq!(ports[2], ports[8], "used all the time");
    assert_ne!(ports[2], ports[13], "older than five minutes: the name may lead elsewhere by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_upstream_is_served_under_its_name_and_by_its_host() {
    let billing = RawUpstream::ok().await;
    let rig = Rig::with(&format!(
        "[upstreams.billing]\nurl = \"http://localhost:{}\"\nprovider = \"entra\"\nscopes = [\"User.Read\", \"Mail.ReadWrite\", \"Mail.Send\", \"Files.ReadWrite\"]",
        billing.address.port()
    ))
    .await;
    assert_eq!(rig.get("/billing/items/1?x=%20").await.status(), 200);
    assert_eq!(rig.get("/as/alice/billing/").await.status(), 200);
    assert!(rig.seen().is_empty(), "Graph had nothing to do with it");
    let starts: Vec<_> = billing.arrived().into_iter().map(|arrived| arrived.message.start).collect();
    assert_eq!(starts, ["GET /items/1?x=%20 HTTP/1.1", "GET / HTTP/1.1"]);
    assert_refused(&rig.get("/billing").await, 404, "not_found");
    assert_refused(&rig.get("/billingx/items").await, 404, "not_found");
    let mut by_its_host = get("/items/1");
    by_its_host.headers_mut().insert("host", HeaderValue::from_static("localhost"));
    assert_eq!(rig.send(by_its_host).await.status(), 200);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!((rig.seen().len(), billing.arrived().len()), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_on_our_own_host_is_served_under_its_name_only() {
    let billing = RawUpstream::ok().await;
    let rig = Rig::with(&format!(
        "[upstreams.billing]\nurl = \"{}\"\nprovider = \"entra\"\nscopes = [\"User.Read\"]",
        billing.origin()
    ))
    .await;
    for path in ["/items/1", "/me", "/favicon.ico", "/as/alice/me"] {
        assert_refused(&rig.get(path).await, 404, "not_found");
    }
    assert!(billing.arrived().is_empty() && rig.seen().is_empty());
}

/// An HTTP/2 upstream in frames of our own: what it does to the first stream of all is the test's, every later one is answered 200.
struct Frames {
    port: u16,
    /// (connection, stream) of each head.
    heads: Arc<Mutex<Vec<(usize, u32)>>>,
}

impl Frames {
    /// `first` is sent instead of an answer; `{S}` stands for four bytes of the stream's number.
    async fn start(first: impl Fn(u32) -> Vec<u8> + Send + Sync + Clone + 'static, closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<(usize, u32)>>> = Arc::default();
        let log = Arc::clone(&heads);
        spawn_here(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                spawn_here(converse(stream, number, Arc::clone(&log), first.clone(), closes));
                number += 1;
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> Vec<(usize, u32)> {
        self.heads.lock().unwrap().clone()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    heads: Arc<Mutex<Vec<(usize, u32)>>>,
    first: impl Fn(u32) -> Vec<u8>,
    closes: bool,
) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).await.is_err() || stream.write_all(&frame(4, 0, 0, &[])).await.is_err() {
        return;
    }
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        let reply = match (head[3], head[4]) {
            // SETTINGS and PING are acknowledged.
            (4, 0) => frame(4, 1, 0, &[]),
            (6, 0) => frame(6, 1, 0, &payload),
            (1, _) => {
                let is_first = {
                    let mut heads = heads.lock().unwrap();
                    heads.push((connection, id));
                    heads.len() == 1
                };
                if is_first {
                    let _ = stream.write_all(&first(id)).await;
                    if closes {
                        return;
                    }
                    continue;
                }
                // `:status: 200`, and the end.
                frame(1, 5, id, &[0x88])
            }
            _ => continue,
        };
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}

/// RFC 9113, 8.7: a stream that was refused, and one past the last of a GOAWAY, were not processed: even a POST goes out again.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_was_provably_not_processed_goes_out_again() {
    let refused = |id: u32| frame(3, 0, id, &[0, 0, 0, 7]);
    let goaway = |_| frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0]);
    for (name, upstream) in
        [("REFUSED_STREAM", Frames::start(refused, false).await), ("GOAWAY", Frames::start(goaway, false).await)]
    {
        let rig = Rig::before(&format!("http://127.0.0.1:{}", upstream.port), "upstreams.graph.http = \"2\"").await;
        let answer = rig.send(post("/v1.0/me/sendMail", vec![1; 10_000])).await;
        assert_eq!(answer.status(), 200, "{name}: {answer:?}");
        assert_eq!(upstream.heads().len(), 2, "{name}: {:?}", upstream.heads());
        assert!(rig.token_requests().is_empty());
    }
}

/// Everything else that ends a stream proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_stream_ends_otherwise_is_not_repeated() {
    let cancelled = |id: u32| frame(3, 0, id, &[0, 0, 0, 8]);
    let internal = |id: u32| frame(3, 0, id, &[0, 0, 0, 2]);
    let going = |id: u32| frame(7, 0, 0, &[id.to_be_bytes(), [0, 0, 0, 2]].concat());
    let nothing = |_: u32| Vec::new();
    for (name, upstream) in [
        ("CANCEL", Frames::start(cancelled, false).await),
        ("INTERNAL_ERROR", Frames::start(internal, false).await),
        ("GOAWAY with an error, the stream included", Frames::start(going, true).await),
        ("closed", Frames::start(nothing, true).await),
    ] {
        let rig = Rig::before(&format!("http://127.0.0.1:{}", upstream.port), "upstreams.graph.http = \"2\"").await;
        let answer = rig.send(post("/v1.0/me/sendMail", "{}")).await;
        assert_refused(&answer, 502, "upstream_unreachable");
        assert_eq!(header(&answer, "bearerd-maybe-executed"), Some("1"), "{name}");
        assert_eq!(upstream.heads().len(), 1, "{name}");
    }
}

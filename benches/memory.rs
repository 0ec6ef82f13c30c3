//! What large files cost in memory: the peak of this process (client, proxy and upstream together) while hundreds of megabytes pass, over what it
//! was before. None of the three keeps what it reads.

mod fixture;
#[path = "fixture/upstream.rs"]
mod upstream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bearerd::app::App;
use bearerd::clock::Clock;
use bearerd::config::Listen;
use bearerd::tasks::{Tasks, spawn_here};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHUNK: Bytes = Bytes::from_static(&[b' '; 64 << 10]);
/// The most that the peak may grow, in MiB.
const LIMIT: u64 = 32;

/// What is sent: spaces, which are JSON as far as they go.
struct Spaces {
    left: u64,
    says_its_length: bool,
}

fn main() {
    // `cargo bench` says `--bench`; everything else, `cargo bench -- --test` too, wants to know that it runs.
    let arguments: Vec<String> = std::env::args().collect();
    let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
    let bytes: u64 = if measures { 500_000_000 } else { 5_000_000 };

    let slow = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let store = tempfile::tempdir().expect("a directory");
    let upstream = upstream::start(large);
    let config = fixture::config(store.path(), &format!("http://{upstream}"));
    let app = slow.block_on(async {
        let app = App::start(&config, Clock::system(), Tasks::on(slow.handle().clone())).await.expect("it starts");
        fixture::sign_in_everyone(&app.core()).await;
        app
    });
    let [Listen::Tcp(proxy)] = *app.data_addresses() else { panic!("one TCP address was configured") };
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pass = |method: Method, path: &str, bytes| {
        assert_eq!(client.block_on(passed(proxy, method, path, bytes)), bytes, "all of it");
    };

    println!("{} MB through the proxy       peak of memory, MiB: before    meanwhile    grown", bytes / 1_000_000);
    for (what, method, path) in [
        ("a download", Method::GET, "/v1.0/me/drive/root:/large.bin:/content"),
        ("JSON whose links are rewritten", Method::GET, "/v1.0/me/messages"),
        ("an upload", Method::PUT, "/v1.0/me/drive/root:/large.bin:/content"),
    ] {
        pass(method.clone(), &format!("{path}?1000000"), 1_000_000);
        let before = peak_since_now();
        pass(method, &format!("{path}?{bytes}"), bytes);
        let meanwhile = peak();
        let grown = meanwhile.saturating_sub(before);
        println!("{what:<30} {before:>33} {meanwhile:>12} {grown:>8}");
        assert!(grown < LIMIT, "{what}: grown by {grown} MiB, at most {LIMIT}");
    }
    slow.block_on(app.drain());
}

/// Bytes that arrived: here for a GET, at the upstream for a PUT.
async fn passed(proxy: SocketAddr, method: Method, path: &str, bytes: u64) -> u64 {
    let stream = TcpStream::connect(proxy).await.expect("it listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = spawn_here(connection);
    let uploads = method == Method::PUT;
    let body = Spaces { left: if uploads { bytes } else { 0 }, says_its_length: true };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("it is a path");
    *request.headers_mut() = fixture::request_headers(0);
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), http::StatusCode::OK);
    let counted = answer.headers().get("x-received").map(|count| count.to_str().expect("a number").parse());
    let arrived = swallow(answer.into_body()).await;
    drop(sender);
    drop(connection.await);
    counted.transpose().expect("a number").filter(|_| uploads).unwrap_or(arrived)
}

async fn large(request: Request<Incoming>) -> Response<Spaces> {
    let path = request.uri().path().to_owned();
    let length = request.uri().query().unwrap_or_default().parse().expect("a number of bytes");
    if request.method() == Method::PUT {
        let received = swallow(request.into_body()).await;
        let mut answer = upstream::said(Spaces { left: 0, says_its_length: true });
        answer.headers_mut().insert("x-received", received.into());
        return answer;
    }
    let mut answer = upstream::said(Spaces { left: length, says_its_length: path.ends_with("content") });
    if path.ends_with("content") {
        answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/octet-stream"));
    }
    answer
}

async fn swallow(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("it does not break off").into_data().map_or(0, |data| data.len() as u64);
    }
    bytes
}

impl Body for Spaces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.min(CHUNK.len() as u64);
        self.left -= length;
        let piece = CHUNK.slice(..usize::try_from(length).expect("no longer than a chunk"));
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.says_its_length { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

/// Forgets the peak; what it is now, in MiB. Zero where there is no Linux to ask.
fn peak_since_now() -> u64 {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
    peak()
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}

//! Bodies flow: what came goes on at once, a slow side slows the other, an end that is no end is passed on as such.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::{Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

const LARGE: usize = 64 << 20;
/// More than all sockets and buffers on the way hold together, and less than `LARGE`.
const IN_FLIGHT: usize = 40 << 20;
/// A write that takes longer than this waits for the other side to read.
const BLOCKED: Duration = Duration::from_millis(500);

/// A body that a test writes piece by piece: it ends with the sender, and breaks off with an error.
struct Dripping(mpsc::Receiver<io::Result<Bytes>>);

impl Dripping {
    fn start() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver).boxed())
    }
}

impl hyper::body::Body for Dripping {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// The next bytes; `None` at the end.
async fn next(answer: &mut Response<Incoming>) -> Option<Bytes> {
    loop {
        let frame = within(answer.frame()).await?.expect("a whole body");
        let data = frame.into_data().expect("no trailers");
        // HTTP/2 may end with a frame of nothing.
        if !data.is_empty() {
            return Some(data);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_download_passes_whole_over_every_protocol() {
    let rig = Rig::start().await;
    for path in ["/v1.0/stream?bytes=67108864&chunk=65536", "/v1.0/stream?bytes=67108864&chunk=65536&sized=1"] {
        let answer = within(rig.http1().await.send_request(get(path))).await.unwrap();
        let sized = header(&answer, "content-length").map(|length| length.parse::<usize>().unwrap());
        assert_eq!(sized, path.ends_with("sized=1").then_some(LARGE));
        assert_eq!(count(answer).await, LARGE);
        let mut http2 = rig.http2().await;
        let answer = within(http2.send_request(for_http2(get(path), rig.data))).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(count(answer).await, LARGE);
    }
    assert_eq!(rig.seen().len(), 4);
}

/// The length of a body of nothing but `b`.
async fn count(mut answer: Response<Incoming>) -> usize {
    let mut count = 0;
    while let Some(data) = next(&mut answer).await {
        assert!(data.iter().all(|byte| *byte == b'b'));
        count += data.len();
    }
    count
}

/// Each event is read before the next one is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_next_one_is_said() {
    let rig = Rig::start().await;
    let mut answer = within(rig.http1().await.send_request(get("/v1.0/sse"))).await.unwrap();
    let mut http2 = rig.http2().await;
    let mut second = within(http2.send_request(for_http2(get("/v1.0/sse"), rig.data))).await.unwrap();
    for number in 0..10 {
        assert_eq!(rig.graph().say(&format!("event {number}")), 2);
        for answer in [&mut answer, &mut second] {
            let expected = format!("data: event {number}\n\n");
            let mut said = Vec::new();
            while said.len() < expected.len() {
                said.extend_from_slice(&next(answer).await.expect("it goes on"));
            }
            assert_eq!(text(said), expected);
        }
    }
    rig.graph().hang_up();
    assert!(next(&mut answer).await.is_none() && next(&mut second).await.is_none());
}

/// No total time-out: a stream may last longer than every limit, as long as something comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goes_on_is_not_cut() {
    let rig = Rig::with("[upstreams.graph]\ntimeout = \"400ms\"\nidle_timeout = \"400ms\"").await;
    let answer = rig.get("/v1.0/sse?count=8&interval=150").await;
    assert_eq!(text(answer.body()).matches("data: tick").count(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_falls_silent_is_cut_and_does_not_look_whole() {
    let rig = Rig::with("upstreams.graph.idle_timeout = \"300ms\"").await;
    let mut answer = within(rig.http1().await.send_request(get("/v1.0/sse"))).await.unwrap();
    rig.graph().say("one");
    assert_eq!(text(next(&mut answer).await.unwrap()), "data: one\n\n");
    assert!(within(answer.frame()).await.expect("no end").is_err());
}

/// The end of the connection is the only end that such an answer has.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_ends_in_a_reset_for_clients_of_http_1_0() {
    for (content_type, whole) in [("text/plain", false), ("application/json", false), ("text/plain", true)] {
        let end = if whole { "0\r\n\r\n" } else { "no size\r\n" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let play = Play::SayAndClose(format!("{head}5\r\n{{\"a\":\r\n{end}").into_bytes());
        let upstream = RawUpstream::start(move |_, _| play.clone()).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        let mut socket = TcpStream::connect(rig.data).await.unwrap();
        let request = format!("GET /v1.0/me HTTP/1.0\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY));
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let ended = within(socket.read_to_end(&mut read)).await;
        assert_eq!(ended.is_ok(), whole, "{content_type}: {ended:?} after {}", String::from_utf8_lossy(&read));
    }
}

/// An upstream that writes as much as it can; tells how much that was when a write blocks, and when it has written all.
async fn gushing() -> (String, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (report, reports) = mpsc::unbounded_channel();
    spawn_here(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 16 * 1024];
        let _ = stream.read(&mut head).await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes()).await.unwrap();
        let piece = vec![b'b'; 64 << 10];
        let mut written = 0;
        while written < LARGE {
            match tokio::time::timeout(BLOCKED, stream.write(&piece)).await {
                Ok(count) => written += count.unwrap_or(LARGE),
                Err(_) => drop(report.send(written)),
            }
        }
        let _ = report.send(written);
    });
    (origin, reports)
}

/// A slow client slows the upstream; nothing is piled up in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_upstream() {
    for http2 in [false, true] {
        let (origin, mut reports) = gushing().await;
        let rig = Rig::before(&origin, "").await;
        let mut answer = if http2 {
            within(rig.http2().await.send_request(for_http2(get("/v1.0/x"), rig.data))).await.unwrap()
        } else {
            within(rig.http1().await.send_request(get("/v1.0/x"))).await.unwrap()
        };
        let first = next(&mut answer).await.unwrap().len();
        let written = within(reports.recv()).await.unwrap();
        assert!(written < IN_FLIGHT, "{written} bytes were taken for a client that reads nothing");
        assert_eq!(first + count(answer).await, LARGE);
    }
}

/// A slow upstream slows the client, though the first of the body is kept for a replay.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let upstream = RawUpstream::early("", |_, _| Play::Silence).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let (sender, body) = Dripping::start();
    let mut client = rig.http1().await;
    let request = alice("PUT", "/v1.0/me/x").body(body).unwrap();
    let asked = spawn_here(async move { client.send_request(request).await });
    let piece = Bytes::from(vec![1; 1 << 20]);
    let mut written = 0;
    while tokio::time::timeout(BLOCKED, sender.send(Ok(piece.clone()))).await.is_ok() {
        written += piece.len();
        assert!(written < IN_FLIGHT, "{written} bytes were taken for an upstream that reads nothing");
    }
    asked.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_reaches_the_upstream_before_it_ends() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for http2 in [false, true] {
        let before: usize = upstream.bytes().iter().map(Vec::len).sum();
        let (sender, body) = Dripping::start();
        let request = alice("PUT", "/v1.0/me/x").body(body).unwrap();
        let (mut first, mut second) = (rig.http1().await, rig.http2().await);
        let data = rig.data;
        let asked = spawn_here(async move {
            if http2 {
                whole(second.send_request(for_http2(request, data))).await
            } else {
                whole(first.send_request(request)).await
            }
        });
        for number in 1..=5 {
            sender.send(Ok(Bytes::from(vec![1; 100_000]))).await.unwrap();
            upstream.until_bytes(before + number * 100_000).await;
        }
        drop(sender);
        assert_eq!(within(asked).await.unwrap().status(), 200);
        assert_eq!(upstream.arrived().pop().unwrap().message.body.len(), 500_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_passes_whole_over_every_protocol() {
    let rig = Rig::start().await;
    let pieces: Vec<Bytes> = (0..64_u8).map(|number| Bytes::from(vec![number; 1 << 20])).collect();
    let whole_body = pieces.concat();
    let digest = sha256(&whole_body);
    for (http2, sized) in [(false, true), (false, false), (true, true), (true, false)] {
        let (sender, dripping) = Dripping::start();
        let body = if sized { full(whole_body.clone()) } else { dripping };
        let request = alice("PUT", "/v1.0/echo").body(body).unwrap();
        let send = async { if http2 { rig.send_http2(request).await } else { rig.send(request).await } };
        let feed = async {
            for piece in pieces.iter().filter(|_| !sized) {
                sender.send(Ok(piece.clone())).await.unwrap();
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(send, feed);
        assert_eq!(answer.status(), 200);
        let seen = rig.seen_one();
        assert_eq!(
            (seen.body_len, seen.body_sha256.as_str(), seen.body_complete),
            (LARGE as u64, digest.as_str(), true)
        );
        assert_eq!(seen.header("content-length").len(), usize::from(sized), "{seen:?}");
        rig.graph().clear();
    }
}

/// A client that breaks off in its body: the upstream must not take what came for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_never_looks_whole_to_the_upstream() {
    for http2 in [false, true] {
        let upstream = RawUpstream::ok().await;
        let rig = Rig::before(&upstream.origin(), "").await;
        let (sender, body) = Dripping::start();
        let request = alice("POST", "/v1.0/me/x").body(body).unwrap();
        let (mut first, mut second) = (rig.http1().await, rig.http2().await);
        let data = rig.data;
        let asked = spawn_here(async move {
            if http2 { second.send_request(for_http2(request, data)).await } else { first.send_request(request).await }
        });
        sender.send(Ok(Bytes::from(vec![1; 100_000]))).await.unwrap();
        upstream.until_bytes(100_000).await;
        sender.send(Err(io::Error::other("broken"))).await.unwrap();
        assert!(within(asked).await.unwrap().is_err());
        upstream.until_idle().await;
        assert!(upstream.arrived().is_empty(), "{:#?}", upstream.arrived());
        assert!(!upstream.bytes()[0].ends_with(b"0\r\n\r\n"));
    }
    // With a length that is not reached.
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut wire = rig.wire().await;
    wire.send(format!(
        "POST /v1.0/me/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nContent-Length: 1000\r\n\r\nhalf",
        basic("alice", KEY)
    ))
    .await;
    upstream.until_bytes(1).await;
    drop(wire);
    upstream.until_idle().await;
    assert!(upstream.arrived().is_empty());
}

/// A client that stops in the middle of its body does not keep its place for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_falls_silent_is_given_up() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "upstreams.graph.timeout = \"300ms\"").await;
    let mut wire = rig.wire().await;
    wire.send(format!(
        "POST /v1.0/me/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nContent-Length: 1000\r\n\r\nhalf",
        basic("alice", KEY)
    ))
    .await;
    let answer = wire.answer().await;
    assert!(matches!(answer.status(), 400 | 408 | 504), "{answer:?}");
    assert!(answer.header("bearerd-error").is_some());
    upstream.until_idle().await;
    assert!(upstream.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_moves_is_not_timed_out() {
    let rig = Rig::with("upstreams.graph.timeout = \"400ms\"").await;
    let (sender, body) = Dripping::start();
    let request = alice("PUT", "/v1.0/echo").body(body).unwrap();
    let feed = async {
        let mut tick = tokio::time::interval(Duration::from_millis(150));
        for _ in 0..8 {
            tick.tick().await;
            sender.send(Ok(Bytes::from_static(b"12345678"))).await.unwrap();
        }
        drop(sender);
    };
    let (answer, ()) = tokio::join!(rig.send(request), feed);
    assert_eq!(answer.status(), 200);
    assert_eq!(rig.seen_one().body_len, 64);
}

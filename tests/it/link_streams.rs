//! Bodies that are rewritten as they stream: what came goes on at once, memory is bounded, and what breaks off never looks whole.

use std::io::Write as _;
use std::time::Duration;

use bearerd::tasks::spawn_here;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::harness::*;
use crate::links::{SHORT, US, arrives, chunk, chunked, coded, sent, sized, upstream};
use crate::raw_upstream::{Play, RawUpstream};

/// More than all sockets and buffers on the way hold together, and less than `LARGE`.
const IN_FLIGHT: usize = 40 << 20;
const LARGE: usize = 64 << 20;
/// A write that takes longer than this waits for the other side to read.
const BLOCKED: Duration = Duration::from_millis(500);
/// What the rewriter holds back at most, until it knows.
const LINE: &str = "{\"number\":0000,\"text\":\"nothing to be held back in here, whatever follows it\"},\n";

/// An upstream for one request, whose answer a test writes piece by piece; it ends with the sender.
struct Staged {
    origin: String,
    pieces: mpsc::UnboundedSender<Vec<u8>>,
    /// The request has come.
    asked: oneshot::Receiver<()>,
    /// The proxy has closed its connection.
    gone: oneshot::Receiver<()>,
}

impl Staged {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (pieces, mut staged) = mpsc::unbounded_channel::<Vec<u8>>();
        let (arrived, asked) = oneshot::channel();
        let (left, gone) = oneshot::channel();
        spawn_here(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16 * 1024];
            let _ = stream.read(&mut request).await;
            let _ = arrived.send(());
            loop {
                let open = tokio::select! {
                    piece = staged.recv() => match piece {
                        // A write finds out too that the other side is gone.
                        Some(piece) => stream.write_all(&piece).await.is_ok(),
                        None => return,
                    },
                    read = stream.read(&mut request) => {
                        assert!(matches!(read, Ok(0) | Err(_)), "one request only");
                        false
                    }
                };
                if !open {
                    let _ = left.send(());
                    return;
                }
            }
        });
        Self { origin, pieces, asked, gone }
    }

    fn say(&self, bytes: impl Into<Vec<u8>>) {
        self.pieces.send(bytes.into()).unwrap();
    }
}

fn streaming_head(coding: &str) -> String {
    let coding = if coding == "identity" { String::new() } else { format!("Content-Encoding: {coding}\r\n") };
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{coding}Transfer-Encoding: chunked\r\n\r\n")
}

/// Everything until the end, and whether that was an end.
async fn collected(mut answer: Response<Incoming>) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(frame) = within(answer.frame()).await {
        match frame {
            Ok(frame) => body.extend_from_slice(&frame.into_data().expect("no trailers")),
            Err(_) => return (body, false),
        }
    }
    (body, true)
}

async fn ask(rig: &Rig, path: &str, http2: bool) -> Response<Incoming> {
    try_ask(rig, path, http2).await.unwrap()
}

async fn try_ask(rig: &Rig, path: &str, http2: bool) -> hyper::Result<Response<Incoming>> {
    if http2 {
        within(rig.http2().await.send_request(for_http2(get(path), rig.data))).await
    } else {
        within(rig.http1().await.send_request(get(path))).await
    }
}

/// A line, coded and flushed, is read before the next one is said.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_goes_on_at_once() {
    for (coding, http2) in [("identity", false), ("gzip", false), ("br", false), ("identity", true), ("gzip", true)] {
        let upstream = Staged::start().await;
        let rig = Rig::before(&upstream.origin, "").await;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
        let mut say = |line: &str| {
            let coded = match coding {
                "gzip" => {
                    gzip.write_all(line.as_bytes()).unwrap();
                    gzip.flush().unwrap();
                    std::mem::take(gzip.get_mut())
                }
                "br" => {
                    br.write_all(line.as_bytes()).unwrap();
                    br.flush().unwrap();
                    std::mem::take(br.get_mut())
                }
                _ => line.as_bytes().to_vec(),
            };
            upstream.say(chunk(&coded));
        };
        upstream.say(streaming_head(coding));
        let mut expected = "[".to_owned();
        say("[");
        let mut answer = ask(&rig, "/v1.0/me", http2).await;
        let mut body = String::new();
        for number in 0..20 {
            let line = LINE.replace("0000", &format!("{:04}", 1000 + number));
            say(&line);
            expected += &line;
            // All of it but perhaps the white space at its end.
            while body.len() + 3 < expected.len() {
                let frame = within(answer.frame()).await.unwrap().unwrap();
                body += &text(frame.into_data().unwrap());
                assert!(expected.starts_with(&body), "{body}");
            }
        }
        // Dropping the connection in the middle is no end.
        let Staged { pieces, .. } = upstream;
        drop(pieces);
        assert!(!collected(answer).await.1, "{coding}");
    }
}

/// A body of known length that comes slowly is not waited for, and its length is not promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_body_that_dribbles_is_not_waited_for() {
    let upstream = Staged::start().await;
    let rig = Rig::before(&upstream.origin, "").await;
    let body = sent(SHORT, &upstream.origin);
    let (first, second) = body.split_at(30);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    upstream.say(head + first);
    let answer = ask(&rig, "/v1.0/me", false).await;
    assert_eq!(header(&answer, "content-length"), None);
    upstream.say(second);
    assert_eq!(collected(answer).await, (arrives(SHORT, &upstream.origin, US).into_bytes(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_falls_silent_is_given_up() {
    for coding in ["identity", "gzip"] {
        let upstream = Staged::start().await;
        let rig = Rig::before(&upstream.origin, "upstreams.graph.idle_timeout = \"300ms\"").await;
        upstream.say(streaming_head(coding));
        let whole = coded(coding, sent(SHORT, &upstream.origin).as_bytes());
        upstream.say(chunk(&whole[..whole.len() - 9]));
        let answer = ask(&rig, "/v1.0/me", false).await;
        assert!(!collected(answer).await.1, "{coding}");
        within(upstream.gone).await.unwrap();
    }
}

/// A client that goes away takes its request at the upstream with it; that is no reason for a refresh or for another try.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_the_request_upstream() {
    for coding in ["identity", "gzip", "br", "deflate"] {
        for http2 in [false, true] {
            let upstream = Staged::start().await;
            let rig = Rig::before(&upstream.origin, "").await;
            upstream.say(streaming_head(coding));
            let noise: Vec<u8> =
                (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).collect();
            let whole = coded(coding, &[b"{\"value\":[", &noise[..]].concat());
            upstream.say(chunk(&whole[..whole.len() / 2]));
            let mut answer = ask(&rig, "/v1.0/me", http2).await;
            let first = within(answer.frame()).await.unwrap().unwrap();
            assert!(first.into_data().unwrap().starts_with(b"{\"value\":["), "{coding}");
            drop(answer);
            within(upstream.gone).await.unwrap();
            assert!(rig.token_requests().is_empty());
        }
    }
    // While the head of a coded answer waits for its first piece.
    let upstream = Staged::start().await;
    let rig = Rig::before(&upstream.origin, "").await;
    upstream.say(streaming_head("gzip"));
    let mut client = rig.http1().await;
    let asked = spawn_here(async move { client.send_request(get("/v1.0/me")).await.map(drop) });
    upstream.say(chunk(b"\x1f"));
    within(upstream.asked).await.unwrap();
    asked.abort();
    within(upstream.gone).await.unwrap();
    assert!(rig.token_requests().is_empty());
}

/// What is no JSON, or no end of it, passes as it is: whoever asked sees what the upstream said.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json() {
    let long = format!("{{\"value\":\"{}\",\"@odata.nextLink\":\"LINK/v1.0/x\"}}", "\\\"é".repeat(300_000));
    let deep = format!("{}\"@odata.nextLink\":\"LINK/x\"{}", "[{\"a\":".repeat(5_000), "}]".repeat(5_000));
    let bodies = [
        "{\"value\":[{\"subject\":\"SELF/v1.0".to_owned(),
        "{\"@odata.nextLink\":\"LINK/v1.0/x\",\"value\":[{\"sub".to_owned(),
        "not json at all SELF/v1.0".to_owned(),
        "}}}]]]\"\"\"::: SELF".to_owned(),
        "\u{feff}{\"a\":\"SELF/v1.0\"}".to_owned(),
        "\0\0\0\0".to_owned(),
        long.clone(),
        deep,
    ];
    let served = bodies.clone();
    let upstream = upstream(move |origin, target| {
        let query = target.split_once('?').unwrap().1;
        let (number, coding) = query.split_once('&').unwrap();
        let body = sent(&served[number.parse::<usize>().unwrap()], origin);
        chunked(coding, "", coded(coding, body.as_bytes()).chunks(10_000))
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for (number, body) in bodies.iter().enumerate() {
        for coding in ["identity", "gzip", "br"] {
            let answer = rig.get(&format!("/v1.0/me?{number}&{coding}")).await;
            let answer = text(answer.body());
            // A link is either as it was or as it should be.
            let (was, rewritten) = (sent(body, &upstream.origin()), arrives(body, &upstream.origin(), US));
            assert!(answer == rewritten || number == 7 && answer == was, "{number} {coding}");
        }
    }
}

/// An upstream that stops before the end that it promised: the client must not take what came for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_ends_early_never_looks_whole() {
    let upstream = RawUpstream::start(|arrived, _| {
        let origin = format!("http://{}", arrived.message.header("host").unwrap());
        let target = arrived.message.start.split(' ').nth(1).unwrap();
        let coding = target.rsplit('?').next().unwrap();
        let page = if target.contains("large") {
            SHORT.replace("[\"SELF\"]", &format!("[\"{}\"]", "x".repeat(200_000)))
        } else {
            SHORT.to_owned()
        };
        let body = coded(coding, sent(&page, &origin).as_bytes());
        let mut answer =
            if target.contains("chunked") { chunked(coding, "", [&body[..]]) } else { sized(coding, "", &body) };
        answer.truncate(answer.len() - 8);
        Play::SayAndClose(answer)
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for path in ["short", "large", "short-chunked", "large-chunked"] {
        for coding in ["identity", "gzip", "br", "deflate"] {
            for http2 in [false, true] {
                // It may break off before its head has left.
                if let Ok(answer) = try_ask(&rig, &format!("/v1.0/{path}?{coding}"), http2).await {
                    assert_eq!(answer.status(), 200);
                    assert!(!collected(answer).await.1, "{path} {coding} {http2}");
                }
            }
        }
    }
    // The oldest clients know by the length, where there is one.
    let request = format!(
        "GET /v1.0/short?identity HTTP/1.0\r\nAuthorization: {}\r\nHost: 127.0.0.1\r\n\r\n",
        basic("alice", KEY)
    );
    let rest = rig.exchange(request).await;
    assert!(Message::parse(&rest, false).is_none(), "{}", text(rest));
    assert!(rig.token_requests().is_empty());
}

/// Coded bodies that can't be decoded: as they were if that shows at once, broken off if it shows later.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_decoded() {
    let upstream = upstream(|origin, target| {
        let (place, coding) = target.rsplit('/').next().unwrap().split_once('?').unwrap();
        let noise: String = (0..50_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_string()).collect();
        let page = sent(SHORT, origin).replace("\"value\"", &format!("\"noise\":\"{noise}\",\"value\""));
        let mut body = coded(coding, page.as_bytes());
        let length = body.len();
        match place {
            "none" => body = page.into_bytes(),
            "start" => body[0] = 0xff,
            "middle" => body[length / 2..length / 2 + 50].fill(0xaa),
            "cut" => body.truncate(length - 5),
            "trailing" => body.extend_from_slice(b"garbage"),
            "empty" => body.clear(),
            _ => {}
        }
        sized(coding, "ETag: \"1\"\r\n", &body)
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for coding in ["gzip", "br", "deflate"] {
        for place in ["whole", "none", "start", "middle", "cut", "trailing", "empty"] {
            let answer = ask(&rig, &format!("/v1.0/{place}?{coding}"), false).await;
            let kept = header(&answer, "content-encoding").is_some();
            let length = header(&answer, "content-length").map(str::to_owned);
            let (body, whole) = collected(answer).await;
            assert_eq!(kept, matches!(place, "none" | "start" | "empty"), "{coding} {place}");
            if kept {
                assert!(whole && length == Some(body.len().to_string()), "{coding} {place}");
            } else {
                assert!(length.is_none());
                assert!(body.starts_with(format!("{{\"@odata.nextLink\":\"{US}/v1.0/me?$skip=1\"").as_bytes()));
                assert_eq!(whole, place == "whole", "{coding} {place}");
            }
        }
    }
}

/// Two hundred megabytes out of two hundred kilobytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_swells_streams_through() {
    const MEMBER: usize = 1 << 20;
    let zeros = vec![b'0'; MEMBER];
    let member = coded("gzip", &zeros);
    let body = [coded("gzip", b"{\"value\":\""), member.repeat(200), coded("gzip", b"\"}")].concat();
    assert!(body.len() < 1 << 20);
    let upstream = upstream(move |_, _| sized("gzip", "", &body)).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut answer = ask(&rig, "/v1.0/me", false).await;
    let mut length = 0;
    while let Some(frame) = within(answer.frame()).await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= 1 << 20, "a piece of {} bytes", data.len());
        length += data.len();
    }
    assert_eq!(length, 200 * MEMBER + 12);
}

/// A client that reads nothing stops the upstream, however much its body would swell.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_decoding() {
    for http2 in [false, true] {
        let member = coded("gzip", &vec![b'0'; 1 << 20]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (report, mut reports) = mpsc::unbounded_channel();
        spawn_here(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16 * 1024];
            let _ = stream.read(&mut request).await;
            stream.write_all(streaming_head("gzip").as_bytes()).await.unwrap();
            stream.write_all(&chunk(&coded("gzip", b"{\"value\":\""))).await.unwrap();
            let piece = chunk(&member.repeat(64));
            let mut written = 0;
            while written < LARGE {
                match tokio::time::timeout(BLOCKED, stream.write_all(&piece)).await {
                    Ok(Ok(())) => written += piece.len(),
                    _ => break,
                }
            }
            let _ = report.send(written);
        });
        let rig = Rig::before(&origin, "").await;
        let mut answer = ask(&rig, "/v1.0/me", http2).await;
        within(answer.frame()).await.unwrap().unwrap();
        let written = within(reports.recv()).await.unwrap();
        assert!(written < IN_FLIGHT, "{written} bytes were taken for a client that reads nothing");
    }
}

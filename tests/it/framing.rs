//! Framing and smuggling: never more requests at the upstream than the client completed, never an answer spliced from two.
//!
//! The vectors are those that broke other proxies. Some of them the HTTP library answers before any code of ours runs: such an answer
//! carries no `Bearerd-Error`, and may have another 4xx or 5xx status.

use std::collections::HashSet;

use bearerd::tasks::spawn_here;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

/// `|` is a line end, `H` our name, `A` Alice's credential.
fn spell(vector: &str) -> String {
    vector.replace("Host: H", &format!("Host: 127.0.0.1|Authorization: {}", basic("alice", KEY))).replace('|', "\r\n")
}

/// All answers of a connection that the proxy closes.
async fn answers(rig: &Rig, bytes: impl AsRef<[u8]>) -> Vec<Message> {
    let mut rest = rig.exchange(bytes).await;
    let mut answers = Vec::new();
    while let Some((answer, taken)) = Message::parse(&rest, false) {
        rest.drain(..taken);
        answers.push(answer);
    }
    assert!(rest.is_empty(), "half an answer: {}", text(&rest));
    answers
}

/// Sends the vector, expects one refusal and a close, and nothing at the upstream.
async fn refused(rig: &Rig, upstream: &RawUpstream, vector: &str) {
    refused_bytes(rig, upstream, spell(vector).as_bytes(), vector).await;
}

async fn refused_bytes(rig: &Rig, upstream: &RawUpstream, bytes: &[u8], shown: &str) {
    let answers = answers(rig, bytes).await;
    assert!(answers.len() <= 1, "{shown}: {answers:?}");
    if let Some(answer) = answers.first() {
        assert!((400..600).contains(&answer.status()), "{shown}: {answer:?}");
    }
    let arrived = upstream.arrived();
    assert!(arrived.is_empty(), "{shown} reached the upstream: {arrived:#?}");
}

async fn before_ok() -> (RawUpstream, Rig) {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    (upstream, rig)
}

const SECOND: &str = "GET /v1.0/smuggled HTTP/1.1|Host: H||";

/// T201, A01, A02: two lengths that disagree. RUSTSEC-2021-0078, RUSTSEC-2021-0079.
#[tokio::test(flavor = "multi_thread")]
async fn content_length_beside_transfer_encoding_never_makes_two_requests() {
    for vector in [
        "POST /v1.0/me HTTP/1.1|Host: H|Content-Length: 6|Transfer-Encoding: chunked||0||G",
        "POST /v1.0/me HTTP/1.1|Host: H|Transfer-Encoding: chunked|Content-Length: 6||0||G",
        "POST /v1.0/me HTTP/1.1|Host: H|Content-Length: 4|Transfer-Encoding: chunked||5c||GET /v1.0/smuggled HTTP/1.1|Host: H||0||",
    ] {
        let (upstream, rig) = before_ok().await;
        let answers = answers(&rig, spell(&format!("{vector}{SECOND}"))).await;
        assert!(answers.len() <= 1, "{vector}: {answers:?}");
        let arrived = upstream.arrived();
        assert!(arrived.len() <= 1, "{vector}: {arrived:#?}");
        assert!(arrived.iter().all(|arrived| !text(&arrived.raw).contains("smuggled")), "{vector}: {arrived:#?}");
    }
}

/// A02: what some servers take for Transfer-Encoding and others do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_encoding_in_disguise_is_refused() {
    let (upstream, rig) = before_ok().await;
    for header in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: ",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding: \"chunked\"",
    ] {
        refused(&rig, &upstream, &format!("POST /v1.0/me HTTP/1.1|Host: H|Content-Length: 6|{header}||0||G{SECOND}"))
            .await;
        refused(&rig, &upstream, &format!("POST /v1.0/me HTTP/1.1|Host: H|{header}||0||{SECOND}")).await;
    }
}

/// T203: CVE-2026-2835. Any list of codings but `chunked` alone.
#[tokio::test(flavor = "multi_thread")]
async fn only_chunked_alone_is_a_transfer_encoding() {
    let (upstream, rig) = before_ok().await;
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "chunked;q=1",
        "chunked, identity",
        "chunked,",
        ", chunked",
        "identity, chunked",
        "chunked\x0b",
        "\x0bchunked",
        "chunked\0",
        "chunked|Transfer-Encoding: chunked",
        "gzip|Transfer-Encoding: chunked",
        "chunked|Transfer-Encoding: identity",
    ] {
        refused(&rig, &upstream, &format!("POST /v1.0/me HTTP/1.1|Host: H|Transfer-Encoding: {coding}||0||{SECOND}"))
            .await;
    }
    // Before any other refusal, and for the pages too: the connection ends.
    for vector in [
        "POST /v1.0/me HTTP/1.1|Host: evil",
        "POST /v1.0/me HTTP/1.1|Host: 127.0.0.1",
        "POST /.bearerd/ HTTP/1.1|Host: H",
    ] {
        refused(&rig, &upstream, &format!("{vector}|Transfer-Encoding: gzip, chunked||0||{SECOND}")).await;
    }
    for coding in ["chunked", "CHUNKED", "\tchunked", "chunked\t ", "  Chunked"] {
        let before = upstream.arrived().len();
        let mut wire = rig.wire().await;
        wire.send(spell(&format!("POST /v1.0/me HTTP/1.1|Host: H|Transfer-Encoding: {coding}||1|a|0||"))).await;
        assert_eq!(wire.answer().await.status(), 200, "{coding:?}");
        assert_eq!(upstream.arrived()[before].message.body, b"a");
    }
}

/// T203, A06: HTTP/1.0 has no Transfer-Encoding, and there are no other versions.
#[tokio::test(flavor = "multi_thread")]
async fn odd_versions_and_request_lines_are_refused() {
    let (upstream, rig) = before_ok().await;
    for vector in [
        "GET /v1.0/me HTTP/1.0|Host: H|Transfer-Encoding: chunked||0||",
        "POST /v1.0/me HTTP/1.0|Host: H|Transfer-Encoding: chunked|Content-Length: 3||0||",
        "GET /v1.0/me||",
        "GET /v1.0/me|Host: H||",
        "GET  /v1.0/me HTTP/1.1|Host: H||",
        "GET /v1.0/me  HTTP/1.1|Host: H||",
        "GET\t/v1.0/me\tHTTP/1.1|Host: H||",
        "GET /v1.0/me HTTP/1.2|Host: H||",
        "GET /v1.0/me HTTP/2.0|Host: H||",
        "GET /v1.0/me HTTP/3|Host: H||",
        "GET /v1.0/me http/1.1|Host: H||",
        "GET /v1.0/me HTTP/1.1 x|Host: H||",
        "G\0T /v1.0/me HTTP/1.1|Host: H||",
        "GET /v1.0/m e HTTP/1.1|Host: H||",
        "GET v1.0/me HTTP/1.1|Host: H||",
        " GET /v1.0/me HTTP/1.1|Host: H||",
        "\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03||",
    ] {
        refused(&rig, &upstream, vector).await;
    }
}

/// T205, A03: CVE-2023-40225, CVE-2023-25725.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_that_is_no_number_is_refused() {
    let (upstream, rig) = before_ok().await;
    for header in [
        "Content-Length:",
        "Content-Length: ",
        ": x",
        "Content-Length: +5",
        "Content-Length: 5,5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 0x5",
        "Content-Length: 5 6",
        "Content-Length: 5\x0b",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999",
        "Content-Length: -1",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: \u{665}",
        "Content-Length: 3|Content-Length: 4",
        "Content-Length: 3|Content-Length: ",
        "Content-Length : 5",
        "Content\0-Length: 5",
    ] {
        refused(&rig, &upstream, &format!("POST /v1.0/me HTTP/1.1|Host: H|{header}||hello{SECOND}")).await;
    }
    // Said twice and the same: one request, or none.
    let mut wire = rig.wire().await;
    wire.send(spell("POST /v1.0/me HTTP/1.1|Host: H|Content-Length: 3|Content-Length: 3||abc")).await;
    let answer = wire.answer().await;
    assert!(matches!(answer.status(), 200 | 400), "{answer:?}");
    assert!(
        upstream
            .arrived()
            .iter()
            .all(|arrived| arrived.message.body == b"abc" && arrived.message.all("content-length").len() == 1)
    );
}

/// A04: chunks that two readers would cut differently.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_none_end_the_request() {
    for chunks in [
        "0x3|abc|0||",
        "+3|abc|0||",
        "-3|abc|0||",
        "ffffffffffffffffff|abc|0||",
        "|abc|0||",
        "3|abcd|0||",
        "3|abc0||",
        "3\nabc\n0\n\n",
        "3|abc\n0||",
        "g|abc|0||",
        "3 3|abc|0||",
    ] {
        let (upstream, rig) = before_ok().await;
        let answers = answers(
            &rig,
            spell(&format!("POST /v1.0/me HTTP/1.1|Host: H|Transfer-Encoding: chunked||{chunks}{SECOND}")),
        )
        .await;
        assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.status() >= 400), "{chunks}: {answers:?}");
        upstream.until_idle().await;
        assert!(upstream.arrived().is_empty(), "{chunks}: {:#?}", upstream.arrived());
        assert!(upstream.bytes().iter().all(|bytes| !text(bytes).contains("smuggled")), "{chunks}");
    }
    // 20 KiB of extensions for nothing.
    let (upstream, rig) = before_ok().await;
    let long = format!(
        "POST /v1.0/me HTTP/1.1|Host: H|Transfer-Encoding: chunked||3;{}|abc|0||{SECOND}",
        "a".repeat(20 << 10)
    );
    let found = answers(&rig, spell(&long)).await;
    assert!(found.iter().all(|answer| answer.status() >= 400), "{found:?}");
    assert!(upstream.arrived().is_empty());
    // What is odd and clear is one request, and goes out in our own words.
    for chunks in ["3;a=b|abc|0||", "3 |abc|0||", "03|abc|00||", "3|abc|0|X: y||"] {
        let (upstream, rig) = before_ok().await;
        let mut wire = rig.wire().await;
        wire.send(spell(&format!("POST /v1.0/me HTTP/1.1|Host: H|Transfer-Encoding: chunked||{chunks}"))).await;
        let answer = wire.answer().await;
        if answer.status() == 200 {
            let arrived = upstream.arrived();
            assert_eq!(arrived.len(), 1);
            assert_eq!(arrived[0].message.body, b"abc", "{chunks}");
            assert!(!text(&arrived[0].raw).contains("a=b") && !text(&arrived[0].raw).contains("X: y"));
        } else {
            assert_eq!(answer.status(), 400, "{chunks}");
        }
    }
}

/// T207, A05: line ends and control characters. Refused, or one clean request.
#[tokio::test(flavor = "multi_thread")]
async fn no_line_end_of_the_client_gets_into_a_header_that_goes_out() {
    let (upstream, rig) = before_ok().await;
    let authorization = basic("alice", KEY);
    let head = format!("Host: 127.0.0.1\r\nAuthorization: {authorization}\r\n");
    for bytes in [
        "X: a\rb",
        "X: a\0b",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X\r: a",
        "X\n: a",
        "X y: a",
        "X: a\r",
        "X: a\x01b",
        "X: a\x7fb",
        "X\u{e9}: a",
        "X",
        "(: a",
        "X: a\r\rY: b",
    ] {
        refused(&rig, &upstream, &format!("GET /v1.0/me HTTP/1.1|Host: H|{bytes}||")).await;
    }
    let bare = format!("GET /v1.0/me HTTP/1.1\n{}\n", head.replace("\r\n", "\n"));
    let mixed = format!("GET /v1.0/me HTTP/1.1\r\n{head}X: a\nY: b\r\n\r\n");
    for request in [bare, mixed, format!("\r\n\r\nGET /v1.0/me HTTP/1.1\r\n{head}\r\n")] {
        let before = upstream.arrived().len();
        let mut wire = rig.wire().await;
        wire.send(&request).await;
        let answer = wire.answer().await;
        let arrived = upstream.arrived();
        if answer.status() == 200 {
            assert_eq!(arrived.len(), before + 1, "{request:?}");
            let raw = text(&arrived[before].raw);
            assert_eq!(raw.matches('\n').count(), raw.matches("\r\n").count(), "{raw:?}");
            assert_eq!(raw.matches('\r').count(), raw.matches("\r\n").count(), "{raw:?}");
        } else {
            assert_eq!(answer.status(), 400, "{request:?}");
            assert_eq!(arrived.len(), before);
        }
    }
    // High bytes are no control characters: they pass as they came.
    let before = upstream.arrived().len();
    let mut wire = rig.wire().await;
    wire.send([format!("GET /v1.0/me HTTP/1.1\r\n{head}X-Name: ").as_bytes(), b"M\xfcller\r\n\r\n"].concat()).await;
    if wire.answer().await.status() == 200 {
        assert!(upstream.arrived()[before].raw.windows(6).any(|six| six == b"M\xfcller"));
    }
}

/// T207: five thousand mutations of one request; whatever passes is one request that a strict reader understands the same way.
#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_mutations_never_split_or_merge_requests() {
    const COUNT: u32 = 5_000;
    let (upstream, rig) = before_ok().await;
    let authorization = basic("alice", KEY);
    let request = |number: u32| {
        format!(
            "POST /v1.0/me/{number:05}-{number:05}?y=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {authorization}\r\n\
             X-Note: some text\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n"
        )
    };
    let pieces: [&[u8]; 16] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"\t",
        b"\x0b",
        b":",
        b";",
        b",",
        b"0",
        b"\r\n\r\n",
        b"\r\n ",
        b"\xff",
        b"chunked",
        b"Content-Length: 1\r\n",
    ];
    // A fixed walk: the same every time.
    let mut state: u32 = 0x2545_f491;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    for number in 0..COUNT {
        let mut bytes = request(number).into_bytes();
        for _ in 0..=next(2) {
            let at = next(bytes.len());
            let piece = pieces[next(pieces.len())];
            match next(3) {
                0 => drop(bytes.splice(at..at, piece.iter().copied())),
                1 => drop(bytes.splice(at..=at, piece.iter().copied())),
                _ => drop(bytes.remove(at)),
            }
        }
        // The client sends no more: what is incomplete stays so.
        let mut stream = TcpStream::connect(rig.data).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
    }
    let arrived = upstream.arrived();
    assert!(arrived.len() > 100, "mutations so harsh that nothing passes prove nothing: {}", arrived.len());
    assert!(arrived.len() <= COUNT as usize);
    let mut numbers = HashSet::new();
    for arrived in &arrived {
        let raw = text(&arrived.raw);
        let head = raw.split("\r\n\r\n").next().unwrap();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{raw:?}");
        let message = &arrived.message;
        assert_eq!(message.all("host"), [upstream.address.to_string()], "{raw:?}");
        assert_eq!(message.all("authorization").len(), 1, "{raw:?}");
        assert!(!raw.contains(&authorization), "{raw:?}");
        let framings = message.all("content-length").len() + message.all("transfer-encoding").len();
        assert!(framings <= 1, "{raw:?}");
        // A number that was not mutated stands twice in its target.
        let number = message.start.split('/').nth(3).and_then(|rest| rest.get(..11)).unwrap_or_default();
        if number.get(..5) == number.get(6..) && !number.is_empty() {
            assert!(numbers.insert(number.to_owned()), "{number} came twice: {raw:?}");
        }
    }
    for bytes in upstream.bytes() {
        let mut rest = bytes.as_slice();
        while let Some((_, taken)) = Message::parse(rest, true) {
            rest = &rest[taken..];
        }
        // What is left is a request that the client broke off.
        assert!(text(rest).matches(" HTTP/1.1\r\n").count() <= 1, "{:?}", text(rest));
    }
}

/// T202, A07: CVE-2026-2833. Nothing is ever tunnelled.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_tunnels_nothing() {
    for (token, connection) in [
        ("websocket", "Upgrade"),
        ("foo", "upgrade"),
        ("h2c", "Upgrade, HTTP2-Settings"),
        ("tls/1.2", "close, upgrade"),
    ] {
        let (upstream, rig) = before_ok().await;
        // The second request comes without a credential: it is judged on its own.
        let mut wire = rig.wire().await;
        wire.send(format!(
            "{}GET /v1.0/users HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
            spell(&format!("GET /v1.0/me HTTP/1.1|Host: H|Upgrade: {token}|Connection: {connection}||"))
        ))
        .await;
        assert_eq!(wire.answer().await.status(), 200);
        let rest = wire.rest().await;
        if let Some((second, taken)) = Message::parse(&rest, false) {
            assert_eq!((second.status(), taken), (401, rest.len()), "{second:?}");
        }
        let arrived = upstream.arrived();
        assert_eq!(arrived.len(), 1, "{arrived:#?}");
        assert!(
            arrived[0].message.header("upgrade").is_none() && arrived[0].message.header("http2-settings").is_none()
        );
        assert_eq!(upstream.bytes(), [arrived[0].raw.clone()], "not a byte more");
    }
}

/// T202: an upstream that switches unasked has not answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_101_unasked_is_no_answer() {
    let upstream = RawUpstream::start(|_, _| Play::say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for number in 1..=2 {
        let answer = rig.get("/v1.0/me").await;
        assert_refused(&answer, 502, "upstream_unreachable");
        let arrived = upstream.arrived();
        assert_eq!(arrived.last().unwrap().connection + 1, arrived.len(), "the connection was used again");
        assert!(arrived.len() >= number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_judged_one_by_one() {
    let upstream = RawUpstream::start(|arrived, _| {
        let target = arrived.message.start.split(' ').nth(1).unwrap_or_default().to_owned();
        Play::say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()))
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut wire = rig.wire().await;
    wire.send(format!(
        "{}{}GET /v1.0/c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{}",
        spell("GET /v1.0/a HTTP/1.1|Host: H||"),
        spell("POST /v1.0/b HTTP/1.1|Host: H|Content-Length: 3||xyz"),
        spell("GET /v1.0/d HTTP/1.1|Host: H||"),
    ))
    .await;
    for (status, body) in [(200, "/v1.0/a"), (200, "/v1.0/b"), (401, ""), (200, "/v1.0/d")] {
        let answer = wire.answer().await;
        assert_eq!(answer.status(), status);
        assert!(status == 401 || answer.body == body.as_bytes(), "{answer:?}");
    }
    let starts: Vec<_> = upstream.arrived().into_iter().map(|arrived| arrived.message.start).collect();
    assert_eq!(starts, ["GET /v1.0/a HTTP/1.1", "POST /v1.0/b HTTP/1.1", "GET /v1.0/d HTTP/1.1"]);
}

/// T204, A08: CVE-2025-4366. What was meant as a body is never read as a request.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_leaves_no_body_behind() {
    let (upstream, rig) = before_ok().await;
    // Nobody's, and too large: both are answered before the body.
    let nobody = "POST /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n".to_owned();
    let mut wire = rig.wire().await;
    wire.send(&nobody).await;
    let answer = wire.answer().await;
    assert_refused(&answer.response(), 401, "client_unauthenticated");
    for _ in 0..2000 {
        wire.send(spell(SECOND)).await;
    }
    assert_eq!(text(wire.rest().await), "", "a second answer");
    assert!(upstream.arrived().is_empty());

    let rig = Rig::before(&upstream.origin(), "server.limits.body_bytes = 10").await;
    let mut wire = rig.wire().await;
    wire.send(spell("POST /v1.0/me HTTP/1.1|Host: H|Content-Length: 100000||")).await;
    assert_refused(&wire.answer().await.response(), 413, "body_too_large");
    for _ in 0..2000 {
        wire.send(spell(SECOND)).await;
    }
    assert_eq!(text(wire.rest().await), "", "a second answer");
    assert!(upstream.arrived().is_empty());
}

/// T206, A08: nobody is told to go on who will be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_is_not_told_to_continue() {
    let (upstream, rig) = before_ok().await;
    let mut wire = rig.wire().await;
    wire.send("POST /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.status(), 401, "no 100 before it");
    wire.send(spell(SECOND)).await;
    assert_eq!(text(wire.rest().await), "");
    for expectation in ["y 100-continue", "100-continue, x", "200-ok", "100-continue|Expect: 100-continue"] {
        refused(
            &rig,
            &upstream,
            &format!("POST /v1.0/me HTTP/1.1|Host: H|Expect: {expectation}|Content-Length: 5|Connection: close||"),
        )
        .await;
    }
    assert!(upstream.arrived().is_empty());
}

/// T206: bodies where some servers do not look for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_get_is_a_body() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let (upstream, rig) = before_ok().await;
        let body = spell(SECOND);
        let mut wire = rig.wire().await;
        wire.send(spell(&format!("{method} /v1.0/me HTTP/1.1|Host: H|Content-Length: {}||", body.len()))).await;
        wire.send(&body).await;
        upstream.until(1).await;
        let arrived = upstream.arrived();
        assert!(arrived[0].message.start.starts_with(method));
        assert_eq!(arrived[0].message.body, body.as_bytes(), "{method}: it arrived whole, and as a body");
        // One more, to be sure that nothing came in between.
        wire.send(spell("GET /v1.0/last HTTP/1.1|Host: H|Connection: close||")).await;
        wire.rest().await;
        let arrived = upstream.arrived();
        assert!(arrived.len() <= 2, "{method}: {arrived:#?}");
        assert!(arrived.iter().all(|arrived| !arrived.message.start.contains("smuggled")), "{method}: {arrived:#?}");
    }
}

/// T210: a header that comes as a trailer is none.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_dropped_both_ways() {
    let upstream = RawUpstream::start(|_, _| {
        Play::say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie, X-Late\r\n\r\n\
             2\r\nok\r\n0\r\nSet-Cookie: a=b\r\nX-Late: 1\r\nContent-Length: 5\r\n\r\n",
        )
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut wire = rig.wire().await;
    wire.send(spell(
        "POST /v1.0/me HTTP/1.1|Host: H|TE: trailers|Trailer: Authorization, Host|Transfer-Encoding: chunked||\
         2|hi|0|Authorization: Bearer evil|Host: evil|Content-Length: 3|X-Late: 1||",
    ))
    .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.body.as_slice()), (200, b"ok".as_slice()));
    wire.send(spell("GET /v1.0/me HTTP/1.1|Host: H|Connection: close||")).await;
    let rest = text(wire.rest().await);
    assert!(
        !rest.to_lowercase().contains("set-cookie") && !rest.contains("X-Late") && !rest.contains("x-late"),
        "{rest}"
    );
    let raw = text(&upstream.arrived()[0].raw);
    assert!(!raw.contains("evil") && !raw.contains("X-Late") && !raw.contains("x-late"), "{raw}");
    assert!(raw.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "{raw:?}");
}

/// T209, A15: an upstream that speaks badly is not believed, and its connection is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_can_be_read_in_two_ways_is_none() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nno", "a".repeat(2 << 20));
    let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nspoof";
    for (name, answer) in [
        ("two lengths", format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef{hello}")),
        ("a list of lengths", format!("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nabcdef{hello}")),
        ("no length", format!("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabcdef{hello}")),
        ("a bare CR", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nno".to_owned()),
        ("a NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nno".to_owned()),
        ("a large head", large),
        ("no version", "HTTP/3 200 OK\r\n\r\n".to_owned()),
        ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n".to_owned()),
    ] {
        let upstream = RawUpstream::start(move |_, _| Play::say(&answer)).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        for _ in 0..2 {
            let answer = rig.get("/v1.0/me").await;
            assert_refused(&answer, 502, "upstream_unreachable");
        }
        let arrived = upstream.arrived();
        let mut connections: Vec<_> = arrived.iter().map(|arrived| arrived.connection).collect();
        connections.dedup();
        assert_eq!(connections.len(), arrived.len(), "{name}: a connection was used again");
    }
}

/// T209: bytes behind an answer are nobody's answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_answer_is_never_given_to_the_next_request() {
    let upstream = RawUpstream::start(|_, _| {
        Play::say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nspliced")
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut client = rig.http1().await;
    for _ in 0..10 {
        let answer = whole(client.send_request(get("/v1.0/me"))).await;
        assert_eq!(answer.body().as_ref(), b"ok");
        within(client.ready()).await.unwrap();
    }
    let connections: Vec<_> = upstream.arrived().iter().map(|arrived| arrived.connection).collect();
    assert_eq!(connections, (0..10).collect::<Vec<_>>(), "a connection with bytes left over was used again");
}

/// T209, A15: some interim answers are skipped, a flood of them is no answer.
#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_do_not_reach_the_client_and_do_not_confuse() {
    for (count, is_flood) in [(20, false), (10_000, true)] {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(count);
        let flood = format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let upstream = RawUpstream::start(move |_, _| Play::say(&flood)).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        for _ in 0..2 {
            let mut wire = rig.wire().await;
            wire.send(spell("GET /v1.0/me HTTP/1.1|Host: H||")).await;
            let answer = wire.answer().await;
            if is_flood {
                assert_refused(&answer.response(), 502, "upstream_unreachable");
            } else {
                assert_eq!((answer.status(), &answer.body[..]), (200, &b"ok"[..]));
            }
        }
    }
}

/// T209, A15: a body that ends before its time is broken off for the client too.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_cut_for_the_client_too() {
    for (name, answer) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"),
        ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nhalf"),
        ("between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("chunk of no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n"),
        ("chunk of nothing", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n\r\n\r\n"),
    ] {
        let upstream = RawUpstream::start(move |_, _| Play::SayAndClose(answer.as_bytes().to_vec())).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        let raw = rig.exchange(spell("GET /v1.0/me HTTP/1.1|Host: H||")).await;
        assert!(raw.starts_with(b"HTTP/1.1 200 "), "{name}: {}", text(&raw));
        assert!(Message::parse(&raw, false).is_none(), "{name}: it looks whole: {}", text(&raw));
        let answer = within(rig.http2().await.send_request(for_http2(get("/v1.0/me"), rig.data))).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body());
        assert!(within(body).await.is_err(), "{name}: no reset over HTTP/2");
        assert_eq!(upstream.arrived().len(), 2);
    }
}

/// Over HTTP/1.1 an answer may end with the connection: then so it does for the client, with an end that can be told from a cut.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ends_with_the_connection_is_whole() {
    let upstream = RawUpstream::start(|_, _| Play::SayAndClose(b"HTTP/1.1 200 OK\r\n\r\nall of it".to_vec())).await;
    let rig = Rig::before(&upstream.origin(), "").await;
    assert_eq!(rig.get("/v1.0/me").await.body().as_ref(), b"all of it");
    assert_eq!(rig.send_http2(get("/v1.0/me")).await.body().as_ref(), b"all of it");
    let arrived = upstream.arrived();
    assert_ne!(arrived[0].connection, arrived[1].connection);
}

/// An upstream that says `answer` to the head of a request, and resets the connection at once.
async fn resetting(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    spawn_here(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 16 * 1024];
            let _ = stream.read(&mut head).await;
            stream.set_zero_linger().unwrap();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    origin
}

/// A reset is no end: what came before it is not all, even where data and reset are found by the same look.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ends_with_a_reset_is_cut_for_the_client_too() {
    let origin = resetting("HTTP/1.1 200 OK\r\n\r\nhalf of it").await;
    let rig = Rig::before(&origin, "").await;
    for _ in 0..20 {
        let raw = rig.exchange(spell("GET /v1.0/me HTTP/1.1|Host: H|Connection: close||")).await;
        assert!(Message::parse(&raw, false).is_none_or(|(answer, _)| answer.status() == 502), "whole: {}", text(&raw));
    }
}

/// T208, A14: heads that HTTP/2 allows to write and HTTP/1.1 would read otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn http2_heads_are_as_strict() {
    let (upstream, rig) = before_ok().await;
    let base = || Request::builder().method("GET").header("authorization", basic("alice", KEY));
    let at = |authority: &str, path: &str| format!("http://{authority}{path}");
    // The authority and a Host beside it disagree.
    let request = base().uri(at("127.0.0.1", "/v1.0/me")).header("host", "evil").body(empty()).unwrap();
    let answer = whole(rig.http2().await.send_request(request)).await;
    assert!(matches!(answer.status().as_u16(), 400 | 421), "{answer:?}");
    let request = base().uri(at("evil.example", "/v1.0/me")).body(empty()).unwrap();
    assert_refused(&whole(rig.http2().await.send_request(request)).await, 421, "host_not_allowed");
    for (method, path) in [("CONNECT", "/v1.0/me"), ("TRACE", "/v1.0/me")] {
        let request = base().method(method).uri(at("127.0.0.1", path)).body(empty()).unwrap();
        if let Ok(answer) = within(rig.http2().await.send_request(request)).await {
            assert_eq!(answer.status(), 400, "{method}");
        }
    }
    assert!(upstream.arrived().is_empty());
}

/// T208, A14 by hand: frames that a well-behaved client can't write.
#[tokio::test(flavor = "multi_thread")]
async fn http2_frames_that_break_the_rules_reach_nobody() {
    let (upstream, rig) = before_ok().await;
    let authorization = basic("alice", KEY);
    let good = |skip: &str| -> Vec<(&str, String)> {
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/v1.0/me"),
            (":authority", "127.0.0.1"),
            ("authorization", &authorization),
        ]
        .iter()
        .filter(|(name, _)| *name != skip)
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect()
    };
    let with = |skip: &str, name: &'static str, value: &str| {
        let mut fields = good(skip);
        let at = if name.starts_with(':') { 0 } else { fields.len() };
        fields.insert(at, (name, value.to_owned()));
        fields
    };
    let mut pseudo_after = good(":path");
    pseudo_after.push((":path", "/v1.0/me".to_owned()));
    let vectors = [
        ("path with a space", with(":path", ":path", "/v1.0/a b")),
        ("path without slash", with(":path", ":path", "v1.0/me")),
        ("path empty", with(":path", ":path", "")),
        ("path with CRLF", with(":path", ":path", "/v1.0/me HTTP/1.1\r\nX: y")),
        ("two paths", with("", ":path", "/v1.0/users")),
        ("two authorities", with("", ":authority", "evil")),
        ("pseudo after regular", pseudo_after),
        ("scheme with a target", with(":scheme", ":scheme", "http://evil/?")),
        ("method with a space", with(":method", ":method", "GET /x HTTP/1.1")),
        ("method with a mark", with(":method", ":method", "GET?{}")),
        ("unknown pseudo", with("", ":evil", "x")),
        ("upper case", with("", "Foo", "x")),
        ("connection", with("", "connection", "close")),
        ("transfer-encoding", with("", "transfer-encoding", "chunked")),
        ("CRLF in a value", with("", "x", "a\r\nb: c")),
        ("NUL in a value", with("", "x", "a\0b")),
        ("colon in a name", with("", "x: y\r\nz", "a")),
        ("no path", good(":path")),
        ("no method", good(":method")),
        ("a length without a body", with("", "content-length", "5")),
    ];
    for (name, fields) in vectors {
        let status = http2_by_hand(&rig, &fields, None).await;
        assert!(status.is_none_or(|status| status >= 400), "{name}: {status:?}");
        assert!(upstream.arrived().is_empty(), "{name}: {:#?}", upstream.arrived());
    }
    // More body than was said.
    let mut fields = with(":method", ":method", "POST");
    fields.push(("content-length", "5".to_owned()));
    let status = http2_by_hand(&rig, &fields, Some(b"abcdef")).await;
    assert!(status.is_none_or(|status| status >= 400), "{status:?}");
    upstream.until_idle().await;
    assert!(upstream.arrived().is_empty(), "{:#?}", upstream.arrived());

    assert_eq!(http2_by_hand(&rig, &good(""), None).await, Some(200), "the frames as such are good");
    assert_eq!(upstream.arrived().len(), 1);
}

/// Sends one request in frames of our own and returns the status; `None`: the stream or the connection was ended.
async fn http2_by_hand(rig: &Rig, fields: &[(&str, String)], body: Option<&[u8]>) -> Option<u16> {
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }
    // Literal fields without indexing and without Huffman codes.
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value.as_bytes()] {
            assert!(text.len() < 127, "longer lengths have another form");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text);
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, if body.is_some() { 4 } else { 5 }, 1, &block));
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body));
    }
    let mut stream = TcpStream::connect(rig.data).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    loop {
        let mut head = [0; 9];
        within(stream.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        within(stream.read_exact(&mut payload)).await.ok()?;
        match (head[3], head[8]) {
            // HEADERS: the status comes first, indexed (8..=14) or literal with the indexed name 8.
            (1, 1) => {
                return Some(match payload[0] {
                    0x88 => 200,
                    0x89 => 204,
                    0x8a => 206,
                    0x8b => 304,
                    0x8c => 400,
                    0x8d => 404,
                    0x8e => 500,
                    // Literal, Huffman-coded: of all statuses that we send only refusals are not in the static table.
                    _ => 499,
                });
            }
            // RST_STREAM of it, GOAWAY.
            (3, 1) | (7, _) => return None,
            _ => {}
        }
    }
}

//! What goes out to the upstream, and what comes back to the client: heads, targets, old and odd clients.

use bearerd::sandbox::{Effect, Fault};

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

/// One request with Alice's credential on a connection of its own. `headers` end with a line end each.
async fn ask(rig: &Rig, line: &str, headers: &str, body: &[u8]) -> Message {
    let mut wire = rig.wire().await;
    wire.send(raw_request(line, headers, body)).await;
    wire.answer().await
}

fn raw_request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{line}\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n{headers}\r\n", basic("alice", KEY));
    [head.as_bytes(), body].concat()
}

fn names(message: &Message) -> Vec<&str> {
    message.headers.iter().map(|(name, _)| name.as_str()).collect()
}

/// T103: whatever the client says in a header of ours, it is deleted first.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_ours_to_say_comes_from_the_client() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let headers: String = [
        "X-Api-Key",
        "Bearerd-Account",
        "Bearerd-Retry",
        "Bearerd-Error",
        "Bearerd-Anything-Else",
        "Cookie",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Whatever",
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-MS-Client-Principal",
        "X-MS-Client-Principal-Id",
        "X-MS-Client-Principal-Name",
        "X-MS-Client-Principal-Idp",
        "X-MS-Token-AAD-Access-Token",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X_Forwarded_User",
    ]
    .iter()
    .map(|name| match *name {
        "X-Api-Key" => format!("{name}: {KEY}\r\n"),
        "Bearerd-Account" => format!("{name}: alice\r\n"),
        name => format!("{name}: theirs\r\n"),
    })
    .collect();
    assert_eq!(ask(&rig, "GET /v1.0/me HTTP/1.1", &headers, b"").await.status(), 200);
    let request = upstream.arrived().remove(0).message;
    let mut names = names(&request);
    names.sort_unstable();
    assert_eq!(names, ["authorization", "client-request-id", "host"], "{request:?}");
    let bearer = request.header("authorization").unwrap();
    assert!(bearer.starts_with("Bearer ") && bearer.len() > 100, "{bearer}");
    assert!(!bearer.contains(KEY));
    assert_eq!(request.header("host"), Some(upstream.address.to_string().as_str()));
    let id = request.header("client-request-id").unwrap();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sdks_say_to_graph_arrives() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let said = [
        ("client-request-id", "3fa85f64-5717-4562-b3fc-2c963f66afa6"),
        ("sdkversion", "graph-js/3.0.7 (featureUsage=6)"),
        ("prefer", "outlook.body-content-type=\"text\""),
        ("consistencylevel", "eventual"),
        ("user-agent", "payroll/1.0"),
        ("accept", "application/json;odata.metadata=full"),
        ("accept-encoding", "gzip, br"),
        ("if-match", "W/\"1\""),
        ("range", "bytes=0-9"),
        ("retry-attempt", "1"),
        ("x-ms-throttle-priority", "High"),
    ];
    let headers = said.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    ask(&rig, "GET /v1.0/me HTTP/1.1", &headers, b"").await;
    let request = upstream.arrived().remove(0).message;
    for (name, value) in said {
        assert_eq!(request.all(name), [value]);
    }
    // A list header stays a list, in its order.
    ask(&rig, "GET /v1.0/me HTTP/1.1", "Prefer: a\r\nPrefer: b\r\n", b"").await;
    assert_eq!(upstream.arrived()[1].message.all("prefer"), ["a", "b"]);
}

/// T104, A11: `Connection` takes away what the client brought, and nothing of ours.
#[tokio::test(flavor = "multi_thread")]
async fn connection_strips_the_clients_headers_and_never_ours() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let list = "Connection: close, Authorization, Host, Content-Length, Cookie, client-request-id\r\n\
                Connection: X-Hop, transfer-encoding,, te ,Content-Type\r\n\
                X-Hop: 1\r\nX-End: 1\r\nclient-request-id: 3fa85f64-5717-4562-b3fc-2c963f66afa6\r\n\
                Content-Type: text/plain\r\nContent-Length: 5\r\n";
    let mut wire = rig.wire().await;
    wire.send(raw_request("POST /v1.0/me HTTP/1.1", list, b"hello")).await;
    assert_eq!(wire.answer().await.status(), 200);
    assert_eq!(wire.rest().await, b"", "`close` counts for the client's own connection");
    let request = upstream.arrived().remove(0).message;
    assert!(request.header("authorization").is_some_and(|value| value.starts_with("Bearer ey") || value.len() > 100));
    assert_eq!(request.all("host"), [upstream.address.to_string()]);
    assert_eq!(request.all("content-length"), ["5"]);
    assert_eq!(request.header("client-request-id"), Some("3fa85f64-5717-4562-b3fc-2c963f66afa6"));
    assert_eq!((request.header("x-hop"), request.header("x-end")), (None, Some("1")));
    assert_eq!(request.body, b"hello");

    let many = (0..200).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(", ");
    let long = "a".repeat(8192);
    for list in [
        "Connection: close\r\nConnection: close\r\n".to_owned(),
        format!("Connection: {many}, authorization\r\n"),
        format!("Connection: {long}\r\n"),
    ] {
        let before = upstream.arrived().len();
        let answer = ask(&rig, "GET /v1.0/me HTTP/1.1", &list, b"").await;
        if answer.status() == 200 {
            let request = upstream.arrived().pop().unwrap().message;
            assert!(request.header("authorization").is_some() && request.header("host").is_some());
        } else {
            assert_refused(&answer.response(), 400, "bad_request");
            assert_eq!(upstream.arrived().len(), before);
        }
    }
}

/// T107: and a PROXY preamble is no request.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_preamble_is_refused() {
    let rig = Rig::start().await;
    let request = text(raw_request("GET /v1.0/me HTTP/1.1", "", b""));
    let version_2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x50\0\x50".as_slice(), request.as_bytes()];
    for bytes in [format!("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n{request}").into_bytes(), version_2.concat()] {
        let raw = rig.exchange(bytes).await;
        assert!(raw.is_empty() || raw.starts_with(b"HTTP/1.1 400 "), "{}", text(&raw));
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn path_and_query_go_out_byte_for_byte() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let targets = [
        "/v1.0/me",
        "/v1.0/me/",
        "/v1.0/me?",
        "/beta/me?$top=5",
        "/v1.0/me/messages?%24top=5&$select=subject,from&$filter=isRead%20eq%20false",
        "/v1.0/me/messages?$filter=contains(subject,'a+b')&$search=%22a%20b%22",
        "/v1.0/me/drive/items/01BYE5RZ!101/content",
        "/v1.0/me/drive/items/01BYE5RZ%21101/content",
        "/v1.0/me/drive/root:/a%20b/Annual%20report.pdf:/content",
        "/v1.0/me/drive/root%3A/x.txt%3A/content",
        "/v1.0/users('alice@contoso.example')/messages('AAMk=')",
        "/v1.0/users/alice%40contoso.example/mailFolders('inbox')/messages",
        "/v1.0/me/calendarView?startDateTime=2021-01-01T00:00:00Z&endDateTime=2021-01-02T00:00:00.0000000Z",
        "/v1.0/me/messages/delta?$deltatoken=X%2744%27%2B%2F%3D&x=a%2Bb",
        "/v1.0/teams/19:abc_def@thread.tacv2;x=1/channels",
        "/v1.0/me/%c3%a9?x=%C3%A9",
        "/v1.0/me?a=/../b&c=//d&e=\\f",
        "/v1.0/me?x=%00%0d%0a%2e%2e%2f",
        "/v1.0/me?a=1?b=2&[x]={y}|z^`",
        "/v1.0/reports/getOffice365ActiveUserDetail(period='D7')",
        "/v1.0/%24metadata",
        "/v1.0/me/a~b-c.d_e!f*g'h(i)",
    ];
    for target in targets {
        let before = upstream.arrived().len();
        let answer = ask(&rig, &format!("GET {target} HTTP/1.1"), "", b"").await;
        assert_eq!(answer.status(), 200, "{target}: {answer:?}");
        assert_eq!(upstream.arrived()[before].message.start, format!("GET {target} HTTP/1.1"));
    }
    // What names the account or the upstream is ours, and cut off.
    for (target, forwarded) in [
        ("/as/alice/v1.0/me?$top=1", "/v1.0/me?$top=1"),
        ("/as/al%69ce/v1.0/me/x%21", "/v1.0/me/x%21"),
        ("/graph/v1.0/me", "/v1.0/me"),
        ("/as/alice/graph/beta/me?", "/beta/me?"),
    ] {
        let before = upstream.arrived().len();
        assert_eq!(ask(&rig, &format!("GET {target} HTTP/1.1"), "", b"").await.status(), 200, "{target}");
        assert_eq!(upstream.arrived()[before].message.start, format!("GET {forwarded} HTTP/1.1"));
    }
    // Over HTTP/2 too.
    for target in ["/v1.0/me/drive/items/01BYE5RZ%21101?$top=1&%24skip=2", "/v1.0/users('a')/x:y"] {
        let before = upstream.arrived().len();
        assert_eq!(rig.send_http2(get(target)).await.status(), 200);
        assert_eq!(upstream.arrived()[before].message.start, format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let rig = Rig::start().await;
    for path in [
        "/v1.0/me/../users",
        "/v1.0/me/./users",
        "/v1.0/me/%2e%2e/users",
        "/v1.0/me/.%2E/users",
        "/v1.0/me/..%2fusers",
        "/v1.0/me%2Fusers",
        "/v1.0/me/..;/users",
        "/v1.0/me/..;x=1/users",
        "/v1.0//users",
        "/v1.0/me%5c..%5cusers",
        "/v1.0/me\\users",
        "/v1.0/me/%252e%252e/users",
        "/v1.0/me%252fusers",
        "/v1.0/me%25252fusers",
        "/v1.0/me%00",
        "/v1.0/me%0d%0aX:%20y",
        "/v1.0/me/%c0%ae%c0%ae/users",
        "/v1.0/me/%ff",
        "/v1.0/..",
        "/v1.0/../v1.0/me",
        "/as/alice//v1.0/me",
        "/as/alice/v1.0/../users",
        "/as/../v1.0/me",
        "//v1.0/me",
    ] {
        let answer = ask(&rig, &format!("GET {path} HTTP/1.1"), "", b"").await;
        assert!(matches!(answer.status(), 400 | 403 | 404), "{path}: {answer:?}");
        assert!(rig.seen().is_empty(), "{path} reached {:#?}", rig.seen());
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_request_id_is_kept_or_made() {
    let rig = Rig::start().await;
    rig.get("/v1.0/me").await;
    let answer = rig.send(alice("GET", "/v1.0/me").header("client-request-id", "my-own").body(empty()).unwrap()).await;
    let seen = rig.seen();
    assert_eq!(seen[0].header("client-request-id")[0].len(), 36);
    assert_eq!(seen[1].header("client-request-id"), ["my-own"]);
    assert_eq!(header(&answer, "client-request-id"), Some("my-own"));
}

/// `ab`, `ab -k`, and a client that knows nothing of Host.
#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_clients_are_served() {
    let rig = Rig::start().await;
    let authorization = format!("Authorization: {}\r\n", basic("alice", KEY));
    for host in ["", "Host: 127.0.0.1\r\n"] {
        let raw = rig.exchange(format!("GET /v1.0/me HTTP/1.0\r\n{host}{authorization}\r\n")).await;
        let (answer, taken) = Message::parse(&raw, false).expect("a whole answer");
        assert_eq!((answer.status(), taken), (200, raw.len()), "{}", text(&raw));
        assert!(answer.header("transfer-encoding").is_none());
        assert_eq!(rig.seen_one().version, "HTTP/1.1");
        rig.graph().clear();
    }
    let mut wire = rig.wire().await;
    for _ in 0..3 {
        wire.send(format!("GET /v1.0/me HTTP/1.0\r\nConnection: Keep-Alive\r\n{authorization}\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status(), 200);
        assert!(
            answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")),
            "{answer:?}"
        );
    }
    assert_eq!(rig.seen().len(), 3);
    rig.graph().clear();

    // A body whose length nobody knows ends with the connection: chunks would be read as content.
    for keep in ["", "Connection: Keep-Alive\r\n"] {
        let raw = rig.exchange(format!("GET /v1.0/stream?bytes=100000 HTTP/1.0\r\n{keep}{authorization}\r\n")).await;
        let head = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(raw.len() - head, 100_000);
        assert!(raw[head..].iter().all(|byte| *byte == b'b'));
        assert!(!text(&raw[..head]).to_lowercase().contains("transfer-encoding"));
    }
    assert_eq!(rig.seen().len(), 2);
    rig.graph().clear();

    let raw = rig.exchange(format!("POST /v1.0/echo HTTP/1.0\r\n{authorization}Content-Length: 5\r\n\r\nhello")).await;
    assert_eq!(Message::parse(&raw, false).unwrap().0.status(), 200);
    assert_eq!(rig.seen_one().body_sha256, sha256(b"hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_carries_bodies_both_ways() {
    let rig = Rig::start().await;
    let body = vec![7; 300_000];
    let request = post("/v1.0/echo", body.clone());
    let answer = rig.send_http2(request).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let seen = rig.seen_one();
    assert_eq!((seen.body_len, seen.body_sha256.as_str()), (300_000, &*sha256(&body)));
    assert_eq!(json(&answer)["body_sha256"], sha256(&body));
    assert!(seen.header("transfer-encoding").is_empty(), "its length was known");
    assert_eq!(rig.send_http2(get("/v1.0/stream?bytes=200000")).await.body().len(), 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_100_continue_gets_it_and_graph_hears_nothing_of_it() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut wire = rig.wire().await;
    wire.send(raw_request(
        "PUT /v1.0/me/drive/root:/a.txt:/content HTTP/1.1",
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
        b"",
    ))
    .await;
    let interim = wire.answer().await;
    assert_eq!(interim.status(), 100, "{interim:?}");
    wire.send("hello").await;
    assert_eq!(wire.answer().await.status(), 200);
    let request = upstream.arrived().remove(0).message;
    assert_eq!((request.header("expect"), request.body.as_slice()), (None, b"hello".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_follows_from_the_body_and_is_never_copied() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let chunked = b"5\r\nhello\r\n3;x=y\r\n wo\r\n0\r\nX-Trailer: 1\r\n\r\n";
    for (line, headers, body, expected, length, coding) in [
        ("GET /v1.0/me HTTP/1.1", "", b"".as_slice(), b"".as_slice(), None, None),
        ("HEAD /v1.0/me HTTP/1.1", "", b"", b"", None, None),
        ("DELETE /v1.0/me/messages/1 HTTP/1.1", "", b"", b"", None, None),
        ("POST /v1.0/me/messages/1/send HTTP/1.1", "Content-Length: 0\r\n", b"", b"", Some("0"), None),
        ("POST /v1.0/me/messages/1/send HTTP/1.1", "", b"", b"", Some("0"), None),
        ("POST /v1.0/me HTTP/1.1", "Content-Length: 5\r\n", b"hello", b"hello", Some("5"), None),
        ("GET /v1.0/me HTTP/1.1", "Content-Length: 5\r\n", b"hello", b"hello", Some("5"), None),
        ("DELETE /v1.0/me HTTP/1.1", "Content-Length: 5\r\n", b"hello", b"hello", Some("5"), None),
        (
            "PUT /v1.0/me/x HTTP/1.1",
            "Transfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n",
            chunked,
            b"hello wo",
            None,
            Some("chunked"),
        ),
        ("GET /v1.0/me HTTP/1.1", "Transfer-Encoding: chunked\r\n", chunked, b"hello wo", None, Some("chunked")),
        ("PATCH /v1.0/me HTTP/1.1", "Content-Length: 5\r\n", b"hello", b"hello", Some("5"), None),
    ] {
        let before = upstream.arrived().len();
        let mut wire = rig.wire().await;
        wire.send(raw_request(line, headers, body)).await;
        // To HEAD the upstream of this test answers with a body, which only a client that does not know better would read.
        let status = if line.starts_with("HEAD") { 0 } else { wire.answer().await.status() };
        upstream.until(before + 1).await;
        assert!(matches!(status, 0 | 200), "{line}");
        let request = &upstream.arrived()[before].message;
        assert_eq!(request.start, line);
        assert_eq!(request.body, expected, "{line}");
        assert_eq!(request.header("content-length"), length, "{request:?}");
        assert_eq!(request.header("transfer-encoding"), coding, "{request:?}");
        assert!(request.header("trailer").is_none() && request.header("x-trailer").is_none(), "{request:?}");
    }
}

/// java.net.http offers h2c on every plain request; LWP sends `TE`.
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_to_upgrade_is_ignored() {
    let upstream = RawUpstream::ok().await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\nUpgrade: h2c\r\n";
    assert_eq!(ask(&rig, "GET /v1.0/me HTTP/1.1", offer, b"").await.status(), 200);
    let offer = "TE: deflate,gzip;q=0.3\r\nConnection: TE, close\r\n";
    assert_eq!(ask(&rig, "GET /v1.0/me HTTP/1.1", offer, b"").await.status(), 200);
    for arrived in upstream.arrived() {
        assert_eq!(
            names(&arrived.message),
            ["host", "client-request-id", "authorization"].map(|name| name),
            "{arrived:?}"
        );
    }
}

/// What an upstream says that would work against us, and what it says that has to arrive.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cleaned_and_otherwise_left_alone() {
    let upstream = RawUpstream::start(|_, _| {
        Play::say(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\
             ETag: W/\"1\"\r\nRequest-Id: r\r\nLocation: https://x.example/\r\nRetry-After: 3\r\n\
             Set-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nStrict-Transport-Security: max-age=1\r\n\
             Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
             Access-Control-Expose-Headers: ETag\r\nAccess-Control-Allow-Private-Network: true\r\n\
             Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\
             Alt-Svc: h3=\":443\"\r\nBearerd-Error: fake\r\nBearerd-Signin-Url: https://evil.example/\r\n\r\n\x1f\u{8}abc",
        )
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let answer = rig.get("/v1.0/me").await;
    let mut names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "cache-control",
            "content-encoding",
            "content-length",
            "content-type",
            "date",
            "etag",
            "location",
            "request-id",
            "retry-after",
            "vary"
        ]
    );
    assert_eq!(header(&answer, "cache-control"), Some("private"));
    let vary = header(&answer, "vary").unwrap().to_lowercase();
    assert!(["authorization", "x-api-key", "bearerd-account"].iter().all(|name| vary.contains(name)), "{vary}");
    assert_eq!(answer.body().as_ref(), b"\x1f\x08abc");
    assert_eq!(rig.send_http2(get("/v1.0/me")).await.headers().len(), answer.headers().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_says_of_caching_stands() {
    let upstream = RawUpstream::start(|_, _| {
        Play::say("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nVary: Prefer\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let answer = rig.get("/v1.0/me").await;
    assert_eq!(header(&answer, "cache-control"), Some("no-store"));
    let vary: Vec<_> = answer.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(vary.contains(&"Prefer"), "{vary:?}");
}

/// T308: a redirect is the client's to follow.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_passes_and_nobody_follows_it() {
    for status in [301, 302, 303, 307, 308] {
        let evil = RawUpstream::ok().await;
        let location = format!("{}/download?tempauth=secret", evil.origin());
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let upstream = RawUpstream::start(move |_, _| Play::say(&answer)).await;
        let rig = Rig::before(&upstream.origin(), "").await;
        for request in [get("/v1.0/me/photo"), post("/v1.0/me/x", "hello")] {
            let answer = rig.send(request).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "location")), (status, Some(location.as_str())));
        }
        assert_eq!((upstream.arrived().len(), evil.bytes().len()), (2, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_302_of_a_download_is_untouched_and_no_token_leaks() {
    let rig = Rig::start().await;
    let answer = rig.get("/v1.0/me/drive/items/01BYE5RZ!102/content").await;
    assert_eq!(answer.status(), 302);
    let location = header(&answer, "location").unwrap();
    assert!(location.starts_with(rig.graph().files_origin().as_str()) && location.contains("tempauth="), "{location}");
    assert!(rig.graph().file_requests().is_empty() && rig.graph().leaks().is_empty());
    assert_eq!(rig.seen_one().target, "/v1.0/me/drive/items/01BYE5RZ!102/content");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_keeps_the_length_and_the_connection() {
    let upstream = RawUpstream::start(|arrived, _| {
        if arrived.message.start.starts_with("HEAD") {
            Play::say("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        } else {
            Play::ok()
        }
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let mut client = rig.http1().await;
    let head = || alice("HEAD", "/v1.0/me").body(empty()).unwrap();
    for _ in 0..2 {
        let answer = whole(client.send_request(head())).await;
        assert_eq!((header(&answer, "content-length"), answer.body().len()), (Some("12345"), 0));
        within(client.ready()).await.unwrap();
        let answer = whole(client.send_request(get("/v1.0/me"))).await;
        assert_eq!(answer.body().as_ref(), b"ok");
        within(client.ready()).await.unwrap();
    }
    let answer = rig.send_http2(head()).await;
    assert_eq!((header(&answer, "content-length"), answer.body().len()), (Some("12345"), 0));
    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), 5);
    assert!(arrived.iter().all(|arrived| arrived.connection == 0), "the upstream's connection was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_have_none() {
    let rig = Rig::start().await;
    for status in [204, 304] {
        let fault =
            Effect::Http { status, headers: vec![("ETag".to_owned(), "\"1\"".to_owned())], body: String::new() };
        rig.graph().faults().push(Fault::graph("/", fault));
        let mut wire = rig.wire().await;
        wire.send(raw_request("GET /v1.0/me HTTP/1.1", "", b"")).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status(), answer.header("etag")), (status, Some("\"1\"")));
        assert!(answer.header("transfer-encoding").is_none(), "{answer:?}");
        // The connection goes on where the head ended.
        wire.send(raw_request("GET /v1.0/me HTTP/1.1", "", b"")).await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    assert_eq!(rig.seen().len(), 4);
}

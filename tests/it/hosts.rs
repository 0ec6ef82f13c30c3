//! Names, targets and browsers: who may address us by which name, and that no name in a request is ever dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bearerd::tasks::spawn_here;
use tokio::net::TcpListener;

use crate::harness::*;

/// A server that must not be called.
async fn trap() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    spawn_here(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, calls)
}

/// One request line and these header lines, with Alice's credential, over a connection of its own.
async fn ask(rig: &Rig, line: &str, headers: &str) -> Message {
    let mut wire = rig.wire().await;
    wire.send(format!("{line}\r\n{headers}Authorization: {}\r\n\r\n", basic("alice", KEY))).await;
    wire.answer().await
}

/// T304, T305, A12: only our own names, even for somebody with a valid key.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_is_misdirected() {
    let rig = Rig::start().await;
    for host in [
        "evil.com",
        "evil.com:8080",
        "localhost.evil.com",
        "127.0.0.1.nip.io",
        "graph.microsoft.com.evil",
        "graph.microsoft.com.",
        "localhost.",
        "0.0.0.0",
        "0.0.0.0:8080",
        "169.254.169.254",
        "[::2]",
        "10.0.0.1",
        "2130706433",
    ] {
        let answer = ask(&rig, "GET /v1.0/me HTTP/1.1", &format!("Host: {host}\r\n")).await;
        assert_refused(&answer.response(), 421, "host_not_allowed");
    }
    for host in ["127.0.0.1:99999", "127.0.0.1:-1", "[::1%eth0]", "[::1", "user@127.0.0.1", "127.0.0.1/x", "a b", ""] {
        let answer = ask(&rig, "GET /v1.0/me HTTP/1.1", &format!("Host: {host}\r\n")).await;
        assert!(matches!(answer.status(), 400 | 421), "{host}: {answer:?}");
    }
    for headers in ["", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", "Host: 127.0.0.1\r\nHost: evil\r\n"] {
        assert_refused(&ask(&rig, "GET /v1.0/me HTTP/1.1", headers).await.response(), 400, "bad_request");
    }
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_names_pass_with_any_port() {
    let rig = Rig::with(
        "server.allowed_hosts = [\"graph.corp.example\"]\nserver.public_url = \"https://proxy.corp.example\"",
    )
    .await;
    let upstream = rig.graph().address();
    for host in [
        "127.0.0.1",
        "localhost:1",
        "LOCALHOST",
        "127.1.2.3:65535",
        "[::1]",
        "[::1]:80",
        "graph.corp.example",
        "Proxy.Corp.Example:8443",
    ] {
        let answer = ask(&rig, "GET /v1.0/me HTTP/1.1", &format!("Host: {host}\r\n")).await;
        assert_eq!(answer.status(), 200, "{host}: {answer:?}");
        assert_eq!(rig.seen_one().header("host"), [upstream.to_string()], "{host}");
        rig.graph().clear();
    }
}

/// T303, A09: a target that names somebody else is refused, and nobody is called.
#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_chooses_no_server() {
    let rig = Rig::start().await;
    let (evil, calls) = trap().await;
    let host = "Host: 127.0.0.1\r\n";
    for target in [
        "http://169.254.169.254/x".to_owned(),
        "http://169.254.169.254/v1.0/me".to_owned(),
        format!("http://evil.example:{}/v1.0/me", evil.port()),
        "http://graph.microsoft.com@evil.example/v1.0/me".to_owned(),
        "https://evil.example/v1.0/me".to_owned(),
        "http://127.0.0.1:99999/v1.0/me".to_owned(),
        "http://user:pass@127.0.0.1/v1.0/me".to_owned(),
        "ftp://evil.example/v1.0/me".to_owned(),
        "http:///v1.0/me".to_owned(),
        "http://".to_owned(),
        "//evil.example/v1.0/me".to_owned(),
        "/\\evil.example/v1.0/me".to_owned(),
        "admin".to_owned(),
        "*".to_owned(),
    ] {
        let answer = ask(&rig, &format!("GET {target} HTTP/1.1"), host).await;
        assert!(matches!(answer.status(), 400 | 404 | 421), "{target}: {answer:?}");
        assert!(rig.seen().is_empty(), "{target}: {:#?}", rig.seen());
    }
    for line in [
        format!("CONNECT {evil} HTTP/1.1"),
        "CONNECT 127.0.0.1:443 HTTP/1.1".to_owned(),
        "TRACE /v1.0/me HTTP/1.1".to_owned(),
    ] {
        let answer = ask(&rig, &line, host).await;
        assert!(matches!(answer.status(), 400 | 421), "{line}: {answer:?}");
    }
    // The library drops a fragment before anybody looks; what is judged is what goes out.
    assert_eq!(ask(&rig, "GET /v1.0/me#/../users HTTP/1.1", host).await.status(), 200);
    assert_eq!(rig.seen_one().target, "/v1.0/me");
    rig.graph().clear();
    // A loopback name is ours whatever the port; it is the configured upstream that is called.
    let answer = ask(&rig, &format!("GET http://{evil}/v1.0/me HTTP/1.1"), host).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(rig.seen_one().target, "/v1.0/me");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert!(rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_that_names_us_is_served_as_http_proxy_settings_send_it() {
    let rig = Rig::with("server.allowed_hosts = [\"graph.corp.example\"]").await;
    let upstream = rig.graph().address();
    for authority in ["127.0.0.1", "graph.corp.example", "localhost:8080"] {
        let headers = format!("Host: {authority}\r\nProxy-Connection: keep-alive\r\n");
        let answer = ask(&rig, &format!("GET http://{authority}/v1.0/me?a=%20b HTTP/1.1"), &headers).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let seen = rig.seen_one();
        assert_eq!(seen.target, "/v1.0/me?a=%20b");
        assert_eq!(seen.header("host"), [upstream.to_string()]);
        assert!(seen.header("proxy-connection").is_empty());
        rig.graph().clear();
    }
    // Target and Host disagree, and one of them is not ours.
    let answer = ask(&rig, "GET http://127.0.0.1/v1.0/me HTTP/1.1", "Host: evil\r\n").await;
    assert_refused(&answer.response(), 421, "host_not_allowed");
    rig.assert_nothing_left();
}

/// T306, A13: what a page of another origin sends is refused, and no page is ever invited.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused() {
    let rig = Rig::start().await;
    let port = rig.data.port();
    for (line, headers) in [
        ("GET /v1.0/me HTTP/1.1", "Origin: https://evil.example\r\n".to_owned()),
        ("GET /v1.0/me HTTP/1.1", "Origin: null\r\n".to_owned()),
        ("GET /v1.0/me HTTP/1.1", "Origin: \r\n".to_owned()),
        ("GET /v1.0/me HTTP/1.1", "Sec-Fetch-Site: cross-site\r\n".to_owned()),
        ("GET /v1.0/me HTTP/1.1", "Sec-Fetch-Site: same-site\r\n".to_owned()),
        ("GET /v1.0/me HTTP/1.1", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n".to_owned()),
        ("POST /v1.0/me/sendMail HTTP/1.1", "Origin: https://evil.example\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n".to_owned()),
        ("OPTIONS /v1.0/me HTTP/1.1", "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n".to_owned()),
        (
            "OPTIONS /v1.0/me HTTP/1.1",
            "Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Private-Network: true\r\n".to_owned(),
        ),
        ("OPTIONS /v1.0/me HTTP/1.1", format!("Origin: http://127.0.0.1:{port}\r\nAccess-Control-Request-Method: GET\r\n")),
        ("GET /v1.0/me HTTP/1.1", format!("Origin: http://127.0.0.1:{}\r\n", port.wrapping_add(1))),
        ("GET /v1.0/me HTTP/1.1", format!("Origin: http://127.0.0.1:{port}\r\nOrigin: https://evil.example\r\n")),
    ] {
        let answer = ask(&rig, line, &format!("Host: 127.0.0.1:{port}\r\n{headers}")).await;
        assert_refused(&answer.response(), 403, "cross_site_refused");
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{answer:?}");
    }
    rig.assert_nothing_left();

    // Programs send none of this; our own pages send their own origin, and Graph does not get to see it.
    let answer = ask(
        &rig,
        "GET /v1.0/me HTTP/1.1",
        &format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n"),
    )
    .await;
    assert_eq!(answer.status(), 200);
    assert!(rig.seen_one().header("origin").is_empty());
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{answer:?}");
}

/// T306 for the pages, which have no key in front of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_have_the_same_guard() {
    let rig = Rig::start().await;
    for (headers, status, code) in [
        ("Host: evil.com\r\n", 421, "host_not_allowed"),
        ("", 400, "bad_request"),
        ("Host: 127.0.0.1\r\nOrigin: https://evil.example\r\n", 403, "cross_site_refused"),
        ("Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n", 403, "cross_site_refused"),
    ] {
        let mut wire = rig.wire().await;
        wire.send(format!("GET /.bearerd/ HTTP/1.1\r\n{headers}\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status(), answer.header("bearerd-error")), (status, Some(code)), "{headers}");
    }
    rig.assert_nothing_left();
}

//! Who may ask at all: hosts, pages of other origins, tokens, sockets.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::config::Listen;
use bytes::Bytes;
use http::Response;
use tokio::net::UnixStream;

use super::assert_problem;
use crate::harness::*;

const TOKEN: &str = "the-token-of-the-operators";

async fn with_token(clock: Clock) -> Rig {
    let config = format!("admin.token = \"{TOKEN}\"");
    Setup { config, clock, signed_in: Vec::new(), ..Setup::default() }.start().await
}

async fn ask(rig: &Rig, target: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let request = headers.iter().fold(bare("GET", target), |request, (name, value)| request.header(*name, *value));
    rig.send_to_admin(request.body(empty()).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token_and_the_rest_does() {
    let rig = with_token(Clock::system()).await;
    for target in ["/livez", "/readyz", "/v1/about"] {
        assert_eq!(ask(&rig, target, &[]).await.status(), 200, "{target}");
    }
    let right = [("authorization", &*format!("Bearer {TOKEN}"))];
    assert_eq!(ask(&rig, "/v1/accounts", &right).await.status(), 200);
    assert_eq!(ask(&rig, "/metrics", &[("authorization", &*format!("bearer {TOKEN}"))]).await.status(), 200);
    for (headers, target) in [
        (&[][..], "/v1/accounts"),
        (&[], "/openapi.json"),
        (&[], "/nothing"),
        (&[("authorization", &TOKEN[1..])], "/v1/accounts"),
        (&[("authorization", &*format!("Basic {TOKEN}"))], "/v1/accounts"),
        (&[("authorization", &*format!("Bearer {}", &TOKEN[1..]))], "/v1/accounts"),
        (&[("authorization", &*format!("Bearer  {TOKEN}"))], "/v1/accounts"),
        (&[right[0], right[0]], "/v1/accounts"),
    ] {
        let answer = ask(&rig, target, headers).await;
        assert_problem(&answer, 401, "unauthenticated");
        assert_eq!(header(&answer, "www-authenticate"), Some("Bearer"));
        assert!(!text(answer.body()).contains(&TOKEN[1..]), "{answer:?}");
    }
}

/// Why something fails names paths, and what the provider says: that is for operators.
#[tokio::test(flavor = "multi_thread")]
async fn why_something_is_not_ready_only_operators_read() {
    let rig = with_token(Clock::system()).await;
    std::fs::remove_file(rig.store.path().join("data/store.db")).expect("the database");
    let right = format!("Bearer {TOKEN}");
    for headers in [&[][..], &[("authorization", "Bearer guess")], &[("authorization", TOKEN)]] {
        let answer = ask(&rig, "/readyz", headers).await;
        assert_eq!(answer.status(), 503);
        let expected =
            serde_json::json!({"ready": false, "checks": {"providers": {"ok": true}, "store": {"ok": false}}});
        assert_eq!(json(&answer), expected);
    }
    let answer = ask(&rig, "/readyz", &[("authorization", &right)]).await;
    assert_eq!(answer.status(), 503);
    let why = json(&answer)["checks"]["store"]["error"].as_str().expect("a text").to_owned();
    assert!(why.contains("store.db"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_the_token_but_three() {
    let rig = with_token(Clock::system()).await;
    let right = format!("Bearer {TOKEN}");
    let document = json(&ask(&rig, "/openapi.json", &[("authorization", &right)]).await);
    let mut open = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let request = bare(&method.to_ascii_uppercase(), path).body(empty()).expect("a request");
            let answer = rig.send_to_admin(request).await;
            if operation["security"] == serde_json::json!([]) {
                assert_eq!(answer.status(), 200, "{method} {path}");
                open.push(path.as_str());
            } else {
                assert_problem(&answer, 401, "unauthenticated");
            }
        }
    }
    assert_eq!(open, ["/livez", "/readyz", "/v1/about"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_limited_and_the_right_one_passes() {
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let rig = with_token(clock.clone()).await;
    let right = format!("Bearer {TOKEN}");
    let right = [("authorization", &*right)];
    assert_eq!(ask(&rig, "/v1/accounts", &right).await.status(), 200);
    let mut answered = Vec::new();
    for guess in 0..15 {
        let answer = ask(&rig, "/v1/accounts", &[("authorization", &format!("Bearer guess-{guess}"))]).await;
        answered.push(answer.status().as_u16());
        if answer.status() == 429 {
            assert_problem(&answer, 429, "too_many_wrong_tokens");
            assert_eq!(header(&answer, "retry-after"), Some("6"));
        }
    }
    assert_eq!(answered, [[401; 10].as_slice(), &[429; 5]].concat());
    assert_eq!(ask(&rig, "/v1/accounts", &right).await.status(), 200, "it was let in before");
    assert_eq!(ask(&rig, "/livez", &[("authorization", "Bearer guess")]).await.status(), 200);
    clock.advance(Duration::from_secs(6));
    assert_eq!(ask(&rig, "/v1/accounts", &[("authorization", "Bearer guess")]).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_asked_for_its_health_by_its_address() {
    let rig = Rig::start().await;
    let status = async |host: &str, target: &str| {
        let request = http::Request::get(target).header("host", host).body(empty()).expect("a request");
        rig.send_to_admin(request).await.status().as_u16()
    };
    for target in ["/livez", "/readyz", "/metrics"] {
        for host in ["10.42.0.7:8081", "[fd00::7]:8081", "10.42.0.7"] {
            assert_eq!(status(host, target).await, 200, "{host} {target}");
        }
        for host in ["evil.example", "10.42.0.7.nip.io:8081", "0x0a2a0007", "[fd00::7"] {
            assert!([400, 421].contains(&status(host, target).await), "{host} {target}");
        }
    }
    for target in ["/v1/accounts", "/v1/about", "/", "/nothing"] {
        assert_eq!(status("10.42.0.7:8081", target).await, 421, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_and_other_origins_are_refused() {
    let rig = Rig::start().await;
    let request = http::Request::get("/v1/accounts").header("host", "evil.com:8081").body(empty()).expect("a request");
    assert_problem(&rig.send_to_admin(request).await, 421, "host_not_allowed");
    let request = http::Request::get("/livez").body(empty()).expect("a request");
    assert_problem(&rig.send_to_admin(request).await, 400, "bad_request");
    for headers in [
        &[("origin", "http://localhost:3000")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ] {
        assert_problem(&ask(&rig, "/v1/accounts", headers).await, 403, "cross_site_refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_socket_its_mode_decides_and_no_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.sock");
    let config = format!("admin = {{ listen = \"unix:{}\", token = \"{TOKEN}\" }}", path.display());
    let rig = Setup { config, ..Setup::default() }.start().await;
    assert!(matches!(rig.app.admin_addresses(), [Listen::Unix(_)]));
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let ask = async |headers: &[(&str, &str)]| {
        let stream = within(UnixStream::connect(&path)).await.expect("the socket accepts");
        let request =
            headers.iter().fold(bare("GET", "/v1/accounts"), |request, (name, value)| request.header(*name, *value));
        let request = request.body(empty()).expect("a request");
        whole(http1_over(stream).await.send_request(request)).await
    };
    assert_eq!(json(&ask(&[]).await)["accounts"][0]["alias"], "alice");
    assert_eq!(ask(&[("authorization", "Bearer anything")]).await.status(), 200);
    assert_problem(&ask(&[("sec-fetch-site", "cross-site")]).await, 403, "cross_site_refused");
}

//! T109: what a client with rules may bring in a `$batch`, and that nothing of a batch leaves that has a member which may not.

use serde_json::json;

use crate::harness::*;

/// T109: to the letter.
#[tokio::test(flavor = "multi_thread")]
async fn t109_one_rule_for_messages_is_no_rule_for_what_a_batch_brings() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me/messages\"]")).await;
    let good = json!({ "id": "1", "method": "GET", "url": "/me/messages" });
    for bad in [
        json!({ "id": "2", "method": "DELETE", "url": "/users/x" }),
        json!({ "id": "2", "method": "GET", "url": "https://evil.example/v1.0/me/messages" }),
        json!({ "id": "2", "method": "POST", "url": "/$batch", "body": { "requests": [good] } }),
        json!({ "id": "2", "method": "GET", "url": "/me/messages", "headers": { "X_HTTP_Method": "DELETE" } }),
        json!({ "id": "2", "method": "GET", "url": "/me/messages/..;/users" }),
        json!({ "id": "2", "method": "GET", "url": "/me/messages%2f..%2fusers" }),
    ] {
        let body = json!({ "requests": [good, bad] }).to_string();
        assert_refused(&rig.send(post("/v1.0/$batch", body.clone())).await, 403, "policy_denied");
        assert_refused(&rig.send_http2(post("/v1.0/$batch", body)).await, 403, "policy_denied");
    }
    rig.assert_nothing_left();
    assert_eq!(rig.send(post("/v1.0/$batch", json!({ "requests": [good] }).to_string())).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn t109_who_may_only_read_may_read_in_a_batch() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nread_only = true")).await;
    let of = |method: &str| json!({ "requests": [{ "id": "1", "method": method, "url": "/me", "body": {}, "headers": { "Content-Type": "application/json" } }] });
    for method in ["POST", "PATCH", "PUT", "DELETE", "MERGE"] {
        assert_refused(&rig.send(post("/v1.0/$batch", of(method).to_string())).await, 403, "policy_denied");
    }
    rig.assert_nothing_left();
    assert_eq!(rig.send(post("/v1.0/$batch", of("GET").to_string())).await.status(), 200);
}

/// T109: the members of a batch are requests like any other.
#[tokio::test(flavor = "multi_thread")]
async fn t109_a_batch_member_that_may_not_is_denied_before_graph_sees_any_of_it() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me/messages\", \"GET /v1.0/me\"]")).await;
    let upstream = rig.graph().origin();
    let good = json!({ "id": "1", "method": "GET", "url": "/me/messages" });
    for bad in [
        json!({ "id": "2", "method": "DELETE", "url": "/users/x" }),
        json!({ "id": "2", "method": "GET", "url": "/users" }),
        json!({ "id": "2", "method": "delete", "url": "/me/messages" }),
        json!({ "id": "2", "method": "GET", "url": "https://evil.example/v1.0/me" }),
        json!({ "id": "2", "method": "GET", "url": "//evil.example/v1.0/me" }),
        json!({ "id": "2", "method": "GET", "url": format!("{upstream}v1.0/users") }),
        json!({ "id": "2", "method": "GET", "url": format!("{}.evil.example/v1.0/me", upstream.as_str().trim_end_matches('/')) }),
        json!({ "id": "2", "method": "POST", "url": "/$batch", "body": { "requests": [] } }),
        json!({ "id": "2", "method": "POST", "url": "/%24batch", "body": { "requests": [] } }),
        json!({ "id": "2", "method": "GET", "url": "/me/../users" }),
        json!({ "id": "2", "method": "GET", "url": "/me/%2e%2e/users" }),
        json!({ "id": "2", "method": "GET", "url": "me/messages/../../users" }),
        json!({ "id": "2", "method": "GET", "url": "/me\\..\\users" }),
        json!({ "id": "2", "method": "POST", "url": "/me/messages", "headers": { "X-HTTP-Method": "GET" } }),
        json!({ "id": "2", "method": "GET", "url": "/me", "headers": { "x-http-method-override": "DELETE" } }),
        json!({ "id": "2", "method": "GET", "url": "" }),
    ] {
        for envelope in ["/v1.0/$batch", "/v1.0/%24batch", "/v1.0/$BATCH", "/v1.0/$batch/"] {
            let body = json!({ "requests": [good, bad] }).to_string();
            let answer = rig.send(post(envelope, body)).await;
            assert_refused(&answer, 403, "policy_denied");
        }
    }
    rig.assert_nothing_left();

    let body = json!({ "requests": [
        good,
        { "id": "2", "method": "get", "url": "me" },
        { "id": "3", "method": "GET", "url": "/me?$select=id", "headers": { "Prefer": "x" } },
    ] })
    .to_string();
    let answer = rig.send(post("/v1.0/$batch", body.clone())).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(json(&answer)["responses"].as_array().unwrap().len(), 3);
    assert_eq!(rig.seen_one().body_sha256, sha256(body.as_bytes()), "it went out as it came");
    rig.graph().clear();

    // Absolute urls of ours or the upstream's are what some SDKs send.
    for origin in [upstream.as_str(), "http://127.0.0.1:0/"] {
        let body =
            json!({ "requests": [{ "id": "1", "method": "GET", "url": format!("{origin}v1.0/me") }] }).to_string();
        assert_eq!(rig.send(post("/v1.0/$batch", body)).await.status(), 200, "{origin}");
        rig.graph().clear();
    }
    // So are those that name us as this very request does.
    let body = json!({ "requests": [{ "id": "1", "method": "GET", "url": "http://localhost:7/v1.0/me" }] }).to_string();
    let mut here = post("/v1.0/$batch", body.clone());
    here.headers_mut().insert("host", "localhost:7".parse().unwrap());
    assert_eq!(rig.send(here).await.status(), 200);
    rig.graph().clear();
    assert_refused(&rig.send(post("/v1.0/$batch", body)).await, 403, "policy_denied");
    // Another version than the envelope's has a rule of its own, and none here.
    let body = json!({ "requests": [{ "id": "1", "method": "GET", "url": "/me" }] }).to_string();
    assert_refused(&rig.send(post("/beta/$batch", body)).await, 403, "policy_denied");
    rig.assert_nothing_left();
}

/// T109: what a lenient reader of JSON would see otherwise than we do.
#[tokio::test(flavor = "multi_thread")]
async fn t109_a_batch_that_can_be_read_in_two_ways_is_refused() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nread_only = true")).await;
    let good = r#"{"id":"1","method":"GET","url":"/me"}"#;
    for body in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"requests":{}}"#.to_owned(),
        format!(r#"{{"requests":[{good}],"requests":[{{"id":"1","method":"DELETE","url":"/me"}}]}}"#),
        format!(r#"{{"requests":[{good}],"Requests":[{{"id":"1","method":"DELETE","url":"/me"}}]}}"#),
        r#"{"requests":[{"id":"1","method":"GET","method":"DELETE","url":"/me"}]}"#.to_owned(),
        r#"{"requests":[{"id":"1","method":"GET","Method":"DELETE","url":"/me"}]}"#.to_owned(),
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","URL":"/users"}]}"#.to_owned(),
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","headers":{"x-a":"1"},"Headers":{"X-HTTP-Method":"DELETE"}}]}"#.to_owned(),
        format!("\u{feff}{{\"requests\":[{good}]}}"),
        format!(r#"{{"requests":[{good}]}} x"#),
        format!(r#"{{"requests":[{good}"#),
        "x".repeat(5 << 20),
    ] {
        let shown: String = body.chars().take(100).collect();
        let answer = rig.send(post("/v1.0/$batch", body)).await;
        assert!(matches!(answer.status().as_u16(), 400 | 403 | 413), "{shown}: {answer:?}");
        assert!(header(&answer, "bearerd-error").is_some(), "{shown}");
        assert!(rig.seen().is_empty(), "{shown} reached Graph");
    }
    let gzip =
        alice("POST", "/v1.0/$batch").header("content-encoding", "gzip").body(full(vec![0x1f, 0x8b, 8, 0])).unwrap();
    assert_refused(&rig.send(gzip).await, 403, "policy_denied");
    let utf16: Vec<u8> = format!("{{\"requests\":[{good}]}}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_refused(&rig.send(post("/v1.0/$batch", utf16)).await, 400, "bad_request");
    rig.assert_nothing_left();

    let body = format!(r#"{{"requests":[{good}]}}"#);
    assert_eq!(rig.send(post("/v1.0/$batch", body)).await.status(), 200);
}

/// A client without rules is not looked over the shoulder.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_client_without_rules_streams_through() {
    let rig = Rig::start().await;
    let body =
        r#"{"requests":[{"id":"1","method":"DELETE","url":"/me/messages/x"},{"id":"2","method":"GET","url":"/me"}]}"#;
    assert_eq!(rig.send(post("/v1.0/$batch", body)).await.status(), 200);
    assert_eq!(rig.seen_one().body_sha256, sha256(body.as_bytes()));
}

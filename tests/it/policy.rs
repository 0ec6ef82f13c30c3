//! What a client may do: rules of methods and paths, in every spelling, `$batch` members included.

use serde_json::json;

use crate::harness::*;

/// T301, A10: one rule, and every way around it that servers have fallen for.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_gets_around_a_rule() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me\", \"GET /v1.0/me/**\"]")).await;
    for path in [
        "/v1.0/users",
        "/v1.0/me/../users",
        "/v1.0/me/%2e%2e/users",
        "/v1.0/me/..%2fusers",
        "/v1.0/me/..;/users",
        "/v1.0//users",
        "/v1.0/me%5c..%5cusers",
        "/v1.0/me/%252e%252e/users",
        "/v1.0/me%00",
        "/v1.0/meX",
        "/v1.0/mE%2F..%2Fusers",
        "/beta/me",
        "/v1.0/users/../me",
        "/v1.0/%75sers",
        "/v1.0/users('x')",
        "/graph/v1.0/users",
        "/as/alice/v1.0/users",
        "/v1.0/me;/../users",
        "/v1.0/me/%EF%BC%8F..%EF%BC%8Fusers/../..",
    ] {
        let mut wire = rig.wire().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY)))
            .await;
        let answer = wire.answer().await;
        assert!(matches!(answer.status(), 400 | 403 | 404), "{path}: {answer:?}");
        assert!(answer.header("bearerd-error").is_some(), "{path}: {answer:?}");
        assert!(rig.seen().is_empty(), "{path} reached {:#?}", rig.seen());
    }
    for path in ["/v1.0/me", "/v1.0/me/messages?$top=1", "/v1.0/me?x=/v1.0/users"] {
        assert_eq!(rig.get(path).await.status(), 200, "{path}");
        assert_eq!(rig.seen_one().target, path);
        rig.graph().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_is_looked_at_first_in_every_case() {
    let rig = Rig::with(&client(
        "accounts = [\"*\"]\nallow = [\"* /v1.0/**\"]\ndeny = [\"DELETE /**\", \"* /v1.0/me/messages/**\", \"POST /v1.0/me/sendMail\"]",
    ))
    .await;
    for (method, path) in [
        ("DELETE", "/v1.0/me/events/1"),
        ("delete", "/v1.0/me/events/1"),
        ("Delete", "/v1.0/me/events/1"),
        ("GET", "/v1.0/me/messages/1"),
        ("GET", "/v1.0/ME/Messages/1"),
        ("GET", "/v1.0/me/messages('1')"),
        ("GET", "/v1.0/me/mess%61ges/1"),
        ("POST", "/v1.0/me/sendmail"),
        ("POST", "/v1.0/me/sendMail/"),
        ("POST", "/v1.0/me/microsoft.graph.sendMail"),
        ("POST", "/v1.0/me/Microsoft.Graph.SendMail"),
        ("POST", "/v1.0/me/microsoft%2Egraph.sendMail"),
        ("post", "/v1.0/me/sendMail"),
    ] {
        let answer = rig.send(alice(method, path).body(empty()).unwrap()).await;
        assert_refused(&answer, 403, "policy_denied");
    }
    rig.assert_nothing_left();
    assert_eq!(rig.get("/v1.0/me/messages").await.status(), 200, "`/**` is what is below");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_is_get_and_head() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nread_only = true")).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "PROPFIND"] {
        let answer = rig.send(alice(method, "/v1.0/me").body(empty()).unwrap()).await;
        assert_refused(&answer, 403, "policy_denied");
    }
    rig.assert_nothing_left();
    for method in ["GET", "HEAD"] {
        assert_eq!(rig.send(alice(method, "/v1.0/me").body(empty()).unwrap()).await.status(), 200);
    }
    assert_eq!(rig.seen().len(), 2);
}

/// T108: a POST that says it is something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_in_disguise_is_denied_where_there_are_rules_and_stripped_elsewhere() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nallow = [\"POST /v1.0/**\"]")).await;
    for name in ["X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "x-http-method"] {
        let request = alice("POST", "/v1.0/echo").header(name, "DELETE").body(empty()).unwrap();
        assert_refused(&rig.send(request).await, 403, "policy_denied");
    }
    rig.assert_nothing_left();
    let rig = Rig::start().await;
    for name in ["X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override"] {
        let request = alice("POST", "/v1.0/echo").header(name, "DELETE").body(empty()).unwrap();
        assert_eq!(rig.send(request).await.status(), 200);
        let seen = rig.seen_one();
        assert_eq!((seen.method.as_str(), seen.header(name).len()), ("POST", 0));
        rig.graph().clear();
    }
}

/// T109: the members of a batch are requests like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_member_that_may_not_is_denied_before_graph_sees_any_of_it() {
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
async fn a_batch_that_can_be_read_in_two_ways_is_refused() {
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

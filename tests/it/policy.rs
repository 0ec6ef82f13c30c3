//! What a client may do: rules of methods and paths, in every spelling, `$batch` members included.

mod batch;

use serde_json::json;

use crate::harness::*;
use crate::raw_upstream::RawUpstream;

/// What becomes of a path where `GET /v1.0/me` and below are allowed, and where `/v1.0/users` and below are denied.
enum Read {
    /// It is refused, and the answer says why.
    Unclear(&'static str),
    /// It is a path below `/v1.0/me`.
    Me,
    /// It is a path below `/v1.0/users`.
    Users,
    /// It is another one.
    Other,
    /// It may be either, and the stricter counts.
    Careless,
}

/// T301: every spelling that servers have fallen for, and what it is to us.
const SPELLINGS: &[(&str, Read)] = {
    use Read::*;
    const SLASH: Read = Unclear("an encoded slash");
    const DOTS: Read = Unclear("a dot segment");
    const TWICE: Read = Unclear("a doubled encoding");
    const LIKE: Read = Unclear("a character that may count as a slash, a backslash or a dot");
    const CONTROL: Read = Unclear("a control character");
    const PERCENT: Read = Unclear("a percent sign that begins no escape");
    const UTF8: Read = Unclear("bytes that are not UTF-8");
    const EMPTY: Read = Unclear("an empty segment");
    const KEY: Read = Unclear("a key that may count as several segments");
    &[
        // Dot segments.
        ("/v1.0/me/../users", DOTS),
        ("/v1.0/me/%2e%2e/users", DOTS),
        ("/v1.0/me/%2E%2e/users", DOTS),
        ("/v1.0/me/.%2e/users", DOTS),
        ("/v1.0/me/..;/users", DOTS),
        ("/v1.0/me/..;x=1/users", DOTS),
        ("/v1.0/me/..%3Bx/users", DOTS),
        ("/v1.0/me;/../users", DOTS),
        ("/v1.0/me/%252e%252e/users", TWICE),
        ("/v1.0/me/%25252e%25252e/users", TWICE),
        ("/v1.0/me/..%00/users", CONTROL),
        ("/v1.0/me/..%01/users", CONTROL),
        ("/v1.0/me/..%20/users", DOTS),
        ("/v1.0/me/%20../users", DOTS),
        ("/v1.0/me/.%20./users", DOTS),
        ("/v1.0/me/.../users", DOTS),
        ("/v1.0/me/%E2%80%A5/users", DOTS),
        ("/v1.0/./users", DOTS),
        ("/v1.0/me/.", DOTS),
        ("/v1.0/me/%2e/", DOTS),
        ("/v1.0/users/../me", DOTS),
        ("/v1.0/users('x')/..", DOTS),
        ("/v1.0/me/microsoft.graph.../users", DOTS),
        // Slashes and backslashes.
        ("/v1.0/me%2f..%2fusers", SLASH),
        ("/v1.0/mE%2F..%2Fusers", SLASH),
        ("/v1.0/me%2Fx/%2e%2e%2Fusers", SLASH),
        ("/v1.0/me%252f..%252fusers", TWICE),
        ("/v1.0/me%5c..%5cusers", Unclear("an encoded backslash")),
        ("/v1.0/me\\..\\users", Unclear("a backslash")),
        ("/v1.0/me%255c..%255cusers", TWICE),
        ("/v1.0/me%c0%af..%c0%afusers", UTF8),
        ("/v1.0/me%e0%80%af..%e0%80%afusers", UTF8),
        ("/v1.0/me/%c0%ae%c0%ae/users", UTF8),
        ("/v1.0/me%u002f..%u002fusers", PERCENT),
        ("/v1.0/me%25u002f..%25u002fusers", TWICE),
        ("/v1.0/me%EF%BC%8F..%EF%BC%8Fusers", LIKE),
        ("/v1.0/me\u{ff0f}..\u{ff0f}users", LIKE),
        ("/v1.0/me%E2%88%95..%E2%88%95users", LIKE),
        ("/v1.0/me%E2%81%84..%E2%81%84users", LIKE),
        ("/v1.0/me%EF%BC%BC..%EF%BC%BCusers", LIKE),
        ("/v1.0/me/%EF%BC%8E%EF%BC%8E/users", LIKE),
        ("/v1.0/me/%E2%80%A4%E2%80%A4/users", LIKE),
        // Empty segments.
        ("/v1.0//users", EMPTY),
        ("/v1.0///users", EMPTY),
        ("/v1.0/users//", EMPTY),
        ("/v1.0/;x=1/users", EMPTY),
        ("/v1.0/%20/users", EMPTY),
        // Controls, broken text, broken escapes.
        ("/v1.0/users%00", CONTROL),
        ("/v1.0/users%0d%0aX-Y:z", CONTROL),
        ("/v1.0/users%09", CONTROL),
        ("/v1.0/users%7F", CONTROL),
        ("/v1.0/users%C2%85", CONTROL),
        ("/v1.0/%ff", UTF8),
        ("/v1.0/me/%ED%A0%80", UTF8),
        ("/v1.0/users%", PERCENT),
        ("/v1.0/users%zz", PERCENT),
        ("/v1.0/users%2", PERCENT),
        ("/v1.0/%2575sers", TWICE),
        // Spellings of a name.
        ("/v1.0/USERS", Users),
        ("/v1.0/%75sers", Users),
        ("/v1.0/users/", Users),
        ("/v1.0/users;x=1", Careless),
        ("/v1.0/users;x=1/y", Careless),
        ("/v1.0/users%20", Careless),
        ("/v1.0/users.", Careless),
        ("/v1.0/users%3fx", Other),
        ("/v1.0/users%23x", Other),
        ("/v1.0/u%C5%BFers", Other),
        ("/v1.0/meX", Other),
        ("/v1.0/me%2dx", Other),
        ("/graph/v1.0/users", Users),
        ("/as/alice/v1.0/users/x", Users),
        // Spellings of OData.
        ("/v1.0/users('x')", Users),
        ("/v1.0/users(%27x%27)/messages", Users),
        ("/v1.0/users%28'x'%29", Users),
        ("/v1.0/users(id='x')", Users),
        ("/v1.0/users(%20ID%20=%20'x'%20)/messages", Users),
        ("/v1.0/users('O''Neil')", Users),
        ("/v1.0/users()", Users),
        ("/v1.0/users/$count", Users),
        ("/v1.0/microsoft.graph.users/x", Users),
        ("/v1.0/users('x')/microsoft.graph.sendMail()", Users),
        ("/v1.0/users('a/b')", KEY),
        ("/v1.0/users('..')/me", KEY),
        ("/v1.0/users('')", KEY),
        // An account's own id is not `/me`: rules for the one don't cover the other.
        ("/v1.0/users/00000000-0000-0000-0000-000000000001/messages", Users),
        ("/v1.0/me/drive/root:/a%20(1).txt:/content", Me),
        ("/v1.0/me/drive/root%3A/users('x')/a%E2%80%A6", Me),
        ("/v1.0/me/photo/$value", Me),
        ("/v1.0/me/messages('O''Neil')/", Me),
        ("/v1.0/ME/Messages/AAMk%3D%21", Me),
        ("/v1.0/me?x=/../users", Me),
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn t301_every_spelling_of_a_path_is_refused_or_judged_as_graph_reads_it() {
    const _: () = assert!(SPELLINGS.len() >= 90);
    let allowing = Rig::with(&client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me\", \"GET /v1.0/me/**\"]")).await;
    let denying = Rig::with(&client("accounts = [\"*\"]\ndeny = [\"* /v1.0/users\", \"GET /v1.0/users/**\"]")).await;
    for (path, read) in SPELLINGS {
        let (allowed, denied) = match read {
            Read::Me => (true, false),
            Read::Unclear(_) | Read::Users | Read::Careless => (false, true),
            Read::Other => (false, false),
        };
        for (rig, passes) in [(&allowing, allowed), (&denying, !denied)] {
            let mut wire = rig.wire().await;
            let key = basic("alice", KEY);
            wire.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {key}\r\n\r\n")).await;
            let answer = wire.answer().await;
            if passes {
                let forwarded = path.strip_prefix("/graph").unwrap_or(path);
                let seen: Vec<_> = rig.seen().into_iter().map(|seen| seen.target).collect();
                assert_eq!(seen, [forwarded], "byte for byte: {answer:?}");
                rig.graph().clear();
                continue;
            }
            assert!(rig.seen().is_empty(), "{path} reached {:#?}", rig.seen());
            match read {
                Read::Unclear(why) => {
                    let document = assert_refused(&answer.response(), 400, "bad_request");
                    let said = format!("the path can be read in two ways: it has {why}");
                    assert_eq!(document["error"]["message"], said, "{path}");
                }
                _ => drop(assert_refused(&answer.response(), 403, "policy_denied")),
            }
        }
    }
}

/// File names have such characters.
#[tokio::test(flavor = "multi_thread")]
async fn t301_lookalikes_go_out_as_they_came_where_there_are_no_rules() {
    let rig = Rig::start().await;
    for path in ["/v1.0/me/drive/root:/a%EF%BC%8Fb.txt", "/v1.0/me/drive/root:/%EF%BC%8E%EF%BC%8E%E2%88%95x"] {
        rig.get(path).await;
        assert_eq!(rig.seen().last().expect("it was sent").target, path);
    }
    for path in ["/v1.0/me/drive/root:/a%EF%BC%8F%2fb", "/v1.0/me/%EF%BC%8F/../users"] {
        assert_refused(&rig.get(path).await, 400, "bad_request");
    }
    assert_eq!(rig.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn t301_http2_spells_paths_no_better() {
    let rig = Rig::with(&client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me/**\"]")).await;
    for (path, status, code) in [
        ("/v1.0/me/%2e%2e/users", 400, "bad_request"),
        ("/v1.0/me/..;/users", 400, "bad_request"),
        ("/v1.0/me%2F..%2fusers", 400, "bad_request"),
        ("/v1.0/me/%252e%252e/users", 400, "bad_request"),
        ("/v1.0/me%EF%BC%8Fusers", 400, "bad_request"),
        ("/v1.0/users('x')", 403, "policy_denied"),
        ("/v1.0/me/messages;x/../y", 400, "bad_request"),
    ] {
        assert_refused(&rig.send_http2(get(path)).await, status, code);
    }
    let tunnelled = alice("GET", "/v1.0/me/messages").header("x-http-method", "DELETE").body(empty()).unwrap();
    assert_refused(&rig.send_http2(tunnelled).await, 403, "policy_denied");
    rig.assert_nothing_left();
    rig.send_http2(get("/v1.0/me/messages('x')")).await;
    assert_eq!(rig.seen_one().target, "/v1.0/me/messages('x')");
}

/// What a parameter alias stands for is said in the query, which nobody judges.
#[tokio::test(flavor = "multi_thread")]
async fn t301_a_parameter_alias_is_no_way_around_a_rule() {
    let rig = Rig::with(&client("accounts = [\"*\"]\ndeny = [\"* /v1.0/users/x/**\"]")).await;
    for path in ["/v1.0/users(@u)/messages?@u='x'", "/v1.0/users(id=%20@u)/messages?@u='x'", "/v1.0/users(%40u)"] {
        assert_refused(&rig.get(path).await, 403, "policy_denied");
    }
    rig.assert_nothing_left();
    rig.get("/v1.0/users(userPrincipalName='y@contoso.com')/messages").await;
    rig.get("/v1.0/users/@y").await;
    assert_eq!(rig.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_was_denied_and_never_the_rule() {
    let rig =
        Rig::with(&client("accounts = [\"*\"]\nallow = [\"GET /v1.0/me/**\"]\ndeny = [\"* /v1.0/me/sec*\"]")).await;
    for (method, path, message) in [
        ("GET", "/v1.0/me/Secret", "GET /v1.0/me/secret is denied: a rule denies it to this client"),
        ("POST", "/v1.0/me/x", "POST /v1.0/me/x is denied: no rule allows it to this client"),
    ] {
        let answer = rig.send(alice(method, path).body(empty()).unwrap()).await;
        assert_eq!(assert_refused(&answer, 403, "policy_denied")["error"]["message"], message);
    }
    let rig = Rig::with(&client("accounts = [\"*\"]\nread_only = true")).await;
    let answer = rig.send(post("/v1.0/me", "{}")).await;
    let message = "POST /v1.0/me is denied: this client may only read";
    assert_eq!(assert_refused(&answer, 403, "policy_denied")["error"]["message"], message);
}

/// Each upstream has rules of its own, whichever way a request finds it.
#[tokio::test(flavor = "multi_thread")]
async fn rules_of_one_upstream_grant_nothing_of_another() {
    let billing = RawUpstream::ok().await;
    let config = |rules: &str| {
        format!(
            "{}\n[upstreams.billing]\nurl = \"http://localhost:{}\"\nprovider = \"entra\"\nscopes = [\"User.Read\", \"Mail.ReadWrite\", \"Mail.Send\", \"Files.ReadWrite\"]",
            client(&format!("accounts = [\"*\"]\n{rules}")),
            billing.address.port()
        )
    };
    let by_host = |path: &str| {
        let mut request = get(path);
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        request
    };
    let graph = Rig::with(&config("allow = [\"GET /v1.0/**\", \"* /items\"]")).await;
    for path in
        ["/billing/v1.0/me", "/billing/items", "/as/alice/billing/v1.0/me", "/graph/items", "/graph/billing/items"]
    {
        assert_refused(&graph.get(path).await, 403, "policy_denied");
    }
    for path in ["/items", "/billing/v1.0/me"] {
        assert_refused(&graph.send(by_host(path)).await, 403, "policy_denied");
    }
    for member in ["/items", "v1.0/me", "http://127.0.0.1:0/v1.0/me"] {
        let body = json!({ "requests": [{ "id": "1", "method": "POST", "url": member }] }).to_string();
        assert_refused(&graph.send(post("/billing/$batch", body)).await, 403, "policy_denied");
    }
    let absolute = format!("http://localhost:{}/v1.0/me", billing.address.port());
    let body = json!({ "requests": [{ "id": "1", "method": "GET", "url": absolute }] }).to_string();
    assert_refused(&graph.send(post("/v1.0/$batch", body)).await, 403, "policy_denied");
    graph.assert_nothing_left();
    assert!(billing.arrived().is_empty());
    for path in ["/v1.0/me", "/graph/v1.0/me", "/as/alice/graph/v1.0/me"] {
        assert_eq!(graph.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(graph.seen().len(), 3);

    let both = Rig::with(&config("allow = [\"GET /billing/items/*\"]")).await;
    assert_eq!(both.get("/billing/items/1").await.status(), 200);
    assert_eq!(both.get("/as/alice/billing/Items/1").await.status(), 200);
    assert_eq!(both.send(by_host("/items/1")).await.status(), 200);
    assert_refused(&both.get("/graph/billing/items/1").await, 403, "policy_denied");
    assert!(both.seen().is_empty());
    let starts: Vec<_> = billing.arrived().into_iter().map(|arrived| arrived.message.start).collect();
    assert_eq!(starts, ["GET /items/1 HTTP/1.1", "GET /Items/1 HTTP/1.1", "GET /items/1 HTTP/1.1"]);
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

/// T108: a POST that says it is something else, in every spelling that some server takes for the same.
#[tokio::test(flavor = "multi_thread")]
async fn t108_a_method_in_disguise_is_denied_where_there_are_rules_and_stripped_elsewhere() {
    let names = [
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "x-http-method",
        "X_HTTP_METHOD",
        "x-http_method-override",
        "X_Method_Override",
    ];
    let send = async |rig: &Rig, name: &str| {
        let key = basic("alice", KEY);
        let head =
            format!("POST /v1.0/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {key}\r\nContent-Length: 0\r\n");
        let mut wire = rig.wire().await;
        wire.send(format!("{head}{name}: DELETE\r\n\r\n")).await;
        wire.answer().await
    };
    for rules in ["allow = [\"* /v1.0/**\"]", "deny = [\"DELETE /**\"]", "read_only = true"] {
        let rig = Rig::with(&client(&format!("accounts = [\"*\"]\n{rules}"))).await;
        for name in names {
            assert_refused(&send(&rig, name).await.response(), 403, "policy_denied");
        }
        rig.assert_nothing_left();
    }
    let rig = Rig::start().await;
    for name in names {
        assert_eq!(send(&rig, name).await.status(), 200, "{name}");
        let seen = rig.seen_one();
        assert_eq!((seen.method.as_str(), seen.header(name).len()), ("POST", 0), "{name}");
        rig.graph().clear();
    }
}

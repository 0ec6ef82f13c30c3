//! Faults on the wire: each effect at the token endpoint and at Graph, and the switches for outsiders.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, Gate, Place, Rotation, TokenFault};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::{self, get, graph, refresh, sandbox, send, soon, try_graph, try_token};

async fn outcome(sandbox: &bearerd::sandbox::Sandbox, refresh_token: &str) -> Option<u16> {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    try_token(&sandbox.entra, &fields).await.ok().map(|reply| reply.status.as_u16())
}

#[tokio::test]
async fn errors_of_the_token_endpoint() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let claims = r#"{"access_token":{"polids":{"essential":true,"values":["p"]}}}"#;
    for (fault, status, error, suberror) in [
        (TokenFault::aadsts(50173), 400, "invalid_grant", json!("bad_token")),
        (TokenFault::aadsts(50079).with_claims(claims), 400, "interaction_required", json!("basic_action")),
        (TokenFault::aadsts(7_000_215), 401, "invalid_client", json!(null)),
        (TokenFault::aadsts(50196), 400, "invalid_grant", json!(null)),
        (TokenFault::named("slow_down").unwrap(), 400, "slow_down", json!(null)),
    ] {
        let expected = fault.claims.clone();
        sandbox.faults().push(Fault::token(Effect::Error(fault)));
        let reply = refresh(&sandbox.entra, &grant.refresh_token).await;
        let body = reply.json();
        assert_eq!((reply.status.as_u16(), &body["error"], &body["suberror"]), (status, &json!(error), &suberror));
        assert_eq!(body["claims"].as_str(), expected.as_deref());
    }
    sandbox.faults().push(Fault::token(Effect::html(503, Some("30,120"))));
    let reply = refresh(&sandbox.entra, &grant.refresh_token).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "30,120"));
    assert!(reply.body.starts_with(b"<html>"));
    assert_eq!(sandbox.entra.refresh_token(&grant.refresh_token).unwrap().redeemed, 0, "nothing was done");
    assert_eq!(refresh(&sandbox.entra, &grant.refresh_token).await.status, 200);
}

#[tokio::test]
async fn colours_of_the_token_answer() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    for effect in [Effect::NoRefreshToken, Effect::ExpiresInString, Effect::RefreshIn(7), Effect::ExpiresIn(60)] {
        sandbox.faults().push(Fault::token(effect));
    }
    let body = refresh(&sandbox.entra, &grant.refresh_token).await.json();
    assert_eq!((&body["refresh_token"], &body["expires_in"]), (&json!(null), &json!("60")));
    assert_eq!(body["refresh_in"], 7);
    let body = refresh(&sandbox.entra, &grant.refresh_token).await.json();
    assert_eq!((body["refresh_token"].is_string(), &body["expires_in"]), (true, &json!(3600)));
}

#[tokio::test]
async fn an_answer_that_is_lost_before_or_after_the_rotation() {
    let (sandbox, _) = sandbox();
    let redeemed = |token: &str| sandbox.entra.refresh_token(token).unwrap().redeemed;
    for (effect, done, record) in [
        (Effect::DropBefore, 0, "dropped before"),
        (Effect::DropAfter, 1, "dropped after"),
        (Effect::DropAfterHead, 1, "dropped after the head"),
        (Effect::CutBody, 1, "cut in the body"),
        (Effect::Raw(Bytes::from_static(b"HTTP/1.1 2")), 1, "raw bytes"),
    ] {
        let grant = sandbox.grant("alice").unwrap();
        sandbox.faults().push(Fault::token(effect.clone()).for_user("alice"));
        let other = sandbox.grant("bob").unwrap();
        assert_eq!(outcome(&sandbox, &other.refresh_token).await, Some(200), "not for bob");
        assert_eq!(outcome(&sandbox, &grant.refresh_token).await, None, "{effect:?}");
        assert_eq!(redeemed(&grant.refresh_token), done, "{effect:?}");
        assert_eq!(sandbox.entra.token_requests().pop().unwrap().outcome, record);
        assert_eq!(outcome(&sandbox, &grant.refresh_token).await, Some(200));
    }
}

#[tokio::test]
async fn a_gate_holds_requests_until_it_opens() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let (before, after) = (Gate::shut(), Gate::shut());
    sandbox.faults().push(Fault::token(Effect::Hold(before.clone())).always());
    sandbox.faults().push(Fault::token(Effect::HoldAnswer(after.clone())).always());
    let asking = {
        let (entra, token) = (sandbox.entra.clone(), grant.refresh_token.clone());
        bearerd::tasks::spawn_here(async move { refresh(&entra, &token).await.status.as_u16() })
    };
    let redeemed = || sandbox.entra.refresh_token(&grant.refresh_token).unwrap().redeemed;
    soon(async {
        before.arrived(1).await;
        assert_eq!(redeemed(), 0);
        before.open();
        after.arrived(1).await;
        assert_eq!((redeemed(), after.count()), (1, 1));
        after.open();
        assert_eq!(asking.await.unwrap(), 200);
    })
    .await;
}

#[tokio::test]
async fn faults_of_discovery_keys_and_the_page() {
    let (sandbox, _) = sandbox();
    let to = sandbox.entra.address();
    for (place, target) in [
        (Place::Discovery, "/common/v2.0/.well-known/openid-configuration"),
        (Place::Keys, "/common/discovery/v2.0/keys"),
        (Place::Authorize, "/common/oauth2/v2.0/authorize"),
    ] {
        sandbox.faults().push(Fault::at(place.clone(), Effect::html(500, None)).times(2));
        for _ in 0..2 {
            assert_eq!(get(to, target).await.status, 500, "{place:?}");
        }
        assert_ne!(get(to, target).await.status, 500);
    }
    assert_eq!((sandbox.entra.discovery_fetches(), sandbox.entra.jwks_fetches()), (3, 3));
}

#[tokio::test]
async fn faults_of_graph() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let ask = async |target: &str| graph(&sandbox.graph, &token, "GET", target, "").await;
    sandbox.faults().push(Fault::graph("/v1.0/me/messages", Effect::graph_error(429, Some("0.249"))).times(2));
    assert_eq!(ask("/v1.0/me").await.status, 200);
    for _ in 0..2 {
        let reply = ask("/v1.0/me/messages").await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "0.249"));
        assert_eq!(reply.json()["error"]["code"], "TooManyRequests");
    }
    assert_eq!(ask("/v1.0/me/messages").await.status, 200);
    for status in [403, 503, 504] {
        sandbox.faults().push(Fault::graph("/", Effect::graph_error(status, None)));
        assert_eq!(ask("/v1.0/me").await.status.as_u16(), status);
    }
    sandbox.graph.clear();
    let garbage = Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}");
    for (effect, status_sent) in [
        (Effect::DropBefore, 0),
        (Effect::DropAfter, 0),
        (Effect::DropAfterHead, 201),
        (Effect::CutBody, 201),
        (Effect::Raw(garbage), 0),
    ] {
        sandbox.faults().push(Fault::graph("/v1.0/me/messages", effect.clone()));
        let sent = try_graph(&sandbox.graph, &token, "POST", "/v1.0/me/messages", r#"{"subject":"lost"}"#).await;
        assert!(sent.is_err(), "{effect:?}");
        assert_eq!(sandbox.graph.requests().pop().unwrap().status_sent, status_sent, "{effect:?}");
    }
    let page = ask("/v1.0/me/messages?$top=50").await.json();
    let lost = page["value"].as_array().unwrap().iter().filter(|mail| mail["subject"] == "lost").count();
    assert_eq!(lost, 4, "everything but the first was done");
}

#[tokio::test]
async fn an_answer_without_reading_the_body() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    sandbox.entra.revoke_access_tokens("alice");
    sandbox.faults().push(Fault::graph("/v1.0/echo", Effect::Unread));
    let reply = graph(&sandbox.graph, &token, "POST", "/v1.0/echo", &"x".repeat(1000)).await;
    assert_eq!(reply.status, 401);
    let seen = sandbox.graph.requests().pop().unwrap();
    assert_eq!((seen.body_len, seen.body_complete, seen.status_sent), (0, false, 401));
}

#[tokio::test]
async fn a_refused_token_uses_up_no_fault() {
    let (sandbox, _) = sandbox();
    sandbox.faults().push(Fault::graph("/", Effect::graph_error(503, None)));
    assert_eq!(graph(&sandbox.graph, "at_made_up", "GET", "/v1.0/me", "").await.status, 401);
    assert_eq!(sandbox.faults().waiting(), 1);
}

#[tokio::test]
async fn servers_go_down_and_come_back_with_what_they_knew() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    soon(async {
        sandbox.entra.down().await;
        sandbox.graph.down().await;
    })
    .await;
    assert!(tokio::net::TcpStream::connect(sandbox.entra.address()).await.is_err());
    assert!(tokio::net::TcpStream::connect(sandbox.graph.address()).await.is_err());
    sandbox.entra.up().unwrap();
    sandbox.graph.up().unwrap();
    assert_eq!(refresh(&sandbox.entra, &grant.refresh_token).await.status, 200);
    assert_eq!(graph(&sandbox.graph, &grant.access_token, "GET", "/v1.0/me", "").await.status, 200);
}

#[tokio::test]
async fn switches_for_outsiders() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    for to in [sandbox.entra.address(), sandbox.graph.address()] {
        let post = async |target: &str, body: &'static str| send(to, "POST", target, &[], body).await.unwrap();
        let pushed = post("/_sandbox/fault", "token:invalid_grant,graph:429=7").await;
        assert_eq!((pushed.status.as_u16(), &pushed.json()["waiting"]), (200, &json!(2)));
        assert_eq!(refresh(&sandbox.entra, &grant.refresh_token).await.json()["error"], "invalid_grant");
        let reply = graph(&sandbox.graph, &grant.access_token, "GET", "/v1.0/me", "").await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "7"));
        let wrong = post("/_sandbox/fault", "token:sideways").await;
        assert_eq!(wrong.status, 400);
        assert!(wrong.json()["error"].as_str().unwrap().contains("token:sideways"));
        assert_eq!(get(to, "/_sandbox/requests").await.json().as_array().unwrap().len(), 1);
        assert_eq!(post("/_sandbox/clear", "").await.status, 200);
        assert!(get(to, "/_sandbox/requests").await.json().as_array().unwrap().is_empty());
        assert_eq!(post("/_sandbox/revoke?user=nobody", "").await.status, 404);
        assert_eq!(post("/_sandbox/revoke?user=alice&what=some", "").await.status, 400);
        sandbox.entra.clear();
        sandbox.graph.clear();
    }
    graph(&sandbox.graph, &grant.access_token, "GET", "/v1.0/me", "").await;
    let shown = get(sandbox.graph.address(), "/_sandbox/requests").await;
    assert!(!String::from_utf8_lossy(&shown.body).contains(&grant.access_token[..40]), "no token in full");
    let revoke = async |what: &str| {
        let target = format!("/_sandbox/revoke?user=alice{what}");
        assert_eq!(send(sandbox.graph.address(), "POST", &target, &[], "").await.unwrap().status, 200);
    };
    revoke("&what=access").await;
    assert_eq!(graph(&sandbox.graph, &grant.access_token, "GET", "/v1.0/me", "").await.status, 401);
    assert_eq!(refresh(&sandbox.entra, &grant.refresh_token).await.status, 200);
    revoke("").await;
    assert_eq!(refresh(&sandbox.entra, &grant.refresh_token).await.json()["error_codes"], json!([50173]));
}

#[tokio::test]
async fn many_are_signed_in_at_once() {
    let (sandbox, _) = sandbox();
    let rows = async |query: &str| {
        let reply = get(sandbox.entra.address(), &format!("/_sandbox/grants{query}")).await;
        assert_eq!(reply.status, 200);
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let all = rows("").await;
    assert_eq!(all.len(), sandbox.entra.options().users.len());
    let one = rows("?skip=1&count=1").await;
    assert_eq!((one.len(), &one[0]["alias"], &one[0]["oid"]), (1, &json!("bob"), &all[1]["oid"]));
    assert_eq!(one[0]["tid"], sandbox.entra.options().tenant);
    assert!(one[0]["expires_at"].as_i64().unwrap() > client::START.secs());
    let text = |name: &str| one[0][name].as_str().unwrap().to_owned();
    assert_eq!(graph(&sandbox.graph, &text("access_token"), "GET", "/v1.0/me", "").await.status, 200);
    assert_eq!(refresh(&sandbox.entra, &text("refresh_token")).await.status, 200);
    assert_eq!(get(sandbox.entra.address(), "/_sandbox/grants?count=x").await.status, 400);
}

#[tokio::test]
async fn the_options_reach_the_servers() {
    let clock = bearerd::clock::Clock::manual(client::START);
    let options = bearerd::sandbox::Options {
        users: 1000,
        rotation: Rotation::Strict,
        token_life: Duration::from_secs(5),
        faults: Fault::parse_list("token:503").unwrap(),
        ..bearerd::sandbox::Options::default()
    };
    let sandbox = bearerd::sandbox::Sandbox::start(options, &clock, &client::here()).unwrap();
    let grant = sandbox.grant("user1000").unwrap();
    assert_eq!(grant.expires_in, Duration::from_secs(5));
    assert_eq!(outcome(&sandbox, &grant.refresh_token).await, Some(503));
    assert_eq!(outcome(&sandbox, &grant.refresh_token).await, Some(200));
    assert_eq!(outcome(&sandbox, &grant.refresh_token).await, Some(400));
    let oids: std::collections::HashSet<_> = sandbox.entra.options().users.iter().map(|user| &user.oid).collect();
    assert_eq!(oids.len(), 1000);
}

/// What is typed is what happens: a fault's text, and what the client reads at the token endpoint.
#[tokio::test]
async fn faults_of_the_token_endpoint_as_typed() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let after = |text: &str| {
        sandbox.faults().push(Fault::parse(text).unwrap());
        refresh(&sandbox.entra, &grant.refresh_token)
    };
    for (text, retry_after) in [
        ("token:429", ""),
        ("token:429=30", "30"),
        ("token:429=0.249", "0.249"),
        ("token:429=30+120", "30,120"),
        ("token:429=soon", "soon"),
        ("token:503=date+30", "Fri, 15 Jan 2027 08:00:30 GMT"),
        ("token:503=date-30", "Fri, 15 Jan 2027 07:59:30 GMT"),
        ("token:90055=60", "60"),
    ] {
        let reply = after(text).await;
        assert_eq!(reply.header("retry-after"), retry_after, "{text}");
        assert!(reply.status == 429 || reply.status == 503, "{text}");
    }
    for (text, error, suberror, code) in [
        ("token:invalid_grant", "invalid_grant", json!("bad_token"), json!(50173)),
        ("token:50076/additional_action", "invalid_grant", json!("additional_action"), json!(50076)),
        ("token:error=invalid_grant/client_mismatch", "invalid_grant", json!("client_mismatch"), json!(null)),
        ("token:error=invalid_client", "invalid_client", json!(null), json!(null)),
        ("token:error=never_heard_of", "never_heard_of", json!(null), json!(null)),
        ("token:123456", "invalid_grant", json!(null), json!(123_456)),
    ] {
        let body = after(text).await.json();
        let said = (&body["error"], &body["suberror"], &body["error_codes"][0]);
        assert_eq!(said, (&json!(error), &suberror, &code), "{text}");
    }
    assert!(after("token:50076=claims").await.json()["claims"].as_str().unwrap().contains("polids"));
    let page = after("token:html").await;
    assert!(page.status == 200 && page.body.starts_with(b"<html>"));
    let broken = after("token:not-json").await;
    assert_eq!(broken.header("content-type"), "application/json; charset=utf-8");
    assert!(serde_json::from_slice::<serde_json::Value>(&broken.body).is_err());
    assert!(after("token:no-expires").await.json()["expires_in"].is_null());
    assert_eq!(after("token:expires-string").await.json()["expires_in"], "3600");
    assert_eq!(after("token:slow=1").await.status, 200);
    for text in ["token:closed", "token:half", "token:garbage", "token:drop-head"] {
        sandbox.faults().push(Fault::parse(text).unwrap());
        assert_eq!(outcome(&sandbox, &grant.refresh_token).await, None, "{text}");
    }
    assert_eq!(sandbox.faults().waiting(), 0);
}

/// Every row of the table of errors, by its number.
#[tokio::test]
async fn every_error_by_its_number() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let table = bearerd::sandbox::entra::aadsts_table();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    assert!(rows.len() > 80);
    for row in rows {
        let [code, status, error, suberror] = row[..] else { panic!("{row:?}") };
        sandbox.faults().push(Fault::parse(&format!("token:{code}")).unwrap());
        let reply = refresh(&sandbox.entra, &grant.refresh_token).await;
        let body = reply.json();
        assert_eq!((reply.status.as_str(), body["error"].as_str()), (status, Some(error)), "{code}");
        assert_eq!(body["suberror"].as_str().unwrap_or_default(), suberror, "{code}");
        assert_eq!(body["error_codes"][0].to_string(), code);
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
        assert_eq!(sandbox.entra.token_requests().pop().unwrap().outcome, format!("{status} {error} {code}"));
    }
    assert_eq!(sandbox.entra.refresh_token(&grant.refresh_token).unwrap().redeemed, 0);
}

#[tokio::test]
async fn a_server_that_goes_down_when_it_is_asked() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    sandbox.faults().push(Fault::parse("token:down=3600000").unwrap());
    assert_eq!(outcome(&sandbox, &grant.refresh_token).await, None);
    soon(async {
        while tokio::net::TcpStream::connect(sandbox.entra.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(graph(&sandbox.graph, &grant.access_token, "GET", "/v1.0/me", "").await.status, 200, "Graph is up");
    sandbox.entra.up().unwrap();
    assert_eq!(outcome(&sandbox, &grant.refresh_token).await, Some(200));
    sandbox.faults().push(Fault::parse("graph:down=1").unwrap());
    assert!(try_graph(&sandbox.graph, &grant.access_token, "GET", "/v1.0/me", "").await.is_err());
    soon(async {
        // Down is only seen now and then; up again for sure.
        while tokio::net::TcpStream::connect(sandbox.graph.address()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn faults_of_keys_as_typed() {
    let (sandbox, _) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let keys = async || {
        let body = get(sandbox.entra.address(), "/common/discovery/v2.0/keys").await.json();
        body["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = keys().await;
    let push = |text: &str| sandbox.faults().push(Fault::parse(text).unwrap());
    push("keys:only=first");
    push("keys:only=none");
    let first = keys().await;
    assert_eq!((all.len(), first.len()), (3, 1));
    push("token:sign-with=second");
    let body = refresh(&sandbox.entra, &grant.refresh_token).await.json();
    let unknown = client::verified(&sandbox.entra, body["id_token"].as_str().unwrap()).await.unwrap().0["kid"].clone();
    assert!(unknown != first[0].as_str() && all.iter().any(|kid| unknown == kid.as_str()));
    push("token:id-token=unknown-key");
    let body = refresh(&sandbox.entra, &grant.refresh_token).await.json();
    assert_eq!(client::verified(&sandbox.entra, body["id_token"].as_str().unwrap()).await.unwrap_err(), "kid");
}

#[tokio::test]
async fn faults_of_graph_as_typed() {
    use base64::Engine as _;
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let after = |text: &str| {
        Fault::parse_list(text).unwrap().into_iter().for_each(|fault| sandbox.faults().push(fault));
        graph(&sandbox.graph, &token, "GET", "/v1.0/me", "")
    };
    let limited = after("graph:429=date+60").await;
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, "Fri, 15 Jan 2027 08:01:00 GMT"));
    assert!(after("graph:claims").await.header("www-authenticate").contains("insufficient_claims"));
    let wanted = r#"{"access_token":{"acrs":{"essential":true,"value":"c7"}}}"#;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(wanted);
    let challenged = after(&format!("graph:claims={encoded},graph:challenge=raw")).await;
    assert!(challenged.header("www-authenticate").replace('\\', "").contains(wanted));
    assert_eq!(after("graph:claims,graph:challenge=403").await.status, 403);
    assert_eq!(after("graph/v1.0/users:500,graph/v1.0/me:504").await.status, 504);
}

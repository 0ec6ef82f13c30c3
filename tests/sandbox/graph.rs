//! Graph: who may ask, what it answers, and what it puts on record.

use std::time::Duration;

use bearerd::sandbox::{Denial, Effect, Fault, Graph, GraphOptions};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::client::{self, graph, graph_with, sandbox, send, soon};

const SCOPE: &str = "offline_access User.Read";

/// Path and query of an absolute link.
fn target(link: &Value, origin: &Url) -> String {
    let link = link.as_str().expect("a link");
    let rest = link.strip_prefix(origin.as_str().trim_end_matches('/')).expect("a link to the origin");
    rest.to_owned()
}

/// The claims of a challenge.
fn challenge(reply: &client::Reply) -> Option<Value> {
    use base64::Engine as _;
    let (_, rest) = reply.header("www-authenticate").split_once("claims=\"")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest.split_once('"')?.0).unwrap();
    Some(serde_json::from_slice(&decoded).unwrap())
}

#[tokio::test]
async fn every_kind_of_401_has_its_shape() {
    let (sandbox, clock) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let ask = async |value: Option<&str>| {
        let headers: Vec<_> = value.map(|value| ("authorization", value)).into_iter().collect();
        send(sandbox.graph.address(), "GET", "/v1.0/me", &headers, "").await.unwrap()
    };
    let check = |reply: &client::Reply, message: &str| {
        assert_eq!(reply.status, 401);
        let error = &reply.json()["error"];
        assert_eq!((&error["code"], &error["message"]), (&json!("InvalidAuthenticationToken"), &json!(message)));
        for inner in ["date", "request-id", "client-request-id"] {
            assert!(error["innerError"][inner].is_string(), "{inner}");
        }
        let expected = format!(
            "Bearer realm=\"\", authorization_uri=\"{}common/oauth2/authorize\", \
             client_id=\"00000003-0000-0000-c000-000000000000\"",
            sandbox.entra.origin()
        );
        assert!(reply.header("www-authenticate").starts_with(&expected));
    };
    let bearer = |token: &str| format!("Bearer {token}");
    check(&ask(None).await, "Access token is empty.");
    let malformed = "CompactToken parsing failed with error code: 80049217";
    check(&ask(Some("Basic YTpi")).await, malformed);
    check(&ask(Some("Bearer Bearer x")).await, malformed);
    check(&ask(Some(&bearer(&grant.access_token[..2000]))).await, malformed);
    let other = sandbox.entra.grant("alice", "https://other.example/.default").unwrap();
    check(&ask(Some(&bearer(&other.access_token))).await, "Access token validation failure. Invalid audience.");
    sandbox.entra.revoke_access_tokens("alice");
    let revoked = ask(Some(&bearer(&grant.access_token))).await;
    check(&revoked, "Access token has been revoked.");
    assert_eq!(challenge(&revoked), None, "the client never said that it understands challenges");
    let late = sandbox.grant("bob").unwrap();
    clock.advance(Duration::from_hours(1));
    check(&ask(Some(&bearer(&late.access_token))).await, "Lifetime validation failed, the token is expired.");
    let seen = sandbox.graph.requests();
    assert_eq!(seen.last().unwrap().user.as_deref(), Some("bob"), "whose it is is known, though it is refused");
    assert!(seen.iter().all(|seen| seen.status_sent == 401 && seen.token_id.is_none()));
}

#[tokio::test]
async fn a_revocation_is_a_challenge_to_clients_that_understand_it() {
    let (sandbox, clock) = sandbox();
    let grant = sandbox.grant("alice").unwrap();
    let claims = r#"{"access_token":{"xms_cc":{"values":["CP1"]}}}"#;
    let fields = [("grant_type", "refresh_token"), ("refresh_token", grant.refresh_token.as_str()), ("claims", claims)];
    let capable = client::token(&sandbox.entra, &fields).await.json();
    clock.advance(Duration::from_secs(5));
    sandbox.entra.revoke_access_tokens("alice");
    let reply = graph(&sandbox.graph, capable["access_token"].as_str().unwrap(), "GET", "/v1.0/me", "").await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").contains("error=\"insufficient_claims\""));
    let revoked_at = (client::START.secs() + 5).to_string();
    let wanted = json!({ "access_token": { "nbf": { "essential": true, "value": revoked_at } } });
    assert_eq!(challenge(&reply).unwrap(), wanted);

    let step_up = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
    sandbox.faults().push(Fault::graph("/", Effect::Denied(Denial::Claims(step_up.to_owned()))));
    let fresh = client::refresh(&sandbox.entra, &grant.refresh_token).await.json();
    let reply = graph(&sandbox.graph, fresh["access_token"].as_str().unwrap(), "GET", "/v1.0/me", "").await;
    assert_eq!(challenge(&reply).unwrap(), serde_json::from_str::<Value>(step_up).unwrap());
}

#[tokio::test]
async fn me_and_users() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let ask = async |target: &str| graph(&sandbox.graph, &token, "GET", target, "").await;
    let me = ask("/v1.0/me").await;
    assert_eq!((me.status.as_u16(), &me.json()["mail"]), (200, &json!("alice@contoso.example")));
    assert_eq!(me.header("odata-version"), "4.0");
    assert_eq!(me.header("strict-transport-security"), "max-age=31536000");
    assert!(me.header("x-ms-ags-diagnostic").starts_with("{\"ServerInfo\""));
    assert_eq!(me.header("request-id"), me.header("client-request-id"));
    assert!(me.headers.get("access-control-allow-origin").is_none());
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("origin", "https://x.example"), ("client-request-id", "mine")];
    let cors = send(sandbox.graph.address(), "GET", "/beta/me?$select=displayName", &headers, "").await.unwrap();
    assert_eq!((cors.header("access-control-allow-origin"), cors.header("client-request-id")), ("*", "mine"));
    assert!(cors.json()["mail"].is_null() && cors.json()["displayName"].is_string());
    assert_eq!(ask("/v1.0/users").await.json()["value"].as_array().unwrap().len(), 2);
    let bob = sandbox.entra.user("bob").unwrap();
    assert_eq!(ask(&format!("/v1.0/users/{}", bob.oid)).await.json()["displayName"], json!(bob.name));
    assert_eq!(ask("/v1.0/users/nobody").await.status, 404);
    assert_eq!(ask("/v1.0/users/bob/messages").await.status, 403);
    assert_eq!(ask("/v1.0/users/alice@contoso.example/messages").await.status, 200);
    assert_eq!(ask("/v1.0/planets").await.status, 400);
    assert_eq!(ask("/v3.0/me").await.status, 400);
}

#[tokio::test]
async fn all_mail_can_be_read_page_by_page() {
    let public = Url::parse("https://graph.microsoft.com").unwrap();
    for (options, origin) in [
        (GraphOptions::default(), None),
        (
            GraphOptions { public_origin: Some(public.clone()), link_padding: 8000, ..GraphOptions::default() },
            Some(public),
        ),
    ] {
        let (entra, server) = graph_with(options);
        let token = entra.grant("alice", SCOPE).unwrap().access_token;
        let origin = origin.unwrap_or_else(|| server.origin());
        for first in ["/v1.0/me/messages", "/v1.0/me/messages?%24top=4&$select=subject", "/beta/me/messages/delta"] {
            let mut next = first.to_owned();
            let mut subjects = Vec::new();
            let last = loop {
                let page = graph(&server, &token, "GET", &next, "").await;
                assert_eq!(page.status, 200, "{next}");
                let page = page.json();
                subjects.extend(page["value"].as_array().unwrap().iter().map(|mail| mail["subject"].to_string()));
                if page["@odata.nextLink"].is_null() {
                    break page;
                }
                next = target(&page["@odata.nextLink"], &origin);
                for piece in ["%2B", "%2F", "%3D"] {
                    assert!(next.contains(piece), "{next}");
                }
            };
            subjects.sort();
            subjects.dedup();
            assert_eq!(subjects.len(), 25, "{first}");
            assert_eq!(last["@odata.deltaLink"].is_string(), first.contains("delta"));
        }
    }
}

#[tokio::test]
async fn a_paging_token_is_good_only_as_it_was_given() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let page = graph(&sandbox.graph, &token, "GET", "/v1.0/me/messages?$top=5", "").await.json();
    let next = target(&page["@odata.nextLink"], &sandbox.graph.origin());
    assert!(next.contains("$top=5&$skiptoken="));
    let recoded = next.replace("%2B", "%2b");
    assert_eq!(graph(&sandbox.graph, &token, "GET", &recoded, "").await.status, 400);
    for bad in ["$top=0", "$top=many", "$skiptoken=1"] {
        assert_eq!(graph(&sandbox.graph, &token, "GET", &format!("/v1.0/me/messages?{bad}"), "").await.status, 400);
    }
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("prefer", "odata.maxpagesize=3")];
    let page = send(sandbox.graph.address(), "GET", "/v1.0/me/messages", &headers, "").await.unwrap().json();
    assert_eq!(page["value"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn mail_is_written_changed_and_deleted() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let ask = async |method: &str, target: &str, body: &str| graph(&sandbox.graph, &token, method, target, body).await;
    let made = ask("POST", "/v1.0/me/messages", r#"{"subject":"new"}"#).await;
    assert_eq!(made.status, 201);
    assert!(made.header("location").starts_with(sandbox.graph.origin().as_str()));
    let path = format!("/v1.0/me/messages/{}", made.json()["id"].as_str().unwrap().replace('=', "%3D"));
    assert_eq!(ask("PATCH", &path, r#"{"isRead":false,"id":"x"}"#).await.json()["isRead"], false);
    let bearer = format!("Bearer {token}");
    let etag = made.json()["@odata.etag"].as_str().unwrap().to_owned();
    let stale = [("authorization", bearer.as_str()), ("if-match", etag.as_str())];
    assert_eq!(send(sandbox.graph.address(), "DELETE", &path, &stale, "").await.unwrap().status, 412);
    assert_eq!(ask("DELETE", &path, "").await.status, 204);
    assert_eq!(ask("GET", &path, "").await.status, 404);
    assert_eq!(ask("POST", "/v1.0/me/sendMail", r#"{"message":{"subject":"hi"}}"#).await.status, 202);
    assert_eq!(ask("POST", "/v1.0/me/sendMail", "{}").await.status, 400);
    assert_eq!(ask("POST", "/v1.0/me/sendMail", "no json").await.status, 400);
    let folders = ask("GET", "/v1.0/me/mailFolders", "").await.json();
    assert_eq!(
        (&folders["value"][0]["displayName"], &folders["value"][0]["totalItemCount"]),
        (&json!("Inbox"), &json!(25))
    );
    let raw = ask("GET", "/v1.0/me/messages/AAMkAGI1-alice-0003%3D/$value", "").await;
    assert_eq!((raw.status.as_u16(), raw.header("content-type")), (200, "text/plain"));
}

#[tokio::test]
async fn the_echo_and_the_record_say_what_arrived() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("x-twice", "1"), ("x-twice", "2")];
    let body = "x".repeat(300_000);
    let target = "/v1.0/echo/a%2Fb/('c')?$filter=x%20eq%201&%24top=1";
    let reply = send(sandbox.graph.address(), "PROPFIND", target, &headers, body.clone()).await.unwrap().json();
    let digest = format!("{:x}", Sha256::digest(&body));
    assert_eq!((&reply["method"], &reply["target"]), (&json!("PROPFIND"), &json!(target)));
    assert_eq!((&reply["body_len"], &reply["body_sha256"]), (&json!(300_000), &json!(digest)));
    let seen = sandbox.graph.requests().pop().unwrap();
    assert_eq!((seen.target.as_str(), seen.header("x-twice")), (target, vec!["1", "2"]));
    assert_eq!((seen.user.as_deref(), seen.status_sent, seen.body_sha256), (Some("alice"), 200, digest));
    let number: u64 = token[3..15].parse().unwrap();
    assert_eq!(seen.token_id, Some(number));
    sandbox.graph.clear();
    assert!(sandbox.graph.requests().is_empty());
}

#[tokio::test]
async fn long_and_slow_answers() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let bulk = graph(&sandbox.graph, &token, "GET", "/v1.0/stream?bytes=2500000&chunk=7000", "").await;
    assert_eq!((bulk.body.len(), bulk.header("transfer-encoding")), (2_500_000, "chunked"));
    let sized = graph(&sandbox.graph, &token, "GET", "/v1.0/stream?bytes=10&chunk=7&sized=1", "").await;
    assert_eq!((&*sized.body, sized.header("content-length")), (&b"bbbbbbbbbb"[..], "10"));

    soon(async {
        let mut events = listen(&sandbox.graph, &token).await;
        for text in ["one", "two"] {
            assert_eq!(sandbox.graph.say(text), 1);
            let frame = events.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, format!("data: {text}\n\n"));
        }
        sandbox.graph.hang_up();
        assert!(events.frame().await.is_none());
        let ticks = graph(&sandbox.graph, &token, "GET", "/v1.0/sse?count=3&interval=1", "").await;
        assert_eq!(ticks.body, "data: tick 1\n\ndata: tick 2\n\ndata: tick 3\n\n");
    })
    .await;
}

/// The body of an open event stream.
async fn listen(graph: &Graph, token: &str) -> hyper::body::Incoming {
    let stream = tokio::net::TcpStream::connect(graph.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    bearerd::tasks::spawn_here(connection);
    let request = http::Request::get("/v1.0/sse")
        .header("host", graph.address().to_string())
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    sender.send_request(request).await.unwrap().into_body()
}

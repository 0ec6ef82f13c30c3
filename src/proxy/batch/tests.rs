//! What a member may say, what becomes of it, and who may send it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::members::Members;
use super::*;
use crate::account::Alias;
use crate::config::{Config, Identity, Upstream};
use crate::proxy::caller::tests::client;
use crate::proxy::naming::Naming;
use crate::proxy::policy::tests::policy;
use crate::proxy::route::tests::routes;
use crate::proxy::subject::Caller;
use crate::vault::Subject;

const ORIGIN: &str = "https://graph.microsoft.com";

/// The text that goes out: for Alice, whose request came by `target`.
fn cleaned(policy: Option<&Policy>, target: &str, body: &str) -> Result<Option<String>, (Kind, String)> {
    cleaned_for(&graph(""), policy, target, body)
}

/// The same, for an upstream with these options.
fn cleaned_for(
    upstream: &Upstream,
    rules: Option<&Policy>,
    target: &str,
    body: &str,
) -> Result<Option<String>, (Kind, String)> {
    let (upstreams, routes) = ([ORIGIN.to_owned(), "https://billing.example".to_owned()], routes());
    let naming = Naming::of("http://127.0.0.1:8080", &upstreams, &routes);
    let route = routes.find(target, None).unwrap();
    let terms = Terms {
        naming: &naming,
        route: &route,
        path: &route.canonical().unwrap(),
        caller: &Caller::known(Arc::new(client(Identity::User, &["*"]))),
        subject: &Subject::User(Alias::new("alice").unwrap()),
        upstream,
    };
    let batch = batch::Batch::read(body.as_bytes()).ok_or((Kind::BadRequest, "unread".to_owned()))?;
    Members { terms: &terms, rules }.clean(&batch).map_err(|refusal| (refusal.kind, refusal.message))
}

fn graph(options: &str) -> Upstream {
    let text = format!("[providers.entra]\ntenant = \"contoso.com\"\nclient_id = \"1\"\n[upstreams.graph]\n{options}");
    let loaded = Config::from_text(Some((Path::new("test.toml"), &text)), &BTreeMap::new(), &[]).unwrap();
    loaded.config.upstreams["graph"].clone()
}

fn with_url(url: &str) -> String {
    serde_json::json!({"requests": [{"id": "1", "method": "GET", "url": url}]}).to_string()
}

/// What becomes of a URL.
fn url(policy: Option<&Policy>, target: &str, url: &str) -> Result<String, Kind> {
    let text = with_url(url);
    let text = cleaned(policy, target, &text).map_err(|(kind, _)| kind)?.unwrap_or(text);
    let text: serde_json::Value = serde_json::from_str(&text).unwrap();
    Ok(text["requests"][0]["url"].as_str().unwrap().to_owned())
}

#[test]
fn every_member_of_a_batch_is_judged() {
    let policy = policy(&["GET /v1.0/me/**"], &[], false);
    let judge = |method: &str, url: &str| {
        let body = serde_json::json!({"requests": [
            {"id": "1", "method": "GET", "url": "/me/messages"},
            {"id": "2", "method": method, "url": url},
        ]});
        cleaned(Some(&policy), "/v1.0/$batch", &body.to_string()).map(|_| ())
    };
    for url in ["/me/messages", "me/drive?$select=id", "http://127.0.0.1:8080/v1.0/me/drive"] {
        assert_eq!(judge("GET", url), Ok(()), "{url}");
    }
    for (method, url) in [
        ("DELETE", "/me/messages/1"),
        ("GET", "/users"),
        ("GET", "https://evil/v1.0/me/x"),
        ("GET", "//evil/v1.0/me/x"),
        ("GET", "/me/../users"),
        ("GET", "/me/drive/root:/a%EF%BC%8Fb"),
        ("POST", "/$batch"),
        ("GET", "http://127.0.0.1:8080.evil/v1.0/me/x"),
        ("GET", "http://127.0.0.1:8080/beta/me/x"),
        ("GET", "http://127.0.0.1:8080/as/bob/v1.0/me/x"),
        ("GET", "http://127.0.0.1:8080/billing/v1.0/me/x"),
        ("G T", "/me/x"),
        ("get", "/users"),
    ] {
        let (kind, message) = judge(method, url).unwrap_err();
        assert_eq!(kind, Kind::PolicyDenied, "{method} {url}");
        assert!(message.starts_with("$batch member \"2\": "), "{message}");
    }
}

#[test]
fn a_url_that_can_be_read_in_two_ways_is_refused() {
    let policy = policy(&[], &["* /v1.0/users/**", "* /billing/secret/**"], false);
    let judge = |target: &str, from: &str| url(Some(&policy), target, from);
    for from in [
        " users/bob",
        "/ users/bob",
        "users/bob ",
        " https:/graph.microsoft.com/v1.0/users/bob",
        "https:/graph.microsoft.com/v1.0/users/bob",
        "https:graph.microsoft.com/v1.0/users/bob",
        "/me#/../users/bob",
    ] {
        assert_eq!(judge("/v1.0/$batch", from), Err(Kind::PolicyDenied), "{from}");
    }
    for from in ["/teams('19:a@thread')", "/me/drive/root:/a:/content", "me?x=a:b"] {
        assert_eq!(judge("/v1.0/$batch", from), Ok(from.to_owned()), "{from}");
    }
    // Is it relative to the version or to what the batch was sent to?
    for from in ["/users/bob", "users/bob", "messages"] {
        assert_eq!(judge("/v1.0/me/$batch", from), Err(Kind::PolicyDenied), "{from}");
    }
}

#[test]
fn a_header_that_holds_further_headers_is_refused() {
    let policy = policy(&["POST /v1.0/me"], &[], false);
    let judge = |headers: &str| {
        let body = format!(r#"{{"requests":[{{"id":"1","method":"POST","url":"/me","headers":{headers}}}]}}"#);
        cleaned(Some(&policy), "/v1.0/$batch", &body).map(|_| ()).map_err(|(kind, _)| kind)
    };
    for headers in [
        r#"{"Prefer":"a\r\nX-HTTP-Method: DELETE"}"#,
        r#"{"Prefer":"a\u000aX-HTTP-Method: DELETE"}"#,
        r#"{"Prefer":["a\nX-HTTP-Method: DELETE"]}"#,
        r#"{"X: a\r\nX-HTTP-Method":"DELETE"}"#,
        r#"{"X-HTTP-Method:":"DELETE"}"#,
        r#"{"":"DELETE"}"#,
    ] {
        assert_eq!(judge(headers), Err(Kind::PolicyDenied), "{headers}");
    }
    let plain = r#"{"Prefer":"outlook.timezone=\"UTC\"","If-Match":"*","x_y":1,"Accept":["a","b"],"Tab":"a\tb"}"#;
    assert_eq!(judge(plain), Ok(()));
}

#[test]
fn a_refusal_does_not_repeat_a_long_id() {
    let policy = policy(&["GET /v1.0/me"], &[], false);
    let long = format!(r#"{{"requests":[{{"id":"{}é","method":"GET","url":"/users"}}]}}"#, "é".repeat(100_000));
    let (kind, message) = cleaned(Some(&policy), "/v1.0/$batch", &long).unwrap_err();
    assert_eq!(kind, Kind::PolicyDenied);
    assert!(message.len() < 600, "{}", message.len());
}

#[test]
fn a_batch_that_can_be_read_in_two_ways_is_none() {
    let policy = policy(&["GET /v1.0/me"], &[], false);
    let judge = |body: &str| cleaned(Some(&policy), "/v1.0/$batch", body).map(|_| ()).map_err(|(kind, _)| kind);
    assert_eq!(judge(r#"{"requests":[{"id":"1","method":"GET","url":"/me","dependsOn":["2"]}]}"#), Ok(()));
    for body in [
        "[]",
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","url":"/users"}]}"#,
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","URL":"/users"}]}"#,
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","u\u0072l":"/users"}]}"#,
        r#"{"requests":[{"id":"1","method":"GET","Method":"DELETE","url":"/me"}]}"#,
        r#"{"requests":[],"requests":[{"id":"1","method":"GET","url":"/users"}]}"#,
        r#"{"requests":[],"Requests":[{"id":"1","method":"GET","url":"/users"}]}"#,
        "{\"requests\":[],\"reque\u{17f}ts\":[{\"id\":\"1\",\"method\":\"GET\",\"url\":\"/users\"}]}",
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","Headers":{"X-HTTP-Method":"DELETE"}}]}"#,
        r#"{"requests":[{"id":"1","method":"GET","url":"/me","headers":null}]}"#,
        r#"{"requests":[{"method":"GET","url":"/me"}]}"#,
        "{\"requests\":[]} {\"requests\":[]}",
        "\u{feff}{\"requests\":[]}",
    ] {
        assert_eq!(judge(body), Err(Kind::BadRequest), "{body}");
    }
}

#[test]
fn urls_that_name_us_or_the_upstream_become_relative() {
    let here = "/v1.0/$batch";
    for (target, from, to) in [
        (here, "/me", "/me"),
        (here, "me?$top=1", "me?$top=1"),
        (here, "http://127.0.0.1:8080/v1.0/me", "/me"),
        (here, "HTTP://127.0.0.1:8080/v1.0/me/x%2by?$a=%20+'&#1", "/me/x%2by?$a=%20+'&#1"),
        (here, "https://graph.microsoft.com/v1.0/users('x')", "/users('x')"),
        (here, "http://127.0.0.1:8080/as/alice/v1.0/me", "/me"),
        (here, "http://127.0.0.1:8080/v1.0", "/"),
        ("/beta/$batch", "https://graph.microsoft.com/beta/me", "/me"),
        ("/as/alice/v1.0/$batch", "http://127.0.0.1:8080/as/alice/v1.0/me", "/me"),
        ("/as/alice/v1.0/$batch", "http://127.0.0.1:8080/v1.0/me", "/me"),
        ("/as/alice/v1.0/$batch", "/as/alice/v1.0/me", "/me"),
        ("/as/alice/v1.0/$batch", "as/alice/v1.0/me?x", "/me?x"),
        ("/as/alice/v1.0/$batch", "lice/v1.0/me", "/me"),
        ("/as/alice/graph/v1.0/$batch", "lice/graph/v1.0/me", "/me"),
        ("/graph/v1.0/$batch", "/graph/v1.0/me", "/me"),
        // What may mean something to the upstream stays.
        ("/as/alice/v1.0/$batch", "/as/alice/me", "/as/alice/me"),
        ("/as/alice/v1.0/$batch", "/as/alice/beta/me", "/as/alice/beta/me"),
        ("/as/alice/v1.0/$batch", "lice/me", "lice/me"),
        ("/as/alice/v1.0/$batch", "/as/bob/v1.0/me", "/as/bob/v1.0/me"),
        (here, "/v1.0/me", "/v1.0/me"),
        (here, "http://127.0.0.1:8080/beta/me", "http://127.0.0.1:8080/beta/me"),
        (here, "https://evil/v1.0/me", "https://evil/v1.0/me"),
        (here, "//evil/v1.0/me", "//evil/v1.0/me"),
        (here, "https://graph.microsoft.com.evil/v1.0/me", "https://graph.microsoft.com.evil/v1.0/me"),
        (here, "https://graph.microsoft.com@evil/v1.0/me", "https://graph.microsoft.com@evil/v1.0/me"),
    ] {
        assert_eq!(url(None, target, from), Ok(to.to_owned()), "{target} {from}");
    }
    for of_others in [
        "http://127.0.0.1:8080/as/bob/v1.0/me",
        "http://127.0.0.1:8080/billing/v1.0/me",
        "https://billing.example/v1.0/me",
    ] {
        assert_eq!(url(None, here, of_others), Err(Kind::BadRequest), "{of_others}");
    }
}

#[test]
fn links_in_bodies_of_members_are_turned_unless_they_may_not() {
    let body = |link: &str, url: &str| {
        format!(
            r#"{{"requests":[{{"id":"1","method":"POST","url":"{url}","body":{{"manager@odata.bind":"{link}","x":"{link}"}}}}]}}"#
        )
    };
    let ours = "http://127.0.0.1:8080/v1.0/users/1";
    let theirs = "https://graph.microsoft.com/v1.0/users/1";
    let sent = cleaned(None, "/v1.0/$batch", &body(ours, "/me")).unwrap().unwrap();
    assert_eq!(sent, body(ours, "/me").replacen(ours, theirs, 1));
    assert_eq!(cleaned(None, "/v1.0/$batch", &body(theirs, "/me")), Ok(None));
    let other = body("http://127.0.0.1:8080/as/bob/v1.0/users/1", "/me");
    let (kind, message) = cleaned(None, "/v1.0/$batch", &other).unwrap_err();
    assert_eq!(kind, Kind::BadRequest);
    assert!(message.starts_with("$batch member \"1\": the link in manager@odata.bind"), "{message}");

    let untouched = graph("rewrite_links = false");
    assert_eq!(cleaned_for(&untouched, None, "/v1.0/$batch", &body(ours, "/me")), Ok(None));
    let absolute = cleaned_for(&untouched, None, "/v1.0/$batch", &body(ours, "http://127.0.0.1:8080/v1.0/me"));
    assert_eq!(absolute, Ok(Some(body(ours, "/me"))), "its url is no link");
}

#[test]
fn what_is_judged_is_what_is_sent() {
    let policy = policy(&["GET /v1.0/me"], &[], false);
    for from in ["http://127.0.0.1:8080/v1.0/me", "/as/alice/v1.0/me", "lice/v1.0/me"] {
        assert_eq!(url(Some(&policy), "/as/alice/v1.0/$batch", from), Ok("/me".to_owned()), "{from}");
    }
    for from in ["http://127.0.0.1:8080/v1.0/users", "/as/alice/v1.0/users", "lice/v1.0/users", "/as/alice/v1.0//me"] {
        assert_eq!(url(Some(&policy), "/as/alice/v1.0/$batch", from), Err(Kind::PolicyDenied), "{from}");
    }
}

#[test]
fn credentials_and_disguises_are_taken_out_of_a_member_and_nothing_else_changes() {
    let body = r#" {"x" : [ 1.0e5 ], "requests":[ {"id" : "1", "method":"GET","url":"/me"},
        {"id":"2","method":"POST","url":"http:\/\/127.0.0.1:8080\/v1.0\/me","headers" : { "Prefer" : "a\u002fb", "AUTHORIZATION":"Bearer x","x-Api-Key":"k",
        "Bearerd-Retry":"off","bearerd_account":"bob","Cookie":"c","host":"h","X-HTTP-Method":"DELETE", " x-method-override":"PUT"},"body":{"a":1.00, "a":"\u00e9"}}]}"#;
    let expected = r#"{"x":[ 1.0e5 ],"requests":[{"id" : "1", "method":"GET","url":"/me"},{"id":"2","method":"POST","url":"/me","headers":{"Prefer":"a\u002fb"},"body":{"a":1.00, "a":"\u00e9"}}]}"#;
    assert_eq!(cleaned(None, "/v1.0/$batch", body).unwrap().as_deref(), Some(expected));
    assert_eq!(cleaned(None, "/v1.0/$batch", expected), Ok(None), "once is enough");
    let ruled = policy(&["* /**"], &[], false);
    assert_eq!(cleaned(Some(&ruled), "/v1.0/$batch", body).unwrap_err().0, Kind::PolicyDenied, "a tunnel");
    let credentials = r#"{"requests":[{"id":"1","method":"GET","url":"/me","headers":{"Authorization":"Bearer x"}}]}"#;
    let expected = r#"{"requests":[{"id":"1","method":"GET","url":"/me","headers":{}}]}"#;
    assert_eq!(cleaned(Some(&ruled), "/v1.0/$batch", credentials).unwrap().as_deref(), Some(expected));
}

#[test]
fn ten_thousand_members_are_judged_in_no_time() {
    let ruled = policy(&["GET /v1.0/me/**"], &[], false);
    let member = |id: usize| format!(r#"{{"id":"{id}","method":"GET","url":"/me/x","dependsOn":["{}"]}}"#, id + 1);
    let members: Vec<_> = (0..10_000).map(member).collect();
    let body = format!(r#"{{"requests":[{}]}}"#, members.join(","));
    assert_eq!(cleaned(Some(&ruled), "/v1.0/$batch", &body), Ok(None));
    let body = body.replace(r#""9999","method":"GET""#, r#""9999","method":"PUT""#);
    assert_eq!(cleaned(Some(&ruled), "/v1.0/$batch", &body).unwrap_err().0, Kind::PolicyDenied);
}

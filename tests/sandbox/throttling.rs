//! What Graph throttles, and a Graph that fails now and then.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, Gate, GraphOptions, Sandbox};
use bearerd::tasks;
use serde_json::json;

use crate::client::{Reply, get, graph, graph_with, sandbox, soon};

fn switch(sandbox: &Sandbox, faults: &str) {
    Fault::parse_list(faults).unwrap().into_iter().for_each(|fault| sandbox.faults().push(fault));
}

async fn ask(sandbox: &Sandbox, token: &str, target: &str) -> Reply {
    graph(&sandbox.graph, token, "GET", target, "").await
}

#[tokio::test]
async fn a_mailbox_takes_four_requests_at_a_time() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let gate = Gate::shut();
    sandbox.faults().push(Fault::graph("/v1.0/me/messages", Effect::Hold(gate.clone())).always());
    switch(&sandbox, "graph:mailbox-concurrency=4*");
    soon(async {
        let held = (0..4).map(|_| {
            let (sandbox, token) = (sandbox.clone(), token.clone());
            tasks::spawn_here(async move { ask(&sandbox, &token, "/v1.0/me/messages?$top=1").await.status })
        });
        let held: Vec<_> = held.collect();
        gate.arrived(4).await;
        for target in ["/v1.0/me/messages", "/v1.0/users/alice@contoso.example/messages", "/beta/me/calendar"] {
            let fifth = ask(&sandbox, &token, target).await;
            assert_eq!((fifth.status.as_u16(), fifth.header("retry-after")), (429, "1"), "{target}");
            let error = &fifth.json()["error"];
            assert_eq!(
                (&error["code"], &error["message"]),
                (&json!("ApplicationThrottled"), &json!("Application is over its MailboxConcurrency limit."))
            );
        }
        assert_eq!(ask(&sandbox, &token, "/v1.0/me").await.status, 200, "no mailbox");
        let bob = sandbox.grant("bob").unwrap().access_token;
        assert_eq!(ask(&sandbox, &bob, "/v1.0/me/mailFolders").await.status, 200, "another mailbox");
        gate.open();
        for request in held {
            assert_eq!(request.await.unwrap(), 200);
        }
        assert_eq!(ask(&sandbox, &token, "/v1.0/me/messages").await.status, 200);
    })
    .await;
    assert_eq!((sandbox.graph.most_at_once("alice"), sandbox.graph.most_at_once("bob")), (5, 1));
    let shown = get(sandbox.graph.address(), "/_sandbox/at-once").await.json();
    assert_eq!(shown, json!({ "alice": 5, "bob": 1 }));
    sandbox.graph.clear();
    assert_eq!(sandbox.graph.most_at_once("alice"), 0);
}

#[tokio::test]
async fn files_have_a_quota_that_they_tell_when_it_runs_out() {
    let (sandbox, clock) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    switch(&sandbox, "graph:file-quota=10*");
    let list = "/v1.0/me/drive/root/children";
    for _ in 0..3 {
        assert_eq!(ask(&sandbox, &token, list).await.header("ratelimit-limit"), "");
    }
    clock.advance(Duration::from_secs(20));
    let said = |reply: &Reply| {
        let header = |name| reply.header(name).to_owned();
        (
            reply.status.as_u16(),
            ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"].map(header),
        )
    };
    let expected = |limit: [&str; 4]| limit.map(str::to_owned);
    assert_eq!(said(&ask(&sandbox, &token, list).await), (200, expected(["10", "2", "40", ""])));
    let one = "/v1.0/me/drive/items/01BYE5RZ!101";
    assert_eq!(said(&ask(&sandbox, &token, one).await), (200, expected(["10", "1", "40", ""])));
    assert_eq!(said(&ask(&sandbox, &token, one).await), (200, expected(["10", "0", "40", ""])));
    let over = ask(&sandbox, &token, one).await;
    assert_eq!(said(&over), (429, expected(["10", "0", "40", "40"])));
    let error = &over.json()["error"];
    assert_eq!(
        (&error["code"], &error["innerError"]["code"]),
        (&json!("activityLimitReached"), &json!("throttledRequest"))
    );
    assert_eq!(ask(&sandbox, &token, "/v1.0/me/messages").await.status, 200);
    clock.advance(Duration::from_secs(40));
    assert_eq!(said(&ask(&sandbox, &token, one).await), (200, expected(["", "", "", ""])));
}

#[tokio::test]
async fn every_third_request_fails() {
    let always = vec![Effect::Flaky(3.try_into().unwrap())];
    let (entra, server) = graph_with(GraphOptions { always, ..GraphOptions::default() });
    let token = entra.grant("alice", "User.Read").unwrap().access_token;
    let mut statuses = Vec::new();
    for _ in 0..9 {
        let reply = graph(&server, &token, "GET", "/v1.0/me", "").await;
        statuses.push(reply.status.as_u16());
        assert_eq!(reply.header("retry-after"), if reply.status == 200 { "" } else { "1" });
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 503, 200, 200, 429]);
}

#[tokio::test]
async fn every_spelling_of_retry_after_is_there_for_graph_too() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    for (written, sent) in [
        ("429=30", "30"),
        ("503=0.249", "0.249"),
        ("504=30+120", "30,120"),
        ("429=date+60", "Fri, 15 Jan 2027 08:01:00 GMT"),
        ("429=soon", "soon"),
        ("503", ""),
    ] {
        switch(&sandbox, &format!("graph/v1.0/me:{written}"));
        let reply = ask(&sandbox, &token, "/v1.0/me").await;
        assert_eq!((reply.status.as_str(), reply.header("retry-after")), (&written[..3], sent));
        assert_eq!(reply.header("x-ms-throttle-scope"), "");
    }
    switch(&sandbox, "graph:429=1");
    let reply = ask(&sandbox, &token, "/v1.0/groups").await;
    assert_eq!(reply.header("x-ms-throttle-information"), "ResourceUnitLimitExceeded");
    assert!(reply.header("x-ms-throttle-scope").starts_with("Tenant_Application/ReadWrite/"));
}

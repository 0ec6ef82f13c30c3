//! Who did what, as the proxy records it: what clients are denied, and what becomes of grants.

use bearerd::audit::Record;
use bearerd::sandbox::{Effect, Fault, TokenFault};
use bearerd::store::{AuditQuery, Store};

use crate::harness::{KEY, Rig, Setup, alice, assert_refused, bare, basic, empty, key_hash};

async fn records(store: &Store, event: &str) -> Vec<Record> {
    let all = AuditQuery { limit: 1000, ..AuditQuery::default() };
    let records = store.audit_page(all).await.unwrap().records;
    records.into_iter().filter(|record| record.event == event).collect()
}

/// The drain records what waits.
async fn after_drain(rig: Rig, events: &[&str]) -> Vec<Vec<Record>> {
    let store = rig.app.core().store.clone();
    rig.app.drain().await;
    let mut found = Vec::new();
    for event in events {
        found.push(records(&store, event).await);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_are_merged_by_client_and_rule_and_told_with_the_first() {
    let rig = Rig::with(&format!(
        r#"clients = [{{ name = "payroll", key_hash = "{}", accounts = ["alice"], allow = ["GET /v1.0/me", "GET /v1.0/users/**"], deny = ["* /v1.0/users/**"] }}]"#,
        key_hash(KEY)
    ))
    .await;
    for number in 0..50 {
        let answer = rig.send(alice("GET", &format!("/v1.0/users/{number}")).body(empty()).unwrap()).await;
        assert_refused(&answer, 403, "policy_denied");
    }
    for name in ["bob", "mallory"] {
        let request = bare("GET", "/v1.0/me").header("authorization", basic(name, KEY)).body(empty()).unwrap();
        assert_refused(&rig.send(request).await, 403, "account_forbidden");
    }
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let found = after_drain(rig, &["policy_denied", "account_denied"]).await;
    let [policy, account] = found.as_slice() else { panic!() };
    assert_eq!(policy.iter().map(|record| record.count).sum::<u64>(), 50, "none is lost");
    assert!(policy.len() <= 3, "by the second, then by the minute: {}", policy.len());
    let first = &policy[0];
    assert_eq!(
        (first.who.as_str(), first.account.as_deref(), first.outcome.as_str()),
        ("client:payroll", Some("alice"), "denied")
    );
    let why = first.why.as_deref().unwrap();
    assert!(why.contains("deny[0]: * /v1.0/users/**") && why.contains("/v1.0/users/0"), "{why}");
    assert_eq!(first.request_id.as_deref().map(str::len), Some(36));
    assert!(first.peer.as_deref().unwrap().starts_with("127.0.0.1:"), "{first:?}");
    assert_eq!(account.iter().map(|record| record.count).sum::<u64>(), 2);
    assert_eq!((account[0].account.as_deref(), account[0].account_id.as_deref()), (Some("bob"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_refresh_is_recorded_with_its_reason() {
    let rig = Setup::default().start().await;
    rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50173))));
    let alias = bearerd::account::Alias::new("alice").unwrap();
    rig.app.core().vault.refresh(&alias).await.unwrap_err();
    let found = after_drain(rig, &["refresh_failed"]).await;
    let [record] = found[0].as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (record.who.as_str(), record.account.as_deref(), record.outcome.as_str()),
        ("bearerd", Some("alice"), "failed")
    );
    let why = record.why.as_deref().unwrap();
    assert!(why.starts_with("dead: ") && why.contains("AADSTS50173"), "{why}");
}

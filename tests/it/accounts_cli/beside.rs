//! The same commands beside a running proxy: it follows within a second.

use std::time::Duration;

use bearerd::clock::Clock;
use bytes::Bytes;
use http::Response;
use serde_json::json;

use super::house::{Done, bearerd, configuration};
use crate::harness::{self, LIMIT, Rig, bare, basic, empty, header, whole, within};

/// How long the proxy may need to hear of it.
const A_SECOND: Duration = Duration::from_secs(1);

pub struct Beside {
    pub rig: Rig,
    home: tempfile::TempDir,
}

impl Beside {
    pub async fn start() -> Self {
        let rig = Rig::start().await;
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("bearerd.toml"), configuration(&rig.sandbox, rig.store.path()))
            .expect("a file");
        Self { rig, home }
    }

    pub async fn run(&self, arguments: &[&str]) -> Done {
        bearerd(self.home.path(), arguments).await
    }

    pub async fn accounts(&self, arguments: &[&str]) -> Done {
        bearerd(self.home.path(), &[&["accounts"], arguments].concat()).await
    }

    /// Asks as this account until the answer is `wanted`; how long that took.
    pub async fn until(&self, account: &str, wanted: impl Fn(&Response<Bytes>) -> bool) -> Duration {
        let clock = Clock::system();
        let start = clock.moment();
        let mut connection = self.rig.http1().await;
        loop {
            within(connection.ready()).await.expect("the connection lives");
            let request = bare("GET", "/v1.0/me").header("authorization", basic(account, harness::KEY));
            let answer = whole(connection.send_request(request.body(empty()).expect("a request"))).await;
            let took = clock.moment().since(start);
            if wanted(&answer) {
                return took;
            }
            assert!(took < LIMIT, "still {answer:?}");
        }
    }
}

pub fn is(status: u16, code: Option<&'static str>) -> impl Fn(&Response<Bytes>) -> bool {
    move |answer| answer.status() == status && header(answer, "bearerd-error") == code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_in_force_within_a_second() {
    let beside = Beside::start().await;
    beside.until("alice", is(200, None)).await;
    beside.accounts(&["revoke", "alice"]).await.assert(0);
    let took = beside.until("alice", is(403, Some("signin_required"))).await;
    assert!(took <= A_SECOND, "{took:?}");
    let seen = beside.rig.seen().len();
    for _ in 0..20 {
        beside.until("alice", is(403, Some("signin_required"))).await;
    }
    assert_eq!(beside.rig.seen().len(), seen, "Graph hears nothing any more");
    beside.until("bob", is(200, None)).await;
    assert!(beside.rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_and_a_new_owner_are_in_force_within_a_second() {
    let beside = Beside::start().await;
    beside.until("alice", is(200, None)).await;
    beside.accounts(&["remove", "alice", "--yes"]).await.assert(0);
    let took = beside.until("alice", is(403, Some("account_forbidden"))).await;
    assert!(took <= A_SECOND, "{took:?}");

    beside.accounts(&["remove", "bob", "--yes"]).await.assert(0);
    let grant = beside.rig.sandbox.grant("bob").expect("a user");
    let row = json!({ "alias": "alice", "provider": "entra", "refresh_token": grant.refresh_token });
    std::fs::write(beside.home.path().join("rows.jsonl"), row.to_string()).expect("a file");
    beside.accounts(&["import", "rows.jsonl"]).await.assert(0);
    let took = beside.until("alice", is(200, None)).await;
    assert!(took <= A_SECOND, "{took:?}");
    let served = beside.rig.seen().pop().expect("a request");
    assert_eq!(served.user.as_deref(), Some("bob"), "whose alias it is now");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_and_a_refresh_serve_the_proxy_too() {
    let beside = Beside::start().await;
    beside.until("alice", is(200, None)).await;
    beside.rig.sandbox.entra.revoke_access_tokens("alice");
    beside.accounts(&["refresh", "alice"]).await.assert(0);
    assert_eq!(beside.rig.token_requests().len(), 1);
    beside.until("alice", is(200, None)).await;
    assert_eq!(beside.rig.token_requests().len(), 1, "the proxy uses what the command brought");

    beside.accounts(&["revoke", "alice"]).await.assert(0);
    beside.until("alice", is(403, Some("signin_required"))).await;
    let grant = beside.rig.sandbox.grant("alice").expect("a user");
    let row = json!({ "alias": "alice", "provider": "entra", "refresh_token": grant.refresh_token });
    std::fs::write(beside.home.path().join("rows.jsonl"), row.to_string()).expect("a file");
    beside.accounts(&["import", "rows.jsonl"]).await.assert(0);
    let took = beside.until("alice", is(200, None)).await;
    assert!(took <= A_SECOND, "{took:?}");
}

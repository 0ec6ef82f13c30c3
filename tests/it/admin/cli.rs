//! `bearerd accounts ...` beside a running server: the server does it, and what is said is what it would be without one.

use std::net::SocketAddr;

use bearerd::config::Listen;
use bearerd::tasks::spawn_here;
use serde_json::json;
use tokio::net::TcpListener;

use crate::accounts_cli::house::{Done, bearerd};
use crate::harness::*;

/// A server, and the binary with the same configuration.
struct Beside {
    rig: Rig,
    home: tempfile::TempDir,
}

impl Beside {
    async fn start(admin: &str) -> Self {
        let rig = Setup { config: admin.to_owned(), ..Setup::default() }.start().await;
        let home = tempfile::tempdir().expect("a directory");
        let beside = Self { rig, home };
        let listen = match beside.rig.app.admin_addresses() {
            [Listen::Tcp(address)] => address.to_string(),
            [Listen::Unix(path)] => format!("unix:{}", path.display()),
            other => panic!("{other:?}"),
        };
        beside.configure(&format!("{admin}\nadmin.listen = \"{listen}\""));
        beside
    }

    /// Lays this over the configuration of the binary.
    fn configure(&self, over: &str) {
        let (rig, over) = (&self.rig, over.trim());
        let over = if over.starts_with("admin = {") { over.lines().next().unwrap_or_default() } else { over };
        let text = configuration_text(&rig.sandbox, rig.graph().origin().as_str(), rig.store.path(), over);
        std::fs::write(self.home.path().join("bearerd.toml"), format!("{text}\n[log]\nlevel = \"warn\"\n"))
            .expect("a file");
    }

    async fn accounts(&self, arguments: &[&str]) -> Done {
        bearerd(self.home.path(), &[&["accounts"], arguments].concat()).await
    }

    /// The same, by the store itself: no server is where the configuration says.
    async fn alone(&self, arguments: &[&str]) -> Done {
        bearerd(self.home.path(), &[&["accounts"], arguments, &["--set", "admin.listen=127.0.0.1:0"]].concat()).await
    }

    /// A file with one row.
    fn import(&self, user: &str, alias: &str) -> String {
        let grant = self.rig.sandbox.grant(user).expect("a user");
        let row = json!({ "alias": alias, "provider": "entra", "refresh_token": grant.refresh_token });
        let file = format!("{alias}.jsonl");
        std::fs::write(self.home.path().join(&file), row.to_string()).expect("a file");
        file
    }

    /// The server has taken this step on its store.
    fn assert_done_by_server(&self, step: &str) {
        let metrics = self.rig.app.core().metrics.render();
        let counted = format!("bearerd_store_duration_seconds_count{{op=\"{step}\"}}");
        assert!(metrics.lines().any(|line| line.starts_with(&counted)), "{step}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_say_the_same() {
    let beside = Beside::start("admin.token = \"letmein-letmein\"").await;
    for arguments in [
        &["list"][..],
        &["list", "--format", "json"],
        &["show", "alice"],
        &["show", "alice", "--format", "json"],
        &["show", "nobody"],
        &["refresh", "nobody"],
        &["remove", "bob"],
    ] {
        let (there, here) = (beside.accounts(arguments).await, beside.alone(arguments).await);
        assert_eq!((there.code, &there.out, &there.err), (here.code, &here.out, &here.err), "{arguments:?}");
        assert!(there.code == Some(0) || !there.err.is_empty());
    }
    beside.assert_done_by_server("page");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_knows_at_once() {
    let beside = Beside::start("").await;
    let rig = &beside.rig;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    beside.accounts(&["refresh", "alice"]).await.assert(0);
    assert_eq!(rig.token_requests().len(), 1);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.token_requests().len(), 1);

    beside.accounts(&["revoke", "alice"]).await.assert(0);
    assert_refused(&rig.get("/v1.0/me").await, 403, "signin_required");
    let done = beside.accounts(&["refresh", "alice"]).await;
    assert_eq!(done.assert(1).said("A sign-in mends it"), ["A sign-in mends it: bearerd login --account alice --link"]);

    let file = beside.import("alice", "alice");
    assert_eq!(beside.accounts(&["import", &file]).await.assert(0).out, "1 imported, 0 failed\n");
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    let again = beside.accounts(&["import", &file]).await;
    assert!(again.assert(0).err.contains("line 1: this token is imported already"), "{}", again.err);

    beside.accounts(&["remove", "alice", "--yes"]).await.assert(0);
    assert_refused(&rig.get("/v1.0/me").await, 403, "account_forbidden");
    for step in ["revoke", "remove", "by_id"] {
        beside.assert_done_by_server(step);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_refused_are_named_alike() {
    let beside = Beside::start("").await;
    let rows = [
        json!({ "alias": "x", "provider": "entra", "refresh_token": "made-up" }).to_string(),
        json!({ "alias": "x", "provider": "nowhere", "refresh_token": "made-up" }).to_string(),
        "no JSON".to_owned(),
    ];
    std::fs::write(beside.home.path().join("rows.jsonl"), rows.join("\n")).expect("a file");
    let (there, here) =
        (beside.accounts(&["import", "rows.jsonl"]).await, beside.alone(&["import", "rows.jsonl"]).await);
    assert_eq!((there.assert(1).out.as_str(), &there.out), ("0 imported, 3 failed\n", &here.out));
    assert_eq!(there.said("rows.jsonl line").len(), 3, "{}", there.err);
    for (there, here) in there.said("rows.jsonl line")[1..].iter().zip(&here.said("rows.jsonl line")[1..]) {
        assert_eq!(there, here);
    }
    assert!(!there.err.contains("made-up"), "{}", there.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_socket_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let listen = format!("admin = {{ listen = \"unix:{}/admin.sock\" }}", directory.path().display());
    let beside = Beside::start(&listen).await;
    let done = beside.accounts(&["list"]).await;
    assert!(done.assert(0).out.contains("alice"), "{}", done.out);
    beside.assert_done_by_server("page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_server_does_not_take_is_said() {
    let beside = Beside::start("admin.token = \"letmein-letmein\"").await;
    let listen = match beside.rig.app.admin_addresses() {
        [Listen::Tcp(address)] => *address,
        other => panic!("{other:?}"),
    };
    beside.configure(&format!("admin.token = \"another\"\nadmin.listen = \"{listen}\""));
    let done = beside.accounts(&["list"]).await;
    assert!(done.assert(1).err.contains("the running server takes another admin.token"), "{}", done.err);
    assert!(!done.err.contains("another\n") && !done.err.contains("letmein"), "{}", done.err);
}

/// Somebody else has taken the port: no token ever goes there, and the store is worked on directly.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_ours_is_told_nothing() {
    let beside = Beside::start("").await;
    let name = "0123456789abcdef0123456789abcdef";
    let about = format!("{{\"instance\":\"{name}\"}}");
    for answer in [about.as_str(), "{}", "<html>", "{\"instance\":\"../../etc/passwd\"}"] {
        let (address, heard) = impostor(answer).await;
        beside.configure(&format!("admin.token = \"letmein-letmein\"\nadmin.listen = \"{address}\""));
        let file = beside.import("bob", "bob");
        let done = beside.accounts(&["import", &file]).await;
        assert_eq!(done.assert(0).out, "1 imported, 0 failed\n");
        let heard = within(heard).await.expect("no panic");
        assert!(heard.starts_with("GET /v1/about HTTP/1.1\r\n") && heard.ends_with("\r\n\r\n"), "{heard}");
        assert!(!heard.to_ascii_lowercase().contains("authorization") && !heard.contains("letmein"), "{heard}");
    }
}

/// Answers one connection so, and tells all that it heard there.
async fn impostor(answer: &str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let heard = spawn_here(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut wire = Wire::over(stream);
        assert!(wire.read().await);
        wire.send(&answer).await;
        text(wire.rest().await)
    });
    (address, heard)
}

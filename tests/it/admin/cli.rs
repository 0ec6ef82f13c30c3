//! `bearerd accounts ...` beside a running server: the server does it, and what is said is what it would be without one.

use std::net::SocketAddr;
use std::path::PathBuf;

use bearerd::config::Listen;
use bearerd::tasks::spawn_here;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

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

    /// Where the server's admin listener is.
    fn admin(&self) -> SocketAddr {
        match self.rig.app.admin_addresses() {
            [Listen::Tcp(address)] => *address,
            other => panic!("{other:?}"),
        }
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

    /// Where the processes that have the store open say so.
    fn holders(&self) -> PathBuf {
        self.rig.store.path().join("data/holders")
    }

    /// The same, by the store itself: the server's word on where it is has gone.
    async fn alone(&self, arguments: &[&str]) -> Done {
        let holders = self.holders();
        let mut said = Vec::new();
        for entry in std::fs::read_dir(&holders).expect("a directory") {
            let path = entry.expect("a file").path();
            said.push((std::fs::read_to_string(&path).expect("text"), path));
        }
        for (text, path) in &said {
            let first = text.lines().next().unwrap_or_default();
            std::fs::write(path, format!("{first}\n")).expect("the file stays, and its lock");
        }
        let done = self.accounts(arguments).await;
        for (text, path) in said {
            std::fs::write(path, text).expect("the file stays, and its lock");
        }
        done
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
    let beside = Beside::start("admin.token = \"letmein-letmein-letmein\"").await;
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
    let beside = Beside::start("admin.token = \"letmein-letmein-letmein\"").await;
    let listen = match beside.rig.app.admin_addresses() {
        [Listen::Tcp(address)] => *address,
        other => panic!("{other:?}"),
    };
    beside.configure(&format!("admin.token = \"another-one-of-length\"\nadmin.listen = \"{listen}\""));
    let done = beside.accounts(&["list"]).await;
    assert!(done.assert(1).err.contains("the running server takes another admin.token"), "{}", done.err);
    assert!(!done.err.contains("another-one") && !done.err.contains("letmein"), "{}", done.err);
}

/// Somebody else has the port that the configuration names, and says there what our server says: no token ever goes there, nor to
/// what a dead process left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_ours_is_told_nothing() {
    let beside = Beside::start("").await;
    let impostor = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = impostor.local_addr().expect("an address");
    let relay = spawn_here(relay(impostor, beside.admin()));
    let left_behind = beside.holders().join("0123456789abcdef0123456789abcdef.lock");
    std::fs::write(left_behind, format!("1 1\n{address}\n")).expect("a file");
    beside.configure(&format!("admin.token = \"letmein-letmein-letmein\"\nadmin.listen = \"{address}\""));
    let file = beside.import("bob", "bob");
    let done = beside.accounts(&["import", &file]).await;
    assert_eq!(done.assert(0).out, "1 imported, 0 failed\n");
    beside.assert_done_by_server("put_ticket");
    // Whatever was asked for before is accepted before this.
    let mut last = TcpStream::connect(address).await.expect("the impostor");
    last.write_all(b"GET /end HTTP/1.1\r\n").await.expect("a line");
    assert_eq!(within(relay).await.expect("no panic"), ["GET /end HTTP/1.1"]);
}

/// The first lines of what it hears, up to the end; what it is asked for before, `server` answers.
async fn relay(impostor: TcpListener, server: SocketAddr) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let (mut client, _) = impostor.accept().await.expect("a connection");
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(client.read_u8().await.expect("a byte"));
        }
        heard.push(text(line[..line.len() - 2].to_vec()));
        if heard.last().is_some_and(|line| line.starts_with("GET /end")) {
            return heard;
        }
        let mut ours = TcpStream::connect(server).await.expect("our server");
        ours.write_all(format!("{}\r\n", heard[heard.len() - 1]).as_bytes()).await.expect("a line");
        // It ends when either side has hung up.
        let _ = copy_bidirectional(&mut client, &mut ours).await;
    }
}

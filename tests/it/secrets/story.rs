//! Import, sign-in, requests, a healed 401, and everything that can go wrong with words in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bearerd::clock::Clock;
use bearerd::sandbox::{Denial, Effect, Fault, Options, Sandbox, TokenFault};
use bearerd::tasks::Tasks;
use serde_json::json;
use url::Url;

use super::canary::{Canary, Output, search};
use super::server::{Server, ask, command};
use crate::harness::{Message, basic, key_hash, within};

const APP_SECRET: &str = "app+canary/7f3a=91c2~d0e5/of+the=regis/tration";
const STALE_SECRET: &str = "old+canary/1b2c=3d4e~5f60/of+the=regis/tration";
const CLIENT_KEY: &str = "bk_canary-key-2c9d41f07ab35e8866-of-payroll";
const WRONG_KEY: &str = "bk_canary-wrong-90f1d2c3b4a59687-of-nobody";
const ADMIN_TOKEN: &str = "admin-canary-6e0b7c8d9f1a2b3c4d5e-token";
const CLIENTS_BEARER: &str = "eyJ-canary-a-token-that-the-client-has-of-its-own";
const QUERY: &str = "canary-query-4f5e6d7c8b9a-of-a-request";
const BODY: &str = "canary-body-a1b2c3d4e5f60718-of-a-message";
const CODE: &str = "canary-code-0099887766554433-of-a-callback";

struct Story {
    home: tempfile::TempDir,
    sandbox: Sandbox,
    server: Server,
    /// Everything that came out.
    outputs: Vec<Output>,
    /// What stands in no log, metric, listing or file, but may be in an answer to the one it is for.
    private: Vec<Canary>,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_in_a_log_of_text() {
    tell("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_in_a_log_of_json() {
    tell("json").await;
}

async fn tell(format: &str) {
    let tasks = Tasks::on(tokio::runtime::Handle::current());
    let options = Options { users: 6, client_secret: Some(APP_SECRET.to_owned()), ..Options::default() };
    let sandbox = Sandbox::start(options, &Clock::system(), &tasks).expect("free ports");
    let home = tempfile::tempdir().expect("a directory");
    set_up(home.path(), &sandbox, format);
    let server = Server::start(home.path()).await;
    let mut story = Story { home, sandbox, server, outputs: Vec::new(), private: Vec::new() };

    let granted = story.import().await;
    story.requests().await;
    story.refreshes_that_fail(&granted).await;
    story.sign_in().await;
    story.refusals().await;
    story.operator().await;
    story.end(granted).await;
}

/// Every secret comes from a file, but for one, which is out of date.
fn set_up(home: &Path, sandbox: &Sandbox, format: &str) {
    for (name, secret) in [("app.secret", APP_SECRET), ("admin.token", ADMIN_TOKEN)] {
        fs::write(home.join(name), format!("{secret}\n")).expect("a file");
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(0o600)).expect("a file of ours");
    }
    let entra = sandbox.entra.options();
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        workers = 1
        [admin]
        listen = "127.0.0.1:0"
        token_file = "admin.token"
        [store]
        path = "data"
        key_file = "store.key"
        [providers.entra]
        authority = "{authority}"
        tenant = "{tenant}"
        client_id = "{client_id}"
        credentials = [{{ secret = "{STALE_SECRET}" }}, {{ secret_file = "app.secret" }}]
        [upstreams.graph]
        url = "{graph}"
        provider = "entra"
        scopes = ["User.Read", "Mail.ReadWrite", "Mail.Send", "Files.ReadWrite"]
        [[clients]]
        name = "payroll"
        key_hash = "{key}"
        accounts = ["*"]
        [log]
        format = "{format}"
        "#,
        authority = sandbox.entra.origin(),
        tenant = entra.tenant,
        client_id = entra.client_id,
        graph = sandbox.graph.origin(),
        key = key_hash(CLIENT_KEY),
    );
    fs::write(home.join("bearerd.toml"), text).expect("a file");
}

impl Story {
    /// Runs a command of the operator; what it prints is an output.
    async fn run(&mut self, arguments: &[&str]) -> String {
        let output = within(command(self.home.path()).args(arguments).output()).await.expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        self.outputs.push(Output::new(format!("{arguments:?}"), output.stdout));
        self.outputs.push(Output::new(format!("the log of {arguments:?}"), output.stderr));
        text
    }

    /// Asks the proxy; the answer is an output.
    async fn ask(&mut self, head: &str, body: &str) -> Message {
        let message = ask(self.server.data, head, body).await;
        self.outputs.push(Output::new(format!("the answer to {head:?}"), format!("{message:?}")));
        message
    }

    async fn get_as(&mut self, account: &str, path: &str) -> Message {
        let credential = basic(account, CLIENT_KEY);
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {credential}"), "").await
    }

    fn fault(&self, fault: Fault) {
        self.sandbox.faults().push(fault);
    }

    /// Six users; the last row is broken in the middle of a token. Returns the tokens.
    async fn import(&mut self) -> Vec<(String, String)> {
        let mut granted = Vec::new();
        let mut rows = Vec::new();
        for user in &self.sandbox.entra.options().users {
            let grant = self.sandbox.grant(&user.alias).expect("a user");
            let row = json!({ "alias": user.alias, "provider": "entra", "refresh_token": grant.refresh_token,
                "tid": grant.tenant, "oid": grant.oid, "access_token": grant.access_token,
                "expires_at": grant.expires_at.secs() });
            rows.push(row.to_string());
            granted.push((user.alias.clone(), grant.refresh_token));
            granted.push((user.alias.clone(), grant.access_token));
        }
        let token = &granted[0].1;
        rows.push(format!("{{\"alias\":\"x\",\"provider\":\"entra\",\"refresh_token\":\"{token}"));
        rows.push(format!("{{\"alias\":\"{CODE}\",\"provider\":\"entra\",\"refresh_token\":[\"{token}\"]}}"));
        fs::write(self.home.path().join("rows.jsonl"), rows.join("\n")).expect("a file");
        let said = self.run(&["accounts", "import", "rows.jsonl", "--no-verify"]).await;
        assert_eq!(said, "6 imported, 2 failed\n");
        granted
    }

    /// What works: reads, writes, and a 401 that heals.
    async fn requests(&mut self) {
        let answer = self.get_as("alice", &format!("/v1.0/me?$select=displayName&x={QUERY}")).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        self.sandbox.entra.revoke_access_tokens("alice");
        let mail = json!({ "message": { "subject": BODY, "toRecipients": [{ "emailAddress": { "address": "bob@contoso.example" } }] } });
        let credential = basic("alice", CLIENT_KEY);
        let head = format!(
            "POST /v1.0/me/sendMail?x={QUERY} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {credential}\r\n\
             content-type: application/json\r\ncookie: session={CODE}\r\nx-trace: {CODE}"
        );
        let answer = self.ask(&head, &mail.to_string()).await;
        assert_eq!(answer.status(), 202, "healed: {answer:?}");
        let asked = self.sandbox.entra.token_requests();
        assert_eq!(asked.last().map(|request| request.outcome.as_str()), Some("200"), "by the second credential");
        for head in [
            format!("GET /v1.0/me HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {CLIENT_KEY}\r\nbearerd-account: alice"),
            format!("GET /as/alice/v1.0/me HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {CLIENT_KEY}"),
        ] {
            assert_eq!(self.ask(&head, "").await.status(), 200);
        }
        self.fault(Fault::graph("/v1.0/me", Effect::Denied(Denial::Expired)).times(2));
        assert_eq!(self.get_as("alice", "/v1.0/me").await.status(), 401, "not to be healed");
        self.fault(Fault::graph("/v1.0/me", Effect::Denied(Denial::Claims("{\"access_token\":{}}".into()))));
        self.get_as("alice", "/v1.0/me").await;
        self.fault(Fault::graph("/v1.0/me", Effect::DropAfterHead));
        self.get_as("bob", "/v1.0/me/messages").await;
        for effect in [Effect::DropAfter, Effect::Raw("garbage\r\n\r\n".into()), Effect::graph_error(503, Some("60"))] {
            self.fault(Fault::graph("/v1.0/me", effect).times(2));
            assert!(self.get_as("bob", "/v1.0/me").await.status() >= 500);
            self.sandbox.faults().clear();
        }
    }

    /// A provider that repeats what it was sent, refuses, breaks off, is gone.
    async fn refreshes_that_fail(&mut self, granted: &[(String, String)]) {
        let token_of = |alias: &str| granted.iter().find(|(user, _)| user == alias).expect("a user").1.clone();
        let encoded: String = form_urlencoded::byte_serialize(APP_SECRET.as_bytes()).collect();
        let refuses = |error: &str, description: &str| Effect::Http {
            status: 400,
            headers: Vec::new(),
            body: json!({ "error": error, "error_description": description, "suberror": description }).to_string(),
        };
        let bob = token_of("bob");
        let effects = [
            ("bob", refuses("invalid_grant", &format!("AADSTS1: the token {bob} of {APP_SECRET} is refused"))),
            (
                "carol",
                refuses("invalid_grant", &format!("in client_secret={encoded}&refresh_token=.. there is a mistake")),
            ),
            ("user004", refuses("invalid_request", &format!("{} is no token", token_of("user004")))),
            ("user005", Effect::html(500, None)),
            ("user005", Effect::CutBody),
            ("user006", Effect::Error(TokenFault::aadsts(7_000_215))),
        ];
        for (user, effect) in effects {
            self.fault(Fault::token(effect).always().for_user(user));
        }
        for user in ["bob", "carol", "user004", "user005", "user006"] {
            self.sandbox.entra.revoke_access_tokens(user);
            for _ in 0..2 {
                let answer = self.get_as(user, "/v1.0/me").await;
                assert!(answer.header("bearerd-error").is_some(), "{user}: {answer:?}");
            }
        }
        self.run(&["accounts", "refresh", "user004"]).await;
        self.sandbox.entra.down().await;
        self.run(&["accounts", "refresh", "user005"]).await;
        self.sandbox.entra.up().expect("the port is free");
        self.sandbox.faults().clear();
    }

    /// A person signs in by a link, in a browser.
    async fn sign_in(&mut self) {
        let printed = self.run(&["login", "--account", "bob", "--link"]).await;
        // The link is what that command is for.
        self.outputs.retain(|output| !output.name.starts_with("[\"login\""));
        let invite =
            printed.split("invite=").nth(1).expect("a link").split_whitespace().next().expect("an invite").to_owned();
        self.private.push(Canary::new("an invite", &invite));
        let link = printed.split_whitespace().find(|word| word.starts_with("http")).expect("a link");
        let ours = Url::parse(link).expect("a URL").origin().ascii_serialization();
        let host = format!("host: {}", &ours["http://".len()..]);
        self.ask(&format!("GET /.bearerd/login?invite={invite} HTTP/1.1\r\n{host}"), "").await;
        let head = format!(
            "POST /.bearerd/login HTTP/1.1\r\n{host}\r\norigin: {ours}\r\n\
             content-type: application/x-www-form-urlencoded"
        );
        let leave = ask(self.server.data, &head, &format!("invite={invite}")).await;
        assert_eq!(leave.status(), 303, "{leave:?}");
        let cookie = leave.header("set-cookie").expect("a cookie").split(';').next().expect("a value").to_owned();
        self.private.push(Canary::new("a cookie", cookie.split_once('=').expect("a value").1));
        let away = Url::parse(leave.header("location").expect("a way")).expect("a URL");
        for (name, value) in away.query_pairs().filter(|(name, _)| matches!(&**name, "state" | "nonce")) {
            self.private.push(Canary::new(name, &value));
        }
        let target = format!("{}&bearerd_user=bob", &away[url::Position::BeforePath..]);
        let entra = self.sandbox.entra.address();
        let back = ask(entra, &format!("GET {target} HTTP/1.1\r\nhost: {entra}"), "").await;
        let back = Url::parse(back.header("location").expect("a way")).expect("a URL");
        let code = back.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
        self.private.push(Canary::new("a code", &code));
        let target = &back[url::Position::BeforePath..];
        let done = self.ask(&format!("GET {target} HTTP/1.1\r\n{host}\r\ncookie: {cookie}"), "").await;
        assert!(matches!(done.status(), 200 | 303), "{done:?}");
        assert_eq!(self.get_as("bob", "/v1.0/me").await.status(), 200, "signed in");
        let again = self.ask(&format!("GET {target} HTTP/1.1\r\n{host}\r\ncookie: {cookie}"), "").await;
        assert!(again.status() >= 400);
        let forged =
            format!("GET /.bearerd/callback/entra?code={CODE}&state={CODE} HTTP/1.1\r\n{host}\r\ncookie: {cookie}");
        assert!(self.ask(&forged, "").await.status() >= 400);
    }

    /// Requests that are refused before they go anywhere, each with something secret in it.
    async fn refusals(&mut self) {
        let host = "host: 127.0.0.1";
        let (wrong, right) = (basic("alice", WRONG_KEY), basic("alice", CLIENT_KEY));
        for (head, status) in [
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nauthorization: {wrong}"), 401),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nauthorization: Bearer {CLIENTS_BEARER}"), 401),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nx-api-key: {WRONG_KEY}"), 401),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nauthorization: {right}\r\nauthorization: {wrong}"), 400),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nauthorization: Digest {WRONG_KEY}"), 401),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nauthorization: {right}\r\nbearerd-account: bob"), 400),
            (
                format!("GET /v1.0/me?token={CLIENTS_BEARER} HTTP/1.1\r\nhost: evil.example\r\nauthorization: {right}"),
                421,
            ),
            (format!("GET /nowhere?{QUERY} HTTP/1.1\r\n{host}\r\nauthorization: {right}"), 404),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nauthorization: {}", basic("nobody", CLIENT_KEY)), 403),
            (format!("GET http://alice:{WRONG_KEY}@127.0.0.1/v1.0/me HTTP/1.1\r\n{host}"), 400),
            (format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nbearerd_account: {WRONG_KEY}\r\nauthorization: {right}"), 400),
            (
                format!("GET /v1.0/me HTTP/1.1\r\n{host}\r\nx-long: {}\r\nauthorization: {right}", CODE.repeat(4000)),
                431,
            ),
        ] {
            let answer = self.ask(&head, "").await;
            let shown: String = head.chars().take(200).collect();
            assert_eq!(answer.status(), status, "{shown}: {answer:?}");
        }
        // The heads of these requests are names of outputs; their answers are what counts.
        for output in &mut self.outputs {
            output.name.truncate(60);
        }
    }

    async fn operator(&mut self) {
        for (path, token) in [
            ("/livez", None),
            ("/readyz", None),
            ("/metrics", Some(ADMIN_TOKEN)),
            ("/metrics", Some(WRONG_KEY)),
            ("/v1/accounts", Some(ADMIN_TOKEN)),
        ] {
            let token = token.map(|token| format!("\r\nauthorization: Bearer {token}")).unwrap_or_default();
            let message = ask(self.server.admin, &format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1{token}"), "").await;
            self.outputs.push(Output::new(format!("admin {path}"), format!("{message:?}")));
        }
        for arguments in [
            &["check"][..],
            &["config", "print"],
            &["config", "print", "--format", "json"],
            &["accounts", "list"],
            &["accounts", "list", "--format", "json"],
            &["keys", "status"],
            &["explain", "--account", "alice", "GET", "/v1.0/me"],
            &["explain", "--account", "alice", "GET", "/v1.0/me", "--format", "json"],
            &["accounts", "revoke", "user006"],
            &["accounts", "remove", "user005", "--yes"],
        ] {
            self.run(arguments).await;
        }
        for user in ["alice", "bob", "carol", "user004", "user006"] {
            self.run(&["accounts", "show", user]).await;
            self.run(&["accounts", "show", user, "--format", "json"]).await;
        }
    }

    async fn end(mut self, granted: Vec<(String, String)>) {
        let store = |outputs: &mut Vec<Output>, home: &Path| {
            for file in walk(&home.join("data")) {
                outputs.push(Output::new(file.display().to_string(), fs::read(&file).expect("a file")));
            }
        };
        store(&mut self.outputs, self.home.path());
        self.outputs.extend(self.server.listing());
        self.outputs.extend(self.server.stop().await);
        store(&mut self.outputs, self.home.path());
        let log = self.outputs.iter().find(|output| output.name == "the log").expect("a log");
        let text = String::from_utf8_lossy(&log.bytes);
        let (lines, requests) = (text.lines().count(), text.matches("bearerd::access").count());
        assert!(lines > 40 && requests > 10, "a log that tells the story: {lines} lines, {requests} of requests");

        let mut canaries = vec![
            Canary::new("the application's secret", APP_SECRET),
            Canary::new("the stale secret", STALE_SECRET),
            Canary::new("the client's key", CLIENT_KEY),
            Canary::new("a wrong key", WRONG_KEY),
            Canary::new("the admin token", ADMIN_TOKEN),
            Canary::new("a client's own token", CLIENTS_BEARER),
            Canary::new("a query", QUERY),
            Canary::new("a body", BODY),
            Canary::new("a code", CODE),
            // However often they were renewed: the sandbox's tokens all begin so, and identity tokens so.
            Canary::beginning("an access token", "at_0000"),
            Canary::beginning("a refresh token", "rt_0000"),
            Canary::beginning("an identity token", "eyJ0eXA"),
            Canary::beginning("an identity token", "eyJhbGc"),
        ];
        canaries.extend(granted.iter().map(|(user, token)| Canary::new(format!("a token of {user}"), token)));
        // Behind its number, too.
        canaries.extend(
            granted.iter().map(|(user, token)| Canary::new(format!("the rest of a token of {user}"), &token[16..])),
        );
        for seen in self.sandbox.graph.requests() {
            for value in seen.header("authorization") {
                let token = value.strip_prefix("Bearer ").expect("a bearer");
                canaries.push(Canary::new("an access token that Graph saw", &token[16..]));
            }
        }
        let key = fs::read_to_string(self.home.path().join("store.key")).expect("a key");
        canaries.push(Canary::new("the store's key", key.trim()));
        let found = search(&self.outputs, &canaries);
        assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));

        // A person's own answers carry what is meant for that person; nothing else does.
        self.outputs.retain(|output| !output.name.starts_with("the answer to"));
        let found = search(&self.outputs, &self.private);
        assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
    }
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

//! `bearerd explain` and `POST /v1/explain`: what a request would meet. Each explanation is held against what the proxy then does.

use bearerd::account::Alias;
use bearerd::audit::{Entry, Event, Who};
use bearerd::sandbox::{Effect, Fault, Options, TokenFault};
use bearerd::secret::Secret;
use bearerd::vault::Import;
use http::Response;
use rusqlite::Connection;
use rusqlite::types::Value as Column;
use serde_json::{Value, json};

use crate::accounts_cli::house::{Done, bearerd};
use crate::harness::*;

/// A proxy, and the binary beside it with the same configuration.
struct Beside {
    rig: Rig,
    home: tempfile::TempDir,
}

/// What is asked: account, method, path.
type Case<'a> = (Option<&'a str>, &'a str, &'a str);

const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('audit', 'sqlite_sequence')";

impl Beside {
    async fn start(config: &str) -> Self {
        let sandbox = Options { users: 6, ..Options::default() };
        let rig = Setup { config: config.to_owned(), sandbox, ..Setup::default() }.start().await;
        let home = tempfile::tempdir().expect("a directory");
        let over = config.replace("ENTRA_ISSUER", &rig.sandbox.entra.issuer());
        let text = configuration_text(&rig.sandbox, rig.graph().origin().as_str(), rig.store.path(), &over);
        std::fs::write(home.path().join("bearerd.toml"), format!("{text}\n[log]\nlevel = \"warn\"\n")).expect("a file");
        Self { rig, home }
    }

    async fn run(&self, arguments: &[&str]) -> Done {
        bearerd(self.home.path(), &[&["explain"], arguments].concat()).await
    }

    async fn table(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        done.assert(0);
        self.assert_no_secret(&done.out).await;
        done.out
    }

    /// By the admin listener.
    async fn ask(&self, question: &Value) -> Response<bytes::Bytes> {
        let request = bare("POST", "/v1/explain").header("content-type", "application/json");
        self.rig.send_to_admin(request.body(full(question.to_string())).expect("a request")).await
    }

    /// By the admin listener and by the binary, which agree; nothing was sent, and the store is as it was.
    async fn explain(&self, client: Option<&str>, (account, method, path): Case<'_>) -> Value {
        let (seen, asked) = (self.rig.seen().len(), self.rig.token_requests().len());
        let store = self.store();
        let question = json!({"client": client, "account": account, "method": method, "path": path});
        let answer = self.ask(&question).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, Some("application/json")));
        let document = json(&answer);
        let mut arguments = vec![method, path, "--format", "json"];
        arguments.extend(client.iter().flat_map(|client| ["--client", client]));
        arguments.extend(account.iter().flat_map(|account| ["--account", account]));
        let done = self.run(&arguments).await;
        done.assert(0);
        assert_eq!(serde_json::from_str::<Value>(&done.out).expect("JSON"), document, "{question}");
        assert_eq!(done.err, "");
        assert_eq!((self.rig.seen().len(), self.rig.token_requests().len()), (seen, asked), "{question}");
        assert_eq!(self.store(), store, "{question}");
        self.assert_no_secret(&done.out).await;
        document
    }

    /// Explained, then done as the client `payroll`: the two agree. Returns the explanation.
    async fn holds(&self, case: Case<'_>) -> Value {
        let explained = self.explain(Some("payroll"), case).await;
        let (account, method, path) = case;
        let seen = self.rig.seen().len();
        let request = bare(method, path).header("authorization", basic(account.unwrap_or_default(), KEY));
        let answer = self.rig.send(request.body(empty()).expect("a request")).await;
        let verdict = &explained["verdict"];
        if verdict["sent"] == true {
            assert!(answer.status().is_success(), "{explained:#}\n{answer:?}");
            let seen = self.rig.seen().pop().expect("a request");
            assert_eq!(seen.target, explained["upstream"]["target"].as_str().expect("a target"), "{explained:#}");
            assert_eq!(seen.user.as_deref(), explained["account"]["alias"].as_str(), "{explained:#}");
        } else {
            let code = verdict["error"].as_str().expect("an error");
            let status = verdict["status"].as_u64().and_then(|status| status.try_into().ok()).expect("a status");
            let refused = assert_refused(&answer, status, code);
            assert_eq!(refused["error"]["message"], verdict["message"], "{explained:#}");
            let text = verdict["text"].as_str().expect("a text");
            assert!(text.starts_with(&format!("would be refused: {code} {status}, because ")), "{text}");
            assert_eq!(self.rig.seen().len(), seen, "{explained:#}");
        }
        explained
    }

    /// Every row of the store, but for the records of denials and failed refreshes and their counter: they come a moment after what they
    /// are about.
    fn store(&self) -> Vec<Vec<Column>> {
        let database = Connection::open(self.rig.store.path().join("data/store.db")).expect("a database");
        let mut names = database.prepare(TABLES).expect("a schema");
        let names: Vec<String> =
            names.query_map([], |row| row.get(0)).expect("names").map(|name| name.expect("a name")).collect();
        let mut rows = Vec::new();
        for name in names {
            let mut statement = database.prepare(&format!("SELECT * FROM {name}")).expect("a table");
            let columns = statement.column_count();
            let mut found = statement.query([]).expect("rows");
            while let Some(row) = found.next().expect("a row") {
                rows.push((0..columns).map(|at| row.get(at).expect("a value")).collect());
            }
        }
        rows
    }

    async fn assert_no_secret(&self, text: &str) {
        let entra = self.rig.sandbox.entra.options();
        let mut secrets = vec![KEY.to_owned(), key_hash(KEY)[7..].to_owned(), "Bearer ".to_owned(), "eyJ".to_owned()];
        secrets.extend(entra.client_secret.clone());
        for alias in ["alice", "bob"] {
            if let Ok(Some(grant)) = self.rig.app.core().store.find(alias).await {
                secrets.extend(grant.access.iter().map(|token| token.token.expose().to_owned()));
            }
        }
        for secret in secrets {
            assert!(!text.contains(&secret), "{secret:?} in {text}");
        }
    }

    /// Signs a simulated user in without an access token.
    async fn sign_in_without_token(&self, user: &str) {
        let grant = self.rig.sandbox.grant(user).expect("a user");
        let row = Import {
            alias: Alias::new(user).expect("an alias"),
            provider: "entra".to_owned(),
            refresh_token: Secret::new(grant.refresh_token),
            access_token: None,
            expires_at: None,
            tenant: Some(grant.tenant),
            subject: Some(grant.oid),
            scopes: Some(vec!["User.Read".to_owned()]),
        };
        self.rig
            .app
            .core()
            .vault
            .import(row, false, Entry::new(Event::Import, Who::Cli))
            .await
            .expect("the import succeeds");
    }
}

fn lines<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let rows = table.lines().filter_map(|line| line.split_at_checked(13));
    rows.filter(|(key, _)| key.trim() == name).map(|(_, value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_good_case_in_full() {
    let beside = Beside::start("").await;
    let explained = beside.holds((Some("alice"), "GET", "/v1.0/me?$select=id")).await;
    let origin = beside.rig.graph().origin().origin().ascii_serialization();
    assert_eq!(explained["client"], json!({"name": "payroll", "proof": "a key of ours", "identity": "user"}));
    assert_eq!(explained["account"], json!({"alias": "alice", "may_act": true}));
    assert_eq!(
        explained["upstream"],
        json!({"name": "graph", "url": format!("{origin}/v1.0/me?$select=id"), "target": "/v1.0/me?$select=id", "provider": "entra"})
    );
    assert_eq!(explained["canonical"], "/v1.0/me");
    let odd = beside.explain(None, (Some("alice"), "GET", "/v1.0/Users('x')/")).await;
    assert_eq!((&odd["canonical"], &odd["upstream"]["target"]), (&json!("/v1.0/users/x"), &json!("/v1.0/Users('x')/")));
    assert_eq!(explained["verdict"]["text"], format!("would be sent as alice to {origin}/v1.0/me?$select=id"));
    let grant = &explained["grant"];
    assert_eq!((&grant["state"], &grant["token"]["state"]), (&json!("active"), &json!("fresh")));
    let stored = beside.rig.app.core().store.find("alice").await.expect("a store").expect("an account");
    assert_eq!(grant["token"]["expires_at"], stored.access[0].expires.to_string());
    assert_eq!(grant["scopes"], json!(stored.scopes));

    let table = beside.table(&["GET", "/v1.0/me", "--account", "alice"]).await;
    assert_eq!(lines(&table, "request"), ["GET /v1.0/me"]);
    assert_eq!(lines(&table, "client"), ["payroll (identity user), proves itself by a key of ours"]);
    assert_eq!(lines(&table, "account"), ["alice"]);
    assert_eq!(lines(&table, "grant"), ["active"]);
    assert!(lines(&table, "access token")[0].starts_with("fresh, until "), "{table}");
    assert_eq!(lines(&table, "verdict"), [format!("would be sent as alice to {origin}/v1.0/me")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_for_whom_and_where_to() {
    let beside = Beside::start(&format!(
        "server.public_url = \"http://127.0.0.1:8080\"\n{}",
        client("accounts = [\"alice\", \"bob\", \"nobody\"]")
    ))
    .await;
    let refused = async |case: Case<'_>| {
        let explained = beside.holds(case).await;
        explained["verdict"]["error"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(refused((None, "GET", "/as/bob/v1.0/me")).await, "");
    assert_eq!(refused((None, "GET", "/v1.0/me")).await, "account_ambiguous");
    assert_eq!(refused((Some("alice"), "GET", "/as/bob/v1.0/me")).await, "account_ambiguous");
    assert_eq!(refused((Some("carol"), "GET", "/v1.0/me")).await, "account_forbidden");
    assert_eq!(refused((Some("alice"), "GET", "/nowhere")).await, "not_found");
    assert_eq!(refused((Some("alice"), "GET", "/v1.0/me/../users")).await, "bad_request");
    assert_eq!(refused((Some("alice"), "TRACE", "/v1.0/me")).await, "bad_request");
    assert_eq!(refused((Some("alice"), "GET", &format!("/v1.0/me?x={}", "a".repeat(33_000)))).await, "uri_too_long");
    // Allowed, and there is no such account: the client can't tell the two apart, the operator can.
    let nobody = beside.holds((Some("nobody"), "GET", "/v1.0/me")).await;
    assert_eq!(nobody["verdict"]["error"], "account_forbidden");
    assert_eq!((&nobody["account"]["may_act"], &nobody["grant"]["state"]), (&json!(true), &json!("none")));
    let table = beside.table(&["GET", "/v1.0/me", "--account", "nobody"]).await;
    assert_eq!(lines(&table, "grant"), ["none: there is no such account"]);
    let table = beside.table(&["GET", "/v1.0/me", "--account", "carol"]).await;
    assert_eq!(lines(&table, "account"), ["carol, for whom this client may not act"]);

    let other = beside.explain(None, (Some("alice"), "GET", "http://evil.example/v1.0/me")).await;
    assert_eq!(other["verdict"]["error"], "host_not_allowed");
    let whole = beside.explain(None, (Some("alice"), "GET", "http://127.0.0.1:8080/v1.0/me")).await;
    assert_eq!((&whole["verdict"]["sent"], &whole["upstream"]["target"]), (&json!(true), &json!("/v1.0/me")));
    let doubled = beside.explain(None, (Some("alice"), "GET", "/v1.0/http://127.0.0.1:8080/v1.0/me")).await;
    assert_eq!((&doubled["verdict"]["sent"], &doubled["upstream"]["target"]), (&json!(true), &json!("/v1.0/me")));

    let unknown = beside.explain(Some("nobody"), (Some("alice"), "GET", "/v1.0/me")).await;
    assert_eq!((&unknown["client"], &unknown["verdict"]["error"]), (&Value::Null, &json!("client_unauthenticated")));
    assert_eq!(unknown["notes"], json!(["there is no client of that name; there are: payroll"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn which_rule_decides() {
    let rules = r#"
        accounts = ["*"]
        allow = ["GET /v1.0/users", "GET /v1.0/me", "GET /v1.0/me/**", "* /v1.0/users/**"]
        deny = ["* /v1.0/me/messages/secret"]
    "#;
    let beside = Beside::start(&client(rules)).await;
    for (method, path, rule) in [
        ("GET", "/v1.0/me", json!({"permits": true, "decides": "allow[1]", "text": "GET /v1.0/me"})),
        (
            "GET",
            "/v1.0/me/messages/secret",
            json!({"permits": false, "decides": "deny[0]", "text": "* /v1.0/me/messages/secret"}),
        ),
        ("POST", "/v1.0/me/sendMail", json!({"permits": false, "decides": "allow", "text": "no rule matches"})),
    ] {
        let explained = beside.holds((Some("alice"), method, path)).await;
        assert_eq!(explained["rule"], rule, "{method} {path}");
        assert_eq!(explained["verdict"]["sent"], rule["permits"]);
    }
    let table = beside.table(&["GET", "/v1.0/me", "--account", "alice"]).await;
    assert_eq!(lines(&table, "rule"), ["allow[1]: GET /v1.0/me"]);
    let batch = beside.explain(None, (Some("alice"), "POST", "/v1.0/$batch")).await;
    assert_eq!((&batch["rule"]["decides"], &batch["verdict"]["sent"]), (&json!("members"), &json!(true)));
    assert!(batch["notes"][0].as_str().unwrap().contains("each of its members"), "{batch:#}");

    let beside = Beside::start(&client("accounts = [\"*\"]\nread_only = true")).await;
    let explained = beside.holds((Some("alice"), "POST", "/v1.0/me/sendMail")).await;
    assert_eq!(explained["rule"]["decides"], "read_only");
    let explained = beside.holds((Some("alice"), "GET", "/v1.0/me")).await;
    assert_eq!(explained["rule"], json!({"permits": true, "decides": "none", "text": "nothing restricts it"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_grant() {
    let beside = Beside::start("").await;
    for user in ["carol", "user004", "user005", "user006"] {
        beside.sign_in_without_token(user).await;
    }
    let origin = beside.rig.graph().origin().origin().ascii_serialization();
    let me = |user| (Some(user), "GET", "/v1.0/me");
    // Nobody knows what the provider would say to a refresh.
    let carol = beside.explain(None, me("carol")).await;
    assert_eq!((&carol["grant"]["state"], &carol["grant"]["token"]), (&json!("active"), &Value::Null));
    assert_eq!(carol["grant"]["missing_scopes"], json!(["Mail.ReadWrite", "Mail.Send", "Files.ReadWrite"]));
    let text = format!("would be sent as carol to {origin}/v1.0/me, once the provider has given a new token");
    assert_eq!(carol["verdict"]["text"], text);
    let table = beside.table(&["GET", "/v1.0/me", "--account", "carol"]).await;
    assert_eq!(lines(&table, "not granted"), ["Mail.ReadWrite Mail.Send Files.ReadWrite"]);
    assert_eq!(lines(&table, "access token"), ["none for this upstream"]);
    beside.holds(me("carol")).await;

    // Dead.
    assert!(beside.rig.sandbox.entra.revoke_user("user004"));
    let get = |user: &str| bare("GET", "/v1.0/me").header("authorization", basic(user, KEY)).body(empty()).unwrap();
    assert_refused(&beside.rig.send(get("user004")).await, 403, "signin_required");
    let dead = beside.holds(me("user004")).await;
    assert_eq!((&dead["grant"]["state"], &dead["verdict"]["error"]), (&json!("reauth"), &json!("signin_required")));
    assert!(dead["grant"]["reason"].as_str().unwrap().contains("50173"), "{dead:#}");
    let table = beside.table(&["GET", "/v1.0/me", "--account", "user004"]).await;
    assert!(lines(&table, "because")[0].contains("50173") && lines(&table, "since").len() == 1, "{table}");

    // Waits for a person.
    beside.rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50076))));
    assert_refused(&beside.rig.send(get("user005")).await, 403, "signin_required");
    let parked = beside.holds(me("user005")).await;
    assert_eq!(parked["verdict"]["error"], "signin_required");
    assert_eq!(parked["grant"]["parked"][0]["challenged"], false, "{parked:#}");
    let table = beside.table(&["GET", "/v1.0/me", "--account", "user005"]).await;
    assert!(lines(&table, "waiting")[0].contains("50076"), "{table}");

    // Backs off: the words are those of the refresh that failed, or that the next one is not due.
    beside.rig.graph().faults().push(Fault::token(Effect::html(503, Some("40"))).always());
    assert_refused(&beside.rig.send(get("user006")).await, 503, "provider_unavailable");
    let waits = beside.explain(None, me("user006")).await;
    assert_eq!(waits["verdict"]["error"], "provider_unavailable");
    assert!(waits["grant"]["next_try"].is_string(), "{waits:#}");
    beside.rig.graph().faults().clear();

    // Ended by the operator.
    let bob = beside.rig.app.core().store.find("bob").await.unwrap().unwrap();
    assert!(beside.rig.app.core().vault.revoke(&bob.key).await.unwrap());
    let revoked = beside.holds(me("bob")).await;
    assert_eq!(
        (&revoked["grant"]["state"], &revoked["verdict"]["error"]),
        (&json!("revoked"), &json!("signin_required"))
    );

    // Dead, and its access token lives: that is served.
    assert!(beside.rig.sandbox.entra.revoke_user("alice"));
    assert_refused(&beside.rig.get("/v1.0/me").await, 403, "signin_required");
    let served = beside.explain(None, me("alice")).await;
    assert_eq!((&served["grant"]["state"], &served["verdict"]["sent"]), (&json!("reauth"), &json!(true)));
    assert!(served["notes"][0].as_str().unwrap().starts_with("the token that lives is served"), "{served:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_nobody_is_known() {
    let beside = Beside::start("").await;
    let database = Connection::open(beside.rig.store.path().join("data/store.db")).unwrap();
    database
        .execute_batch("UPDATE access SET token = (SELECT token FROM access WHERE grant_id = 2) WHERE grant_id = 1;")
        .unwrap();
    let damaged = beside.holds((Some("alice"), "GET", "/v1.0/me")).await;
    assert_eq!(damaged["verdict"]["error"], "internal_error");
    database.execute_batch("ALTER TABLE grants RENAME TO taken").unwrap();
    let away = beside.holds((Some("bob"), "GET", "/v1.0/me")).await;
    assert_eq!((&away["verdict"]["error"], &away["grant"]), (&json!("store_unavailable"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_use_no_account() {
    let nightly = client("identity = \"app\"").replace("payroll", "nightly");
    let nightly = nightly.replace(&key_hash(KEY), &key_hash("another"));
    let config = format!("{}{nightly}{}", client("accounts = [\"*\"]"), on_behalf_of());
    let beside = Beside::start(&config).await;
    let origin = beside.rig.graph().origin().origin().ascii_serialization();
    let app = beside.explain(Some("nightly"), (None, "GET", "/v1.0/users")).await;
    assert_eq!(
        (&app["client"]["identity"], &app["account"], &app["grant"]),
        (&json!("app"), &Value::Null, &Value::Null)
    );
    let said = app["verdict"]["text"].as_str().unwrap();
    assert!(said.starts_with(&format!("would be sent as the application itself to {origin}/v1.0/users")), "{said}");
    let other = beside.explain(Some("nightly"), (Some("alice"), "GET", "/v1.0/users")).await;
    assert_eq!(other["verdict"]["error"], "account_forbidden");

    let portal = beside.explain(Some("portal"), (None, "GET", "/v1.0/me")).await;
    assert_eq!((&portal["client"]["identity"], &portal["grant"]), (&json!("on-behalf-of"), &Value::Null));
    let said = portal["verdict"]["text"].as_str().unwrap();
    assert!(said.starts_with("would be sent as the user of the token that is presented"), "{said}");

    // Which of the three?
    let done = beside.run(&["GET", "/v1.0/me"]).await;
    assert_eq!(done.assert(1).out, "");
    assert_eq!(done.said("error: "), ["error: client: there are several; name one of payroll, nightly, portal"]);
    let answer = beside.ask(&json!({"method": "GET", "path": "/v1.0/me"})).await;
    assert_problem(&answer, 400, "there are several; name one of payroll, nightly, portal");
}

fn assert_problem(answer: &Response<bytes::Bytes>, status: u16, says: &str) {
    assert_eq!(
        (answer.status().as_u16(), header(answer, "content-type")),
        (status, Some("application/problem+json")),
        "{answer:?}"
    );
    let document = json(answer);
    assert_eq!(document["status"], status);
    assert!(document["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_route_takes_questions_and_nothing_else() {
    let beside = Beside::start("admin.token = \"letmein-letmein-letmein\"").await;
    let ask = async |change: &dyn Fn(http::request::Builder) -> http::request::Builder, body: &str| {
        let request = change(bare("POST", "/v1/explain"));
        beside.rig.send_to_admin(request.body(full(body.to_owned())).expect("a request")).await
    };
    let typed = |request: http::request::Builder| request.header("content-type", "application/json");
    let known =
        |request: http::request::Builder| typed(request).header("authorization", "Bearer letmein-letmein-letmein");
    let question = json!({"account": "alice", "method": "GET", "path": "/v1.0/me"}).to_string();
    assert_eq!(ask(&known, &question).await.status(), 200);
    let answer = ask(&typed, &question).await;
    assert_problem(&answer, 401, "bearer token");
    assert_eq!(header(&answer, "www-authenticate"), Some("Bearer"));
    assert_problem(
        &ask(&|request| known(request).header("sec-fetch-site", "cross-site"), &question).await,
        403,
        "origin",
    );
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&|request| known(request).method(method), &question).await;
        assert_problem(&answer, 405, "POST");
        assert_eq!(header(&answer, "allow"), Some("POST"));
    }
    let plain = |request: http::request::Builder| {
        request.header("content-type", "text/plain").header("authorization", "Bearer letmein-letmein-letmein")
    };
    assert_problem(&ask(&plain, &question).await, 415, "application/json");
    assert_problem(&ask(&known, &format!("{question}{}", " ".repeat(70_000))).await, 413, "longer");
    for (body, says) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "invalid"),
        (r#"{"method": "GET"}"#, "missing field `path`"),
        (r#"{"method": "GET", "path": "/v1.0/me", "acount": "alice"}"#, "unknown field `acount`"),
        (r#"{"method": 1, "path": "/v1.0/me"}"#, "expected a string"),
        (r#"{"method": "G T", "path": "/v1.0/me"}"#, "method: \"G T\""),
        (r#"{"method": "GET", "path": "v1.0/me"}"#, "path: \"v1.0/me\""),
        (r#"{"method": "GET", "path": "ftp://127.0.0.1/v1.0/me"}"#, "path: "),
    ] {
        assert_problem(&ask(&known, body).await, 400, says);
    }
    beside.rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_not_made() {
    let beside = Beside::start("").await;
    let elsewhere = beside.home.path().join("elsewhere");
    let store = format!("store.path={}", elsewhere.display());
    let done = beside.run(&["GET", "/v1.0/me", "--set", &store]).await;
    done.assert(1);
    assert!(done.err.contains("there is no store in "), "{}", done.err);
    assert!(!elsewhere.exists());
    let done = beside.run(&["GET", "/v1.0/me", "--set", "server.workers=-1"]).await;
    done.assert(64);
    let done = beside.run(&["GET"]).await;
    done.assert(2);
}

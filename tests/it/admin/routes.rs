//! What holds for every route: the OpenAPI document, problems, secrets.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::assert_problem;
use crate::harness::*;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];
/// Such an id as there might be.
const NOBODY: &str = "0123456789abcdef0123456789abcdef";

/// Each path of the document with its methods.
async fn documented(rig: &Rig) -> Vec<(String, BTreeSet<String>)> {
    let document = rig.document("GET", "/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let methods =
        |item: &Value| item.as_object().expect("methods").keys().map(|name| name.to_ascii_uppercase()).collect();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_every_route_and_every_route_is_in_the_document() {
    let rig = Rig::start().await;
    let documented = documented(&rig).await;
    assert!(documented.len() >= 13, "{documented:?}");
    for (path, methods) in &documented {
        for method in METHODS {
            let answer = rig.admin(method, &path.replace("{id}", NOBODY)).await;
            let answered_as = if method == "HEAD" { "GET" } else { method };
            if methods.contains(answered_as) {
                let status = answer.status().as_u16();
                assert!(![405, 421, 500].contains(&status), "{method} {path}: {answer:?}");
                let found = status != 404
                    || method == "HEAD"
                    || json(&answer)["type"] == "urn:bearerd:problem:account_not_found";
                assert!(found, "{method} {path}: {answer:?}");
            } else {
                if method == "HEAD" {
                    assert_eq!(answer.status(), 405, "{path}");
                } else {
                    assert_problem(&answer, 405, "method_not_allowed");
                }
                let allowed: BTreeSet<_> = header(&answer, "allow").expect("Allow").split(", ").collect();
                let mut expected: BTreeSet<_> = methods.iter().map(String::as_str).collect();
                if expected.contains("GET") {
                    expected.insert("HEAD");
                }
                assert_eq!(allowed, expected, "{method} {path}");
            }
        }
    }
    // What is answered at all is documented.
    let paths: BTreeSet<_> = documented.iter().map(|(path, _)| path.as_str()).collect();
    for path in [
        "/v1/accounts/x/y",
        "/v1/account",
        "/v1",
        "/v2/accounts",
        "/livez/",
        "/openapi.yaml",
        "//livez",
        "/v1/accounts/",
    ] {
        assert!(!paths.contains(path));
        assert_problem(&rig.admin("GET", path).await, 404, "not_found");
    }
}

/// Everything that a reference can lead to.
#[tokio::test(flavor = "multi_thread")]
async fn references_of_the_document_lead_somewhere() {
    let rig = Rig::start().await;
    let document = rig.document("GET", "/openapi.json").await;
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference into the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let names: BTreeSet<_> =
        document["components"]["schemas"].as_object().expect("schemas").keys().map(String::as_str).collect();
    assert!(
        names.is_superset(&["Account", "Page", "Problem", "NewAccount", "Clients", "Explanation", "Question"].into()),
        "{names:?}"
    );
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                match value.as_str() {
                    Some(reference) if name == "$ref" => references.push(reference.to_owned()),
                    _ => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_is_wrong_is_named() {
    let rig = Rig::start().await;
    for (target, parameter) in [
        ("/v1/accounts?limit=0", "limit"),
        ("/v1/accounts?limit=1001", "limit"),
        ("/v1/accounts?limit=two", "limit"),
        ("/v1/accounts?state=dead", "state"),
        ("/v1/accounts?cursor=zz", "cursor"),
        ("/v1/accounts?cursor=6", "cursor"),
        ("/v1/accounts?status=active", "status"),
        ("/v1/accounts?limit=2&limit=2", "limit"),
        (&format!("/v1/accounts?search={}", "a".repeat(257)), "search"),
        ("/v1/config?secrets=true", "secrets"),
        ("/v1/clients?x", "x"),
    ] {
        let document = assert_problem(&rig.admin("GET", target).await, 400, "invalid_parameter");
        assert_eq!(document["parameter"], parameter, "{target}");
    }
    let grant = json!({ "alias": "a", "provider": "entra", "refresh_token": "r" });
    let answer = rig.admin_json("POST", "/v1/accounts?verify=perhaps", &grant).await;
    assert_eq!(assert_problem(&answer, 400, "invalid_parameter")["parameter"], "verify");
    assert_eq!(rig.admin("GET", "/v1/accounts?cursor=").await.status(), 200, "the beginning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_json_and_short() {
    let rig = Rig::start().await;
    for path in ["/v1/accounts", "/v1/explain"] {
        let send = async |kind: Option<&str>, body: String| {
            let mut request = bare("POST", path);
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            rig.send_to_admin(request.body(full(body)).expect("a request")).await
        };
        assert_problem(&send(None, "{}".into()).await, 415, "unsupported_media_type");
        assert_problem(&send(Some("text/plain"), "{}".into()).await, 415, "unsupported_media_type");
        assert_problem(&send(Some("application/json"), " ".repeat(70_000)).await, 413, "body_too_large");
        assert_problem(&send(Some("application/json"), "{".into()).await, 400, "invalid_body");
    }
    assert!(rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_shown_with_their_rules() {
    let config = format!(
        "[[clients]]\nname = \"payroll\"\nkey_hash = \"{}\"\naccounts = [\"alice\", \"*@contoso.com\"]\nallow = [\"GET /v1.0/**\"]\n\
         deny = [\"GET /v1.0/users\"]\nread_only = true\nlimits = {{ requests_per_second = 50, concurrent = 64 }}\n\
         [[clients]]\nname = \"robot\"\npeer_uid = 1000\nidentity = \"app\"\n",
        key_hash(KEY)
    );
    let rig = Setup { config, signed_in: Vec::new(), ..Setup::default() }.start().await;
    let clients = rig.document("GET", "/v1/clients").await;
    assert_eq!(
        clients["clients"],
        json!([
            {
                "name": "payroll", "identity": "user", "credential": { "kind": "key", "name": null },
                "accounts": ["alice", "*@contoso.com"], "allow": ["GET /v1.0/**"], "deny": ["GET /v1.0/users"],
                "read_only": true, "limits": { "requests_per_second": 50.0, "concurrent": 64 },
            },
            {
                "name": "robot", "identity": "app", "credential": { "kind": "peer_uid", "name": "1000" },
                "accounts": [], "allow": [], "deny": [],
                "read_only": false, "limits": { "requests_per_second": null, "concurrent": null },
            },
        ])
    );
    let shown = rig.document("GET", "/v1/config").await;
    assert_eq!(shown["clients"][0]["read_only"], true);
    assert_eq!(shown["server"]["workers"], 1);
    assert_eq!(shown["providers"]["entra"]["credentials"][0]["secret"], "********");
}

/// Every answer there is, searched for every secret there is.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_holds_a_secret() {
    let password = "an-old-password-of-an-application";
    let phc = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$0nq2VXTQEYLKJCYyhkIyyA";
    let config = format!(
        "admin.token = \"letmein-letmein-letmein\"\n{}\n[[clients]]\nname = \"old\"\nkey_hash = \"{phc}\"\naccounts = [\"bob\"]\n",
        client("accounts = [\"*\"]")
    );
    let rig = Setup { config, ..Setup::default() }.start().await;
    let ask = async |method: &str, target: &str, body: Option<Value>| -> Response<Bytes> {
        let request = bare(method, target).header("authorization", "Bearer letmein-letmein-letmein");
        let request = request.header("content-type", "application/json");
        let body = full(body.map(|body| body.to_string()).unwrap_or_default());
        rig.send_to_admin(request.body(body).expect("a request")).await
    };
    let mut secrets = vec![
        KEY.to_owned(),
        key_hash(KEY),
        sha256(KEY.as_bytes()),
        password.to_owned(),
        phc.to_owned(),
        "letmein-letmein-letmein".to_owned(),
        rig.sandbox.entra.options().client_secret.clone().expect("a secret"),
        std::fs::read_to_string(rig.store.path().join("store.key")).expect("a key").trim().to_owned(),
    ];
    // Every refresh token begins so, and every access token is a JWT.
    secrets.extend(["rt_0".to_owned(), "eyJ".to_owned()]);
    let stored = rig.app.core().store.find("alice").await.expect("a store").expect("an account");
    secrets.extend(stored.access.iter().map(|token| token.token.expose().clone()));
    assert!(secrets.len() > 10);
    let grant = rig.sandbox.grant("alice").expect("a user");
    let row = json!({ "alias": "alice", "provider": "entra", "refresh_token": grant.refresh_token });
    secrets.extend([grant.refresh_token, grant.access_token]);
    let page = json(&ask("GET", "/v1/accounts?alias=alice", None).await);
    let id = page["accounts"][0]["id"].as_str().expect("an account").to_owned();
    let question = json!({ "client": "payroll", "account": "alice", "method": "GET", "path": "/v1.0/me" });
    let mut answers =
        vec![ask("POST", "/v1/accounts", Some(row)).await, ask("POST", "/v1/explain", Some(question)).await];
    for method in METHODS {
        let documented = json(&ask("GET", "/openapi.json", None).await);
        for path in documented["paths"].as_object().expect("paths").keys() {
            answers.push(ask(method, &path.replace("{id}", &id), None).await);
        }
    }
    assert!(answers.len() > 100);
    for answer in answers {
        let said = format!("{:?} {}", answer.headers(), text(answer.body()));
        for secret in &secrets {
            assert!(!said.contains(secret.as_str()), "{secret} in {said}");
        }
    }
}

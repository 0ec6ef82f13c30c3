//! Accounts through the API: found, looked at, refreshed, revoked, removed, brought from elsewhere. What was done is seen at the proxy, at
//! Graph and at Entra ID, at once.

use bearerd::sandbox::{Effect, Fault, Options, TokenFault};
use serde_json::{Value, json};

use super::assert_problem;
use crate::harness::*;

async fn five() -> Rig {
    let sandbox = Options { users: 6, ..Options::default() };
    let signed_in = vec!["alice", "bob", "carol", "user004", "user005"];
    Setup { sandbox, signed_in, ..Setup::default() }.start().await
}

fn aliases(page: &Value) -> Vec<&str> {
    let accounts = page["accounts"].as_array().expect("a list");
    accounts.iter().map(|account| account["alias"].as_str().expect("an alias")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_page_by_page_and_by_what_is_wanted() {
    let rig = five().await;
    let revoked = rig.id("bob").await;
    rig.document("POST", &format!("/v1/accounts/{revoked}/revoke")).await;
    let (mut seen, mut target, mut pages) = (Vec::new(), "/v1/accounts?limit=2".to_owned(), 0);
    loop {
        let page = rig.document("GET", &target).await;
        seen.extend(aliases(&page).into_iter().map(str::to_owned));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/accounts?limit=2&cursor={next}");
    }
    assert_eq!((seen.join(" ").as_str(), pages), ("alice bob carol user004 user005", 3));
    for (query, wanted) in [
        ("", &["alice", "bob", "carol", "user004", "user005"][..]),
        ("?state=revoked", &["bob"]),
        ("?state=active&search=USER", &["user004", "user005"]),
        ("?state=reauth", &[]),
        ("?provider=entra&limit=1000", &["alice", "bob", "carol", "user004", "user005"]),
        ("?provider=other", &[]),
        ("?search=lic", &["alice"]),
        ("?search=%25", &[]),
        ("?alias=bob", &["bob"]),
        ("?alias=nobody", &[]),
    ] {
        let page = rig.document("GET", &format!("/v1/accounts{query}")).await;
        assert_eq!((aliases(&page), &page["next"]), (wanted.to_vec(), &Value::Null), "{query}");
    }
    let head = rig.admin("HEAD", "/v1/accounts").await;
    assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_a_revocation_and_a_removal_are_in_force_at_once() {
    let rig = Rig::start().await;
    let id = rig.id("alice").await;
    let account = rig.document("GET", &format!("/v1/accounts/{id}")).await;
    assert_eq!(
        (&account["alias"], &account["status"], &account["provider"]),
        (&json!("alice"), &json!("active"), &json!("entra"))
    );
    assert!(account["access_tokens"][0]["expires_at"].is_string(), "{account}");

    let refreshed = rig.document("POST", &format!("/v1/accounts/{id}/refresh")).await;
    assert!(refreshed["version"].as_u64() > account["version"].as_u64(), "{refreshed}");
    assert_eq!(rig.token_requests().len(), 1);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.token_requests().len(), 1, "the proxy uses what the operator's refresh brought");

    let revoked = rig.document("POST", &format!("/v1/accounts/{id}/revoke")).await;
    assert_eq!((&revoked["status"], &revoked["access_tokens"]), (&json!("revoked"), &json!([])));
    assert_refused(&rig.get("/v1.0/me").await, 403, "signin_required");
    let answer = rig.admin("POST", &format!("/v1/accounts/{id}/refresh")).await;
    assert_problem(&answer, 409, "signin_required");

    let bob = rig.id("bob").await;
    let answer = rig.admin("DELETE", &format!("/v1/accounts/{bob}")).await;
    assert_eq!((answer.status().as_u16(), answer.body().len(), header(&answer, "content-type")), (204, 0, None));
    let as_bob = bare("GET", "/v1.0/me").header("authorization", basic("bob", KEY)).body(empty()).expect("a request");
    assert_refused(&rig.send(as_bob).await, 403, "account_forbidden");
    for (method, rest) in
        [("GET", ""), ("DELETE", ""), ("POST", "/refresh"), ("POST", "/revoke"), ("POST", "/signin-link")]
    {
        assert_problem(&rig.admin(method, &format!("/v1/accounts/{bob}{rest}")).await, 404, "account_not_found");
    }
    assert_eq!(rig.seen().len(), 1);
    assert_eq!(rig.token_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_says_to_a_refresh_is_told() {
    let rig = Rig::start().await;
    let id = rig.id("alice").await;
    let refresh = async || rig.admin("POST", &format!("/v1/accounts/{id}/refresh")).await;

    rig.graph().faults().push(Fault::token(Effect::html(503, Some("7"))).always());
    let answer = refresh().await;
    assert_problem(&answer, 503, "provider_unavailable");
    let wait: u64 = header(&answer, "retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    rig.graph().faults().clear();

    rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(7_000_222))));
    let document = assert_problem(&refresh().await, 502, "app_credential_invalid");
    assert!(document["detail"].as_str().expect("text").contains("7000222"), "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_link_is_for_the_account_and_leads_to_the_pages() {
    let rig = Rig::start().await;
    let id = rig.id("alice").await;
    let answer = rig.admin("POST", &format!("/v1/accounts/{id}/signin-link")).await;
    assert_eq!(answer.status(), 201);
    let link = json(&answer);
    let url: http::Uri = link["url"].as_str().expect("a URL").parse().expect("a URL");
    let expires: bearerd::admin::desk::At = serde_json::from_value(link["expires_at"].clone()).expect("a date");
    assert!(expires.0 > rig.clock.now());
    let page = bare("GET", url.path_and_query().expect("a path").as_str());
    let page = rig.send(page.body(empty()).expect("a request")).await;
    assert_eq!(page.status(), 200);
    assert!(text(page.body()).contains("alice"), "{page:?}");
    let another = json(&rig.admin("POST", &format!("/v1/accounts/{id}/signin-link")).await);
    assert_ne!(link["url"], another["url"], "each is for one sign-in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_from_elsewhere_is_taken_once() {
    let sandbox = Options { users: 3, ..Options::default() };
    let rig = Setup { sandbox, signed_in: vec!["alice"], ..Setup::default() }.start().await;
    let grant = rig.sandbox.grant("bob").expect("a user");
    let row = json!({ "alias": "bob", "provider": "entra", "refresh_token": grant.refresh_token });
    let answer = rig.admin_json("POST", "/v1/accounts", &row).await;
    assert_eq!(answer.status(), 201, "{answer:?}");
    let account = json(&answer);
    let place = format!("/v1/accounts/{}", account["id"].as_str().expect("an id"));
    assert_eq!(header(&answer, "location"), Some(&*place));
    assert_eq!(rig.document("GET", &place).await, account);
    assert_eq!(rig.token_requests().len(), 1);
    let again = rig.admin_json("POST", "/v1/accounts", &row).await;
    assert_eq!((again.status().as_u16(), json(&again)), (200, account));
    assert_eq!(rig.token_requests().len(), 1, "it is not presented again");

    let other = rig.sandbox.grant("carol").expect("a user");
    let unproven = json!({
        "alias": "third", "provider": "entra", "refresh_token": other.refresh_token, "tid": other.tenant, "oid": other.oid,
    });
    assert_eq!(rig.admin_json("POST", "/v1/accounts?verify=false", &unproven).await.status(), 201);
    assert_eq!(rig.token_requests().len(), 1);

    let with = |name: &str, value: Value| {
        let mut row = row.clone();
        row[name] = value;
        row
    };
    for (row, status, kind) in [
        (with("provider", json!("nowhere")), 422, "import_refused"),
        (json!({ "alias": "dave", "provider": "entra", "refresh_token": "made-up" }), 422, "import_refused"),
        (with("alias", json!("alice")), 409, "alias_taken"),
        (with("alias", json!("a/b")), 400, "invalid_body"),
        (with("alias", json!(7)), 400, "invalid_body"),
        (with("refresh_token", json!("")), 400, "invalid_body"),
        (with("more", json!(1)), 400, "invalid_body"),
        (json!([]), 400, "invalid_body"),
        (json!({}), 400, "invalid_body"),
    ] {
        let answer = rig.admin_json("POST", "/v1/accounts", &row).await;
        let document = assert_problem(&answer, status, kind);
        let token = row["refresh_token"].as_str().filter(|token| !token.is_empty()).unwrap_or("nothing of the kind");
        assert!(!text(answer.body()).contains(token), "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_page_by_page_and_by_what_is_wanted() {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.id("alice").await, rig.id("bob").await);
    for id in [&alice, &bob, &alice] {
        rig.document("POST", &format!("/v1/accounts/{id}/revoke")).await;
    }
    let records = async |query: &str| rig.document("GET", &format!("/v1/audit?{query}")).await;
    let named = |page: &Value, field: &str| -> Vec<String> {
        let records = page["records"].as_array().expect("a list");
        records.iter().map(|record| record[field].as_str().expect("text").to_owned()).collect()
    };
    let (mut outcomes, mut query, mut pages) = (Vec::new(), "event=revoke&account=alice&limit=3".to_owned(), 0);
    loop {
        let page = records(&query).await;
        assert!(named(&page, "account_id").iter().all(|id| *id == alice), "{page}");
        outcomes.extend(named(&page, "outcome"));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        query = format!("event=revoke&account=alice&limit=3&cursor={next}");
    }
    assert_eq!((outcomes.join(" ").as_str(), pages), ("done intended done intended", 2), "the newest first");
    let done = records("event=revoke&outcome=done").await;
    assert_eq!(named(&done, "account"), ["alice", "bob", "alice"]);
    assert_eq!(named(&done, "who"), ["operator:admin"; 3]);
    assert_eq!(named(&records(&format!("event=revoke&outcome=done&account={bob}")).await, "account"), ["bob"]);
    for (query, count) in [
        ("account=nobody", 0),
        ("account=ffffffffffffffffffffffffffffffff", 0),
        ("event=revoke&since=2000-01-01T00:00:00Z", 6),
        ("event=revoke&until=2000-01-01T00:00:00Z", 0),
        ("event=revoke&since=9000-01-01T00:00:00Z", 0),
        ("cursor=1", 0),
    ] {
        assert_eq!(records(query).await["records"].as_array().map(Vec::len), Some(count), "{query}");
    }
    for (query, parameter) in [
        ("event=sneeze", "event"),
        ("outcome=fine", "outcome"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("cursor=%2B1", "cursor"),
        ("order=asc", "order"),
    ] {
        let document = assert_problem(&rig.admin("GET", &format!("/v1/audit?{query}")).await, 400, "invalid_parameter");
        assert_eq!(document["parameter"], parameter, "{query}");
    }
}

//! The dashboard over HTTP: what its pages say and do, who may see them, and who may post its forms. How it looks is seen in a browser.

use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{Effect, Fault, TokenFault};
use bytes::Bytes;
use http::Response;
use serde_json::json;

use crate::harness::*;

const TOKEN: &str = "the-token-of-the-operators";
const HOST: &str = "127.0.0.1:8081";
const ORIGIN: (&str, &str) = ("origin", "http://127.0.0.1:8081");

/// A browser with its cookie.
#[derive(Clone, Copy)]
struct Browser<'r> {
    rig: &'r Rig,
    cookie: Option<&'r str>,
}

impl Browser<'_> {
    async fn get(self, target: &str) -> Response<Bytes> {
        self.send("GET", target, &[], "").await
    }

    /// Of a page that is shown.
    async fn page(self, target: &str) -> String {
        let answer = self.get(target).await;
        assert_eq!(answer.status(), 200, "{target}: {answer:?}");
        assert_hardened(&answer);
        text(answer.body())
    }

    /// Posts the form of `page` that leads to `target`, with further fields.
    async fn post(self, page: &str, target: &str, fields: &str) -> Response<Bytes> {
        assert!(page.contains(&format!("action=\"{target}\"")), "no form leads to {target}: {page}");
        let body = format!("form={}&{fields}", form_token(page));
        self.send("POST", target, &[ORIGIN, FORM, ("sec-fetch-site", "same-origin")], &body).await
    }

    async fn send(self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let request = http::Request::builder().method(method).uri(target).header("host", HOST);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = self.cookie.iter().fold(request, |request, cookie| request.header("cookie", *cookie));
        self.rig.send_to_admin(request.body(full(body.to_owned())).expect("a request")).await
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

impl Rig {
    fn browser(&self) -> Browser<'_> {
        Browser { rig: self, cookie: None }
    }
}

/// The token in the forms of a page; all of one page carry the same.
fn form_token(page: &str) -> &str {
    let (_, rest) = page.split_once("name=\"form\" value=\"").expect("a form");
    rest.split('"').next().expect("a value")
}

#[track_caller]
fn assert_hardened(answer: &Response<Bytes>) {
    let policy = header(answer, "content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    for part in ["form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(header(answer, "cache-control"), Some("no-store"));
    assert_eq!(header(answer, "x-content-type-options"), Some("nosniff"));
    assert_eq!(header(answer, "referrer-policy"), Some("same-origin"));
    assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control-")), "{answer:?}");
}

#[track_caller]
fn assert_says(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "{word} is not in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_accounts_and_requests() {
    let rig = Rig::start().await;
    let page = rig.browser().page("/").await;
    assert_says(
        &page,
        &["href=\"/accounts?state=active\"><span class=\"count\">2</span>", "All 2 accounts", "Answers"],
    );
    assert_says(&page, &["No requests in the last hour.", "No refreshes in the last hour."]);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.get("/v1.0//me").await.status(), 400);
    let page = rig.browser().page("/").await;
    assert_says(&page, &["2 requests in the last hour, 0 answered with 5xx.", "1 refused with 4xx."]);
    assert!(page.contains("1 refresh in the last hour, 0 failed") || page.contains("No refreshes"), "{page}");
    let style =
        page.split("rel=\"stylesheet\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a style");
    let style = rig.browser().get(style).await;
    assert_eq!((style.status().as_u16(), header(&style, "content-type")), (200, Some("text/css; charset=utf-8")));
    assert!(header(&style, "cache-control").is_some_and(|value| value.contains("immutable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_found_explained_refreshed_revoked_and_removed() {
    let rig = Rig::start().await;
    let browser = rig.browser();
    assert_says(&browser.page("/accounts").await, &[">alice</a>", ">bob</a>"]);
    let found = browser.page("/accounts?search=LIC&state=active").await;
    assert!(found.contains(">alice</a>") && !found.contains(">bob</a>"), "{found}");
    assert_says(&browser.page("/accounts?state=revoked&search=").await, &["No account fits."]);

    let id = rig.id("alice").await;
    let account = format!("/accounts/{id}");
    let page = browser.page(&account).await;
    assert_says(&page, &["<h1>alice</h1>", "It is fresh", "User.Read"]);
    let answer = browser.post(&page, &format!("{account}/refresh"), "").await;
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "location")),
        (303, Some(&*format!("{account}?done=refreshed")))
    );
    assert_eq!(rig.token_requests().len(), 1);
    let refreshed = browser.page(&format!("{account}?done=refreshed")).await;
    assert_says(&refreshed, &["The provider gave new tokens.", "New tokens after", "Refresh by an operator"]);
    assert_eq!(refreshed.matches("New tokens after").count(), 1);

    rig.graph().faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50_173))));
    let answer = browser.post(&page, &format!("{account}/refresh"), "").await;
    assert_eq!(answer.status(), 409);
    let said = text(answer.body());
    assert_says(
        &said,
        &[
            "role=\"alert\"",
            "The refresh failed",
            "New tokens after",
            "Why it is not fresh",
            "AADSTS50173",
            "A refresh can&#39;t help",
        ],
    );

    // What the provider said is recorded beside the refresh, maybe after its answer.
    within(async {
        while !browser.page(&account).await.contains("Refresh failed") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_says(&browser.page(&account).await, &["<code>dead: AADSTS50173", &format!("href=\"/audit?account={id}\"")]);

    let confirm = browser.page(&format!("{account}/revoke")).await;
    assert_says(&confirm, &["Revoke alice?", "Keep it"]);
    assert_eq!(rig.document("GET", &format!("/v1{account}")).await["status"], "reauth", "a GET does nothing");
    assert_eq!(browser.post(&confirm, &format!("{account}/revoke"), "").await.status(), 303);
    assert_refused(&rig.get("/v1.0/me").await, 403, "signin_required");
    assert_says(&browser.page(&account).await, &["Revoked", "has ended the grant"]);

    let confirm = browser.page(&format!("{account}/remove")).await;
    let answer = browser.post(&confirm, &format!("{account}/remove"), "").await;
    assert_eq!(header(&answer, "location"), Some("/accounts?done=removed"));
    let gone = browser.get(&account).await;
    assert_eq!(gone.status(), 404);
    assert_says(&text(gone.body()), &["There is no such account"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_turned_page_by_page() {
    let rig = Setup { signed_in: Vec::new(), ..Setup::default() }.start().await;
    for user in 0..120 {
        let row = json!({
            "alias": format!("user{user:03}"), "provider": "entra", "refresh_token": format!("rt-{user}"),
            "tid": "9f6b2c1e-8a57-4c0f-9d34-2f1d0a7b6c55", "oid": format!("00000000-0000-0000-0000-{user:012}"),
        });
        assert_eq!(rig.admin_json("POST", "/v1/accounts?verify=false", &row).await.status(), 201);
    }
    let (mut target, mut rows) = ("/accounts?search=USER&state=active".to_owned(), Vec::new());
    loop {
        let page = rig.browser().page(&target).await;
        rows.push(page.matches("scope=\"row\"").count());
        assert_eq!(page.contains("First page"), rows.len() > 1);
        let Some((before, _)) = page.split_once("\">Next page") else { break };
        target = before.rsplit("href=\"").next().expect("a link").replace("&#38;", "&");
        assert!(target.starts_with("/accounts?state=active&search=USER&cursor="), "{target}");
    }
    assert_eq!(rows, [50, 50, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_read_and_turned_page_by_page() {
    let rig = Rig::start().await;
    let browser = rig.browser();
    assert_says(&browser.page("/audit?account=nobody").await, &["No record fits.", "found by its id"]);
    let (alice, bob) = (rig.id("alice").await, rig.id("bob").await);
    for _ in 0..30 {
        rig.document("POST", &format!("/v1/accounts/{alice}/revoke")).await;
    }
    assert_eq!(rig.admin("DELETE", &format!("/v1/accounts/{bob}")).await.status(), 204);
    let (mut target, mut rows) = ("/audit?account=alice&event=revoke".to_owned(), Vec::new());
    loop {
        let page = browser.page(&target).await;
        rows.push(page.matches("<summary>Record ").count());
        assert!(!page.contains("<strong>Removal<") && !page.contains(&bob), "{page}");
        let Some((before, _)) = page.split_once("\">Next page") else { break };
        target = before.rsplit("href=\"").next().expect("a link").replace("&#38;", "&");
        assert!(target.starts_with("/audit?account=alice&event=revoke&cursor="), "{target}");
    }
    assert_eq!(rows, [50, 10]);
    let newest = browser.page("/audit?outcome=done").await;
    let first = newest.split("role=\"list\"").nth(1).and_then(|rest| rest.split("</li>").next()).expect("a row");
    assert_says(first, &["Removal", ">bob</a>", "Operator, admin listener", "<dt>From</dt>", "<dt>Begun in</dt>"]);
    assert_says(&browser.page(&format!("/audit?account={bob}")).await, &["Removal", "Begun"]);
    assert_says(&browser.page("/audit?event=restore").await, &["No record fits."]);
    assert!(!newest.contains("Begun</span>"), "{newest}");
    for wrong in ["event=x", "outcome=x", "cursor=x", "account=a&account=b"] {
        assert_eq!(browser.get(&format!("/audit?{wrong}")).await.status(), 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_shown_once_with_who_it_is_for() {
    let rig = Rig::start().await;
    let account = format!("/accounts/{}", rig.id("alice").await);
    let page = rig.browser().page(&account).await;
    let answer = rig.browser().post(&page, &format!("{account}/signin-link"), "").await;
    assert_eq!(answer.status(), 201);
    assert_hardened(&answer);
    let said = text(answer.body());
    assert_says(&said, &["Sign-in link for alice", "and to nobody else", "It works once, until"]);
    let link = said.split("autofocus>").nth(1).and_then(|rest| rest.split('<').next()).expect("a link");
    let link: http::Uri = link.replace("&#38;", "&").parse().expect("a URL");
    let path = link.path_and_query().expect("a path").as_str();
    assert!(!rig.browser().page(&account).await.contains(path));
    assert_eq!(rig.send(bare("GET", path).body(empty()).expect("a request")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_form_of_its_own_page_does_anything() {
    let rig = Rig::start().await;
    let account = format!("/accounts/{}", rig.id("alice").await);
    let refresh = format!("{account}/refresh");
    let page = rig.browser().page(&account).await;
    let right = format!("form={}", form_token(&page));
    let twice = format!("{right}&{right}");
    let browser = rig.browser();
    for (status, headers, body) in [
        (403, &[FORM][..], &*right),
        (403, &[FORM, ("sec-fetch-site", "same-origin")], &right),
        (403, &[FORM, ("origin", "null")], &right),
        (403, &[FORM, ("origin", "http://evil.example")], &right),
        (403, &[FORM, ("origin", "http://127.0.0.1:8080")], &right),
        (403, &[FORM, ORIGIN, ("sec-fetch-site", "cross-site")], &right),
        (403, &[FORM, ORIGIN, ("sec-fetch-site", "none")], &right),
        (
            403,
            &[
                FORM,
                ORIGIN,
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            &right,
        ),
        (403, &[FORM, ORIGIN], ""),
        (403, &[FORM, ORIGIN], "form=AAAA"),
        (400, &[FORM, ORIGIN], &twice),
        (415, &[("content-type", "text/plain"), ORIGIN], &right),
        (415, &[ORIGIN], &right),
    ] {
        let answer = browser.send("POST", &refresh, headers, body).await;
        assert_eq!(answer.status(), status, "{headers:?} {body}: {answer:?}");
    }
    let wrong = browser.get(&refresh).await;
    assert_eq!((wrong.status().as_u16(), header(&wrong, "allow")), (405, Some("POST")));
    assert_eq!(browser.send("DELETE", &account, &[ORIGIN], "").await.status(), 405);
    let other = http::Request::get("/").header("host", "evil.example").body(empty()).expect("a request");
    assert_eq!(rig.send_to_admin(other).await.status(), 421);
    let followed = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(browser.send("GET", &account, &followed, "").await.status(), 200, "a link in a runbook");
    assert_eq!(browser.send("GET", &account, &followed[..1], "").await.status(), 403);
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_token_is_configured_nothing_is_shown_without_a_session() {
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let config = format!("admin.token = \"{TOKEN}\"");
    let rig = Setup { config, clock: clock.clone(), signed_in: vec!["alice"], ..Setup::default() }.start().await;
    let stranger = rig.browser();
    for target in
        ["/", "/accounts?search=a", "/accounts/0a", "/accounts/0a/revoke", "/audit", "/clients", "/configuration"]
    {
        let answer = stranger.get(target).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "www-authenticate")), (401, Some("Bearer")), "{target}");
        assert_hardened(&answer);
        let page = text(answer.body());
        assert_says(&page, &["type=\"password\"", "<h1>Sign in</h1>"]);
        assert!(!page.contains("alice") && !page.contains("href=\"/clients\""), "{page}");
    }
    let page = text(stranger.get("/accounts?search=ali").await.body());
    assert_says(&page, &["name=\"to\" value=\"/accounts?search=ali\""]);

    let wrong = stranger.post(&page, "/sign-in", "token=guess").await;
    assert_eq!(wrong.status(), 401);
    assert_says(&text(wrong.body()), &["The bearer token of [admin] is wrong."]);
    assert_eq!(header(&wrong, "set-cookie"), None);
    let right = stranger.post(&page, "/sign-in", &format!("token={TOKEN}&to=%2Faccounts%3Fsearch%3Dali")).await;
    assert_eq!((right.status().as_u16(), header(&right, "location")), (303, Some("/accounts?search=ali")));
    let cookie = header(&right, "set-cookie").expect("a cookie").to_owned();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let elsewhere = stranger.post(&page, "/sign-in", &format!("token={TOKEN}&to=%2F%2Fevil.example")).await;
    assert_eq!(header(&elsewhere, "location"), Some("/"));

    let cookie = cookie.split(';').next().expect("a pair");
    let operator = Browser { cookie: Some(cookie), ..stranger };
    let page = operator.page("/accounts?search=ali").await;
    assert_says(&page, &[">alice</a>", "Sign out"]);
    let api = operator.send("GET", "/v1/accounts", &[], "").await;
    assert_eq!(api.status(), 401, "the API knows no cookies");

    let target = page.split("href=\"/accounts/").nth(1).and_then(|rest| rest.split('"').next()).expect("an account");
    let account = format!("/accounts/{target}");
    let own = operator.page(&account).await;
    let refresh = format!("{account}/refresh");
    let body = format!("form={}", form_token(&own));
    assert_eq!(stranger.send("POST", &refresh, &[FORM, ORIGIN], &body).await.status(), 403, "made for another visitor");
    let strangers = format!("form={}", form_token(&text(stranger.get("/sign-in").await.body())));
    assert_eq!(operator.send("POST", &refresh, &[FORM, ORIGIN], &strangers).await.status(), 403);
    assert_eq!(stranger.send("POST", &refresh, &[FORM, ORIGIN], &strangers).await.status(), 401);
    assert!(rig.token_requests().is_empty());
    assert_eq!(operator.post(&own, &refresh, "").await.status(), 303);
    assert_eq!(rig.token_requests().len(), 1);

    let out = operator.post(&own, "/sign-out", "").await;
    assert_eq!((out.status().as_u16(), header(&out, "location")), (303, Some("/sign-in")));
    assert_eq!(operator.get("/").await.status(), 401, "the session has ended");

    let secure = [FORM, ("origin", "https://127.0.0.1:8081")];
    let body = format!("{strangers}&token={TOKEN}");
    let over_tls = stranger.send("POST", "/sign-in", &secure, &body).await;
    assert!(
        header(&over_tls, "set-cookie")
            .is_some_and(|cookie| cookie.starts_with("__Host-") && cookie.ends_with("Secure"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_in_the_form_are_limited_as_those_of_the_api() {
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let config = format!("admin.token = \"{TOKEN}\"");
    let rig = Setup { config, clock: clock.clone(), signed_in: Vec::new(), ..Setup::default() }.start().await;
    let page = text(rig.browser().get("/").await.body());
    let mut answered = Vec::new();
    for guess in 0..12 {
        let answer = rig.browser().post(&page, "/sign-in", &format!("token=guess-{guess}")).await;
        answered.push(answer.status().as_u16());
        assert_eq!(header(&answer, "retry-after").is_some(), answer.status() == 429);
    }
    assert_eq!(answered, [[401; 10].as_slice(), &[429; 2]].concat());
    assert_eq!(rig.browser().post(&page, "/sign-in", &format!("token={TOKEN}")).await.status(), 429);
    clock.advance(Duration::from_mins(1));
    assert_eq!(rig.browser().post(&page, "/sign-in", &format!("token={TOKEN}")).await.status(), 303);
    clock.advance(Duration::from_hours(8));
    assert_eq!(rig.browser().get("/").await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_the_configuration_are_shown_without_secrets() {
    let rig = Rig::start().await;
    let clients = rig.browser().page("/clients").await;
    assert_says(&clients, &["a key", "signed-in accounts"]);
    let configuration = rig.browser().page("/configuration").await;
    assert_says(&configuration, &["[server]", "[[clients]]"]);
    for page in [clients, configuration] {
        assert!(!page.contains("sha256:") && !page.contains(&key_hash(KEY)), "{page}");
    }
    assert_eq!(rig.browser().get("/accounts?state=dead").await.status(), 400);
    assert_eq!(rig.browser().get("/accounts?search=a&search=b").await.status(), 400);
    assert_eq!(rig.browser().get("/accounts?cursor=zz").await.status(), 400);
}

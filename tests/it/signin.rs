//! Sign-in from outside: a browser without a screen, the pages, and a simulated Entra ID. Looks at what the provider was asked
//! and at what the store holds, never at a status alone.

use std::collections::BTreeMap;
use std::time::Duration;

use bearerd::account::{AccountKey, Alias};
use bearerd::claims::Claims;
use bearerd::clock::{Clock, Timestamp};
use bearerd::config::{self, AppCredential, ProviderKind, Rotation, SigninMode};
use bearerd::metrics::Metrics;
use bearerd::oauth::Provider;
use bearerd::sandbox::{Effect, Entra, EntraOptions, Fault, Place, TokenFault};
use bearerd::signin::{Invite, Outcome, Signin, create_invite};
use bearerd::store::{Status, Store};
use bearerd::tasks::Tasks;
use bearerd::vault::Vault;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

const OURS: &str = "http://localhost:8080";

struct House {
    clock: Clock,
    entra: Entra,
    store: Store,
    vault: Vault,
    signin: Signin,
    _directory: TempDir,
}

async fn house() -> House {
    house_with(SigninMode::Invite, &[]).await
}

async fn house_with(mode: SigninMode, allowed_tenants: &[&str]) -> House {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let tasks = Tasks::on(tokio::runtime::Handle::current());
    let entra =
        Entra::start(([127, 0, 0, 1], 0).into(), EntraOptions::default(), clock.clone(), tasks.clone()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = config::Store {
        path: directory.path().join("data"),
        key_file: directory.path().join("data/store.key"),
        key: None,
    };
    let store = Store::open(&place, clock.clone(), tasks.clone()).await.unwrap();
    let options = entra.options();
    let provider = config::Provider {
        id: "entra".into(),
        kind: ProviderKind::Entra { authority: entra.origin(), tenant: options.tenant.clone() },
        client_id: options.client_id.clone(),
        credentials: options
            .client_secret
            .iter()
            .map(|secret| AppCredential::Secret { secret: secret.as_str().into(), expires: None })
            .collect(),
        allowed_tenants: allowed_tenants.iter().map(ToString::to_string).collect(),
        rotation: Rotation::Tolerant,
        ca_pem: None,
        client_capabilities: Vec::new(),
        idle_limit: None,
        token_requests: config::TokenRequests::default(),
    };
    let upstream = config::Upstream {
        name: "graph".into(),
        kind: config::UpstreamKind::Graph,
        url: Url::parse("https://graph.microsoft.com").unwrap(),
        provider: "entra".into(),
        scopes: vec!["User.Read".into(), "Mail.Read".into()],
        app_scopes: Vec::new(),
        rewrite_links: true,
        ca_pem: None,
        http: config::HttpVersion::Auto,
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        throttling: config::Throttling::default(),
    };
    let client = config::Client {
        name: "payroll".into(),
        credential: config::ClientCredential::KeyDigest([0; 32]),
        identity: config::Identity::User,
        accounts: vec!["alice".into()],
        allow: vec![],
        deny: vec![],
        read_only: false,
        limits: config::ClientLimits::default(),
    };
    let upstreams = BTreeMap::from([("graph".to_owned(), upstream)]);
    let built = Provider::new(&provider, clock.clone()).unwrap();
    let with_config = BTreeMap::from([("entra".to_owned(), (built.clone(), provider))]);
    let vault = Vault::new(store.clone(), &with_config, &upstreams, clock.clone(), tasks, Metrics::new());
    let section = config::Signin { listen: None, public_url: Url::parse(OURS).unwrap(), mode, device_code: true };
    let providers = BTreeMap::from([("entra".to_owned(), built)]);
    let signin = Signin::new(section, providers, upstreams, &[client], store.clone(), vault.clone(), clock.clone());
    House { clock, entra, store, vault, signin, _directory: directory }
}

impl House {
    async fn link(&self, alias: &str) -> String {
        let invite = Invite::new(Some(Alias::new(alias).unwrap()), "entra", "the operator", &self.clock);
        create_invite(&self.store, &self.clock, &invite).await.unwrap()
    }

    async fn link_bound_to(&self, alias: &str, account: &AccountKey) -> String {
        let mut invite = Invite::new(Some(Alias::new(alias).unwrap()), "entra", "the operator", &self.clock);
        invite.account = Some(account.clone());
        create_invite(&self.store, &self.clock, &invite).await.unwrap()
    }

    fn browser(&self) -> Browser<'_> {
        Browser { house: self, cookies: BTreeMap::new() }
    }

    async fn status(&self, alias: &str) -> Option<Status> {
        self.store.find(alias).await.unwrap().map(|grant| grant.status)
    }
}

struct Browser<'h> {
    house: &'h House,
    cookies: BTreeMap<String, String>,
}

struct Page {
    status: StatusCode,
    error: Option<String>,
    location: Option<String>,
    cookies: usize,
    text: String,
}

impl Browser<'_> {
    async fn get(&mut self, path: &str) -> Page {
        self.send(Method::GET, path, &[], "").await
    }

    /// As our own form does it.
    async fn post(&mut self, path: &str, form: &str) -> Page {
        let headers = [("origin", OURS), ("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, path, &headers, form).await
    }

    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Page {
        let cookie: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        if !cookie.is_empty() {
            request = request.header("cookie", cookie.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let (head, body) = self.house.signin.handle(request).await.into_parts();
        let set: Vec<&str> = head.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
        for line in &set {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name)
            } else {
                self.cookies.insert(name.into(), value.into())
            };
        }
        let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        Page {
            status: head.status,
            error: text("bearerd-error"),
            location: text("location"),
            cookies: set.len(),
            text: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        }
    }

    /// Clicks the button of a link's page, and signs in at the provider as `user`. The answer is the way back.
    async fn leave(&mut self, link: &str, user: &str) -> String {
        let page = self.post("/.bearerd/login", &format!("invite={link}")).await;
        assert_eq!(page.status, 303, "{}", page.text);
        let back = visit(&format!("{}&bearerd_user={user}", page.location.unwrap())).await;
        back.strip_prefix(OURS).expect("the provider sends people back to us").to_owned()
    }

    /// The whole of it.
    async fn sign_in(&mut self, link: &str, user: &str) -> Page {
        let back = self.leave(link, user).await;
        self.come_back(&back).await
    }

    async fn come_back(&mut self, back: &str) -> Page {
        let page = self.get(back).await;
        match page.location {
            Some(location) => self.get(&location).await,
            None => page,
        }
    }
}

/// Where a page elsewhere redirects to.
async fn visit(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let target = &url[url::Position::BeforePath..];
    let head = format!("GET {target} HTTP/1.1\r\nhost: {}:{}\r\nconnection: close\r\n\r\n", address.0, address.1);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let location = answer.lines().find_map(|line| line.strip_prefix("location: ").or(line.strip_prefix("Location: ")));
    location.unwrap_or_else(|| panic!("no redirect: {answer}")).to_owned()
}

#[tokio::test]
async fn a_link_signs_one_account_in_once() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();
    let path = format!("/.bearerd/login?invite={link}");

    let offer = browser.get(&path).await;
    assert_eq!(offer.status, 200);
    for words in ["alice", "payroll", "Read your mail", "Mail.Read", "127.0.0.1", OURS] {
        assert!(offer.text.contains(words), "{words}");
    }
    assert_eq!(offer.cookies, 0);
    assert!(house.entra.authorize_requests().is_empty(), "a look sets nothing off");

    let back = browser.leave(&link, "alice").await;
    let done = browser.come_back(&back).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.contains("You are signed in") && done.text.contains("alice@contoso.example"));
    assert!(done.text.contains("payroll"));
    assert!(!done.text.contains(&back[back.find("code=").unwrap() + 5..][..40]), "no code on a page");
    let grant = house.store.find("alice").await.unwrap().expect("an account");
    assert_eq!(grant.status, Status::Active);
    assert_eq!(house.entra.token_requests().len(), 1);
    let parameters = &house.entra.authorize_requests()[0].parameters;
    let asked = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(asked("code_challenge_method"), Some("S256"));
    assert_eq!(asked("prompt"), Some("select_account"), "nobody is known yet");
    assert!(asked("nonce").is_some());

    let again = browser.get(&path).await;
    assert_eq!((again.status, again.error.as_deref()), (StatusCode::BAD_REQUEST, Some("bad_request")));
    assert!(again.text.contains("works once"), "{}", again.text);
    let again = house.browser().post("/.bearerd/login", &format!("invite={link}")).await;
    assert_eq!((again.status, again.cookies), (StatusCode::BAD_REQUEST, 0));
}

/// T405.
#[tokio::test]
async fn an_answer_for_another_browser_or_another_time_is_refused() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut attacker = house.browser();
    let mut victim = house.browser();
    let back = attacker.leave(&link, "bob").await;
    victim.leave(&link, "alice").await;
    let stolen = attacker.cookies.clone();

    for (who, path) in [
        ("the attacker's answer in the victim's browser", back.clone()),
        ("another state", back.replace("state=", "state=x")),
        ("no state", "/.bearerd/callback/entra?code=x".to_owned()),
        ("two states", format!("{back}&state=x")),
        ("another provider", back.replace("/callback/entra", "/callback/other")),
        ("an error that belongs to nobody", "/.bearerd/callback/entra?error=access_denied&state=x".to_owned()),
    ] {
        let page = victim.get(&path).await;
        assert_eq!((page.status, page.error.as_deref()), (StatusCode::BAD_REQUEST, Some("bad_request")), "{who}");
        assert_eq!(page.cookies, 0, "{who}");
    }
    let naked = house.browser().get(&back).await;
    assert_eq!(naked.status, 400, "no cookie at all");
    assert!(house.entra.token_requests().is_empty(), "nothing was redeemed");

    house.clock.advance(Duration::from_secs(601));
    assert_eq!(attacker.get(&back).await.status, 400, "too late");
    assert!(house.entra.token_requests().is_empty());
    assert!(house.status("alice").await.is_none());

    let done = attacker.sign_in(&link, "alice").await;
    assert_eq!(done.status, 200, "none of that has hurt the link: {}", done.text);
    assert!(attacker.cookies.values().all(|id| !stolen.values().any(|old| old == id)), "all cookies are new");
}

#[tokio::test]
async fn an_answer_works_once() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();
    let back = browser.leave(&link, "alice").await;
    let cookies = browser.cookies.clone();
    assert_eq!(browser.come_back(&back).await.status, 200);
    browser.cookies = cookies;
    assert_eq!(browser.get(&back).await.status, 400);
    assert_eq!(house.entra.token_requests().len(), 1);
}

/// T406.
#[tokio::test]
async fn a_link_for_one_person_is_no_good_for_another() {
    let house = house().await;
    let first = house.link("alice").await;
    assert_eq!(house.browser().sign_in(&first, "alice").await.status, 200);
    let epoch = house.store.find("alice").await.unwrap().unwrap().epoch;

    let second = house.link("alice").await;
    let page = house.browser().sign_in(&second, "bob").await;
    assert_eq!((page.status, page.error.as_deref()), (StatusCode::FORBIDDEN, Some("account_forbidden")));
    assert!(page.text.contains("bob@contoso.example") && page.text.contains("Nothing was stored"), "{}", page.text);
    assert_eq!(house.store.find("alice").await.unwrap().unwrap().epoch, epoch, "nothing was stored");
    assert!(house.signin.outcomes().borrow().as_ref().is_some_and(|told| matches!(told, Outcome::Failed { .. })));

    assert_eq!(house.browser().sign_in(&second, "alice").await.status, 200, "the link is still good");
    assert!(house.store.find("alice").await.unwrap().unwrap().epoch > epoch);
}

/// T406: the account, not the name. Whoever takes over the name takes over no link.
#[tokio::test]
async fn a_link_is_bound_to_the_account_that_it_was_made_for() {
    for already_under_way in [false, true] {
        for new_owner in [None, Some("bob")] {
            let house = house().await;
            let first = house.link("mailbox").await;
            assert_eq!(house.browser().sign_in(&first, "alice").await.status, 200);
            let key = house.store.find("mailbox").await.unwrap().unwrap().key;
            let link = house.link_bound_to("mailbox", &key).await;
            let mut browser = house.browser();
            let mut back = None;
            if already_under_way {
                back = Some(browser.leave(&link, "bob").await);
            }
            assert!(house.store.remove(&key).await.unwrap());
            if let Some(user) = new_owner {
                let theirs = house.link("mailbox").await;
                assert_eq!(house.browser().sign_in(&theirs, user).await.status, 200);
            }
            let before = house.store.find("mailbox").await.unwrap().map(|grant| (grant.key, grant.epoch));

            let back = match back {
                Some(back) => back,
                None => browser.leave(&link, "bob").await,
            };
            let page = browser.come_back(&back).await;
            assert_eq!((page.status, page.error.as_deref()), (StatusCode::FORBIDDEN, Some("account_forbidden")));
            for words in ["Wrong account", "bob@contoso.example", "mailbox", "Nothing was stored"] {
                assert!(page.text.contains(words), "{words}: {}", page.text);
            }
            let after = house.store.find("mailbox").await.unwrap().map(|grant| (grant.key, grant.epoch));
            assert_eq!(after, before, "nothing was stored");
        }
    }
}

#[tokio::test]
async fn a_link_bound_to_an_account_is_good_for_its_owner() {
    let house = house().await;
    assert_eq!(house.browser().sign_in(&house.link("alice").await, "alice").await.status, 200);
    let grant = house.store.find("alice").await.unwrap().unwrap();
    let link = house.link_bound_to("alice", &grant.key).await;
    assert_eq!(house.browser().sign_in(&link, "bob").await.status, 403);
    assert_eq!(house.browser().sign_in(&link, "alice").await.status, 200, "given back, it is bound still");
    assert!(house.store.find("alice").await.unwrap().unwrap().epoch > grant.epoch);
}

#[tokio::test]
async fn of_two_who_finish_at_the_same_time_one_wins() {
    let house = house().await;
    let link = house.link("newcomer").await;
    let (mut one, mut two) = (house.browser(), house.browser());
    let (back_one, back_two) = (one.leave(&link, "alice").await, two.leave(&link, "bob").await);
    let (page_one, page_two) = tokio::join!(one.get(&back_one), two.get(&back_two));
    let mut statuses = [page_one.status.as_u16(), page_two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 400]);
    let winner = if page_one.status == 303 { "alice@contoso.example" } else { "bob@contoso.example" };
    let grant = house.store.find("newcomer").await.unwrap().unwrap();
    assert_eq!(grant.username.as_deref(), Some(winner));
}

#[tokio::test]
async fn a_failed_attempt_says_why_and_leaves_the_link_good() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();

    let blocked = TokenFault::aadsts(53003);
    house.entra.faults().push(Fault::at(Place::Authorize, Effect::Error(blocked)));
    let page = browser.sign_in(&link, "alice").await;
    assert_eq!((page.status, page.error.as_deref()), (StatusCode::FORBIDDEN, Some("signin_required")));
    assert!(page.text.contains("Conditional Access") && page.text.contains("AADSTS53003"), "{}", page.text);
    assert!(page.text.contains("Try again") && page.text.contains("Request id"));
    assert!(!page.text.contains("told to fail"), "the provider's own text is not repeated");

    house.entra.faults().push(Fault::token(Effect::Error(TokenFault::aadsts(7_000_222))));
    let page = browser.sign_in(&link, "alice").await;
    assert_eq!((page.status, page.error.as_deref()), (StatusCode::BAD_GATEWAY, Some("app_credential_invalid")));

    assert!(house.status("alice").await.is_none());
    assert_eq!(browser.sign_in(&link, "alice").await.status, 200);
}

#[tokio::test]
async fn links_that_are_not_good() {
    let house = house().await;
    let link = house.link("alice").await;
    house.clock.advance(Duration::from_secs(24 * 3600));
    for (path, words) in [
        (format!("/.bearerd/login?invite={link}"), "has expired"),
        (format!("/.bearerd/login?invite={}", "A".repeat(43)), "not known"),
        (format!("/.bearerd/login?invite=used.{link}"), "not known"),
        ("/.bearerd/login?invite=..%2F".to_owned(), "not known"),
    ] {
        let page = house.browser().get(&path).await;
        assert_eq!((page.status, page.error.as_deref()), (StatusCode::BAD_REQUEST, Some("bad_request")), "{path}");
        assert!(page.text.contains(words), "{path}: {}", page.text);
    }
    let page = house.browser().get("/.bearerd/login").await;
    assert_eq!((page.status, page.error.as_deref()), (StatusCode::FORBIDDEN, Some("signin_required")));
    for path in ["/.bearerd/nothing", "/.bearerd/callback", "/.bearerd/callback/"] {
        let page = house.browser().get(path).await;
        assert!(page.status == 404 || page.status == 400, "{path}");
    }
    let page = house.browser().send(Method::DELETE, "/.bearerd/login", &[], "").await;
    assert_eq!((page.status, page.error.as_deref()), (StatusCode::NOT_FOUND, Some("not_found")));
}

/// T306.
#[tokio::test]
async fn pages_of_other_sites_can_do_nothing() {
    let house = house().await;
    let link = house.link("alice").await;
    let form = format!("invite={link}");
    let kind = ("content-type", "application/x-www-form-urlencoded");
    for headers in [
        &[kind, ("origin", "https://evil.example")][..],
        &[kind, ("origin", "null")],
        &[kind, ("origin", OURS), ("sec-fetch-site", "cross-site")],
        &[kind, ("sec-fetch-site", "same-site")],
        &[("content-type", "text/plain"), ("origin", OURS)],
    ] {
        for path in ["/.bearerd/login", "/.bearerd/device", "/.bearerd/signout"] {
            let page = house.browser().send(Method::POST, path, headers, &form).await;
            assert_eq!(
                (page.status, page.error.as_deref()),
                (StatusCode::FORBIDDEN, Some("cross_site_refused")),
                "{path}"
            );
            assert_eq!(page.cookies, 0);
        }
    }
    let path = format!("/.bearerd/login?invite={link}");
    let fetched = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")];
    assert_eq!(house.browser().send(Method::GET, &path, &fetched, "").await.status, 403);
    let followed = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(house.browser().send(Method::GET, &path, &followed, "").await.status, 200);
}

/// T307; the vectors are with `return_path`.
#[tokio::test]
async fn where_people_go_afterwards() {
    let house = house().await;
    let link = house.link("alice").await;
    for target in
        ["https://evil.example", "//evil.example", "/%5Cevil.example", "/%09/evil.example", "javascript:alert(1)"]
    {
        let page = house.browser().get(&format!("/.bearerd/login?invite={link}&return={target}")).await;
        assert_eq!((page.status, page.cookies), (StatusCode::BAD_REQUEST, 0), "{target}");
        let page = house.browser().post("/.bearerd/login", &format!("invite={link}&return={target}")).await;
        assert_eq!((page.status, page.cookies), (StatusCode::BAD_REQUEST, 0), "{target}");
    }
    let mut browser = house.browser();
    let done = browser.sign_in(&format!("{link}&return=/app%3Fpage%3D2"), "alice").await;
    assert!(done.text.contains("href=\"/app?page=2\""), "{}", done.text);
}

#[tokio::test]
async fn an_account_that_needs_a_sign_in_again_is_told_why() {
    let house = house().await;
    let link = house.link("alice").await;
    assert_eq!(house.browser().sign_in(&link, "alice").await.status, 200);
    house.entra.revoke_user("alice");
    house.vault.refresh(&Alias::new("alice").unwrap()).await.unwrap_err();
    assert!(matches!(house.status("alice").await, Some(Status::Reauth(_))));

    let link = house.link("alice").await;
    let mut browser = house.browser();
    let offer = browser.get(&format!("/.bearerd/login?invite={link}")).await;
    assert!(offer.text.contains("Why you are asked again") && offer.text.contains("AADSTS50173"), "{}", offer.text);
    assert!(offer.text.contains("Your password was changed"));
    house.entra.clear();
    assert_eq!(browser.sign_in(&link, "alice").await.status, 200);
    let parameters = house.entra.authorize_requests()[0].parameters.clone();
    assert!(parameters.contains(&("login_hint".into(), "alice@contoso.example".into())));
    assert!(!parameters.iter().any(|(name, _)| name == "prompt"));
    assert_eq!(house.status("alice").await, Some(Status::Active));
}

#[tokio::test]
async fn a_claims_challenge_travels_with_the_link() {
    let house = house().await;
    let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
    let mut invite = Invite::new(Some(Alias::new("alice").unwrap()), "entra", "bearerd", &house.clock);
    invite.claims = Claims::parse(claims);
    let link = create_invite(&house.store, &house.clock, &invite).await.unwrap();
    house.browser().leave(&link, "alice").await;
    let parameters = &house.entra.authorize_requests()[0].parameters;
    let sent = parameters.iter().find(|(name, _)| name == "claims").map(|(_, value)| value.as_str()).unwrap();
    assert!(sent.contains("acrs"), "{sent}");
}

#[tokio::test]
async fn a_provider_that_is_down_burns_nothing() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();
    let back = browser.leave(&link, "alice").await;
    house.entra.down().await;
    let page = browser.get(&back).await;
    assert_eq!((page.status, page.error.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("provider_unavailable")));
    assert!(page.text.contains("the link stays valid"));
    house.entra.up().unwrap();
    house.clock.advance(Duration::from_secs(60));
    assert_eq!(browser.sign_in(&link, "alice").await.status, 200);
}

#[tokio::test]
async fn in_mode_open_people_of_an_allowed_tenant_name_themselves() {
    let tenant = EntraOptions::default().tenant;
    let house = house_with(SigninMode::Open, &[&tenant]).await;
    let mut browser = house.browser();
    let offer = browser.get("/.bearerd/login").await;
    assert!(offer.text.contains("Whichever you choose"), "{}", offer.text);
    let page = browser.post("/.bearerd/login", "provider=entra").await;
    let back = visit(&format!("{}&bearerd_user=bob", page.location.unwrap())).await;
    assert_eq!(browser.come_back(back.strip_prefix(OURS).unwrap()).await.status, 200);
    assert_eq!(house.status("bob@contoso.example").await, Some(Status::Active));
}

#[tokio::test]
async fn a_person_takes_a_sign_in_back() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();
    let explained = browser.get("/.bearerd/signout").await;
    assert!(explained.text.contains("three ways") && !explained.text.contains("<form"));
    assert_eq!(browser.post("/.bearerd/signout", "token=x").await.status, 400, "nobody has signed in");

    browser.sign_in(&link, "alice").await;
    let page = browser.get("/.bearerd/signout").await;
    let (_, rest) = page.text.split_once("name=\"token\" value=\"").expect("a form");
    let token = rest.split('"').next().unwrap().to_owned();
    assert_eq!(browser.post("/.bearerd/signout", "token=wrong").await.status, 400);
    assert_eq!(house.browser().post("/.bearerd/signout", &format!("token={token}")).await.status, 400, "no session");
    assert_eq!(house.status("alice").await, Some(Status::Active));

    let gone = browser.post("/.bearerd/signout", &format!("token={token}")).await;
    assert_eq!(gone.status, 200);
    assert!(gone.text.contains("no longer holds a grant"));
    assert_eq!(house.status("alice").await, Some(Status::Revoked));
    assert!(!browser.get("/.bearerd/signout").await.text.contains("<form"), "the session is over");
}

#[tokio::test]
async fn a_session_ends_after_ten_minutes() {
    let house = house().await;
    let mut browser = house.browser();
    browser.sign_in(&house.link("alice").await, "alice").await;
    assert_eq!(browser.get("/.bearerd/done").await.status, 200);
    house.clock.advance(Duration::from_secs(600));
    assert_eq!(browser.get("/.bearerd/done").await.location.as_deref(), Some("/.bearerd/"));
    assert!(!browser.get("/.bearerd/signout").await.text.contains("<form"));
}

fn shown_code(page: &Page) -> String {
    let (_, rest) = page.text.split_once("role=\"text\">").expect("a code");
    rest.split('<').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_sign_in_by_code() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();
    let offer = browser.get(&format!("/.bearerd/device?invite={link}")).await;
    assert!(offer.text.contains("Only go on if you started this yourself"));
    let started = browser.post("/.bearerd/device", &format!("invite={link}")).await;
    assert_eq!(started.location.as_deref(), Some("/.bearerd/device/wait"), "{}", started.text);

    let wait = browser.get("/.bearerd/device/wait").await;
    let code = shown_code(&wait);
    assert!(wait.text.contains("http-equiv=\"refresh\" content=\"6\""));
    assert!(house.entra.token_requests().is_empty(), "not before the interval");
    house.clock.advance(Duration::from_secs(6));
    browser.get("/.bearerd/device/wait").await;
    browser.get("/.bearerd/device/wait").await;
    assert_eq!(house.entra.token_requests().len(), 1, "once in an interval");

    assert!(house.entra.approve_device(&code, "alice"));
    house.clock.advance(Duration::from_secs(6));
    let done = browser.come_back("/.bearerd/device/wait").await;
    assert!(done.text.contains("You are signed in"), "{}", done.text);
    assert_eq!(house.status("alice").await, Some(Status::Active));
    assert_eq!(house.browser().get("/.bearerd/device/wait").await.status, 400, "without the cookie");
    assert!(house.browser().get(&format!("/.bearerd/device?invite={link}")).await.text.contains("works once"));
}

#[tokio::test]
async fn a_code_that_is_declined_or_blocked() {
    let house = house().await;
    let link = house.link("alice").await;
    let mut browser = house.browser();
    browser.post("/.bearerd/device", &format!("invite={link}")).await;
    let code = shown_code(&browser.get("/.bearerd/device/wait").await);
    assert!(house.entra.decline_device(&code));
    house.clock.advance(Duration::from_secs(6));
    let page = browser.get("/.bearerd/device/wait").await;
    assert_eq!(page.error.as_deref(), Some("signin_required"), "{}", page.text);
    assert_eq!(browser.get("/.bearerd/device/wait").await.status, 400, "it is over");

    browser.post("/.bearerd/device", &format!("invite={link}")).await;
    house.entra.faults().push(Fault::token(Effect::Error(TokenFault::aadsts(53003))));
    house.clock.advance(Duration::from_secs(6));
    let page = browser.get("/.bearerd/device/wait").await;
    assert!(page.text.contains("device code flow is blocked by Conditional Access"), "{}", page.text);
    assert!(house.status("alice").await.is_none());
}

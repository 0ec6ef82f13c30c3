//! Every page with an example's content: checked for what holds of all of them, and left in `target/signin-pages` for eyes to see.

use std::collections::BTreeSet;
use std::path::Path;

use http::{HeaderMap, Response};
use http_body_util::Full;
use url::Url;

use super::applications::Application;
use super::page::{
    Choice, Choose, Done, Extras, Frame, Home, Offer, Reason, Revoked, Signout, SignoutSession, Site, Wait,
};
use super::problem::Problem;
use super::scopes;
use crate::account::Alias;
use crate::clock::Timestamp;
use crate::oauth::{Class, Delivery, TokenError, Whose};
use crate::vault::PutError;

const HOSTILE: &str = "\"'><script>alert(1)</script>&";

fn body(response: Response<Full<bytes::Bytes>>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bytes = runtime.block_on(http_body_util::BodyExt::collect(response.into_body())).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn application(name: &str, read_only: bool, patterns: Option<&str>) -> Application {
    Application { name: name.into(), read_only, patterns: patterns.map(str::to_owned) }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Name and page of each.
fn pages(site: &Site, text: &str) -> Vec<(&'static str, String)> {
    let frame: &Frame = &site.frame;
    let applications =
        [application("payroll", false, None), application("archive", true, None), application(text, false, None)];
    let scopes = scopes::describe(&names(&["User.Read", "Mail.Read", "Mail.Send", "Reports.Odd.All"]));
    let odd_scopes = scopes::describe(&names(&[text]));
    let invite = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";
    let someone =
        [application("payroll", false, Some("alice, *@contoso.com")), application("archive", true, Some(text))];
    let offer = || Offer {
        frame,
        alias: Some("alice"),
        username: None,
        reason: None,
        applications: &applications[..2],
        scopes: &scopes,
        provider_host: "login.microsoftonline.com",
        created_by: Some("the operator"),
        expires: Some("2026-03-02 14:05 UTC".into()),
        device: false,
        invite: Some(invite),
        provider: None,
        return_path: None,
        device_url: Some(format!("/.bearerd/device?invite={invite}")),
    };
    let render = |page: &dyn askama::DynTemplate| page.dyn_render().unwrap();
    let problem = |problem: Problem| body(site.problem(&problem, "Zk3dLq9xTm2a7PfB"));
    let reason = Reason {
        words: Some("Your password was changed, or your sign-ins were revoked."),
        text: "AADSTS50173 invalid_grant (bad_token)",
        partly: false,
        since: "2026-03-01 09:12 UTC".into(),
    };
    let hostile_reason = Reason { words: None, text, partly: true, since: text.into() };
    let wait = |alias| Wait {
        frame,
        alias,
        user_code: "F9XKT2M4",
        verification_uri: "https://microsoft.com/devicelogin",
        verification_host: "microsoft.com",
        refresh: 6,
        minutes_left: 14,
    };
    let session = SignoutSession { alias: text, username: Some("alice@contoso.com"), token: invite };
    let blocked = TokenError {
        class: Class::Interact,
        whose: Whose::Grant,
        delivery: Delivery::Answered,
        text: "AADSTS53003 access_denied".into(),
        retry_after: None,
        claims: None,
    };
    let wrong = PutError::SomebodyElse { alias: Alias::new("alice").unwrap(), username: text.into() };
    let choices = || vec![Choice { id: "contoso", url: "/".into() }, Choice { id: text, url: text.into() }];
    vec![
        ("home", render(&Home { frame, open: false })),
        ("home-open", render(&Home { frame, open: true })),
        ("choose", render(&Choose { frame, choices: choices() })),
        ("offer", render(&offer())),
        ("offer-again", render(&Offer { reason: Some(reason), username: Some("alice@contoso.com"), ..offer() })),
        (
            "offer-hostile",
            render(&Offer {
                alias: Some(text),
                username: Some(text),
                reason: Some(hostile_reason),
                applications: &applications,
                scopes: &odd_scopes,
                provider_host: text,
                created_by: Some(text),
                invite: Some(text),
                return_path: Some(text),
                device_url: Some(text.into()),
                ..offer()
            }),
        ),
        (
            "offer-open",
            render(&Offer {
                alias: None,
                applications: &someone,
                created_by: None,
                expires: None,
                invite: None,
                provider: Some("entra"),
                ..offer()
            }),
        ),
        ("offer-device", render(&Offer { device: true, device_url: None, ..offer() })),
        ("wait", render(&wait(Some("alice")))),
        (
            "wait-hostile",
            render(&Wait { user_code: text, verification_uri: text, verification_host: text, ..wait(Some(text)) }),
        ),
        (
            "done",
            render(&Done {
                frame,
                alias: "alice",
                username: Some("alice@contoso.com"),
                applications: &applications[..2],
                missing: &[],
                return_path: None,
            }),
        ),
        (
            "done-partly",
            render(&Done {
                frame,
                alias: text,
                username: Some(text),
                applications: &[],
                missing: &names(&["Mail.Send", text]),
                return_path: Some("/app/start?page=2"),
            }),
        ),
        ("signout", render(&Signout { frame, session: None })),
        ("signout-session", render(&Signout { frame, session: Some(session) })),
        ("revoked", render(&Revoked { frame, alias: text })),
        ("problem-used", problem(Problem::used_link())),
        ("problem-expired", problem(Problem::expired_link(Timestamp::from_secs(1_635_527_790)))),
        ("problem-wrong", problem(Problem::from(wrong).again(format!("/.bearerd/login?invite={invite}")))),
        ("problem-blocked", problem(Problem::from(blocked).again(format!("/.bearerd/login?invite={invite}")))),
        ("problem-link", problem(Problem::needs_link())),
        ("problem-404", problem(Problem::not_found())),
        ("problem-callback", problem(Problem::from_callback(text, Some(text)))),
    ]
}

fn site(url: &str) -> Site {
    Site::new(&Url::parse(url).unwrap())
}

#[test]
fn every_page_is_escaped_and_needs_nothing_from_elsewhere() {
    for (name, html) in pages(&site("https://graph.contoso.com"), HOSTILE) {
        assert!(!html.contains("<script") && !html.contains("onload"), "{name}");
        assert!(!html.contains(HOSTILE) && !html.contains("\"'>"), "{name}");
        assert!(!html.contains("style=") && !html.contains("src="), "{name} has a style or a resource of its own");
        assert_eq!(html.matches("<h1").count(), 1, "{name}");
        assert_eq!(html.matches("<main>").count(), 1, "{name}");
        assert!(html.contains("<html lang=\"en\">"), "{name}");
        for (tag, end) in [("<form", "</form>"), ("<ul", "</ul>"), ("<dl", "</dl>"), ("<div", "</div>"), ("<p", "</p>")]
        {
            let opened = html.matches(&format!("{tag}>")).count() + html.matches(&format!("{tag} ")).count();
            assert_eq!(opened, html.matches(end).count(), "{name}: {tag}");
        }
    }
}

#[test]
fn forms_say_where_they_come_from() {
    // A document under `no-referrer` posts `Origin: null`, which is refused: pages with a form loosen that for our own origin only.
    for (name, html) in pages(&site("https://graph.contoso.com"), "x") {
        assert_eq!(
            html.contains("<form"),
            html.contains("name=\"referrer\" content=\"same-origin\"") && name != "signout",
            "{name}"
        );
    }
}

#[test]
fn the_offer_names_everything() {
    let all = pages(&site("https://graph.contoso.com"), "x");
    let offer = &all.iter().find(|(name, _)| *name == "offer").unwrap().1;
    for words in [
        "https://graph.contoso.com",
        "alice",
        "payroll",
        "archive",
        "read only",
        "Read your mail",
        "Mail.Read",
        "Reports.Odd.All",
        "offline_access",
        "login.microsoftonline.com",
        "the operator",
        "2026-03-02 14:05 UTC",
    ] {
        assert!(offer.contains(words), "{words}");
    }
}

fn headers_of(site: &Site, form_target: Option<&str>) -> HeaderMap {
    let extras = Extras { form_target: form_target.map(str::to_owned), cookies: vec![] };
    let response = site.page(&Home { frame: &site.frame, open: false }, extras).unwrap();
    response.headers().clone()
}

#[test]
fn headers() {
    let headers = headers_of(&site("https://graph.contoso.com"), Some("https://login.microsoftonline.com"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "style-src 'sha256-",
        "form-action 'self' https://login.microsoftonline.com;",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"));
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert!(headers.contains_key("strict-transport-security"));
    let plain = headers_of(&site("http://localhost:8080"), None);
    assert!(!plain.contains_key("strict-transport-security"));
    assert!(plain["content-security-policy"].to_str().unwrap().contains("form-action 'self';"));
}

#[test]
fn problems_say_that_it_was_us() {
    let mut problem = Problem::not_found();
    problem.retry_after_secs = Some(1);
    let response = site("http://localhost:8080").problem(&problem, "id");
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["bearerd-error"], "not_found");
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(body(response).contains("<code>id</code>"));
}

#[test]
fn addresses() {
    let site = site("https://graph.contoso.com:8443/");
    assert_eq!(site.redirect_uri("entra"), "https://graph.contoso.com:8443/.bearerd/callback/entra");
    assert_eq!(site.frame.origin, "https://graph.contoso.com:8443");
    assert_eq!(site.frame.host, "graph.contoso.com:8443");
    let response = site.see_other("/.bearerd/done", vec![]).unwrap();
    assert_eq!(response.status(), 303);
    assert_eq!(response.headers()["location"], "/.bearerd/done");
}

#[test]
fn one_machine_has_one_name() {
    let comes_by = |public_url: &str, host: &str| {
        let request =
            http::Request::get("/.bearerd/login?invite=x").header("host", host).body(bytes::Bytes::new()).unwrap();
        site(public_url).by_its_right_name(&request)
    };
    let right = Some("http://localhost:8080/.bearerd/login?invite=x".to_owned());
    assert_eq!(comes_by("http://localhost:8080", "127.0.0.1:8080"), right);
    assert_eq!(comes_by("http://localhost:8080", "[::1]:8080"), right);
    assert_eq!(comes_by("http://localhost:8080", "localhost:8080"), None);
    assert_eq!(comes_by("http://localhost:8080", "127.0.0.1:9090"), None, "a forwarded port");
    assert_eq!(comes_by("https://graph.contoso.com", "localhost"), None, "behind a proxy");
    assert_eq!(comes_by("http://localhost:8080", "evil.example:8080"), None);
}

#[test]
fn the_gallery_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/signin-pages");
    std::fs::create_dir_all(&directory).unwrap();
    let mut seen = BTreeSet::new();
    for (name, html) in pages(&site("https://graph.contoso.com"), "reports-and-analytics") {
        assert!(seen.insert(name), "{name} twice");
        std::fs::write(directory.join(name).with_extension("html"), html).unwrap();
    }
}

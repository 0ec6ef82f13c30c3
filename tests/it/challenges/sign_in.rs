//! What waits for a person ends with the sign-in that it led to: the link, the pages and the provider carry the claims.

use std::collections::BTreeMap;
use std::time::Duration;

use bearerd::claims::Claims;
use bytes::Bytes;
use http::Response;
use url::Url;

use super::{ECHO, by_hand, grant, park, statuses};
use crate::harness::*;

/// A browser on the data listener.
#[derive(Default)]
struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn visit(&mut self, rig: &Rig, method: &str, path: &str, form: &str) -> Response<Bytes> {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = http::Request::builder().method(method).uri(path).header("host", "127.0.0.1:8080");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if method == "POST" {
            request = request
                .header("origin", "http://127.0.0.1:8080")
                .header("content-type", "application/x-www-form-urlencoded");
        }
        let answer = rig.send(request.body(full(form.to_owned())).expect("a request")).await;
        for line in answer.headers().get_all("set-cookie") {
            let (name, value) = line.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }
}

fn location(answer: &Response<Bytes>) -> &str {
    header(answer, "location").unwrap_or_else(|| panic!("no redirect: {answer:?}"))
}

/// Signs Alice in at the provider, and says where that leads.
async fn at_the_provider(url: &str) -> String {
    let url = Url::parse(&format!("{url}&bearerd_user=alice")).expect("a URL");
    let authority = url.authority().to_owned();
    let stream = tokio::net::TcpStream::connect(&authority).await.expect("the provider listens");
    let request = http::Request::builder().uri(&url[url::Position::BeforePath..]).header("host", authority);
    let answer = whole(http1_over(stream).await.send_request(request.body(empty()).expect("a request"))).await;
    location(&answer).to_owned()
}

fn claims_of(parameters: &[(String, String)]) -> Claims {
    let claims = parameters.iter().find(|(name, _)| name == "claims").map(|(_, value)| value.as_str());
    claims.and_then(Claims::parse).unwrap_or_else(|| panic!("no claims: {parameters:?}"))
}

fn path_of(url: &str) -> &str {
    &url[url.find("/.bearerd").expect("a page of ours")..]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_carries_what_is_waited_for_and_the_sign_in_ends_the_wait() {
    let rig = by_hand("server.public_url = \"http://127.0.0.1:8080\"").await;
    let link = park(&rig).await;
    let waits_for = grant(&rig).await.challenge().expect("claims");
    let mut browser = Browser::default();
    let page = browser.visit(&rig, "GET", path_of(&link), "").await;
    let text = String::from_utf8_lossy(page.body()).into_owned();
    assert_eq!(page.status(), 200, "{text}");
    assert!(text.contains("one more proof that it is you"), "in plain words: {text}");
    let (_, invite) = link.split_once("invite=").expect("a link");
    let left = browser.visit(&rig, "POST", "/.bearerd/login", &format!("invite={invite}")).await;
    let back = at_the_provider(location(&left)).await;
    let visits = rig.sandbox.entra.authorize_requests();
    assert!(claims_of(&visits[0].parameters).covers(&waits_for), "{visits:?}");

    let done = browser.visit(&rig, "GET", path_of(&back), "").await;
    assert_eq!(location(&done), "/.bearerd/done");
    let grant = grant(&rig).await;
    assert_eq!((grant.state(), grant.reason(), grant.challenge()), ("active", None, None));
    rig.graph().clear();
    assert_eq!(rig.send(post(ECHO, "x")).await.status(), 200);
    assert_eq!(statuses(&rig), [200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_by_code_carries_it_too() {
    let rig = by_hand("server.public_url = \"http://127.0.0.1:8080\"\nsignin.device_code = true").await;
    let link = park(&rig).await;
    let waits_for = grant(&rig).await.challenge().expect("claims");
    let (_, invite) = link.split_once("invite=").expect("a link");
    let mut browser = Browser::default();
    let started = browser.visit(&rig, "POST", "/.bearerd/device", &format!("invite={invite}")).await;
    assert_eq!(location(&started), "/.bearerd/device/wait");
    let page = browser.visit(&rig, "GET", "/.bearerd/device/wait", "").await;
    let text = String::from_utf8_lossy(page.body()).into_owned();
    let code = text
        .split("class=\"code\"")
        .nth(1)
        .and_then(|rest| rest.split(['<', '>']).nth(1))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(rig.sandbox.entra.approve_device(code.trim(), "alice"), "{code}");
    rig.clock.advance(Duration::from_secs(6));
    let done = browser.visit(&rig, "GET", "/.bearerd/device/wait", "").await;
    assert_eq!(location(&done), "/.bearerd/done");
    let poll = rig.token_requests().pop().expect("a poll");
    assert!(poll.grant_type.ends_with("device_code"), "{poll:?}");
    let carried = Claims::parse(&poll.claims.expect("claims")).expect("claims");
    assert!(carried.covers(&waits_for), "{carried}");
    assert_eq!((grant(&rig).await.state(), grant(&rig).await.challenge()), ("active", None));
    assert_eq!(rig.send(post(ECHO, "x")).await.status(), 200);
}

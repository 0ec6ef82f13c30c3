//! Every row of the table of the token endpoint's answers, through the simulated provider and the whole proxy: what the application is
//! told, in which state the grant is kept, how often the refresh token is presented, and that all is well when the cause is gone.

use std::time::Duration;

use bearerd::account::Alias;
use bearerd::audit::{Entry, Event, Who};
use bearerd::claims::Claims;
use bearerd::clock::{Clock, Timestamp};
use bearerd::oauth::{Class, Dialect, Example, JWT_BEARER, Row, Whose, classification};
use bearerd::sandbox::{Effect, EntraOptions, Fault, Options, Rotation, TokenRequest};
use bearerd::secret::Secret;
use bearerd::store::Grant;
use bearerd::vault::Import;
use bytes::Bytes;
use http::Response;
use serde_json::json;

use crate::harness::*;

/// Longer than any pause that a failure leads to.
const LATER: Duration = Duration::from_secs(1000);
/// What a provider that throttles asks for.
const ASKED: u64 = 17;

/// One proxy for many rows; each example has an account of its own.
struct House {
    rig: Rig,
    provider: &'static str,
    users: usize,
}

impl House {
    async fn entra() -> Self {
        let sandbox = Options { users: 150, ..Options::default() };
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let rig = Setup { clock, sandbox, signed_in: Vec::new(), ..Setup::default() }.start().await;
        Self { rig, provider: "entra", users: 3 }
    }

    /// The same provider, known by discovery only; it rotates strictly.
    async fn oidc() -> Self {
        let entra = EntraOptions::default();
        let config = format!(
            "[providers.generic]\nkind = \"oidc\"\nissuer = \"ENTRA_ISSUER\"\nclient_id = {:?}\ncredentials = [{{ secret = {:?} }}]\n\
             [upstreams.graph]\nprovider = \"generic\"\n",
            entra.client_id,
            entra.client_secret.as_deref().expect("a secret"),
        );
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let sandbox = Options { users: 10, rotation: Rotation::Strict, ..Options::default() };
        let rig = Setup { clock, sandbox, config, signed_in: Vec::new(), ..Setup::default() }.start().await;
        Self { rig, provider: "generic", users: 3 }
    }

    fn newcomer(&mut self) -> String {
        self.users += 1;
        format!("user{:03}", self.users)
    }

    /// The user signs in, and the access token that this brought has expired.
    async fn sign_in(&self, alias: &str) {
        let grant = self.rig.sandbox.grant(alias).expect("the simulated user exists");
        let generic = self.provider == "generic";
        let row = Import {
            alias: Alias::new(alias).expect("an alias"),
            provider: self.provider.to_owned(),
            refresh_token: Secret::new(grant.refresh_token),
            access_token: Some(Secret::new(grant.access_token)),
            expires_at: Some(self.rig.clock.now().plus(Duration::from_secs(1))),
            tenant: (!generic).then_some(grant.tenant),
            subject: (!generic).then_some(grant.oid),
            scopes: None,
        };
        let vault = &self.rig.app.core().vault;
        vault.import(row, generic, Entry::new(Event::Import, Who::Cli)).await.expect("the import succeeds");
        // So that no beat brings it in the middle of what follows.
        vault.catch_up().await.expect("the store answers");
        self.rig.clock.advance(if generic { Duration::from_secs(7200) } else { Duration::from_secs(2) });
    }

    async fn ask(&self, alias: &str) -> Response<Bytes> {
        let request = bare("GET", "/v1.0/me").header("authorization", basic(alias, KEY)).body(empty());
        self.rig.send(request.expect("a request")).await
    }

    async fn grant(&self, alias: &str) -> Grant {
        self.rig.app.core().store.find(alias).await.expect("the store answers").expect("the account is there")
    }

    /// How this user's refresh tokens were presented, oldest first.
    fn presented(&self, alias: &str) -> Vec<TokenRequest> {
        let all = self.rig.token_requests().into_iter();
        all.filter(|asked| asked.user.as_deref() == Some(alias) && asked.grant_type == "refresh_token").collect()
    }

    async fn walk(&mut self, row: &Row) {
        for example in row.examples() {
            let alias = self.newcomer();
            self.sign_in(&alias).await;
            self.rig.sandbox.entra.clear();
            let before = self.grant(&alias).await;
            self.rig.sandbox.faults().push(Fault::token(answer(row, &example)).for_user(&alias).always());
            self.told(row, &example, &alias).await;
            self.kept(row, &example, &alias, &before).await;
            self.mends(row, &example, &alias).await;
        }
    }

    /// What the application gets, and that asking again costs the provider nothing.
    async fn told(&self, row: &Row, example: &Example, alias: &str) {
        let follows = row.class.consequence();
        for _ in 0..3 {
            let answer = self.ask(alias).await;
            let document = assert_refused(&answer, follows.status, follows.error);
            let said = document["error"]["message"].as_str().expect("a message").to_owned();
            if example.code != 0 && follows.error != "provider_unavailable" {
                assert!(said.contains(&format!("AADSTS{}", example.code)), "{example:?}: {said}");
            }
            let waits = header(&answer, "retry-after").map(|wait| wait.parse::<u64>().expect("seconds"));
            assert_eq!(waits.is_some(), follows.error == "provider_unavailable", "{example:?}: {answer:?}");
            if row.whose == Whose::Provider {
                assert!(waits.is_some_and(|wait| (ASKED..2 * ASKED).contains(&wait)), "{example:?}: {waits:?}");
            }
            assert!(waits.is_none_or(|wait| wait >= row.wait.max(1)), "{example:?}: {waits:?}");
            let link = header(&answer, "bearerd-signin-url").is_some();
            assert_eq!(link, follows.error == "signin_required", "{example:?}: {answer:?}");
            assert_eq!(said.contains("one more step"), !example.claims.is_empty(), "{example:?}: {said}");
            assert!(header(&answer, "www-authenticate").is_none(), "{answer:?}");
        }
        // What passes by itself may be tried once more at once, where presenting a token twice does no harm.
        let most = if row.class == Class::Retry { 2 } else { 1 };
        let presented = self.presented(alias).len();
        assert!((1..=most).contains(&presented), "{example:?}: presented {presented} times");
        assert!(self.rig.seen().is_empty(), "{example:?}: no token, no request");
    }

    async fn kept(&self, row: &Row, example: &Example, alias: &str, before: &Grant) {
        let grant = self.grant(alias).await;
        let follows = row.class.consequence();
        assert_eq!(Some(grant.state()), follows.state, "{example:?}: {grant:?}");
        assert_eq!((grant.epoch, grant.version, grant.intent), (before.epoch, before.version, false), "{example:?}");
        match grant.reason() {
            Some(reason) => {
                assert_eq!(follows.error, "signin_required", "{example:?}: {reason:?}");
                assert_eq!(reason.dead, row.class == Class::Dead, "{example:?}: {reason:?}");
                assert_eq!(reason.since, self.rig.clock.now(), "{example:?}");
                let named =
                    if example.code == 0 { example.error.to_owned() } else { format!("AADSTS{} ", example.code) };
                assert!(reason.text.starts_with(&named), "{example:?}: {}", reason.text);
                assert_eq!(reason.claims, Claims::parse(example.claims), "{example:?}");
            }
            None => assert_ne!(follows.error, "signin_required", "{example:?}: no reason"),
        }
        if matches!(row.class, Class::AppCredential | Class::Config) {
            assert_eq!((grant.fail_count, grant.next_try), (0, None), "{example:?}: no grant is touched");
        }
    }

    async fn mends(&self, row: &Row, example: &Example, alias: &str) {
        let presented = self.presented(alias);
        self.rig.sandbox.faults().clear();
        self.rig.clock.advance(LATER);
        if row.class.consequence().error == "signin_required" {
            assert_refused(&self.ask(alias).await, 403, "signin_required");
            assert_eq!(self.presented(alias).len(), presented.len(), "{example:?}: presented without a sign-in");
            self.sign_in(alias).await;
        }
        let answer = self.ask(alias).await;
        assert_eq!(answer.status(), 200, "{example:?}: {answer:?}");
        if row.class.consequence().error != "signin_required" {
            let since = self.presented(alias).split_off(presented.len());
            assert_eq!(since.len(), 1, "{example:?}: {since:#?}");
            assert_eq!(since[0].refresh_token_id, presented[0].refresh_token_id, "{example:?}: the same refresh token");
        }
        let grant = self.grant(alias).await;
        assert_eq!((grant.state(), grant.reason(), grant.fail_count), ("active", None, 0), "{example:?}");
        self.rig.graph().clear();
    }
}

/// The row's example on the wire.
fn answer(row: &Row, example: &Example) -> Effect {
    let wait = (row.whose == Whose::Provider).then(|| ASKED.to_string());
    if example.error.is_empty() {
        return Effect::html(example.status, wait.as_deref());
    }
    let mut body =
        json!({"error": example.error, "error_description": "Told to fail.\r\nTrace ID: 1", "trace_id": "1"});
    if example.code != 0 {
        body["error_codes"] = json!([example.code]);
        body["error_description"] = json!(format!("AADSTS{}: Told to fail.\r\nTrace ID: 1", example.code));
    }
    for (name, value) in [("suberror", example.suberror), ("claims", example.claims)] {
        if !value.is_empty() {
            body[name] = json!(value);
        }
    }
    let mut headers = vec![("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned())];
    headers.extend(wait.map(|wait| ("Retry-After".to_owned(), wait)));
    Effect::Http { status: example.status, headers, body: body.to_string() }
}

/// The rows of a refresh at Entra ID with these classes.
async fn walk(classes: &[Class]) {
    let mut house = House::entra().await;
    let mut walked = 0;
    for row in classification() {
        if classes.contains(&row.class) && row.dialect != Some(Dialect::Oidc) && row.grant_type.is_none() {
            house.walk(row).await;
            walked += 1;
        }
    }
    assert!(walked > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead() {
    walk(&[Class::Dead]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interact() {
    walk(&[Class::Interact]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user() {
    walk(&[Class::User]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn app_credential() {
    walk(&[Class::AppCredential]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn config() {
    walk(&[Class::Config]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backoff_and_retry() {
    walk(&[Class::Backoff, Class::Retry]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_generic_providers_say() {
    let mut house = House::oidc().await;
    for row in classification().iter().filter(|row| row.dialect == Some(Dialect::Oidc)) {
        house.walk(row).await;
    }
}

/// Nobody's grant: the calling application's own token. It is not presented again, and a fresh one is as good as any.
#[tokio::test(flavor = "multi_thread")]
async fn assertion() {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let sandbox = Options { users: 10, ..Options::default() };
    let rig = Setup { clock, sandbox, config: on_behalf_of(), signed_in: Vec::new(), ..Setup::default() }.start().await;
    let ask = async |token: &str| {
        let request = bare("GET", "/v1.0/me").header("authorization", format!("Bearer {token}"));
        rig.send(request.body(empty()).expect("a request")).await
    };
    let rows = classification().iter().filter(|row| row.class == Class::Assertion);
    let examples: Vec<_> = rows.flat_map(|row| row.examples().into_iter().map(move |example| (row, example))).collect();
    assert!(!examples.is_empty());
    for (number, (row, example)) in examples.into_iter().enumerate() {
        assert_eq!(row.grant_type, Some(JWT_BEARER));
        let user = format!("user{:03}", number + 4);
        rig.sandbox.entra.clear();
        rig.graph().clear();
        rig.sandbox.faults().push(Fault::token(answer(row, &example)).always());
        let token = rig.sandbox.entra.assertion(&user);
        for _ in 0..3 {
            let refused = ask(&token).await;
            assert_refused(&refused, row.class.consequence().status, row.class.consequence().error);
            let challenges: Vec<_> =
                refused.headers().get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
            let [basic, bearer] = challenges[..] else { panic!("{challenges:?}") };
            assert!(basic.starts_with("Basic "), "{basic}");
            let wanted = format!("Bearer error=\"invalid_token\", error_description=\"AADSTS{} ", example.code);
            assert!(bearer.starts_with(&wanted), "{bearer}");
        }
        let asked = rig.token_requests();
        assert_eq!(asked.len(), 1, "{asked:#?}");
        assert_eq!(asked[0].grant_type, JWT_BEARER);
        assert!(rig.seen().is_empty());
        rig.sandbox.faults().clear();
        rig.clock.advance(LATER);
        assert_eq!(ask(&rig.sandbox.entra.assertion(&user)).await.status(), 200);
    }
}

/// What is said of one kind of request only is said to applications that act on behalf of somebody.
#[test]
fn every_row_is_walked() {
    for row in classification() {
        assert_eq!(row.class == Class::Assertion, row.grant_type.is_some(), "{row:?}");
    }
}

/// A loop is one account's trouble; throttling is everybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_one_account_pauses_no_other() {
    let mut house = House::entra().await;
    let (looping, other) = (house.newcomer(), house.newcomer());
    house.sign_in(&looping).await;
    house.sign_in(&other).await;
    let row = classification().iter().find(|row| row.codes == [50196]).expect("a row");
    house.rig.sandbox.faults().push(Fault::token(answer(row, &row.example)));
    assert_refused(&house.ask(&looping).await, 503, "provider_unavailable");
    assert_eq!(house.ask(&other).await.status(), 200);
    assert_refused(&house.ask(&looping).await, 503, "provider_unavailable");
    house.rig.clock.advance(Duration::from_secs(119));
    assert_refused(&house.ask(&looping).await, 503, "provider_unavailable");
    assert_eq!(house.presented(&looping).len(), 1);
    house.rig.clock.advance(Duration::from_secs(60));
    assert_eq!(house.ask(&looping).await.status(), 200);
}

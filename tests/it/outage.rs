//! The provider is down, slow or talks nonsense, and the clock jumps: tokens that live are served, everybody else hears soon when to
//! come back, the provider is spared, and all of it mends itself.

use std::time::{Duration, UNIX_EPOCH};

use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{Effect, Fault, Gate, Options};
use bearerd::store::Status;
use bytes::Bytes;
use http::Response;

use crate::harness::{KEY, Rig, Setup, assert_refused, bare, basic, empty, header, sign_in, whole};
use crate::vault::rig::{self as vault_rig, at_once};

const START: i64 = 1_700_000_000;
const HOUR: Duration = Duration::from_secs(3600);
/// So many failures in a row open the circuit.
const FAILURES: usize = 5;
/// Longer than an open circuit, or an account's own pause, ever lasts.
const SOON: Duration = Duration::from_secs(40);

/// What goes wrong at the provider.
enum Trouble {
    Down,
    Answers(Effect),
}

/// Alice has a token that lives, the others had one.
struct Outage {
    rig: Rig,
    others: Vec<String>,
}

impl Outage {
    async fn new(others: usize, config: &str) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(START));
        let sandbox = Options { users: others + 1, ..Options::default() };
        let setup = Setup { clock, sandbox, config: config.to_owned(), signed_in: Vec::new(), upstream: None };
        let rig = setup.start().await;
        let users: Vec<String> = rig.sandbox.entra.options().users.iter().map(|user| user.alias.clone()).collect();
        for user in &users[1..] {
            sign_in(&rig.app, &rig.sandbox, user).await;
        }
        rig.clock.advance(HOUR);
        sign_in(&rig.app, &rig.sandbox, "alice").await;
        Self { rig, others: users[1..].to_vec() }
    }

    async fn begin(&self, trouble: &Trouble) {
        match trouble {
            Trouble::Down => self.rig.sandbox.entra.down().await,
            Trouble::Answers(effect) => self.rig.sandbox.faults().push(Fault::token(effect.clone()).always()),
        }
    }

    fn end(&self, trouble: &Trouble) {
        match trouble {
            Trouble::Down => self.rig.sandbox.entra.up().expect("the port is free"),
            Trouble::Answers(_) => self.rig.sandbox.faults().clear(),
        }
    }

    async fn get(&self, user: &str) -> Response<Bytes> {
        let request = bare("GET", "/v1.0/me").header("authorization", basic(user, KEY));
        self.rig.send(request.body(empty()).expect("a request")).await
    }

    /// How often a refresh token was presented, whether the provider was there or not.
    fn presentations(&self) -> u64 {
        let text = self.rig.app.core().metrics.render();
        let counts = text.lines().filter(|line| line.starts_with("bearerd_refresh_total{"));
        counts.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count")).sum()
    }

    async fn assert_all_alive(&self) {
        for user in self.others.iter().map(String::as_str).chain(["alice"]) {
            let grant = self.rig.app.core().store.find(user).await.expect("a store").expect("an account");
            assert_eq!((grant.status, grant.epoch), (Status::Active, 1), "{user}");
        }
    }
}

/// A 503 of our own; how many seconds it asks for.
fn refused(answer: &Response<Bytes>) -> u64 {
    assert_refused(answer, 503, "provider_unavailable");
    header(answer, "retry-after").expect("a Retry-After").parse().expect("seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_provider_says_what_lives_is_served_and_it_is_spared() {
    let troubles = [
        ("connection refused", Trouble::Down),
        ("HTML 503", Trouble::Answers(Effect::html(503, None))),
        ("HTML 502", Trouble::Answers(Effect::html(502, None))),
        ("JSON 500", Trouble::Answers(plain(500, &[], r#"{"error":"server_error"}"#))),
        ("500", Trouble::Answers(plain(500, &[], "oops"))),
        ("garbage", Trouble::Answers(plain(200, &[], "\u{1}\u{2}garbage"))),
        ("an empty answer", Trouble::Answers(plain(200, &[], ""))),
        ("no HTTP", Trouble::Answers(Effect::Raw(Bytes::from_static(b"SSH-2.0-OpenSSH_9.6\r\n")))),
        ("half an answer", Trouble::Answers(Effect::CutBody)),
        ("the head of an answer", Trouble::Answers(Effect::DropAfterHead)),
        ("closed before", Trouble::Answers(Effect::DropBefore)),
        ("closed after", Trouble::Answers(Effect::DropAfter)),
    ];
    for (name, trouble) in troubles {
        let outage = Outage::new(FAILURES + 7, "").await;
        outage.begin(&trouble).await;
        for round in 0..3 {
            for user in &outage.others {
                let wait = refused(&outage.get(user).await);
                assert!((1..=30).contains(&wait), "{name}: {wait}");
                assert_eq!(outage.get("alice").await.status(), 200, "{name}");
            }
            assert_eq!(outage.presentations(), FAILURES as u64, "{name}: what the circuit let through, round {round}");
        }
        // A tolerant provider is asked once more where the first answer is lost.
        assert!(outage.rig.token_requests().len() <= 2 * FAILURES, "{name}");
        outage.end(&trouble);
        outage.rig.clock.advance(SOON);
        for user in &outage.others {
            assert_eq!(outage.get(user).await.status(), 200, "{name}: {user}");
        }
        outage.assert_all_alive().await;
    }
}

/// Nobody waits for a provider that does not answer, once that is known. The time-outs are the system's: a grace of ten seconds makes
/// that of the exchange a short one.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_asked_no_more() {
    let outage = Outage::new(FAILURES + 5, "[providers.entra]\nrotation = \"grace:10s\"").await;
    let gate = Gate::shut();
    let trouble = Trouble::Answers(Effect::Hold(gate.clone()));
    outage.begin(&trouble).await;
    let (first, rest) = outage.others.split_at(FAILURES);
    let requests = first.iter().map(|user| outage.get(user));
    for answer in join_all(requests).await {
        refused(&answer);
    }
    assert_eq!(gate.count(), FAILURES);
    for user in rest {
        refused(&outage.get(user).await);
        assert_eq!(outage.get("alice").await.status(), 200);
    }
    assert_eq!(gate.count(), FAILURES, "nothing more was sent");
    outage.end(&trouble);
    gate.open();
    outage.rig.clock.advance(SOON);
    for user in &outage.others {
        assert_eq!(outage.get(user).await.status(), 200, "{user}");
    }
    outage.assert_all_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_keeps_everybody_away_for_as_long_as_it_says() {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(START.unsigned_abs() + 3600 + 45));
    let cases: [(&[&str], u64); 9] = [
        (&["120"], 120),
        (&["2.128"], 3),
        (&["30, 120"], 120),
        (&["30", "60"], 60),
        (&[&date], 45),
        (&["86400"], 3600),
        (&["soon"], 60),
        (&["-5"], 60),
        (&[], 60),
    ];
    for (values, secs) in cases {
        let outage = Outage::new(4, "").await;
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("Retry-After", *value)).collect();
        outage.rig.sandbox.faults().push(Fault::token(plain(429, &headers, "")));
        for _ in 0..2 {
            for user in &outage.others {
                assert_eq!(refused(&outage.get(user).await), secs, "{values:?}");
                assert_eq!(outage.get("alice").await.status(), 200);
            }
        }
        outage.rig.clock.advance(Duration::from_secs(secs - 1));
        assert_eq!(refused(&outage.get(&outage.others[0]).await), 1, "{values:?}");
        assert_eq!(outage.presentations(), 1, "{values:?}: one request heard it, for all");
        outage.rig.clock.advance(Duration::from_secs(1));
        for user in &outage.others {
            assert_eq!(outage.get(user).await.status(), 200, "{values:?}");
        }
        outage.assert_all_alive().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_minutes_without_a_provider_under_load() {
    const SECONDS: usize = 120;
    const USERS: usize = 16;
    let clock = Clock::manual(Timestamp::from_secs(START));
    let sandbox = Options { users: USERS, ..Options::default() };
    let rig = Setup { clock, sandbox, signed_in: Vec::new(), ..Setup::default() }.start().await;
    let users: Vec<String> = rig.sandbox.entra.options().users.iter().map(|user| user.alias.clone()).collect();
    // Their tokens expire fifteen seconds after each other, some during the outage, which begins in the last minute of the first.
    for user in &users {
        sign_in(&rig.app, &rig.sandbox, user).await;
        rig.clock.advance(Duration::from_secs(15));
    }
    let mut now = 15 * USERS;
    rig.clock.advance(Duration::from_secs((3600 - 30 - now) as u64));
    now = 3600 - 30;
    let outage = Outage { rig, others: users.clone() };
    outage.begin(&Trouble::Down).await;
    let mut client = outage.rig.http1().await;
    let mut refusals = 0;
    for _ in 0..SECONDS {
        outage.rig.clock.advance(Duration::from_secs(1));
        now += 1;
        for (number, user) in users.iter().enumerate() {
            let request = bare("GET", "/v1.0/me").header("authorization", basic(user, KEY));
            client.ready().await.expect("the connection stays");
            let answer = whole(client.send_request(request.body(empty()).expect("a request"))).await;
            if now < 3600 + 15 * number {
                assert_eq!(answer.status(), 200, "{user} at {now}: {answer:?}");
            } else {
                refused(&answer);
                refusals += 1;
            }
        }
    }
    assert!(refusals > 200, "{refusals}");
    let presentations = outage.presentations();
    // One, two, four, .. seconds: at most ten probes find room in two minutes.
    assert!(presentations <= FAILURES as u64 + 10, "{presentations} presentations");

    outage.end(&Trouble::Down);
    let mut waited = 0;
    while join_all(users.iter().map(|user| outage.get(user))).await.iter().any(|answer| answer.status() != 200) {
        outage.rig.clock.advance(Duration::from_secs(1));
        waited += 1;
        assert!(waited <= SOON.as_secs(), "it mends itself");
    }
    outage.assert_all_alive().await;
    assert!(outage.rig.token_requests().len() <= USERS, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_refreshes_nothing_twice_and_drops_nothing_that_lives() {
    for jump in [7_200_000, -7_200_000, 40 * 86_400_000, -40 * 86_400_000] {
        let rig = vault_rig::Rig::strict();
        let process = rig.signed_in().await;
        let version = |name: &str| at_once(process.lease(name)).expect("no waiting").expect("a lease").version;
        process.lease("alice").await.expect("a lease");
        process.lease("bob").await.expect("a lease");
        rig.clock.step_wall(jump);
        process.core.vault.refresh_ahead().await;
        assert_eq!((version("alice"), version("bob"), rig.asked().len()), (1, 1, 0), "{jump}");

        // It jumps while a refresh is under way.
        rig.clock.advance(Duration::from_secs(2740));
        let gate = rig.hold();
        let vault = process.core.vault.clone();
        let ahead = process.core.tasks.spawn(async move { vault.refresh_ahead().await });
        gate.arrived(2).await;
        rig.clock.step_wall(-jump);
        assert_eq!((version("alice"), version("bob")), (1, 1), "{jump}");
        gate.open();
        ahead.await.expect("no panic");
        process.core.vault.refresh_ahead().await;
        assert_eq!((version("alice"), version("bob"), rig.asked().len()), (2, 2, 2), "{jump}");

        // And once more, back to where it was.
        rig.clock.step_wall(jump);
        process.core.vault.refresh_ahead().await;
        rig.clock.advance(Duration::from_secs(1800));
        assert_eq!((version("alice"), version("bob"), rig.asked().len()), (2, 2, 2), "{jump}");
    }
}

/// Any answer of the token endpoint.
fn plain(status: u16, headers: &[(&str, &str)], body: &str) -> Effect {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Effect::Http { status, headers, body: body.to_owned() }
}

/// All of it at once, in the order of the work.
async fn join_all<F: Future>(work: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut work: Vec<_> = work.map(|work| Box::pin(work)).collect();
    let mut done: Vec<Option<F::Output>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (work, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = work.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

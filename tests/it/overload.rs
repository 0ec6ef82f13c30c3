//! More than there are seats for: who is served, who is told to come back, and that the work done stays what it was. Judged by what Graph saw.

use std::sync::Arc;

use bearerd::sandbox::{Effect, Fault, Gate};
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::Response;
use tokio::task::JoinHandle;

use crate::harness::*;

/// Nobody is refused because of the time that a test takes.
const PATIENT: &str = "server.limits.wait = \"1h\"\n";

fn metric(rig: &Rig, name: &str) -> u64 {
    let text = rig.app.core().metrics.render();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("bearerd_{name} ")));
    value.map_or(0, |value| value.parse().expect("a number"))
}

async fn until(rig: &Rig, name: &str, value: u64) {
    within(async {
        while metric(rig, name) != value {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// `count` of the next requests are held at Graph.
fn hold(rig: &Rig, count: u64) -> Gate {
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::graph("/", Effect::Hold(gate.clone())).times(count.try_into().unwrap()));
    gate
}

fn asking(rig: &Arc<Rig>, path: String) -> JoinHandle<Response<Bytes>> {
    let rig = Arc::clone(rig);
    spawn_here(async move { rig.get(&path).await })
}

const REFUSED: &str = "admission_refused_total{reason=\"requests\"}";

/// Three times what there are seats for, round after round: each round does the work of a full house, for those who came last.
#[tokio::test(flavor = "multi_thread")]
async fn at_three_times_capacity_every_seat_is_in_use_and_the_newest_have_them() {
    const SEATS: u64 = 4;
    const OFFERED: u64 = 3 * SEATS;
    const ROUNDS: u64 = 10;
    let limits = format!("{PATIENT}server.limits.requests = {SEATS}\nserver.limits.waiting = {SEATS}");
    let rig = Arc::new(Rig::with(&limits).await);
    let path = |round: u64, number: u64| format!("/v1.0/echo/{round}-{number}");
    let mut gate = hold(&rig, SEATS);
    let mut seated: Vec<_> = (0..SEATS).map(|number| asking(&rig, path(0, number))).collect();
    within(gate.arrived(4)).await;
    let mut expected: Vec<String> = (0..SEATS).map(|number| path(0, number)).collect();
    for round in 1..=ROUNDS {
        let mut offered = Vec::new();
        for number in 0..OFFERED {
            offered.push(asking(&rig, path(round, number)));
            // One after the other: a line forms, then the oldest gives way to each that comes.
            until(&rig, "admission_waiting", (number + 1).min(SEATS)).await;
            until(&rig, REFUSED, (round - 1) * (OFFERED - SEATS) + (number + 1).saturating_sub(SEATS)).await;
        }
        let next = hold(&rig, SEATS);
        gate.open();
        for answer in seated {
            assert_eq!(within(answer).await.unwrap().status(), 200, "round {round}");
        }
        within(next.arrived(4)).await;
        let newest = offered.split_off(usize::try_from(OFFERED - SEATS).unwrap());
        for answer in offered {
            let answer = within(answer).await.unwrap();
            assert_refused(&answer, 503, "overloaded");
            let seconds: u64 = header(&answer, "retry-after").unwrap().parse().expect("whole seconds");
            assert!((1..=3).contains(&seconds), "{seconds}");
        }
        expected.extend((OFFERED - SEATS..OFFERED).map(|number| path(round, number)));
        (gate, seated) = (next, newest);
    }
    gate.open();
    for answer in seated {
        assert_eq!(within(answer).await.unwrap().status(), 200);
    }
    let mut seen: Vec<String> = rig.seen().into_iter().map(|seen| seen.target).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "the newest of each round, once, and none of those that were refused");
    assert_eq!(metric(&rig, "admission_waits_total{outcome=\"admitted\"}"), ROUNDS * SEATS);
    assert_eq!(metric(&rig, "admission_waiting"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_while_waiting_leaves_at_once_and_reaches_nobody() {
    let rig = Arc::new(Rig::with(&format!("{PATIENT}server.limits.requests = 1")).await);
    let gate = hold(&rig, 1);
    let first = asking(&rig, "/v1.0/me".to_owned());
    within(gate.arrived(1)).await;
    let mut wire = rig.wire().await;
    wire.send(format!("GET /v1.0/gone HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY)))
        .await;
    until(&rig, "admission_waiting", 1).await;
    drop(wire);
    until(&rig, "admission_waits_total{outcome=\"left\"}", 1).await;
    assert_eq!(metric(&rig, "admission_waiting"), 0);
    gate.open();
    assert_eq!(within(first).await.unwrap().status(), 200);
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.seen().len(), 2);
}

/// What is refused is refused before its body is read, and leaves the next request of others unharmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_for_no_body() {
    for limits in ["wait = \"0s\"", "waiting = 0", "wait = \"1ms\""] {
        let rig = Arc::new(Rig::with(&format!("server.limits.requests = 1\nserver.limits.{limits}")).await);
        let gate = hold(&rig, 1);
        let first = asking(&rig, "/v1.0/me".to_owned());
        within(gate.arrived(1)).await;
        let head = format!(
            "POST /v1.0/echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: 1000000\r\n\r\n",
            basic("alice", KEY)
        );
        let answer = rig.exchange(head).await;
        let answer = text(&answer);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("bearerd-error: overloaded\r\n"), "{answer}");
        assert!(answer.contains("retry-after: ") && answer.contains("connection: close\r\n"), "{answer}");
        gate.open();
        assert_eq!(within(first).await.unwrap().status(), 200);
        assert_eq!(rig.seen_one().target, "/v1.0/me");
    }
}

/// A client's own limit comes before the house's: what is past it takes nobody's place in the line.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_past_its_own_limit_does_not_wait() {
    let client = format!(
        r#"clients = [{{ name = "payroll", key_hash = "{}", accounts = ["*"], limits = {{ concurrent = 2 }} }}]"#,
        key_hash(KEY)
    );
    let rig = Arc::new(Rig::with(&format!("{client}\n{PATIENT}server.limits.requests = 1")).await);
    let gate = hold(&rig, 1);
    let first = asking(&rig, "/v1.0/me".to_owned());
    within(gate.arrived(1)).await;
    let second = asking(&rig, "/v1.0/users".to_owned());
    until(&rig, "admission_waiting", 1).await;
    assert_refused(&rig.get("/v1.0/me").await, 429, "throttled");
    gate.open();
    assert_eq!(within(first).await.unwrap().status(), 200);
    assert_eq!(within(second).await.unwrap().status(), 200);
    assert_eq!(rig.seen().len(), 2);
}

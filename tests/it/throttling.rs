//! What happens when Graph has enough, and before it has: waits, retries, gates, pauses, the budget. Judged by what Graph saw.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearerd::clock::{Clock, Timestamp};
use bearerd::sandbox::{Effect, Fault, Gate};
use bearerd::tasks::spawn_here;
use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};

const MAIL: &str = "/v1.0/me/messages";
const FILES: &str = "/v1.0/me/drive/root/children";

fn by_hand(config: &str) -> Setup {
    Setup { clock: Clock::manual(Timestamp::from_secs(1_800_000_000)), config: config.to_owned(), ..Setup::default() }
}

fn bob(method: &str, path: &str) -> http::request::Builder {
    bare(method, path).header("authorization", basic("bob", KEY))
}

fn throttle(rig: &Rig, status: u16, retry_after: Option<&str>) {
    rig.graph().faults().push(Fault::graph("/", Effect::graph_error(status, retry_after)));
}

fn retry_after(answer: &Response<Bytes>) -> Option<u64> {
    header(answer, "retry-after").map(|value| value.parse().expect("one integer"))
}

fn statuses(rig: &Rig) -> Vec<u16> {
    rig.seen().iter().map(|seen| seen.status_sent).collect()
}

/// The value of a metric, by its name and labels; 0: never set.
fn metric(rig: &Rig, name: &str) -> u64 {
    let text = rig.app.core().metrics.render();
    let mut lines =
        text.lines().filter_map(|line| line.strip_prefix("bearerd_")?.strip_prefix(name)?.strip_prefix(' '));
    lines.next().map_or(0, |value| value.parse().expect("a number"))
}

const WAITING: &str = "gate_waiting{upstream=\"graph\",workload=\"outlook\"}";

async fn until(rig: &Rig, name: &str, value: u64) {
    within(async {
        while metric(rig, name) != value {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn until_waiting(rig: &Rig, count: u64) {
    until(rig, WAITING, count).await;
}

fn sending(rig: &Arc<Rig>, request: http::Request<Body>) -> JoinHandle<Response<Bytes>> {
    let rig = Arc::clone(rig);
    spawn_here(async move { rig.send(request).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_waits_for_every_spelling_of_retry_after() {
    let mut cases = Vec::new();
    for status in [429, 503, 504] {
        for spelling in ["1", "0.249", "0,1", "1, 0", "date+1", "date-5", "0"] {
            cases.push(spawn_here(async move {
                let rig = Rig::start().await;
                throttle(&rig, status, Some(spelling));
                let answer = rig.get(MAIL).await;
                assert_eq!(answer.status(), 200, "{status} {spelling}");
                let seen = rig.seen();
                assert_eq!(statuses(&rig), [status, 200], "{spelling}");
                let waited = seen[1].at.since(seen[0].at);
                let shortest = if ["date-5", "0"].contains(&spelling) { 0 } else { 990 };
                // A date has whole seconds: the one that has begun may be over.
                assert!(spelling == "date+1" || waited >= Duration::from_millis(shortest), "{spelling}: {waited:?}");
                assert_eq!(metric(&rig, "retries_total{reason=\"throttled\"}"), 1);
            }));
        }
    }
    for case in cases {
        within(case).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_says_one_integer_or_nothing() {
    let spellings = [
        ("120", Some(120)),
        ("0.249", Some(1)),
        ("0,120", Some(120)),
        ("date+30", Some(30)),
        ("soon", None),
        ("", None),
    ];
    for status in [429, 503, 504] {
        for (spelling, said) in spellings {
            for method in ["POST", "PATCH", "PUT", "DELETE"] {
                let rig = by_hand("").start().await;
                throttle(&rig, status, Some(spelling).filter(|spelling| !spelling.is_empty()));
                let answer = rig.send(alice(method, "/v1.0/echo").body(full("x")).unwrap()).await;
                assert_eq!((answer.status().as_u16(), retry_after(&answer)), (status, said), "{method} {spelling}");
                assert!(header(&answer, "bearerd-error").is_none(), "it is Graph's own");
                assert_eq!(statuses(&rig), [status], "{method} is sent once");
            }
        }
        // Untouched where the client wants it so.
        let rig = by_hand("").start().await;
        throttle(&rig, status, Some("0.249"));
        let answer = rig.send(alice("GET", MAIL).header("bearerd-retry", "off").body(empty()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (status, Some("0.249")));
        assert_eq!(rig.seen().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_than_the_patience_is_for_the_client_to_wait() {
    for (config, spelling, said) in [
        ("", "11", 11),
        ("", "0, 10.5", 11),
        ("upstreams.graph.throttling.patience = \"2s\"", "3", 3),
        ("upstreams.graph.throttling.patience = \"500ms\"", "date+60", 60),
    ] {
        for status in [429, 503, 504] {
            let rig = by_hand(config).start().await;
            throttle(&rig, status, Some(spelling));
            let answer = rig.get(MAIL).await;
            assert_eq!((answer.status().as_u16(), retry_after(&answer)), (status, Some(said)), "{spelling}");
            assert_eq!(rig.seen().len(), 1);
            // Only a 429 says something of the account: whoever comes next is not held up by the others.
            assert_eq!(rig.get(MAIL).await.status(), if status == 429 { 429 } else { 200 });
        }
    }
}

/// Microsoft's SDKs repeat, too: three tries of theirs with three of ours each would be nine.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_repeats_itself_is_left_to_it() {
    let rig = Rig::start().await;
    for status in [429, 503, 504] {
        for (attempt, sent) in [("1", 1), ("2", 1), ("0", 2)] {
            throttle(&rig, status, Some("0"));
            let ask = alice("GET", MAIL).header("retry-attempt", attempt).body(empty()).unwrap();
            let answer = rig.send(ask).await;
            assert_eq!(rig.seen().len(), sent, "{attempt}");
            assert_eq!(answer.status().as_u16(), if sent == 1 { status } else { 200 });
            assert!(rig.seen().iter().all(|seen| seen.header("retry-attempt") == [attempt]));
            rig.graph().clear();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsaid_wait_is_a_second_and_a_504_is_tried_once_more() {
    let rig = Rig::start().await;
    for status in [429, 503] {
        throttle(&rig, status, None);
        assert_eq!(rig.get(MAIL).await.status(), 200);
        let seen = rig.seen();
        assert_eq!(statuses(&rig), [status, 200]);
        assert!(seen[1].at.since(seen[0].at) >= Duration::from_millis(990));
        rig.graph().clear();
    }
    throttle(&rig, 504, None);
    assert_eq!(rig.get(MAIL).await.status(), 200);
    assert_eq!(statuses(&rig), [504, 200]);
    rig.graph().clear();
    rig.graph().faults().push(Fault::graph("/", Effect::graph_error(504, None)).times(5));
    let answer = rig.get(MAIL).await;
    assert_eq!((answer.status().as_u16(), retry_after(&answer)), (504, None));
    assert_eq!(statuses(&rig), [504, 504]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_503_another_connection_is_tried() {
    let rig = Rig::start().await;
    assert_eq!(rig.get(MAIL).await.status(), 200);
    throttle(&rig, 503, Some("0"));
    assert_eq!(rig.get(MAIL).await.status(), 200);
    assert_eq!(rig.get(MAIL).await.status(), 200);
    throttle(&rig, 429, Some("0"));
    assert_eq!(rig.get(MAIL).await.status(), 200);
    assert_eq!(statuses(&rig), [200, 503, 200, 200, 429, 200]);
    let ports: Vec<_> = rig.seen().iter().map(|seen| seen.peer_port).collect();
    let (old, new) = (ports[0], ports[2]);
    assert_ne!(old, new);
    assert_eq!(ports, [old, old, new, new, new, new], "and kept for whatever follows");
}

/// An answer without a body is over with its head: its connection is not kept either.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_503_without_a_body_another_connection_is_tried() {
    let upstream = RawUpstream::start(|_, number| {
        if number == 1 {
            return Play::say("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
        }
        Play::ok()
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for _ in 0..3 {
        assert_eq!(rig.get(MAIL).await.status(), 200);
    }
    let connections: Vec<_> = upstream.arrived().iter().map(|arrived| arrived.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1]);
}

/// Of HTTP/2 there is one for all: they move together.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_503_another_connection_of_http2_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    // The connection of each request, from 0.
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    spawn_here(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&kept);
            let service = service_fn(move |_: http::Request<Incoming>| {
                let mut log = log.lock().unwrap();
                log.push(connection);
                let answer = Response::builder().header("retry-after", "0").status(match log.len() {
                    2 => 503,
                    5 => 429,
                    _ => 200,
                });
                async { answer.body(full("")) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            spawn_here(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let rig = Rig::before(&origin, "upstreams.graph.http = \"2\"").await;
    for _ in 0..4 {
        assert_eq!(rig.get(MAIL).await.status(), 200);
    }
    assert_eq!(*log.lock().unwrap(), [0, 0, 1, 1, 1, 1]);
}

/// Each of the twelve has a door of its own at Graph: who is in front of one is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_sees_four_at_a_time_and_nobody_else_waits() {
    let rig = Arc::new(Rig::with("server.workers = 2").await);
    let doors: Vec<_> = ('a'..='l').map(|name| (format!("{MAIL}/{name}"), Gate::shut())).collect();
    let mut asks = Vec::new();
    for (number, (path, door)) in (1..).zip(&doors) {
        rig.graph().faults().push(Fault::graph(path, Effect::Hold(door.clone())));
        asks.push(sending(&rig, get(path)));
        if number <= 4 {
            within(door.arrived(1)).await;
        } else {
            until_waiting(&rig, number - 4).await;
        }
    }
    let under_way = || doors.iter().map(|(_, door)| door.count()).sum::<usize>();
    assert_eq!(rig.send(bob("GET", MAIL).body(empty()).unwrap()).await.status(), 200, "another account");
    assert_eq!(rig.get(FILES).await.status(), 200, "another workload");
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(under_way(), 4);
    for (done, (_, door)) in doors.iter().enumerate() {
        assert_eq!(under_way(), (done + 4).min(12), "four at a time");
        door.open();
        if let Some((_, next)) = doors.get(done + 4) {
            within(next.arrived(1)).await;
        }
    }
    for ask in asks {
        within(ask).await.unwrap();
    }
    assert_eq!((under_way(), metric(&rig, WAITING)), (12, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_leaves_the_queue_and_past_its_bound_nobody_waits() {
    let config = "upstreams.graph.throttling = { mailbox_concurrent = 1, queue = 2 }";
    let rig = Arc::new(Rig::with(config).await);
    let door = Gate::shut();
    rig.graph().faults().push(Fault::graph(MAIL, Effect::Hold(door.clone())));
    let first = sending(&rig, get(MAIL));
    within(door.arrived(1)).await;
    let mut wires = Vec::new();
    for waiting in 1..=2 {
        let mut wire = rig.wire().await;
        let head = format!("GET {MAIL} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY));
        wire.send(head).await;
        until_waiting(&rig, waiting).await;
        wires.push(wire);
    }
    let answer = rig.get(MAIL).await;
    assert_refused(&answer, 429, "throttled");
    assert_eq!(retry_after(&answer), Some(1));
    assert_eq!(metric(&rig, "gate_refused_total{upstream=\"graph\",workload=\"outlook\"}"), 1);
    drop(wires);
    until_waiting(&rig, 0).await;
    let next = sending(&rig, get(MAIL));
    until_waiting(&rig, 1).await;
    door.open();
    assert_eq!(within(first).await.unwrap().status(), 200);
    assert_eq!(within(next).await.unwrap().status(), 200);
    assert_eq!(rig.seen().len(), 2, "who left was never sent");
}

/// Nobody waits for ever for a place: the client would have gone long before.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_does_not_come_free_is_not_waited_for_for_long() {
    let rig =
        Arc::new(Rig::with("upstreams.graph.throttling = { mailbox_concurrent = 1, patience = \"100ms\" }").await);
    let door = Gate::shut();
    rig.graph().faults().push(Fault::graph(MAIL, Effect::Hold(door.clone())));
    let first = sending(&rig, get(MAIL));
    within(door.arrived(1)).await;
    let answer = rig.get(MAIL).await;
    assert_refused(&answer, 429, "throttled");
    door.open();
    assert_eq!(within(first).await.unwrap().status(), 200);
    assert_eq!(rig.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_pauses_its_siblings_and_nobody_else() {
    let rig = Arc::new(Rig::with("server.workers = 2").await);
    rig.graph().faults().push(Fault::graph(MAIL, Effect::graph_error(429, Some("2"))));
    let mut asks = vec![sending(&rig, get(MAIL))];
    let pauses = "gate_pauses_total{upstream=\"graph\",workload=\"outlook\"}";
    until(&rig, pauses, 1).await;
    for number in 1..=5 {
        let sibling = if number % 2 == 0 { get("/v1.0/me/messages/x") } else { post("/v1.0/me/sendMail", "{}") };
        asks.push(sending(&rig, sibling));
    }
    // The first keeps its place; three more have one, and wait in front of Graph with those that have none.
    until_waiting(&rig, 5).await;
    assert_eq!(rig.send(bob("GET", MAIL).body(empty()).unwrap()).await.status(), 200, "another account");
    assert_eq!(rig.get(FILES).await.status(), 200, "another workload");
    for ask in asks {
        assert_ne!(within(ask).await.unwrap().status(), 429);
    }
    let seen = rig.seen();
    let mine: Vec<_> = seen
        .iter()
        .filter(|seen| {
            seen.user.as_deref() == Some("alice") && seen.target.starts_with("/v1.0/me/") && seen.target != FILES
        })
        .collect();
    assert_eq!((mine.len(), mine[0].status_sent), (7, 429));
    for seen in &mine[1..] {
        assert!(seen.at.since(mine[0].at) >= Duration::from_millis(1990), "in the middle of the pause: {seen:?}");
    }
    assert_eq!(metric(&rig, pauses), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_is_told_at_once_without_asking_graph() {
    let rig = by_hand("").start().await;
    rig.graph().faults().push(Fault::graph(MAIL, Effect::graph_error(429, Some("60"))));
    let answer = rig.send(post(MAIL, "{}")).await;
    assert_eq!((answer.status().as_u16(), retry_after(&answer)), (429, Some(60)));
    rig.clock.advance(Duration::from_millis(20_500));
    for request in [get(MAIL), post("/v1.0/me/sendMail", "{}")] {
        let answer = rig.send(request).await;
        let document = assert_refused(&answer, 429, "throttled");
        assert_eq!(retry_after(&answer), Some(40));
        assert!(document["error"]["message"].as_str().unwrap().contains("outlook"), "{document}");
    }
    assert_eq!(rig.seen().len(), 1);
    assert_eq!(metric(&rig, "gate_refused_total{upstream=\"graph\",workload=\"outlook\"}"), 2);
    assert_eq!(rig.get(FILES).await.status(), 200);
    let stubborn = alice("GET", MAIL).header("bearerd-retry", "off").body(empty()).unwrap();
    assert_eq!(rig.send(stubborn).await.status(), 200, "it wants to hear it from Graph");
    rig.clock.advance(Duration::from_secs(40));
    assert_eq!(rig.get(MAIL).await.status(), 200);
    assert_eq!(rig.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_a_fifth_of_the_requests_and_a_few_more() {
    let upstream = RawUpstream::start(|_, _| {
        Play::say("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}")
    })
    .await;
    let rig = Setup { upstream: Some(upstream.origin()), ..by_hand("") }.start().await;
    let mut client = rig.http1().await;
    for _ in 0..200 {
        let answer = whole(client.send_request(get(FILES))).await;
        assert_eq!((answer.status().as_u16(), retry_after(&answer)), (429, Some(0)));
        within(client.ready()).await.unwrap();
    }
    let budget = 100 + 200 / 5;
    assert_eq!(upstream.arrived().len(), 200 + budget);
    assert_eq!(metric(&rig, "retries_total{reason=\"throttled\"}"), budget as u64);
    assert!(metric(&rig, "retry_budget_exhausted_total{upstream=\"graph\"}") > 100);
    rig.clock.advance(Duration::from_secs(10));
    whole(client.send_request(get(FILES))).await;
    assert_eq!(upstream.arrived().len(), 200 + budget + 4, "another ten seconds, another budget");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_apis_have_neither_mailboxes_nor_pauses() {
    let rig = Arc::new(by_hand("upstreams.graph.kind = \"rest\"").start().await);
    throttle(&rig, 429, Some("60"));
    assert_eq!(rig.get(MAIL).await.status(), 429);
    let door = Gate::shut();
    rig.graph().faults().push(Fault::graph(MAIL, Effect::Hold(door.clone())).times(10));
    let asks: Vec<_> = (0..10).map(|_| sending(&rig, get(MAIL))).collect();
    within(door.arrived(10)).await;
    door.open();
    for ask in asks {
        assert_eq!(within(ask).await.unwrap().status(), 200);
    }
}

//! Limits of the house that change while it serves.

use bearerd::sandbox::{Effect, Fault, Gate};
use tokio::net::TcpStream;

use super::house::*;
use crate::harness::*;

fn metric(house: &House, name: &str) -> u64 {
    let text = house.rig.app.core().metrics.render();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("bearerd_{name} ")));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn seats_and_waits_are_those_of_the_next_request() {
    let few = "server.limits.requests = 1\nserver.limits.wait = \"0s\"";
    let house = House::start(few).await;
    let gate = Gate::shut();
    house.rig.graph().faults().push(Fault::graph("/v1.0/me", Effect::Hold(gate.clone())).times(2));
    let [mut held, mut second] = [house.rig.http1().await, house.rig.http1().await];
    let first = whole(held.send_request(get("/v1.0/me")));
    let meanwhile = async {
        gate.arrived(1).await;
        assert_eq!(house.status(get("/v1.0/users")).await, 503);
        let said = house.reload("server.limits.requests = 2\nserver.limits.wait = \"0s\"").await;
        assert_eq!(said, changed(["server.limits.requests"]));
        assert_eq!(house.status(get("/v1.0/users")).await, 200, "one more");
        let also = whole(second.send_request(get("/v1.0/me")));
        let rest = async {
            gate.arrived(2).await;
            house.reload(few).await;
            assert_eq!(house.status(get("/v1.0/users")).await, 503, "two are under way, and none of them is ended");
            let said = house.reload("server.limits.requests = 1\nserver.limits.wait = \"1ms\"").await;
            assert_eq!(said, changed(["server.limits.wait"]));
            assert_eq!(house.status(get("/v1.0/users")).await, 503);
            assert_eq!(metric(&house, "admission_refused_total{reason=\"wait\"}"), 1);
            gate.open();
        };
        tokio::join!(also, rest).0
    };
    let (first, also) = within(async { tokio::join!(first, meanwhile) }).await;
    assert_eq!((first.status().as_u16(), also.status().as_u16()), (200, 200));
    assert_eq!(house.status(get("/v1.0/users")).await, 200, "both seats are free");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_mark_of_memory_nothing_new_is_taken_on_and_below_it_all_is_well() {
    let house = House::start("server.limits.memory_bytes = 0").await;
    let mut wire = house.rig.wire().await;
    let head = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY))
    };
    wire.send(head("/v1.0/me")).await;
    assert_eq!(wire.answer().await.status(), 200);
    // The connection is busy with the next request: it is not closed for being silent.
    let next = head("/v1.0/users");
    let (begin, rest) = next.split_at(20);
    wire.send(begin).await;
    let said = house.reload("server.limits.memory_bytes = 1").await;
    assert_eq!(said, changed(["server.limits.memory_bytes"]));
    assert_eq!(metric(&house, "admission_refused_total{reason=\"memory\"}"), 0);
    wire.send(rest).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.header("bearerd-error")), (503, Some("overloaded")));
    assert_eq!(metric(&house, "admission_refused_total{reason=\"memory\"}"), 1);
    // A newcomer is closed unheard.
    let newcomer = within(TcpStream::connect(house.rig.data)).await.expect("the system accepts it");
    let mut byte = [0];
    let read = within(async {
        newcomer.readable().await?;
        newcomer.try_read(&mut byte)
    });
    assert!(matches!(read.await, Ok(0) | Err(_)));
    assert_eq!(metric(&house, "admission_refused_total{reason=\"memory\"}"), 2);
    // The operator gets in, and the replica stays ready: others would fall next.
    let ready = house.rig.send_to_admin(bare("GET", "/readyz").body(empty()).unwrap()).await;
    assert_eq!(ready.status(), 200);
    house.reload("server.limits.memory_bytes = 0").await;
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    assert_eq!(house.rig.seen().len(), 2, "what was refused reached nobody");
}

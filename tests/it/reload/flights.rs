//! Refreshes over a reload: whoever asks by the old configuration and whoever asks by the new one never redeem the same token.

use std::time::Duration;

use bearerd::sandbox::{Effect, Fault, Gate, Options, Rotation};
use http::Request;

use super::house::*;
use crate::harness::*;

const HOUR: Duration = Duration::from_secs(3600);
/// What the proxy believes of the provider: it never forgives a token that comes twice.
const STRICT: &str = "[providers.entra]\nrotation = \"strict\"\n";

async fn strict() -> House {
    let options = Options { rotation: Rotation::Strict, ..Options::default() };
    let house = House::with(options, STRICT, |_| ()).await;
    house.rig.clock.advance(HOUR);
    house
}

/// What becomes of a request that comes before the reload, with its refresh held up, and of one that comes after it. `held`: the fault that
/// holds the refresh until the gate opens.
async fn around(house: &House, held: Effect, gate: &Gate, over: &str) -> [u16; 2] {
    house.rig.sandbox.faults().push(Fault::token(held));
    let (mut one, mut other) = (house.rig.http1().await, house.rig.http1().await);
    let before = whole(one.send_request(get("/v1.0/me")));
    let after = async {
        within(gate.arrived(1)).await;
        house.reload(over).await;
        let request = other.send_request(get("/v1.0/me"));
        let (answer, ()) = tokio::join!(whole(request), async {
            // Time for it to come aboard, or to do what it must not.
            tokio::task::yield_now().await;
            house.rig.send(bare("GET", "/v1.0/me").body(empty()).unwrap()).await;
            gate.open();
        });
        answer
    };
    let (before, after) = tokio::join!(before, after);
    [before.status().as_u16(), after.status().as_u16()]
}

#[tokio::test]
async fn a_refresh_in_flight_is_everybodys_and_is_stored_once() {
    for (over, what) in [
        ("[server]\nallowed_hosts = [\"a\"]", "something else"),
        ("[providers.entra]\nidle_limit = \"80d\"", "the provider"),
        ("[upstreams.graph]\ntimeout = \"99s\"", "the upstream"),
    ] {
        let house = strict().await;
        let gate = Gate::shut();
        let over = if over.contains("providers") {
            over.replace("[providers.entra]\n", STRICT)
        } else {
            format!("{STRICT}{over}")
        };
        assert_eq!(around(&house, Effect::HoldAnswer(gate.clone()), &gate, &over).await, [200, 200], "{what}");
        let asked: Vec<_> = house.rig.token_requests().into_iter().map(|request| request.outcome).collect();
        assert_eq!(asked, ["200"], "{what}");
        let grant = house.rig.app.core().store.find("alice").await.unwrap().unwrap();
        assert_eq!(grant.version, 2, "{what}");
    }
}

#[tokio::test]
async fn other_scopes_wait_for_the_refresh_in_flight_and_present_its_successor() {
    let house = strict().await;
    let gate = Gate::shut();
    let over = format!("{STRICT}[upstreams.graph]\nscopes = [\"User.Read\"]\n");
    assert_eq!(around(&house, Effect::HoldAnswer(gate.clone()), &gate, &over).await, [200, 200]);
    let asked = house.rig.token_requests();
    assert_eq!(asked.iter().map(|request| request.outcome.as_str()).collect::<Vec<_>>(), ["200", "200"]);
    assert!(asked.iter().all(|request| request.presented_count == 1), "{asked:#?}");
    assert_ne!(asked[0].refresh_token_id, asked[1].refresh_token_id);
}

#[tokio::test]
async fn a_failure_by_the_old_credential_is_not_the_answer_to_who_has_the_new_one() {
    let wrong = "[providers.entra]\ncredentials = [{ secret = \"wrong\" }]\n";
    let house = House::start(wrong).await;
    house.rig.clock.advance(HOUR);
    let gate = Gate::shut();
    // The first knows the old credential only; the other waits for the same flight, and tries again.
    assert_eq!(around(&house, Effect::Hold(gate.clone()), &gate, "").await, [502, 200]);
    assert_eq!(house.status(get("/v1.0/me")).await, 200, "and nothing is left of it");
}

#[tokio::test]
async fn fifty_reloads_among_a_thousand_requests_of_expiring_tokens_refresh_each_account_once() {
    let options = Options { rotation: Rotation::Strict, users: 20, ..Options::default() };
    let house = House::with(options, STRICT, |_| ()).await;
    let users: Vec<String> =
        house.rig.sandbox.entra.options().users.iter().map(|user| user.alias.clone()).skip(2).collect();
    for user in &users {
        sign_in(&house.rig.app, &house.rig.sandbox, user).await;
    }
    house.rig.sandbox.entra.clear();
    house.rig.clock.advance(HOUR);
    let asking = async {
        let mut connections = Vec::new();
        for _ in 0..20 {
            connections.push(house.rig.http1().await);
        }
        for round in 0..50 {
            let answers = connections.iter_mut().enumerate().map(|(number, connection)| {
                let user = &users[(number + round) % users.len()];
                let request: Request<Body> =
                    bare("GET", "/v1.0/me").header("authorization", basic(user, KEY)).body(empty()).unwrap();
                whole(connection.send_request(request))
            });
            let answers: Vec<_> = answers.collect();
            for answer in answers {
                assert_eq!(answer.await.status(), 200);
            }
        }
    };
    let reloading = async {
        for number in 0..50 {
            house.reload(&format!("{STRICT}idle_limit = \"{}d\"\n", 40 + number)).await;
        }
    };
    tokio::join!(asking, reloading);
    let asked = house.rig.token_requests();
    assert_eq!(asked.len(), users.len(), "{asked:#?}");
    assert!(asked.iter().all(|request| request.outcome == "200" && request.presented_count == 1));
    assert_eq!(house.count("applied"), 50);
}

//! The gate's waiting: who goes first, who is refused at once, what is given back.

use super::*;
use crate::clock::Timestamp;
use std::task::Poll;

fn gate(concurrent: usize, per_second: f64) -> (Gate, Clock, Metrics) {
    let (clock, metrics) = (Clock::manual(Timestamp::from_secs(1_700_000_000)), Metrics::new());
    let tasks = Tasks::on(tokio::runtime::Handle::current());
    let limits = TokenRequests { concurrent, per_second };
    let gate = Gate::new("entra", limits, clock.clone(), tasks, metrics.clone());
    (gate, clock, metrics)
}

fn error(class: Class, text: &str, retry_after: Option<u64>) -> TokenError {
    TokenError {
        class,
        whose: Whose::Provider,
        delivery: Delivery::Answered,
        text: text.to_owned(),
        retry_after: retry_after.map(Duration::from_secs),
        claims: None,
    }
}

fn fail(gate: &Gate, times: usize) {
    (0..times).for_each(|whose| gate.heard(&whose, Err(&error(Class::Retry, "HTTP 503", None))));
}

fn refused(outcome: Result<Pass, LeaseError>) -> Duration {
    match outcome {
        Err(LeaseError::ProviderUnavailable { retry_after, .. }) => retry_after,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it passed"),
    }
}

/// Whether `work` is done after one look.
async fn looked_at<F: Future>(work: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut work = work;
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_request_overtakes_work_that_nobody_waits_for() {
    let (gate, _clock, metrics) = gate(1, 1000.0);
    let pass = gate.admit(Urgency::OnDemand).await.unwrap();
    let mut ahead = Box::pin(gate.admit(Urgency::AheadOfTime));
    let mut request = Box::pin(gate.admit(Urgency::OnDemand));
    assert!(looked_at(ahead.as_mut()).await.is_none());
    assert!(looked_at(request.as_mut()).await.is_none());
    let text = metrics.render();
    for urgency in ["on_demand", "ahead_of_time"] {
        let line = format!("bearerd_token_requests_waiting{{provider=\"entra\",urgency=\"{urgency}\"}} 1");
        assert!(text.contains(&line), "{text}");
    }
    drop(pass);
    assert!(looked_at(ahead.as_mut()).await.is_none(), "the request comes first");
    let pass = request.await.unwrap();
    assert!(looked_at(ahead.as_mut()).await.is_none());
    drop(pass);
    let pass = ahead.await.unwrap();
    assert!(metrics.render().contains("urgency=\"ahead_of_time\"} 0"));
    drop(pass);
    assert!(gate.admit(Urgency::OnDemand).await.is_ok());
}

#[tokio::test]
async fn a_request_that_joins_a_flight_takes_it_along_to_the_front() {
    let (gate, _clock, _) = gate(2, 1000.0);
    let held = gate.admit(Urgency::AheadOfTime).await.unwrap();
    let (first, second) = (SharedUrgency::new(Urgency::AheadOfTime), SharedUrgency::new(Urgency::AheadOfTime));
    let mut before = Box::pin(gate.admit_flight(&first));
    let mut joined = Box::pin(gate.admit_flight(&second));
    assert!(looked_at(before.as_mut()).await.is_none());
    assert!(looked_at(joined.as_mut()).await.is_none());
    second.join(Urgency::OnDemand);
    second.join(Urgency::AheadOfTime);
    let pass = joined.await.unwrap();
    assert_eq!(pass.urgency, Urgency::OnDemand);
    assert!(looked_at(before.as_mut()).await.is_none(), "no place for it yet");
    drop(held);
    assert!(before.await.is_ok());
}

#[tokio::test]
async fn a_request_waits_a_bounded_time_and_leaves_no_trace() {
    let (gate, _clock, metrics) = gate(1, 1000.0);
    let pass = gate.admit(Urgency::OnDemand).await.unwrap();
    assert_eq!(refused(gate.admit_request(Duration::from_millis(5)).await), BUSY);
    assert!(metrics.render().contains("urgency=\"on_demand\"} 0"));
    drop(pass);
    assert!(gate.admit(Urgency::OnDemand).await.is_ok());
}

#[tokio::test]
async fn the_rate_is_that_of_the_clock() {
    let (gate, clock, _) = gate(100, 2.0);
    let mut passes = vec![gate.admit(Urgency::OnDemand).await.unwrap(), gate.admit(Urgency::OnDemand).await.unwrap()];
    assert_eq!(refused(gate.admit_request(Duration::from_millis(5)).await), BUSY);
    let mut next = Box::pin(gate.admit(Urgency::OnDemand));
    assert!(looked_at(next.as_mut()).await.is_none());
    clock.advance(Duration::from_millis(500));
    passes.push(next.await.unwrap());
}

#[tokio::test]
async fn while_it_is_open_everybody_is_sent_away_at_once_and_then_one_probe_goes() {
    let (gate, clock, metrics) = gate(32, 1000.0);
    let mut circuit = Vec::new();
    let mut is = |value: u8| {
        let line = format!("bearerd_provider_circuit{{provider=\"entra\"}} {value}");
        circuit.push((metrics.render().contains(&line), value));
    };
    is(0);
    fail(&gate, 5);
    is(2);
    for urgency in [Urgency::OnDemand, Urgency::AheadOfTime] {
        let wait = refused(gate.admit(urgency).await);
        assert!(wait <= Duration::from_millis(1200) && wait == gate.shut_for(), "{wait:?}");
    }
    clock.advance(gate.shut_for());
    let probe = gate.admit(Urgency::AheadOfTime).await.unwrap();
    is(1);
    refused(gate.admit(Urgency::OnDemand).await);
    drop(probe);
    let probe = gate.admit(Urgency::OnDemand).await.unwrap();
    gate.heard(&0, Ok(()));
    is(0);
    drop(probe);
    assert!(gate.admit(Urgency::OnDemand).await.is_ok());
    assert!(circuit.iter().all(|(as_it_should, _)| *as_it_should), "{circuit:?}");
}

#[tokio::test]
async fn those_who_wait_are_sent_away_when_it_opens() {
    let (gate, _clock, _) = gate(1, 1000.0);
    let _pass = gate.admit(Urgency::OnDemand).await.unwrap();
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(gate.admit(Urgency::OnDemand))).collect();
    for request in &mut waiting {
        assert!(looked_at(request.as_mut()).await.is_none());
    }
    fail(&gate, 5);
    for request in waiting {
        refused(request.await);
    }
}

#[tokio::test]
async fn work_that_nobody_waits_for_does_not_hold_up_a_drain() {
    let (gate, _clock, _) = gate(2, 1000.0);
    let _pass = gate.admit(Urgency::AheadOfTime).await.unwrap();
    let mut waiting = Box::pin(gate.admit(Urgency::AheadOfTime));
    assert!(looked_at(waiting.as_mut()).await.is_none());
    assert!(gate.0.tasks.drain(Duration::from_secs(5)).await);
    assert!(refused(waiting.await).is_zero());
    assert!(gate.admit(Urgency::OnDemand).await.is_ok());
}

#[test]
fn what_an_outcome_says_of_the_provider() {
    let throttles = |secs| Sign::Throttles(Duration::from_secs(secs));
    let rows = [
        (error(Class::Retry, "HTTP 503", None), Sign::Ill { retry_after: None, whose: Some(7) }),
        (
            error(Class::Retry, "HTTP 503", Some(9)),
            Sign::Ill { retry_after: Some(Duration::from_secs(9)), whose: Some(7) },
        ),
        (
            TokenError { delivery: Delivery::NotSent, ..error(Class::Retry, "connection refused", None) },
            Sign::Ill { retry_after: None, whose: None },
        ),
        (error(Class::Backoff, "HTTP 429", None), throttles(60)),
        (error(Class::Backoff, "HTTP 429", Some(0)), throttles(0)),
        (error(Class::Backoff, "AADSTS90055 throttled", Some(9999)), throttles(3600)),
        (TokenError { whose: Whose::Grant, ..error(Class::Backoff, "AADSTS50196 a loop", Some(120)) }, Sign::Nothing),
        (error(Class::AppCredential, "AADSTS7000222 invalid_client", None), Sign::Nothing),
        (error(Class::Dead, "AADSTS50173 invalid_grant", None), Sign::Well),
        (error(Class::Interact, "AADSTS50076 interaction_required", None), Sign::Well),
        (TokenError { delivery: Delivery::NotSent, ..error(Class::Config, "", None) }, Sign::Nothing),
        (TokenError { delivery: Delivery::Unknown, ..error(Class::Config, "", None) }, Sign::Nothing),
    ];
    for (error, expected) in rows {
        assert_eq!(sign(7, Err(&error)), expected, "{error:?}");
    }
    assert_eq!(sign(7, Ok(())), Sign::Well);
}

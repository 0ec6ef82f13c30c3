//! Who gets a seat, and when. Those who wait are polled by hand, so that nothing depends on time.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;

struct House {
    admission: Arc<Admission>,
    limits: ServerLimits,
}

type Entering<'a> = Pin<Box<dyn Future<Output = Result<Seat, Refusal>> + 'a>>;

fn house(requests: usize, waiting: usize) -> House {
    let limits = ServerLimits {
        connections: 1,
        requests,
        wait: Duration::from_secs(3600),
        waiting,
        memory_bytes: None,
        header_timeout: Duration::ZERO,
        header_bytes: 0,
        uri_bytes: 0,
        body_bytes: None,
        replay_bytes: 0,
        replay_total_bytes: 0,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
    };
    House { admission: Admission::new(Pressure::default(), Metrics::new()), limits }
}

impl House {
    fn take(&self) -> Option<Seat> {
        self.admission.take(&self.limits)
    }

    /// Waits as `client`; has stood in line when this returns.
    fn wait(&self, client: &str) -> Entering<'_> {
        let client: Arc<str> = client.into();
        let mut entering: Entering<'_> = Box::pin(async move { self.admission.wait(&client, &self.limits).await });
        assert!(seat(&mut entering).is_none(), "nothing is free");
        entering
    }

    fn metric(&self, line: &str) -> bool {
        self.admission.metrics.render().lines().any(|rendered| rendered == format!("bearerd_{line}"))
    }
}

/// What has come of it by now.
fn seat(entering: &mut Entering<'_>) -> Option<Result<Seat, Refusal>> {
    match entering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn admitted(entering: &mut Entering<'_>) -> Option<Seat> {
    seat(entering).map(|result| result.unwrap_or_else(|refusal| panic!("{refusal:?}")))
}

#[tokio::test]
async fn the_newest_is_first() {
    let house = house(1, 10);
    let first = house.take().unwrap();
    assert!(house.take().is_none());
    let mut waiting = [house.wait("a"), house.wait("a"), house.wait("a")];
    assert!(house.metric("admission_waiting 3"));
    let mut held = first;
    for at in [2, 1, 0] {
        drop(held);
        held = admitted(&mut waiting[at]).expect("its turn");
        assert!(waiting[..at].iter_mut().all(|entering| seat(entering).is_none()), "one at a time");
    }
    assert!(house.metric("admission_waits_total{outcome=\"admitted\"} 3") && house.metric("admission_waiting 0"));
    drop(held);
    assert!(house.take().is_some());
}

#[tokio::test]
async fn where_too_many_wait_the_oldest_gives_way() {
    let house = house(1, 2);
    let first = house.take().unwrap();
    let [mut oldest, mut middle] = [house.wait("a"), house.wait("a")];
    let mut newest = house.wait("a");
    let refusal = seat(&mut oldest).expect("refused").err().expect("refused");
    assert_eq!((refusal.kind, refusal.retry_after.is_some()), (Kind::Overloaded, true));
    assert!(house.metric("admission_refused_total{reason=\"requests\"} 1"));
    drop(first);
    let seat = admitted(&mut newest).expect("its turn");
    drop(seat);
    assert!(admitted(&mut middle).is_some());
}

#[tokio::test]
async fn a_client_that_floods_the_house_shuts_nobody_out() {
    let house = house(1, 8);
    let first = house.take().unwrap();
    let mut modest = house.wait("modest");
    let mut flood: Vec<_> = (0..100).map(|_| house.wait("greedy")).collect();
    assert!(seat(&mut modest).is_none(), "it was the oldest, and waits");
    let refused = flood.iter_mut().filter_map(seat).filter(Result::is_err).count();
    assert_eq!(refused, 100 - 7);
    // The seat goes round: the next one is the modest client's.
    drop(first);
    let seat = admitted(&mut modest).expect("its turn");
    let mut modest = house.wait("modest");
    drop(seat);
    let seat = admitted(&mut flood[99]).expect("the newest of the others");
    drop(seat);
    assert!(admitted(&mut modest).is_some());
}

#[tokio::test]
async fn who_hangs_up_leaves_at_once_and_takes_no_seat_along() {
    let house = house(1, 10);
    let first = house.take().unwrap();
    let (mut older, newer) = (house.wait("a"), house.wait("b"));
    drop(newer);
    assert!(house.metric("admission_waiting 1") && house.metric("admission_waits_total{outcome=\"left\"} 1"));
    let newer = house.wait("b");
    drop(first);
    let third = house.wait("c");
    // One of them has the seat and has not noticed.
    drop((newer, third));
    assert!(admitted(&mut older).is_some());
    assert!(house.take().is_some());
}

#[tokio::test]
async fn nobody_waits_where_nobody_may() {
    for (waiting, wait) in [(0, Duration::from_secs(1)), (1, Duration::ZERO)] {
        let mut house = house(1, waiting);
        house.limits.wait = wait;
        let _first = house.take().unwrap();
        let told: Vec<_> = (0..4)
            .map(|_| {
                let mut entering: Entering<'_> =
                    Box::pin(async { house.admission.wait(&"a".into(), &house.limits).await });
                seat(&mut entering).expect("at once").err().expect("refused").retry_after.unwrap().as_secs()
            })
            .collect();
        assert_eq!(told, [1, 2, 3, 1], "not all at the same time");
    }
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let mut house = house(1, 10);
    house.limits.wait = Duration::from_millis(1);
    let _first = house.take().unwrap();
    let refused = house.admission.wait(&"a".into(), &house.limits).await.err().expect("refused");
    assert_eq!(refused.kind, Kind::Overloaded);
    assert!(house.metric("admission_refused_total{reason=\"wait\"} 1") && house.metric("admission_waiting 0"));
}

#[tokio::test]
async fn fewer_seats_end_nothing_that_is_under_way() {
    let mut house = house(3, 10);
    let mut taken: Vec<_> = (0..3).map(|_| house.take().unwrap()).collect();
    house.limits.requests = 1;
    let house = house;
    let mut waiting = house.wait("a");
    taken.truncate(1);
    assert!(seat(&mut waiting).is_none(), "one is under way still");
    drop(taken);
    assert!(admitted(&mut waiting).is_some());
    assert!(house.take().is_some() && house.admission.taken.load(Ordering::SeqCst) == 0);
}

/// Threads that come and go; in the end every seat is free, and nobody was forgotten.
#[test]
fn no_seat_is_lost_between_threads() {
    let house = house(3, 1000);
    let most = AtomicUsize::new(0);
    let under_way = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (house, most, under_way) = (&house, &most, &under_way);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client: Arc<str> = format!("{}", thread % 2).into();
                runtime.block_on(async {
                    let visit = async |at: u32| {
                        let seat = match house.take() {
                            Some(seat) => seat,
                            None if at.is_multiple_of(5) => {
                                // Hangs up after a while.
                                let entering = house.admission.wait(&client, &house.limits);
                                return tokio::select! { biased; () = tokio::task::yield_now() => (), _ = entering => () };
                            }
                            None => house.admission.wait(&client, &house.limits).await.unwrap(),
                        };
                        let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        drop(seat);
                    };
                    for round in 0..300 {
                        tokio::join!(visit(round), visit(round + 1), visit(round + 2), visit(round + 3));
                    }
                });
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!(house.admission.taken.load(Ordering::SeqCst), 0);
    assert_eq!(house.admission.waiting.load(Ordering::SeqCst), 0);
}

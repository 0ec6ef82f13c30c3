//! Who waits at a gate, for how long, and who is told to come back later.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use http::HeaderMap;

use super::*;
use crate::account::Alias;
use crate::clock::Timestamp;
use crate::config::Config;

const MAIL: &str = "/v1.0/me/messages";
const FILES: &str = "/v1.0/me/drive/root";

struct Rig {
    gates: Gates,
    clock: Clock,
    metrics: Metrics,
}

fn rig(throttling: &str) -> Rig {
    let text = format!(
        r#"
        [providers.entra]
        tenant = "contoso.com"
        client_id = "1"
        [upstreams.graph]
        {throttling}
        [upstreams.other]
        url = "https://api.example.com"
        scopes = ["x"]
        "#
    );
    let config = Config::from_text(Some((Path::new("test.toml"), &text)), &BTreeMap::new(), &[]).unwrap().config;
    let clock = Clock::manual(Timestamp::default());
    let metrics = Metrics::new();
    Rig {
        gates: Gates::new(config.upstreams.values().map(|config| (config, None)), None, &clock, &metrics),
        clock,
        metrics,
    }
}

type Entering<'a> = Pin<Box<dyn Future<Output = Result<Option<Place>, Refusal>> + 'a>>;

impl Rig {
    fn patience(&self, headers: &[(&'static str, &'static str)]) -> Patience {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, http::HeaderValue::from_static(value));
        }
        Patience::new(&map, self.clock.moment(), Duration::from_secs(10), &self.clock)
    }

    fn entering<'a>(&'a self, who: &'a str, path: &'a str) -> Entering<'a> {
        Box::pin(async move {
            let subject = Subject::User(Alias::new(who).unwrap());
            self.gates.enter(0, &subject, path, &mut self.patience(&[])).await
        })
    }

    /// Of one that does not have to wait.
    fn enter(&self, who: &str, path: &str) -> Result<Place, Refusal> {
        poll(&mut self.entering(who, path)).expect("nothing to wait for").map(Option::unwrap)
    }

    fn census(&self) -> (usize, usize, usize) {
        self.gates.0[0].house.as_ref().unwrap().census()
    }

    fn says(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|said| said == format!("bearerd_{line}"))
    }
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn four_at_a_time_for_a_mailbox_and_first_come_first_served() {
    let rig = rig("");
    let mut inside: Vec<_> = (0..4).map(|_| rig.enter("alice", MAIL).unwrap()).collect();
    let mut waiting: Vec<_> = (0..6).map(|_| rig.entering("alice", MAIL)).collect();
    assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
    assert!(rig.says("gate_waiting{upstream=\"graph\",workload=\"outlook\"} 6"));
    // Neither another account nor another mailbox nor another workload is held up.
    for (who, path) in [
        ("bob", MAIL),
        ("alice", "/v1.0/users/shared@contoso.com/messages"),
        ("alice", FILES),
        ("alice", "/v1.0/me"),
        ("alice", "/v1.0/$batch"),
        ("alice", "/v1.0/me/onenote/pages"),
    ] {
        assert!(rig.enter(who, path).is_ok(), "{who} {path}");
    }
    for first in 0..6 {
        inside.remove(0);
        for (at, waiting) in waiting.iter_mut().enumerate() {
            match poll(waiting) {
                Some(place) if at == 0 => inside.push(place.unwrap().unwrap()),
                Some(_) => panic!("{at} overtook {first}"),
                None => assert!(at > 0, "{first}"),
            }
        }
        drop(waiting.remove(0));
        assert_eq!(rig.census(), (1, 0, 4 + 5 - first));
    }
    assert!(rig.says("gate_waiting{upstream=\"graph\",workload=\"outlook\"} 0"));
    drop((waiting, inside));
    assert_eq!(rig.census(), (0, 0, 0), "nobody is there, and nothing is left of them");
}

#[tokio::test]
async fn who_hangs_up_leaves_the_queue() {
    let rig = rig("");
    let inside: Vec<_> = (0..4).map(|_| rig.enter("alice", MAIL).unwrap()).collect();
    let (mut gone, mut stays) = (rig.entering("alice", MAIL), rig.entering("alice", MAIL));
    assert!(poll(&mut gone).is_none() && poll(&mut stays).is_none());
    drop(gone);
    assert_eq!(rig.census(), (1, 0, 5));
    drop(inside);
    assert!(poll(&mut stays).is_some());
    assert_eq!(rig.census(), (0, 0, 0));
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let rig = rig("throttling = { mailbox_concurrent = 1, queue = 2 }");
    let inside = rig.enter("alice", MAIL).unwrap();
    let mut waiting = [rig.entering("alice", MAIL), rig.entering("alice", MAIL)];
    assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
    let refused = rig.enter("alice", MAIL).err().unwrap();
    assert_eq!((refused.kind, refused.retry_after), (Kind::Throttled, Some(Duration::from_secs(1))));
    assert!(refused.message.contains("outlook"), "{}", refused.message);
    assert!(rig.says("gate_refused_total{upstream=\"graph\",workload=\"outlook\"} 1"));
    assert_eq!(rig.census(), (1, 0, 3));
    drop((waiting, inside));
    assert_eq!(rig.census(), (0, 0, 0));
}

#[tokio::test]
async fn a_pause_is_for_one_account_and_workload() {
    let rig = rig("");
    let throttled = rig.enter("alice", MAIL).unwrap();
    assert_eq!(throttled.pause_left(), None);
    throttled.throttled(Duration::from_secs(30));
    assert!(rig.says("gate_pauses_total{upstream=\"graph\",workload=\"outlook\"} 1"));
    throttled.throttled(Duration::from_secs(20));
    assert_eq!(throttled.pause_left(), Some(Duration::from_secs(30)), "the longer one wins");
    throttled.throttled(Duration::from_secs(40));
    drop(throttled);
    assert_eq!(rig.census(), (1, 1, 0));
    rig.clock.advance(Duration::from_millis(29_500));
    let refused = rig.enter("alice", MAIL).err().unwrap();
    assert_eq!((refused.kind, refused.retry_after), (Kind::Throttled, Some(Duration::from_millis(10_500))));
    assert!(refused.message.contains("outlook"), "{}", refused.message);
    for (who, path) in [("bob", MAIL), ("alice", FILES), ("alice", "/v1.0/me/onenote/pages")] {
        assert!(rig.enter(who, path).is_ok(), "{who} {path}");
    }
    // What is left fits into the patience.
    rig.clock.advance(Duration::from_secs(1));
    assert!(poll(&mut rig.entering("alice", MAIL)).is_none());
    let subject = Subject::User(Alias::new("alice").unwrap());
    let mut off = rig.patience(&[("bearerd-retry", "off")]);
    let mut entering = Box::pin(rig.gates.enter(0, &subject, MAIL, &mut off));
    assert!(poll(&mut entering).is_some_and(|place| place.is_ok()), "it does not heed pauses");
    drop(entering);
    rig.clock.advance(Duration::from_millis(9_500));
    assert!(rig.enter("alice", MAIL).is_ok());
    assert_eq!(rig.census(), (0, 0, 0));
    assert!(rig.says("gate_pauses_total{upstream=\"graph\",workload=\"outlook\"} 1"), "one pause, three times as long");
}

#[tokio::test]
async fn a_workload_without_a_limit_pauses_too_and_waits_in_a_bounded_queue() {
    let rig = rig("throttling = { queue = 3 }");
    let many: Vec<_> = (0..100).map(|_| rig.enter("alice", FILES).unwrap()).collect();
    assert_eq!(rig.census(), (0, 0, 0), "nothing to count");
    many[0].throttled(Duration::from_millis(60));
    let mut waiting: Vec<_> = (0..3).map(|_| rig.entering("alice", FILES)).collect();
    assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
    assert!(rig.says("gate_waiting{upstream=\"graph\",workload=\"files\"} 3"));
    let refused = rig.enter("alice", FILES).err().unwrap();
    assert_eq!((refused.kind, refused.retry_after), (Kind::Throttled, Some(Duration::from_secs(1))));
    drop(many);
    rig.clock.advance(Duration::from_millis(60));
    for waiting in waiting {
        assert!(waiting.await.is_ok());
    }
    assert_eq!(rig.census(), (0, 0, 0));
}

#[tokio::test]
async fn many_pauses_are_forgotten_when_they_end() {
    let rig = rig("");
    let accounts: Vec<_> = (0..1000).map(|number| format!("user{number}")).collect();
    for (seconds, account) in (1..).zip(&accounts) {
        rig.enter(account, MAIL).unwrap().throttled(Duration::from_secs(seconds));
    }
    assert_eq!(rig.census(), (1000, 1000, 0));
    rig.clock.advance(Duration::from_secs(400));
    assert!(rig.enter("bob", MAIL).is_ok());
    assert_eq!(rig.census(), (600, 600, 0));
    rig.clock.advance(Duration::from_secs(600));
    assert!(rig.enter("bob", MAIL).is_ok());
    assert_eq!(rig.census(), (0, 0, 0));
}

#[tokio::test]
async fn pauses_are_bounded_and_those_that_end_last_are_kept() {
    let rig = rig("");
    rig.enter("alice", MAIL).unwrap().throttled(Duration::from_secs(3600));
    for number in 0..20_000 {
        rig.enter("alice", &format!("/v1.0/users/u{number}/messages")).unwrap().throttled(Duration::from_secs(60));
    }
    assert_eq!(rig.census(), (10_000, 10_000, 0));
    assert!(rig.enter("alice", MAIL).is_err_and(|refusal| refusal.kind == Kind::Throttled));
}

#[tokio::test]
async fn a_wait_of_nothing_is_no_pause() {
    let rig = rig("");
    rig.enter("alice", MAIL).unwrap().throttled(Duration::ZERO);
    assert_eq!(rig.census(), (0, 0, 0));
}

#[tokio::test]
async fn me_and_my_own_name_are_one_mailbox() {
    let rig = rig("throttling = { mailbox_concurrent = 1, queue = 0 }");
    let _inside = rig.enter("alice@contoso.com", MAIL).unwrap();
    assert!(rig.enter("alice@contoso.com", "/v1.0/users/alice@contoso.com/events").is_err());
    assert!(rig.enter("alice@contoso.com", "/v1.0/users/bob@contoso.com/events").is_ok());
}

#[tokio::test]
async fn no_limit_and_no_gate() {
    let free = rig("throttling = { mailbox_concurrent = 0 }");
    let _many: Vec<_> = (0..100).map(|_| free.enter("alice", MAIL).unwrap()).collect();
    assert_eq!(free.census(), (0, 0, 0));
    let other = free.gates.enter(1, &Subject::App, MAIL, &mut free.patience(&[])).await;
    assert!(other.is_ok_and(|place| place.is_none()), "not Graph");
}

//! The steps of a request for an account with a fresh token, each alone: what bearerd itself costs, without sockets, TLS and HTTP.
//!
//! A step that would wait for anything fails here: `at_once` polls it a single time.

mod fixture;

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bearerd::app::Core;
use bearerd::clock::Clock;
use bearerd::config::UpstreamKind;
use bearerd::metrics::{Origin, RequestSample};
use bearerd::proxy::caller::{Clients, Presented};
use bearerd::proxy::outbound::{Destination, OutboundHead};
use bearerd::proxy::policy::Asked;
use bearerd::proxy::route::Routes;
use bearerd::proxy::verdict::{Facts, Outcome, Renewed, decide};
use bearerd::proxy::{Peer, PeerAddress, canonical, reply};
use bearerd::tasks::Tasks;
use bearerd::vault::Subject;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, StatusCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TARGET: &str = "/v1.0/me/mailFolders/inbox/messages?$top=50&$select=subject";
const UPSTREAM: &str = "https://graph.microsoft.com";

fn steps(criterion: &mut Criterion) {
    let store = tempfile::tempdir().expect("a directory");
    let config = fixture::config(store.path(), UPSTREAM);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let tasks = Tasks::on(runtime.handle().clone());
    let core = runtime.block_on(async {
        let core = Core::open(&config, Clock::system(), tasks.clone()).await.expect("the store opens");
        fixture::sign_in_everyone(&core).await;
        core
    });
    let upstream = core.vault.upstream("graph").expect("it is configured");
    let lease =
        runtime.block_on(core.vault.lease(&Subject::User(fixture::alias(7)), upstream)).expect("the token lives");

    let clients = Arc::new(Clients::new(&config.clients, &core.clock, tasks).expect("they are well-formed"));
    let peer = Peer { address: PeerAddress::Tcp(([127, 0, 0, 1], 40_000).into()), secure: false, names: Vec::new() };
    let mut head = Request::get(TARGET).body(()).expect("it is a request").into_parts().0;
    head.headers = fixture::request_headers(7);
    let presented = Presented::read(&head.headers).expect("it is well-formed");
    let caller = at_once(clients.identify(&presented, &peer)).expect("the key is right");
    let routes = Routes { names: vec!["graph".into()], hosts: vec!["graph.microsoft.com".into()], root: Some(0) };
    let destination = Destination {
        scheme: Scheme::HTTPS,
        authority: Authority::from_static("graph.microsoft.com"),
        host: HeaderValue::from_static("graph.microsoft.com"),
    };
    let answer = fixture::answer_headers();

    let mut group = criterion.benchmark_group("hot path");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(50);
    group.bench_function("identify the client", |bencher| {
        bencher.iter(|| {
            let presented = Presented::read(black_box(&head.headers)).expect("it is well-formed");
            at_once(clients.identify(&presented, &peer)).expect("the key is right")
        });
    });
    group.bench_function("select the account", |bencher| {
        bencher.iter(|| caller.subject([None, black_box(presented.user.as_deref()), None]).expect("it may act for it"));
    });
    group.bench_function("route", |bencher| bencher.iter(|| routes.find(black_box(TARGET), Some("localhost"))));
    group.bench_function("judge by the policy", |bencher| {
        bencher.iter(|| {
            let path = canonical::canonical(black_box("/v1.0/me/mailFolders/inbox/messages")).expect("it is clear");
            let (headers, kind) = (&head.headers, UpstreamKind::Graph);
            let asked = Asked { method: &Method::GET, path: &path.text, doubt: path.doubt, headers, kind };
            caller.client.policy.permit(&asked).expect("no rule denies it")
        });
    });
    group.bench_function("lease a fresh token", |bencher| {
        let subject = Subject::User(fixture::alias(7));
        bencher.iter(|| at_once(core.vault.lease(black_box(&subject), upstream)).expect("the token lives"));
    });
    group.bench_function("make the outgoing head", |bencher| {
        bencher.iter_batched(
            || head.clone(),
            |head| {
                let outbound = OutboundHead::new(head, TARGET, "our-id", &destination).expect("it is well-formed");
                outbound.attempt(&lease.authorization)
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decide on the answer", |bencher| {
        let facts = Facts {
            outcome: Outcome::Answer { status: 200, retry_after: None, challenged: false },
            safe: true,
            can_repeat: true,
            may_retry: true,
            renewed: Renewed::No,
            waits: 0,
            left: Some(Duration::from_secs(10)),
            failures: 0,
        };
        bencher.iter(|| decide(black_box(&facts)));
    });
    group.bench_function("filter the answer's head", |bencher| {
        bencher.iter_batched_ref(|| answer.clone(), |headers| reply::filter(headers, false), BatchSize::SmallInput);
    });
    group.bench_function("count the request", |bencher| {
        let (client, upstream) = ("payroll".into(), "graph".into());
        let sample = RequestSample {
            client: &client,
            upstream: &upstream,
            method: &Method::GET,
            status: StatusCode::OK,
            origin: Origin::Upstream,
            took: Duration::from_millis(20),
            upstream_took: Some(Duration::from_millis(19)),
        };
        bencher.iter(|| core.metrics.request(black_box(&sample)));
    });
    group.finish();
}

/// What a future yields that has no reason to wait.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the hot path waits for something"),
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);

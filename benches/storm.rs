//! What a storm of refreshes costs those who have a living token: ten thousand accounts in use whose tokens expire within a minute,
//! and meanwhile requests of a hundred others through the proxy.
//!
//! The simulated Entra ID, the upstream and the client share the machine with bearerd; quiet and storm are measured in the same run,
//! and their ratio is what counts. `cargo bench --bench storm -- [ACCOUNTS [SECONDS]]`: within how many seconds they expire.

mod fixture;
#[path = "fixture/kilobyte.rs"]
mod kilobyte;
#[path = "fixture/upstream.rs"]
mod upstream;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bearerd::account::{AccountKey, Alias};
use bearerd::app::{App, Core};
use bearerd::clock::{Clock, Moment};
use bearerd::config::{AppCredential, Config, Listen, ProviderKind};
use bearerd::sandbox::{Entra, EntraOptions, Grant, User};
use bearerd::store::{AccessToken, SignIn, scope_set};
use bearerd::tasks::{Tasks, spawn_here};
use bearerd::vault::Subject;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 8;
/// Between two requests of a connection: the load is that of applications and doesn't grow when answers come faster.
const PAUSE: Duration = Duration::from_millis(10);
/// What the 99th percentile of those who need no refresh may grow by.
const P99_GOAL: f64 = 2.0;
const SECOND: Duration = Duration::from_secs(1);

/// How large the storm is.
#[derive(Clone, Copy)]
struct Size {
    accounts: usize,
    /// The tokens expire within this time.
    within: Duration,
    /// From now until the first of them does.
    lead: Duration,
    quiet: Duration,
}

fn main() {
    let size = Size::asked();
    let clock = Clock::system();
    let threads = |name| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(name).enable_all().build().expect("a runtime")
    };
    let (slow, provider) = (threads("slow"), threads("provider"));
    let options = EntraOptions { users: User::numbered(size.accounts, "contoso.example"), ..EntraOptions::default() };
    let entra = Entra::start(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        options,
        clock.clone(),
        Tasks::on(provider.handle().clone()),
    );
    let entra = provider.block_on(async { entra.expect("a port") });
    let store = tempfile::tempdir().expect("a directory");
    let config =
        configuration(&fixture::config(store.path(), &format!("http://{}", upstream::start(kilobyte::answer))), &entra);

    let started = clock.moment();
    let (app, grants) = slow.block_on(async {
        let tasks = Tasks::on(slow.handle().clone());
        let app = App::start(&config, clock.clone(), tasks).await.expect("it starts");
        fixture::sign_in_everyone(&app.core()).await;
        let grants = sign_in(&app.core(), &config, &entra, size).await;
        (app, grants)
    });
    let [Listen::Tcp(proxy)] = *app.data_addresses() else { panic!("one TCP address was configured") };
    println!(
        "{} accounts are signed in and in use after {:.1} s",
        size.accounts,
        clock.moment().since(started).as_secs_f64()
    );

    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let load = |end: Arc<AtomicBool>| client.block_on(requests(proxy, end, &clock));
    load(after(size.quiet / 4));
    let quiet = load(after(size.quiet));
    // Nothing ages before three fifths of its life are over.
    assert!(clock.moment().since(started) < size.lead * 3 / 5, "the storm has begun already: ask for fewer accounts");
    assert_eq!(refreshed(&app.core()), 0);

    let end = started.plus(size.lead + size.within);
    while refreshed(&app.core()) == 0 && clock.moment() < end {
        std::thread::sleep(SECOND / 20);
    }
    let over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (core, over, clock) = (app.core(), Arc::clone(&over), clock.clone());
        move || {
            let seen = await_end(&core, &clock, size, end);
            over.store(true, Ordering::Relaxed);
            seen
        }
    });
    let stormy = load(over);
    let (took, ahead) = watcher.join().expect("it watches to the end");
    // Whoever was not reached in time is refreshed now, because somebody asks.
    slow.block_on(use_all(&app.core(), &grants));
    let calls = entra.token_requests();
    let presented: BTreeSet<u64> = calls.iter().filter_map(|call| call.refresh_token_id).collect();
    assert_eq!((calls.len(), presented.len()), (size.accounts, size.accounts), "one call for each account");
    for grant in &grants {
        let token = entra.refresh_token(&grant.refresh_token).expect("it was issued");
        assert_eq!((token.presented, token.redeemed), (1, 1), "{}: 1.00 calls", grant.user);
    }

    println!("                requests   median, us      p99, us");
    for (name, latencies) in [("quiet", &quiet), ("storm", &stormy)] {
        println!("{name:>11} {:>12} {:>12.0} {:>12.0}", latencies.len(), micros(latencies, 50), micros(latencies, 99));
    }
    let ratio = |percent| micros(&stormy, percent) / micros(&quiet, percent);
    println!("{:>11} {:>25.2} {:>12.2}", "ratio", ratio(50), ratio(99));
    let reached = if ratio(99) <= P99_GOAL { "reached" } else { "MISSED" };
    println!("{:>11} {:>38.2} {reached}", "goal", P99_GOAL);
    println!(
        "{ahead} of {} refreshed ahead of need, the storm took {:.1} s; provider calls per account: 1.00 (goal: 1.00, reached)",
        size.accounts,
        took.as_secs_f64()
    );
    slow.block_on(app.drain());
}

impl Size {
    fn asked() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        // `cargo bench` says `--bench`; everything else wants to know that it runs.
        let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
        let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<u32>().ok());
        let (accounts, within, quiet) = if measures { (10_000, 60, 10 * SECOND) } else { (150, 2, SECOND / 4) };
        let accounts = numbers.next().unwrap_or(accounts);
        let within = SECOND * numbers.next().unwrap_or(within);
        // Time to sign them in, before the first token ages.
        let lead = SECOND * accounts / 70 + quiet * 3 + 2 * SECOND;
        Self { accounts: accounts as usize, within, lead, quiet }
    }
}

/// With the simulated provider instead of the one that nobody asks.
fn configuration(config: &Config, entra: &Entra) -> Config {
    let mut config = config.clone();
    let provider = config.providers.get_mut("entra").expect("it is configured");
    let options = entra.options();
    provider.kind = ProviderKind::Entra { authority: entra.origin(), tenant: options.tenant.clone() };
    provider.client_id.clone_from(&options.client_id);
    let secret = options.client_secret.clone().expect("a confidential client");
    provider.credentials = vec![AppCredential::Secret { secret: secret.into(), expires: None }];
    config
}

/// Signs everybody in, with tokens that expire one after the other, and uses them.
async fn sign_in(core: &Core, config: &Config, entra: &Entra, size: Size) -> Vec<Grant> {
    let scopes = &config.upstreams["graph"].scopes;
    let begin = core.clock.now();
    let count = u32::try_from(size.accounts).expect("a few");
    let mut grants = Vec::new();
    for (number, user) in (0..count).zip(&entra.options().users) {
        let grant = entra.grant(&user.alias, bearerd::sandbox::entra::DEFAULT_SCOPE).expect("a user");
        let sign_in = SignIn {
            key: AccountKey { provider: "entra".to_owned(), tenant: grant.tenant.clone(), subject: grant.oid.clone() },
            alias: alias(&grant),
            refresh_token: grant.refresh_token.clone().into(),
            access: Some(AccessToken {
                scope_set: scope_set(scopes),
                token: grant.access_token.clone().into(),
                expires: begin.plus(size.lead + size.within * number / count),
                obtained: begin,
                refresh_after: None,
                claims: None,
            }),
            scopes: scopes.clone(),
            username: None,
        };
        core.store.sign_in(sign_in).await.expect("the store takes it");
        grants.push(grant);
    }
    use_all(core, &grants).await;
    grants
}

async fn use_all(core: &Core, grants: &[Grant]) {
    let upstream = core.vault.upstream("graph").expect("it is configured");
    for grant in grants {
        core.vault.lease(&Subject::User(alias(grant)), upstream).await.expect("a lease");
    }
}

fn alias(grant: &Grant) -> Alias {
    Alias::new(&grant.user).expect("it is well-formed")
}

/// Waits until everybody has a new token or the last old one has expired. How long that took, and how many were refreshed.
fn await_end(core: &Core, clock: &Clock, size: Size, end: Moment) -> (Duration, usize) {
    let began = clock.moment();
    loop {
        std::thread::sleep(SECOND / 10);
        let (now, count) = (clock.moment(), refreshed(core));
        if count == size.accounts || now > end {
            return (now.since(began), count);
        }
    }
}

/// How many refreshes have succeeded.
fn refreshed(core: &Core) -> usize {
    let text = core.metrics.render();
    let line =
        text.lines().find_map(|line| line.strip_prefix("bearerd_refresh_total{provider=\"entra\",outcome=\"ok\"} "));
    line.map_or(0, |count| count.parse().expect("a count"))
}

/// A flag that another thread raises after this time.
fn after(time: Duration) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    std::thread::spawn(move || {
        std::thread::sleep(time);
        raised.store(true, Ordering::Relaxed);
    });
    flag
}

/// Requests of the hundred accounts whose tokens live, until `end`: how long each took, sorted.
async fn requests(address: SocketAddr, end: Arc<AtomicBool>, clock: &Clock) -> Vec<Duration> {
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|number| spawn_here(connection(address, number, Arc::clone(&end), clock.clone())))
        .collect();
    let mut latencies = Vec::new();
    for connection in connections {
        latencies.extend(connection.await.expect("a connection serves to the end"));
    }
    latencies.sort_unstable();
    latencies
}

async fn connection(address: SocketAddr, number: usize, end: Arc<AtomicBool>, clock: Clock) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("it is TCP");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = spawn_here(connection);
    let mut latencies = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let mut request = Request::get("/v1.0/me/messages?$top=1").body(Empty::<Bytes>::new()).expect("a request");
        *request.headers_mut() = fixture::request_headers(number + CONNECTIONS * latencies.len());
        sender.ready().await.expect("the connection stays");
        let sent = clock.moment();
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), http::StatusCode::OK);
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes().len(), kilobyte::BODY.len());
        latencies.push(clock.moment().since(sent));
        tokio::time::sleep(PAUSE).await;
    }
    drop(sender);
    drop(connection.await);
    latencies
}

/// Of sorted latencies.
fn micros(latencies: &[Duration], percent: usize) -> f64 {
    latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)].as_secs_f64() * 1e6
}

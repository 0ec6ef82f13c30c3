//! The whole proxy through real sockets: a client, bearerd with one worker, an upstream, all in this process.
//!
//! Each figure stands beside the same request sent to the upstream directly, taken in the same run, in turns: only the ratio means
//! something on another machine. The CPU time is that of the worker's thread alone.

mod fixture;
#[path = "fixture/upstream.rs"]
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use bearerd::app::App;
use bearerd::clock::Clock;
use bearerd::config::Listen;
use bearerd::tasks::{Tasks, spawn_here};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: [usize; 2] = [1, 64];

/// One run against one address.
struct Run {
    /// Sorted.
    latencies: Vec<Duration>,
    took: Duration,
    /// Of the worker's thread.
    cpu: Duration,
}

fn main() {
    // `cargo bench` says `--bench`; everything else, `cargo bench -- --test` too, wants to know that it runs.
    let arguments: Vec<String> = std::env::args().collect();
    let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
    let (rounds, time) = if measures { (7, Duration::from_secs(1)) } else { (1, Duration::from_millis(20)) };

    let clock = Clock::system();
    let slow = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let store = tempfile::tempdir().expect("a directory");
    let upstream = upstream::start();
    let config = fixture::config(store.path(), &format!("http://{upstream}"));
    let app = slow.block_on(async {
        let tasks = Tasks::on(slow.handle().clone());
        let app = App::start(&config, clock.clone(), tasks).await.expect("it starts");
        fixture::sign_in_everyone(app.core()).await;
        app
    });
    let [Listen::Tcp(proxy)] = *app.data_addresses() else { panic!("one TCP address was configured") };
    let client = current_thread();
    let run = |address, connections, time| client.block_on(load(address, connections, time, &clock));

    println!("                 p50, us              requests a second        the worker's CPU");
    println!("connections   direct  proxied     direct  proxied    ratio     us a request");
    for connections in CONNECTIONS {
        run(proxy, connections, time / 4);
        let rounds = (0..rounds).map(|_| (run(upstream, connections, time), run(proxy, connections, time)));
        let rounds: Vec<(Run, Run)> = rounds.collect();
        let median = |figure: fn(&Run, &Run) -> f64| median(rounds.iter().map(|(d, p)| figure(d, p)).collect());
        println!(
            "{connections:>11} {:>8.1} {:>8.1} {:>10.0} {:>8.0} {:>8.2} {:>16.1}",
            median(|direct, _| direct.p50() * 1e6),
            median(|_, proxied| proxied.p50() * 1e6),
            median(|direct, _| direct.rate()),
            median(|_, proxied| proxied.rate()),
            median(|direct, proxied| proxied.rate() / direct.rate()),
            median(|_, proxied| proxied.cpu.as_secs_f64() * 1e6 / proxied.count()),
        );
    }
    slow.block_on(app.drain());
}

/// As many requests as `connections` get through in `time`, one after the other on each.
async fn load(address: SocketAddr, connections: usize, time: Duration, clock: &Clock) -> Run {
    let (started, cpu) = (clock.moment(), worker_cpu());
    let connections: Vec<_> = (0..connections)
        .map(|number| spawn_here(connection(address, number, started.plus(time), clock.clone())))
        .collect();
    let mut latencies = Vec::new();
    for connection in connections {
        latencies.extend(connection.await.expect("a connection serves to the end"));
    }
    let (took, cpu) = (clock.moment().since(started), worker_cpu().saturating_sub(cpu));
    latencies.sort_unstable();
    Run { latencies, took, cpu }
}

async fn connection(address: SocketAddr, number: usize, end: bearerd::clock::Moment, clock: Clock) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("it is TCP");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = spawn_here(connection);
    let mut latencies = Vec::new();
    while latencies.is_empty() || clock.moment() < end {
        let mut request = Request::get("/v1.0/me/messages?$top=1").body(Empty::<Bytes>::new()).expect("a request");
        *request.headers_mut() = fixture::request_headers(number + latencies.len());
        let sent = clock.moment();
        sender.ready().await.expect("the connection stays");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), http::StatusCode::OK);
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes().len(), upstream::BODY.len());
        latencies.push(clock.moment().since(sent));
    }
    drop(sender);
    drop(connection.await);
    latencies
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What Linux has counted for the threads of the data path; zero elsewhere.
fn worker_cpu() -> Duration {
    let nanos = |thread: std::fs::DirEntry| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        name.starts_with("worker-").then(|| times.split(' ').next()?.parse::<u64>().ok())?
    };
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    Duration::from_nanos(threads.filter_map(nanos).sum())
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
    fn count(&self) -> f64 {
        self.latencies.len() as f64
    }

    fn rate(&self) -> f64 {
        self.count() / self.took.as_secs_f64()
    }

    fn p50(&self) -> f64 {
        self.latencies[self.latencies.len() / 2].as_secs_f64()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

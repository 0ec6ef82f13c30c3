//! The whole proxy through real sockets: a client, bearerd with one worker, an upstream, all in this process.
//!
//! Each figure stands beside the same request sent to the upstream directly, taken in the same run, in turns: only the ratio means
//! something on another machine. The CPU time is that of the worker's thread alone.

mod fixture;
#[path = "fixture/kilobyte.rs"]
mod kilobyte;
#[path = "fixture/load.rs"]
mod load;
#[path = "fixture/upstream.rs"]
mod upstream;

use std::time::Duration;

use bearerd::app::App;
use bearerd::clock::Clock;
use bearerd::config::Listen;
use bearerd::tasks::Tasks;

use crate::load::{Run, current_thread, load, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: [usize; 2] = [1, 64];

fn main() {
    // `cargo bench` says `--bench`; everything else, `cargo bench -- --test` too, wants to know that it runs.
    let arguments: Vec<String> = std::env::args().collect();
    let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
    let (rounds, time) = if measures { (7, Duration::from_secs(1)) } else { (1, Duration::from_millis(20)) };

    let clock = Clock::system();
    let slow = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let store = tempfile::tempdir().expect("a directory");
    let upstream = upstream::start(kilobyte::answer);
    let config = fixture::config(store.path(), &format!("http://{upstream}"));
    let app = slow.block_on(async {
        let tasks = Tasks::on(slow.handle().clone());
        let app = App::start(&config, clock.clone(), tasks).await.expect("it starts");
        fixture::sign_in_everyone(&app.core()).await;
        app
    });
    let [Listen::Tcp(proxy)] = *app.data_addresses() else { panic!("one TCP address was configured") };
    let client = current_thread();
    let fits = |body: &[u8]| body.len() == kilobyte::BODY.len();
    let run = |address, connections, time| {
        client.block_on(load(address, "/v1.0/me/messages?$top=1", fits, connections, time, &clock))
    };

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
            median(|_, proxied| proxied.cpu_each()),
        );
    }
    slow.block_on(app.drain());
}

//! What is measured: the steps, then two proxies with one worker each. Runs under callgrind, which writes down what it counted
//! whenever `callgrind_mark` is entered.
//!
//! Speaks with the other process in lines: `measured NAME` after the two marks around a step, `listens ADDRESS NAME` for each
//! proxy. Then each `mark` from there is answered by `marked`, until `end`.

use std::hint::black_box;
use std::io::{BufRead as _, Write as _};
use std::path::Path;

use bearerd::app::App;
use bearerd::clock::Clock;
use bearerd::config::{Listen, LogAccess};
use bearerd::tasks::Tasks;
use bearerd::telemetry;
use tokio::runtime::Runtime;

use crate::fixture;
use crate::steps::{self, Measure};

/// The first argument of a process that runs this.
pub const ROLE: &str = "--subject";
/// What callgrind looks for.
pub const MARK: &str = "*callgrind_mark*";
/// One allocation a time, to see that allocations are recognised.
pub const ONE_BOX: &str = "one box";

/// `setting`: how often each step runs, the upstreams' trust anchor, and a name and a URL for each upstream.
pub fn run(setting: &[String]) {
    let [iterations, ca_file, upstreams @ ..] = setting else { panic!("{ROLE} ITERATIONS CA_FILE [NAME URL]...") };
    let mut counted = Counted { iterations: iterations.parse().expect("it is a number") };
    counted.step(ONE_BOX, || Box::new([0_u8; 64]));
    steps::each(&mut counted);

    let ca_pem = std::fs::read_to_string(ca_file).expect("it was written");
    let mut marks = std::io::stdin().lock().lines();
    let slow = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    telemetry::start(&fixture::config(Path::new("."), "http://localhost").log).expect("nothing logs yet");
    for upstream in upstreams.chunks(2) {
        let [name, url] = upstream else { panic!("{upstream:?} is no name and URL") };
        let store = tempfile::tempdir().expect("a directory");
        let app = start(&slow, store.path(), url, &ca_pem);
        let [Listen::Tcp(address)] = *app.data_addresses() else { panic!("one TCP address was configured") };
        say(&format!("listens {address} {name}"));
        while marks.next().expect("the client lives").expect("it speaks UTF-8") == "mark" {
            callgrind_mark();
            say("marked");
        }
        slow.block_on(app.drain());
    }
}

/// As `bearerd serve` does it: with the access log, which goes to standard error, and that to a file.
fn start(slow: &Runtime, store: &Path, url: &str, ca_pem: &str) -> App {
    let mut config = fixture::config(store, url);
    config.log.access = LogAccess::Path;
    for upstream in config.upstreams.values_mut() {
        upstream.ca_pem = Some(ca_pem.to_owned());
    }
    slow.block_on(async {
        let tasks = Tasks::on(slow.handle().clone());
        let app = App::start(&config, Clock::system(), tasks).await.expect("it starts");
        fixture::sign_in_everyone(&app.core()).await;
        app
    })
}

/// callgrind writes down what it counted since the last mark, and counts from zero.
#[inline(never)]
fn callgrind_mark() {
    black_box(());
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).expect("the client listens");
}

struct Counted {
    iterations: usize,
}

impl Measure for Counted {
    fn step<O>(&mut self, name: &'static str, mut run: impl FnMut() -> O) {
        for _ in 0..self.iterations {
            black_box(run());
        }
        callgrind_mark();
        for _ in 0..self.iterations {
            black_box(run());
        }
        callgrind_mark();
        say(&format!("measured {name}"));
    }

    fn step_on<I, O>(&mut self, name: &'static str, mut make: impl FnMut() -> I, mut run: impl FnMut(I) -> O) {
        for round in ["warm", "counted"] {
            let inputs: Vec<I> = (0..self.iterations).map(|_| make()).collect();
            let mut outputs = Vec::with_capacity(self.iterations);
            if round == "counted" {
                callgrind_mark();
            }
            for input in inputs {
                outputs.push(black_box(run(input)));
            }
            if round == "counted" {
                callgrind_mark();
            }
        }
        say(&format!("measured {name}"));
    }
}

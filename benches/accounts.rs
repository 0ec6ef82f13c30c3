//! What the number of accounts costs: the program itself, on a store of a thousand accounts and on one of a million, side by side.
//!
//! Time from the start of the process to readiness and to the first answer through it (upstream over TLS, certificate verified),
//! resident memory, the look-up of accounts that nobody has used since the start, and what it does when nobody asks.
//!
//! `cargo bench --bench accounts -- [ACCOUNTS [DIRECTORY]]`: a filled store stays in DIRECTORY and is used again; without one it is
//! filled in a temporary directory. A million accounts take 10 GB, and once ten minutes on a quick disk.

#[path = "fixture/child.rs"]
mod child;
#[path = "fixture/client.rs"]
mod client;
#[path = "fixture/tls_upstream.rs"]
mod tls_upstream;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearerd::account::Alias;
use bearerd::app::Core;
use bearerd::audit::{Entry, Event, Who};
use bearerd::clock::Clock;
use bearerd::config::Config;
use bearerd::sandbox::{Entra, EntraOptions};
use bearerd::secret::Secret;
use bearerd::tasks::Tasks;
use bearerd::vault::Import;

use crate::child::{Child, Client};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FEW: usize = 1_000;
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A prime that divides no round number of accounts.
const STRIDE: usize = 618_033_989;
/// Rows under way at a time while a store is filled.
const HANDS: usize = 16;

/// How much is done.
#[derive(Clone, Copy)]
struct Size {
    accounts: usize,
    few: usize,
    starts: usize,
    lookups: usize,
    /// How long nobody asks, to see what is done then.
    idle: Duration,
}

/// What was seen on one store. Times in milliseconds, memory in MiB.
struct Seen {
    ready: f64,
    first: f64,
    resident: f64,
    resident_after: f64,
    cold: Vec<Duration>,
    warm: Vec<Duration>,
    idle_cpu: f64,
    list: f64,
    list_peak: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says `--bench`; everything else wants to know that it runs.
    let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
    let mut plain = arguments.iter().filter(|argument| measures && !argument.starts_with("--"));
    let asked = plain.next().map(|count| count.parse().expect("the number of accounts"));
    let size = if measures {
        let accounts = asked.unwrap_or(20_000);
        Size { accounts, few: FEW, starts: 7, lookups: 10_000, idle: Duration::from_secs(21) }
    } else {
        Size { accounts: 40, few: 20, starts: 1, lookups: 20, idle: Duration::from_millis(10) }
    };
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = plain.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);

    let (upstream, certificate) = tls_upstream::start();
    let provider =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tasks = Tasks::on(provider.handle().clone());
    let entra = Entra::start(any_port, EntraOptions::default(), Clock::system(), tasks);
    let entra = provider.block_on(async { entra.expect("a port") });
    let house = |accounts: usize| {
        House::new(&directory.join(accounts.to_string()), accounts, upstream.port(), &certificate, &entra)
    };
    let (few, many) = (house(size.few), house(size.accounts));
    few.fill();
    many.fill();
    let (few, many) = (few.see(size), many.see(size));
    print(size, &few, &many);
}

/// A store, and the configuration of a program that works on it.
struct House {
    directory: PathBuf,
    accounts: usize,
    text: String,
}

impl House {
    fn new(directory: &Path, accounts: usize, upstream: u16, certificate: &str, entra: &Entra) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        fs::write(directory.join("upstream.pem"), certificate).expect("a file");
        let place = directory.display();
        let text = format!(
            r#"
            server = {{ listen = "127.0.0.1:0", workers = 1 }}
            admin = {{ listen = "127.0.0.1:0" }}
            store = {{ path = "{place}/store", key_file = "{place}/store.key" }}
            providers.entra = {{ kind = "entra", authority = "{}", tenant = "{}", client_id = "{}" }}
            upstreams.graph = {{ url = "https://localhost:{upstream}", provider = "entra", ca_file = "{place}/upstream.pem" }}
            [[clients]]
            name = "payroll"
            key_hash = "{}"
            accounts = ["user*@contoso.com"]
            "#,
            entra.origin(),
            entra.options().tenant,
            entra.options().client_id,
            client::key_hash(),
        );
        fs::write(directory.join("bearerd.toml"), &text).expect("a file");
        Self { directory: directory.to_owned(), accounts, text }
    }

    /// By the way that `accounts import --no-verify` goes, unless it is filled already.
    fn fill(&self) {
        let clock = Clock::system();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let started = clock.moment();
        let config = Config::from_text(Some((&self.directory.join("bearerd.toml"), &self.text)), &BTreeMap::new(), &[]);
        let config = config.expect("it has no mistakes").config;
        runtime.block_on(async {
            let tasks = Tasks::on(runtime.handle().clone());
            let core = Core::open(&config, clock.clone(), tasks.clone()).await.expect("it opens");
            let last = alias(self.accounts - 1);
            if core.store.find(last.as_str()).await.expect("it reads").is_some() {
                return;
            }
            let next = Arc::new(AtomicUsize::new(0));
            let hands = (0..HANDS).map(|_| tasks.spawn(import(core.clone(), Arc::clone(&next), self.accounts - 1)));
            for hand in hands.collect::<Vec<_>>() {
                hand.await.expect("it imports to the end");
            }
            // The last one says that all of them are there.
            import(core, next, self.accounts).await;
            let bytes = fs::metadata(self.directory.join("store/store.db")).expect("it is there").len();
            let took = clock.moment().since(started).as_secs_f64();
            println!("{} accounts are imported after {took:.1} s; {} MB", self.accounts, bytes / 1_000_000);
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    fn see(&self, size: Size) -> Seen {
        let start = || {
            self.forget_pages();
            Child::serve(&self.directory)
        };
        let ready = median((0..size.starts).map(|_| start().until_ready()).collect());
        let first = median((0..size.starts).map(|_| start().until_answered(&alias(0))).collect());

        let child = start();
        child.until_answered(&alias(0));
        let resident = child.resident();
        let idle_cpu = child.cpu();
        std::thread::sleep(size.idle);
        let idle_cpu = child.cpu().saturating_sub(idle_cpu).as_secs_f64() / size.idle.as_secs_f64() * 1e3;

        self.forget_pages();
        let mut client = child.client();
        let lookups = size.lookups.min(self.accounts - 1);
        let mut lookups = || (1..=lookups).map(|turn| self.ask(&mut client, turn)).collect();
        let (cold, warm) = (sorted(lookups()), sorted(lookups()));
        let resident_after = child.resident();
        drop(child);

        let (list, list_peak, lines) = child::run(&self.directory, &["accounts", "list"]);
        assert_eq!(lines, self.accounts + 1, "all of them, and a head");
        Seen { ready, first, resident, resident_after, cold, warm, idle_cpu, list, list_peak }
    }

    /// As an account that lies nowhere near the last one's.
    fn ask(&self, client: &mut Client, turn: usize) -> Duration {
        let alias = alias(turn * STRIDE % self.accounts);
        let (clock, authorization) = (Clock::system(), client::basic(&alias));
        let sent = clock.moment();
        assert_eq!(client.ask("/v1.0/me", &authorization).expect("an answer"), 200, "{alias}");
        clock.moment().since(sent)
    }

    /// What the system has in memory of the store.
    fn forget_pages(&self) {
        let file = File::open(self.directory.join("store/store.db")).expect("it is there");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it is a file");
    }
}

fn alias(number: usize) -> Alias {
    Alias::new(&format!("user{number}@contoso.com")).expect("it is well-formed")
}

/// Takes one row after the other, up to `end`.
async fn import(core: Core, next: Arc<AtomicUsize>, end: usize) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            next.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let row = Import {
            alias: alias(number),
            provider: "entra".into(),
            refresh_token: Secret::new(format!("{number:r<1500}")),
            access_token: Some(Secret::new(format!("{number:x<2048}"))),
            expires_at: Some(core.clock.now().plus(TEN_YEARS)),
            tenant: Some("11111111-2222-3333-4444-555555555555".into()),
            subject: Some(format!("{number:08x}-0000-4000-8000-000000000000")),
            scopes: None,
        };
        core.vault.import(row, false, Entry::new(Event::Import, Who::Cli)).await.expect("the store takes it");
    }
}

fn print(size: Size, few: &Seen, many: &Seen) {
    let count = |accounts: usize| format!("{accounts} accounts");
    println!("{:<44} {:>18} {:>18} {:>8}", "", count(size.few), count(size.accounts), "ratio");
    let row = |what: &str, figure: &dyn Fn(&Seen) -> f64| {
        let (few, many) = (figure(few), figure(many));
        println!("{what:<44} {few:>18.2} {many:>18.2} {:>8.2}", many / few);
    };
    row("start to /readyz 200, ms", &|seen| seen.ready);
    row("start to the first answer over TLS, ms", &|seen| seen.first);
    row("resident then, MiB", &|seen| seen.resident);
    row(&format!("resident after {} look-ups, MiB", size.lookups), &|seen| seen.resident_after);
    row("first request of an account, median, ms", &|seen| millis(&seen.cold, 50));
    row("first request of an account, p99, ms", &|seen| millis(&seen.cold, 99));
    row("a later one, median, ms", &|seen| millis(&seen.warm, 50));
    row("a later one, p99, ms", &|seen| millis(&seen.warm, 99));
    row("CPU when nobody asks, ms each second", &|seen| seen.idle_cpu);
    row("accounts list, ms", &|seen| seen.list);
    row("accounts list, peak of memory, MiB", &|seen| seen.list_peak);
    let reached = |holds: bool| if holds { "reached" } else { "MISSED" };
    println!("goals: start under 1 s: {}", reached(many.ready.max(many.first) < 1000.0));
    println!("       under 150 MiB: {}", reached(many.resident.max(many.resident_after) < 150.0));
    println!("       a cold account under 5 ms at the median: {}", reached(millis(&many.cold, 50) < 5.0));
}

/// Of sorted latencies.
fn millis(latencies: &[Duration], percent: usize) -> f64 {
    latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)].as_secs_f64() * 1e3
}

fn sorted(mut latencies: Vec<Duration>) -> Vec<Duration> {
    latencies.sort_unstable();
    latencies
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

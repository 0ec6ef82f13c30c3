//! What rewriting links costs: the rewriter alone, and whole requests through the proxy beside the same ones passed through as they are.
//!
//! Each ratio is taken in one run, in turns, of the CPU time of the worker's thread: only ratios mean something on another machine.

mod fixture;
#[path = "fixture/load.rs"]
mod load;
#[path = "fixture/upstream.rs"]
mod upstream;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bearerd::app::App;
use bearerd::clock::Clock;
use bearerd::config::Listen;
use bearerd::graph::links::Links;
use bearerd::tasks::Tasks;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use crate::load::{Run, current_thread, load, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GRAPH: &str = "https://graph.microsoft.com";
/// What one read of an upstream's connection brings.
const CHUNK: usize = 16 << 10;
const PAGE_BYTES: usize = 100_000;
const CONNECTIONS: usize = 16;

/// What is asked for, and what rewriting may cost.
const CASES: [(&str, &str, f64); 2] =
    [("a page of 100 KB with links", "/v1.0/page", 1.25), ("JSON of 100 KB without links", "/v1.0/bare", 1.15)];

fn main() {
    // `cargo bench` says `--bench`; everything else, `cargo bench -- --test` too, wants to know that it runs.
    let arguments: Vec<String> = std::env::args().collect();
    let measures = arguments.iter().any(|a| a == "--bench") && !arguments.iter().any(|a| a == "--test");
    let (rounds, time) = if measures { (15, Duration::from_millis(700)) } else { (1, Duration::from_millis(20)) };

    let clock = Clock::system();
    let speed = alone(&clock, if measures { 20_000 } else { 1 });
    println!("the rewriter alone: {speed:.2} GB/s on a page of {} bytes", page(GRAPH).len());

    let slow = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let upstream = upstream::start(as_graph);
    let stores = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let [passing, rewriting] = [false, true].map(|rewrites| {
        let mut config = fixture::config(stores[usize::from(rewrites)].path(), &format!("http://{upstream}"));
        config.upstreams.get_mut("graph").expect("it is configured").rewrite_links = rewrites;
        slow.block_on(async {
            let app = App::start(&config, clock.clone(), Tasks::on(slow.handle().clone())).await.expect("it starts");
            fixture::sign_in_everyone(&app.core()).await;
            app
        })
    });
    let client = current_thread();
    println!("\n                               the worker's CPU, us a request                  requests a second");
    println!("                                passed on    rewritten    ratio    at most     ratio    p50, ms");
    for (what, path, limit) in CASES {
        let run = |app: &App| {
            let [Listen::Tcp(proxy)] = *app.data_addresses() else { panic!("one TCP address was configured") };
            client.block_on(load(proxy, path, is_whole, CONNECTIONS, time, &clock))
        };
        run(&rewriting);
        let pairs: Vec<(Run, Run)> = (0..rounds).map(|_| (run(&passing), run(&rewriting))).collect();
        let median = |figure: fn(&Run, &Run) -> f64| median(pairs.iter().map(|(p, r)| figure(p, r)).collect());
        println!(
            "{what:<30} {:>10.1} {:>12.1} {:>8.2} {limit:>10.2} {:>9.2} {:>10.2}",
            median(|passed, _| passed.cpu_each()),
            median(|_, rewritten| rewritten.cpu_each()),
            median(|passed, rewritten| rewritten.cpu_each() / passed.cpu_each()),
            median(|passed, rewritten| rewritten.rate() / passed.rate()),
            median(|_, rewritten| rewritten.p50() * 1e3),
        );
    }
    for app in [passing, rewriting] {
        slow.block_on(app.drain());
    }
}

/// Gigabytes a second, on this thread.
#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 bytes")]
fn alone(clock: &Clock, times: usize) -> f64 {
    let page = page(GRAPH);
    let links = Links::new(GRAPH, "http://proxy.example:8080/as/alice").expect("they differ");
    let chunks: Vec<Bytes> =
        (0..page.len()).step_by(CHUNK).map(|at| page.slice(at..page.len().min(at + CHUNK))).collect();
    let once = || {
        let mut rewriter = links.rewriter();
        let mut length = 0;
        for chunk in &chunks {
            rewriter.feed(chunk.clone());
            while let Some(piece) = rewriter.next() {
                length += black_box(&piece).len();
            }
        }
        rewriter.end();
        while let Some(piece) = rewriter.next() {
            length += black_box(&piece).len();
        }
        assert!(length > page.len(), "the links became longer");
    };
    once();
    let started = clock.moment();
    for _ in 0..times {
        once();
    }
    (times * page.len()) as f64 / clock.moment().since(started).as_secs_f64() / 1e9
}

fn is_whole(body: &[u8]) -> bool {
    body.len() > PAGE_BYTES && body.ends_with(b"]}")
}

/// `/v1.0/page` has links that name the host that it was asked by, `/v1.0/bare` has none; chunked, as Graph sends them.
async fn as_graph(request: Request<Incoming>) -> Response<Chunked> {
    static PAGE: OnceLock<Bytes> = OnceLock::new();
    static BARE: OnceLock<Bytes> = OnceLock::new();
    let host = request.headers()["host"].to_str().expect("it is a name");
    let body = if request.uri().path().ends_with("page") {
        PAGE.get_or_init(|| page(&format!("http://{host}")))
    } else {
        BARE.get_or_init(bare)
    };
    upstream::said(Chunked(body.clone()))
}

/// Comes in pieces, and says no length.
struct Chunked(Bytes);

impl Body for Chunked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.0.len().min(CHUNK);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }
}

fn page(origin: &str) -> Bytes {
    let next = "x%2Bb%2Fc%3D".repeat(20);
    let head = format!(
        r#"{{"@odata.context":"{origin}/v1.0/$metadata#users('48d31887-5fad-4d73-a9f5-3c356e68a038')/messages","@odata.nextLink":"{origin}/v1.0/me/messages?$top=50&$skiptoken={next}","value":["#
    );
    mails(head, |n| {
        format!(r#""attachments@odata.context":"{origin}/v1.0/$metadata#users('48d3')/messages('{n}')/attachments","#)
    })
}

fn bare() -> Bytes {
    mails(r#"{"value":["#.to_owned(), |_| String::new())
}

/// Mails as Graph lists them: many short strings, bodies of HTML with quotes and line ends escaped.
fn mails(mut text: String, links: impl Fn(usize) -> String) -> Bytes {
    for number in 0.. {
        let comma = if number == 0 { "" } else { "," };
        let paragraph = r#"<p class=\"MsoNormal\">See <a href=\"https://example.com/a?b=c&d=e\">this</a>, or ask the team.</p>\r\n"#;
        let content = paragraph.repeat(12);
        write!(
            text,
            r#"{comma}{{"@odata.etag":"W/\"CQAAABYAAAD{number:04}\"","id":"AAMkAGVmMDEzMTM4LTZmYWUtNDdkNC1hMDZiLTU1OGY5OTZhYmY4OABGAAAAAAAiQ8W967B7TKBjgx9rVEURBwAiIsqMbYjsT5e-T7KzowPTAAAAAAEMAAAiIsqMbYjsT5e-T7KzowPTAA{number:04}=","createdDateTime":"2026-01-0{day}T09:23:51Z","receivedDateTime":"2026-01-0{day}T09:23:52Z","hasAttachments":false,"subject":"Report {number}: \"final\"","bodyPreview":"See this, or ask the team.","importance":"normal","isRead":{read},"webLink":"https://outlook.office365.com/owa/?ItemID=AAMk{number}",{links}"body":{{"contentType":"html","content":"<html><body>\r\n{content}</body></html>"}},"sender":{{"emailAddress":{{"name":"Samantha Booth","address":"samanthab@contoso.com"}}}},"toRecipients":[{{"emailAddress":{{"name":"Dana Swope","address":"danas@contoso.com"}}}}]}}"#,
            day = number % 9 + 1,
            read = number % 3 == 0,
            links = links(number),
        )
        .expect("a string takes it");
        if text.len() > PAGE_BYTES {
            break;
        }
    }
    (text + "]}").into()
}

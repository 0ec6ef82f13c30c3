//! A collector that is slow, dead or gone costs spans, and nothing else.

use std::path::Path;

use bearerd::metrics::Metrics;
use bearerd::tasks::spawn_here;
use tokio::net::TcpListener;

use super::collector::Collector;
use crate::harness::*;

/// The value of `bearerd_trace_spans_total{outcome}`.
fn counted(metrics: &Metrics, outcome: &str) -> usize {
    let start = format!("bearerd_trace_spans_total{{outcome=\"{outcome}\"}} ");
    let text = metrics.render();
    text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.parse().expect("a number"))
}

/// All that is counted at the end: sent, failed, dropped.
async fn at_the_end(rig: Rig) -> [usize; 3] {
    let metrics = rig.app.core().metrics;
    rig.app.drain().await;
    ["sent", "failed", "dropped"].map(|outcome| counted(&metrics, outcome))
}

#[tokio::test]
async fn a_dead_collector_costs_its_spans_and_nothing_else() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let rig = Rig::with(&format!("[traces]\nendpoint = \"http://{gone}\"")).await;
    for _ in 0..3 {
        assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    }
    assert_eq!(rig.seen().len(), 3);
    assert_eq!(at_the_end(rig).await, [0, 9, 0]);
}

#[tokio::test]
async fn a_batch_that_is_refused_is_counted_and_the_next_one_sent() {
    let collector = Collector::answering(|number| if number == 0 { 503 } else { 200 }).await;
    let rig = Rig::with(&collector.config("")).await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    collector.asked(1).await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(at_the_end(rig).await, [3, 3, 0]);
    assert_eq!(collector.requests().len(), 2, "nothing is sent twice");
}

#[tokio::test]
async fn a_full_queue_drops_and_no_request_waits() {
    // It accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    spawn_here(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let rig = Rig::with(&format!("[traces]\nendpoint = \"http://{address}\"")).await;
    // Refused at the door: one span each, and nothing else to do. Two batches at most leave the queue meanwhile.
    let metrics = rig.app.core().metrics;
    let (room, mut client) = (2048 + 2 * 512, rig.http1().await);
    for number in 0.. {
        let answer = whole(client.send_request(bare("GET", "/v1.0/me").body(empty()).unwrap())).await;
        assert_eq!(answer.status(), 401);
        if number % 256 == 255 && counted(&metrics, "dropped") > 0 {
            break;
        }
        assert!(number < 4 * room, "nothing was dropped");
    }
    // Strangers fill half of it: there is room for known clients still.
    let dropped = counted(&metrics, "dropped");
    for _ in 0..50 {
        assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    }
    assert_eq!((counted(&metrics, "sent"), counted(&metrics, "dropped")), (0, dropped));
}

#[tokio::test]
async fn a_shutdown_sends_what_waits() {
    let collector = Collector::start().await;
    let rig = Rig::with(&collector.config("")).await;
    let mut client = rig.http1().await;
    for _ in 0..10 {
        assert_eq!(whole(client.send_request(get("/v1.0/me"))).await.status(), 200);
    }
    rig.app.drain().await;
    assert_eq!(collector.now().len(), 30);
}

#[tokio::test]
async fn headers_go_with_every_batch() {
    let collector = Collector::start().await;
    let rig = Rig::with(&collector.config("headers = \"api-key=k, authorization=Basic%20YTpi\"")).await;
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    rig.app.drain().await;
    let (_, headers, _) = &collector.requests()[0];
    assert_eq!(
        (&headers["api-key"], &headers["authorization"]),
        (&"k".parse().unwrap(), &"Basic YTpi".parse().unwrap())
    );
}

#[test]
fn mistakes_name_the_key_and_never_a_secret() {
    let minimal =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.toml")).expect("a file");
    for (lines, expected) in [
        ("endpoint = \"ftp://collector\"", "traces.endpoint: must start with https:// or http://"),
        ("endpoint = \"http://collector/?a=b\"", "traces.endpoint: must not have a query"),
        (
            "endpoint = \"http://collector\"\nheaders = \"a=s3cret\"",
            "traces.endpoint: must be https where headers go along",
        ),
        ("headers = \"s3cret\"", "traces.headers: header 1 is not name=value"),
        ("headers = \"host=s3cret\"", "traces.headers: host is not yours to set"),
        ("headers_file = \"/nowhere/s\"", "traces.headers_file: /nowhere/s: there is no such file"),
        ("ca_file = \"/nowhere/ca\"", "traces.ca_file: /nowhere/ca: there is no such file"),
        ("sample = 1.5", "traces.sample: must be from 0 to 1"),
        ("sample = -0.5", "traces.sample: must be from 0 to 1"),
        ("sample = \"all\"", "traces.sample: must be a number"),
        ("service_name = \"\"", "traces.service_name: "),
        ("endpont = \"http://collector\"", "traces.endpont: "),
    ] {
        let text = format!("{minimal}\n[traces]\n{lines}\n");
        let mistakes = bearerd::config::Config::from_text(
            Some((Path::new("test.toml"), &text)),
            &std::collections::BTreeMap::new(),
            &[],
        );
        let mistakes = mistakes.expect_err(lines).to_string();
        assert!(mistakes.contains(expected) && !mistakes.contains("s3cret"), "{lines}: {mistakes}");
    }
}

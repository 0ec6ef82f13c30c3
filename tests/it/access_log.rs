//! The access log of a running proxy: a line for each request, at once while there is nothing else to do, and none lost at the end.

use bearerd::config::LogFormat;
use bearerd::proxy::AccessLog;
use bearerd::sandbox::{Effect, Fault, Gate};
use bearerd::tasks::spawn_here;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::harness::{Rig, Setup, get, whole, within};

/// A proxy, and what it writes: whole lines only.
async fn start(config: &str) -> (Rig, UnboundedReceiver<Vec<Value>>) {
    let (written, lines) = unbounded_channel();
    let log = AccessLog::new(LogFormat::Json, move |bytes| {
        let text = str::from_utf8(bytes).expect("UTF-8").strip_suffix('\n').expect("whole lines");
        let lines = text.split('\n').map(|line| serde_json::from_str(line).expect(line)).collect();
        // The test may have ended.
        let _ = written.send(lines);
    });
    let setup = Setup { config: config.to_owned(), ..Setup::default() };
    (setup.start_logged(&log).await.expect("bearerd starts"), lines)
}

#[tokio::test]
async fn a_line_is_out_as_soon_as_there_is_nothing_else_to_do() {
    let (rig, mut lines) = start("server.workers = 1").await;
    let mut client = rig.http1().await;
    for number in 0..3 {
        let path = format!("/v1.0/me/messages/{number}");
        let answer = whole(client.send_request(get(&path))).await;
        let written = within(lines.recv()).await.expect("a line");
        assert_eq!(written.len(), 1, "{written:?}");
        let line = &written[0];
        assert_eq!((&line["path"], &line["account"]), (&path.into(), &"alice".into()));
        assert_eq!((&line["client"], &line["upstream"]), (&"payroll".into(), &"graph".into()));
        assert_eq!((&line["status"], &line["bytes"]), (&answer.status().as_u16().into(), &answer.body().len().into()));
        let seen = rig.seen();
        assert_eq!(line["request_id"].as_str(), seen[number].header("client-request-id").first().copied());
    }
    assert!(lines.try_recv().is_err(), "one line for each request");
}

#[tokio::test]
async fn a_drain_leaves_no_line_behind() {
    let (rig, mut lines) = start("server.workers = 2").await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = rig.http1().await;
        clients.push(spawn_here(async move {
            whole(client.send_request(get(&format!("/v1.0/me/messages/{number}")))).await
        }));
    }
    for client in clients {
        within(client).await.expect("an answer");
    }
    // Under way when the drain begins.
    let mut wire = rig.wire().await;
    wire.send("POST /v1.0/me/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n").await;
    rig.app.drain().await;
    drop(wire);
    let mut paths = Vec::new();
    while let Ok(written) = lines.try_recv() {
        paths.extend(written.iter().map(|line| line["path"].as_str().expect("a path").to_owned()));
    }
    let mut expected: Vec<String> = (0..20).map(|number| format!("/v1.0/me/messages/{number}")).collect();
    expected.push("/v1.0/me/messages".to_owned());
    paths.sort_unstable();
    expected.sort_unstable();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn who_hangs_up_before_the_answer_is_no_error_of_the_server() {
    let (rig, mut lines) = start("server.workers = 1").await;
    let gate = Gate::shut();
    rig.graph().faults().push(Fault::graph("/v1.0/me", Effect::Hold(gate.clone())));
    let mut client = rig.http1().await;
    let asked = spawn_here(async move { client.send_request(get("/v1.0/me")).await.is_ok() });
    within(gate.arrived(1)).await;
    asked.abort();
    let written = within(lines.recv()).await.expect("a line");
    assert_eq!((&written[0]["status"], &written[0]["error"]), (&499.into(), &Value::Null), "{written:?}");
    assert_eq!(written[0]["broke_off"], "the client hung up before the answer");
    gate.open();
}

//! What operators hang on the wall agrees with what runs: every metric of the Grafana dashboard and of the alert rules exists, every alert
//! says what it is and where its runbook is, and the runbook is there.

use std::collections::BTreeSet;

use http::StatusCode;

use crate::harness::{Rig, bare, empty};

const ALERTS: &str = include_str!("../../docker/grafana/alerts.yaml");
const DASHBOARD: &str = include_str!("../../docker/grafana/bearerd-dashboard.json");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const FAMILIES: &str = include_str!("../../src/metrics/families.rs");

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !in_name(c));
    words.filter(|word| word.starts_with("bearerd_") || word.starts_with("process_")).collect()
}

/// The names under which families are registered. One that nothing has happened to is not rendered.
fn registered() -> BTreeSet<String> {
    let calls = FAMILIES.split("registry.register").skip(1);
    let name = |call: &str| {
        let (unit, call) = call.split_once('(').expect("a call");
        let name = call.split('"').nth(1).expect("a name");
        let seconds = if unit.starts_with("_with_unit") { "_seconds" } else { "" };
        format!("bearerd_{name}{seconds}")
    };
    calls.map(name).collect()
}

/// What a rig shows after a request that was answered and one that it refused.
async fn exposed() -> String {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1.0/me").await.status(), StatusCode::OK);
    assert_eq!(rig.get("/nonsense").await.status(), StatusCode::NOT_FOUND);
    let answer = rig.send_to_admin(bare("GET", "/metrics").body(empty()).expect("a request")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    String::from_utf8(answer.into_body().to_vec()).expect("text")
}

#[tokio::test]
async fn every_metric_that_is_drawn_or_alerted_on_exists() {
    let text = exposed().await;
    let series: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    for seen in ["bearerd_requests_total", "bearerd_errors_total", "bearerd_ready", "process_open_fds"] {
        assert!(series.contains(seen), "{seen} is not in\n{text}");
    }
    let registered = registered();
    assert!(registered.len() > 20, "{registered:?}");
    let ends = ["", "_total", "_bucket", "_sum", "_count", "_info"];
    let exists = |name: &str| {
        series.contains(name)
            || ends.iter().any(|end| name.strip_suffix(end).is_some_and(|family| registered.contains(family)))
    };
    for (what, text) in [("the dashboard", DASHBOARD), ("the alerts", ALERTS)] {
        let missing: Vec<&str> = named(text).into_iter().filter(|name| !exists(name)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{what} names metrics that are not there");
    }
}

#[test]
fn every_metric_is_drawn_and_explained() {
    let drawn = named(DASHBOARD);
    for family in registered() {
        let short = family.trim_start_matches("bearerd_");
        let explained = OPERATIONS.contains(&format!("`{short}")) || short == "build";
        assert!(explained, "docs/operations.md does not name {short}");
        assert!(drawn.iter().any(|name| name.starts_with(&*family)), "the dashboard does not draw {family}");
    }
    for metric in named(DASHBOARD).into_iter().filter(|name| name.starts_with("process_")) {
        assert!(OPERATIONS.contains(&format!("`{metric}")), "docs/operations.md does not name {metric}");
    }
}

#[test]
fn the_dashboard_has_its_variables_and_its_queries_use_them() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "job", "instance", "client"]);
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("a list") {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert!(target["expr"].as_str().is_some_and(|expr| expr.contains("$instance")), "{target}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        }
    }
}

#[test]
fn every_alert_is_complete_and_its_runbook_is_there() {
    let anchors: BTreeSet<String> =
        OPERATIONS.lines().filter_map(|line| Some(anchor(line.strip_prefix('#')?))).collect();
    let mut names = BTreeSet::new();
    for alert in ALERTS.split("- alert: ").skip(1) {
        let name = alert.lines().next().expect("a name");
        assert!(names.insert(name), "{name} is there twice");
        let value = |key: &str| {
            let line = alert.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name} has no {key}"))
        };
        assert!(value("for").ends_with(['m', 'h']), "{name}");
        let severities = ["critical", "warning", "info"].map(|severity| format!("{{ severity: {severity} }}"));
        assert!(severities.iter().any(|severity| value("labels") == severity), "{name}");
        assert!(value("summary").len() > 10 && value("description").len() > 10, "{name}");
        let runbook =
            value("runbook_url").strip_prefix("docs/operations.md#").expect("the place in docs/operations.md");
        assert!(anchors.contains(runbook), "docs/operations.md has no #{runbook}");
    }
    assert!(names.len() > 20, "{names:?}");
}

/// What a heading's link is at the usual places.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// The links within the runbook lead somewhere, those to the pages of errors too.
#[test]
fn the_runbooks_links_lead_somewhere() {
    let anchors: BTreeSet<String> =
        OPERATIONS.lines().filter_map(|line| Some(anchor(line.strip_prefix('#')?))).collect();
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for link in OPERATIONS.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        match link.split_once('#') {
            Some(("", place)) => assert!(anchors.contains(place), "docs/operations.md has no #{place}"),
            _ if link.starts_with("http") => {}
            _ => assert!(docs.join(link.split('#').next().expect("a path")).exists(), "docs/operations.md: {link}"),
        }
    }
}

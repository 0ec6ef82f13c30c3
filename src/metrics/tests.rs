//! What is counted stands in the text under the contract's names.

use super::*;

fn sample<'a>(method: &'a Method, client: &'a Arc<str>, upstream: &'a Arc<str>) -> RequestSample<'a> {
    RequestSample {
        client: Some(client),
        upstream: Some(upstream),
        method,
        status: StatusCode::OK,
        origin: Origin::Upstream,
        took: Duration::from_millis(20),
        upstream_took: Some(Duration::from_millis(3)),
    }
}

#[test]
fn every_family_of_the_contract_is_rendered() {
    let metrics = Metrics::new();
    let (client, upstream) = ("payroll".into(), "graph".into());
    metrics.request(&sample(&Method::GET, &client, &upstream));
    metrics.retried("throttled");
    metrics.upstream_401("healed");
    metrics.refreshed("entra", "ok", Duration::from_millis(200));
    let calling = metrics.token_request();
    metrics.accounts("entra", "live", 10_000);
    metrics.leases("fresh", 7);
    metrics.stored("commit", Duration::from_micros(900));
    let open = metrics.connection(Side::Client);
    metrics.erred("overloaded");
    metrics.store_failed("commit");
    metrics.ready("store", false);
    metrics.reloaded("ok");
    metrics.credential_expires_in("entra", -60);
    metrics.circuit("entra", CircuitState::HalfOpen);
    metrics.grants_lapsing("entra", 12);
    let waiting = metrics.token_request_waits("entra", "on_demand");
    metrics.credential_fallback("entra");
    metrics.retry_budget_exhausted(&upstream);
    let queued = metrics.waits_at_gate(&upstream, "outlook");
    metrics.gate_paused(&upstream, "outlook");
    metrics.gate_refused(&upstream, "outlook");
    let seatless = metrics.waits_for_a_seat();
    metrics.waited("left");
    metrics.overloaded("memory");
    metrics.traced("failed", 3);

    let text = metrics.render();
    for line in [
        "bearerd_requests_total{client=\"payroll\",upstream=\"graph\",method=\"GET\",status=\"200\",origin=\"upstream\"} 1",
        "bearerd_request_duration_seconds_count 1",
        "bearerd_request_duration_seconds_bucket{le=\"0.01\"} 0",
        "bearerd_request_duration_seconds_bucket{le=\"0.025\"} 1",
        "bearerd_upstream_duration_seconds_sum 0.003",
        "bearerd_errors_total{error=\"overloaded\"} 1",
        "bearerd_store_errors_total{op=\"commit\"} 1",
        "bearerd_ready{check=\"store\"} 0",
        "bearerd_retries_total{reason=\"throttled\"} 1",
        "bearerd_retry_budget_exhausted_total{upstream=\"graph\"} 1",
        "bearerd_gate_waiting{upstream=\"graph\",workload=\"outlook\"} 1",
        "bearerd_gate_pauses_total{upstream=\"graph\",workload=\"outlook\"} 1",
        "bearerd_gate_refused_total{upstream=\"graph\",workload=\"outlook\"} 1",
        "bearerd_admission_waiting 1",
        "bearerd_admission_waits_total{outcome=\"left\"} 1",
        "bearerd_admission_refused_total{reason=\"memory\"} 1",
        "bearerd_upstream_401_total{outcome=\"healed\"} 1",
        "bearerd_refresh_total{provider=\"entra\",outcome=\"ok\"} 1",
        "bearerd_refresh_duration_seconds_count 1",
        "bearerd_token_requests_in_flight 1",
        "bearerd_accounts{provider=\"entra\",state=\"live\"} 10000",
        "bearerd_leases{state=\"fresh\"} 7",
        "bearerd_store_duration_seconds_count{op=\"commit\"} 1",
        "bearerd_connections{side=\"client\"} 1",
        "bearerd_connections{side=\"upstream\"} 0",
        "bearerd_config_reloads_total{outcome=\"ok\"} 1",
        "bearerd_credential_expiry_seconds{provider=\"entra\"} -60",
        "bearerd_provider_circuit{provider=\"entra\"} 1",
        "bearerd_grants_lapsing{provider=\"entra\"} 12",
        "bearerd_token_requests_waiting{provider=\"entra\",urgency=\"on_demand\"} 1",
        "bearerd_trace_spans_total{outcome=\"failed\"} 3",
        "bearerd_credential_fallbacks_total{provider=\"entra\"} 1",
        concat!("bearerd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "# EOF",
    ] {
        assert!(text.lines().any(|rendered| rendered == line), "{line}\nis not in\n{text}");
    }
    for start in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_threads ",
        "process_open_fds ",
        "process_max_fds ",
        "process_start_time_seconds ",
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(start)).expect(start);
        assert!(line.parse::<f64>().expect(start) > 0.0, "{start}{line}");
    }
    assert_eq!(text.matches("# EOF").count(), 1, "{text}");
    drop((calling, open, waiting, queued, seatless));
    assert!(metrics.render().contains("bearerd_connections{side=\"client\"} 0"));
    assert!(metrics.render().contains("bearerd_token_requests_in_flight 0"));
}

#[test]
fn workers_count_apart_and_are_rendered_as_one() {
    let metrics = Metrics::new();
    let workers = [metrics.of_worker(), metrics.of_worker()];
    let upstream: Arc<str> = "graph".into();
    // Names of equal text that are not the same, and more kinds of requests than a tally looks up at once.
    for (worker, clients) in workers.iter().zip([2_000, 300]) {
        let clients: Vec<Arc<str>> = (0..clients).map(|client| format!("client{client}").into()).collect();
        for client in clients.iter().chain(&clients) {
            worker.request(&sample(&Method::GET, client, &upstream));
        }
    }
    workers[0].request(&RequestSample {
        client: None,
        upstream: None,
        status: StatusCode::UNAUTHORIZED,
        origin: Origin::Proxy,
        upstream_took: None,
        ..sample(&Method::GET, &upstream, &upstream)
    });
    let text = metrics.render();
    let series = |client: &str| {
        let labels =
            format!("client=\"{client}\",upstream=\"graph\",method=\"GET\",status=\"200\",origin=\"upstream\"");
        let start = format!("bearerd_requests_total{{{labels}}} ");
        text.lines().filter_map(|line| line.strip_prefix(&start)).collect::<Vec<_>>()
    };
    assert_eq!((series("client0"), series("client299"), series("client1999")), (vec!["4"], vec!["4"], vec!["2"]));
    for line in [
        "bearerd_requests_total{client=\"\",upstream=\"\",method=\"GET\",status=\"401\",origin=\"proxy\"} 1",
        "bearerd_request_duration_seconds_count 4601",
        "bearerd_upstream_duration_seconds_count 4600",
    ] {
        assert!(text.lines().any(|rendered| rendered == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn totals_are_over_all_workers_and_labels() {
    let metrics = Metrics::new();
    let name = "graph".into();
    for (worker, statuses) in [(metrics.clone(), &[200, 302, 404][..]), (metrics.of_worker(), &[200, 429, 503])] {
        for status in statuses {
            let status = StatusCode::from_u16(*status).unwrap();
            worker.request(&RequestSample { status, ..sample(&Method::GET, &name, &name) });
        }
    }
    for outcome in ["ok", "dead", "ok", "backoff", "ok"] {
        metrics.of_worker().refreshed("entra", outcome, Duration::ZERO);
    }
    metrics.reloaded("applied");
    metrics.reloaded("refused");
    let totals = metrics.totals();
    assert_eq!((totals.answered, totals.refused, totals.failed), (3, 2, 1));
    assert_eq!((totals.refreshed, totals.refresh_failed), (3, 2));
    assert_eq!((totals.reloads, totals.reloads_refused), (2, 1));
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let metrics = Metrics::new();
    metrics.credential_expires_in("a\"} 1\nb\\", 1);
    let line = r#"bearerd_credential_expiry_seconds{provider="a\"} 1\nb\\"} 1"#;
    assert!(metrics.render().lines().any(|rendered| rendered == line), "{}", metrics.render());
}

#[test]
fn invented_methods_share_one_series() {
    let metrics = Metrics::new();
    let (client, upstream) = ("".into(), "".into());
    for method in ["BREW", "PROPFIND"] {
        metrics.request(&sample(&Method::from_bytes(method.as_bytes()).unwrap(), &client, &upstream));
    }
    assert!(metrics.render().contains("method=\"other\",status=\"200\",origin=\"upstream\"} 2"));
}

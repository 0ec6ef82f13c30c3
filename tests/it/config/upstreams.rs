//! What an upstream is, and how it throttles.

use std::time::Duration;

use bearerd::config::{Throttling, UpstreamKind};

use super::{MINIMAL, each_is_one_mistake, good};

#[test]
fn graph_is_known_by_its_name_or_its_origin() {
    let text = format!(
        "{MINIMAL}\n[upstreams.graph]\nurl = \"http://127.0.0.1:1\"\n\
         [upstreams.china]\nurl = \"https://microsoftgraph.chinacloudapi.cn\"\nscopes = [\"x\"]\n\
         [upstreams.other]\nurl = \"https://graph.microsoft.com.example\"\nscopes = [\"x\"]\n\
         [upstreams.near]\nurl = \"https://near.example\"\nscopes = [\"x\"]\nkind = \"graph\"\n"
    );
    let upstreams = good(&text).config.upstreams;
    for (name, kind) in [
        ("graph", UpstreamKind::Graph),
        ("china", UpstreamKind::Graph),
        ("other", UpstreamKind::Rest),
        ("near", UpstreamKind::Graph),
    ] {
        assert_eq!(upstreams[name].kind, kind, "{name}");
        assert_eq!(upstreams[name].throttling, Throttling::default(), "the defaults of the keys");
    }
    let rest = format!("{MINIMAL}\n[upstreams.graph]\nkind = \"rest\"");
    assert_eq!(good(&rest).config.upstreams["graph"].kind, UpstreamKind::Rest);
}

#[test]
fn how_it_throttles() {
    let text = format!(
        "{MINIMAL}\n[upstreams.graph.throttling]\npatience = \"1m\"\nmailbox_concurrent = 0\nqueue = 0\nretry_budget = 1\n"
    );
    let expected =
        Throttling { patience: Duration::from_secs(60), mailbox_concurrent: None, queue: 0, retry_budget: 1.0 };
    assert_eq!(good(&text).config.upstreams["graph"].throttling, expected);
    let with = |line: &str| format!("{MINIMAL}\n[upstreams.graph.throttling]\n{line}");
    each_is_one_mistake([
        (with("patience = \"0s\""), "upstreams.graph.throttling.patience: must be more than 0"),
        (with("mailbox_concurrent = -1"), "upstreams.graph.throttling.mailbox_concurrent: must be from 0"),
        (with("queue = -1"), "upstreams.graph.throttling.queue: must be from 0"),
        (with("retry_budget = 20"), "upstreams.graph.throttling.retry_budget: must be from 0 to 1"),
        (with("retry_budget = \"0.2\""), "upstreams.graph.throttling.retry_budget: must be a number"),
        (
            format!("{MINIMAL}\n[upstreams.graph]\nkind = \"soap\""),
            "upstreams.graph.kind: must be \"graph\" or \"rest\"",
        ),
    ]);
}

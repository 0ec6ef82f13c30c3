//! What people are shown of the configuration: the example held true, the schema, and what is printed.

use std::collections::BTreeMap;

use bearerd::config::keys::{FILE, Kind, Presence};
use bearerd::config::schema;

use super::{HASH, MINIMAL, every_key, good, load};

const EXAMPLE: &str = include_str!("../../../config/example.toml");

#[test]
fn the_example_shows_every_key_as_the_code_knows_it() {
    let mut shown = BTreeMap::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        let (commented, line) = line.strip_prefix("# ").map_or((false, line), |line| (true, line));
        if let Some(header) = line.strip_prefix('[').filter(|header| header.ends_with(']')) {
            let list = header.starts_with('[');
            section = header.trim_matches(['[', ']']).replace("clients.limits", "clients.#.limits");
            section = section.replace("clients.jwt", "clients.#.jwt");
            section = section.replace("providers.entra", "providers.*").replace("upstreams.graph", "upstreams.*");
            section.push_str(if list { ".#" } else { "" });
        } else if let Some((key, rest)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            let (value, why) = rest.split_once(" # ").unwrap_or_else(|| panic!("{line}: says no why"));
            let before = shown.insert(format!("{section}.{key}"), (commented, value.trim(), why.trim()));
            assert_eq!(before, None, "{section}.{key} is shown twice");
        }
    }
    every_key(FILE, "", &mut |path, key| {
        let (commented, value, why) = shown.remove(path).unwrap_or_else(|| panic!("{path} is not in the example"));
        assert_eq!(why, key.why, "{path}");
        if let Presence::Default(text) = key.presence {
            assert!(!commented, "{path} has a default and must be shown with it");
            let list =
                |text: &str| text.split(',').filter(|item| !item.is_empty()).map(toml::Value::from).collect::<Vec<_>>();
            let default = match key.kind {
                Kind::List => list(text).into(),
                Kind::Flag | Kind::Integer | Kind::Number | Kind::Share => {
                    text.parse::<toml::Value>().expect("a literal")
                }
                _ => toml::Value::from(text),
            };
            assert_eq!(value.parse::<toml::Value>().expect(path), default, "{path}");
        }
    });
    assert!(shown.is_empty(), "the code doesn't know {:?}", shown.keys());
    let example = good(EXAMPLE);
    assert_eq!(example.warnings, ["clients[0].accounts: is empty: this client may act for nobody"]);
}

#[test]
fn what_is_printed_reads_back_and_holds_no_secret() {
    let text = format!(
        "{MINIMAL}credentials = [{{ secret = \"hunter2\" }}]\n[server]\nlisten = [\"127.0.0.1:1\", \"unix:/run/b.sock\"]\n[server.limits]\nbody_bytes = 5\n[[clients]]\nname = \"a\"\nkey_hash = \"{HASH}\"\naccounts = [\"*\"]\nlimits = {{ concurrent = 5, requests_per_second = 0.5 }}\n[[clients]]\nname = \"b\"\naccounts = [\"*\"]\npeer_uid = 0\n[[clients]]\nname = \"c\"\naccounts = [\"*\"]\njwt = {{ issuer = \"https://a\", audience = \"b\", required = {{ \"https://a/role\" = \"x\" }} }}\n"
    );
    let environment = [("BEARERD_ADMIN__TOKEN", "hunter2-of-operators")];
    let loaded = load(&text, &environment, &[]).expect("good");
    let printed = loaded.toml();
    assert!(
        !printed.contains("hunter2") && printed.contains("token = \"********\" # from BEARERD_ADMIN__TOKEN"),
        "{printed}"
    );
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let uncommented =
        |text: &str| text.lines().map(|line| line.split(" # ").next().unwrap_or(line).to_owned()).collect::<Vec<_>>();
    let with_a_token = printed.replacen("token = \"********\"", "token = \"another-of-operators\"", 1);
    assert_eq!(uncommented(&good(&with_a_token).toml()), uncommented(&printed));
    let json = loaded.json();
    assert_eq!(json["clients"][2]["jwt"]["required"]["https://a/role"], "x");
    assert_eq!(json["clients"][0]["limits"]["concurrent"], 5);
    assert_eq!(json["providers"]["entra"]["credentials"][0]["secret"], "********");
}

#[test]
fn the_schema_knows_every_key() {
    let schema = schema();
    every_key(FILE, "", &mut |path, key| {
        let pointer: String = path
            .split('.')
            .map(|segment| match segment {
                "*" => "/additionalProperties".to_owned(),
                "#" => "/items".to_owned(),
                name => format!("/properties/{name}"),
            })
            .collect();
        let described = schema.pointer(&format!("{pointer}/description"));
        assert_eq!(described.and_then(serde_json::Value::as_str), Some(key.why), "{path}");
    });
    assert_eq!(schema["properties"]["server"]["additionalProperties"], false);
    assert_eq!(schema["properties"]["clients"]["items"]["required"][0], "name");
}

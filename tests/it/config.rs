//! The configuration from outside: layers, mistakes, rules.

mod files;
mod identities;
mod shown;
mod upstreams;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bearerd::config::keys::{FILE, Keys, Kind, Presence};
use bearerd::config::{AppCredential, ClientCredential, Config, Listen, Loaded, Mistakes, ProviderKind, Rotation};

const MINIMAL: &str = include_str!("../../config/minimal.toml");
const HASH: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn load(text: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    let owned =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let environment: BTreeMap<_, _> = owned(environment).into_iter().collect();
    Config::from_text(Some((Path::new("bearerd.toml"), text)), &environment, &owned(overrides))
}

fn good(text: &str) -> Loaded {
    load(text, &[], &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The mistakes of `text`, one per line.
fn bad(text: &str) -> String {
    load(text, &[], &[]).map(|_| ()).expect_err(text).to_string()
}

/// Each text has one mistake, which begins so and repeats no secret.
fn each_is_one_mistake<const N: usize>(cases: [(String, impl AsRef<str>); N]) {
    for (text, expected) in cases {
        let expected = expected.as_ref();
        let mistakes = bad(&text);
        assert!(mistakes.starts_with(expected), "{mistakes:?} is not {expected:?}");
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

/// Calls `see` with the path of every key that holds a value, `*` for an id and `#` for an index.
fn every_key(keys: Keys, above: &str, see: &mut impl FnMut(&str, &'static bearerd::config::keys::Key)) {
    for key in keys {
        let path = if above.is_empty() { key.name.to_owned() } else { format!("{above}.{}", key.name) };
        match key.kind {
            Kind::Table(inner) => every_key(inner, &path, see),
            Kind::Named(inner) => every_key(inner, &format!("{path}.*"), see),
            Kind::Tables(inner) => every_key(inner, &format!("{path}.#"), see),
            _ if matches!(key.presence, Presence::Reserved) => {}
            _ => see(&path, key),
        }
    }
}

#[test]
fn the_minimal_file_means_the_documented_defaults() {
    let Loaded { config, warnings, .. } = good(MINIMAL);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.server.listen, [Listen::Tcp(([127, 0, 0, 1], 8080).into())]);
    assert_eq!(config.server.public_url.as_str(), "http://127.0.0.1:8080/");
    assert_eq!(config.signin.public_url, config.server.public_url);
    assert!(config.server.workers > 0);
    assert_eq!(config.server.limits.replay_total_bytes, 64 * 1024 * 1024);
    assert_eq!(config.providers["entra"].rotation, Rotation::Tolerant);
    let graph = &config.upstreams["graph"];
    assert_eq!((graph.url.as_str(), &*graph.provider), ("https://graph.microsoft.com/", "entra"));
    assert_eq!(graph.scopes, ["User.Read"]);
    assert_eq!(graph.timeout, Duration::from_secs(100));
}

#[test]
fn later_layers_win() {
    let text = format!("{MINIMAL}\n[log]\nlevel = \"warn\"");
    let level = |environment: &[(&str, &str)], overrides: &[(&str, &str)]| {
        load(&text, environment, overrides).expect("good").config.log.level
    };
    assert_eq!(good(MINIMAL).config.log.level, "info");
    assert_eq!(level(&[], &[]), "warn");
    assert_eq!(level(&[("RUST_LOG", "trace")], &[]), "trace");
    assert_eq!(level(&[("RUST_LOG", "trace"), ("BEARERD_LOG__LEVEL", "error")], &[]), "error");
    assert_eq!(level(&[("BEARERD_LOG__LEVEL", "error")], &[("log.level", "debug")]), "debug");
}

#[test]
fn the_environment_alone_is_enough() {
    let clients = format!(r#"[{{"name": "a", "key_hash": "{HASH}", "accounts": ["alice"]}}]"#);
    let environment = [
        ("BEARERD_PROVIDERS__MY_IDP__KIND", "oidc"),
        ("BEARERD_PROVIDERS__MY_IDP__ISSUER", "https://id.example.com/realm"),
        ("BEARERD_PROVIDERS__MY_IDP__CLIENT_ID", "app"),
        ("BEARERD_PROVIDERS__MY_IDP__CREDENTIALS__0__SECRET", "s3cret"),
        ("BEARERD_SERVER__LISTEN", "127.0.0.1:1, unix:/run/b.sock"),
        ("BEARERD_SERVER__ALLOWED_HOSTS", r#"["proxy.example.com", "other"]"#),
        ("BEARERD_SERVER__LIMITS__BODY_BYTES", "7"),
        ("BEARERD_CLIENTS", &clients),
        ("BEARERD_CLIENTS__1__NAME", "b"),
        ("BEARERD_CLIENTS__1__PEER_UID", "1000"),
        ("BEARERD_CLIENTS__1__ACCOUNTS", "*"),
        ("PATH", "/bin"),
    ];
    let Loaded { config, warnings, .. } = load("[providers.my-idp]", &environment, &[]).expect("good");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.allowed_hosts, ["proxy.example.com", "other"]);
    assert_eq!(config.server.limits.body_bytes, Some(7));
    assert_eq!(config.providers["my-idp"].rotation, Rotation::Strict);
    assert!(
        matches!(&config.providers["my-idp"].credentials[..], [AppCredential::Secret { secret, .. }] if secret.expose() == "s3cret")
    );
    assert!(matches!(config.clients[1].credential, ClientCredential::PeerUid(1000)));
    assert_eq!(config.clients[0].accounts, ["alice"]);
}

#[test]
fn every_key_has_an_environment_name_and_a_flag() {
    every_key(FILE, "", &mut |path, key| {
        let (Presence::Default(text) | Presence::Optional(text) | Presence::Required(text)) = key.presence else {
            return;
        };
        let path = path.replace('*', "entra").replace('#', "0");
        let name = format!("BEARERD_{}", path.replace('.', "__").to_uppercase());
        let warnings = match load(MINIMAL, &[(&name, text)], &[]) {
            Ok(loaded) => loaded.warnings,
            Err(mistakes) => mistakes.warnings,
        };
        assert!(warnings.iter().all(|warning| !warning.contains("no such key")), "{warnings:?}");
        if let Err(mistakes) = load(MINIMAL, &[], &[(&path, text)]) {
            assert!(!mistakes.to_string().contains("no such key"), "{mistakes}");
        }
    });
}

#[test]
fn unknown_variables_are_warnings_and_unknown_flags_are_mistakes() {
    let environment = [
        ("BEARERD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("BEARERD_SERVER__LISTN", "x"),
        ("BEARERD_SERVER__LISTEN__0", "y"),
    ];
    let warnings = load(MINIMAL, &environment, &[]).expect("good").warnings;
    assert_eq!(
        warnings,
        [
            "BEARERD_PORT_8080_TCP: no such key",
            "BEARERD_SERVER__LISTEN__0: no such key",
            "BEARERD_SERVER__LISTN: no such key; did you mean BEARERD_SERVER__LISTEN?",
        ]
    );
    let mistakes =
        load(MINIMAL, &[("BEARERD_SERVER__WORKERS", "many")], &[("server.listn", "x"), ("admin.token", "t")]);
    let mistakes = mistakes.map(|_| ()).expect_err("bad").to_string();
    assert!(mistakes.contains("server.workers: must be an integer (from BEARERD_SERVER__WORKERS)"), "{mistakes}");
    assert!(mistakes.contains("server.listn: no such key; did you mean server.listen?"), "{mistakes}");
    assert!(mistakes.contains("admin.token: a command line is no place for a secret"), "{mistakes}");
}

#[test]
fn the_azure_names_fill_what_entra_leaves_out() {
    let environment = [
        ("AZURE_TENANT_ID", "tenant-1"),
        ("AZURE_CLIENT_ID", "client-1"),
        ("AZURE_CLIENT_SECRET", "s3cret"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/token"),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
    ];
    let config = load("[providers.entra]", &environment, &[]).expect("good").config;
    let ProviderKind::Entra { authority, tenant } = &config.providers["entra"].kind else { panic!("entra") };
    assert_eq!((authority.as_str(), &**tenant), ("https://login.microsoftonline.us/", "tenant-1"));
    assert_eq!(config.providers["entra"].client_id, "client-1");
    assert_eq!(config.providers["entra"].credentials.len(), 2);
    assert_eq!(config.upstreams["graph"].url.as_str(), "https://graph.microsoft.us/");

    let text = "[providers.entra]\ntenant = \"t\"\nclient_id = \"c\"\ncloud = \"china\"\ncredentials = []";
    let config = load(text, &environment, &[]).expect("good").config;
    let ProviderKind::Entra { authority, tenant } = &config.providers["entra"].kind else { panic!("entra") };
    assert_eq!((authority.as_str(), &**tenant), ("https://login.partner.microsoftonline.cn/", "t"));
    assert!(config.providers["entra"].credentials.is_empty());

    let oidc = "[providers.id]\nkind = \"oidc\"\nissuer = \"https://id.example.com\"";
    let mistakes = load(oidc, &environment, &[]).map(|_| ()).expect_err("AZURE_* is for entra").to_string();
    assert!(mistakes.starts_with("providers.id.client_id: is missing"), "{mistakes}");
}

#[test]
fn all_mistakes_at_once_in_the_order_of_the_file() {
    let text = r#"
[server]
listen = "0.0.0.0:8080"
public_url = "https://proxy.example.com/graph"
colour = "red"

[server.limits]
requests = 0
header_timeout = 10

[providers.Entra]
tenant = "a/b"
client-id = "x"
authority = "http://login.example.com"

[upstreams.beta]
url = "http://graph.microsoft.com"
provider = "nobody"
scopes = []

[[clients]]
name = "a"

[[clients]]
name = "b"
key_hash = "sha256:12"
allow = ["get /v1.0/me", "GET v1.0", "* /v1.0/[", "GET /ok"]
accounts = ["{"]
identity = "service"
limits = { concurrent = "many" }

[log]
format = "xml"
"#;
    let expected = [
        "server.listen: needs server.tls beyond loopback",
        "server.public_url: must be an origin",
        "server.colour: no such key (line 5)",
        "server.limits.requests: must be at least 1",
        "server.limits.header_timeout: must be a duration",
        "providers.Entra: a provider's id has lower-case",
        "providers.Entra.client_id: is missing",
        "providers.Entra.tenant: must be a GUID",
        "providers.Entra.client-id: no such key; did you mean client_id?",
        "providers.Entra.authority: must be https",
        "upstreams.beta: this name is a path of our own",
        "upstreams.beta.url: must be https",
        "upstreams.beta.scopes: is empty",
        "clients[0]: exactly one of key_hash, mtls_san, peer_uid, jwt",
        "clients[1].key_hash: must have 64 hex digits",
        "clients[1].allow[0]: the method is written in capitals: GET",
        "clients[1].allow[1]: must be \"METHOD /path/glob\"",
        "clients[1].allow[2]: is not a pattern",
        "clients[1].accounts[0]: is not a pattern",
        "clients[1].identity: must be \"user\" or \"app\" or \"on-behalf-of\"",
        "clients[1].limits.concurrent: must be an integer, not a text",
        "log.format: must be \"text\" or \"json\"",
    ];
    let mistakes = bad(text);
    let lines: Vec<_> = mistakes.lines().collect();
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line:?} is not {expected:?} in\n{mistakes}");
    }
    assert_eq!(lines.len(), expected.len(), "{mistakes}");
}

#[test]
fn a_syntax_error_names_line_and_column_and_quotes_nothing() {
    let mistakes = bad("[server]\nlisten = \"127.0.0.1:1\"\n[admin]\ntoken = \"hunter2\n");
    assert!(mistakes.starts_with("bearerd.toml:4:"), "{mistakes}");
    assert!(!mistakes.contains("hunter2"), "{mistakes}");
    let open = bad("[server]\nallowed_hosts = [\"a\", \"b\"\n[admin]\nlisten = \"127.0.0.1:1\"\n");
    assert_eq!(open.lines().count(), 1, "what follows from it is not said: {open}");
}

#[test]
fn rules_between_keys() {
    let client = |rest: &str| format!("{MINIMAL}\n[[clients]]\nname = \"a\"\naccounts = [\"*\"]\n{rest}");
    let two = |first: &str, second: &str| {
        client(&format!("{first}\n[[clients]]\nname = \"b\"\naccounts = [\"*\"]\n{second}"))
    };
    let cases = [
        (String::new(), "providers: at least one is needed"),
        (format!("{MINIMAL}[admin]\nlisten = \"0.0.0.0:1\""), "admin.listen: needs token"),
        (format!("{MINIMAL}[admin]\ntoken = \"fifteen-letters\""), "admin.token: is shorter than 16 characters"),
        (format!("{MINIMAL}[signin]\nlisten = \"0.0.0.0:1\""), "signin.listen: needs server.tls"),
        (
            MINIMAL.replace("11111111-2222-3333-4444-555555555555", "<application id>"),
            "providers.entra.client_id: must be the application's id",
        ),
        (format!("{MINIMAL}issuer = \"https://a\""), "providers.entra.issuer: is for kind = \"oidc\" only"),
        (format!("{MINIMAL}[log]\nlevel = \"warning\""), "log.level: must be error, warn, info"),
        (format!("{MINIMAL}[log]\nlevel = \"\""), "log.level: must be error, warn, info"),
        (format!("{MINIMAL}[log]\nlevel = \"info,\""), "log.level: must be error, warn, info"),
        (format!("{MINIMAL}cloud = \"mars\""), "providers.entra.cloud: must be \"global\" or"),
        (format!("{MINIMAL}cloud = \"dod\"\nauthority = \"https://a\""), "providers.entra.authority: give either"),
        (format!("{MINIMAL}credentials = [{{}}]"), "providers.entra.credentials[0]: exactly one of"),
        (
            format!("{MINIMAL}credentials = [{{ managed_identity = true }}]"),
            "providers.entra.credentials[0].managed_identity: must be a text",
        ),
        (
            format!("{MINIMAL}credentials = [{{ certificate_file = \"x\" }}]"),
            "providers.entra.credentials[0].key_file: is missing",
        ),
        (format!("{MINIMAL}[store]\nkind = \"postgres\""), "store.kind: \"postgres\" is not supported by this version"),
        (format!("{MINIMAL}[store]\nurl = \"redis://a\""), "store.url: is not supported by this version"),
        (format!("{MINIMAL}[upstreams.arm]\nscopes = [\"x\"]"), "upstreams.arm.url: is missing"),
        (format!("{MINIMAL}[upstreams.arm]\nurl = \"https://a\""), "upstreams.arm.scopes: is missing"),
        (
            format!("{MINIMAL}[upstreams.graph]\nprovider = \"x\""),
            "upstreams.graph.provider: there is no provider \"x\", only entra",
        ),
        (format!("{MINIMAL}[providers.b]\nclient_id = \"x\"\ntenant = \"y\""), "upstreams.graph.provider: is missing"),
        (client("key_hash = \"hunter2\""), "clients[0].key_hash: must be"),
        (client("key_hash = \"$argon2id$v=19$m=1\""), "clients[0].key_hash: is not a whole argon2id"),
        (
            client("key_hash = \"$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo\""),
            "clients[0].key_hash: must be",
        ),
        (two("peer_uid = 1\nmtls_san = \"a\"", "peer_uid = 2"), "clients[0]: exactly one of"),
        (two("peer_uid = 1", "peer_uid = 1"), "clients[1].peer_uid: is the same as that of clients[0]"),
        (two(&format!("key_hash = \"{HASH}\""), &format!("key_hash = \"{HASH}\"")), "clients[1].key_hash: is the same"),
        (
            two("peer_uid = 1", "peer_uid = 2").replace("\"b\"", "\"a\""),
            "clients[1].name: is the same as that of clients[0]",
        ),
    ];
    each_is_one_mistake(cases);
}

#[test]
fn rules_that_can_never_mean_what_they_say() {
    let client = |rule: &str| {
        format!(
            "{MINIMAL}\n[[clients]]\nname = \"a\"\npeer_uid = 1\naccounts = [\"*\"]\ndeny = [\"* /v1.0/x\", '{rule}']"
        )
    };
    let cases = [
        ("get /v1.0/me", "the method is written in capitals: GET"),
        ("GET v1.0/me", "must be \"METHOD /path/glob\""),
        ("GET /v1.0/me?$top=1", "a rule is about the path, without a query"),
        ("GET /v1.0/me?top=1", "a rule is about the path, without a query"),
        ("GET /v1.0/me/../users", "never matches: paths with dot segments"),
        ("GET /v1.0/%2E/users", "never matches: paths with dot segments"),
        ("GET /v1.0//users", "never matches: paths with empty segments"),
        ("GET /as/alice/v1.0/me", "a rule is about the path without /as/ALIAS"),
        ("GET /v1.0/a%2fb", "a percent sign must begin"),
        ("GET /v1.0/100%", "a percent sign must begin"),
        ("GET /v1.0/%ff", "a percent sign must begin"),
        ("GET /v1.0/[\u{e9}]", "a class [...] has ASCII characters only"),
        ("GET /graph/v1.0/me", "never matches: paths of graph are judged without its name, as \"/v1.0/me\""),
        ("GET /v1.0/[", "is not a pattern"),
    ];
    each_is_one_mistake(cases.map(|(rule, said)| (client(rule), format!("clients[0].deny[1]: {said}"))));
}

#[test]
fn warnings_about_rules_that_match_nothing() {
    let client = |rules: &str| format!("[[clients]]\nname = \"a\"\npeer_uid = 1\naccounts = [\"*\"]\n{rules}\n");
    let said = |upstreams: &str, rules: &str| {
        let warnings = good(&format!("{MINIMAL}{}{upstreams}", client(rules))).warnings;
        warnings.into_iter().filter(|warning| !warning.contains("peer_uid")).collect::<Vec<_>>()
    };
    let billing = "[upstreams.graph]\n[upstreams.billing]\nurl = \"https://b\"\nscopes = [\"x\"]\n";
    let rules =
        "allow = [\"GET /v1.0/a?c/**\", \"LOCK /beta/x\", \"GET /billing/**\"]\ndeny = [\"* /**\", \"* /{v1.0/a,b}\"]";
    assert_eq!(
        said("", rules),
        [
            "clients[0].allow[1]: LOCK is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, MERGE",
            "clients[0].allow[2]: never matches: no upstream serves such a path",
        ]
    );
    assert_eq!(said(billing, rules).len(), 1);
    let others = "[upstreams.crm]\nurl = \"https://c\"\nscopes = [\"x\"]\n[upstreams.billing]\nurl = \"https://b\"\nscopes = [\"x\"]\n";
    let rules = "allow = [\"GET /V1.0/**\", \"GET /BILLING/x%20y\", \"GET /crm\"]";
    assert_eq!(said(others, rules), ["clients[0].allow[0]: never matches: no upstream serves such a path"]);
    let rules = "allow = [\"GET /v1.0/me\", \"* /v1.0/me/**\", \"POST /v1.0/me/sendMail\"]\nread_only = true";
    assert_eq!(said("", rules), ["clients[0].allow[2]: never matches: read_only lets GET and HEAD through only"]);
}

#[test]
fn what_is_allowed() {
    good(&format!("{MINIMAL}[server]\nlisten = \"0.0.0.0:1\"\nplaintext_ok = true"));
    good(&format!("{MINIMAL}[admin]\nlisten = \"unix:/run/admin.sock\""));
    let phc = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A";
    let text = format!(
        "{MINIMAL}[[clients]]\nname = \"a\"\nkey_hash = \"{phc}\"\naccounts = [\"alice\", \"*@contoso.com\"]\nallow = [\"GET /v1.0/**\", \"* /beta/me\"]"
    );
    let loaded = good(&text);
    assert!(matches!(&loaded.config.clients[0].credential, ClientCredential::PasswordHash(hash) if hash == phc));
    assert!(!loaded.toml().contains("iWh06vD8Fy27"), "{}", loaded.toml());
    let grace = good(
        "[providers.id]\nkind = \"oidc\"\nissuer = \"http://localhost:1/x\"\nclient_id = \"c\"\nrotation = \"grace:10s\"",
    );
    assert_eq!(grace.config.providers["id"].rotation, Rotation::Grace(Duration::from_secs(10)));
    let clouds = [
        ("global", "graph.microsoft.com"),
        ("usgov", "graph.microsoft.us"),
        ("dod", "dod-graph.microsoft.us"),
        ("china", "microsoftgraph.chinacloudapi.cn"),
    ];
    for (cloud, graph) in clouds {
        let config = good(&format!("{MINIMAL}cloud = \"{cloud}\"")).config;
        assert_eq!(config.upstreams["graph"].url.host_str(), Some(graph));
    }
}

#[test]
fn warnings_about_clients_that_nobody_can_be() {
    let client = |name: &str, rest: &str| format!("[[clients]]\nname = \"{name}\"\naccounts = [\"*\"]\n{rest}\n");
    let text =
        format!("{MINIMAL}{}{}[signin]\nmode = \"open\"", client("a", "mtls_san = \"a\""), client("b", "peer_uid = 1"));
    let warnings = good(&text).warnings.join("\n");
    for said in ["clients[0].mtls_san: never matches", "clients[1].peer_uid: never matches", "signin.mode: open, but"] {
        assert!(warnings.contains(said), "{said} in {warnings}");
    }
}

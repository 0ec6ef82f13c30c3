//! Whose tokens a client uses, how it proves itself by a token, what we prove ourselves with, and the defaults around them.

use std::time::Duration;

use bearerd::clock::Timestamp;
use bearerd::config::{AppCredential, ClientCredential, Config, Identity, ManagedIdentitySource};

use super::{HASH, MINIMAL, bad, each_is_one_mistake, good, load};

const WITH_SECRET: &str = "credentials = [{ secret = \"hunter2\" }]";
const JWT: &str = "jwt = { issuer = \"https://id.example.com/v2.0\", audience = \"api://b\" }";
const MANAGED: &str =
    "[providers.entra]\ntenant = \"contoso.com\"\ncredentials = [{ managed_identity = \"system\" }]\n";

fn client(rest: &str) -> String {
    format!("\n[[clients]]\nname = \"a\"\n{rest}\n")
}

fn keyed(rest: &str) -> String {
    client(&format!("key_hash = \"{HASH}\"\n{rest}"))
}

#[test]
fn every_identity_can_be_configured() {
    let jwt = r#"jwt = { issuer = "https://id.example.com/v2.0/", audience = ["a", "b"], jwks_url = "https://id.example.com/keys?appid=1", account_claim = "upn", required = { azp = "c" } }"#;
    let text = format!(
        "{MINIMAL}{WITH_SECRET}{}{}{}",
        keyed("identity = \"app\""),
        client(&format!("identity = \"on-behalf-of\"\n{jwt}")).replace("\"a\"\n", "\"b\"\n"),
        client(&format!("accounts = [\"*\"]\n{JWT}")).replace("\"a\"\n", "\"c\"\n"),
    );
    let loaded = good(&text);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let clients = &loaded.config.clients;
    let identities: Vec<_> = clients.iter().map(|client| client.identity).collect();
    assert_eq!(identities, [Identity::App, Identity::OnBehalfOf, Identity::User]);
    let ClientCredential::Jwt(jwt) = &clients[1].credential else { panic!("{:?}", clients[1]) };
    assert_eq!(jwt.issuer, "https://id.example.com/v2.0/", "to the letter");
    assert_eq!((&jwt.audience[..], jwt.account_claim.as_deref()), (&["a".to_owned(), "b".to_owned()][..], Some("upn")));
    assert_eq!(jwt.jwks_url.as_ref().and_then(|url| url.query()), Some("appid=1"));
    assert_eq!(jwt.required["azp"], "c");
    let ClientCredential::Jwt(jwt) = &clients[2].credential else { panic!("{:?}", clients[2]) };
    assert_eq!((jwt.audience.len(), &jwt.jwks_url, jwt.required.len()), (1, &None, 0));
}

#[test]
fn a_client_s_token_from_the_environment() {
    let environment = [
        ("BEARERD_CLIENTS__0__NAME", "a"),
        ("BEARERD_CLIENTS__0__ACCOUNTS", "*"),
        ("BEARERD_CLIENTS__0__JWT__ISSUER", "https://a"),
        ("BEARERD_CLIENTS__0__JWT__AUDIENCE", "b,c"),
        ("BEARERD_CLIENTS__0__JWT__REQUIRED", r#"{"azp": "d"}"#),
    ];
    let config = load(MINIMAL, &environment, &[]).expect("good").config;
    let ClientCredential::Jwt(jwt) = &config.clients[0].credential else { panic!("{:?}", config.clients) };
    assert_eq!((jwt.audience.len(), jwt.required["azp"].as_str()), (2, "d"));
}

#[test]
fn what_does_not_go_together_is_a_mistake() {
    let minimal = |rest: String| format!("{MINIMAL}{rest}");
    let secret = |rest: String| format!("{MINIMAL}{WITH_SECRET}{rest}");
    let jwt = |inside: &str| secret(client(&format!("accounts = [\"*\"]\njwt = {{ {inside} }}")));
    let shared = |rest: String| secret(rest).replace("contoso.onmicrosoft.com", "Organizations");
    let credential = |inside: &str| minimal(format!("credentials = [{{ {inside} }}]"));
    let cases = [
        (secret(keyed("identity = \"on-behalf-of\"")), "clients[0].identity: on-behalf-of needs a jwt"),
        (minimal(keyed("identity = \"app\"")), "clients[0].identity: needs a credential of our own"),
        (shared(keyed("identity = \"app\"")), "clients[0].identity: needs a tenant of its own"),
        (
            shared(client(&format!("identity = \"on-behalf-of\"\n{JWT}"))),
            "clients[0].identity: needs a tenant of its own",
        ),
        (
            format!("{MANAGED}{}", keyed("accounts = [\"*\"]")),
            "clients[0].identity: a managed identity without client_id is no user's",
        ),
        (
            format!("{MANAGED}{}", client(&format!("identity = \"on-behalf-of\"\n{JWT}"))),
            "clients[0].identity: a managed identity without client_id is no user's",
        ),
        (jwt("audience = \"a\""), "clients[0].jwt.issuer: is missing"),
        (jwt("issuer = \"https://a\""), "clients[0].jwt.audience: is missing"),
        (jwt("issuer = \"https://a\", audience = []"), "clients[0].jwt.audience: is empty"),
        (jwt("issuer = \"https://a\", audience = [\"b\", \"\"]"), "clients[0].jwt.audience[1]: is empty"),
        (jwt("issuer = \"http://a\", audience = \"b\""), "clients[0].jwt.issuer: must be https"),
        (jwt("issuer = \"a\", audience = \"b\""), "clients[0].jwt.issuer: must be a URL"),
        (
            jwt("issuer = \"https://a\", audience = \"b\", jwks_url = \"http://a\""),
            "clients[0].jwt.jwks_url: must be https",
        ),
        (
            jwt("issuer = \"https://a\", audience = \"b\", required = { n = 1 }"),
            "clients[0].jwt.required: must be a table of names and texts",
        ),
        (
            jwt("issuer = \"https://a\", audience = \"b\", required = [\"n\"]"),
            "clients[0].jwt.required: must be a table of names and texts",
        ),
        (
            secret(client(&format!("accounts = [\"*\"]\npeer_uid = 1\n{JWT}"))),
            "clients[0]: exactly one of key_hash, mtls_san, peer_uid, jwt",
        ),
        (
            secret(format!(
                "{}{}",
                client(&format!("accounts = [\"*\"]\n{JWT}")),
                client(&format!("accounts = [\"*\"]\n{JWT}")).replace("\"a\"\n", "\"b\"\n")
            )),
            "clients[1].jwt: is the same as that of clients[0]",
        ),
        (
            credential("secret = \"hunter2\", managed_identity = \"system\""),
            "providers.entra.credentials[0]: exactly one",
        ),
        (credential("managed_identity = \"<id>\""), "providers.entra.credentials[0].managed_identity: must be the"),
        (
            credential("secret = \"hunter2\", expires = \"soon\""),
            "providers.entra.credentials[0].expires: must be a date",
        ),
        (
            credential("managed_identity = \"system\", expires = 2027-01-31"),
            "providers.entra.credentials[0].expires: is for a secret only",
        ),
        (minimal("client_capabilities = [\"c p\"]".into()), "providers.entra.client_capabilities[0]: must be a word"),
        (minimal("idle_limit = \"90 days\"".into()), "providers.entra.idle_limit: must be a duration"),
        (
            minimal("token_requests = { concurrent = 0 }".into()),
            "providers.entra.token_requests.concurrent: must be from",
        ),
        (
            minimal("token_requests = { per_second = 0 }".into()),
            "providers.entra.token_requests.per_second: must be more",
        ),
        (
            minimal("[upstreams.graph]\napp_scopes = [\"User.Read\"]".into()),
            "upstreams.graph.app_scopes: must be one scope",
        ),
        (minimal("[upstreams.graph]\napp_scopes = []".into()), "upstreams.graph.app_scopes: is empty"),
    ];
    each_is_one_mistake(cases);
}

#[test]
fn what_one_of_several_providers_can_do_is_no_mistake() {
    let second = "[providers.second]\ntenant = \"b.com\"\ncredentials = [{ managed_identity = \"system\" }]\n";
    let upstreams = "[upstreams.graph]\nprovider = \"entra\"\n[upstreams.arm]\nurl = \"https://arm.example.com\"\nscopes = [\"x\"]\nprovider = \"second\"\n";
    let text = format!("{MINIMAL}{second}{upstreams}{}", keyed("accounts = [\"*\"]"));
    let config = good(&text).config;
    assert_eq!(config.providers["second"].client_id, "");
    good(&text.replace("accounts = [\"*\"]", "identity = \"app\""));
}

#[test]
fn accounts_of_a_client_that_uses_none_are_a_warning() {
    let app = keyed("identity = \"app\"\naccounts = [\"*\"]");
    let other = client(&format!("identity = \"on-behalf-of\"\naccounts = [\"*\"]\n{JWT}"));
    let text = format!("{MINIMAL}{WITH_SECRET}{app}{}", other.replace("\"a\"\n", "\"b\"\n"));
    let warnings = good(&text).warnings;
    assert_eq!(
        warnings,
        [
            "clients[0].accounts: is not used: identity = \"app\" acts for no account",
            "clients[1].accounts: is not used: identity = \"on-behalf-of\" acts for the user of its token",
        ]
    );
}

#[test]
fn a_managed_identity_is_found_as_the_azure_sdks_find_it() {
    let of = |text: &str, environment: &[(&str, &str)]| {
        let config = load(text, environment, &[]).expect("good").config;
        let [AppCredential::ManagedIdentity(identity)] = &config.providers["entra"].credentials[..] else {
            panic!("{:?}", config.providers["entra"])
        };
        let source = match &identity.source {
            ManagedIdentitySource::Imds(origin) => format!("imds {origin}"),
            ManagedIdentitySource::AppService { endpoint, header } => format!("{endpoint} {}", header.expose()),
        };
        (identity.client_id.clone(), source)
    };
    assert_eq!(of(MANAGED, &[]), (None, "imds http://169.254.169.254/".into()));
    let user_assigned = MANAGED.replace("\"system\"", "\"1234\"");
    let proxy = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:7/");
    assert_eq!(of(&user_assigned, &[proxy]), (Some("1234".into()), "imds http://127.0.0.1:7/".into()));
    let endpoint = ("IDENTITY_ENDPOINT", "http://169.254.129.2:8081/msi/token");
    assert_eq!(of(MANAGED, &[endpoint]), (None, "imds http://169.254.169.254/".into()), "it takes both");
    let all = [proxy, endpoint, ("IDENTITY_HEADER", "hunter2")];
    assert_eq!(of(MANAGED, &all), (None, "http://169.254.129.2:8081/msi/token hunter2".into()));

    for (name, value, expected) in [
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://10.0.0.1", "must be https, loopback or link-local"),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1/a", "must be an origin"),
        ("IDENTITY_ENDPOINT", "http://evil.example.com", "must be https, loopback or link-local"),
        ("IDENTITY_ENDPOINT", "nonsense", "must be a URL"),
    ] {
        let environment = [(name, value), ("IDENTITY_HEADER", "hunter2")];
        let mistakes = load(MANAGED, &environment, &[]).map(|_| ()).expect_err(value).to_string();
        let start = format!("providers.entra.credentials[0].managed_identity: {name} in the environment {expected}");
        assert!(mistakes.starts_with(&start), "{mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
    let oidc =
        "[providers.id]\nkind = \"oidc\"\nissuer = \"https://a\"\ncredentials = [{ managed_identity = \"system\" }]";
    assert_eq!(bad(oidc).lines().count(), 1, "{}", bad(oidc));
    assert!(bad(oidc).contains("managed_identity: is for kind = \"entra\" only"), "{}", bad(oidc));
}

#[test]
fn defaults_follow_the_kind_of_the_provider() {
    let oidc = "[providers.id]\nkind = \"oidc\"\nissuer = \"https://a\"\nclient_id = \"c\"\n[upstreams.api]\nurl = \"https://api\"\nscopes = [\"x\", \"y\"]";
    let (entra, generic) = (good(MINIMAL).config, good(oidc).config);
    let (entra, generic) = (&entra.providers["entra"], &generic.providers["id"]);
    assert_eq!((&entra.client_capabilities[..], generic.client_capabilities.len()), (&["cp1".to_owned()][..], 0));
    assert_eq!((entra.idle_limit, generic.idle_limit), (Some(Duration::from_hours(90 * 24)), None));
    assert_eq!((entra.token_requests.concurrent, entra.token_requests.per_second), (32, 200.0));
    let told = "client_capabilities = []\nidle_limit = \"30d\"\ntoken_requests = { concurrent = 2, per_second = 0.5 }";
    let told = good(&format!("{MINIMAL}{told}\ncredentials = [{{ secret = \"x\", expires = 2027-01-31 }}]")).config;
    let told = &told.providers["entra"];
    assert_eq!((told.client_capabilities.len(), told.idle_limit), (0, Some(Duration::from_hours(30 * 24))));
    assert_eq!((told.token_requests.concurrent, told.token_requests.per_second), (2, 0.5));
    let at = Timestamp::from_secs(1_801_353_600);
    assert!(
        matches!(&told.credentials[..], [AppCredential::Secret { expires, .. }] if *expires == Some(at)),
        "{:?}",
        told.credentials
    );
}

#[test]
fn what_the_application_itself_asks_for() {
    let of = |config: &Config, name: &str| config.upstreams[name].app_scopes.join(" ");
    let arm = "[upstreams.graph]\n[upstreams.same]\nurl = \"https://graph.microsoft.us/\"\nscopes = [\"x\"]\n[upstreams.arm]\nurl = \"https://arm.example.com:8443\"\nscopes = [\"x\"]";
    let config = good(&format!("{MINIMAL}cloud = \"usgov\"\n{arm}")).config;
    assert_eq!(of(&config, "graph"), "https://graph.microsoft.us/.default");
    assert_eq!(of(&config, "same"), "https://graph.microsoft.us/.default");
    assert_eq!(of(&config, "arm"), "https://arm.example.com:8443/.default");
    let near = format!("{MINIMAL}[upstreams.graph]\nurl = \"http://127.0.0.1:1\"");
    assert_eq!(of(&good(&near).config, "graph"), "https://graph.microsoft.com/.default", "wherever it is reached");
    let told = format!("{near}\napp_scopes = \"api://billing/.default\"");
    assert_eq!(of(&good(&told).config, "graph"), "api://billing/.default");
    let oidc = "[providers.id]\nkind = \"oidc\"\nissuer = \"https://a\"\nclient_id = \"c\"\n[upstreams.api]\nurl = \"https://api\"\nscopes = [\"x\", \"y\"]";
    assert_eq!(of(&good(oidc).config, "api"), "x y");
}

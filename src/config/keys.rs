//! Every key of the configuration, once: its type, what holds when it is left out, and one line of why.
//!
//! The reader, the environment names, the JSON Schema, `config print` and the test of `config/example.toml` all work from this table.
//! A key that is not here does not exist. What a value means beyond its type is checked in `resolve`.

mod nearest;

pub use self::nearest::nearest;
use Kind::{Choice, Duration, Flag, Integer, List, Named, Number, Secret, Share, Table, Tables, Text, Texts};
use Presence::{Default, Optional, Required, Reserved};

pub type Keys = &'static [Key];

pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub presence: Presence,
    pub why: &'static str,
}

#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// Text that is never shown.
    Secret,
    Flag,
    Integer,
    Number,
    /// A part of a whole: 0 to 1.
    Share,
    /// `500ms`, `10s`, `2m`, `1h`, `90d`.
    Duration,
    /// One of the first words. The others are words of the contract that this version does not implement.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// Texts; a single text is a list of one.
    List,
    /// Texts under names that the user gives.
    Texts,
    Table(Keys),
    /// Tables under names that the user gives.
    Named(Keys),
    /// `[[name]]`.
    Tables(Keys),
}

/// What holds when the key is left out. Values are written as an environment variable would say them.
#[derive(Clone, Copy)]
pub enum Presence {
    Default(&'static str),
    /// Nothing, or what `why` says; the text is a sample.
    Optional(&'static str),
    /// A mistake; the text is a sample.
    Required(&'static str),
    /// A word of the contract that this version does not implement.
    Reserved,
}

pub const FILE: Keys = &[
    key("server", Table(SERVER), Optional(""), "The data listener."),
    key("admin", Table(ADMIN), Optional(""), "Health, metrics, the admin API."),
    key("signin", Table(SIGNIN), Optional(""), "The sign-in pages under /.bearerd/."),
    key("store", Table(STORE), Optional(""), "Where grants are kept, sealed."),
    key("providers", Named(PROVIDER), Optional(""), "Identity providers; the table's name is the provider's id."),
    key("upstreams", Named(UPSTREAM), Optional(""), "The APIs that are proxied; none at all: Microsoft Graph."),
    key("clients", Tables(CLIENT), Optional(""), "The calling applications; `bearerd clients new` makes an entry."),
    key("audit", Table(AUDIT), Optional(""), "Who did what: kept in the store too."),
    key("log", Table(LOG), Optional(""), "What goes to standard error."),
    key("traces", Table(TRACES), Optional(""), "Traces by OpenTelemetry (OTLP over HTTP)."),
];

const SERVER: Keys = &[
    key("listen", List, Default("127.0.0.1:8080"), "IP:port or unix:/path; one or a list"),
    key("public_url", Text, Optional("http://127.0.0.1:8080"), "how clients reach us; default: the first listen"),
    key("allowed_hosts", List, Default(""), "further names accepted in Host"),
    key(
        "trusted_proxies",
        List,
        Default(""),
        "networks whose X-Forwarded-For we believe, for logs and limits only, and X-Forwarded-Proto, for links",
    ),
    key("plaintext_ok", Flag, Default("false"), "must be true to listen without TLS on a non-loopback address"),
    key("workers", Integer, Default("0"), "threads of the data path; 0: one per core"),
    key(
        "share_port",
        Flag,
        Default("false"),
        "all listeners may share their ports with another bearerd of this user: for a rolling restart",
    ),
    key("tls", Table(TLS), Optional(""), "TLS on the data listener; without it: plain HTTP."),
    key("limits", Table(LIMITS), Optional(""), "Limits of the data listener; sizes in bytes."),
];

const TLS: Keys = &[
    key("cert_file", Text, Required("/etc/bearerd/tls.crt"), "PEM of the certificate and its chain"),
    key("key_file", Text, Required("/etc/bearerd/tls.key"), "PEM of its private key, mode 0600"),
    key(
        "client_ca_file",
        Text,
        Optional("/etc/bearerd/clients-ca.crt"),
        "PEM of the CAs whose client certificates count",
    ),
];

const LIMITS: Keys = &[
    key("connections", Integer, Default("10000"), "open client connections in all"),
    key("requests", Integer, Default("1024"), "requests in flight in all; past it they wait, newest first"),
    key("wait", Duration, Default("300ms"), "for a request to end, past that: overloaded; 0s: at once"),
    key(
        "waiting",
        Integer,
        Optional("10000"),
        "that wait at a time, past it the oldest: overloaded; default: as many as connections",
    ),
    key(
        "memory_bytes",
        Integer,
        Optional("1073741824"),
        "resident memory past which all is overloaded; 0: never; default: 90 % of the cgroup's limit",
    ),
    key("header_timeout", Duration, Default("30s"), "for a request's head to arrive; ends idle connections too"),
    key("header_bytes", Integer, Default("65536"), "a request's head; past it: headers_too_large"),
    key("uri_bytes", Integer, Default("32768"), "the request target; past it: uri_too_long"),
    key("body_bytes", Integer, Optional("104857600"), "a request's body; without it: no limit"),
    key("replay_bytes", Integer, Default("4194304"), "kept of one body for a replay after a 401"),
    key("replay_total_bytes", Integer, Default("67108864"), "kept of all bodies together"),
    key("drain_delay", Duration, Default("0s"), "how long a shutdown shows in /readyz before nothing more is accepted"),
    key("drain_timeout", Duration, Default("25s"), "how long a shutdown waits for requests under way"),
];

const ADMIN: Keys = &[
    key("listen", Text, Default("127.0.0.1:8081"), "IP:port or unix:/path"),
    key("token", Secret, Optional("********"), "bearer token of the API; needed when not on loopback or a Unix socket"),
    key("token_file", Text, Optional("/run/secrets/admin-token"), "the same, from a file"),
];

const SIGNIN: Keys = &[
    key(
        "listen",
        Text,
        Optional("127.0.0.1:8082"),
        "a listener of its own; without it: under /.bearerd/ on the data listener",
    ),
    key(
        "public_url",
        Text,
        Optional("http://127.0.0.1:8080"),
        "where browsers reach the pages; default: server.public_url",
    ),
    key(
        "mode",
        Choice(&["invite", "open"], &[]),
        Default("invite"),
        "invite: by a single-use link; open: anyone of an allowed tenant",
    ),
    key("device_code", Flag, Default("false"), "offer the device code flow on the pages"),
];

const STORE: Keys = &[
    key(
        "kind",
        Choice(&["embedded"], &["postgres", "redis"]),
        Default("embedded"),
        "embedded: a directory on this machine",
    ),
    key("path", Text, Default("./bearerd-data"), "the directory, from the working directory"),
    key("key", Secret, Optional("********"), "the encryption key itself: base64 of 32 bytes; replaces key_file"),
    key(
        "key_file",
        Text,
        Default("./bearerd-data/store.key"),
        "base64 of 32 bytes, mode 0600; made on the first start",
    ),
    key("url", Text, Reserved, ""),
    key("url_file", Text, Reserved, ""),
];

const PROVIDER: Keys = &[
    key(
        "kind",
        Choice(&["entra", "oidc"], &[]),
        Default("entra"),
        "entra: Microsoft Entra ID; oidc: any OpenID Connect provider",
    ),
    key("cloud", Choice(CLOUDS, &[]), Default("global"), "entra: global, usgov, dod or china"),
    key(
        "authority",
        Text,
        Optional("https://login.microsoftonline.com"),
        "entra, instead of cloud: the origin, without the tenant",
    ),
    key("tenant", Text, Optional("contoso.onmicrosoft.com"), "entra: GUID, domain, organizations or common"),
    key(
        "client_id",
        Text,
        Optional("11111111-2222-3333-4444-555555555555"),
        "the application's id at the provider; left out only where a managed identity is the application",
    ),
    key(
        "credentials",
        Tables(CREDENTIAL),
        Optional(""),
        "Our own credentials there, tried in order; none: a public client.",
    ),
    key("allowed_tenants", List, Default(""), "tenant ids that may sign in; empty: any that the provider lets in"),
    key("issuer", Text, Optional("https://id.example.com"), "oidc: the issuer's URL"),
    key(
        "rotation",
        Text,
        Optional("tolerant"),
        "of refresh tokens: tolerant, strict or grace:10s; default: tolerant for entra, else strict",
    ),
    key(
        "ca_file",
        Text,
        Optional("/etc/bearerd/provider-ca.crt"),
        "PEM of further trust anchors for the provider's TLS",
    ),
    key(
        "client_capabilities",
        List,
        Optional("cp1"),
        "what we say that we can handle; cp1: claims challenges; default: cp1 for entra, else nothing",
    ),
    key(
        "idle_limit",
        Duration,
        Optional("90d"),
        "a refresh token that is unused for so long lapses; default: 90d for entra, else never",
    ),
    key("token_requests", Table(TOKEN_REQUESTS), Optional(""), "How much is asked of the token endpoint."),
];

const TOKEN_REQUESTS: Keys = &[
    key("concurrent", Integer, Default("32"), "under way at a time"),
    key("per_second", Number, Default("200"), "begun in a second"),
];

const CREDENTIAL: Keys = &[
    key("secret", Secret, Optional("********"), "a client secret"),
    key("secret_file", Text, Optional("/run/secrets/client-secret"), "the same, from a file"),
    key("certificate_file", Text, Optional("/etc/bearerd/app.crt"), "PEM of a certificate; with key_file"),
    key("key_file", Text, Optional("/etc/bearerd/app.key"), "PEM of its private key, mode 0600"),
    key(
        "federated_token_file",
        Text,
        Optional("/var/run/secrets/azure/tokens/token"),
        "a workload's token; read at each use",
    ),
    key(
        "managed_identity",
        Text,
        Optional("system"),
        "of this Azure machine: system, or the client id of a user-assigned one",
    ),
    key("expires", Text, Optional("2027-01-31"), "when the secret lapses, RFC 3339; for the metric and its warning"),
];

const UPSTREAM: Keys = &[
    key(
        "url",
        Text,
        Optional("https://graph.microsoft.com"),
        "an origin; default for graph: its root in the provider's cloud",
    ),
    key(
        "kind",
        Choice(&["graph", "rest"], &[]),
        Optional("graph"),
        "graph: Microsoft Graph, with $batch and workloads; rest: any API; default: graph where the name or the url is Graph's, else rest",
    ),
    key("provider", Text, Optional("entra"), "whose tokens it takes; default: the only provider"),
    key("scopes", List, Optional("User.Read"), "asked for at sign-in; default for graph: User.Read"),
    key(
        "app_scopes",
        List,
        Optional("https://graph.microsoft.com/.default"),
        "for clients with identity = \"app\"; default for entra: the API's /.default, else scopes",
    ),
    key(
        "rewrite_links",
        Flag,
        Default("true"),
        "links in answers and requests, $batch members included, are turned between its origin and what the client used",
    ),
    key(
        "ca_file",
        Text,
        Optional("/etc/bearerd/upstream-ca.crt"),
        "PEM of further trust anchors for the upstream's TLS",
    ),
    key(
        "http",
        Choice(&["auto", "1", "2"], &[]),
        Default("auto"),
        "auto, 1 or 2; auto: by ALPN over TLS, HTTP/1.1 on plain http",
    ),
    key("timeout", Duration, Default("100s"), "until the first byte of the answer"),
    key("connect_timeout", Duration, Default("5s"), "for name, connection and TLS together"),
    key("idle_timeout", Duration, Default("60s"), "without a byte in either direction"),
    key("throttling", Table(THROTTLING), Optional(""), "What happens when it throttles."),
];

const THROTTLING: Keys = &[
    key("patience", Duration, Default("10s"), "from its beginning, a request is kept waiting no longer"),
    key("mailbox_concurrent", Integer, Default("4"), "graph: requests at a time for each mailbox; 0: no limit"),
    key("queue", Integer, Default("64"), "graph: requests that wait for one mailbox or pause; past it: throttled"),
    key("retry_budget", Share, Default("0.2"), "retries as a part of all requests, besides ten a second"),
];

const CLIENT: Keys = &[
    key("name", Text, Required("payroll"), "for logs and metrics; used once"),
    key("key_hash", Text, Optional(SAMPLE_HASH), "sha256:<64 hex> of a key that we made, or an argon2id PHC string"),
    key("mtls_san", Text, Optional("payroll.example.com"), "instead: a name in the client's certificate"),
    key("peer_uid", Integer, Optional("1000"), "instead: the user id of a Unix socket's peer"),
    key("jwt", Table(JWT), Optional(""), "Instead: a token (JWT) of an issuer that we trust, as a Bearer."),
    key(
        "identity",
        Choice(&["user", "app", "on-behalf-of"], &[]),
        Default("user"),
        "whose tokens it uses: user (of a signed-in account), app (our own) or on-behalf-of (of its jwt's user)",
    ),
    key("accounts", List, Default(""), "aliases or patterns that it may act for; empty: none"),
    key("allow", List, Default(""), "`METHOD /path/glob` rules; empty: everything"),
    key("deny", List, Default(""), "the same, looked at first"),
    key("read_only", Flag, Default("false"), "GET and HEAD only, $batch members included"),
    key("limits", Table(CLIENT_LIMITS), Optional(""), "Limits of this client."),
];

const JWT: Keys = &[
    key("issuer", Text, Required("https://login.microsoftonline.com/TENANT-ID/v2.0"), "iss, to the letter"),
    key("audience", List, Required("api://bearerd"), "what has to stand in aud; of a list, one"),
    key("jwks_url", Text, Optional("https://id.example.com/keys"), "its keys; default: as the issuer's discovery says"),
    key("account_claim", Text, Optional("preferred_username"), "the claim that names the account; then it is needed"),
    key("required", Texts, Optional("{ azp = \"CLIENT-ID\" }"), "claims and the value that each has to have"),
    key("ca_file", Text, Optional("/etc/bearerd/issuer-ca.crt"), "PEM of further trust anchors for the issuer's TLS"),
];

const CLIENT_LIMITS: Keys = &[
    key("requests_per_second", Number, Optional("50"), "past it: throttled"),
    key("concurrent", Integer, Optional("64"), "requests in flight; past it: throttled"),
];

const AUDIT: Keys = &[key("keep", Duration, Default("400d"), "records older than this are erased")];

const LOG: Keys = &[
    key("level", Text, Default("info"), "error, warn, info, debug or trace, or filters as in RUST_LOG"),
    key("format", Choice(&["text", "json"], &[]), Default("text"), "text or json, one line per event"),
    key(
        "access",
        Choice(&["path", "off"], &[]),
        Default("path"),
        "path: one event per request, with the path, without the query; off: none",
    ),
];

const TRACES: Keys = &[
    key(
        "endpoint",
        Text,
        Optional("http://127.0.0.1:4318"),
        "the collector; /v1/traces is appended; without it nothing is traced",
    ),
    key(
        "headers",
        Secret,
        Optional("********"),
        "for the collector, as in OTEL_EXPORTER_OTLP_HEADERS: name=value,name=value",
    ),
    key("headers_file", Text, Optional("/run/secrets/otlp-headers"), "the same, from a file"),
    key(
        "ca_file",
        Text,
        Optional("/etc/bearerd/collector-ca.crt"),
        "PEM of further trust anchors for the collector's TLS",
    ),
    key(
        "sample",
        Share,
        Default("1"),
        "the part of all requests that start a trace here, 0 to 1; a known client's own traceparent decides for itself",
    ),
    key("service_name", Text, Default("bearerd"), "service.name of every span"),
];

const CLOUDS: &[&str] = &["global", "usgov", "dod", "china"];

const SAMPLE_HASH: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const fn key(name: &'static str, kind: Kind, presence: Presence, why: &'static str) -> Key {
    Key { name, kind, presence, why }
}

/// The key of that name in one table.
pub fn find(keys: Keys, name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_used_once_and_every_key_says_why() {
        fn walk(keys: Keys) {
            for (at, key) in keys.iter().enumerate() {
                assert!(keys[..at].iter().all(|other| other.name != key.name), "{} twice", key.name);
                assert_ne!(key.why.is_empty(), !matches!(key.presence, Reserved), "{}", key.name);
                if let Table(keys) | Named(keys) | Tables(keys) = key.kind {
                    walk(keys);
                }
            }
        }
        walk(FILE);
    }
}

//! From the configuration as written to the configuration as meant: defaults filled in, files read, rules checked.
//!
//! Every function reads all of its keys before it gives up, so that one run reports every mistake.

mod client;
mod credential;
mod identity;
mod provider;
mod rules;
mod traces;
mod upstream;

pub use client::client_name;
pub use provider::{client_id, tenant};

use std::collections::BTreeMap;
use std::net::IpAddr;

use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::files;
use super::keys::FILE;
use super::mistakes::Reported;
use super::read::{Report, Section};
use super::tree::Table;
use super::values::{self, delay, duration, flag, integer, of_text};
use super::{
    Admin, Audit, Config, Listen, Log, LogAccess, LogFormat, Masked, Server, ServerLimits, Signin, SigninMode, Store,
    Tls,
};

/// The names of our own paths on the data listener, which no upstream can have. (`v1.0` and `.bearerd` are no names anyway.)
const OWN_PATHS: [&str; 4] = ["v1.0", "beta", "as", ".bearerd"];

/// `environment` is for what the Azure SDKs read there and what is no key of the file.
pub fn resolve(tree: &Table, environment: &BTreeMap<String, String>, report: &Report) -> Result<Config, Reported> {
    let root = Section::root(FILE, tree, report);
    let server = root.section("server").and_then(|section| server(&section));
    let plain = server.as_ref().is_ok_and(|(server, plaintext_ok)| server.tls.is_none() && !plaintext_ok);
    let server = server.map(|(server, _)| server);
    let admin = root.section("admin").and_then(|section| admin(&section));
    let signin = root.section("signin").and_then(|section| signin(&section, server.as_ref().ok(), plain));
    let store = root.section("store").and_then(|section| store(&section));
    let providers = provider::providers(&root, environment);
    let upstreams = upstream::upstreams(&root, providers.as_ref().ok());
    let able = match (&providers, &upstreams) {
        (Ok(providers), Ok(upstreams)) => Some(identity::Able::new(&providers.resolved, upstreams)),
        _ => None,
    };
    let clients = client::clients(&root, server.as_ref().ok(), upstreams.as_ref().ok(), able.as_ref());
    let audit = root.section("audit").and_then(|section| Ok(Audit { keep: section.get("keep", duration)? }));
    let log = root.section("log").and_then(|section| log(&section));
    let traces = root.section("traces").and_then(|section| traces::traces(&section));
    let config = Config {
        server: server?,
        admin: admin?,
        signin: signin?,
        store: store?,
        providers: providers?.resolved,
        upstreams: upstreams?,
        clients: clients?,
        audit: audit?,
        log: log?,
        traces: traces?,
        // Known when everything is read.
        masked: Masked::default(),
    };
    let open_to_nobody = config.providers.values().all(|provider| provider.allowed_tenants.is_empty());
    if config.signin.mode == SigninMode::Open && open_to_nobody {
        report
            .warn("signin.mode: open, but no provider names allowed_tenants: nobody can sign in without a link".into());
    }
    Ok(config)
}

/// `admin.listen` alone.
pub fn admin_listen(tree: &Table, report: &Report) -> Result<Listen, Reported> {
    Section::root(FILE, tree, report).section("admin")?.get("listen", of_text(values::listen))
}

/// With it, whether plain HTTP may leave this machine.
fn server(section: &Section<'_>) -> Result<(Server, bool), Reported> {
    let listen = section.list("listen", values::listen).and_then(|listen| match &listen[..] {
        [] => Err(section.mistake("listen", "is empty")),
        _ => Ok(listen),
    });
    let public_url = section.find("public_url", of_text(values::origin));
    let allowed_hosts = section.list("allowed_hosts", values::host);
    let trusted_proxies = section.list("trusted_proxies", values::network);
    let plaintext_ok = section.get("plaintext_ok", flag);
    let workers = section.get("workers", integer(0..=1024));
    let share_port = section.get("share_port", flag);
    let tls = section.find_section("tls").and_then(|tls_section| tls_section.as_ref().map(tls).transpose());
    let limits = section.section("limits").and_then(|section| limits(&section));

    if let (Ok(listen), Ok(false), Ok(None)) = (&listen, &plaintext_ok, &tls)
        && listen.iter().any(|listen| !is_private(listen))
    {
        section.mistake("listen", NEEDS_TLS);
    }
    let (listen, tls) = (listen?, tls?);
    let public_url = public_url?.unwrap_or_else(|| url_of(&listen[0], tls.is_some()));
    section.derived("public_url", text_of(&public_url));
    let workers = match workers? {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let server = Server {
        listen,
        public_url,
        allowed_hosts: allowed_hosts?,
        trusted_proxies: trusted_proxies?,
        workers,
        share_port: share_port?,
        tls,
        limits: limits?,
    };
    Ok((server, plaintext_ok?))
}

/// Of a random token, more than anybody can try, also from an address whose right tokens always pass.
const SHORTEST_TOKEN: usize = 16;

const NEEDS_TLS: &str =
    "needs server.tls beyond loopback, or plaintext_ok = true in [server] where something in front ends TLS";

fn tls(section: &Section<'_>) -> Result<Tls, Reported> {
    let cert_file = section.get("cert_file", values::path);
    let key_file = section.get("key_file", values::path);
    let cert_pem = cert_file.and_then(|path| Ok((section.file("cert_file", &path, files::certificates)?, path)));
    let key_pem = key_file.and_then(|path| Ok((section.file("key_file", &path, files::private_key)?, path)));
    let client_ca_pem = section.certificates("client_ca_file");
    let ((cert_pem, cert_file), (key_pem, key_file)) = (cert_pem?, key_pem?);
    if let Err(what) = files::pair(&cert_pem, &key_pem) {
        return Err(section.mistake("key_file", format!("{}: {what}", key_file.display())));
    }
    Ok(Tls { cert_file, cert_pem, key_file, key_pem, client_ca_pem: client_ca_pem? })
}

fn limits(section: &Section<'_>) -> Result<ServerLimits, Reported> {
    let connections = section.get("connections", integer(1..=i64::MAX));
    let requests = section.get("requests", integer(1..=i64::MAX));
    let wait = section.get("wait", delay);
    let waiting = section.find("waiting", integer(0..=i64::MAX));
    let memory_bytes = section.find("memory_bytes", integer(0..=i64::MAX));
    let header_timeout = section.get("header_timeout", duration);
    // The HTTP library keeps at least 8 KiB, and counts a head in 32 bits for HTTP/2.
    let header_bytes = section.get("header_bytes", integer(8192..=i64::from(i32::MAX)));
    let uri_bytes = section.get("uri_bytes", integer(256..=65534));
    let body_bytes = section.find("body_bytes", integer(0..=i64::MAX));
    let replay_bytes = section.get("replay_bytes", integer(0..=i64::MAX));
    let replay_total_bytes = section.get("replay_total_bytes", integer(0..=i64::MAX));
    let drain_delay = section.get("drain_delay", delay);
    let drain_timeout = section.get("drain_timeout", duration);
    let connections: usize = connections?;
    let waiting = waiting?.unwrap_or(connections);
    section.derived("waiting", i64::try_from(waiting).unwrap_or(i64::MAX));
    Ok(ServerLimits {
        connections,
        requests: requests?,
        wait: wait?,
        waiting,
        memory_bytes: memory_bytes?,
        header_timeout: header_timeout?,
        header_bytes: header_bytes?,
        uri_bytes: uri_bytes?,
        body_bytes: body_bytes?,
        replay_bytes: replay_bytes?,
        replay_total_bytes: replay_total_bytes?,
        drain_delay: drain_delay?,
        drain_timeout: drain_timeout?,
    })
}

fn admin(section: &Section<'_>) -> Result<Admin, Reported> {
    let listen = section.get("listen", of_text(values::listen));
    let token = section.secret("token").and_then(|token| match &token {
        Some(secret) if secret.expose().chars().count() < SHORTEST_TOKEN => {
            let key = if section.has("token") { "token" } else { "token_file" };
            let what = format!(
                "is shorter than {SHORTEST_TOKEN} characters: it could be guessed; openssl rand -hex 32 makes one"
            );
            Err(section.mistake(key, what))
        }
        _ => Ok(token),
    });
    if let (Ok(listen), Ok(None)) = (&listen, &token)
        && !is_private(listen)
    {
        section.mistake("listen", "needs token or token_file: it is neither a loopback address nor a Unix socket");
    }
    Ok(Admin { listen: listen?, token: token? })
}

/// `plain`: what listens speaks plain HTTP and must not leave this machine.
fn signin(section: &Section<'_>, server: Option<&Server>, plain: bool) -> Result<Signin, Reported> {
    let listen = section.find("listen", of_text(values::listen)).and_then(|listen| match &listen {
        Some(listen) if plain && !is_private(listen) => Err(section.mistake("listen", NEEDS_TLS)),
        _ => Ok(listen),
    });
    let public_url = section.find("public_url", of_text(values::origin));
    let mode = section.choice("mode", &[("invite", SigninMode::Invite), ("open", SigninMode::Open)]);
    let device_code = section.get("device_code", flag);
    let public_url = match (public_url?, server) {
        (Some(url), _) => url,
        (None, Some(server)) => server.public_url.clone(),
        (None, None) => return Err(Reported),
    };
    section.derived("public_url", text_of(&public_url));
    if public_url.scheme() == "http" && !values::is_loopback(&public_url) {
        section.warn("public_url", "sign-in over plain http: most providers refuse such a redirect URI");
    }
    Ok(Signin { listen: listen?, public_url, mode: mode?, device_code: device_code? })
}

fn store(section: &Section<'_>) -> Result<Store, Reported> {
    let kind = section.choice("kind", &[("embedded", ())]);
    let path = section.get("path", values::path);
    let key = section.find("key", values::filled).map(|key| key.map(crate::secret::Secret::new));
    let key_file = section.get("key_file", values::path);
    if section.has("key") && section.has("key_file") {
        return Err(section.mistake("key", "give either key or key_file, not both"));
    }
    if let Ok(path) = &key_file
        && path.exists()
    {
        section.checked("key_file", path, files::secret)?;
    }
    kind?;
    Ok(Store { path: path?, key: key?, key_file: key_file? })
}

fn log(section: &Section<'_>) -> Result<Log, Reported> {
    let level = section.get("level", of_text(log_filter));
    let format = section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let access = section.choice("access", &[("path", LogAccess::Path), ("off", LogAccess::Off)]);
    Ok(Log { level: level?, format: format?, access: access? })
}

fn log_filter(text: &str) -> Result<String, String> {
    // A word that is no level is a target to a filter, and everything else falls silent: `warning` would do that.
    let is_target = |word: &str| word.contains(['=', '[']) || word.starts_with("bearerd");
    let means_something = |word: &str| !word.is_empty() && (is_target(word) || word.parse::<LevelFilter>().is_ok());
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if text.split(',').all(|word| means_something(word.trim())) => Ok(text.to_owned()),
        _ => Err("must be error, warn, info, debug or trace, or a filter such as \"info,bearerd::vault=debug\"".into()),
    }
}

/// Only this machine can reach it.
fn is_private(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(address) => address.ip().is_loopback(),
        Listen::Unix(_) => true,
    }
}

/// Where a listener is reached from the same machine.
fn url_of(listen: &Listen, tls: bool) -> Url {
    let scheme = if tls { "https" } else { "http" };
    let authority = match listen {
        Listen::Unix(_) => "localhost".to_owned(),
        Listen::Tcp(address) => match address.ip() {
            ip if ip.is_unspecified() => format!("localhost:{}", address.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => address.to_string(),
        },
    };
    Url::parse(&format!("{scheme}://{authority}")).expect("a scheme and an address make a URL")
}

/// An origin without the slash that `Url` puts at its end.
fn text_of(origin: &Url) -> String {
    origin.as_str().trim_end_matches('/').to_owned()
}

//! `bearerd sandbox`: the whole system on this machine. Simulated Entra ID and Graph, the proxy in front of them, accounts signed
//! in, a client key, and what to try next. The store is a new directory that goes when the sandbox ends.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::accounts::by_operator;
use super::clients::{key_hash, new_key};
use super::serve::{Signals, harden, slow_runtime};
use super::{Sandbox as Wanted, say};
use crate::account::Alias;
use crate::app::App;
use crate::audit::Event;
use crate::clock::Clock;
use crate::config::{Config, environment, temporary_directory};
use crate::sandbox::{GraphOptions, Options, Sandbox, User};
use crate::secret::Secret;
use crate::signin::{Invite, create_invite, login_url};
use crate::tasks::Tasks;
use crate::telemetry;
use crate::vault::Import;

pub fn run(wanted: &Wanted) -> anyhow::Result<()> {
    let (key, daemon_key) = (new_key()?, new_key()?);
    slow_runtime()?.block_on(async {
        let (clock, tasks) = (Clock::system(), Tasks::on(tokio::runtime::Handle::current()));
        let mut signals = Signals::new()?;
        // One more than are signed in, so that there is somebody to sign in by hand.
        let users = wanted.users + 1;
        let certificate = wanted
            .client_certificate
            .as_deref()
            .map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()));
        let options = Options {
            port_base: Some(wanted.port_base),
            users,
            client_certificate: certificate.transpose()?,
            entra_origin: wanted.entra_origin.clone(),
            faults: wanted.fault.clone(),
            graph: GraphOptions { record: !wanted.tenant_only, ..GraphOptions::default() },
            ..Options::default()
        };
        let simulated = Sandbox::start(options, &clock, &tasks)
            .context("the simulated Entra ID and Graph can't listen; --port-base takes other ports")?;
        if wanted.tenant_only {
            say(&the_tenant(&simulated))?;
            signals.stopped().await;
            return Ok(());
        }
        let log_level = environment().into_iter().filter(|(name, _)| name == "RUST_LOG").collect::<BTreeMap<_, _>>();
        let place = Place::new()?;
        let hashes = [&key, &daemon_key].map(|key| key_hash(key.expose()));
        let text = configuration(wanted.port_base, &simulated, &place.0, &hashes);
        let config = Config::from_text(Some((Path::new("sandbox.toml"), &text)), &log_level, &[])?.config;
        let log = telemetry::start(&config.log)?.access;
        harden();
        let app = App::logged(&config, &log, clock.clone(), tasks)
            .await
            .context("the proxy can't start; --port-base takes other ports")?;
        let (newcomer, users) =
            simulated.entra.options().users.split_last().context("the simulated tenant has no user")?;
        sign_in(&app, &simulated, users).await?;
        let invite = Invite::new(Some(Alias::new(&newcomer.alias)?), "entra", "the sandbox", &clock);
        let link = login_url(&config.signin.public_url, &create_invite(&app.core().store, &clock, &invite).await?);
        let users: Vec<_> = users.iter().map(|user| user.alias.as_str()).collect();
        say(&what_to_try(wanted.port_base, &simulated, &users, [&key, &daemon_key], link.as_str()))?;
        signals.stopped().await;
        app.drain().await;
        Ok(())
    })
}

/// A directory of our own, gone at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(anyhow::Error::msg)?;
        let path = temporary_directory().join(format!("bearerd-sandbox-{:016x}", u64::from_be_bytes(random)));
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} is left behind: {error}", self.0.display());
        }
    }
}

fn configuration(port: u16, simulated: &Sandbox, store: &Path, [key_hash, daemon_hash]: &[String; 2]) -> String {
    let entra = simulated.entra.options();
    let text = |value: &str| toml::Value::from(value).to_string();
    format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [signin]\ndevice_code = true\n\
         [store]\npath = {store}\nkey_file = {key_file}\n\
         [providers.entra]\nkind = \"entra\"\nauthority = {authority}\ntenant = {tenant}\nclient_id = {client_id}\n\
         credentials = [{{ secret = {secret} }}]\n\
         [upstreams.graph]\nurl = {graph}\nprovider = \"entra\"\nscopes = [\"User.Read\", \"Mail.ReadWrite\", \"Mail.Send\", \"Files.ReadWrite\"]\n\
         [[clients]]\nname = \"sandbox\"\nkey_hash = {key_hash}\naccounts = [\"*\"]\n\
         [[clients]]\nname = \"daemon\"\nkey_hash = {daemon_hash}\nidentity = \"app\"\n\
         [[clients]]\nname = \"middle-tier\"\nidentity = \"on-behalf-of\"\njwt = {{ issuer = {issuer}, audience = {client_id} }}\n\
         [log]\nlevel = \"warn\"\n",
        admin = port.saturating_add(1),
        store = text(&store.join("data").display().to_string()),
        key_file = text(&store.join("data/store.key").display().to_string()),
        authority = text(simulated.entra.origin().as_str().trim_end_matches('/')),
        tenant = text(&entra.tenant),
        client_id = text(&entra.client_id),
        secret = text(entra.client_secret.as_deref().unwrap_or_default()),
        graph = text(simulated.graph.origin().as_str().trim_end_matches('/')),
        key_hash = text(key_hash),
        daemon_hash = text(daemon_hash),
        issuer = text(&simulated.entra.issuer()),
    )
}

async fn sign_in(app: &App, simulated: &Sandbox, users: &[User]) -> anyhow::Result<()> {
    for user in users {
        let grant = simulated.grant(&user.alias).context("the simulated user is gone")?;
        let row = Import {
            alias: Alias::new(&user.alias)?,
            provider: "entra".to_owned(),
            refresh_token: Secret::new(grant.refresh_token),
            access_token: Some(Secret::new(grant.access_token)),
            expires_at: Some(grant.expires_at),
            tenant: Some(grant.tenant),
            subject: Some(grant.oid),
            scopes: None,
        };
        app.core()
            .vault
            .import(row, false, by_operator(Event::Import))
            .await
            .with_context(|| format!("signing {} in", user.alias))?;
    }
    Ok(())
}

fn what_to_try(port: u16, simulated: &Sandbox, users: &[&str], keys: [&Secret<String>; 2], link: &str) -> String {
    let [key, daemon_key] = keys.map(Secret::expose);
    let entra = simulated.entra.origin();
    let entra = entra.as_str().trim_end_matches('/');
    let graph = simulated.graph.origin();
    let graph = graph.as_str().trim_end_matches('/');
    let shown = if users.len() > 4 {
        format!("{} and {} more", users[..4].join(", "), users.len() - 4)
    } else {
        users.join(", ")
    };
    let proxy = format!("http://127.0.0.1:{port}");
    let admin = format!("http://127.0.0.1:{}", port.saturating_add(1));
    format!(
        "bearerd sandbox: everything runs on this machine, nothing of it is real.\n\
         \n\
         \x20 the proxy            {proxy}\n\
         \x20 its admin listener   {admin}  (/readyz, /metrics)\n\
         \x20 simulated Entra ID   {entra}\n\
         \x20 simulated Graph      {graph}\n\
         \x20 signed in            {shown}\n\
         \n\
         Read Alice's mail as a legacy application would, with a Basic password:\n\
         \n\
         \x20 curl -s -u alice:{key} '{proxy}/v1.0/me/messages?$top=3&$select=subject'\n\
         \n\
         Then try, with that line again after each:\n\
         \n\
         \x20 # Graph revokes Alice's token. The next request heals: one refresh, one replay, the client notices nothing.\n\
         \x20 curl -s -X POST '{entra}/_sandbox/revoke?user=alice&what=access'\n\
         \n\
         \x20 # Graph demands one more step of Alice: signin_required, and whoever follows the link takes it. An empty body ends it.\n\
         \x20 curl -s -X POST -d '{{\"access_token\":{{\"acrs\":{{\"essential\":true,\"value\":\"c1\"}}}}}}' '{graph}/_sandbox/demand?prefix=/v1.0/me&user=alice'\n\
         \n\
         \x20 # Graph answers 503 once; the request is sent again. More faults: bearerd sandbox --help\n\
         \x20 curl -s -X POST -d 'graph:503' {graph}/_sandbox/fault\n\
         \n\
         \x20 # Alice's whole grant is revoked: the proxy answers signin_required, with a link that mends it (curl -i shows it).\n\
         \x20 curl -s -X POST '{entra}/_sandbox/revoke?user=alice'\n\
         \n\
         As the application itself, without a user, and on behalf of Bob, whose token an application brings along:\n\
         \n\
         \x20 curl -s -u app:{daemon_key} '{proxy}/v1.0/users?$select=displayName'\n\
         \x20 TOKEN=$(curl -s '{entra}/_sandbox/assertion?user=bob' | grep -o 'eyJ[^\"]*')\n\
         \x20 curl -s -H \"Authorization: Bearer $TOKEN\" {proxy}/v1.0/me\n\
         \n\
         More:\n\
         \n\
         \x20 # What Graph and Entra ID saw.\n\
         \x20 curl -s {graph}/_sandbox/requests\n\
         \x20 curl -s {entra}/_sandbox/requests\n\
         \n\
         \x20 # Sign a new account in, in a browser:\n\
         \x20 {link}\n\
         \n\
         {tenant}\
         Ctrl-C ends it, and nothing stays behind.\n",
        tenant = the_tenant(simulated),
    )
}

fn the_tenant(simulated: &Sandbox) -> String {
    let options = simulated.entra.options();
    let [entra, graph] =
        [simulated.entra.origin(), simulated.graph.origin()].map(|url| url.origin().ascii_serialization());
    let (tenant, client_id) = (&options.tenant, &options.client_id);
    let secret = options.client_secret.as_deref().unwrap_or_default();
    format!(
        "As the tenant of a bearerd.toml of your own, on other ports:\n\
         \n\
         \x20 [providers.entra]\n\
         \x20 authority = \"{entra}\"\n\
         \x20 tenant = \"{tenant}\"\n\
         \x20 client_id = \"{client_id}\"\n\
         \x20 credentials = [ {{ secret = \"{secret}\" }} ]\n\
         \n\
         \x20 [upstreams.graph]\n\
         \x20 url = \"{graph}\"\n\
         \n"
    )
}

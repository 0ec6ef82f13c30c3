//! The answers as a configuration: what was answered, what goes with it, and a line of why for each. No secret stands in it.

use toml::Value;

use super::answers::Answers;
use super::{Place, Proof, UNREGISTERED};

pub(super) fn render(answers: &Answers) -> String {
    format!(
        "# Written by `bearerd init`. Every key with its default: config/example.toml; `bearerd check` names every mistake.\n\
        # No secret stands in here: they are in files of their own, which nobody else may read (mode 0600).\n\
        \n{}\n{}\n{}\n{}\n{}",
        listeners(answers),
        store(answers.place),
        provider(answers),
        upstream(answers),
        CLIENTS,
    )
}

fn listeners(answers: &Answers) -> String {
    let url = text(answers.public_url());
    let server = match answers.place {
        Place::Here => format!(
            "listen = \"127.0.0.1:8080\"            # this machine only\n\
            public_url = {url}   # how applications and browsers reach it; the redirect URI begins so\n"
        ),
        Place::Container => format!(
            "listen = \"0.0.0.0:8080\"              # the container's port; publish it where only your applications are\n\
            plaintext_ok = true                  # plain HTTP beyond loopback: inside the container's network\n\
            public_url = {url}   # how applications and browsers reach it; the redirect URI begins so\n\
            allowed_hosts = [\"bearerd\"]          # how other containers call it\n"
        ),
        Place::BehindTls => format!(
            "listen = \"127.0.0.1:8080\"            # where what ends TLS passes requests on to\n\
            public_url = {url}   # how applications and browsers reach it; the redirect URI begins so\n\
            trusted_proxies = [\"127.0.0.1\"]      # whose X-Forwarded-For and X-Forwarded-Proto are believed\n"
        ),
    };
    let admin = match answers.place {
        Place::Container => {
            "listen = \"127.0.0.1:8081\"            # health, metrics, the admin API; `bearerd check --live` asks here\n\
            # listen = \"0.0.0.0:8081\"            # instead, to be scraped from outside; then it needs a token\n\
            # token_file = \"/run/secrets/admin-token\"\n"
        }
        Place::Here | Place::BehindTls => {
            "listen = \"127.0.0.1:8081\"            # health, metrics, the admin API; beyond loopback it needs token_file\n"
        }
    };
    format!("[server]\n{server}\n[admin]\n{admin}")
}

/// Where files of ours are, by where it runs.
fn directory(place: Place, here: &'static str, container: &'static str, service: &'static str) -> &'static str {
    match place {
        Place::Here => here,
        Place::Container => container,
        Place::BehindTls => service,
    }
}

fn store(place: Place) -> String {
    let directory = directory(place, "./bearerd-data", "/var/lib/bearerd", "/var/lib/bearerd");
    format!(
        "# The accounts' grants, sealed. The key is made on the first start: keep a copy of it apart from copies of the directory.\n\
        [store]\npath = \"{directory}\"\nkey_file = \"{directory}/store.key\"\n"
    )
}

fn provider(answers: &Answers) -> String {
    let secrets = secrets(answers.place);
    let id = match &answers.client_id {
        Some(id) => format!("client_id = {}\n", text(id)),
        None => format!("client_id = \"{UNREGISTERED}\" # put the application's id here once it is registered\n"),
    };
    let credential = match answers.credential {
        Proof::Secret => format!(
            "[[providers.entra.credentials]]         # tried in order: put a second one beside it while you change it\n\
            secret_file = \"{secrets}/client-secret\"\n\
            # expires = \"2027-01-31\"               # when it lapses: for the metric and its alert\n"
        ),
        Proof::Certificate => format!(
            "[[providers.entra.credentials]]         # tried in order: put a second one beside it while you change it\n\
            certificate_file = \"{secrets}/app.crt\"\nkey_file = \"{secrets}/app.key\"\n"
        ),
        Proof::ManagedIdentity => format!(
            "[[providers.entra.credentials]]\n\
            managed_identity = \"{UNREGISTERED}\" # put the client id of the machine's user-assigned identity here\n"
        ),
        Proof::Federated => "[[providers.entra.credentials]]\n\
            federated_token_file = \"/var/run/secrets/azure/tokens/token\" # read at each use: the platform renews it\n"
            .to_owned(),
        Proof::None => "# No credentials: a public client. Whoever has a refresh token of it can use it.\n".to_owned(),
    };
    format!(
        "[providers.entra]\n\
        kind = \"entra\"                         # cloud = \"usgov\", \"dod\" or \"china\" where it is not the global one\n\
        tenant = {}\n{id}\n{credential}",
        text(&answers.tenant)
    )
}

/// Where the files with secrets are expected.
pub(super) fn secrets(place: Place) -> &'static str {
    directory(place, ".", "/run/secrets", "/etc/bearerd")
}

fn upstream(answers: &Answers) -> String {
    let scopes = Value::from(answers.scopes.clone());
    format!(
        "[upstreams.graph]\n\
        provider = \"entra\"\n\
        scopes = {scopes} # what a sign-in asks for; as little as your applications need\n"
    )
}

const CLIENTS: &str =
    "# The calling applications. `bearerd clients new NAME --account ALIAS` prints a key and the entry to put here.
# [[clients]]
# name = \"payroll\"
# key_hash = \"sha256:...\"
# accounts = [\"alice\"]                    # aliases or patterns that it may act for
# read_only = true                       # or allow = [\"GET /v1.0/me/messages/**\"]: what it may do
";

fn text(value: &str) -> Value {
    Value::from(value)
}

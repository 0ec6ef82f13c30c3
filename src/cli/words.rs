//! What can be said on the command line: every verb, its arguments and their help. Manual pages and completions are made from it.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};

use super::{accounts, clients, config, explain, init};
use crate::account::Alias;
#[cfg(feature = "sandbox")]
use crate::sandbox::Fault;

/// An authenticating reverse proxy in front of Microsoft Graph.
#[derive(Parser)]
#[command(name = "bearerd", version, propagate_version = true, arg_required_else_help = true, max_term_width = 120)]
pub(super) struct CommandLine {
    #[command(flatten)]
    pub(super) source: Source,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Where the configuration comes from.
#[derive(Args)]
pub(crate) struct Source {
    /// The configuration; without it ./bearerd.toml, then /etc/bearerd/bearerd.toml
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// Sets one key, over the file and the environment: --set server.listen=127.0.0.1:9090
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(super) overrides: Vec<(String, String)>,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Asks a few questions, writes a commented configuration, and prints the app registration step by step
    ///
    /// Each question is also a flag; with all of them, or with --yes, nothing is asked. The file is the one that --config names, else
    /// bearerd.toml here.
    Init(init::Init),
    /// Runs the proxy; SIGTERM and SIGINT drain
    Serve,
    /// Validates the configuration and prints every mistake with its key path
    Check {
        /// Also open the store (it is made if there is none) and ask the providers and the upstreams
        #[arg(long)]
        online: bool,
        /// Instead: ask the running server, at admin.listen, whether it lives; 2 seconds at most
        #[arg(long, conflicts_with = "online")]
        live: bool,
    },
    /// Runs the whole system with simulated Entra and Graph, accounts signed in; reads no configuration
    #[cfg(feature = "sandbox")]
    Sandbox(Sandbox),
    /// Signs an account in: by browser, device code, or a link for the user
    Login(Login),
    /// The operator's view of grants: states, expiries, scopes, never a secret
    #[command(subcommand)]
    Accounts(Accounts),
    /// Says what a request would meet: client, account, rule, grant, scopes, verdict; sends nothing
    ///
    /// Works on the store, beside a running server or without one. Nothing is asked of the provider or the upstream and nothing is
    /// written, so what the provider would answer to a refresh stays open. Exit code 0: it is explained, also where the request would be
    /// refused.
    Explain(explain::Explain),
    /// Calling applications
    #[command(subcommand)]
    Clients(Clients),
    /// The store's encryption keys
    #[command(subcommand)]
    Keys(Keys),
    /// Backup and restore of the store
    #[command(subcommand)]
    Store(StoreVerb),
    /// The configuration in effect, and its JSON Schema
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Prints a completion script
    Completions { shell: clap_complete::Shell },
    /// Prints the manual page, or writes one for each verb
    Man {
        /// A directory that exists: one page for each verb is written there
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Prints the version
    Version {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// `bearerd sandbox`.
#[cfg(feature = "sandbox")]
#[derive(Args)]
pub(crate) struct Sandbox {
    /// Data listener; admin, simulated Entra and simulated Graph take the next three
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port_base: u16,
    /// Faults to provoke, separated by commas: token:429, graph:503*3, graph:slow=500 (see --help)
    ///
    /// Each is PLACE:EFFECT[=VALUE][*[TIMES]][@USER] and happens once, or as often as is said, `*` alone for ever. Places: token,
    /// devicecode, authorize, discovery, keys, imds, graph, graph/PATH. Effects: a status, slow, closed, down, half, ..; at token also
    /// an AADSTS number or an error's name; at graph also revoked, claims. docs/sandbox.md has them all. A running sandbox takes the
    /// same by `POST /_sandbox/fault`; an empty body there ends all faults.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Fault::parse)]
    pub(crate) fault: Vec<Fault>,
    /// How many simulated users
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) users: usize,
    /// Where clients reach the simulated Entra, when something (a TLS proxy) stands in front of it
    #[arg(long, value_name = "URL")]
    pub(crate) entra_origin: Option<url::Url>,
    /// The certificate (PEM) that the application may prove itself with too
    #[arg(long, value_name = "FILE")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// Only the simulated Entra and Graph, for a bearerd of your own: no proxy, nobody signed in, Graph keeps no record of its requests
    #[arg(long)]
    pub(crate) tenant_only: bool,
}

/// `bearerd login`.
#[derive(Args)]
pub(crate) struct Login {
    /// The account's alias; a new account gets this name. Without it: the user's name at the provider
    #[arg(long, value_name = "ALIAS", value_parser = alias)]
    pub(crate) account: Option<String>,
    /// The provider's id; needed where there are several
    #[arg(long, value_name = "ID")]
    pub(crate) provider: Option<String>,
    /// The port of this machine that the browser comes back to; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
    /// Show a code to enter on another device
    #[arg(long, conflicts_with = "link")]
    pub(crate) device: bool,
    /// Print a single-use link to send to the user; a running server serves it
    #[arg(long, requires = "account")]
    pub(crate) link: bool,
}

/// `bearerd accounts ...`.
#[derive(Subcommand)]
pub(crate) enum Accounts {
    /// All accounts with their state
    List {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// One account in detail
    Show {
        /// As `accounts list` shows it
        alias: String,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Presents the refresh token now; may revive an account that waits for interaction
    Refresh {
        /// As `accounts list` shows it
        alias: String,
    },
    /// Ends the grant and erases its tokens; the account stays
    Revoke {
        /// As `accounts list` shows it
        alias: String,
    },
    /// Removes the account and its grant
    Remove {
        /// As `accounts list` shows it
        alias: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Reads accounts from JSON Lines, or from the token cache of an MSAL application
    ///
    /// Each line is an object: alias, provider and refresh_token; if known also access_token with expires_at (RFC 3339 or seconds since
    /// 1970), tid, oid and scopes. Of an MSAL cache the refresh tokens that were given to the client_id of a provider here are taken; the
    /// alias is the user name. Each row is checked by a refresh. A bad one is reported by name and stops nothing.
    Import {
        /// The file; it holds secrets, so delete it afterwards
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// What wrote the file
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        from: accounts::Layout,
        /// Don't check each row by a refresh; then oid is needed, and for Entra tid
        #[arg(long)]
        no_verify: bool,
    },
    /// Prints who did what to which account, the oldest first; checks that no record was changed
    ExportAudit(accounts::ExportAudit),
}

#[derive(Subcommand)]
pub(super) enum Clients {
    /// Makes a key, prints it once, with the entry for the configuration
    New(clients::New),
}

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Makes a key for the store
    Generate {
        /// A file that doesn't exist yet; without it: standard output
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Changes the store's data key while it serves; goes on with a change that was cut off
    ///
    /// A new key is put into the store, every process that uses the store opens it, it seals what is new, and what the old one
    /// sealed is sealed anew, a few records at a time. With --master the key in store.key_file is changed instead, in two runs: after
    /// the first both keys open the store, the second ends the old one.
    Rotate {
        /// Change the master key to the one in this file (`bearerd keys generate FILE` makes it)
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        master: Option<PathBuf>,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Says which keys the store has, what each still seals, and whether a change is under way
    Status {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Subcommand)]
pub(super) enum StoreVerb {
    /// Writes a copy of the store into a new file, while servers use it
    ///
    /// The copy is sealed as the store is: it opens only with the key in store.key_file. Keep a copy of that key somewhere else.
    Backup {
        /// A file that doesn't exist yet
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Makes the store from a backup; there must be none, and no server may run
    ///
    /// A backup is old: grants of strict providers come back as uncertain, and their token is tried once; links are void; what was
    /// revoked or removed since comes back, but for what --audit tells.
    Restore {
        /// What `bearerd store backup` wrote
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// What `bearerd accounts export-audit` wrote: what was revoked or removed after the backup is ended again
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        audit: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum ConfigVerb {
    /// Prints the configuration in effect, secrets masked
    Print {
        #[arg(long, value_enum, default_value_t)]
        format: config::Format,
    },
    /// Prints the JSON Schema of the file
    Schema,
}

/// How data is printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// All that can be said, for whoever judges what others write about it.
pub fn command() -> clap::Command {
    CommandLine::command()
}

fn alias(text: &str) -> Result<String, String> {
    Alias::new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}

//! `bearerd init`: five answers become a configuration with comments, and the app registration step by step.
//!
//! A flag answers its question; what no flag answers is asked, on a terminal only. No secret is asked for or written: the file names the
//! files that hold them. A file that exists stays as it is unless `--force` says otherwise.

mod answers;
mod file;
mod registration;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{BufRead as _, ErrorKind, IsTerminal as _, Write as _, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use url::Url;

use self::answers::Answers;
pub use self::answers::Missing;
use super::{Source, say};
use crate::config::{Config, Mistakes, environment, safe_origin, tenant};

/// What the application's id is until it is registered.
const UNREGISTERED: &str = "00000000-0000-0000-0000-000000000000";

/// `bearerd init`.
#[derive(Args, Default)]
pub struct Init {
    /// The directory whose users sign in: its id, one of its domains, or organizations for any
    #[arg(long, value_name = "TENANT", value_parser = tenant)]
    tenant: Option<String>,
    /// The application's (client) id; empty: it is registered later
    #[arg(long, value_name = "ID", value_parser = answers::client_id)]
    client_id: Option<String>,
    /// How bearerd proves to Entra ID that it is the application
    #[arg(long, value_enum, value_name = "HOW")]
    credential: Option<Proof>,
    /// What applications may do: read-mail, send-mail, read-files, write-files, scopes by their names; separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = answers::permission)]
    may: Option<Vec<String>>,
    /// Where it listens
    #[arg(long, value_enum, value_name = "WHERE")]
    place: Option<Place>,
    /// How browsers and applications reach it, if not as http://localhost:8080
    #[arg(long, value_name = "URL", value_parser = safe_origin)]
    public_url: Option<Url>,
    /// Ask nothing: what no flag says is organizations, no id yet, a secret, User.Read, here
    #[arg(long)]
    yes: bool,
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
}

/// How bearerd proves that it is the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proof {
    /// A client secret in a file
    Secret,
    /// A certificate and its key
    Certificate,
    /// The managed identity of the Azure machine that it runs on
    ManagedIdentity,
    /// A token of the platform that it runs on, such as Kubernetes
    Federated,
    /// Nothing: a public client
    None,
}

/// Where bearerd listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    /// For applications on this machine
    Here,
    /// In a container, its port published
    Container,
    /// Behind something that ends TLS; needs --public-url
    BehindTls,
}

/// `Err(Missing)` inside: a flag is needed, since nobody can be asked.
pub fn run(source: &Source, init: Init) -> anyhow::Result<Result<(), Missing>> {
    let path = source.config.clone().unwrap_or_else(|| PathBuf::from("bearerd.toml"));
    if path.exists() && !init.force {
        bail!("{} exists and is left as it is; --force overwrites it", path.display());
    }
    let force = init.force;
    let answers = if init.yes || !stdin().is_terminal() {
        match Answers::from_flags(init) {
            Ok(answers) => answers,
            Err(missing) => return Ok(Err(missing)),
        }
    } else {
        say(&format!("Five questions; Enter takes what stands in brackets. The answers go to {}.\n", path.display()))?;
        Answers::asked(init, &mut stdin().lock().lines(), &mut stdout())?
    };
    write(&path, &file::render(&answers), force)?;
    say(&format!("{} is written.\n\n{}", path.display(), registration::steps(&answers)))?;
    say(&format!("\n{}", next(source, &path, &answers)))?;
    Ok(Ok(()))
}

/// Whole or not at all for who overwrites; never over a file that came into being meanwhile.
fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    if force {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).with_context(name)
    } else {
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists and is left as it is", path.display()),
                _ => anyhow::Error::new(error).context(name()),
            })?;
        file.write_all(text.as_bytes()).with_context(name)
    }
}

/// What is left to do, in the words of `check`, and the commands that follow.
fn next(source: &Source, path: &Path, answers: &Answers) -> String {
    let mut text = String::new();
    let left = match Config::load(Some(path), &environment(), &source.overrides) {
        Ok(_) => Vec::new(),
        Err(Mistakes { list, .. }) => list,
    };
    if !left.is_empty() {
        text.push_str("After these steps `bearerd check` has nothing left to say. Now it says:\n");
        for mistake in left {
            let _ = writeln!(text, "    {}: {}", mistake.path, mistake.what);
        }
        text.push('\n');
    }
    let file = match &source.config {
        Some(path) => format!(" --config {}", registration::quoted(&path.display().to_string())),
        None => String::new(),
    };
    let login = match answers.credential {
        Proof::Federated | Proof::ManagedIdentity => "a link to open where the account's owner is",
        _ => "a link to open; without --link: a browser on this machine",
    };
    let _ = write!(
        text,
        "Then:\n\
        \x20   bearerd check --online{file}\n\
        \x20   bearerd clients new payroll --account alice     # append the [[clients]] entry that it prints to the file\n\
        \x20   bearerd serve{file}\n\
        \x20   bearerd login --account alice --link{file}      # {login}\n\
        \x20   curl -u alice:KEY {}/v1.0/me\n",
        answers.public_url()
    );
    text
}

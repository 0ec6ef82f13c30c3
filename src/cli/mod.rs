//! The command line: which verb does what is said (`words`). One file per verb; none of them decides anything of its own.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage (clap's own), 64 invalid configuration.

mod accounts;
mod check;
mod clients;
mod completions;
mod config;
mod explain;
mod init;
mod keys;
mod live;
mod login;
mod man;
#[cfg(feature = "sandbox")]
mod sandbox;
mod serve;
mod store;
mod version;
mod words;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

#[cfg(feature = "sandbox")]
use self::words::Sandbox;
pub use self::words::command;
use self::words::{Accounts, Clients, CommandLine, ConfigVerb, Format, Keys, Login, Source, StoreVerb, Verb};
use crate::config::{Loaded, Mistakes, environment};

const INVALID_CONFIGURATION: u8 = 64;

/// Reads the process's arguments, does what they say.
pub fn run() -> ExitCode {
    let CommandLine { source, verb } = CommandLine::parse();
    let done = match verb {
        Verb::Check { live: true, .. } => live::run(&source),
        Verb::Check { online: true, .. } => check::online(&source),
        Verb::Check { .. } => check::run(&source),
        Verb::Clients(Clients::New(new)) => clients::run(&new),
        Verb::Keys(Keys::Generate { file }) => keys::generate(file.as_deref()),
        Verb::Store(StoreVerb::Backup { file }) => store::backup(&source, &file),
        Verb::Store(StoreVerb::Restore { file, audit }) => store::restore(&source, &file, audit.as_deref()),
        Verb::Config(ConfigVerb::Print { format }) => config::print(&source, format),
        Verb::Config(ConfigVerb::Schema) => config::schema(),
        Verb::Completions { shell } => completions::run::<CommandLine>(shell),
        Verb::Man { dir } => man::run::<CommandLine>(dir.as_deref()),
        Verb::Init(wanted) => init(&source, wanted),
        Verb::Version { format } => version::run(format),
        Verb::Serve => serve::run(&source),
        Verb::Explain(wanted) => explain::run(&source, &wanted),
        Verb::Accounts(verb) => accounts::run(&source, &verb),
        #[cfg(feature = "sandbox")]
        Verb::Sandbox(wanted) => sandbox::run(&wanted),
        Verb::Login(wanted) => login(&source, &wanted),
        Verb::Keys(Keys::Status { format }) => keys::status(&source, format),
        Verb::Keys(Keys::Rotate { master: None, dry_run }) => keys::rotate(&source, dry_run),
        Verb::Keys(Keys::Rotate { master: Some(file), dry_run }) => keys::rotate_master(&source, &file, dry_run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// A flag that is missing is wrong usage, as clap would say it.
fn init(source: &Source, wanted: init::Init) -> anyhow::Result<()> {
    init::run(source, wanted)?.map_err(|init::Missing(flag)| {
        let what = format!("{flag} is needed, or --yes: there is no terminal to ask on");
        CommandLine::command().error(ErrorKind::MissingRequiredArgument, what).exit()
    })
}

fn login(source: &Source, wanted: &Login) -> anyhow::Result<()> {
    let loaded = source.load()?;
    crate::telemetry::start(&loaded.config.log)?;
    serve::slow_runtime()?.block_on(async {
        let core = accounts::open(&loaded.config).await?;
        let whom = login::Wanted::find(&core, wanted.account.as_deref(), wanted.provider.as_deref()).await?;
        let out = &mut std::io::stdout();
        match (wanted.link, wanted.device) {
            (true, _) => login::login_link(&core, &loaded.config, &whom, out).await,
            (_, true) => login::login_device(&core, &loaded.config, &whom, out).await,
            _ => login::login_browser(&core, &loaded.config, &whom, wanted.port, out).await,
        }
    })
}

impl Source {
    /// The configuration, its warnings said.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        loaded(&self.of_the_configuration())
    }

    fn of_the_configuration(&self) -> crate::config::Source {
        crate::config::Source {
            path: self.config.clone(),
            environment: environment(),
            overrides: self.overrides.clone(),
        }
    }
}

/// The configuration, its warnings said.
fn loaded(source: &crate::config::Source) -> anyhow::Result<Loaded> {
    let loaded = source.load()?;
    warn(&loaded.warnings);
    Ok(loaded)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let Some(mistakes) = error.downcast_ref::<Mistakes>() else {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    };
    warn(&mistakes.warnings);
    eprintln!("{mistakes}");
    let (count, plural) = (mistakes.list.len(), if mistakes.list.len() == 1 { "" } else { "s" });
    match &mistakes.file {
        Some(file) => eprintln!("error: {}: {count} mistake{plural}", file.display()),
        None => eprintln!("error: the configuration has {count} mistake{plural}"),
    }
    ExitCode::from(INVALID_CONFIGURATION)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// Prints to standard output. A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    say_part(text).map(drop)
}

/// Prints a part. False: the reader has seen enough.
pub(crate) fn say_part(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Prints a JSON document to standard output.
pub(crate) fn say_json(value: &serde_json::Value) -> anyhow::Result<()> {
    say(&format!("{value:#}\n"))
}

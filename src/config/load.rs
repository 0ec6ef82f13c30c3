//! From a path to a configuration: finds the file, reads it, resolves it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::files::{self, Print};
use super::read::{Findings, Report, Setting};
use super::tree::Origin;
use super::watched::Files;
use super::{Config, Listen, Mistake, Mistakes, print, raw, resolve};
use crate::secret::Secret;

/// Where the file is when nobody says so; the first that exists.
const PLACES: [&str; 2] = ["bearerd.toml", "/etc/bearerd/bearerd.toml"];

/// A configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// One line each, with the key path.
    pub warnings: Vec<String>,
    /// The file; `None`: everything came from the environment.
    pub path: Option<PathBuf>,
    /// The file and all that it names, but for the key of the store and what is read at each use.
    pub files: Files,
    pub(super) settings: Vec<Setting>,
    pub(super) unshown: BTreeMap<String, Print>,
}

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `None`: the first of the usual places that has a file.
    pub path: Option<PathBuf>,
    pub environment: BTreeMap<String, String>,
    /// Key paths and values in their text form.
    pub overrides: Vec<(String, String)>,
}

impl Source {
    /// Everything is read, also every file that the configuration names.
    pub fn load(&self) -> Result<Loaded, Mistakes> {
        Config::load(self.path.as_deref(), &self.environment, &self.overrides)
    }
}

impl Loaded {
    /// The configuration in effect, secrets masked, with a comment where a value is no default.
    pub fn toml(&self) -> String {
        print::toml(&self.settings)
    }

    /// The same as a JSON object.
    pub fn json(&self) -> serde_json::Value {
        print::json(&self.settings)
    }
}

impl Config {
    /// Reads the file at `path`, or at the first of the usual places that has one. `overrides` are key paths and values in their
    /// text form.
    pub fn load(
        path: Option<&Path>,
        environment: &BTreeMap<String, String>,
        overrides: &[(String, String)],
    ) -> Result<Loaded, Mistakes> {
        let Some(File { path, text, print }) = read(path)? else {
            return Self::from_text(None, environment, overrides).map_err(|mut mistakes| {
                mistakes
                    .warnings
                    .push(format!("no configuration file: neither {} nor {} exists; `bearerd init` writes one, --config names another", PLACES[0], PLACES[1]));
                mistakes
            });
        };
        match Self::from_text(Some((&path, text.expose())), environment, overrides) {
            Ok(mut loaded) => {
                loaded.files.note(&path, Some(print));
                Ok(loaded)
            }
            Err(mut mistakes) => {
                mistakes.files.note(&path, Some(print));
                Err(mistakes)
            }
        }
    }

    /// Where a server with this configuration has its admin listener. Reads nothing else of it: a mistake elsewhere, made after the
    /// server started, says nothing about the server.
    pub fn admin_listen(
        path: Option<&Path>,
        environment: &BTreeMap<String, String>,
        overrides: &[(String, String)],
    ) -> Result<Listen, Mistakes> {
        let file = read(path)?;
        let report = Report::default();
        let text = file.as_ref().map(|file| (file.path.as_path(), file.text.expose().as_str()));
        let listen = raw::layers(text, environment, overrides, &report)
            .and_then(|tree| resolve::admin_listen(&tree, &report).ok());
        listen.ok_or_else(|| {
            let Findings { mistakes, files, .. } = report.findings();
            Mistakes::new(mistakes, file.map(|file| file.path), Vec::new(), files)
        })
    }

    /// The same for a text that is in hand; the path is for messages.
    pub fn from_text(
        file: Option<(&Path, &str)>,
        environment: &BTreeMap<String, String>,
        overrides: &[(String, String)],
    ) -> Result<Loaded, Mistakes> {
        let path = file.map(|(path, _)| path.to_path_buf());
        let report = Report::default();
        let tree = raw::layers(file, environment, overrides, &report);
        let config = tree.and_then(|tree| resolve::resolve(&tree, environment, &report).ok());
        let Findings { mistakes, warnings, settings, files, unshown } = report.findings();
        match config {
            Some(mut config) if mistakes.is_empty() => {
                config.masked = print::masked(&settings);
                Ok(Loaded { config, warnings, path, files, settings, unshown })
            }
            _ => Err(Mistakes::new(mistakes, path, warnings, files)),
        }
    }
}

/// The file of the configuration, as it was read.
struct File {
    path: PathBuf,
    text: Secret<String>,
    print: Print,
}

/// The file at `path`, or at the first of the usual places that has one.
fn read(path: Option<&Path>) -> Result<Option<File>, Mistakes> {
    let usual = || PLACES.map(PathBuf::from).into_iter().find(|place| place.exists());
    let Some(path) = path.map(Path::to_path_buf).or_else(usual) else { return Ok(None) };
    let read = files::raw(&path).and_then(|(bytes, print)| {
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        Ok((Secret::from(text), print))
    });
    match read {
        Ok((text, print)) => Ok(Some(File { path, text, print })),
        Err(error) => {
            let what = match error.kind() {
                ErrorKind::NotFound => "there is no such file".to_owned(),
                ErrorKind::IsADirectory => "is a directory; a file is needed".to_owned(),
                ErrorKind::InvalidData => "is not text in UTF-8".to_owned(),
                _ => format!("can't be read: {error}"),
            };
            let mistake = Mistake { path: path.display().to_string(), what, origin: Origin::Default };
            let mut files = Files::default();
            files.note(&path, None);
            Err(Mistakes::new(vec![mistake], Some(path), Vec::new(), files))
        }
    }
}

//! From a path to a configuration: finds the file, reads it, resolves it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::read::{Report, Setting};
use super::tree::Origin;
use super::{Config, Listen, Mistake, Mistakes, print, raw, resolve};

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
    settings: Vec<Setting>,
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
    /// text form. Also what a reload calls: every file that the configuration names is read again.
    pub fn load(
        path: Option<&Path>,
        environment: &BTreeMap<String, String>,
        overrides: &[(String, String)],
    ) -> Result<Loaded, Mistakes> {
        let Some((path, text)) = read(path)? else {
            return Self::from_text(None, environment, overrides).map_err(|mut mistakes| {
                mistakes
                    .warnings
                    .push(format!("no configuration file: neither {} nor {} exists", PLACES[0], PLACES[1]));
                mistakes
            });
        };
        Self::from_text(Some((&path, &text)), environment, overrides)
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
        let text = file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
        let listen = raw::layers(text, environment, overrides, &report)
            .and_then(|tree| resolve::admin_listen(&tree, &report).ok());
        listen.ok_or_else(|| Mistakes::new(report.into_parts().0, file.map(|(path, _)| path), Vec::new()))
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
        let (mistakes, warnings, settings) = report.into_parts();
        match config {
            Some(config) if mistakes.is_empty() => Ok(Loaded { config, warnings, path, settings }),
            _ => Err(Mistakes::new(mistakes, path, warnings)),
        }
    }
}

/// The file at `path`, or at the first of the usual places that has one.
fn read(path: Option<&Path>) -> Result<Option<(PathBuf, String)>, Mistakes> {
    let usual = || PLACES.map(PathBuf::from).into_iter().find(|place| place.exists());
    let Some(path) = path.map(Path::to_path_buf).or_else(usual) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) => {
            let what = match error.kind() {
                ErrorKind::NotFound => "there is no such file".to_owned(),
                ErrorKind::IsADirectory => "is a directory; a file is needed".to_owned(),
                ErrorKind::InvalidData => "is not text in UTF-8".to_owned(),
                _ => format!("can't be read: {error}"),
            };
            let mistake = Mistake { path: path.display().to_string(), what, origin: Origin::Default };
            Err(Mistakes::new(vec![mistake], Some(path), Vec::new()))
        }
    }
}

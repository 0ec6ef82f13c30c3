//! A proxy whose configuration is a file, in a directory of its own, and hands that change it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bearerd::app::{App, Reloadable};
use bearerd::clock::{Clock, Timestamp};
use bearerd::config::{Listen, Source};
use bearerd::proxy::AccessLog;
use bearerd::sandbox::{Options, Sandbox};
use bearerd::tasks::Tasks;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::*;

pub struct House {
    pub rig: Rig,
    pub file: PathBuf,
    /// What the level of the log was set to.
    pub levels: Arc<Mutex<Vec<String>>>,
}

/// What of `/v1/reload`'s answer is of interest.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub changed: Vec<String>,
    pub needs_restart: Vec<String>,
}

impl House {
    /// `over`: TOML laid over the usual configuration; `HOME` stands for the directory.
    pub async fn start(over: &str) -> Self {
        Self::with(Options::default(), over, |_| ()).await
    }

    /// `before`: what else has to be in the directory.
    pub async fn with(options: Options, over: &str, before: impl FnOnce(&Path)) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        let sandbox = Sandbox::start(options, &clock, &tasks).expect("the sandbox starts");
        let store = tempfile::tempdir().expect("a directory");
        let file = store.path().join("bearerd.toml");
        before(store.path());
        fs::write(&file, text(&sandbox, store.path(), over)).expect("a file");
        let source = Source { path: Some(file.clone()), environment: BTreeMap::new(), overrides: Vec::new() };
        let loaded = source.load().unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let levels = Arc::new(Mutex::new(Vec::new()));
        let set = levels.clone();
        let level = Box::new(move |level: &str| {
            set.lock().unwrap().push(level.to_owned());
            Ok(())
        });
        let log = AccessLog::off();
        let app = App::reloadable(loaded, Reloadable { source, level }, &log, clock.clone(), tasks).await;
        let app = app.expect("bearerd starts");
        let [Listen::Tcp(data)] = app.data_addresses() else { panic!("{:?}", app.data_addresses()) };
        let data = *data;
        for user in ["alice", "bob"] {
            sign_in(&app, &sandbox, user).await;
        }
        Self { rig: Rig { sandbox, app, clock, data, store }, file, levels }
    }

    pub fn home(&self) -> &Path {
        self.rig.store.path()
    }

    /// Another configuration in the file; not read yet.
    pub fn write(&self, over: &str) {
        fs::write(&self.file, text(&self.rig.sandbox, self.home(), over)).expect("a file");
    }

    /// `POST /v1/reload`
    pub async fn ask(&self) -> Response<Bytes> {
        self.rig.send_to_admin(bare("POST", "/v1/reload").body(empty()).expect("a request")).await
    }

    /// Another configuration, read now.
    pub async fn reload(&self, over: &str) -> Said {
        self.write(over);
        said(&self.ask().await)
    }

    pub async fn status(&self, request: Request<Body>) -> u16 {
        self.rig.send(request).await.status().as_u16()
    }

    /// How many reloads ended so.
    pub fn count(&self, outcome: &str) -> u32 {
        let line = format!("bearerd_config_reloads_total{{outcome=\"{outcome}\"}} ");
        let text = self.rig.app.core().metrics.render();
        let count = text.lines().find_map(|rendered| rendered.strip_prefix(&line));
        count.map_or(0, |count| count.parse().expect("a number"))
    }
}

pub fn said(answer: &Response<Bytes>) -> Said {
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    let said = json(answer);
    let names = |name: &str| -> Vec<String> {
        said[name].as_array().expect("a list").iter().map(|name| name.as_str().expect("a text").to_owned()).collect()
    };
    let (changed, needs_restart) = (names("changed"), names("needs_restart"));
    assert_eq!(said["outcome"], if changed.is_empty() { "unchanged" } else { "applied" });
    Said { changed, needs_restart }
}

/// These are put in force, and nothing waits for a restart.
pub fn changed<const N: usize>(names: [&str; N]) -> Said {
    Said { changed: names.map(str::to_owned).to_vec(), needs_restart: Vec::new() }
}

/// The mistakes of a reload that was refused, as `key: what`.
pub fn refused(answer: &Response<Bytes>) -> Vec<String> {
    let shape = (answer.status().as_u16(), header(answer, "content-type"));
    assert_eq!(shape, (422, Some("application/problem+json")), "{answer:?}");
    let document = json(answer);
    assert_eq!(document["status"], json!(422));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mistakes = document["mistakes"].as_array().expect("a list").iter();
    mistakes.map(|mistake| format!("{}: {}", text(&mistake["key"]), text(&mistake["what"]))).collect()
}

fn text(sandbox: &Sandbox, home: &Path, over: &str) -> String {
    let over = over.replace("HOME", &home.display().to_string());
    configuration_text(sandbox, sandbox.graph.origin().as_str(), home, &over)
}

/// A file that nobody else may read.
pub fn secret(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// What this thread logs, as long as the guard lives.
pub fn log() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(lines.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("text")
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

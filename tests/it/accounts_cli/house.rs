//! A configuration file, a store and the simulated Entra ID that it points to, and the binary run on them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use bearerd::clock::Clock;
use bearerd::config;
use bearerd::sandbox::{Grant, Options, Sandbox};
use bearerd::store::Store;
use bearerd::tasks::Tasks;
use serde_json::{Value, json};

use crate::harness::within;

pub struct House {
    home: tempfile::TempDir,
    pub sandbox: Sandbox,
}

impl House {
    pub fn new() -> Self {
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        let options = Options { users: 6, ..Options::default() };
        let sandbox = Sandbox::start(options, &Clock::system(), &tasks).expect("free ports");
        let home = tempfile::tempdir().expect("a directory");
        let text = configuration(&sandbox, home.path());
        std::fs::write(home.path().join("bearerd.toml"), text).expect("a file");
        Self { home, sandbox }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The store, opened beside the binary.
    pub async fn store(&self) -> Store {
        let place = config::Store { path: self.path("data"), key_file: self.path("store.key"), key: None };
        let tasks = Tasks::on(tokio::runtime::Handle::current());
        Store::open(&place, Clock::system(), tasks).await.expect("a store")
    }

    /// `bearerd accounts ...`
    pub async fn accounts(&self, arguments: &[&str]) -> Done {
        bearerd(self.home.path(), &[&["accounts"], arguments].concat()).await
    }

    /// Imports these rows, one a line.
    pub async fn import(&self, rows: &[Value]) -> Done {
        let rows: Vec<_> = rows.iter().map(Value::to_string).collect();
        self.import_text(rows.join("\n"), &[]).await
    }

    pub async fn import_text(&self, text: impl AsRef<[u8]>, flags: &[&str]) -> Done {
        std::fs::write(self.path("rows.jsonl"), text).expect("a file");
        self.accounts(&[&["import", "rows.jsonl"], flags].concat()).await
    }

    /// What the user's sign-in brought elsewhere.
    pub fn grant(&self, user: &str) -> Grant {
        self.sandbox.grant(user).expect("a user")
    }

    /// The smallest row for this user.
    pub fn row(&self, user: &str) -> Value {
        json!({ "alias": user, "provider": "entra", "refresh_token": self.grant(user).refresh_token })
    }

    /// `accounts show` as a document.
    pub async fn show(&self, alias: &str) -> Value {
        let done = self.accounts(&["show", alias, "--format", "json"]).await;
        done.assert(0);
        serde_json::from_str(&done.out).expect("JSON")
    }
}

/// What a run of the binary printed, and its exit code.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn assert(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    /// The lines of standard error that begin so.
    pub fn said(&self, start: &str) -> Vec<&str> {
        self.err.lines().filter(|line| line.starts_with(start)).collect()
    }
}

/// Runs the binary in `directory`, with nothing of this process's environment.
pub async fn bearerd(directory: &Path, arguments: &[&str]) -> Done {
    let Output { status, stdout, stderr } =
        within(start(directory, arguments).output()).await.expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Done { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// The binary, ready to run so.
pub fn start(directory: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(arguments).current_dir(directory).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// For both the binary and a proxy of the test: the store is at `home`.
pub fn configuration(sandbox: &Sandbox, home: &Path) -> String {
    let entra = sandbox.entra.options();
    format!(
        r#"
        [store]
        path = "{home}/data"
        key_file = "{home}/store.key"
        [providers.entra]
        authority = "{authority}"
        tenant = "{tenant}"
        client_id = "{client_id}"
        credentials = [{{ secret = "{secret}" }}]
        [upstreams.graph]
        url = "{graph}"
        provider = "entra"
        scopes = ["User.Read", "Mail.ReadWrite", "Mail.Send", "Files.ReadWrite"]
        [log]
        level = "warn"
        "#,
        home = home.display(),
        authority = sandbox.entra.origin(),
        tenant = entra.tenant,
        client_id = entra.client_id,
        secret = entra.client_secret.as_deref().unwrap_or_default(),
        graph = sandbox.graph.origin(),
    )
}

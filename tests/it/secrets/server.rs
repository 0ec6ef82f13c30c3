//! The built binary, serving, with everything it writes taken down.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bearerd::tasks::spawn_here;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::canary::Output;
use crate::harness::{Message, Wire, within};

pub struct Server {
    child: Child,
    stdout: ChildStdout,
    log: JoinHandle<()>,
    written: Arc<Mutex<Vec<u8>>>,
    pub data: SocketAddr,
    pub admin: SocketAddr,
}

impl Server {
    pub async fn start(home: &Path) -> Self {
        let mut child =
            command(home).arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let stderr = child.stderr.take().expect("a pipe");
        let stdout = child.stdout.take().expect("a pipe");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (said, hears) = oneshot::channel();
        let log = spawn_here({
            let written = Arc::clone(&written);
            async move {
                let mut said = Some(said);
                let mut lines = BufReader::new(stderr);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).await.is_ok_and(|count| count > 0) {
                    let text = String::from_utf8_lossy(&line);
                    if text.contains("bearerd serves")
                        && let Some(said) = said.take()
                    {
                        let _ = said.send((address(&text, "data"), address(&text, "admin")));
                    }
                    written.lock().expect("no panic").append(&mut line);
                }
            }
        });
        let addresses = within(hears).await;
        let (data, admin) = addresses.unwrap_or_else(|_| {
            panic!("it did not start: {}", String::from_utf8_lossy(&written.lock().expect("no panic")))
        });
        Self { child, stdout, log, written, data, admin }
    }

    /// What the system shows of a process to its neighbours.
    pub fn listing(&self) -> Vec<Output> {
        let id = self.child.id().expect("it runs");
        let read = |name: &str| Output::new(name, std::fs::read(format!("/proc/{id}/{name}")).expect("a Linux"));
        vec![read("cmdline"), read("environ")]
    }

    /// Drains, and gives back all that was written.
    pub async fn stop(mut self) -> Vec<Output> {
        let id = rustix::process::Pid::from_raw(self.child.id().expect("it runs").cast_signed()).expect("an id");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
        let status = within(self.child.wait()).await.expect("it ends");
        assert!(status.success(), "{status}");
        within(self.log).await.expect("no panic");
        let mut stdout = Vec::new();
        within(self.stdout.read_to_end(&mut stdout)).await.expect("a pipe");
        let log = std::mem::take(&mut *self.written.lock().expect("no panic"));
        vec![Output::new("standard output", stdout), Output::new("the log", log)]
    }
}

/// The binary at TRACE, in `home`.
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.current_dir(home).env_clear().env("RUST_LOG", "trace").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// One request on a connection of its own: `head` without its last line. An answer that breaks off is all body.
pub async fn ask(to: SocketAddr, head: &str, body: &str) -> Message {
    let mut wire = Wire::over(within(TcpStream::connect(to)).await.expect("it listens"));
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    wire.send(format!("{head}\r\nconnection: close\r\n{length}\r\n{body}")).await;
    let bytes = wire.rest().await;
    match Message::parse(&bytes, false) {
        Some((message, _)) => message,
        None => Message { start: String::new(), headers: Vec::new(), body: bytes },
    }
}

/// What follows `name` in the line that says where everything listens.
fn address(line: &str, name: &str) -> SocketAddr {
    let (_, rest) =
        line.split_once(&format!("{name}\"")).or_else(|| line.split_once(&format!("{name}="))).expect("named");
    let start = rest.find("127.0.0.1:").expect("an address");
    let end = rest[start..].find(|c: char| !matches!(c, '0'..='9' | '.' | ':')).expect("an end");
    rest[start..start + end].parse().expect("an address")
}

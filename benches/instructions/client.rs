//! Starts the subject, sends it requests, one after the other on one connection, and collects what callgrind counted.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::callgrind::Profile;
use crate::subject::{MARK, ONE_BOX, ROLE};
use crate::{Measured, fixture, kilobyte, upstream};

const PATH: &str = "/v1.0/me/messages?$top=1";
/// A round is one request for each. Few, so that a round is short beside the beat of what a server does on its own.
const ACCOUNTS: usize = 10;

/// Each step, then each whole request, at least `iterations` times. Without `valgrind` it is only seen that all of it runs.
pub fn run(valgrind: Option<&str>, iterations: usize) -> Vec<Measured> {
    let directory = tempfile::tempdir().expect("a directory");
    let (counts, ca_file) = (directory.path().join("counts"), directory.path().join("ca.pem"));
    let (tls, ca_pem) = tls_upstream();
    std::fs::write(&ca_file, ca_pem).expect("it can be written");
    let plain = upstream::start(kilobyte::answer);

    let itself = std::env::current_exe().expect("it runs");
    let mut command = Command::new(valgrind.map_or(itself.as_os_str(), |valgrind| valgrind.as_ref()));
    if valgrind.is_some() {
        command.args(["-q", "--tool=callgrind", "--dump-line=no", "--compress-pos=no"]);
        command.arg(format!("--dump-before={MARK}")).arg(format!("--callgrind-out-file={}", counts.display()));
        command.arg(itself);
    }
    command.arg(ROLE).arg(iterations.to_string()).arg(&ca_file);
    command.args(["a request, TLS upstream", &format!("https://{tls}")]);
    command.args(["a request, plain upstream", &format!("http://{plain}")]);
    let mut subject = Subject::start(command, &directory.path().join("access.log"));

    let mut part = 0;
    let mut count = |name: &str, iterations: usize, marks: usize| {
        part += marks;
        let counts = counts.with_extension(part.to_string());
        let profile = if valgrind.is_some() { Profile::read(&counts) } else { Profile::default() };
        Measured { name: name.to_owned(), iterations: iterations as u64, profile }
    };
    let mut measured = Vec::new();
    while let Some(line) = subject.line() {
        if let Some(name) = line.strip_prefix("measured ") {
            measured.push(count(name, iterations, 2));
        } else if let Some((address, name)) = line.strip_prefix("listens ").and_then(|rest| rest.split_once(' ')) {
            let mut client = Client::connect(address.parse().expect("it is an address"));
            client.ask_for_each();
            subject.mark();
            count(name, 1, 1);
            // What the server does on its own, four times a second, falls into some rounds; the cheapest had none of it.
            let rounds = (0..iterations.div_ceil(ACCOUNTS)).map(|_| {
                client.ask_for_each();
                subject.mark();
                count(name, ACCOUNTS, 1)
            });
            measured.extend(rounds.min_by_key(Measured::instructions));
            subject.say("end");
        }
    }
    subject.ends_well();
    let one_box = measured.remove(0);
    assert_eq!(one_box.name, ONE_BOX);
    assert!(valgrind.is_none() || one_box.allocations() == 1, "allocations are not recognised");
    measured
}

/// An upstream with a certificate for 127.0.0.1, and what to trust to believe it.
fn tls_upstream() -> (SocketAddr, String) {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .expect("the key fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let accept = move |stream| {
        let accepted = acceptor.accept(stream);
        async { accepted.await.expect("the proxy speaks TLS") }
    };
    (upstream::start_behind(accept, kilobyte::answer), signed.cert.pem())
}

/// The other process; it ends with this value at the latest.
struct Subject {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
    log: std::path::PathBuf,
}

impl Subject {
    fn start(mut command: Command, log: &Path) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log).expect("it can be written"));
        let mut process = command.spawn().expect("it can be started");
        let lines = BufReader::new(process.stdout.take().expect("it was asked for"));
        Self { process, lines, log: log.to_owned() }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("it speaks UTF-8");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn say(&mut self, line: &str) {
        let input = self.process.stdin.as_mut().expect("it was asked for");
        writeln!(input, "{line}").expect("it listens");
    }

    /// All that was done up to now is written down.
    fn mark(&mut self) {
        self.say("mark");
        assert_eq!(self.line().as_deref(), Some("marked"));
    }

    fn ends_well(&mut self) {
        let status = self.process.wait().expect("it was started");
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(10).collect();
        assert!(status.success(), "the measured process ended with {status}; its last lines, latest first: {last:#?}");
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// One connection, one request at a time.
struct Client {
    stream: TcpStream,
    requests: Vec<String>,
    answer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("it is TCP");
        Self { stream, requests: (0..ACCOUNTS).map(request).collect(), answer: vec![0; 16 * 1024] }
    }

    fn ask_for_each(&mut self) {
        for request in &self.requests {
            self.stream.write_all(request.as_bytes()).expect("the connection stays");
            let mut filled = 0;
            loop {
                filled += match self.stream.read(&mut self.answer[filled..]) {
                    Ok(read) if read > 0 => read,
                    ended => panic!("{ended:?} after {}", String::from_utf8_lossy(&self.answer[..filled])),
                };
                let answer = &self.answer[..filled];
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
                let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
                if head.is_some_and(|head| head + 4 + kilobyte::BODY.len() == filled) {
                    break;
                }
            }
        }
    }
}

fn request(number: usize) -> String {
    let headers = fixture::request_headers(number);
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().expect("it is ASCII")));
    format!("GET {PATH} HTTP/1.1\r\n{}\r\n", lines.collect::<String>())
}

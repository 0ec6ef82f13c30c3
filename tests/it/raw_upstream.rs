//! An upstream of bytes: it keeps what arrives on each connection and plays back what a test prescribes, right or wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bearerd::tasks::spawn_here;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Message, within};

/// What follows a request.
#[derive(Clone, Debug)]
pub enum Play {
    /// These bytes; the connection stays open.
    Say(Vec<u8>),
    /// These bytes, then the end of the connection.
    SayAndClose(Vec<u8>),
    /// Nothing, ever.
    Silence,
}

impl Play {
    pub fn say(text: &str) -> Self {
        Self::Say(text.as_bytes().to_vec())
    }

    pub fn ok() -> Self {
        Self::say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }
}

/// A whole request as it came.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The number of its connection, from 0.
    pub connection: usize,
    pub message: Message,
    pub raw: Vec<u8>,
}

#[derive(Clone)]
pub struct RawUpstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    tls: Option<TlsAcceptor>,
    /// What is said to the first head of all; no body is read after it.
    early: Option<Vec<u8>>,
    log: Mutex<Log>,
    count: watch::Sender<usize>,
    open: watch::Sender<usize>,
    /// Bytes of all connections together.
    received: watch::Sender<usize>,
}

/// Gets the request and its number, from 0.
type Script = Box<dyn Fn(&Arrived, usize) -> Play + Send + Sync>;

#[derive(Default)]
struct Log {
    arrived: Vec<Arrived>,
    /// Every byte of each connection.
    bytes: Vec<Vec<u8>>,
}

impl RawUpstream {
    pub async fn start(script: impl Fn(&Arrived, usize) -> Play + Send + Sync + 'static) -> Self {
        Self::run(None, None, script).await
    }

    pub async fn with_tls(tls: TlsAcceptor, script: impl Fn(&Arrived, usize) -> Play + Send + Sync + 'static) -> Self {
        Self::run(Some(tls), None, script).await
    }

    /// The first head is answered at once and the connection left alone: whoever still sends a body finds nobody who reads it.
    pub async fn early(answer: &str, script: impl Fn(&Arrived, usize) -> Play + Send + Sync + 'static) -> Self {
        Self::run(None, Some(answer.as_bytes().to_vec()), script).await
    }

    async fn run(
        tls: Option<TlsAcceptor>,
        early: Option<Vec<u8>>,
        script: impl Fn(&Arrived, usize) -> Play + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            tls,
            early,
            log: Mutex::default(),
            count: watch::Sender::new(0),
            open: watch::Sender::new(0),
            received: watch::Sender::new(0),
        });
        let upstream = Self { address, shared: Arc::clone(&shared) };
        spawn_here(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let number = {
                    let mut log = shared.log();
                    log.bytes.push(Vec::new());
                    log.bytes.len() - 1
                };
                shared.open.send_modify(|open| *open += 1);
                spawn_here(async move {
                    match &shared.tls {
                        None => shared.converse(stream, number).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                shared.converse(stream, number).await;
                            }
                        }
                    }
                    shared.open.send_modify(|open| *open -= 1);
                });
            }
        });
        upstream
    }

    /// Answers 200 to everything.
    pub async fn ok() -> Self {
        Self::start(|_, _| Play::ok()).await
    }

    pub fn origin(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The whole requests so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.log().arrived.clone()
    }

    /// Every byte that came, by connection.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.shared.log().bytes.clone()
    }

    /// Returns when `count` requests have come.
    pub async fn until(&self, count: usize) {
        let mut seen = self.shared.count.subscribe();
        within(seen.wait_for(|seen| *seen >= count)).await.expect("the upstream lives");
    }

    /// Returns when so many bytes have come, of whatever.
    pub async fn until_bytes(&self, count: usize) {
        let mut received = self.shared.received.subscribe();
        within(received.wait_for(|received| *received >= count)).await.expect("the upstream lives");
    }

    /// Returns when no connection is open.
    pub async fn until_idle(&self) {
        let mut open = self.shared.open.subscribe();
        within(open.wait_for(|open| *open == 0)).await.expect("the upstream lives");
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, connection: usize) {
        let mut unread = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let headed = unread.windows(4).any(|four| four == b"\r\n\r\n");
            if let Some(answer) = self.early.as_ref().filter(|_| connection == 0 && headed) {
                let _ = stream.write_all(answer).await;
                return std::future::pending().await;
            }
            while let Some((message, taken)) = Message::parse(&unread, true) {
                let raw = unread.drain(..taken).collect();
                let arrived = Arrived { connection, message, raw };
                let number = {
                    let mut log = self.log();
                    log.arrived.push(arrived.clone());
                    log.arrived.len() - 1
                };
                let play = (self.script)(&arrived, number);
                self.count.send_modify(|count| *count += 1);
                match play {
                    Play::Say(bytes) => {
                        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                    Play::SayAndClose(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.shutdown().await;
                        return;
                    }
                    Play::Silence => {}
                }
            }
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => {
                    unread.extend_from_slice(&buffer[..count]);
                    self.log().bytes[connection].extend_from_slice(&buffer[..count]);
                    self.received.send_modify(|received| *received += count);
                }
                _ => return,
            }
        }
    }
}

//! The upstream that all contenders of `make bench-peers` share: ready answers from memory, so that it costs as little as an upstream can.
//!
//! It finds the end of a head and reads Content-Length and nothing else. It must not be taken for an HTTP server: it trusts its clients.
//! `canned PLAIN_ADDRESS TLS_ADDRESS CERTIFICATE KEY DIRECTORY`; of `DIRECTORY`, `plain` and `tls` hold the bodies whose links name that origin.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bearerd::tasks::spawn_here;
use memchr::memmem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A head that is longer is no head that we are sent.
const HEAD_BYTES: usize = 64 << 10;
/// What one read of a body brings.
const READ_BYTES: usize = 256 << 10;

const JSON: &str = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";
const FILE: &str = "application/octet-stream";
/// With Content-Type and Content-Length: twelve, as many as Graph sends.
const HEADERS: &str = "Cache-Control: no-cache\r\n\
    Vary: Accept-Encoding\r\n\
    Strict-Transport-Security: max-age=31536000\r\n\
    request-id: 6b1c8e0e-7a52-4a52-9d5e-0d6b7c6f4f11\r\n\
    client-request-id: 0f8fad5b-d9cb-469f-a165-70867728950e\r\n\
    x-ms-ags-diagnostic: {\"ServerInfo\":{\"DataCenter\":\"West Europe\",\"Slice\":\"E\",\"Ring\":\"5\",\"RoleInstance\":\"AM1PEPF00029F42\"}}\r\n\
    OData-Version: 4.0\r\n\
    Preference-Applied: odata.maxpagesize=50\r\n\
    x-ms-resource-unit: 1\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

/// The whole answers, heads included.
struct Answers {
    message: Vec<u8>,
    page: Vec<u8>,
    file: Vec<u8>,
    stored: Vec<u8>,
    unknown: Vec<u8>,
}

/// What a request asks for.
enum Wanted {
    Answer(fn(&Answers) -> &[u8]),
    /// The request itself, head and body, as it came.
    Echo,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plain, tls, certificate, key, directory] = &arguments[..] else {
        bail!("usage: canned PLAIN_ADDRESS TLS_ADDRESS CERTIFICATE KEY DIRECTORY");
    };
    let acceptor = acceptor(certificate, key)?;
    let directory = Path::new(directory);
    let without = listen(plain, Arc::new(Answers::read(&directory.join("plain"))?), |stream| async { Ok(stream) });
    let within = listen(tls, Arc::new(Answers::read(&directory.join("tls"))?), move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await }
    });
    tokio::try_join!(without, within)?;
    Ok(())
}

/// TLS 1.3 alone, so that every contender uses the same.
fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificate).context("the certificate")?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key).context("the key")?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn listen<S, F>(address: &str, answers: Arc<Answers>, secure: impl Fn(TcpStream) -> F) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = std::io::Result<S>> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true)?;
        let (secured, answers) = (secure(stream), answers.clone());
        // How a connection ends is the client's matter.
        spawn_here(async move { serve(secured.await?, &answers).await });
    }
}

/// Answers one request after the other until the client has enough.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: &Answers) -> std::io::Result<()> {
    let mut buffer = vec![0; HEAD_BYTES];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(end) = memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                more => filled += more,
            }
        };
        let (wanted, length) = understand(&buffer[..head]);
        let here = length.min(filled - head);
        match wanted {
            Wanted::Answer(pick) => {
                discard(&mut stream, length - here).await?;
                stream.write_all(pick(answers)).await?;
            }
            Wanted::Echo => {
                let mut came = buffer[..head + here].to_vec();
                came.resize(head + length, 0);
                stream.read_exact(&mut came[head + here..]).await?;
                stream.write_all(&answer("200 OK", FILE, &came)).await?;
            }
        }
        stream.flush().await?;
        buffer.copy_within(head + here..filled, 0);
        filled -= head + here;
    }
}

fn understand(head: &[u8]) -> (Wanted, usize) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let length = if method == "GET" { 0 } else { lines.find_map(content_length).unwrap_or(0) };
    let wanted = match target.split('?').next().unwrap_or_default() {
        "/v1.0/echo" => Wanted::Echo,
        _ if method == "PUT" => Wanted::Answer(|answers| &answers.stored),
        "/v1.0/me/messages/AAMkAGI2" => Wanted::Answer(|answers| &answers.message),
        "/v1.0/me/messages" => Wanted::Answer(|answers| &answers.page),
        "/v1.0/me/drive/items/01BYE5RZ/content" => Wanted::Answer(|answers| &answers.file),
        _ => Wanted::Answer(|answers| &answers.unknown),
    };
    (wanted, length)
}

fn content_length(line: &str) -> Option<usize> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
}

async fn discard(stream: &mut (impl AsyncRead + Unpin), mut length: usize) -> std::io::Result<()> {
    let mut scratch = vec![0; length.min(READ_BYTES)];
    while length > 0 {
        let most = length.min(scratch.len());
        match stream.read(&mut scratch[..most]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => length -= more,
        }
    }
    Ok(())
}

impl Answers {
    fn read(directory: &Path) -> Result<Self> {
        let body = |name: &str| std::fs::read(directory.join(name)).with_context(|| format!("the body {name}"));
        Ok(Self {
            message: answer("200 OK", JSON, &body("message")?),
            page: answer("200 OK", JSON, &body("page")?),
            file: answer("200 OK", FILE, &body("file")?),
            stored: answer("201 Created", JSON, br#"{"id":"01BYE5RZ"}"#),
            unknown: answer("404 Not Found", JSON, br#"{"error":{"code":"itemNotFound","message":"no such answer"}}"#),
        })
    }
}

fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{HEADERS}", body.len());
    let _ = write!(head, "\r\n");
    [head.as_bytes(), body].concat()
}

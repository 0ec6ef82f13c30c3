//! `bearerd check --live`: whether the running server answers at its admin listener; what a container's health check runs.
//!
//! Of the configuration it reads where that listener is, and nothing else. It says nothing about the store, the providers or the
//! upstreams: restarting the process would mend none of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Source, say};
use crate::config::{Config, Listen, environment};

/// Health checks have little patience, and so has this one.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn run(source: &Source) -> anyhow::Result<()> {
    let listen = Config::admin_listen(source.config.as_deref(), &environment(), &source.overrides)?;
    let listen = reachable(listen);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(&listen)).await });
    let status = answer
        .map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()))
        .flatten()
        .with_context(|| format!("not live: {listen}/livez"))?;
    ensure!(status == StatusCode::OK, "not live: {listen}/livez: answered {status}");
    say(&format!("live: {listen}\n"))
}

/// A server that listens on all addresses of a machine is asked at its loopback address.
fn reachable(listen: Listen) -> Listen {
    match listen {
        Listen::Tcp(address) if address.ip().is_unspecified() => {
            let loopback: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            Listen::Tcp(SocketAddr::new(loopback, address.port()))
        }
        other => other,
    }
}

async fn ask(listen: &Listen) -> anyhow::Result<StatusCode> {
    match listen {
        Listen::Tcp(address) => livez(TcpStream::connect(address).await?).await,
        Listen::Unix(path) => livez(UnixStream::connect(path).await?).await,
    }
}

async fn livez(stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<StatusCode> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/livez").header("host", "localhost").body(Empty::<Bytes>::new())?;
    // The connection ends when the sender and the body of the answer are gone.
    let asked = async move { sender.send_request(request).await.map(|answer| answer.status()) };
    let (status, _) = tokio::join!(asked, connection);
    Ok(status?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_at_loopback() {
        for (written, asked) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("10.1.2.3:8081", "10.1.2.3:8081"),
        ] {
            assert_eq!(reachable(Listen::Tcp(written.parse().unwrap())), Listen::Tcp(asked.parse().unwrap()));
        }
    }
}

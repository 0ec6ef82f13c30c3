//! Where an upstream is, and how it is connected to.
//!
//! Only the configured authority is dialled, by the system's resolver. No proxy of the environment is used.

use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;
use crate::config::{self, HttpVersion};
use crate::metrics::Metrics;
use crate::proxy::outbound::Destination;
use crate::tls::{TlsError, client_config};

/// What all workers share of an upstream.
pub struct Template {
    pub name: Arc<str>,
    pub destination: Destination,
    pub config: config::Upstream,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
#[error("upstreams.{upstream}: {why}")]
pub struct TemplateError {
    upstream: String,
    why: String,
}

pub enum Dialled {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Template {
    pub fn new(config: &config::Upstream, clock: &Clock, metrics: &Metrics) -> Result<Self, TemplateError> {
        let fail = |why: String| TemplateError { upstream: config.name.clone(), why };
        let host = config.url.host_str().ok_or_else(|| fail("url has no host".into()))?;
        let port = config.url.port_or_known_default().ok_or_else(|| fail("url has no port".into()))?;
        let authority = match config.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let https = config.url.scheme() == "https";
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = https.then(|| tls(config, &bare)).transpose().map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            name: config.name.as_str().into(),
            destination: Destination {
                scheme: if https { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP },
                host: HeaderValue::try_from(&authority).map_err(|error| fail(error.to_string()))?,
                authority: authority.parse().map_err(|error| fail(format!("url: {error}")))?,
            },
            config: config.clone(),
            host: bare,
            port,
            tls,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    }

    /// Connects, and says what was agreed.
    pub async fn probe(&self) -> std::io::Result<String> {
        Ok(match self.connect().await? {
            Dialled::Plain(_) => "connects".to_owned(),
            Dialled::Tls(stream) => match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => "connects, HTTP/2 over TLS".to_owned(),
                _ => "connects, HTTP/1.1 over TLS".to_owned(),
            },
        })
    }

    /// Every address of the name is tried, in the resolver's order.
    pub(super) async fn connect(&self) -> std::io::Result<Dialled> {
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let Some((connector, name)) = &self.tls else {
                        return Ok(Dialled::Plain(stream));
                    };
                    return Ok(Dialled::Tls(Box::new(connector.connect(name.clone(), stream).await?)));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn tls(config: &config::Upstream, host: &str) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
    let mut client = client_config(config.ca_pem.as_deref())?;
    client.alpn_protocols = match config.http {
        HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
    Ok((TlsConnector::from(Arc::new(client)), name))
}

//! The collector, over a connection of its own for each batch: a batch comes seldom, and what is kept open can be dead.
//!
//! Only the configured address is connected to, by the system's resolver; no redirect is followed, no proxy of the environment used.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::TracesError;
use crate::{config, tls};

/// Of an answer, which says a few words at most.
const LONGEST_ANSWER: usize = 64 << 10;

pub struct Collector {
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Collector {
    pub fn new(endpoint: &Url, config: &config::Traces) -> Result<Self, TracesError> {
        let fail = |why: String| TracesError { key: "endpoint", why };
        let host = match endpoint.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(fail("has no host".to_owned())),
        };
        let port = endpoint.port_or_known_default().ok_or_else(|| fail("has no port".to_owned()))?;
        let authority = HeaderValue::try_from(endpoint.authority()).map_err(|error| fail(error.to_string()))?;
        let tls = if endpoint.scheme() == "https" {
            let config = tls::client_config(config.ca_pem.as_deref())
                .map_err(|error| TracesError { key: "ca_file", why: error.to_string() })?;
            let name = ServerName::try_from(host.clone()).map_err(|error| fail(error.to_string()))?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        let mut headers = config.headers.clone();
        headers.insert(HOST, authority);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("bearerd/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(Self { host, port, path: endpoint.path().to_owned(), headers, tls })
    }

    /// Sends a message, and returns the collector's if it took it.
    pub async fn post(&self, message: Vec<u8>) -> Result<Bytes, String> {
        let stream = self.connect().await.map_err(|error| error.to_string())?;
        match &self.tls {
            None => self.exchange(stream, message).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|error| error.to_string())?;
                self.exchange(stream, message).await
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        message: Vec<u8>,
    ) -> Result<Bytes, String> {
        let text = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let mut request =
            Request::post(self.path.as_str()).body(Full::<Bytes>::from(message)).map_err(|error| error.to_string())?;
        request.headers_mut().clone_from(&self.headers);
        let answer = async move {
            let answer = sender.send_request(request).await.map_err(text)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
            match (status, body) {
                (StatusCode::OK, Ok(body)) => Ok(body.to_bytes()),
                (StatusCode::OK, Err(error)) => Err(error.to_string()),
                (status, _) => Err(format!("HTTP {}", status.as_u16())),
            }
        };
        // The connection ends when the sender is gone; what became of it, the answer says.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }
}

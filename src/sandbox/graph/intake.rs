//! What arrived: the head as it was, the body by length and digest.

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::sandbox::wire::Peer;

/// A request as the upstream saw it.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub at: Timestamp,
    pub method: String,
    /// As it was received, byte for byte.
    pub target: String,
    pub version: String,
    /// In the order of arrival; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body_len: u64,
    /// In hexadecimal digits.
    pub body_sha256: String,
    /// Whether the body came to its proper end (an unread body did not).
    pub body_complete: bool,
    /// The alias of the token's user, even where the token is refused.
    pub user: Option<String>,
    /// The number of the access token, where it was accepted.
    pub token_id: Option<u64>,
    /// 0: the connection was closed without a readable answer.
    pub status_sent: u16,
    /// The client's port: the same one is the same connection.
    pub peer_port: u16,
}

impl Seen {
    pub(super) fn new(head: &Parts, at: Timestamp, user: Option<String>, token_id: Option<u64>) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            at,
            method: head.method.to_string(),
            target: head.uri.to_string(),
            version: format!("{:?}", head.version),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body_len: 0,
            body_sha256: String::new(),
            body_complete: false,
            user,
            token_id,
            status_sent: 0,
            peer_port: head.extensions.get::<Peer>().map_or(0, |peer| peer.0.port()),
        }
    }

    /// All values of the header, in order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(super) fn took(&mut self, body: &Body) {
        self.body_len = body.length;
        self.body_sha256.clone_from(&body.digest);
        self.body_complete = body.complete;
    }

    /// For people's eyes: no credential in full.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!(self);
        for header in shown["headers"].as_array_mut().into_iter().flatten() {
            if header[0] == "authorization" {
                let start: String = header[1].as_str().unwrap_or_default().chars().take(22).collect();
                header[1] = json!(format!("{start}..."));
            }
        }
        shown
    }
}

/// The body of a request, hashed while it arrives.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    /// The first of it: all, unless it is too long to be kept.
    pub bytes: Bytes,
    pub length: u64,
    /// In hexadecimal digits.
    pub digest: String,
    pub complete: bool,
}

impl Body {
    /// Keeps at most `most` bytes of it. `session`: what this body goes on with.
    pub async fn read(mut incoming: Incoming, most: usize, mut session: Option<&mut Sha256>) -> Self {
        let mut hash = Sha256::new();
        let mut kept = BytesMut::new();
        let mut body = Self { complete: true, ..Self::default() };
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else {
                body.complete = false;
                break;
            };
            let Ok(data) = frame.into_data() else { continue };
            hash.update(&data);
            if let Some(session) = session.as_deref_mut() {
                session.update(&data);
            }
            body.length += data.len() as u64;
            kept.extend_from_slice(&data[..data.len().min(most - kept.len())]);
        }
        body.bytes = kept.freeze();
        body.digest = format!("{:x}", hash.finalize());
        body
    }

    /// All that was sent, if it could be kept.
    pub fn whole(&self) -> Option<Bytes> {
        (self.bytes.len() as u64 == self.length).then(|| self.bytes.clone())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        let digest = format!("{:x}", Sha256::digest(&bytes));
        Self { length: bytes.len() as u64, bytes: bytes.into(), digest, complete: true }
    }
}

//! An answer of Graph before it becomes HTTP, so that a batch can carry it too; and the headers that all answers have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::compress;
use super::manner::Manner;
use crate::clock::Clock;
use crate::sandbox::content::Content;
use crate::sandbox::fault::spelled;
use crate::sandbox::random;

const JSON: &str = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";
/// Of a compressed answer, whose length Graph does not say.
const PIECE: usize = 8 << 10;
const DIAGNOSTIC: &str =
    r#"{"ServerInfo":{"DataCenter":"Sandbox","Slice":"E","Ring":"5","ScaleUnit":"003","RoleInstance":"SB01"}}"#;
const EXPOSED: &str = "ETag, Location, Preference-Applied, Content-Range, request-id, client-request-id, ReadWriteConsistencyToken, \
                       SdkVersion, WWW-Authenticate, x-ms-client-gcc-tenant, Retry-After";

/// The names of one exchange.
pub(super) struct Ids {
    request: String,
    client: String,
    date: String,
}

impl Ids {
    pub fn new(headers: &HeaderMap, clock: &Clock) -> Self {
        let request = random::guid();
        let client =
            headers.get("client-request-id").and_then(|value| value.to_str().ok()).unwrap_or(&request).to_owned();
        Self { request, client, date: clock.now().to_string().trim_end_matches('Z').to_owned() }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Payload,
}

#[derive(Debug)]
enum Payload {
    None,
    Json(Value),
    Bytes(Bytes),
    Stream(Content),
}

impl Answer {
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: vec![("Content-Type".to_owned(), JSON.to_owned())], body: Payload::Json(body) }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Payload::None }
    }

    pub fn bytes(media_type: &str, bytes: Bytes) -> Self {
        Self { status: 200, headers: Vec::new(), body: Payload::Bytes(bytes) }.with("Content-Type", media_type)
    }

    /// With another status.
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub fn stream(media_type: &str, content: Content) -> Self {
        Self { status: 200, headers: Vec::new(), body: Payload::Stream(content) }.with("Content-Type", media_type)
    }

    /// As a fault has it.
    pub fn any(status: u16, headers: &[(String, String)], body: &str) -> Self {
        Self { status, headers: headers.to_vec(), body: Payload::Bytes(Bytes::from(body.to_owned())) }
    }

    pub fn error(ids: &Ids, status: u16, code: &str, message: &str) -> Self {
        let inner = json!({ "date": ids.date, "request-id": ids.request, "client-request-id": ids.client });
        Self::json(status, json!({ "error": { "code": code, "message": message, "innerError": inner } }))
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.push(name, value);
        self
    }

    pub fn with_all(mut self, headers: &[(String, String)]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }

    fn push(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// The names of the exchange in an error that has words of its own.
    pub fn identified(mut self, ids: &Ids) -> Self {
        if let Payload::Json(body) = &mut self.body {
            let inner = &mut body["error"]["innerError"];
            inner["date"] = json!(ids.date);
            inner["request-id"] = json!(ids.request);
            inner["client-request-id"] = json!(ids.client);
        }
        self
    }

    /// This answer as one item of a batch: of a header that comes several times the values are joined.
    pub fn into_item(self, clock: &Clock, id: &str) -> Value {
        let mut headers = Map::new();
        for (name, value) in self.headers {
            let value = if name == "Retry-After" { spelled(clock, &value) } else { value };
            let joined = headers.get(&name).and_then(Value::as_str).map(|before| format!("{before}, {value}"));
            headers.insert(name, json!(joined.unwrap_or(value)));
        }
        let mut item = json!({ "id": id, "status": self.status, "headers": headers });
        match self.body {
            Payload::None | Payload::Stream(_) => {}
            Payload::Json(body) => item["body"] = body,
            Payload::Bytes(bytes) => item["body"] = json!(STANDARD.encode(bytes)),
        }
        item
    }

    /// `cross_origin`: the request had an `Origin`.
    pub fn into_response(mut self, ids: &Ids, cross_origin: bool, manner: &Manner) -> Response<Content> {
        let content = match std::mem::replace(&mut self.body, Payload::None) {
            Payload::None => Content::empty(),
            Payload::Json(body) => self.compressed(body.to_string(), manner),
            Payload::Bytes(bytes) => match manner.pieces {
                Some(size) => Content::Pieces { rest: bytes, size, flushed: true },
                None => Content::from(bytes),
            },
            Payload::Stream(content) => content,
        };
        let mut response = Response::new(content);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        headers.insert("x-ms-ags-diagnostic", HeaderValue::from_static(DIAGNOSTIC));
        headers.insert("odata-version", HeaderValue::from_static("4.0"));
        for (name, value) in [("request-id", &ids.request), ("client-request-id", &ids.client)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        if cross_origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        response
    }

    fn compressed(&mut self, text: String, manner: &Manner) -> Content {
        if manner.negotiated {
            self.push("Vary", "Accept-Encoding");
        }
        let mut bytes = Bytes::from(text);
        if let Some(coding) = manner.coding {
            let (name, encoded) = compress::encoded(coding, &bytes);
            self.push("Content-Encoding", name);
            bytes = encoded;
        }
        match manner.pieces.or(manner.coding.map(|_| PIECE)) {
            Some(size) => Content::Pieces { rest: bytes, size, flushed: true },
            None => Content::from(bytes),
        }
    }
}

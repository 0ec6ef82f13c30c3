//! The second origin: pre-authenticated downloads, uploads and monitors. It needs no token, and a token that comes is a leak.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::drive::{self, Stored, Upload};
use super::intake::{Body, Seen};
use super::jobs::Progress;
use super::{KEPT, State};
use crate::clock::Timestamp;
use crate::sandbox::content::Content;
use crate::sandbox::locked;
use crate::sandbox::wire::Reply;

/// What the length of a fragment is a multiple of, and what it must be below.
const FRAGMENT: u64 = 320 << 10;
const LARGEST_FRAGMENT: u64 = 60 << 20;

/// A request to the second origin that brought credentials.
#[derive(Clone, Debug, Serialize)]
pub struct Leak {
    pub at: Timestamp,
    pub method: String,
    pub target: String,
    /// What came, in full.
    pub authorization: String,
}

pub(super) async fn respond(state: &State, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let mut hash = match segments.as_slice() {
        ["up", id] => locked(&state.drives.uploads).get(*id).map(|upload| upload.hash.clone()),
        _ => None,
    };
    let body = Body::read(body, KEPT, hash.as_mut()).await;
    let mut seen = Seen::new(&head, state.clock.now(), None, None);
    seen.took(&body);
    let response = if let Some(credentials) = head.headers.get(header::AUTHORIZATION) {
        state.leaks.push(Leak {
            at: state.clock.now(),
            method: head.method.to_string(),
            target: head.uri.to_string(),
            authorization: String::from_utf8_lossy(credentials.as_bytes()).into_owned(),
        });
        error(StatusCode::UNAUTHORIZED, "unauthenticated", "No token belongs here.")
    } else {
        match (&head.method, segments.as_slice(), hash) {
            (&Method::GET | &Method::HEAD, ["download", user, id], _) => {
                download(state, user, id, head.uri.query().unwrap_or_default(), &head.headers)
            }
            (&Method::GET, ["monitor", job], _) => monitor(state, job),
            (_, ["up", id], Some(hash)) => upload(state, &head.method, id, &head.headers, &body, hash),
            (_, ["up", _], None) => error(StatusCode::NOT_FOUND, "itemNotFound", "The upload session was not found."),
            _ => error(StatusCode::NOT_FOUND, "itemNotFound", "No such file."),
        }
    };
    seen.status_sent = response.status().as_u16();
    state.file_requests.push(seen);
    Reply::Answer(response)
}

fn download(state: &State, user: &str, id: &str, query: &str, headers: &HeaderMap) -> Response<Content> {
    let proof = query.strip_prefix("tempauth=");
    if proof != Some(&drive::temporary_authorization(user, id)) {
        return error(StatusCode::UNAUTHORIZED, "unauthenticated", "The link is not valid.");
    }
    let Some(item) = state.drives.item(user, id) else {
        return error(StatusCode::NOT_FOUND, "itemNotFound", "No such file.");
    };
    let Some((range, partial)) = range(headers, item.size) else {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "invalidRange", "No such range.");
    };
    let said = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), item.size);
    let content = match item.content {
        Stored::Pattern => Content::Pattern { at: range.start, end: range.end },
        Stored::Kept(bytes) => {
            let at = |position| usize::try_from(position).unwrap_or(bytes.len());
            Content::from(bytes.slice(at(range.start)..at(range.end)))
        }
        Stored::Counted => return error(StatusCode::GONE, "itemNotFound", "So much is not kept, only counted."),
    };
    let mut response = Response::new(content);
    if partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert(&mut response, header::CONTENT_RANGE, &said);
    }
    insert(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    response
}

fn monitor(state: &State, job: &str) -> Response<Content> {
    match state.jobs.ask(job) {
        None => error(StatusCode::NOT_FOUND, "itemNotFound", "No such operation."),
        Some(Progress::UnderWay) => {
            let body = json!({ "operation": "ItemCopy", "percentageComplete": 27.8, "status": "inProgress" });
            json_answer(StatusCode::ACCEPTED, &body)
        }
        Some(Progress::Done(id)) => {
            let body = json!({ "percentageComplete": 100.0, "resourceId": id, "status": "completed" });
            json_answer(StatusCode::OK, &body)
        }
    }
}

/// `hash`: of everything that is here, with this body.
fn upload(
    state: &State,
    method: &Method,
    id: &str,
    headers: &HeaderMap,
    body: &Body,
    hash: Sha256,
) -> Response<Content> {
    let mut uploads = locked(&state.drives.uploads);
    let Some(upload) = uploads.get_mut(id) else {
        return error(StatusCode::NOT_FOUND, "itemNotFound", "The upload session was not found.");
    };
    match *method {
        Method::GET => json_answer(StatusCode::OK, &next(state, upload)),
        Method::DELETE => {
            uploads.remove(id);
            let mut response = Response::new(Content::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Method::PUT => {
            let range = headers.get(header::CONTENT_RANGE).and_then(|range| parse_content_range(range.to_str().ok()?));
            let invalid = |message| error(StatusCode::BAD_REQUEST, "invalidRequest", message);
            let Some((range, total)) = range.filter(|(range, _)| range.end - range.start == body.length) else {
                return invalid("The Content-Range header is missing or malformed.");
            };
            if range.start != upload.received {
                let message = "The uploaded fragment has already been received.";
                return error(StatusCode::RANGE_NOT_SATISFIABLE, "invalidRange", message);
            }
            if body.length >= LARGEST_FRAGMENT {
                return invalid("The fragment is too large.");
            }
            if range.end < total && !body.length.is_multiple_of(FRAGMENT) {
                return invalid("The length of every fragment but the last one is a multiple of 320 KiB.");
            }
            upload.take(body, hash, total);
            if range.end < total {
                return json_answer(StatusCode::ACCEPTED, &next(state, upload));
            }
            let done = uploads.remove(id);
            drop(uploads);
            json_answer(StatusCode::CREATED, &json!(done.map(|done| done.store(state))))
        }
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "invalidRequest", "PUT, GET or DELETE."),
    }
}

impl Upload {
    fn take(&mut self, body: &Body, hash: Sha256, total: u64) {
        self.received += body.length;
        self.hash = hash;
        match (&mut self.kept, body.whole()) {
            (Some(kept), Some(bytes)) if total <= KEPT as u64 => kept.extend_from_slice(&bytes),
            (kept, _) => *kept = None,
        }
    }

    fn store(self, state: &State) -> Value {
        let content = self.kept.map_or(Stored::Counted, |kept| Stored::Kept(kept.into()));
        let digest = format!("{:x}", self.hash.finalize());
        state.drives.store(&self.user, &self.name, self.received, Some(digest), content)
    }
}

fn next(state: &State, upload: &Upload) -> Value {
    let until = state.clock.now().plus(Duration::from_hours(24)).to_string();
    json!({ "expirationDateTime": until, "nextExpectedRanges": [format!("{}-", upload.received)] })
}

/// What a request wants of so many bytes, and whether that is a part. `None`: there is no such range.
pub(super) fn range(headers: &HeaderMap, whole: u64) -> Option<(Range<u64>, bool)> {
    match headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")) {
        None => Some((0..whole, false)),
        Some(range) => Some((parse_range(range, whole)?, true)),
    }
}

/// `5-9`, `5-` or `-5`.
fn parse_range(text: &str, whole: u64) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-')?;
    let range = match (first, last) {
        ("", tail) => whole.saturating_sub(tail.parse().ok()?)..whole,
        (first, "") => first.parse().ok()?..whole,
        (first, last) => first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(whole),
    };
    (!range.is_empty()).then_some(range)
}

/// What part of which total, of `bytes 0-9/20`.
fn parse_content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse().ok()?);
    (first <= last && last < total).then(|| (first..last + 1, total))
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Content> {
    json_answer(status, &json!({ "error": { "code": code, "message": message } }))
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Content> {
    let mut response = Response::new(Content::from(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    insert(&mut response, header::CONTENT_TYPE, "application/json");
    response
}

fn insert(response: &mut Response<Content>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

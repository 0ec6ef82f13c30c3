//! The second origin: pre-authenticated downloads, uploads and monitors. It needs no token, and a token that comes is a leak.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};

use super::State;
use super::drive::{self, Upload};
use super::intake::{Body, Seen};
use crate::clock::Timestamp;
use crate::sandbox::content::Content;
use crate::sandbox::locked;
use crate::sandbox::wire::Reply;

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
    let body = Body::read(body, true).await;
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
        let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        match (&head.method, segments.as_slice()) {
            (&Method::GET, ["download", user, id]) => {
                download(state, user, id, head.uri.query().unwrap_or_default(), &head.headers)
            }
            (&Method::GET, ["monitor", _]) => {
                json_answer(StatusCode::OK, &json!({ "percentageComplete": 100.0, "status": "completed" }))
            }
            (_, ["up", id]) => upload(state, &head.method, id, &head.headers, &body.bytes),
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
    let Some(content) = state.drives.content(user, id) else {
        return error(StatusCode::NOT_FOUND, "itemNotFound", "No such file.");
    };
    let whole = content.len();
    let wanted = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let mut response = match wanted.map(|range| parse_range(range, whole)) {
        None => Response::new(Content::from(content)),
        Some(Some((first, last))) => {
            let mut response = Response::new(Content::from(content.slice(first..=last)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{whole}"));
            response
        }
        Some(None) => return error(StatusCode::RANGE_NOT_SATISFIABLE, "invalidRange", "No such range."),
    };
    insert(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    response
}

fn upload(state: &State, method: &Method, id: &str, headers: &HeaderMap, body: &Bytes) -> Response<Content> {
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
            let Some((first, last, total)) = range.filter(|(first, last, _)| last - first + 1 == body.len()) else {
                return error(
                    StatusCode::BAD_REQUEST,
                    "invalidRequest",
                    "The Content-Range header is missing or malformed.",
                );
            };
            if first != upload.received.len() {
                return error(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "invalidRange",
                    "The uploaded fragment has already been received.",
                );
            }
            upload.received.extend_from_slice(body);
            if last + 1 < total {
                return json_answer(StatusCode::ACCEPTED, &next(state, upload));
            }
            let done = uploads.remove(id);
            drop(uploads);
            let item = done.map(|done| state.drives.store(&done.user, &done.name, done.received.into()));
            json_answer(StatusCode::CREATED, &json!(item))
        }
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "invalidRequest", "PUT, GET or DELETE."),
    }
}

fn next(state: &State, upload: &Upload) -> Value {
    let until = state.clock.now().plus(Duration::from_hours(24)).to_string();
    json!({ "expirationDateTime": until, "nextExpectedRanges": [format!("{}-", upload.received.len())] })
}

/// First and last byte of `5-9`, `5-` or `-5`.
fn parse_range(text: &str, whole: usize) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('-')?;
    let end = whole.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", tail) => (whole.checked_sub(tail.parse().ok()?)?, end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(end)),
    };
    (first <= last).then_some((first, last))
}

/// First byte, last byte and total of `bytes 0-9/20`.
fn parse_content_range(text: &str) -> Option<(usize, usize, usize)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first, last, total))
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

//! `/_sandbox/`: the same switches for somebody outside of the process, on both servers, for loopback callers only.
//!
//! `GET requests`, `POST clear`, `POST fault` (body: a list of faults as text; empty clears), `POST revoke?user=alice[&what=access]`.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::content::Content;
use super::entra;
use super::fault::Fault;
use super::wire::Peer;

pub(super) const PREFIX: &str = "/_sandbox/";

pub(super) fn answer(
    entra: &entra::State,
    verb: &str,
    head: &Parts,
    body: &[u8],
    records: impl Fn() -> Value,
    clear: impl Fn(),
) -> Response<Content> {
    if !head.extensions.get::<Peer>().is_some_and(|peer| peer.0.ip().is_loopback()) {
        return say(StatusCode::FORBIDDEN, &json!({ "error": "loopback callers only" }));
    }
    match (&head.method, verb) {
        (&Method::GET, "requests") => say(StatusCode::OK, &records()),
        (&Method::POST, "clear") => {
            clear();
            say(StatusCode::OK, &json!({}))
        }
        (&Method::POST, "fault") => fault(entra, &String::from_utf8_lossy(body)),
        (&Method::POST, "revoke") => revoke(entra, head.uri.query().unwrap_or_default()),
        _ => say(StatusCode::NOT_FOUND, &json!({ "error": "GET requests, POST clear, POST fault, POST revoke" })),
    }
}

fn fault(entra: &entra::State, text: &str) -> Response<Content> {
    match Fault::parse_list(text) {
        Ok(faults) if faults.is_empty() => entra.faults.clear(),
        Ok(faults) => faults.into_iter().for_each(|fault| entra.faults.push(fault)),
        Err(error) => return say(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
    }
    say(StatusCode::OK, &json!({ "waiting": entra.faults.waiting() }))
}

fn revoke(entra: &entra::State, query: &str) -> Response<Content> {
    let value = |name: &str| {
        form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    };
    let all = match value("what").as_deref() {
        None | Some("all") => true,
        Some("access") => false,
        Some(_) => return say(StatusCode::BAD_REQUEST, &json!({ "error": "what is all or access" })),
    };
    match value("user") {
        Some(user) if entra.revoke(&user, all) => say(StatusCode::OK, &json!({ "revoked": user })),
        _ => say(StatusCode::NOT_FOUND, &json!({ "error": "no such user" })),
    }
}

fn say(status: StatusCode, body: &Value) -> Response<Content> {
    let mut response = Response::new(Content::from(Bytes::from(format!("{body:#}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

//! `/_sandbox/`: the same switches for somebody outside of the process, on both servers, for loopback callers only.
//!
//! `GET requests` and the other records of this server, `GET identity-requests`, `POST clear`, `POST fault` (body: a list of faults as text; empty clears),
//! `POST revoke?user=alice[&what=access]`, `POST demand?prefix=/v1.0/me[&user=alice]` (body: claims; empty clears),
//! `GET assertion?user=alice`, `GET federated-token`, `GET grants?count=2[&skip=1]`.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::content::Content;
use super::entra::{self, Assertion};
use super::fault::Fault;
use super::wire::Peer;

pub(super) const PREFIX: &str = "/_sandbox/";

pub(super) fn answer(
    entra: &entra::State,
    verb: &str,
    head: &Parts,
    body: &[u8],
    records: impl Fn(&str) -> Option<Value>,
    clear: impl Fn(),
) -> Response<Content> {
    if !head.extensions.get::<Peer>().is_some_and(|peer| peer.0.ip().is_loopback()) {
        return say(StatusCode::FORBIDDEN, &json!({ "error": "loopback callers only" }));
    }
    let query = head.uri.query().unwrap_or_default();
    if let Some(records) = Some(verb).filter(|_| head.method == Method::GET).and_then(records) {
        return say(StatusCode::OK, &records);
    }
    match (&head.method, verb) {
        (&Method::POST, "clear") => {
            clear();
            say(StatusCode::OK, &json!({}))
        }
        (&Method::POST, "fault") => fault(entra, &String::from_utf8_lossy(body)),
        (&Method::POST, "revoke") => revoke(entra, query),
        (&Method::POST, "demand") => demand(entra, query, &String::from_utf8_lossy(body)),
        (&Method::GET, "identity-requests") => say(StatusCode::OK, &json!(entra.identity_requests())),
        (&Method::GET, "assertion") => {
            let user = parameter(query, "user").unwrap_or_default();
            say(StatusCode::OK, &json!({ "assertion": entra.assertion(&user, &Assertion::default()) }))
        }
        (&Method::GET, "grants") => grants(entra, query),
        (&Method::GET, "federated-token") => say(StatusCode::OK, &json!({ "token": entra.federated_token() })),
        _ => say(StatusCode::NOT_FOUND, &json!({ "error": VERBS })),
    }
}

const VERBS: &str = "GET requests, GET identity-requests; at Graph GET file-requests, GET leaks, GET batches, GET at-once; GET assertion, GET federated-token, GET grants, POST clear, POST fault, \
                     POST revoke, POST demand";

fn fault(entra: &entra::State, text: &str) -> Response<Content> {
    match Fault::parse_list(text) {
        Ok(faults) if faults.is_empty() => entra.faults.clear(),
        Ok(faults) => faults.into_iter().for_each(|fault| entra.faults.push(fault)),
        Err(error) => return say(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
    }
    say(StatusCode::OK, &json!({ "waiting": entra.faults.waiting() }))
}

fn revoke(entra: &entra::State, query: &str) -> Response<Content> {
    let all = match parameter(query, "what").as_deref() {
        None | Some("all") => true,
        Some("access") => false,
        Some(_) => return say(StatusCode::BAD_REQUEST, &json!({ "error": "what is all or access" })),
    };
    match parameter(query, "user") {
        Some(user) if entra.revoke(&user, all) => say(StatusCode::OK, &json!({ "revoked": user })),
        _ => say(StatusCode::NOT_FOUND, &json!({ "error": "no such user" })),
    }
}

/// Signs many users in at once: a row each, as `accounts import` reads them.
fn grants(entra: &entra::State, query: &str) -> Response<Content> {
    let number = |name, default| parameter(query, name).map_or(Ok(default), |text| text.parse::<usize>());
    let (Ok(skip), Ok(count)) = (number("skip", 0), number("count", usize::MAX)) else {
        return say(StatusCode::BAD_REQUEST, &json!({ "error": "skip and count are numbers" }));
    };
    let mut rows = Vec::new();
    for grant in entra.grants(skip, count) {
        let row = json!({
            "alias": grant.user,
            "provider": "entra",
            "refresh_token": grant.refresh_token,
            "access_token": grant.access_token,
            "expires_at": grant.expires_at.secs(),
            "tid": grant.tenant,
            "oid": grant.oid,
        });
        rows.extend_from_slice(format!("{row}\n").as_bytes());
    }
    let mut response = Response::new(Content::from(Bytes::from(rows)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response
}

fn demand(entra: &entra::State, query: &str, claims: &str) -> Response<Content> {
    if claims.trim().is_empty() {
        entra.demands.clear();
        return say(StatusCode::OK, &json!({}));
    }
    let (user, prefix) = (parameter(query, "user"), parameter(query, "prefix").unwrap_or_else(|| "/".to_owned()));
    if entra.demands.push(user.as_deref(), &prefix, claims) {
        say(StatusCode::OK, &json!({ "demanded": prefix }))
    } else {
        say(StatusCode::BAD_REQUEST, &json!({ "error": "the claims are no JSON object" }))
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

fn say(status: StatusCode, body: &Value) -> Response<Content> {
    let mut response = Response::new(Content::from(Bytes::from(format!("{body:#}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

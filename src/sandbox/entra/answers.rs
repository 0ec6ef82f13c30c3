//! The kinds of answers that Entra gives: JSON, pages, redirects.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::sandbox::content::Content;
use crate::sandbox::random;

/// JSON that nobody may keep: what the token endpoint sends, with the cookies that nobody should send back.
pub(super) fn uncached_json(status: u16, body: &Value) -> Response<Content> {
    let mut response = json(status, body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    for (name, value) in [
        ("x-ms-request-id", random::guid()),
        ("x-ms-ests-server", "2.1.0 - sandbox ProdSlices".to_owned()),
        ("set-cookie", format!("fpc={}; path=/; secure; HttpOnly; SameSite=None", random::text(32))),
        ("set-cookie", "x-ms-gateway-slice=estsfd; path=/; secure; httponly".to_owned()),
    ] {
        append(headers, name, &value);
    }
    response
}

pub(super) fn json(status: u16, body: &Value) -> Response<Content> {
    with_type(status, "application/json; charset=utf-8", body.to_string())
}

/// A page. It may load nothing, and nobody may keep it.
pub(super) fn page(status: u16, html: String) -> Response<Content> {
    let mut response = with_type(status, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

pub(super) fn redirect(location: &str) -> Response<Content> {
    let mut response = Response::new(Content::empty());
    *response.status_mut() = StatusCode::FOUND;
    append(response.headers_mut(), "location", location);
    append(response.headers_mut(), "cache-control", "no-store, no-cache");
    response
}

/// Any answer, as a fault has it.
pub(super) fn any(status: u16, headers: &[(String, String)], body: &str) -> Response<Content> {
    let mut response = Response::new(Content::from(Bytes::from(body.to_owned())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    add(&mut response, headers);
    response
}

pub(super) fn add(response: &mut Response<Content>, headers: &[(String, String)]) {
    for (name, value) in headers {
        append(response.headers_mut(), name, value);
    }
}

fn with_type(status: u16, media_type: &'static str, body: String) -> Response<Content> {
    let mut response = Response::new(Content::from(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn append(headers: &mut http::HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.append(name, value);
    }
}

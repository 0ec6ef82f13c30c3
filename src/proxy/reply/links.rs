//! Answers that name the upstream come back naming what the client calls us: headers, and JSON bodies as they stream.
//!
//! What is sent elsewhere (a file's content, an upload's place) is not touched, and no redirect is followed.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use super::ReplyBody;
use super::decode::Coding;
use crate::graph::links::{Links, URLS};
use crate::proxy::canonical::Canonical;
use crate::proxy::media::is_json;
use crate::proxy::terms::Terms;

/// What is said of the bytes of a body, and is no longer true of others.
const OF_THE_BYTES: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// The answer with its links as the client can follow them.
pub async fn translate(mut response: Response<ReplyBody>, terms: &Terms<'_>, method: &Method) -> Response<ReplyBody> {
    let coding = rewritable(response.status(), response.headers(), terms.path);
    if coding.is_none() && !URLS.iter().any(|name| response.headers().contains_key(name)) {
        return response;
    }
    let Some(links) = terms.links() else { return response };
    rewrite_urls(response.headers_mut(), &links);
    let Some(coding) = coding else { return response };
    // An answer to HEAD says of the body what an answer to GET would say.
    if *method == Method::HEAD || response.body_mut().rewrite(&links, coding).await {
        for name in &OF_THE_BYTES {
            response.headers_mut().remove(name);
        }
    }
    response
}

fn rewrite_urls(headers: &mut HeaderMap, links: &Links<'_>) {
    for name in &URLS {
        // Cheaper than an entry, which makes room for itself.
        if !headers.contains_key(name) {
            continue;
        }
        let Entry::Occupied(mut values) = headers.entry(name) else { continue };
        for value in values.iter_mut() {
            let url = std::str::from_utf8(value.as_bytes()).ok().and_then(|url| links.url(url));
            if let Some(url) = url.and_then(|url| HeaderValue::try_from(url).ok()) {
                *value = url;
            }
        }
    }
}

/// The coding of a body whose links are ours to rewrite.
fn rewritable(status: StatusCode, headers: &HeaderMap, path: &Canonical<'_>) -> Option<Coding> {
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_part = status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE);
    if has_none || is_part || path.is_file() || !is_json(headers) {
        return None;
    }
    Coding::of(headers)
}

//! Links in request bodies that name us, turned to what the upstream knows.
//!
//! Only JSON of a known alphabet is read, and only while it is short enough to be kept. Whatever else there is streams through as it came,
//! and so does a body in which nothing names us.

use http::Method;
use http::request::Parts;

use crate::graph::links;
use crate::proxy::error::Refusal;
use crate::proxy::media::{is_json, is_plain};
use crate::proxy::replay::Replay;
use crate::proxy::shared::Shared;
use crate::proxy::terms::Terms;

/// The body as it goes out.
pub async fn translate(terms: &Terms<'_>, shared: &Shared, head: &Parts, body: Replay) -> Result<Replay, Refusal> {
    if !may_have_links(terms, head) {
        return Ok(body);
    }
    let Some(read) = body.read_all(usize::MAX, terms.upstream.idle_timeout).await? else { return Ok(body) };
    let translated = links::in_request(&read, |key, url| terms.link(key, url))?;
    Ok(translated.map_or(body, |translated| shared.body(translated.into())))
}

fn may_have_links(terms: &Terms<'_>, head: &Parts) -> bool {
    terms.upstream.rewrite_links
        && matches!(&head.method, &Method::POST | &Method::PUT | &Method::PATCH)
        && is_json(&head.headers)
        && is_plain(&head.headers)
        && !terms.path.is_file()
}

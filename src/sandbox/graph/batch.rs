//! `$batch`: up to twenty requests in one, answered in another order, each with a status and with faults of its own.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::Answer;
use super::bearer;
use super::intake::Body;
use super::manner::Manner;
use super::routes::Call;
use crate::sandbox::fault::{BatchOrder, Place};

const MOST: usize = 20;

pub(super) fn answer(call: &Call<'_>, manner: &Manner) -> Answer {
    let body = match call.json() {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let Some(requests) = body["requests"].as_array() else {
        return call.error(400, "BadRequest", "Invalid batch payload format.");
    };
    if requests.len() > MOST {
        return call.error(400, "BadRequest", "Number of batch request steps exceeds the maximum value of 20.");
    }
    if call.state.options.record {
        call.state.batches.push(body.clone());
    }
    let mut statuses = HashMap::new();
    let mut responses = Vec::with_capacity(requests.len());
    for request in requests {
        let Some(id) = request["id"].as_str().filter(|id| !id.is_empty()) else {
            return call.error(400, "BadRequest", "Every batch request needs an id.");
        };
        let parents = request["dependsOn"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let failed =
            parents.into_iter().any(|parent| statuses.get(&parent.to_lowercase()).is_none_or(|status| *status >= 400));
        let answer = if failed {
            call.error(424, "FailedDependency", "A request that this one depends on has failed.")
        } else {
            one(call, request, manner)
        };
        if statuses.insert(id.to_lowercase(), answer.status).is_some() {
            return call.error(400, "BadRequest", &format!("Request id '{id}' is used more than once."));
        }
        responses.push(answer.into_item(&call.state.clock, id));
    }
    match manner.batch_order {
        BatchOrder::Kept => {}
        BatchOrder::Reversed => responses.reverse(),
        BatchOrder::Shuffled => responses.sort_by_cached_key(|item| Sha256::digest(item["id"].to_string())),
    }
    Answer::json(200, json!({ "responses": responses }))
}

/// One item. Its URL is relative to the version; an absolute one is not found.
fn one(call: &Call<'_>, request: &Value, manner: &Manner) -> Answer {
    let bad = || call.error(400, "BadRequest", "A batch request needs a method and a url.");
    let Some((Ok(method), url)) =
        request["method"].as_str().zip(request["url"].as_str()).map(|(method, url)| (method.parse::<Method>(), url))
    else {
        return bad();
    };
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = format!("/{}/{}", call.version, path.trim_start_matches('/'));
    let headers = headers(&request["headers"]);
    let Some(body) = body(&request["body"], &headers) else {
        return call.error(400, "BadRequest", "A body that is no JSON has to be base64.");
    };
    if let Some(denial) = bearer::unmet(call.state, call.token, &path) {
        return bearer::denied(call.state, call.ids, &denial, None, &manner.shapes);
    }
    let here = |place: &Place| matches!(place, Place::Graph(prefix) if path.starts_with(prefix.as_str()));
    let end = call.state.faults().take(Some(&call.user.alias), true, here).end;
    if let Some(failure) = end.and_then(|end| call.state.failure(&end, call.ids, &path, manner)) {
        return failure;
    }
    match Call::new(call.state, call.ids, &method, &path, call.token, call.user) {
        Some(inner) if inner.segments.iter().any(|segment| segment == "$batch") => {
            call.error(400, "BadRequest", "A batch can't contain a batch.")
        }
        Some(inner) if !url.contains("://") => Call { query, headers: &headers, body: &body, ..inner }.answer(),
        _ => call.error(404, "ResourceNotFound", &format!("Resource not found for the segment '{url}'.")),
    }
}

/// JSON as it is, anything else out of base64.
fn body(written: &Value, headers: &HeaderMap) -> Option<Body> {
    let json = headers.get(CONTENT_TYPE).is_none_or(|media| media.to_str().is_ok_and(|media| media.contains("json")));
    match written {
        Value::Null => Some(Vec::new().into()),
        Value::String(text) if !json => STANDARD.decode(text).ok().map(Body::from),
        body => Some(body.to_string().into_bytes().into()),
    }
}

fn headers(written: &Value) -> HeaderMap {
    let pairs = written.as_object().into_iter().flatten();
    pairs
        .filter_map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.as_str()?).ok()?))
        })
        .collect()
}

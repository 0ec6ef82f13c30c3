//! `$batch`: up to twenty requests in one, answered in reverse order, each with a status and with faults of its own.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::answer::Answer;
use super::bearer;
use super::routes::Call;
use crate::sandbox::fault::{Effect, Place};

const MOST: usize = 20;

pub(super) fn answer(call: &Call<'_>) -> Answer {
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
            one(call, request)
        };
        if statuses.insert(id.to_lowercase(), answer.status).is_some() {
            return call.error(400, "BadRequest", &format!("Request id '{id}' is used more than once."));
        }
        responses.push(answer.into_item(id));
    }
    responses.reverse();
    Answer::json(200, json!({ "responses": responses }))
}

/// One item. Its URL is relative to the version; an absolute one is not found.
fn one(call: &Call<'_>, request: &Value) -> Answer {
    let bad = || call.error(400, "BadRequest", "A batch request needs a method and a url.");
    let Some((Ok(method), url)) =
        request["method"].as_str().zip(request["url"].as_str()).map(|(method, url)| (method.parse::<Method>(), url))
    else {
        return bad();
    };
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = format!("/{}/{}", call.version, path.trim_start_matches('/'));
    let headers = headers(&request["headers"]);
    let body = match &request["body"] {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let here = |place: &Place| matches!(place, Place::Graph(prefix) if path.starts_with(prefix.as_str()));
    if let Some(denial) = bearer::unmet(call.state, call.token, &path) {
        return bearer::denied(call.state, call.ids, &denial, None, &[]);
    }
    match call.state.faults().take(Some(&call.user.alias), true, here).end {
        Some(Effect::Denied(denial)) => return bearer::denied(call.state, call.ids, &denial, None, &[]),
        Some(Effect::GraphError { status, code, message, headers }) => {
            return call.error(status, &code, &message).with_all(&headers);
        }
        _ => {}
    }
    match Call::new(call.state, call.ids, &method, &path, call.token, call.user) {
        Some(inner) if !url.contains("://") => Call { query, headers: &headers, body: &body, ..inner }.answer(),
        _ => call.error(404, "ResourceNotFound", &format!("Resource not found for the segment '{url}'.")),
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

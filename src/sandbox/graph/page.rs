//! Collections, page by page, with the absolute links that lead to the next one.
//!
//! A paging token has `+`, `/` and `=` in it, encoded, and is accepted only exactly as it was given: a client or a proxy
//! that decodes and encodes again is found out.

use std::ops::Range;

use serde_json::{Value, json};

use super::answer::Answer;
use super::routes::Call;

const LARGEST_PAGE: usize = 1000;

/// One page of the `total` items that `items` makes. `delta`: the last page has a link to later changes.
pub(super) fn answer(
    call: &Call<'_>,
    context: &str,
    total: usize,
    delta: bool,
    items: impl FnOnce(Range<usize>) -> Vec<Value>,
) -> Answer {
    let options = &call.state.options;
    let size = match call.option("$top").map(|top| top.parse::<usize>()) {
        None => preferred(call).unwrap_or(options.page_size),
        Some(Ok(size)) if size > 0 => size.min(LARGEST_PAGE),
        Some(_) => return call.error(400, "BadRequest", "Invalid value specified for the '$top' query option."),
    };
    let padding = "p".repeat(options.link_padding);
    let start = match (call.raw_option("$skiptoken"), call.option("$skip")) {
        (Some(token), _) => match offset(token, &padding) {
            Some(offset) => offset,
            None => return call.error(400, "BadRequest", "The skip token is malformed."),
        },
        (None, Some(skip)) => match skip.parse() {
            Ok(skip) => skip,
            Err(_) => return call.error(400, "BadRequest", "Invalid value specified for the '$skip' query option."),
        },
        (None, None) => 0,
    };
    let settled = delta && call.raw_option("$deltatoken").is_some();
    let start = if settled { total } else { start.min(total) };
    let end = start.saturating_add(size).min(total);
    let mut values = items(start..end);
    select(call, &mut values);
    let mut body = json!({ "@odata.context": call.link(&format!("/$metadata#{context}")) });
    let path = call.path();
    if end < total {
        let mut kept = call.query_without(&["$skiptoken", "$skip"]);
        kept.push(format!("$skiptoken={}", token(end, &padding)));
        body["@odata.nextLink"] = json!(format!("{}{path}?{}", call.state.links, kept.join("&")));
    } else if delta {
        body["@odata.deltaLink"] = json!(format!("{}{path}?$deltatoken=d%2B{total}%2F%3D", call.state.links));
    }
    body["value"] = json!(values);
    Answer::json(200, body)
}

/// `$select`: the named properties, the id and annotations.
pub(super) fn select(call: &Call<'_>, values: &mut [Value]) {
    let Some(names) = call.option("$select") else { return };
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    for value in values.iter_mut().filter_map(Value::as_object_mut) {
        value.retain(|key, _| {
            let property = key.split('@').next().unwrap_or_default();
            property.is_empty() || ["id"].iter().chain(&names).any(|name| *name == property) || expanded(call, property)
        });
    }
}

/// Adds a collection to its entity (at `path` after the version) if the request wants it expanded, with a link to the rest of it.
pub(super) fn expand(
    call: &Call<'_>,
    entity: &mut Value,
    path: &str,
    property: &str,
    all: impl FnOnce() -> Vec<Value>,
) {
    let Some(options) = expansion(call, property) else { return };
    let top = options.split(';').find_map(|option| option.trim().strip_prefix("$top=")?.parse().ok());
    let size = top.unwrap_or(call.state.options.page_size).max(1);
    let mut values = all();
    let rest = values.len() > size;
    values.truncate(size);
    entity[format!("{property}@odata.context")] =
        json!(call.link(&format!("/$metadata{}/{property}", path.replacen('/', "#", 1))));
    if rest {
        let token = token(size, &"p".repeat(call.state.options.link_padding));
        let link = format!("{path}/{property}?$top={size}&$skiptoken={token}");
        entity[format!("{property}@odata.nextLink")] = json!(call.link(&link));
    }
    entity[property] = json!(values);
}

fn expanded(call: &Call<'_>, property: &str) -> bool {
    expansion(call, property).is_some()
}

/// What stands in the parentheses of `$expand=property(..)`.
fn expansion(call: &Call<'_>, property: &str) -> Option<String> {
    let text = call.option("$expand")?;
    let after = text.split(',').find_map(|one| one.trim().strip_prefix(property))?;
    let inside = after.strip_prefix('(').map(|inside| inside.trim_end_matches(')'));
    (after.is_empty() || inside.is_some()).then(|| inside.unwrap_or_default().to_owned())
}

/// `Prefer: odata.maxpagesize=N`.
fn preferred(call: &Call<'_>) -> Option<usize> {
    let values = call.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).find_map(|one| {
        let size = one.trim().strip_prefix("odata.maxpagesize=")?.parse().ok()?;
        (1..=LARGEST_PAGE).contains(&size).then_some(size)
    })
}

fn token(offset: usize, padding: &str) -> String {
    format!("m~AQAnOyQ%2B{offset}%2F{padding}X%2744537%27%3D%3D")
}

fn offset(text: &str, padding: &str) -> Option<usize> {
    let (start, _) = text.strip_prefix("m~AQAnOyQ%2B")?.split_once('%')?;
    let offset = start.parse().ok()?;
    (text == token(offset, padding)).then_some(offset)
}

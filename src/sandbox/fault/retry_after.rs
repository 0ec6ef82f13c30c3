//! Every form of `Retry-After` that is seen in the wild, in a spelling that fits into a list of faults: `30`, `0.5`, `30+120` (two
//! values joined by a comma), `date+30` and `date-30` (an HTTP date so many seconds from now).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};

use crate::clock::Clock;

/// What a fault's text says, as it stands on the wire; a date is left for `spell_out`.
pub(super) fn parse(text: &str) -> String {
    if text.starts_with("date") { text.to_owned() } else { text.replace('+', ",") }
}

/// Turns `date+30` into a date.
pub(super) fn spell_out(clock: &Clock, headers: &mut HeaderMap) {
    let header::Entry::Occupied(mut values) = headers.entry(header::RETRY_AFTER) else { return };
    for value in values.iter_mut() {
        let spelled = value.to_str().ok().and_then(|text| HeaderValue::try_from(spelled(clock, text)).ok());
        if let Some(spelled) = spelled {
            *value = spelled;
        }
    }
}

/// The value as it stands on the wire now.
pub(in crate::sandbox) fn spelled(clock: &Clock, value: &str) -> String {
    let Some(offset) = value.strip_prefix("date").and_then(|offset| offset.parse::<i64>().ok()) else {
        return value.to_owned();
    };
    let at = u64::try_from(clock.now().secs().saturating_add(offset)).unwrap_or(0);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
}

//! `Retry-After` as it occurs in the wild: integers, decimals (`0.249`), dates (RFC 9110, 10.2.3), and duplicates joined by commas
//! (`30,120`). The largest counts; nonsense counts as absent.

use std::time::Duration;

use crate::clock::Timestamp;

/// Nobody is told to wait longer than this.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// The wait that all values of the header together ask for, rounded up to whole seconds.
pub fn parse<'a>(values: impl Iterator<Item = &'a str>, now: Timestamp) -> Option<Duration> {
    values.filter_map(|value| parse_value(value.trim(), now)).max().map(|wait| wait.min(LONGEST))
}

fn parse_value(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(date) = httpdate::parse_http_date(value) {
        let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        let at = Timestamp::from_secs(i64::try_from(since_epoch.as_secs()).ok()?);
        return Some(whole_seconds(at.since(now)));
    }
    value.split(',').filter_map(|part| seconds(part.trim())).max()
}

fn seconds(text: &str) -> Option<Duration> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = plain.then(|| text.parse().ok()).flatten()?;
    Some(whole_seconds(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST)))
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_seen_in_the_wild() {
        let now = Timestamp::from_secs(1_635_527_790);
        let cases: [(&[&str], Option<u64>); 14] = [
            (&["120"], Some(120)),
            (&["0"], Some(0)),
            (&["0.249"], Some(1)),
            (&["2.128"], Some(3)),
            (&["0,120"], Some(120)),
            (&["30, 120"], Some(120)),
            (&["30", "60"], Some(60)),
            (&["Fri, 29 Oct 2021 17:17:00 GMT"], Some(30)),
            (&["Fri, 29 Oct 2021 17:16:00 GMT"], Some(0)),
            (&["99999999999999999999"], Some(3600)),
            (&["-5"], None),
            (&["soon"], None),
            (&["1e3"], None),
            (&[], None),
        ];
        for (values, expected) in cases {
            assert_eq!(parse(values.iter().copied(), now), expected.map(Duration::from_secs), "{values:?}");
        }
    }
}

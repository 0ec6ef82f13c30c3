//! What a single value means: its text form read, or one sentence on what it should be. No sentence quotes the value of a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::{Host, Url};

use super::tree::{Node, Value};
use super::{Listen, Network, Rotation};
use crate::clock::Timestamp;

pub fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(format!("must be a text, not {}", other.described())),
    }
}

/// Text with something in it.
pub fn filled(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    if text.trim().is_empty() { Err("is empty".into()) } else { Ok(text) }
}

/// A parser of texts as a parser of values.
pub fn of_text<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| parse(&text(value)?)
}

pub fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Flag(flag) => Ok(*flag),
        other => Err(format!("must be true or false, not {}", other.described())),
    }
}

pub fn integer<T: TryFrom<i64>>(range: RangeInclusive<i64>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let Value::Integer(integer) = value else {
            return Err(format!("must be an integer, not {}", value.described()));
        };
        let fits = range.contains(integer).then(|| T::try_from(*integer).ok()).flatten();
        fits.ok_or_else(|| match *range.end() {
            i64::MAX => format!("must be at least {}", range.start()),
            end => format!("must be from {} to {end}", range.start()),
        })
    }
}

pub fn positive_number(value: &Value) -> Result<f64, String> {
    let number = match value {
        #[expect(clippy::cast_precision_loss, reason = "a rate of 2^53 requests per second is no limit")]
        Value::Integer(integer) => *integer as f64,
        Value::Number(number) => *number,
        other => return Err(format!("must be a number, not {}", other.described())),
    };
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be more than 0".into()) }
}

/// A part of a whole: 0 to 1.
pub fn fraction(value: &Value) -> Result<f64, String> {
    match value {
        Value::Integer(0) => Ok(0.0),
        Value::Integer(1) => Ok(1.0),
        Value::Number(number) if (0.0..=1.0).contains(number) => Ok(*number),
        Value::Integer(_) | Value::Number(_) => Err("must be from 0 to 1".into()),
        other => Err(format!("must be a number, not {}", other.described())),
    }
}

pub fn path(value: &Value) -> Result<PathBuf, String> {
    filled(value).map(PathBuf::from)
}

/// `500ms`, `10s`, `2m`, `1h`, `90d`; more than nothing.
pub fn duration(value: &Value) -> Result<Duration, String> {
    let parsed = delay(value)?;
    if parsed.is_zero() { Err("must be more than 0".into()) } else { Ok(parsed) }
}

/// The same, and `0s`.
pub fn delay(value: &Value) -> Result<Duration, String> {
    let what = "must be a duration such as \"500ms\", \"10s\" or \"2m\"";
    let Value::Text(text) = value else { return Err(format!("{what}, not {}", value.described())) };
    Ok(parse_duration(text).ok_or(what)?)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let amount: u64 = text[..unit].parse().ok()?;
    match text[unit..].trim() {
        "ms" => Some(Duration::from_millis(amount)),
        "s" => Some(Duration::from_secs(amount)),
        "m" => amount.checked_mul(60).map(Duration::from_secs),
        "h" => amount.checked_mul(3600).map(Duration::from_secs),
        "d" => amount.checked_mul(24 * 3600).map(Duration::from_secs),
        _ => None,
    }
}

/// RFC 3339: a time, or a date, which means its first moment in UTC.
pub fn date(value: &Value) -> Result<Timestamp, String> {
    let what = "must be a date such as \"2027-01-31\" or a time such as \"2027-01-31T12:00:00Z\"";
    let text = text(value)?;
    let text = text.trim();
    let time = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let at: jiff::Timestamp = time.parse().map_err(|_| what)?;
    Ok(Timestamp::from_secs(at.as_second()))
}

/// Texts under names, none of them empty.
pub fn texts(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let what = || "must be a table of names and texts, such as { azp = \"...\" }".to_owned();
    let Value::Table(entries) = value else { return Err(what()) };
    let entry = |(name, node): (&String, &Node)| match &node.value {
        Value::Text(text) if !name.is_empty() => Ok((name.clone(), text.clone())),
        _ => Err(what()),
    };
    entries.iter().map(entry).collect()
}

/// `strict`, `tolerant` or `grace:10s`.
pub fn rotation(value: &Value) -> Result<Rotation, String> {
    let text = text(value)?;
    match text.strip_prefix("grace:").map(parse_duration) {
        Some(Some(grace)) => Ok(Rotation::Grace(grace)),
        None if text == "strict" => Ok(Rotation::Strict),
        None if text == "tolerant" => Ok(Rotation::Tolerant),
        _ => Err("must be \"strict\", \"tolerant\" or \"grace:10s\"".into()),
    }
}

/// `127.0.0.1:8080`, `[::]:8080`, `localhost:8080` or `unix:/run/bearerd.sock`.
pub fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(Listen::Unix(path.into()))
        } else {
            Err("a Unix socket needs an absolute path: \"unix:/run/bearerd/graph.sock\"".into())
        };
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(Listen::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    }
    text.parse()
        .map(Listen::Tcp)
        .map_err(|_| "must be an IP address and a port, such as \"127.0.0.1:8080\", or \"unix:/path\"".into())
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        listen(text)
    }
}

/// As `listen` reads it.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address range such as `10.0.0.0/8`, or one address.
pub fn network(text: &str) -> Result<Network, String> {
    let parsed = match text.split_once('/') {
        Some((address, prefix)) => address.parse().ok().zip(prefix.parse().ok()),
        None => text.parse().ok().map(|address: IpAddr| (address, if address.is_ipv4() { 32 } else { 128 })),
    };
    match parsed {
        Some((address, prefix)) if prefix <= if address.is_ipv4() { 32 } else { 128 } => {
            Ok(Network { address, prefix })
        }
        _ => Err("must be a network such as \"10.0.0.0/8\"".into()),
    }
}

/// A name as in `Host`, without a port; lower case from here on.
pub fn host(text: &str) -> Result<String, String> {
    match Host::parse(text) {
        Ok(host) => Ok(host.to_string()),
        Err(_) => Err("must be a host name without scheme and port".into()),
    }
}

/// `https://host[:port]` or `http://...`: nothing after the port.
pub fn origin(text: &str) -> Result<Url, String> {
    let url = web_url(text)?;
    if url.path() == "/" { Ok(url) } else { Err("must be an origin: scheme, host and port, without a path".into()) }
}

/// An origin that tokens or secrets go to: plain http only to a loopback address.
pub fn safe_origin(text: &str) -> Result<Url, String> {
    origin(text).and_then(refuse_plain)
}

/// What a path is appended to.
pub fn base(text: &str) -> Result<Url, String> {
    web_url(text)
}

/// An issuer may have a path.
pub fn issuer(text: &str) -> Result<Url, String> {
    web_url(text).and_then(refuse_plain)
}

/// A document such as a set of keys: a path and a query are fine.
pub fn document(text: &str) -> Result<Url, String> {
    any_url(text).and_then(refuse_plain)
}

/// Where the tokens of a managed identity come from: https, or plain http that does not leave this machine's own link.
pub fn identity_endpoint(text: &str) -> Result<Url, String> {
    let url = web_url(text)?;
    let on_link = matches!(url.host(), Some(Host::Ipv4(address)) if address.is_link_local());
    if on_link { Ok(url) } else { refuse_plain(url).map_err(|_| "must be https, loopback or link-local".into()) }
}

fn web_url(text: &str) -> Result<Url, String> {
    let url = any_url(text)?;
    if url.query().is_some() { Err("must not have a query".into()) } else { Ok(url) }
}

fn any_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("must be a URL such as \"https://host\": {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must start with https:// or http://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or a password".into());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".into());
    }
    Ok(url)
}

fn refuse_plain(url: Url) -> Result<Url, String> {
    if url.scheme() == "https" || is_loopback(&url) {
        Ok(url)
    } else {
        Err("must be https: plain http goes to a loopback address only".into())
    }
}

/// `localhost`, 127.0.0.0/8 and `[::1]`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The name of a provider or an upstream: `[a-z0-9][a-z0-9_-]*`.
pub fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.chars().all(|c| plain(c) || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration_of(text: &str) -> Result<Duration, String> {
        duration(&Value::Text(text.into()))
    }

    #[test]
    fn durations() {
        assert_eq!(duration_of("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration_of("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration_of("1h"), Ok(Duration::from_hours(1)));
        assert_eq!(duration_of("90d"), Ok(Duration::from_hours(90 * 24)));
        for wrong in ["", "10", "s", "-1s", "1.5s", "10 parsecs", "0s", "99999999999999999999s", "9999999999999999999h"]
        {
            assert!(duration_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dates() {
        let date = |text: &str| date(&Value::Text(text.into()));
        assert_eq!(date("1970-01-02"), Ok(Timestamp::from_secs(24 * 3600)));
        assert_eq!(date("1970-01-01T01:00:00+01:00"), Ok(Timestamp::from_secs(0)));
        for wrong in ["", "soon", "1970-13-01", "01.02.2027", "2027-01-31T12:00:00"] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn managed_identities_answer_from_near_by() {
        for near in [
            "http://169.254.169.254",
            "http://127.0.0.1:41056/MSI/token",
            "http://localhost:42356/msi/token",
            "https://a/b",
        ] {
            assert!(identity_endpoint(near).is_ok(), "{near}");
        }
        for wrong in ["http://10.0.0.1", "http://169.253.1.1", "http://169.254.169.254.example.com", "file:///x", ""] {
            assert!(identity_endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rotations() {
        let rotation = |text: &str| rotation(&Value::Text(text.into()));
        assert_eq!(rotation("grace:10s"), Ok(Rotation::Grace(Duration::from_secs(10))));
        assert_eq!(rotation("strict"), Ok(Rotation::Strict));
        for wrong in ["", "grace", "grace:", "grace:x", "Strict"] {
            assert!(rotation(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listeners() {
        assert_eq!(listen("localhost:80"), Ok(Listen::Tcp(([127, 0, 0, 1], 80).into())));
        assert_eq!(listen("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(listen("unix:/run/b.sock").unwrap().to_string(), "unix:/run/b.sock");
        assert_eq!(listen("unix:/run/b.sock"), Ok(Listen::Unix("/run/b.sock".into())));
        assert!(listen("[::1]:0").is_ok());
        for wrong in ["8080", ":8080", "unix:b.sock", "http://127.0.0.1:80", "example.com:80", "127.0.0.1:99999"] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins() {
        assert!(origin("http://proxy.example.com:8080").is_ok());
        assert!(safe_origin("https://graph.microsoft.com/").is_ok());
        for loopback in ["http://localhost:1", "http://127.9.9.9:1", "http://[::1]:1"] {
            assert!(safe_origin(loopback).is_ok(), "{loopback}");
        }
        for wrong in [
            "graph.microsoft.com",
            "ftp://a",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://u:p@a",
            "https://",
            "http://graph.microsoft.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
        ] {
            let error = safe_origin(wrong).expect_err(wrong);
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn fractions() {
        assert_eq!(fraction(&Value::Number(0.25)), Ok(0.25));
        assert_eq!((fraction(&Value::Integer(0)), fraction(&Value::Integer(1))), (Ok(0.0), Ok(1.0)));
        for wrong in [Value::Number(-0.1), Value::Number(1.1), Value::Number(f64::NAN), Value::Integer(20)] {
            assert_eq!(fraction(&wrong), Err("must be from 0 to 1".to_owned()), "{}", wrong.described());
        }
        assert!(fraction(&Value::Flag(true)).is_err());
    }

    #[test]
    fn networks() {
        assert_eq!(network("10.0.0.0/8").map(|network| network.prefix), Ok(8));
        assert_eq!(network("::1").map(|network| network.prefix), Ok(128));
        for wrong in ["10.0.0.0/33", "::1/129", "10.0.0.0/", "ten"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names() {
        assert!(is_name("entra-2_b") && is_name("0"));
        assert!(!is_name("") && !is_name("-a") && !is_name("A") && !is_name("a.b"));
    }
}

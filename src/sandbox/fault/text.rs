//! Faults as an operator types them: `PLACE:EFFECT[=VALUE][*[TIMES]][@USER]`, several separated by commas.
//!
//! `token:429=30`, `token:50173@alice`, `token:invalid_grant`, `token:drop-after`, `graph:401*3`, `graph/v1.0/me:503*`
//! (`*` alone: until cleared), `graph:slow=500`. `EFFECTS` lists them all.

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::{BatchOrder, ChallengeShape, Coding, Denial, Effect, Fault, Flaw, Place, TokenFault, retry_after};
use crate::sandbox::entra::KeyName;

/// Every effect: where it can happen, how it is written, an example, what it does.
pub const EFFECTS: &[(&str, &str, &str, &str)] = &[
    ("everywhere", "drop-before, closed", "token:closed", "the connection is closed before anything is done"),
    (
        "everywhere",
        "drop-after",
        "token:drop-after",
        "everything is done (tokens rotated, mail sent), then the connection is closed without an answer",
    ),
    (
        "everywhere",
        "drop-head",
        "graph:drop-head",
        "everything is done, the head of the answer is sent, then the connection is closed",
    ),
    (
        "everywhere",
        "cut, half",
        "token:half",
        "everything is done, half of the body is sent, then the connection is closed",
    ),
    ("everywhere", "garbage", "token:garbage", "everything is done, and what is sent is no HTTP"),
    ("everywhere", "slow[=MS]", "graph:slow=500*", "waits first, 2000 ms unless told otherwise; joins other faults"),
    (
        "everywhere",
        "down[=MS], refused[=MS]",
        "token:down=30000",
        "the connection is closed, and for 5000 ms, or as told, the whole server refuses connections",
    ),
    ("everywhere", "html[=STATUS]", "discovery:html", "a page instead of an answer, with status 200 or as told"),
    ("everywhere", "not-json", "keys:not-json", "status 200, and half an object as the whole body"),
    (
        "everywhere",
        "STATUS[=RETRY-AFTER]",
        "token:429=30",
        "400 to 599; at Graph and at imds an error in their shape, elsewhere a page; 401 at Graph is `expired`",
    ),
    (
        "token, devicecode, authorize, discovery, keys",
        "NUMBER[/SUBERROR][=RETRY-AFTER or =claims]",
        "token:50076=claims",
        "an AADSTS number of the table below, or any other from 10000; with `claims` the answer asks for some",
    ),
    ("token, devicecode, authorize, discovery, keys", "NAME", "token:invalid_grant", "the usual error with this name"),
    (
        "token, devicecode, authorize, discovery, keys",
        "error=NAME[/SUBERROR]",
        "token:error=invalid_grant/client_mismatch",
        "just these words, without a number",
    ),
    (
        "token",
        "no-refresh-token",
        "token:no-refresh-token",
        "the answer has no refresh_token, and nothing is rotated; joins other faults, as do all below",
    ),
    ("token", "expires-string", "token:expires-string*", "expires_in is a string"),
    ("token", "no-expires", "token:no-expires", "there is no expires_in"),
    ("token, imds", "expires-in=S", "token:expires-in=60", "the token lives so long"),
    ("token", "refresh-in=S", "token:refresh-in=30", "the answer has refresh_in"),
    ("token", "id-token=FLAW", "token:id-token=issuer", "the identity token breaks one rule: see below"),
    ("token", "sign-with=KEY", "token:sign-with=second", "from now on this key signs: first, second or consumer"),
    ("keys", "only=KEY[+KEY..]", "keys:only=first*", "the key set has just these keys: first, second, consumer, none"),
    ("graph", "expired, revoked, malformed, audience", "graph:revoked", "a plain 401"),
    (
        "graph",
        "claims[=BASE64URL]",
        "graph:claims",
        "a claims challenge; without a value for the authentication context c1",
    ),
    (
        "graph",
        "challenge=SHAPE",
        "graph:challenge=unpadded*",
        "how challenges are written: several-headers, several, unpadded, url-safe, raw, 403; joins",
    ),
    ("graph", "unread", "graph:unread", "answers without reading the body; joins, as do all below"),
    (
        "graph",
        "compress[=CODING]",
        "graph:compress*",
        "JSON is compressed as `Accept-Encoding` wants it, or whatever it says: gzip, deflate, raw-deflate, br, broken (half a gzip)",
    ),
    ("graph", "pieces=BYTES", "graph:pieces=7*", "the body comes in pieces of this size, chunked, each sent alone"),
    (
        "graph",
        "batch-order=ORDER",
        "graph:batch-order=shuffled*",
        "batches are answered reversed (as usual), shuffled or kept",
    ),
    (
        "graph",
        "mailbox-concurrency=N",
        "graph:mailbox-concurrency=4*",
        "429 ApplicationThrottled for each request to a mailbox that has N others under way",
    ),
    (
        "graph",
        "file-quota=N",
        "graph:file-quota=100*",
        "files cost 1 unit, lists and changes 2; from 80 % of N a minute on there is RateLimit-*, then 429 activityLimitReached",
    ),
    ("graph", "flaky=N", "graph:flaky=3*", "every Nth request fails, with 429 and 503 in turn, Retry-After: 1"),
];

/// Why a text is no fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultTextError {
    #[error("{0:?}: a fault is written PLACE:EFFECT, such as token:429 or graph:401")]
    Shape(String),
    #[error("{0:?}: a fault happens at token, devicecode, authorize, discovery, keys, imds, graph or graph/PATH")]
    Place(String),
    #[error("{0:?}: unknown effect; known there are {1}")]
    Effect(String, String),
    #[error("{0:?}: the value after = or * is not understood")]
    Value(String),
}

const SLOW: u64 = 2000;
const DOWN: u64 = 5000;
const CHALLENGE: &str = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
const POLICY: &str =
    r#"{"access_token":{"polids":{"essential":true,"values":["5c0d1a7e-3f52-4b8f-9d0a-6a1a3d2b9c11"]}}}"#;

impl Fault {
    pub fn parse(text: &str) -> Result<Self, FaultTextError> {
        let text = text.trim();
        let value_error = || FaultTextError::Value(text.to_owned());
        let (place, effect) = text.split_once(':').ok_or_else(|| FaultTextError::Shape(text.to_owned()))?;
        let (effect, user) = effect.rsplit_once('@').map_or((effect, None), |(effect, user)| (effect, Some(user)));
        let (effect, times) = match effect.rsplit_once('*') {
            None => (effect, Some(1)),
            Some((effect, "")) => (effect, None),
            Some((effect, times)) => (effect, Some(times.parse().map_err(|_| value_error())?)),
        };
        let (effect, value) = effect.split_once('=').map_or((effect, None), |(effect, value)| (effect, Some(value)));
        let place = parse_place(place).ok_or_else(|| FaultTextError::Place(text.to_owned()))?;
        let effect = common(effect, value)
            .or_else(|| match place {
                Place::Graph(_) => graph_effect(effect, value),
                Place::Identity => identity_effect(effect, value),
                Place::Token => token_effect(effect, value).or_else(|| entra_effect(effect, value)),
                Place::Keys => keys_effect(effect, value).or_else(|| entra_effect(effect, value)),
                Place::DeviceCode | Place::Authorize | Place::Discovery => entra_effect(effect, value),
            })
            .ok_or_else(|| FaultTextError::Effect(text.to_owned(), known(&place)))?
            .ok_or_else(value_error)?;
        Ok(Self { place, user: user.map(str::to_owned), times, effect })
    }

    /// A list, as `--fault` takes it.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, FaultTextError> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(Self::parse).collect()
    }
}

fn parse_place(text: &str) -> Option<Place> {
    Some(match text {
        "token" => Place::Token,
        "devicecode" => Place::DeviceCode,
        "authorize" => Place::Authorize,
        "discovery" => Place::Discovery,
        "keys" => Place::Keys,
        "imds" => Place::Identity,
        "graph" => Place::Graph("/".to_owned()),
        _ => Place::Graph(text.strip_prefix("graph").filter(|path| path.starts_with('/'))?.to_owned()),
    })
}

/// What can be written at a place.
fn known(place: &Place) -> String {
    let name = match place {
        Place::Token => "token",
        Place::DeviceCode => "devicecode",
        Place::Authorize => "authorize",
        Place::Discovery => "discovery",
        Place::Keys => "keys",
        Place::Identity => "imds",
        Place::Graph(_) => "graph",
    };
    let here = |places: &str| places == "everywhere" || places.split(", ").any(|place| place == name);
    EFFECTS.iter().filter(|row| here(row.0)).map(|row| row.1).collect::<Vec<_>>().join(", ")
}

/// Outer `None`: no such effect here. Inner `None`: its value is not understood.
type Parsed = Option<Option<Effect>>;

fn common(effect: &str, value: Option<&str>) -> Parsed {
    let millis = |usual| value.map_or(Some(usual), |text| text.parse().ok()).map(Duration::from_millis);
    Some(match effect {
        "drop-before" | "closed" => Some(Effect::DropBefore),
        "drop-after" => Some(Effect::DropAfter),
        "drop-head" => Some(Effect::DropAfterHead),
        "cut" | "half" => Some(Effect::CutBody),
        "garbage" => Some(Effect::Raw(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}garbage",
        ))),
        "slow" => millis(SLOW).map(Effect::Delay),
        "down" | "refused" => millis(DOWN).map(Effect::Down),
        "html" => value.map_or(Some(200), |text| text.parse().ok()).map(|status| Effect::html(status, None)),
        "not-json" => {
            let headers = vec![("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned())];
            Some(Effect::Http { status: 200, headers, body: "{\"token_type\":\"Bearer\",\"acce".to_owned() })
        }
        _ => return None,
    })
}

fn graph_effect(effect: &str, value: Option<&str>) -> Parsed {
    let denied = |denial| Some(Some(Effect::Denied(denial)));
    match effect {
        "401" | "expired" => denied(Denial::Expired),
        "revoked" => denied(Denial::Revoked),
        "malformed" => denied(Denial::Malformed),
        "audience" => denied(Denial::Audience),
        "claims" => Some(value.map_or(Some(CHALLENGE.to_owned()), json).map(Denial::Claims).map(Effect::Denied)),
        "challenge" => Some(value.and_then(shape).map(Effect::Challenge)),
        "unread" => Some(Some(Effect::Unread)),
        "compress" => Some(value.map_or(Some(None), |text| Coding::named(text).map(Some)).map(Effect::Compress)),
        "pieces" => Some(number(value).filter(|size| *size > 0).map(Effect::Pieces)),
        "batch-order" => Some(value.and_then(BatchOrder::named).map(Effect::BatchOrder)),
        "mailbox-concurrency" => Some(number(value).map(Effect::MailboxConcurrency)),
        "file-quota" => Some(number(value).map(Effect::FileQuota)),
        "flaky" => Some(number(value).map(Effect::Flaky)),
        _ => status(effect).map(|status| Some(Effect::graph_error(status, value.map(retry_after::parse).as_deref()))),
    }
}

fn identity_effect(effect: &str, value: Option<&str>) -> Parsed {
    if effect == "expires-in" {
        return Some(number(value).map(Effect::ExpiresIn));
    }
    status(effect).map(|status| Some(Effect::identity_error(status, value.map(retry_after::parse).as_deref())))
}

fn token_effect(effect: &str, value: Option<&str>) -> Parsed {
    Some(match effect {
        "no-refresh-token" => Some(Effect::NoRefreshToken),
        "expires-string" => Some(Effect::ExpiresInString),
        "no-expires" => Some(Effect::NoExpiresIn),
        "expires-in" => number(value).map(Effect::ExpiresIn),
        "refresh-in" => number(value).map(Effect::RefreshIn),
        "id-token" => value.and_then(Flaw::named).map(Effect::IdToken),
        "sign-with" => value.and_then(key).map(Effect::SignWith),
        _ => return None,
    })
}

fn keys_effect(effect: &str, value: Option<&str>) -> Parsed {
    match (effect, value) {
        ("only", Some("none")) => Some(Some(Effect::OnlyKeys(Vec::new()))),
        ("only", value) => Some(value.and_then(|names| names.split('+').map(key).collect()).map(Effect::OnlyKeys)),
        _ => None,
    }
}

/// A status, or an error in Entra's words.
fn entra_effect(effect: &str, value: Option<&str>) -> Parsed {
    if let Some(status) = status(effect) {
        return Some(Some(Effect::html(status, value.map(retry_after::parse).as_deref())));
    }
    let split = |text| str::split_once(text, '/').map_or((text, None), |(word, suberror)| (word, Some(suberror)));
    if effect == "error" {
        let (name, suberror) = value.map(split).unwrap_or_default();
        let fault = TokenFault { suberror: suberror.map(str::to_owned), ..TokenFault::bare(name) };
        return Some((!name.is_empty()).then_some(Effect::Error(fault)));
    }
    let (word, suberror) = split(effect);
    let mut fault = match word.parse::<u32>() {
        Ok(code) if code >= 10_000 => TokenFault::aadsts(code),
        Ok(_) => return None,
        Err(_) => TokenFault::named(word)?,
    };
    if let Some(suberror) = suberror {
        fault.suberror = Some(suberror.to_owned());
    }
    match value {
        None => {}
        Some("claims") => fault = fault.with_claims(POLICY),
        Some(text) => fault.retry_after = Some(retry_after::parse(text)),
    }
    Some(Some(Effect::Error(fault)))
}

fn number<T: FromStr>(value: Option<&str>) -> Option<T> {
    value?.parse().ok()
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (400..=599).contains(status))
}

/// A JSON text, in base64url so that its commas and colons stay out of the way.
fn json(value: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok()?).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).is_ok().then_some(text)
}

fn key(text: &str) -> Option<KeyName> {
    Some(match text {
        "first" => KeyName::First,
        "second" => KeyName::Second,
        "consumer" => KeyName::Consumer,
        _ => return None,
    })
}

fn shape(text: &str) -> Option<ChallengeShape> {
    Some(match text {
        "several-headers" => ChallengeShape::SeveralHeaders,
        "several" => ChallengeShape::SeveralChallenges,
        "unpadded" => ChallengeShape::Unpadded,
        "url-safe" => ChallengeShape::UrlSafe,
        "raw" => ChallengeShape::RawJson,
        "403" => ChallengeShape::Forbidden,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_faults() {
        let fault = Fault::parse("token:429=30*3@alice").unwrap();
        assert_eq!((fault.place, fault.user.as_deref(), fault.times), (Place::Token, Some("alice"), Some(3)));
        assert!(matches!(fault.effect, Effect::Http { status: 429, .. }));
        let fault = Fault::parse("graph/v1.0/me:503*").unwrap();
        assert_eq!((fault.place, fault.times), (Place::Graph("/v1.0/me".into()), None));
        let list = Fault::parse_list("token:invalid_grant, token:drop-after,graph:401,graph:slow,token:50196").unwrap();
        assert_eq!(list.len(), 5);
        assert!(matches!(&list[0].effect, Effect::Error(fault) if fault.code == 50173));
        assert!(matches!(&list[2].effect, Effect::Denied(Denial::Expired)));
        assert!(matches!(&list[4].effect, Effect::Error(fault) if fault.code == 50196));
    }

    #[test]
    fn texts_that_are_no_faults() {
        let refused = |text: &str| Fault::parse(text).unwrap_err();
        assert!(matches!(refused("token"), FaultTextError::Shape(_)));
        assert!(matches!(refused("mars:429"), FaultTextError::Place(_)));
        assert!(matches!(refused("graphs:429"), FaultTextError::Place(_)));
        assert!(
            matches!(refused("token:sideways"), FaultTextError::Effect(_, known) if known.contains("refresh-in=S"))
        );
        assert!(matches!(refused("graph:no-refresh-token"), FaultTextError::Effect(..)));
        assert!(matches!(refused("imds:invalid_grant"), FaultTextError::Effect(..)));
        assert!(matches!(refused("token:error="), FaultTextError::Value(_)));
        assert!(matches!(refused("graph:claims=no-json"), FaultTextError::Value(_)));
        for text in
            ["graph:compress=zip", "graph:flaky=0", "graph:pieces=0", "graph:batch-order=up", "graph:file-quota"]
        {
            assert!(matches!(refused(text), FaultTextError::Value(_)), "{text}");
        }
        assert!(matches!(refused("keys:only=fourth"), FaultTextError::Value(_)));
        assert!(matches!(refused("token:429*many"), FaultTextError::Value(_)));
        assert!(matches!(refused("token:refresh-in"), FaultTextError::Value(_)));
        assert!(matches!(refused("token:id-token=pink"), FaultTextError::Value(_)));
    }
}

//! Faults as an operator types them: `PLACE:EFFECT[=VALUE][*[TIMES]][@USER]`, several separated by commas.
//!
//! `token:429=30`, `token:50173@alice`, `token:invalid_grant`, `token:drop-after`, `graph:401*3`, `graph/v1.0/me:503*`
//! (`*` alone: until cleared), `graph:slow=500`.

use std::time::Duration;

use bytes::Bytes;

use super::fault::{Denial, Effect, Fault, Flaw, Place, TokenFault};

/// Why a text is no fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultTextError {
    #[error("{0:?}: a fault is written PLACE:EFFECT, such as token:429 or graph:401")]
    Shape(String),
    #[error("{0:?}: a fault happens at token, devicecode, authorize, discovery, keys, graph or graph/PATH")]
    Place(String),
    #[error(
        "{0:?}: unknown effect; known are a status (429), an AADSTS number or an error name (token), drop-before, \
             drop-after, drop-head, cut, garbage, slow, unread, no-refresh-token, expires-string, expires-in=S, \
             refresh-in=S, id-token=FLAW (token), expired, revoked, malformed, audience, claims (graph)"
    )]
    Effect(String),
    #[error("{0:?}: the value after = or * is not understood")]
    Value(String),
}

const SLOW: u64 = 2000;
const CHALLENGE: &str = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;

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
        let graph = matches!(place, Place::Graph(_));
        let effect = common(effect, value)
            .or_else(|| if graph { graph_effect(effect, value) } else { token_effect(effect, value) })
            .ok_or_else(|| FaultTextError::Effect(text.to_owned()))?
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
        "graph" => Place::Graph("/".to_owned()),
        _ => Place::Graph(text.strip_prefix("graph").filter(|path| path.starts_with('/'))?.to_owned()),
    })
}

/// Outer `None`: no such effect here. Inner `None`: its value is not understood.
type Parsed = Option<Option<Effect>>;

fn common(effect: &str, value: Option<&str>) -> Parsed {
    let effect = match effect {
        "drop-before" => Effect::DropBefore,
        "drop-after" => Effect::DropAfter,
        "drop-head" => Effect::DropAfterHead,
        "cut" => Effect::CutBody,
        "garbage" => Effect::Raw(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}garbage",
        )),
        "slow" => match value.map_or(Ok(SLOW), str::parse) {
            Ok(millis) => Effect::Delay(Duration::from_millis(millis)),
            Err(_) => return Some(None),
        },
        _ => return None,
    };
    Some(Some(effect))
}

fn graph_effect(effect: &str, value: Option<&str>) -> Parsed {
    let denied = |denial| Some(Some(Effect::Denied(denial)));
    match effect {
        "401" | "expired" => denied(Denial::Expired),
        "revoked" => denied(Denial::Revoked),
        "malformed" => denied(Denial::Malformed),
        "audience" => denied(Denial::Audience),
        "claims" => denied(Denial::Claims(value.unwrap_or(CHALLENGE).to_owned())),
        "unread" => Some(Some(Effect::Unread)),
        _ => status(effect).map(|status| Some(Effect::graph_error(status, value))),
    }
}

fn token_effect(effect: &str, value: Option<&str>) -> Parsed {
    let seconds = || value.and_then(|value| value.parse().ok());
    match effect {
        "no-refresh-token" => Some(Some(Effect::NoRefreshToken)),
        "expires-string" => Some(Some(Effect::ExpiresInString)),
        "expires-in" => Some(seconds().map(Effect::ExpiresIn)),
        "refresh-in" => Some(seconds().map(Effect::RefreshIn)),
        "id-token" => Some(value.and_then(flaw).map(Effect::IdToken)),
        _ => {
            if let Some(status) = status(effect) {
                return Some(Some(Effect::html(status, value)));
            }
            let fault = match effect.parse::<u32>() {
                Ok(code) if code >= 10_000 => TokenFault::aadsts(code),
                Ok(_) => return None,
                Err(_) => TokenFault::named(effect)?,
            };
            Some(Some(Effect::Error(fault)))
        }
    }
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (400..=599).contains(status))
}

fn flaw(text: &str) -> Option<Flaw> {
    Some(match text {
        "issuer" => Flaw::Issuer,
        "audience" => Flaw::Audience,
        "expired" => Flaw::Expired,
        "not-yet-valid" => Flaw::NotYetValid,
        "no-nonce" => Flaw::NoNonce,
        "wrong-nonce" => Flaw::WrongNonce,
        "tenant" => Flaw::Tenant,
        "no-subject" => Flaw::NoSubject,
        "no-object-id" => Flaw::NoObjectId,
        "unknown-key" => Flaw::UnknownKey,
        "no-key-id" => Flaw::NoKeyId,
        "signature" => Flaw::Signature,
        "algorithm-none" => Flaw::AlgorithmNone,
        "algorithm-hmac" => Flaw::AlgorithmHmac,
        "consumer-key" => Flaw::ConsumerKey,
        "other-user" => Flaw::OtherUser,
        "no-token" => Flaw::NotAToken,
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
        assert!(matches!(refused("token:sideways"), FaultTextError::Effect(_)));
        assert!(matches!(refused("graph:no-refresh-token"), FaultTextError::Effect(_)));
        assert!(matches!(refused("token:429*many"), FaultTextError::Value(_)));
        assert!(matches!(refused("token:refresh-in"), FaultTextError::Value(_)));
        assert!(matches!(refused("token:id-token=pink"), FaultTextError::Value(_)));
    }
}

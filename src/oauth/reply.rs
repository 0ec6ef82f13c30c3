//! A success of the token endpoint, read with tolerance for what is harmless (numbers as text, unknown fields) and none for
//! what is not (another token type, no token, a token that can't stand in a header).

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Class, Delivery, TokenError, TokenReply, Whose};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// Where the reply does not say how long its token lives.
const LIFE_UNSAID: i64 = 600;
/// No token is believed to live longer.
const LONGEST_LIFE: i64 = 30 * 24 * 3600;

/// The reply, and its identity token where there is one.
pub(super) fn read(
    mut body: Map<String, Value>,
    now: Timestamp,
) -> Result<(TokenReply, Option<Secret<String>>), TokenError> {
    let access_token = secret(&mut body, "access_token").ok_or_else(|| unusable("the reply has no access token"))?;
    let refresh_token = secret(&mut body, "refresh_token");
    let id_token = secret(&mut body, "id_token");
    if !access_token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable("the access token has characters that no token has"));
    }
    if !body.get("token_type").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokenError { class: Class::Config, ..unusable("the token type is not Bearer") });
    }
    let until = || seconds(&body, "expires_on").map(|at| at.saturating_sub(now.secs()));
    let life = seconds(&body, "expires_in").or_else(until).unwrap_or(LIFE_UNSAID).min(LONGEST_LIFE);
    let expires_in = positive(life).ok_or_else(|| unusable("the access token has expired already"))?;
    let refresh_in = seconds(&body, "refresh_in").and_then(positive).filter(|early| *early < expires_in);
    let reply = TokenReply { access_token, expires_in, refresh_in, refresh_token, scopes: scopes(&body) };
    Ok((reply, id_token))
}

/// An answer that should have been a success. What the provider did is not known: its next one may be whole.
fn unusable(text: &str) -> TokenError {
    TokenError {
        class: Class::Retry,
        whose: Whose::Grant,
        delivery: Delivery::Unknown,
        text: text.to_owned(),
        retry_after: None,
        claims: None,
    }
}

pub(super) fn secret(body: &mut Map<String, Value>, name: &str) -> Option<Secret<String>> {
    match body.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.into()),
        _ => None,
    }
}

/// Whole seconds from a number, or from a number as text.
pub(super) fn seconds(body: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = body.get(name)?;
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())?;
    #[expect(clippy::cast_possible_truncation, reason = "a float saturates, and the life is capped below")]
    Some(number as i64)
}

fn positive(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// In the order of the reply, each once.
fn scopes(body: &Map<String, Value>) -> Option<Vec<String>> {
    let mut scopes: Vec<String> = Vec::new();
    for scope in body.get("scope")?.as_str()?.split_ascii_whitespace() {
        if !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
    }
    Some(scopes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn reply(changes: &Value) -> Result<TokenReply, TokenError> {
        let mut body = json!({"token_type": "Bearer", "access_token": "at", "expires_in": 3599, "refresh_token": "rt"});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(body.as_object().unwrap().clone(), NOW).map(|(reply, _)| reply)
    }

    #[test]
    fn lives() {
        for (changes, expected) in [
            (json!({}), Some(3599)),
            (json!({"expires_in": "3599"}), Some(3599)),
            (json!({"expires_in": " 60 "}), Some(60)),
            (json!({"expires_in": 3599.9}), Some(3599)),
            (json!({"expires_in": "3599.9"}), Some(3599)),
            (json!({"expires_in": null}), Some(600)),
            (json!({"expires_in": "soon"}), Some(600)),
            (json!({"expires_in": [1]}), Some(600)),
            (json!({"expires_in": null, "expires_on": 1_700_000_100}), Some(100)),
            (json!({"expires_in": null, "expires_on": "1700000100"}), Some(100)),
            (json!({"expires_in": 1e12}), Some(30 * 24 * 3600)),
            (json!({"expires_in": "inf"}), Some(600)),
            (json!({"expires_in": 0}), None),
            (json!({"expires_in": -5}), None),
            (json!({"expires_in": 0.9}), None),
            (json!({"expires_in": null, "expires_on": 1}), None),
        ] {
            match (reply(&changes), expected) {
                (Ok(reply), Some(seconds)) => assert_eq!(reply.expires_in.as_secs(), seconds, "{changes}"),
                (Err(error), None) => assert_eq!(error.class, Class::Retry, "{changes}"),
                (other, _) => panic!("{changes}: {other:?}"),
            }
        }
    }

    #[test]
    fn early_refresh() {
        for (value, expected) in
            [(json!(1800), Some(1800)), (json!("1800"), Some(1800)), (json!(3599), None), (json!(0), None)]
        {
            let reply = reply(&json!({"refresh_in": value})).unwrap();
            assert_eq!(reply.refresh_in.map(|life| life.as_secs()), expected);
        }
    }

    #[test]
    fn tokens_that_are_none() {
        for changes in [json!({"access_token": null}), json!({"access_token": ""}), json!({"access_token": 5})] {
            let error = reply(&changes).unwrap_err();
            assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::Unknown), "{changes}");
        }
        for access_token in ["a b", "a\r\nX: y", "\u{e4}"] {
            assert!(reply(&json!({"access_token": access_token})).is_err());
        }
        for kind in [json!("MAC"), json!(null), json!("")] {
            assert_eq!(reply(&json!({"token_type": kind})).unwrap_err().class, Class::Config);
        }
        assert!(reply(&json!({"token_type": "bEARER"})).is_ok());
        assert!(reply(&json!({"refresh_token": ""})).unwrap().refresh_token.is_none());
    }

    #[test]
    fn granted_scopes_are_a_set() {
        let reply = reply(&json!({"scope": " Mail.Read  User.Read Mail.Read "})).unwrap();
        assert_eq!(reply.scopes.unwrap(), ["Mail.Read", "User.Read"]);
    }
}

//! The `claims` of a claims challenge and of the `claims` request parameter (OpenID Connect Core 1.0, section 5.5): a JSON object.
//!
//! What a provider or an API sent is kept byte for byte; only a merge writes JSON of its own. Nothing here decides anything.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// Of a challenge that is worth keeping.
const LONGEST: usize = 16 * 1024;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A JSON object of at most 16 KiB, as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claims(Arc<str>);

impl Claims {
    /// `None`: no JSON object, or too long.
    pub fn parse(json: &str) -> Option<Self> {
        if json.len() > LONGEST {
            return None;
        }
        serde_json::from_str::<Map<String, Value>>(json).ok().map(|_| Self(json.into()))
    }

    /// The value of `claims` in a `WWW-Authenticate` challenge: base64 of either alphabet, padded or not, or the JSON itself.
    pub fn from_challenge(value: &str) -> Option<Self> {
        let decoded = STANDARD.decode(value).or_else(|_| URL_SAFE.decode(value)).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        text.and_then(|json| Self::parse(&json)).or_else(|| Self::parse(value))
    }

    /// What a client says that it can handle, in the words of MSAL: `cp1` stands for claims challenges.
    pub fn capabilities(capabilities: &[String]) -> Option<Self> {
        if capabilities.is_empty() {
            return None;
        }
        Self::parse(&json!({"access_token": {"xms_cc": {"values": capabilities}}}).to_string())
    }

    /// Everything that either of the two asks for. Where they contradict each other, `other` counts; of two `nbf` the later. What would
    /// be too long together stays what it was, without `other`.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        if self.covers(other) {
            return self.clone();
        }
        let mut merged = self.object();
        merge(&mut merged, other.object());
        Self::parse(&Value::Object(merged).to_string()).unwrap_or_else(|| self.clone())
    }

    /// A token that was got with these claims also answers a challenge with `other`.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || covers(&Value::Object(self.object()), &Value::Object(other.object()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it stands in a challenge.
    pub fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(&*self.0)
    }

    fn object(&self) -> Map<String, Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claims").field(&&*self.0).finish()
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, new) in from {
        match (into.get_mut(&name), new) {
            (Some(old), new) if name == "nbf" && later(old, &new) => {}
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => {
                let known: HashSet<&Value> = old.iter().collect();
                let added: Vec<Value> = new.into_iter().filter(|value| !known.contains(value)).collect();
                old.extend(added);
            }
            (_, new) => drop(into.insert(name, new)),
        }
    }
}

fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => want.iter().all(|(name, want)| {
            have.get(name).is_some_and(|have| covers(have, want) || (name == "nbf" && later(have, want)))
        }),
        (Value::Array(have), Value::Array(want)) => {
            let have: HashSet<&Value> = have.iter().collect();
            want.iter().all(|want| have.contains(want))
        }
        (have, want) => have == want,
    }
}

/// Whether the `nbf` that we have is at least as late as the other: `{"essential": true, "value": "1635527790"}`.
fn later(have: &Value, want: &Value) -> bool {
    let seconds = |claim: &Value| {
        let value = claim.get("value")?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    seconds(have).zip(seconds(want)).is_some_and(|(have, want)| have >= want)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from Microsoft Graph.
    const RECORDED: &str = "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYzNTUyNzc5MCJ9fX0=";

    fn nbf(value: &str) -> Claims {
        Claims::parse(&format!(r#"{{"access_token":{{"nbf":{{"essential":true, "value":"{value}"}}}}}}"#)).unwrap()
    }

    #[test]
    fn a_challenge_is_read_in_every_clothing() {
        let json = r#"{"access_token":{"nbf":{"essential":true, "value":"1635527790"}}}"#;
        for value in [RECORDED, RECORDED.trim_end_matches('='), json] {
            assert_eq!(Claims::from_challenge(value).unwrap().as_str(), json);
        }
        let odd = r#"{"access_token":{"acrs":{"value":"c1?>~ÿ"}}}"#;
        let encoded = URL_SAFE.encode(odd);
        assert!(encoded.contains(['-', '_']), "{encoded}");
        assert_eq!(Claims::from_challenge(encoded.trim_end_matches('=')).unwrap().as_str(), odd);
        for wrong in ["", "!!!", "bm8ganNvbg==", "W10=", "[]", "\"x\"", &"A".repeat(64 << 10)] {
            assert_eq!(Claims::from_challenge(wrong), None, "{wrong:.20}");
        }
    }

    #[test]
    fn a_merge_is_what_was_recorded() {
        let cp1 = Claims::capabilities(&["cp1".to_owned()]).unwrap();
        let merged = nbf("1635527790").merge(&cp1);
        let expected: Value = serde_json::from_str(
            r#"{"access_token":{"nbf":{"essential":true,"value":"1635527790"},"xms_cc":{"values":["cp1"]}}}"#,
        )
        .unwrap();
        assert_eq!(serde_json::from_str::<Value>(merged.as_str()).unwrap(), expected);
        assert_eq!(merged.merge(&cp1), merged, "a merge that adds nothing changes no byte");
    }

    #[test]
    fn the_later_nbf_covers_the_earlier_and_survives_a_merge() {
        let (early, late) = (nbf("100"), nbf("200"));
        assert!(late.covers(&early));
        assert!(!early.covers(&late));
        assert_eq!(late.merge(&early), late);
        assert!(early.merge(&late).covers(&late));
    }

    #[test]
    fn a_merge_is_never_longer_than_what_can_be_read_again() {
        let half = |name: &str| Claims::parse(&format!(r#"{{"{name}":"{}"}}"#, "x".repeat(9 * 1024))).unwrap();
        let (one, other) = (half("a"), half("b"));
        assert_eq!(one.merge(&other), one, "18 KiB would be too long for every reader");
        let numbers = format!(r#"{{"a":[{}1]}}"#, "1e15,".repeat(3_000));
        let grows = Claims::parse(&numbers).unwrap().merge(&nbf("1"));
        assert!(Claims::parse(grows.as_str()).is_some(), "written out, a number may be longer than it came");
    }

    #[test]
    fn long_lists_are_compared_in_one_pass() {
        let list =
            |item: &str| Claims::parse(&format!(r#"{{"a":[{}{item}]}}"#, format!("{item},").repeat(4_000))).unwrap();
        let (zeros, ones) = (list("0"), list("1"));
        assert!(!zeros.covers(&ones) && zeros.merge(&ones).covers(&ones));
    }

    #[test]
    fn nothing_covers_what_it_does_not_ask_for() {
        let c1 = Claims::parse(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#).unwrap();
        let c2 = Claims::parse(r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#).unwrap();
        assert!(!c1.covers(&c2));
        assert!(nbf("1").merge(&c1).covers(&c1));
        assert!(!c1.covers(&nbf("1")));
    }
}

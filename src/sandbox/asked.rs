//! The `claims` parameter as the simulated Entra ID understands it: what the client asks of the access token.
//!
//! Written apart from `crate::claims`: the two must agree about the bytes, not share a mistake.

use serde_json::{Map, Value};

/// The members of `access_token`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AskedClaims(Map<String, Value>);

impl AskedClaims {
    /// `None`: no JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        let mut claims = serde_json::from_str::<Map<String, Value>>(text).ok()?;
        match claims.remove("access_token") {
            Some(Value::Object(asked)) => Some(Self(asked)),
            Some(_) => None,
            None => Some(Self::default()),
        }
    }

    /// Both; where they contradict each other, `other` counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The client understands claims challenges.
    pub fn cp1(&self) -> bool {
        self.values("xms_cc").iter().any(|value| value.eq_ignore_ascii_case("cp1"))
    }

    /// The authentication contexts that must be there.
    pub fn essential_contexts(&self) -> Vec<String> {
        let essential = self.0.get("acrs").is_some_and(|asked| asked["essential"] == true);
        if essential { self.values("acrs") } else { Vec::new() }
    }

    /// All authentication contexts that are named.
    pub fn contexts(&self) -> Vec<String> {
        self.values("acrs")
    }

    /// What a token that was minted with `self` lacks of nothing: every claim of `demand` was asked for, `nbf` at least as late.
    pub fn meets(&self, demand: &Self) -> bool {
        demand.0.keys().filter(|name| *name != "xms_cc").all(|name| {
            let minted = self.values(name);
            match demand.not_before().filter(|_| name == "nbf") {
                Some(wanted) => self.not_before().is_some_and(|minted| minted >= wanted),
                None => self.0.contains_key(name) && demand.values(name).iter().all(|value| minted.contains(value)),
            }
        })
    }

    /// In seconds since 1970.
    pub fn not_before(&self) -> Option<i64> {
        self.values("nbf").first()?.parse().ok()
    }

    /// `value` or `values` of a claim, as text.
    fn values(&self, name: &str) -> Vec<String> {
        let Some(asked) = self.0.get(name) else { return Vec::new() };
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match (&asked["value"], &asked["values"]) {
            (Value::Null, Value::Array(all)) => all.iter().map(text).collect(),
            (Value::Null, _) => Vec::new(),
            (one, _) => vec![text(one)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> AskedClaims {
        AskedClaims::parse(text).unwrap()
    }

    #[test]
    fn a_token_meets_a_demand_by_having_been_asked_for_it() {
        let merged = asked(
            r#"{"access_token":{"nbf":{"essential":true,"value":"1700"},"xms_cc":{"values":["CP1"]},"acrs":{"value":"c1"}}}"#,
        );
        assert!(merged.cp1());
        for met in [
            r#"{"access_token":{"nbf":{"essential":true, "value":"1700"}}}"#,
            r#"{"access_token":{"nbf":{"essential":true, "value":"1699"}}}"#,
            r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#,
            r#"{"access_token":{}}"#,
            "{}",
        ] {
            assert!(merged.meets(&asked(met)), "{met}");
        }
        for unmet in [
            r#"{"access_token":{"nbf":{"essential":true,"value":"1701"}}}"#,
            r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#,
            r#"{"access_token":{"polids":{"essential":true,"values":["x"]}}}"#,
        ] {
            assert!(!merged.meets(&asked(unmet)), "{unmet}");
        }
        assert!(merged.essential_contexts().is_empty() && merged.contexts() == ["c1"]);
        assert!(AskedClaims::parse("[]").is_none() && AskedClaims::parse(r#"{"access_token":1}"#).is_none());
    }
}

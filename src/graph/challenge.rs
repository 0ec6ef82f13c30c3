//! Claims challenges in `WWW-Authenticate`, by the grammar of RFC 9110, section 11: several headers, several challenges in one, in
//! any order, with quotes, escapes, commas and `=` where the grammar allows them.
//!
//! All that makes a claims challenge has to stand in one challenge of the scheme Bearer. Junk is skipped up to the next comma; each
//! byte is looked at a bounded number of times, and of many challenges only the first few count. Nothing is matched on messages.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::claims::Claims;

/// Challenges of one answer that are looked at.
const MOST: usize = 16;
/// Of one header that is looked at.
const LONGEST: usize = 64 << 10;

/// What the challenges of an answer ask for, all of them together. `None`: none is a claims challenge.
pub fn challenge(headers: &HeaderMap) -> Option<Claims> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().map(http::HeaderValue::as_bytes);
    let challenges = values.flat_map(|value| Challenges { rest: value.get(..LONGEST).unwrap_or(value) });
    let asked = challenges.take(MOST).filter_map(|challenge| challenge.claims());
    asked.reduce(|all, more| all.merge(&more))
}

/// One challenge: its scheme, and of its parameters those that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    error: Option<String>,
    claims: Option<String>,
}

impl Challenge {
    fn claims(&self) -> Option<Claims> {
        let insufficient = self.error.as_deref() == Some("insufficient_claims");
        (self.scheme.eq_ignore_ascii_case("bearer") && insufficient).then_some(())?;
        Claims::from_challenge(self.claims.as_deref()?)
    }

    /// A name that stands twice counts as it stood first.
    fn take(&mut self, name: &[u8], value: String) {
        let place = if name.eq_ignore_ascii_case(b"error") {
            &mut self.error
        } else if name.eq_ignore_ascii_case(b"claims") {
            &mut self.claims
        } else {
            return;
        };
        place.get_or_insert(value);
    }
}

/// The challenges of one header's value.
struct Challenges<'v> {
    rest: &'v [u8],
}

impl Iterator for Challenges<'_> {
    type Item = Challenge;

    fn next(&mut self) -> Option<Challenge> {
        loop {
            self.skip(|byte| byte == b',' || is_space(byte));
            if self.rest.is_empty() {
                return None;
            }
            match self.token() {
                // A parameter of nobody, or no word at all.
                [] => self.skip_junk(),
                _ if self.peek_after_space() == Some(b'=') => self.skip_junk(),
                scheme => {
                    let mut challenge =
                        Challenge { scheme: String::from_utf8_lossy(scheme).into_owned(), ..Challenge::default() };
                    self.read_rest_of(&mut challenge);
                    return Some(challenge);
                }
            }
        }
    }
}

impl<'v> Challenges<'v> {
    /// What follows a scheme: nothing, one token68, or parameters up to the next scheme.
    fn read_rest_of(&mut self, challenge: &mut Challenge) {
        match self.rest.first() {
            Some(byte) if is_space(*byte) => {}
            Some(b',') | None => {}
            Some(_) => return self.skip_junk(),
        }
        self.skip(is_space);
        self.skip_token68();
        loop {
            self.skip(|byte| byte == b',' || is_space(byte));
            let before = self.rest;
            let name = self.token();
            if name.is_empty() {
                if self.rest.is_empty() {
                    return;
                }
                self.skip_junk();
                continue;
            }
            if self.peek_after_space() != Some(b'=') {
                // The next scheme.
                self.rest = before;
                return;
            }
            self.skip(is_space);
            self.advance(1);
            self.skip(is_space);
            if let Some(value) = self.value() {
                challenge.take(name, value);
            }
            if self.rest.first().is_some_and(|byte| *byte != b',' && !is_space(*byte)) {
                self.skip_junk();
            }
        }
    }

    /// Credentials of schemes such as Negotiate; told from a parameter by what follows.
    fn skip_token68(&mut self) {
        let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
        let length = self.rest.iter().take_while(|byte| is_char(byte)).count();
        let padding = self.rest[length..].iter().take_while(|byte| **byte == b'=').count();
        let after = self.rest[length + padding..].trim_ascii_start();
        if length > 0 && after.first().is_none_or(|byte| *byte == b',') {
            self.advance(length + padding);
        }
    }

    /// A quoted string without its quotes and escapes; or what stands there up to a comma or a space, which is more than a token, since
    /// base64 was seen without quotes. `None`: it is not text, or the closing quote is missing.
    fn value(&mut self) -> Option<String> {
        if self.rest.first() != Some(&b'"') {
            let value = self.take_while(|byte| byte != b',' && byte != b'"' && !is_space(byte));
            return std::str::from_utf8(value).ok().map(str::to_owned);
        }
        self.advance(1);
        let mut value = Vec::new();
        loop {
            let plain = self.take_while(|byte| byte != b'"' && byte != b'\\');
            value.extend_from_slice(plain);
            match self.rest {
                [b'"', ..] => {
                    self.advance(1);
                    return String::from_utf8(value).ok();
                }
                [b'\\', escaped, ..] => {
                    value.push(*escaped);
                    self.advance(2);
                }
                _ => {
                    self.rest = &[];
                    return None;
                }
            }
        }
    }

    /// Up to the next comma that is in no quotes.
    fn skip_junk(&mut self) {
        loop {
            self.skip(|byte| byte != b',' && byte != b'"');
            if self.rest.first() != Some(&b'"') {
                return;
            }
            self.value();
        }
    }

    fn token(&mut self) -> &'v [u8] {
        self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    }

    fn peek_after_space(&self) -> Option<u8> {
        self.rest.iter().copied().find(|byte| !is_space(*byte))
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'v [u8] {
        let length = self.rest.iter().take_while(|byte| wanted(**byte)).count();
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        self.take_while(unwanted);
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Recorded from Microsoft Graph, on one line.
    const RECORDED: &str = r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYzNTUyNzc5MCJ9fX0=""#;
    const NBF: &str = r#"{"access_token":{"nbf":{"essential":true, "value":"1635527790"}}}"#;
    const ACRS: &str = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn found(values: &[&str]) -> Option<String> {
        challenge(&headers(values)).map(|claims| claims.to_string())
    }

    #[test]
    fn what_was_recorded() {
        assert_eq!(found(&[RECORDED]).as_deref(), Some(NBF));
    }

    #[test]
    fn every_place_that_the_grammar_allows() {
        let acrs = BASE64_STANDARD.encode(ACRS);
        let bare = acrs.trim_end_matches('=').to_owned();
        let url_safe = BASE64_URL_SAFE_NO_PAD.encode(ACRS);
        let raw = ACRS.replace('"', "\\\"");
        for value in [
            format!(r#"Bearer error="insufficient_claims", claims="{acrs}""#),
            format!(r#"bearer CLAIMS="{acrs}",Error="insufficient_claims""#),
            format!(r#"BEARER claims = "{acrs}" , error	=	insufficient_claims"#),
            format!(r"Bearer error=insufficient_claims, claims={acrs}"),
            format!(r#"Bearer error="insufficient_claims", claims="{bare}""#),
            format!(r#"Bearer error="insufficient_claims", claims="{url_safe}""#),
            format!(r#"Bearer error="insufficient_claims", claims="{raw}""#),
            format!(r#"Bearer error="in\sufficient_claims", claims="{acrs}""#),
            format!(r#"Negotiate, Bearer error="insufficient_claims", claims="{acrs}""#),
            format!(
                r#"Negotiate YWJj==, Bearer error="insufficient_claims", claims="{acrs}", PoP nonce="a, Bearer b""#
            ),
            format!(r#"Basic realm="a \"b\", Bearer c=d", Bearer error="insufficient_claims", claims="{acrs}""#),
            format!(r#"Bearer realm="plain", Bearer error="insufficient_claims", claims="{acrs}""#),
            format!(r#"Bearer , ,, error="insufficient_claims",, claims="{acrs}","#),
            format!(r#", Bearer error="insufficient_claims" claims="{acrs}""#),
            format!(r#"Bearer x y=;"q,", @@@, error="insufficient_claims", claims="{acrs}""#).replace("x y", "x=y"),
        ] {
            assert_eq!(found(&[&value]).as_deref(), Some(ACRS), "{value}");
        }
        let value = format!(r#"Bearer error="insufficient_claims", claims="{acrs}""#);
        assert_eq!(found(&["Negotiate", "Bearer realm=\"\"", &value]).as_deref(), Some(ACRS), "of several headers");
    }

    #[test]
    fn what_is_none() {
        let acrs = BASE64_STANDARD.encode(ACRS);
        for value in [
            String::new(),
            "Bearer".to_owned(),
            r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/""#.to_owned(),
            r#"Bearer error="insufficient_claims""#.to_owned(),
            format!(r#"Bearer claims="{acrs}""#),
            format!(r#"Bearer error="invalid_token", claims="{acrs}""#),
            format!(r#"Bearer error="insufficient_claims", Bearer claims="{acrs}""#),
            format!(r#"PoP error="insufficient_claims", claims="{acrs}""#),
            format!(r#"Basic realm="Bearer error=\"insufficient_claims\", claims=\"{acrs}\"""#),
            format!(r#"error="insufficient_claims", claims="{acrs}""#),
            format!(r#"Bearer error="insufficient_claims", claims="{acrs}"#),
            r#"Bearer error="insufficient_claims", claims="!!!""#.to_owned(),
            r#"Bearer error="insufficient_claims", claims="bm8ganNvbg==""#.to_owned(),
            format!("Bearer error=\"insufficient_claims\", claims=\"{}\"", "QUFB".repeat(32 << 10)),
        ] {
            assert_eq!(found(&[&value]), None, "{value:.100}");
        }
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn several_are_merged() {
        let acrs = format!(r#"Bearer error="insufficient_claims", claims="{}""#, BASE64_STANDARD.encode(ACRS));
        let both = challenge(&headers(&[RECORDED, &acrs])).unwrap();
        assert_eq!(challenge(&headers(&[&format!("{RECORDED}, {acrs}")])).unwrap(), both);
        assert!(both.covers(&Claims::parse(NBF).unwrap()) && both.covers(&Claims::parse(ACRS).unwrap()));
    }

    #[test]
    fn many_challenges_are_not_all_looked_at() {
        let mut headers = headers(&["Bearer x"; MOST]);
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(RECORDED));
        assert_eq!(challenge(&headers), None);
    }

    /// A parameter, with the value in quotes where it needs them.
    fn parameter() -> impl Strategy<Value = String> {
        ("[a-z_]{1,8}", "[ -~]{0,20}").prop_map(|(name, value)| {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("x{name}=\"{escaped}\"")
        })
    }

    fn other() -> impl Strategy<Value = String> {
        prop_oneof![
            "[A-Z][a-z]{2,8}",
            "Negotiate [A-Za-z0-9+/]{4,20}={0,2}",
            proptest::collection::vec(parameter(), 1..4)
                .prop_map(|parameters| format!("Digest {}", parameters.join(", "))),
        ]
    }

    proptest! {
        #[test]
        fn never_panics_and_ends(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4)) {
            let mut headers = HeaderMap::new();
            for value in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(WWW_AUTHENTICATE, value);
                }
            }
            challenge(&headers);
        }

        #[test]
        fn never_panics_on_what_looks_like_one(value in "[Bearclimsu_ =,\"\\\\\t~/+-]{0,200}") {
            challenge(&headers(&[&value]));
        }

        #[test]
        fn finds_what_was_written(
            before in proptest::collection::vec(other(), 0..3),
            after in proptest::collection::vec(other(), 0..3),
            among in proptest::collection::vec(parameter(), 0..4),
            at in any::<proptest::sample::Index>(),
            value in "[ -~]{0,30}",
            split in any::<bool>(),
        ) {
            let json = serde_json::json!({"access_token": {"acrs": {"value": value}}}).to_string();
            let mut parameters = among;
            parameters.insert(at.index(parameters.len() + 1), "error=\"insufficient_claims\"".to_owned());
            parameters.insert(at.index(parameters.len() + 1), format!("claims=\"{}\"", BASE64_STANDARD.encode(&json)));
            let ours = format!("Bearer {}", parameters.join(" ,\t"));
            let all: Vec<String> = before.into_iter().chain([ours]).chain(after).collect();
            let values = if split { all } else { vec![all.join(", ")] };
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            prop_assert_eq!(found(&values), Some(json));
        }
    }
}

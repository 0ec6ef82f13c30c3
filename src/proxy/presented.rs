//! What a request presents: a user name, and a key, a password or a token, each from a header that may occur once.
//!
//! Nothing here says that it is right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

use super::error::{Kind, Refusal};
use crate::secret::Secret;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A credential longer than this is refused unread. A token that names its user's two hundred groups has 12 KiB.
const LONGEST_CREDENTIAL: usize = 16 * 1024;

/// What a request presents.
#[derive(Debug, Default)]
pub struct Presented {
    basic: Option<Basic>,
    /// A token or a key that is no password; counts before one.
    pub(super) key: Option<Secret<String>>,
    pub(super) place: Place,
    pub(super) is_meant_for_us: bool,
}

/// RFC 7617: a user name, a colon, a password.
#[derive(Debug)]
struct Basic {
    text: Secret<String>,
    /// Where the first one stands: the user name has none.
    colon: usize,
}

/// Where a key stands. Only Basic carries passwords, and only a Bearer is a token; each of them may carry a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    Basic,
    Bearer,
    #[default]
    ApiKey,
}

impl Presented {
    /// Reads the credential headers. Each may occur once; `X-Api-Key` counts before `Authorization`, which SDKs fill with dummies.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut presented = Self::default();
        if let Some(value) = once(headers, &AUTHORIZATION)? {
            let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
            if scheme.eq_ignore_ascii_case("basic") {
                let basic = Basic::read(rest.trim())?;
                presented.is_meant_for_us = !basic.password().is_empty();
                presented.basic = Some(basic);
                presented.place = Place::Basic;
            } else if scheme.eq_ignore_ascii_case("bearer") {
                presented.key = Some(rest.trim().into());
                presented.place = Place::Bearer;
            }
        }
        if let Some(key) = once(headers, &X_API_KEY)? {
            presented.key = Some(key.into());
            presented.place = Place::ApiKey;
            presented.is_meant_for_us = true;
        }
        Ok(presented)
    }

    /// The user name of Basic: selects an account.
    pub fn user(&self) -> Option<&str> {
        self.basic.as_ref().map(Basic::user).filter(|user| !user.is_empty())
    }

    /// The key or password.
    pub(super) fn key(&self) -> Option<&str> {
        let key = self.key.as_ref().map(|key| key.expose().as_str());
        key.or_else(|| self.basic.as_ref().map(Basic::password))
    }
}

impl Basic {
    fn read(encoded: &str) -> Result<Self, Refusal> {
        let malformed = || Kind::BadRequest.because("the Authorization header is no valid Basic credential");
        let decoded = STANDARD.decode(encoded).map_err(|_| malformed())?;
        let text = Secret::new(String::from_utf8(decoded).map_err(|_| malformed())?);
        let colon = text.expose().find(':').ok_or_else(malformed)?;
        Ok(Self { text, colon })
    }

    fn user(&self) -> &str {
        &self.text.expose()[..self.colon]
    }

    fn password(&self) -> &str {
        &self.text.expose()[self.colon + 1..]
    }
}

/// The value of a header that may occur only once.
pub fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Kind::BadRequest.because(format!("the header {name} occurs twice")));
    }
    if value.len() > LONGEST_CREDENTIAL {
        return Err(Kind::BadRequest.because(format!("the header {name} is too long")));
    }
    std::str::from_utf8(value.as_bytes())
        .map(Some)
        .map_err(|_| Kind::BadRequest.because(format!("the header {name} is not UTF-8")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&str, &str)| (HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    pub fn basic_value(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn a_user_name_and_a_key_may_come_from_different_headers() {
        let read = |pairs: &[(&str, &str)]| {
            let presented = Presented::read(&headers(pairs)).unwrap();
            (presented.user().map(str::to_owned), presented.key().map(str::to_owned))
        };
        let said = |user: Option<&str>, key: Option<&str>| (user.map(str::to_owned), key.map(str::to_owned));
        let basic = basic_value("alice", "a:b");
        assert_eq!(read(&[("authorization", &basic)]), said(Some("alice"), Some("a:b")));
        assert_eq!(read(&[("authorization", &basic), ("x-api-key", "k")]), said(Some("alice"), Some("k")));
        assert_eq!(read(&[("authorization", &basic_value("", "p"))]), said(None, Some("p")));
        assert_eq!(read(&[("authorization", "Bearer t")]), said(None, Some("t")));
        assert_eq!(read(&[("authorization", "Bearer t"), ("x-api-key", "k")]), said(None, Some("k")));
        assert_eq!(read(&[]), said(None, None));
    }
}

//! What a request says beside its path: parameters of the query, and a JSON body. What is not expected is refused by name.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::desk::{AuditWanted, Query, State, named};
use super::problem::{Kind, Problem};
use crate::audit::{Event, Outcome};
use crate::clock::Timestamp;

/// A target or a token of the longest kind, with room to spare.
pub const BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters of a query, each at most once.
pub struct Parameters<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Parameters<'q> {
    /// None but these.
    pub fn read(head: &'q Parts, known: &[&str]) -> Result<Self, Problem> {
        let mut read = Self(Vec::new());
        for (name, value) in form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let there_are = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::parameter(
                    &name,
                    format!("there is no such parameter here; there are: {there_are}"),
                ));
            }
            if read.get(&name).is_some() {
                return Err(Problem::parameter(&name, "is given twice"));
            }
            read.0.push((name, value));
        }
        Ok(read)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn limit(&self) -> Result<Option<usize>, Problem> {
        let number = |text: &str| text.parse().map_err(|_| Problem::parameter("limit", "has to be a number"));
        self.get("limit").map(number).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        let flag = |text: &str| text.parse().map_err(|_| Problem::parameter(name, "has to be true or false"));
        self.get(name).map(flag).transpose()
    }
}

impl Query {
    pub fn read(parameters: &Parameters<'_>) -> Result<Self, Problem> {
        let state = |name: &str| named("state", name, &State::ALL, State::name);
        Ok(Self {
            state: parameters.get("state").map(state).transpose()?,
            provider: parameters.text("provider"),
            search: parameters.text("search"),
            alias: parameters.text("alias"),
            cursor: parameters.text("cursor"),
            limit: parameters.limit()?,
        })
    }
}

impl AuditWanted {
    pub fn read(parameters: &Parameters<'_>) -> Result<Self, Problem> {
        let time = |name: &'static str| {
            let read = |text: &str| {
                let time: Result<jiff::Timestamp, _> = text.parse();
                time.map(|time| Timestamp::from_millis(time.as_millisecond()))
                    .map_err(|_| Problem::parameter(name, "has to be a time such as 2026-11-23T00:00:00Z"))
            };
            parameters.get(name).map(read).transpose()
        };
        Ok(Self {
            account: parameters.text("account"),
            event: parameters.get("event").map(|name| named("event", name, Event::ALL, Event::name)).transpose()?,
            outcome: parameters
                .get("outcome")
                .map(|name| named("outcome", name, Outcome::ALL, Outcome::name))
                .transpose()?,
            since: time("since")?,
            until: time("until")?,
            cursor: parameters.text("cursor"),
            limit: parameters.limit()?,
        })
    }
}

/// The whole of a JSON body.
pub async fn json<B>(head: &Parts, body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    if !is_json(&head.headers) {
        return Err(Kind::UnsupportedMediaType.because("the body has to be application/json"));
    }
    whole(body).await
}

/// The whole of a body, whatever it is.
pub async fn whole<B>(body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Kind::BodyTooLarge.because(format!("the body is longer than {BODY_BYTES} bytes")))
        }
        Ok(Err(_)) | Err(_) => Err(Kind::InvalidBody.because("the body did not come")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/json")
}

pub fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use http_body_util::Full;

    use super::*;

    fn query(query: &str) -> Result<Query, Option<String>> {
        let head = Request::get(format!("/v1/accounts?{query}")).body(()).unwrap().into_parts().0;
        let read = Parameters::read(&head, &["state", "provider", "search", "alias", "cursor", "limit"]);
        read.and_then(|parameters| Query::read(&parameters)).map_err(|problem| problem.parameter)
    }

    #[test]
    fn parameters_are_read_and_what_is_wrong_is_named() {
        let read = query("state=reauth&provider=entra&search=a%20b&alias=x%40y&cursor=61&limit=5").unwrap();
        assert_eq!((read.state, read.provider.as_deref(), read.limit), (Some(State::Reauth), Some("entra"), Some(5)));
        assert_eq!((read.search.as_deref(), read.alias.as_deref()), (Some("a b"), Some("x@y")));
        assert_eq!(read.cursor.as_deref(), Some("61"));
        assert!(query("").unwrap().limit.is_none());
        for (text, parameter) in [
            ("state=dead", "state"),
            ("state=", "state"),
            ("limit=many", "limit"),
            ("limit=-1", "limit"),
            ("limit=1&limit=2", "limit"),
            ("stat=active", "stat"),
            ("limit=1&x", "x"),
        ] {
            assert_eq!(query(text).unwrap_err().as_deref(), Some(parameter), "{text}");
        }
    }

    #[tokio::test]
    async fn a_body_is_json_of_some_length() {
        let read = async |content_type: &str, body: String| {
            let head = Request::post("/").header(CONTENT_TYPE, content_type).body(()).unwrap().into_parts().0;
            json(&head, Full::<Bytes>::from(body)).await.map_err(|problem| problem.kind.status())
        };
        let long = "a".repeat(BODY_BYTES);
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(read(kind, long.clone()).await.unwrap(), long);
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert_eq!(read(kind, "{}".into()).await, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{kind}");
        }
        assert_eq!(read("application/json", long + " ").await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}

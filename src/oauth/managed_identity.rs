//! The managed identity of the Azure machine that we run on: its tokens for a resource, from the metadata service of a virtual
//! machine (IMDS) or from App Service. Never through a proxy; the one place where plain HTTP leaves the loopback interface,
//! to an address that the configuration names.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use super::classify::{self, printable};
use super::exchange::not_sent;
use super::http::{Answer, Deadline, Http};
use super::{BuildError, Class, Dialect, TokenError, TokenReply, reply};
use crate::clock::{Clock, Moment, Timestamp};
use crate::config::{ManagedIdentity, ManagedIdentitySource};
use crate::secret::Secret;

/// An assertion is renewed this long before it expires, or at half of a short life.
const MARGIN: Duration = Duration::from_secs(300);
/// Numbers from here on (the year 2001) are points in time, smaller ones are lives.
const ABSOLUTE: i64 = 978_307_200;

pub(super) struct Identity {
    http: Http,
    /// Complete but for the resource.
    url: Url,
    headers: HeaderMap,
    /// What no error text may repeat.
    header: Option<Secret<String>>,
    /// Of the tokens that stand in for a credential.
    audience: &'static str,
    clock: Clock,
    /// Held during a fetch: whoever comes meanwhile waits for its outcome.
    assertion: Mutex<Option<Held>>,
}

struct Held {
    token: Secret<String>,
    renew: Moment,
    expires: Moment,
}

impl Identity {
    pub(super) fn new(configured: &ManagedIdentity, audience: &'static str, clock: Clock) -> Result<Self, BuildError> {
        let wrong = |why: &str| BuildError { key: "credentials".to_owned(), why: why.to_owned() };
        let mut headers = HeaderMap::new();
        let (mut url, version, header) = match &configured.source {
            ManagedIdentitySource::Imds(origin) => {
                let mut url = origin.clone();
                url.set_path("/metadata/identity/oauth2/token");
                headers.insert("metadata", HeaderValue::from_static("true"));
                (url, "2018-02-01", None)
            }
            ManagedIdentitySource::AppService { endpoint, header } => {
                let value = HeaderValue::from_str(header.expose());
                let mut value = value.map_err(|_| wrong("the managed identity's header can't stand in a request"))?;
                value.set_sensitive(true);
                headers.insert("x-identity-header", value);
                (endpoint.clone(), "2019-08-01", Some(header.clone()))
            }
        };
        if url.cannot_be_a_base() {
            return Err(wrong("the managed identity's endpoint is no http URL"));
        }
        url.query_pairs_mut().append_pair("api-version", version);
        if let Some(client_id) = &configured.client_id {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        let http = Http::new(Dialect::Oidc, None, true)?;
        Ok(Self { http, url, headers, header, audience, clock, assertion: Mutex::default() })
    }

    /// A token that shows the token endpoint who we are; kept until shortly before it expires.
    pub(super) async fn assertion(&self, deadline: &mut Deadline) -> Result<Secret<String>, TokenError> {
        let mut held = deadline.race(self.assertion.lock()).await.map_err(unavailable)?;
        let now = self.clock.moment();
        if let Some(held) = held.as_ref().filter(|held| now < held.renew) {
            return Ok(held.token.clone());
        }
        match self.token(self.audience, deadline).await {
            Ok(TokenReply { access_token: token, expires_in, .. }) => {
                let now = self.clock.moment();
                let renew = now.plus(expires_in.saturating_sub(MARGIN.min(expires_in / 2)));
                *held = Some(Held { token: token.clone(), renew, expires: now.plus(expires_in) });
                Ok(token)
            }
            Err(error) => held.as_ref().filter(|held| now < held.expires).map(|held| held.token.clone()).ok_or(error),
        }
    }

    /// The token endpoint refused the assertion: the next one is asked for anew.
    pub(super) fn forget(&self) {
        // Where the lock is taken somebody fetches a new one already.
        if let Ok(mut held) = self.assertion.try_lock() {
            *held = None;
        }
    }

    /// Whether there is such an identity at all.
    pub(super) async fn probe(&self, deadline: &mut Deadline) -> Result<(), TokenError> {
        self.token(self.audience, deadline).await.map(drop)
    }

    /// A token of the identity itself. The endpoint knows neither claims nor scopes.
    pub(super) async fn token(&self, resource: &str, deadline: &mut Deadline) -> Result<TokenReply, TokenError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("resource", resource);
        let mut retries = 0;
        loop {
            let answer = deadline.race(self.http.ask(&url, self.headers.clone())).await.map_err(unavailable)?;
            let answer = answer.map_err(|failure| unavailable(failure.text))?;
            let status = answer.status.as_u16();
            let body = classify::object(&answer);
            if status == 200
                && let Some(body) = body
            {
                return read(body, self.clock.now());
            }
            match pause(status, retries) {
                Some(pause) if pause < deadline.left() => {
                    deadline.race(tokio::time::sleep(pause)).await.map_err(unavailable)?;
                    retries += 1;
                }
                _ => return Err(self.refused(&answer)),
            }
        }
    }

    fn refused(&self, answer: &Answer) -> TokenError {
        let status = answer.status.as_u16();
        let class = if (400..500).contains(&status) && pause(status, 0).is_none() {
            Class::AppCredential
        } else {
            Class::Retry
        };
        let said = classify::object(answer).map(|body| said(&body)).unwrap_or_default();
        let repeats = |header: &Secret<String>| said.contains(header.expose().as_str());
        let said = if self.header.as_ref().is_some_and(repeats) { " [withheld]".to_owned() } else { said };
        not_sent(class, format!("the managed identity: HTTP {status}{said}"))
    }
}

/// How long to wait before the endpoint is asked once more. 410: it is being updated, for up to 70 s.
fn pause(status: u16, retries: u32) -> Option<Duration> {
    match status {
        410 => (retries < 7).then_some(Duration::from_secs(10)),
        404 | 408 | 429 | 500..=599 => (retries < 3).then(|| Duration::from_secs(1 << retries)),
        _ => None,
    }
}

fn unavailable(mut why: String) -> TokenError {
    why.insert_str(0, "the managed identity: ");
    not_sent(Class::Retry, why)
}

fn read(mut body: Map<String, Value>, now: Timestamp) -> Result<TokenReply, TokenError> {
    if let Some(life) = life(&body, now) {
        body.insert("expires_in".to_owned(), life.into());
    }
    let (reply, _) = reply::read(body, now).map_err(|error| unavailable(error.text))?;
    Ok(TokenReply { refresh_token: None, ..reply })
}

/// In seconds: what the reply says of its token's life, in one of four ways.
fn life(body: &Map<String, Value>, now: Timestamp) -> Option<i64> {
    if let Some(life) = reply::seconds(body, "expires_in") {
        return Some(life);
    }
    let at = reply::seconds(body, "expires_on").or_else(|| date(body.get("expires_on")?.as_str()?));
    at.map(|at| if at < ABSOLUTE { at } else { at.saturating_sub(now.secs()) })
}

/// ISO 8601; without an offset in UTC.
fn date(text: &str) -> Option<i64> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let local = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    zoned.or_else(|| local().map(|at| at.timestamp())).map(jiff::Timestamp::as_second)
}

/// The text of an error in either of its shapes.
fn said(body: &Map<String, Value>) -> String {
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let error = text("error").map(|error| format!(" {}", printable(error, 64)));
    let line = text("error_description").or_else(|| text("message")).and_then(|text| text.lines().next());
    let line = line.map(|line| format!(": {}", printable(line, 200)));
    [error, line].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn retries_by_status() {
        for (statuses, expected) in [
            (&[404, 408, 429, 500, 503, 599][..], &[1, 2, 4][..]),
            (&[410], &[10; 7]),
            (&[200, 302, 400, 401, 403, 409], &[]),
        ] {
            for status in statuses {
                let pauses = (0..20).map_while(|retries| pause(*status, retries)).map(|pause| pause.as_secs());
                assert_eq!(pauses.collect::<Vec<_>>(), expected, "{status}");
            }
        }
    }

    #[test]
    fn lives_in_every_clothing() {
        for (said, expected) in [
            (json!({"expires_in": "86399", "expires_on": "1700086399"}), Some(86399)),
            (json!({"expires_in": 3600}), Some(3600)),
            (json!({"expires_on": "1700003600"}), Some(3600)),
            (json!({"expires_on": 1_700_003_600}), Some(3600)),
            (json!({"expires_on": "3599"}), Some(3599)),
            (json!({"expires_on": "2023-11-14T23:13:20Z"}), Some(3600)),
            (json!({"expires_on": "2023-11-14T23:13:20+00:00"}), Some(3600)),
            (json!({"expires_on": "2023-11-14T23:13:20"}), Some(3600)),
            (json!({"expires_on": "2023-11-14 23:13:20.5"}), Some(3600)),
            (json!({"expires_on": "tomorrow"}), Some(600)),
            (json!({}), Some(600)),
            (json!({"expires_on": "1600000000"}), None),
            (json!({"expires_on": "2020-01-01T00:00:00Z"}), None),
        ] {
            let mut body = json!({"access_token": "t", "token_type": "Bearer", "refresh_token": "", "resource": "r"});
            body.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
            let reply = read(body.as_object().unwrap().clone(), NOW);
            assert_eq!(reply.ok().map(|reply| reply.expires_in.as_secs()), expected.map(i64::unsigned_abs), "{said}");
        }
    }
}

//! The device flow (RFC 8628): a code that a person types elsewhere, and the polls until they did.

use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::authority::{Target, is_loopback};
use super::classify::printable;
use super::exchange::SIGN_IN_LIMIT;
use super::http::{Deadline, Form};
use super::{Class, Delivery, Device, DevicePoll, Dialect, Inner, SignInError, TokenError, Whose, reply, scope};
use crate::claims::Claims;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl Inner {
    pub(super) async fn start_device(&self, scopes: &[String], claims: Option<&Claims>) -> Result<Device, SignInError> {
        let mut deadline = Deadline::new(SIGN_IN_LIMIT);
        let found = deadline.race(self.authority.device_endpoint(&self.http)).await;
        let url = found.and_then(|found| found).map_err(SignInError::Discovery)?;
        let methods = self.target(&mut deadline).await?.methods;
        let target = Target::new(url, methods);
        let form = Form::default().plain("scope", scope(scopes)).claims(self.claims(claims).as_ref());
        let body = match self.authority.dialect {
            // Entra wants the credential at the token endpoint only.
            Dialect::Entra => {
                let form = form.plain("client_id", &self.client_id);
                self.post(&form, None, &target, &mut deadline).await?
            }
            Dialect::Oidc => self.exchange(form, &target, &mut deadline).await?,
        };
        let unreadable = || TokenError {
            class: Class::Retry,
            whose: Whose::Grant,
            delivery: Delivery::Answered,
            text: "the device authorization reply can't be used".to_owned(),
            retry_after: None,
            claims: None,
        };
        Ok(read(body).ok_or_else(unreadable)?)
    }

    pub(super) async fn poll_device(
        &self,
        device: &Device,
        scopes: &[String],
        claims: Option<&Claims>,
    ) -> Result<DevicePoll, SignInError> {
        let mut deadline = Deadline::new(SIGN_IN_LIMIT);
        let target = self.target(&mut deadline).await?;
        let form = Form::default()
            .plain("grant_type", GRANT_TYPE)
            .plain("scope", scope(scopes))
            .claims(self.claims(claims).as_ref())
            .secret("device_code", &device.device_code);
        match self.exchange(form, &target, &mut deadline).await {
            Ok(body) => Ok(DevicePoll::Done(Box::new(self.signed_in(body, None).await?))),
            Err(failed) => match failed.word.as_deref() {
                Some("authorization_pending") => Ok(DevicePoll::Pending),
                Some("slow_down") => Ok(DevicePoll::SlowDown),
                _ => Err(failed.into()),
            },
        }
    }
}

fn read(mut body: Map<String, Value>) -> Option<Device> {
    let seconds = |name: &str, default: u64, range: std::ops::RangeInclusive<u64>| {
        let said = reply::seconds(&body, name).and_then(|seconds| u64::try_from(seconds).ok());
        Duration::from_secs(said.unwrap_or(default).clamp(*range.start(), *range.end()))
    };
    let (expires_in, interval) = (seconds("expires_in", 900, 1..=86400), seconds("interval", 5, 1..=60));
    let shown = |name: &str, length: usize| {
        let text = printable(body.get(name)?.as_str()?, length);
        (!text.is_empty()).then_some(text)
    };
    let user_code = shown("user_code", 100)?;
    // `verification_url` is what Google calls it.
    let verification_uri = shown("verification_uri", 2000).or_else(|| shown("verification_url", 2000))?;
    let message = shown("message", 1000);
    // It becomes a link that people follow.
    let parsed = Url::parse(&verification_uri).ok()?;
    if parsed.scheme() != "https" && !(parsed.scheme() == "http" && is_loopback(&parsed)) {
        return None;
    }
    let device_code = reply::secret(&mut body, "device_code")?;
    Some(Device { device_code, user_code, verification_uri, expires_in, interval, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(changes: &Value) -> Option<Device> {
        let mut body =
            json!({"device_code": "dc", "user_code": "ABCD", "verification_uri": "https://login.test/device"});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(body.as_object().unwrap().clone())
    }

    #[test]
    fn intervals_that_are_missing_or_odd() {
        for (value, expected) in [
            (json!({}), 5),
            (json!({"interval": "7"}), 7),
            (json!({"interval": 2}), 2),
            (json!({"interval": 0}), 1),
            (json!({"interval": -3}), 5),
            (json!({"interval": 1e9}), 60),
        ] {
            assert_eq!(device(&value).unwrap().interval.as_secs(), expected, "{value}");
        }
        assert_eq!(device(&json!({})).unwrap().expires_in.as_secs(), 900);
    }

    #[test]
    fn links_that_nobody_should_follow() {
        for uri in ["javascript:alert(1)", "http://login.test/device", "login.test", ""] {
            assert!(device(&json!({"verification_uri": uri})).is_none(), "{uri}");
        }
        assert!(device(&json!({"user_code": ""})).is_none());
        assert!(device(&json!({"device_code": null})).is_none());
    }
}

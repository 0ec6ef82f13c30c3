//! Sign-in by code (RFC 8628), where the operator has switched it on: the person reads a code here and enters it at the provider.
//!
//! Invariant: the provider is asked by one request at a time and never more often than it wants: whoever has taken the flow's turn
//! asks, everybody else just looks. Without a script: the page loads itself again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use url::Url;

use super::complete::complete;
use super::offer::start_url;
use super::page::{Extras, Wait};
use super::problem::Problem;
use super::request::{Cookie, Params, is_own_form};
use super::ticket::{self, DeviceFlow, DeviceTurn};
use super::{Answer, Inner, login};
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::oauth::{Class, Device, DevicePoll, SignInError, SignedIn};

/// A flow that its provider lets live for ever is ended by us.
const LONGEST: Duration = Duration::from_mins(30);

pub(super) async fn page(inner: &Inner, request: &Request<Bytes>) -> Answer {
    if !inner.device_code {
        return Err(Problem::not_found());
    }
    let params = Params::parse(request.uri().query().unwrap_or_default().as_bytes())?;
    let offer = inner.offer(&params).await?;
    let leads_to = offer.provider.authorize(&offer.options).await?.url;
    login::show(inner, &offer, &leads_to, true)
}

pub(super) async fn start(inner: &Inner, request: &Request<Bytes>) -> Answer {
    if !inner.device_code {
        return Err(Problem::not_found());
    }
    let params = Params::parse(request.body())?;
    if !is_own_form(request.headers(), &inner.site.frame.origin, params.get("invite").is_some()) {
        return Err(Problem::cross_site());
    }
    let offer = inner.offer(&params).await?;
    let device = offer.provider.start_device(&offer.purpose.scopes, offer.options.claims.as_ref()).await?;
    let now = inner.clock.now();
    let life = device.expires_in.min(LONGEST);
    let (id, expires, interval_secs) = (ticket::random_id(), now.plus(life), device.interval.as_secs().max(1));
    let flow = DeviceFlow {
        provider: offer.provider_id,
        purpose: offer.purpose,
        claims: offer.options.claims.map(|claims| claims.to_string()),
        user_code: device.user_code,
        verification_uri: device.verification_uri,
        expires,
        interval_secs,
    };
    let next_poll = now.plus(Duration::from_secs(interval_secs));
    let turn = DeviceTurn { device_code: device.device_code, interval_secs, next_poll, expires };
    ticket::put(&inner.store, &id, &flow).await?;
    ticket::put(&inner.store, &id, &turn).await?;
    inner.site.see_other("/.bearerd/device/wait", vec![Cookie::Device.set(&id, life, inner.site.secure)])
}

/// Shows the code, asks the provider if it is time to, and ends in the page of every other sign-in.
pub(super) async fn wait(inner: &Inner, request: &Request<Bytes>) -> Answer {
    let secure = inner.site.secure;
    let id = Cookie::Device.read(request.headers(), secure).ok_or_else(Problem::device_gone)?;
    let now = inner.clock.now();
    let flow: DeviceFlow = ticket::read(&inner.store, &id, now).await?.ok_or_else(Problem::device_gone)?;
    match take_turn(inner, &id, &flow).await {
        Ok(None) => show(inner, &flow, now),
        Ok(Some(session)) => inner.site.see_other("/.bearerd/done", vec![Cookie::Device.clear(secure), session]),
        Err(problem) => Err(inner.failed(problem.again(start_url(&flow.purpose, &flow.provider)))),
    }
}

/// `Some`: signed in, with the cookie of the session.
async fn take_turn(inner: &Inner, id: &str, flow: &DeviceFlow) -> Result<Option<HeaderValue>, Problem> {
    let now = inner.clock.now();
    let Some(mut turn) = ticket::take::<DeviceTurn>(&inner.store, id, now).await? else { return Ok(None) };
    if now < turn.next_poll {
        ticket::put(&inner.store, id, &turn).await?;
        return Ok(None);
    }
    let provider = inner.providers.get(&flow.provider).ok_or_else(Problem::unknown_provider)?;
    let device = Device {
        device_code: turn.device_code.clone(),
        user_code: flow.user_code.clone(),
        verification_uri: flow.verification_uri.clone(),
        expires_in: turn.expires.since(now),
        interval: Duration::from_secs(turn.interval_secs),
        message: None,
    };
    let claims = flow.claims.as_deref().and_then(Claims::parse);
    match judge(provider.poll_device(&device, &flow.purpose.scopes, claims.as_ref()).await) {
        Polled::Wait { slower } => {
            turn.interval_secs += slower;
            turn.next_poll = inner.clock.now().plus(Duration::from_secs(turn.interval_secs));
            ticket::put(&inner.store, id, &turn).await?;
            Ok(None)
        }
        Polled::Done(signed_in) => {
            ticket::take::<DeviceFlow>(&inner.store, id, now).await?;
            complete(inner, &flow.purpose, *signed_in).await.map(Some)
        }
        Polled::Over(error) => {
            ticket::take::<DeviceFlow>(&inner.store, id, now).await?;
            Err(error.into())
        }
    }
}

/// What an answer to a poll means for the flow.
#[derive(Debug)]
pub enum Polled {
    /// Ask again, `slower` seconds later than before.
    Wait {
        slower: u64,
    },
    Done(Box<SignedIn>),
    Over(SignInError),
}

/// RFC 8628 section 3.5: a provider that can't be reached ends nothing; it is asked less often.
pub fn judge(answer: Result<DevicePoll, SignInError>) -> Polled {
    match answer {
        Ok(DevicePoll::Pending) => Polled::Wait { slower: 0 },
        Ok(DevicePoll::Done(signed_in)) => Polled::Done(signed_in),
        Err(SignInError::Token(error)) if matches!(error.class, Class::Retry | Class::Backoff) => {
            Polled::Wait { slower: 5 }
        }
        Ok(DevicePoll::SlowDown) | Err(SignInError::Discovery(_)) => Polled::Wait { slower: 5 },
        Err(error) => Polled::Over(error),
    }
}

fn show(inner: &Inner, flow: &DeviceFlow, now: Timestamp) -> Answer {
    let address = web_address(&flow.verification_uri)
        .ok_or_else(|| Problem::internal(&"the provider's verification_uri is no web address"))?;
    let page = Wait {
        frame: &inner.site.frame,
        alias: flow.purpose.alias.as_deref(),
        user_code: &flow.user_code,
        verification_uri: &flow.verification_uri,
        verification_host: address.host_str().unwrap_or_default(),
        refresh: flow.interval_secs + 1,
        minutes_left: flow.expires.since(now).as_secs().div_ceil(60),
    };
    inner.site.page(&page, Extras::default())
}

/// What may stand in a link: a provider is not trusted with `javascript:`.
fn web_address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::{Delivery, TokenError, Whose};

    fn error(class: Class) -> Result<DevicePoll, SignInError> {
        let text = "AADSTS70020".into();
        Err(TokenError {
            class,
            whose: Whose::Grant,
            delivery: Delivery::Answered,
            text,
            retry_after: None,
            claims: None,
        }
        .into())
    }

    #[test]
    fn a_flow_goes_on_until_a_definite_answer() {
        assert!(matches!(judge(Ok(DevicePoll::Pending)), Polled::Wait { slower: 0 }));
        assert!(matches!(judge(Ok(DevicePoll::SlowDown)), Polled::Wait { slower: 5 }));
        assert!(matches!(judge(error(Class::Retry)), Polled::Wait { slower: 5 }));
        assert!(matches!(judge(error(Class::Backoff)), Polled::Wait { slower: 5 }));
        assert!(matches!(judge(error(Class::Dead)), Polled::Over(_)));
        assert!(matches!(judge(error(Class::Interact)), Polled::Over(_)));
        assert!(matches!(judge(Err(SignInError::NoRefreshToken)), Polled::Over(_)));
    }

    #[test]
    fn only_web_addresses_become_links() {
        assert!(web_address("https://microsoft.com/devicelogin").is_some());
        for text in ["javascript:alert(1)", "data:text/html,x", "", "microsoft.com/devicelogin"] {
            assert!(web_address(text).is_none(), "{text}");
        }
    }
}

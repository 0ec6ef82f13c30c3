//! The device flow (RFC 8628, with Entra's names of the errors).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use serde_json::json;

use super::form::Form;
use super::scope::Scope;
use super::{State, answers, client, errors, pages};
use crate::clock::Timestamp;
use crate::sandbox::content::Content;
use crate::sandbox::fault::{Effect, Place, TokenFault};
use crate::sandbox::wire::Reply;
use crate::sandbox::{locked, random};

const LIFE: Duration = Duration::from_mins(15);

/// A device that waits for a person.
pub(super) struct Device {
    code: String,
    user_code: String,
    tenant: String,
    scope: Scope,
    expires_at: Timestamp,
    decision: Decision,
}

enum Decision {
    None,
    Approved(Arc<str>),
    Declined,
    Redeemed,
}

pub(super) async fn start(state: &State, tenant: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
    let effects = state.faults.take(None, true, |place| *place == Place::DeviceCode);
    effects.wait().await;
    if let Some(reply) = effects.refused() {
        return reply;
    }
    let response = match &effects.end {
        Some(Effect::Http { status, headers, body }) => answers::any(*status, headers, body),
        Some(Effect::Error(fault)) => errors::answer(state, fault),
        _ => match begin(state, tenant, headers, &Form::parse(body)) {
            Ok(response) => response,
            Err(fault) => errors::answer(state, &fault),
        },
    };
    effects.finish(&state.clock, response).await
}

/// The page: GET with the form, or decided at once by `user_code` and `bearerd_user`; POST decides.
pub(super) fn page(state: &State, query: &str, body: &[u8], click: bool) -> Response<Content> {
    let form = Form::parse(if click { body } else { query.as_bytes() });
    let typed = form.value("user_code").or(form.value("otc")).unwrap_or_default();
    let chosen = if click { form.value("user") } else { form.value("bearerd_user") };
    if !click && chosen.is_none() {
        return answers::page(200, pages::device(state.users.iter(), typed, None));
    }
    let declined = form.value("deny").is_some();
    if (chosen.is_none() && !declined) || !decide(state, typed, chosen.filter(|_| !declined)) {
        let page =
            pages::device(state.users.iter(), typed, Some("That code didn't work. Check the code and try again."));
        return answers::page(400, page);
    }
    let text = if declined {
        "The device was declined."
    } else {
        "You have signed in on your device. You may close this window."
    };
    answers::page(200, pages::message("Device sign-in", text))
}

/// A person's decision: a user, or `None` to decline. False: no such code waits, or no such user.
pub(super) fn decide(state: &State, user_code: &str, user: Option<&str>) -> bool {
    let now = state.clock.now();
    let decision = match user.map(|name| state.meant(name)) {
        Some(Some(user)) => Decision::Approved(user.alias.as_str().into()),
        Some(None) => return false,
        None => Decision::Declined,
    };
    let mut devices = locked(&state.devices);
    let waiting = devices.iter_mut().find(|device| {
        device.user_code.eq_ignore_ascii_case(user_code.trim())
            && device.expires_at > now
            && matches!(device.decision, Decision::None)
    });
    match waiting {
        Some(device) => {
            device.decision = decision;
            true
        }
        None => false,
    }
}

/// One poll of the token endpoint.
pub(super) fn poll(state: &State, code: &str, tenant: &str) -> Result<(Arc<str>, Scope), TokenFault> {
    let mut devices = locked(&state.devices);
    let device = devices.iter_mut().find(|device| device.code == code).ok_or_else(|| TokenFault::aadsts(70018))?;
    if !device.tenant.eq_ignore_ascii_case(tenant) {
        return Err(TokenFault::aadsts(700_005));
    }
    if device.expires_at <= state.clock.now() {
        return Err(TokenFault::aadsts(70019));
    }
    match &device.decision {
        Decision::None => Err(TokenFault::aadsts(70016)),
        Decision::Declined => Err(TokenFault::aadsts(65004)),
        Decision::Redeemed => Err(TokenFault::aadsts(54005)),
        Decision::Approved(user) => {
            let user = Arc::clone(user);
            device.decision = Decision::Redeemed;
            Ok((user, device.scope.clone()))
        }
    }
}

fn begin(state: &State, tenant: &str, headers: &HeaderMap, form: &Form) -> Result<Response<Content>, TokenFault> {
    // Only the id is asked for here; a credential that comes along is not looked at.
    if form.value("client_id") != Some(&state.options.client_id) {
        client::check(state, headers, form).1?;
    }
    let scope = Scope::parse(form.value("scope").ok_or_else(|| TokenFault::aadsts(900_144))?, false)?;
    let (code, user_code) = (random::text(256), random::typed(9));
    let verification_uri = format!("{}/{tenant}/oauth2/deviceauth", state.origin);
    let now = state.clock.now();
    let answer = answers::uncached_json(
        200,
        &json!({
            "user_code": user_code,
            "device_code": code,
            "verification_uri": verification_uri,
            "expires_in": LIFE.as_secs(),
            "interval": state.options.device_interval.as_secs(),
            "message": format!(
                "To sign in, use a web browser to open the page {verification_uri} and enter the code {user_code} to authenticate."
            ),
        }),
    );
    let mut devices = locked(&state.devices);
    devices.retain(|device| device.expires_at.plus(LIFE) > now);
    devices.push(Device {
        code,
        user_code,
        tenant: tenant.to_owned(),
        scope,
        expires_at: now.plus(LIFE),
        decision: Decision::None,
    });
    Ok(answer)
}

//! The page that names who asks for what, and its one button: off to the provider.
//!
//! Invariant: a GET sets nothing off. The POST makes everything that is secret anew (state, nonce, verifier, the browser's
//! cookie), so nothing that anybody knew before the sign-in is worth anything after it.

use bytes::Bytes;
use http::Request;
use url::Url;

use super::offer::Offer;
use super::page::{self, Choice, Choose, Extras};
use super::problem::{Problem, for_people};
use super::request::{Cookie, Params, is_own_form};
use super::ticket::{self, Pending, TEN_MINUTES};
use super::{Answer, Inner, aadsts, return_path, scopes};
use crate::config::SigninMode;

pub(super) async fn page(inner: &Inner, request: &Request<Bytes>) -> Answer {
    let params = Params::parse(request.uri().query().unwrap_or_default().as_bytes())?;
    let chooses = inner.mode == SigninMode::Open && params.get("invite").is_none() && params.get("provider").is_none();
    if chooses && inner.only_provider().is_none() {
        return choose(inner, &params);
    }
    let offer = inner.offer(&params).await?;
    // Only to learn whom the button leads to: this `state` is known to nobody and leads nowhere.
    let leads_to = offer.provider.authorize(&offer.options).await?.url;
    show(inner, &offer, &leads_to, false)
}

pub(super) async fn start(inner: &Inner, request: &Request<Bytes>) -> Answer {
    let params = Params::parse(request.body())?;
    if !is_own_form(request.headers(), &inner.site.frame.origin, params.get("invite").is_some()) {
        return Err(Problem::cross_site());
    }
    let offer = inner.offer(&params).await?;
    let authorize = offer.provider.authorize(&offer.options).await?;
    let browser = ticket::random_id();
    let cookie = Cookie::Browser.set(&browser, TEN_MINUTES, inner.site.secure);
    let pending = Pending {
        browser: browser.into(),
        provider: offer.provider_id,
        purpose: offer.purpose,
        redirect_uri: offer.options.redirect_uri,
        nonce: authorize.nonce,
        verifier: authorize.verifier,
        expires: inner.clock.now().plus(TEN_MINUTES),
    };
    ticket::put(&inner.store, authorize.state.expose(), &pending).await?;
    inner.site.see_other(authorize.url.as_str(), vec![cookie])
}

/// The page of `offer`, for a sign-in by browser or by code.
pub(super) fn show(inner: &Inner, offer: &Offer, leads_to: &Url, device: bool) -> Answer {
    let purpose = &offer.purpose;
    let target = leads_to.origin().ascii_serialization();
    let invite = purpose.invite.as_ref().map(|invite| invite.expose().as_str());
    let page = page::Offer {
        frame: &inner.site.frame,
        alias: purpose.alias.as_deref(),
        username: offer.username.as_deref(),
        reason: offer.reason.as_ref().map(|reason| page::Reason {
            words: aadsts::why(reason),
            text: &reason.text,
            partly: offer.partly,
            since: for_people(reason.since),
        }),
        applications: &offer.applications,
        scopes: &scopes::describe(&offer.options.scopes),
        provider_host: target.split_once("://").map_or(target.as_str(), |(_, host)| host),
        created_by: purpose.created_by.as_deref(),
        expires: offer.expires.map(for_people),
        device,
        invite,
        provider: if invite.is_none() { Some(&offer.provider_id) } else { None },
        return_path: purpose.return_path.as_deref(),
        device_url: invite.filter(|_| inner.device_code && !device).map(|id| format!("/.bearerd/device?invite={id}")),
    };
    // Signing in by code never leaves for the provider.
    let form_target = (!device).then(|| target.clone());
    inner.site.page(&page, Extras { form_target, cookies: Vec::new() })
}

fn choose(inner: &Inner, params: &Params) -> Answer {
    let path = match params.get("return") {
        None => None,
        Some(text) => Some(return_path::check(text).ok_or_else(Problem::return_path)?),
    };
    let url = |id: &str| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("provider", id);
        query.extend_pairs(path.map(|path| ("return", path)));
        format!("/.bearerd/login?{}", query.finish())
    };
    let choices = inner.providers.keys().map(|id| Choice { id, url: url(id) }).collect();
    inner.site.page(&Choose { frame: &inner.site.frame, choices }, Extras::default())
}

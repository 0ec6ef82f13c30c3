//! The last step of every sign-in: the link is used up, the grant is stored, and a session of ten minutes begins, in which the
//! person sees what was done and may take it back.
//!
//! Invariant: the link is taken before the grant is stored, so one of two racing sign-ins wins; if the grant can't be stored, the
//! link is given back.

use bytes::Bytes;
use http::{HeaderValue, Request};

use super::page::{Done, Extras};
use super::problem::Problem;
use super::request::Cookie;
use super::ticket::{self, Purpose, Session, TEN_MINUTES};
use super::{Answer, Inner, Outcome, invite};
use crate::account::Alias;
use crate::audit::{Entry, Event, Who};
use crate::graph::scopes;
use crate::oauth::SignedIn;
use crate::store::Grant;

/// Stores what a sign-in brought. The answer is the cookie of the session.
pub(super) async fn complete(inner: &Inner, purpose: &Purpose, signed_in: SignedIn) -> Result<HeaderValue, Problem> {
    let missing = scopes::missing(&purpose.scopes, signed_in.reply.scopes.as_deref().unwrap_or_default());
    let grant = store(inner, purpose, signed_in).await?;
    let session = Session {
        alias: grant.alias.to_string(),
        username: grant.username,
        key: grant.key,
        missing,
        return_path: purpose.return_path.clone(),
        form_token: ticket::random_id().into(),
        expires: inner.clock.now().plus(TEN_MINUTES),
    };
    let outcome = Outcome::SignedIn { alias: session.alias.clone(), username: session.username.clone() };
    let id = ticket::random_id();
    // The grant is stored; without a session the person only sees less.
    if let Err(error) = ticket::put(&inner.store, &id, &session).await {
        tracing::warn!(%error, "a session could not be stored");
    }
    inner.outcomes.send_replace(Some(outcome));
    Ok(Cookie::Session.set(&id, TEN_MINUTES, inner.site.secure))
}

/// `/.bearerd/done`: who signed in, for which account, what works now.
pub(super) async fn page(inner: &Inner, request: &Request<Bytes>) -> Answer {
    let Some(session) = session(inner, request).await?.map(|(_, session)| session) else {
        return inner.site.see_other("/.bearerd/", Vec::new());
    };
    let applications =
        Alias::new(&session.alias).map(|alias| inner.applications.acting_for(&alias)).unwrap_or_default();
    let page = Done {
        frame: &inner.site.frame,
        alias: &session.alias,
        username: session.username.as_deref(),
        applications: &applications,
        missing: &session.missing,
        return_path: session.return_path.as_deref(),
    };
    let page = inner.site.page(&page, Extras::default())?;
    inner.outcomes.send_replace(Some(Outcome::SignedIn { alias: session.alias, username: session.username }));
    Ok(page)
}

/// Who has just signed in with this browser, and the name of that session.
pub(super) async fn session(inner: &Inner, request: &Request<Bytes>) -> Result<Option<(String, Session)>, Problem> {
    let Some(id) = Cookie::Session.read(request.headers(), inner.site.secure) else { return Ok(None) };
    let session = ticket::read(&inner.store, &id, inner.clock.now()).await?;
    Ok(session.map(|session| (id, session)))
}

async fn store(inner: &Inner, purpose: &Purpose, signed_in: SignedIn) -> Result<Grant, Problem> {
    let who = purpose.who()?;
    let Some(id) = purpose.invite.as_ref().map(|invite| invite.expose().as_str()) else {
        return Ok(inner.vault.put(&who, signed_in, &purpose.scopes).await?);
    };
    let link = invite::take(&inner.store, id).await?.ok_or_else(Problem::used_link)?;
    match inner.vault.put(&who, signed_in, &purpose.scopes).await {
        Ok(grant) => {
            let used = Entry::new(Event::LinkUsed, Who::User).of(&grant.alias, &grant.key);
            if let Err(error) = inner.store.audit(used.because(format!("made by {}", link.created_by))).await {
                tracing::warn!(%error, "the use of a sign-in link can't be recorded");
            }
            if let Err(error) = invite::bury(&inner.store, &inner.clock, id).await {
                tracing::warn!(%error, "that a sign-in link was used could not be noted; it is used up all the same");
            }
            Ok(grant)
        }
        Err(refused) => {
            if let Err(error) = invite::give_back(&inner.store, id, &link).await {
                tracing::warn!(%error, "a sign-in link could not be given back");
            }
            Err(refused.into())
        }
    }
}

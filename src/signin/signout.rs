//! Taking it back: a person who has just signed in may end bearerd's grant for the account.
//!
//! Invariant: only for the account of the session, and only by our own form: its token is the session's and works once.

use bytes::Bytes;
use http::Request;
use subtle::ConstantTimeEq;

use super::complete::session;
use super::page::{Extras, Revoked, Signout, SignoutSession};
use super::problem::Problem;
use super::request::{Cookie, Params, is_own_form};
use super::ticket::{self, Session};
use super::{Answer, Inner};
use crate::audit::{Entry, Event, Who};

pub(super) async fn page(inner: &Inner, request: &Request<Bytes>) -> Answer {
    let session = session(inner, request).await?.map(|(_, session)| session);
    let session = session.as_ref().map(|session| SignoutSession {
        alias: &session.alias,
        username: session.username.as_deref(),
        token: session.form_token.expose(),
    });
    inner.site.page(&Signout { frame: &inner.site.frame, session }, Extras::default())
}

pub(super) async fn revoke(inner: &Inner, request: &Request<Bytes>) -> Answer {
    let params = Params::parse(request.body())?;
    let session = session(inner, request).await?;
    let token = params.get("token").unwrap_or_default();
    let fits = session.as_ref().is_some_and(|(_, session)| holds(session, token));
    if !is_own_form(request.headers(), &inner.site.frame.origin, fits) {
        return Err(Problem::cross_site());
    }
    let (id, session) = session.filter(|_| fits).ok_or_else(Problem::no_session)?;
    let entry = Entry::new(Event::Revoke, Who::User).of(&session.alias, &session.key);
    inner.store.audited(entry, |entry, _| entry, inner.vault.revoke(&session.key)).await?;
    // After it, so that a store that can't be used now lets the person try again.
    ticket::take::<Session>(&inner.store, &id, inner.clock.now()).await?;
    let page = Revoked { frame: &inner.site.frame, alias: &session.alias };
    inner.site.page(&page, Extras { form_target: None, cookies: vec![Cookie::Session.clear(inner.site.secure)] })
}

fn holds(session: &Session, token: &str) -> bool {
    session.form_token.expose().as_bytes().ct_eq(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountKey;
    use crate::clock::Timestamp;

    #[test]
    fn the_form_s_token_is_the_session_s() {
        let token = ticket::random_id();
        let session = Session {
            key: AccountKey { provider: "entra".into(), tenant: "t".into(), subject: "s".into() },
            alias: "alice".into(),
            username: None,
            missing: vec![],
            return_path: None,
            form_token: token.clone().into(),
            expires: Timestamp::default(),
        };
        assert!(holds(&session, &token));
        assert!(!holds(&session, ""));
        assert!(!holds(&session, &ticket::random_id()));
    }
}

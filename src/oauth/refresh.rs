//! The refresh grant: one presentation of one refresh token.

use std::time::Duration;

use super::http::{Deadline, Form};
use super::id_token::{Refused, Wanted};
use super::{Class, Delivery, Dialect, Identity, Inner, SignInError, TokenError, TokenReply, Whose, reply, scope};
use crate::account::AccountKey;
use crate::claims::Claims;
use crate::secret::Secret;

impl Inner {
    pub(super) async fn refresh(
        &self,
        refresh_token: &Secret<String>,
        account: &AccountKey,
        scopes: &[String],
        claims: Option<&Claims>,
        limit: Duration,
    ) -> Result<TokenReply, TokenError> {
        let mut deadline = Deadline::new(limit);
        let (reply, id_token) = self.present(refresh_token, scopes, claims, &mut deadline).await?;
        if let Some(id_token) = id_token {
            self.check_account(&id_token, account, &reply, &mut deadline).await?;
        }
        Ok(reply)
    }

    pub(super) async fn adopt(
        &self,
        refresh_token: &Secret<String>,
        scopes: &[String],
        limit: Duration,
    ) -> Result<(Option<Identity>, TokenReply), SignInError> {
        let (reply, id_token) = self.present(refresh_token, scopes, None, &mut Deadline::new(limit)).await?;
        let Some(id_token) = id_token else {
            return Ok((None, reply));
        };
        let wanted = Wanted { nonce: None, access_token: Some(reply.access_token.expose()) };
        let identity = self.identify(id_token.expose(), wanted).await?;
        Ok((Some(identity), reply))
    }

    async fn present(
        &self,
        refresh_token: &Secret<String>,
        scopes: &[String],
        claims: Option<&Claims>,
        deadline: &mut Deadline,
    ) -> Result<(TokenReply, Option<Secret<String>>), TokenError> {
        let target = self.target(deadline).await?;
        let form = Form::default()
            .plain("grant_type", "refresh_token")
            .plain("scope", scope(scopes))
            .claims(self.claims(claims).as_ref())
            .secret("refresh_token", refresh_token);
        let body = self.exchange(form, &target, deadline).await?;
        reply::read(body, self.clock.now())
    }

    async fn check_account(
        &self,
        id_token: &Secret<String>,
        account: &AccountKey,
        reply: &TokenReply,
        deadline: &mut Deadline,
    ) -> Result<(), TokenError> {
        // An answer that we refuse has used up what was presented all the same.
        let refused = |text: String| TokenError {
            class: Class::Config,
            whose: Whose::Grant,
            delivery: Delivery::Unknown,
            text,
            retry_after: None,
            claims: None,
        };
        let wanted = Wanted { nonce: None, access_token: Some(reply.access_token.expose()) };
        let named = match deadline.race(self.identify(id_token.expose(), wanted)).await {
            // The old refresh token may be used up: for want of a key or of the right time we don't throw away its successor.
            Ok(Err(Refused::Keys(why) | Refused::Discovery(why) | Refused::Clock(why))) | Err(why) => {
                tracing::warn!(provider = %self.id, %why, "an identity token could not be checked in full; TLS vouches for it");
                self.identify_unsigned(id_token.expose())
            }
            Ok(named) => named,
        };
        let named = named.map_err(|why| refused(SignInError::from(why).to_string()))?.key;
        let same = |a: &str, b: &str| match self.authority.dialect {
            Dialect::Entra => a.eq_ignore_ascii_case(b),
            Dialect::Oidc => a == b,
        };
        if same(&named.tenant, &account.tenant) && same(&named.subject, &account.subject) {
            Ok(())
        } else {
            Err(refused("the identity token names another account".to_owned()))
        }
    }
}

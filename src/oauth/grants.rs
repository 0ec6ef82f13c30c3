//! The grants that need no refresh token: client credentials and on-behalf-of; and the way to give a refresh token back.

use std::time::Duration;

use super::authority::{JWT_BEARER, TOKEN_EXCHANGE};
use super::exchange::{Failed, not_sent};
use super::http::{Deadline, Form};
use super::{Class, Dialect, Inner, TokenError, TokenReply, reply};
use crate::claims::Claims;
use crate::secret::Secret;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// How a user's token is shown to get another one with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Microsoft's on-behalf-of.
    OnBehalfOf,
    /// RFC 7523, section 2.1.
    JwtBearer,
    /// RFC 8693.
    TokenExchange,
}

impl Inner {
    pub(super) async fn client_credentials(
        &self,
        scopes: &[String],
        claims: Option<&Claims>,
        limit: Duration,
    ) -> Result<TokenReply, TokenError> {
        let mut deadline = Deadline::new(limit);
        if let Some(identity) = self.client_auth.itself() {
            return identity.token(resource(scopes)?, &mut deadline).await;
        }
        self.has_credential("client credentials")?;
        self.authority.one_tenant(&self.id).map_err(|why| not_sent(Class::Config, why))?;
        let form = Form::default().plain("grant_type", "client_credentials");
        self.without_refresh_token(form, scopes, claims, &mut deadline).await.map_err(TokenError::from)
    }

    pub(super) async fn on_behalf_of(
        &self,
        assertion: &Secret<String>,
        scopes: &[String],
        claims: Option<&Claims>,
        limit: Duration,
    ) -> Result<TokenReply, TokenError> {
        let mut deadline = Deadline::new(limit);
        self.has_credential("on-behalf-of")?;
        self.authority.one_tenant(&self.id).map_err(|why| not_sent(Class::Config, why))?;
        let way = self.way(&mut deadline).await?;
        let form = Form::default();
        let form = match way {
            Way::OnBehalfOf => form
                .plain("grant_type", JWT_BEARER)
                .plain("requested_token_use", "on_behalf_of")
                .secret("assertion", assertion),
            Way::JwtBearer => form.plain("grant_type", JWT_BEARER).secret("assertion", assertion),
            Way::TokenExchange => form
                .plain("grant_type", TOKEN_EXCHANGE)
                .plain("requested_token_type", ACCESS_TOKEN)
                .plain("subject_token_type", ACCESS_TOKEN)
                .secret("subject_token", assertion),
        };
        let outcome = self.without_refresh_token(form, scopes, claims, &mut deadline).await;
        outcome.map_err(|failed| about_assertion(way, failed))
    }

    pub(super) async fn revoke(&self, refresh_token: &Secret<String>, limit: Duration) -> Result<bool, TokenError> {
        let mut deadline = Deadline::new(limit);
        let found = deadline.race(self.authority.revocation(&self.http)).await.and_then(|found| found);
        let Some(target) = found.map_err(|why| not_sent(Class::Retry, why))? else {
            return Ok(false);
        };
        let form = Form::default().plain("token_type_hint", "refresh_token").secret("token", refresh_token);
        self.exchange(form, &target, &mut deadline).await?;
        Ok(true)
    }

    /// The token for exactly these scopes. A refresh token would be one that nobody keeps.
    async fn without_refresh_token(
        &self,
        form: Form,
        scopes: &[String],
        claims: Option<&Claims>,
        deadline: &mut Deadline,
    ) -> Result<TokenReply, Failed> {
        let target = self.target(deadline).await?;
        let form = form.claims(self.claims(claims).as_ref());
        let form = if scopes.is_empty() { form } else { form.plain("scope", scopes.join(" ")) };
        let body = self.exchange(form, &target, deadline).await?;
        let (reply, _) = reply::read(body, self.clock.now())?;
        Ok(TokenReply { refresh_token: None, ..reply })
    }

    fn has_credential(&self, grant: &str) -> Result<(), TokenError> {
        if self.client_auth.is_public() {
            let why = format!("{grant}: providers.{}.credentials is empty", self.id);
            return Err(not_sent(Class::Config, why));
        }
        Ok(())
    }

    async fn way(&self, deadline: &mut Deadline) -> Result<Way, TokenError> {
        if self.authority.dialect == Dialect::Entra {
            return Ok(Way::OnBehalfOf);
        }
        let metadata = deadline.race(self.authority.metadata(&self.http)).await.and_then(|found| found);
        let metadata = metadata.map_err(|why| not_sent(Class::Retry, why))?;
        Ok(if metadata.exchanges_tokens { Way::TokenExchange } else { Way::JwtBearer })
    }
}

/// What is dead is what was presented: the caller's own token.
fn about_assertion(way: Way, failed: Failed) -> TokenError {
    // RFC 8693, section 2.2.2: the word for a token that is not accepted.
    let refused = way == Way::TokenExchange && failed.word.as_deref() == Some("invalid_request");
    match failed.error.class {
        Class::Dead => TokenError { class: Class::Assertion, ..failed.error },
        Class::Config if refused => TokenError { class: Class::Assertion, ..failed.error },
        _ => failed.error,
    }
}

/// What a managed identity's endpoint calls a scope.
fn resource(scopes: &[String]) -> Result<&str, TokenError> {
    let [one] = scopes else {
        let why = "a managed identity's token is for one scope, such as https://graph.microsoft.com/.default";
        return Err(not_sent(Class::Config, why.to_owned()));
    };
    Ok(one.strip_suffix("/.default").unwrap_or(one))
}

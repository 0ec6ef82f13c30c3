//! One exchange with an endpoint that wants our credential: exactly one POST per credential tried. Only "we don't know you"
//! (`invalid_client`) leads to the next credential; such an answer never used up what was presented.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde_json::{Map, Value};

use super::authority::Target;
use super::classify;
use super::client_auth::{Accepted, Attempt, ClientAuth};
use super::http::{Deadline, Form};
use super::{Class, Delivery, Inner, SignInError, TokenError, Whose};

/// For the exchanges of a sign-in, for which a person waits.
pub(super) const SIGN_IN_LIMIT: Duration = Duration::from_secs(15);

/// No success, with the protocol's own word for it where the answer had one.
pub(super) struct Failed {
    pub(super) word: Option<String>,
    pub(super) error: TokenError,
}

impl Inner {
    /// The JSON object of a success.
    pub(super) async fn exchange(
        &self,
        form: Form,
        target: &Target,
        deadline: &mut Deadline,
    ) -> Result<Map<String, Value>, Failed> {
        let mut refused: Option<Failed> = None;
        for attempt in self.client_auth.attempts(&target.methods) {
            let failed = match self.client_auth.apply(attempt, form.clone(), target, deadline).await {
                // Too late for another one: its request would be broken off, and nobody would know what was used up.
                Err(error) if deadline.left().is_zero() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(provider = %self.id, why = %error, "a credential of the app registration can't be used");
                    error.into()
                }
                Ok((form, authorization)) => match self.post(&form, authorization, target, deadline).await {
                    Err(failed) if failed.error.class == Class::AppCredential => {
                        ClientAuth::refused(attempt);
                        failed
                    }
                    outcome => {
                        if outcome.is_ok() {
                            self.accepted(attempt);
                        }
                        return outcome;
                    }
                },
            };
            if refused.as_ref().is_none_or(|earlier| weight(earlier) <= weight(&failed)) {
                refused = Some(failed);
            }
        }
        Err(refused.expect("there is always an attempt, and each one that does not return leaves its refusal"))
    }

    fn accepted(&self, attempt: Attempt<'_>) {
        let Accepted { number, kind, changed } = self.client_auth.accepted(attempt);
        if changed {
            tracing::warn!(provider = %self.id, number, kind, "the provider accepts another credential of the app registration now");
        }
        if number > 1
            && let Some(metrics) = self.metrics.get()
        {
            metrics.credential_fallback(&self.id);
        }
    }

    /// One POST.
    pub(super) async fn post(
        &self,
        form: &Form,
        authorization: Option<HeaderValue>,
        target: &Target,
        deadline: &mut Deadline,
    ) -> Result<Map<String, Value>, Failed> {
        let unanswered = |sent: bool, text: String| TokenError {
            delivery: if sent { Delivery::Unknown } else { Delivery::NotSent },
            ..not_sent(Class::Retry, text)
        };
        let answer = deadline
            .race(self.http.post(&target.url, form, authorization))
            .await
            .map_err(|late| unanswered(true, late))?
            .map_err(|failure| unanswered(failure.sent, failure.text))?;
        match classify::object(&answer) {
            Some(body) if answer.status.is_success() && !body.contains_key("error") => Ok(body),
            None if answer.status.is_success() && target.says_nothing => Ok(Map::new()),
            body => Err(classify::failed(self.authority.dialect, &answer, body.as_ref(), form, self.clock.now())),
        }
    }
}

/// Of several credentials that did not work the most telling failure counts: one that may pass, then the provider's own word.
fn weight(failed: &Failed) -> (bool, bool) {
    (failed.error.class != Class::AppCredential, failed.error.delivery == Delivery::Answered)
}

pub(super) fn not_sent(class: Class, text: String) -> TokenError {
    TokenError { class, whose: Whose::Grant, delivery: Delivery::NotSent, text, retry_after: None, claims: None }
}

impl From<TokenError> for Failed {
    fn from(error: TokenError) -> Self {
        Self { word: None, error }
    }
}

impl From<Failed> for TokenError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<Failed> for SignInError {
    fn from(failed: Failed) -> Self {
        Self::Token(failed.error)
    }
}

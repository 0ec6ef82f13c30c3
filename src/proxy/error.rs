//! The one table of errors that the proxy makes, in the shape that Graph's own SDKs understand.
//!
//! Every answer made here carries `Bearerd-Error`; nothing that an upstream answers does, but for `upstream_401`. What stands in a
//! message is safe to show to the calling application.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use super::reply::ReplyBody;
use crate::clock::{Clock, Timestamp};
use crate::vault::LeaseError;

pub const BEARERD_ERROR: HeaderName = HeaderName::from_static("bearerd-error");
const BEARERD_SIGNIN_URL: HeaderName = HeaderName::from_static("bearerd-signin-url");
pub const BEARERD_MAYBE_EXECUTED: HeaderName = HeaderName::from_static("bearerd-maybe-executed");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ClientUnauthenticated,
    AccountAmbiguous,
    AccountForbidden,
    SigninRequired,
    PolicyDenied,
    AppCredentialInvalid,
    ProviderMisconfigured,
    ProviderUnavailable,
    StoreUnavailable,
    UpstreamUnreachable,
    UpstreamTimeout,
    Throttled,
    Overloaded,
    HostNotAllowed,
    CrossSiteRefused,
    BadRequest,
    HeadersTooLarge,
    UriTooLong,
    BodyTooLarge,
    NotFound,
    InternalError,
}

/// A request that ends here, and what the application is told.
#[derive(Debug)]
pub struct Refusal {
    pub kind: Kind,
    pub message: String,
    /// The rule that decided. For the log only.
    pub rule: Option<Box<str>>,
    pub retry_after: Option<Duration>,
    pub signin_url: Option<String>,
    /// A challenge of the scheme Bearer, for callers who prove themselves by a token: they can do something about it.
    pub bearer: Option<String>,
    /// The upstream may have done what the request asked for.
    pub maybe_executed: bool,
    /// Where the request ends is in doubt: nothing after it on this connection is read.
    pub closes: bool,
}

impl Kind {
    /// Each has its page in `docs/errors/`.
    pub const ALL: [Self; 21] = [
        Self::ClientUnauthenticated,
        Self::AccountAmbiguous,
        Self::AccountForbidden,
        Self::SigninRequired,
        Self::PolicyDenied,
        Self::AppCredentialInvalid,
        Self::ProviderMisconfigured,
        Self::ProviderUnavailable,
        Self::StoreUnavailable,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::Throttled,
        Self::Overloaded,
        Self::HostNotAllowed,
        Self::CrossSiteRefused,
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::UriTooLong,
        Self::BodyTooLarge,
        Self::NotFound,
        Self::InternalError,
    ];

    /// (value of `Bearerd-Error`, status, error type of RFC 9209)
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        const DENIED: &str = "http_request_denied";
        const BAD: &str = "http_request_error";
        match self {
            Self::ClientUnauthenticated => ("client_unauthenticated", S::UNAUTHORIZED, DENIED),
            Self::AccountAmbiguous => ("account_ambiguous", S::BAD_REQUEST, BAD),
            Self::AccountForbidden => ("account_forbidden", S::FORBIDDEN, DENIED),
            Self::SigninRequired => ("signin_required", S::FORBIDDEN, DENIED),
            Self::PolicyDenied => ("policy_denied", S::FORBIDDEN, DENIED),
            Self::AppCredentialInvalid => ("app_credential_invalid", S::BAD_GATEWAY, "proxy_configuration_error"),
            Self::ProviderMisconfigured => ("provider_misconfigured", S::BAD_GATEWAY, "proxy_configuration_error"),
            Self::ProviderUnavailable => ("provider_unavailable", S::SERVICE_UNAVAILABLE, "proxy_internal_error"),
            Self::StoreUnavailable => ("store_unavailable", S::SERVICE_UNAVAILABLE, "proxy_internal_error"),
            Self::UpstreamUnreachable => ("upstream_unreachable", S::BAD_GATEWAY, "destination_unavailable"),
            Self::UpstreamTimeout => ("upstream_timeout", S::GATEWAY_TIMEOUT, "http_response_timeout"),
            Self::Throttled => ("throttled", S::TOO_MANY_REQUESTS, DENIED),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "proxy_internal_error"),
            Self::HostNotAllowed => ("host_not_allowed", S::MISDIRECTED_REQUEST, DENIED),
            Self::CrossSiteRefused => ("cross_site_refused", S::FORBIDDEN, DENIED),
            Self::BadRequest => ("bad_request", S::BAD_REQUEST, BAD),
            Self::HeadersTooLarge => ("headers_too_large", S::REQUEST_HEADER_FIELDS_TOO_LARGE, BAD),
            Self::UriTooLong => ("uri_too_long", S::URI_TOO_LONG, BAD),
            Self::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, BAD),
            Self::NotFound => ("not_found", S::NOT_FOUND, BAD),
            Self::InternalError => ("internal_error", S::INTERNAL_SERVER_ERROR, "proxy_internal_error"),
        }
    }

    /// The value of `Bearerd-Error`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// The error type of RFC 9209 in `Proxy-Status`.
    pub fn proxy_error(self) -> &'static str {
        self.row().2
    }

    pub fn because(self, message: impl Into<String>) -> Refusal {
        Refusal {
            kind: self,
            message: message.into(),
            rule: None,
            retry_after: None,
            signin_url: None,
            bearer: None,
            maybe_executed: false,
            closes: false,
        }
    }
}

impl Refusal {
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The caller's token is at fault: another one may do (RFC 6750, section 3.1).
    #[must_use]
    pub fn for_its_token(mut self) -> Self {
        self.bearer = Some("Bearer realm=\"bearerd\", error=\"invalid_token\"".to_owned());
        self
    }

    #[must_use]
    pub fn maybe_executed(mut self, maybe: bool) -> Self {
        self.maybe_executed = maybe;
        self
    }

    /// The answer to a request that never reached the data path.
    pub fn answer_alone(&self, clock: &Clock) -> Response<ReplyBody> {
        let request_id = super::request_id::RequestId::new();
        let request_id = request_id.as_str();
        tracing::info!(request_id, error = self.kind.name(), message = self.message, "refused");
        self.answer(request_id, request_id, clock.now())
    }

    /// The answer. `client_request_id` is the caller's own, echoed as Graph does.
    pub fn answer(&self, request_id: &str, client_request_id: &str, now: Timestamp) -> Response<ReplyBody> {
        let (name, status, proxy_error) = self.kind.row();
        let body = serde_json::json!({"error": {
            "code": format!("bearerd.{name}"),
            "message": self.message,
            "innerError": {"date": now.to_string(), "request-id": request_id, "client-request-id": client_request_id},
        }});
        let mut response = Response::new(ReplyBody::full(Bytes::from(body.to_string())));
        *response.status_mut() = match (&self.bearer, self.kind) {
            (Some(_), Kind::SigninRequired) => StatusCode::UNAUTHORIZED,
            _ => status,
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(BEARERD_ERROR, HeaderValue::from_static(name));
        let mut set = |key: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(key, value);
            }
        };
        set(PROXY_STATUS, format!("bearerd; error={proxy_error}; details=\"{name}\""));
        set(HeaderName::from_static("request-id"), request_id.to_owned());
        set(HeaderName::from_static("client-request-id"), client_request_id.to_owned());
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            set(RETRY_AFTER, seconds.max(1).to_string());
        }
        if let Some(url) = &self.signin_url {
            set(BEARERD_SIGNIN_URL, url.clone());
        }
        if self.kind == Kind::ClientUnauthenticated {
            set(WWW_AUTHENTICATE, "Basic realm=\"bearerd\", charset=\"UTF-8\"".to_owned());
        }
        if self.closes {
            set(CONNECTION, "close".to_owned());
        }
        if self.maybe_executed {
            set(BEARERD_MAYBE_EXECUTED, "1".to_owned());
        }
        if let Some(challenge) = self.bearer.as_ref().and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
            headers.append(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<LeaseError> for Refusal {
    fn from(error: LeaseError) -> Self {
        let message = error.to_string();
        match error {
            LeaseError::NoAccount => no_such_account(),
            LeaseError::SigninRequired(_) | LeaseError::Revoked => {
                let step = matches!(&error, LeaseError::SigninRequired(reason) if reason.claims.is_some());
                let step = if step { " The organisation asks for one more step of the person." } else { "" };
                Kind::SigninRequired.because(format!(
                    "{}.{step} Ask the owner of the account to sign in again (Bearerd-Signin-Url), or the operator for a sign-in link.",
                    message.trim_end_matches('.')
                ))
            }
            LeaseError::Challenge { claims, .. } => {
                let mut refusal = Kind::SigninRequired.because(format!(
                    "{}. Take the user through a sign-in with the claims of WWW-Authenticate, and present the new token.",
                    message.trim_end_matches('.')
                ));
                let claims = claims.map(|claims| format!(", claims=\"{}\"", claims.to_base64())).unwrap_or_default();
                refusal.bearer = Some(format!("Bearer realm=\"\", error=\"insufficient_claims\"{claims}"));
                refusal
            }
            LeaseError::AssertionRefused(text) => {
                let mut refusal = Kind::ClientUnauthenticated.because(format!(
                    "{}. Present a fresh token of the user for this proxy.",
                    message.trim_end_matches('.')
                ));
                refusal.bearer =
                    Some(format!("Bearer error=\"invalid_token\", error_description=\"{}\"", described(&text)));
                refusal
            }
            LeaseError::AppCredential(_) => Kind::AppCredentialInvalid.because(format!(
                "{}. The operator has to renew providers.*.credentials; no account has lost its grant.",
                message.trim_end_matches('.')
            )),
            LeaseError::Misconfigured(_) => Kind::ProviderMisconfigured.because(message),
            LeaseError::ProviderUnavailable { retry_after, .. } => {
                Kind::ProviderUnavailable.because(message).after(retry_after)
            }
            LeaseError::StoreUnavailable(_) => {
                Kind::StoreUnavailable.because("the token store is unavailable").after(Duration::from_secs(5))
            }
            LeaseError::Damaged(_) => {
                Kind::InternalError.because("the account's record can't be used; the log says why")
            }
        }
    }
}

/// What may stand in an `error_description` (RFC 6750, section 3).
fn described(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect()
}

/// "May not" and "does not exist" look alike.
pub fn no_such_account() -> Refusal {
    Kind::AccountForbidden.because(
        "this client may not act for that account, or there is no such account; \
         the account is what the path (/as/NAME/...), the Basic user name, Bearerd-Account or the token's account_claim names",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Claims;
    use crate::graph::challenge::challenge;
    use crate::store::Reason;

    fn answer(error: LeaseError) -> Response<ReplyBody> {
        Refusal::from(error).answer("1", "1", Timestamp::from_secs(1))
    }

    fn challenges(answer: &Response<ReplyBody>) -> Vec<&str> {
        answer.headers().get_all(WWW_AUTHENTICATE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    fn claims() -> Option<Claims> {
        Claims::parse(r#"{"access_token":{"polids":{"essential":true,"values":["x"]}}}"#)
    }

    #[test]
    fn who_acts_on_behalf_of_somebody_gets_a_challenge_that_can_be_read_again() {
        let text = "AADSTS50076 interaction_required".to_owned();
        let refused = answer(LeaseError::Challenge { text: text.clone(), claims: claims() });
        assert_eq!(
            (refused.status(), &refused.headers()[BEARERD_ERROR]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("signin_required"))
        );
        assert_eq!(challenge(refused.headers()), claims());
        assert!(challenges(&refused)[0].starts_with("Bearer realm=\"\", error=\"insufficient_claims\", claims=\""));
        let refused = answer(LeaseError::Challenge { text, claims: None });
        assert_eq!(challenges(&refused), ["Bearer realm=\"\", error=\"insufficient_claims\""]);
    }

    #[test]
    fn a_refused_assertion_is_the_callers_own_token() {
        let refused = answer(LeaseError::AssertionRefused("AADSTS500133 invalid_grant: \"x\\\r\n\u{e4}y".to_owned()));
        assert_eq!(
            (refused.status(), &refused.headers()[BEARERD_ERROR]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("client_unauthenticated"))
        );
        let expected = "Bearer error=\"invalid_token\", error_description=\"AADSTS500133 invalid_grant: xy\"";
        assert_eq!(challenges(&refused), ["Basic realm=\"bearerd\", charset=\"UTF-8\"", expected]);
    }

    #[test]
    fn a_person_who_is_asked_for_one_more_step_is_told_so() {
        let reason =
            |claims| Reason { dead: false, text: "AADSTS50076".to_owned(), claims, since: Timestamp::default() };
        for (claims, said) in [(claims(), true), (None, false)] {
            let refusal = Refusal::from(LeaseError::SigninRequired(reason(claims)));
            assert_eq!((refusal.kind, refusal.message.contains("one more step")), (Kind::SigninRequired, said));
            let refused = refusal.answer("1", "1", Timestamp::default());
            assert_eq!((refused.status(), challenges(&refused).len()), (StatusCode::FORBIDDEN, 0));
        }
    }
}

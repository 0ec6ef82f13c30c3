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
const BEARERD_MAYBE_EXECUTED: HeaderName = HeaderName::from_static("bearerd-maybe-executed");
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
    pub retry_after: Option<Duration>,
    pub signin_url: Option<String>,
    /// The upstream may have done what the request asked for.
    pub maybe_executed: bool,
    /// Where the request ends is in doubt: nothing after it on this connection is read.
    pub closes: bool,
}

impl Kind {
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

    pub fn because(self, message: impl Into<String>) -> Refusal {
        Refusal {
            kind: self,
            message: message.into(),
            retry_after: None,
            signin_url: None,
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

    #[must_use]
    pub fn maybe_executed(mut self, maybe: bool) -> Self {
        self.maybe_executed = maybe;
        self
    }

    /// The answer to a request that never reached the data path.
    pub fn answer_alone(&self, clock: &Clock) -> Response<ReplyBody> {
        let request_id = super::request_id::new();
        tracing::info!(request_id, error = self.kind.name(), message = self.message, "refused");
        self.answer(&request_id, &request_id, clock.now())
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
        *response.status_mut() = status;
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
        response
    }
}

impl From<LeaseError> for Refusal {
    fn from(error: LeaseError) -> Self {
        let message = error.to_string();
        match error {
            LeaseError::NoAccount => no_such_account(),
            LeaseError::SigninRequired(_) | LeaseError::Revoked => Kind::SigninRequired.because(format!(
                "{}. Ask the owner of the account to sign in again (Bearerd-Signin-Url), or the operator for a sign-in link.",
                message.trim_end_matches('.')
            )),
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
            LeaseError::Damaged(_) => Kind::InternalError.because("the account's record can't be used; the log says why"),
        }
    }
}

/// "May not" and "does not exist" look alike.
pub fn no_such_account() -> Refusal {
    Kind::AccountForbidden.because(
        "this client may not act for that account, or there is no such account; \
         the account is what the path (/as/NAME/...), the Basic user name or Bearerd-Account names",
    )
}

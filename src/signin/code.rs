//! The errors of the pages, for scripts: the same words as the data path's, each with its one status.

use http::StatusCode;

/// `Bearerd-Error`, with the status that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadRequest,
    SigninRequired,
    AccountForbidden,
    PolicyDenied,
    CrossSiteRefused,
    NotFound,
    AppCredentialInvalid,
    ProviderMisconfigured,
    ProviderUnavailable,
    StoreUnavailable,
    InternalError,
}

impl Code {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::SigninRequired => "signin_required",
            Self::AccountForbidden => "account_forbidden",
            Self::PolicyDenied => "policy_denied",
            Self::CrossSiteRefused => "cross_site_refused",
            Self::NotFound => "not_found",
            Self::AppCredentialInvalid => "app_credential_invalid",
            Self::ProviderMisconfigured => "provider_misconfigured",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::InternalError => "internal_error",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::SigninRequired | Self::AccountForbidden | Self::PolicyDenied | Self::CrossSiteRefused => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AppCredentialInvalid | Self::ProviderMisconfigured => StatusCode::BAD_GATEWAY,
            Self::ProviderUnavailable | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

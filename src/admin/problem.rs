//! What goes wrong, as an RFC 9457 problem document. Programs look at `type`, which never changes; people read the rest.
//!
//! Invariant: `detail` is safe for everyone to read who may ask.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::respond;
use crate::store::StoreError;
use crate::vault::{ImportError, LeaseError, PutError};

pub const CONTENT_TYPE: &str = "application/problem+json";
const TYPE: &str = "urn:bearerd:problem:";

/// Every `type` that there is, with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed.
    BadRequest,
    /// A parameter of the query; `parameter` names it.
    InvalidParameter,
    /// The body is not what this route takes.
    InvalidBody,
    Unauthenticated,
    CrossSite,
    /// There is no such route.
    NotFound,
    /// There is no such account.
    AccountNotFound,
    MethodNotAllowed,
    /// The new configuration has mistakes; `mistakes` lists them.
    ConfigurationInvalid,
    /// There is no file to read again, or everything ends.
    NotReloadable,
    /// The account has to be signed in again.
    SigninRequired,
    /// The alias, or the user, belongs to another account.
    AliasTaken,
    BodyTooLarge,
    UnsupportedMediaType,
    HostNotAllowed,
    /// Well formed, and yet it can't be imported.
    ImportRefused,
    /// Too many wrong tokens came from this address.
    TooManyWrongTokens,
    /// A bug of ours, or a damaged record; the log says more.
    InternalError,
    /// The provider refuses our own credential.
    AppCredentialInvalid,
    /// The provider refuses our request for another reason of ours.
    ProviderMisconfigured,
    ProviderUnavailable,
    StoreUnavailable,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    pub detail: String,
    /// Of the query, where that is the matter.
    pub parameter: Option<String>,
    pub retry_after: Option<Duration>,
    /// Of a configuration, where that is the matter.
    pub mistakes: Vec<ConfigurationMistake>,
}

/// One mistake of a configuration. It never quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationMistake {
    /// Its path in the file, as in `server.tls.key_file`.
    pub key: String,
    pub what: String,
    /// Where that was said: a line of the file, a variable of the environment.
    pub origin: String,
}

/// RFC 9457: what went wrong.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Document {
    /// `urn:bearerd:problem:NAME`; never changes.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// For people.
    pub detail: String,
    /// The parameter of the query that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What is wrong with the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<ConfigurationMistake>,
}

impl Kind {
    pub const ALL: [Self; 22] = [
        Self::BadRequest,
        Self::InvalidParameter,
        Self::InvalidBody,
        Self::Unauthenticated,
        Self::CrossSite,
        Self::NotFound,
        Self::AccountNotFound,
        Self::MethodNotAllowed,
        Self::ConfigurationInvalid,
        Self::NotReloadable,
        Self::SigninRequired,
        Self::AliasTaken,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::HostNotAllowed,
        Self::ImportRefused,
        Self::TooManyWrongTokens,
        Self::InternalError,
        Self::AppCredentialInvalid,
        Self::ProviderMisconfigured,
        Self::ProviderUnavailable,
        Self::StoreUnavailable,
    ];

    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub fn status(self) -> StatusCode {
        self.row().1
    }

    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// The `type` of its documents.
    pub fn uri(self) -> String {
        format!("{TYPE}{}", self.name())
    }

    pub fn of_uri(uri: &str) -> Option<Self> {
        let name = uri.strip_prefix(TYPE)?;
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn because(self, detail: impl Into<String>) -> Problem {
        Problem { kind: self, detail: detail.into(), parameter: None, retry_after: None, mistakes: Vec::new() }
    }

    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, "The request is malformed"),
            Self::InvalidParameter => ("invalid_parameter", StatusCode::BAD_REQUEST, "A parameter is wrong"),
            Self::InvalidBody => ("invalid_body", StatusCode::BAD_REQUEST, "The body is wrong"),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, "The admin token is needed"),
            Self::CrossSite => ("cross_site_refused", StatusCode::FORBIDDEN, "A page of another origin asks"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is nothing here"),
            Self::AccountNotFound => ("account_not_found", StatusCode::NOT_FOUND, "There is no such account"),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "Not by this method"),
            Self::ConfigurationInvalid => {
                ("configuration_invalid", StatusCode::UNPROCESSABLE_ENTITY, "The configuration has mistakes")
            }
            Self::NotReloadable => ("not_reloadable", StatusCode::CONFLICT, "There is nothing to reload"),
            Self::SigninRequired => ("signin_required", StatusCode::CONFLICT, "A sign-in is needed"),
            Self::AliasTaken => ("alias_taken", StatusCode::CONFLICT, "It belongs to another account"),
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body has to be JSON")
            }
            Self::HostNotAllowed => ("host_not_allowed", StatusCode::MISDIRECTED_REQUEST, "The host is not ours"),
            Self::ImportRefused => ("import_refused", StatusCode::UNPROCESSABLE_ENTITY, "It can't be imported"),
            Self::TooManyWrongTokens => {
                ("too_many_wrong_tokens", StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens came from here")
            }
            Self::InternalError => ("internal_error", StatusCode::INTERNAL_SERVER_ERROR, "A fault of ours"),
            Self::AppCredentialInvalid => {
                ("app_credential_invalid", StatusCode::BAD_GATEWAY, "The provider refuses our credential")
            }
            Self::ProviderMisconfigured => {
                ("provider_misconfigured", StatusCode::BAD_GATEWAY, "The provider refuses our request")
            }
            Self::ProviderUnavailable => {
                ("provider_unavailable", StatusCode::SERVICE_UNAVAILABLE, "The provider is unavailable")
            }
            Self::StoreUnavailable => {
                ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE, "The store is unavailable")
            }
        }
    }
}

impl Problem {
    pub fn parameter(name: &str, why: impl fmt::Display) -> Self {
        let parameter = Some(name.to_owned());
        Self { parameter, ..Kind::InvalidParameter.because(format!("{name}: {why}")) }
    }

    /// There is no account of this name.
    pub fn no_account(name: &str) -> Self {
        Kind::AccountNotFound.because(format!("there is no account {name:?}"))
    }

    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub fn response(&self) -> Response<Full<Bytes>> {
        let kind = self.kind;
        let document = Document {
            r#type: kind.uri(),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: self.detail.clone(),
            parameter: self.parameter.clone(),
            mistakes: self.mistakes.clone(),
        };
        let mut response = respond(kind.status(), CONTENT_TYPE, serde_json::json!(document).to_string());
        if kind == Kind::Unauthenticated {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // A part of a second counts as a whole one: who comes too early is refused again.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = HeaderValue::from_str(&seconds.to_string()).expect("digits");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Unavailable(_) | StoreError::Setup { .. } => Kind::StoreUnavailable,
            StoreError::AliasTaken(_) => Kind::AliasTaken,
            StoreError::Corrupt { .. } => Kind::InternalError,
        };
        kind.because(error.to_string())
    }
}

impl From<LeaseError> for Problem {
    fn from(error: LeaseError) -> Self {
        let kind = match error {
            LeaseError::NoAccount => Kind::AccountNotFound,
            LeaseError::SigninRequired(_)
            | LeaseError::Revoked
            | LeaseError::AssertionRefused(_)
            | LeaseError::Challenge { .. } => Kind::SigninRequired,
            LeaseError::AppCredential(_) => Kind::AppCredentialInvalid,
            LeaseError::Misconfigured(_) => Kind::ProviderMisconfigured,
            LeaseError::ProviderUnavailable { .. } => Kind::ProviderUnavailable,
            LeaseError::StoreUnavailable(_) => Kind::StoreUnavailable,
            LeaseError::Damaged(_) => Kind::InternalError,
        };
        let wait =
            if let LeaseError::ProviderUnavailable { retry_after, .. } = &error { Some(*retry_after) } else { None };
        Self { retry_after: wait, ..kind.because(error.to_string()) }
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let kind = match &error {
            ImportError::Put(PutError::Store(StoreError::Unavailable(_) | StoreError::Setup { .. })) => {
                Kind::StoreUnavailable
            }
            ImportError::Put(PutError::Store(StoreError::Corrupt { .. })) => Kind::InternalError,
            ImportError::Put(
                PutError::SomebodyElse { .. } | PutError::Known { .. } | PutError::AliasTaken(_) | PutError::Store(_),
            )
            | ImportError::OtherProvider { .. } => Kind::AliasTaken,
            _ => Kind::ImportRefused,
        };
        kind.because(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_name_of_its_own_and_is_found_by_it() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_uri(&kind.uri()), Some(kind));
        }
        assert_eq!(Kind::of_uri("about:blank"), None);
    }
}

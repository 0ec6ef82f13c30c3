//! Why there is no sign-in: one table from what went wrong to what a person reads and what a script sees.
//!
//! Invariant: nothing that came in an address or a form is repeated to the reader. A provider's error is known by its code and
//! its number; its text, which anyone can put into a link, is not shown.

use std::time::Duration;

use super::aadsts;
use super::code::Code;
use crate::clock::Timestamp;
use crate::oauth::{Class, SignInError, TokenError};
use crate::store::StoreError;
use crate::vault::PutError;

/// An answer that says no.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub code: Code,
    pub title: &'static str,
    pub what: String,
    pub next: &'static str,
    /// The provider's code or number: for whoever helps the reader.
    pub detail: Option<Box<str>>,
    pub retry_after_secs: Option<u32>,
    /// Where a further attempt starts.
    pub again: Option<Box<str>>,
    /// For the log; may say more than the page.
    pub inside: Box<str>,
}

const ASK: &str = "Ask whoever sent you the link for a new one.";
const LATER: &str = "Try again in a few minutes. Nothing has changed, and the link stays valid.";
const TELL: &str = "Tell whoever runs this service, with the request id below. The link stays valid.";
const AGAIN: &str = "Start again from the sign-in link.";

impl Problem {
    fn new(code: Code, title: &'static str, what: impl Into<String>, next: &'static str) -> Self {
        let what = what.into();
        let inside = what.as_str().into();
        Self { code, title, what, next, detail: None, retry_after_secs: None, again: None, inside }
    }

    fn detail(mut self, detail: String) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn inside(mut self, inside: &impl ToString) -> Self {
        self.inside = inside.to_string().into();
        self
    }

    #[must_use]
    pub(super) fn again(mut self, start: String) -> Self {
        self.again = Some(start.into());
        self
    }

    pub(super) fn not_found() -> Self {
        let what = "There is no page at this address.";
        Self::new(Code::NotFound, "Nothing here", what, "Check the address, or start at the beginning.")
    }

    pub(super) fn bad_request(what: &str) -> Self {
        Self::new(Code::BadRequest, "This address is not right", what, AGAIN)
    }

    pub(super) fn return_path() -> Self {
        let what = "The address to go to after the sign-in is not a path of this service.";
        Self::new(Code::BadRequest, "This link is not right", what, ASK)
    }

    pub(super) fn cross_site() -> Self {
        let what = "The request came from a page of another site, so nothing was done.";
        let next = "Open the sign-in link itself, in a browser.";
        Self::new(Code::CrossSiteRefused, "Refused", what, next)
    }

    pub(super) fn unknown_link() -> Self {
        let what = "This sign-in link is not known here. It may be incomplete, or too old.";
        Self::new(Code::BadRequest, "This link doesn't work", what, ASK)
    }

    pub(super) fn expired_link(when: Timestamp) -> Self {
        let what = format!("This sign-in link has expired: it was valid until {}.", for_people(when));
        Self::new(Code::BadRequest, "This link has expired", what, ASK)
    }

    pub(super) fn used_link() -> Self {
        let what = "A sign-in was completed with this link already, and a link works once.";
        let next = "If that was you, there is nothing left to do. If not, tell whoever sent you the link.";
        Self::new(Code::BadRequest, "This link was used", what, next)
    }

    pub(super) fn needs_link() -> Self {
        let what = "A sign-in here starts with a personal link, and this address has none.";
        let next = "Ask whoever runs this service to send you one. Each link is made for one account and works once.";
        Self::new(Code::SigninRequired, "You need a sign-in link", what, next)
    }

    /// `state` is missing, unknown, used, expired, or another browser's: which one is nobody's business.
    pub(super) fn stray_callback() -> Self {
        let what = "This answer belongs to no sign-in that this browser has under way. It may have taken longer than ten minutes, \
                    have been completed already, or have been started in another browser or tab.";
        Self::new(Code::BadRequest, "This sign-in can't go on", what, AGAIN)
    }

    pub(super) fn no_session() -> Self {
        let what = "To take back a grant, a sign-in of the last ten minutes is needed, and this browser has none.";
        Self::new(Code::BadRequest, "Please sign in first", what, "Open the sign-out page to see your choices.")
    }

    pub(super) fn device_gone() -> Self {
        let what = "This code is not valid any more: it has expired, or it was used.";
        Self::new(Code::BadRequest, "This code has ended", what, AGAIN)
    }

    pub(super) fn internal(inside: &impl ToString) -> Self {
        let what = "Something went wrong on our side.";
        Self::new(Code::InternalError, "That was our fault", what, TELL).inside(inside)
    }

    /// A link or a sign-in names a provider that the configuration has no more.
    pub(super) fn unknown_provider() -> Self {
        let what = "The identity provider that this sign-in is for is not configured here.";
        Self::new(Code::BadRequest, "This link doesn't work", what, ASK)
    }

    /// The `error` of an authorization response (RFC 6749 section 4.1.2.1), and its description for the number in it only.
    pub(super) fn from_callback(error: &str, description: Option<&str>) -> Self {
        let number = description.and_then(aadsts::number);
        let known = KNOWN_ERRORS.iter().find(|known| **known == error).copied();
        let shown = known.unwrap_or("an error without a known code");
        let detail = number.map_or_else(|| shown.to_owned(), |number| format!("{shown}, AADSTS{number}"));
        let forbidden = |title, what, next| Self::new(Code::SigninRequired, title, what, next);
        let problem = match (number.and_then(aadsts::words), error) {
            (Some(words), _) if words.administrator => {
                forbidden("An administrator has to help", words.what, words.next)
            }
            (Some(words), _) => forbidden("You are not signed in", words.what, words.next),
            (None, "access_denied") => forbidden(
                "You are not signed in",
                "The sign-in was cancelled, or what was asked was declined.",
                "If that was a mistake, sign in once more and agree.",
            ),
            (None, "consent_required" | "interaction_required" | "login_required" | "account_selection_required") => {
                forbidden(
                    "You are not signed in",
                    "The provider needs one more step from you: a consent, a choice or a proof that it is you.",
                    "Sign in once more. If the provider then asks for an administrator, show the page to yours.",
                )
            }
            (None, "temporarily_unavailable" | "server_error") => Self::unavailable(None),
            (None, _) => Self::misconfigured("The provider refused the sign-in because of how this service is set up."),
        };
        problem.inside(&format!("the provider answered {detail}")).detail(detail)
    }

    fn unavailable(retry_after: Option<Duration>) -> Self {
        let what = "The identity provider can't be reached, or has no time for us at the moment.";
        let mut problem = Self::new(Code::ProviderUnavailable, "The provider doesn't answer", what, LATER);
        let wait = retry_after.unwrap_or(Duration::from_secs(30)).as_secs();
        problem.retry_after_secs = Some(u32::try_from(wait).unwrap_or(u32::MAX).max(1));
        problem
    }

    fn misconfigured(what: &str) -> Self {
        Self::new(Code::ProviderMisconfigured, "This service is not set up right", what, TELL)
    }
}

const KNOWN_ERRORS: [&str; 16] = [
    "access_denied",
    "account_selection_required",
    "consent_required",
    "interaction_required",
    "invalid_client",
    "invalid_request",
    "invalid_resource",
    "invalid_scope",
    "invalid_target",
    "login_required",
    "request_not_supported",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unmet_authentication_requirements",
    "unsupported_response_type",
];

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let number = aadsts::number(&error.text);
        let words = number.and_then(aadsts::words);
        let problem = match error.class {
            Class::AppCredential => {
                let what = "The provider refuses the credential of this service: it is wrong or has expired.";
                Self::new(Code::AppCredentialInvalid, "This service is not set up right", what, TELL)
            }
            Class::Config => Self::misconfigured(
                words.map_or("The provider refused the sign-in because of how this service is set up.", |words| {
                    words.what
                }),
            ),
            Class::Backoff | Class::Retry => Self::unavailable(error.retry_after),
            Class::Dead | Class::Interact | Class::User | Class::Assertion => {
                let title = match words {
                    Some(words) if words.administrator => "An administrator has to help",
                    _ => "You are not signed in",
                };
                let fallback = if error.class == Class::User {
                    (
                        "The provider does not let this account in.",
                        "Show this page to the administrator of your organisation.",
                    )
                } else {
                    ("The provider did not complete the sign-in: it took too long, or one more step is needed.", AGAIN)
                };
                let (what, next) = words.map_or(fallback, |words| (words.what, words.next));
                Self::new(Code::SigninRequired, title, what, next)
            }
        };
        problem.inside(&error.text).detail(error.text)
    }
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Token(error) => error.into(),
            SignInError::Identity(_) => {
                let what = "The proof of who signed in did not pass our checks, so nothing was stored.";
                Self::new(Code::BadRequest, "You are not signed in", what, AGAIN).inside(&error)
            }
            SignInError::NoRefreshToken => Self::misconfigured(
                "The provider did not grant lasting access (offline_access), so nothing was stored.",
            )
            .inside(&error),
            SignInError::Tenant(ref tenant) => {
                let what = "Accounts of your organisation are not allowed here, so nothing was stored.";
                let next = "Sign in with an account of the right organisation, or ask whoever runs this service.";
                Self::new(Code::PolicyDenied, "This account can't be used here", what, next)
                    .detail(format!("tenant {tenant}"))
                    .inside(&error)
            }
            SignInError::Discovery(_) => Self::unavailable(None).inside(&error),
        }
    }
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Self {
        let refused = |what: String, next| Self::new(Code::AccountForbidden, "Wrong account", what, next);
        match error {
            PutError::SomebodyElse { ref alias, ref username } => refused(
                format!("You signed in as {username}, but this link is for the account {alias}, which belongs to somebody else. Nothing was stored."),
                "Sign out of the provider or open the link in a private window, then sign in with the right account.",
            )
            .inside(&error),
            PutError::AliasTaken(ref alias) => taken(alias.as_str()).inside(&error),
            PutError::Known { ref alias, ref username } => refused(
                format!("{username} is known here as {alias} already, and this link is for another account. Nothing was stored."),
                "Sign in with the account that the link names, or ask for a link of your own.",
            )
            .inside(&error),
            PutError::Tenant(tenant) => SignInError::Tenant(tenant).into(),
            PutError::NoRefreshToken => SignInError::NoRefreshToken.into(),
            PutError::NoAlias(_) => {
                let what = "Your user name can't serve as the name of an account here, so nothing was stored.";
                let next = "Ask whoever runs this service for a sign-in link of your own.";
                Self::new(Code::BadRequest, "You need a sign-in link", what, next).inside(&error)
            }
            PutError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AliasTaken(ref alias) => taken(alias.as_str()).inside(&error),
            StoreError::Unavailable(_) => {
                let what = "The place where sign-ins are kept can't be used at the moment, so nothing was stored.";
                let mut problem = Self::new(Code::StoreUnavailable, "Not now, sorry", what, LATER).inside(&error);
                problem.retry_after_secs = Some(10);
                problem
            }
            StoreError::Corrupt { .. } | StoreError::Setup { .. } => Self::internal(&error),
        }
    }
}

fn taken(alias: &str) -> Problem {
    let what = format!("The name {alias} is taken by another account. Nothing was stored.");
    Problem::new(Code::AccountForbidden, "This name is taken", what, ASK)
}

/// `2026-03-01 14:05 UTC`.
pub(super) fn for_people(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('T') {
        Some((day, time)) if time.len() >= 5 => format!("{day} {} UTC", &time[..5]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Alias;
    use crate::oauth::{Delivery, Whose};

    fn token(class: Class, text: &str) -> Problem {
        let error = TokenError {
            class,
            whose: Whose::Grant,
            delivery: Delivery::Answered,
            text: text.into(),
            retry_after: None,
            claims: None,
        };
        SignInError::Token(error).into()
    }

    #[test]
    fn what_the_provider_says_in_the_callback() {
        for (error, description, status, code, words) in [
            ("access_denied", None, 403, "signin_required", "cancelled"),
            ("access_denied", Some("AADSTS65004: User declined to consent"), 403, "signin_required", "declined"),
            ("consent_required", Some("AADSTS90094: admin"), 403, "signin_required", "consent of an administrator"),
            ("invalid_grant", Some("AADSTS53003: blocked"), 403, "signin_required", "Conditional Access"),
            ("temporarily_unavailable", None, 503, "provider_unavailable", "can't be reached"),
            ("invalid_scope", None, 502, "provider_misconfigured", "set up"),
            ("<b>odd</b>", Some("call 0900 1234"), 502, "provider_misconfigured", "set up"),
        ] {
            let problem = Problem::from_callback(error, description);
            assert_eq!((problem.code.status().as_u16(), problem.code.name()), (status, code), "{error}");
            assert!(problem.what.contains(words), "{error}: {}", problem.what);
            let all = format!("{problem:?}");
            assert!(!all.contains("0900") && !all.contains("odd") && !all.contains("User declined"), "{all}");
        }
    }

    #[test]
    fn what_the_token_endpoint_says() {
        for (class, text, status, code) in [
            (Class::AppCredential, "AADSTS7000215 invalid_client", 502, "app_credential_invalid"),
            (Class::Config, "AADSTS700016 unauthorized_client", 502, "provider_misconfigured"),
            (Class::Retry, "HTTP 503", 503, "provider_unavailable"),
            (Class::Backoff, "HTTP 429", 503, "provider_unavailable"),
            (Class::Dead, "AADSTS54005 invalid_grant", 403, "signin_required"),
            (Class::Interact, "AADSTS50076", 403, "signin_required"),
            (Class::User, "AADSTS50057", 403, "signin_required"),
        ] {
            let problem = token(class, text);
            assert_eq!((problem.code.status().as_u16(), problem.code.name()), (status, code), "{text}");
            assert_eq!(problem.detail.as_deref(), Some(text));
        }
        let blocked = token(Class::Interact, "AADSTS53003 access_denied");
        assert!(blocked.what.contains("device code flow is blocked by Conditional Access"));
    }

    #[test]
    fn the_wrong_person() {
        let problem: Problem =
            PutError::SomebodyElse { alias: Alias::new("alice").unwrap(), username: "bob@contoso.com".into() }.into();
        assert_eq!((problem.code.status().as_u16(), problem.code.name()), (403, "account_forbidden"));
        assert!(problem.what.contains("bob@contoso.com") && problem.what.contains("alice"));
    }

    #[test]
    fn dates_for_people() {
        assert_eq!(for_people(Timestamp::from_secs(1_635_527_790)), "2021-10-29 17:16 UTC");
    }
}

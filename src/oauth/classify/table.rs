//! The table itself: what an answer of the token endpoint matches, an example of it, and what it means. Data, and nothing else.
//!
//! Read from the top: the first row that fits decides. `docs/token-endpoint.md` is printed from it, and a test walks every row.

use super::super::Class::{self, AppCredential, Assertion, Backoff, Config, Dead, Interact, Retry, User};
use super::super::{Dialect, Whose};

/// A row fits where each condition that it has holds. The last one has none.
#[derive(Debug)]
pub struct Row {
    /// Of one kind of provider only.
    pub dialect: Option<Dialect>,
    /// Of one `grant_type` only.
    pub grant_type: Option<&'static str>,
    /// From, to.
    pub status: Option<(u16, u16)>,
    pub errors: &'static [&'static str],
    pub suberrors: &'static [&'static str],
    /// AADSTS numbers.
    pub codes: &'static [u64],
    /// The answer carries a claims challenge.
    pub claims: bool,
    /// The answer has an `error`, whichever.
    pub any_error: bool,
    pub class: Class,
    pub whose: Whose,
    /// The shortest wait, in seconds.
    pub wait: u64,
    /// An answer that this row decides.
    pub example: Example,
    pub meaning: &'static str,
}

/// An answer of the token endpoint. Empty and 0: not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    pub status: u16,
    pub error: &'static str,
    pub suberror: &'static str,
    pub code: u64,
    pub claims: &'static str,
}

impl Row {
    /// An answer for each number, `suberror` or `error` that the row names.
    pub fn examples(&self) -> Vec<Example> {
        let example = self.example;
        if !self.codes.is_empty() {
            self.codes.iter().map(|code| Example { code: *code, ..example }).collect()
        } else if !self.suberrors.is_empty() {
            self.suberrors.iter().map(|suberror| Example { suberror, ..example }).collect()
        } else if self.errors.is_empty() || self.claims {
            vec![example]
        } else {
            self.errors.iter().map(|error| Example { error, ..example }).collect()
        }
    }
}

/// On-behalf-of (RFC 7523).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The errors under which Entra speaks of a user's grant.
const GRANT: &[&str] = &["invalid_grant", "interaction_required", "consent_required", "login_required"];

const CHALLENGE: &str =
    r#"{"access_token":{"polids":{"essential":true,"values":["d77e91f0-fc60-45e4-97b8-14a1337faa28"]}}}"#;

const ROW: Row = Row {
    dialect: None,
    grant_type: None,
    status: None,
    errors: &[],
    suberrors: &[],
    codes: &[],
    claims: false,
    any_error: false,
    class: Retry,
    whose: Whose::Grant,
    wait: 0,
    example: says(400, "invalid_grant", "", 0),
    meaning: "",
};

const fn says(status: u16, error: &'static str, suberror: &'static str, code: u64) -> Example {
    Example { status, error, suberror, code, claims: "" }
}

pub(super) const TABLE: &[Row] = &[
    // The provider asks for peace, or is not well. It may say anything besides: AADSTS50196 arrives as `invalid_grant`.
    Row {
        status: Some((429, 429)),
        class: Backoff,
        whose: Whose::Provider,
        example: says(429, "", "", 0),
        meaning: "Throttled: everything that we ask of this provider waits, as long as Retry-After says.",
        ..ROW
    },
    Row {
        codes: &[50196],
        class: Backoff,
        wait: 120,
        example: says(400, "invalid_grant", "", 50196),
        meaning: "Loop detected: this one account was asked for too often. It pauses, the others go on; the grant is as good as before.",
        ..ROW
    },
    Row {
        codes: &[90055],
        class: Backoff,
        whose: Whose::Provider,
        example: says(400, "temporarily_unavailable", "", 90055),
        meaning: "Throttled, in words instead of by status.",
        ..ROW
    },
    Row {
        status: Some((500, 599)),
        class: Retry,
        example: says(503, "", "", 0),
        meaning: "The provider, or something in front of it, is down. What else the answer says doesn't count.",
        ..ROW
    },
    Row {
        status: Some((408, 408)),
        class: Retry,
        example: says(408, "", "", 0),
        meaning: "The request took too long.",
        ..ROW
    },
    Row {
        errors: &["temporarily_unavailable", "server_error", "request_timeout"],
        class: Retry,
        example: says(400, "temporarily_unavailable", "", 0),
        meaning: "A failure of the provider that will pass.",
        ..ROW
    },
    Row {
        codes: &[90033, 90006, 90012, 90024, 90090, 50033, 50087, 50000, 40010],
        class: Retry,
        example: says(400, "invalid_grant", "", 90033),
        meaning: "A failure inside the provider that will pass, whatever `error` it is dressed in.",
        ..ROW
    },
    Row {
        errors: &["authorization_pending", "slow_down"],
        class: Retry,
        example: says(400, "authorization_pending", "", 0),
        meaning: "Sign-in by code: the person has not entered it yet; we ask again, slower after `slow_down`.",
        ..ROW
    },
    // Our own registration, where the provider blames the client for what is no credential.
    Row {
        codes: &[50011, 500_112],
        class: Config,
        example: says(400, "invalid_client", "", 500_112),
        meaning: "The redirect address is not registered with the application, or not the one of the sign-in.",
        ..ROW
    },
    // Our own credential.
    Row {
        errors: &["invalid_client"],
        class: AppCredential,
        example: says(401, "invalid_client", "", 7_000_215),
        meaning: "The provider refuses our credential. The next one of the list is tried; no grant is touched.",
        ..ROW
    },
    // Whoever calls us on somebody's behalf. With other grants these numbers say nothing of the kind.
    Row {
        grant_type: Some(JWT_BEARER),
        codes: &[500_133, 50013, 50027],
        class: Assertion,
        example: says(400, "invalid_grant", "", 500_133),
        meaning: "On-behalf-of: the token that the calling application presented has expired, or is not one for us. It has to bring a fresh one.",
        ..ROW
    },
    Row {
        codes: &[7_000_215, 7_000_222, 700_027, 50012, 7_000_218, 700_025, 50048],
        class: AppCredential,
        example: says(400, "invalid_request", "", 7_000_222),
        meaning: "Secret or certificate: wrong, expired, missing, or not wanted. AADSTS70002 counts by its `error` only: it also came with expired grants.",
        ..ROW
    },
    // The user, whatever `suberror` says: `bad_token` was seen with 50034.
    Row {
        codes: &[50034, 50057, 51004, 50020, 16000, 50053],
        class: User,
        example: says(400, "invalid_grant", "", 50057),
        meaning: "The user is unknown, disabled, locked, or of another tenant. An administrator can help; nothing is thrown away.",
        ..ROW
    },
    // `suberror`.
    Row {
        errors: GRANT,
        suberrors: &["bad_token", "token_expired"],
        class: Dead,
        example: says(400, "invalid_grant", "bad_token", 50173),
        meaning: "The provider says in so many words that this refresh token will never work again.",
        ..ROW
    },
    Row {
        errors: GRANT,
        suberrors: &["basic_action", "additional_action", "user_password_expired"],
        class: Interact,
        example: says(400, "interaction_required", "basic_action", 50076),
        meaning: "One more step of the person: a further factor, a device, a new password.",
        ..ROW
    },
    Row {
        errors: GRANT,
        suberrors: &["consent_required"],
        class: Interact,
        example: says(400, "invalid_grant", "consent_required", 65001),
        meaning: "Consent is missing or was withdrawn. The refresh token is still good for what has it.",
        ..ROW
    },
    Row {
        errors: GRANT,
        suberrors: &["message_only", "protection_policy_required", "device_authentication_failed"],
        class: User,
        example: says(400, "invalid_grant", "message_only", 53003),
        meaning: "A policy says no, and a sign-in would only show an explanation.",
        ..ROW
    },
    Row {
        errors: GRANT,
        suberrors: &["client_mismatch"],
        class: Config,
        example: says(400, "invalid_grant", "client_mismatch", 0),
        meaning: "The token belongs to another family of applications.",
        ..ROW
    },
    // A challenge can be met by a sign-in, whatever the number says.
    Row {
        errors: GRANT,
        claims: true,
        class: Interact,
        example: Example { claims: CHALLENGE, ..says(400, "interaction_required", "", 50079) },
        meaning: "A claims challenge: a sign-in that carries these claims meets it, and ours does.",
        ..ROW
    },
    // Numbers.
    Row {
        errors: &["invalid_grant"],
        codes: &[700_082, 70008, 50173, 50089, 50132, 50133, 50085],
        class: Dead,
        example: says(400, "invalid_grant", "", 50173),
        meaning: "The grant has expired by disuse, or was revoked: a changed password, an administrator, a session that ended.",
        ..ROW
    },
    Row {
        errors: &["invalid_grant"],
        codes: &[70043],
        class: Dead,
        example: says(400, "invalid_grant", "", 70043),
        meaning: "The organisation wants a new sign-in every so often, and the time is up.",
        ..ROW
    },
    Row {
        errors: &["invalid_grant"],
        codes: &[700_084],
        class: Dead,
        example: says(400, "invalid_grant", "", 700_084),
        meaning: "Tokens of a single-page application live for 24 hours. Register the redirect address as a web application.",
        ..ROW
    },
    Row {
        codes: &[50076, 50079, 50072, 50074, 50078],
        class: Interact,
        example: says(400, "invalid_grant", "", 50076),
        meaning: "A further factor is asked for, has to be set up, or is too old.",
        ..ROW
    },
    Row {
        codes: &[53000, 53001, 53002, 53003, 53004, 53011, 530_032, 530_034, 50131, 50158, 50097, 50105],
        class: Interact,
        example: says(400, "invalid_grant", "", 53003),
        meaning: "Conditional Access, a device rule, or no assignment to the application. A sign-in says which, and may pass.",
        ..ROW
    },
    Row {
        codes: &[65001, 65004, 90094, 90095, 90008],
        class: Interact,
        example: says(400, "invalid_grant", "", 65001),
        meaning: "Consent is missing, was declined, or needs an administrator. The sign-in asks for it.",
        ..ROW
    },
    Row {
        codes: &[50055, 50144],
        class: Interact,
        example: says(400, "invalid_grant", "", 50055),
        meaning: "The password has expired; the sign-in lets the person change it.",
        ..ROW
    },
    Row {
        codes: &[54005, 501_481, 50147, 700_005, 70018, 70019],
        class: Interact,
        example: says(400, "invalid_grant", "", 54005),
        meaning: "A code of a sign-in that can't be redeemed (again). The sign-in starts over.",
        ..ROW
    },
    Row {
        errors: &["invalid_grant"],
        codes: &[9_002_313],
        class: Interact,
        example: says(400, "invalid_grant", "", 9_002_313),
        meaning: "Entra's word for a refresh token or a code that it can't decode. Under `invalid_request` it is about the request.",
        ..ROW
    },
    // Our registration or our request.
    Row {
        codes: &[700_016, 700_011, 70001, 7_000_112, 7_000_114],
        class: Config,
        example: says(400, "unauthorized_client", "", 700_016),
        meaning: "The application is not known in this tenant, is disabled, or may not do this.",
        ..ROW
    },
    Row {
        codes: &[50001, 500_011, 650_052, 650_057, 70011, 28002, 28003, 700_022],
        class: Config,
        example: says(400, "invalid_resource", "", 500_011),
        meaning: "A scope or its resource is wrong, or there are scopes of several resources.",
        ..ROW
    },
    Row {
        codes: &[900_144, 90014, 9_002_313, 90002, 90023, 50194, 9_001_023, 70003],
        class: Config,
        example: says(400, "invalid_request", "", 90002),
        meaning: "The tenant or the request is not what the provider expects.",
        ..ROW
    },
    // Nothing but `error`.
    Row {
        errors: &[
            "interaction_required",
            "consent_required",
            "login_required",
            "account_selection_required",
            "unmet_authentication_requirements",
        ],
        class: Interact,
        example: says(400, "interaction_required", "", 0),
        meaning: "The provider wants to see the person.",
        ..ROW
    },
    Row {
        errors: &["access_denied", "authorization_declined"],
        class: User,
        example: says(400, "access_denied", "", 0),
        meaning: "The person, or somebody for them, has said no.",
        ..ROW
    },
    Row {
        errors: &["expired_token", "bad_verification_code"],
        class: Interact,
        example: says(400, "expired_token", "", 0),
        meaning: "A code of a sign-in that was not entered in time, or wrongly. The sign-in starts over.",
        ..ROW
    },
    // Entra says more where a token is dead for good; the standard has this one word.
    Row {
        errors: &["invalid_grant"],
        dialect: Some(Dialect::Entra),
        class: Interact,
        example: says(400, "invalid_grant", "", 70000),
        meaning: "Nothing in it says that the token is dead: it is kept, and a sign-in is offered.",
        ..ROW
    },
    Row {
        errors: &["invalid_grant"],
        dialect: Some(Dialect::Oidc),
        class: Dead,
        example: says(400, "invalid_grant", "", 0),
        meaning: "The standard's one word for a refresh token that is invalid, expired or revoked.",
        ..ROW
    },
    Row {
        any_error: true,
        class: Config,
        example: says(400, "unsupported_grant_type", "", 0),
        meaning: "Any other refusal in the protocol's form is about our request.",
        ..ROW
    },
    Row {
        class: Retry,
        example: says(404, "", "", 0),
        meaning: "No answer of the protocol: a page of a proxy, half an answer, noise. Nothing is concluded from it.",
        ..ROW
    },
];

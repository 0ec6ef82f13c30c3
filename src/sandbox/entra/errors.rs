//! The errors of the token endpoint, in Entra's words and shape.

use http::{HeaderValue, Response};
use serde_json::json;

use super::State;
use super::answers;
use crate::sandbox::content::Content;
use crate::sandbox::fault::TokenFault;
use crate::sandbox::random;

/// AADSTS number, status, `error`, `suberror` ("" for none), text.
type Row = (u32, u16, &'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        50173,
        400,
        "invalid_grant",
        "bad_token",
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password.",
    ),
    (
        70008,
        400,
        "invalid_grant",
        "bad_token",
        "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource.",
    ),
    (700_082, 400, "invalid_grant", "bad_token", "The refresh token has expired due to inactivity."),
    (
        700_084,
        400,
        "invalid_grant",
        "bad_token",
        "The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of 1.00:00:00, which can't be extended.",
    ),
    (
        70043,
        400,
        "invalid_grant",
        "bad_token",
        "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access.",
    ),
    (50089, 400, "invalid_grant", "", "Authentication failed due to flow token expired."),
    (50132, 400, "invalid_grant", "", "The session is not valid due to password expiration or recent password change."),
    (50133, 400, "invalid_grant", "", "The session is not valid due to expiration or recent password change."),
    (50085, 400, "invalid_grant", "", "Refresh token needs social IDP login."),
    (
        54005,
        400,
        "invalid_grant",
        "",
        "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.",
    ),
    (
        501_481,
        400,
        "invalid_grant",
        "",
        "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
    ),
    (50147, 400, "invalid_grant", "", "Invalid size of Code_Challenge parameter."),
    (
        700_005,
        400,
        "invalid_grant",
        "",
        "The provided Authorization Code is intended to use against other tenant, thus rejected.",
    ),
    (9_002_313, 400, "invalid_grant", "", "Invalid request. Request is malformed or invalid."),
    (
        50076,
        400,
        "invalid_grant",
        "basic_action",
        "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access the resource.",
    ),
    (
        50079,
        400,
        "interaction_required",
        "basic_action",
        "Due to a configuration change made by your administrator, or because you moved to a new location, you must enroll in multi-factor authentication to access the resource.",
    ),
    (
        50072,
        400,
        "interaction_required",
        "basic_action",
        "The user needs to enroll for second factor authentication (interactive).",
    ),
    (50074, 400, "interaction_required", "basic_action", "Strong Authentication is required."),
    (
        50078,
        400,
        "interaction_required",
        "basic_action",
        "Presented multi-factor authentication has expired due to policies configured by your administrator, you must refresh your multi-factor authentication.",
    ),
    (
        53000,
        400,
        "invalid_grant",
        "additional_action",
        "Device is not in required device state. Conditional Access policy requires a compliant device, and the device is not compliant.",
    ),
    (
        53001,
        400,
        "invalid_grant",
        "additional_action",
        "Device is not in required device state. Conditional Access policy requires a domain joined device.",
    ),
    (
        53003,
        400,
        "invalid_grant",
        "message_only",
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
    ),
    (50131, 400, "invalid_grant", "message_only", "Device is not in required device state."),
    (50158, 400, "interaction_required", "basic_action", "External security challenge was not satisfied."),
    (50097, 400, "interaction_required", "additional_action", "Device authentication is required."),
    (
        50105,
        400,
        "interaction_required",
        "message_only",
        "The signed in user is not assigned to a role for the application.",
    ),
    (
        65001,
        400,
        "invalid_grant",
        "consent_required",
        "The user or administrator has not consented to use the application. Send an interactive authorization request for this user and resource.",
    ),
    (65004, 400, "authorization_declined", "", "User declined to consent to access the app."),
    (
        90094,
        400,
        "consent_required",
        "",
        "An administrator of the tenant has set a policy that prevents you from granting the permissions.",
    ),
    (
        7_000_215,
        401,
        "invalid_client",
        "",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.",
    ),
    (7_000_222, 401, "invalid_client", "", "The provided client secret keys are expired."),
    (700_027, 401, "invalid_client", "", "Client assertion failed signature validation."),
    (
        50012,
        401,
        "invalid_client",
        "",
        "Authentication failed: the client assertion is not within its valid time range, or was used before.",
    ),
    (50048, 401, "invalid_client", "", "Subject must match the issuer claim in the client assertion."),
    (
        7_000_218,
        401,
        "invalid_client",
        "",
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    (
        700_025,
        401,
        "invalid_client",
        "",
        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
    ),
    (
        500_112,
        400,
        "invalid_client",
        "",
        "The reply address does not match the reply address provided when requesting Authorization code.",
    ),
    (700_016, 400, "unauthorized_client", "", "Application with this identifier was not found in the directory."),
    (7_000_112, 400, "unauthorized_client", "", "Application is disabled."),
    (50001, 400, "invalid_resource", "", "The resource is not found in the tenant, or not valid."),
    (500_011, 400, "invalid_resource", "", "The resource principal was not found in the tenant."),
    (
        70011,
        400,
        "invalid_scope",
        "",
        "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid.",
    ),
    (
        28003,
        400,
        "invalid_scope",
        "",
        "Provided value for the input parameter scope can't be empty when requesting an access token using the provided authorization code.",
    ),
    (900_144, 400, "invalid_request", "", "The request body must contain a parameter that is missing."),
    (90023, 400, "invalid_request", "", "Invalid tenant name."),
    (
        90002,
        400,
        "invalid_request",
        "",
        "Tenant not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.",
    ),
    (
        700_022,
        400,
        "invalid_request",
        "",
        "The provided value for the input parameter scope isn't valid because it contains more than one resource.",
    ),
    (9_001_023, 400, "invalid_request", "", "The grant type isn't supported over the /common or /consumers endpoints."),
    (70003, 400, "unsupported_grant_type", "", "The app requested an unsupported grant type."),
    (50034, 400, "invalid_grant", "", "The user account does not exist in the directory."),
    (50057, 400, "invalid_grant", "", "The user account is disabled."),
    (51004, 400, "invalid_grant", "", "The user account does not exist in the directory."),
    (
        50053,
        400,
        "invalid_grant",
        "",
        "The account is locked, you've tried to sign in too many times with an incorrect user ID or password.",
    ),
    (
        50196,
        400,
        "invalid_grant",
        "",
        "The server terminated an operation because it encountered a loop while processing a request.",
    ),
    (90055, 429, "temporarily_unavailable", "", "The request was denied because of excessive request rates."),
    (90033, 503, "temporarily_unavailable", "", "The service is temporarily unavailable. Please retry later."),
    (90012, 504, "server_error", "", "Connection to the server has timed out."),
    (50000, 500, "server_error", "", "There was an error issuing a token or an issue with our sign-in service."),
    (
        70016,
        400,
        "authorization_pending",
        "",
        "OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
    ),
    (
        70018,
        400,
        "bad_verification_code",
        "",
        "Invalid verification code due to User typing in wrong user code for device code flow.",
    ),
    (70019, 400, "expired_token", "", "Verification code expired. Have the user retry the sign-in."),
];

impl TokenFault {
    /// The error with this AADSTS number, as Entra sends it; an unknown number becomes an `invalid_grant`.
    pub fn aadsts(code: u32) -> Self {
        let (_, status, error, suberror, _) =
            ROWS.iter().find(|row| row.0 == code).copied().unwrap_or((code, 400, "invalid_grant", "", ""));
        Self {
            status,
            error: error.to_owned(),
            suberror: (!suberror.is_empty()).then(|| suberror.to_owned()),
            code,
            claims: None,
            retry_after: None,
        }
    }

    /// The usual error with this name, such as `invalid_grant`.
    pub fn named(error: &str) -> Option<Self> {
        if error == "slow_down" {
            return Some(Self { error: error.to_owned(), suberror: None, ..Self::aadsts(70016) });
        }
        ROWS.iter().find(|row| row.2 == error).map(|row| Self::aadsts(row.0))
    }

    #[must_use]
    pub fn with_claims(self, claims: &str) -> Self {
        Self { claims: Some(claims.to_owned()), ..self }
    }
}

/// The error as an answer, in the recorded shape.
pub(super) fn answer(state: &State, fault: &TokenFault) -> Response<Content> {
    let text = ROWS.iter().find(|row| row.0 == fault.code).map_or("The sandbox was told to fail.", |row| row.4);
    let time = state.clock.now().to_string().replace('T', " ");
    let (trace, correlation) = (random::guid(), random::guid());
    let mut body = json!({
        "error": fault.error,
        "error_description": format!(
            "AADSTS{}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}",
            fault.code
        ),
        "error_codes": [fault.code],
        "timestamp": time,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("{}/error?code={}", state.origin, fault.code),
    });
    if let Some(suberror) = &fault.suberror {
        body["suberror"] = json!(suberror);
    }
    if let Some(claims) = &fault.claims {
        body["claims"] = json!(claims);
    }
    let mut response = answers::uncached_json(fault.status, &body);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(format!("1,{},0,,", fault.code)) {
        headers.insert("x-ms-clitelem", value);
    }
    if let Some(Ok(value)) = fault.retry_after.as_deref().map(HeaderValue::try_from) {
        headers.insert(http::header::RETRY_AFTER, value);
    }
    response
}

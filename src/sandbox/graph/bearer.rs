//! Whether a request may be answered, and each way to say 401.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use super::State;
use super::answer::{Answer, Ids};
use crate::clock::Timestamp;
use crate::sandbox::fault::Denial;
use crate::sandbox::tokens::AccessToken;

/// A request whose token will not do.
pub(super) struct Denied {
    denial: Denial,
    /// The alias of the user whose token it is, if it is one of ours.
    pub user: Option<String>,
    revoked_at: Option<Timestamp>,
}

impl Denied {
    pub fn answer(&self, state: &State, ids: &Ids) -> Answer {
        denied(state, ids, &self.denial, self.revoked_at)
    }
}

/// The live token of a request.
pub(super) fn check(state: &State, headers: &HeaderMap) -> Result<Arc<AccessToken>, Denied> {
    let refuse = |denial| Denied { denial, user: None, revoked_at: None };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), rest) = (values.next(), values.next()) else { return Err(refuse(Denial::Missing)) };
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer") && rest.is_none())
        .map(|(_, token)| token)
        .ok_or_else(|| refuse(Denial::Malformed))?;
    let now = state.clock.now();
    state.entra.tokens().check(token, now, &state.audiences).map_err(|(denial, token)| {
        let challenge = token.as_ref().filter(|token| denial == Denial::Revoked && token.challengeable);
        let revoked_at = challenge.and_then(|token| token.revoked_at());
        Denied { denial, user: token.map(|token| token.user.to_string()), revoked_at }
    })
}

/// A 401. `revoked_at` turns a revocation into a claims challenge: the client said that it understands them.
pub(super) fn denied(state: &State, ids: &Ids, denial: &Denial, revoked_at: Option<Timestamp>) -> Answer {
    let realm = format!(
        "Bearer realm=\"\", authorization_uri=\"{}common/oauth2/authorize\", \
         client_id=\"00000003-0000-0000-c000-000000000000\"",
        state.entra.origin()
    );
    let claims = match (denial, revoked_at) {
        (Denial::Claims(claims), _) => Some(claims.clone()),
        (Denial::Revoked, Some(at)) => {
            Some(format!(r#"{{"access_token":{{"nbf":{{"essential":true, "value":"{}"}}}}}}"#, at.secs()))
        }
        _ => None,
    };
    let (challenge, message) = match (&claims, denial) {
        (Some(claims), _) => (
            format!("{realm}, error=\"insufficient_claims\", claims=\"{}\"", STANDARD.encode(claims)),
            "Continuous access evaluation resulted in claims challenge with result: InteractionRequired and code: \
             TokenIssuedBeforeRevocationTimestamp",
        ),
        (None, Denial::Missing) => (realm, "Access token is empty."),
        (None, Denial::Malformed) => (realm, "CompactToken parsing failed with error code: 80049217"),
        (None, Denial::Audience) => (realm, "Access token validation failure. Invalid audience."),
        (None, Denial::Revoked) => (realm, "Access token has been revoked."),
        (None, Denial::Expired | Denial::Claims(_)) => (realm, "Lifetime validation failed, the token is expired."),
    };
    Answer::error(ids, 401, "InvalidAuthenticationToken", message).with("WWW-Authenticate", &challenge)
}

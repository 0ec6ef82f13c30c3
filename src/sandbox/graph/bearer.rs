//! Whether a request may be answered, and each way to say 401, with a challenge where there is something to ask for.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderMap, header};

use super::State;
use super::answer::{Answer, Ids};
use crate::clock::Timestamp;
use crate::sandbox::fault::{ChallengeShape, Denial};
use crate::sandbox::tokens::AccessToken;

/// A request whose token will not do.
pub(super) struct Denied {
    denial: Denial,
    /// The alias of the user whose token it is, if it is one of ours.
    pub user: Option<String>,
    revoked_at: Option<Timestamp>,
}

impl Denied {
    pub fn answer(&self, state: &State, ids: &Ids, shapes: &[ChallengeShape]) -> Answer {
        denied(state, ids, &self.denial, self.revoked_at, shapes)
    }
}

/// The live token of a request for this path.
pub(super) fn check(state: &State, headers: &HeaderMap, path: &str) -> Result<Arc<AccessToken>, Denied> {
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
    let token = state.entra.tokens().check(token, now, &state.audiences).map_err(|(denial, token)| {
        let challenge = token.as_ref().filter(|token| denial == Denial::Revoked && token.challengeable);
        let revoked_at = challenge.and_then(|token| token.revoked_at());
        Denied { denial, user: token.map(|token| token.user.to_string()), revoked_at }
    })?;
    match unmet(state, &token, path) {
        Some(denial) => Err(Denied { denial, user: Some(token.user.to_string()), revoked_at: None }),
        None => Ok(token),
    }
}

/// The challenge of a standing demand that this token does not meet.
pub(super) fn unmet(state: &State, token: &AccessToken, path: &str) -> Option<Denial> {
    state.entra.state().demands.unmet(token, path).map(Denial::Claims)
}

/// A 401. `revoked_at` turns a revocation into a claims challenge: the client said that it understands them.
pub(super) fn denied(
    state: &State,
    ids: &Ids,
    denial: &Denial,
    revoked_at: Option<Timestamp>,
    shapes: &[ChallengeShape],
) -> Answer {
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
    let message = match (&claims, denial) {
        (Some(_), _) => {
            "Continuous access evaluation resulted in claims challenge with result: InteractionRequired and code: \
             TokenIssuedBeforeRevocationTimestamp"
        }
        (None, Denial::Missing) => "Access token is empty.",
        (None, Denial::Malformed) => "CompactToken parsing failed with error code: 80049217",
        (None, Denial::Audience) => "Access token validation failure. Invalid audience.",
        (None, Denial::Revoked) => "Access token has been revoked.",
        (None, Denial::Expired | Denial::Claims(_)) => "Lifetime validation failed, the token is expired.",
    };
    let forbidden = claims.is_some() && shapes.contains(&ChallengeShape::Forbidden);
    let answer = Answer::error(ids, if forbidden { 403 } else { 401 }, "InvalidAuthenticationToken", message);
    match claims {
        Some(claims) => challenge(answer, &realm, &claims, shapes),
        None => answer.with("WWW-Authenticate", &realm),
    }
}

/// The headers of a claims challenge, in the shapes that a client must be able to read.
fn challenge(answer: Answer, realm: &str, claims: &str, shapes: &[ChallengeShape]) -> Answer {
    let has = |shape| shapes.contains(&shape);
    let written = if has(ChallengeShape::RawJson) {
        claims.replace('\\', "\\\\").replace('"', "\\\"")
    } else {
        match (has(ChallengeShape::UrlSafe), has(ChallengeShape::Unpadded)) {
            (false, false) => STANDARD.encode(claims),
            (false, true) => STANDARD_NO_PAD.encode(claims),
            (true, false) => URL_SAFE.encode(claims),
            (true, true) => URL_SAFE_NO_PAD.encode(claims),
        }
    };
    let challenge = format!("{realm}, error=\"insufficient_claims\", claims=\"{written}\"");
    let challenge = if has(ChallengeShape::SeveralChallenges) {
        format!("PoP nonce=\"a, Bearer claims=\\\"no\\\"\", Basic realm=\"x=y\", {challenge}")
    } else {
        challenge
    };
    let answer = if has(ChallengeShape::SeveralHeaders) {
        answer.with("WWW-Authenticate", realm).with("WWW-Authenticate", "PoP nonce=\"eyJub25jZSI6MX0=\"")
    } else {
        answer
    };
    answer.with("WWW-Authenticate", &challenge)
}

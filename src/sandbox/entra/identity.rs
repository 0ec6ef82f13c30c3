//! What Entra v2.0 says about a user: identity tokens, and access tokens whose audience is the application itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{State, jwt};
use crate::sandbox::asked::AskedClaims;
use crate::sandbox::fault::Flaw;
use crate::sandbox::random;
use crate::sandbox::user::{APP, User};

const LIFE: i64 = 3600;

/// A signed identity token for `user`.
pub(super) fn token(state: &State, user: &User, scope: &str, nonce: Option<&str>, flaw: Option<Flaw>) -> String {
    let user = jwt::subject(state, user, flaw);
    let mut claims = common(state, user, LIFE + 300);
    let asked = |name| scope.split(' ').any(|word| word == name);
    if asked("profile") {
        claims["oid"] = json!(user.oid);
        claims["name"] = json!(user.name);
        claims["preferred_username"] = json!(user.mail);
    }
    if asked("email") {
        claims["email"] = json!(user.mail);
    }
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    jwt::signed(state, claims, flaw)
}

/// An access token for the application itself: what a middle tier gets from its callers.
pub(super) fn access_token(
    state: &State,
    user: &User,
    scope: &str,
    minted: &AskedClaims,
    life: i64,
    flaw: Option<Flaw>,
) -> String {
    let user = jwt::subject(state, user, flaw);
    let mut claims = common(state, user, life);
    claims["azp"] = json!(state.options.client_id);
    claims["azpacr"] = json!("1");
    claims["oid"] = json!(user.oid);
    if user.alias == APP {
        claims["sub"] = json!(user.oid);
        claims["idtyp"] = json!("app");
        claims["roles"] = json!(["access_as_application"]);
    } else {
        let permission = |word| str::rsplit_once(word, '/').map_or(word, |(_, permission)| permission);
        claims["scp"] = json!(scope.split(' ').map(permission).collect::<Vec<_>>().join(" "));
        claims["name"] = json!(user.name);
        claims["preferred_username"] = json!(user.mail);
    }
    if minted.cp1() {
        claims["xms_cc"] = json!(["cp1"]);
    }
    if !minted.contexts().is_empty() {
        claims["acrs"] = json!(minted.contexts());
    }
    jwt::signed(state, claims, flaw)
}

/// The `client_info` of a token answer.
pub(super) fn client_info(state: &State, user: &User) -> String {
    jwt::encode(&json!({ "uid": user.oid, "utid": state.options.tenant }))
}

fn common(state: &State, user: &User, life: i64) -> Value {
    let now = state.clock.now().secs();
    json!({
        "aud": state.options.client_id,
        "iss": state.issuer(&state.options.tenant),
        "iat": now,
        "nbf": now,
        "exp": now + life,
        "sub": pairwise(&state.options.client_id, &user.oid),
        "tid": state.options.tenant,
        "uti": random::text(22),
        "ver": "2.0",
    })
}

/// The subject differs per application and never changes.
fn pairwise(client: &str, oid: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{client}/{oid}")))
}

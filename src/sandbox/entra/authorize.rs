//! The authorize page: who signs in is a click, a `login_hint` with `prompt=none`, or `bearerd_user=ALIAS` for scripts.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use serde::Serialize;
use url::Url;

use super::form::Form;
use super::scope::Scope;
use super::{State, answers, errors, grants, pages};
use crate::clock::Timestamp;
use crate::sandbox::asked::AskedClaims;
use crate::sandbox::content::Content;
use crate::sandbox::fault::{Effect, Place, TokenFault};
use crate::sandbox::user::User;
use crate::sandbox::wire::Reply;
use crate::sandbox::{locked, random};

/// A visit of the authorize page, as it was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorizeRequest {
    pub at: Timestamp,
    pub tenant: String,
    pub parameters: Vec<(String, String)>,
}

/// An authorization code and what it was issued for.
pub(super) struct Code {
    pub user: Arc<str>,
    pub tenant: String,
    pub redirect_uri: String,
    pub challenge: Option<Challenge>,
    pub nonce: Option<String>,
    pub scope: Scope,
    pub claims: AskedClaims,
    pub expires_at: Timestamp,
    pub used: bool,
}

/// What the code verifier has to match (RFC 7636).
pub(super) struct Challenge {
    pub value: String,
    pub s256: bool,
}

const CODE_LIFE: Duration = Duration::from_mins(10);
const CODE_LENGTH: usize = 700;

/// GET shows the page, or skips it; POST is a click on it.
pub(super) async fn answer(state: &State, tenant: &str, query: &str, body: &[u8], click: bool) -> Reply {
    let form = Form::parse(query.as_bytes());
    let clicked = if click { Form::parse(body) } else { Form::default() };
    if !click {
        state.authorizations.push(AuthorizeRequest {
            at: state.clock.now(),
            tenant: tenant.to_owned(),
            parameters: form.clone().into_pairs(),
        });
    }
    let effects = state.faults.take(None, true, |place| *place == Place::Authorize);
    effects.wait().await;
    let response = match &effects.end {
        Some(Effect::Http { status, headers, body }) => answers::any(*status, headers, body),
        Some(Effect::Error(fault)) => match Back::of(&form) {
            Some(back) => back.error(&fault.error, &format!("AADSTS{}: told to fail", fault.code)),
            None => errors::answer(state, fault),
        },
        _ => visit(state, tenant, &form, &clicked),
    };
    effects.finish(&state.clock, response).await
}

pub(super) fn logout(query: &str) -> Response<Content> {
    let form = Form::parse(query.as_bytes());
    match form.value("post_logout_redirect_uri").and_then(|uri| Url::parse(uri).ok()) {
        Some(mut uri) => {
            if let Some(state) = form.value("state") {
                uri.query_pairs_mut().append_pair("state", state);
            }
            answers::redirect(uri.as_str())
        }
        None => answers::page(200, pages::message("You signed out", "You signed out of your simulated account.")),
    }
}

fn visit(state: &State, tenant: &str, form: &Form, clicked: &Form) -> Response<Content> {
    let refuse = |code: u32, text: &str| {
        let text = format!("AADSTS{code}: {text}");
        answers::page(400, pages::message("Sorry, but we're having trouble signing you in", &text))
    };
    if form.value("client_id") != Some(&state.options.client_id) {
        return refuse(700_016, "Application was not found in the directory.");
    }
    let Some(back) = Back::of(form) else {
        return refuse(50011, "The redirect URI specified in the request is missing or no absolute URL.");
    };
    if form.value("response_type") != Some("code") {
        return back.error("unsupported_response_type", "AADSTS700054: the sandbox answers response_type 'code' only.");
    }
    let challenge = match (form.value("code_challenge"), form.value("code_challenge_method")) {
        (None, _) => None,
        (Some(value), Some("S256")) => Some(Challenge { value: value.to_owned(), s256: true }),
        (Some(value), Some("plain") | None) => Some(Challenge { value: value.to_owned(), s256: false }),
        (Some(_), Some(_)) => return back.error("invalid_request", "AADSTS50149: Invalid code_challenge_method."),
    };
    // Consent may cover several resources; the code is for the first of them, the others follow by refresh.
    let scope = match form.value("scope").map(|text| Scope::parse(text, true)) {
        Some(Ok(scope)) => scope,
        Some(Err(fault)) => return back.error(&fault.error, &format!("AADSTS{}: invalid scope.", fault.code)),
        None => return back.error("invalid_request", "AADSTS900144: The request must contain the parameter 'scope'."),
    };
    if clicked.value("deny").is_some() {
        return back.error("access_denied", "AADSTS65004: User declined to consent to access the app.");
    }
    let hinted = form.value("login_hint").and_then(|hint| state.meant(hint));
    let chosen = clicked.value("user").or(form.value("bearerd_user"));
    let user = match (chosen.map(|name| state.meant(name)), form.value("prompt"), hinted) {
        (Some(Some(user)), _, _) | (None, Some("none"), Some(user)) => user,
        (Some(None), _, _) => return refuse(50034, "The user account does not exist in the directory."),
        (None, Some("none"), None) => {
            return back.error("login_required", "AADSTS50058: Silent sign-in was sent but no user is signed in.");
        }
        (None, _, _) => {
            let scope_text = form.value("scope").unwrap_or_default();
            let page = pages::sign_in(state.users.iter(), hinted, &state.options.client_id, scope_text);
            return answers::page(200, page);
        }
    };
    back.code(state, tenant, user, form, scope, challenge)
}

/// The way back to the application.
struct Back {
    uri: Url,
    /// As it was written: the token request has to repeat it.
    written: String,
    state: Option<String>,
    post: bool,
}

impl Back {
    fn of(form: &Form) -> Option<Self> {
        let written = form.value("redirect_uri")?.to_owned();
        let uri = Url::parse(&written).ok().filter(|uri| !uri.cannot_be_a_base() && uri.fragment().is_none())?;
        let post = form.value("response_mode") == Some("form_post");
        Some(Self { uri, written, state: form.value("state").map(str::to_owned), post })
    }

    fn code(
        &self,
        state: &State,
        tenant: &str,
        user: &User,
        form: &Form,
        scope: Scope,
        challenge: Option<Challenge>,
    ) -> Response<Content> {
        let text = format!("1.{}", random::text(CODE_LENGTH));
        let now = state.clock.now();
        let code = Code {
            user: user.alias.as_str().into(),
            tenant: tenant.to_owned(),
            redirect_uri: self.written.clone(),
            challenge,
            nonce: form.value("nonce").map(str::to_owned),
            scope,
            claims: form.value("claims").and_then(AskedClaims::parse).unwrap_or_default(),
            expires_at: now.plus(CODE_LIFE),
            used: false,
        };
        let mut codes = locked(&state.codes);
        codes.retain(|_, code| code.expires_at.plus(CODE_LIFE) > now);
        codes.insert(text.clone(), code);
        self.go(vec![("code", text), ("session_state", random::guid())])
    }

    fn error(&self, error: &str, description: &str) -> Response<Content> {
        self.go(vec![("error", error.to_owned()), ("error_description", description.to_owned())])
    }

    fn go(&self, mut fields: Vec<(&str, String)>) -> Response<Content> {
        fields.extend(self.state.clone().map(|state| ("state", state)));
        if self.post {
            return answers::page(200, pages::form_post(self.uri.as_str(), &fields));
        }
        let mut uri = self.uri.clone();
        uri.query_pairs_mut().extend_pairs(fields.iter().map(|(name, value)| (name, value.as_str())));
        answers::redirect(uri.as_str())
    }
}

/// Takes a code out of circulation. The error is Entra's.
pub(super) fn redeem(
    state: &State,
    text: &str,
    tenant: &str,
    redirect_uri: &str,
    verifier: Option<&str>,
) -> Result<Redeemed, TokenFault> {
    let mut codes = locked(&state.codes);
    let code = codes.get_mut(text).ok_or_else(grants::undecodable)?;
    if code.used {
        return Err(TokenFault::aadsts(54005));
    }
    if code.expires_at <= state.clock.now() {
        return Err(TokenFault::aadsts(70008));
    }
    if !code.tenant.eq_ignore_ascii_case(tenant) {
        return Err(TokenFault::aadsts(700_005));
    }
    if code.redirect_uri != redirect_uri {
        return Err(TokenFault::aadsts(500_112));
    }
    let proven = match (&code.challenge, verifier) {
        (None, None) => true,
        (Some(challenge), Some(verifier)) => challenge.accepts(verifier),
        _ => false,
    };
    if !proven {
        return Err(TokenFault::aadsts(501_481));
    }
    code.used = true;
    Ok(Redeemed {
        user: Arc::clone(&code.user),
        nonce: code.nonce.clone(),
        scope: code.scope.clone(),
        claims: code.claims.clone(),
    })
}

/// What a code was good for.
pub(super) struct Redeemed {
    pub user: Arc<str>,
    pub nonce: Option<String>,
    pub scope: Scope,
    pub claims: AskedClaims,
}

impl Challenge {
    fn accepts(&self, verifier: &str) -> bool {
        use base64::Engine as _;
        use sha2::{Digest, Sha256};
        if !(43..=128).contains(&verifier.len()) {
            return false;
        }
        if self.s256 {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == self.value
        } else {
            verifier == self.value
        }
    }
}

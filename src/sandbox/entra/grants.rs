//! The grants of the token endpoint: what each wants, and whom its tokens are for.

use std::sync::Arc;

use super::client::{self, ClientAuth};
use super::form::Form;
use super::scope::Scope;
use super::{State, authorize, device, token};
use crate::sandbox::asked::AskedClaims;
use crate::sandbox::fault::TokenFault;
use crate::sandbox::tokens::Refusal;
use crate::sandbox::user::APP;

/// Tokens about to be issued.
pub(super) struct Issue {
    /// The alias.
    pub user: Arc<str>,
    pub scope: Scope,
    pub nonce: Option<String>,
    /// What the access token is minted with.
    pub claims: AskedClaims,
    pub refresh_token: Option<Arc<str>>,
    pub interactive: bool,
}

/// A request whose client has proved itself.
pub(super) struct Request<'a> {
    pub tenant: &'a str,
    pub form: &'a Form,
    pub client_auth: ClientAuth,
    /// No new refresh token, whatever is due.
    pub keep_refresh_token: bool,
}

pub(super) const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

pub(super) fn issue(state: &State, request: &Request<'_>) -> Result<Issue, TokenFault> {
    let claims = match request.form.value("claims") {
        Some(text) => AskedClaims::parse(text).ok_or_else(|| TokenFault::aadsts(9_002_313))?,
        None => AskedClaims::default(),
    };
    match request.form.value("grant_type") {
        None => Err(missing()),
        Some("authorization_code") => code(state, request, claims),
        Some("refresh_token") => refresh(state, request, claims),
        Some("urn:ietf:params:oauth:grant-type:device_code" | "device_code") => device_code(state, request, claims),
        Some("client_credentials") => client_credentials(request, claims),
        Some(ON_BEHALF_OF) => on_behalf_of(state, request, claims),
        Some(_) => Err(TokenFault::aadsts(70003)),
    }
}

fn code(state: &State, request: &Request<'_>, claims: AskedClaims) -> Result<Issue, TokenFault> {
    let form = request.form;
    let code = form.value("code").ok_or_else(missing)?;
    let redirect_uri = form.value("redirect_uri").ok_or_else(missing)?;
    let redeemed = authorize::redeem(state, code, request.tenant, redirect_uri, form.value("code_verifier"))?;
    let shown = redeemed.claims.contexts();
    let claims = redeemed.claims.and(claims);
    satisfied(&shown, &claims)?;
    let refresh_token = (redeemed.scope.offline && !request.keep_refresh_token)
        .then(|| state.tokens.issue_refresh(&redeemed.user, &redeemed.scope.granted, shown, state.clock.now()));
    let (user, scope, nonce) = (redeemed.user, redeemed.scope, redeemed.nonce);
    Ok(Issue { user, scope, nonce, claims, refresh_token, interactive: true })
}

fn refresh(state: &State, request: &Request<'_>, claims: AskedClaims) -> Result<Issue, TokenFault> {
    let now = state.clock.now();
    let text = request.form.value("refresh_token").ok_or_else(missing)?;
    let token = state.tokens.owner(text).ok_or_else(undecodable)?;
    let asked = request.form.value("scope").map_or_else(|| format!("{} offline_access", token.scope), str::to_owned);
    if state.options.loop_limit.is_some_and(|limit| state.tokens.loops(text, &asked, limit, now)) {
        return Err(TokenFault::aadsts(50196));
    }
    let scope = Scope::parse(&asked, true)?;
    satisfied(&token.contexts, &claims)?;
    let replace = scope.offline && !request.keep_refresh_token;
    let refresh_token = state.tokens.redeem(text, replace, state.policy(), now).map_err(refusal)?;
    Ok(Issue { user: token.user, scope, nonce: None, claims, refresh_token, interactive: false })
}

fn device_code(state: &State, request: &Request<'_>, claims: AskedClaims) -> Result<Issue, TokenFault> {
    let code = request.form.value("device_code").ok_or_else(missing)?;
    let (user, scope) = device::poll(state, code, request.tenant)?;
    // Somebody was there, and did what the claims ask for.
    let refresh_token = (scope.offline && !request.keep_refresh_token)
        .then(|| state.tokens.issue_refresh(&user, &scope.granted, claims.contexts(), state.clock.now()));
    Ok(Issue { user, scope, nonce: None, claims, refresh_token, interactive: true })
}

fn client_credentials(request: &Request<'_>, claims: AskedClaims) -> Result<Issue, TokenFault> {
    own_name(request)?;
    let mut words = request.form.value("scope").ok_or_else(missing)?.split_ascii_whitespace();
    let scope = match (words.next(), words.next()) {
        (Some(one), None) if one.ends_with("/.default") => Scope::parse(one, false)?,
        _ => return Err(TokenFault::aadsts(1_002_012)),
    };
    satisfied(&[], &claims)?;
    Ok(Issue { user: APP.into(), scope, nonce: None, claims, refresh_token: None, interactive: false })
}

fn on_behalf_of(state: &State, request: &Request<'_>, claims: AskedClaims) -> Result<Issue, TokenFault> {
    own_name(request)?;
    if request.form.value("requested_token_use") != Some("on_behalf_of") {
        return Err(missing());
    }
    let assertion = request.form.value("assertion").ok_or_else(missing)?;
    let scope = Scope::parse(request.form.value("scope").ok_or_else(missing)?, false)?;
    let token = state.tokens.access_token(assertion).ok_or_else(|| TokenFault::aadsts(50013))?;
    if *token.audience != *state.options.client_id || token.revoked() {
        return Err(TokenFault::aadsts(50013));
    }
    if token.expires_at <= state.clock.now() {
        return Err(TokenFault::aadsts(500_133));
    }
    if *token.user == *APP {
        return Err(TokenFault::aadsts(7_000_114));
    }
    let contexts = token.claims.contexts();
    satisfied(&contexts, &claims)?;
    let refresh_token = (scope.offline && !request.keep_refresh_token)
        .then(|| state.tokens.issue_refresh(&token.user, &scope.granted, contexts, state.clock.now()));
    Ok(Issue { user: Arc::clone(&token.user), scope, nonce: None, claims, refresh_token, interactive: false })
}

/// The application acts in its own name: it needs a credential, and a tenant that is one.
fn own_name(request: &Request<'_>) -> Result<(), TokenFault> {
    if ["common", "organizations", "consumers"].iter().any(|shared| shared.eq_ignore_ascii_case(request.tenant)) {
        return Err(TokenFault::aadsts(9_001_023));
    }
    if request.client_auth == ClientAuth::Public {
        return Err(TokenFault::aadsts(client::NO_CREDENTIAL));
    }
    Ok(())
}

/// A sign-in that showed these authentication contexts may have a token with these claims.
fn satisfied(contexts: &[String], claims: &AskedClaims) -> Result<(), TokenFault> {
    let lacking: Vec<_> = claims.essential_contexts().into_iter().filter(|asked| !contexts.contains(asked)).collect();
    match lacking.first() {
        None => Ok(()),
        Some(context) => Err(TokenFault { error: "interaction_required".to_owned(), ..TokenFault::aadsts(50076) }
            .with_claims(&token::step_up(context))),
    }
}

/// What Entra says about a refresh token or a code that it never made.
pub(super) fn undecodable() -> TokenFault {
    TokenFault { error: "invalid_grant".to_owned(), ..TokenFault::aadsts(9_002_313) }
}

fn missing() -> TokenFault {
    TokenFault::aadsts(900_144)
}

fn refusal(refusal: Refusal) -> TokenFault {
    TokenFault::aadsts(match refusal {
        Refusal::Unknown => return undecodable(),
        Refusal::Revoked => 50173,
        Refusal::Reused => 70008,
        Refusal::Expired => 700_082,
    })
}

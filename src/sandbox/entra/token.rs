//! The token endpoint: codes, refresh tokens and devices become tokens. Every request is on record before it is answered.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{self, ClientAuth};
use super::form::Form;
use super::scope::Scope;
use super::{Grant, State, answers, authorize, device, errors, identity};
use crate::clock::Timestamp;
use crate::sandbox::content::Content;
use crate::sandbox::fault::{Effect, Effects, Place, TokenFault};
use crate::sandbox::tokens::{AccessGrant, AccessToken, Refusal};
use crate::sandbox::wire::Reply;

/// A request to the token endpoint and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct TokenRequest {
    pub at: Timestamp,
    pub tenant: String,
    pub grant_type: String,
    /// The alias, as far as the request says whose it is.
    pub user: Option<String>,
    pub refresh_token_id: Option<u64>,
    /// How often this refresh token was presented, with this time.
    pub presented_count: u32,
    pub scope: Option<String>,
    pub claims: Option<String>,
    pub client_auth: Option<ClientAuth>,
    /// An `Origin` or a `Cookie` header came along: neither belongs here.
    pub browser_headers: bool,
    /// `200`, `400 invalid_grant 50173`, `dropped after`, ..
    pub outcome: String,
}

/// Tokens about to be issued.
struct Issue {
    user: Arc<str>,
    scope: Scope,
    nonce: Option<String>,
    claims: Option<String>,
    refresh_token: Option<Arc<str>>,
}

pub(super) async fn answer(state: &State, tenant: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
    let form = Form::parse(body);
    let presented = form.value("refresh_token");
    let known = presented.and_then(|text| state.tokens.owner(text));
    let mut record = TokenRequest {
        at: state.clock.now(),
        tenant: tenant.to_owned(),
        grant_type: form.value("grant_type").unwrap_or_default().to_owned(),
        user: known.as_ref().map(|token| token.user.to_string()).or_else(|| whose_code(state, &form)),
        refresh_token_id: known.as_ref().map(|token| token.id),
        presented_count: presented.map_or(0, |text| state.tokens.presented(text)),
        scope: form.value("scope").map(str::to_owned),
        claims: form.value("claims").map(str::to_owned),
        client_auth: None,
        browser_headers: headers.contains_key(http::header::ORIGIN) || headers.contains_key(http::header::COOKIE),
        outcome: String::new(),
    };
    let effects = state.faults.take(record.user.as_deref(), true, |place| *place == Place::Token);
    if !state.options.delay.is_zero() {
        tokio::time::sleep(state.options.delay).await;
    }
    effects.wait().await;
    let response = match &effects.end {
        Some(Effect::DropBefore) => {
            "dropped before".clone_into(&mut record.outcome);
            state.requests.push(record);
            return Reply::Close;
        }
        Some(Effect::Http { status, headers, body }) => {
            record.outcome = status.to_string();
            answers::any(*status, headers, body)
        }
        Some(Effect::Error(fault)) => refused(state, fault, &mut record),
        _ => match exchange(state, tenant, headers, &form, &effects, &mut record) {
            Ok(body) => {
                "200".clone_into(&mut record.outcome);
                answers::uncached_json(200, &body)
            }
            Err(fault) => refused(state, &fault, &mut record),
        },
    };
    if let Some(broken) = effects.broken() {
        record.outcome = broken.to_owned();
    }
    state.requests.push(record);
    effects.finish(response).await
}

/// Signs a user in without a browser. `None`: no such user.
pub(super) fn grant(state: &State, user: &str, scope: &str) -> Option<Grant> {
    let user = state.user(user)?;
    let scope = Scope::parse(scope, true).ok()?;
    let alias: Arc<str> = user.alias.as_str().into();
    let now = state.clock.now();
    let refresh_token = state.tokens.issue_refresh(&alias, &scope.granted, now);
    let access_token = issue_access(state, &alias, &scope, false, state.options.token_life);
    Some(Grant {
        user: user.alias.clone(),
        tenant: state.options.tenant.clone(),
        oid: user.oid.clone(),
        refresh_token: refresh_token.to_string(),
        access_token: access_token.text.to_string(),
        scope: scope.granted.to_string(),
        expires_in: state.options.token_life,
        expires_at: access_token.expires_at,
    })
}

fn refused(state: &State, fault: &TokenFault, record: &mut TokenRequest) -> http::Response<Content> {
    record.outcome = format!("{} {} {}", fault.status, fault.error, fault.code);
    errors::answer(state, fault)
}

fn exchange(
    state: &State,
    tenant: &str,
    headers: &HeaderMap,
    form: &Form,
    effects: &Effects,
    record: &mut TokenRequest,
) -> Result<Value, TokenFault> {
    let missing = || TokenFault::aadsts(900_144);
    record.client_auth = Some(client::check(state, headers, form)?);
    let keep_refresh_token = effects.colours.iter().any(|effect| matches!(effect, Effect::NoRefreshToken));
    let now = state.clock.now();
    let issue = match record.grant_type.as_str() {
        "" => return Err(missing()),
        "authorization_code" => {
            let code = form.value("code").ok_or_else(missing)?;
            let redirect_uri = form.value("redirect_uri").ok_or_else(missing)?;
            let redeemed = authorize::redeem(state, code, tenant, redirect_uri, form.value("code_verifier"))?;
            let refresh_token = (redeemed.scope.offline && !keep_refresh_token)
                .then(|| state.tokens.issue_refresh(&redeemed.user, &redeemed.scope.granted, now));
            let claims = record.claims.clone().or(redeemed.claims);
            Issue { user: redeemed.user, scope: redeemed.scope, nonce: redeemed.nonce, claims, refresh_token }
        }
        "refresh_token" => {
            let text = form.value("refresh_token").ok_or_else(missing)?;
            let token = state.tokens.owner(text).ok_or_else(|| TokenFault::aadsts(9_002_313))?;
            let asked = form.value("scope").map_or_else(|| format!("{} offline_access", token.scope), str::to_owned);
            let scope = Scope::parse(&asked, true)?;
            let refresh_token = state
                .tokens
                .redeem(text, scope.offline && !keep_refresh_token, state.policy(), now)
                .map_err(refusal)?;
            let claims = record.claims.clone();
            Issue { user: token.user, scope, nonce: None, claims, refresh_token }
        }
        "urn:ietf:params:oauth:grant-type:device_code" | "device_code" => {
            let code = form.value("device_code").ok_or_else(missing)?;
            let (user, scope) = device::poll(state, code, tenant)?;
            let refresh_token =
                (scope.offline && !keep_refresh_token).then(|| state.tokens.issue_refresh(&user, &scope.granted, now));
            Issue { user, scope, nonce: None, claims: record.claims.clone(), refresh_token }
        }
        _ => return Err(TokenFault::aadsts(70003)),
    };
    record.user = Some(issue.user.to_string());
    Ok(success(state, form, &issue, effects))
}

/// The body of a success, coloured by the faults of this request.
fn success(state: &State, form: &Form, issue: &Issue, effects: &Effects) -> Value {
    let find = |pick: fn(&Effect) -> Option<u64>| effects.colours.iter().find_map(pick);
    let life = find(|effect| if let Effect::ExpiresIn(secs) = effect { Some(*secs) } else { None })
        .map_or(state.options.token_life, Duration::from_secs);
    let challengeable = issue.claims.as_deref().is_some_and(understands_challenges);
    let access_token = issue_access(state, &issue.user, &issue.scope, challengeable, life);
    let as_text = effects.colours.iter().any(|effect| matches!(effect, Effect::ExpiresInString));
    let expires_in = if as_text { json!(life.as_secs().to_string()) } else { json!(life.as_secs()) };
    let mut body = json!({
        "token_type": "Bearer",
        "scope": &*issue.scope.granted,
        "expires_in": expires_in,
        "ext_expires_in": expires_in,
        "access_token": &*access_token.text,
    });
    if let Some(secs) = find(|effect| if let Effect::RefreshIn(secs) = effect { Some(*secs) } else { None }) {
        body["refresh_in"] = json!(secs);
    }
    if let Some(refresh_token) = &issue.refresh_token {
        body["refresh_token"] = json!(&**refresh_token);
    }
    let Some(user) = state.user(&issue.user) else { return body };
    if issue.scope.openid {
        let flaw = effects.colours.iter().find_map(|effect| match effect {
            Effect::IdToken(flaw) => Some(*flaw),
            _ => None,
        });
        body["id_token"] = json!(identity::token(state, user, &issue.scope.granted, issue.nonce.as_deref(), flaw));
    }
    if form.value("client_info") == Some("1") {
        body["client_info"] = json!(identity::client_info(state, user));
    }
    body
}

fn issue_access(
    state: &State,
    user: &Arc<str>,
    scope: &Scope,
    challengeable: bool,
    life: Duration,
) -> Arc<AccessToken> {
    let grant = AccessGrant {
        user: Arc::clone(user),
        scope: Arc::clone(&scope.granted),
        audience: Arc::clone(&scope.audience),
        life,
        challengeable,
    };
    state.tokens.issue_access(grant, state.clock.now())
}

fn refusal(refusal: Refusal) -> TokenFault {
    TokenFault::aadsts(match refusal {
        Refusal::Unknown => 9_002_313,
        Refusal::Revoked => 50173,
        Refusal::Reused => 70008,
        Refusal::Expired => 700_082,
    })
}

/// `claims` has `access_token.xms_cc.values` with `cp1`.
fn understands_challenges(claims: &str) -> bool {
    let Ok(claims) = serde_json::from_str::<Value>(claims) else { return false };
    let values = claims["access_token"]["xms_cc"]["values"].as_array();
    values.is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|one| one.eq_ignore_ascii_case("cp1"))))
}

fn whose_code(state: &State, form: &Form) -> Option<String> {
    let codes = crate::sandbox::locked(&state.codes);
    codes.get(form.value("code")?).map(|code| code.user.to_string())
}

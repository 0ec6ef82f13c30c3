//! The token endpoint: what a grant brings becomes an answer. Every request is on record before it is answered.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{self, ClientAuth};
use super::form::Form;
use super::grants::{self, Issue};
use super::scope::Scope;
use super::{Grant, State, answers, errors, identity};
use crate::clock::Timestamp;
use crate::sandbox::asked::AskedClaims;
use crate::sandbox::content::Content;
use crate::sandbox::fault::{Effect, Effects, Flaw, Place, TokenFault};
use crate::sandbox::tokens::{AccessGrant, AccessToken};
use crate::sandbox::user::{APP, User};
use crate::sandbox::wire::Reply;

/// A request to the token endpoint and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct TokenRequest {
    pub at: Timestamp,
    pub tenant: String,
    pub grant_type: String,
    /// The alias, as far as the request says whose it is; `app` for the application itself.
    pub user: Option<String>,
    pub refresh_token_id: Option<u64>,
    /// How often this refresh token was presented, with this time.
    pub presented_count: u32,
    pub scope: Option<String>,
    pub claims: Option<String>,
    /// The credential that was presented, accepted or not; `None`: no client that is known.
    pub client_auth: Option<ClientAuth>,
    /// Header and claims of a client assertion, without its signature.
    pub client_assertion: Option<Value>,
    /// An `Origin` or a `Cookie` header came along: neither belongs here.
    pub browser_headers: bool,
    /// `200`, `400 invalid_grant 50173`, `dropped after`, ..
    pub outcome: String,
}

pub(super) async fn answer(state: &State, tenant: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
    let form = Form::parse(body);
    let presented = form.value("refresh_token");
    let known = presented.and_then(|text| state.tokens.owner(text));
    let mut record = TokenRequest {
        at: state.clock.now(),
        tenant: tenant.to_owned(),
        grant_type: form.value("grant_type").unwrap_or_default().to_owned(),
        user: whose(state, &form),
        refresh_token_id: known.as_ref().map(|token| token.id),
        presented_count: presented.map_or(0, |text| state.tokens.presented(text)),
        scope: form.value("scope").map(str::to_owned),
        claims: form.value("claims").map(str::to_owned),
        client_auth: None,
        client_assertion: form.value("client_assertion").and_then(client::shown),
        browser_headers: headers.contains_key(http::header::ORIGIN) || headers.contains_key(http::header::COOKIE),
        outcome: String::new(),
    };
    let effects = state.faults.take(record.user.as_deref(), true, |place| *place == Place::Token);
    if !state.options.delay.is_zero() {
        tokio::time::sleep(state.options.delay).await;
    }
    effects.wait().await;
    if let Some(reply) = effects.refused() {
        "dropped before".clone_into(&mut record.outcome);
        state.requests.push(record);
        return reply;
    }
    let response = match &effects.end {
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
    effects.finish(&state.clock, response).await
}

/// Signs a user in without a browser. `None`: no such user.
pub(super) fn grant(state: &State, user: &str, scope: &str) -> Option<Grant> {
    let user = state.user(user)?;
    let scope = Scope::parse(scope, true).ok()?;
    let alias: Arc<str> = user.alias.as_str().into();
    let now = state.clock.now();
    let refresh_token = state.tokens.issue_refresh(&alias, &scope.granted, Vec::new(), now);
    let life = state.options.token_life;
    let minting = Minting { claims: AskedClaims::default(), interactive: true, life, flaw: None };
    let access_token = issue_access(state, user, &scope, minting);
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
    let (client_auth, verdict) = client::check(state, headers, form);
    record.client_auth = client_auth;
    let request = grants::Request {
        tenant,
        form,
        client_auth: verdict?,
        keep_refresh_token: effects.colours.iter().any(|effect| matches!(effect, Effect::NoRefreshToken)),
    };
    let issue = grants::issue(state, &request)?;
    record.user = Some(issue.user.to_string());
    let user = state.principal(&issue.user).ok_or_else(|| TokenFault::aadsts(50034))?;
    Ok(success(state, form, user, &issue, effects))
}

/// The body of a success, coloured by the faults of this request.
fn success(state: &State, form: &Form, user: &User, issue: &Issue, effects: &Effects) -> Value {
    let mut life = state.options.token_life;
    let (mut flaw, mut refresh_in, mut as_text, mut timeless) = (None, None, false, false);
    for effect in &effects.colours {
        match effect {
            Effect::ExpiresIn(secs) => life = Duration::from_secs(*secs),
            Effect::RefreshIn(secs) => refresh_in = Some(*secs),
            Effect::ExpiresInString => as_text = true,
            Effect::NoExpiresIn => timeless = true,
            Effect::IdToken(one) => flaw = Some(*one),
            Effect::SignWith(key) => state.keys.sign_with(*key),
            _ => {}
        }
    }
    let minting = Minting { claims: issue.claims.clone(), interactive: issue.interactive, life, flaw: None };
    let access_token = issue_access(state, user, &issue.scope, minting);
    let expires_in = if as_text { json!(life.as_secs().to_string()) } else { json!(life.as_secs()) };
    let mut body = json!({ "token_type": "Bearer", "access_token": &*access_token.text });
    if !timeless {
        body["expires_in"] = expires_in.clone();
        body["ext_expires_in"] = expires_in;
    }
    if let Some(secs) = refresh_in {
        body["refresh_in"] = json!(secs);
    }
    if user.alias == APP {
        return body;
    }
    body["scope"] = json!(&*issue.scope.granted);
    if let Some(refresh_token) = &issue.refresh_token {
        body["refresh_token"] = json!(&**refresh_token);
    }
    if issue.scope.openid {
        body["id_token"] = json!(identity::token(state, user, &issue.scope.granted, issue.nonce.as_deref(), flaw));
    }
    if form.value("client_info") == Some("1") {
        body["client_info"] = json!(identity::client_info(state, user));
    }
    body
}

/// How an access token is made.
pub(super) struct Minting {
    pub claims: AskedClaims,
    pub interactive: bool,
    pub life: Duration,
    /// Of a token for the application itself.
    pub flaw: Option<Flaw>,
}

pub(super) fn issue_access(state: &State, user: &User, scope: &Scope, minting: Minting) -> Arc<AccessToken> {
    let Minting { claims, interactive, life, flaw } = minting;
    let own = state.is_own(&scope.audience);
    let jwt = own.then(|| {
        let secs = i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 2);
        identity::access_token(state, user, &scope.granted, &claims, secs, flaw)
    });
    let grant = AccessGrant {
        user: user.alias.as_str().into(),
        scope: Arc::clone(&scope.granted),
        audience: if own { state.options.client_id.as_str().into() } else { Arc::clone(&scope.audience) },
        life,
        claims,
        jwt,
        interactive,
        demand_claims: state.options.demand_claims,
    };
    state.tokens.issue_access(grant, state.clock.now())
}

/// The claims that ask for this authentication context.
pub(super) fn step_up(context: &str) -> String {
    json!({ "access_token": { "acrs": { "essential": true, "value": context } } }).to_string()
}

/// The alias, as far as the request says whose it is.
fn whose(state: &State, form: &Form) -> Option<String> {
    match form.value("grant_type")? {
        "client_credentials" => Some(APP.to_owned()),
        grants::ON_BEHALF_OF => Some(state.tokens.access_token(form.value("assertion")?)?.user.to_string()),
        "refresh_token" => Some(state.tokens.owner(form.value("refresh_token")?)?.user.to_string()),
        _ => whose_code(state, form),
    }
}

fn whose_code(state: &State, form: &Form) -> Option<String> {
    let codes = crate::sandbox::locked(&state.codes);
    codes.get(form.value("code")?).map(|code| code.user.to_string())
}

//! Managed identities: the metadata service of a virtual machine (IMDS) and the endpoint of App Service, both on Entra's port.
//!
//! Numbers are strings, as there. Nobody signs in here: who can reach the endpoint is the machine.

use http::HeaderMap;
use http::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::form::Form;
use super::scope::Scope;
use super::token::{self, Minting};
use super::{State, answers, federation};
use crate::clock::Timestamp;
use crate::sandbox::asked::AskedClaims;
use crate::sandbox::content::Content;
use crate::sandbox::fault::{Effect, Place};
use crate::sandbox::user::APP;
use crate::sandbox::wire::Reply;

/// The identity of the machine: the ids of a user-assigned one, and what a request without a selector gets too.
pub const CLIENT_ID: &str = "3b1d7c52-90c4-4f0e-8a57-5d1f6a2e7c11";
pub const OBJECT_ID: &str = "c8f1a0d4-6b7e-4d35-9f20-11a2b3c4d5e6";
pub const RESOURCE_ID: &str = "/subscriptions/11111111-1111-4111-8111-111111111111/resourcegroups/sandbox/providers/Microsoft.ManagedIdentity/userAssignedIdentities/bearerd";
/// What `X-IDENTITY-HEADER` has to say.
pub const IDENTITY_HEADER: &str = "sandbox-identity-header";

/// Which of the two endpoints has this path.
pub(super) fn source(path: &str) -> Option<IdentitySource> {
    match path {
        "/metadata/identity/oauth2/token" => Some(IdentitySource::Imds),
        "/msi/token" => Some(IdentitySource::AppService),
        _ => None,
    }
}

/// A request to one of the two endpoints, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct IdentityRequest {
    pub at: Timestamp,
    pub source: IdentitySource,
    pub resource: Option<String>,
    /// The value of whichever selector there was.
    pub selector: Option<String>,
    /// `200`, `400 bad_request_102`, `dropped before`, ..
    pub outcome: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum IdentitySource {
    Imds,
    AppService,
}

/// Why there is no token: a status, a word and a sentence.
type Refused = (u16, &'static str, &'static str);

pub(super) async fn answer(state: &State, source: IdentitySource, headers: &HeaderMap, query: &str) -> Reply {
    let form = Form::parse(query.as_bytes());
    let mut record = IdentityRequest {
        at: state.clock.now(),
        source,
        resource: form.value("resource").map(str::to_owned),
        selector: selector(source, &form).map(str::to_owned),
        outcome: String::new(),
    };
    let effects = state.faults.take(Some(APP), true, |place| *place == Place::Identity);
    effects.wait().await;
    if let Some(reply) = effects.refused() {
        "dropped before".clone_into(&mut record.outcome);
        state.identity_requests.push(record);
        return reply;
    }
    let mut life = state.options.token_life.as_secs();
    for effect in &effects.colours {
        if let Effect::ExpiresIn(secs) = effect {
            life = *secs;
        }
    }
    let response = match &effects.end {
        Some(Effect::Http { status, headers, body }) => {
            record.outcome = status.to_string();
            answers::any(*status, headers, body)
        }
        Some(Effect::GraphError { status, code, message, headers }) => {
            record.outcome = format!("{status} {code}");
            let mut response = refused(source, *status, code, message);
            answers::add(&mut response, headers);
            response
        }
        _ => match issue(state, source, headers, &form, life) {
            Ok(body) => {
                "200".clone_into(&mut record.outcome);
                answers::json(200, &body)
            }
            Err((status, error, text)) => {
                record.outcome = format!("{status} {error}");
                refused(source, status, error, text)
            }
        },
    };
    if let Some(broken) = effects.broken() {
        record.outcome = broken.to_owned();
    }
    state.identity_requests.push(record);
    effects.finish(&state.clock, response).await
}

fn issue(state: &State, source: IdentitySource, headers: &HeaderMap, form: &Form, life: u64) -> Result<Value, Refused> {
    let says = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let version = match source {
        IdentitySource::Imds => {
            if says("metadata") != Some("true") {
                return Err((400, "bad_request_102", "Required metadata header not specified"));
            }
            "2018-02-01"
        }
        IdentitySource::AppService => {
            if says("x-identity-header") != Some(IDENTITY_HEADER) {
                return Err((401, "Unauthorized", "X-IDENTITY-HEADER is missing or wrong"));
            }
            "2019-08-01"
        }
    };
    if form.value("api-version") != Some(version) {
        return Err((400, "invalid_request", "The api-version is missing or not supported"));
    }
    let Some(resource) = form.value("resource") else {
        return Err((400, "invalid_request", "Required query variable 'resource' is missing"));
    };
    if resource.ends_with("/.default") {
        return Err((400, "invalid_resource", "AADSTS500011: The resource principal was not found in the tenant."));
    }
    let known = |id: &str| [CLIENT_ID, OBJECT_ID, RESOURCE_ID].iter().any(|known| known.eq_ignore_ascii_case(id));
    if selector(source, form).is_some_and(|id| !known(id)) {
        return Err((400, "invalid_request", "Identity not found"));
    }
    let now = state.clock.now().secs();
    let secs = i64::try_from(life).unwrap_or(i64::MAX / 2);
    let access_token = if resource == federation::EXCHANGE_AUDIENCE {
        federation::identity_token(state, secs)
    } else {
        let Ok(scope) = Scope::parse(&format!("{}/.default", resource.trim_end_matches('/')), false) else {
            return Err((400, "invalid_resource", "The resource is not valid"));
        };
        let life = std::time::Duration::from_secs(life);
        let minting = Minting { claims: AskedClaims::default(), interactive: false, life, flaw: None };
        token::issue_access(state, &state.app, &scope, minting).text.to_string()
    };
    let mut body = json!({
        "access_token": access_token,
        "expires_on": (now + secs).to_string(),
        "not_before": (now - 300).to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": CLIENT_ID,
    });
    if source == IdentitySource::Imds {
        body["refresh_token"] = json!("");
        body["expires_in"] = json!(life.to_string());
        body["ext_expires_in"] = json!(life.to_string());
    }
    Ok(body)
}

fn selector(source: IdentitySource, form: &Form) -> Option<&str> {
    let names: &[&str] = match source {
        IdentitySource::Imds => &["client_id", "object_id", "msi_res_id"],
        IdentitySource::AppService => &["client_id", "object_id", "principal_id", "mi_res_id"],
    };
    names.iter().find_map(|name| form.value(name))
}

fn refused(source: IdentitySource, status: u16, error: &str, text: &str) -> Response<Content> {
    let body = match source {
        IdentitySource::Imds => json!({ "error": error, "error_description": text }),
        IdentitySource::AppService => json!({ "statusCode": status, "message": text }),
    };
    answers::json(status, &body)
}

//! What everybody may read: the discovery document and the keys.

use std::sync::atomic::Ordering;

use http::{HeaderValue, Response, header};
use serde_json::json;

use super::{CLOUD_INSTANCE, CONSUMER_TENANT, State, answers, errors};
use crate::sandbox::content::Content;
use crate::sandbox::fault::{Effect, Effects, Place};
use crate::sandbox::wire::Reply;

pub(super) async fn document(state: &State, tenant: &str) -> Reply {
    state.discovery_fetches.fetch_add(1, Ordering::Relaxed);
    // Asked by domain, Entra answers in terms of the tenant's id; the shared tenants stay as they are.
    let (place, issuer) = match tenant {
        "common" | "organizations" => (tenant, state.issuer("{tenantid}")),
        _ => (state.options.tenant.as_str(), state.issuer(&state.options.tenant)),
    };
    let base = format!("{}/{place}", state.origin);
    let mut response = answers::json(
        200,
        &json!({
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": issuer,
            "request_uri_parameter_supported": false,
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
            "claims_supported": ["sub", "iss", "cloud_instance_name", "aud", "exp", "iat", "auth_time", "acr", "nonce",
                "preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email"],
            "tenant_region_scope": "EU",
            "cloud_instance_name": CLOUD_INSTANCE,
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        }),
    );
    let keep = HeaderValue::from_static("max-age=86400, private");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    let effects = state.faults.take(None, true, |place| *place == Place::Discovery);
    spoil(state, &effects, response).await
}

pub(super) async fn keys(state: &State, tenant: &str) -> Reply {
    state.jwks_fetches.fetch_add(1, Ordering::Relaxed);
    let consumers = state.issuer(CONSUMER_TENANT);
    let issuer = match tenant {
        "common" | "organizations" => state.issuer("{tenantid}"),
        _ => state.issuer(&state.options.tenant),
    };
    let effects = state.faults.take(None, true, |place| *place == Place::Keys);
    let only = effects.colours.iter().find_map(|effect| match effect {
        Effect::OnlyKeys(names) => Some(names.as_slice()),
        _ => None,
    });
    let response = answers::json(200, &state.keys.jwks(only, &issuer, &consumers));
    spoil(state, &effects, response).await
}

/// An answer that no user stands behind, with the faults of its place.
async fn spoil(state: &State, effects: &Effects, response: Response<Content>) -> Reply {
    effects.wait().await;
    let response = match &effects.end {
        Some(Effect::Http { status, headers, body }) => answers::any(*status, headers, body),
        Some(Effect::Error(fault)) => errors::answer(state, fault),
        _ => response,
    };
    effects.finish(&state.clock, response).await
}

//! The way back from the provider: `/.bearerd/callback/{provider}`.
//!
//! Invariant: whoever comes back is the browser that left, to the provider that it left for, once. Only then is anything done
//! with what the address says; before that nothing is taken, stored or told.

use bytes::Bytes;
use http::Request;
use subtle::ConstantTimeEq;

use super::complete::complete;
use super::offer::start_url;
use super::problem::Problem;
use super::request::{Cookie, Params};
use super::ticket::{self, Pending};
use super::{Answer, Inner};
use crate::secret::Secret;

pub(super) async fn answer(inner: &Inner, provider: &str, request: &Request<Bytes>) -> Answer {
    let params = Params::parse(request.uri().query().unwrap_or_default().as_bytes())?;
    let state = params.get("state").ok_or_else(Problem::stray_callback)?;
    let browser = Cookie::Browser.read(request.headers(), inner.site.secure);
    let now = inner.clock.now();
    let seen: Option<Pending> = ticket::read(&inner.store, state, now).await?;
    if !seen.is_some_and(|pending| belongs(&pending, provider, browser.as_deref())) {
        return Err(Problem::stray_callback());
    }
    let pending: Pending = ticket::take(&inner.store, state, now).await?.ok_or_else(Problem::stray_callback)?;
    let again = start_url(&pending.purpose, provider);
    finish(inner, pending, &params).await.map_err(|problem| inner.failed(problem.again(again)))
}

/// The state is this browser's, and this path is the provider's that it was made for (RFC 9700 section 4.4).
fn belongs(pending: &Pending, provider: &str, browser: Option<&str>) -> bool {
    let is_browser = browser.is_some_and(|id| id.as_bytes().ct_eq(pending.browser.expose().as_bytes()).into());
    is_browser && pending.provider == provider
}

async fn finish(inner: &Inner, pending: Pending, params: &Params) -> Answer {
    if let Some(error) = params.get("error") {
        return Err(Problem::from_callback(error, params.get("error_description")));
    }
    let code: Secret<String> = params.get("code").ok_or_else(Problem::stray_callback)?.into();
    let provider = inner.providers.get(&pending.provider).ok_or_else(Problem::unknown_provider)?;
    let Pending { purpose, redirect_uri, nonce, verifier, .. } = pending;
    let signed_in =
        provider.redeem_code(&code, &redirect_uri, &verifier, &nonce, &purpose.scopes, params.get("iss")).await?;
    let session = complete(inner, &purpose, signed_in).await?;
    let secure = inner.site.secure;
    // Away from the address that holds the code, so that neither the history nor a reload meets it again.
    inner.site.see_other("/.bearerd/done", vec![Cookie::Browser.clear(secure), session])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::signin::ticket::Purpose;

    #[test]
    fn only_the_browser_that_left_and_only_where_it_left_for() {
        let browser = ticket::random_id();
        let pending = Pending {
            browser: browser.clone().into(),
            provider: "entra".into(),
            purpose: Purpose {
                alias: None,
                account: None,
                scopes: vec![],
                invite: None,
                created_by: None,
                return_path: None,
            },
            redirect_uri: String::new(),
            nonce: "".into(),
            verifier: "".into(),
            expires: Timestamp::default(),
        };
        assert!(belongs(&pending, "entra", Some(&browser)));
        assert!(!belongs(&pending, "other", Some(&browser)), "mix-up");
        assert!(!belongs(&pending, "entra", Some(&ticket::random_id())), "another browser");
        assert!(!belongs(&pending, "entra", None), "no cookie");
        assert!(!belongs(&pending, "entra", Some("")), "an empty cookie");
    }
}

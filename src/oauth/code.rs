//! The authorization code grant with PKCE (S256), state and nonce: the way out to the provider's page, and back.
//!
//! A code is presented once. After a time-out it may be used up, so the sign-in starts over.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::authority::Metadata;
use super::exchange::{SIGN_IN_LIMIT, not_sent};
use super::http::{Deadline, Form, random};
use super::id_token::Wanted;
use super::{Authorize, AuthorizeOptions, Class, Dialect, Inner, SignInError, SignedIn, reply, scope};
use crate::secret::Secret;

impl Inner {
    pub(super) async fn authorize(&self, options: &AuthorizeOptions) -> Result<Authorize, SignInError> {
        let endpoint = self.authority.authorization_endpoint(&self.http).await.map_err(SignInError::Discovery)?;
        let [state, nonce, verifier] = [unguessable(), unguessable(), unguessable()];
        let mut url = endpoint;
        url.set_fragment(None);
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("response_type", "code")
            .append_pair("response_mode", "query")
            .append_pair("redirect_uri", &options.redirect_uri)
            .append_pair("scope", &scope(&options.scopes))
            .append_pair("state", state.expose())
            .append_pair("nonce", nonce.expose())
            .append_pair("code_challenge", &challenge(&verifier))
            .append_pair("code_challenge_method", "S256");
        let optional = [
            ("prompt", self.prompt(options.prompt.as_deref())),
            ("login_hint", options.login_hint.clone()),
            ("claims", self.claims(options.claims.as_ref()).map(|claims| claims.to_string())),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        Ok(Authorize { url, state, nonce, verifier })
    }

    pub(super) async fn redeem_code(
        &self,
        code: &Secret<String>,
        redirect_uri: &str,
        verifier: &Secret<String>,
        nonce: &Secret<String>,
        scopes: &[String],
        issuer: Option<&str>,
    ) -> Result<SignedIn, SignInError> {
        // Before the code is used up: without them the identity token could not be checked.
        let metadata = self.documents().await.map_err(SignInError::Discovery)?;
        if !vouched(&metadata, issuer) {
            return Err(not_sent(Class::Config, "the answer came from another issuer".to_owned()).into());
        }
        let mut deadline = Deadline::new(SIGN_IN_LIMIT);
        let target = self.target(&mut deadline).await?;
        let form = Form::default()
            .plain("grant_type", "authorization_code")
            .plain("redirect_uri", redirect_uri)
            .plain("scope", scope(scopes))
            .claims(self.claims(None).as_ref())
            .secret("code", code)
            .secret("code_verifier", verifier);
        let body = self.exchange(form, &target, &mut deadline).await?;
        self.signed_in(body, Some(nonce)).await
    }

    /// The person and the tokens that a reply brings.
    pub(super) async fn signed_in(
        &self,
        body: Map<String, Value>,
        nonce: Option<&Secret<String>>,
    ) -> Result<SignedIn, SignInError> {
        let (reply, id_token) = reply::read(body, self.clock.now())?;
        let id_token = id_token.ok_or_else(|| SignInError::Identity("there is none".to_owned()))?;
        let wanted = Wanted {
            nonce: nonce.map(|nonce| nonce.expose().as_str()),
            access_token: Some(reply.access_token.expose()),
        };
        let identity = self.identify(id_token.expose(), wanted).await?;
        if reply.refresh_token.is_none() {
            return Err(SignInError::NoRefreshToken);
        }
        Ok(SignedIn { identity, reply })
    }

    /// Generic providers grant `offline_access` only where consent is asked for (OpenID Connect Core 1.0, section 11), and many refuse
    /// `select_account`, which is optional there.
    fn prompt(&self, wanted: Option<&str>) -> Option<String> {
        if self.authority.dialect == Dialect::Entra {
            return wanted.map(str::to_owned);
        }
        let mut words: Vec<&str> = wanted.unwrap_or_default().split_ascii_whitespace().collect();
        words.retain(|word| *word != "select_account");
        if !words.contains(&"none") && !words.contains(&"consent") {
            words.push("consent");
        }
        Some(words.join(" "))
    }
}

/// RFC 9207: a provider that names itself in the callback must be the one that was asked.
fn vouched(metadata: &Metadata, issuer: Option<&str>) -> bool {
    match (issuer, metadata.issuer.split_once("{tenantid}")) {
        (None, _) => !metadata.names_itself,
        (Some(issuer), None) => issuer == metadata.issuer,
        (Some(issuer), Some((before, after))) => {
            let tenant = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            tenant.is_some_and(|tenant| !tenant.is_empty() && !tenant.contains('/'))
        }
    }
}

fn unguessable() -> Secret<String> {
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(random::<32>()))
}

fn challenge(verifier: &Secret<String>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_of_the_standard() {
        let verifier = Secret::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn secrets_of_a_sign_in_are_long_and_differ() {
        let (a, b) = (unguessable(), unguessable());
        assert_eq!(a.expose().len(), 43);
        assert_ne!(a.expose(), b.expose());
    }
}

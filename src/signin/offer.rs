//! What a sign-in asks for: which provider, for which account, with which scopes, and why. The same for a browser and for a
//! device code, and the same on the page that names it and on the request that starts it.

use std::collections::BTreeMap;

use super::applications::Application;
use super::problem::Problem;
use super::request::Params;
use super::ticket::Purpose;
use super::{Inner, aadsts, invite, return_path};
use crate::account::Alias;
use crate::clock::Timestamp;
use crate::config;
use crate::oauth::{AuthorizeOptions, Provider};
use crate::store::{Grant, Reason, Status, StoreError};

/// What the upstreams behind one provider need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProviderScopes {
    /// Asked for in the browser: consent may cover several resources.
    pub consent: Vec<String>,
    /// What the code is redeemed for: a token is for one resource. The others follow by refresh.
    pub redeem: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Offer {
    pub provider_id: String,
    pub provider: Provider,
    pub purpose: Purpose,
    pub options: AuthorizeOptions,
    pub applications: Vec<Application>,
    /// As known from the last sign-in.
    pub username: Option<String>,
    pub reason: Option<Reason>,
    /// Only a part of the account waits; the rest of it goes on.
    pub partly: bool,
    /// When the link expires.
    pub expires: Option<Timestamp>,
}

/// What a sign-in at `provider` gets its first token for.
pub fn redeem_scopes(upstreams: &BTreeMap<String, config::Upstream>, provider: &str) -> Vec<String> {
    scopes_by_provider(upstreams).remove(provider).unwrap_or_default().redeem
}

pub(super) fn scopes_by_provider(upstreams: &BTreeMap<String, config::Upstream>) -> BTreeMap<String, ProviderScopes> {
    let mut all: BTreeMap<String, ProviderScopes> = BTreeMap::new();
    for upstream in upstreams.values() {
        let scopes = all.entry(upstream.provider.clone()).or_default();
        if scopes.redeem.is_empty() {
            scopes.redeem.clone_from(&upstream.scopes);
        }
        for scope in &upstream.scopes {
            if !scopes.consent.contains(scope) {
                scopes.consent.push(scope.clone());
            }
        }
    }
    all
}

impl Inner {
    /// By link where there is one; without, in mode `open` only.
    pub(super) async fn offer(&self, params: &Params) -> Result<Offer, Problem> {
        let return_path = match params.get("return") {
            None => None,
            Some(text) => Some(return_path::check(text).ok_or_else(Problem::return_path)?.to_owned()),
        };
        match params.get("invite") {
            Some(id) => {
                let link = invite::open(&self.store, &self.clock, id).await?;
                let purpose = Purpose {
                    alias: link.alias.as_ref().map(ToString::to_string),
                    account: link.account.clone(),
                    scopes: Vec::new(),
                    invite: Some(id.into()),
                    created_by: Some(link.created_by.clone()),
                    return_path,
                };
                self.assemble(purpose, &link.provider, link.alias.as_ref(), Some(&link)).await
            }
            None if self.mode == config::SigninMode::Open => {
                let purpose = Purpose {
                    alias: None,
                    account: None,
                    scopes: Vec::new(),
                    invite: None,
                    created_by: None,
                    return_path,
                };
                let id =
                    params.get("provider").or_else(|| self.only_provider()).ok_or_else(Problem::unknown_provider)?;
                self.assemble(purpose, id, None, None).await
            }
            None => Err(Problem::needs_link()),
        }
    }

    /// The id of the provider where there is but one.
    pub(super) fn only_provider(&self) -> Option<&str> {
        let mut ids = self.providers.keys();
        ids.next().filter(|_| self.providers.len() == 1).map(String::as_str)
    }

    async fn assemble(
        &self,
        mut purpose: Purpose,
        id: &str,
        alias: Option<&Alias>,
        link: Option<&invite::Invite>,
    ) -> Result<Offer, Problem> {
        let provider = self.providers.get(id).ok_or_else(Problem::unknown_provider)?.clone();
        let scopes = match link.and_then(|link| link.scopes.clone()) {
            Some(scopes) => ProviderScopes { consent: scopes.clone(), redeem: scopes },
            None => self.scopes.get(id).cloned().unwrap_or_default(),
        };
        purpose.scopes = scopes.redeem;
        let (grant, applications) = match alias {
            Some(alias) => (self.known(alias).await?, self.applications.acting_for(alias)),
            None => (None, self.applications.acting_for_someone()),
        };
        let username = grant.as_ref().and_then(|grant| grant.username.clone());
        let reason = grant.as_ref().and_then(|grant| grant.reason().cloned());
        let partly = grant.as_ref().is_some_and(|grant| grant.status == Status::Active);
        let waiting = grant.as_ref().and_then(Grant::challenge);
        let options = AuthorizeOptions {
            redirect_uri: self.site.redirect_uri(id),
            scopes: scopes.consent,
            login_hint: username.clone(),
            prompt: prompt(reason.as_ref(), username.as_deref()).map(str::to_owned),
            claims: waiting.or_else(|| link.and_then(|link| link.claims.clone())),
        };
        let expires = link.map(|link| link.expires);
        Ok(Offer {
            provider_id: id.to_owned(),
            provider,
            purpose,
            options,
            applications,
            username,
            reason,
            partly,
            expires,
        })
    }

    /// A record that can't be opened does not keep anyone from signing in anew.
    async fn known(&self, alias: &Alias) -> Result<Option<Grant>, StoreError> {
        match self.store.find(alias.as_str()).await {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            found => found,
        }
    }
}

/// Where we don't know the person yet, the provider lets them choose: a browser may be signed in as somebody else.
fn prompt(reason: Option<&Reason>, login_hint: Option<&str>) -> Option<&'static str> {
    match (reason, login_hint) {
        (Some(reason), _) if aadsts::asks_for_consent(&reason.text) => Some("consent"),
        (_, None) => Some("select_account"),
        (_, Some(_)) => None,
    }
}

/// Where a page that says no offers a further attempt.
pub(super) fn start_url(purpose: &Purpose, provider: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    match &purpose.invite {
        Some(invite) => query.append_pair("invite", invite.expose()),
        None => query.append_pair("provider", provider),
    };
    if let Some(path) = &purpose.return_path {
        query.append_pair("return", path);
    }
    format!("/.bearerd/login?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn upstream(name: &str, provider: &str, scopes: &[&str]) -> (String, config::Upstream) {
        let upstream = config::Upstream {
            name: name.into(),
            kind: config::UpstreamKind::Graph,
            url: "https://graph.microsoft.com".parse().unwrap(),
            provider: provider.into(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            app_scopes: Vec::new(),
            rewrite_links: true,
            ca_pem: None,
            http: config::HttpVersion::Auto,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            throttling: config::Throttling::default(),
        };
        (name.into(), upstream)
    }

    #[test]
    fn consent_covers_all_upstreams_and_the_code_one() {
        let upstreams = BTreeMap::from([
            upstream("graph", "entra", &["User.Read", "Mail.Read"]),
            upstream("zebra", "entra", &["api://zebra/Read", "User.Read"]),
            upstream("other", "keycloak", &["x"]),
        ]);
        let scopes = scopes_by_provider(&upstreams);
        assert_eq!(scopes["entra"].consent, ["User.Read", "Mail.Read", "api://zebra/Read"]);
        assert_eq!(scopes["entra"].redeem, ["User.Read", "Mail.Read"]);
        assert_eq!(scopes["keycloak"].redeem, ["x"]);
    }

    #[test]
    fn whom_the_provider_asks_what() {
        let reason = |text: &str| Reason { dead: false, text: text.into(), claims: None, since: Timestamp::default() };
        assert_eq!(prompt(None, None), Some("select_account"));
        assert_eq!(prompt(None, Some("alice@contoso.com")), None);
        assert_eq!(prompt(Some(&reason("AADSTS50173")), Some("alice@contoso.com")), None);
        assert_eq!(prompt(Some(&reason("AADSTS65001")), Some("alice@contoso.com")), Some("consent"));
    }

    #[test]
    fn a_further_attempt_starts_where_the_first_did() {
        let purpose = |invite: Option<&str>| Purpose {
            alias: None,
            account: None,
            scopes: vec![],
            invite: invite.map(Into::into),
            created_by: None,
            return_path: Some("/a?b=c".into()),
        };
        assert_eq!(start_url(&purpose(Some("abc")), "entra"), "/.bearerd/login?invite=abc&return=%2Fa%3Fb%3Dc");
        assert_eq!(start_url(&purpose(None), "entra"), "/.bearerd/login?provider=entra&return=%2Fa%3Fb%3Dc");
    }
}

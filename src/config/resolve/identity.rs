//! Whether the providers can do what the clients' `identity` asks of them. Which client uses which provider is known for certain only
//! where none of them can: then it is a mistake.

use std::collections::BTreeMap;

use crate::config::{Identity, Provider, ProviderKind, Upstream, is_several_tenants};

/// What the providers behind the upstreams can do.
pub struct Able<'a> {
    used: Vec<&'a Provider>,
}

impl<'a> Able<'a> {
    pub fn new(providers: &'a BTreeMap<String, Provider>, upstreams: &BTreeMap<String, Upstream>) -> Self {
        let is_used = |provider: &&Provider| upstreams.values().any(|upstream| upstream.provider == provider.id);
        Self { used: providers.values().filter(is_used).collect() }
    }

    /// Why no provider can serve such a client.
    pub fn refusal(&self, identity: Identity) -> Option<String> {
        let mut reasons = self.used.iter().map(|provider| (provider, unable(provider, identity)));
        let (provider, first) = reasons.next()?;
        let first = first?;
        reasons.all(|(_, reason)| reason.is_some()).then(|| format!("{first} (providers.{})", provider.id))
    }
}

fn unable(provider: &Provider, identity: Identity) -> Option<&'static str> {
    let several_tenants = matches!(&provider.kind, ProviderKind::Entra { tenant, .. } if is_several_tenants(tenant));
    let for_users = matches!(identity, Identity::User | Identity::OnBehalfOf);
    let in_our_name = matches!(identity, Identity::App | Identity::OnBehalfOf);
    if for_users && provider.client_id.is_empty() {
        return Some("a managed identity without client_id is no user's: it serves identity = \"app\" only");
    }
    if in_our_name && provider.credentials.is_empty() {
        return Some("needs a credential of our own, and the provider has none");
    }
    (in_our_name && several_tenants)
        .then_some("needs a tenant of its own: a GUID or a domain, not common or organizations")
}

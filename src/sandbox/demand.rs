//! Standing demands: under these paths Graph wants tokens that were minted with these claims, until the demand is cleared.
//!
//! What Conditional Access does with an authentication context. A demand is about the token, never about who asks how often.

use std::sync::RwLock;

use super::asked::AskedClaims;
use super::tokens::AccessToken;
use super::{read, written};

#[derive(Default)]
pub(super) struct Demands(RwLock<Vec<Demand>>);

struct Demand {
    /// The alias; `None`: everybody.
    user: Option<String>,
    /// Of the path, with its version.
    prefix: String,
    /// As it was written: what the challenge says.
    text: String,
    claims: AskedClaims,
}

impl Demands {
    /// False: the text is no JSON object.
    pub fn push(&self, user: Option<&str>, prefix: &str, text: &str) -> bool {
        let Some(claims) = AskedClaims::parse(text) else { return false };
        written(&self.0).push(Demand {
            user: user.map(str::to_owned),
            prefix: prefix.to_owned(),
            text: text.to_owned(),
            claims,
        });
        true
    }

    pub fn clear(&self) {
        written(&self.0).clear();
    }

    /// The claims that this token lacks for this path.
    pub fn unmet(&self, token: &AccessToken, path: &str) -> Option<String> {
        let demands = read(&self.0);
        let unmet = demands.iter().find(|demand| {
            demand.user.as_deref().is_none_or(|user| user == &*token.user)
                && path.starts_with(&demand.prefix)
                && !token.claims.meets(&demand.claims)
        })?;
        Some(unmet.text.clone())
    }
}

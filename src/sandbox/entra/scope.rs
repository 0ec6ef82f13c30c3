//! What a `scope` parameter asks for: at most one resource, and the words of OpenID Connect.

use std::sync::Arc;

use crate::sandbox::fault::TokenFault;

/// Who the token is for when no scope names a resource.
const GRAPH: &str = "https://graph.microsoft.com";
/// What `.default` brings, and what a sign-in without a browser asks for.
pub const DEFAULT: &str =
    "openid profile offline_access User.Read User.Read.All Mail.ReadWrite Mail.Send Files.ReadWrite";
const OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// A scope that was understood.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// As the answer says it: everything but `offline_access`.
    pub granted: Arc<str>,
    pub audience: Arc<str>,
    pub openid: bool,
    pub offline: bool,
}

impl Scope {
    /// `first_wins`: where several resources are named, as in consent and in a refresh, the token is for the first, instead of an error.
    pub fn parse(text: &str, first_wins: bool) -> Result<Self, TokenFault> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let mut audience = None;
        let mut granted = Vec::new();
        let mut default = None;
        for word in &words {
            if OPENID.contains(word) {
                if *word != "offline_access" {
                    granted.push(*word);
                }
                continue;
            }
            let (resource, permission) = word.rsplit_once('/').unwrap_or((GRAPH, word));
            let resource = resource.trim_end_matches('/');
            match audience {
                None => audience = Some(resource),
                Some(first) if first == resource => {}
                Some(_) if first_wins => continue,
                Some(_) => return Err(TokenFault::aadsts(700_022)),
            }
            if permission == ".default" && is_application(resource) {
                default = Some(format!("{resource}/access_as_user"));
            } else if permission == ".default" {
                granted.extend(DEFAULT.split(' ').filter(|word| !OPENID.contains(word)));
            } else {
                granted.push(word);
            }
        }
        granted.extend(default.as_deref());
        Ok(Self {
            granted: granted.join(" ").into(),
            audience: audience.unwrap_or(GRAPH).into(),
            openid: words.contains(&"openid"),
            offline: words.contains(&"offline_access"),
        })
    }
}

/// `api://GUID` or `GUID`: an application of the tenant, and not Graph by its number.
fn is_application(resource: &str) -> bool {
    resource.starts_with("api://") || (!resource.contains("://") && !resource.starts_with("00000003-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_at_most_one_resource() {
        let scope = Scope::parse("openid offline_access https://graph.example/Mail.Read", false).unwrap();
        assert_eq!(
            (&*scope.audience, &*scope.granted),
            ("https://graph.example", "openid https://graph.example/Mail.Read")
        );
        assert!(scope.openid && scope.offline);
        assert_eq!(&*Scope::parse("User.Read", false).unwrap().audience, GRAPH);
        assert_eq!(Scope::parse("User.Read api://other/x", false).unwrap_err().code, 700_022);
        assert_eq!(&*Scope::parse("User.Read api://other/x", true).unwrap().granted, "User.Read");
        assert!(Scope::parse("https://graph.microsoft.com/.default", false).unwrap().granted.contains("Mail.Send"));
    }
}

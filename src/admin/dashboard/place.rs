//! Which pages there are: one path each, and its methods.

use super::page::{self, Section};

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'p> {
    Style,
    Overview,
    Accounts,
    Account(&'p str),
    Act(Act, &'p str),
    Audit,
    Clients,
    Configuration,
    SignIn,
    SignOut,
}

/// What can be done with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Refresh,
    Link,
    Revoke,
    Remove,
}

pub const GET: &str = "GET, HEAD";
const POST: &str = "POST";
const BOTH: &str = "GET, HEAD, POST";

impl<'p> Place<'p> {
    pub fn of(path: &'p str) -> Option<Self> {
        Some(match path {
            "/" => Self::Overview,
            "/accounts" => Self::Accounts,
            "/audit" => Self::Audit,
            "/clients" => Self::Clients,
            "/configuration" => Self::Configuration,
            "/sign-in" => Self::SignIn,
            "/sign-out" => Self::SignOut,
            path if path == page::STYLE_PATH.as_str() => Self::Style,
            path => {
                let (id, act) = match path.strip_prefix("/accounts/")?.split_once('/') {
                    None => (path.strip_prefix("/accounts/")?, None),
                    Some((id, "refresh")) => (id, Some(Act::Refresh)),
                    Some((id, "signin-link")) => (id, Some(Act::Link)),
                    Some((id, "revoke")) => (id, Some(Act::Revoke)),
                    Some((id, "remove")) => (id, Some(Act::Remove)),
                    Some(_) => return None,
                };
                if id.is_empty() {
                    return None;
                }
                act.map_or(Self::Account(id), |act| Self::Act(act, id))
            }
        })
    }

    pub fn methods(self) -> &'static str {
        match self {
            Self::Act(Act::Refresh | Act::Link, _) | Self::SignOut => POST,
            Self::Act(Act::Revoke | Act::Remove, _) | Self::SignIn => BOTH,
            _ => GET,
        }
    }

    /// Shown to whoever may not see the rest.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Style | Self::SignIn)
    }

    pub fn section(self) -> Section {
        match self {
            Self::Overview => Section::Overview,
            Self::Accounts | Self::Account(_) | Self::Act(..) => Section::Accounts,
            Self::Audit => Section::Audit,
            Self::Clients => Section::Clients,
            Self::Configuration => Section::Configuration,
            Self::Style | Self::SignIn | Self::SignOut => Section::None,
        }
    }
}

/// Whether this is an address of a page of ours.
pub fn is_page(to: &str) -> bool {
    let path = to.split(['?', '#']).next().unwrap_or_default();
    Place::of(path).is_some_and(|place| place.methods() == GET && place != Place::Style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_pages() {
        for (path, place, methods) in [
            ("/", Place::Overview, GET),
            ("/accounts", Place::Accounts, GET),
            ("/accounts/0a", Place::Account("0a"), GET),
            ("/accounts/0a/refresh", Place::Act(Act::Refresh, "0a"), POST),
            ("/accounts/0a/signin-link", Place::Act(Act::Link, "0a"), POST),
            ("/accounts/0a/revoke", Place::Act(Act::Revoke, "0a"), BOTH),
            ("/accounts/0a/remove", Place::Act(Act::Remove, "0a"), BOTH),
            ("/audit", Place::Audit, GET),
            ("/sign-in", Place::SignIn, BOTH),
            ("/sign-out", Place::SignOut, POST),
        ] {
            assert_eq!(Place::of(path).map(|place| (place, place.methods())), Some((place, methods)), "{path}");
        }
        assert_eq!(Place::of(&page::STYLE_PATH), Some(Place::Style));
        for path in [
            "",
            "/x",
            "/accounts/",
            "/accounts//refresh",
            "/accounts/a/b",
            "/accounts/a/refresh/",
            "//",
            "/v1/accounts",
        ] {
            assert_eq!(Place::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_sign_in_leads_to_our_own_pages_only() {
        for to in ["/", "/accounts?state=reauth&search=a", "/accounts/0a", "/configuration#x"] {
            assert!(is_page(to), "{to}");
        }
        for to in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/",
            "",
            "/accounts/0a/remove",
            "/sign-out",
            "/v1/config",
        ] {
            assert!(!is_page(to), "{to}");
        }
    }
}

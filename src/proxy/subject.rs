//! For whom: which account an authenticated caller's request is for, or whose token goes out instead. Default deny.

use std::sync::Arc;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::bearers::Bearer;
use super::caller::Client;
use super::error::{Kind, Refusal, no_such_account};
use crate::account::Alias;
use crate::config::Identity;
use crate::vault::Subject;

/// What an application may call itself where it acts for no account.
const ITSELF: &str = "app";
/// Where an account is named, in the contract's order.
const PLACES: [&str; 4] = ["the path", "the Basic user name", "Bearerd-Account", "the token"];

/// Who asks: decided once.
pub struct Caller {
    pub client: Arc<Client>,
    /// The token that it proved itself with, where it was one.
    pub bearer: Option<Arc<Bearer>>,
}

/// Which accounts a client may act for.
pub struct Accounts {
    patterns: Patterns,
    /// The one account of a client whose `accounts` is a single plain alias.
    only: Option<Alias>,
}

enum Patterns {
    /// What stands before and after the `*` that is all there is of a pattern (`*@contoso.com`).
    Ends(Vec<(Box<str>, Box<str>)>),
    Any(GlobSet),
}

/// So many patterns are looked at one by one.
const FEW: usize = 8;

impl Caller {
    pub fn known(client: Arc<Client>) -> Self {
        Self { client, bearer: None }
    }

    pub fn by_token(bearer: Arc<Bearer>) -> Self {
        Self { client: Arc::clone(&bearer.client), bearer: Some(bearer) }
    }

    /// For whom the request is. `selectors` in the contract's order: path, Basic user name, `Bearerd-Account`; then the token's claim.
    pub fn subject(&self, selectors: [Option<&str>; 3]) -> Result<Subject, Refusal> {
        let claimed = self.bearer.as_ref().and_then(|bearer| bearer.account.as_deref());
        let said = PLACES.into_iter().zip(selectors.into_iter().chain([claimed]));
        let said = said.filter_map(|(place, name)| Some((place, name?)));
        let named = selectors.into_iter().flatten();
        match self.client.identity {
            Identity::User => self.client.accounts.select(said).map(Subject::User),
            Identity::App => self.alone(named).map(|()| Subject::App),
            Identity::OnBehalfOf => self.user_of_its_token(named, claimed),
        }
    }

    fn alone<'s>(&self, mut named: impl Iterator<Item = &'s str>) -> Result<(), Refusal> {
        if named.all(|name| name == ITSELF || name == &*self.client.name) { Ok(()) } else { Err(no_such_account()) }
    }

    fn user_of_its_token<'s>(
        &self,
        mut named: impl Iterator<Item = &'s str>,
        claimed: Option<&str>,
    ) -> Result<Subject, Refusal> {
        let assertion = self.bearer.as_ref().and_then(|bearer| bearer.assertion.as_ref());
        let assertion = assertion.ok_or_else(|| {
            Kind::ClientUnauthenticated.because("the token of the user is needed, as a Bearer token").for_its_token()
        })?;
        if named.all(|name| Some(name) == claimed || Some(name) == assertion.name.as_deref()) {
            Ok(Subject::OnBehalfOf(Arc::clone(assertion)))
        } else {
            Err(no_such_account())
        }
    }
}

impl Accounts {
    pub fn new(patterns: &[String]) -> Self {
        let only = match patterns {
            [alias] => Alias::new(alias).ok(),
            _ => None,
        };
        Self { patterns: Patterns::new(patterns), only }
    }

    /// The account that is named at all the places where one is; where none is, the only one.
    fn select<'s>(&self, mut named: impl Iterator<Item = (&'static str, &'s str)>) -> Result<Alias, Refusal> {
        let Some((place, first)) = named.next() else {
            return self.only.clone().ok_or_else(|| {
                Kind::AccountAmbiguous.because(
                    "name an account: as the Basic user name, in the path (/as/{alias}/...), or in Bearerd-Account",
                )
            });
        };
        if let Some((other, _)) = named.find(|(_, name)| *name != first) {
            return Err(
                Kind::AccountAmbiguous.because(format!("different accounts are named by {place} and by {other}"))
            );
        }
        if let Some(only) = self.only.as_ref().filter(|only| only.as_str() == first) {
            return Ok(only.clone());
        }
        match Alias::new(first) {
            Ok(alias) if self.patterns.cover(first) => Ok(alias),
            _ => Err(no_such_account()),
        }
    }
}

impl Patterns {
    fn new(texts: &[String]) -> Self {
        if texts.len() <= FEW
            && let Some(ends) = texts.iter().map(|text| ends(text)).collect()
        {
            return Self::Ends(ends);
        }
        let mut set = GlobSetBuilder::new();
        for text in texts {
            match Glob::new(text) {
                Ok(glob) => {
                    set.add(glob);
                }
                Err(error) => tracing::error!(%error, "an account pattern is ignored"),
            }
        }
        Self::Any(set.build().unwrap_or_else(|_| GlobSet::empty()))
    }

    /// `alias` is one.
    fn cover(&self, alias: &str) -> bool {
        let lies_between = |(start, end): &(Box<str>, Box<str>)| {
            alias.strip_prefix(&**start).is_some_and(|rest| rest.ends_with(&**end))
        };
        match self {
            Self::Ends(ends) => ends.iter().any(lies_between),
            Self::Any(set) => set.is_match(alias),
        }
    }
}

fn ends(pattern: &str) -> Option<(Box<str>, Box<str>)> {
    let (start, end) = pattern.split_once('*')?;
    let is_literal = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@._-+!".contains(&byte));
    (is_literal(start) && is_literal(end)).then(|| (start.into(), end.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::caller::tests::client;
    use super::*;

    fn caller(identity: Identity, accounts: &[&str]) -> Caller {
        Caller::known(Arc::new(client(identity, accounts)))
    }

    /// `user ALIAS`, `app`, or the refusal.
    fn whom(caller: &Caller, selectors: [Option<&str>; 3]) -> Result<String, Kind> {
        match caller.subject(selectors) {
            Ok(Subject::User(alias)) => Ok(format!("user {alias}")),
            Ok(Subject::App) => Ok("app".to_owned()),
            Ok(Subject::OnBehalfOf(assertion)) => Ok(format!("obo {}", assertion.subject)),
            Err(refusal) => Err(refusal.kind),
        }
    }

    #[test]
    fn the_account_is_selected_in_order_and_must_be_allowed() {
        let one = caller(Identity::User, &["alice"]);
        assert_eq!(whom(&one, [None, None, None]), Ok("user alice".into()));
        assert_eq!(whom(&one, [Some("alice"), Some("alice"), None]), Ok("user alice".into()));
        assert_eq!(whom(&one, [Some("alice"), Some("bob"), None]), Err(Kind::AccountAmbiguous));
        let refusal = one.subject([Some("alice"), None, Some("bob")]).unwrap_err();
        assert_eq!(refusal.message, "different accounts are named by the path and by Bearerd-Account");
        assert_eq!(whom(&one, [None, None, Some("bob")]), Err(Kind::AccountForbidden));
        let many = caller(Identity::User, &["*@contoso.com"]);
        assert_eq!(whom(&many, [None, None, None]), Err(Kind::AccountAmbiguous));
        assert_eq!(whom(&many, [None, Some("a@contoso.com"), None]), Ok("user a@contoso.com".into()));
        for evil in ["a@evil@contoso.com", "x@evil.com", "a/b@contoso.com", "a@contoso.com.", "", "\0@contoso.com"] {
            assert_eq!(whom(&many, [None, Some(evil), None]), Err(Kind::AccountForbidden), "{evil:?}");
        }
        let none = caller(Identity::User, &[]);
        assert_eq!(whom(&none, [None, Some("alice"), None]), Err(Kind::AccountForbidden));
    }

    proptest! {
        #[test]
        fn ends_say_what_globs_say(pattern in "[ab@.*]{1,5}", alias in "[ab@.]{1,6}") {
            if let Ok(alias) = Alias::new(&alias) {
                let glob = Glob::new(&pattern).unwrap().compile_matcher();
                let few = Patterns::new(std::slice::from_ref(&pattern));
                prop_assert_eq!(few.cover(alias.as_str()), glob.is_match(alias.as_str()), "{} {}", pattern, alias);
            }
        }
    }

    #[test]
    fn what_is_not_all_star_is_left_to_globs() {
        for (pattern, expected) in [
            ("*", true),
            ("user*", true),
            ("*@contoso.com", true),
            ("a*b", true),
            ("alice", false),
            ("**", false),
            ("a*b*", false),
            ("a?*", false),
            ("[a]*", false),
            ("{a,b}*", false),
            ("a\\*", false),
            ("!*", true),
        ] {
            assert_eq!(ends(pattern).is_some(), expected, "{pattern}");
        }
        let many: Vec<String> = (0..=FEW).map(|n| format!("a{n}*")).collect();
        assert!(matches!(Patterns::new(&many), Patterns::Any(_)));
        assert!(Patterns::new(&many).cover("a8x") && !Patterns::new(&many).cover("b"));
        assert!(!Patterns::new(&[]).cover("a"));
    }

    #[test]
    fn an_application_acts_for_itself_only() {
        let itself = caller(Identity::App, &["*"]);
        for selectors in [
            [None, None, None],
            [Some("app"), None, None],
            [None, Some("payroll"), None],
            [Some("app"), None, Some("payroll")],
        ] {
            assert_eq!(whom(&itself, selectors), Ok("app".into()), "{selectors:?}");
        }
        for selectors in [[Some("alice"), None, None], [None, Some("App"), None], [None, Some("app"), Some("alice")]] {
            assert_eq!(whom(&itself, selectors), Err(Kind::AccountForbidden), "{selectors:?}");
        }
    }

    #[test]
    fn without_a_token_there_is_no_user_to_act_for() {
        let caller = caller(Identity::OnBehalfOf, &["*"]);
        assert_eq!(whom(&caller, [Some("alice"), None, None]), Err(Kind::ClientUnauthenticated));
    }
}

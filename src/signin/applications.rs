//! Which applications may act for an account: what a person has to know before signing in.
//!
//! Reads the same patterns as the proxy's rules, in the same way: globs over the whole alias, upper and lower case differ.

use globset::{Glob, GlobMatcher};

use crate::account::Alias;
use crate::config;

/// Every application of the configuration, with its patterns compiled.
#[derive(Debug)]
pub(super) struct Applications(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    name: String,
    patterns: Vec<String>,
    matchers: Vec<GlobMatcher>,
    read_only: bool,
}

/// One line of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Application {
    pub name: String,
    pub read_only: bool,
    /// For which accounts, where the page can't know the account yet.
    pub patterns: Option<String>,
}

impl Applications {
    pub(super) fn new(clients: &[config::Client]) -> Self {
        let rule = |client: &config::Client| Rule {
            name: client.name.clone(),
            patterns: client.accounts.clone(),
            // A pattern that is none was refused with the configuration; here it would match nothing.
            matchers: client
                .accounts
                .iter()
                .filter_map(|text| Glob::new(text).ok())
                .map(|g| g.compile_matcher())
                .collect(),
            read_only: client.read_only,
        };
        Self(clients.iter().map(rule).collect())
    }

    /// Those that may act for `alias`.
    pub(super) fn acting_for(&self, alias: &Alias) -> Vec<Application> {
        let may = |rule: &&Rule| rule.matchers.iter().any(|matcher| matcher.is_match(alias.as_str()));
        self.0.iter().filter(may).map(|rule| rule.line(None)).collect()
    }

    /// All that may act for anyone, each with its patterns: the account is not known yet.
    pub(super) fn acting_for_someone(&self) -> Vec<Application> {
        let may = |rule: &&Rule| !rule.patterns.is_empty();
        self.0.iter().filter(may).map(|rule| rule.line(Some(rule.patterns.join(", ")))).collect()
    }
}

impl Rule {
    fn line(&self, patterns: Option<String>) -> Application {
        Application { name: self.name.clone(), read_only: self.read_only, patterns }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::signin) fn client(name: &str, accounts: &[&str], read_only: bool) -> config::Client {
        config::Client {
            name: name.into(),
            credential: config::ClientCredential::KeyDigest([0; 32]),
            identity: config::Identity::User,
            accounts: accounts.iter().map(ToString::to_string).collect(),
            allow: vec![],
            deny: vec![],
            read_only,
            limits: config::ClientLimits::default(),
        }
    }

    #[test]
    fn only_those_whose_patterns_match() {
        let applications = Applications::new(&[
            client("payroll", &["alice", "*@contoso.com"], false),
            client("archive", &["*"], true),
            client("nobody", &[], false),
        ]);
        let names = |alias: &str| -> Vec<String> {
            applications.acting_for(&Alias::new(alias).unwrap()).into_iter().map(|a| a.name).collect()
        };
        assert_eq!(names("alice"), ["payroll", "archive"]);
        assert_eq!(names("Alice"), ["archive"]);
        assert_eq!(names("x.y@contoso.com"), ["payroll", "archive"]);
        assert_eq!(names("x@contoso.com.evil"), ["archive"]);
        let all = applications.acting_for_someone();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].patterns.as_deref(), Some("alice, *@contoso.com"));
        assert!(all[1].read_only);
    }
}

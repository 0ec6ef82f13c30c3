//! The people of the simulated tenant.

/// One user of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub alias: String,
    /// The object id, a GUID.
    pub oid: String,
    pub name: String,
    pub mail: String,
}

/// Stands for the application itself wherever an alias stands: in records, faults, demands and revocations.
pub const APP: &str = "app";

impl User {
    /// The first `count` users: alice, bob, carol, user004, ..
    pub fn numbered(count: usize, domain: &str) -> Vec<Self> {
        (1..=count)
            .map(|number| {
                let (alias, name) = match number {
                    1 => ("alice".to_owned(), "Alice Example".to_owned()),
                    2 => ("bob".to_owned(), "Bob Example".to_owned()),
                    3 => ("carol".to_owned(), "Carol Example".to_owned()),
                    _ => (format!("user{number:03}"), format!("User {number}")),
                };
                let oid = format!("0b1d5eed-5eed-4aaa-8bbb-{number:012x}");
                Self { mail: format!("{alias}@{domain}"), alias, oid, name }
            })
            .collect()
    }

    /// Whether `hint` (an alias, an address or an object id) means this user.
    pub(super) fn is(&self, hint: &str) -> bool {
        [&self.alias, &self.mail, &self.oid].iter().any(|name| name.eq_ignore_ascii_case(hint))
    }
}

//! Fields of a form or of a query. A field that comes twice is refused, never "the first one"; an empty one is absent.

use super::super::desk::{AuditWanted, Query, State, named};
use super::super::problem::{Kind, Problem};
use crate::audit::{Event, Outcome};

/// Accounts or records on a page.
const ROWS: usize = 50;
/// Fields of a form.
const MOST: usize = 32;

#[derive(Debug)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(text: &[u8]) -> Result<Self, Problem> {
        let mut fields = Vec::<(String, String)>::new();
        for (name, value) in form_urlencoded::parse(text) {
            // Each is compared with all.
            if fields.len() == MOST {
                return Err(Kind::BadRequest.because("there are more fields than any form of ours has"));
            }
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(Problem::parameter(&name, "is given twice"));
            }
            fields.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(fields))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Which accounts a list shows.
    pub fn query(&self) -> Result<Query, Problem> {
        Ok(Query {
            state: self.get("state").map(|name| named("state", name, &State::ALL, State::name)).transpose()?,
            search: self.get("search").map(|text| text.trim().to_owned()),
            cursor: self.get("cursor").map(str::to_owned),
            limit: Some(ROWS),
            ..Query::default()
        })
    }

    /// Which records.
    pub fn audit(&self) -> Result<AuditWanted, Problem> {
        Ok(AuditWanted {
            account: self.get("account").map(|text| text.trim().to_owned()),
            event: self.get("event").map(|name| named("event", name, Event::ALL, Event::name)).transpose()?,
            outcome: self.get("outcome").map(|name| named("outcome", name, Outcome::ALL, Outcome::name)).transpose()?,
            cursor: self.get("cursor").map(str::to_owned),
            limit: Some(ROWS),
            ..AuditWanted::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_what_its_form_says() {
        let query = |text: &str| Fields::parse(text.as_bytes()).and_then(|fields| fields.query());
        let all = query("state=&search=&other=1").unwrap();
        assert_eq!((all.state, all.search, all.cursor, all.limit), (None, None, None, Some(ROWS)));
        let some = query("state=reauth&search=+a%26b+&cursor=61").unwrap();
        assert_eq!((some.state, some.search.as_deref()), (Some(State::Reauth), Some("a&b")));
        assert_eq!(query("state=dead").unwrap_err().parameter.as_deref(), Some("state"));
        assert_eq!(query("search=a&search=b").unwrap_err().parameter.as_deref(), Some("search"));
        let many = |count: usize| (0..count).map(|number| format!("f{number}=")).collect::<Vec<_>>().join("&");
        assert!(query(&many(MOST)).is_ok() && query(&many(MOST + 1)).is_err());
    }
}

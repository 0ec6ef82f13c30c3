//! What a browser sent, judged before anything is done with it: parameters, cookies, and whether a page of another origin is
//! behind the request.
//!
//! Invariant: a parameter or a cookie that comes twice is refused or absent, never "the first one".

use std::time::Duration;

use http::header::{CONTENT_TYPE, COOKIE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::Problem;
use super::ticket;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Parameters of a query or a form.
const MOST: usize = 32;

/// The parameters of a query or a form. Empty ones are absent.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text) {
            // Each is compared with all.
            if pairs.len() == MOST {
                return Err(Problem::bad_request("There are more parameters than any form of ours has."));
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::bad_request("A parameter of this address occurs twice."));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// May this GET be answered? A person who follows a link from anywhere: yes. A foreign page that fetches, embeds or frames us: no.
pub(super) fn is_navigation(headers: &HeaderMap, origin: &str) -> bool {
    let origin_fits = headers.get_all(ORIGIN).iter().all(|value| value == origin);
    let site_fits = match text(headers, &SEC_FETCH_SITE) {
        None | Some("none" | "same-origin") => true,
        Some(_) => {
            text(headers, &SEC_FETCH_MODE) == Some("navigate")
                && text(headers, &SEC_FETCH_DEST).is_none_or(|dest| dest == "document")
        }
    };
    origin_fits && site_fits
}

/// Was this POST sent by a form of ours? `has_token`: it carries something that only our form could know.
pub(super) fn is_own_form(headers: &HeaderMap, origin: &str, has_token: bool) -> bool {
    let is_form = text(headers, &CONTENT_TYPE).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or(value);
        kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let mut origins = headers.get_all(ORIGIN).iter();
    let site = text(headers, &SEC_FETCH_SITE);
    let site_fits = site.is_none_or(|site| site == "same-origin" || site == "none");
    let is_ours = match (origins.next(), origins.next()) {
        (Some(one), None) => one == origin,
        (Some(_), Some(_)) => false,
        (None, _) => site.is_some() || has_token,
    };
    is_form && site_fits && is_ours
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Our cookies. Over https their names have the prefix `__Host-`: no other host or path can set them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cookie {
    /// Which browser started a sign-in.
    Browser,
    /// Which device flow is shown.
    Device,
    /// Who has just signed in.
    Session,
}

impl Cookie {
    fn name(self, secure: bool) -> String {
        let name = match self {
            Self::Browser => "bearerd-browser",
            Self::Device => "bearerd-device",
            Self::Session => "bearerd-session",
        };
        if secure { format!("__Host-{name}") } else { name.to_owned() }
    }

    pub(super) fn set(self, id: &str, life: Duration, secure: bool) -> HeaderValue {
        let name = self.name(secure);
        let flag = if secure { "; Secure" } else { "" };
        let text = format!("{name}={id}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{flag}", life.as_secs());
        let mut value = HeaderValue::from_str(&text).expect("names are ours and ids are base64url");
        value.set_sensitive(true);
        value
    }

    pub(super) fn clear(self, secure: bool) -> HeaderValue {
        self.set("", Duration::ZERO, secure)
    }

    /// Absent, too, where it comes twice or is no id of ours.
    pub(super) fn read(self, headers: &HeaderMap, secure: bool) -> Option<String> {
        let name = self.name(secure);
        let mut found = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value);
        match (found.next(), found.next()) {
            (Some(id), None) if ticket::is_id(id) => Some(id.to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://bearerd.example";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(parse) {
            map.append::<HeaderName>(name, value);
        }
        map
    }

    fn form(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = headers(pairs);
        map.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        map
    }

    #[test]
    fn parameters() {
        let params = Params::parse(b"code=a%2Bb+c&state=x&empty=").unwrap();
        assert_eq!(params.get("code"), Some("a+b c"));
        assert_eq!(params.get("empty"), None);
        assert_eq!(params.get("other"), None);
        assert!(Params::parse(b"state=a&state=a").is_err());
    }

    #[test]
    fn links_may_be_followed_from_anywhere_but_not_fetched() {
        for fine in [
            &[][..],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")],
            &[("origin", OURS), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(is_navigation(&headers(fine), OURS), "{fine:?}");
        }
        for foreign in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", OURS), ("origin", "https://evil.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        ] {
            assert!(!is_navigation(&headers(foreign), OURS), "{foreign:?}");
        }
    }

    #[test]
    fn forms_are_posted_by_our_own_pages_only() {
        assert!(is_own_form(&form(&[("origin", OURS)]), OURS, false));
        assert!(is_own_form(&form(&[("origin", OURS), ("sec-fetch-site", "same-origin")]), OURS, false));
        assert!(is_own_form(&form(&[("sec-fetch-site", "same-origin")]), OURS, false));
        assert!(is_own_form(&form(&[("sec-fetch-site", "none")]), OURS, false));
        assert!(is_own_form(&form(&[]), OURS, true));
        for foreign in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://bearerd.example.evil.example")],
            &[("origin", "http://bearerd.example")],
            &[("origin", "https://bearerd.example:8443")],
            &[("origin", OURS), ("origin", OURS)],
            &[("origin", OURS), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert!(!is_own_form(&form(foreign), OURS, false), "{foreign:?}");
        }
        assert!(
            !is_own_form(&form(&[("sec-fetch-site", "cross-site")]), OURS, true),
            "a token does not outweigh the browser"
        );
        let plain = headers(&[("origin", OURS), ("content-type", "text/plain")]);
        assert!(!is_own_form(&plain, OURS, true), "T306: a form that pretends to be text");
    }

    #[test]
    fn cookies_over_https_and_on_loopback() {
        let id = ticket::random_id();
        let secure = Cookie::Browser.set(&id, Duration::from_mins(10), true);
        assert_eq!(
            secure.to_str().unwrap(),
            format!("__Host-bearerd-browser={id}; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure")
        );
        let plain = Cookie::Browser.set(&id, Duration::from_mins(10), false);
        assert_eq!(
            plain.to_str().unwrap(),
            format!("bearerd-browser={id}; Path=/; Max-Age=600; HttpOnly; SameSite=Lax")
        );
        assert!(Cookie::Session.clear(true).to_str().unwrap().contains("=; Path=/; Max-Age=0;"));
    }

    #[test]
    fn a_cookie_is_ours_alone_or_absent() {
        let (id, other) = (ticket::random_id(), ticket::random_id());
        let read = |lines: &[&str], secure| {
            let pairs: Vec<(&str, &str)> = lines.iter().map(|line| ("cookie", *line)).collect();
            Cookie::Browser.read(&headers(&pairs), secure)
        };
        let one = format!("a=b; __Host-bearerd-browser={id}; c=d");
        assert_eq!(read(&[&one], true), Some(id.clone()));
        assert_eq!(read(&["x=y", &one], true), Some(id.clone()), "HTTP/2 splits the header");
        assert_eq!(read(&[&one], false), None, "the other name");
        assert_eq!(read(&[&one, &format!("__Host-bearerd-browser={other}")], true), None, "tossed");
        assert_eq!(read(&["__Host-bearerd-browser=short"], true), None);
        assert_eq!(read(&[], true), None);
    }
}

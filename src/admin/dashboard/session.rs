//! Who has signed in at the dashboard, and what makes a form ours.
//!
//! Invariants: the cookie is a random name that is held in memory only, never the admin token; it ends after some hours, with the process,
//! and with the token that opened it. A form's token is bound to the session that the form was made for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use http::header::{COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::clock::{Clock, Moment};

/// A working day.
const LIFE: Duration = Duration::from_hours(8);
/// Operators with a browser each, with room to spare.
const SESSIONS: usize = 256;
const COOKIE_NAME: &str = "bearerd-admin";
/// Where a TLS terminator stands in front of us: no other host or path can set what begins so.
const SECURE: &str = "__Host-";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A handle on the sessions; clones share them.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    /// Random, of this process: proves that a form is ours.
    key: [u8; 32],
    open: Mutex<HashMap<[u8; 32], Session>>,
    clock: Clock,
}

#[derive(Clone, Copy)]
struct Session {
    until: Moment,
    /// The digest of the admin token that opened it.
    token: [u8; 32],
}

/// Who looks at a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// No token is asked for.
    Free,
    /// The session's name.
    SignedIn(String),
    Stranger,
}

impl Sessions {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { key: random(), open: Mutex::default(), clock }))
    }

    /// A session for whoever has just shown the token with this digest. Returns its cookie.
    pub fn open(&self, token: &[u8; 32], head: &Parts) -> HeaderValue {
        let name = URL_SAFE_NO_PAD.encode(random());
        let now = self.0.clock.moment();
        let mut open = self.sessions();
        open.retain(|_, session| session.until > now);
        if open.len() >= SESSIONS
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.until).map(|(name, _)| *name)
        {
            open.remove(&oldest);
        }
        open.insert(digest(&name), Session { until: now.plus(LIFE), token: *token });
        cookie(&cookie_name(head, is_secure(head)), &name, LIFE)
    }

    /// `wanted`: the digest of the token that is in force; `None`: whoever comes may.
    pub fn visitor(&self, head: &Parts, wanted: Option<&[u8; 32]>) -> Visitor {
        let Some(wanted) = wanted else { return Visitor::Free };
        let (now, open) = (self.0.clock.moment(), self.sessions());
        let lives = |name: &&str| {
            open.get(&digest(name)).is_some_and(|session| session.until > now && session.token == *wanted)
        };
        cookies(head).into_iter().find(lives).map_or(Visitor::Stranger, |name| Visitor::SignedIn(name.to_owned()))
    }

    /// Ends the session. Returns what makes the browser forget both of its cookies.
    pub fn close(&self, visitor: &Visitor, head: &Parts) -> [HeaderValue; 2] {
        if let Visitor::SignedIn(name) = visitor {
            self.sessions().remove(&digest(name));
        }
        [false, true].map(|secure| cookie(&cookie_name(head, secure), "", Duration::ZERO))
    }

    /// What a form made for this visitor carries.
    pub fn form_token(&self, visitor: &Visitor) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(visitor).finalize().into_bytes())
    }

    pub fn is_form_of(&self, visitor: &Visitor, token: &str) -> bool {
        let token = URL_SAFE_NO_PAD.decode(token);
        token.is_ok_and(|token| self.mac(visitor).verify_slice(&token).is_ok())
    }

    fn mac(&self, visitor: &Visitor) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0.key).expect("any length is a key");
        match visitor {
            Visitor::Free => mac.update(b"free"),
            Visitor::Stranger => mac.update(b"stranger"),
            Visitor::SignedIn(name) => mac.update(format!("session {name}").as_bytes()),
        }
        mac
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a page of this very origin posts: the browser says so, and nothing that it says speaks against it.
pub fn is_posted_by_us(head: &Parts) -> bool {
    let mut origins = head.headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    let site_fits = head.headers.get(&SEC_FETCH_SITE).is_none_or(|site| site == "same-origin");
    let addressed = addressed(head);
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    site_fits
        && from.is_some_and(|(scheme, authority)| {
            matches!(scheme, "http" | "https") && addressed.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        })
}

/// Whether the browser speaks TLS, with somebody in front of us: this listener has none.
fn is_secure(head: &Parts) -> bool {
    head.headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// The host and the port by which the browser knows us.
fn addressed(head: &Parts) -> Option<&str> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(Authority::as_str).or(host)
}

/// Browsers keep the cookies of a host for all of its ports together, so the name has the port in it: what another server on this machine
/// sets, or takes away, is not ours.
fn cookie_name(head: &Parts, secure: bool) -> String {
    let port = addressed(head).and_then(|host| host.parse::<Authority>().ok()?.port_u16());
    let port = port.map(|port| format!("-{port}")).unwrap_or_default();
    format!("{}{COOKIE_NAME}{port}", if secure { SECURE } else { "" })
}

fn cookie(name: &str, value: &str, life: Duration) -> HeaderValue {
    let flag = if name.starts_with(SECURE) { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{flag}", life.as_secs());
    let mut value = HeaderValue::from_str(&text).expect("names are ours and ids are base64url");
    value.set_sensitive(true);
    value
}

/// The names of sessions that a browser says it has.
fn cookies(head: &Parts) -> Vec<&str> {
    let names = [false, true].map(|secure| cookie_name(head, secure));
    let lines = head.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| names.iter().any(|name| name == key)).map(|(_, session)| session).collect()
}

fn digest(name: &str) -> [u8; 32] {
    Sha256::digest(name).into()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers; nothing is safe without");
    bytes
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::clock::Timestamp;

    const TOKEN: [u8; 32] = [7; 32];
    const HERE: &str = "127.0.0.1:8081";

    fn at(host: &str) -> Parts {
        Request::post("/sign-in").header(HOST, host).body(()).unwrap().into_parts().0
    }

    fn with_cookie(host: &str, cookie: &HeaderValue) -> Parts {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        let mut head = at(host);
        head.headers.insert(COOKIE, HeaderValue::from_str(&format!("other=1; {pair}")).unwrap());
        head
    }

    #[test]
    fn a_session_ends_by_itself_with_its_token_and_by_signing_out() {
        let clock = Clock::manual(Timestamp::from_secs(0));
        let sessions = Sessions::new(clock.clone());
        let cookie = sessions.open(&TOKEN, &at(HERE));
        assert!(cookie.to_str().unwrap().ends_with("; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict"));
        let head = with_cookie(HERE, &cookie);
        let visitor = sessions.visitor(&head, Some(&TOKEN));
        assert!(matches!(visitor, Visitor::SignedIn(_)));
        assert_eq!(sessions.visitor(&head, None), Visitor::Free);
        assert_eq!(sessions.visitor(&head, Some(&[8; 32])), Visitor::Stranger, "another token is in force");
        assert_eq!(sessions.visitor(&at(HERE), Some(&TOKEN)), Visitor::Stranger);
        clock.advance(LIFE);
        assert_eq!(sessions.visitor(&head, Some(&TOKEN)), Visitor::Stranger, "it has ended");

        let mut secure = at(HERE);
        secure.headers.insert(ORIGIN, HeaderValue::from_static("https://127.0.0.1:8081"));
        let cookie = sessions.open(&TOKEN, &secure);
        let text = cookie.to_str().unwrap();
        assert!(text.starts_with("__Host-bearerd-admin-8081=") && text.ends_with("; Secure"), "{text}");
        let head = with_cookie(HERE, &cookie);
        let closed = sessions.close(&sessions.visitor(&head, Some(&TOKEN)), &head);
        assert_eq!(sessions.visitor(&head, Some(&TOKEN)), Visitor::Stranger);
        let names = closed.map(|cookie| cookie.to_str().unwrap().split('=').next().unwrap().to_owned());
        assert_eq!(names, ["bearerd-admin-8081", "__Host-bearerd-admin-8081"]);
    }

    #[test]
    fn each_port_of_a_host_has_a_cookie_of_its_own() {
        let sessions = Sessions::new(Clock::manual(Timestamp::from_secs(0)));
        for (host, name) in [
            ("127.0.0.1:8081", "bearerd-admin-8081"),
            ("127.0.0.1:9081", "bearerd-admin-9081"),
            ("[::1]:8081", "bearerd-admin-8081"),
            ("admin.example.com", "bearerd-admin"),
        ] {
            let cookie = sessions.open(&TOKEN, &at(host));
            assert_eq!(cookie.to_str().unwrap().split('=').next(), Some(name), "{host}");
            assert_ne!(sessions.visitor(&with_cookie(host, &cookie), Some(&TOKEN)), Visitor::Stranger);
            assert_eq!(sessions.visitor(&with_cookie("127.0.0.1:1", &cookie), Some(&TOKEN)), Visitor::Stranger);
        }
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes() {
        let clock = Clock::manual(Timestamp::from_secs(0));
        let sessions = Sessions::new(clock.clone());
        let first = with_cookie(HERE, &sessions.open(&TOKEN, &at(HERE)));
        clock.advance(Duration::from_secs(1));
        let second = with_cookie(HERE, &sessions.open(&TOKEN, &at(HERE)));
        for _ in 2..=SESSIONS {
            clock.advance(Duration::from_secs(1));
            let _ = sessions.open(&TOKEN, &at(HERE));
        }
        assert_eq!(sessions.sessions().len(), SESSIONS);
        assert_eq!(sessions.visitor(&first, Some(&TOKEN)), Visitor::Stranger);
        assert_ne!(sessions.visitor(&second, Some(&TOKEN)), Visitor::Stranger);
    }

    #[test]
    fn a_form_is_for_one_visitor() {
        let sessions = Sessions::new(Clock::manual(Timestamp::from_secs(0)));
        let visitors = [Visitor::Free, Visitor::Stranger, Visitor::SignedIn("a".into()), Visitor::SignedIn("b".into())];
        for made_for in &visitors {
            for used_by in &visitors {
                let token = sessions.form_token(made_for);
                assert_eq!(sessions.is_form_of(used_by, &token), made_for == used_by, "{made_for:?} {used_by:?}");
            }
        }
        let other = Sessions::new(Clock::manual(Timestamp::from_secs(0)));
        for token in [&*other.form_token(&Visitor::Free), "", "-", "AAAA"] {
            assert!(!sessions.is_form_of(&Visitor::Free, token), "{token}");
        }
    }

    #[test]
    fn only_our_own_pages_post() {
        let ours = |headers: &[(&str, &str)]| {
            let request = Request::post("/sign-in").header("host", "127.0.0.1:8081");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            is_posted_by_us(&request.body(()).unwrap().into_parts().0)
        };
        for headers in [
            &[("origin", "http://127.0.0.1:8081")][..],
            &[("origin", "https://127.0.0.1:8081"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(ours(headers), "{headers:?}");
        }
        for headers in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:8080")],
            &[("origin", "http://localhost:8081")],
            &[("origin", "ftp://127.0.0.1:8081")],
            &[("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "cross-site")],
            &[("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "none")],
            &[("origin", "http://127.0.0.1:8081"), ("origin", "http://127.0.0.1:8081")],
        ] {
            assert!(!ours(headers), "{headers:?}");
        }
    }
}

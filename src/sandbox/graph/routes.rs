//! Which resource a request means. Works on one call, from the wire or from a batch.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::request::Parts;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::answer::{Answer, Ids};
use super::intake::{Body, Seen};
use super::manner::Manner;
use super::{State, batch, directory, drive, mail, people, streams, teams};
use crate::sandbox::tokens::AccessToken;
use crate::sandbox::user::{APP, User};

/// What Graph takes at most where it wants JSON.
const LARGEST_JSON: u64 = 4 << 20;

/// A request for one resource.
pub(super) struct Call<'a> {
    pub state: &'a State,
    pub ids: &'a Ids,
    pub method: &'a Method,
    pub version: &'a str,
    /// The path after the version, raw and without the first `/`.
    pub raw_path: &'a str,
    /// The decoded segments of it.
    pub segments: Vec<String>,
    /// Raw.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a Body,
    pub token: &'a AccessToken,
    /// Whose things the path means by `me`; the application has none.
    pub user: &'a User,
}

/// Answers a request from the wire.
pub(super) fn answer(
    state: &State,
    head: &Parts,
    body: &Body,
    ids: &Ids,
    token: &AccessToken,
    seen: &Seen,
    manner: &Manner,
) -> Answer {
    let Some(user) = state.entra.state().principal(&token.user) else {
        return Answer::error(ids, 404, "Request_ResourceNotFound", "The user of this token does not exist.");
    };
    let Some(call) = Call::new(state, ids, &head.method, head.uri.path(), token, user) else {
        return Answer::error(ids, 400, "BadRequest", "Invalid version.");
    };
    let call = Call { query: head.uri.query().unwrap_or_default(), headers: &head.headers, body, ..call };
    match call.segments.first().map(String::as_str) {
        Some("echo") => streams::echo(seen),
        Some("stream") => streams::bulk(&call),
        Some("blob") => streams::blob(&call),
        Some("sse") => streams::events(&call),
        Some("$batch") if *call.method == Method::POST => batch::answer(&call, manner),
        _ => call.answer(),
    }
}

/// The decoded segments of a path after its version; `users('x')` is two, as `users/x`.
pub(super) fn segments(path: &str) -> Vec<String> {
    let after = path.trim_start_matches('/').split_once('/').map_or("", |(_, after)| after);
    let decoded = after.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned());
    decoded
        .flat_map(|segment| match segment.split_once("('").map(|(name, key)| (name, key.strip_suffix("')"))) {
            Some((name, Some(key))) if !name.is_empty() => vec![name.to_owned(), key.to_owned()],
            _ => vec![segment],
        })
        .collect()
}

impl<'a> Call<'a> {
    /// `None`: the path has no version that is known.
    pub fn new(
        state: &'a State,
        ids: &'a Ids,
        method: &'a Method,
        path: &'a str,
        token: &'a AccessToken,
        user: &'a User,
    ) -> Option<Self> {
        static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
        static NO_BODY: LazyLock<Body> = LazyLock::new(|| Vec::new().into());
        let (version, raw_path) = path.strip_prefix('/')?.split_once('/')?;
        if !["v1.0", "beta"].contains(&version) {
            return None;
        }
        let (query, headers, body, segments) = ("", &*NO_HEADERS, &*NO_BODY, segments(path));
        Some(Self { state, ids, method, version, raw_path, segments, query, headers, body, token, user })
    }

    /// The answer of the resource that the path names.
    pub fn answer(&self) -> Answer {
        let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        let drive_content = segments.last().is_some_and(|last| last.ends_with("content"));
        if self.body.length > LARGEST_JSON && !drive_content {
            return self.error(413, "RequestEntityTooLarge", "The request is too large.");
        }
        match segments.as_slice() {
            ["me", ..] if self.user.alias == APP => {
                self.error(400, "BadRequest", "/me request is only valid with delegated authentication flow.")
            }
            ["me", rest @ ..] => self.own(rest),
            ["users"] => people::list(self),
            ["users", id] if *self.method == Method::GET => people::one(self, id),
            ["users", id, rest @ ..] if self.user.is(id) => self.own(rest),
            ["users", id, rest @ ..] if self.user.alias == APP => {
                match self.state.entra.options().users.iter().find(|user| user.is(id)) {
                    Some(user) => Call { user, segments: self.segments.clone(), ..*self }.own(rest),
                    None => people::one(self, id),
                }
            }
            ["users", _, _, ..] => {
                self.error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
            }
            ["directoryObjects", id] if *self.method == Method::GET => people::one(self, id),
            ["groups", rest @ ..] => directory::answer(self, rest),
            ["teams", rest @ ..] => teams::answer(self, rest),
            _ => self.not_found(),
        }
    }

    pub fn error(&self, status: u16, code: &str, message: &str) -> Answer {
        Answer::error(self.ids, status, code, message)
    }

    pub fn not_found(&self) -> Answer {
        let last = self.segments.last().map(String::as_str).unwrap_or_default();
        self.error(400, "BadRequest", &format!("Resource not found for the segment '{last}'."))
    }

    /// An absolute link to a place of Graph, with the version of this request; `path` begins with `/`.
    pub fn link(&self, path: &str) -> String {
        format!("{}/{}{path}", self.state.links, self.version)
    }

    /// Whether the request has this preference.
    pub fn prefers(&self, preference: &str) -> bool {
        let values = self.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split([',', ';'])).any(|one| one.trim().eq_ignore_ascii_case(preference))
    }

    /// The body as a JSON object.
    pub fn json(&self) -> Result<Value, Answer> {
        serde_json::from_slice(&self.body.bytes)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| self.error(400, "BadRequest", "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format."))
    }

    /// The decoded value of a query option, whose name may be encoded too (`%24top`).
    pub fn option(&self, name: &str) -> Option<Cow<'a, str>> {
        self.raw_option(name).map(|value| percent_decode_str(value).decode_utf8_lossy())
    }

    pub fn raw_option(&self, name: &str) -> Option<&'a str> {
        self.pairs().find(|(known, ..)| known == name).map(|(_, value, _)| value)
    }

    /// The query as it came, without these options.
    pub fn query_without(&self, names: &[&str]) -> Vec<String> {
        self.pairs().filter(|(known, ..)| !names.contains(&&**known)).map(|(.., whole)| whole.to_owned()).collect()
    }

    /// The path as it came, with its version.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.version, self.raw_path)
    }

    fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, &'a str, &'a str)> + use<'a> {
        self.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode_str(name).decode_utf8_lossy(), value, pair)
        })
    }

    /// What belongs to the user of the token.
    fn own(&self, rest: &[&str]) -> Answer {
        match rest {
            [] => people::me(self),
            ["revokeSignInSessions"] if *self.method == Method::POST => people::sign_out(self),
            ["messages" | "mailFolders" | "sendMail", ..] => mail::answer(self, rest),
            ["drive", rest @ ..] => drive::answer(self, rest),
            _ => self.not_found(),
        }
    }
}

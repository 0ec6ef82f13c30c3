//! What a batch asks: its members, and the batch with members changed or left out.

use std::borrow::Cow;
use std::collections::HashSet;

use http::HeaderName;

use super::{Change, Field, Object, array, id_key, items, quoted, string};

/// Graph takes no more members in one batch.
const MOST: usize = 20;
/// In capitals and as they are spelled, of the envelope and of members alike.
const NAMES: [(&str, &str); 7] = [
    ("REQUESTS", "requests"),
    ("ID", "id"),
    ("METHOD", "method"),
    ("URL", "url"),
    ("HEADERS", "headers"),
    ("BODY", "body"),
    ("DEPENDSON", "dependsOn"),
];

/// A batch that can be read in one way only.
#[derive(Debug)]
pub struct Batch<'a> {
    envelope: Object<'a>,
    members: Vec<Member<'a>>,
}

#[derive(Debug)]
pub struct Member<'a> {
    /// As it is written, quotes and all.
    pub id: &'a str,
    pub method: String,
    pub url: String,
    pub body: Option<&'a str>,
    pub(super) key: String,
    /// The keys of the members that it depends on; `None`: they can't be read.
    pub(super) parents: Option<Vec<String>>,
    headers: Option<Object<'a>>,
    object: Object<'a>,
}

/// What is changed of a member, as JSON where it is not a url.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub url: Option<String>,
    pub headers: Option<String>,
    pub body: Option<String>,
}

impl<'a> Batch<'a> {
    /// `None`: not what JSON batching prescribes, or it could be read in two ways.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        let envelope = Object::read(std::str::from_utf8(text).ok()?)?;
        if !envelope.is_clear(&NAMES) {
            return None;
        }
        let members = items(envelope.get("requests")?)?.into_iter().map(Member::read).collect::<Option<_>>()?;
        Some(Self { envelope, members })
    }

    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// Not more than Graph would look at.
    pub fn is_served(&self) -> bool {
        self.members.len() <= MOST
    }

    /// Whether parts of it can be sent again: who is who, and who depends on whom, is clear.
    pub fn has_parts(&self) -> bool {
        let mut keys = HashSet::new();
        let clear = |member: &Member<'_>| {
            member.parents.is_some() && member.object.get("atomicityGroup").is_none() && keys.insert(member.key.clone())
        };
        self.is_served() && self.members.iter().all(clear)
    }

    /// The batch with these changes to its members, in their order. `None`: nothing changes.
    pub fn edited(&self, edits: &[Edit]) -> Option<String> {
        let nothing = Edit::default();
        if edits.iter().all(|edit| *edit == nothing) {
            return None;
        }
        Some(self.with(self.members.iter().zip(edits).map(|(member, edit)| member.edited(edit))))
    }

    /// A batch of some members. What they depend on besides each other is done.
    pub fn part(&self, members: &[usize]) -> String {
        let members = || members.iter().filter_map(|at| self.members.get(*at));
        let keys: HashSet<&str> = members().map(|member| &*member.key).collect();
        self.with(members().map(|member| member.depending_on(&keys)))
    }

    fn with<'m>(&self, members: impl Iterator<Item = Cow<'m, str>>) -> String {
        let members = array(members);
        self.envelope.with(|field| match &*field.name {
            "requests" => Change::To(Cow::Borrowed(&members)),
            _ => Change::Keep,
        })
    }
}

impl<'a> Member<'a> {
    fn read(raw: &'a str) -> Option<Self> {
        let object = Object::read(raw)?;
        if !object.is_clear(&NAMES) {
            return None;
        }
        let id = object.get("id")?;
        let headers = match object.get("headers") {
            Some(headers) => Some(Object::read(headers)?),
            None => None,
        };
        Some(Self {
            id,
            key: id_key(id),
            method: string(object.get("method")?)?,
            url: string(object.get("url")?)?,
            body: object.get("body"),
            parents: match object.get("dependsOn") {
                None | Some("null") => Some(Vec::new()),
                Some(parents) => items(parents).map(|parents| parents.into_iter().map(id_key).collect()),
            },
            headers,
            object,
        })
    }

    /// GET or HEAD: may be repeated whatever became of it.
    pub fn is_safe(&self) -> bool {
        ["GET", "HEAD"].iter().any(|safe| self.method.eq_ignore_ascii_case(safe))
    }

    pub fn has_header(&self, named: impl Fn(&str) -> bool) -> bool {
        self.headers.iter().flat_map(|headers| &headers.fields).any(|field| named(&header_name(field)))
    }

    /// Whether each of its headers is one header only, however they are written out.
    pub fn has_plain_headers(&self) -> bool {
        let plain = |field: &Field<'_>| {
            HeaderName::from_bytes(field.name.trim().as_bytes()).is_ok()
                && match string(field.value) {
                    Some(value) => !value.contains(['\r', '\n', '\0']),
                    None => !field.value.contains('\\'),
                }
        };
        self.headers.iter().flat_map(|headers| &headers.fields).all(plain)
    }

    /// Its headers but for some. `None`: it has none of these.
    pub fn headers_without(&self, named: impl Fn(&str) -> bool) -> Option<String> {
        let headers = self.headers.as_ref().filter(|_| self.has_header(&named))?;
        Some(headers.with(|field| if named(&header_name(field)) { Change::Drop } else { Change::Keep }))
    }

    fn edited(&self, edit: &Edit) -> Cow<'_, str> {
        if *edit == Edit::default() {
            return Cow::Borrowed(self.object.raw);
        }
        let to = |text: Option<String>| text.map_or(Change::Keep, |text| Change::To(Cow::Owned(text)));
        let edited = self.object.with(|field| match &*field.name {
            "url" => to(edit.url.as_deref().map(quoted)),
            "headers" => to(edit.headers.clone()),
            "body" => to(edit.body.clone()),
            _ => Change::Keep,
        });
        Cow::Owned(edited)
    }

    fn depending_on(&self, keys: &HashSet<&str>) -> Cow<'_, str> {
        let all = self.object.get("dependsOn").and_then(items).unwrap_or_default();
        let left: Vec<&str> = all.iter().copied().filter(|id| keys.contains(&*id_key(id))).collect();
        if left.len() == all.len() {
            return Cow::Borrowed(self.object.raw);
        }
        let edited = self.object.with(|field| match &*field.name {
            "dependsOn" if left.is_empty() => Change::Drop,
            "dependsOn" => Change::To(Cow::Owned(array(left.iter()))),
            _ => Change::Keep,
        });
        Cow::Owned(edited)
    }
}

/// As anybody might read it: without regard to case, with `_` for `-`.
fn header_name(field: &Field<'_>) -> String {
    field.name.trim().to_ascii_lowercase().replace('_', "-")
}

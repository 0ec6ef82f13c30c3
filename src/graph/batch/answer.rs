//! What was answered to a batch: an item for each member, in any order.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use http::header::{HeaderMap, WWW_AUTHENTICATE};

use super::{Change, Field, Object, array, id_key, items, quoted, string};
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::graph::links::URLS;
use crate::graph::{challenge, retry_after};

const RETRY_AFTER: &str = "retry-after";

#[derive(Debug)]
pub struct Answers<'a> {
    envelope: Object<'a>,
    items: Vec<Item<'a>>,
}

#[derive(Debug)]
pub(super) struct Item<'a> {
    pub key: String,
    pub status: u16,
    headers: Option<Object<'a>>,
    object: Object<'a>,
}

impl<'a> Answers<'a> {
    /// `None`: not what JSON batching prescribes, or an id stands there twice.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        let envelope = Object::read(std::str::from_utf8(text).ok()?)?;
        if !envelope.is_clear(&[("RESPONSES", "responses")]) {
            return None;
        }
        let items: Vec<Item<'a>> =
            items(envelope.get("responses")?)?.into_iter().map(Item::read).collect::<Option<_>>()?;
        let mut keys = HashSet::new();
        items.iter().all(|item| keys.insert(&*item.key)).then_some(())?;
        Some(Self { envelope, items })
    }

    pub(super) fn by_key(&self) -> HashMap<&str, &Item<'a>> {
        self.items.iter().map(|item| (&*item.key, item)).collect()
    }

    fn with<'i>(&self, items: impl Iterator<Item = Cow<'i, str>>) -> String {
        let items = array(items);
        self.envelope.with(|field| match &*field.name {
            "responses" => Change::To(Cow::Borrowed(&items)),
            _ => Change::Keep,
        })
    }
}

impl<'a> Item<'a> {
    fn read(raw: &'a str) -> Option<Self> {
        let object = Object::read(raw)?;
        object.is_clear(&[("ID", "id"), ("STATUS", "status"), ("HEADERS", "headers")]).then_some(())?;
        Some(Self {
            key: id_key(object.get("id")?),
            status: object.get("status")?.parse().ok()?,
            headers: object.get("headers").and_then(Object::read),
            object,
        })
    }

    /// What a refusal asks a new token to be got with.
    pub fn challenge(&self) -> Option<Claims> {
        let values = self.values(WWW_AUTHENTICATE.as_str());
        let headers: HeaderMap =
            values.iter().filter_map(|value| Some((WWW_AUTHENTICATE, value.try_into().ok()?))).collect();
        challenge::challenge(&headers)
    }

    pub fn is_throttled(&self) -> bool {
        matches!(self.status, 429 | 503 | 504)
    }

    pub fn retry_after(&self, now: Timestamp) -> Option<std::time::Duration> {
        retry_after::parse(self.values(RETRY_AFTER).iter().map(String::as_str), now)
    }

    fn values(&self, name: &str) -> Vec<String> {
        let fields = self.headers.iter().flat_map(|headers| &headers.fields);
        fields.filter(|field| field.name.eq_ignore_ascii_case(name)).flat_map(|field| values(field.value)).collect()
    }

    /// See `finish`.
    fn finished(
        &self,
        link: &dyn Fn(&str) -> Option<String>,
        whole_seconds: bool,
        now: Timestamp,
    ) -> Option<Cow<'_, str>> {
        let headers = self.headers.as_ref()?;
        let wait = self.retry_after(now).filter(|_| whole_seconds && self.is_throttled());
        let change = |field: &Field<'_>| -> Option<String> {
            let name = field.name.to_ascii_lowercase();
            if URLS.iter().any(|own| *own == *name) {
                return link(&string(field.value)?).map(|url| quoted(&url));
            }
            let seconds = wait.filter(|_| name == RETRY_AFTER)?.as_secs().to_string();
            Some(quoted(&seconds)).filter(|written| written != field.value)
        };
        if headers.fields.iter().all(|field| change(field).is_none()) {
            return None;
        }
        let headers = headers.with(|field| change(field).map_or(Change::Keep, |text| Change::To(Cow::Owned(text))));
        let item = self.object.with(|field| match &*field.name {
            "headers" => Change::To(Cow::Borrowed(&*headers)),
            _ => Change::Keep,
        });
        Some(Cow::Owned(item))
    }
}

/// The first answer with the items of the second in their places. `None`: the second does not answer just what was sent again.
pub fn merge(first: &[u8], second: &[u8], sent: &super::Batch<'_>) -> Option<String> {
    let (first, second) = (Answers::read(first)?, Answers::read(second)?);
    let newer = second.by_key();
    let known = first.by_key();
    let answered = |key: &str| newer.contains_key(key) && known.contains_key(key);
    if newer.len() != sent.members().len() || !sent.members().iter().all(|member| answered(&member.key)) {
        return None;
    }
    let newest = |item: &Item<'_>| newer.get(&*item.key).map_or(item.object.raw, |newer| newer.object.raw).to_owned();
    Some(first.with(first.items.iter().map(|item| Cow::Owned(newest(item)))))
}

/// The answer as the client gets it: `link` says what a URL in a header has to be, and with `whole_seconds` a throttled member's
/// `Retry-After` is an integer. `None`: nothing changes.
pub fn finish(
    answer: &[u8],
    link: &dyn Fn(&str) -> Option<String>,
    whole_seconds: bool,
    now: Timestamp,
) -> Option<String> {
    let answers = Answers::read(answer)?;
    let finished: Vec<_> = answers.items.iter().map(|item| item.finished(link, whole_seconds, now)).collect();
    if finished.iter().all(Option::is_none) {
        return None;
    }
    let items = answers.items.iter().zip(finished);
    Some(answers.with(items.map(|(item, finished)| finished.unwrap_or(Cow::Borrowed(item.object.raw)))))
}

/// The values of one header: a text, a list of them, or a number.
fn values(raw: &str) -> Vec<String> {
    match (string(raw), items(raw)) {
        (Some(text), _) => vec![text],
        (None, Some(list)) => list.into_iter().filter_map(string).collect(),
        (None, None) => vec![raw.to_owned()],
    }
}

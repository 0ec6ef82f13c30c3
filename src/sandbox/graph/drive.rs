//! The user's files: a listing, downloads by a 302 to another origin, uploads at once or by session.
//!
//! An item named `size-N` is there without being made: N bytes of a pattern, for downloads of any size in constant memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::intake::Body;
use super::routes::Call;
use super::{State, page, workbook};
use crate::sandbox::locked;

/// The drives by alias, and the uploads that are under way.
#[derive(Default)]
pub(super) struct Drives {
    items: Mutex<HashMap<String, Vec<Item>>>,
    pub uploads: Mutex<HashMap<String, Upload>>,
}

#[derive(Clone)]
pub(super) struct Item {
    id: String,
    name: String,
    pub size: u64,
    /// In hexadecimal digits, of what was uploaded.
    digest: Option<String>,
    pub content: Stored,
}

/// What is left of a file.
#[derive(Clone)]
pub(super) enum Stored {
    Kept(Bytes),
    Pattern,
    /// It was too long to be kept.
    Counted,
}

/// An upload session.
pub(super) struct Upload {
    pub user: String,
    pub name: String,
    /// How much is here.
    pub received: u64,
    pub hash: Sha256,
    /// `None`: it is too long to be kept.
    pub kept: Option<Vec<u8>>,
}

pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    let session = |name: &str| if *call.method == Method::POST { create_session(call, name) } else { call.not_found() };
    match (call.method, rest) {
        (&Method::GET, ["root", "children"] | ["items", "root", "children"]) => list(call),
        (&Method::GET, ["items" | "root:", id]) => with(call, id, |item| Answer::json(200, shown(call, item))),
        (&Method::GET, ["items" | "root:", id, "content"]) => {
            with(call, id, |item| Answer::empty(302).with("Location", &download(call, item)))
        }
        (&Method::POST, ["items", id, "copy"]) => with(call, id, |item| copy(call, item)),
        (_, ["items", id, "workbook", rest @ ..]) => with(call, id, |_| workbook::answer(call, rest)),
        (&Method::PUT, ["root:" | "items", named, "content"]) => put(call, named.trim_matches(':')),
        (_, ["root:", named, "createUploadSession"]) => session(named.trim_end_matches(':')),
        (_, ["items", _, "createUploadSession"]) => session("upload.bin"),
        (_, ["items", parent, named, "createUploadSession"]) if parent.ends_with(':') => {
            session(named.trim_end_matches(':'))
        }
        _ => call.not_found(),
    }
}

impl Drives {
    /// An item with its content, for the second origin.
    pub fn item(&self, user: &str, named: &str) -> Option<Item> {
        let name = named.trim_end_matches(':');
        let found = self.of(user, |items| items.iter().find(|item| item.id == named || item.name == name).cloned());
        found.or_else(|| {
            let size = name.strip_prefix("size-")?.parse().ok()?;
            Some(Item { id: name.to_owned(), name: name.to_owned(), size, digest: None, content: Stored::Pattern })
        })
    }

    /// Adds an item, or replaces the one with this name; says how it looks.
    pub fn store(&self, user: &str, name: &str, size: u64, digest: Option<String>, content: Stored) -> Value {
        self.of(user, |items| {
            let known = items.iter().position(|item| item.name == name);
            let id = known.map_or_else(|| State::name("01BYE5RZ!"), |at| items.swap_remove(at).id);
            let item = Item { id, name: name.to_owned(), size, digest, content };
            let value = properties(&item);
            items.push(item);
            value
        })
    }

    fn of<T>(&self, user: &str, work: impl FnOnce(&mut Vec<Item>) -> T) -> T {
        work(locked(&self.items).entry(user.to_owned()).or_insert_with(seeded))
    }
}

/// What proves that a link was made by Graph: nothing else is asked for on the second origin.
pub(super) fn temporary_authorization(user: &str, id: &str) -> String {
    format!("{:x}", Sha256::digest(format!("sandbox/{user}/{id}")))
}

fn list(call: &Call<'_>) -> Answer {
    let items = call.state.drives.of(&call.user.alias, |items| items.clone());
    let context = format!("users('{}')/drive/root/children", call.user.oid);
    page::answer(call, &context, items.len(), false, |range| {
        items[range].iter().map(|item| shown(call, item)).collect()
    })
}

/// By id, or by name as in `root:/{name}:/content`.
fn with(call: &Call<'_>, named: &str, work: impl FnOnce(&Item) -> Answer) -> Answer {
    match call.state.drives.item(&call.user.alias, named) {
        Some(item) => work(&item),
        None => call.error(404, "itemNotFound", "The resource could not be found."),
    }
}

fn copy(call: &Call<'_>, item: &Item) -> Answer {
    let name = format!("Copy of {}", item.name);
    let (digest, content) = (item.digest.clone(), item.content.clone());
    let made = call.state.drives.store(&call.user.alias, &name, item.size, digest, content);
    let job = call.state.jobs.start(made["id"].as_str().unwrap_or_default());
    Answer::empty(202).with("Location", &format!("{}/monitor/{job}", call.state.files))
}

fn put(call: &Call<'_>, named: &str) -> Answer {
    let user = &call.user.alias;
    let name = call.state.drives.item(user, named).map_or_else(|| named.to_owned(), |item| item.name);
    let Body { length, digest, .. } = call.body;
    let content = call.body.whole().map_or(Stored::Counted, Stored::Kept);
    Answer::json(201, call.state.drives.store(user, &name, *length, Some(digest.clone()), content))
}

fn create_session(call: &Call<'_>, name: &str) -> Answer {
    let id = State::name("");
    let upload = Upload {
        user: call.user.alias.clone(),
        name: name.to_owned(),
        received: 0,
        hash: Sha256::new(),
        kept: Some(Vec::new()),
    };
    locked(&call.state.drives.uploads).insert(id.clone(), upload);
    let body = json!({
        "@odata.context": call.link("/$metadata#microsoft.graph.uploadSession"),
        "uploadUrl": format!("{}/up/{id}", call.state.files),
        "expirationDateTime": call.state.clock.now().plus(Duration::from_hours(24)).to_string(),
        "nextExpectedRanges": ["0-"],
    });
    Answer::json(200, body)
}

fn shown(call: &Call<'_>, item: &Item) -> Value {
    let mut values = [properties(item)];
    values[0]["@microsoft.graph.downloadUrl"] = json!(download(call, item));
    page::select(call, &mut values);
    let [value] = values;
    value
}

fn properties(item: &Item) -> Value {
    let mut value = json!({
        "id": item.id,
        "name": item.name,
        "size": item.size,
        "eTag": format!("\"{{{}}},1\"", item.id),
        "file": { "mimeType": "application/octet-stream" },
        "webUrl": format!("https://contoso-my.sharepoint.example/personal/files/{}", item.name),
    });
    if let Some(digest) = &item.digest {
        value["file"]["hashes"] = json!({ "sha256Hash": digest.to_uppercase() });
    }
    value
}

fn download(call: &Call<'_>, item: &Item) -> String {
    let user = &call.user.alias;
    let proof = temporary_authorization(user, &item.id);
    format!("{}/download/{user}/{}?tempauth={proof}", call.state.files, item.id)
}

fn seeded() -> Vec<Item> {
    let welcome = b"Welcome to the sandbox.\n";
    let files = [
        ("welcome.txt", welcome.len() as u64, Stored::Kept(Bytes::from_static(welcome))),
        ("photo.jpg", 256 << 10, Stored::Pattern),
        ("Annual report.pdf", 1 << 20, Stored::Pattern),
    ];
    let item = |(number, (name, size, content)): (usize, (&str, u64, Stored))| Item {
        id: format!("01BYE5RZ!{}", 101 + number),
        name: name.to_owned(),
        size,
        digest: None,
        content,
    };
    files.into_iter().enumerate().map(item).collect()
}

//! The user's files: a listing, downloads by a 302 to another origin, uploads at once or by session.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::State;
use super::answer::Answer;
use super::page;
use super::routes::Call;
use crate::sandbox::locked;

/// The drives by alias, and the uploads that are under way.
#[derive(Default)]
pub(super) struct Drives {
    items: Mutex<HashMap<String, Vec<Item>>>,
    pub uploads: Mutex<HashMap<String, Upload>>,
}

#[derive(Clone)]
struct Item {
    id: String,
    name: String,
    content: Bytes,
}

/// An upload session.
pub(super) struct Upload {
    pub user: String,
    pub name: String,
    pub received: Vec<u8>,
}

pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    let session = |name: &str| if *call.method == Method::POST { create_session(call, name) } else { call.not_found() };
    match (call.method, rest) {
        (&Method::GET, ["root", "children"] | ["items", "root", "children"]) => list(call),
        (&Method::GET, ["items" | "root:", id]) => item(call, id),
        (&Method::GET, ["items" | "root:", id, "content"]) => content(call, id),
        (&Method::POST, ["items", id, "copy"]) => copy(call, id),
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
    /// The bytes of an item, for the second origin.
    pub fn content(&self, user: &str, id: &str) -> Option<Bytes> {
        self.of(user, |items| items.iter().find(|item| item.id == id).map(|item| item.content.clone()))
    }

    /// Adds an item, or replaces the one with this name; says how it looks.
    pub fn store(&self, user: &str, name: &str, content: Bytes) -> Value {
        self.of(user, |items| {
            if let Some(item) = items.iter_mut().find(|item| item.name == name) {
                item.content = content;
                return properties(item);
            }
            let item = Item { id: State::name("01BYE5RZ!"), name: name.to_owned(), content };
            items.push(item.clone());
            properties(&item)
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

fn item(call: &Call<'_>, id: &str) -> Answer {
    match find(call, id) {
        Some(item) => Answer::json(200, shown(call, &item)),
        None => call.error(404, "itemNotFound", "The resource could not be found."),
    }
}

fn content(call: &Call<'_>, id: &str) -> Answer {
    match find(call, id) {
        Some(item) => Answer::empty(302).with("Location", &download(call, &item)),
        None => call.error(404, "itemNotFound", "The resource could not be found."),
    }
}

fn copy(call: &Call<'_>, id: &str) -> Answer {
    match find(call, id) {
        Some(item) => {
            let name = format!("Copy of {}", item.name);
            call.state.drives.store(&call.user.alias, &name, item.content);
            Answer::empty(202).with("Location", &format!("{}/monitor/{}", call.state.files, State::name("")))
        }
        None => call.error(404, "itemNotFound", "The resource could not be found."),
    }
}

fn put(call: &Call<'_>, named: &str) -> Answer {
    let name = find(call, named).map_or_else(|| named.to_owned(), |item| item.name);
    let stored = call.state.drives.store(&call.user.alias, &name, Bytes::copy_from_slice(call.body));
    Answer::json(201, stored)
}

fn create_session(call: &Call<'_>, name: &str) -> Answer {
    let id = State::name("");
    let upload = Upload { user: call.user.alias.clone(), name: name.to_owned(), received: Vec::new() };
    locked(&call.state.drives.uploads).insert(id.clone(), upload);
    let body = json!({
        "@odata.context": format!("{}/{}/$metadata#microsoft.graph.uploadSession", call.state.links, call.version),
        "uploadUrl": format!("{}/up/{id}", call.state.files),
        "expirationDateTime": call.state.clock.now().plus(Duration::from_hours(24)).to_string(),
        "nextExpectedRanges": ["0-"],
    });
    Answer::json(200, body)
}

/// By id, or by name as in `root:/{name}:/content`.
fn find(call: &Call<'_>, named: &str) -> Option<Item> {
    let name = named.trim_end_matches(':');
    call.state
        .drives
        .of(&call.user.alias, |items| items.iter().find(|item| item.id == named || item.name == name).cloned())
}

fn shown(call: &Call<'_>, item: &Item) -> Value {
    let mut value = properties(item);
    value["@microsoft.graph.downloadUrl"] = json!(download(call, item));
    value
}

fn properties(item: &Item) -> Value {
    json!({
        "id": item.id,
        "name": item.name,
        "size": item.content.len(),
        "eTag": format!("\"{{{}}},1\"", item.id),
        "file": { "mimeType": "application/octet-stream" },
        "webUrl": format!("https://contoso-my.sharepoint.example/personal/files/{}", item.name),
    })
}

fn download(call: &Call<'_>, item: &Item) -> String {
    let user = &call.user.alias;
    let proof = temporary_authorization(user, &item.id);
    format!("{}/download/{user}/{}?tempauth={proof}", call.state.files, item.id)
}

fn seeded() -> Vec<Item> {
    let pattern = |length: u32| (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into();
    let files: [(&str, Bytes); 3] = [
        ("welcome.txt", Bytes::from_static(b"Welcome to the sandbox.\n")),
        ("photo.jpg", pattern(256 * 1024)),
        ("Annual report.pdf", pattern(1024 * 1024)),
    ];
    let item = |(number, (name, content)): (usize, (&str, Bytes))| Item {
        id: format!("01BYE5RZ!{}", 101 + number),
        name: name.to_owned(),
        content,
    };
    files.into_iter().enumerate().map(item).collect()
}

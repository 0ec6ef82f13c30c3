//! Mailboxes: twenty-five messages each to begin with, and whatever is written later.

use std::collections::HashMap;
use std::sync::Mutex;

use http::Method;
use serde_json::{Map, Value, json};

use super::State;
use super::answer::Answer;
use super::page;
use super::routes::Call;
use crate::clock::Timestamp;
use crate::sandbox::locked;

const INBOX: &str = "Inbox";
const FOLDERS: &[&str] = &[INBOX, "Drafts", "Sent Items", "Archive"];
const SEEDED: i64 = 25;
const NEWEST: Timestamp = Timestamp::from_secs(1_767_600_000);

/// The mailboxes by alias; one is made when it is first opened.
#[derive(Default)]
pub(super) struct Mail(Mutex<HashMap<String, Vec<Value>>>);

pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    match (call.method, rest) {
        (&Method::GET, ["messages"]) => list(call, false),
        (&Method::GET, ["messages", "delta"]) => list(call, true),
        (&Method::GET, ["mailFolders", folder, "messages", rest @ ..]) => match (known(folder), rest) {
            (Some(INBOX), [] | ["delta"]) => list(call, !rest.is_empty()),
            (Some(_), [] | ["delta"]) => page::answer(call, "messages", 0, !rest.is_empty(), |_| Vec::new()),
            _ => not_found(call),
        },
        (&Method::POST, ["messages"]) => create(call),
        (&Method::POST, ["sendMail"]) => send(call),
        (&Method::GET, ["mailFolders"]) => folders(call),
        (&Method::GET, ["messages", id]) => open(call, |box_| box_.iter().find(|one| one["id"] == **id).cloned()),
        (&Method::GET, ["messages", id, "$value"]) => mime(call, id),
        (&Method::PATCH, ["messages", id]) => change(call, id),
        (&Method::DELETE, ["messages", id]) => delete(call, id),
        _ => call.not_found(),
    }
}

impl Mail {
    fn of<T>(&self, call: &Call<'_>, work: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        let mut all = locked(&self.0);
        let seeded = || (0..SEEDED).map(|number| seeded(call, number)).collect();
        work(all.entry(call.user.alias.clone()).or_insert_with(seeded))
    }
}

fn list(call: &Call<'_>, delta: bool) -> Answer {
    let context = format!("users('{}')/messages", call.user.oid);
    call.state
        .mail
        .of(call, |mailbox| page::answer(call, &context, mailbox.len(), delta, |range| mailbox[range].to_vec()))
}

fn open(call: &Call<'_>, find: impl FnOnce(&mut Vec<Value>) -> Option<Value>) -> Answer {
    match call.state.mail.of(call, find) {
        Some(message) => {
            let mut values = [message];
            page::select(call, &mut values);
            let [mut body] = values;
            let context = format!("/$metadata#users('{}')/messages/$entity", call.user.oid);
            body["@odata.context"] = json!(call.link(&context));
            Answer::json(200, body)
        }
        None => not_found(call),
    }
}

fn create(call: &Call<'_>) -> Answer {
    let written = match call.json() {
        Ok(written) => written,
        Err(answer) => return answer,
    };
    let id = format!("{}=", State::name("AAMkAGI1"));
    let mut message = json!({
        "@odata.etag": "W/\"CQAAABYAAAC4\"", "id": id, "isDraft": true, "isRead": true, "subject": null,
        "createdDateTime": call.state.clock.now().to_string(),
    });
    merge(&mut message, written.as_object());
    call.state.mail.of(call, |mailbox| mailbox.insert(0, message.clone()));
    let location = format!("/users('{}')/messages('{id}')", call.user.oid);
    Answer::json(201, message).with("Location", &call.link(&location))
}

fn send(call: &Call<'_>) -> Answer {
    match call.json() {
        Ok(written) if written["message"].is_object() => Answer::empty(202),
        Ok(_) => call.error(400, "ErrorInvalidRequest", "The parameter 'Message' is required."),
        Err(answer) => answer,
    }
}

/// The message as it travelled: no JSON, whatever it looks like.
fn mime(call: &Call<'_>, id: &str) -> Answer {
    let found = call.state.mail.of(call, |mailbox| mailbox.iter().find(|message| message["id"] == *id).cloned());
    let Some(message) = found else { return not_found(call) };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mime = format!("Subject: {}\r\n\r\n{}\r\n", text(&message["subject"]), text(&message["body"]["content"]));
    Answer::bytes("text/plain", mime.into())
}

fn change(call: &Call<'_>, id: &str) -> Answer {
    if let Some(stale) = stale(call, id) {
        return stale;
    }
    let written = match call.json() {
        Ok(written) => written,
        Err(answer) => return answer,
    };
    open(call, |mailbox| {
        let message = mailbox.iter_mut().find(|message| message["id"] == *id)?;
        merge(message, written.as_object());
        message["@odata.etag"] = json!(format!("W/\"{}\"", State::name("")));
        Some(message.clone())
    })
}

fn delete(call: &Call<'_>, id: &str) -> Answer {
    if let Some(stale) = stale(call, id) {
        return stale;
    }
    let gone = call.state.mail.of(call, |mailbox| {
        let before = mailbox.len();
        mailbox.retain(|message| message["id"] != *id);
        mailbox.len() < before
    });
    if gone { Answer::empty(204) } else { not_found(call) }
}

/// The refusal of a change that was meant for another version of the message (`If-Match`).
fn stale(call: &Call<'_>, id: &str) -> Option<Answer> {
    let expected = call.headers.get(http::header::IF_MATCH)?.to_str().ok().filter(|etag| *etag != "*")?;
    let current = call.state.mail.of(call, |mailbox| {
        mailbox.iter().find(|message| message["id"] == *id).map(|message| message["@odata.etag"].clone())
    })?;
    let message = "The change key passed in the request does not match the current change key for the item.";
    (current != *expected).then(|| call.error(412, "ErrorIrresolvableConflict", message))
}

fn not_found(call: &Call<'_>) -> Answer {
    call.error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
}

fn folders(call: &Call<'_>) -> Answer {
    let mailbox = call.state.mail.of(call, |mailbox| mailbox.clone());
    let context = format!("users('{}')/mailFolders", call.user.oid);
    page::answer(call, &context, FOLDERS.len(), false, |range| {
        let folder = |name: &&str| {
            let messages = if *name == INBOX { &mailbox[..] } else { &[] };
            let mut folder = json!({ "id": folder_id(name), "displayName": name, "totalItemCount": messages.len(),
                "unreadItemCount": 0, "childFolderCount": 0 });
            let path = format!("/users('{}')/mailFolders('{}')", call.user.oid, folder_id(name));
            page::expand(call, &mut folder, &path, "messages", || messages.to_vec());
            folder
        };
        FOLDERS[range].iter().map(folder).collect()
    })
}

/// The folder that has this id or well-known name.
fn known(folder: &str) -> Option<&'static str> {
    let compact = |name: &str| name.replace(' ', "");
    FOLDERS.iter().copied().find(|name| folder_id(name) == folder || compact(name).eq_ignore_ascii_case(folder))
}

fn folder_id(name: &str) -> String {
    format!("AQMkAD{}=", name.replace(' ', ""))
}

fn merge(message: &mut Value, written: Option<&Map<String, Value>>) {
    for (key, value) in written.into_iter().flatten().filter(|(key, _)| *key != "id") {
        message[key] = value.clone();
    }
}

fn seeded(call: &Call<'_>, number: i64) -> Value {
    let user = call.user;
    // Free text may well contain links, and what looks like a link's key: nobody may rewrite them.
    let here = call.link("/me/messages");
    let text = format!(
        "Numbers as promised: see {here}?$top=5 or https://graph.microsoft.com/v1.0/me\n\
         {{\"@odata.nextLink\":\"{here}?$skiptoken=free%2Btext\",\"@odata.id\": \"{here}\"}}"
    );
    let received = Timestamp::from_secs(NEWEST.secs() - number * 3600).to_string();
    let sender = json!({ "emailAddress": { "name": "Megan Bowen", "address": "megan@contoso.example" } });
    json!({
        "@odata.etag": format!("W/\"CQAAABYAAAC4{number:04}\""),
        "id": format!("AAMkAGI1-{}-{number:04}=", user.alias),
        "createdDateTime": received,
        "receivedDateTime": received,
        "subject": format!("Message {} for {}", number + 1, user.name),
        "bodyPreview": "Numbers as promised.",
        "importance": "normal",
        "isRead": number % 3 != 0,
        "isDraft": false,
        "hasAttachments": false,
        "from": sender,
        "toRecipients": [{ "emailAddress": { "name": user.name, "address": user.mail } }],
        "body": { "contentType": "text", "content": text },
    })
}

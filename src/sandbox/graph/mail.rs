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
use crate::sandbox::user::User;

const SEEDED: i64 = 25;
const NEWEST: Timestamp = Timestamp::from_secs(1_767_600_000);

/// The mailboxes by alias; one is made when it is first opened.
#[derive(Default)]
pub(super) struct Mail(Mutex<HashMap<String, Vec<Value>>>);

pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    match (call.method, rest) {
        (&Method::GET, ["messages"] | ["mailFolders", "inbox", "messages"]) => list(call, false),
        (&Method::GET, ["messages", "delta"] | ["mailFolders", "inbox", "messages", "delta"]) => list(call, true),
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
    fn of<T>(&self, user: &User, work: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        let mut all = locked(&self.0);
        let mailbox = all.entry(user.alias.clone()).or_insert_with(|| (0..SEEDED).map(|n| seeded(user, n)).collect());
        work(mailbox)
    }
}

fn list(call: &Call<'_>, delta: bool) -> Answer {
    let context = format!("users('{}')/messages", call.user.oid);
    call.state
        .mail
        .of(call.user, |mailbox| page::answer(call, &context, mailbox.len(), delta, |range| mailbox[range].to_vec()))
}

fn open(call: &Call<'_>, find: impl FnOnce(&mut Vec<Value>) -> Option<Value>) -> Answer {
    match call.state.mail.of(call.user, find) {
        Some(message) => {
            let mut values = [message];
            page::select(call, &mut values);
            let [mut body] = values;
            let place = format!("{}/{}", call.state.links, call.version);
            body["@odata.context"] = json!(format!("{place}/$metadata#users('{}')/messages/$entity", call.user.oid));
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
    call.state.mail.of(call.user, |mailbox| mailbox.insert(0, message.clone()));
    let location = format!("{}/{}/users('{}')/messages('{id}')", call.state.links, call.version, call.user.oid);
    Answer::json(201, message).with("Location", &location)
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
    let found = call.state.mail.of(call.user, |mailbox| mailbox.iter().find(|message| message["id"] == *id).cloned());
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
    let gone = call.state.mail.of(call.user, |mailbox| {
        let before = mailbox.len();
        mailbox.retain(|message| message["id"] != *id);
        mailbox.len() < before
    });
    if gone { Answer::empty(204) } else { not_found(call) }
}

/// The refusal of a change that was meant for another version of the message (`If-Match`).
fn stale(call: &Call<'_>, id: &str) -> Option<Answer> {
    let expected = call.headers.get(http::header::IF_MATCH)?.to_str().ok().filter(|etag| *etag != "*")?;
    let current = call.state.mail.of(call.user, |mailbox| {
        mailbox.iter().find(|message| message["id"] == *id).map(|message| message["@odata.etag"].clone())
    })?;
    let message = "The change key passed in the request does not match the current change key for the item.";
    (current != *expected).then(|| call.error(412, "ErrorIrresolvableConflict", message))
}

fn not_found(call: &Call<'_>) -> Answer {
    call.error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
}

fn folders(call: &Call<'_>) -> Answer {
    let count = call.state.mail.of(call.user, |mailbox| mailbox.len());
    let folders = [("Inbox", count), ("Drafts", 0), ("Sent Items", 0), ("Archive", 0)];
    let context = format!("users('{}')/mailFolders", call.user.oid);
    page::answer(call, &context, folders.len(), false, |range| {
        let folder = |(name, count): &(&str, usize)| {
            json!({ "id": format!("AQMkAD{}=", name.replace(' ', "")), "displayName": name, "totalItemCount": count,
                "unreadItemCount": 0, "childFolderCount": 0 })
        };
        folders[range].iter().map(folder).collect()
    })
}

fn merge(message: &mut Value, written: Option<&Map<String, Value>>) {
    for (key, value) in written.into_iter().flatten().filter(|(key, _)| *key != "id") {
        message[key] = value.clone();
    }
}

fn seeded(user: &User, number: i64) -> Value {
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
        // Free text may well contain such an address: nobody may rewrite it.
        "body": { "contentType": "text", "content": "Numbers as promised: see https://graph.microsoft.com/v1.0/me/messages?$top=5" },
    })
}

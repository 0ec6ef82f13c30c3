//! Groups and their members: expanded collections, lists of references, and references in what clients write.
//!
//! A reference must name Graph's own origin. A client that was given a proxy's links writes the proxy's, and is refused.

use std::sync::Mutex;

use http::Method;
use serde_json::{Value, json};

use super::answer::Answer;
use super::people;
use super::routes::{self, Call};
use super::{State, page};
use crate::sandbox::user::User;
use crate::sandbox::{locked, random};

/// All groups; the first one has everybody in it.
pub(super) struct Groups(Mutex<Vec<Group>>);

#[derive(Clone)]
struct Group {
    id: String,
    name: String,
    /// Object ids.
    members: Vec<String>,
    owners: Vec<String>,
}

pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    match (call.method, rest) {
        (&Method::GET, []) => list(call),
        (&Method::POST, []) => create(call),
        (_, [id, rest @ ..]) => {
            let Some(group) = locked(&call.state.groups.0).iter().find(|group| group.id == **id).cloned() else {
                return people::unknown(call, id);
            };
            of(call, &group, rest)
        }
        _ => call.not_found(),
    }
}

/// What one group is asked.
fn of(call: &Call<'_>, group: &Group, rest: &[&str]) -> Answer {
    let context = "directoryObjects";
    match (call.method, rest) {
        (&Method::GET, []) => {
            let mut values = [shown(call, group)];
            page::select(call, &mut values);
            let [mut body] = values;
            body["@odata.context"] = json!(call.link("/$metadata#groups/$entity"));
            Answer::json(200, body)
        }
        (&Method::PATCH, []) => bound(call, |written| change(call, &group.id, |group| group.add(written))),
        (&Method::GET, [role @ ("members" | "owners")]) => {
            let people = group.people(role);
            page::answer(call, context, people.len(), false, |range| {
                people[range].iter().filter_map(|oid| person(call, oid)).collect()
            })
        }
        (&Method::GET, [role @ ("members" | "owners"), "$ref"]) => {
            let people = group.people(role);
            page::answer(call, "Collection($ref)", people.len(), false, |range| {
                people[range].iter().map(|oid| json!({ "@odata.id": reference(call, oid) })).collect()
            })
        }
        (&Method::POST, [role @ ("members" | "owners"), "$ref"]) => bound(call, |mut written| {
            written.retain(|(name, _)| name == "@odata.id");
            match written.pop() {
                Some((_, oid)) => change(call, &group.id, |group| group.add(vec![((*role).to_owned(), oid)])),
                None => call.error(400, "Request_BadRequest", "The property '@odata.id' is required."),
            }
        }),
        (&Method::DELETE, ["members", oid, "$ref"]) => {
            change(call, &group.id, |group| group.members.retain(|member| member != oid))
        }
        _ => call.not_found(),
    }
}

impl Groups {
    pub fn seeded(users: &[User]) -> Self {
        let everybody: Vec<_> = users.iter().map(|user| user.oid.clone()).collect();
        let group = |number: u32, name: &str, members: &[String]| Group {
            id: format!("5eedface-5eed-4bbb-8ccc-{number:012}"),
            name: name.to_owned(),
            members: members.to_vec(),
            owners: everybody.iter().take(1).cloned().collect(),
        };
        Self(Mutex::new(vec![group(1, "Everybody", &everybody), group(2, "Auditors", &[])]))
    }
}

impl Group {
    fn people(&self, role: &str) -> &[String] {
        if role == "owners" { &self.owners } else { &self.members }
    }

    /// Each with its role.
    fn add(&mut self, people: Vec<(String, String)>) {
        for (role, oid) in people {
            let list = if role == "owners" { &mut self.owners } else { &mut self.members };
            if !list.contains(&oid) {
                list.push(oid);
            }
        }
    }
}

fn list(call: &Call<'_>) -> Answer {
    let groups = locked(&call.state.groups.0).clone();
    page::answer(call, "groups", groups.len(), false, |range| {
        groups[range].iter().map(|group| shown(call, group)).collect()
    })
}

fn create(call: &Call<'_>) -> Answer {
    bound(call, |written| {
        let name = call.json().ok().and_then(|body| body["displayName"].as_str().map(str::to_owned));
        let mut group =
            Group { id: random::guid(), name: name.unwrap_or_default(), members: Vec::new(), owners: Vec::new() };
        group.add(written);
        let body = shown(call, &group);
        let location = call.link(&format!("/groups/{}", group.id));
        locked(&call.state.groups.0).push(group);
        Answer::json(201, body).with("Location", &location)
    })
}

fn change(call: &Call<'_>, id: &str, work: impl FnOnce(&mut Group)) -> Answer {
    if let Some(group) = locked(&call.state.groups.0).iter_mut().find(|group| group.id == id) {
        work(group);
    }
    Answer::empty(204)
}

/// Goes on with all references in the body: the role that each is written under, or `@odata.id`, and the object's id.
fn bound(call: &Call<'_>, work: impl FnOnce(Vec<(String, String)>) -> Answer) -> Answer {
    let body = match call.json() {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let mut people = Vec::new();
    for (key, value) in body.as_object().into_iter().flatten() {
        let role = key.strip_suffix("@odata.bind").unwrap_or(key);
        if role.len() == key.len() && key != "@odata.id" {
            continue;
        }
        let several = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        for link in several {
            match link.as_str().and_then(|link| named(call.state, link)) {
                Some(oid) => people.push((role.to_owned(), oid)),
                None => return invalid(call),
            }
        }
    }
    work(people)
}

pub(super) fn invalid(call: &Call<'_>) -> Answer {
    call.error(400, "Request_BadRequest", "Invalid URL format specified in payload.")
}

/// The last name of a place that a reference names, if it is a place of Graph.
pub(super) fn named(state: &State, link: &str) -> Option<String> {
    let path = [&state.links, &state.origin].into_iter().find_map(|origin| link.strip_prefix(origin.as_str()))?;
    if !path.starts_with("/v1.0/") && !path.starts_with("/beta/") {
        return None;
    }
    routes::segments(path).pop().filter(|id| !id.is_empty())
}

fn shown(call: &Call<'_>, group: &Group) -> Value {
    let mut value = json!({
        "id": group.id,
        "displayName": group.name,
        "groupTypes": ["Unified"],
        "mailEnabled": true,
        "securityEnabled": false,
    });
    for role in ["members", "owners"] {
        let all = || group.people(role).iter().filter_map(|oid| person(call, oid)).collect();
        page::expand(call, &mut value, &format!("/groups/{}", group.id), role, all);
    }
    value
}

fn person(call: &Call<'_>, oid: &str) -> Option<Value> {
    let user = call.state.entra.options().users.iter().find(|user| user.oid == oid)?;
    let mut value = people::properties(user);
    value["@odata.type"] = json!("#microsoft.graph.user");
    value["@odata.id"] = json!(reference(call, oid));
    Some(value)
}

fn reference(call: &Call<'_>, oid: &str) -> String {
    call.link(&format!("/directoryObjects/{oid}"))
}

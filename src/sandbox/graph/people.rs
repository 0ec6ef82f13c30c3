//! `me` and `users`.

use serde_json::{Value, json};

use super::answer::Answer;
use super::page;
use super::routes::Call;
use crate::sandbox::user::User;

pub(super) fn me(call: &Call<'_>) -> Answer {
    entity(call, call.user)
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let users = &call.state.entra.options().users;
    page::answer(call, "users", users.len(), false, |range| users[range].iter().map(properties).collect())
}

pub(super) fn one(call: &Call<'_>, id: &str) -> Answer {
    if let Some(user) = call.state.entra.options().users.iter().find(|user| user.is(id)) {
        return entity(call, user);
    }
    unknown(call, id)
}

/// Nothing in the directory has this id.
pub(super) fn unknown(call: &Call<'_>, id: &str) -> Answer {
    let message =
        format!("Resource '{id}' does not exist or one of its queried reference-property objects are not present.");
    call.error(404, "Request_ResourceNotFound", &message)
}

/// The user's own "sign me out everywhere".
pub(super) fn sign_out(call: &Call<'_>) -> Answer {
    call.state.entra.revoke_user(&call.user.alias);
    let context = call.link("/$metadata#Edm.Boolean");
    Answer::json(200, json!({ "@odata.context": context, "value": true })).with("Location", &call.state.links)
}

fn entity(call: &Call<'_>, user: &User) -> Answer {
    let mut values = [properties(user)];
    page::select(call, &mut values);
    let [mut body] = values;
    body["@odata.context"] = json!(call.link("/$metadata#users/$entity"));
    Answer::json(200, body)
}

pub(super) fn properties(user: &User) -> Value {
    json!({
        "businessPhones": ["+1 425 555 0109"],
        "displayName": user.name,
        "givenName": user.name.split(' ').next(),
        "jobTitle": "Auditor",
        "mail": user.mail,
        "mobilePhone": null,
        "officeLocation": "12/1110",
        "preferredLanguage": "en-US",
        "surname": user.name.split(' ').next_back(),
        "userPrincipalName": user.mail,
        "id": user.oid,
    })
}

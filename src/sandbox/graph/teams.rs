//! Teams: what is made later. The links that lead there are relative, and without a version.

use http::Method;
use serde_json::json;

use super::answer::Answer;
use super::jobs::Progress;
use super::routes::Call;
use super::{directory, people};
use crate::sandbox::random;

pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    match (call.method, rest) {
        (&Method::POST, []) => create(call),
        (&Method::GET, [id]) => {
            let context = call.link("/$metadata#teams/$entity");
            Answer::json(
                200,
                json!({ "@odata.context": context, "id": id, "displayName": "A team", "isArchived": false }),
            )
        }
        (&Method::GET, [id, "operations", operation]) => progress(call, id, operation),
        _ => call.not_found(),
    }
}

fn create(call: &Call<'_>) -> Answer {
    let written = match call.json() {
        Ok(written) => written,
        Err(answer) => return answer,
    };
    match written["template@odata.bind"].as_str() {
        None => return call.error(400, "BadRequest", "The template is missing."),
        Some(link) if directory::named(call.state, link).is_none() => return directory::invalid(call),
        Some(_) => {}
    }
    let id = random::guid();
    let operation = call.state.jobs.start(&format!("/teams('{id}')"));
    let location = format!("/teams('{id}')/operations('{operation}')");
    Answer::empty(202).with("Location", &location).with("Content-Location", &format!("/teams('{id}')"))
}

fn progress(call: &Call<'_>, id: &str, operation: &str) -> Answer {
    let (status, place) = match call.state.jobs.ask(operation) {
        None => return people::unknown(call, operation),
        Some(Progress::UnderWay) => ("inProgress", None),
        Some(Progress::Done(place)) => ("succeeded", Some(place)),
    };
    let body = json!({
        "@odata.context": call.link(&format!("/$metadata#teams('{id}')/operations/$entity")),
        "id": operation,
        "operationType": "createTeam",
        "status": status,
        "attemptsCount": 1,
        "targetResourceId": id,
        "targetResourceLocation": place,
        "error": null,
    });
    Answer::json(200, body)
}

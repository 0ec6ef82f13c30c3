//! Workbooks, just enough to wait for one: a session that is made at once, or later for who prefers that.

use http::Method;
use serde_json::json;

use super::answer::Answer;
use super::jobs::Progress;
use super::people;
use super::routes::Call;

/// `rest`: what follows `workbook`.
pub(super) fn answer(call: &Call<'_>, rest: &[&str]) -> Answer {
    match (call.method, rest) {
        (&Method::POST, ["createSession"]) => create(call),
        (&Method::GET, ["operations", operation]) => progress(call, operation),
        (&Method::GET, [resource]) if resource.starts_with("sessionInfoResource(") => session(call, 200),
        _ => call.not_found(),
    }
}

fn create(call: &Call<'_>) -> Answer {
    if !call.prefers("respond-async") {
        return session(call, 201);
    }
    let place = place(call);
    let operation = call.state.jobs.start(&format!("{place}/sessionInfoResource(key='sandbox')"));
    Answer::empty(202)
        .with("Location", &format!("{place}/operations/{operation}"))
        .with("Preference-Applied", "respond-async")
}

fn progress(call: &Call<'_>, operation: &str) -> Answer {
    let (status, place) = match call.state.jobs.ask(operation) {
        None => return people::unknown(call, operation),
        Some(Progress::UnderWay) => ("running", None),
        Some(Progress::Done(place)) => ("succeeded", Some(place)),
    };
    let context = call.link("/$metadata#workbookOperation");
    let mut body = json!({ "@odata.context": context, "id": operation, "status": status });
    if let Some(place) = place {
        body["resourceLocation"] = json!(place);
    }
    Answer::json(200, body)
}

fn session(call: &Call<'_>, status: u16) -> Answer {
    let context = call.link("/$metadata#microsoft.graph.workbookSessionInfo");
    Answer::json(
        status,
        json!({ "@odata.context": context, "id": "cluster=SB&session=sandbox", "persistChanges": true }),
    )
}

/// The workbook that the path names, as an absolute link.
fn place(call: &Call<'_>) -> String {
    let (before, _) = call.raw_path.rsplit_once("/workbook/").unwrap_or((call.raw_path, ""));
    call.link(&format!("/{before}/workbook"))
}

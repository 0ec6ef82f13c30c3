//! Links of Graph: expanded collections, references, operations that take their time, and text that only looks like links.

use serde_json::{Value, json};
use url::Url;

use crate::client::{Reply, get, graph, sandbox, send};
use bearerd::sandbox::Sandbox;

/// Asks as Alice; targets may be absolute links to Graph.
async fn ask(sandbox: &Sandbox, token: &str, method: &str, target: &str, body: Value) -> Reply {
    let origin = sandbox.graph.origin();
    let target = target.strip_prefix(origin.as_str().trim_end_matches('/')).unwrap_or(target);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    graph(&sandbox.graph, token, method, target, &body).await
}

fn link(value: &Value) -> &str {
    value.as_str().expect("a link")
}

#[tokio::test]
async fn an_expanded_collection_says_where_it_goes_on() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let ask = async |target: &str| ask(&sandbox, &token, "GET", target, Value::Null).await.json();
    let folders = ask("/v1.0/me/mailFolders?$select=displayName&$expand=messages($top=10)").await;
    let inbox = &folders["value"][0];
    assert_eq!((inbox["messages"].as_array().unwrap().len(), &inbox["totalItemCount"]), (10, &Value::Null));
    let origin = sandbox.graph.origin();
    for key in ["messages@odata.context", "messages@odata.nextLink"] {
        assert!(link(&inbox[key]).starts_with(origin.as_str()), "{key}");
    }
    let empty = &folders["value"][1];
    assert!(empty["messages"].as_array().unwrap().is_empty() && empty["messages@odata.nextLink"].is_null());
    let mut next = link(&inbox["messages@odata.nextLink"]).to_owned();
    let mut more = 0;
    loop {
        let page = ask(&next).await;
        more += page["value"].as_array().unwrap().len();
        let Some(link) = page["@odata.nextLink"].as_str() else { break };
        next = link.to_owned();
    }
    assert_eq!(more, 15);
}

#[tokio::test]
async fn text_that_looks_like_links_is_there_to_be_left_alone() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let reply = ask(&sandbox, &token, "GET", "/v1.0/me/messages?$top=1", Value::Null).await;
    let origin = sandbox.graph.origin();
    let content = reply.json()["value"][0]["body"]["content"].as_str().unwrap().to_owned();
    assert!(content.contains(&format!("\"@odata.nextLink\":\"{origin}v1.0/me/messages?$skiptoken=free%2Btext\"")));
    assert!(content.contains("https://graph.microsoft.com/"));
}

#[tokio::test]
async fn references_name_graph_or_are_refused() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let ask = async |method: &str, target: &str, body: Value| ask(&sandbox, &token, method, target, body).await;
    let groups = ask("GET", "/v1.0/groups?$expand=members($top=1)", Value::Null).await.json();
    let everybody = &groups["value"][0];
    assert_eq!(everybody["members"].as_array().unwrap().len(), 1);
    assert!(everybody["members@odata.nextLink"].is_string() && everybody["owners"].is_null());
    let members = ask("GET", link(&everybody["members@odata.nextLink"]), Value::Null).await.json();
    let bob = &members["value"][0];
    assert_eq!((&bob["displayName"], &bob["@odata.type"]), (&json!("Bob Example"), &json!("#microsoft.graph.user")));
    assert_eq!(ask("GET", link(&bob["@odata.id"]), Value::Null).await.json()["id"], bob["id"]);

    let auditors = groups["value"][1]["id"].as_str().unwrap();
    let references = format!("/v1.0/groups/{auditors}/members/$ref");
    let proxy = link(&bob["@odata.id"]).replace(sandbox.graph.origin().as_str(), "http://127.0.0.1:1/");
    for wrong in [proxy.as_str(), "/v1.0/directoryObjects/x", "https://graph.microsoft.com.evil/v1.0/users/x"] {
        let refused = ask("POST", &references, json!({ "@odata.id": wrong })).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["message"], "Invalid URL format specified in payload.");
    }
    assert_eq!(ask("POST", &references, json!({})).await.status, 400);
    assert_eq!(ask("POST", &references, json!({ "@odata.id": bob["@odata.id"] })).await.status, 204);
    let listed = ask("GET", &references, Value::Null).await.json();
    assert_eq!(listed["value"], json!([{ "@odata.id": bob["@odata.id"] }]));
    let remove = format!("/v1.0/groups('{auditors}')/members/{}/$ref", bob["id"].as_str().unwrap());
    assert_eq!(ask("DELETE", &remove, Value::Null).await.status, 204);
    assert_eq!(ask("GET", &references, Value::Null).await.json()["value"], json!([]));

    let written =
        json!({ "displayName": "New", "members@odata.bind": [bob["@odata.id"]], "owners@odata.bind": [proxy] });
    assert_eq!(ask("POST", "/v1.0/groups", written).await.status, 400);
    let written = json!({ "displayName": "New", "members@odata.bind": [bob["@odata.id"]] });
    let made = ask("POST", "/v1.0/groups", written).await;
    assert_eq!((made.status.as_u16(), &made.json()["displayName"]), (201, &json!("New")));
    let members = format!("{}/members", made.header("location"));
    assert_eq!(ask("GET", &members, Value::Null).await.json()["value"][0]["id"], bob["id"]);
    let patch = json!({ "members@odata.bind": ["http://elsewhere/v1.0/users/x"] });
    assert_eq!(ask("PATCH", made.header("location"), patch).await.status, 400);
}

#[tokio::test]
async fn a_team_is_made_later_and_its_links_are_relative() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let ask = async |method: &str, target: &str, body: Value| ask(&sandbox, &token, method, target, body).await;
    let template = format!("{}v1.0/teamsTemplates('standard')", sandbox.graph.origin());
    let made = ask("POST", "/v1.0/teams", json!({ "template@odata.bind": template, "displayName": "x" })).await;
    assert_eq!(made.status, 202);
    let (location, team) = (made.header("location"), made.header("content-location"));
    assert!(location.starts_with(team) && team.starts_with("/teams('"), "{location}");
    assert_eq!(ask("GET", location, Value::Null).await.status, 400, "there is no version");
    let location = format!("/v1.0{location}");
    assert_eq!(ask("GET", &location, Value::Null).await.json()["status"], "inProgress");
    let done = ask("GET", &location, Value::Null).await.json();
    assert_eq!((&done["status"], &done["targetResourceLocation"]), (&json!("succeeded"), &json!(team)));
    assert_eq!(ask("GET", &format!("/v1.0{team}"), Value::Null).await.status, 200);
    let elsewhere = json!({ "template@odata.bind": "http://elsewhere/v1.0/teamsTemplates('standard')" });
    assert_eq!(ask("POST", "/v1.0/teams", elsewhere).await.status, 400);
}

#[tokio::test]
async fn a_workbook_session_is_waited_for_at_graph_and_a_copy_elsewhere() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let origin = sandbox.graph.origin();
    let start = "/v1.0/me/drive/items/01BYE5RZ!101/workbook/createSession";
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("prefer", "respond-async")];
    let started = send(sandbox.graph.address(), "POST", start, &headers, "{}").await.unwrap();
    assert_eq!((started.status.as_u16(), started.header("preference-applied")), (202, "respond-async"));
    let location = started.header("location");
    assert!(location.starts_with(origin.as_str()));
    let ask = async |method: &str, target: &str| ask(&sandbox, &token, method, target, Value::Null).await;
    assert_eq!(ask("GET", location).await.json()["status"], "running");
    let done = ask("GET", location).await.json();
    assert_eq!(done["status"], "succeeded");
    assert!(link(&done["resourceLocation"]).starts_with(origin.as_str()));
    assert!(ask("GET", link(&done["resourceLocation"])).await.json()["id"].is_string());
    assert_eq!(ask("POST", start).await.status, 201);

    let copied = ask("POST", "/v1.0/me/drive/items/01BYE5RZ!101/copy").await;
    assert_eq!(copied.status, 202);
    let monitor = Url::parse(copied.header("location")).unwrap();
    assert_eq!(monitor.origin(), sandbox.graph.files_origin().origin());
    let files = monitor.socket_addrs(|| None).unwrap()[0];
    let leaked = send(files, "GET", monitor.path(), &headers, "").await.unwrap();
    assert_eq!((leaked.status.as_u16(), sandbox.graph.leaks().len()), (401, 1));
    assert_eq!(get(files, monitor.path()).await.status, 202);
    let done = get(files, monitor.path()).await.json();
    let copy = format!("/v1.0/me/drive/items/{}", done["resourceId"].as_str().unwrap());
    assert_eq!(ask("GET", &copy).await.json()["name"], "Copy of welcome.txt");

    let made = graph(&sandbox.graph, &token, "POST", "/v1.0/me/messages", r#"{"subject":"new"}"#).await;
    assert_eq!(made.status, 201);
    assert_eq!(ask("GET", made.header("location")).await.json()["subject"], "new");
}

//! The OpenAPI 3.1 document: the table of routes, and the schemas of the types that they take and give.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::desk::import::Row;
use super::desk::{
    About, Account, AuditRecords, Clients, LARGEST_LIMIT, LONGEST_SEARCH, Page, SigninLink, State, USUAL_LIMIT,
};
use super::problem::{CONTENT_TYPE, Document};
use super::ready::Report;
use super::reload::Reloaded;
use super::routes::{Operation, ROUTES, Route};
use super::{Explain, JSON};
use crate::audit::{Event, Outcome};
use crate::metrics;

/// The document. `explain` says what its questions and answers look like; `guarded`: a token is configured.
pub fn document(explain: &dyn Explain, guarded: bool) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut types = settings.into_generator();
    let question = explain.schemas(&mut types).map(Value::from);
    let mut paths = Map::new();
    for route in ROUTES {
        let described = describe(route, &question, &mut types);
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = described;
    }
    let problem = types.subschema_for::<Document>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bearerd admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "For operators. No answer holds a token or a key. Every route also answers HEAD where it answers GET.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "security": if guarded { json!([{ "token": [] }]) } else { json!([]) },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "`admin.token`. Where none is configured, and over a Unix socket, nobody needs it.",
            } },
            "responses": { "Problem": {
                "description": "Anything else that goes wrong",
                "content": { CONTENT_TYPE: { "schema": problem } },
            } },
            "schemas": types.take_definitions(true),
        },
    })
}

fn describe(route: &Route, question: &[Value; 2], types: &mut SchemaGenerator) -> Value {
    let Route { operation, path, name, summary, problems, .. } = *route;
    let mut parameters: Vec<Value> = route.parameters.iter().map(|name| parameter(operation, name)).collect();
    if path.contains("{id}") {
        let schema = json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" });
        parameters.push(
            json!({ "name": "id", "in": "path", "required": true, "schema": schema, "description": "`Account.id`" }),
        );
    }
    let mut answers = Map::new();
    for (status, description, content) in answered(operation, question, types) {
        answers.insert(
            status.to_owned(),
            match content {
                Some((media, schema)) => {
                    json!({ "description": description, "content": { media: { "schema": schema } } })
                }
                None => json!({ "description": description }),
            },
        );
    }
    for kind in problems {
        let status = kind.status().as_str().to_owned();
        let answer = answers.entry(status).or_insert_with(|| {
            let schema = types.subschema_for::<Document>();
            json!({ "description": "", "content": { CONTENT_TYPE: { "schema": schema } } })
        });
        let said = answer["description"].as_str().unwrap_or_default();
        let and = if said.is_empty() { "" } else { "; " };
        answer["description"] = format!("{said}{and}`{}`", kind.uri()).into();
    }
    answers.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    let mut described = json!({ "operationId": name, "summary": summary, "responses": answers });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = asked(operation, question, types) {
        described["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": schema } } });
    }
    if operation.is_open() {
        described["security"] = json!([]);
    }
    described
}

fn parameter(operation: Operation, name: &str) -> Value {
    let text = json!({ "type": "string" });
    let names = |all: &mut dyn Iterator<Item = &'static str>| json!({ "enum": all.collect::<Vec<_>>() });
    let time = || json!({ "type": "string", "format": "date-time" });
    let (schema, why) = match name {
        "account" => {
            (text, "Only records of the account with this alias or id; of one that is removed, the id finds them")
        }
        "event" => (names(&mut Event::ALL.iter().map(|event| event.name())), "Only records of this"),
        "outcome" => (names(&mut Outcome::ALL.iter().map(|outcome| outcome.name())), "Only records of what ended so"),
        "since" => (time(), "Only records of this time or later"),
        "until" => (time(), "Only records before this time"),
        "cursor" if operation == Operation::ListAudit => {
            (json!({ "type": "string", "pattern": "^[0-9]{1,18}$" }), "`next` of the page before")
        }
        "state" => (json!({ "enum": State::ALL.map(State::name) }), "Only accounts in this state"),
        "provider" => (text, "Only accounts of this provider"),
        "search" => (
            json!({ "type": "string", "maxLength": LONGEST_SEARCH }),
            "Only accounts with this in their alias or the user's name, upper and lower case alike",
        ),
        "alias" => (text, "This account only; the other parameters are then not looked at"),
        "cursor" => (json!({ "type": "string", "pattern": "^([0-7][0-9a-f])*$" }), "`next` of the page before"),
        "limit" => (
            json!({ "type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT, "default": USUAL_LIMIT }),
            "How many a page has at most",
        ),
        "verify" => (
            json!({ "type": "boolean", "default": true }),
            "Whether the refresh token is redeemed once, to prove it; if not, `oid` is needed, and for Entra `tid`",
        ),
        _ => (json!({}), ""),
    };
    json!({ "name": name, "in": "query", "schema": schema, "description": why })
}

fn asked(operation: Operation, question: &[Value; 2], types: &mut SchemaGenerator) -> Option<Value> {
    match operation {
        Operation::ImportAccount => Some(of::<Row>(types)),
        Operation::Explain => Some(question[0].clone()),
        _ => None,
    }
}

type Content = Option<(&'static str, Value)>;

/// Status, description and content of what is no problem.
fn answered(
    operation: Operation,
    [_, explanation]: &[Value; 2],
    types: &mut SchemaGenerator,
) -> Vec<(&'static str, &'static str, Content)> {
    let text = |media| Some((media, json!({ "type": "string" })));
    let mut one = |status, description, schema: fn(&mut SchemaGenerator) -> Value| {
        (status, description, Some((JSON, schema(types))))
    };
    match operation {
        Operation::Live => vec![("200", "It lives", text("text/plain; charset=utf-8"))],
        Operation::Ready => {
            vec![one("200", "All of it answers", of::<Report>), one("503", "Not all of it", of::<Report>)]
        }
        Operation::Metrics => vec![("200", "OpenMetrics text", text(metrics::CONTENT_TYPE))],
        Operation::OpenApi => vec![("200", "OpenAPI 3.1", Some((JSON, json!({ "type": "object" }))))],
        Operation::About => vec![one("200", "This server", of::<About>)],
        Operation::ListAccounts => vec![one("200", "A page", of::<Page>)],
        Operation::ImportAccount => vec![
            one("200", "It was imported before: nothing was done", of::<Account>),
            one("201", "It is imported", of::<Account>),
        ],
        Operation::ShowAccount => vec![one("200", "The account", of::<Account>)],
        Operation::RemoveAccount => vec![("204", "It is removed", None)],
        Operation::RefreshAccount => vec![one("200", "The account, refreshed", of::<Account>)],
        Operation::RevokeAccount => vec![one("200", "The account, revoked", of::<Account>)],
        Operation::MakeSigninLink => vec![one("201", "The link", of::<SigninLink>)],
        Operation::ListClients => vec![one("200", "All of them", of::<Clients>)],
        Operation::ListAudit => vec![one("200", "A page", of::<AuditRecords>)],
        Operation::ShowConfig => {
            let said = "As the file has it; `bearerd config schema` describes each key";
            vec![("200", "The configuration", Some((JSON, json!({ "type": "object", "description": said }))))]
        }
        Operation::Explain => vec![("200", "The explanation", Some((JSON, explanation.clone())))],
        Operation::Reload => vec![one("200", "What changed, by the names of keys", of::<Reloaded>)],
    }
}

fn of<T: JsonSchema>(types: &mut SchemaGenerator) -> Value {
    types.subschema_for::<T>().into()
}

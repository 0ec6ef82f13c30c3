//! The configuration as written: the file, then the environment, then the command line, laid over each other in one tree.
//!
//! Each value remembers where it came from. Defaults are not here: a key that nobody wrote is absent. The environment comes as an
//! argument; `environment` is the only place that reads the real one.

use std::collections::BTreeMap;
use std::path::Path;

use super::keys::{FILE, Key, Keys, Kind, find, nearest};
use super::read::Report;
use super::tree::{Node, Origin, Table, Value, from_text, parse};

const PREFIX: &str = "BEARERD_";

/// The first index of `[[clients]]` that the environment can't reach any more.
const MAX_INDEX: usize = 1000;

/// Where the system keeps what nobody needs tomorrow.
pub fn temporary_directory() -> std::path::PathBuf {
    std::env::temp_dir()
}

/// The variables of this process. One that is not UTF-8 is left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The tree of all layers; `None` where the file is not TOML.
pub fn layers(
    file: Option<(&Path, &str)>,
    environment: &BTreeMap<String, String>,
    overrides: &[(String, String)],
    report: &Report,
) -> Option<Table> {
    let mut root = match file.map(|(path, text)| parse(&path.display().to_string(), text)) {
        None => Table::new(),
        Some(Ok(root)) => root,
        Some(Err(mistakes)) => {
            for mistake in mistakes {
                report.add(mistake);
            }
            return None;
        }
    };
    if let Some(filter) = environment.get("RUST_LOG").filter(|filter| !filter.is_empty()) {
        let place = ["log", "level"].map(str::to_owned);
        let _ = put(&mut root, FILE, &place, filter, &Origin::Environment("RUST_LOG".into()), "");
    }
    for (name, text) in environment {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let segments: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        match put(&mut root, FILE, &segments, text, &Origin::Environment(name.clone()), "") {
            Ok(()) => {}
            Err(Refused::Unknown(Some(meant))) => {
                report.warn(format!("{name}: no such key; did you mean {PREFIX}{}?", variable(&meant)));
            }
            Err(Refused::Unknown(None)) => report.warn(format!("{name}: no such key")),
            Err(Refused::Wrong { path, what }) => report.at(path, what, &Origin::Environment(name.clone())),
        }
    }
    for (path, text) in overrides {
        let segments: Vec<String> = path.replace('[', ".").replace(']', "").split('.').map(str::to_owned).collect();
        match put(&mut root, FILE, &segments, text, &Origin::CommandLine, "") {
            Ok(()) => {}
            Err(Refused::Unknown(meant)) => {
                let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
                report.at(path.clone(), format!("no such key{hint}"), &Origin::CommandLine);
            }
            Err(Refused::Wrong { path, what }) => report.at(path, what, &Origin::CommandLine),
        }
    }
    fill_from_azure(&mut root, environment);
    Some(root)
}

/// The environment name of a key path such as `server.listen` or `clients.0.name`.
pub fn variable(path: &str) -> String {
    path.replace('[', ".").replace(']', "").replace('.', "__").replace('-', "_").to_uppercase()
}

/// Why a text found no place in the tree.
enum Refused {
    /// No such key; the one that was probably meant.
    Unknown(Option<String>),
    Wrong {
        path: String,
        what: String,
    },
}

/// Puts `text` where `segments` say, making the tables on the way.
fn put(
    table: &mut Table,
    keys: Keys,
    segments: &[String],
    text: &str,
    origin: &Origin,
    above: &str,
) -> Result<(), Refused> {
    let Some((name, rest)) = segments.split_first() else { return Err(Refused::Unknown(None)) };
    let Some(Key { name, kind, .. }) = find(keys, name) else {
        let meant = nearest(keys, name).map(|name| rest.iter().fold(join(above, name), |path, next| join(&path, next)));
        return Err(Refused::Unknown(meant));
    };
    let path = join(above, name);
    let wrong = |what: String| Refused::Wrong { path: path.clone(), what };
    let (table, inner, rest, path) = match (kind, rest) {
        (Kind::Secret, []) if *origin == Origin::CommandLine => {
            return Err(wrong(format!(
                "a command line is no place for a secret: everyone can list it; use {name}_file"
            )));
        }
        (_, []) => {
            table.insert((*name).to_owned(), from_text(*kind, text, origin).map_err(wrong)?);
            return Ok(());
        }
        (Kind::Table(inner), rest) => (table_at(table, name, origin), inner, rest, path.clone()),
        (Kind::Named(inner), [id, rest @ ..]) => {
            let named = table_at(table, name, origin).ok_or_else(|| wrong("must be a table".into()))?;
            let id = named.keys().find(|known| variable(known) == variable(id)).unwrap_or(id).clone();
            (table_at(named, &id, origin), inner, rest, join(&path, &id))
        }
        (Kind::Tables(inner), [index, rest @ ..]) => {
            let list = table.entry((*name).to_owned()).or_insert_with(|| empty(Value::List(Vec::new()), origin));
            let Value::List(items) = &mut list.value else { return Err(wrong("must be a list of tables".into())) };
            let index: usize = index.parse().map_err(|_| Refused::Unknown(None))?;
            if index >= MAX_INDEX {
                return Err(wrong(format!("an index goes from 0 to {}", MAX_INDEX - 1)));
            }
            while items.len() <= index {
                items.push(empty(Value::Table(Table::new()), origin));
            }
            (as_table(&mut items[index]), inner, rest, format!("{path}[{index}]"))
        }
        _ => return Err(Refused::Unknown(None)),
    };
    let Some(table) = table else { return Err(wrong("must be a table".into())) };
    put(table, inner, rest, text, origin, &path)
}

/// The table of that name, made where there is none; `None` where something else is in its place.
fn table_at<'a>(table: &'a mut Table, name: &str, origin: &Origin) -> Option<&'a mut Table> {
    as_table(table.entry(name.to_owned()).or_insert_with(|| empty(Value::Table(Table::new()), origin)))
}

fn as_table(node: &mut Node) -> Option<&mut Table> {
    match &mut node.value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn empty(value: Value, origin: &Origin) -> Node {
    Node { value, origin: origin.clone() }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

/// What the Azure tools read from the environment fills the providers of kind `entra` that leave it out.
fn fill_from_azure(root: &mut Table, environment: &BTreeMap<String, String>) {
    let Some(Node { value: Value::Table(providers), .. }) = root.get_mut("providers") else { return };
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let text = |name: &str, value: &str| Node {
        value: Value::Text(value.to_owned()),
        origin: Origin::Environment(name.to_owned()),
    };
    for provider in providers.values_mut() {
        let Value::Table(provider) = &mut provider.value else { continue };
        if !is_entra(provider) {
            continue;
        }
        for (key, name) in [("tenant", "AZURE_TENANT_ID"), ("client_id", "AZURE_CLIENT_ID")] {
            if let (None, Some(value)) = (provider.get(key), set(name)) {
                provider.insert(key.to_owned(), text(name, value));
            }
        }
        if !provider.contains_key("authority")
            && !provider.contains_key("cloud")
            && let Some(host) = set("AZURE_AUTHORITY_HOST")
        {
            let url = if host.contains("://") { host.clone() } else { format!("https://{host}") };
            provider.insert("authority".to_owned(), text("AZURE_AUTHORITY_HOST", &url));
        }
        if !provider.contains_key("credentials") {
            let mut credentials = Vec::new();
            for (name, keys) in AZURE_CREDENTIALS {
                if let Some(value) = set(name) {
                    let entry = keys.iter().map(|key| ((*key).to_owned(), text(name, value))).collect();
                    credentials.push(empty(Value::Table(entry), &Origin::Environment((*name).to_owned())));
                }
            }
            if let Some(first) = credentials.first() {
                let origin = first.origin.clone();
                provider.insert("credentials".to_owned(), Node { value: Value::List(credentials), origin });
            }
        }
    }
}

/// `entra` is the kind of a provider that names none.
fn is_entra(provider: &Table) -> bool {
    match provider.get("kind").map(|node| &node.value) {
        None => true,
        Some(Value::Text(kind)) => kind == "entra",
        Some(_) => false,
    }
}

/// One PEM file holds the certificate and its key there.
const AZURE_CREDENTIALS: &[(&str, &[&str])] = &[
    ("AZURE_CLIENT_SECRET", &["secret"]),
    ("AZURE_CLIENT_CERTIFICATE_PATH", &["certificate_file", "key_file"]),
    ("AZURE_FEDERATED_TOKEN_FILE", &["federated_token_file"]),
];

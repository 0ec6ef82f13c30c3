//! The layering of the house: a module uses lower layers only, and foreign crates have homes.
//!
//! Reads the text of `src/`, so that a breach is named with its file and line before anyone has to think about it.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by height. Rooms of one layer don't enter each other, but for the words and the shell.
const LAYERS: [&[&str]; 6] = [
    &["account", "audit", "claims", "clock", "fault", "hosts", "metrics", "process", "secret", "tasks", "tls"],
    &["config", "graph"],
    &["oauth", "store", "traces"],
    &["vault"],
    &["proxy", "signin", "admin"],
    &["app", "cli", "server", "front", "sandbox", "telemetry", "main"],
];

/// Where a foreign crate may be named, and nowhere else.
const HOMES: &[(&str, &[&str])] = &[
    ("reqwest::", &["oauth"]),
    ("rusqlite::", &["store"]),
    ("std::env::", &["config", "fault"]),
    ("anyhow::", &["main", "cli"]),
];

/// What is wrong with one file of the room, each as `line: rule`.
fn breaches(room: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for used in rooms_named(if room == "main" { "bearerd::" } else { "crate::" }, code, text) {
            if let Some(rule) = forbidden(room, &used) {
                found.push((at + 1, rule));
            }
        }
        for (path, homes) in HOMES {
            let named = code.match_indices(path).any(|(start, _)| !continues_a_name(code, start));
            if named && !homes.contains(&room) {
                found.push((at + 1, format!("{path} is used in {} only", homes.join(" and "))));
            }
        }
    }
    found
}

/// The rooms after each `crate::` (in the binary: `bearerd::`), `crate::{a, b}` included.
fn rooms_named(prefix: &str, code: &str, whole: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (start, _) in code.match_indices(prefix) {
        let rest = &code[start + prefix.len()..];
        if continues_a_name(code, start) {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(_) => rooms.extend(group(code, whole)),
            None => rooms.push(name_at(rest)),
        }
    }
    rooms
}

/// The first names of `use crate::{a::b, c};`, which may go over several lines.
fn group(line: &str, whole: &str) -> Vec<String> {
    let start = whole.find(line).unwrap_or_default();
    let inside = whole[start..].split_once('{').map(|(_, inside)| inside).unwrap_or_default();
    let mut names = vec![name_at(inside.trim_start())];
    let mut depth = 0_usize;
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name_at(inside[at + 1..].trim_start())),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn continues_a_name(code: &str, start: usize) -> bool {
    code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
}

/// The rule that `room` breaks by naming `used`.
fn forbidden(room: &str, used: &str) -> Option<String> {
    let layer = |name: &str| LAYERS.iter().position(|rooms| rooms.contains(&name));
    let (from, to) = (layer(room)?, layer(used)?);
    if room == used {
        None
    } else if to > from {
        Some(format!("{room} (layer {from}) can't use {used} (layer {to}): a module uses lower layers only"))
    } else if to == from && (1..=4).contains(&from) {
        Some(format!("{room} and {used} are of one layer and never import each other"))
    } else {
        None
    }
}

/// The room that a file belongs to: `src/proxy/caller.rs` and `src/proxy.rs` are both `proxy`.
fn room_of(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).expect("a file under src");
    let first = inside.components().next().expect("a file has a name");
    Path::new(&first).with_extension("").display().to_string()
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_room_keeps_to_its_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 10, "the sources are in {}", root.display());
    let mut wrong = Vec::new();
    for file in files {
        let name = room_of(&root, &file);
        let known = LAYERS.iter().any(|rooms| rooms.contains(&name.as_str()));
        if !known && name != "lib" {
            wrong.push(format!("{}: {name} has no layer; give it one in tests/it/layers.rs", file.display()));
        }
        let text = fs::read_to_string(&file).expect("a readable source");
        let breaches = breaches(&name, &text);
        wrong.extend(breaches.into_iter().map(|(line, rule)| format!("{}:{line}: {rule}", file.display())));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_breach_is_found_with_its_line() {
    let of = |room: &str, text: &str| breaches(room, text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(of("store", "use a;\nuse crate::oauth::Class;"), [2]);
    assert_eq!(of("oauth", "fn f() { crate::vault::lease() }"), [1]);
    assert_eq!(of("signin", "use crate::{\n    config,\n    proxy::Peer,\n};"), [1]);
    assert_eq!(of("vault", "use crate::{clock::{Clock, Moment}, admin};"), [1]);
    assert_eq!(of("proxy", "let client = reqwest::Client::new();"), [1]);
    assert_eq!(of("server", "std::env::var(name)"), [1]);
    assert_eq!(of("vault", "anyhow::bail!()"), [1]);
}

#[test]
fn what_is_allowed_passes() {
    let passes = |room: &str, text: &str| assert_eq!(breaches(room, text), [], "{room}: {text}");
    passes("vault", "use crate::{oauth, store::Store};");
    passes("proxy", "// like crate::signin, but faster");
    passes("store", "use crate::store::seal; use rusqlite::params;");
    passes("account", "use crate::clock::Timestamp;");
    passes("app", "use crate::server; use crate::cli::Source;");
    passes("oauth", "use my_crate::vault; let a = reqwest::Client::new();");
    passes("main", "bearerd::cli::run()");
}

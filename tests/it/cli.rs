//! The binary as a user meets it: what is printed where, and the exit codes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use sha2::{Digest as _, Sha256};

/// Runs the binary in `directory`, with nothing of this process's environment.
pub fn bearerd(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .output()
        .expect("the binary runs")
}

pub fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

pub fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

const MINIMAL: &str = include_str!("../../config/minimal.toml");

#[test]
fn check_finds_the_file_and_sums_up() {
    let home = directory();
    std::fs::write(home.path().join("bearerd.toml"), MINIMAL).expect("a file");
    let output = bearerd(home.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).starts_with("configuration ok: bearerd.toml\n"), "{}", out(&output));
    assert!(out(&output).contains("graph: https://graph.microsoft.com"), "{}", out(&output));
}

#[test]
fn check_prints_every_mistake_and_exits_with_64() {
    let home = directory();
    std::fs::write(home.path().join("b.toml"), "[server]\nlisten = 1\nworkers = -1\n[logs]\n").expect("a file");
    let output = bearerd(home.path(), &["check", "--config", "b.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(out(&output), "");
    for said in [
        "server.listen: ",
        "server.workers: ",
        "logs: no such key; did you mean log?",
        "providers: ",
        "b.toml: 4 mistakes",
    ] {
        assert!(err(&output).contains(said), "{said:?} in {}", err(&output));
    }
}

#[test]
fn no_file_is_said_so() {
    let output = bearerd(directory().path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).contains("no configuration file: neither bearerd.toml nor"), "{}", err(&output));
    let output = bearerd(directory().path(), &["check", "--config", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).contains("nowhere.toml: there is no such file"), "{}", err(&output));
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["check", "--nonsense"][..],
        &["frobnicate"],
        &[],
        &["check", "--set", "x"],
        &["clients", "new", ""],
        &["login", "--link"],
        &["login", "--account", "a b", "--link"],
    ] {
        let output = bearerd(directory().path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn a_new_client_gets_a_key_and_an_entry_that_fit_together() {
    let output = bearerd(directory().path(), &["clients", "new", "pay\"roll", "--account", "alice"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let key = out(&output).split_whitespace().find(|word| word.starts_with("bk_")).expect("a key");
    assert_eq!(key.len(), "bk_".len() + 43);
    let (_, stanza) = out(&output).split_once("[[clients]]").expect("an entry");
    let stanza: toml::Table = toml::from_str(&format!("[[clients]]{stanza}")).expect("the entry is TOML");
    let client = &stanza["clients"][0];
    let digest = format!("{:x}", Sha256::digest(key));
    assert_eq!(client["key_hash"].as_str(), Some(&*format!("sha256:{digest}")));
    assert_eq!(client["name"].as_str(), Some("pay\"roll"));
    assert!(!stanza.to_string().contains(key));

    let again = bearerd(directory().path(), &["clients", "new", "payroll", "--format", "json"]);
    let again: serde_json::Value = serde_json::from_str(out(&again)).expect("JSON");
    assert_ne!(again["key"], key);
    assert_eq!(again["name"], "payroll");
}

#[test]
fn a_generated_key_is_private_and_never_overwritten() {
    let home = directory();
    let path = home.path().join("store.key");
    let output = bearerd(home.path(), &["keys", "generate", "store.key"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&path).expect("a key");
    assert_eq!(key.trim_end().len(), 44);
    let output = bearerd(home.path(), &["keys", "generate", "store.key"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("store.key exists"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(&path).expect("a key"), key);
    assert_ne!(out(&bearerd(home.path(), &["keys", "generate"])), key);
}

#[test]
fn the_configuration_prints_in_both_forms() {
    let home = directory();
    std::fs::write(home.path().join("bearerd.toml"), MINIMAL).expect("a file");
    let output = bearerd(home.path(), &["config", "print", "--set", "log.level=debug"]);
    assert!(out(&output).contains("level = \"debug\" # from the command line"), "{}", out(&output));
    let output = bearerd(home.path(), &["config", "print", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(out(&output)).expect("JSON");
    assert_eq!(json["server"]["limits"]["requests"], 1024);
    let output = bearerd(home.path(), &["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(out(&output)).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn version_and_completions() {
    let home = directory();
    assert!(out(&bearerd(home.path(), &["version"])).starts_with("bearerd 0."));
    let version = bearerd(home.path(), &["version", "--format", "json"]);
    let version: serde_json::Value = serde_json::from_str(out(&version)).expect("JSON");
    assert_eq!(version["name"], "bearerd");
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&bearerd(home.path(), &["completions", shell])).contains("accounts"), "{shell}");
    }
}

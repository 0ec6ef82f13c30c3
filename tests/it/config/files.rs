//! The files that a configuration names: secrets, certificates, keys.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bearerd::config::AppCredential;

use super::{MINIMAL, bad, good, load};

#[test]
fn secrets_from_files() {
    let home = directory();
    let text = |path: &Path| format!("{MINIMAL}[admin]\nlisten = \"0.0.0.0:1\"\ntoken_file = {path:?}");
    let token = good(&text(&file(&home, "good", "hunter2-of-operators\n", 0o600))).config.admin.token.expect("a token");
    assert_eq!(token.expose(), "hunter2-of-operators");
    let marked = good(&text(&file(&home, "marked", "\u{feff}hunter2-of-operators\r\n", 0o600)))
        .config
        .admin
        .token
        .expect("a token");
    assert_eq!(marked.expose(), "hunter2-of-operators", "what an editor adds is no part of it");
    let grouped = good(&text(&file(&home, "grouped", "hunter2-of-operators", 0o440)));
    assert!(grouped.warnings[0].contains("grouped: its group can access it (mode 440)"), "{:?}", grouped.warnings);
    let cases = [
        (file(&home, "open", "hunter2-of-operators", 0o644), "open: everyone can access it (mode 644)"),
        (file(&home, "empty", "\n", 0o600), "empty: is empty"),
        (home.path().join("nowhere"), "nowhere: there is no such file"),
        (home.path().join("."), "is a directory"),
    ];
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    for (path, expected) in cases {
        let mistakes = bad(&text(&path));
        assert!(mistakes.starts_with("admin.token_file: ") && mistakes.contains(expected), "{mistakes}");
        assert!(!mistakes.contains("hunter2-of-operators"), "{mistakes}");
    }
    let both =
        format!("{}\ntoken = \"hunter2-of-operators\"", text(&file(&home, "good", "hunter2-of-operators", 0o600)));
    assert!(bad(&both).starts_with("admin.token: give either token or token_file, not both"), "{}", bad(&both));
    let both = format!("{MINIMAL}[store]\nkey = \"hunter2-of-operators\"\nkey_file = \"x\"");
    assert!(bad(&both).starts_with("store.key: give either key or key_file, not both"), "{}", bad(&both));
}

#[test]
fn certificates_and_keys_are_read_and_belong_together() {
    let home = directory();
    let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (ours, other) = (pair("localhost"), pair("other"));
    let cert = file(&home, "cert.pem", &ours.cert.pem(), 0o644);
    let key = file(&home, "key.pem", &ours.signing_key.serialize_pem(), 0o600);
    let other_key = file(&home, "other.pem", &other.signing_key.serialize_pem(), 0o600);
    let open_key = file(&home, "open.pem", &ours.signing_key.serialize_pem(), 0o604);
    let junk = file(&home, "junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600);
    let text = |cert: &Path, key: &Path| {
        format!(
            "{MINIMAL}[server]\nlisten = \"0.0.0.0:443\"\ntls = {{ cert_file = {cert:?}, key_file = {key:?}, client_ca_file = {cert:?} }}"
        )
    };
    let config = good(&text(&cert, &key)).config;
    assert_eq!(config.server.public_url.as_str(), "https://localhost/");
    assert!(config.server.tls.expect("TLS").cert_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    for (text, expected) in [
        (text(&cert, &other_key), "server.tls.key_file: "),
        (text(&cert, &open_key), "server.tls.key_file: "),
        (text(&cert, &cert), "server.tls.key_file: "),
        (text(&key, &key), "server.tls.cert_file: "),
        (text(&junk, &key), "server.tls.cert_file: "),
    ] {
        assert!(bad(&text).lines().any(|line| line.starts_with(expected)), "{}", bad(&text));
    }

    // Azure's way: one file with both.
    let both = file(&home, "both.pem", &format!("{}{}", ours.signing_key.serialize_pem(), ours.cert.pem()), 0o600);
    let environment = [("AZURE_CLIENT_CERTIFICATE_PATH", both.to_str().expect("UTF-8"))];
    let config = load(MINIMAL, &environment, &[]).expect("good").config;
    let [AppCredential::Certificate { cert_pem, key_pem }] = &config.providers["entra"].credentials[..] else {
        panic!()
    };
    assert!(!cert_pem.contains("PRIVATE") && key_pem.expose().contains("PRIVATE"));
}

/// A file of that content and mode.
fn file(directory: &tempfile::TempDir, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    path
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

//! `bearerd init` from outside: what it writes is what `check` accepts, what it prints a shell understands, and nothing is lost.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::cli::{bearerd, err, out};

const TENANT: &str = "contoso.onmicrosoft.com";
const APP: &str = "11111111-2222-3333-4444-555555555555";

/// All five questions answered by flags.
fn init(home: &Path, credential: &str, place: &str, more: &[&str]) -> Output {
    let usual = ["init", "--tenant", TENANT, "--credential", credential, "--place", place];
    bearerd(home, &[&usual[..], more].concat())
}

fn written(home: &Path) -> toml::Table {
    toml::from_str(&std::fs::read_to_string(home.join("bearerd.toml")).expect("a file")).expect("TOML")
}

/// The files that steps of the registration make.
fn make_secrets(home: &Path) {
    let private = |name: &str, text: &str| {
        std::fs::write(home.join(name), text).expect("a file");
        std::fs::set_permissions(home.join(name), std::fs::Permissions::from_mode(0o600)).expect("its mode");
    };
    let made = rcgen::generate_simple_self_signed(["bearerd".to_owned()]).expect("a certificate");
    private("client-secret", "s3cret\n");
    private("app.crt", &made.cert.pem());
    private("app.key", &made.signing_key.serialize_pem());
}

#[test]
fn check_accepts_what_it_writes() {
    let may = ["--may", "read-mail,send-mail,Tasks.Read"];
    for credential in ["secret", "certificate", "managed-identity", "federated", "none"] {
        for (place, url) in [("here", None), ("container", None), ("behind-tls", Some("https://graph.contoso.com"))] {
            for client_id in [APP, ""] {
                let home = tempfile::tempdir().expect("a directory");
                let mut more = vec!["--client-id", client_id, may[0], may[1]];
                more.extend(url.iter().flat_map(|url| ["--public-url", url]));
                let output = init(home.path(), credential, place, &more);
                assert_eq!(output.status.code(), Some(0), "{credential} {place}: {}", err(&output));
                make_secrets(home.path());
                let file = written(home.path());
                let scopes = ["User.Read", "Mail.Read", "Mail.Send", "Tasks.Read"].map(toml::Value::from).to_vec();
                assert_eq!(file["upstreams"]["graph"]["scopes"].as_array(), Some(&scopes));
                let public = file["server"]["public_url"].as_str().expect("an address");
                assert_eq!(public, url.unwrap_or("http://localhost:8080"));
                assert!(out(&output).contains(&format!("{public}/v1.0/me")), "{}", out(&output));

                // Where its files are elsewhere, they are all that is missing.
                let missing: &[&str] = match (credential, place) {
                    ("secret", "container" | "behind-tls") => &["secret_file"],
                    ("certificate", "container" | "behind-tls") => &["certificate_file", "key_file"],
                    _ => &[],
                };
                let check = bearerd(home.path(), &["check"]);
                let said: Vec<&str> = err(&check).lines().filter(|line| line.contains(": ")).collect();
                let files = missing.iter().all(|key| err(&check).contains(&format!("credentials[0].{key}: /")));
                assert!(files, "{credential} {place}: {}", err(&check));
                let expected = if missing.is_empty() { 0 } else { 64 };
                assert_eq!(check.status.code(), Some(expected), "{credential} {place}: {said:?}");
                if !missing.is_empty() {
                    let count =
                        if missing.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", missing.len()) };
                    assert!(err(&check).contains(&count), "{}", err(&check));
                    assert!(out(&output).contains(missing[0]), "what is left to do is said: {}", out(&output));
                }
            }
        }
    }
}

/// A shell runs the printed commands with programs that write down how they were called.
#[test]
fn the_printed_commands_are_a_shell_script() {
    for credential in ["secret", "certificate", "managed-identity", "federated", "none"] {
        let home = tempfile::tempdir().expect("a directory");
        let output = init(home.path(), credential, "here", &["--client-id", "", "--may", "files", "--yes"]);
        assert_eq!(output.status.code(), Some(2), "files is no word of ours: {}", err(&output));
        let output = init(home.path(), credential, "here", &["--client-id", "", "--may", "Tasks.Read"]);
        let commands: Vec<&str> = out(&output).lines().filter(|line| line.starts_with("       ")).collect();
        let script = commands.join("\n");
        for program in ["az", "openssl"] {
            let path = home.path().join(program);
            let text = format!("#!/bin/sh\nprintf '[%s]' {program} \"$@\" >> calls; echo >> calls; echo id-of-az\n");
            std::fs::write(&path, text).expect("a program");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
        }
        let mut shell = Command::new("/bin/sh");
        let ran = shell.args(["-euc", &script]).current_dir(home.path()).env_clear().env("PATH", home.path());
        let ran = ran.output().expect("a shell");
        assert_eq!((ran.status.code(), err(&ran)), (Some(0), ""), "{script}");
        let calls = std::fs::read_to_string(home.path().join("calls")).expect("calls");
        let uris = if credential == "none" { "--public-client-redirect-uris" } else { "--web-redirect-uris" };
        for call in [
            "[az][login][--allow-no-subscriptions][--tenant][contoso.onmicrosoft.com]\n",
            &format!("[--sign-in-audience][AzureADMyOrg][{uris}][http://localhost/.bearerd/callback/entra]"),
            "[--api-permissions][37f7f235-527c-4136-accd-4a02d197296e=Scope]",
            "[e1fe6dd8-ba31-4d61-89e7-88639da4683d=Scope][id-of-az=Scope]\n",
            "[--query][oauth2PermissionScopes[?value=='Tasks.Read'].id]",
            "[az][ad][app][permission][admin-consent][--id][id-of-az]\n",
        ] {
            assert!(calls.contains(call), "{credential}: {call} in {calls}");
        }
        let proof = match credential {
            "secret" => "[az][ad][app][credential][reset][--id][id-of-az][--append]",
            "certificate" => "[--append][--cert][@./app.crt]\n",
            "managed-identity" => {
                "\"issuer\": \"https://login.microsoftonline.com/id-of-az/v2.0\", \"subject\": \"id-of-az\""
            }
            "federated" => "\"subject\": \"system:serviceaccount:NAMESPACE:SERVICEACCOUNT\"",
            _ => "[--is-fallback-public-client][true]",
        };
        assert!(calls.contains(proof), "{credential}: {proof} in {calls}");
        if credential == "secret" {
            let file = home.path().join("client-secret");
            assert_eq!(file.metadata().expect("the secret").permissions().mode() & 0o777, 0o600);
            let check = bearerd(home.path(), &["check"]);
            assert_eq!(check.status.code(), Some(0), "{}", err(&check));
        }
    }
}

#[test]
fn an_application_that_exists_is_updated() {
    let home = tempfile::tempdir().expect("a directory");
    let url = "https://graph.contoso.com";
    let output =
        init(home.path(), "secret", "behind-tls", &["--client-id", APP, "--may", "send-mail", "--public-url", url]);
    let text = out(&output);
    assert!(!text.contains("az ad app create"), "{text}");
    assert!(text.contains(&format!("APP_ID={APP}\n")), "{text}");
    let uris = "--web-redirect-uris https://graph.contoso.com/.bearerd/callback/entra http://localhost/.bearerd/callback/entra";
    assert!(text.contains(uris), "{text}");
    assert_eq!(written(home.path())["providers"]["entra"]["client_id"].as_str(), Some(APP));
}

#[test]
fn a_file_that_exists_is_overwritten_by_force_only() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("bearerd.toml");
    std::fs::write(&path, "# mine\n").expect("a file");
    let output = bearerd(home.path(), &["init", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("bearerd.toml exists and is left as it is"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "# mine\n");
    assert_eq!(bearerd(home.path(), &["init", "--yes", "--force"]).status.code(), Some(0));
    assert_eq!(written(home.path())["providers"]["entra"]["tenant"].as_str(), Some("organizations"));
    let output = bearerd(home.path(), &["init", "--yes", "--config", "other.toml"]);
    assert!(out(&output).contains("bearerd serve --config other.toml"), "{}", out(&output));
    assert!(home.path().join("other.toml").exists());
}

#[test]
fn without_a_terminal_the_missing_flag_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let output = bearerd(home.path(), &["init", "--tenant", TENANT, "--place", "here", "--may", "read-mail"]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    assert!(err(&output).contains("--client-id is needed, or --yes"), "{}", err(&output));
    let output = init(home.path(), "none", "behind-tls", &["--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    assert!(err(&output).contains("--public-url is needed"), "{}", err(&output));
    for wrong in
        [["--tenant", "a/b"], ["--client-id", "<id>"], ["--may", "mail"], ["--public-url", "http://x.example.com"]]
    {
        let output = bearerd(home.path(), &[&["init", "--yes"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    assert!(!home.path().join("bearerd.toml").exists());
}

#[test]
fn every_verb_has_a_manual_page() {
    let home = tempfile::tempdir().expect("a directory");
    let output = bearerd(home.path(), &["man"]);
    assert!(out(&output).contains(".TH bearerd 1"), "{}", out(&output));
    let output = bearerd(home.path(), &["man", "--dir", "."]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for page in ["bearerd.1", "bearerd-init.1", "bearerd-serve.1", "bearerd-accounts-import.1"] {
        assert!(home.path().join(page).exists(), "{page}");
    }
    let output = bearerd(home.path(), &["man", "--dir", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("nowhere: "), "{}", err(&output));
}

//! list, show, refresh, revoke, remove: what they print, what they do, and the exit codes.

use std::process::Stdio;
use std::time::Duration;

use bearerd::claims::Claims;
use bearerd::config::{Listen, Rotation};
use bearerd::sandbox::{Effect, Fault, Gate, TokenFault};
use bearerd::store::{Claim, Failure, FailureKind, TicketKind};
use bearerd::tasks::spawn_here;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::house::{House, bearerd, start};
use crate::harness::within;

/// Alice is well, Bob's grant is dead, the third is revoked.
async fn three() -> House {
    let house = House::new();
    house.import(&[house.row("alice"), house.row("bob"), house.row("carol")]).await.assert(0);
    house.sandbox.faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50173))).for_user("bob"));
    house.accounts(&["refresh", "bob"]).await.assert(1);
    house.accounts(&["revoke", "carol"]).await.assert(0);
    house.sandbox.entra.clear();
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_for_people_and_one_for_programs() {
    let house = three().await;
    let done = house.accounts(&["list"]).await;
    let lines: Vec<Vec<&str>> = done.assert(0).out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ALIAS", "STATUS", "PROVIDER", "REFRESHED", "WHY"]);
    let starts: Vec<&[&str]> = lines[1..].iter().map(|line| &line[..3]).collect();
    assert_eq!(starts, [["alice", "active", "entra"], ["bob", "reauth", "entra"], ["carol", "revoked", "entra"]]);
    assert!(lines[2].contains(&"AADSTS50173"), "{}", done.out);
    assert_eq!(done.err, "");

    let done = house.accounts(&["list", "--format", "json"]).await;
    let listed: Vec<Value> = serde_json::from_str(&done.assert(0).out).expect("JSON");
    let states: Vec<_> = listed.iter().map(|account| (account["alias"].as_str(), account["status"].as_str())).collect();
    assert_eq!(
        states,
        [(Some("alice"), Some("active")), (Some("bob"), Some("reauth")), (Some("carol"), Some("revoked"))]
    );
    assert!(house.sandbox.entra.token_requests().is_empty(), "looking asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_says_how_to_fill_it() {
    let house = House::new();
    assert!(house.accounts(&["list"]).await.assert(0).out.contains("bearerd login"));
    assert_eq!(house.accounts(&["list", "--format", "json"]).await.assert(0).out, "[]\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_in_detail() {
    let house = three().await;
    let alice = house.show("alice").await;
    let user = house.sandbox.entra.user("alice").expect("a user");
    for (field, value) in [
        ("alias", json!("alice")),
        ("provider", json!("entra")),
        ("tenant", json!(house.sandbox.entra.options().tenant)),
        ("subject", json!(user.oid)),
        ("username", json!(user.mail)),
        ("status", json!("active")),
        ("reason", json!(null)),
        ("epoch", json!(1)),
        ("version", json!(1)),
        ("next_try", json!(null)),
    ] {
        assert_eq!(alice[field], value, "{field}");
    }
    assert!(alice["id"].as_str().is_some_and(|id| id.len() == 32), "{alice:#}");
    let text = house.accounts(&["show", "alice"]).await;
    for row in ["alias        alice\n", "status       active\n", "access token expires 20", &user.oid] {
        assert!(text.assert(0).out.contains(row), "{row:?} in {}", text.out);
    }

    let bob = house.show("bob").await;
    assert_eq!((&bob["status"], &bob["reason"]["dead"]), (&json!("reauth"), &json!(true)));
    let text = house.accounts(&["show", "bob"]).await;
    for row in ["because      AADSTS50173 invalid_grant", "mend         bearerd login --account bob --link\n"] {
        assert!(text.assert(0).out.contains(row), "{row:?} in {}", text.out);
    }
    let revoked = house.show("carol").await;
    assert_eq!((&revoked["status"], &revoked["access_tokens"]), (&json!("revoked"), &json!([])));
    let done = house.accounts(&["show", "nobody"]).await;
    assert_eq!(
        done.assert(1).err,
        "error: there is no account \"nobody\"; `bearerd accounts list` shows those that there are\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_presents_the_token_now_and_says_why_not() {
    let house = three().await;
    let done = house.accounts(&["refresh", "alice"]).await;
    assert_eq!(done.assert(0).out, "alice is refreshed; status active\n");
    assert_eq!(house.show("alice").await["version"], 2);
    assert_eq!(house.sandbox.entra.token_requests().len(), 1);

    let done = house.accounts(&["refresh", "bob"]).await;
    assert!(done.assert(1).err.contains("has to be signed in again: AADSTS50173"), "{}", done.err);
    let done = house.accounts(&["refresh", "carol"]).await;
    assert!(done.assert(1).err.contains("revoked"), "{}", done.err);
    house.accounts(&["refresh", "nobody"]).await.assert(1);
    assert_eq!(house.sandbox.entra.token_requests().len(), 1, "what is dead is presented never again");

    house.sandbox.faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50076))));
    house.accounts(&["refresh", "alice"]).await.assert(1);
    assert_eq!(house.show("alice").await["reason"]["dead"], false);
    house.accounts(&["refresh", "alice"]).await.assert(0);
    assert_eq!(house.show("alice").await["status"], "active", "revived");

    house.sandbox.faults().push(Fault::token(Effect::html(429, Some("77"))));
    let done = house.accounts(&["refresh", "alice"]).await;
    assert!(done.assert(1).err.contains("the provider is unavailable"), "{}", done.err);
    assert!(house.show("alice").await["next_try"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_sign_in_is_shown_with_its_reason() {
    let house = House::new();
    house.import(&[house.row("alice"), house.row("bob")]).await.assert(0);
    assert_eq!(house.show("bob").await["parked"], json!([]));
    house.sandbox.faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50076))));
    house.accounts(&["refresh", "alice"]).await.assert(1);
    let store = house.store().await;
    let grant = store.find("alice").await.expect("a store").expect("an account");
    let claims = Claims::parse(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#);
    let (epoch, lease) = (grant.epoch, Duration::from_secs(25));
    let claim = store.claim(&grant.key, epoch, grant.version, lease, Rotation::Tolerant).await.expect("a store");
    let Claim::Claimed { fence, fingerprint: presented, .. } = claim else { panic!("{claim:?}") };
    let text = "AADSTS53003: blocked by policy".to_owned();
    let kind = FailureKind::Park { scope_set: "Files.Read".into(), asked: claims.clone(), text, claims: None };
    let failure = Failure { key: grant.key, epoch, presented, fence, kind };
    store.fail(failure, Rotation::Tolerant).await.expect("a store");

    let shown = house.show("alice").await;
    assert_eq!((&shown["status"], &shown["reason"]["dead"]), (&json!("reauth"), &json!(false)));
    let [plain, challenged] = shown["parked"].as_array().expect("a list").as_slice() else { panic!("{shown:#}") };
    assert_eq!(
        (&plain["scopes"], &plain["claims"]),
        (&json!("Files.ReadWrite Mail.ReadWrite Mail.Send User.Read"), &json!(null))
    );
    assert_eq!(plain["text"], shown["reason"]["text"]);
    assert_eq!(
        (&challenged["scopes"], &challenged["claims"]),
        (&json!("Files.Read"), &json!(claims.map(|it| it.to_string())))
    );
    let text = house.accounts(&["show", "alice"]).await;
    for row in [
        "status       reauth\n",
        "because      AADSTS50076",
        "mend         bearerd login --account alice --link\n",
        "waiting      Files.ReadWrite Mail.ReadWrite Mail.Send User.Read, since 20",
        "waiting      Files.Read when a claims challenge is answered, since 20",
        "Z: AADSTS53003: blocked by policy\n",
    ] {
        assert!(text.assert(0).out.contains(row), "{row:?} in {}", text.out);
    }
    let listed = house.accounts(&["list"]).await;
    let alice = listed.assert(0).out.lines().nth(1).expect("a line");
    assert!(alice.starts_with("alice  reauth") && alice.contains("AADSTS50076"), "{alice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_erases_the_tokens_and_keeps_the_account() {
    let house = three().await;
    let done = house.accounts(&["revoke", "alice"]).await;
    assert!(done.assert(0).out.starts_with("alice is revoked"), "{}", done.out);
    house.accounts(&["revoke", "alice"]).await.assert(0);
    assert_eq!(house.show("alice").await["status"], "revoked");
    house.accounts(&["revoke", "nobody"]).await.assert(1);
    house.import(&[house.row("alice")]).await.assert(0);
    assert_eq!(house.show("alice").await["status"], "active", "a new sign-in mends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_asks_first_and_leaves_nothing_to_show() {
    let house = three().await;
    let done = house.accounts(&["remove", "alice"]).await;
    assert!(done.assert(1).err.contains("--yes"), "{}", done.err);
    assert_eq!(house.show("alice").await["status"], "active");
    assert_eq!(house.accounts(&["remove", "alice", "--yes"]).await.assert(0).out, "alice is removed\n");
    house.accounts(&["show", "alice"]).await.assert(1);
    house.accounts(&["remove", "alice", "--yes"]).await.assert(1);
    house
        .import(&[
            json!({ "alias": "other", "provider": "entra", "refresh_token": house.grant("alice").refresh_token }),
        ])
        .await
        .assert(0);
    assert_eq!(house.show("other").await["epoch"], 3, "its counters never go back");
}

/// T406.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_link_is_bound_to_the_account_if_there_is_one() {
    let house = House::new();
    house.import(&[house.row("alice")]).await.assert(0);
    for (alias, account) in [("alice", json!(house.grant("alice").oid)), ("newcomer", Value::Null)] {
        let done = bearerd(house.path("").as_path(), &["login", "--account", alias, "--link"]).await;
        let link = done.assert(0).out.split_once("?invite=").expect("a link").1;
        let store = house.store().await;
        let payload = store.read_ticket(TicketKind::Invite, link.trim()).await.expect("a store").expect("a link");
        let payload: Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!((&payload["alias"], &payload["account"]["subject"]), (&json!(alias), &account));
    }
}

/// What a verb that holds tokens leaves in a core dump: nothing, there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_holds_tokens_leaves_no_core_dump() {
    let house = House::new();
    house.import(&[house.row("alice")]).await.assert(0);
    for arguments in
        [&["accounts", "refresh", "alice"][..], &["check", "--online"], &["login", "--account", "alice", "--device"]]
    {
        let gate = Gate::shut();
        house.sandbox.faults().push(Fault::token(Effect::Hold(gate.clone())));
        let mut command = start(house.path("").as_path(), arguments);
        let running = command.stdout(Stdio::null()).spawn().expect("the binary runs");
        gate.arrived(1).await;
        let id = running.id().expect("it waits at the gate");
        let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("it lives");
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("the limit");
        assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{arguments:?}");
        gate.open();
        house.sandbox.faults().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_their_exit_codes() {
    let house = House::new();
    house.accounts(&[]).await.assert(2);
    house.accounts(&["show"]).await.assert(2);
    house.accounts(&["list", "--format", "xml"]).await.assert(2);
    house.import(&[house.row("alice")]).await.assert(0);
    std::fs::write(house.path("store.key"), format!("{}\n", "A".repeat(43) + "=")).expect("a file");
    let done = house.accounts(&["list"]).await;
    assert!(done.assert(1).err.contains("store.key"), "{}", done.err);
    std::fs::write(house.path("bearerd.toml"), "[store]\npath = 7\n").expect("a file");
    let done = house.accounts(&["list"]).await;
    assert!(done.assert(64).err.contains("store.path: "), "{}", done.err);
    let nowhere = tempfile::tempdir().expect("a directory");
    bearerd(nowhere.path(), &["accounts", "list"]).await.assert(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_tries_each_credential_by_itself() {
    let house = House::new();
    let file = house.path("bearerd.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let good = text.lines().find(|line| line.trim().starts_with("credentials")).expect("a credential").to_owned();
    let both = good.replacen('[', "[ { secret = \"not-the-secret\" }, ", 1);
    std::fs::write(&file, text.replace(&good, &both)).expect("a file");
    let directory = file.parent().expect("a directory");
    let done = bearerd(directory, &["check", "--online"]).await;
    done.assert(1);
    let said = |key: &str| done.out.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{}", done.out));
    let first = said("providers.entra.credentials[0]");
    assert!(
        first.contains("FAILED") && first.contains("AADSTS7000215") && !first.contains("not-the-secret"),
        "{first}"
    );
    let second = said("providers.entra.credentials[1]");
    assert!(second.contains("ok ") && second.ends_with("accepted"), "{second}");
}

/// A server that ends withdraws its address before it leaves it: whoever listens there next gets no token, though that server
/// still lives and its name is known to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_withdrawn_while_somebody_asks_gets_no_token() {
    for withdrawn in [false, true] {
        let house = House::new();
        house.import(&[house.row("alice")]).await.assert(0);
        let text = std::fs::read_to_string(house.path("bearerd.toml")).expect("a file");
        let text = format!("{text}\n[admin]\ntoken = \"letmein-letmein-letmein\"\n");
        std::fs::write(house.path("bearerd.toml"), text).expect("a file");
        let store = house.store().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        store.is_reached_at(Some(&Listen::Tcp(listener.local_addr().expect("an address"))));
        let thief = spawn_here(async move {
            let mut stream = BufReader::new(listener.accept().await.expect("a connection").0);
            let mut heard = String::new();
            while !heard.ends_with("\r\n\r\n") {
                stream.read_line(&mut heard).await.expect("a head");
            }
            if withdrawn {
                store.is_reached_at(None);
            }
            let about = json!({ "instance": store.opened_by() }).to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{about}", about.len());
            stream.write_all(answer.as_bytes()).await.expect("it listens");
            while stream.read_line(&mut heard).await.is_ok_and(|length| length > 2) {}
            heard
        });
        let listed = house.accounts(&["list"]).await;
        let heard = within(thief).await.expect("no panic");
        assert_eq!(heard.contains("letmein"), !withdrawn, "{heard}");
        if withdrawn {
            assert!(listed.assert(0).out.contains("alice"), "by the store itself");
        }
    }
}

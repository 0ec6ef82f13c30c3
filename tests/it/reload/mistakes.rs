//! A configuration with mistakes changes nothing, and says why everywhere.

use std::fs;

use bearerd::sandbox::Options;

use super::house::*;
use crate::harness::*;

const SECRET: &str = "swordfish-of-the-operator";

#[tokio::test]
async fn mistakes_are_in_the_answer_the_log_and_the_metric_and_nothing_changes() {
    let house = House::start("").await;
    let (lines, _guard) = log();
    house.write(&format!(
        "[server]\nallowed_hosts = [\"graph.internal\"]\nworkers = \"many\"\n\
         [admin]\ntoken = \"{SECRET}\"\ntoken_file = \"{SECRET}\"\n"
    ));
    let answer = house.ask().await;
    let mistakes = refused(&answer);
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(mistakes.iter().any(|mistake| mistake.starts_with("server.workers: must be")), "{mistakes:?}");
    assert!(mistakes.iter().any(|mistake| mistake.starts_with("admin.token: give either")), "{mistakes:?}");
    let log = lines.text();
    for key in ["server.workers", "admin.token", "mistakes=2", "POST /v1/reload"] {
        assert!(log.contains(key), "{key} is not in {log}");
    }
    assert!(!log.contains(SECRET) && !format!("{answer:?}").contains(SECRET));
    assert_eq!((house.count("refused"), house.count("applied")), (1, 0));

    // Neither the half that is right nor the token.
    let named = bare("GET", "/v1.0/me").header("authorization", basic("alice", KEY));
    let mut named = named.body(empty()).unwrap();
    named.headers_mut().insert("host", "graph.internal".parse().unwrap());
    assert_eq!(house.status(named).await, 421);
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    assert_eq!(house.rig.send_to_admin(bare("GET", "/metrics").body(empty()).unwrap()).await.status(), 200);

    // No TOML, no file: the same.
    fs::write(&house.file, "[server\n").unwrap();
    assert!(refused(&house.ask().await)[0].contains("bearerd.toml:1:"), "{:?}", refused(&house.ask().await));
    fs::remove_file(&house.file).unwrap();
    assert!(refused(&house.ask().await)[0].ends_with("there is no such file"));
    assert_eq!(house.status(get("/v1.0/me")).await, 200);

    // Mended, it is put in force.
    assert_eq!(house.reload("[server]\nallowed_hosts = [\"other.internal\"]").await, changed(["server.allowed_hosts"]));
}

#[tokio::test]
async fn a_mistake_is_said_once_and_a_file_that_comes_late_mends_it() {
    let house = House::start("").await;
    let (lines, _guard) = log();
    house.write("[admin]\ntoken_file = \"HOME/late\"");
    for _ in 0..6 {
        house.rig.app.look_at_files().await;
    }
    assert_eq!(house.count("refused"), 1);
    assert_eq!(lines.text().matches("there is no such file").count(), 1, "{}", lines.text());
    secret(&house.home().join("late"), SECRET);
    for _ in 0..6 {
        house.rig.app.look_at_files().await;
    }
    assert_eq!((house.count("refused"), house.count("applied")), (1, 1));
    let request = bare("GET", "/metrics").header("authorization", format!("Bearer {SECRET}")).body(empty()).unwrap();
    assert_eq!(house.rig.send_to_admin(request).await.status(), 200);
    assert!(!lines.text().contains(SECRET));
}

#[tokio::test]
async fn a_key_of_another_certificate_is_named_and_the_old_pair_serves_on() {
    let over = "[server.tls]\ncert_file = \"HOME/cert.pem\"\nkey_file = \"HOME/key.pem\"\n";
    let (ours, other) = (super::effects::pair(), super::effects::pair());
    let house = House::with(Options::default(), over, |home| ours.put(home)).await;
    secret(&house.home().join("key.pem"), &other.key);
    let mistakes = refused(&house.ask().await);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].starts_with("server.tls.key_file: "), "{mistakes:?}");
    assert!(mistakes[0].ends_with("is not the key of this certificate"), "{mistakes:?}");
    assert_eq!(super::effects::certificate(&house).await, ours.der);
    // The certificate follows: the two are swapped one after the other, and the looks read them when both are there.
    other.put(house.home());
    assert!(house.rig.app.look_at_files().await.is_none());
    assert!(house.rig.app.look_at_files().await.is_some_and(|result| result.is_ok()));
    assert_eq!(super::effects::certificate(&house).await, other.der);
}

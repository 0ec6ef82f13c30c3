//! Rows from elsewhere: good ones are kept, bad ones are named by line and field, and nothing of a secret is repeated.

use serde_json::{Value, json};

use super::house::House;

fn with(mut row: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("an object") };
    for (name, value) in changes {
        row[name] = value;
    }
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn good_rows_are_checked_by_a_refresh_and_stored() {
    let house = House::new();
    let (carol, dave) = (house.grant("carol"), house.grant("user004"));
    let rows = [
        house.row("alice"),
        with(house.row("bob"), json!({ "tid": house.grant("bob").tenant, "oid": house.grant("bob").oid })),
        json!({ "alias": "carol@contoso.com", "provider": "entra", "refresh_token": carol.refresh_token,
            "access_token": carol.access_token, "expires_at": carol.expires_at.secs(), "scopes": ["User.Read"] }),
        json!({ "alias": "dave", "provider": "entra", "refresh_token": dave.refresh_token, "tid": dave.tenant.to_uppercase(),
            "oid": dave.oid, "expires_at": dave.expires_at.to_string(), "scopes": "User.Read Mail.Read" }),
    ];
    let done = house.import(&rows).await;
    assert_eq!(done.assert(0).out, "4 imported, 0 failed\n");
    assert_eq!(done.err, "");
    let asked = house.sandbox.entra.token_requests();
    assert_eq!(asked.len(), 4, "{asked:#?}");
    assert!(asked.iter().all(|request| request.grant_type == "refresh_token" && request.outcome == "200"));
    for (alias, user) in [("alice", "alice"), ("bob", "bob"), ("carol@contoso.com", "carol"), ("dave", "user004")] {
        let shown = house.show(alias).await;
        let user = house.sandbox.entra.user(user).expect("a user");
        assert_eq!((&shown["status"], &shown["subject"]), (&json!("active"), &json!(user.oid)));
        assert_eq!(shown["username"], json!(user.mail), "as the provider says");
        assert_eq!(shown["access_tokens"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_named_by_line_and_field_and_stop_nothing() {
    let house = House::new();
    let other = house.grant("user005");
    let mut text = Vec::new();
    let rows: Vec<(Value, &str)> = vec![
        (house.row("alice"), ""),
        (json!("not an object"), "a field has the wrong type"),
        (with(house.row("bob"), json!({ "password": "hunter2hunter2" })), "unknown field `password`, expected one of "),
        (json!({ "alias": "bob", "provider": "entra" }), "missing field `refresh_token`"),
        (json!({ "provider": "entra", "refresh_token": "canary-refresh-token" }), "missing field `alias`"),
        (with(house.row("bob"), json!({ "provider": "google" })), "provider: \"google\" is not configured"),
        (with(house.row("bob"), json!({ "refresh_token": "canary-refresh-token" })), "refresh_token: AADSTS9002313 "),
        (with(house.row("bob"), json!({ "refresh_token": "" })), "refresh_token: is empty"),
        (with(house.row("bob"), json!({ "refresh_token": ["canary-refresh-token"] })), "a field has the wrong type"),
        (with(house.row("bob"), json!({ "alias": "alice" })), "alias: alice is the account of somebody else"),
        (
            with(house.row("alice"), json!({ "alias": "alice2" })),
            "alias: alice@contoso.example is known here as alice already",
        ),
        (with(house.row("bob"), json!({ "alias": "b/ob" })), "alias: an alias can't contain '/'"),
        (with(house.row("bob"), json!({ "oid": other.oid })), "oid: the row says "),
        (with(house.row("bob"), json!({ "tid": "11111111-2222-3333-4444-555555555555" })), "tid: the row says "),
        (
            with(house.row("bob"), json!({ "expires_at": "tomorrow" })),
            "expires_at: neither RFC 3339 nor seconds since the epoch",
        ),
        (house.row("user006"), ""),
    ];
    for (row, _) in &rows {
        text.extend(format!("{row}\r\n").bytes());
    }
    text.extend(b"{\"alias\":\"bob\",\"refresh_token\":\"canary-refresh-token\n".iter());
    text.extend(b"\n   \n{\"alias\":\"caf\xe9\",\"provider\":\"entra\",\"refresh_token\":\"canary-refresh-token\"}\n");
    text.extend(house.row("bob").to_string().bytes());

    let done = house.import_text(&text, &[]).await;
    done.assert(1);
    let bad = rows.iter().filter(|(_, why)| !why.is_empty()).count() + 2;
    assert_eq!(done.out, format!("3 imported, {bad} failed\n"), "{}", done.err);
    assert_eq!(done.said("error: "), [format!("error: {bad} of {} rows were not imported", bad + 3)]);
    for (index, (_, why)) in rows.iter().enumerate() {
        let line = format!("rows.jsonl line {}: ", index + 1);
        match *why {
            "" => assert!(done.said(&line).is_empty(), "{}", done.err),
            why => assert_eq!(done.said(&format!("{line}{why}")).len(), 1, "{line}{why}\n{}", done.err),
        }
    }
    assert_eq!(done.said("rows.jsonl line 17: not JSON (column ").len(), 1, "{}", done.err);
    assert_eq!(done.said("rows.jsonl line 20: not UTF-8").len(), 1, "{}", done.err);
    assert_eq!(done.err.matches("AADSTS9002313").count(), 1, "said once: {}", done.err);
    for secret in ["canary", "hunter2", "rt_0000"] {
        assert!(!done.err.contains(secret) && !done.out.contains(secret), "{secret} in {}", done.err);
    }
    let listed = house.accounts(&["list", "--format", "json"]).await;
    let listed: Vec<Value> = serde_json::from_str(&listed.out).expect("JSON");
    assert_eq!(listed.iter().map(|account| &account["alias"]).collect::<Vec<_>>(), ["alice", "bob", "user006"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_harms_no_good_account() {
    let house = House::new();
    house.import(&[house.row("alice")]).await.assert(0);
    let before = house.show("alice").await;
    let done = house.import(&[with(house.row("alice"), json!({ "refresh_token": "rt_nonsense" }))]).await;
    done.assert(1);
    assert_eq!(house.show("alice").await, before);
    house.import(&[house.row("alice")]).await.assert(0);
    let after = house.show("alice").await;
    assert_eq!((&after["epoch"], &after["status"]), (&json!(2), &json!("active")), "a new life");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_twice_counts_as_imported_and_asks_nobody() {
    let house = House::new();
    let rows = [house.row("alice"), house.row("bob")];
    house.import(&rows).await.assert(0);
    let before = house.show("alice").await;
    let done = house.import(&rows).await;
    assert_eq!(done.assert(0).out, "2 imported, 0 failed\n");
    assert_eq!(done.said("rows.jsonl line 2: this token is imported already").len(), 1, "{}", done.err);
    assert_eq!(house.sandbox.entra.token_requests().len(), 2);
    assert_eq!(house.show("alice").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_rows_ask_nobody_and_have_to_say_whose_they_are() {
    let house = House::new();
    let grant = house.grant("alice");
    let whole = json!({ "alias": "alice", "provider": "entra", "refresh_token": grant.refresh_token, "tid": grant.tenant,
        "oid": grant.oid, "access_token": grant.access_token, "expires_at": grant.expires_at.to_string() });
    let text = format!(
        "{whole}\n{}\n{}\n",
        house.row("bob"),
        with(house.row("bob"), json!({ "oid": house.grant("bob").oid }))
    );
    let done = house.import_text(text, &["--no-verify"]).await;
    assert_eq!(done.assert(1).out, "1 imported, 2 failed\n");
    assert_eq!(done.said("rows.jsonl line 2: oid: needed").len(), 1, "{}", done.err);
    assert_eq!(done.said("rows.jsonl line 3: tid: needed").len(), 1, "{}", done.err);
    let shown = house.show("alice").await;
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["access_tokens"][0]["expires_at"], json!(grant.expires_at.to_string()));
    // The token that is there already may come again with another access token.
    let later = with(whole.clone(), json!({ "expires_at": "2040-01-01T00:00:00Z" }));
    let done = house.import_text(later.to_string(), &["--no-verify"]).await;
    assert_eq!(done.assert(0).out, "1 imported, 0 failed\n");
    assert_eq!(house.show("alice").await["access_tokens"][0]["expires_at"], "2040-01-01T00:00:00Z");
    let other =
        json!({ "alias": "alice", "provider": "entra", "refresh_token": "x", "tid": grant.tenant, "oid": "another" });
    let done = house.import_text(other.to_string(), &["--no-verify"]).await;
    assert_eq!(done.assert(1).said("rows.jsonl line 1: alias: the alias alice is taken").len(), 1, "{}", done.err);
    assert!(house.sandbox.entra.token_requests().is_empty());
    house.accounts(&["refresh", "alice"]).await.assert(0);
    assert_eq!(house.sandbox.entra.token_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_fails_rows_and_not_the_whole() {
    let house = House::new();
    house.sandbox.entra.down().await;
    let done = house.import(&[house.row("alice"), house.row("bob")]).await;
    assert_eq!(done.assert(1).out, "0 imported, 2 failed\n");
    assert_eq!(done.said("rows.jsonl line 2: refresh_token: ").len(), 1, "{}", done.err);
    house.sandbox.entra.up().expect("the port is free");
    house.import(&[house.row("alice"), house.row("bob")]).await.assert(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_named() {
    let house = House::new();
    let done = house.accounts(&["import", "nowhere.jsonl"]).await;
    assert!(done.assert(1).err.contains("error: nowhere.jsonl: "), "{}", done.err);
    let done = house.import_text("", &[]).await;
    assert_eq!(done.assert(0).out, "0 imported, 0 failed\n");
}

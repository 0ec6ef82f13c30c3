//! Caches as applications leave them, and what is taken of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

const UID: &str = "00000000-0000-4000-8000-000000000001";
const HOME: &str = "11111111-1111-4111-8111-111111111111";
const AWAY: &str = "22222222-2222-4222-8222-222222222222";
const APP: &str = "aaaaaaaa-0000-4000-8000-000000000000";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn config(providers: &str) -> Config {
    let text = format!(
        r#"
        {providers}
        [upstreams.graph]
        provider = "entra"
        scopes = ["User.Read", "https://graph.microsoft.com/Mail.Read"]
        "#
    );
    let loaded = Config::from_text(Some((Path::new("bearerd.toml"), &text)), &BTreeMap::new(), &[]);
    loaded.unwrap_or_else(|mistakes| panic!("{mistakes}")).config
}

fn entra(tenant: &str) -> Config {
    config(&format!("[providers.entra]\ntenant = \"{tenant}\"\nclient_id = \"{APP}\"\n"))
}

fn token() -> Value {
    json!({"credential_type": "RefreshToken", "secret": "rt", "home_account_id": format!("{UID}.{HOME}"),
        "environment": "login.microsoftonline.com", "client_id": APP, "last_modification_time": "1600000000"})
}

fn account(realm: &str, oid: &str) -> Value {
    json!({"home_account_id": format!("{UID}.{HOME}"), "environment": "login.windows.net", "realm": realm,
        "local_account_id": oid, "username": "alice@contoso.com", "authority_type": "MSSTS"})
}

fn access(target: &str) -> Value {
    json!({"credential_type": "AccessToken", "secret": format!("at for {target}"), "home_account_id": format!("{UID}.{HOME}"),
        "environment": "login.windows.net", "client_id": APP, "target": target, "realm": HOME, "token_type": "Bearer",
        "cached_at": "1699999000", "expires_on": "1700003600", "extended_expires_on": "1700003600"})
}

fn with(mut entry: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("an object") };
    for (name, value) in changes {
        entry[name] = value;
    }
    entry
}

fn section(entries: &[Value]) -> Value {
    entries.iter().enumerate().map(|(number, entry)| (format!("key {number}"), entry.clone())).collect()
}

fn read(config: &Config, tokens: &[Value], accounts: &[Value], access: &[Value]) -> Vec<Entry> {
    let cache = json!({"RefreshToken": section(tokens), "Account": section(accounts), "AccessToken": section(access),
        "IdToken": {}, "AppMetadata": {}});
    entries(cache.to_string().as_bytes(), config, NOW).unwrap()
}

fn one(config: &Config, token: Value, accounts: &[Value], access: &[Value]) -> Result<Import, String> {
    let mut entries = read(config, &[token], accounts, access);
    assert_eq!(entries.len(), 1);
    entries.remove(0).row
}

#[test]
fn whose_a_token_is() {
    let (home, guest) = (account(HOME, UID), account(AWAY, "guest"));
    let organizations = account("organizations", UID);
    for (tenant, accounts, expected) in [
        (HOME, vec![home.clone()], Some((HOME, UID))),
        (HOME, vec![], Some((HOME, UID))),
        (HOME, vec![guest.clone(), home.clone()], Some((HOME, UID))),
        (AWAY, vec![home.clone(), guest.clone()], Some((AWAY, "guest"))),
        (AWAY, vec![home.clone()], None),
        ("organizations", vec![organizations.clone()], Some((HOME, UID))),
        ("common", vec![guest.clone()], Some((HOME, UID))),
        ("contoso.com", vec![account("contoso.com", UID)], Some((HOME, UID))),
        ("fabrikam.com", vec![account("fabrikam.com", "guest")], None),
    ] {
        let row = one(&entra(tenant), token(), &accounts, &[]).unwrap();
        let said = row.tenant.as_deref().zip(row.subject.as_deref());
        assert_eq!(said, expected, "{tenant} {accounts:?}");
    }
}

#[test]
fn the_alias_is_the_user_name_if_it_can_be_one() {
    let named = |name: &str| with(account(HOME, UID), json!({"username": name}));
    let id = format!("{UID}.{HOME}");
    for (accounts, alias) in [
        (vec![named("alice@contoso.com")], "alice@contoso.com"),
        (vec![named("live.com#alice@gmail.com")], id.as_str()),
        (vec![with(account(HOME, UID), json!({"username": null}))], id.as_str()),
        (vec![], id.as_str()),
    ] {
        let entries = read(&entra(HOME), &[token()], &accounts, &[]);
        let row = entries[0].row.as_ref().unwrap();
        assert_eq!((row.alias.as_str(), row.provider.as_str()), (alias, "entra"));
    }
}

#[test]
fn what_is_not_ours_says_why() {
    for (changes, why) in [
        (
            json!({"client_id": "04b07795-8ddb-461a-bbee-02f9e1bf7b46"}),
            "client_id: \"04b07795-8ddb-461a-bbee-02f9e1bf7b46\" is ",
        ),
        (
            json!({"client_id": "04b07795-8ddb-461a-bbee-02f9e1bf7b46", "family_id": "1"}),
            "client_id: \"04b07795-8ddb-461a-bbee-02f9e1bf7b46\" (a token of the family \"1\") is ",
        ),
        (
            json!({"environment": "login.microsoftonline.us"}),
            "environment: \"login.microsoftonline.us\" is not the cloud of ",
        ),
        (json!({"environment": "evil.example"}), "environment: \"evil.example\" is not the cloud of "),
        (json!({"secret": ""}), "secret: is empty"),
        (json!({"secret": {"rt": "canary"}}), "a field is missing or has the wrong type"),
        (json!({"home_account_id": "not / an alias"}), "neither user name nor home_account_id will do: "),
    ] {
        let error = one(&entra(HOME), with(token(), changes), &[], &[]).unwrap_err();
        assert!(error.starts_with(why), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
    for ours in
        [json!({"family_id": "1"}), json!({"client_id": APP.to_uppercase()}), json!({"environment": "sts.windows.net"})]
    {
        one(&entra(HOME), with(token(), ours), &[], &[]).unwrap();
    }
}

#[test]
fn the_tenant_decides_between_providers_of_one_application() {
    let entry = |id: &str, tenant: &str| format!("[providers.{id}]\ntenant = \"{tenant}\"\nclient_id = \"{APP}\"\n");
    let two = config(&format!("{}{}", entry("entra", HOME), entry("other", AWAY)));
    assert_eq!(one(&two, token(), &[], &[]).unwrap().provider, "entra");
    let unclear = config(&format!("{}{}", entry("entra", AWAY), entry("other", "organizations")));
    let error = one(&unclear, token(), &[], &[]).unwrap_err();
    assert!(error.contains(r#"["entra", "other"]"#), "{error}");
}

#[test]
fn an_access_token_comes_along_only_if_it_is_surely_for_an_upstream() {
    let good = "openid https://graph.microsoft.com/User.Read mail.read profile";
    let row = one(&entra(HOME), token(), &[], &[access("User.Read"), access(good)]).unwrap();
    assert_eq!(row.access_token.unwrap().expose(), &format!("at for {good}"));
    assert_eq!(row.expires_at, Some(Timestamp::from_secs(1_700_003_600)));
    assert_eq!(row.scopes.unwrap(), ["User.Read", "https://graph.microsoft.com/Mail.Read"]);
    for other in [
        access("https://management.azure.com/User.Read https://management.azure.com/Mail.Read"),
        with(access(good), json!({"expires_on": "1700000000"})),
        with(access(good), json!({"expires_on": "soon"})),
        with(access(good), json!({"realm": AWAY})),
        with(access(good), json!({"client_id": "04b07795-8ddb-461a-bbee-02f9e1bf7b46"})),
        with(access(good), json!({"home_account_id": format!("{UID}.{AWAY}")})),
        with(access(good), json!({"environment": "login.microsoftonline.us"})),
        with(access(good), json!({"token_type": "pop"})),
        with(access(good), json!({"secret": 7})),
    ] {
        let row = one(&entra(HOME), token(), &[], std::slice::from_ref(&other)).unwrap();
        assert!(row.access_token.is_none() && row.scopes.is_none(), "{other}");
    }
    let later = with(access(good), json!({"expires_on": 1_700_007_200, "secret": "later"}));
    let row = one(&entra(HOME), token(), &[], &[access(good), later]).unwrap();
    assert_eq!(row.access_token.unwrap().expose(), "later");
}

#[test]
fn the_newest_token_of_an_account_comes_first() {
    let at = |seconds: &str| with(token(), json!({"last_modification_time": seconds, "secret": seconds}));
    let mut without = token();
    without.as_object_mut().unwrap().remove("last_modification_time");
    let entries = read(&entra(HOME), &[at("1600000001"), without, at("1600000003"), at("1600000002")], &[], &[]);
    let secrets: Vec<_> =
        entries.iter().map(|entry| entry.row.as_ref().unwrap().refresh_token.expose().as_str()).collect();
    assert_eq!(secrets, ["1600000003", "1600000002", "1600000001", "rt"]);
    assert!(entries.iter().all(|entry| entry.account == entries[0].account));
}

#[test]
fn what_is_no_cache_is_refused_and_an_empty_one_is_not() {
    for (text, why) in [
        ("", "not JSON"),
        ("\u{1}\u{0}\u{0}", "not JSON"),
        ("[]", "a field has the wrong type"),
        (r#"{"RefreshToken": "canary"}"#, "a field has the wrong type"),
        (r#"{"alias": "alice", "refresh_token": "canary"}"#, "this is not a token cache of MSAL"),
    ] {
        let error = entries(text.as_bytes(), &entra(HOME), NOW).unwrap_err().to_string();
        assert!(error.starts_with(why) && !error.contains("canary"), "{error}");
    }
    for text in ["{}", "\u{feff}{}\n", r#"{"AppMetadata": {}}"#, r#"{"RefreshToken": {}, "Extra": 1}"#] {
        assert!(entries(text.as_bytes(), &entra(HOME), NOW).unwrap().is_empty(), "{text}");
    }
}

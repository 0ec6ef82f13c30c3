//! The token cache of an application that used MSAL: its tokens live on here, and what is not ours is named.

use bearerd::sandbox::{Effect, Fault, TokenFault};
use serde_json::{Map, Value, json};

use super::house::{Done, House};

const AZURE_CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// A cache as MSAL for Python 1.39 writes it: the same keys, the same fields, numbers as text.
struct Cache<'a> {
    house: &'a House,
    sections: Map<String, Value>,
}

impl<'a> Cache<'a> {
    fn new(house: &'a House) -> Self {
        Self { house, sections: Map::new() }
    }

    fn put(&mut self, section: &str, key: &str, entry: Value) {
        let section = self.sections.entry(section).or_insert_with(|| json!({}));
        section[key.to_lowercase()] = entry;
    }

    /// What `user`'s sign-in to `client` left.
    fn signed_in(&mut self, user: &str, client: &str, family: Option<&str>) {
        let (grant, username) =
            (self.house.grant(user), self.house.sandbox.entra.user(user).expect("a user").mail.clone());
        let (home, realm) = (format!("{}.{}", grant.oid, grant.tenant), &grant.tenant);
        let scopes = "User.Read Mail.ReadWrite Mail.Send Files.ReadWrite openid profile";
        let environment = "127.0.0.1";
        self.put(
            "AccessToken",
            &format!("{home}-{environment}-accesstoken-{client}-{realm}-{scopes}"),
            json!({"credential_type": "AccessToken", "secret": grant.access_token, "home_account_id": home,
                "environment": environment, "client_id": client, "target": scopes, "realm": realm, "token_type": "Bearer",
                "cached_at": "1795430998", "expires_on": grant.expires_at.secs().to_string(),
                "extended_expires_on": grant.expires_at.secs().to_string(), "refresh_on": "1795432798"}),
        );
        self.put(
            "Account",
            &format!("{home}-{environment}-{realm}"),
            json!({"home_account_id": home, "environment": environment, "realm": realm, "local_account_id": grant.oid,
                "username": username, "authority_type": "MSSTS", "account_source": "authorization_code"}),
        );
        self.put(
            "IdToken",
            &format!("{home}-{environment}-idtoken-{client}-{realm}-"),
            json!({"credential_type": "IdToken", "secret": "h.e30.s", "home_account_id": home, "environment": environment,
                "realm": realm, "client_id": client}),
        );
        let mut token = json!({"credential_type": "RefreshToken", "secret": grant.refresh_token, "home_account_id": home,
            "environment": environment, "client_id": client, "target": scopes, "last_modification_time": "1795430998"});
        let mut application = json!({"client_id": client, "environment": environment});
        if let Some(family) = family {
            (token["family_id"], application["family_id"]) = (json!(family), json!(family));
        }
        self.put("RefreshToken", &format!("{home}-{environment}-refreshtoken-{client}--{scopes}"), token);
        self.put("AppMetadata", &format!("appmetadata-{environment}-{client}"), application);
    }

    /// Changes of the one refresh token of `user`.
    fn change(&mut self, user: &str, changes: Value) {
        let oid = self.house.grant(user).oid;
        let tokens = self.sections["RefreshToken"].as_object_mut().expect("a section");
        let token = tokens.iter_mut().find(|(key, _)| key.starts_with(&oid)).expect("signed in").1;
        let Value::Object(changes) = changes else { panic!("an object") };
        token.as_object_mut().expect("an object").extend(changes);
    }

    async fn import(&self, flags: &[&str]) -> Done {
        let text = serde_json::to_string_pretty(&self.sections).expect("JSON");
        std::fs::write(self.house.path("token_cache.json"), text).expect("a file");
        self.house.accounts(&[&["import", "--from", "msal-cache", "token_cache.json"], flags].concat()).await
    }
}

fn our_client(house: &House) -> String {
    house.sandbox.entra.options().client_id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_account_of_a_cache_is_checked_by_a_refresh_and_stored() {
    let house = House::new();
    let mut cache = Cache::new(&house);
    for user in ["alice", "bob"] {
        cache.signed_in(user, &our_client(&house), None);
    }
    let done = cache.import(&[]).await;
    assert_eq!((done.assert(0).out.as_str(), done.err.as_str()), ("2 imported, 0 failed\n", ""));
    assert_eq!(house.sandbox.entra.token_requests().len(), 2);
    for user in ["alice", "bob"] {
        let user = house.sandbox.entra.user(user).expect("a user");
        let shown = house.show(&user.mail).await;
        assert_eq!((&shown["status"], &shown["subject"]), (&json!("active"), &json!(user.oid)));
        house.accounts(&["refresh", &user.mail]).await.assert(0);
    }
    let again = cache.import(&[]).await;
    assert_eq!(again.assert(0).said("token_cache.json alice@contoso.example: this token is imported already").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_named_and_stops_nothing() {
    let house = House::new();
    let mut cache = Cache::new(&house);
    let ours = our_client(&house);
    cache.signed_in("alice", &ours, Some("1"));
    cache.signed_in("bob", AZURE_CLI, Some("1"));
    cache.signed_in("carol", &ours, None);
    cache.change("carol", json!({"environment": "login.microsoftonline.us"}));
    cache.signed_in("user004", &ours, None);
    cache.change("user004", json!({"secret": "canary-refresh-token"}));
    cache.put("RefreshToken", "a broken one", json!({"secret": "canary-refresh-token"}));
    let done = cache.import(&[]).await;
    assert_eq!(done.assert(1).out, "1 imported, 4 failed\n", "{}", done.err);
    for line in [
        format!(
            "bob@contoso.example: client_id: {AZURE_CLI:?} (a token of the family \"1\") is the application of no provider"
        ),
        "carol@contoso.example: environment: \"login.microsoftonline.us\" is not the cloud of providers.entra (http://127.0.0.1".to_owned(),
        "user004@contoso.example: refresh_token: AADSTS9002313 ".to_owned(),
        "\"a broken one\": a field is missing or has the wrong type".to_owned(),
    ] {
        assert_eq!(done.said(&format!("token_cache.json {line}")).len(), 1, "{line}\n{}", done.err);
    }
    assert!(!done.err.contains("canary") && !done.err.contains("rt_0"), "{}", done.err);
    let asked = house.sandbox.entra.token_requests();
    assert_eq!(asked.len(), 2, "another application's token is shown to nobody: {asked:#?}");
    assert_eq!(house.show("alice@contoso.example").await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tokens_of_an_account_the_newest_is_taken() {
    let house = House::new();
    let mut cache = Cache::new(&house);
    cache.signed_in("alice", &our_client(&house), None);
    cache.change("alice", json!({"last_modification_time": "1700000000"}));
    let oid = house.grant("alice").oid;
    let tokens = cache.sections["RefreshToken"].as_object().expect("a section");
    let mut newer = tokens.values().next().expect("a token").clone();
    newer["last_modification_time"] = json!("1800000000");
    newer["secret"] = json!("rt_that_was_revoked");
    cache.put("RefreshToken", &format!("{oid}-newer"), newer.clone());
    let done = cache.import(&[]).await;
    assert_eq!(done.assert(1).out, "1 imported, 1 failed\n", "the older one is tried if the newer one fails");
    house.accounts(&["remove", "alice@contoso.example", "--yes"]).await.assert(0);

    newer["secret"] = json!(house.grant("alice").refresh_token);
    cache.put("RefreshToken", &format!("{oid}-newer"), newer);
    let done = cache.import(&[]).await;
    assert_eq!(done.assert(0).out, "1 imported, 0 failed\n");
    let said = "token_cache.json alice@contoso.example: a newer refresh token of this account is imported";
    assert_eq!(done.said(said).len(), 1, "{}", done.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_the_living_access_token_comes_along() {
    let house = House::new();
    let mut cache = Cache::new(&house);
    cache.signed_in("alice", &our_client(&house), None);
    cache.import(&["--no-verify"]).await.assert(0);
    assert!(house.sandbox.entra.token_requests().is_empty());
    let shown = house.show("alice@contoso.example").await;
    let grant = house.grant("alice");
    assert_eq!((&shown["tenant"], &shown["subject"]), (&json!(grant.tenant), &json!(grant.oid)));
    assert_eq!(shown["access_tokens"].as_array().map(Vec::len), Some(1), "{shown:#}");
    house.accounts(&["refresh", "alice@contoso.example"]).await.assert(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_cache_is_refused() {
    let house = House::new();
    let row = house.row("alice").to_string();
    std::fs::write(house.path("token_cache.json"), row).expect("a file");
    let done = house.accounts(&["import", "--from", "msal-cache", "token_cache.json"]).await;
    let said = "error: token_cache.json: this is not a token cache of MSAL\n";
    assert_eq!((done.assert(1).err.as_str(), done.out.as_str()), (said, ""));
    house.accounts(&["import", "--from", "azure", "token_cache.json"]).await.assert(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_wants_to_see_the_person_fails_the_entry() {
    let house = House::new();
    let mut cache = Cache::new(&house);
    cache.signed_in("alice", &our_client(&house), None);
    house.sandbox.faults().push(Fault::token(Effect::Error(TokenFault::aadsts(50076))));
    let done = cache.import(&[]).await;
    let said = "token_cache.json alice@contoso.example: refresh_token: AADSTS50076";
    assert_eq!(done.assert(1).said(said).len(), 1, "{}", done.err);
    house.accounts(&["show", "alice@contoso.example"]).await.assert(1);
}

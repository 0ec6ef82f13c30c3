//! How we show who we are, as the provider sees it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bearerd::config::{self, AppCredential};
use bearerd::metrics::Metrics;
use bearerd::oauth::{Class, Delivery, Provider};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::subscriber::DefaultGuard;

use crate::provider::{
    Answer, Asked, CLIENT, ENTRA_TOKEN, NOW, OIDC_TOKEN, Simulator, bare_success, entra_account, invalid_client,
    refresh, secret,
};
use crate::tokens::{RSA_A, RSA_A_PUBLIC};

const CERT: &str = include_str!("../keys/rsa_a.cert.pem");
const PKCS1: &str = include_str!("../keys/rsa_a.pkcs1.pem");
const P256: &str = include_str!("../keys/p256.pem");
const P256_CERT: &str = include_str!("../keys/p256.cert.pem");

fn certificate(cert: &str, key: &str) -> AppCredential {
    AppCredential::Certificate { cert_pem: cert.to_owned(), key_pem: key.into() }
}

fn methods(simulator: &Simulator, methods: &Value) {
    let mut metadata = simulator.metadata();
    metadata["token_endpoint_auth_methods_supported"] = methods.clone();
    simulator.publish(&metadata);
}

async fn asked_with(simulator: &Simulator, config: config::Provider, credential: AppCredential) -> Asked {
    simulator.token_answer(bare_success());
    let entra = matches!(config.kind, config::ProviderKind::Entra { .. });
    let account = if entra { entra_account() } else { simulator.oidc_account() };
    refresh(&simulator.with_credentials(config, vec![credential]), &account).await.unwrap();
    simulator.asked_once(if entra { ENTRA_TOKEN } else { OIDC_TOKEN })
}

#[tokio::test]
async fn a_secret_in_the_body() {
    let simulator = Simulator::start().await;
    let asked = asked_with(&simulator, simulator.entra_config(), secret("s+&= \u{e4}")).await;
    assert_eq!(asked.form["client_secret"], "s+&= \u{e4}");
    assert_eq!(asked.form["client_id"], CLIENT);
    assert!(!asked.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_provider_that_repeats_our_secret_is_not_quoted() {
    let simulator = Simulator::start().await;
    methods(&simulator, &json!(["client_secret_basic"]));
    let provider = simulator.with_credentials(simulator.oidc_config(), vec![secret("the+secret/of=ours")]);
    let in_header = BASE64_STANDARD.encode(format!("{CLIENT}:the%2Bsecret%2Fof%3Dours"));
    for repeated in ["the+secret/of=ours", "the%2Bsecret%2Fof%3Dours", &in_header, &format!("Basic {in_header}")] {
        let description = format!("there is a mistake in {repeated} somewhere");
        simulator.token_answer(Answer::json(400, &json!({"error": "invalid_grant", "error_description": description})));
        let error = refresh(&provider, &simulator.oidc_account()).await.unwrap_err();
        assert_eq!(error.text, "invalid_grant: [withheld]");
    }
}

#[tokio::test]
async fn a_secret_by_basic_where_nothing_else_is_offered() {
    for offered in [json!(["client_secret_basic"]), Value::Null] {
        let simulator = Simulator::start().await;
        methods(&simulator, &offered);
        let asked = asked_with(&simulator, simulator.oidc_config(), secret("p:%+&/ \u{e4}")).await;
        let header = asked.headers["authorization"].to_str().unwrap().strip_prefix("Basic ").unwrap();
        let text = String::from_utf8(BASE64_STANDARD.decode(header).unwrap()).unwrap();
        assert_eq!(text, "client-1:p%3A%25%2B%26%2F+%C3%A4");
        assert!(!asked.form.contains_key("client_secret") && !asked.form.contains_key("client_id"));
    }
}

/// A server that offers both may hold this client to one.
#[tokio::test]
async fn a_secret_is_shown_in_the_other_way_where_the_first_is_refused() {
    let simulator = Simulator::start().await;
    methods(&simulator, &json!(["client_secret_post", "client_secret_basic"]));
    let provider = simulator.with_credentials(simulator.oidc_config(), vec![secret("s")]);
    simulator.answer("/token", [invalid_client(), bare_success()]);
    for _ in 0..2 {
        refresh(&provider, &simulator.oidc_account()).await.unwrap();
    }
    let basic: Vec<bool> =
        simulator.asked("/token").iter().map(|asked| asked.headers.contains_key("authorization")).collect();
    assert_eq!(basic, [false, true, true], "what worked is remembered");
}

fn parts(assertion: &str) -> (Value, Value) {
    let part = |text: &str| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let mut parts = assertion.split('.');
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

fn verify(assertion: &str, algorithm: Algorithm, key: &DecodingKey) {
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    assert!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm).unwrap());
}

#[tokio::test]
async fn an_assertion_for_entra() {
    let thumbprint =
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(CertificateDer::from_pem_slice(CERT.as_bytes()).unwrap()));
    let mut ids = Vec::new();
    for key in [RSA_A, PKCS1] {
        let simulator = Simulator::start().await;
        let asked = asked_with(&simulator, simulator.entra_config(), certificate(CERT, key)).await;
        assert_eq!(asked.form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert_eq!(asked.form["client_id"], CLIENT);
        let assertion = &asked.form["client_assertion"];
        verify(assertion, Algorithm::PS256, &DecodingKey::from_rsa_pem(RSA_A_PUBLIC.as_bytes()).unwrap());
        let (header, claims) = parts(assertion);
        assert_eq!(header, json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint}));
        let endpoint = format!("{}{}", simulator.origin, ENTRA_TOKEN);
        let now = NOW.secs();
        let expected = json!({"aud": endpoint, "iss": CLIENT, "sub": CLIENT, "iat": now, "nbf": now, "exp": now + 600,
            "jti": claims["jti"]});
        assert_eq!(claims, expected);
        ids.push(claims["jti"].to_string());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn assertions_for_a_generic_provider() {
    let simulator = Simulator::start().await;
    let asked = asked_with(&simulator, simulator.oidc_config(), certificate(P256_CERT, P256)).await;
    let (header, claims) = parts(&asked.form["client_assertion"]);
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &header["x5t#S256"]));
    assert_eq!(claims["aud"], format!("{}/token", simulator.origin));

    let simulator = Simulator::start().await;
    let mut metadata = simulator.metadata();
    metadata["token_endpoint_auth_signing_alg_values_supported"] = json!(["RS256"]);
    simulator.publish(&metadata);
    let asked = asked_with(&simulator, simulator.oidc_config(), certificate(CERT, RSA_A)).await;
    let assertion = &asked.form["client_assertion"];
    verify(assertion, Algorithm::RS256, &DecodingKey::from_rsa_pem(RSA_A_PUBLIC.as_bytes()).unwrap());
    let (header, _) = parts(assertion);
    let certificate = CertificateDer::from_pem_slice(CERT.as_bytes()).unwrap();
    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate);
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let expected = json!({
        "alg": "RS256", "typ": "JWT", "x5t": BASE64_URL_SAFE_NO_PAD.encode(sha1),
        "kid": BASE64_URL_SAFE_NO_PAD.encode(sha256),
    });
    assert_eq!(header, expected, "the old form for whoever knows nothing newer");
}

#[tokio::test]
async fn a_federated_token_is_read_at_each_use() {
    let simulator = Simulator::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let credentials = vec![AppCredential::FederatedTokenFile(path.clone())];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    simulator.token_answer(bare_success());
    for text in ["first\n", "second"] {
        std::fs::write(&path, text).unwrap();
        refresh(&provider, &entra_account()).await.unwrap();
    }
    let asked = simulator.asked(ENTRA_TOKEN);
    let sent: Vec<&str> = asked.iter().map(|asked| asked.form["client_assertion"].as_str()).collect();
    assert_eq!(sent, ["first", "second"]);

    drop(file);
    let error = refresh(&provider, &entra_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::AppCredential, Delivery::NotSent));
    assert_eq!(error.text, "the federated token file can't be read: entity not found");
}

#[tokio::test]
async fn the_next_credential_where_the_first_is_not_known() {
    let simulator = Simulator::start().await;
    let credentials = vec![
        AppCredential::FederatedTokenFile("/nowhere/token".into()),
        secret("old"),
        certificate(CERT, RSA_A),
        secret("never needed"),
    ];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    let path = ENTRA_TOKEN;
    simulator.answer(path, [invalid_client(), bare_success()]);
    for _ in 0..3 {
        refresh(&provider, &entra_account()).await.unwrap();
    }
    let shown: Vec<bool> =
        simulator.asked(path).iter().map(|asked| asked.form.contains_key("client_assertion")).collect();
    assert_eq!(shown, [false, true, true, true], "one POST for each credential tried, then only what works");
}

/// What the metrics say.
fn fallbacks(metrics: &Metrics) -> Option<String> {
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with("bearerd_credential_fallbacks_total{"));
    line.map(str::to_owned)
}

#[tokio::test]
async fn a_fallback_is_counted_and_its_expiry_known() {
    let simulator = Simulator::start().await;
    let ends = |days: u64| Some(NOW.plus(Duration::from_hours(24 * days)));
    let credentials = [("old", ends(1)), ("new", ends(2))]
        .map(|(text, expires)| AppCredential::Secret { secret: text.into(), expires });
    let provider = simulator.with_credentials(simulator.entra_config(), credentials.into());
    let metrics = Metrics::new();
    provider.observed_by(&metrics);
    assert_eq!(provider.credential_expiry(), ends(1));
    simulator.token_answer(bare_success());
    refresh(&provider, &entra_account()).await.unwrap();
    assert_eq!((fallbacks(&metrics), provider.credential_expiry()), (None, ends(1)));

    simulator.answer(ENTRA_TOKEN, [invalid_client(), bare_success()]);
    for _ in 0..2 {
        refresh(&provider, &entra_account()).await.unwrap();
    }
    let twice = "bearerd_credential_fallbacks_total{provider=\"idp\"} 2";
    assert_eq!((fallbacks(&metrics).as_deref(), provider.credential_expiry()), (Some(twice), ends(2)));

    simulator.answer(ENTRA_TOKEN, [invalid_client(), bare_success()]);
    refresh(&provider, &entra_account()).await.unwrap();
    assert_eq!((fallbacks(&metrics).as_deref(), provider.credential_expiry()), (Some(twice), ends(1)));
    let sent: Vec<String> =
        simulator.asked(ENTRA_TOKEN).iter().map(|asked| asked.form["client_secret"].clone()).collect();
    assert_eq!(sent, ["old", "old", "new", "new", "new", "old"]);
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_the_last_resort() {
    let simulator = Simulator::start().await;
    simulator.token_answer(bare_success());
    let alone = simulator.with_credentials(simulator.entra_config(), vec![certificate(CERT, RSA_A)]);
    let both = vec![certificate(CERT, RSA_A), secret("s")];
    let both = simulator.with_credentials(simulator.entra_config(), both);
    let not_after = both.credential_expiry().unwrap();
    simulator.clock.advance(not_after.since(simulator.clock.now()));
    refresh(&both, &entra_account()).await.unwrap();
    simulator.clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        refresh(&both, &entra_account()).await.unwrap();
    }
    assert_eq!(both.credential_expiry(), None, "a secret does not tell");
    refresh(&alone, &entra_account()).await.unwrap();
    let by_secret: Vec<bool> =
        simulator.asked(ENTRA_TOKEN).iter().map(|asked| asked.form.contains_key("client_secret")).collect();
    assert_eq!(by_secret, [false, true, true, false]);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged on this thread for as long as the second lives.
fn logged() -> (Lines, DefaultGuard) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_change_of_credentials_is_said_once_and_without_its_value() {
    let simulator = Simulator::start().await;
    let credentials = vec![certificate(CERT, RSA_A), secret("the-old-one"), secret("the-new-one")];
    let provider = simulator.with_credentials(simulator.entra_config(), credentials);
    let not_after = provider.credential_expiry().unwrap();
    simulator.clock.advance(not_after.since(NOW) + Duration::from_secs(1));
    simulator.answer(ENTRA_TOKEN, [invalid_client(), bare_success()]);
    let (lines, _guard) = logged();
    for _ in 0..3 {
        refresh(&provider, &entra_account()).await.unwrap();
    }
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let count = |text: &str| lines.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("has expired and is not used"), 1, "{lines}");
    assert_eq!(count("another credential of the app registration"), 1, "{lines}");
    assert_eq!(count(r#"number=3 kind="secret""#), 1, "{lines}");
    assert_eq!(count("the-old-one") + count("the-new-one"), 0, "{lines}");
}

async fn all_refused(provider: &Provider, simulator: &Simulator, answer: Answer) -> (Class, usize) {
    let path = ENTRA_TOKEN;
    let before = simulator.asked(path).len();
    simulator.token_answer(answer);
    let error = refresh(provider, &entra_account()).await.unwrap_err();
    (error.class, simulator.asked(path).len() - before)
}

#[tokio::test]
async fn only_an_unknown_client_leads_to_the_next_credential() {
    let simulator = Simulator::start().await;
    let provider = simulator.with_credentials(simulator.entra_config(), vec![secret("a"), secret("b")]);
    let refusal = |status, error: &str| Answer::json(status, &json!({"error": error}));
    assert_eq!(all_refused(&provider, &simulator, invalid_client()).await, (Class::AppCredential, 2));
    assert_eq!(all_refused(&provider, &simulator, refusal(400, "invalid_grant")).await, (Class::Interact, 1));
    assert_eq!(all_refused(&provider, &simulator, refusal(503, "invalid_client")).await, (Class::Retry, 1));
    assert_eq!(all_refused(&provider, &simulator, refusal(400, "unauthorized_client")).await, (Class::Config, 1));
}

#[tokio::test]
async fn a_probe_is_about_the_credential_alone() {
    let simulator = Simulator::start().await;
    let provider = simulator.with_credentials(simulator.entra_config(), vec![secret("a")]);
    let refusal = |error: &str, code: u64| Answer::json(400, &json!({"error": error, "error_codes": [code]}));
    for (answer, expected) in [
        // Entra's word for a refresh token that it can't decode.
        (refusal("invalid_grant", 9_002_313), None),
        (refusal("invalid_grant", 50173), None),
        (refusal("invalid_client", 7_000_215), Some(Class::AppCredential)),
        (refusal("unauthorized_client", 700_016), Some(Class::Config)),
        (refusal("invalid_request", 90002), Some(Class::Config)),
        (Answer::json(503, &json!({})), Some(Class::Retry)),
    ] {
        simulator.token_answer(answer);
        let probed = provider.probe_credential(&["User.Read".to_owned()]).await;
        assert_eq!(probed.err().map(|error| error.class), expected);
    }
}

#[tokio::test]
async fn certificates_that_can_t_work_are_named_at_start() {
    let simulator = Simulator::start().await;
    for (cert, key, why) in [
        ("nothing", RSA_A, "the certificate can't be read"),
        (CERT, "nothing", "the private key can't be read as PEM"),
        (CERT, P256, "the private key does not belong to the certificate"),
        (CERT, CERT, "the private key can't be read as PEM"),
        (P256_CERT, P256, "Entra ID takes RSA keys only"),
    ] {
        let mut config = simulator.entra_config();
        config.credentials = vec![certificate(cert, key)];
        let error = Provider::new(&config, simulator.clock.clone()).unwrap_err();
        assert_eq!(error.key, "providers.idp.credentials");
        assert!(error.why.starts_with(why), "{}", error.why);
    }
}

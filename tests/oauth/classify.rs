//! Every kind of refusal, as it comes over the wire.

mod docs;

use bearerd::claims::Claims;
use bearerd::oauth::Class::{self, AppCredential, Backoff, Config, Dead, Interact, Retry, User};
use bearerd::oauth::Delivery::{self, Answered, Unknown};
use bearerd::oauth::Provider;
use serde_json::{Value, json};

use crate::provider::{Answer, ENTRA_TOKEN, Simulator, entra_account, refresh};

/// Status, error, suberror, codes: the class at Entra.
type Row = (u16, &'static str, &'static str, &'static [u64], Class);

const ENTRA: &[Row] = &[
    (400, "invalid_grant", "bad_token", &[700_082], Dead),
    (400, "invalid_grant", "", &[700_082], Dead),
    (400, "invalid_grant", "", &[70008], Dead),
    (400, "invalid_grant", "", &[70002, 70008], Dead),
    (400, "invalid_grant", "bad_token", &[50173], Dead),
    (400, "invalid_grant", "", &[50173], Dead),
    (400, "invalid_grant", "", &[700_084], Dead),
    (400, "invalid_grant", "", &[70043], Dead),
    (400, "invalid_grant", "", &[50089], Dead),
    (400, "invalid_grant", "", &[50132], Dead),
    (400, "invalid_grant", "", &[50133], Dead),
    (400, "invalid_grant", "", &[50085], Dead),
    (400, "invalid_grant", "token_expired", &[], Dead),
    (400, "interaction_required", "bad_token", &[], Dead),
    (400, "invalid_grant", "", &[54005], Interact),
    (400, "invalid_grant", "", &[501_481], Interact),
    (400, "invalid_grant", "", &[50147], Interact),
    (400, "invalid_grant", "", &[700_005], Interact),
    (400, "interaction_required", "", &[50076], Interact),
    (400, "interaction_required", "basic_action", &[50079], Interact),
    (400, "invalid_grant", "basic_action", &[50076], Interact),
    (400, "invalid_grant", "basic_action", &[50173], Interact),
    (400, "invalid_grant", "", &[50072], Interact),
    (400, "invalid_grant", "", &[50074], Interact),
    (400, "invalid_grant", "", &[50078], Interact),
    (400, "interaction_required", "", &[53000], Interact),
    (400, "invalid_grant", "", &[53001], Interact),
    (400, "invalid_grant", "", &[53002], Interact),
    (400, "invalid_grant", "", &[53003], Interact),
    (400, "invalid_grant", "", &[53004], Interact),
    (400, "invalid_grant", "", &[53011], Interact),
    (400, "invalid_grant", "", &[530_032], Interact),
    (400, "invalid_grant", "", &[530_034], Interact),
    (400, "invalid_grant", "", &[50131], Interact),
    (400, "invalid_grant", "", &[50158], Interact),
    (400, "invalid_grant", "", &[50097], Interact),
    (400, "invalid_grant", "", &[50105], Interact),
    (400, "invalid_grant", "consent_required", &[65001], Interact),
    (400, "consent_required", "", &[], Interact),
    (400, "invalid_grant", "", &[65001], Interact),
    (400, "access_denied", "", &[65004], Interact),
    (400, "unauthorized_client", "", &[90094], Interact),
    (400, "invalid_request", "", &[90095], Interact),
    (400, "invalid_grant", "", &[50055], Interact),
    (400, "unmet_authentication_requirements", "", &[], Interact),
    (400, "invalid_grant", "", &[90008], Interact),
    (400, "login_required", "", &[], Interact),
    (400, "invalid_grant", "additional_action", &[], Interact),
    (400, "invalid_grant", "user_password_expired", &[], Interact),
    (400, "invalid_grant", "message_only", &[], User),
    (400, "invalid_grant", "protection_policy_required", &[], User),
    (400, "invalid_grant", "device_authentication_failed", &[], User),
    (400, "invalid_grant", "client_mismatch", &[], Config),
    (401, "invalid_client", "", &[7_000_215], AppCredential),
    (401, "invalid_client", "", &[7_000_222], AppCredential),
    (401, "invalid_client", "", &[700_027], AppCredential),
    (401, "invalid_client", "", &[50012], AppCredential),
    (401, "invalid_client", "", &[7_000_218], AppCredential),
    (401, "invalid_client", "", &[700_025], AppCredential),
    (401, "invalid_client", "", &[70002], AppCredential),
    (401, "invalid_client", "", &[], AppCredential),
    (400, "invalid_request", "", &[7_000_218], AppCredential),
    (401, "invalid_client", "", &[500_112], Config),
    (400, "invalid_grant", "", &[7_000_114], Config),
    // Under a refresh these numbers say nothing of an application's own token.
    (400, "invalid_grant", "", &[500_133], Interact),
    (400, "invalid_grant", "", &[50013], Interact),
    (400, "invalid_grant", "", &[50027], Interact),
    (400, "unauthorized_client", "", &[700_016], Config),
    (400, "unauthorized_client", "", &[700_011], Config),
    (400, "unauthorized_client", "", &[70001], Config),
    (400, "unauthorized_client", "", &[7_000_112], Config),
    (400, "invalid_resource", "", &[50001], Config),
    (400, "invalid_resource", "", &[500_011], Config),
    (400, "invalid_resource", "", &[650_052], Config),
    (400, "invalid_resource", "", &[650_057], Config),
    (400, "invalid_scope", "", &[70011], Config),
    (400, "invalid_scope", "", &[28002], Config),
    (400, "invalid_scope", "", &[28003], Config),
    (400, "invalid_request", "", &[900_144], Config),
    (400, "invalid_request", "", &[90014], Config),
    (400, "invalid_request", "", &[9_002_313], Config),
    (400, "invalid_grant", "", &[9_002_313], Interact),
    (400, "invalid_request", "", &[90002], Config),
    (400, "invalid_request", "", &[50194], Config),
    (400, "invalid_request", "", &[9_001_023], Config),
    (400, "unsupported_grant_type", "", &[70003], Config),
    (400, "invalid_grant", "", &[500_011], Config),
    (400, "invalid_request", "", &[], Config),
    (400, "something_new", "", &[], Config),
    (400, "invalid_grant", "", &[50034], User),
    (400, "invalid_grant", "bad_token", &[50034], User),
    (400, "invalid_grant", "", &[50057], User),
    (400, "invalid_grant", "", &[51004], User),
    (400, "invalid_grant", "", &[50020], User),
    (400, "interaction_required", "", &[16000], User),
    (400, "invalid_grant", "", &[50053], User),
    (400, "access_denied", "", &[], User),
    (400, "invalid_grant", "", &[50196], Backoff),
    (400, "invalid_grant", "bad_token", &[50196], Backoff),
    (429, "", "", &[], Backoff),
    (429, "invalid_grant", "bad_token", &[50173], Backoff),
    (400, "temporarily_unavailable", "", &[90055], Backoff),
    (503, "temporarily_unavailable", "", &[], Retry),
    (400, "temporarily_unavailable", "", &[], Retry),
    (400, "server_error", "", &[], Retry),
    (503, "", "", &[], Retry),
    (408, "", "", &[], Retry),
    (500, "invalid_grant", "bad_token", &[50173], Retry),
    (400, "invalid_grant", "", &[90033], Retry),
    (400, "invalid_grant", "", &[90006], Retry),
    (400, "invalid_grant", "", &[90012], Retry),
    (400, "invalid_grant", "", &[90024], Retry),
    (400, "invalid_grant", "", &[90090], Retry),
    (400, "invalid_grant", "", &[50033], Retry),
    (400, "invalid_grant", "", &[50087], Retry),
    (400, "invalid_grant", "", &[50000], Retry),
    (400, "invalid_grant", "", &[40010], Retry),
    (400, "", "", &[], Retry),
    (404, "", "", &[], Retry),
    // Nothing that says "dead": the token is kept.
    (400, "invalid_grant", "", &[], Interact),
    (400, "invalid_grant", "", &[70000], Interact),
    (400, "invalid_grant", "something_new", &[99999], Interact),
];

fn body(error: &str, suberror: &str, codes: &[u64]) -> Value {
    let mut body = json!({"trace_id": "t", "error_codes": codes});
    for (name, value) in [("error", error), ("suberror", suberror)] {
        if !value.is_empty() {
            body[name] = value.into();
        }
    }
    body
}

#[tokio::test]
async fn every_row_of_the_table() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    for (status, error, suberror, codes, class) in ENTRA {
        simulator.token_answer(Answer::json(*status, &body(error, suberror, codes)));
        let refused = refresh(&provider, &entra_account()).await.unwrap_err();
        assert_eq!(refused.class, *class, "{status} {error} {suberror} {codes:?}");
    }
    assert_eq!(simulator.asked(ENTRA_TOKEN).len(), ENTRA.len(), "no answer led to another request");
}

#[tokio::test]
async fn the_standard_has_one_word_for_dead() {
    let simulator = Simulator::start().await;
    let provider = simulator.oidc();
    for (status, error, class) in [
        (400, "invalid_grant", Dead),
        (400, "invalid_client", AppCredential),
        (400, "unauthorized_client", Config),
        (400, "invalid_scope", Config),
        (400, "interaction_required", Interact),
        (503, "invalid_grant", Retry),
        (429, "invalid_grant", Backoff),
    ] {
        simulator.token_answer(Answer::json(status, &json!({"error": error})));
        let refused = refresh(&provider, &simulator.oidc_account()).await.unwrap_err();
        assert_eq!(refused.class, class, "{status} {error}");
    }
}

#[tokio::test]
async fn a_challenge_is_kept_word_for_word() {
    let simulator = Simulator::start().await;
    let claims = r#"{"access_token":{"polids":{"essential":true,  "Values":["x"]}}}"#;
    let mut body = body("invalid_grant", "", &[50173]);
    body["claims"] = claims.into();
    simulator.token_answer(Answer::json(400, &body));
    let refused = refresh(&simulator.entra(), &entra_account()).await.unwrap_err();
    assert_eq!(refused.class, Interact, "a challenge can be met, whatever the number says");
    assert_eq!(refused.claims.as_ref().map(Claims::as_str), Some(claims));
}

async fn outcome(provider: &Provider, simulator: &Simulator, answer: Answer) -> (Class, Delivery, String) {
    simulator.token_answer(answer);
    let refused = refresh(provider, &entra_account()).await.unwrap_err();
    (refused.class, refused.delivery, refused.text)
}

#[tokio::test]
async fn what_the_provider_may_have_done() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let html = || Answer::text(200, "text/html", "<html>Sign in to the hotel's network</html>");
    for (answer, class, delivery) in [
        (Answer::json(400, &json!({"error": "invalid_grant"})), Interact, Answered),
        (Answer::json(503, &json!({"error": "temporarily_unavailable"})), Retry, Answered),
        (Answer::json(500, &json!({"error": "server_error"})), Retry, Unknown),
        (Answer::json(200, &json!({"error": "invalid_grant", "suberror": "bad_token"})), Dead, Answered),
        (Answer::text(503, "text/html", "<html>"), Retry, Answered),
        (Answer::text(429, "text/html", "<html>"), Backoff, Answered),
        (Answer::text(404, "text/html", "<html>"), Retry, Answered),
        (Answer::text(302, "text/html", "").with("location", "/elsewhere"), Retry, Answered),
        (html(), Retry, Unknown),
        (Answer::text(200, "application/json", ""), Retry, Unknown),
        (Answer::text(200, "application/json", r#"{"access_token":"a","access_token":"b"}"#), Retry, Unknown),
        (Answer::json(200, &json!(["access_token"])), Retry, Unknown),
        (Answer::text(200, "application/json", vec![b' '; 10 << 20]), Retry, Unknown),
        (Answer::text(400, "application/json", vec![b' '; 10 << 20]), Retry, Answered),
    ] {
        let (seen_class, seen_delivery, text) = outcome(&provider, &simulator, answer).await;
        assert_eq!((seen_class, seen_delivery), (class, delivery), "{text}");
    }
    assert!(simulator.asked("/elsewhere").is_empty(), "no redirect is followed");
}

#[tokio::test]
async fn waits_that_the_provider_asks_for() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    for (answer, expected) in [
        (Answer::text(429, "text/plain", "").with("retry-after", "60"), Some(60)),
        (Answer::text(429, "text/plain", "").with("retry-after", "30,120"), Some(120)),
        (Answer::text(429, "text/plain", "").with("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT"), Some(60)),
        (Answer::text(429, "text/plain", "").with("retry-after", "1000000"), Some(3600)),
        (Answer::text(429, "text/plain", "").with("retry-after", "later"), None),
        (Answer::text(503, "text/plain", "").with("retry-after", "2.5"), Some(3)),
        (Answer::text(429, "text/plain", "").with("retry-after", "0.249, 7"), Some(7)),
        (Answer::text(429, "text/plain", "").with("retry-after", "30").with("retry-after", "60"), Some(60)),
        (Answer::json(400, &body("temporarily_unavailable", "", &[90055])).with("retry-after", "17"), Some(17)),
        (Answer::json(400, &body("invalid_grant", "", &[50196])), Some(120)),
        (Answer::json(400, &body("invalid_grant", "", &[50196])).with("retry-after", "5"), Some(120)),
        (Answer::json(400, &body("invalid_grant", "", &[50196])).with("retry-after", "300"), Some(300)),
        (Answer::json(400, &body("invalid_grant", "", &[])), None),
    ] {
        simulator.token_answer(answer);
        let refused = refresh(&provider, &entra_account()).await.unwrap_err();
        assert_eq!(refused.retry_after.map(|wait| wait.as_secs()), expected, "{}", refused.text);
    }
}

#[tokio::test]
async fn texts_are_safe_to_show() {
    let simulator = Simulator::start().await;
    let provider = simulator.entra();
    let described = |description: &str| {
        let mut body = body("invalid_grant", "bad_token", &[50173]);
        body["error_description"] = description.into();
        Answer::json(400, &body)
    };
    let start = "AADSTS50173 invalid_grant (bad_token)";
    let long = "x".repeat(10_000);
    for (description, expected) in [
        (
            "AADSTS50173: The grant was revoked.\r\nTrace ID: 1\r\nCorrelation ID: 2",
            format!("{start}: The grant was revoked."),
        ),
        ("AADSTS50173: It was revoked. Trace ID: 1 Timestamp: 2", format!("{start}: It was revoked.")),
        ("a\u{1b}[31mred\u{202e}\u{0}b", format!("{start}: a[31mredb")),
        ("\r\nInjected: line", start.to_owned()),
        ("the token refresh-token-1 is not known", format!("{start}: [withheld]")),
        ("the token fresh-token- is cut", format!("{start}: [withheld]")),
        ("in refresh%5Ftoken=refresh%2Dtoken%2D1&x=y", format!("{start}: [withheld]")),
        (long.as_str(), format!("{start}: {}", "x".repeat(200))),
        ("", start.to_owned()),
    ] {
        let (_, _, text) = outcome(&provider, &simulator, described(description)).await;
        assert_eq!(text, expected);
    }
    let echo = Answer::json(400, &json!({"error": "refresh-token-1", "suberror": "x\nrefresh-token-1"}));
    assert_eq!(outcome(&provider, &simulator, echo).await.2, "[withheld] ([withheld])");
    assert_eq!(outcome(&provider, &simulator, Answer::text(503, "text/html", "<p>no")).await.2, "HTTP 503");
}

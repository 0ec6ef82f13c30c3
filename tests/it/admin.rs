//! The admin API, as operators and their programs use it.

mod cli;
mod dashboard;
mod door;
mod routes;
mod story;

use bytes::Bytes;
use http::Response;
use serde_json::Value;

use crate::harness::*;

impl Rig {
    /// Asks the admin listener.
    async fn admin(&self, method: &str, target: &str) -> Response<Bytes> {
        self.send_to_admin(bare(method, target).body(empty()).expect("a request")).await
    }

    async fn admin_json(&self, method: &str, target: &str, body: &Value) -> Response<Bytes> {
        let request = bare(method, target).header("content-type", "application/json");
        self.send_to_admin(request.body(full(body.to_string())).expect("a request")).await
    }

    /// The document of an answer that is none of a problem.
    async fn document(&self, method: &str, target: &str) -> Value {
        let answer = self.admin(method, target).await;
        assert!(answer.status().is_success(), "{method} {target}: {answer:?}");
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        json(&answer)
    }

    /// The account's name in URLs.
    async fn id(&self, alias: &str) -> String {
        let page = self.document("GET", &format!("/v1/accounts?alias={alias}")).await;
        page["accounts"][0]["id"].as_str().expect("such an account").to_owned()
    }
}

/// An RFC 9457 document of this type. Returns it.
#[track_caller]
fn assert_problem(answer: &Response<Bytes>, status: u16, kind: &str) -> Value {
    let document = json(answer);
    assert_eq!(
        (answer.status().as_u16(), document["type"].as_str()),
        (status, Some(&*format!("urn:bearerd:problem:{kind}")))
    );
    assert_eq!(header(answer, "content-type"), Some("application/problem+json"));
    assert_eq!(header(answer, "cache-control"), Some("no-store"));
    assert_eq!(document["status"], status);
    for text in ["title", "detail"] {
        assert!(document[text].as_str().is_some_and(|text| text.len() > 5), "{document}");
    }
    assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control-")), "{answer:?}");
    document
}

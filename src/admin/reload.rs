//! `POST /v1/reload`: the configuration is read again. Says what changed, or every mistake, by the names of keys and never with a value.

use std::pin::Pin;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::{answer, problem_with};
use crate::config::Mistake;

/// Reads the configuration again and puts it in force, if it has no mistake.
pub trait Reload: Send + Sync {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, NotReloaded>> + Send + '_>>;
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// `applied`, or `unchanged` where there was nothing that could be.
    pub outcome: &'static str,
    pub changed: Vec<String>,
    /// What stays as it was until the next start.
    pub needs_restart: Vec<String>,
    pub warnings: Vec<String>,
}

/// Why it did nothing.
#[derive(Clone, Debug)]
pub enum NotReloaded {
    Mistakes(Vec<Mistake>),
    Impossible(&'static str),
}

pub(super) fn said(result: &Result<Reloaded, NotReloaded>) -> Response<Full<Bytes>> {
    match result {
        Ok(reloaded) => answer(StatusCode::OK, "application/json", serde_json::json!(reloaded).to_string()),
        Err(NotReloaded::Impossible(why)) => problem_with(StatusCode::CONFLICT, why, &[]),
        Err(NotReloaded::Mistakes(mistakes)) => {
            let detail = match mistakes.len() {
                1 => "the configuration has a mistake; nothing was changed".to_owned(),
                count => format!("the configuration has {count} mistakes; nothing was changed"),
            };
            let list = mistakes.iter().map(|mistake| {
                serde_json::json!({ "key": mistake.path, "what": mistake.what, "origin": mistake.origin.to_string() })
            });
            problem_with(StatusCode::UNPROCESSABLE_ENTITY, &detail, &[("mistakes", list.collect())])
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::config::Origin;

    /// Has nothing to read.
    pub struct Never;

    impl Reload for Never {
        fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, NotReloaded>> + Send + '_>> {
            Box::pin(async { Err(NotReloaded::Impossible("there is nothing to read")) })
        }
    }

    #[tokio::test]
    async fn every_mistake_is_said_with_its_key_and_its_place() {
        let mistake = Mistake {
            path: "server.tls.key_file".to_owned(),
            what: "is not the key of this certificate".to_owned(),
            origin: Origin::File { line: 3, column: 1 },
        };
        let (head, body) = said(&Err(NotReloaded::Mistakes(vec![mistake]))).into_parts();
        let document: serde_json::Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(head.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(document["status"], 422);
        let expected = serde_json::json!([{
            "key": "server.tls.key_file", "what": "is not the key of this certificate", "origin": "line 3",
        }]);
        assert_eq!(document["mistakes"], expected);
    }
}

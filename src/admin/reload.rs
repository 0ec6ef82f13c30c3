//! `POST /v1/reload`: the configuration is read again. Says what changed, or every mistake, by the names of keys and never with a value.

use std::pin::Pin;

use schemars::JsonSchema;
use serde::Serialize;

use super::problem::{ConfigurationMistake, Kind, Problem};
use crate::config::Mistake;

/// Reads the configuration again and puts it in force, if it has no mistake.
pub trait Reload: Send + Sync {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, NotReloaded>> + Send + '_>>;
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reloaded {
    /// `applied`, or `unchanged` where there was nothing that could be.
    pub outcome: &'static str,
    /// Keys, or sections, of the configuration.
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

impl From<NotReloaded> for Problem {
    fn from(why: NotReloaded) -> Self {
        let mistakes = match why {
            NotReloaded::Impossible(why) => return Kind::NotReloadable.because(why),
            NotReloaded::Mistakes(mistakes) => mistakes,
        };
        let detail = match mistakes.len() {
            1 => "the configuration has a mistake; nothing was changed".to_owned(),
            count => format!("the configuration has {count} mistakes; nothing was changed"),
        };
        let said = mistakes.into_iter().map(|Mistake { path, what, origin }| ConfigurationMistake {
            key: path,
            what,
            origin: origin.to_string(),
        });
        Self { mistakes: said.collect(), ..Kind::ConfigurationInvalid.because(detail) }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::config::Origin;

    #[tokio::test]
    async fn every_mistake_is_said_with_its_key_and_its_place() {
        let mistake = Mistake {
            path: "server.tls.key_file".to_owned(),
            what: "is not the key of this certificate".to_owned(),
            origin: Origin::File { line: 3, column: 1 },
        };
        let (head, body) = Problem::from(NotReloaded::Mistakes(vec![mistake])).response().into_parts();
        let document: serde_json::Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(head.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(document["status"], 422);
        let expected = serde_json::json!([{
            "key": "server.tls.key_file", "what": "is not the key of this certificate", "origin": "line 3",
        }]);
        assert_eq!(document["mistakes"], expected);
    }
}

//! `POST /v1/explain`: a question as a JSON document, and what a request like that would meet.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// A target of the longest kind, with room to spare.
const QUESTION_BYTES: usize = 64 * 1024;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Says what a request would meet, and sends nothing.
pub trait Explain: Send + Sync {
    /// From one JSON document to another. `Err`: what is wrong with the question, in words for whoever asked.
    fn explain<'a>(
        &'a self,
        question: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Result<serde_json::Value, String>> + Send + 'a>>;
}

/// The explanation, or a status and why.
pub(super) async fn answer<B>(explain: &dyn Explain, head: &Parts, body: B) -> Result<String, (StatusCode, String)>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    if !is_json(&head.headers) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the question has to be application/json".to_owned()));
    }
    let whole = tokio::time::timeout(QUESTION_TIMEOUT, Limited::new(body, QUESTION_BYTES).collect()).await;
    let question = match whole {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let why = format!("the question is longer than {QUESTION_BYTES} bytes");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Ok(Err(_)) | Err(_) => return Err((StatusCode::BAD_REQUEST, "the body did not come".to_owned())),
    };
    let explained = explain.explain(&question).await;
    explained.map(|explanation| explanation.to_string()).map_err(|why| (StatusCode::BAD_REQUEST, why))
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
pub(super) mod tests {
    use http::Request;
    use http_body_util::Full;
    use serde_json::{Value, json};

    use super::*;

    /// Knows nothing, and says what it was asked.
    pub struct Echo;

    impl Explain for Echo {
        fn explain<'a>(
            &'a self,
            question: &'a [u8],
        ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>> {
            Box::pin(async move { serde_json::from_slice(question).map_err(|error| error.to_string()) })
        }
    }

    async fn asked(content_type: &str, body: &str) -> Result<String, StatusCode> {
        let head = Request::post("/v1/explain").header(CONTENT_TYPE, content_type).body(()).unwrap().into_parts().0;
        let answered = answer(&Echo, &head, Full::from(body.to_owned())).await;
        answered.map_err(|(status, _)| status)
    }

    #[tokio::test]
    async fn a_question_is_a_json_document_of_some_length() {
        let body = json!({"path": "/"}).to_string();
        assert_eq!(asked("application/json", &body).await.as_ref(), Ok(&body));
        assert_eq!(asked("Application/JSON; charset=utf-8", &body).await.as_ref(), Ok(&body));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert_eq!(asked(kind, &body).await, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{kind}");
        }
        assert_eq!(asked("application/json", "{").await, Err(StatusCode::BAD_REQUEST));
        let long = format!("\"{}\"", "a".repeat(QUESTION_BYTES - 2));
        assert!(asked("application/json", &long).await.is_ok());
        assert_eq!(asked("application/json", &format!("{long} ")).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}

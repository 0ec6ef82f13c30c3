//! `$batch`: its members are judged as the requests that they are, and so read that nobody can read them in another way.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use super::canonical::canonical;
use super::error::{Kind, Refusal};
use super::policy::{Policy, TUNNELS};

impl Policy {
    /// Judges every member of a `$batch` body. `version` is the first segment of the envelope's path (`/v1.0`).
    /// `own_origins` are the origins that name us or the upstream.
    pub fn permit_batch(&self, body: &[u8], version: &str, own_origins: &[String]) -> Result<(), Refusal> {
        let malformed = || Kind::BadRequest.because("the $batch body is not what JSON batching prescribes");
        let batch: Batch = serde_json::from_slice(body).map_err(|_| malformed())?;
        let members = batch.requests.iter().map(|member| &member.others);
        if std::iter::once(&batch.others).chain(members).any(has_double) {
            return Err(malformed());
        }
        for member in batch.requests {
            let denied = |why: &str| Kind::PolicyDenied.because(format!("$batch member {}: {why}", member.id));
            let method = Method::from_bytes(member.method.to_ascii_uppercase().as_bytes())
                .map_err(|_| denied("its method is malformed"))?;
            let path =
                member_path(&member.url, version, own_origins).ok_or_else(|| denied("its url names another host"))?;
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let path = canonical(path).ok_or_else(|| denied("its url can be read in two ways"))?;
            if is_batch(&path) {
                return Err(denied("a $batch can't contain a $batch"));
            }
            let tunnelled =
                member.headers.keys().any(|name| TUNNELS.iter().any(|tunnel| name.eq_ignore_ascii_case(tunnel)));
            if tunnelled {
                return Err(denied("a method override header can't be used by a client with rules"));
            }
            self.judge(&method, &path).map_err(|refusal| denied(&refusal.message))?;
        }
        Ok(())
    }
}

pub(super) fn is_batch(path: &str) -> bool {
    path.trim_end_matches('/').ends_with("/$batch")
}

#[derive(Deserialize)]
struct Batch {
    requests: Vec<Member>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Member {
    id: serde_json::Value,
    method: String,
    url: String,
    #[serde(default)]
    headers: serde_json::Map<String, serde_json::Value>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

/// Whoever reads names without regard to case would judge by another `url` than ours.
fn has_double(others: &serde_json::Map<String, serde_json::Value>) -> bool {
    const OURS: [&str; 5] = ["requests", "id", "method", "url", "headers"];
    others.keys().any(|name| OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)))
}

/// What we read is what the upstream reads: no coding, no other alphabet.
pub(super) fn is_plain_json(headers: &HeaderMap) -> bool {
    let charset = |value: &str| {
        value.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
    };
    let plain = |value: &HeaderValue| value.to_str().is_ok_and(charset);
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_TYPE).iter().all(plain) && headers.get_all(CONTENT_ENCODING).iter().all(identity)
}

/// The path of a member: relative ones are relative to the version, absolute ones must name us or the upstream.
fn member_path(url: &str, version: &str, own_origins: &[String]) -> Option<String> {
    if let Some(origin) = own_origins.iter().find(|origin| url.starts_with(origin.as_str())) {
        let rest = &url[origin.len()..];
        return rest.starts_with('/').then(|| rest.to_owned());
    }
    if url.contains("://") && url.find("://") < url.find(['/', '?']) || url.starts_with("//") {
        return None;
    }
    let url = url.strip_prefix('/').unwrap_or(url);
    Some(format!("{version}/{url}"))
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::policy;
    use super::*;

    #[test]
    fn every_member_of_a_batch_is_judged() {
        let policy = policy(&["GET /v1.0/me/**"], &[], false);
        let own = vec!["http://127.0.0.1:8080".to_owned()];
        let judge = |method: &str, url: &str| {
            let body = serde_json::json!({"requests": [
                {"id": "1", "method": "GET", "url": "/me/messages"},
                {"id": "2", "method": method, "url": url},
            ]});
            policy.permit_batch(body.to_string().as_bytes(), "/v1.0", &own).map_err(|refusal| refusal.kind)
        };
        for url in ["/me/messages", "me/drive?$select=id", "http://127.0.0.1:8080/v1.0/me/drive"] {
            assert_eq!(judge("GET", url), Ok(()), "{url}");
        }
        for (method, url) in [
            ("DELETE", "/me/messages/1"),
            ("GET", "/users"),
            ("GET", "https://evil/v1.0/me/x"),
            ("GET", "//evil/v1.0/me/x"),
            ("GET", "/me/../users"),
            ("POST", "/$batch"),
            ("GET", "http://127.0.0.1:8080.evil/v1.0/me/x"),
            ("G T", "/me/x"),
            ("get", "/users"),
        ] {
            assert_eq!(judge(method, url), Err(Kind::PolicyDenied), "{method} {url}");
        }
        assert_eq!(policy.permit_batch(b"[]", "/v1.0", &own).map_err(|refusal| refusal.kind), Err(Kind::BadRequest));
    }

    #[test]
    fn a_batch_that_can_be_read_in_two_ways_is_none() {
        let policy = policy(&["GET /v1.0/me"], &[], false);
        let judge = |body: &str| policy.permit_batch(body.as_bytes(), "/v1.0", &[]).map_err(|refusal| refusal.kind);
        assert_eq!(judge(r#"{"requests":[{"id":"1","method":"GET","url":"/me","dependsOn":["2"]}]}"#), Ok(()));
        for body in [
            r#"{"requests":[{"id":"1","method":"GET","url":"/me","url":"/users"}]}"#,
            r#"{"requests":[{"id":"1","method":"GET","url":"/me","URL":"/users"}]}"#,
            r#"{"requests":[{"id":"1","method":"GET","Method":"DELETE","url":"/me"}]}"#,
            r#"{"requests":[],"requests":[{"id":"1","method":"GET","url":"/users"}]}"#,
            r#"{"requests":[],"Requests":[{"id":"1","method":"GET","url":"/users"}]}"#,
            r#"{"requests":[{"id":"1","method":"GET","url":"/me","Headers":{"X-HTTP-Method":"DELETE"}}]}"#,
            "{\"requests\":[]} {\"requests\":[]}",
            "\u{feff}{\"requests\":[]}",
        ] {
            assert_eq!(judge(body), Err(Kind::BadRequest), "{body}");
        }
    }
}

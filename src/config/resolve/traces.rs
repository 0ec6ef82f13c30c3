//! `[traces]`: where spans go, and how many.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::Traces;
use crate::config::mistakes::Reported;
use crate::config::read::Section;
use crate::config::values::{self, filled, fraction, of_text};
use crate::secret::Secret;

/// What follows from the message itself.
const OURS: [HeaderName; 5] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::HOST, header::TRANSFER_ENCODING];

pub(super) fn traces(section: &Section<'_>) -> Result<Traces, Reported> {
    let endpoint = section.find("endpoint", of_text(values::base));
    let secret = section.secret("headers");
    let named = if section.has("headers_file") { "headers_file" } else { "headers" };
    let headers = secret.and_then(|secret| match secret {
        Some(secret) => headers(&secret).map_err(|what| section.mistake(named, what)),
        None => Ok(HeaderMap::new()),
    });
    let ca_pem = section.certificates("ca_file");
    let sample = section.get("sample", fraction);
    let service_name = section.get("service_name", filled);
    let (endpoint, headers) = (endpoint?, headers?);
    if let Some(endpoint) = &endpoint
        && !headers.is_empty()
        && endpoint.scheme() == "http"
        && !values::is_loopback(endpoint)
    {
        return Err(section.mistake("endpoint", "must be https where headers go along: they may be secret"));
    }
    Ok(Traces {
        endpoint: endpoint.map(of_traces),
        headers,
        ca_pem: ca_pem?,
        sample: sample?,
        service_name: service_name?,
    })
}

/// As the specification of OTLP says.
fn of_traces(mut base: Url) -> Url {
    let path = format!("{}/v1/traces", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base
}

/// `name=value,name=value`, with values that may be percent-encoded. No mistake says a value.
fn headers(text: &Secret<String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (number, pair) in text.expose().split(',').enumerate() {
        let at = format!("header {}", number + 1);
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("{at} is not name=value"))?;
        let name: HeaderName = name.trim().parse().map_err(|_| format!("{at} has no name that a header can have"))?;
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| format!("{at} has a value that no header has"))?;
        if OURS.contains(&name) {
            return Err(format!("{name} is not yours to set"));
        }
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_as_opentelemetry_has_them() {
        let read = headers(&"api-key=s3cret, Authorization=Basic%20YTpi".into()).unwrap();
        assert_eq!(
            (&read["api-key"], &read["authorization"]),
            (&"s3cret".parse().unwrap(), &"Basic YTpi".parse().unwrap())
        );
        assert!(!format!("{read:?}").contains("s3cret"));
        for wrong in ["s3cret", "a=b,s3cret", "=s3cret", "a b=s3cret", "a=s3cret%0a", "host=s3cret", "a=s3cret,"] {
            let what = headers(&wrong.into()).unwrap_err();
            assert!(!what.contains("s3cret"), "{what}");
        }
    }

    #[test]
    fn the_path_is_appended_to_the_base() {
        for (base, whole) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example.com/otlp/", "https://otel.example.com/otlp/v1/traces"),
        ] {
            assert_eq!(of_traces(base.parse().unwrap()).as_str(), whole);
        }
    }
}

//! What every input has to keep to. Run by libFuzzer (`make fuzz`) and, over the corpus and mutations of it, by the integration tests.

use std::convert::Infallible;

use bearerd::graph::batch::{Answers, Batch, Edit, finish, merge};
use bearerd::graph::links::{Links, in_request};
use bearerd::proxy::canonical::{Canonical, canonical};
use bearerd::proxy::outbound::{Destination, OutboundHead};
use bearerd::proxy::reply;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

const GRAPH: &str = "https://graph.microsoft.com";
const US: &str = "http://proxy.example:8080/as/alice";

/// The first byte says how the rest is cut into chunks.
pub fn links(data: &[u8]) {
    let Some((&size, text)) = data.split_first() else { return };
    let links = Links::new(GRAPH, US).expect("they differ");
    let whole = links.whole(text).unwrap_or_else(|| text.to_vec());

    let mut rewriter = links.rewriter();
    let mut streamed = Vec::new();
    for chunk in text.chunks(usize::from(size) + 1) {
        rewriter.feed(Bytes::copy_from_slice(chunk));
        while let Some(piece) = rewriter.next() {
            streamed.extend_from_slice(&piece);
        }
    }
    rewriter.end();
    while let Some(piece) = rewriter.next() {
        streamed.extend_from_slice(&piece);
    }
    assert_eq!(streamed, whole, "however it is cut");

    let to_graph = |_: &str, url: &str| Ok::<_, Infallible>(url.strip_prefix(US).map(|rest| format!("{GRAPH}{rest}")));
    let Ok(sent) = in_request(text, to_graph);
    if serde_json::from_slice::<&RawValue>(text).is_ok() {
        assert!(serde_json::from_slice::<&RawValue>(&whole).is_ok(), "JSON stays JSON");
        assert!(sent.is_none_or(|sent| serde_json::from_slice::<&RawValue>(&sent).is_ok()), "in requests too");
    }
}

pub fn canonical_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let Ok(Canonical { text: canonical, .. }) = canonical(path) else { return };
    assert!(canonical.starts_with('/'), "{canonical}");
    assert!(!canonical.contains("//") && !canonical.contains('\\'), "{canonical}");
    assert!(!canonical.chars().any(char::is_control), "{canonical}");
    assert!(!canonical.split('/').any(|segment| segment == "." || segment == ".."), "{canonical}");
}

/// The request, its answer, and the answer to what was sent again, with NUL between them.
pub fn batch(data: &[u8]) {
    let mut texts = data.split(|byte| *byte == 0);
    let mut next = || texts.next().unwrap_or_default();
    let (request, first, second) = (next(), next(), next());
    let now = bearerd::clock::Timestamp::from_secs(1_800_000_000);
    let link = |url: &str| url.strip_prefix(GRAPH).map(|rest| format!("{US}{rest}"));
    let finished = finish(first, &link, true, now);
    assert!(finished.is_none_or(|answer| Answers::read(answer.as_bytes()).is_some()), "it stays an answer");

    let Some(batch) = Batch::read(request) else { return };
    let edits: Vec<Edit> =
        batch.members().iter().map(|_| Edit { url: Some("/me".to_owned()), ..Edit::default() }).collect();
    if let Some(edited) = batch.edited(&edits) {
        let edited = Batch::read(edited.as_bytes()).expect("it stays a batch");
        assert!(edited.members().iter().all(|member| member.url == "/me"));
    }
    let Some(answers) = Answers::read(first).filter(|_| batch.has_parts()) else { return };
    for again in [batch.refused(&answers), batch.throttled(&answers, now)].into_iter().flatten() {
        let part = batch.part(&again.members);
        let part = Batch::read(part.as_bytes()).expect("a part of a batch is one");
        assert_eq!(part.members().len(), again.members.len());
        if let Some(merged) = merge(first, second, &part) {
            assert!(Answers::read(merged.as_bytes()).is_some(), "it stays an answer");
        }
    }
}

/// Lines of `name: value`, as a request's and as an answer's.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let pair = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = pair {
            headers.append(name, value);
        }
    }
    let mut answer = headers.clone();
    reply::filter(&mut answer);
    let foreign = |name: &&str| {
        name.starts_with("access-control-")
            || name.starts_with("bearerd-")
            || ["connection", "transfer-encoding", "set-cookie", "upgrade"].contains(name)
    };
    assert_eq!(answer.keys().map(HeaderName::as_str).find(foreign), None);
    assert!(answer.contains_key("cache-control"));

    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.headers = headers;
    let destination = Destination {
        scheme: http::uri::Scheme::HTTPS,
        authority: http::uri::Authority::from_static("graph.microsoft.com"),
        host: HeaderValue::from_static("graph.microsoft.com"),
    };
    let sent = OutboundHead::new(parts, "/v1.0/me", "id", &destination).expect("the target is well-formed");
    let theirs = |name: &&str| {
        name.starts_with("bearerd-")
            || name.starts_with("x-forwarded-")
            || name.contains('_')
            || ["authorization", "x-api-key", "cookie", "connection", "transfer-encoding", "via"].contains(name)
    };
    let theirs = |name: &&str| theirs(name) || *name == "host";
    assert_eq!(sent.lines().map(|(name, _)| name.as_str()).find(theirs), None);
    assert_eq!(sent.host, "graph.microsoft.com");
}

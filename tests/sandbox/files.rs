//! Downloads and uploads of every size, and the second origin that wants no token.

use std::net::SocketAddr;

use bearerd::sandbox::Sandbox;
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;

use crate::client::{Reply, get, graph, sandbox, send};

const FRAGMENT: usize = 320 << 10;

/// Where a pre-authenticated link leads.
fn place(link: &str) -> (SocketAddr, String) {
    let url = Url::parse(link).unwrap();
    (url.socket_addrs(|| None).unwrap()[0], url[url::Position::BeforePath..].to_owned())
}

/// Where a new session takes its fragments.
async fn session(sandbox: &Sandbox, token: &str, name: &str) -> (SocketAddr, String) {
    let start = format!("/v1.0/me/drive/root:/{name}:/createUploadSession");
    let session = graph(&sandbox.graph, token, "POST", &start, "{}").await;
    assert_eq!((session.status.as_u16(), &session.json()["nextExpectedRanges"]), (200, &json!(["0-"])));
    place(session.json()["uploadUrl"].as_str().unwrap())
}

async fn put((to, target): &(SocketAddr, String), first: usize, body: &[u8], total: usize) -> Reply {
    let range = format!("bytes {first}-{}/{total}", first + body.len() - 1);
    send(*to, "PUT", target, &[("content-range", range.as_str())], body.to_vec()).await.unwrap()
}

#[tokio::test]
async fn downloads_come_from_another_origin_without_a_token() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let items = graph(&sandbox.graph, &token, "GET", "/v1.0/me/drive/root/children", "").await.json();
    let item = items["value"].as_array().unwrap().iter().find(|item| item["name"] == "welcome.txt").unwrap();
    let path = format!("/v1.0/me/drive/items/{}/content", item["id"].as_str().unwrap());
    let redirect = graph(&sandbox.graph, &token, "GET", &path, "").await;
    assert_eq!(
        (redirect.status.as_u16(), json!(redirect.header("location"))),
        (302, item["@microsoft.graph.downloadUrl"].clone())
    );
    let location = Url::parse(redirect.header("location")).unwrap();
    assert_eq!(location.origin(), sandbox.graph.files_origin().origin());
    assert_ne!(location.origin(), sandbox.graph.origin().origin());
    let (files, at) = place(location.as_str());
    assert_eq!(get(files, &at).await.body, "Welcome to the sandbox.\n");
    let part = send(files, "GET", &at, &[("range", "bytes=0-6")], "").await.unwrap();
    assert_eq!(
        (part.status.as_u16(), part.header("content-range"), &*part.body),
        (206, "bytes 0-6/24", &b"Welcome"[..])
    );
    assert_eq!(send(files, "GET", &at, &[("range", "bytes=24-")], "").await.unwrap().status, 416);
    assert_eq!(get(files, location.path()).await.status, 401, "the link is the permission");
    assert_eq!(sandbox.graph.leaks().len(), 0);

    let bearer = format!("Bearer {token}");
    let leaked = send(files, "GET", &at, &[("authorization", &bearer)], "").await.unwrap();
    assert_eq!(leaked.status, 401);
    let leaks = sandbox.graph.leaks();
    assert_eq!((leaks.len(), &leaks[0].target, &leaks[0].authorization), (1, &at, &bearer));
    let shown = get(sandbox.graph.address(), "/_sandbox/leaks").await;
    assert_eq!(shown.json()[0]["target"], json!(at));
    assert!(!String::from_utf8_lossy(&shown.body).contains(&token), "for people's eyes: no token");
    let asked = get(sandbox.graph.address(), "/_sandbox/file-requests").await.json();
    assert_eq!((asked.as_array().unwrap().len(), sandbox.graph.file_requests().len()), (5, 5));
}

#[tokio::test]
async fn downloads_of_any_size() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let bytes = |from: usize, to: usize| (from..to).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>();
    let size = 3_000_000;
    let redirect = graph(&sandbox.graph, &token, "GET", "/v1.0/me/drive/items/size-3000000/content", "").await;
    let (files, at) = place(redirect.header("location"));
    assert_eq!(get(files, &at).await.body, bytes(0, size));
    let tail = send(files, "GET", &at, &[("range", "bytes=-1000")], "").await.unwrap();
    assert_eq!(
        (tail.header("content-range"), &*tail.body),
        ("bytes 2999000-2999999/3000000", &*bytes(size - 1000, size))
    );

    let target = "/v1.0/blob?bytes=3000000";
    let blob = graph(&sandbox.graph, &token, "GET", target, "").await;
    assert_eq!((blob.header("content-length"), &*blob.body), ("3000000", &*bytes(0, size)));
    let bearer = format!("Bearer {token}");
    let with = async |name: &str, value: &str| {
        let headers = [("authorization", bearer.as_str()), (name, value)];
        send(sandbox.graph.address(), "GET", target, &headers, "").await.unwrap()
    };
    let part = with("range", "bytes=1000000-1999999").await;
    assert_eq!((part.status.as_u16(), &*part.body), (206, &*bytes(1_000_000, 2_000_000)));
    assert_eq!(with("range", "bytes=3000000-").await.status, 416);
    assert_eq!(with("if-none-match", blob.header("etag")).await.status, 304);
}

#[tokio::test]
async fn an_upload_session_takes_fragments_by_the_rules() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let to = session(&sandbox, &token, "new%20file.bin").await;
    let body: Vec<u8> = (0..FRAGMENT + 10).map(|at| u8::try_from(at % 100).unwrap()).collect();
    let total = body.len();
    assert_eq!(put(&to, 0, &body[..FRAGMENT - 1], total).await.status, 400, "no multiple of 320 KiB");
    assert_eq!(put(&to, FRAGMENT, &body[FRAGMENT..], total).await.status, 416, "not the next one");
    let first = put(&to, 0, &body[..FRAGMENT], total).await;
    assert_eq!((first.status.as_u16(), &first.json()["nextExpectedRanges"]), (202, &json!(["327680-"])));
    assert_eq!(put(&to, 0, &body[..FRAGMENT], total).await.status, 416, "twice");
    let bearer = format!("Bearer {token}");
    let headers = [("content-range", "bytes 327680-327689/327690"), ("authorization", bearer.as_str())];
    assert_eq!(send(to.0, "PUT", &to.1, &headers, body[FRAGMENT..].to_vec()).await.unwrap().status, 401);
    assert_eq!(sandbox.graph.leaks().len(), 1);
    assert_eq!(send(to.0, "PUT", &to.1, &headers[..1], "short").await.unwrap().status, 400);
    assert_eq!(get(to.0, &to.1).await.json()["nextExpectedRanges"], json!(["327680-"]));
    let done = put(&to, FRAGMENT, &body[FRAGMENT..], total).await;
    let digest = format!("{:X}", Sha256::digest(&body));
    assert_eq!(
        (done.status.as_u16(), &done.json()["name"], &done.json()["size"]),
        (201, &json!("new file.bin"), &json!(total))
    );
    assert_eq!(done.json()["file"]["hashes"]["sha256Hash"], json!(digest));
    assert_eq!(get(to.0, &to.1).await.status, 404);
    let content = graph(&sandbox.graph, &token, "GET", "/v1.0/me/drive/root:/new%20file.bin:/content", "").await;
    let (files, at) = place(content.header("location"));
    assert_eq!(get(files, &at).await.body, body);

    let cancelled = session(&sandbox, &token, "other.bin").await;
    assert_eq!(send(cancelled.0, "DELETE", &cancelled.1, &[], "").await.unwrap().status, 204);
    assert_eq!(put(&cancelled, 0, b"x", 1).await.status, 404);
}

#[tokio::test]
async fn large_uploads_are_counted_and_not_kept() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let body = vec![b'u'; 30 * FRAGMENT];
    let digest = |times: usize| format!("{:X}", Sha256::digest(body.repeat(times)));
    let target = "/v1.0/me/drive/root:/large.bin:/content";
    let bearer = format!("Bearer {token}");
    let put_whole =
        send(sandbox.graph.address(), "PUT", target, &[("authorization", &bearer)], body.clone()).await.unwrap();
    let item = put_whole.json();
    assert_eq!((put_whole.status.as_u16(), &item["size"]), (201, &json!(body.len())));
    assert_eq!(item["file"]["hashes"]["sha256Hash"], json!(digest(1)));

    let to = session(&sandbox, &token, "larger.bin").await;
    assert_eq!(put(&to, 0, &body, 2 * body.len()).await.status, 202);
    let item = put(&to, body.len(), &body, 2 * body.len()).await.json();
    assert_eq!((&item["size"], &item["file"]["hashes"]["sha256Hash"]), (&json!(2 * body.len()), &json!(digest(2))));
    let content = graph(&sandbox.graph, &token, "GET", "/v1.0/me/drive/root:/larger.bin:/content", "").await;
    let (files, at) = place(content.header("location"));
    assert_eq!(get(files, &at).await.status, 410);
    let json =
        send(sandbox.graph.address(), "POST", "/v1.0/me/messages", &[("authorization", &bearer)], body).await.unwrap();
    assert_eq!(json.status, 413);
    let small = graph(&sandbox.graph, &token, "PUT", "/v1.0/me/drive/root:/small.txt:/content", "tiny").await;
    assert_eq!((small.status.as_u16(), &small.json()["size"]), (201, &json!(4)));
}

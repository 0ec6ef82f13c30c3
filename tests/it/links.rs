//! Links in answers lead back to the proxy: by whatever name it was called, however the body is framed, coded and cut; and nothing else of an
//! answer is touched.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::Version;

use crate::harness::*;
use crate::raw_upstream::{Play, RawUpstream};
use crate::upstreams::Authority;

/// `LINK` stands for the upstream's origin where a client is to follow it, `SELF` where it is somebody's text, or not for this client.
const PAGE: &str = r#"{"@odata.context":"LINK/v1.0/$metadata#users('x')/messages",
"@odata.nextLink":"LINK/v1.0/me/messages?$top=2&$skiptoken=m~AQ%2B5%2FX%27%3D%3D","@odata.deltaLink":"LINK/v1.0/me/messages/delta?$deltatoken=d%2B",
"value":[{"@odata.id":"LINK/v1.0/users('a b')","subject":"SELF/v1.0/me","body":{"content":"<a href=\"SELF/v1.0/me\">SELF</a>"},
"attachments@odata.nextLink" : "LINK/v1.0/me/messages/1/attachments?$skip=1","list":{"deep":[{"@odata.deltaLink":"LINK/beta/x"}]},
"@microsoft.graph.downloadUrl":"https://contoso.sharepoint.com/download.aspx?tempauth=x","webUrl":"SELF/web",
"uploadUrl":"https://sn3302.up.1drv.com/up/fe69"},
{"@odata.nextLink":"SELF.evil/v1.0"},{"@odata.nextLink":"SELF1/v1.0"},{"@odata.nextLink":"SELF@evil/v1.0"},{"@odata.id":"users('relative')"}],
"resourceLocation":"LINK/v1.0/me/drive/items/1","targetResourceLocation":"/teams('1')","größe":"😀"}"#;

pub const SHORT: &str = r#"{"@odata.nextLink":"LINK/v1.0/me?$skip=1","value":["SELF"]}"#;

/// The ways in which servers code a body.
const CODINGS: [&str; 6] = ["identity", "gzip", "x-gzip", "br", "deflate", "deflate, raw"];

pub const US: &str = "http://127.0.0.1";

/// `PAGE` as the upstream sends it.
pub fn sent(page: &str, upstream: &str) -> String {
    page.replace("LINK", upstream).replace("SELF", upstream)
}

/// `PAGE` as it has to arrive.
pub fn arrives(page: &str, upstream: &str, us: &str) -> String {
    page.replace("LINK", us).replace("SELF", upstream)
}

pub fn coded(coding: &str, plain: &[u8]) -> Vec<u8> {
    let level = Compression::default();
    match coding {
        "gzip" | "x-gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate, raw" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(plain).unwrap();
            encoder.into_inner()
        }
        _ => plain.to_vec(),
    }
}

/// The head of a JSON answer without its framing; `lines` end with CRLF each.
fn head(coding: &str, lines: &str) -> String {
    let coding = match coding.split(',').next() {
        None | Some("identity") => String::new(),
        Some(name) => format!("Content-Encoding: {name}\r\n"),
    };
    let kind = if lines.contains("Content-Type") { "" } else { "Content-Type: application/json;charset=utf-8\r\n" };
    let status = if lines.starts_with("HTTP/1.1") { "" } else { "HTTP/1.1 200 OK\r\n" };
    format!("{status}{lines}{kind}{coding}")
}

pub fn sized(coding: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    [format!("{}Content-Length: {}\r\n\r\n", head(coding, lines), body.len()).as_bytes(), body].concat()
}

/// Every piece is a chunk, and so arrives by itself.
pub fn chunked<'a>(coding: &str, lines: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = format!("{}Transfer-Encoding: chunked\r\n\r\n", head(coding, lines)).into_bytes();
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        bytes.extend_from_slice(&chunk(piece));
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

pub fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

/// An upstream whose answers are made from its origin and the request's target.
pub async fn upstream(answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> RawUpstream {
    RawUpstream::start(move |arrived, _| {
        let origin = format!("http://{}", arrived.message.header("host").unwrap());
        Play::Say(answer(&origin, arrived.message.start.split(' ').nth(1).unwrap()))
    })
    .await
}

fn option<'t>(target: &'t str, name: &str) -> &'t str {
    let query = target.split_once('?').unwrap().1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

/// An application that follows links sees every item, by whatever name it calls us, and needs nothing but us.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_to_be_had_by_following_links() {
    let rig = Rig::start().await;
    for http2 in [false, true] {
        for prefix in ["", "/as/alice", "/graph", "/as/alice/graph"] {
            for collection in ["/v1.0/me/messages?$top=10", "/beta/me/mailFolders/inbox/messages/delta?$top=10"] {
                let mut link = format!("{US}{prefix}{collection}");
                let mut pages = Vec::new();
                while let Some(path) = link.strip_prefix(US) {
                    assert!(path.starts_with(&format!("{prefix}/")), "{link}");
                    let request = keyed("GET", path).header("bearerd-account", "alice").body(empty()).unwrap();
                    let answer = if http2 { rig.send_http2(request).await } else { rig.send(request).await };
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    let page = json(&answer);
                    assert!(page["@odata.context"].as_str().unwrap().starts_with(&format!("{US}{prefix}/")), "{page}");
                    pages.push(page["value"].as_array().unwrap().len());
                    let next = page.get("@odata.nextLink").or(page.get("@odata.deltaLink"));
                    link = next.and_then(|link| link.as_str()).unwrap_or_default().to_owned();
                    if pages.len() > 3 {
                        break;
                    }
                }
                let delta = collection.contains("delta");
                assert_eq!(pages, if delta { vec![10, 10, 5, 0] } else { vec![10, 10, 5] }, "{prefix}{collection}");
            }
        }
    }
    assert!(rig.token_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_is_found_wherever_the_body_is_cut() {
    let upstream = upstream(|origin, target| {
        let coding = option(target, "coding").replace('+', " ");
        let body = coded(&coding, sent(SHORT, origin).as_bytes());
        let (first, second) = body.split_at(option(target, "cut").parse::<usize>().unwrap().min(body.len()));
        chunked(&coding, "", [first, second])
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let expected = arrives(SHORT, &upstream.origin(), US);
    let mut client = rig.http1().await;
    for coding in CODINGS {
        let length = coded(coding, sent(SHORT, &upstream.origin()).as_bytes()).len();
        for cut in 0..length {
            let request = get(&format!("/v1.0/me?coding={}&cut={cut}", coding.replace(' ', "+")));
            within(client.ready()).await.unwrap();
            let answer = whole(client.send_request(request)).await;
            assert_eq!(text(answer.body()), expected, "{coding} cut at {cut}");
            assert!(answer.headers().get("content-encoding").is_none());
        }
    }
    // Each connection was given back.
    assert!(upstream.arrived().iter().all(|arrived| arrived.connection == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_key_and_by_nothing_else() {
    let upstream = upstream(|origin, target| {
        let coding = option(target, "coding").replace('+', " ");
        let body = coded(&coding, sent(PAGE, origin).as_bytes());
        let status = format!("HTTP/1.1 {}\r\n", option(target, "status").replace('+', " "));
        let kind =
            format!("{status}Content-Type: {}\r\nVary: Accept-Encoding\r\nETag: W/\"1\"\r\n", option(target, "kind"));
        match option(target, "framing") {
            "sized" => sized(&coding, &format!("{kind}Digest: x\r\nContent-MD5: x\r\nAccept-Ranges: bytes\r\n"), &body),
            _ => chunked(&coding, &kind, body.chunks(100)),
        }
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let expected = arrives(PAGE, &upstream.origin(), US);
    let mut client = rig.http1().await;
    for coding in CODINGS {
        for (framing, status, kind) in [
            ("sized", "200+OK", "application/json"),
            ("chunked", "201+Created", "application/json;odata.metadata=minimal;odata.streaming=true;charset=utf-8"),
            ("sized", "404+Not+Found", "Application/JSON"),
            ("chunked", "503+Down", "application/problem+json"),
        ] {
            let coding = coding.replace(' ', "+");
            let target = format!("/v1.0/me?coding={coding}&framing={framing}&status={status}&kind={kind}");
            let mut request = get(&target);
            request.headers_mut().insert("bearerd-retry", "off".parse().unwrap());
            within(client.ready()).await.unwrap();
            let answer = whole(client.send_request(request)).await;
            assert_eq!(text(answer.body()), expected, "{target}");
            assert_eq!(answer.status().as_u16().to_string(), status[..3]);
            for gone in ["content-encoding", "digest", "content-md5", "accept-ranges"] {
                assert_eq!(header(&answer, gone), None, "{target}");
            }
            let varies: Vec<_> = answer.headers().get_all("vary").iter().collect();
            assert_eq!((varies.len(), header(&answer, "etag")), (2, Some("W/\"1\"")));
            let length = (framing == "sized" && coding == "identity").then(|| expected.len().to_string());
            assert_eq!(header(&answer, "content-length"), length.as_deref(), "{target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_name_the_upstream() {
    let elsewhere = "https://contoso.sharepoint.com/_api/v2.0/monitor/1?tempauth=a%2Bb";
    let upstream = upstream(move |origin, target| {
        let lines = match target {
            "/v1.0/created" => format!("HTTP/1.1 201 Created\r\nLocation: {origin}/v1.0/users('a')/x?a=%2b\r\n"),
            "/v1.0/signout" => format!("HTTP/1.1 200 OK\r\nLocation: {origin}\r\n"),
            "/v1.0/several" => format!(
                "HTTP/1.1 202 Accepted\r\nContent-Location: {origin}/beta/x\r\nOperation-Location: {origin}/v1.0/1\r\n\
                 Operation-Location: /relative\r\nOperation-Location: {origin}/v1.0/2\r\nX-Other: {origin}/v1.0\r\n"
            ),
            "/v1.0/relative" => "HTTP/1.1 202 Accepted\r\nLocation: /teams('1')/operations('2')\r\n".to_owned(),
            "/v1.0/alike" => format!("HTTP/1.1 201 Created\r\nLocation: {origin}.evil/v1.0\r\n"),
            "/v1.0/user" => format!("HTTP/1.1 201 Created\r\nLocation: {origin}@evil/v1.0\r\n"),
            "/v1.0/empty" => format!("HTTP/1.1 204 No Content\r\nLocation: {origin}/v1.0/x\r\n"),
            _ => format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\n"),
        };
        let body = if target == "/v1.0/empty" { "" } else { "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok" };
        format!("{lines}{}", if body.is_empty() { "\r\n" } else { body }).into_bytes()
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let origin = upstream.origin();
    for (path, location) in [
        ("/v1.0/created", format!("{US}/v1.0/users('a')/x?a=%2b")),
        ("/as/alice/v1.0/created", format!("{US}/as/alice/v1.0/users('a')/x?a=%2b")),
        ("/graph/v1.0/created", format!("{US}/graph/v1.0/users('a')/x?a=%2b")),
        ("/v1.0/signout", US.to_owned()),
        ("/v1.0/relative", "/teams('1')/operations('2')".to_owned()),
        ("/v1.0/alike", format!("{origin}.evil/v1.0")),
        ("/v1.0/user", format!("{origin}@evil/v1.0")),
        ("/v1.0/empty", format!("{US}/v1.0/x")),
        ("/v1.0/me/drive/items/1/content", elsewhere.to_owned()),
        ("/v1.0/me/drive/items/1/copy", elsewhere.to_owned()),
    ] {
        let before = upstream.arrived().len();
        let answer = rig.get(path).await;
        assert_eq!(header(&answer, "location"), Some(&*location), "{path}");
        assert_eq!(upstream.arrived().len(), before + 1, "no redirect is followed");
    }
    let answer = rig.get("/v1.0/several").await;
    let operations: Vec<_> = answer.headers().get_all("operation-location").iter().collect();
    assert_eq!(operations, [&format!("{US}/v1.0/1"), "/relative", &format!("{US}/v1.0/2")]);
    assert_eq!(header(&answer, "content-location"), Some(&*format!("{US}/beta/x")));
    assert_eq!(header(&answer, "x-other"), Some(&*format!("{origin}/v1.0")));
}

/// What is not ours to rewrite arrives as it was sent, with every header that speaks of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_page_stays_byte_for_byte() {
    let upstream = upstream(|origin, target| {
        let page = sent(PAGE, origin);
        let spoken = "Accept-Ranges: bytes\r\nDigest: sha-256=x\r\nRepr-Digest: x\r\nContent-MD5: x\r\nETag: \"1\"\r\n";
        let (coding, lines) = match target {
            "/v1.0/part" => ("identity", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\n"),
            "/v1.0/range" => ("gzip", "HTTP/1.1 200 OK\r\nContent-Range: bytes 0-1/9\r\n"),
            "/v1.0/text" => ("gzip", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
            "/v1.0/html" => ("identity", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"),
            "/v1.0/like" => ("identity", "HTTP/1.1 200 OK\r\nContent-Type: application/jsonp\r\n"),
            "/v1.0/zstd" => ("zstd", "HTTP/1.1 200 OK\r\n"),
            "/v1.0/two" => ("identity", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip, br\r\n"),
            "/v1.0/twice" => ("gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n"),
            _ => ("gzip", "HTTP/1.1 200 OK\r\n"),
        };
        sized(coding, &format!("{lines}{spoken}"), &coded(coding, page.as_bytes()))
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let page = sent(PAGE, &upstream.origin());
    for path in [
        "/v1.0/part",
        "/v1.0/range",
        "/v1.0/text",
        "/v1.0/html",
        "/v1.0/like",
        "/v1.0/zstd",
        "/v1.0/two",
        "/v1.0/twice",
        "/v1.0/me/messages/1/$value",
        "/v1.0/me/messages/1/%24VALUE",
        "/v1.0/me/drive/items/1/content",
        "/v1.0/me/drive/root:/a.json:/content?format=pdf",
    ] {
        let answer = rig.get(path).await;
        let plain = ["/v1.0/part", "/v1.0/html", "/v1.0/like", "/v1.0/zstd", "/v1.0/two"].contains(&path);
        let body = coded(if plain { "identity" } else { "gzip" }, page.as_bytes());
        assert!(answer.body() == &body, "{path}");
        assert_eq!(header(&answer, "content-length"), Some(&*body.len().to_string()), "{path}");
        for kept in ["digest", "repr-digest", "content-md5", "accept-ranges", "etag"] {
            assert!(header(&answer, kept).is_some(), "{path} {kept}");
        }
        let coding = answer.headers().get_all("content-encoding").iter().count();
        let coded = !["/v1.0/part", "/v1.0/html", "/v1.0/like"].contains(&path);
        assert_eq!(coding > 0, coded, "{path}");
    }
    // Under the upstream's own name nothing has to be rewritten, and nothing is.
    let mut request = get("/v1.0/me");
    request.headers_mut().insert("host", upstream.address.to_string().parse().unwrap());
    let answer = rig.send(request).await;
    assert!(answer.body() == &coded("gzip", page.as_bytes()));
    assert_eq!((header(&answer, "content-encoding"), header(&answer, "digest")), (Some("gzip"), Some("sha-256=x")));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body() {
    let upstream = upstream(|origin, target| {
        let lines = match target {
            "/v1.0/same" => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n",
            "/v1.0/none" => "HTTP/1.1 204 No Content\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nContent-Encoding: gzip\r\n",
        };
        format!("{lines}Content-Type: application/json\r\nLocation: {origin}/v1.0/x\r\n\r\n").into_bytes()
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    for http2 in [false, true] {
        for (method, path, status) in
            [("GET", "/v1.0/same", 304), ("GET", "/v1.0/none", 204), ("HEAD", "/v1.0/me", 200)]
        {
            let request = alice(method, path).body(empty()).unwrap();
            let answer = if http2 { rig.send_http2(request).await } else { rig.send(request).await };
            assert_eq!((answer.status().as_u16(), answer.body().len()), (status, 0));
            assert_eq!(header(&answer, "location"), Some(&*format!("{US}/v1.0/x")));
            // What GET would bring is not 5000 bytes of gzip.
            assert_eq!((header(&answer, "content-length"), header(&answer, "content-encoding")), (None, None));
        }
    }
    assert!(upstream.arrived().iter().all(|arrived| arrived.connection == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_that_a_client_has_for_us() {
    let authority = Authority::new();
    let tls = authority.for_name("127.0.0.1", &["http/1.1"]);
    let upstream = RawUpstream::with_tls(tls, |arrived, _| {
        let origin = format!("https://{}", arrived.message.header("host").unwrap());
        Play::Say(sized("identity", "", sent(SHORT, &origin).as_bytes()))
    })
    .await;
    let config = format!("{}\nserver.public_url = \"https://proxy.example\"", authority.trusted());
    let rig = Rig::before(&upstream.origin(), &config).await;
    let ours = rig.data;
    let theirs = upstream.address;
    for (target, host, us) in [
        ("/v1.0/me".to_owned(), "127.0.0.1".to_owned(), US.to_owned()),
        ("/v1.0/me".to_owned(), ours.to_string(), format!("http://{ours}")),
        // A TLS terminator stands in front of us.
        ("/v1.0/me".to_owned(), "proxy.example".to_owned(), "https://proxy.example".to_owned()),
        ("/as/alice/v1.0/me".to_owned(), "Proxy.Example".to_owned(), "https://proxy.example/as/alice".to_owned()),
        // One that says the port where it need not.
        ("/v1.0/me".to_owned(), "proxy.example:443".to_owned(), "https://proxy.example".to_owned()),
        // `http_proxy`: the application believes that it talks to the upstream.
        (format!("http://{theirs}/v1.0/me"), theirs.to_string(), format!("http://{theirs}")),
    ] {
        let mut wire = rig.wire().await;
        let credential = basic("alice", KEY);
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {credential}\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(text(&answer.body), arrives(SHORT, &upstream.origin(), &us), "{target} {host}");
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
    }
}

/// Old clients know an answer's end by its length or by the end of the connection.
/// Who follows a link with http in it says the password in the clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_says_by_which_scheme_it_was_asked() {
    let upstream = upstream(|origin, _| sized("identity", "", sent(SHORT, origin).as_bytes())).await;
    for (trusted, said, scheme) in [
        ("127.0.0.0/8", "X-Forwarded-Proto: https", "https"),
        ("127.0.0.0/8", "X-Forwarded-Proto: http", "http"),
        ("127.0.0.0/8", "X: y", "http"),
        ("10.0.0.0/8", "X-Forwarded-Proto: https", "http"),
    ] {
        let config = format!("[server]\nallowed_hosts = [\"other.example\"]\ntrusted_proxies = [\"{trusted}\"]");
        let rig = Rig::before(&upstream.origin(), &config).await;
        let mut wire = rig.wire().await;
        let credential = basic("alice", KEY);
        let head =
            format!("GET /v1.0/me HTTP/1.1\r\nHost: other.example\r\n{said}\r\nAuthorization: {credential}\r\n\r\n");
        wire.send(head).await;
        let answer = text(&wire.answer().await.body);
        assert_eq!(
            answer,
            arrives(SHORT, &upstream.origin(), &format!("{scheme}://other.example")),
            "{trusted} {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_every_version_know_where_it_ends() {
    let filler = "x".repeat(100_000);
    let large = SHORT.replace("[\"SELF\"]", &format!("[\"SELF\",\"{filler}\"]"));
    let page = large.clone();
    let upstream = upstream(move |origin, target| match target {
        "/v1.0/large" => sized("identity", "", sent(&page, origin).as_bytes()),
        "/v1.0/gzip" => sized("gzip", "", &coded("gzip", sent(SHORT, origin).as_bytes())),
        _ => sized("identity", "", sent(SHORT, origin).as_bytes()),
    })
    .await;
    let rig = Rig::before(&upstream.origin(), "").await;
    let short = arrives(SHORT, &upstream.origin(), US);
    let large = arrives(&large, &upstream.origin(), US);
    let credential = basic("alice", KEY);
    let ask = |path: &str, version: &str, connection: &str| {
        format!("GET {path} HTTP/{version}\r\nHost: 127.0.0.1\r\nAuthorization: {credential}\r\n{connection}\r\n")
    };
    // HTTP/1.0 with keep-alive: as long as the length is known.
    let mut wire = rig.wire().await;
    for _ in 0..2 {
        wire.send(ask("/v1.0/short", "1.0", "Connection: keep-alive\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.header("content-length"), Some(&*short.len().to_string()));
        assert_eq!(text(&answer.body), short);
    }
    for (path, expected) in [("/v1.0/large", &large), ("/v1.0/gzip", &short)] {
        for connection in ["Connection: keep-alive\r\n", ""] {
            let rest = text(rig.exchange(ask(path, "1.0", connection)).await);
            let (head, body) = rest.split_once("\r\n\r\n").unwrap();
            let head = head.to_ascii_lowercase();
            assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
            assert!(body == expected, "{path} {connection}");
        }
    }
    let rest = text(rig.exchange(ask("/v1.0/short", "1.0", "")).await);
    assert!(rest.ends_with(&format!("\r\n\r\n{short}")));
    // HTTP/1.1 and HTTP/2.
    let mut wire = rig.wire().await;
    for (path, expected) in [("/v1.0/large", &large), ("/v1.0/gzip", &short), ("/v1.0/short", &short)] {
        wire.send(ask(path, "1.1", "")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.header("transfer-encoding"), (path != "/v1.0/short").then_some("chunked"));
        assert!(text(&answer.body) == *expected, "{path}");
        let answer = rig.send_http2(get(path)).await;
        assert_eq!(answer.version(), Version::HTTP_2);
        let length = (path == "/v1.0/short").then(|| expected.len().to_string());
        assert_eq!(header(&answer, "content-length"), length.as_deref());
        assert!(text(answer.body()) == *expected, "{path}");
    }
}

//! Answers that are compressed, and answers that come in crumbs.

use std::io::Read;

use bearerd::sandbox::{Fault, Graph, Sandbox};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::client::{Reply, sandbox, send, soon};

const TARGET: &str = "/v1.0/me/messages";

async fn ask(sandbox: &Sandbox, token: &str, faults: &str, accept: &str) -> Reply {
    Fault::parse_list(faults).unwrap().into_iter().for_each(|fault| sandbox.faults().push(fault));
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("accept-encoding", accept)];
    send(sandbox.graph.address(), "GET", TARGET, &headers, "").await.unwrap()
}

fn unpacked(mut source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).map(|_| bytes)
}

#[tokio::test]
async fn json_is_compressed_as_the_client_accepts_it() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let plain = ask(&sandbox, &token, "", "gzip, br").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", ""), "not unless it is switched on");
    let json = plain.json();
    for (faults, accept, coding) in [
        ("graph:compress", "gzip, deflate, br", "gzip"),
        ("graph:compress", "br;q=1.0, gzip;q=0.8", "br"),
        ("graph:compress", "deflate", "deflate"),
        ("graph:compress", "identity", ""),
        ("graph:compress=gzip", "identity", "gzip"),
        ("graph:compress=br,graph:pieces=7", "", "br"),
        ("graph:compress=deflate", "", "deflate"),
    ] {
        let reply = ask(&sandbox, &token, faults, accept).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-encoding")), (200, coding), "{faults} {accept}");
        assert_eq!(reply.header("vary"), if faults == "graph:compress" { "Accept-Encoding" } else { "" });
        assert_eq!(reply.header("content-length").is_empty(), !coding.is_empty(), "compressed is chunked");
        let body = match coding {
            "gzip" => unpacked(flate2::read::GzDecoder::new(&*reply.body)),
            "deflate" => unpacked(flate2::read::ZlibDecoder::new(&*reply.body)),
            "br" => unpacked(brotli::Decompressor::new(&*reply.body, 4096)),
            _ => Ok(reply.body.to_vec()),
        };
        assert_eq!(serde_json::from_slice::<Value>(&body.unwrap()).unwrap(), json, "{faults}");
    }
    let raw = ask(&sandbox, &token, "graph:compress=raw-deflate", "").await;
    let body = unpacked(flate2::read::DeflateDecoder::new(&*raw.body)).unwrap();
    assert_eq!((raw.header("content-encoding"), body), ("deflate", plain.body.to_vec()));
    let broken = ask(&sandbox, &token, "graph:compress=broken", "").await;
    assert!(unpacked(flate2::read::GzDecoder::new(&*broken.body)).is_err());
    assert_eq!(sandbox.faults().waiting(), 0);
}

#[tokio::test]
async fn an_answer_comes_in_pieces() {
    let (sandbox, _) = sandbox();
    let token = sandbox.grant("alice").unwrap().access_token;
    let plain = ask(&sandbox, &token, "", "").await;
    Fault::parse_list("graph:pieces=100").unwrap().into_iter().for_each(|fault| sandbox.faults().push(fault));
    let pieces = soon(pieces(&sandbox.graph, &token)).await;
    assert_eq!(pieces.concat(), plain.body);
    assert!(pieces.iter().all(|piece| piece.len() <= 100) && pieces.len() >= plain.body.len() / 100);
}

/// The body as its frames came.
async fn pieces(graph: &Graph, token: &str) -> Vec<Bytes> {
    let stream = tokio::net::TcpStream::connect(graph.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    bearerd::tasks::spawn_here(connection);
    let request = http::Request::get(TARGET)
        .header("host", graph.address().to_string())
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    pieces
}

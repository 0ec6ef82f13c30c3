//! Floods of HTTP/2 frames that cost a client nothing, T502 to T505: such a connection is ended, nothing of it keeps a seat, and others are served.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// More than any limit on what one connection may do wrong.
const MANY: u32 = 5000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET /` or `POST /` as Alice, in HPACK without Huffman codes.
fn head(method: u8) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x84];
    let mut literal = |index: &[u8], value: &str| {
        block.extend(index);
        block.push(value.len().try_into().unwrap());
        block.extend(value.as_bytes());
    };
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x08], &basic("alice", KEY));
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The streams of a client, the first ones first.
fn streams() -> impl Iterator<Item = u32> {
    (0..MANY).map(|number| number * 2 + 1)
}

/// Sends `flood` over a connection of its own, until the proxy says that it ends it, or does: a reset may overtake the words.
async fn ends(rig: &Rig, flood: Vec<u8>) {
    let stream = within(TcpStream::connect(rig.data)).await.expect("it accepts");
    let (mut reader, mut writer) = stream.into_split();
    let sends = async {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes.extend(flood);
        // The other side may have hung up by then.
        let _ = writer.write_all(&bytes).await;
        std::future::pending::<()>().await;
    };
    let reads = async {
        let mut head = [0; 9];
        while head[3] != GOAWAY && reader.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length.try_into().unwrap()];
            if reader.read_exact(&mut payload).await.is_err() {
                break;
            }
        }
    };
    within(async {
        tokio::select! { () = reads => (), () = sends => unreachable!() };
    })
    .await;
}

/// One seat, and as much patience as it takes: whatever keeps the seat shows.
async fn house() -> Rig {
    Rig::with("server.limits.requests = 1\nserver.limits.wait = \"1h\"").await
}

async fn assert_others_are_served(rig: &Rig) {
    assert_eq!(rig.get("/v1.0/me").await.status(), 200);
    assert_eq!(rig.send_http2(get("/v1.0/me")).await.status(), 200);
}

/// T502: CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let rig = house().await;
    let mut flood = Vec::new();
    for stream in streams() {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(GET)));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    ends(&rig, flood).await;
    assert_others_are_served(&rig).await;
}

/// T503: CVE-2025-8671. The client's mistakes make the server take its answers back.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_the_server_is_made_to_reset_end_the_connection() {
    let overflow = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let after_the_end = frame(DATA, END_STREAM, 0, b"x");
    for mistake in [overflow, after_the_end] {
        let rig = house().await;
        let mut flood = Vec::new();
        for stream in streams() {
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(GET)));
            let mut mistake = mistake.clone();
            mistake[5..9].copy_from_slice(&stream.to_be_bytes());
            flood.extend(mistake);
        }
        ends(&rig, flood).await;
        assert_others_are_served(&rig).await;
    }
}

/// T504: RUSTSEC-2024-0332.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_ends_the_connection() {
    let rig = house().await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &head(GET));
    for _ in 0..MANY {
        flood.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    ends(&rig, flood).await;
    rig.assert_nothing_left();
    assert_others_are_served(&rig).await;
}

/// T504: RUSTSEC-2026-0258. Frames without a byte in them use up no window.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_empty_frames_ends_the_connection() {
    let rig = house().await;
    let mut flood = frame(HEADERS, END_HEADERS, 1, &head(POST));
    for _ in 0..40 * MANY {
        flood.extend(frame(DATA, 0, 1, &[]));
    }
    ends(&rig, flood).await;
    assert_others_are_served(&rig).await;
}

/// T505: some bytes that name a long header again and again. The head is as long as what it says.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_swells_is_too_large() {
    let rig = house().await;
    let mut flood = Vec::new();
    for stream in streams().take(50) {
        let mut block = head(GET);
        // `x` of 4,000 bytes, kept in the table; then its place in the table.
        block.extend([0x40, 1, b'x', 0x7f]);
        block.extend([0xa1, 0x1e]);
        block.extend([b'a'; 4000]);
        block.extend([0xbe; 8000]);
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
    }
    // A mistake that ends any connection: so much was read, and none of it was a request.
    flood.extend(frame(DATA, 0, 0, b"the end"));
    ends(&rig, flood).await;
    rig.assert_nothing_left();
    assert_others_are_served(&rig).await;
}

//! Other authorities for clients' certificates: what the old ones vouched for ends.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bearerd::sandbox::{Effect, Fault, Gate, Options};
use http_body_util::BodyExt as _;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::effects::{TLS, pair, tls_as, tls_at, tls_config};
use super::house::*;
use crate::harness::*;

/// T413, of connections that are there: an authority that was removed vouches for nobody.
#[tokio::test]
async fn what_a_certificate_began_ends_when_other_authorities_are_believed() {
    let (server, ours, others) = (pair(), pair(), pair());
    let config = format!(
        "{TLS}client_ca_file = \"HOME/ca.pem\"\n\
         [[clients]]\nname = \"payroll\"\nmtls_san = \"localhost\"\naccounts = [\"alice\"]\n\
         [[clients]]\nname = \"other\"\nkey_hash = \"{}\"\naccounts = [\"alice\"]\n",
        key_hash("new")
    );
    let house = House::with(Options::default(), &config, |home| {
        server.put(home);
        std::fs::write(home.join("ca.pem"), &ours.cert).expect("a file");
    })
    .await;
    let data = house.rig.data;
    let me = || bare("GET", "/v1.0/me").body(empty()).unwrap();
    let mut idle = Wire::over(tls_as(data, Some(&ours), "http/1.1").await.1);
    idle.send("GET /v1.0/me HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(idle.answer().await.status(), 200);
    let mut busy = http1_over(tls_as(data, Some(&ours), "http/1.1").await.1).await;
    let mut second = http2_over(tls_as(data, Some(&ours), "h2").await.1).await;
    assert_eq!(whole(second.send_request(for_http2(me(), data))).await.status(), 200);
    let with_key = || bare("GET", "/v1.0/me").header("authorization", basic("alice", "new")).body(empty()).unwrap();
    let mut without = http1_over(tls_at(data).await.1).await;
    assert_eq!(whole(without.send_request(with_key())).await.status(), 200);

    let gate = Gate::shut();
    house.rig.sandbox.faults().push(Fault::graph("/v1.0/me/messages", Effect::Hold(gate.clone())));
    let under_way = busy.send_request(bare("GET", "/v1.0/me/messages").body(empty()).unwrap());
    let reloaded = async {
        within(gate.arrived(1)).await;
        // A reload that changes nothing of it comes between.
        assert_eq!(house.reload(&format!("{config}[server.limits]\nuri_bytes = 5000\n")).await.needs_restart.len(), 0);
        std::fs::write(house.home().join("ca.pem"), &others.cert).expect("a file");
        assert_eq!(said(&house.ask().await), changed(["server.tls.client_ca_file"]));
        gate.open();
    };
    let (answer, ()) = tokio::join!(whole(under_way), reloaded);
    assert_eq!((answer.status().as_u16(), header(&answer, "connection")), (200, Some("close")), "it ends as it began");
    assert_eq!(text(idle.rest().await), "", "it is closed");
    within(async {
        // What was sent before it was told may still be served.
        while let Ok(answer) = second.send_request(for_http2(me(), data)).await {
            let (head, body) = answer.into_parts();
            let _ = body.collect().await;
            if head.status != 200 {
                assert_eq!(head.status, 401);
                break;
            }
        }
    })
    .await;
    assert_eq!(whole(without.send_request(with_key())).await.status(), 200, "it never had a certificate");
}

/// T413: a handshake that began before the authorities were changed, and ends after.
#[tokio::test]
async fn a_handshake_under_way_is_not_judged_by_authorities_of_the_past() {
    let (server, ours, others) = (pair(), pair(), pair());
    let config = format!(
        "{TLS}client_ca_file = \"HOME/ca.pem\"\n\
         [[clients]]\nname = \"payroll\"\nmtls_san = \"localhost\"\naccounts = [\"alice\"]\n"
    );
    let house = House::with(Options::default(), &config, |home| {
        server.put(home);
        std::fs::write(home.join("ca.pem"), &ours.cert).expect("a file");
    })
    .await;
    for changed in [false, true] {
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::new(tls_config(Some(&ours), "http/1.1")), name).expect("a client");
        let mut stream = within(TcpStream::connect(house.rig.data)).await.expect("it accepts");
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).expect("a hello");
        stream.write_all(&hello).await.expect("it listens");
        while tls.is_handshaking() {
            let mut bytes = [0; 4096];
            let length = within(stream.read(&mut bytes)).await.expect("the server's part");
            assert_ne!(length, 0, "the end of the stream");
            tls.read_tls(&mut &bytes[..length]).expect("room");
            tls.process_new_packets().expect("TLS");
        }
        if changed {
            std::fs::write(house.home().join("ca.pem"), &others.cert).expect("a file");
            house.ask().await;
        }
        tls.writer().write_all(b"GET /v1.0/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("room");
        let mut rest = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut rest).expect("the client's part");
        }
        // It may have hung up already.
        let _ = stream.write_all(&rest).await;
        let mut bytes = Vec::new();
        let _ = within(stream.read_to_end(&mut bytes)).await;
        let mut left = &bytes[..];
        while !left.is_empty() && tls.read_tls(&mut left).is_ok() && tls.process_new_packets().is_ok() {}
        let mut answer = Vec::new();
        let _ = tls.reader().read_to_end(&mut answer);
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), !changed, "{}", String::from_utf8_lossy(&answer));
    }
}

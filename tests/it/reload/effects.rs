//! What a new configuration changes for those who come, and what it leaves to those who are there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bearerd::config::Listen;
use bearerd::sandbox::{Effect, Fault, Gate, Options};
use http_body_util::BodyExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::house::*;
use crate::harness::*;
use crate::traces::collector::Collector;

const HOUR: Duration = Duration::from_secs(3600);
pub(super) const TLS: &str = "[server.tls]\ncert_file = \"HOME/cert.pem\"\nkey_file = \"HOME/key.pem\"\n";

/// A certificate for localhost that signs itself.
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
}

pub fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    Pair { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().to_vec() }
}

impl Pair {
    pub fn put(&self, home: &Path) {
        std::fs::write(home.join("cert.pem"), &self.cert).expect("a file");
        secret(&home.join("key.pem"), &self.key);
    }
}

/// What the data listener shows in a handshake of now.
pub async fn certificate(house: &House) -> Vec<u8> {
    tls(house).await.0
}

async fn tls(house: &House) -> (Vec<u8>, TlsStream<TcpStream>) {
    tls_at(house.rig.data).await
}

pub(super) async fn tls_at(address: SocketAddr) -> (Vec<u8>, TlsStream<TcpStream>) {
    tls_as(address, None, "http/1.1").await
}

pub(super) async fn tls_as(address: SocketAddr, own: Option<&Pair>, alpn: &str) -> (Vec<u8>, TlsStream<TcpStream>) {
    let stream = within(TcpStream::connect(address)).await.expect("it accepts");
    let connector = TlsConnector::from(Arc::new(tls_config(own, alpn)));
    let stream = within(connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await.expect("TLS");
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec();
    (shown, stream)
}

pub(super) fn tls_config(own: Option<&Pair>, alpn: &str) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(RootCertStore::empty());
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
            config.with_client_auth_cert(vec![own.der.clone().into()], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.dangerous().set_certificate_verifier(Arc::new(anyone::Anyone));
    config
}

/// Believes every certificate: the test looks at it itself.
mod anyone {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct Anyone;

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_and_who_is_there_stays() {
    let (first, second) = (pair(), pair());
    let house = House::with(Options::default(), TLS, |home| first.put(home)).await;
    let (shown, stream) = tls(&house).await;
    assert_eq!(shown, first.der);
    let mut there = http1_over(stream).await;
    assert_eq!(whole(there.send_request(get("/v1.0/me"))).await.status(), 200);
    second.put(house.home());
    assert_eq!(said(&house.ask().await), changed(["server.tls.cert_file", "server.tls.key_file"]));
    let (shown, stream) = tls(&house).await;
    assert_eq!(shown, second.der);
    assert_eq!(whole(http1_over(stream).await.send_request(get("/v1.0/me"))).await.status(), 200);
    assert_eq!(whole(there.send_request(get("/v1.0/me"))).await.status(), 200, "over the old connection");
}

/// Passwords, codes and cookies pass there.
#[tokio::test]
async fn the_pages_own_listener_speaks_the_servers_tls_and_keeps_it_as_long_as_its_address() {
    let (first, second) = (pair(), pair());
    let own = format!("{TLS}[signin]\nlisten = \"127.0.0.1:0\"\n");
    let house = House::with(Options::default(), &own, |home| first.put(home)).await;
    let [Listen::Tcp(pages)] = house.rig.app.page_addresses() else { panic!("no pages") };
    let page = || bare("GET", "/.bearerd/login").body(empty()).unwrap();
    let mut plain = Wire::over(TcpStream::connect(*pages).await.expect("it accepts"));
    plain.send("GET /.bearerd/login HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!plain.rest().await.starts_with(b"HTTP/"), "plain HTTP has no answer");
    let (shown, stream) = tls_at(*pages).await;
    assert_eq!(shown, first.der);
    let answer = whole(http1_over(stream).await.send_request(page())).await;
    assert!(header(&answer, "content-type").is_some_and(|kind| kind.starts_with("text/html")), "{answer:?}");

    second.put(house.home());
    assert_eq!(said(&house.ask().await), changed(["server.tls.cert_file", "server.tls.key_file"]));
    assert_eq!(tls_at(*pages).await.0, second.der);
    // The address stays until the next start, and so does what it was allowed by.
    let needs_restart = house.reload("").await.needs_restart;
    assert_eq!(needs_restart, ["server.tls.cert_file", "server.tls.key_file", "signin.listen"]);
    assert_eq!(tls_at(*pages).await.0, second.der);
}

#[tokio::test]
async fn a_key_that_was_replaced_is_nobodys_and_a_request_under_way_ends_as_it_began() {
    let house = House::start("").await;
    let gate = Gate::shut();
    house.rig.sandbox.faults().push(Fault::graph("/v1.0/me/messages", Effect::Hold(gate.clone())));
    let mut connection = house.rig.http1().await;
    let under_way = connection.send_request(get("/v1.0/me/messages"));
    let reloaded = async {
        within(gate.arrived(1)).await;
        let other =
            format!("[[clients]]\nname = \"payroll\"\nkey_hash = \"{}\"\naccounts = [\"*\"]\n", key_hash("new"));
        let said = house.reload(&other).await;
        gate.open();
        said
    };
    let (answer, said) = tokio::join!(whole(under_way), reloaded);
    assert_eq!(said, changed(["clients[payroll].key_hash"]));
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(house.status(get("/v1.0/me")).await, 401);
    let request = bare("GET", "/v1.0/me").header("authorization", basic("alice", "new")).body(empty()).unwrap();
    assert_eq!(house.status(request).await, 200);
}

#[tokio::test]
async fn rules_and_accounts_count_from_the_next_request_on_over_the_same_connection() {
    let house = House::start("").await;
    let mut connection = house.rig.http1().await;
    let mut status = async || whole(connection.send_request(get("/v1.0/me"))).await.status().as_u16();
    assert_eq!(status().await, 200);
    assert_eq!(
        house.reload(&client("accounts = [\"*\"]\ndeny = [\"GET /v1.0/me\"]")).await,
        changed(["clients[payroll].deny"])
    );
    assert_eq!(status().await, 403);
    assert_eq!(
        house.reload(&client("accounts = [\"bob\"]")).await,
        changed(["clients[payroll].accounts", "clients[payroll].deny"])
    );
    assert_eq!(status().await, 403);
    assert_eq!(house.reload("").await, changed(["clients[payroll].accounts"]));
    assert_eq!(status().await, 200);
}

#[tokio::test]
async fn what_a_client_has_used_up_stays_used_up() {
    let limited = client("accounts = [\"*\"]\nlimits = { requests_per_second = 1 }");
    let house = House::start(&limited).await;
    assert_eq!((house.status(get("/v1.0/me")).await, house.status(get("/v1.0/me")).await), (200, 429));
    assert_eq!(
        house.reload(&format!("[server]\nallowed_hosts = [\"a\"]\n{limited}")).await,
        changed(["server.allowed_hosts"])
    );
    assert_eq!(house.status(get("/v1.0/me")).await, 429);
    house.reload(&limited.replace("= 1", "= 2")).await;
    assert_eq!(house.status(get("/v1.0/me")).await, 200, "another limit begins anew");
}

#[tokio::test]
async fn limits_of_the_listener_count_for_who_comes() {
    let house = House::start("").await;
    let long = || alice("GET", "/v1.0/me").header("x-long", "a".repeat(20_000)).body(empty()).unwrap();
    assert_eq!(house.status(long()).await, 200);
    let said = house.reload("[server.limits]\nheader_bytes = 10000\nuri_bytes = 300\ndrain_timeout = \"1s\"").await;
    let names = ["drain_timeout", "header_bytes", "uri_bytes"].map(|name| format!("server.limits.{name}"));
    assert_eq!((said.changed, said.needs_restart), (names.to_vec(), Vec::new()));
    assert_eq!(house.status(long()).await, 431);
    assert_eq!(house.status(get(&format!("/v1.0/{}", "a".repeat(400)))).await, 414);
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
}

#[tokio::test]
async fn an_upstream_comes_while_its_accounts_are_in_use_and_goes_again() {
    let house = House::start("").await;
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    let me = || get("/billing/v1.0/me");
    assert_eq!(house.status(me()).await, 404);
    let over = format!(
        "[upstreams.billing]\nurl = \"{}\"\nprovider = \"entra\"\nscopes = [\"User.Read\"]\nkind = \"rest\"\n",
        house.rig.graph().origin()
    );
    assert_eq!(house.reload(&over).await, changed(["upstreams.billing"]));
    // It sorts before the one that was there: no token may be taken for the other's.
    assert_eq!((house.status(me()).await, house.status(get("/v1.0/me")).await), (200, 200));
    let tokens: Vec<_> = house.rig.seen().iter().map(|seen| seen.token_id.expect("a token of ours")).collect();
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens[0], tokens[2], "the lease of the one that was there is still in force");
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(house.rig.token_requests().len(), 1, "for its own scopes");
    assert_eq!(house.reload("").await, changed(["upstreams.billing"]));
    assert_eq!((house.status(me()).await, house.status(get("/v1.0/me")).await), (404, 200));
    assert_eq!(house.rig.token_requests().len(), 1);
}

#[tokio::test]
async fn connections_to_an_upstream_that_did_not_change_are_kept() {
    let house = House::start("").await;
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    house.reload("[server]\nallowed_hosts = [\"a\"]").await;
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    let other = house.reload("[upstreams.graph]\ntimeout = \"99s\"").await;
    assert_eq!(other, changed(["server.allowed_hosts", "upstreams.graph.timeout"]));
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    let ports: Vec<_> = house.rig.seen().iter().map(|seen| seen.peer_port).collect();
    assert!(ports[0] == ports[1] && ports[1] != ports[2], "{ports:?}");
}

#[tokio::test]
async fn a_credential_that_was_wrong_is_forgotten_with_its_failure() {
    let wrong = "[providers.entra]\ncredentials = [{ secret = \"wrong\" }]\n";
    let house = House::start(wrong).await;
    house.rig.clock.advance(HOUR);
    assert_refused(&house.rig.get("/v1.0/me").await, 502, "app_credential_invalid");
    // The clock stands still: nothing has lapsed.
    assert_refused(&house.rig.get("/v1.0/me").await, 502, "app_credential_invalid");
    assert_eq!(house.reload("").await, changed(["providers.entra.credentials[0].secret"]));
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_until_then_and_the_rest_is_put_in_force() {
    let house = House::start("").await;
    let over = "[server]\nlisten = \"127.0.0.1:1\"\nworkers = 2\nallowed_hosts = [\"a\"]\n\
                [admin]\nlisten = \"127.0.0.1:2\"\n[store]\npath = \"HOME/elsewhere\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n";
    let restart = ["admin.listen", "log.format", "server.listen", "server.workers", "store.path"].map(str::to_owned);
    let said = house.reload(over).await;
    assert_eq!(said.needs_restart, restart);
    assert_eq!(said.changed, ["log.level", "server.allowed_hosts"]);
    assert_eq!(*house.levels.lock().unwrap(), ["debug"]);
    let again = house.reload(over).await;
    assert_eq!((again.changed.len(), again.needs_restart), (0, restart.to_vec()), "still");
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    // Links are those of the listener that is there.
    let page = json(&house.rig.get("/v1.0/me/messages?$top=1").await);
    let next = page["@odata.nextLink"].as_str().expect("a link");
    assert!(!next.contains("127.0.0.1:1/"), "{next}");
    assert!(house.reload("").await.needs_restart.is_empty(), "taken back");
}

#[tokio::test]
async fn an_admin_address_that_stays_keeps_its_token() {
    let house = House::start("[admin]\ntoken = \"the-token-of-operators\"\n").await;
    let ask = async || house.rig.send_to_admin(get("/v1/accounts")).await.status().as_u16();
    assert_eq!(ask().await, 401);
    // Without a token another address would be all right; this one is still there.
    house.write("[admin]\nlisten = \"127.0.0.1:2\"\n");
    let reloaded = house.rig.app.reload("test").await.expect("no mistake");
    assert_eq!(reloaded.needs_restart, ["admin.listen", "admin.token"]);
    assert_eq!(ask().await, 401);
}

#[tokio::test]
async fn an_answer_that_streams_goes_on_to_its_end() {
    let house = House::start("").await;
    let gate = Gate::shut();
    let fault = Fault::graph("/v1.0/me/messages", Effect::HoldAnswer(gate.clone()));
    house.rig.sandbox.faults().push(fault);
    let mut connection = house.rig.http1().await;
    let answer = connection.send_request(get("/v1.0/me/messages"));
    let ten_times = async {
        within(gate.arrived(1)).await;
        for number in 0..10 {
            house.reload(&format!("[upstreams.graph]\ntimeout = \"{}s\"", 50 + number)).await;
        }
        gate.open();
    };
    let (answer, ()) = tokio::join!(async { within(answer).await.expect("an answer") }, ten_times);
    assert_eq!(answer.status(), 200);
    assert!(!within(answer.into_body().collect()).await.expect("a whole body").to_bytes().is_empty());
    assert_eq!(house.count("applied"), 10);
}

#[tokio::test]
async fn traces_begin_move_and_end_with_a_reload() {
    let house = House::start("").await;
    let (first, second) = (Collector::start().await, Collector::start().await);
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    assert_eq!(house.reload(&first.config("")).await.changed, ["traces.endpoint"]);
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    assert_eq!(house.reload(&second.config("")).await.changed, ["traces.endpoint"]);
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    // What waits for the one that was left is sent too.
    assert_eq!((first.spans(3).await.len(), second.spans(3).await.len()), (3, 3));
    assert_eq!(house.reload("").await.changed, ["traces.endpoint"]);
    assert_eq!(house.status(get("/v1.0/me")).await, 200);
    let told: Vec<_> = house.rig.seen().iter().map(|seen| seen.header("traceparent").len()).collect();
    assert_eq!(told, [0, 1, 1, 0]);
    house.rig.app.drain().await;
    assert_eq!((first.now().len(), second.now().len()), (3, 3));
}

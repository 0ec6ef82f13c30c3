//! Who asks and for whom: every credential, every way to select an account, and what is refused of both.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Argon2, Params};
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::*;

/// Whose token Graph saw in its only request; forgets it.
fn served(rig: &Rig) -> String {
    let user = rig.seen_one().user.expect("a token of somebody");
    rig.graph().clear();
    user
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_counts_wherever_it_may_stand() {
    let rig = Rig::start().await;
    let me = || bare("GET", "/v1.0/me");
    let bearer = format!("Bearer {KEY}");
    let requests: Vec<(Request<Body>, &str)> = vec![
        (me().header("authorization", basic("alice", KEY)).body(empty()).unwrap(), "alice"),
        (me().header("authorization", basic("bob", KEY)).body(empty()).unwrap(), "bob"),
        (me().header("authorization", basic("alice", KEY).replace("Basic", "bASIC")).body(empty()).unwrap(), "alice"),
        (me().header("authorization", &bearer).header("bearerd-account", "bob").body(empty()).unwrap(), "bob"),
        (me().header("x-api-key", KEY).header("bearerd-account", "alice").body(empty()).unwrap(), "alice"),
        // SDKs that insist on a token of their own send a dummy.
        (keyed("GET", "/as/bob/v1.0/me").header("authorization", "Bearer dummy").body(empty()).unwrap(), "bob"),
        (keyed("GET", "/v1.0/me").header("authorization", basic("bob", "dummy")).body(empty()).unwrap(), "bob"),
    ];
    for (request, user) in requests {
        let shown = format!("{request:?}");
        assert_eq!(rig.send(request).await.status(), 200, "{shown}");
        assert_eq!(served(&rig), user, "{shown}");
    }
    let request = keyed("GET", "/as/alice/v1.0/me").body(empty()).unwrap();
    assert_eq!(rig.send_http2(request).await.status(), 200);
    assert_eq!(served(&rig), "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_that_agree_are_one_selector() {
    let rig = Rig::start().await;
    let all = alice("GET", "/as/alice/v1.0/me").header("bearerd-account", "alice").body(empty()).unwrap();
    assert_eq!(rig.send(all).await.status(), 200);
    let seen = rig.seen_one();
    assert_eq!((seen.user.as_deref(), seen.target.as_str()), (Some("alice"), "/v1.0/me"));
    assert!(seen.header("bearerd-account").is_empty());
}

/// T106: a credential or a selector that stands twice is refused, whatever it says.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_stand_once_is_refused_twice() {
    let rig = Rig::start().await;
    let (ours, other) = (basic("alice", KEY), basic("bob", KEY));
    let twice: Vec<Request<Body>> = vec![
        bare("GET", "/v1.0/me").header("authorization", &ours).header("authorization", &ours).body(empty()).unwrap(),
        bare("GET", "/v1.0/me").header("authorization", &ours).header("authorization", &other).body(empty()).unwrap(),
        bare("GET", "/v1.0/me").header("authorization", &ours).header("authorization", "").body(empty()).unwrap(),
        keyed("GET", "/as/alice/v1.0/me").header("x-api-key", KEY).body(empty()).unwrap(),
        keyed("GET", "/as/alice/v1.0/me").header("x-api-key", "wrong").body(empty()).unwrap(),
        alice("GET", "/v1.0/me")
            .header("bearerd-account", "alice")
            .header("bearerd-account", "alice")
            .body(empty())
            .unwrap(),
        alice("GET", "/v1.0/me")
            .header("bearerd-account", "alice")
            .header("bearerd-account", "bob")
            .body(empty())
            .unwrap(),
    ];
    for request in twice {
        assert_refused(&rig.send(request).await, 400, "bad_request");
    }
    let request = alice("GET", "/v1.0/me").header("authorization", &other).body(empty()).unwrap();
    assert_refused(&rig.send_http2(request).await, 400, "bad_request");
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_basic_credential_is_refused() {
    let rig = Rig::start().await;
    for value in ["Basic", "Basic !!!", "Basic YWxpY2U=", "Basic YWxpY2U6/w=="] {
        let request = bare("GET", "/v1.0/me").header("authorization", value).body(empty()).unwrap();
        let answer = rig.send(request).await;
        assert!(matches!(answer.status().as_u16(), 400 | 401), "{value}: {answer:?}");
        assert!(header(&answer, "bearerd-error").is_some());
    }
    rig.assert_nothing_left();
}

/// T101: headers that say what the request "really" is say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn no_header_talks_its_way_past_authentication() {
    let rig = Rig::start().await;
    for (name, value) in [
        ("x-forwarded-uri", "/healthz"),
        ("x-original-url", "/.bearerd/"),
        ("x-original-uri", "/.bearerd/"),
        ("x-rewrite-url", "/.bearerd/"),
        ("x-forwarded-method", "OPTIONS"),
        ("x-forwarded-prefix", "/.bearerd"),
        ("x-forwarded-user", "alice"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-ms-client-principal-name", "alice"),
        ("remote-user", "alice"),
        ("x-http-method-override", "OPTIONS"),
    ] {
        let answer = rig.send(bare("GET", "/v1.0/me").header(name, value).body(empty()).unwrap()).await;
        assert_refused(&answer, 401, "client_unauthenticated");
    }
    for path in
        ["/v1.0/me?x=/healthz", "/v1.0/me?x=/.bearerd/", "/.bearerdx/v1.0/me", "/%2ebearerd/login", "/.BEARERD/login"]
    {
        let answer = rig.send(bare("GET", path).body(empty()).unwrap()).await;
        assert_refused(&answer, 401, "client_unauthenticated");
    }
    rig.assert_nothing_left();
}

/// T102: a name with an underscore selects nobody and reaches nobody.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_underscores_select_nobody_and_reach_nobody() {
    let rig = Rig::start().await;
    for name in [
        "Bearerd_Account",
        "bearerd_account",
        "BEARERD_ACCOUNT",
        "Bearerd__Account",
        "bearerd_retry",
        "X_Api_Key",
        "X-Api_Key",
        "x_api-key",
        "Client_Request_Id",
    ] {
        let request = format!(
            "GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n{name}: bob\r\n\r\n",
            basic("alice", KEY)
        );
        let mut wire = rig.wire().await;
        wire.send(request).await;
        assert_refused(&wire.answer().await.response(), 400, "bad_request");
    }
    rig.assert_nothing_left();
    for name in [
        "X_Forwarded_User",
        "x_forwarded-for",
        "X_Remote_User",
        "_",
        "Remote_User",
        "X_HTTP_Method_Override",
        "Content_Length",
        "Transfer_Encoding",
        "Authorization_",
    ] {
        let request = format!(
            "GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\n{name}: bob\r\n\r\n",
            basic("alice", KEY)
        );
        let mut wire = rig.wire().await;
        wire.send(request).await;
        let answer = wire.answer().await;
        if answer.status() == 200 {
            let seen = rig.seen_one();
            assert_eq!(seen.user.as_deref(), Some("alice"), "{name}");
            assert!(seen.headers.iter().all(|(name, _)| !name.contains('_')), "{name}: {:?}", seen.headers);
        } else {
            assert_refused(&answer.response(), 400, "bad_request");
            rig.assert_nothing_left();
        }
        rig.graph().clear();
    }
    // A blank before the colon is refused by the library.
    let raw = rig.exchange("GET /v1.0/me HTTP/1.1\r\nHost: 127.0.0.1\r\nBearerd_Account : bob\r\n\r\n").await;
    assert!(raw.starts_with(b"HTTP/1.1 400 "), "{}", text(&raw));
    rig.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_account_needs_no_selector_and_no_other_can_be_selected() {
    let rig = Rig::with(&client("accounts = [\"bob\"]")).await;
    assert_eq!(rig.send(keyed("GET", "/v1.0/me").body(empty()).unwrap()).await.status(), 200);
    assert_eq!(served(&rig), "bob");
    for request in [
        keyed("GET", "/as/alice/v1.0/me").body(empty()).unwrap(),
        keyed("GET", "/v1.0/me").header("bearerd-account", "alice").body(empty()).unwrap(),
        alice("GET", "/v1.0/me").body(empty()).unwrap(),
    ] {
        assert_refused(&rig.send(request).await, 403, "account_forbidden");
    }
    rig.assert_nothing_left();
}

/// T105: patterns match aliases and nothing else, and never by accident.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_match_whole_aliases() {
    let rig =
        Setup { config: client("accounts = [\"*@contoso.com\", \"svc-?\"]"), signed_in: vec![], ..Setup::default() }
            .start()
            .await;
    sign_in_as(&rig.app, &rig.sandbox, "alice", "alice@contoso.com").await;
    sign_in_as(&rig.app, &rig.sandbox, "bob", "bob@contoso.com.evil.example").await;
    for path in ["/as/alice@contoso.com/v1.0/me", "/as/alice%40contoso.com/v1.0/me"] {
        assert_eq!(rig.send(keyed("GET", path).body(empty()).unwrap()).await.status(), 200, "{path}");
        let seen = rig.seen_one();
        assert_eq!((seen.user.as_deref(), seen.target.as_str()), (Some("alice"), "/v1.0/me"));
        rig.graph().clear();
    }
    for account in [
        "bob@contoso.com.evil.example",
        "bob@evil@contoso.com",
        "ALICE@CONTOSO.COM",
        "alice@contoso.com.",
        "alice@contoso.com\t",
        "@contoso.com",
        "alice",
        "svc-12",
        "svc-",
        &format!("{}@contoso.com", "a".repeat(300)),
    ] {
        let request = keyed("GET", "/v1.0/me").header("bearerd-account", account);
        let answer = rig.send(request.body(empty()).unwrap()).await;
        if answer.status() == 200 {
            // A trailing blank is no part of a header's value.
            assert_eq!(account.trim(), "alice@contoso.com");
            rig.graph().clear();
        } else {
            assert_refused(&answer, 403, "account_forbidden");
            rig.assert_nothing_left();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_accounts_acts_for_nobody() {
    let rig = Rig::with(&client("")).await;
    assert_refused(&rig.get("/v1.0/me").await, 403, "account_forbidden");
    let answer = rig.send(keyed("GET", "/v1.0/me").body(empty()).unwrap()).await;
    assert!(matches!(answer.status().as_u16(), 400 | 403), "{answer:?}");
    rig.assert_nothing_left();
}

/// An argon2id hash, made as cheap as it can be.
fn password_hash(password: &str) -> String {
    let salt = SaltString::encode_b64(b"salt of the test").unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

/// T410: and no part of a long user name or password is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_an_application_already_has_is_its_own() {
    let long = "p".repeat(200);
    let rig = Rig::with(&format!(
        "[[clients]]\nname = \"one\"\nkey_hash = \"{}\"\naccounts = [\"alice\"]\n\
         [[clients]]\nname = \"two\"\nkey_hash = \"{}\"\naccounts = [\"bob\"]\n",
        password_hash("Sommer2019!"),
        password_hash(&long)
    ))
    .await;
    let ask = |user: &str, password: &str| {
        rig.send(bare("GET", "/v1.0/me").header("authorization", basic(user, password)).body(empty()).unwrap())
    };
    // Twice: the second time from memory.
    for _ in 0..2 {
        assert_eq!(ask("alice", "Sommer2019!").await.status(), 200);
        assert_eq!(served(&rig), "alice");
        assert_eq!(ask("bob", &long).await.status(), 200);
        assert_eq!(served(&rig), "bob");
        for (user, password) in [
            ("alice", "sommer2019!"),
            ("alice", "Sommer2019"),
            ("alice", ""),
            ("bob", &long[1..]),
            ("bob", &format!("{long}p")),
            ("alice", &"p".repeat(2000)),
            (&*"a".repeat(300), "wrong"),
        ] {
            assert_refused(&ask(user, password).await, 401, "client_unauthenticated");
        }
        for (user, password) in [("bob", "Sommer2019!"), ("alice", long.as_str())] {
            assert_refused(&ask(user, password).await, 403, "account_forbidden");
        }
    }
    // A password is a password: elsewhere it is no key.
    for request in [
        bare("GET", "/v1.0/me").header("x-api-key", "Sommer2019!").body(empty()).unwrap(),
        bare("GET", "/v1.0/me").header("authorization", "Bearer Sommer2019!").body(empty()).unwrap(),
    ] {
        assert_refused(&rig.send(request).await, 401, "client_unauthenticated");
    }
    rig.assert_nothing_left();
}

/// T412 in small: many requests of two accounts at once, each with its own token.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_never_mix_accounts() {
    let rig = Arc::new(Rig::with("server.workers = 2").await);
    let asks = (0..100).map(|number| {
        let rig = Arc::clone(&rig);
        let user = if number % 2 == 0 { "alice" } else { "bob" };
        bearerd::tasks::spawn_here(async move {
            let request = keyed("GET", &format!("/as/{user}/v1.0/echo?for={user}")).body(empty()).unwrap();
            assert_eq!(rig.send(request).await.status(), 200);
        })
    });
    for ask in asks.collect::<Vec<_>>() {
        within(ask).await.unwrap();
    }
    let seen = rig.seen();
    assert_eq!(seen.len(), 100);
    for seen in seen {
        assert_eq!(seen.target, format!("/v1.0/echo?for={}", seen.user.unwrap()));
    }
    assert!(rig.token_requests().is_empty());
}

/// T415: the user id of the peer counts, and the socket is nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn the_peer_of_a_unix_socket_is_a_client() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("graph.sock");
    let own = rustix::process::getuid().as_raw();
    for (uid, status, error) in [(own, 200, None), (own + 1, 401, Some("client_unauthenticated"))] {
        let rig = Rig::with(&format!(
            "server.listen = [\"127.0.0.1:0\", \"unix:{}\"]\n\
             [[clients]]\nname = \"cron\"\npeer_uid = {uid}\naccounts = [\"bob\"]\n",
            socket.display()
        ))
        .await;
        let send = async |request| {
            whole(http1_over(UnixStream::connect(&socket).await.unwrap()).await.send_request(request)).await
        };
        let answer = send(bare("GET", "/v1.0/me").body(empty()).unwrap()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "bearerd-error")), (status, error));
        if uid == own {
            assert_eq!(served(&rig), "bob");
            let answer = send(bare("GET", "/v1.0/me").header("bearerd-account", "alice").body(empty()).unwrap()).await;
            assert_refused(&answer, 403, "account_forbidden");
            let mut http2 = http2_over(UnixStream::connect(&socket).await.unwrap()).await;
            let request = for_http2(bare("GET", "/v1.0/me").body(empty()).unwrap(), rig.data);
            assert_eq!(whole(http2.send_request(request)).await.status(), 200);
            assert_eq!(served(&rig), "bob");
        }
        // Over TCP nobody has a user id.
        let answer = rig.send(bare("GET", "/v1.0/me").body(empty()).unwrap()).await;
        assert_refused(&answer, 401, "client_unauthenticated");
        rig.assert_nothing_left();
        rig.app.drain().await;
    }
}

/// Certificates for a listener and its clients.
struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { authority: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A TLS connection that trusts this authority and shows `own`.
    async fn connect(
        &self,
        rig: &Rig,
        own: Option<(String, String)>,
        alpn: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(rig.data).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_a_client_by_its_name() {
    let ours = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = ours.issue("localhost");
    let rig = Rig::with(&format!(
        "[server.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\nclient_ca_file = \"{}\"\n\
         [[clients]]\nname = \"payroll\"\nmtls_san = \"payroll.example.com\"\naccounts = [\"alice\"]\n",
        file("crt", &certificate),
        file("key", &key),
        file("ca", &ours.authority.pem()),
    ))
    .await;
    let me = || bare("GET", "/v1.0/me").body(empty()).unwrap();

    let payroll = ours.connect(&rig, Some(ours.issue("payroll.example.com")), "http/1.1").await.unwrap();
    assert_eq!(whole(http1_over(payroll).await.send_request(me())).await.status(), 200);
    assert_eq!(served(&rig), "alice");
    let payroll = ours.connect(&rig, Some(ours.issue("payroll.example.com")), "h2").await.unwrap();
    let answer = whole(http2_over(payroll).await.send_request(for_http2(me(), rig.data))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(served(&rig), "alice");
    assert!(header(&answer, "strict-transport-security").is_some(), "Graph's own, and this connection is TLS");

    for own in [None, Some(ours.issue("other.example.com")), Some(ours.issue("payroll.example.com.evil.example"))] {
        let other = ours.connect(&rig, own, "http/1.1").await.unwrap();
        let answer = whole(http1_over(other).await.send_request(me())).await;
        assert_refused(&answer, 401, "client_unauthenticated");
    }
    // The right name from somebody else's authority: the handshake fails, at the latest when the client reads.
    let foreign = Certificates::new().issue("payroll.example.com");
    if let Ok(stream) = ours.connect(&rig, Some(foreign), "http/1.1").await {
        let mut wire = Wire::over(stream);
        wire.send("GET /v1.0/me HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(text(wire.rest().await), "");
    }
    // Plain HTTP on the TLS port.
    let raw = rig
        .exchange(format!("GET /v1.0/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", basic("alice", KEY)))
        .await;
    assert!(!raw.starts_with(b"HTTP/1.1 2"), "{}", text(&raw));
    rig.assert_nothing_left();
}

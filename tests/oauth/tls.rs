//! Whom we believe over TLS.

use std::sync::Arc;

use bearerd::config::ProviderKind;
use bearerd::oauth::{Class, Delivery};
use bearerd::tasks::spawn_here;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::provider::{Simulator, TENANT, entra_account, refresh};

/// An HTTPS server for `localhost` that answers everything with 429, and the PEM of its certificate.
async fn https() -> (String, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    spawn_here(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not believe us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (origin, signed.cert.pem())
}

#[tokio::test]
async fn a_provider_s_own_authority() {
    let simulator = Simulator::start().await;
    let (origin, pem) = https().await;
    let mut config = simulator.entra_config();
    config.kind = ProviderKind::Entra { authority: origin.parse().unwrap(), tenant: TENANT.to_owned() };
    let error = refresh(&simulator.provider(&config), &entra_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Retry, Delivery::NotSent));
    assert!(error.text.contains("certificate"), "{}", error.text);

    config.ca_pem = Some(pem);
    let error = refresh(&simulator.provider(&config), &entra_account()).await.unwrap_err();
    assert_eq!((error.class, error.delivery), (Class::Backoff, Delivery::Answered), "{}", error.text);
}

#[tokio::test]
async fn mistakes_of_the_configuration_are_named() {
    let simulator = Simulator::start().await;
    let mut config = simulator.entra_config();
    config.ca_pem = Some("not PEM".to_owned());
    let error = bearerd::oauth::Provider::new(&config, simulator.clock.clone()).unwrap_err();
    assert_eq!(error.to_string(), "providers.idp.ca_file: no PEM certificate in it");
    config.ca_pem = None;
    config.kind = ProviderKind::Oidc { issuer: "http://idp.test".parse().unwrap() };
    let error = bearerd::oauth::Provider::new(&config, simulator.clock.clone()).unwrap_err();
    assert_eq!(error.to_string(), "providers.idp.issuer: plain http is for the loopback interface only");
}

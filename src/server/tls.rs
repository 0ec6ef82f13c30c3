//! TLS for clients: certificate, ALPN, and the names in a client's certificate.
//!
//! Invariants: each listener has a configuration of its own, so that a session resumed here was begun here; where client
//! certificates count there is no resumption at all, so that each connection's certificate is verified; no 0-RTT.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config;

/// Why the TLS settings of a listener can't be used; each names its file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("server.tls.cert_file: {file} holds no usable certificate chain")]
    Certificate { file: String, source: pem::Error },
    #[error("server.tls.key_file: {file} holds no usable private key")]
    Key { file: String, source: pem::Error },
    #[error("server.tls.client_ca_file: holds no usable certificates")]
    ClientCa(#[source] pem::Error),
    #[error("server.tls.client_ca_file: a certificate is no trust anchor")]
    TrustAnchor(#[source] rustls::Error),
    #[error("server.tls.client_ca_file: can't be used to verify clients")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("server.tls.key_file: is not the key of this certificate")]
    Mismatch(#[source] rustls::Error),
    #[error("server.tls: TLS can't be set up")]
    Provider(#[source] rustls::Error),
}

/// Accepts TLS connections as `tls` says.
pub fn acceptor(tls: &config::Tls) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&tls.cert_pem)
        .map_err(|source| TlsError::Certificate { file: tls.cert_file.display().to_string(), source })?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.expose().as_bytes())
        .map_err(|source| TlsError::Key { file: tls.key_file.display().to_string(), source })?;

    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?;
    let mut config = if let Some(authorities) = &tls.client_ca_pem {
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities).map_err(TlsError::ClientCa)? {
            roots.add(authority).map_err(TlsError::TrustAnchor)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).allow_unauthenticated().build()?;
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
    } else {
        builder.with_no_client_auth().with_single_cert(chain, key)
    }
    .map_err(TlsError::Mismatch)?;

    if tls.client_ca_pem.is_some() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>()?;
    if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) }
}

/// The subject alternative names (DNS, URI, e-mail, IP as text) of a certificate that was verified. What can't be read names
/// nobody.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(|octets| Ipv4Addr::from(octets).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(|octets| Ipv6Addr::from(octets).to_string())).ok()
        }
        _ => None,
    }
}

//! Whom we believe when we are the client of a TLS connection: the system's trust anchors (Mozilla's where the system has
//! none, as in an image made from scratch) and those of the configuration.
//!
//! Verification is rustls' own and can't be switched off. What is spoken on top (ALPN) is the caller's business.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The trust anchors of the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no PEM certificate in it")]
    Empty,
    #[error("certificate {number} in it can't be read: {why}")]
    Certificate { number: usize, why: String },
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A client's configuration on ring, with `extra_ca_pem` trusted besides the system's anchors.
pub fn client_config(extra_ca_pem: Option<&str>) -> Result<ClientConfig, TlsError> {
    let mut roots = system_roots().clone();
    if let Some(pem) = extra_ca_pem {
        add(&mut roots, pem)?;
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add(roots: &mut RootCertStore, pem: &str) -> Result<(), TlsError> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        count += 1;
        let broken = |why: String| TlsError::Certificate { number: count, why };
        roots.add(certificate.map_err(|e| broken(e.to_string()))?).map_err(|e| broken(e.to_string()))?;
    }
    if count == 0 { Err(TlsError::Empty) } else { Ok(()) }
}

/// Reads the system's trust anchors, most of the work of a start, so that it can be done beside the rest.
pub fn read_ahead() {
    system_roots();
}

/// Read once: a hundred files on some systems.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::debug!(%error, "a trust anchor of the system was skipped");
        }
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_somebody_to_trust() {
        assert!(!system_roots().is_empty());
        assert!(client_config(None).is_ok());
    }

    #[test]
    fn a_file_without_certificates_is_named_as_such() {
        assert!(matches!(client_config(Some("hello")), Err(TlsError::Empty)));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(Some(cut)), Err(TlsError::Certificate { number: 1, .. })));
    }
}

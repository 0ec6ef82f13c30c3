//! The files that a configuration names: secrets, keys and certificates, read and checked once.
//!
//! A file with a secret that everyone on the machine can read is refused; one that its group can read is a warning, since Kubernetes
//! and systemd mount credentials that way. No message holds a file's content.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// No secret, key or certificate chain is larger.
const MAX_BYTES: usize = 1024 * 1024;
/// No configuration is larger.
const MAX_RAW_BYTES: u64 = 64 * 1024 * 1024;

/// What a file held, and what is doubtful about it.
pub struct Checked<T> {
    pub content: T,
    pub warning: Option<String>,
    pub print: Print,
}

/// Tells whether a file holds what it held, and may be read by whom it might: a digest. Says nothing else of the content.
pub type Print = [u8; 32];

/// A secret, without the line breaks at its end and the byte order mark that some editors put in front.
pub fn secret(path: &Path) -> Result<Checked<Secret<String>>, String> {
    let warning = permissions(path)?;
    let (text, print) = read(path)?;
    let trimmed = text.expose().trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
    if trimmed.trim().is_empty() {
        return Err("is empty".into());
    }
    Ok(Checked { content: trimmed.into(), warning, print })
}

/// A private key in PEM, as it stands in the file.
pub fn private_key(path: &Path) -> Result<Checked<Secret<String>>, String> {
    let warning = permissions(path)?;
    let (text, print) = read(path)?;
    PrivateKeyDer::from_pem_slice(text.expose().as_bytes()).map_err(|_| "holds no private key in PEM".to_owned())?;
    Ok(Checked { content: text, warning, print })
}

/// The certificates of a PEM file and nothing else of it: a private key beside them stays where it is.
pub fn certificates(path: &Path) -> Result<Checked<String>, String> {
    let (text, print) = read(path)?;
    let mut pem = String::new();
    for certificate in CertificateDer::pem_slice_iter(text.expose().as_bytes()) {
        let der = certificate.map_err(|_| "is not PEM".to_owned())?;
        x509_parser::parse_x509_certificate(&der).map_err(|_| "holds a certificate that can't be read".to_owned())?;
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in BASE64_STANDARD.encode(&der).as_bytes().chunks(64) {
            let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    if pem.is_empty() {
        return Err("holds no certificate in PEM".into());
    }
    Ok(Checked { content: pem, warning: None, print })
}

/// A certificate chain and a key that belong together.
pub fn pair(certificates: &str, key: &Secret<String>) -> Result<(), String> {
    let chain = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
    let (Ok(chain), Ok(key)) = (chain, key) else { return Err("is not PEM".into()) };
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map(drop)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "is not the key of this certificate".to_owned(),
            error => error.to_string(),
        })
}

/// Who else may read a file with a secret.
pub fn permissions(path: &Path) -> Result<Option<String>, String> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        return Err("is a directory".into());
    }
    let mode = metadata.permissions().mode() & 0o777;
    match mode {
        mode if mode & 0o007 != 0 => Err(format!("everyone can access it (mode {mode:03o}); chmod 600 it")),
        mode if mode & 0o070 != 0 => Ok(Some(format!("its group can access it (mode {mode:03o})"))),
        _ => Ok(None),
    }
}

fn read(path: &Path) -> Result<(Secret<String>, Print), String> {
    let (text, print) = raw(path).map_err(|error| unreadable(&error))?;
    if text.expose().len() > MAX_BYTES {
        return Err("is larger than 1 MiB".into());
    }
    match std::str::from_utf8(text.expose()) {
        Ok(text) => Ok((text.into(), print)),
        Err(_) => Err(unreadable(&io::ErrorKind::InvalidData.into())),
    }
}

/// The file's bytes.
pub fn raw(path: &Path) -> io::Result<(Secret<Vec<u8>>, Print)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let expected = usize::try_from(metadata.len().min(MAX_RAW_BYTES)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected + 1));
    file.take(MAX_RAW_BYTES).read_to_end(&mut bytes)?;
    let mut digest = Sha256::new_with_prefix(metadata.permissions().mode().to_be_bytes());
    digest.update(&*bytes);
    Ok((Secret::new(std::mem::take(&mut *bytes)), digest.finalize().into()))
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::IsADirectory => "is a directory".into(),
        io::ErrorKind::InvalidData => "is not text in UTF-8".into(),
        _ => format!("can't be read: {error}"),
    }
}

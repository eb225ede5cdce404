//! The certificate and key that the ports are served with, read once at start.
//!
//! rustls with ring: TLS 1.3 and 1.2, no client certificates. A renewed certificate is taken up by a restart.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::engine::StartError;

/// No certificate or key file is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What Postgres clients may ask for by ALPN (PostgreSQL 17, "SSL Session Encryption").
pub(crate) const ALPN_POSTGRES: &[u8] = b"postgresql";
/// What Flight clients ask for by ALPN: gRPC is spoken over HTTP/2 (RFC 9113, section 3.2).
pub(crate) const ALPN_FLIGHT: &[u8] = b"h2";

fn failed(path: &Path, reason: impl Display) -> StartError {
    StartError::Tls { path: path.to_owned(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    let found = fs::metadata(path).map_err(|error| failed(path, format!("cannot be read: {error}")))?;
    if found.len() > FILE_BYTES_MAX {
        return Err(failed(path, format!("has {} bytes, expected at most {FILE_BYTES_MAX}", found.len())));
    }
    fs::read(path).map_err(|error| failed(path, format!("cannot be read: {error}")))
}

/// A key that others can read is no secret.
#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(path).map_err(|error| failed(path, format!("cannot be read: {error}")))?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(failed(path, format!("others than its owner may use it (mode {mode:04o}): run chmod 0600 on it")));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_path: &Path) -> Result<(), StartError> {
    Ok(())
}

/// Reads the files and makes what accepts connections of one protocol.
///
/// # Errors
/// When a file cannot be read, holds no certificate or key, the two do not belong together, or others can read the key.
pub(crate) fn acceptor(files: &TlsFiles, alpn: &[u8]) -> Result<TlsAcceptor, StartError> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&files.certificate, format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(failed(&files.certificate, "expected a PEM certificate, found none"));
    }
    check_mode(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| failed(&files.key, format!("expected a PEM private key: {error}")))?;
    let unusable = |error: rustls::Error| {
        failed(&files.certificate, format!("cannot be used with the key {}: {error}", files.key.display()))
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    server.alpn_protocols = vec![alpn.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

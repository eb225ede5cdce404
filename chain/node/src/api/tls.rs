//! The certificate and key that the API is served with, read once at start.
//!
//! rustls with ring: TLS 1.3 and 1.2, no client certificates. A renewed certificate is taken up by a restart.

use std::{fs, path::Path, sync::Arc};

use rustls::{ServerConfig, crypto::ring, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use crate::{config::TlsConfig, error::NodeError};

/// No certificate or key file is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn failed(path: &Path, reason: impl std::fmt::Display) -> NodeError {
    NodeError::Tls { path: path.to_owned(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, NodeError> {
    let found = fs::metadata(path).map_err(|error| failed(path, format!("cannot be read: {error}")))?;
    if found.len() > FILE_BYTES_MAX {
        return Err(failed(path, format!("has {} bytes, expected at most {FILE_BYTES_MAX}", found.len())));
    }
    fs::read(path).map_err(|error| failed(path, format!("cannot be read: {error}")))
}

/// A key that others can read is no secret.
fn check_mode(path: &Path) -> Result<(), NodeError> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(path).map_err(|error| failed(path, format!("cannot be read: {error}")))?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(failed(path, format!("others than its owner may use it (mode {mode:04o}): run chmod 0600 on it")));
    }
    Ok(())
}

/// Reads the files and makes what accepts connections.
///
/// # Errors
/// When a file cannot be read, holds no certificate or key, the two do not belong together, or others can read the key.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, NodeError> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&config.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&config.certificate, format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(failed(&config.certificate, "expected a PEM certificate, found none"));
    }
    check_mode(&config.key)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&config.key)?)
        .map_err(|error| failed(&config.key, format!("expected a PEM private key: {error}")))?;
    let unusable = |error: rustls::Error| {
        failed(&config.certificate, format!("cannot be used with the key {}: {error}", config.key.display()))
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn files(folder: &Path, certificate: &str, key: &str, mode: u32) -> TlsConfig {
        let config = TlsConfig { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        fs::write(&config.certificate, certificate).unwrap();
        fs::write(&config.key, key).unwrap();
        fs::set_permissions(&config.key, fs::Permissions::from_mode(mode)).unwrap();
        config
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_file() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
        let folder = tempfile::tempdir().unwrap();
        let error = |certificate: &str, key: &str, mode| match acceptor(&files(folder.path(), certificate, key, mode)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(error(&certificate, &key, 0o600), "");
        let cases = [
            (error(&certificate, &key, 0o640), "chmod 0600"),
            (error("nothing", &key, 0o600), "found none"),
            (error(&certificate, "nothing", 0o600), "key.pem"),
            (error(&certificate, &other, 0o600), "cannot be used with the key"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{expected}: {found}");
        }
        let missing = TlsConfig { certificate: folder.path().join("none"), key: folder.path().join("key.pem") };
        assert!(acceptor(&missing).map(drop).unwrap_err().to_string().contains("none"));
    }
}

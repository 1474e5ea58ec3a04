//! TLS towards DNS servers: whom to trust, and what went wrong.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hickory_resolver::net::NetError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore, crypto};
use thiserror::Error;
use tracing::warn;

/// Why nobody can be trusted.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The configured file cannot be read.
    #[error(
        "read the certificates in `{path}`: {source}\nhint: `ca_file` names a PEM file of the authorities that sign the resolvers' certificates"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// It has none.
    #[error(
        "no certificate in `{path}`\nhint: `ca_file` names a PEM file of the authorities that sign the resolvers' certificates"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The system has none.
    #[error(
        "no certificate authorities on this system{problem}\nhint: install the package ca-certificates, or name a file in `ca_file`"
    )]
    NoSystemRoots {
        /// What reading them said.
        problem: String,
    },
    /// The cryptography does not work.
    #[error("set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// A configuration that trusts the authorities in a PEM file, or else those of the system.
pub(super) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let read = |source| TlsError::Read {
                path: path.to_owned(),
                source,
            };
            let text =
                fs::read(path).map_err(|error| read(rustls::pki_types::pem::Error::Io(error)))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                roots.add(certificate.map_err(read)?)?;
            }
            if roots.is_empty() {
                let path = path.to_owned();
                return Err(TlsError::Empty { path });
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (_, ignored) = roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let problem = found.errors.first().map(|error| format!(": {error}"));
                return Err(TlsError::NoSystemRoots {
                    problem: problem.unwrap_or_default(),
                });
            }
            if ignored > 0 || !found.errors.is_empty() {
                warn!(ignored, errors = ?found.errors, "some certificate authorities are not used");
            }
        }
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What failed of TLS, if that is what failed.
pub(super) fn explain(error: &NetError, name: &str) -> Option<String> {
    let error = match error {
        NetError::RustlsError(error) => error,
        NetError::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    Some(match error {
        rustls::Error::InvalidCertificate(problem) => certificate(problem, name),
        rustls::Error::NoCertificatesPresented => "the server shows no certificate".to_owned(),
        rustls::Error::InvalidMessage(_) => {
            format!("the TLS handshake failed: the server does not speak TLS ({error})")
        }
        other => format!("the TLS handshake failed: {other}"),
    })
}

fn certificate(problem: &CertificateError, name: &str) -> String {
    match problem {
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            format!(
                "the certificate is for {}, not for `{name}`",
                presented.join(", ")
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for `{name}`")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate has expired, or the clock of this box is wrong ({problem})")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate is not valid yet, or the clock of this box is wrong ({problem})")
        }
        CertificateError::UnknownIssuer => {
            "the certificate is signed by no authority that is trusted here (`ca_file` names others)"
                .to_owned()
        }
        other => format!("the certificate is refused: {other}"),
    }
}

/// Whether a connection was refused or lost, and not a certificate.
pub(super) fn is_io(error: &NetError) -> bool {
    match error {
        NetError::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        NetError::NoConnections => true,
        other => other.is_connection_closed(),
    }
}

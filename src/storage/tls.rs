//! TLS: version 1.2 or newer by rustls, the system's certificates or a file's, and what was negotiated.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::StorageError;
use crate::domain::Sha256;

/// What the first handshake with the storage endpoint settled on.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsFacts {
    pub version: Option<&'static str>,
    pub certificate: Option<Sha256>,
}

/// Where the verifier leaves its observations.
pub(super) type Observed = Arc<Mutex<TlsFacts>>;

/// The TLS settings of one client. `host` is the storage endpoint: token services that the same client talks to are
/// verified as well, but not noted down.
pub(super) fn client_config(host: &str, ca_file: Option<&Path>, observed: Observed) -> Result<ClientConfig, StorageError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inner: Arc<dyn ServerCertVerifier> = match ca_file {
        Some(path) => private_roots(path, &provider)?,
        // Where the host has no certificates at all, the client must still work for plain http: trust nobody, later.
        None => match rustls_platform_verifier::Verifier::new(Arc::clone(&provider)) {
            Ok(verifier) => Arc::new(verifier),
            Err(_) => Arc::new(NoRoots(Arc::clone(&provider))),
        },
    };
    let verifier = Arc::new(Witness { inner, host: host.to_owned(), observed });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .dangerous() // only means: our verifier, which asks rustls's own and writes down what it saw
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn private_roots(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, StorageError> {
    let unusable = |why: &str, source: Option<super::error::Source>| StorageError::Settings {
        what: format!("ca_file {}: {why}", path.display()),
        source,
    };
    let pem = fs::read(path).map_err(|e| unusable("cannot be read", Some(e.into())))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| unusable("is not PEM", Some(e.to_string().into())))?;
        roots.add(certificate).map_err(|e| unusable("has a certificate that cannot be used", Some(e.into())))?;
    }
    if roots.is_empty() {
        return Err(unusable("holds no certificate", None));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(verifier.map_err(|e| unusable("cannot be used", Some(e.to_string().into())))?)
}

/// Asks the real verifier, and writes down what it was asked about.
#[derive(Debug)]
struct Witness {
    inner: Arc<dyn ServerCertVerifier>,
    host: String,
    observed: Observed,
}

impl Witness {
    fn note(&self, certificate: &CertificateDer<'_>, version: &'static str) {
        let mut facts = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.certificate == Some(digest(certificate)) {
            facts.version.get_or_insert(version);
        }
    }
}

fn digest(certificate: &CertificateDer<'_>) -> Sha256 {
    use sha2::Digest as _;
    Sha256(sha2::Sha256::digest(certificate.as_ref()).into())
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if server_name.to_str() == self.host.as_str() {
            let mut facts = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
            facts.certificate.get_or_insert_with(|| digest(end_entity));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = self.inner.verify_tls12_signature(message, certificate, signature)?;
        self.note(certificate, "TLSv1.2");
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = self.inner.verify_tls13_signature(message, certificate, signature)?;
        self.note(certificate, "TLSv1.3");
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// For a host without any trusted certificate: every https server is refused, plain http still works.
#[derive(Debug)]
struct NoRoots(Arc<CryptoProvider>);

impl ServerCertVerifier for NoRoots {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(rustls::Error::General("this host has no trusted certificates: install ca-certificates, or name a file with ca_file".into()))
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("this host has no trusted certificates".into()))
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("this host has no trusted certificates".into()))
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

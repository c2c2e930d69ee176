//! Certificates and keys: what each end shows, and accepts of the other.
//!
//! One choice of each kind of cryptography is enough, as both ends are ours: it keeps the guest's
//! init small.

use std::sync::Arc;

use proto::exec::AGENT_NAME;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm,
};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SigningKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

/// What is wrong with certificates or keys.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of them cannot be read.
    #[error("{0}: no PEM: {1}")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    /// One of them cannot be used.
    #[error("{0}: {1}")]
    Unfit(&'static str, String),
}

/// What one end has to show, and what it goes by; all of it PEM.
pub struct Identity<'a> {
    /// Certificate of the authority that has signed the other end's.
    pub authority: &'a [u8],
    /// The own certificate.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
}

impl Identity<'_> {
    /// For the agent, which accepts clients with a certificate only.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let provider = provider();
        let clients =
            WebPkiClientVerifier::builder_with_provider(self.roots()?, Arc::clone(&provider))
                .build()
                .map_err(|e| IdentityError::Unfit("authority", e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| IdentityError::Unfit("TLS 1.3", e.to_string()))?
            .with_client_cert_verifier(clients)
            .with_single_cert(self.chain()?, self.key()?)
            .map_err(|e| IdentityError::Unfit("certificate and key", e.to_string()))?;
        // Every connection shows its certificate.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// For a client.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn client(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let provider = provider();
        let agent: Arc<dyn ServerCertVerifier> =
            WebPkiServerVerifier::builder_with_provider(self.roots()?, Arc::clone(&provider))
                .build()
                .map_err(|e| IdentityError::Unfit("authority", e.to_string()))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| IdentityError::Unfit("TLS 1.3", e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(agent)
            .with_client_auth_cert(self.chain()?, self.key()?)
            .map_err(|e| IdentityError::Unfit("certificate and key", e.to_string()))?;
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("authority", self.authority)? {
            roots
                .add(certificate)
                .map_err(|e| IdentityError::Unfit("authority", e.to_string()))?;
        }
        Ok(Arc::new(roots))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        certificates("certificate", self.certificate)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key).map_err(|e| IdentityError::Pem("key", e))
    }
}

fn certificates(
    name: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|e| IdentityError::Pem(name, e))?;
    if certificates.is_empty() {
        return Err(IdentityError::Unfit(name, "no certificate in it".into()));
    }
    Ok(certificates)
}

/// Whom clients expect.
pub(crate) fn agent_name() -> ServerName<'static> {
    // A constant, and a name.
    #[expect(clippy::expect_used, reason = "a constant")]
    ServerName::try_from(AGENT_NAME).expect("a DNS name")
}

const ED25519: &[&dyn SignatureVerificationAlgorithm] = &[webpki::ring::ED25519];
/// The one kind of signature that is accepted.
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: ED25519,
    mapping: &[(SignatureScheme::ED25519, ED25519)],
};

/// The cryptography of both ends.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Ours,
        key_provider: &Ours,
    })
}

/// Randomness and keys. Those of rustls come with all other kinds.
#[derive(Debug)]
struct Ours;

impl SecureRandom for Ours {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            match getrandom(rest, GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(_) => return Err(GetRandomFailed),
            }
        }
        Ok(())
    }
}

impl KeyProvider for Ours {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        match key {
            PrivateKeyDer::Pkcs8(key) => any_eddsa_type(&key),
            _ => Err(rustls::Error::General("an Ed25519 key is needed".into())),
        }
    }
}

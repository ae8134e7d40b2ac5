//! [`Tls`]: encrypted connections to ZooKeeper servers and AMQP brokers, and the files that they need (feature `tls`).

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, SecretDocument, der::pem::PemLabel};

/// TLS to the servers: who they have to be, and who this client is.
///
/// The certificate of a server has to be valid at this time, to be for the host name of the URL (or the address, if the
/// URL has that), and to be signed by one of the given authorities. Kazoo does not check the name.
///
/// The files are read before each session, when it has to connect again, and before each connection to a broker, so that
/// certificates can be renewed while the process runs.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    ca: PathBuf,
    identity: Option<Identity>,
}

#[derive(Clone, PartialEq, Eq)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    password: Option<String>,
}

/// A file for TLS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", .file.display())]
#[non_exhaustive]
pub struct TlsError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// What the files contain.
#[cfg_attr(
    not(all(feature = "zookeeper", feature = "amqp")),
    allow(dead_code, reason = "each client reads the part that it takes")
)]
pub(crate) struct Loaded {
    pub(crate) config: Arc<ClientConfig>,
    /// The certificates of the authorities, and that of this client with its key, as PEM.
    pub(crate) ca: String,
    pub(crate) identity: Option<(String, String)>,
}

impl Tls {
    /// TLS to servers whose certificates are signed by one of those in the file `ca` (PEM, with revocation lists if
    /// there are any).
    pub fn new(ca: impl Into<PathBuf>) -> Tls {
        Tls { ca: ca.into(), identity: None }
    }

    /// The certificate of this client, with those between it and the authority of the servers, and its private key (PEM;
    /// PKCS#8, PKCS#1 or SEC1). Servers require it by default.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        self.identity = Some(Identity { certificate: certificate.into(), key: key.into(), password: None });
        self
    }

    /// The password of the private key of [`Tls::identity`], which has to be PKCS#8 then (`BEGIN ENCRYPTED PRIVATE KEY`,
    /// as `openssl pkcs8 -topk8` writes it).
    ///
    /// # Panics
    ///
    /// Without an identity.
    #[must_use]
    pub fn key_password(mut self, password: impl Into<String>) -> Tls {
        self.identity.as_mut().expect("the password is that of the key of `identity`").password =
            Some(password.into());
        self
    }

    /// Reads the files as a session does.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file that cannot be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load().map(drop)
    }

    pub(crate) fn load(&self) -> Result<Loaded, TlsError> {
        // The client crate takes the provider of the process, and panics if there are several to choose from.
        if CryptoProvider::get_default().is_none() {
            let _ = aws_lc_rs::default_provider().install_default();
        }
        let ca = read(&self.ca)?;
        let bad_ca = |problem: &dyn fmt::Display| bad(&self.ca, problem);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let certificate = certificate.map_err(|error| bad_ca(&error))?;
            roots.add(certificate).map_err(|error| bad_ca(&error))?;
        }
        if roots.is_empty() {
            return Err(bad_ca(&"there is no certificate in it"));
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let Some(identity) = &self.identity else {
            return Ok(Loaded { config: Arc::new(builder.with_no_client_auth()), ca, identity: None });
        };
        let bad_key = |problem: &dyn fmt::Display| bad(&identity.key, problem);
        let chain = read(&identity.certificate)?;
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| bad(&identity.certificate, &error))?;
        if certificates.is_empty() {
            return Err(bad(&identity.certificate, &"there is no certificate in it"));
        }
        let key = identity.readable_key()?;
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| bad_key(&error))?;
        let config = builder.with_client_auth_cert(certificates, der).map_err(|error| bad_key(&error))?;
        Ok(Loaded { config: Arc::new(config), ca, identity: Some((chain, key)) })
    }
}

impl Identity {
    /// The private key as PEM without a password.
    fn readable_key(&self) -> Result<String, TlsError> {
        let key = read(&self.key)?;
        let bad = |problem: &dyn fmt::Display| bad(&self.key, problem);
        let is_encrypted = key.contains(EncryptedPrivateKeyInfo::PEM_LABEL);
        match &self.password {
            None if is_encrypted => Err(bad(&"it is encrypted, and no password is given")),
            None => Ok(key),
            Some(_) if !is_encrypted => Err(bad(
                &"a password is given, and it is no encrypted PKCS#8 key: `openssl pkcs8 -topk8` writes one",
            )),
            Some(password) => {
                let (_, document) = SecretDocument::from_pem(&key).map_err(|error| bad(&error))?;
                let encrypted =
                    EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|error| bad(&error))?;
                let key = encrypted
                    .decrypt(password)
                    .map_err(|error| bad(&format_args!("it cannot be decrypted: {error}")))?;
                let pem = key.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|error| bad(&error))?;
                Ok(pem.to_string())
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.identity.as_ref().map(|identity| &identity.certificate);
        f.debug_struct("Tls").field("ca", &self.ca).field("certificate", &certificate).finish_non_exhaustive()
    }
}

fn read(file: &Path) -> Result<String, TlsError> {
    fs::read_to_string(file).map_err(|error| bad(file, &error))
}

fn bad(file: &Path, problem: &dyn fmt::Display) -> TlsError {
    TlsError { file: file.to_owned(), problem: problem.to_string() }
}

//! [`TlsOptions`]: the options of a URL about TLS, as the Python drivers spell them.

use std::fmt;

use super::error::ConfigError;
#[cfg(all(feature = "tls", feature = "zookeeper"))]
use crate::tls::Tls;

/// Which files TLS needs. They are read when a session is opened.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    pub(super) use_ssl: bool,
    pub(super) ca: Option<String>,
    pub(super) certfile: Option<String>,
    pub(super) keyfile: Option<String>,
    pub(super) keyfile_password: Option<String>,
}

/// The files of a connection that is encrypted.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(all(feature = "tls", feature = "zookeeper")),
    allow(dead_code, reason = "only read with these features")
)]
pub(crate) struct Files<'a> {
    pub(crate) ca: &'a str,
    /// The certificate of the client, its key, and the password of the key.
    pub(crate) identity: Option<(&'a str, &'a str, Option<&'a str>)>,
}

impl TlsOptions {
    /// The files, if connections are to be encrypted.
    ///
    /// # Errors
    ///
    /// If some of the options are missing. An option without `use_ssl` is an error as well: without encryption, the
    /// password would be sent as it is.
    pub(crate) fn files(&self) -> Result<Option<Files<'_>>, ConfigError> {
        let TlsOptions { use_ssl, ca, certfile, keyfile, keyfile_password } = self;
        let (ca, certfile, keyfile) = (ca.as_deref(), certfile.as_deref(), keyfile.as_deref());
        let given = [("ca", ca), ("certfile", certfile), ("keyfile", keyfile)];
        if !use_ssl {
            return match given.iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(bad("use_ssl", format!("`{name}` is given, so it has to be `true`"))),
                None => Ok(None),
            };
        }
        if !cfg!(feature = "tls") {
            return Err(bad("use_ssl", "this build has no TLS: enable the feature `tls` of apportion"));
        }
        let identity = match (certfile, keyfile) {
            (Some(certificate), Some(key)) => Some((certificate, key, keyfile_password.as_deref())),
            (None, None) if keyfile_password.is_none() => None,
            (None, _) => return Err(bad("certfile", "the key of a client needs its certificate")),
            (Some(_), None) => return Err(bad("keyfile", "the certificate of a client needs its key")),
        };
        match ca {
            Some(ca) => Ok(Some(Files { ca, identity })),
            None => Err(bad("ca", "it is missing: the file of certificates that servers are checked with")),
        }
    }
}

#[cfg(all(feature = "tls", feature = "zookeeper"))]
impl Files<'_> {
    /// The same for the backend, once it is certain that the files can be used.
    pub(super) fn checked(self) -> Result<Tls, ConfigError> {
        let mut tls = Tls::new(self.ca);
        if let Some((certificate, key, password)) = self.identity {
            tls = tls.identity(certificate, key);
            if let Some(password) = password {
                tls = tls.key_password(password);
            }
        }
        tls.check().map_err(|error| bad("use_ssl", error.to_string()))?;
        Ok(tls)
    }
}

fn bad(setting: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Setting { setting, problem: problem.into() }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("use_ssl", &self.use_ssl)
            .field("ca", &self.ca)
            .field("certfile", &self.certfile)
            .field("keyfile", &self.keyfile)
            .finish_non_exhaustive()
    }
}

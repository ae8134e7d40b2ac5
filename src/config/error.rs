//! [`ConfigError`].

use std::convert::Infallible;

use crate::{member::MemberIdError, ring::RingError, session::timing::TimingError};

/// Why a configuration cannot be used. Retrying cannot help. No message ever contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Neither servers nor another backend were chosen.
    #[error(
        "no backend is configured: give a URL such as `zookeeper://zk1:2181,zk2:2181`, or use \
         `PartitionCoordinator::standalone()`"
    )]
    NoBackend,
    /// The URL names ZooKeeper servers, and the crate was built without its feature `zookeeper`.
    #[error("this build has no ZooKeeper client: enable the feature `zookeeper` of apportion")]
    NotBuiltIn,
    /// The URL is malformed.
    #[error("invalid URL, {part}: {problem}")]
    Url {
        /// The part of the URL: scheme, credentials, hosts, path, fragment or options.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The URL has an option that does not exist. Check its spelling.
    #[error("unknown option `{}` in the URL", .0.escape_debug())]
    UnknownOption(String),
    /// The value of a setting is invalid.
    #[error("invalid {setting}: {problem}")]
    Setting {
        /// The name of the field of [`Config`](crate::config::Config) or of the URL option.
        setting: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The member id cannot be the name of a znode.
    #[error(transparent)]
    MemberId(#[from] MemberIdError),
    /// The parameters of the ring of ironic are not supported.
    #[error("invalid parameters of the ring: {0}")]
    Ring(RingError),
    /// Heartbeat, heartbeat validity and margin do not fit the session timeout.
    #[error(transparent)]
    Timing(#[from] TimingError),
}

impl From<RingError> for ConfigError {
    fn from(error: RingError) -> ConfigError {
        ConfigError::Ring(error)
    }
}

impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> ConfigError {
        match never {}
    }
}

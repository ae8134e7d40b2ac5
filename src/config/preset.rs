// Pure: no runtime, no clock, no socket, no random numbers.

//! The settings for fleets with members in Python.

use super::{Config, ConfigError};
use crate::ring::{self, Label};

impl Config {
    /// The settings for fleets in which some members run OpenStack aodh: namespace `tooz`,
    /// [`Label::PythonBytes`], 100 replicas. Continue with [`Config::url`].
    pub fn aodh() -> Config {
        Config { namespace: "tooz".into(), label: Label::PythonBytes, ..Config::default() }
    }

    /// The settings for fleets in which some members use the partitioned groups of OpenStack's tooz, as ceilometer does:
    /// namespace `tooz`, [`Label::Tooz`], and `partitions` points for each unit of weight (the default of tooz is 32).
    /// The weights of Python members count. Continue with [`Config::url`].
    ///
    /// [`guide::coming_from_tooz`](crate::guide::coming_from_tooz) says which members can share a group, and what
    /// happens to one that cannot.
    pub fn tooz(partitions: u32) -> Config {
        Config { namespace: "tooz".into(), label: Label::Tooz, replicas: partitions, ..Config::default() }
    }

    /// [`Config::tooz`] with the parameters of the ring of OpenStack's ironic: 2 to the power of `exponent` partitions.
    /// The arguments are ironic's options `hash_partition_exponent` (default: 5) and `hash_ring_algorithm` (default:
    /// `md5`).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Ring`] for another algorithm than `md5`, or an exponent that is too large.
    ///
    /// ```
    /// use apportion::{Config, config::ConfigError, ring::RingError};
    ///
    /// assert_eq!(Config::ironic(5, "md5")?.replicas, 32);
    /// let other = Config::ironic(5, "sha256").unwrap_err();
    /// assert!(matches!(other, ConfigError::Ring(RingError::HashAlgorithm { .. })));
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn ironic(exponent: u32, algorithm: &str) -> Result<Config, ConfigError> {
        Ok(Config::tooz(ring::ironic_partitions(exponent, algorithm)?))
    }
}

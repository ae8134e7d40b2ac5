//! [`Config`]: the settings of a coordinator.
//!
//! Most services need a URL and nothing else:
//!
//! ```
//! use apportion::config::Config;
//!
//! let config = Config::from_url("zookeeper://zk1:2181,zk2:2181?namespace=pollsters&timeout=6")?;
//! assert_eq!(config.hosts(), ["zk1:2181", "zk2:2181"]);
//! # Ok::<(), apportion::config::ConfigError>(())
//! ```
//!
//! # URLs
//!
//! `zookeeper://[user:password@]host[:port][,host...][?option=value&...]`, in the format of the Python drivers;
//! `kazoo://` means the same. With `user:password` a session logs in with the scheme `digest`, and only this user can
//! access the znodes that the session creates. Percent escapes in user and password are not decoded.
//!
//! | option | sets | value |
//! |---|---|---|
//! | `hosts` | more servers | `host[:port],...`; may be repeated |
//! | `namespace` | [`Config::namespace`] | `a` or `a/b` |
//! | `timeout` | [`Config::session_timeout`] | whole seconds, `6s`, `1500ms` |
//! | `heartbeat`, `margin`, `server_tick` | the field of that name | seconds (`0.5`), `1s`, `500ms` |
//! | `lease` | [`Config::heartbeat_validity`] | the same |
//! | `membership_check` or `check_watchers` | [`Config::membership_check`] | the same |
//! | `retry_backoff`, `max_retry_interval` | the field of that name | the same |
//! | `member_id` | [`Config::member_id`] | text |
//! | `label` | [`Config::label`] | `plain`, `python-bytes` or `tooz` |
//! | `replicas`, `max_request_bytes` | the field of that name | a number |
//! | `randomize_hosts` | nothing | `true`: the hosts are always tried in random order |
//! | `use_ssl` | encrypts the connections (feature `tls`) | `true` or `false` |
//! | `ca` | the certificates of the authorities of the servers | the path of a PEM file; needed for TLS |
//! | `certfile`, `keyfile` | the certificate of this client, and its key | the paths of PEM files |
//! | `keyfile_password` | the password of the key | text |
//! | `verify_certs` | nothing | `true`: the certificates of servers are always checked |
//!
//! If an option comes twice, its last value counts. Python ignores most of the following; here they are errors: unknown
//! options, an option without a value, half a credential (`user@`, `user:@`, `:password@`: the session would be
//! anonymous), a path, `zk://`, `randomize_hosts=false`, `verify_certs=false`, a file for TLS without `use_ssl=true`, and a
//! URL that names neither a host nor an option.

mod error;
mod file;
mod option;
mod preset;
mod tls;
mod url;

use std::{sync::Arc, time::Duration};

pub use self::error::ConfigError;
use self::tls::TlsOptions;
pub(crate) use self::url::Servers;
#[cfg(feature = "zookeeper")]
use crate::backend::zookeeper::{HostError, ZooKeeper};
pub use crate::session::timing::TimingError;
use crate::{
    backend::{Connector, MAX_REQUEST_BYTES, path::ZnodePath},
    member::MemberId,
    ring::Label,
    session::timing::{Timing, Wanted},
};

/// The settings of a coordinator.
///
/// Start from [`Config::from_url`], [`Config::for_backend`], [`Config::aodh`] or [`Config::tooz`] and change what you need, by field
/// or by chained setters:
///
/// ```
/// use std::time::Duration;
///
/// use apportion::config::Config;
///
/// let config = Config::aodh()
///     .url("zookeeper://zk1,zk2?timeout=6")?
///     .member_id("evaluator-3")
///     .membership_check(Duration::from_secs(20));
/// assert_eq!((config.namespace.as_str(), config.session_timeout.as_secs()), ("tooz", 6));
/// # Ok::<(), apportion::config::ConfigError>(())
/// ```
///
/// All members of a fleet need the same `namespace`, `label` and `replicas`. With different ring parameters they
/// would disagree about who owns what, so while two members of a group differ, no member of it has a share.
///
/// `Debug` hides the password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of this member in all groups it joins. Default: a v4 uuid, drawn when the coordinator connects.
    ///
    /// Choose one if logs should name the member, or if it should get the same share after a restart. No two processes
    /// that run at the same time may have the same one.
    pub member_id: Option<String>,
    /// The path of the znode that contains the groups, without the slash in front; it may have several parts (`a/b`).
    /// Default: `apportion`. It is created if it is missing.
    pub namespace: String,
    /// Which text is hashed for the ring points of a member. Default: [`Label::Plain`]. [`Label::PythonBytes`] is for
    /// fleets with members that run aodh, [`Label::Tooz`] for those with members that use tooz's own ring.
    pub label: Label,
    /// How many ring points a member of weight 1 gets, at most 100,000. Default: 100, which spreads the work
    /// with a standard deviation of about a tenth. Four times as many points halve the deviation.
    pub replicas: u32,
    /// For how long the servers keep a session from which they receive nothing. The share of a crashed member has no
    /// owner for about that long. Default: 10 s. The server may grant another timeout; with default settings it grants
    /// 2 to 20 of its ticks.
    ///
    /// Shorter: other members take over sooner. Longer: an outage of that length does not move work. An attempt to
    /// connect gives up after this time.
    pub session_timeout: Duration,
    /// The time from one heartbeat to the next. Default: a tenth of the session timeout, at most 1 s.
    pub heartbeat: Option<Duration>,
    /// For how long a member may act, counted from when it sent its last confirmed heartbeat. Default: half the session
    /// timeout, or as much of it as fits. In a URL the option is called `lease`.
    ///
    /// It has to be at least three heartbeats, and has to end two heartbeats and a server tick before the session
    /// timeout. Shorter: a member that lost contact stops sooner. Longer: it works through longer outages.
    pub heartbeat_validity: Option<Duration>,
    /// How long before its session can expire a member stops, by its own clock. Default: a tenth of the session timeout,
    /// less if that does not fit. At least 0.2 % of it, by which two clocks may differ. Make it longer if clocks are
    /// inaccurate or if single actions take long.
    pub margin: Option<Duration>,
    /// The `tickTime` of the servers, which a client cannot read. Default: 2 s, the default of ZooKeeper. It must not
    /// be shorter than the real tick: the deadline of each share depends on it. If the real tick is shorter, set it
    /// here to allow shorter session timeouts.
    pub server_tick: Duration,
    /// How often a group is checked for a change that no watch has reported. Default: 10 s. This is only a precaution:
    /// normally a watch reports each change at once.
    pub membership_check: Duration,
    /// The delay before a failed connection or join is tried again for the first time. It doubles each time, with
    /// jitter. Default: 1 s.
    pub retry_backoff: Duration,
    /// The longest delay before a failed connection or join is tried again. Default: 30 s.
    pub max_retry_interval: Duration,
    /// The largest request that is sent to ZooKeeper servers, in bytes. Default: [`MAX_REQUEST_BYTES`], which fits
    /// servers with the default `jute.maxbuffer` of 1 MiB. For other servers, set it to about a kilobyte less than
    /// their `jute.maxbuffer`. It limits requests only, not replies. A backend of [`Config::for_backend`] has its own
    /// limit.
    pub max_request_bytes: usize,
    /// Determines every random number and id of the coordinator, for tests that repeat a run. Default: `None`,
    /// different ones in each run. Never give two members of a fleet the same seed: their ids would be equal.
    pub seed: Option<u64>,
    backend: Backend,
    tls: TlsOptions,
}

/// Where the znodes are.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// Not chosen yet.
    Unset,
    /// On ZooKeeper servers.
    Servers(Servers),
    /// A backend of the caller.
    Custom(Arc<dyn Connector>),
}

impl Default for Config {
    fn default() -> Config {
        Config {
            member_id: None,
            namespace: "apportion".into(),
            label: Label::default(),
            replicas: 100,
            session_timeout: Duration::from_secs(10),
            heartbeat: None,
            heartbeat_validity: None,
            margin: None,
            server_tick: Duration::from_secs(2),
            membership_check: Duration::from_secs(10),
            retry_backoff: Duration::from_secs(1),
            max_retry_interval: Duration::from_secs(30),
            max_request_bytes: MAX_REQUEST_BYTES,
            seed: None,
            backend: Backend::Unset,
            tls: TlsOptions::default(),
        }
    }
}

/// The largest [`Config::replicas`].
const MAX_REPLICAS: u32 = 100_000;

/// A claim or a heartbeat may need as much as the first; the lengths of the protocol do not allow more than the second.
const REQUEST_BYTES: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;

/// The protocol counts session timeouts in 31 bits of milliseconds, and timers have a limit as well.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64);

impl Config {
    /// The default settings, on a backend in memory or on one of the caller.
    ///
    /// Members of one fleet in memory use clones of one [`Memory`](crate::backend::Memory).
    pub fn for_backend(connector: impl Connector) -> Config {
        Config { backend: Backend::Custom(Arc::new(connector)), ..Config::default() }
    }

    /// Sets [`Config::member_id`].
    pub fn member_id(mut self, id: impl Into<String>) -> Config {
        self.member_id = Some(id.into());
        self
    }

    /// Sets [`Config::namespace`].
    pub fn namespace(mut self, namespace: impl Into<String>) -> Config {
        self.namespace = namespace.into();
        self
    }

    /// Sets [`Config::label`].
    pub fn label(mut self, label: Label) -> Config {
        self.label = label;
        self
    }

    /// Sets [`Config::replicas`].
    pub fn replicas(mut self, replicas: u32) -> Config {
        self.replicas = replicas;
        self
    }

    /// Sets [`Config::session_timeout`].
    pub fn session_timeout(mut self, timeout: Duration) -> Config {
        self.session_timeout = timeout;
        self
    }

    /// Sets [`Config::heartbeat`].
    pub fn heartbeat(mut self, interval: Duration) -> Config {
        self.heartbeat = Some(interval);
        self
    }

    /// Sets [`Config::heartbeat_validity`].
    pub fn heartbeat_validity(mut self, validity: Duration) -> Config {
        self.heartbeat_validity = Some(validity);
        self
    }

    /// Sets [`Config::margin`].
    pub fn margin(mut self, margin: Duration) -> Config {
        self.margin = Some(margin);
        self
    }

    /// Sets [`Config::server_tick`].
    pub fn server_tick(mut self, tick: Duration) -> Config {
        self.server_tick = tick;
        self
    }

    /// Sets [`Config::membership_check`].
    pub fn membership_check(mut self, interval: Duration) -> Config {
        self.membership_check = interval;
        self
    }

    /// Sets [`Config::retry_backoff`].
    pub fn retry_backoff(mut self, first: Duration) -> Config {
        self.retry_backoff = first;
        self
    }

    /// Sets [`Config::max_retry_interval`].
    pub fn max_retry_interval(mut self, longest: Duration) -> Config {
        self.max_retry_interval = longest;
        self
    }

    /// Sets [`Config::max_request_bytes`].
    pub fn max_request_bytes(mut self, bytes: usize) -> Config {
        self.max_request_bytes = bytes;
        self
    }

    /// Sets [`Config::seed`].
    pub fn seed(mut self, seed: u64) -> Config {
        self.seed = Some(seed);
        self
    }

    /// The servers, each as `host:port`, in the order of the URL; empty for another backend.
    pub fn hosts(&self) -> &[String] {
        if let Backend::Servers(servers) = &self.backend { &servers.hosts } else { &[] }
    }

    /// Whether the connections to the servers are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.use_ssl
    }

    /// The user to log in as, `None` for an anonymous session.
    pub fn user(&self) -> Option<&str> {
        let Backend::Servers(Servers { auth: Some(auth), .. }) = &self.backend else { return None };
        Some(&auth.user)
    }

    /// Checks everything that can be checked without a server. Connecting does so, too.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to change. The server may still grant a session timeout that does not fit the
    /// heartbeat or the heartbeat validity; connecting reports that.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_each()?;
        if matches!(self.backend, Backend::Unset) {
            return Err(ConfigError::NoBackend);
        }
        let is_beside_python = self.label != Label::Plain;
        if is_beside_python && self.member_id.as_ref().is_some_and(|id| !id.is_ascii()) {
            // With such a name in it, each listing of the group would fail in every Python peer.
            let problem = format!("Python peers can read ASCII only, and the label is `{}`", self.label);
            return Err(setting("member_id", problem));
        }
        self.tls.files()?;
        Timing::fit(&self.timing(), self.session_timeout)?;
        Ok(())
    }

    /// The connector of the backend that was chosen: for tools that read the store themselves. A
    /// [`PartitionCoordinator`](crate::PartitionCoordinator) opens sessions of its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if no backend was chosen, or if its servers or certificates cannot be used.
    pub fn connector(&self) -> Result<Arc<dyn Connector>, ConfigError> {
        match &self.backend {
            Backend::Unset => Err(ConfigError::NoBackend),
            Backend::Servers(servers) => connector(servers, &self.tls, self.max_request_bytes),
            Backend::Custom(connector) => Ok(connector.clone()),
        }
    }

    /// The member id that was chosen.
    pub(crate) fn chosen_member_id(&self) -> Result<Option<MemberId>, ConfigError> {
        Ok(self.member_id.as_deref().map(MemberId::new).transpose()?)
    }

    /// The path of the znode that contains the groups: [`Config::namespace`], checked.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] if it cannot be a path.
    pub fn namespace_path(&self) -> Result<ZnodePath, ConfigError> {
        let named = |problem: &dyn std::fmt::Display| setting("namespace", problem.to_string());
        if self.namespace.is_empty() {
            return Err(named(&"it is empty"));
        }
        if self.namespace.starts_with('/') {
            return Err(named(&"it is written without a slash in front"));
        }
        ZnodePath::parse(&format!("/{}", self.namespace)).map_err(|problem| named(&problem))
    }

    /// The durations that were chosen.
    pub(crate) fn timing(&self) -> Wanted {
        Wanted {
            heartbeat: self.heartbeat,
            heartbeat_validity: self.heartbeat_validity,
            margin: self.margin,
            server_tick: self.server_tick,
        }
    }

    /// Checks each setting by itself.
    fn check_each(&self) -> Result<(), ConfigError> {
        self.chosen_member_id()?;
        self.namespace_path()?;
        if !(1..=MAX_REPLICAS).contains(&self.replicas) {
            return Err(setting("replicas", format!("it is {}, not in 1..={MAX_REPLICAS}", self.replicas)));
        }
        if !REQUEST_BYTES.contains(&self.max_request_bytes) {
            let (least, most) = (REQUEST_BYTES.start(), REQUEST_BYTES.end());
            let problem = format!("it is {}, not in {least}..={most}", self.max_request_bytes);
            return Err(setting("max_request_bytes", problem));
        }
        for (name, duration) in [
            ("session_timeout", Some(self.session_timeout)),
            ("heartbeat", self.heartbeat),
            ("heartbeat_validity", self.heartbeat_validity),
            ("margin", self.margin),
            ("server_tick", Some(self.server_tick)),
            ("membership_check", Some(self.membership_check)),
            ("retry_backoff", Some(self.retry_backoff)),
            ("max_retry_interval", Some(self.max_retry_interval)),
        ] {
            let Some(duration) = duration.filter(|duration| !DURATIONS.contains(duration)) else { continue };
            return Err(setting(name, format!("it is {duration:?}, not between 1ms and 24 days")));
        }
        Ok(())
    }
}

#[cfg(feature = "zookeeper")]
fn connector(
    servers: &Servers,
    tls: &TlsOptions,
    max_request_bytes: usize,
) -> Result<Arc<dyn Connector>, ConfigError> {
    let bad = |error: HostError| ConfigError::Url { part: "hosts", problem: error.to_string() };
    let connector =
        ZooKeeper::new(servers.hosts.join(",").parse().map_err(bad)?).max_request_bytes(max_request_bytes);
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "there are none then"))]
    let files = tls.files()?;
    #[cfg(feature = "tls")]
    let connector = match files {
        Some(files) => connector.tls(files.checked()?),
        None => connector,
    };
    Ok(match &servers.auth {
        Some(auth) => Arc::new(connector.digest(&auth.user, &auth.password)),
        None => Arc::new(connector),
    })
}

#[cfg(not(feature = "zookeeper"))]
fn connector(_: &Servers, _: &TlsOptions, _: usize) -> Result<Arc<dyn Connector>, ConfigError> {
    Err(ConfigError::NotBuiltIn)
}

fn setting(setting: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Setting { setting, problem: problem.into() }
}

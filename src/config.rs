//! [`Config`]: everything that is chosen before a coordinator connects.
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
//! `zookeeper://[user:password@]host[:port][,host...][?option=value&...]`, as the Python drivers read them;
//! `kazoo://` means the same. `user:password` logs in with the scheme `digest`, and then every znode is made
//! accessible to this user alone. Both are taken as they stand, percent escapes included.
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
//! | `label` | [`Config::label`] | `plain` or `python-bytes` |
//! | `replicas`, `max_request_bytes` | the field of that name | a number |
//! | `randomize_hosts` | nothing | `true`: the hosts are always tried in random order |
//! | `use_ssl` | nothing | `false`: TLS is not supported yet |
//!
//! An option that comes twice counts with its last value, one without a value is ignored. Where Python silently
//! ignores what it does not understand, here it is an error: unknown options, a path, `zk://`,
//! `randomize_hosts=false`, `use_ssl=true`, and a URL that names neither a host nor an option.

mod error;
mod file;
mod option;
mod url;

use std::{sync::Arc, time::Duration};

pub use self::error::ConfigError;
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

/// Everything that is chosen before a coordinator connects.
///
/// Start from [`Config::from_url`], [`Config::for_backend`] or [`Config::aodh`] and change what you need, by field
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
/// All members of a fleet need the same `namespace`, `label` and `replicas`: with other ring parameters they
/// would disagree about who owns what. While members that differ are in one group, no member of it has a share.
///
/// `Debug` hides the password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of this member in all groups it joins. Default: a v4 uuid, drawn when the coordinator connects.
    ///
    /// Choose one if logs should name the member, or if it should get the same share after a restart. It has
    /// to be unique among the processes that run at the same time.
    pub member_id: Option<String>,
    /// The znode below which the groups lie, without the slash in front; it may have several parts (`a/b`).
    /// Default: `apportion`. It is created when it is missing.
    pub namespace: String,
    /// What of a member is hashed. Default: [`Label::Plain`]. [`Label::PythonBytes`] is for fleets with members
    /// that run aodh.
    pub label: Label,
    /// How many ring points a member of weight 1 gets, at most 100,000. Default: 100, which spreads the work
    /// with a standard deviation of a tenth; four times as many halve it.
    pub replicas: u32,
    /// How long the servers keep a silent session, and so how long the share of a crashed member is without an
    /// owner. Default: 10 s. The server may grant another one: by its defaults it keeps it between 2 and 20
    /// of its ticks.
    ///
    /// Shorter: faster takeover. Longer: outages of that length do not move work. Connecting, too, gives up
    /// after this time.
    pub session_timeout: Duration,
    /// From one heartbeat to the next. Default: a tenth of the session timeout, at most 1 s.
    pub heartbeat: Option<Duration>,
    /// How long a member may act after the sending of its last confirmed heartbeat. Default: half the session
    /// timeout, or as much of it as fits.
    ///
    /// It has to be at least three heartbeats, and has to end two heartbeats and a server tick before the session
    /// timeout. Shorter: a member that lost contact stops sooner. Longer: it works through longer outages.
    pub heartbeat_validity: Option<Duration>,
    /// How long before its session can expire a member has stopped, by its own clock. Default: a twentieth of
    /// the session timeout. Make it longer where clocks are bad or single actions take long.
    pub margin: Option<Duration>,
    /// The `tickTime` of the servers, which the protocol does not reveal. Default: 2 s, the one of ZooKeeper. Set
    /// it if yours is longer, which safety needs, or shorter, which makes room for shorter session timeouts.
    pub server_tick: Duration,
    /// How often the members of a group are read although no watch has fired. Default: 10 s. A safety net only:
    /// changes are normally seen at once.
    pub membership_check: Duration,
    /// The first delay before a failed connection or join is tried again; it doubles each time, with some
    /// jitter. Default: 1 s.
    pub retry_backoff: Duration,
    /// The longest such delay. Default: 30 s.
    pub max_retry_interval: Duration,
    /// The largest request that is sent to ZooKeeper servers, in bytes. Default:
    /// [`MAX_REQUEST_BYTES`], which is right for servers with the usual `jute.maxbuffer` of 1 MiB. For others, set it to
    /// about a kilobyte less than that. A backend of [`Config::for_backend`] has a limit of its own.
    pub max_request_bytes: usize,
    /// Determines every random number and id of the coordinator, for tests that repeat a run. Default: `None`, others
    /// each time. Never give two members of a fleet the same: their ids would be equal.
    pub seed: Option<u64>,
    backend: Backend,
}

/// Where the znodes are.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// Not chosen yet.
    Unset,
    /// On ZooKeeper servers.
    Servers(Servers),
    /// Wherever this leads to.
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
        }
    }
}

/// The largest [`Config::replicas`].
const MAX_REPLICAS: u32 = 100_000;

/// With less, a claim or a heartbeat would not fit; with more, the lengths on the wire end.
const REQUEST_BYTES: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;

/// The protocol counts session timeouts in milliseconds, and timers end somewhere too.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64);

impl Config {
    /// The defaults, on a backend of your own or in memory.
    ///
    /// Members that shall see each other in memory need clones of one [`Memory`](crate::backend::Memory).
    pub fn for_backend(connector: impl Connector) -> Config {
        Config { backend: Backend::Custom(Arc::new(connector)), ..Config::default() }
    }

    /// The preset for fleets in which some members run OpenStack aodh: namespace `tooz`,
    /// [`Label::PythonBytes`], 100 replicas. Continue with [`Config::url`].
    pub fn aodh() -> Config {
        Config { namespace: "tooz".into(), label: Label::PythonBytes, ..Config::default() }
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

    /// The user to log in as, `None` for an anonymous session.
    pub fn user(&self) -> Option<&str> {
        let Backend::Servers(Servers { auth: Some(auth), .. }) = &self.backend else { return None };
        Some(&auth.user)
    }

    /// Checks everything that can be checked without a server; connecting does it too.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to change. The server may still grant a session timeout that heartbeat and
    /// heartbeat validity do not fit; that shows at connecting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_each()?;
        if matches!(self.backend, Backend::Unset) {
            return Err(ConfigError::NoBackend);
        }
        if self.label == Label::PythonBytes && self.member_id.as_ref().is_some_and(|id| !id.is_ascii()) {
            // It would make listing the group fail in every one of them.
            return Err(setting(
                "member_id",
                "Python peers can read ASCII only, and the label is `python-bytes`",
            ));
        }
        Timing::fit(&self.timing(), self.session_timeout)?;
        Ok(())
    }

    /// The way to the backend that was chosen.
    pub(crate) fn connector(&self) -> Result<Arc<dyn Connector>, ConfigError> {
        match &self.backend {
            Backend::Unset => Err(ConfigError::NoBackend),
            Backend::Servers(servers) => connector(servers, self.max_request_bytes),
            Backend::Custom(connector) => Ok(connector.clone()),
        }
    }

    /// The member id that was chosen.
    pub(crate) fn chosen_member_id(&self) -> Result<Option<MemberId>, ConfigError> {
        Ok(self.member_id.as_deref().map(MemberId::new).transpose()?)
    }

    /// The znode below which the groups lie.
    pub(crate) fn namespace_path(&self) -> Result<ZnodePath, ConfigError> {
        let named = |problem: &dyn std::fmt::Display| setting("namespace", problem.to_string());
        if self.namespace.is_empty() {
            return Err(named(&"it is empty"));
        }
        if self.namespace.starts_with('/') {
            return Err(named(&"it is written without a slash in front"));
        }
        ZnodePath::parse(&format!("/{}", self.namespace)).map_err(|problem| named(&problem))
    }

    /// What is asked of heartbeats.
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
fn connector(servers: &Servers, max_request_bytes: usize) -> Result<Arc<dyn Connector>, ConfigError> {
    let bad = |error: HostError| ConfigError::Url { part: "hosts", problem: error.to_string() };
    let connector =
        ZooKeeper::new(servers.hosts.join(",").parse().map_err(bad)?).max_request_bytes(max_request_bytes);
    Ok(match &servers.auth {
        Some(auth) => Arc::new(connector.digest(&auth.user, &auth.password)),
        None => Arc::new(connector),
    })
}

#[cfg(not(feature = "zookeeper"))]
fn connector(_: &Servers, _: usize) -> Result<Arc<dyn Connector>, ConfigError> {
    Err(ConfigError::NotBuiltIn)
}

fn setting(setting: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Setting { setting, problem: problem.into() }
}

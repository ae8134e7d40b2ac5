//! The arguments by which an example becomes one member of a real fleet, and the signal that ends it.

use std::{io::IsTerminal as _, ops::Deref};

use apportion::{Config, ConfigError};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The arguments that all examples have.
#[derive(Debug, clap::Args)]
pub struct MemberArgs {
    /// Be one member of a fleet that uses these servers; `?timeout=6s&namespace=test` and other options of
    /// the library may follow. Without it, a demonstration runs in this process alone and ends by itself
    #[arg(long, value_name = "zookeeper://HOST:PORT,...")]
    pub backend: Option<String>,
    /// The name of this member, unique among those that run at the same time [default: a uuid]
    #[arg(long, value_name = "ID", requires = "backend")]
    pub member_id: Option<String>,
    /// Print the library's events to stderr: -v what happens, -vv everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// The arguments of examples that share their work in a group.
#[derive(Debug, clap::Args)]
pub struct FleetArgs {
    #[command(flatten)]
    member: MemberArgs,
    /// The group that shares the work [default: the name of the example]
    #[arg(long, value_name = "NAME", requires = "backend")]
    group: Option<String>,
}

impl FleetArgs {
    /// The group that was asked for, or `default`.
    pub fn group<'a>(&'a self, default: &'a str) -> &'a str {
        self.group.as_deref().unwrap_or(default)
    }
}

impl Deref for FleetArgs {
    type Target = MemberArgs;

    fn deref(&self) -> &MemberArgs {
        &self.member
    }
}

impl MemberArgs {
    /// The configuration that `--backend` and `--member-id` ask for; `None` without `--backend`.
    pub fn config(&self) -> Result<Option<Config>, ConfigError> {
        self.config_from(Config::default())
    }

    /// The same with other settings than the defaults, where the arguments say nothing.
    pub fn config_from(&self, settings: Config) -> Result<Option<Config>, ConfigError> {
        let Some(url) = &self.backend else { return Ok(None) };
        let config = settings.url(url)?;
        Ok(Some(match &self.member_id {
            Some(id) => config.member_id(id),
            None => config,
        }))
    }

    /// Prints the library's events to stderr. A demonstration causes warnings on purpose and explains them, so
    /// it shows none unless asked.
    pub fn print_events(&self) {
        print_events(self.verbose, self.backend.is_none());
    }
}

/// Prints the library's events to stderr: what `-v` was given `verbose` times for; at least warnings, unless this is
/// a demonstration.
pub fn print_events(verbose: u8, is_demonstration: bool) {
    let level = match verbose {
        0 if is_demonstration => LevelFilter::OFF,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let is_terminal = std::io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal).without_time();
    let ours = Targets::new().with_target("apportion", level);
    tracing_subscriber::registry().with(lines).with(ours).init();
}

/// Waits for a request to stop this process: Ctrl-C, or SIGTERM from a service manager.
pub async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened to");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}

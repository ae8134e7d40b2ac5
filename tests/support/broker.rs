//! One RabbitMQ broker as child processes: the node and its own `epmd`.
//!
//! RabbitMQ is found in `RABBITMQ_HOME/sbin`, else where Debian's `rabbitmq-server` puts it; `erl` and `epmd` in
//! `PATH`. Everything that a broker reads or writes is in a folder of its own, its cookie included.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use super::{
    free_port,
    process::{Guarded, end_of_log, log, new_folder},
};

const DEBIAN_SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
const HELP: &str = "These tests run against a real RabbitMQ broker. Run scripts/test, which installs what is \
    missing, or `apt-get install rabbitmq-server`. Elsewhere set RABBITMQ_HOME to an unpacked RabbitMQ release \
    (3.10 or later) and have erl and epmd in PATH.";

/// Guards the node and its epmd; see [`Guarded`].
const GUARD: &str = r#"
trap '' INT TERM HUP
folder=$1 scripts=$2
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >>"$folder/log" 2>&1 &
epmd=$!
"$scripts/rabbitmq-server" -noinput </dev/null >>"$folder/log" 2>&1 &
node=$!
echo $node
read -r word
kill -9 $node $epmd
wait
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// How long the harness waits for a broker to start. It takes four seconds; a busy machine takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A RabbitMQ broker without plugins, with the user `guest` and the virtual host `/`. Dropping it kills it and
/// removes its data.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    epmd_port: u16,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    processes: Option<Guarded>,
}

/// The broker that the tests of one binary share. Each test uses an exchange of its own.
pub async fn shared_broker() -> &'static Broker {
    static SHARED: tokio::sync::OnceCell<Broker> = tokio::sync::OnceCell::const_new();
    SHARED.get_or_init(Broker::start).await
}

impl Broker {
    /// A broker with ports of its own.
    pub async fn start() -> Broker {
        Broker::start_with(&[]).await
    }

    /// A broker with further lines in its configuration.
    pub async fn start_with(lines: &[String]) -> Broker {
        let mut last = String::new();
        // Another process may have been quicker to take one of the ports.
        for _ in 0..3 {
            let mut broker = Broker::prepare(lines);
            broker.spawn();
            match broker.ready().await {
                Ok(()) => return broker,
                Err(error) => last = error,
            }
        }
        panic!("{last}");
    }

    fn prepare(lines: &[String]) -> Broker {
        let folder = new_folder();
        let name = folder.file_name().expect("it has a name").display().to_string();
        let (port, epmd_port) = (free_port(), free_port());
        let mut config = format!("listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 1MB\n");
        config.extend(lines.iter().flat_map(|line| [line, "\n"]));
        fs::write(folder.join("rabbitmq.conf"), config).expect("the temporary folder is writable");
        fs::write(folder.join("enabled_plugins"), "[].\n").expect("the temporary folder is writable");
        let inside = |name: &str| folder.join(name).display().to_string();
        let environment = vec![
            ("HOME", folder.display().to_string()),
            ("ERL_EPMD_PORT", epmd_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", format!("{name}@localhost")),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("RABBITMQ_CONF_ENV_FILE", inside("none")),
            ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
            ("RABBITMQ_CONFIG_FILES", inside("none.d/*.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("none.config")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", inside("generated")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", inside("data")),
            ("RABBITMQ_FEATURE_FLAGS_FILE", inside("feature_flags")),
            ("RABBITMQ_PID_FILE", inside("pid")),
            ("RABBITMQ_LOG_BASE", folder.display().to_string()),
            ("RABBITMQ_LOGS", "-".to_owned()),
            // Otherwise the script stays between us and the node, and would have to pass signals on.
            ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        ];
        Broker { port, epmd_port, folder, environment, processes: None }
    }

    /// Starts the processes without waiting for the broker to serve.
    fn spawn(&mut self) {
        assert!(self.processes.is_none(), "the broker on port {} runs already", self.port);
        let guarded = Guarded::spawn(GUARD, |shell| {
            self.in_environment(shell.arg(&self.folder).arg(scripts()));
        });
        self.processes = Some(guarded);
    }

    /// What the user's own RabbitMQ listens to must not reach ours.
    fn in_environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("RABBITMQ_") || text.starts_with("ERL_") {
                command.env_remove(&name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)))
    }

    /// Waits until the broker serves.
    async fn ready(&self) -> Result<(), String> {
        let up = async {
            loop {
                let log = log(&self.folder);
                if log.contains("Server startup complete") {
                    return true;
                }
                if log.contains("BOOT FAILED") || !self.signal("0") {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(START_TIMEOUT, up).await == Ok(true) {
            return Ok(());
        }
        let log = end_of_log(&self.folder);
        Err(format!("the broker on port {} did not start; the end of its log:\n{log}", self.port))
    }

    /// The port on which it serves.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of its `epmd`.
    pub fn epmd_port(&self) -> u16 {
        self.epmd_port
    }

    /// Where it keeps its data, configuration and log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of its only virtual host.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2F", self.port)
    }

    /// What `rabbitmqctl` says. It takes a second.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(scripts().join("rabbitmqctl"));
        command.arg("--quiet").args(arguments).stdin(Stdio::null());
        self.in_environment(&mut command);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
        let output = output.expect("rabbitmqctl is beside rabbitmq-server");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(output.stdout), text(output.stderr));
        text(output.stdout)
    }

    /// Kills the broker with SIGKILL. What is durable stays.
    pub fn kill(&mut self) {
        if let Some(processes) = self.processes.take() {
            processes.kill();
        }
    }

    /// Starts the broker again after [`Broker::kill`], on the same port, and waits until it serves.
    pub async fn restart(&mut self) {
        self.kill();
        fs::remove_file(self.folder.join("log")).expect("it is ours");
        self.spawn();
        if let Err(error) = self.ready().await {
            panic!("{error}");
        }
    }

    /// Stops the node with SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&self) {
        assert!(self.signal("STOP"), "the node runs");
    }

    /// Lets a paused node go on.
    pub fn resume(&self) {
        assert!(self.signal("CONT"), "the node runs");
    }

    /// Whether the node was there to receive it.
    fn signal(&self, signal: &str) -> bool {
        self.processes.as_ref().expect("the broker runs").signal(signal)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        match self.processes.take() {
            Some(processes) => processes.remove(),
            None => drop(fs::remove_dir_all(&self.folder)),
        }
    }
}

/// The folder of RabbitMQ's own scripts. Those that Debian has in `PATH` run as root or `rabbitmq` only.
///
/// # Panics
///
/// If RabbitMQ or Erlang is missing, saying how to install it.
fn scripts() -> &'static Path {
    static SCRIPTS: OnceLock<PathBuf> = OnceLock::new();
    SCRIPTS.get_or_init(|| {
        let scripts = env::var_os("RABBITMQ_HOME")
            .map_or_else(|| PathBuf::from(DEBIAN_SCRIPTS), |home| Path::new(&home).join("sbin"));
        let server = scripts.join("rabbitmq-server");
        assert!(server.exists(), "there is no {}.\n{HELP}", server.display());
        for tool in ["erl", "epmd"] {
            let found = env::var_os("PATH")
                .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(tool).exists()));
            assert!(found, "there is no {tool} in PATH.\n{HELP}");
        }
        scripts
    })
}

//! One ZooKeeper server as a child process.
//!
//! Tests run on two releases. The usual one is found through `ZOOKEEPER_CLASSPATH` (a Java class path), else in
//! `ZOOKEEPER_HOME/lib`, else where Debian's `libzookeeper-java` puts it, which is 3.8.0. A current one, 3.9, is found in
//! `ZOOKEEPER_39_HOME/lib`, else in `target/zookeeper-3.9/lib`, where `scripts/test` puts it. Java is found through
//! `JAVA_HOME`, else `PATH`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    free_port,
    process::{Guarded, end_of_log, log, new_folder},
};

const DEBIAN_JAR: &str = "/usr/share/java/zookeeper.jar";
const DEBIAN_LOGGERS: [&str; 2] = ["/usr/share/java/slf4j-simple.jar", "/usr/share/java/slf4j-nop.jar"];
const HELP: &str = "These tests run against real ZooKeeper servers. Run scripts/test, which installs what is \
    missing, or `apt-get install libzookeeper-java default-jre-headless`. Elsewhere set ZOOKEEPER_HOME to an \
    unpacked ZooKeeper release, or ZOOKEEPER_CLASSPATH to its class path, and have java 11 or later in PATH.";
const HELP_39: &str = "Some tests also run against ZooKeeper 3.9. Run scripts/test tests, which puts it into \
    target/zookeeper-3.9 on Debian and Ubuntu. Elsewhere unpack a 3.9 release from \
    https://zookeeper.apache.org/releases.html and set ZOOKEEPER_39_HOME to its folder.";

/// Which ZooKeeper a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Release {
    /// That of the system, 3.8.0 on Debian 12: `exists` needs no permission, and the stats of creates in transactions
    /// are invalid.
    #[default]
    System,
    /// 3.9.2 or later: `exists` needs the permission to read.
    V39,
}

/// For tests on both releases.
pub const RELEASES: [Release; 2] = [Release::System, Release::V39];

/// Guards a server, "$@"; see [`Guarded`].
const GUARD: &str = r#"
trap '' INT TERM HUP
folder=$1; shift
(trap - TERM; exec "$@") </dev/null >>"$folder/log" 2>&1 &
java=$!
echo $java
read -r word
kill -9 $java
wait $java
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// How long the harness waits for a server to start. It takes half a second; a busy machine takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a server that differ between tests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which ZooKeeper it runs.
    pub release: Release,
    /// The `tickTime`: the server checks for expired sessions once a tick.
    pub tick: Duration,
    /// The shortest session timeout that the server grants.
    pub min_session_timeout: Duration,
    /// The longest session timeout that the server grants.
    pub max_session_timeout: Duration,
    /// Further lines of the configuration file.
    pub lines: Vec<String>,
    /// Further arguments of the Java machine, after those of the harness.
    pub java: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            release: Release::System,
            tick: Duration::from_millis(100),
            min_session_timeout: Duration::from_millis(200),
            max_session_timeout: Duration::from_secs(60),
            lines: Vec::new(),
            java: Vec::new(),
        }
    }
}

/// A ZooKeeper server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Server {
    port: u16,
    folder: PathBuf,
    release: Release,
    arguments: Vec<String>,
    java: Option<Guarded>,
}

impl Server {
    /// A server with the usual settings.
    pub async fn start() -> Server {
        Server::start_with(&Settings::default()).await
    }

    /// A server with a port of its own.
    pub async fn start_with(settings: &Settings) -> Server {
        let mut last = String::new();
        for _ in 0..5 {
            let mut server = Server::prepare(free_port(), settings, None);
            server.spawn();
            match server.ready().await {
                Ok(()) => return server,
                Err(error) => last = error,
            }
        }
        panic!("{last}");
    }

    /// Writes the configuration of a server, member `id` of an ensemble if one is given.
    pub(super) fn prepare(port: u16, settings: &Settings, id: Option<usize>) -> Server {
        let folder = new_folder();
        fs::create_dir_all(folder.join("data")).expect("the temporary folder is writable");
        let mut config = format!(
            "tickTime={}\nminSessionTimeout={}\nmaxSessionTimeout={}\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=*\n",
            settings.tick.as_millis(),
            settings.min_session_timeout.as_millis(),
            settings.max_session_timeout.as_millis(),
            folder.join("data").display(),
        );
        for line in &settings.lines {
            config.push_str(line);
            config.push('\n');
        }
        fs::write(folder.join("zoo.cfg"), config).expect("the temporary folder is writable");
        if let Some(id) = id {
            fs::write(folder.join("data/myid"), id.to_string()).expect("the temporary folder is writable");
        }
        Server { port, folder, release: settings.release, arguments: settings.java.clone(), java: None }
    }

    /// Starts the process without waiting for it to serve.
    pub(super) fn spawn(&mut self) {
        assert!(self.java.is_none(), "the server on port {} runs already", self.port);
        let (java, class_path) = installed(self.release);
        self.java = Some(Guarded::spawn(GUARD, |shell| {
            shell
                .arg(&self.folder)
                .arg(java)
                .args([
                    "-Xmx64m",
                    "-Xss256k",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-XX:-UsePerfData",
                ])
                .args(["-Dzookeeper.forceSync=no", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
                .args(&self.arguments)
                .arg("-cp")
                .arg(class_path)
                .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                .arg(self.folder.join("zoo.cfg"));
        }));
    }

    /// Waits until the server serves, alone or in its ensemble.
    ///
    /// # Errors
    ///
    /// Says what is wrong, with the last lines of the server's log.
    pub(super) async fn ready(&self) -> Result<(), String> {
        let ready = async {
            loop {
                // The folder tells this server from one of another test that was quicker to take the port.
                if self.mode().await.is_some() {
                    let config = self.ask("conf").await.unwrap_or_default();
                    return config.contains(&*self.folder.to_string_lossy());
                }
                if log(&self.folder).contains("exiting abnormally") {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(START_TIMEOUT, ready).await == Ok(true) {
            return Ok(());
        }
        let log = end_of_log(&self.folder);
        Err(format!("the server on port {} did not start; the end of its log:\n{log}", self.port))
    }

    /// The port on which it serves.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn connect_string(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it keeps its data, configuration and log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server is: `standalone`, `leader` or `follower`; `None` if it does not serve.
    pub async fn mode(&self) -> Option<String> {
        let reply = self.ask("srvr").await.ok()?;
        reply.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// The reply to one of the four-letter words, such as `wchs`.
    ///
    /// # Errors
    ///
    /// If the server does not answer within a second.
    pub async fn ask(&self, word: &str) -> std::io::Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(word.as_bytes()).await?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await?;
            Ok(reply)
        };
        tokio::time::timeout(Duration::from_secs(1), exchange)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// Kills the server with SIGKILL. Its data stays.
    pub fn kill(&mut self) {
        if let Some(java) = self.java.take() {
            java.kill();
        }
    }

    /// Asks the server with SIGTERM to end. [`Server::kill`] waits until it has.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Starts the server again after [`Server::kill`], with the same data and port, and waits until it serves.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        if let Err(error) = self.ready().await {
            panic!("{error}");
        }
    }

    /// Stops the process with SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(self.java.as_ref().expect("the server runs").signal(signal), "the server is there");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match self.java.take() {
            Some(java) => java.remove(),
            None => drop(fs::remove_dir_all(&self.folder)),
        }
    }
}

/// Java and the class path of ZooKeeper.
///
/// # Panics
///
/// If one is missing, saying how to install it.
fn installed(release: Release) -> (PathBuf, String) {
    static JAVA: OnceLock<PathBuf> = OnceLock::new();
    let java = JAVA.get_or_init(|| {
        let java = env::var_os("JAVA_HOME")
            .map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"));
        let found = Command::new(&java).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(found.is_ok_and(|status| status.success()), "there is no {}.\n{HELP}", java.display());
        java
    });
    let class_path = match release {
        Release::System => class_path(),
        Release::V39 => {
            let home = env::var_os("ZOOKEEPER_39_HOME").map_or_else(unpacked, PathBuf::from);
            let jars = jars(&home.join("lib"));
            assert!(!jars.is_empty(), "there is no ZooKeeper in {}.\n{HELP_39}", home.display());
            jars
        }
    };
    (java.clone(), class_path)
}

/// Where `scripts/test` puts the current release: in the folder of the build, which this binary is in, too.
fn unpacked() -> PathBuf {
    let exe = env::current_exe().expect("a test knows where it is");
    let folders = exe.ancestors().map(|folder| folder.join("zookeeper-3.9"));
    folders.into_iter().find(|folder| folder.is_dir()).unwrap_or_else(|| "target/zookeeper-3.9".into())
}

/// The class path of all jars in a folder. That of ZooKeeper is the last: its manifest names jars of the system, which
/// may be those of another release.
fn jars(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut jars: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "jar")).collect();
    let is_last = |path: &PathBuf| {
        let rest = path.file_name().and_then(|name| name.to_str()?.strip_prefix("zookeeper"));
        rest.is_some_and(|rest| rest.starts_with(['.', '-']) && !rest.starts_with("-jute"))
    };
    jars.sort_by_key(|path| (is_last(path), path.clone()));
    jars.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
}

/// What Debian's jar does not name in its manifest, and TLS needs.
const DEBIAN_TLS: [&str; 3] = [
    "/usr/share/java/netty-codec.jar",
    "/usr/share/java/netty-resolver.jar",
    "/usr/share/java/netty-transport-native-unix-common.jar",
];

fn class_path() -> String {
    if let Ok(given) = env::var("ZOOKEEPER_CLASSPATH") {
        return given;
    }
    if let Some(home) = env::var_os("ZOOKEEPER_HOME") {
        // The configuration folder says how to log.
        let home = PathBuf::from(home);
        return format!("{}:{}", home.join("conf").display(), jars(&home.join("lib")));
    }
    assert!(Path::new(DEBIAN_JAR).exists(), "there is no ZooKeeper: no {DEBIAN_JAR}.\n{HELP}");
    let logger = DEBIAN_LOGGERS.iter().find(|jar| Path::new(jar).exists());
    let jars: Vec<_> = [DEBIAN_JAR].iter().chain(logger).chain(&DEBIAN_TLS).copied().collect();
    jars.join(":")
}

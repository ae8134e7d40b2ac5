//! The examples as child processes that die with the test process, whatever kills that.

use std::{
    collections::BTreeMap,
    env, fs,
    ops::Index,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::process::{Guarded, new_folder};

/// The session timeout that [`url`] asks for.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// The tick of the harness's servers.
pub const SERVER_TICK: Duration = Duration::from_millis(100);
/// Longer than processes take for what they do.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The URL by which processes reach these servers, with settings that suit a test.
pub fn url(servers: &str) -> String {
    format!(
        "zookeeper://{servers}?timeout={}ms&server_tick={}ms&retry_backoff=100ms&max_retry_interval=500ms",
        SESSION_TIMEOUT.as_millis(),
        SERVER_TICK.as_millis()
    )
}

/// Runs "$@" until it ends, or the pipe on stdin does, as it does with the test process. What it writes goes to $out,
/// its exit code to $out.code.
const GUARD: &str = r#"
trap '' INT TERM HUP
out=$1; shift
rm -f "$out.code"
"$@" </dev/null >>"$out" 2>&1 &
pid=$!
echo $pid
exec 3<&0 >/dev/null
(read -r word <&3; kill -9 $pid) &
reader=$!
wait $pid
echo $? >"$out.code"
kill -9 $reader
"#;

/// A process of an example. Dropping it kills it.
#[derive(Debug)]
pub struct Example {
    process: Option<Guarded>,
    out: PathBuf,
}

impl Example {
    /// Starts the example `name`; what it writes is appended to the file `out`.
    pub fn start(name: &str, out: &Path, args: &[&str]) -> Example {
        Example::start_program(&find(name), out, args, &[])
    }

    /// Starts another program, with these variables in its environment.
    pub fn start_program(program: &Path, out: &Path, args: &[&str], variables: &[(&str, &str)]) -> Example {
        let process = Guarded::spawn(GUARD, |shell| {
            shell.arg(out).arg(program).args(args).envs(variables.iter().copied());
        });
        Example { process: Some(process), out: out.into() }
    }

    /// Runs the example `name`, which ends by itself; returns what it has written to stdout.
    pub async fn run(name: &str, args: &[&str]) -> String {
        let output = Command::new(find(name)).args(args).kill_on_drop(true).output();
        let output = timeout(Duration::from_secs(30), output).await.expect("it ends").expect("it starts");
        assert!(output.status.success(), "{name}: {output:?}");
        String::from_utf8(output.stdout).expect("it writes text")
    }

    /// Sends a signal, such as `KILL`.
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it is there until it is dropped");
        assert!(process.signal(signal), "{signal}: {} is gone", self.out.display());
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// How it ended; `None` as long as it runs.
    pub fn exit_code(&self) -> Option<i32> {
        let mut file = self.out.clone().into_os_string();
        file.push(".code");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

/// Processes by their ids, with a folder for what they write. Dropping it kills them and removes the folder.
#[derive(Debug)]
pub struct Processes {
    folder: PathBuf,
    running: BTreeMap<String, Example>,
}

impl Processes {
    /// None so far.
    pub fn new() -> Processes {
        Processes { folder: new_folder(), running: BTreeMap::new() }
    }

    /// Where they write.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the example `name` under an id. What ran under it before is gone when the new one is there.
    pub fn start(&mut self, id: &str, name: &str, args: &[&str]) {
        let process = Example::start(name, &self.folder.join(format!("{id}.out")), args);
        self.running.insert(id.to_owned(), process);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Example)> {
        self.running.iter().map(|(id, process)| (id.as_str(), process))
    }

    /// What all of them have written, for the message of a panic.
    pub fn report(&self) -> String {
        self.iter()
            .map(|(id, process)| format!("-- {id}\n{}", process.output()))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Index<&str> for Processes {
    type Output = Example;

    fn index(&self, id: &str) -> &Example {
        &self.running[id]
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.running.clear();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The examples lie beside the tests: `cargo test` builds both.
fn find(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test has a file");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let example = folder.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
    assert!(
        example.exists(),
        "there is no {}: `cargo test` builds it, but `cargo test --test group` does not; run `cargo build --examples`",
        example.display()
    );
    example
}

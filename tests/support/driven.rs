//! A process that a test drives: lines of JSON on its stdin and stdout.

use std::{
    env,
    io::{Read as _, Write as _},
    process::{Child as Watch, Command as Shell, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    time::timeout,
};

/// Importing TaskFlow takes a second; a busy machine takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// So much of the end of its stderr is kept.
const ERRORS: usize = 16 * 1024;

/// A running process. It has to end when its stdin does, so it ends with the test at the latest. Dropping it kills it.
#[derive(Debug)]
pub struct Driven {
    child: Child,
    stdin: ChildStdin,
    said: mpsc::UnboundedReceiver<Value>,
    errors: Arc<Mutex<Vec<u8>>>,
    pause: Option<Pause>,
}

impl Driven {
    /// Starts it. On its stdout, lines that are no JSON objects are skipped.
    pub fn start(mut command: Command) -> Driven {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, said) = mpsc::unbounded_channel();
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with('{') {
                    let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    let _ = sender.send(line);
                }
            }
        });
        // Read all the time: a process whose stderr is full would stop.
        let errors = Arc::<Mutex<Vec<u8>>>::default();
        let (mut stderr, kept) = (child.stderr.take().expect("it is piped"), errors.clone());
        tokio::spawn(async move {
            let mut chunk = vec![0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
                let mut kept = kept.lock().expect("no task panics with it");
                kept.extend(&chunk[..length]);
                let excess = kept.len().saturating_sub(ERRORS);
                kept.drain(..excess);
            }
        });
        let stdin = child.stdin.take().expect("it is piped");
        Driven { child, stdin, said, errors, pause: None }
    }

    /// Starts this test binary once more, to run one of its tests, with a variable in its environment.
    pub fn myself(test: &str, variable: &str, value: &Value) -> Driven {
        let mut command = Command::new(env::current_exe().expect("a test has a file"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, value.to_string());
        Driven::start(command)
    }

    /// Writes a line to its stdin.
    pub async fn tell(&mut self, line: Value) {
        let written = self.stdin.write_all(format!("{line}\n").as_bytes()).await;
        if let Err(error) = written {
            panic!("it cannot be told {line}: {error}\n{}", self.errors());
        }
    }

    /// The next line that it says.
    ///
    /// # Panics
    ///
    /// If none comes, with what the program wrote to stderr.
    pub async fn says(&mut self) -> Value {
        match timeout(TIMEOUT, self.said.recv()).await {
            Ok(Some(line)) => line,
            outcome => {
                let _ = self.child.start_kill();
                let _ = timeout(TIMEOUT, self.child.wait()).await;
                panic!("the program said no more ({outcome:?}):\n{}", self.errors());
            }
        }
    }

    /// Tells it a line, and returns the next line that it says.
    pub async fn ask(&mut self, line: Value) -> Value {
        self.tell(line).await;
        self.says().await
    }

    /// The next line that it has said already.
    ///
    /// # Panics
    ///
    /// If there is none and the process has ended, with what it wrote to stderr.
    pub fn has_said(&mut self) -> Option<Value> {
        match self.said.try_recv() {
            Ok(line) => Some(line),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => panic!("the program ended:\n{}", self.errors()),
        }
    }

    /// The end of what it has written to stderr.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.errors.lock().expect("no task panics with it")).into_owned()
    }

    /// Kills it, and waits until it is gone. Returns what it had said and was not read.
    pub async fn kill(mut self) -> Vec<Value> {
        let _ = self.child.start_kill();
        self.child.wait().await.expect("it is our child");
        let mut rest = Vec::new();
        while let Some(line) = self.said.recv().await {
            rest.push(line);
        }
        rest
    }

    /// Stops it with SIGSTOP, until [`Driven::resume`].
    pub fn pause(&mut self) {
        self.pause = Some(Pause::of(self.child.id().expect("it runs")));
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        drop(self.pause.take().expect("it is paused"));
    }
}

// --- The other side: a process in Rust that is driven --------------------------------------------------------------

/// The lines on stdin, from a thread of its own. The process ends with them.
pub fn commands() -> mpsc::UnboundedReceiver<Value> {
    let (sender, commands) = mpsc::unbounded_channel();
    // Ends the line on which the test runner has written the name of the test.
    println!();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let line = line.expect("stdin can be read");
            let _ = sender.send(serde_json::from_str(&line).expect("it is told JSON"));
        }
        std::process::exit(0);
    });
    commands
}

/// Writes a line to stdout.
pub fn say(line: &Value) {
    println!("{line}");
}

/// A process is stopped as long as this value exists. If the test process is killed, it goes on, and finds its stdin
/// closed: otherwise it would stay for ever.
#[derive(Debug)]
struct Pause(Watch);

impl Pause {
    fn of(process: u32) -> Pause {
        let script = format!("kill -STOP {process} && echo stopped; read -r word; kill -CONT {process}");
        let mut shell = Shell::new("sh");
        let shell = shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("there is a shell");
        let mut stopped = [0];
        shell.stdout.take().expect("it is piped").read_exact(&mut stopped).expect("the process is there");
        Pause(shell)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.write_all(b"go on\n");
        }
        let _ = self.0.wait();
    }
}

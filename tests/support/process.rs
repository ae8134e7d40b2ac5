//! A server as a child process that dies with the test process, whatever kills that.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A server behind a shell that guards it: the shell prints the server's process id, waits for a word or the end of
/// its input, kills the server, and removes its folder unless the word is `keep`.
///
/// The pipe to the shell ends with the test process, so no server outlives it. Signals of the terminal go to the whole
/// process group: the shell has to ignore them, so that it does not end before its server.
#[derive(Debug)]
pub(super) struct Guarded {
    shell: Child,
    stdin: Option<ChildStdin>,
    pid: u32,
}

impl Guarded {
    /// Runs `script` in the shell, with what else `prepare` gives it: arguments, environment.
    pub(super) fn spawn(script: &str, prepare: impl FnOnce(&mut Command)) -> Guarded {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]);
        prepare(&mut shell);
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the shell writes a line");
        let pid = line.trim().parse().expect("the shell writes a process id");
        Guarded { stdin: shell.stdin.take(), shell, pid }
    }

    /// Sends a signal; whether the server was there to receive it.
    pub(super) fn signal(&self, signal: &str) -> bool {
        let script = format!("kill -{signal} {} 2>/dev/null", self.pid);
        Command::new("sh").args(["-c", &script]).status().expect("there is a shell").success()
    }

    /// Kills the server and waits for its end; its folder stays.
    pub(super) fn kill(self) {
        self.end("keep\n");
    }

    /// Kills the server, waits for its end, and removes its folder.
    pub(super) fn remove(self) {
        self.end("");
    }

    fn end(mut self, word: &str) {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(word.as_bytes());
        }
        let _ = self.shell.wait();
    }
}

/// A new folder below the temporary one.
pub(super) fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("apportion-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = env::temp_dir().join(name);
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    folder
}

/// What the server in `folder` has logged.
pub(super) fn log(folder: &Path) -> String {
    fs::read(folder.join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
}

/// The end of what the server in `folder` has logged, for the message of a panic.
pub(super) fn end_of_log(folder: &Path) -> String {
    let log = log(folder);
    let start = log.lines().count().saturating_sub(25);
    log.lines().skip(start).collect::<Vec<_>>().join("\n")
}

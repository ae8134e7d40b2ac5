//! The programs beside this file, in the Python that scripts/test prepares.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const HELP: &str = "These tests run TaskFlow itself. Run scripts/test, which makes a virtual environment with the \
    versions of tests/worker/interop/requirements.txt, or do so yourself and set APPORTION_INTEROP_PYTHON to its bin/python.";

/// Importing TaskFlow takes a second; a busy machine takes longer.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A running program. It ends when its stdin does, so with the test at the latest.
#[derive(Debug)]
pub(crate) struct Python {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Python {
    /// Starts `program`.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Python {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/worker/interop").join(program);
        let mut child = Command::new(interpreter())
            .arg(script)
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the interpreter is there");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Python { child, lines }
    }

    /// The next line that it says.
    ///
    /// # Panics
    ///
    /// If none comes, with what the program wrote to stderr.
    pub(crate) async fn says(&mut self) -> Value {
        let line = timeout(TIMEOUT, self.lines.next_line()).await;
        if let Ok(Ok(Some(line))) = line {
            return serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
        let _ = self.child.start_kill();
        let mut errors = Vec::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = timeout(TIMEOUT, stderr.read_to_end(&mut errors)).await;
        }
        panic!("the program said no more ({line:?}):\n{}", String::from_utf8_lossy(&errors));
    }
}

/// # Panics
///
/// If it is missing, saying how to get it.
fn interpreter() -> PathBuf {
    if let Some(given) = std::env::var_os("APPORTION_INTEROP_PYTHON") {
        return given.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below the target folder");
    let python = target.join("interop/bin/python");
    assert!(python.exists(), "there is no {}.\n{HELP}", python.display());
    python
}

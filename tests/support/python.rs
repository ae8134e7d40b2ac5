//! Programs in the Python that scripts/test prepares.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::driven::Driven;

const HELP: &str = "These tests run the Python systems themselves. Run scripts/test, which makes a virtual environment \
    with the versions of tests/support/python/requirements.txt, or do so yourself and set APPORTION_INTEROP_PYTHON to its \
    bin/python.";

/// Starts the program `script`, a path below tests.
pub fn python(script: &str, arguments: &[&str]) -> Driven {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut command = Command::new(interpreter());
    command
        .arg(tests.join(script))
        .args(arguments)
        // What they have in common.
        .env("PYTHONPATH", tests.join("support/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Driven::start(command)
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

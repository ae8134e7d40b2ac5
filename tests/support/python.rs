//! Programs in the Python that scripts/test prepares.

use std::{
    env,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::driven::Driven;

const HELP: &str = "These tests run the Python systems themselves. Run scripts/test, which makes a virtual environment \
    with the versions of tests/support/python/requirements.txt, and those of requirements-old.txt in its folder `old`; or do \
    so yourself and set APPORTION_INTEROP_PYTHON to its bin/python.";

/// Which versions of the Python systems a program runs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Versions {
    /// Those of requirements.txt.
    Current,
    /// Those of requirements-old.txt.
    Old,
}

/// Starts the program `script`, a path below tests.
pub fn python(script: &str, arguments: &[&str]) -> Driven {
    python_of(Versions::Current, script, arguments)
}

/// The same with these versions.
pub fn python_of(versions: Versions, script: &str, arguments: &[&str]) -> Driven {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let interpreter = interpreter();
    // What the programs have in common.
    let mut path = vec![tests.join("support/python")];
    if versions == Versions::Old {
        let old = interpreter.ancestors().nth(2).expect("it is in a folder of the environment").join("old");
        assert!(old.is_dir(), "there is no {}.\n{HELP}", old.display());
        path.push(old);
    }
    let mut command = Command::new(interpreter);
    command
        .arg(tests.join(script))
        .args(arguments)
        .env("PYTHONPATH", env::join_paths(path).expect("the paths have no separators"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Driven::start(command)
}

/// # Panics
///
/// If it is missing, saying how to get it.
fn interpreter() -> PathBuf {
    if let Some(given) = env::var_os("APPORTION_INTEROP_PYTHON") {
        return given.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below the target folder");
    let python = target.join("interop/bin/python");
    assert!(python.exists(), "there is no {}.\n{HELP}", python.display());
    python
}

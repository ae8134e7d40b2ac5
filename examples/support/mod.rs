//! What the examples share beside the library: arguments, time of day, lines on a screen, and a gate.

#![allow(dead_code, reason = "each example compiles this module for itself and uses its own part of it")]
#![allow(unreachable_pub, reason = "a module of an example has no public interface")]
#![allow(unused_imports, unused_macros, reason = "as above")]

use std::path::Path;

pub mod fleet;
pub mod gate;
pub mod screen;
pub mod time;

pub use self::{
    fleet::{FleetArgs, MemberArgs, print_events, stopped},
    gate::Gate,
    screen::{Column, Progress, table},
    time::{Cycles, duration, seconds, time_of_day},
};

pub(crate) use self::screen::say;

/// What goes wrong in an example ends it, with one line that says why.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The text of a file of one's own, without the mark that some programs write before UTF-8.
pub fn read(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(without_mark(&text).into())
}

/// The text without a byte order mark, which is no part of what comes first.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The exit code of an example that ended with `outcome`.
pub fn exit(outcome: Result<(), Failure>) -> std::process::ExitCode {
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}

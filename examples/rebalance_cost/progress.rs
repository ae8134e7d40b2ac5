//! How far the trials are, on stderr: one line that changes on a terminal, a line now and then elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::support::{seconds, time};

/// How often a line is printed where it stays.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

pub struct Progress {
    steps: usize,
    step: usize,
    start: Instant,
    last_line: Instant,
    is_terminal: bool,
}

impl Progress {
    pub fn new(steps: usize) -> Progress {
        let now = time::now();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Progress {
            steps,
            step: 0,
            start: now,
            last_line: now,
            is_terminal: io::stderr().is_terminal() && !is_dumb,
        }
    }

    /// Begins the next step.
    pub fn step(&mut self, what: fmt::Arguments<'_>) {
        self.step += 1;
        let now = time::now();
        let text = format!("[{:>2}/{}] {:>7}  {what}", self.step, self.steps, seconds(now - self.start));
        if self.is_terminal {
            write(format_args!("\r\x1b[2K{text}"));
        } else if self.step == 1 || now - self.last_line >= NOW_AND_THEN {
            self.last_line = now;
            write(format_args!("{text}\n"));
        }
    }

    /// Takes the line away.
    pub fn end(self) {
        if self.is_terminal {
            write(format_args!("\r\x1b[2K"));
        }
    }
}

/// Nobody has to listen.
fn write(text: fmt::Arguments<'_>) {
    let mut stderr = io::stderr();
    let _ = stderr.write_fmt(text).and_then(|()| stderr.flush());
}

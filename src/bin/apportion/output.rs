//! [`Output`]: tables and lines for operators, or JSON.

use std::{
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
};

use apportion::serde_json::Value;
use comfy_table::{ContentArrangement, Table, presets};

use crate::{failure::Failure, findings::Finding};

/// How the caller wants to read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
    has_colour: bool,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Output {
        let is_refused = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let has_colour = !is_json && !is_refused("NO_COLOR") && !is_dumb && io::stdout().is_terminal();
        Output { is_json, has_colour }
    }

    /// Prints a text, which may have text of other processes.
    pub(crate) fn line(self, text: impl fmt::Display) -> Result<(), Failure> {
        self.write(&printable(&text.to_string()))
    }

    /// Prints a line that begins with a title.
    pub(crate) fn titled(self, title: &str, rest: impl fmt::Display) -> Result<(), Failure> {
        self.write(&format!("{}{}", self.bold(&printable(title)), printable(&rest.to_string())))
    }

    /// Prints a JSON value with its name, over several lines.
    pub(crate) fn value(self, name: &str, value: &Value) -> Result<(), Failure> {
        format!("{name} {value:#}").lines().try_for_each(|line| self.line(line))
    }

    /// Prints lines in which only markup of ours has control characters.
    fn write(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        for line in text.lines().map(str::trim_end) {
            writeln!(out, "{line}")?;
        }
        if text.is_empty() {
            writeln!(out)?;
        }
        Ok(out.flush()?)
    }

    /// One JSON value: over several lines, because an operator may read it as well.
    pub(crate) fn json(self, value: &Value) -> Result<(), Failure> {
        self.write(&format!("{value:#}"))
    }

    /// One JSON value in one line, for a sequence of them.
    pub(crate) fn json_line(self, value: &Value) -> Result<(), Failure> {
        self.write(&value.to_string())
    }

    /// A table without borders. Nothing if it has no rows.
    pub(crate) fn table(self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header);
        table.add_rows(rows.into_iter().map(|row| row.into_iter().map(|cell| printable(&cell))));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.write(&table.to_string())
    }

    /// The findings, the worst first.
    pub(crate) fn findings(self, findings: &[Finding]) -> Result<(), Failure> {
        for finding in findings {
            let name = if finding.is_problem { self.red("problem") } else { "note".to_owned() };
            self.write(&format!("{name}: {}", printable(&finding.what)))?;
            if let Some(advice) = &finding.advice {
                self.line(format_args!("  {advice}"))?;
            }
        }
        Ok(())
    }

    fn bold(self, text: &str) -> String {
        self.styled("1", text)
    }

    fn red(self, text: &str) -> String {
        self.styled("31", text)
    }

    fn styled(self, style: &str, text: &str) -> String {
        if self.has_colour { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Says on standard error why a command has failed.
    pub(crate) fn error(self, failure: &Failure) {
        // If that cannot be written either, the exit code says it.
        let _ = writeln!(io::stderr(), "apportion: {}", printable(&failure.to_string()));
    }
}

/// Text of other programs, without characters that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// `47.2 %`.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// `1 key`, `2 keys`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

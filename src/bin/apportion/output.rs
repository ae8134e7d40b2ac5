//! [`Output`]: tables and lines for operators, or JSON.

use std::{
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
};

use apportion::serde_json::{Value, json};
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
        self.write(&escaped(&format!("{value:#}")))
    }

    /// One JSON value in one line, for a sequence of them.
    pub(crate) fn json_line(self, value: &Value) -> Result<(), Failure> {
        self.write(&escaped(&value.to_string()))
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

    /// The findings, in their order.
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

    /// Says something on standard error to an operator at a terminal.
    pub(crate) fn hint(self, text: &str) {
        // It is of no use to a program.
        let _ = writeln!(io::stderr(), "apportion: {text}");
    }

    /// Says on standard error why a command has failed.
    pub(crate) fn error(self, failure: &Failure) {
        self.error_as(&failure.to_string(), failure.code());
    }

    pub(crate) fn error_as(self, text: &str, code: &str) {
        let said = match self.is_json {
            true => escaped(&json!({ "error": text, "code": code }).to_string()),
            false => format!("apportion: {}", printable(text)),
        };
        // If that cannot be written either, the exit code says it.
        let _ = writeln!(io::stderr(), "{said}");
    }
}

/// A list for programs: its items, how many there are, which may be more, and what was found.
pub(crate) fn listed(items: impl IntoIterator<Item = Value>, total: usize, found: &[Finding]) -> Value {
    let (items, found): (Vec<_>, Vec<_>) =
        (items.into_iter().collect(), found.iter().map(Finding::json).collect());
    json!({ "items": items, "total": total, "findings": found })
}

/// How many of them are shown, if not all.
pub(crate) fn shown(number: usize, total: usize) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    if total > number { format!(", of which {number} {verb} shown") } else { String::new() }
}

/// Text of other programs, without characters that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let is_obeyed = |c: &char| c.is_control() || changes_direction(*c);
    text.chars().map(|c| if is_obeyed(&c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// JSON, without characters that a terminal would obey: outside of texts there are none.
fn escaped(json: &str) -> String {
    let is_obeyed = |c: &char| matches!(c, '\u{7f}'..='\u{9f}') || changes_direction(*c);
    json.chars()
        .map(|c| if is_obeyed(&c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}

/// Whether it changes the direction of the text that follows.
fn changes_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `47.2 %`.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// `1 key`, `2 keys`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_another_process_reaches_a_terminal_as_a_command() {
        let foreign = "a\u{1b}[31m\u{7f}\u{9b}2J\u{202e}txt\u{2066}é\u{2069}";
        assert_eq!(
            printable(foreign),
            r"a\u{1b}[31m\u{7f}\u{9b}2J\u{202e}txt\u{2066}é\u{2069}",
            "in a line or a table"
        );
        let value = json!({ foreign: [foreign, 1] });
        for text in [escaped(&value.to_string()), escaped(&format!("{value:#}"))] {
            let is_obeyed = |c: char| c != '\n' && c.is_control() || changes_direction(c);
            assert!(!text.contains(is_obeyed) && text.contains(r"\u009b2J\u202etxt\u2066é"), "{text}");
            assert_eq!(apportion::serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}

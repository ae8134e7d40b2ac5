//! Lines for people: plain text, with a little colour on a terminal.

use std::{fmt, io::IsTerminal as _, io::Write as _, sync::LazyLock};

/// How wide a line may get.
const WIDTH: usize = 80;

/// Prints one line to stdout. Unlike `println!` it ends the process quietly when nobody reads on, as in `| head`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::support::screen::line(format_args!($($argument)*)) };
}
pub(crate) use say;

#[doc(hidden)]
pub fn line(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    if writeln!(std::io::stdout(), "{}", text.trim_end()).is_err() {
        std::process::exit(0);
    }
}

static HAS_COLOUR: LazyLock<bool> = LazyLock::new(|| {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() && !is_dumb
});

fn paint(code: &str, text: impl fmt::Display) -> String {
    if *HAS_COLOUR { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

pub fn bold(text: impl fmt::Display) -> String {
    paint("1", text)
}

pub fn dim(text: impl fmt::Display) -> String {
    paint("2", text)
}

pub fn red(text: impl fmt::Display) -> String {
    paint("31", text)
}

pub fn yellow(text: impl fmt::Display) -> String {
    paint("33", text)
}

pub fn green(text: impl fmt::Display) -> String {
    paint("32", text)
}

/// `1 alarm`, `2 alarms`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `a, b and c`.
pub fn and<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// As many of `names` as fit into `width`, and how many more there are.
pub fn some_of<S: AsRef<str>>(names: &[S], width: usize) -> String {
    let mut text = String::new();
    for (done, name) in names.iter().enumerate() {
        let comma = if done == 0 { "" } else { ", " };
        if text.len() + comma.len() + name.as_ref().len() > width && done > 0 {
            return format!("{text} and {} more", names.len() - done);
        }
        text = text + comma + name.as_ref();
    }
    text
}

/// `734 B`, `1.2 kB`, `3.4 MB`.
pub fn bytes(number: u64) -> String {
    let (mut value, mut unit) = (number as f64, "B");
    for larger in ["kB", "MB", "GB"] {
        // What would be written as 1000 is 1 of the next.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") }
}

/// `file.rs` as it is, and of a longer text the last `room` characters, the first of them replaced by `~`.
pub fn end_of(text: &str, room: usize) -> String {
    match text.chars().count().checked_sub(room) {
        None | Some(0) => text.into(),
        Some(surplus) => format!("~{}", text.chars().skip(surplus + 1).collect::<String>()),
    }
}

/// `[====    ]`, with room for `room` signs.
pub fn bar(done: f64, room: usize) -> String {
    let full = ((done.clamp(0.0, 1.0) * room as f64) as usize).min(room);
    format!("[{}{}]", "=".repeat(full), " ".repeat(room - full))
}

/// A column of a [`table`].
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Text starts at the left.
    Left(&'static str),
    /// Numbers end at the right.
    Right(&'static str),
}

/// Prints a table. Texts of the last column that are too long go on in the next line.
pub fn table(columns: &[Column], rows: &[Vec<String>]) {
    let title = |column: &Column| match column {
        Column::Left(title) | Column::Right(title) => *title,
    };
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0).max(title(&columns[at]).len()))
        .collect();
    let indent: usize = widths[..widths.len() - 1].iter().map(|width| width + 2).sum::<usize>() + 2;
    let print = |cells: &[String]| {
        let mut text = String::new();
        for (at, column) in columns.iter().enumerate() {
            let last = at + 1 == columns.len();
            let room = if last { 0 } else { widths[at].saturating_sub(width(&cells[at])) };
            text += "  ";
            match column {
                Column::Left(_) if last => {
                    text += &wrap(&cells[at], WIDTH - indent).join(&format!("\n{:indent$}", ""));
                }
                Column::Left(_) => text = text + &cells[at] + &" ".repeat(room),
                Column::Right(_) => {
                    text = text + &" ".repeat(widths[at].saturating_sub(width(&cells[at]))) + &cells[at];
                }
            }
        }
        say!("{text}");
    };
    let titles: Vec<String> = columns
        .iter()
        .zip(&widths)
        .map(|(column, &width)| match column {
            Column::Left(title) => dim(title),
            Column::Right(title) => dim(format!("{title:>width$}")),
        })
        .collect();
    print(&titles);
    rows.iter().for_each(|row| print(row));
}

/// How many columns `text` takes, without what only colours it.
fn width(text: &str) -> usize {
    let mut is_escape = false;
    text.chars()
        .filter(|&c| {
            let hidden = is_escape || c == '\x1b';
            is_escape = hidden && c != 'm';
            !hidden
        })
        .count()
}

/// Breaks `text` at spaces.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && width(line) + 1 + width(word) > room {
            lines.push(word.into());
        } else {
            *line = if line.is_empty() { word.into() } else { format!("{line} {word}") };
        }
    }
    lines
}

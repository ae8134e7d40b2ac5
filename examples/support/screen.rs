//! Lines for the user: plain text, with a little colour on a terminal.

use std::{
    fmt,
    io::Write as _,
    sync::LazyLock,
    time::{Duration, Instant},
};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Row, Table, presets};
use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::time::now;

/// The largest width of a table if there is no terminal.
const WIDTH: u16 = 80;

/// What is at the foot of a terminal, below the lines.
static FOOT: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Prints one line to stdout. Unlike `println!` it ends the process quietly when the reader of a pipe has ended, as in
/// `| head`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::support::screen::line(format_args!($($argument)*)) };
}
pub(crate) use say;

#[doc(hidden)]
pub fn line(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    if FOOT.suspend(|| writeln!(std::io::stdout(), "{}", text.trim_end())).is_err() {
        std::process::exit(0);
    }
}

pub fn bold(text: impl fmt::Display) -> String {
    style(text).bold().to_string()
}

pub fn dim(text: impl fmt::Display) -> String {
    style(text).dim().to_string()
}

pub fn red(text: impl fmt::Display) -> String {
    style(text).red().to_string()
}

pub fn yellow(text: impl fmt::Display) -> String {
    style(text).yellow().to_string()
}

pub fn green(text: impl fmt::Display) -> String {
    style(text).green().to_string()
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

/// As many of `names` as fit into `width`, at least one, and how many more there are.
pub fn some_of<S: AsRef<str>>(names: &[S], width: usize) -> String {
    let mut text = String::new();
    for (done, name) in names.iter().enumerate() {
        let comma = if done == 0 { "" } else { ", " };
        let rest = if done + 1 == names.len() { 0 } else { " and 999 more".len() };
        if text.len() + comma.len() + name.as_ref().len() + rest > width && done > 0 {
            return format!("{text} and {} more", names.len() - done);
        }
        text = text + comma + name.as_ref();
    }
    text
}

/// `file.rs` as it is, and of a longer text the last `room` characters, the first of them replaced by `~`.
pub fn end_of(text: &str, room: usize) -> String {
    match text.chars().count().checked_sub(room) {
        None | Some(0) => text.into(),
        Some(surplus) => format!("~{}", text.chars().skip(surplus + 1).collect::<String>()),
    }
}

/// A column of a [`table`].
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Text starts at the left.
    Left(&'static str),
    /// Numbers end at the right.
    Right(&'static str),
}

/// Prints a table as wide as the terminal allows. What is too long for its column goes on in the next line.
pub fn table<R: Into<Row>>(columns: &[Column], rows: impl IntoIterator<Item = R>) {
    let titles = columns
        .iter()
        .map(|(Column::Left(title) | Column::Right(title))| Cell::new(title).add_attribute(Attribute::Dim));
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(titles).add_rows(rows);
    for (made, wanted) in table.column_iter_mut().zip(columns) {
        made.set_padding((2, 0));
        if matches!(wanted, Column::Right(_)) {
            made.set_cell_alignment(CellAlignment::Right);
        }
    }
    if !console::colors_enabled() {
        table.force_no_tty().set_width(WIDTH);
    }
    table.lines().for_each(|line| say!("{line}"));
}

/// How far the work is: a bar at the foot of a terminal, and where there is none a line now and then.
pub struct Progress {
    bar: ProgressBar,
    every: Duration,
    last: Option<Instant>,
}

impl Progress {
    /// Nothing done of `all`. Where there is no terminal, a line is due whenever `every` has passed.
    pub fn of(all: usize, every: Duration) -> Progress {
        let style = ProgressStyle::with_template("[{bar:20}] {pos:>4} of {len}  {wide_msg}");
        let style = style.expect("the template is valid").progress_chars("== ");
        let bar = FOOT.add(ProgressBar::new(all as u64)).with_style(style);
        Progress { bar, every, last: None }
    }

    /// Shows that so much is done, and a few words. Returns the line that the caller has to print, if it is due.
    pub fn show(&mut self, done: usize, words: &str) -> Option<String> {
        self.bar.set_message(words.to_owned());
        self.bar.set_position(done as u64);
        let is_due = self.bar.is_hidden() && self.last.is_none_or(|last| last.elapsed() >= self.every);
        is_due.then(|| {
            self.last = Some(now());
            format!("{done:>4} of {}  {words}", self.bar.length().unwrap_or_default())
        })
    }
}

/// What went wrong, without the number that the system has for it.
pub fn reason(error: impl fmt::Display) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

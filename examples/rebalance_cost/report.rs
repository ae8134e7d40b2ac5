//! What was found: tables on the screen, a CSV file and a page with plots.

mod chart;
mod charts;
pub mod csv;
mod number;
mod page;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::tables::print;
use crate::{
    study::Results,
    support::{Failure, say, screen::bold, seconds},
};

/// Creates the folder of the report, so that a run that cannot be written ends before it begins.
pub fn create(out: &Path) -> Result<(), Failure> {
    fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()).into())
}

/// Writes all files and returns where they are.
pub fn write(results: &Results, out: &Path) -> Result<Vec<PathBuf>, Failure> {
    Ok(vec![
        save(out, "rebalance_cost.csv", &csv::of(results))?,
        save(out, "rebalance_cost.html", &page::of(results)?)?,
    ])
}

pub fn save(out: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let file = out.join(name);
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

pub fn print_files(files: &[PathBuf], took: Duration) {
    print_list(files);
    say!("It took {}.", seconds(took));
}

pub fn print_list(files: &[PathBuf]) {
    say!("");
    files.iter().for_each(|file| say!("Written: {}", bold(file.display())));
}

//! The results: tables on the screen, a CSV file and a page with plots.

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
        save(out, "rebalance_cost.csv", &csv::of(results)?)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        schemes::SCHEMES,
        study::{self, Plan},
    };

    #[test]
    fn a_small_study_fills_the_csv_and_a_page_that_needs_nothing_else() {
        let plan = Plan { members: vec![3, 10], replicas: vec![1, 100], keys: 1000, is_quick: true };
        let cases = plan.steps();
        let results = study::run(plan, |_| {});
        assert!(results.ring.iter().all(|cost| cost.join.between == 0.0 && cost.leave.between == 0.0));
        assert_eq!(results.ring.len() + results.others.len(), cases);

        let csv = csv::of(&results).unwrap();
        assert_eq!(csv.lines().count(), 1 + cases);
        let columns = |line: &str| line.split(',').count();
        assert!(csv.lines().all(|line| columns(line) == columns(csv.lines().next().unwrap())), "{csv}");

        let page = page::of(&results).unwrap();
        assert_eq!(page.matches("<svg").count(), 12);
        assert_eq!(page.matches("<td>rendezvous</td>").count(), 2);
        assert!(SCHEMES.iter().all(|scheme| page.contains(&format!("</td><td>{}</td>", scheme.name))));
        for bad in ["<script", "src=", "href=", "url(", "NaN", "inf"] {
            assert!(!page.contains(bad), "{bad} in the page");
        }
    }
}

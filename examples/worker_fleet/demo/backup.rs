//! A flow of two tasks: back a file up, verify the copy. When the second fails, the first is reverted.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use apportion::worker::{Executor, Request, RequestError};

use super::super::{
    files::File,
    work::{BACK_UP, Hashed, VERIFY},
};
use crate::support::{
    Failure, say,
    screen::{bold, dim, end_of, green, red, yellow},
};

/// How many requests ended how.
#[derive(Debug, Default)]
pub struct Summary {
    pub succeeded: usize,
    pub failed: usize,
}

/// Backs up the first two of `files`. The second copy is damaged on purpose.
pub async fn run(executor: &Executor, files: &[(File, Hashed)]) -> Result<Summary, Failure> {
    let some = &files[..files.len().min(2)];
    let what = match some.len() {
        1 => "One file is copied and the copy verified; it is damaged before.",
        _ => "Two files are copied and the copies verified; one is damaged before.",
    };
    say!("\n{} {what}", bold("BACK UP"));
    let scratch = Scratch::new()?;
    let mut summary = Summary::default();
    for (number, (file, hashed)) in some.iter().enumerate() {
        let copy = scratch.0.join(format!("{number}-{}", name_of(file)));
        let is_damaged = number + 1 == some.len();
        back_up(executor, file, &hashed.md5, &copy, is_damaged, &mut summary).await?;
        match (copy.exists(), is_damaged) {
            (true, false) | (false, true) => {}
            (true, true) => return Err("the damaged copy is still there".into()),
            (false, false) => return Err("the good copy is not there".into()),
        }
    }
    Ok(summary)
}

async fn back_up(
    executor: &Executor,
    file: &File,
    md5: &str,
    copy: &Path,
    is_damaged: bool,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let name = end_of(&name_of(file), 24);
    let step = |task: &str, outcome: &str| say!("  {task:<14}  {name:<24}  {outcome}");
    let (from, to) =
        (file.path.as_str(), copy.to_str().ok_or("the name of the temporary folder is no text")?);
    let arguments = Request::execute(BACK_UP).argument("from", from).argument("to", to);
    let copied = executor.submit(arguments).await?;
    summary.succeeded += 1;
    step(BACK_UP, "copied");
    if is_damaged {
        fs::OpenOptions::new().append(true).open(copy)?.write_all(b"!")?;
        step("", &dim("(now a byte is added to the copy)"));
    }
    let failure =
        match executor.submit(Request::execute(VERIFY).argument("path", to).argument("md5", md5)).await {
            Ok(_) => {
                summary.succeeded += 1;
                step(VERIFY, &green("the copy is good"));
                return Ok(());
            }
            Err(RequestError::Failed(failure)) => failure,
            Err(error) => return Err(error.into()),
        };
    summary.failed += 1;
    step(VERIFY, &red("failed:"));
    say!("    {}", failure.exc_type_names().join(" < "));
    say!("    {}", failure.exception_str());
    for cause in failure.causes() {
        say!("    caused by:\n    {}", cause.exception_str());
    }
    let revert =
        Request::revert(BACK_UP, copied).argument("from", from).argument("to", to).failure(VERIFY, failure);
    let is_removed: bool = executor.submit(revert).await?.get()?;
    summary.succeeded += 1;
    let outcome = if is_removed { green("the copy is removed") } else { yellow("there was nothing to undo") };
    step(&format!("{BACK_UP} revert"), &outcome);
    Ok(())
}

fn name_of(file: &File) -> String {
    Path::new(&file.path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A folder that goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Failure> {
        let folder = env::temp_dir().join(format!("worker-fleet-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! The worker's side: what a worker of this fleet can do.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use apportion::{
    serde_json,
    worker::{ArgumentError, Arguments, Context, Undo, Worker, WorkerBuilder, transport::Transport},
};
use indicatif::DecimalBytes;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::support::{say, screen::end_of, seconds, time, time_of_day};

/// Hashes a file.
pub const HASH: &str = "hash";
/// Copies a file, which can be reverted.
pub const BACK_UP: &str = "back_up";
/// Checks that a file has a certain hash.
pub const VERIFY: &str = "verify";

/// What [`HASH`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hashed {
    pub md5: String,
    pub bytes: u64,
    pub worker: String,
}

/// Why a task fails.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("cannot read what the backup gave")]
    Result(#[from] serde_json::Error),
    #[error("cannot read {path:?}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write {path:?}")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{path:?} is damaged")]
    Damaged { path: PathBuf, source: WrongHash },
}

#[derive(Debug, thiserror::Error)]
#[error("MD5 {found}, not {wanted}")]
pub struct WrongHash {
    found: String,
    wanted: String,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Manner {
    pub name: String,
    /// How many bytes a second a request may read.
    pub pace: Option<f64>,
    /// Whether it prints what it does.
    pub talks: bool,
}

/// A worker that can hash files.
pub fn hasher(transport: impl Transport, topic: &str, manner: Manner) -> WorkerBuilder {
    Worker::builder(transport).topic(topic).task(HASH, move |context, arguments| {
        let manner = manner.clone();
        async move { hash(&manner, &context, &arguments).await }
    })
}

/// Adds tasks for the demonstration only: another process at a broker shall not have files written or removed.
pub fn with_backups(worker: WorkerBuilder) -> WorkerBuilder {
    worker.revertible_task(BACK_UP, back_up, remove_backup).task(VERIFY, verify)
}

async fn hash(manner: &Manner, context: &Context, arguments: &Arguments) -> Result<Hashed, TaskError> {
    let path: PathBuf = arguments.get("path")?;
    let start = time::now();
    let outcome = digest(&path, manner.pace, Some(context)).await;
    if manner.talks {
        let (now, took) = (time_of_day(), seconds(start.elapsed()));
        match &outcome {
            Ok((md5, size)) => say!(
                "{now}  {md5}  {}, {} in {took}",
                end_of(&path.to_string_lossy(), 15),
                DecimalBytes(*size)
            ),
            Err(error) => say!("{now}  {error}"),
        }
    }
    let (md5, bytes) = outcome?;
    Ok(Hashed { md5, bytes, worker: manner.name.clone() })
}

/// Copies `from` to `to`, where nothing may be yet, and gives `to`.
async fn back_up(_: Context, arguments: Arguments) -> Result<PathBuf, TaskError> {
    let (from, to): (PathBuf, PathBuf) = (arguments.get("from")?, arguments.get("to")?);
    spawn_blocking(move || copy(from, to)).await.expect("copying does not panic")
}

fn copy(from: PathBuf, to: PathBuf) -> Result<PathBuf, TaskError> {
    let mut source = match fs::File::open(&from) {
        Ok(file) => file,
        Err(source) => return Err(TaskError::Unreadable { path: from, source }),
    };
    // What failed is not reverted, so it has to leave nothing behind by itself.
    let written = fs::File::create_new(&to).and_then(|mut file| {
        io::copy(&mut source, &mut file).map(drop).inspect_err(|_| drop(fs::remove_file(&to)))
    });
    match written {
        Ok(()) => Ok(to),
        Err(source) => Err(TaskError::Unwritable { path: to, source }),
    }
}

/// Removes what [`back_up`] wrote, if it did.
async fn remove_backup(_: Context, _: Arguments, undo: Undo) -> Result<bool, TaskError> {
    let Some(path) = undo.result_as::<PathBuf>()? else { return Ok(false) };
    fs::remove_file(&path).map_err(|source| TaskError::Unwritable { path, source })?;
    Ok(true)
}

async fn verify(_: Context, arguments: Arguments) -> Result<(), TaskError> {
    let (path, wanted): (PathBuf, String) = (arguments.get("path")?, arguments.get("md5")?);
    let (found, _) = digest(&path, None, None).await?;
    if found == wanted {
        return Ok(());
    }
    Err(TaskError::Damaged { path, source: WrongHash { found, wanted } })
}

/// The MD5 of a file and its size. Reports its progress to `context`.
async fn digest(
    path: &Path,
    pace: Option<f64>,
    context: Option<&Context>,
) -> Result<(String, u64), TaskError> {
    let unreadable = |source| TaskError::Unreadable { path: path.to_owned(), source };
    let start = Instant::from_std(time::now());
    let mut hashing = Hashing::begin(path, pace).map_err(unreadable)?;
    let size = hashing.size;
    let mut done = 0;
    loop {
        // Hashing blocks the thread for a while, and the worker has to go on saying that it is alive.
        let step = spawn_blocking(move || (hashing.step(), hashing));
        let (read, back) = step.await.expect("hashing does not panic");
        hashing = back;
        match read.map_err(unreadable)? {
            0 => break,
            read => done += read as u64,
        }
        if let Some(pace) = pace {
            sleep_until(start + Duration::from_secs_f64(done as f64 / pace)).await;
        }
        if let Some(context) = context {
            context.update_progress(done as f64 / size.max(done) as f64).await;
        }
    }
    let md5 = hashing.md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((md5, done))
}

struct Hashing {
    file: fs::File,
    size: u64,
    md5: Md5,
    buffer: Vec<u8>,
}

impl Hashing {
    fn begin(path: &Path, pace: Option<f64>) -> io::Result<Hashing> {
        let file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        // At a low pace, several times a second.
        let step = pace.map_or(1 << 20, |pace| (pace / 8.0) as usize).clamp(1, 1 << 20);
        Ok(Hashing { file, size, md5: Md5::new(), buffer: vec![0; step] })
    }

    /// Hashes some more, and says how much; 0 at the end.
    fn step(&mut self) -> io::Result<usize> {
        let read = self.file.read(&mut self.buffer)?;
        self.md5.update(&self.buffer[..read]);
        Ok(read)
    }
}

/// The MD5 of a file, without any worker.
pub fn digest_here(path: &str) -> io::Result<String> {
    let mut hashing = Hashing::begin(Path::new(path), None)?;
    while hashing.step()? > 0 {}
    Ok(hashing.md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

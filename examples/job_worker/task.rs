//! The work of a job: the MD5 of a file, and records of it in the store.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use apportion::{
    board::{Claim, Job},
    serde_json::{Value, json},
};
use md5::{Digest as _, Md5};
use tokio::{fs::File, io::AsyncReadExt as _, runtime::Handle, time::sleep};

use crate::{
    store::{Record, Refused, Store, What},
    support::{Failure, Gate},
};

/// One job that a worker has claimed.
#[derive(Debug)]
pub struct Task {
    /// The name of the job on the board.
    pub name: String,
    pub file: PathBuf,
    id: String,
    token: u64,
    store: Arc<Store>,
    stage: Stage,
}

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct Stage {
    pub worker: String,
    /// How long a file takes.
    pub pace: Duration,
    /// Two points at which the demonstration can stop a worker: in the middle of a file, and before a result reaches
    /// the store.
    pub halfway: Gate,
    pub to_store: Gate,
}

/// The details of the job for a file, the results of which go to `store`.
pub fn details(file: &Path, store: &Store) -> Value {
    json!({ "file": file, "results": store.path() })
}

/// What a job is called in the store.
pub fn id(job: &Job) -> String {
    job.uuid().map(|uuid| uuid.to_string()).unwrap_or_default()
}

impl Task {
    /// The task of a claimed job.
    pub fn read(claim: &Claim, stage: &Stage) -> Result<Task, Failure> {
        let job: &Job = claim.job();
        let path = |key: &str| {
            let path = job.details()[key].as_str().map(PathBuf::from);
            path.ok_or_else(|| format!("its details have no `{key}`"))
        };
        Ok(Task {
            name: job.path().name().into(),
            file: path("file")?,
            id: id(job),
            token: claim.token().get(),
            store: Store::open(&path("results")?)?,
            stage: stage.clone(),
        })
    }

    /// Does it; returns the size of the file.
    pub async fn run(&self) -> Result<u64, Failure> {
        self.record(What::Taken).await?;
        let (md5, bytes) = self.hash().await?;
        self.record(What::Result { md5, bytes }).await?;
        Ok(bytes)
    }

    async fn hash(&self) -> io::Result<(String, u64)> {
        let mut file = File::open(&self.file).await?;
        let size = file.metadata().await?.len().max(1);
        let mut buffer = vec![0; usize::try_from(size / 8).unwrap_or(usize::MAX).clamp(256, 256 * 1024)];
        let (mut md5, mut bytes) = (Md5::new(), 0);
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                return Ok((hex(md5), bytes));
            }
            md5.update(&buffer[..read]);
            bytes += read as u64;
            if bytes * 2 >= size {
                self.stage.halfway.pass().await;
            }
            sleep(self.stage.pace.mul_f64(read as f64 / size as f64)).await;
        }
    }

    /// Writes a record under the token of the claim, unless the store has one under a later token. Returns how often
    /// the job has failed so far.
    ///
    /// It goes on if the caller no longer waits, as a request that was sent does.
    pub async fn record(&self, what: What) -> Result<usize, Refused> {
        let record =
            Record { job: self.id.clone(), token: self.token, worker: self.stage.worker.clone(), what };
        let (store, line, runtime) = (self.store.clone(), self.stage.to_store.clone(), Handle::current());
        let written = tokio::task::spawn_blocking(move || {
            if matches!(record.what, What::Result { .. }) {
                runtime.block_on(line.pass());
            }
            store.append(record)
        });
        written.await.expect("a write does not panic")
    }
}

/// The MD5 of a file, and its size.
pub fn md5_of(file: &Path) -> io::Result<(String, u64)> {
    let data = fs::read(file)?;
    Ok((hex(Md5::new_with_prefix(&data)), data.len() as u64))
}

fn hex(md5: Md5) -> String {
    md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files to work on: as given, or the sources of the library.
pub fn files(given: Vec<PathBuf>) -> Result<Vec<PathBuf>, Failure> {
    let mut files = given;
    if files.is_empty() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        add_files(&sources, &mut files).map_err(|error| format!("{}: {error}", sources.display()))?;
        files.sort();
    }
    // The workers may have been started in another folder.
    files.iter().map(|file| Ok(std::path::absolute(file)?)).collect()
}

fn add_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

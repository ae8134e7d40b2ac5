//! The store of results: a file to which several processes append. It is an example of a store that compares fencing
//! tokens.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use apportion::serde_json;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its uuid.
    pub job: String,
    /// Of the claim under which it was written.
    pub token: u64,
    pub worker: String,
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of records about a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum What {
    Taken,
    Result {
        md5: String,
        bytes: u64,
    },
    /// It is off the board.
    Consumed,
    Failed {
        error: String,
    },
    Trashed,
    /// Given back by a worker that was stopped.
    Returned,
    /// By the store: a write under a token that was no longer the latest.
    Refused,
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the store knows a later token, {highest:#x}")]
    Stale { highest: u64 },
    #[error("the store: {0}")]
    Io(#[from] io::Error),
}

/// A file of results. It remembers the highest token of each job and refuses lower ones.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    known: Mutex<Known>,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Known {
    bytes: u64,
    highest: HashMap<String, u64>,
    failures: HashMap<String, usize>,
    records: Vec<Record>,
}

impl Store {
    /// The store of this file, which is created if need be. Each process has each file open once.
    pub fn open(path: &Path) -> io::Result<Arc<Store>> {
        static OPEN: Mutex<Vec<Arc<Store>>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.iter().find(|store| store.path == path) {
            return Ok(store.clone());
        }
        OpenOptions::new().append(true).create(true).open(path)?;
        let store = Arc::new(Store { path: path.into(), known: Mutex::default() });
        open.push(store.clone());
        Ok(store)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `record`, unless the token is not the latest of its job. Returns how often the job has failed so far.
    pub fn append(&self, record: Record) -> Result<usize, Refused> {
        let mut known = self.known();
        let mut file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        // Other processes wait; if this one is killed meanwhile, the system unlocks.
        file.lock()?;
        known.catch_up(&mut file)?;
        // Half a line of a process that was killed.
        file.set_len(known.bytes)?;
        let (job, token) = (record.job.clone(), record.token);
        let highest = known.highest.get(&job).copied().unwrap_or(0);
        let is_stale = token < highest;
        let record = if is_stale { Record { what: What::Refused, ..record } } else { record };
        let mut line = serde_json::to_vec(&record).expect("it has nothing that JSON has not");
        line.push(b'\n');
        file.write_all(&line)?;
        known.catch_up(&mut file)?;
        if is_stale {
            return Err(Refused::Stale { highest });
        }
        Ok(known.failures.get(&job).copied().unwrap_or(0))
    }

    /// All that was written so far.
    pub fn records(&self) -> io::Result<Vec<Record>> {
        let mut known = self.known();
        known.catch_up(&mut File::open(&self.path)?)?;
        Ok(known.records.clone())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Reads the whole lines that came since.
    fn catch_up(&mut self, file: &mut File) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.bytes))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let record: Record = serde_json::from_slice(line)?;
            let highest = self.highest.entry(record.job.clone()).or_default();
            *highest = record.token.max(*highest);
            if matches!(record.what, What::Failed { .. }) {
                *self.failures.entry(record.job.clone()).or_default() += 1;
            }
            self.records.push(record);
            self.bytes += line.len() as u64;
        }
        Ok(())
    }
}

//! The jobs that were posted together: their progress, and in the end the check that each was done exactly once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use apportion::board::{BoardError, Job, JobBoard, Priority};
use indicatif::DecimalBytes;
use tokio::time::sleep;

use crate::{
    ATTEMPTS,
    store::{Record, Store, What},
    support::{
        Column, Failure, say,
        screen::{bold, count, green},
        table,
    },
    task::{details, id, md5_of},
};

/// A job for each of some files.
pub struct Batch {
    pub board: JobBoard,
    store: Arc<Store>,
    jobs: Vec<Job>,
    files: HashMap<String, PathBuf>,
}

impl Batch {
    /// No job so far.
    pub fn new(board: JobBoard, store: Arc<Store>) -> Batch {
        Batch { board, store, jobs: Vec::new(), files: HashMap::new() }
    }

    pub async fn post(&mut self, file: &Path, priority: Priority) -> Result<Job, Failure> {
        let job = self.board.post("md5").details(details(file, &self.store)).priority(priority).await?;
        self.files.insert(id(&job), file.into());
        self.jobs.push(job.clone());
        Ok(job)
    }

    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The jobs that are still on the board, and whether they are claimed, by the cache of the board.
    pub async fn left(&self) -> Result<Vec<Job>, BoardError> {
        let jobs = self.board.jobs().await?;
        let is_ours = |job: &Job| self.files.contains_key(&id(job));
        Ok(jobs.into_iter().filter(is_ours).collect())
    }

    /// Waits until all of them are off the board.
    pub async fn finished(&self) -> Result<(), BoardError> {
        let mut events = self.board.events();
        while !self.left().await?.is_empty() {
            if events.next().await.is_none() {
                return Err(BoardError::Closed { board: self.board.path().to_string() });
            }
        }
        Ok(())
    }

    /// How many are off the board.
    pub async fn done(&self) -> Result<usize, BoardError> {
        Ok(self.len() - self.left().await?.len())
    }

    /// Prints what each worker did, and fails unless each job was done exactly once. Those for the files `hopeless`
    /// have to be in the trash instead.
    pub async fn check(&self, hopeless: &[&Path]) -> Result<(), Failure> {
        let records = self.all_records().await?;
        say!("\n{}", bold("SUMMARY"));
        self.print_workers(&records);

        self.board.jobs().ensure_fresh().await?;
        let mut wrong = Vec::new();
        let left = self.left().await?;
        if !left.is_empty() {
            wrong.push(format!("{} still on the board", count(left.len(), "job")));
        }
        let mut of: HashMap<String, Vec<&Record>> = HashMap::new();
        for record in &records {
            of.entry(record.job.clone()).or_default().push(record);
        }
        let (mut done, mut given_up) = (0, Vec::new());
        for (id, file) in &self.files {
            let story = Story::of(of.get(id).map_or(&[], Vec::as_slice));
            match story.verdict(file) {
                Ok(true) => done += 1,
                Ok(false) => given_up.push(file),
                Err(reason) => wrong.push(format!("{}: {reason}", file.display())),
            }
        }
        let refused = records.iter().filter(|it| it.what == What::Refused).count();
        say!("\n  {} refused by the store: the token was not the latest.", count(refused, "late write"));
        if !given_up.is_empty() {
            say!("  {} in the trash, after {ATTEMPTS} failures.", count(given_up.len(), "job"));
        }
        for file in given_up.iter().filter(|file| !hopeless.contains(&file.as_path())) {
            wrong.push(format!("{} was given up", file.display()));
        }
        if given_up.len() < hopeless.len() {
            wrong.push("the job that always fails was not given up".into());
        }
        if !wrong.is_empty() {
            return Err(format!("not every job was done exactly once: {}", wrong.join("; ")).into());
        }
        let all = self.len() - hopeless.len();
        say!("  {}:", green(format!("{done} of {all} jobs done exactly once")));
        say!("  each has one result, under its latest token, and it is right.");
        Ok(())
    }

    /// The records of these jobs. A worker writes them after the job is off the board, so they may come a moment later.
    async fn all_records(&self) -> io::Result<Vec<Record>> {
        let mut attempts = 0;
        loop {
            let mut records = self.store.records()?;
            records.retain(|it| self.files.contains_key(&it.job));
            let ended = records.iter().filter(|it| matches!(it.what, What::Consumed | What::Trashed)).count();
            attempts += 1;
            // There are fewer records if a worker was killed just then.
            if ended >= self.len() || attempts > 20 {
                return Ok(records);
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    fn print_workers(&self, records: &[Record]) {
        let mut workers: BTreeMap<&str, Tally> = BTreeMap::new();
        for record in records {
            let tally = workers.entry(&record.worker).or_default();
            let claim = (record.job.clone(), record.token);
            match &record.what {
                What::Taken => {
                    tally.taken.insert(claim);
                }
                What::Result { bytes, .. } => tally.bytes += bytes,
                What::Refused => {}
                What::Consumed | What::Failed { .. } | What::Trashed | What::Returned => {
                    tally.jobs += usize::from(record.what == What::Consumed);
                    tally.failures += usize::from(matches!(record.what, What::Failed { .. }));
                    tally.ended.insert(claim);
                }
            }
        }
        let row = |(worker, tally): (&&str, &Tally)| {
            let lost = tally.taken.difference(&tally.ended).count();
            vec![
                (*worker).to_owned(),
                tally.jobs.to_string(),
                DecimalBytes(tally.bytes).to_string(),
                tally.failures.to_string(),
                lost.to_string(),
            ]
        };
        let columns = ["jobs", "bytes", "failures", "claims lost"].map(Column::Right);
        table(&[&[Column::Left("worker")], &columns[..]].concat(), workers.iter().map(row));
    }
}

/// What one worker did.
#[derive(Default)]
struct Tally {
    jobs: usize,
    bytes: u64,
    failures: usize,
    taken: HashSet<(String, u64)>,
    ended: HashSet<(String, u64)>,
}

/// The records of one job.
struct Story<'a> {
    /// By token, in order.
    results: Vec<(u64, &'a str)>,
    tokens: BTreeSet<u64>,
    failures: usize,
    consumed: usize,
    trashed: usize,
}

impl<'a> Story<'a> {
    fn of(records: &[&'a Record]) -> Story<'a> {
        let mut story =
            Story { results: Vec::new(), tokens: BTreeSet::new(), failures: 0, consumed: 0, trashed: 0 };
        for record in records {
            match &record.what {
                What::Refused => continue,
                What::Result { md5, .. } => story.results.push((record.token, md5)),
                What::Failed { .. } => story.failures += 1,
                What::Consumed => story.consumed += 1,
                What::Trashed => story.trashed += 1,
                What::Taken | What::Returned => {}
            }
            story.tokens.insert(record.token);
        }
        story
    }

    /// Whether it was done; `false` if it was given up. An error if neither, or more than once.
    fn verdict(&self, file: &Path) -> Result<bool, String> {
        if self.trashed == 1 && self.failures >= ATTEMPTS && self.consumed == 0 && self.results.is_empty() {
            return Ok(false);
        }
        let Some(&(token, md5)) = self.results.last() else { return Err("no result".into()) };
        // A worker may die after its result and before its job is off the board: then another one does it again,
        // under a later token. Its result is the one that counts.
        if !self.results.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err("two results under one token".into());
        }
        if self.tokens.last() != Some(&token) {
            return Err("the result is not of the latest claim".into());
        }
        if self.consumed > 1 || self.trashed > 0 {
            return Err(format!("taken off the board {} times", self.consumed + self.trashed));
        }
        match md5_of(file) {
            Ok((right, _)) if right == md5 => Ok(true),
            Ok((right, _)) => Err(format!("its MD5 is {right}, not {md5}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

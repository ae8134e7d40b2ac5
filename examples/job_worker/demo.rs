//! Three workers in one process, on the in-memory backend: one crashes in the middle of a job, one loses contact.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    future::pending,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use apportion::{
    Config, PartitionCoordinator,
    backend::Memory,
    board::{BoardError, BoardEvent, BoardEvents, Job, Priority},
    uuid::Uuid,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Event,
    batch::Batch,
    store::{Record, Store, What},
    task::{Stage, Task, id},
    work,
};
use crate::support::{
    Failure, Gate, Progress, say,
    screen::{bold, count, dim, green, reason, red, yellow},
    seconds, time,
};

const TIMEOUT: Duration = Duration::from_secs(3);
const BOARD: &str = "/job-worker/jobs";
const NAMES: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
/// How long one worker alone would take for all files, unless it is said how long it takes for one.
const WORK: Duration = Duration::from_secs(16);

/// Runs the demonstration; fails if a job was not done exactly once.
pub async fn run(files: Vec<PathBuf>, pace: Option<Duration>) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("job_worker-{}", Uuid::new_v4()));
    fs::create_dir(&folder)?;
    let outcome = in_folder(&folder, &files, pace).await;
    fs::remove_dir_all(&folder)?;
    outcome
}

async fn in_folder(folder: &Path, files: &[PathBuf], pace: Option<Duration>) -> Result<(), Failure> {
    let each = WORK / u32::try_from(files.len()).unwrap_or(u32::MAX);
    let pace = pace.unwrap_or(each.min(Duration::from_millis(1500)));
    say!(
        "The MD5 of {}, one job each, done by three workers in one process.\n\
         Each takes {:.2} s for a file; a session that is silent expires after {}.",
        bold(count(files.len(), "file")),
        pace.as_secs_f64(),
        seconds(TIMEOUT),
    );
    say!("");
    let ensemble = Memory::new();
    let poster = connect(&ensemble, "poster").await?;
    let store = Store::open(&folder.join("results.jsonl"))?;
    let mut batch = Batch::new(poster.job_board(BOARD).await?, store.clone());
    let (late, never) = (folder.join("comes-late"), folder.join("never-comes"));
    let late_job = batch.post(&late, Priority::High).await?;
    batch.post(&never, Priority::High).await?;
    for file in files {
        batch.post(file, Priority::Normal).await?;
    }

    let mut demo = Demo {
        ensemble,
        store,
        batch,
        start: time::now(),
        board: Desk::default(),
        workers: BTreeMap::new(),
        pace,
    };
    demo.say(&format!(
        "{} posted; two, with high priority, are about missing files",
        count(demo.batch.len(), "job")
    ));
    for name in NAMES {
        demo.start(name).await?;
    }
    {
        let demo = &demo;
        let all = async {
            // The rest of the script is left out if all jobs are done before.
            tokio::select! {
                all = demo.batch.finished() => {
                    demo.say("(all jobs are done before the end of the script: use more files to see the rest)");
                    all.map_err(Failure::from)
                }
                ended = demo.play(&late, &late_job) => match ended {
                    Ok(()) => demo.batch.finished().await.map_err(Failure::from),
                    Err(failure) => Err(failure),
                },
            }
        };
        tokio::select! {
            all = all => all?,
            failure = demo.show_progress() => return Err(failure.into()),
        }
    }
    demo.say(&format!("{} of {} are done", demo.batch.done().await?, demo.batch.len()));
    demo.batch.check(&[&never]).await?;
    for worker in demo.workers.values() {
        worker.task.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
    poster.shutdown().await?;
    Ok(())
}

async fn connect(ensemble: &Memory, name: &str) -> Result<PartitionCoordinator, Failure> {
    let config = Config::for_backend(ensemble.clone())
        .member_id(name)
        .session_timeout(TIMEOUT)
        .server_tick(Duration::from_millis(300));
    Ok(PartitionCoordinator::connect(config).await?)
}

struct Demo {
    ensemble: Memory,
    store: Arc<Store>,
    batch: Batch,
    start: Instant,
    board: Desk,
    workers: BTreeMap<&'static str, Worker>,
    pace: Duration,
}

struct Worker {
    coordinator: PartitionCoordinator,
    stage: Stage,
    /// One task; dropping it ends the worker at any point.
    task: Mutex<JoinSet<()>>,
}

/// The present job of each worker, for the lines of progress.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<HashMap<String, String>>>);

impl Desk {
    fn set(&self, worker: &str, file: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(worker.into(), file.into());
    }

    fn get(&self, worker: &str) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(worker).cloned().unwrap_or_default()
    }
}

impl Demo {
    fn say(&self, text: &str) {
        say(self.start, text);
    }

    async fn start(&mut self, name: &'static str) -> Result<(), Failure> {
        let coordinator = connect(&self.ensemble, name).await?;
        let board = coordinator.job_board(BOARD).await?;
        let stage = Stage {
            worker: name.into(),
            pace: self.pace,
            halfway: Gate::default(),
            to_store: Gate::default(),
        };
        let (on, desk, start) = (stage.clone(), self.board.clone(), self.start);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let report = |task: &Task, event: &Event| {
                let file = file_name(&task.file);
                desk.set(name, if matches!(event, Event::Taken) { &file } else { "" });
                match event {
                    Event::Taken | Event::Done(_) => {}
                    Event::Failed(error) => {
                        say(
                            start,
                            &yellow(format!("{name} fails with {file}: {}; later again", reason(error))),
                        );
                    }
                    Event::Trashed(error) => {
                        say(start, &red(format!("{name} gives {file} up, to the trash: {}", reason(error))));
                    }
                    Event::Lost => {
                        desk.set(name, "no contact");
                        say(
                            start,
                            &yellow(format!("{name} has lost its claim of {} and stops the work", task.name)),
                        );
                    }
                }
            };
            if let Err(error) = work(&board, &on, pending(), report).await {
                say(start, &red(format!("{name} ends: {error}")));
            }
        });
        self.workers.insert(name, Worker { coordinator, stage, task: Mutex::new(task) });
        Ok(())
    }

    /// Shows the progress of the work, and the present job of each worker.
    async fn show_progress(&self) -> BoardError {
        let mut progress = Progress::of(self.batch.len(), Duration::from_secs(1));
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let done = match self.batch.done().await {
                Ok(done) => done,
                Err(error) => return error,
            };
            let files = NAMES.map(|name| format!("{:<13.13}", self.board.get(name)));
            if let Some(line) = progress.show(done, &files.join(" ")) {
                self.say(&dim(line));
            }
        }
    }

    /// Plays the script: lets a worker crash, then lets another lose its connection.
    async fn play(&self, late: &Path, late_job: &Job) -> Result<(), Failure> {
        let is_failure = |it: &Record| matches!(it.what, What::Failed { .. });
        self.recorded(late_job, is_failure).await?;
        sleep(Duration::from_millis(300)).await;
        fs::write(late, "here it is")?;
        self.say(&format!("the file {} is there now", file_name(late)));
        self.until_done(self.batch.len() / 8).await?;
        self.crash("worker-2").await?;
        self.lose_contact("worker-3").await
    }

    /// The process is killed in the middle of a job.
    async fn crash(&self, name: &str) -> Result<(), Failure> {
        let worker = &self.workers[name];
        worker.stage.halfway.close();
        worker.stage.halfway.reached().await;
        let (job, before) = self.job_of(name).await?;
        let mut events = self.batch.board.events();
        self.cut(worker)?;
        worker.task.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.board.set(name, "crashed");
        let crashed = time::now();
        self.title("CRASH", &format!("{name} is killed in the middle of a job:"), &job, before);
        self.done_by_another(&mut events, &job, name, crashed).await
    }

    /// The process goes on, but has no connection for longer than its session lasts.
    async fn lose_contact(&self, name: &str) -> Result<(), Failure> {
        let worker = &self.workers[name];
        worker.stage.to_store.close();
        worker.stage.to_store.reached().await;
        let (job, before) = self.job_of(name).await?;
        let mut events = self.batch.board.events();
        self.ensemble.refuse_connections(true);
        self.cut(worker)?;
        let cut = time::now();
        self.title("NETWORK", &format!("{name} loses contact when it sends the result of"), &job, before);
        self.done_by_another(&mut events, &job, name, cut).await?;
        self.ensemble.refuse_connections(false);
        worker.stage.to_store.open();
        self.recorded(&job, |it| it.what == What::Refused && it.worker == name).await?;
        self.say(&green(format!("the late result of {name} arrives; the store refuses {before:#x}")));
        Ok(())
    }

    /// From here on nothing of this session reaches the ensemble.
    fn cut(&self, worker: &Worker) -> Result<(), Failure> {
        let session = worker.coordinator.session_id().ok_or("a worker without a session")?;
        self.ensemble.suspend(session);
        Ok(())
    }

    /// Prints how a job comes back to the board, and that another worker than `name` does it.
    async fn done_by_another(
        &self,
        events: &mut BoardEvents,
        job: &Job,
        name: &str,
        since: Instant,
    ) -> Result<(), Failure> {
        while let Some(event) = events.next().await {
            if event.job().path() != job.path() {
                continue;
            }
            match event {
                BoardEvent::Released(_) => {
                    self.say(&green(format!(
                        "{} is back on the board, {} later",
                        job.path().name(),
                        seconds(since.elapsed())
                    )));
                }
                BoardEvent::Removed(_) => {
                    self.recorded(job, |it| it.what == What::Consumed).await?;
                    let records = self.store.records()?;
                    let done = records.iter().find(|it| it.job == id(job) && it.what == What::Consumed);
                    let done = done.ok_or("it was just seen")?;
                    if done.worker == name {
                        return Err(format!("{name} did {job}, which it could not").into());
                    }
                    self.say(&green(format!("{} has done it, under token {:#x}", done.worker, done.token)));
                    return Ok(());
                }
                _ => {}
            }
        }
        Err("the board was closed".into())
    }

    /// The job that a worker has, and the token of its claim.
    async fn job_of(&self, name: &str) -> Result<(Job, u64), Failure> {
        let records = self.store.records()?;
        let taken = records.iter().rev().find(|it| it.worker == name && it.what == What::Taken);
        let taken = taken.ok_or("it has taken nothing")?;
        let jobs = self.batch.left().await?;
        let job = jobs.into_iter().find(|job| id(job) == taken.job);
        Ok((job.ok_or("its job is off the board")?, taken.token))
    }

    /// Waits until the store has such a record of a job.
    async fn recorded(&self, job: &Job, wanted: impl Fn(&Record) -> bool) -> Result<(), Failure> {
        while !self.store.records()?.iter().any(|it| it.job == id(job) && wanted(it)) {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn until_done(&self, number: usize) -> Result<(), Failure> {
        let mut events = self.batch.board.events();
        while self.batch.done().await? < number {
            events.next().await.ok_or("the board was closed")?;
        }
        Ok(())
    }

    fn title(&self, word: &str, text: &str, job: &Job, token: u64) {
        let file = job.details()["file"].as_str().map(|file| file_name(Path::new(file))).unwrap_or_default();
        self.say(&bold(format!("{word}: {text}")));
        self.say(&format!("{} ({file}), claimed under token {token:#x}", job.path().name()));
    }
}

fn say(start: Instant, text: &str) {
    say!("{:>5.2} s  {text}", start.elapsed().as_secs_f64());
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

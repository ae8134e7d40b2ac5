//! Workers of TaskFlow and of this crate on one board.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use apportion::{
    PartitionCoordinator,
    backend::{Connector as _, Error},
    board::{BoardError, Job, JobBoard, JobState, Priority, Trashed},
};
use serde_json::{Value, json};

use crate::{
    board_worker,
    member::coordinator,
    stalls::turn,
    support::{
        SECOND, Server,
        driven::Driven,
        eventually, path,
        python::{Versions, python_of},
        shared_server, soon, until, zookeeper,
    },
};

const JOBS: u64 = 300;
const PRIORITIES: [(&str, Priority); 5] = [
    ("VERY_HIGH", Priority::VeryHigh),
    ("HIGH", Priority::High),
    ("NORMAL", Priority::Normal),
    ("LOW", Priority::Low),
    ("VERY_LOW", Priority::VeryLow),
];

fn priority(number: u64) -> (&'static str, Priority) {
    PRIORITIES[usize::try_from(number % 7 % 5).expect("it is small")]
}

/// What becomes of a job.
fn fate(number: u64) -> &'static str {
    match number % 10 {
        3 | 8 => "abandon",
        5 => "trash",
        _ => "consume",
    }
}

fn taskflow(server: &Server, board: &str, who: &str, versions: Versions, credentials: &[&str]) -> Driven {
    let hosts = server.connect_string();
    python_of(versions, "interop/job_board.py", &[&[&*hosts, board, who], credentials].concat())
}

/// Waits until it is ready. Returns the versions of the Python packages that it runs.
async fn ready(worker: &mut Driven) -> Value {
    let mut line = worker.says().await;
    assert_eq!(line["ready"], true, "{line}");
    line["versions"].take()
}

/// A coordinator of the test itself, and its board.
async fn our_board(
    server: &Server,
    board: &str,
    who: &str,
    credentials: &str,
) -> (PartitionCoordinator, JobBoard) {
    let coordinator = coordinator(server, credentials, who).await;
    let board = coordinator.job_board(board).await.unwrap();
    (coordinator, board)
}

/// Who did what with each job.
#[derive(Default)]
struct Ledger {
    ended: BTreeMap<u64, Vec<(String, &'static str)>>,
    abandoned: BTreeSet<u64>,
    lost: Vec<Value>,
}

impl Ledger {
    fn note(&mut self, who: &str, line: Value) {
        let Some(number) = line["number"].as_u64() else { return };
        match line["did"].as_str().unwrap() {
            "consumed" => self.ended.entry(number).or_default().push((who.to_owned(), "consume")),
            "trashed" => self.ended.entry(number).or_default().push((who.to_owned(), "trash")),
            "abandoned" => drop(self.abandoned.insert(number)),
            _ => self.lost.push(line),
        }
    }
}

/// The workers of one board.
#[derive(Default)]
struct Crew {
    workers: Vec<(&'static str, Option<Driven>)>,
    ledger: Ledger,
}

impl Crew {
    async fn add(&mut self, who: &'static str, mut worker: Driven) -> Value {
        let versions = ready(&mut worker).await;
        self.workers.push((who, Some(worker)));
        versions
    }

    /// A worker of TaskFlow posts jobs.
    async fn post(&mut self, worker: usize, jobs: Range<u64>) {
        let count = jobs.end - jobs.start;
        let jobs: Vec<_> = jobs.map(|number| json!([number, fate(number), priority(number).0])).collect();
        let worker = self.workers[worker].1.as_mut().expect("it runs");
        assert_eq!(worker.ask(json!({"do": "post", "jobs": jobs})).await, json!({"posted": count}));
    }

    async fn work(&mut self) {
        for (_, worker) in &mut self.workers {
            worker.as_mut().expect("it runs").tell(json!({"do": "work"})).await;
        }
    }

    /// Kills a worker while it has a job. Returns which.
    async fn kill(&mut self, worker: usize) -> u64 {
        let (who, worker) = &mut self.workers[worker];
        let mut process = worker.take().expect("it runs");
        process.tell(json!({"do": "hold"})).await;
        let held = loop {
            let line = process.says().await;
            if let Some(number) = line["holds"].as_u64() {
                break number;
            }
            self.ledger.note(who, line);
        };
        for line in process.kill().await {
            self.ledger.note(who, line);
        }
        held
    }

    /// Waits until so many jobs were ended, and ends the workers.
    async fn finish(&mut self, jobs: u64) {
        let ended = usize::try_from(jobs).expect("it is small");
        until("all jobs are ended", 90 * SECOND, || {
            for (who, worker) in &mut self.workers {
                while let Some(line) = worker.as_mut().and_then(Driven::has_said) {
                    self.ledger.note(who, line);
                }
            }
            self.ledger.ended.len() == ended
        })
        .await;
        for (who, worker) in &mut self.workers {
            let Some(worker) = worker else { continue };
            worker.tell(json!({"do": "stop"})).await;
            loop {
                let line = worker.says().await;
                if line["stopped"] == true {
                    break;
                }
                self.ledger.note(who, line);
            }
        }
    }

    /// Checks that each job was ended once, as its details say, and that nothing is left of it.
    async fn check(&self, jobs: u64, board: &JobBoard) {
        let Ledger { ended, abandoned, lost } = &self.ledger;
        for (number, ends) in ended {
            assert_eq!(ends.len(), 1, "job {number}: {ends:?}");
            assert_eq!(ends[0].1 == "trash", fate(*number) == "trash", "job {number}: {ends:?}");
        }
        assert_eq!(*lost, Vec::<Value>::new());
        let all = |is: &str| (0..jobs).filter(|number| fate(*number) == is).collect::<BTreeSet<_>>();
        assert_eq!(*abandoned, all("abandon"), "each of them by at least one worker");
        assert_eq!(board.len().await.unwrap(), 0);
        let trashed = board.trashed().await.unwrap();
        let details =
            |trashed: &Trashed| trashed.posting.as_ref().unwrap().details()["number"].as_u64().unwrap();
        assert_eq!(trashed.iter().map(details).collect::<BTreeSet<_>>(), all("trash"));
        for side in ["python", "rust"] {
            let by = ended.values().filter(|ends| ends[0].0.starts_with(side)).count();
            println!("{}: {by} of {jobs} jobs were ended by {side}", board.path());
            assert!(by > 0, "{side} had none");
        }
    }
}

/// This crate posts jobs.
async fn post(board: &JobBoard, jobs: Range<u64>) {
    for number in jobs {
        let details = json!({"number": number, "fate": fate(number)});
        let post = board.post(format!("job-{number}")).details(details).priority(priority(number).1);
        post.await.unwrap();
    }
}

/// All of them authenticate: each znode belongs to the user of the fleet, whoever has created it.
#[tokio::test]
async fn workers_of_taskflow_and_of_this_crate_end_each_job_of_one_board_once() {
    let _turn = turn().await;
    let (server, board) = (shared_server().await, "/mixed/jobs");
    let mut crew = Crew::default();
    for who in ["python-a", "python-b", "python-c"] {
        crew.add(who, taskflow(server, board, who, Versions::Current, &["fleet", "secret"])).await;
    }
    for who in ["rust-a", "rust-b", "rust-c"] {
        crew.add(who, board_worker::start(&server.connect_string(), board, who, "fleet:secret@")).await;
    }
    let (coordinator, ours) = our_board(server, board, "test", "fleet:secret@").await;
    crew.post(0, 0..JOBS / 2).await;
    post(&ours, JOBS / 2..JOBS).await;
    outsiders_are_refused(server, board).await;
    crew.work().await;
    let held = [(crew.kill(2).await, "python-c"), (crew.kill(5).await, "rust-c")];
    crew.finish(JOBS).await;
    crew.check(JOBS, &ours).await;
    for (number, who) in held {
        assert_ne!(crew.ledger.ended[&number][0].0, who, "it held job {number} and was killed");
    }
    coordinator.shutdown().await.unwrap();
}

#[tokio::test]
async fn workers_of_old_and_new_taskflow_and_of_this_crate_end_each_job_of_one_board_once() {
    let (server, board) = (shared_server().await, "/old/jobs");
    let mut crew = Crew::default();
    let old = crew.add("python-old", taskflow(server, board, "python-old", Versions::Old, &[])).await;
    let new = crew.add("python-new", taskflow(server, board, "python-new", Versions::Current, &[])).await;
    println!("{board}: {old}, {new}");
    assert_eq!(old["taskflow"], "1.31.0");
    assert_ne!(new["taskflow"], "1.31.0");
    crew.add("rust", board_worker::start(&server.connect_string(), board, "rust", "")).await;
    let (coordinator, ours) = our_board(server, board, "test", "").await;
    crew.post(0, 0..20).await;
    crew.post(1, 20..40).await;
    post(&ours, 40..60).await;
    crew.work().await;
    crew.finish(60).await;
    crew.check(60, &ours).await;
    let by_old = crew.ledger.ended.values().filter(|ends| ends[0].0 == "python-old").count();
    assert!(by_old > 0);
    coordinator.shutdown().await.unwrap();
}

/// Each posting is out of reach for a process without the credentials, whoever has created it.
async fn outsiders_are_refused(server: &Server, board: &str) {
    let outsider = zookeeper(&server.connect_string()).open(10 * SECOND).await.unwrap();
    for sequence in [0, JOBS / 2] {
        let job = path(&format!("{board}/job{sequence:010}"));
        assert!(matches!(outsider.get(&job).await, Err(Error::NotPermitted)), "{job}");
    }
    assert!(matches!(outsider.children(&path(board)).await, Err(Error::NotPermitted)));
    let coordinator = coordinator(server, "", "outsider").await;
    let refused = coordinator.job_board(board).await;
    assert!(matches!(&refused, Err(BoardError::Service { .. })), "{refused:?}");
    coordinator.shutdown().await.unwrap();
}

/// TaskFlow compares only the name of the owner with its own.
#[tokio::test]
async fn a_job_that_two_workers_of_one_name_claim_is_ended_once_and_the_other_one_is_told() {
    let server = shared_server().await;
    let (coordinator, ours) = our_board(server, "/equal/jobs", "same", "").await;
    let mut theirs = taskflow(server, "/equal/jobs", "same", Versions::Current, &[]);
    ready(&mut theirs).await;
    for number in 0..2 {
        ours.post("job").details(json!({"number": number, "fate": "consume"})).await.unwrap();
    }
    let claim = soon(ours.claim_next()).await.unwrap();
    assert_eq!(claim.job().details()["number"], 0);
    assert_eq!(theirs.ask(json!({"do": "find", "number": 0})).await, json!({"owner": "same"}));
    // It takes the claim for its own.
    assert_eq!(theirs.ask(json!({"do": "end", "number": 0})).await, json!({"ended": null}));
    let lost = claim.consume().await;
    assert!(matches!(&lost, Err(error) if error.may_be_lost()), "{lost:?}");

    // Not so the other way round.
    assert_eq!(theirs.ask(json!({"do": "claim", "number": 1})).await, json!({"claimed": 1}));
    let job = eventually("the claim is seen", 10 * SECOND, || async {
        let jobs = ours.jobs().ensure_fresh().await.unwrap();
        jobs.into_iter().find(Job::is_claimed)
    })
    .await;
    assert_eq!(ours.state(&job).await.unwrap(), JobState::Claimed);
    let refused = ours.claim(&job).await;
    assert!(matches!(refused, Err(BoardError::Unclaimable { .. })), "{refused:?}");
    assert_eq!(theirs.ask(json!({"do": "end", "number": 1})).await, json!({"ended": null}));
    soon(job.wait_for_end()).await.unwrap();
    coordinator.shutdown().await.unwrap();
}

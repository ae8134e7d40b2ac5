//! Workers of TaskFlow and of this crate on one board.

use std::collections::{BTreeMap, BTreeSet};

use apportion::{
    Config, PartitionCoordinator,
    backend::{Connector as _, Error},
    board::{BoardError, JobBoard, JobState, Priority},
};
use serde_json::{Value, json};

use crate::{
    board_worker,
    member::rust_url,
    support::{
        SECOND, Server, driven::Driven, eventually, path, python::python, shared_server, soon, zookeeper,
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

/// What becomes of a job.
fn fate(number: u64) -> &'static str {
    match number % 10 {
        3 | 8 => "abandon",
        5 => "trash",
        _ => "consume",
    }
}

fn taskflow(server: &Server, board: &str, who: &str, credentials: Option<(&str, &str)>) -> Driven {
    let hosts = server.connect_string();
    let mut arguments = vec![&*hosts, board, who];
    arguments.extend(credentials.into_iter().flat_map(|(user, password)| [user, password]));
    python("interop/job_board.py", &arguments)
}

async fn ready(worker: &mut Driven) {
    assert_eq!(worker.says().await, json!({"ready": true}));
}

/// A coordinator of the test itself, and its board.
async fn our_board(
    server: &Server,
    board: &str,
    who: &str,
    credentials: &str,
) -> (PartitionCoordinator, JobBoard) {
    let url = rust_url(&format!("{credentials}{}", server.connect_string()));
    let coordinator =
        PartitionCoordinator::connect(Config::from_url(&url).unwrap().member_id(who)).await.unwrap();
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

/// All of them authenticate: each znode belongs to the user of the fleet, whoever has created it.
#[tokio::test]
async fn workers_of_taskflow_and_of_this_crate_end_each_job_of_one_board_once() {
    let server = shared_server().await;
    let board = "/mixed/jobs";
    let mut workers = Vec::new();
    for who in ["python-a", "python-b", "python-c"] {
        workers.push((who, Some(taskflow(server, board, who, Some(("fleet", "secret"))))));
    }
    for who in ["rust-a", "rust-b", "rust-c"] {
        let process = board_worker::start(&server.connect_string(), board, who, "fleet:secret");
        workers.push((who, Some(process)));
    }
    for (_, worker) in &mut workers {
        ready(worker.as_mut().unwrap()).await;
    }
    let (coordinator, ours) = our_board(server, board, "test", "fleet:secret@").await;
    let posting = |number: u64| (number, fate(number), PRIORITIES[(number % 7 % 5) as usize]);
    let theirs: Vec<_> = (0..JOBS / 2).map(posting).collect();
    let theirs: Vec<_> =
        theirs.iter().map(|(number, fate, (priority, _))| json!([number, fate, priority])).collect();
    let posted = workers[0].1.as_mut().unwrap().ask(json!({"do": "post", "jobs": theirs})).await;
    assert_eq!(posted, json!({"posted": JOBS / 2}));
    for (number, fate, (_, priority)) in (JOBS / 2..JOBS).map(posting) {
        let details = json!({"number": number, "fate": fate});
        ours.post(format!("job-{number}")).details(details).priority(priority).await.unwrap();
    }
    assert_eq!(ours.len().await.unwrap(), usize::try_from(JOBS).unwrap());
    outsiders_are_refused(server, board).await;

    for (_, worker) in &mut workers {
        worker.as_mut().unwrap().tell(json!({"do": "work"})).await;
    }
    let mut ledger = Ledger::default();
    let mut held = Vec::new();
    for victim in [2, 5] {
        let (who, worker) = &mut workers[victim];
        let mut process = worker.take().unwrap();
        process.tell(json!({"do": "hold"})).await;
        loop {
            let line = process.says().await;
            if let Some(number) = line["holds"].as_u64() {
                held.push((number, *who));
                break;
            }
            ledger.note(who, line);
        }
        for line in process.kill().await {
            ledger.note(who, line);
        }
    }
    let begin = std::time::Duration::from_nanos(crate::evaluator::now());
    while ledger.ended.len() < JOBS as usize {
        for (who, worker) in &mut workers {
            while let Some(line) = worker.as_mut().and_then(Driven::has_said) {
                ledger.note(who, line);
            }
        }
        let took = std::time::Duration::from_nanos(crate::evaluator::now()) - begin;
        assert!(took < 90 * SECOND, "only {} jobs were ended", ledger.ended.len());
        tokio::time::sleep(SECOND / 50).await;
    }
    for (who, worker) in &mut workers {
        let Some(worker) = worker else { continue };
        worker.tell(json!({"do": "stop"})).await;
        loop {
            let line = worker.says().await;
            if line["stopped"] == true {
                break;
            }
            ledger.note(who, line);
        }
    }

    for (number, ends) in &ledger.ended {
        assert_eq!(ends.len(), 1, "job {number}: {ends:?}");
        assert_eq!(ends[0].1 == "trash", fate(*number) == "trash", "job {number}: {ends:?}");
    }
    for (number, who) in &held {
        assert_ne!(ledger.ended[number][0].0, *who, "{who} held {number} and was killed");
    }
    assert_eq!(ledger.lost, Vec::<Value>::new());
    let all = |fate_is: &str| (0..JOBS).filter(|number| fate(*number) == fate_is).collect::<BTreeSet<_>>();
    let untried = all("abandon").difference(&ledger.abandoned).copied().collect::<Vec<_>>();
    assert!(untried.iter().all(|number| held.iter().any(|(it, _)| it == number)), "{untried:?}");
    assert_eq!(ours.len().await.unwrap(), 0);
    let trashed = ours.trashed().await.unwrap();
    let number = |trashed: &apportion::board::Trashed| {
        trashed.posting.as_ref().unwrap().details()["number"].as_u64().unwrap()
    };
    assert_eq!(trashed.iter().map(number).collect::<BTreeSet<_>>(), all("trash"));
    let by = |side: &str| ledger.ended.values().filter(|ends| ends[0].0.starts_with(side)).count();
    println!("{JOBS} jobs: {} ended by TaskFlow, {} by this crate", by("python"), by("rust"));
    assert!(by("python") > 0 && by("rust") > 0);
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
    let url = rust_url(&server.connect_string());
    let coordinator = PartitionCoordinator::connect(Config::from_url(&url).unwrap()).await.unwrap();
    let refused = coordinator.job_board(board).await;
    assert!(matches!(&refused, Err(BoardError::Service { .. })), "{refused:?}");
    coordinator.shutdown().await.unwrap();
}

/// TaskFlow compares only the name of the owner with its own.
#[tokio::test]
async fn a_job_that_two_workers_of_one_name_claim_is_ended_once_and_the_other_one_is_told() {
    let server = shared_server().await;
    let (coordinator, ours) = our_board(server, "/equal/jobs", "same", "").await;
    let mut theirs = taskflow(server, "/equal/jobs", "same", None);
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
        jobs.into_iter().find(|job| job.is_claimed())
    })
    .await;
    assert_eq!(ours.state(&job).await.unwrap(), JobState::Claimed);
    let refused = ours.claim(&job).await;
    assert!(matches!(refused, Err(BoardError::Unclaimable { .. })), "{refused:?}");
    assert_eq!(theirs.ask(json!({"do": "end", "number": 1})).await, json!({"ended": null}));
    soon(job.wait_for_end()).await.unwrap();
    coordinator.shutdown().await.unwrap();
}

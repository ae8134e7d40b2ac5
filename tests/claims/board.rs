//! The job board by its public interface, in memory and on a real server.

mod bad_input;
mod broken_locks;
mod choosing;
mod entities;
mod every_fault;
mod failures;
mod golden;
mod jobs;
mod late_replies;
mod lost_replies;
mod lost_sessions;
mod permissions;
mod races;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::{
    PartitionCoordinator,
    backend::{CreateMode, Op, Session, path::ZnodePath},
    board::{BoardError, Claim, Job, JobBoard},
};

use crate::{
    setup::AtOnce as _,
    support::{
        SECOND, eventually,
        fate::Fates,
        fleet::{Agent, Store},
        until,
    },
};

/// Longer than any expected event takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The path of the board of a test. Its last name must occur once in it, so no test has that name.
fn place(store: &Store) -> String {
    format!("/board-{}/jb", store.namespace)
}

async fn board(store: &Store, agent: &Agent) -> JobBoard {
    agent.coordinator.job_board(place(store)).at_once().await.unwrap()
}

/// An agent and its board.
async fn worker(store: &Store, id: &str) -> (Agent, JobBoard) {
    let agent = store.agent(id).await;
    let board = board(store, &agent).await;
    (agent, board)
}

/// A coordinator and its board, and what decides the fate of its requests.
async fn fated(store: &Store) -> (PartitionCoordinator, JobBoard, Arc<Fates>) {
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(store)).at_once().await.unwrap();
    (coordinator, board, fates)
}

/// The names of the jobs, in order, as the store has them.
async fn names(board: &JobBoard) -> Vec<String> {
    let jobs = board.jobs().ensure_fresh().await.unwrap();
    jobs.iter().map(|job| job.name().into_owned()).collect()
}

async fn unclaimed(board: &JobBoard) -> Vec<String> {
    let jobs = board.jobs().only_unclaimed().ensure_fresh().await.unwrap();
    jobs.iter().map(|job| job.name().into_owned()).collect()
}

/// The subtree at `root` without the folders that TaskFlow does not know: data, and whether it is ephemeral.
async fn dump(session: &dyn Session, root: &ZnodePath) -> BTreeMap<String, (String, bool)> {
    let mut found = BTreeMap::new();
    let mut rest = vec![root.clone()];
    session.sync(root).await.unwrap();
    while let Some(path) = rest.pop() {
        if [".posting", ".attempts"].contains(&path.name()) {
            continue;
        }
        let Some((data, stat)) = session.get(&path).await.unwrap() else { continue };
        let (children, _) = session.children(&path).await.unwrap();
        rest.extend(children.iter().map(|child| path.join(child).unwrap()));
        let data = String::from_utf8(data).unwrap();
        found.insert(path.to_string(), (data, stat.ephemeral_owner.is_some()));
    }
    found
}

async fn children(session: &dyn Session, path: &ZnodePath) -> Vec<String> {
    session.sync(path).await.unwrap();
    let (mut names, _) = session.children(path).await.unwrap();
    names.sort();
    names
}

async fn create(session: &dyn Session, path: &ZnodePath, data: impl Into<Vec<u8>>) {
    session.commit(vec![Op::create(path, data, CreateMode::Persistent)]).await.unwrap();
}

/// Waits until the board knows as many jobs, without asking the store.
async fn knows(board: &JobBoard, count: usize) {
    let all = || async { (board.jobs().await.unwrap().len() == count).then_some(()) };
    eventually("jobs", TIMEOUT, all).await;
}

/// Waits until exactly these can be claimed, as far as the board knows by itself.
async fn offers(board: &JobBoard, expected: &[&str]) {
    let probe = || async {
        let jobs = board.jobs().only_unclaimed().await.unwrap();
        jobs.iter().map(Job::name).eq(expected.iter().copied()).then_some(())
    };
    eventually("unclaimed", TIMEOUT, probe).await;
}

fn refused<T: std::fmt::Debug>(result: Result<T, BoardError>) -> BoardError {
    result.unwrap_err()
}

async fn claim(board: &JobBoard) -> Claim {
    tokio::time::timeout(TIMEOUT, board.claim_next()).await.expect("there is a job").unwrap()
}

/// A long time on the clock of the test, a short one on a real clock.
fn a_while(store: &Store) -> Duration {
    if store.is_memory() { 100 * SECOND } else { SECOND / 2 }
}

/// A Python conductor's claim: the job is checked, and the lock keeps version 0.
pub(crate) async fn claim_as_python(session: &dyn Session, job: &ZnodePath, lock: &ZnodePath) -> bool {
    let Ok(Some((_, stat))) = session.get(job).await else { return false };
    let ops = vec![
        Op::Check { path: job.clone(), version: Some(stat.version) },
        Op::create(lock, "{\"owner\": \"python\"}", CreateMode::Ephemeral),
    ];
    session.commit(ops).await.is_ok()
}

//! Many workers at one board, in memory and on a real server.

use apportion::{
    backend::{Op, path::ZnodePath},
    board::{BoardError, Claim, JobBoard},
};
use tokio::task::JoinSet;

use super::{TIMEOUT, claim_as_python, worker};
use crate::ledger::{HasOutcome, Ledger, Outcome};
use crate::support::{
    MS, SECOND, eventually,
    fleet::{Agent, Store, exists, on_both_backends},
    soon,
};

const WORKERS: usize = 16;
const JOBS: usize = 200;

/// Workers with sessions of their own, connected all at once.
async fn workers(store: &Store, count: usize) -> Vec<(Agent, JobBoard)> {
    let connecting = (0..count).map(|number| {
        let store = store.clone();
        async move { worker(&store, &format!("w-{number}")).await }
    });
    JoinSet::from_iter(connecting).join_all().await
}

fn trash_of(claim: &Claim) -> ZnodePath {
    let board = claim.job().path().parent().unwrap();
    board.parent().unwrap().join(".trash").unwrap().join(claim.job().path().name()).unwrap()
}

async fn sixteen_workers_consume_each_of_two_hundred_jobs_once(store: Store) {
    let (_poster, posts) = worker(&store, "poster").await;
    let ledger = Ledger::default();
    let mut tasks = JoinSet::new();
    for (number, (agent, board)) in workers(&store, WORKERS).await.into_iter().enumerate() {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            while ledger.ended_for_certain() < JOBS {
                // Some wait, some try again, some give their claim back.
                let claim = match number % 2 {
                    0 => tokio::time::timeout(SECOND / 2, board.claim_next()).await.ok().map(Result::unwrap),
                    _ => board.try_claim_next().await.unwrap(),
                };
                let Some(claim) = claim else {
                    tokio::time::sleep(5 * MS).await;
                    continue;
                };
                let (name, token) = (claim.job().name().into_owned(), claim.token().get());
                ledger.claimed(&name, token);
                assert!(ledger.write(&name, token), "{name} was given to a later one");
                match token % 7 {
                    0 => drop(claim),
                    1 => claim.abandon().await.unwrap(),
                    _ => ledger.ended(&name, token, &claim.consume().await),
                }
            }
            // The whole agent, because its connection must not be dropped before.
            let agent: Agent = agent;
            agent.coordinator.shutdown().await.unwrap();
        });
    }
    let mut posting = JoinSet::new();
    for number in 0..JOBS {
        let (posts, ledger) = (posts.clone(), ledger.clone());
        posting.spawn(async move {
            let name = format!("job-{number}");
            let posted = posts.post(&name).await;
            ledger.put_result(&name, &posted);
        });
    }
    soon(posting.join_all()).await;
    soon(tasks.join_all()).await;
    assert_eq!(ledger.len(), JOBS);
    ledger.judge();
    assert!(posts.jobs().ensure_fresh().await.unwrap().is_empty());
}

async fn no_worker_claims_a_job_that_is_being_trashed(store: Store) {
    let (_holder, holds) = worker(&store, "holder").await;
    let rivals = workers(&store, 4).await;
    let observer = store.session().await;
    for round in 0..12_u32 {
        let job = holds.post(format!("job-{round}")).await.unwrap();
        let claim = soon(holds.claim_next()).await.unwrap();
        let (lock, trash) = (claim.lease().path().clone(), trash_of(&claim));
        let mut rivalry = JoinSet::new();
        for (_, board) in &rivals {
            let (board, store) = (board.clone(), store.clone());
            let theirs = board.jobs().ensure_fresh().await.unwrap().into_iter().next().unwrap();
            rivalry.spawn(async move {
                store.for_a_moment(round).await;
                board.claim(&theirs).await
            });
        }
        soon(claim.trash()).await.unwrap();
        for claimed in soon(rivalry.join_all()).await {
            let refused = claimed.expect_err("it is claimed, and then it is trash");
            assert!(matches!(refused, BoardError::Unclaimable { .. } | BoardError::Gone { .. }), "{refused}");
        }
        assert!(!exists(&*observer, job.path()).await && !exists(&*observer, &lock).await);
        assert!(exists(&*observer, &trash).await);
    }
}

async fn a_claim_that_is_abandoned_while_its_session_ends_is_another_s_once(store: Store) {
    let (_other, board) = worker(&store, "other").await;
    let rounds = if store.is_memory() { 12 } else { 2 };
    for round in 0..rounds {
        let (agent, holds) = worker(&store, &format!("holder-{round}")).await;
        holds.post(format!("job-{round}")).await.unwrap();
        let claim = soon(holds.claim_next()).await.unwrap();
        let token = claim.token();
        let (abandoned, (), next) = tokio::join!(
            async {
                store.for_a_moment(round).await;
                claim.abandon().await
            },
            agent.expire(&store),
            soon(board.claim_next())
        );
        // The session may have ended first, which gives it back as well.
        assert!(matches!(abandoned, Ok(()) | Err(BoardError::Lost { .. })), "{abandoned:?}");
        let next = next.unwrap();
        assert!(next.token() > token);
        assert!(holds.try_claim_next().await.unwrap().is_none(), "another worker has it");
        next.consume().await.unwrap();
    }
}

async fn a_stale_holder_does_not_affect_a_python_conductor_that_has_the_job(store: Store) {
    let python = store.session().await;
    let (agent, holds) = worker(&store, "holder").await;
    let (_other, board) = worker(&store, "other").await;
    for round in 0..4 {
        let job = holds.post(format!("job-{round}")).await.unwrap();
        let claim = soon(holds.claim_next()).await.unwrap();
        let (lock, trash) = (claim.lease().path().clone(), trash_of(&claim));
        // The first two lose the session, the others only the lock.
        if round < 2 {
            agent.expire(&store).await;
            let gone = || async { (!exists(&*python, &lock).await).then_some(()) };
            eventually("the lock is gone", TIMEOUT, gone).await;
        } else {
            python.commit(vec![Op::delete(&lock, None)]).await.unwrap();
        }
        assert!(claim_as_python(&*python, job.path(), &lock).await);
        let outcome = match round % 2 {
            0 => claim.consume().await.outcome(),
            _ => claim.trash().await.outcome(),
        };
        assert_ne!(outcome, Outcome::Done);
        assert!(exists(&*python, job.path()).await && !exists(&*python, &trash).await);
        assert!(exists(&*python, &lock).await, "the lock of another");
        let refused = board.claim(&job).await.unwrap_err();
        assert!(
            matches!(&refused, BoardError::Unclaimable { owner: Some(owner), .. } if owner == "python"),
            "{refused}"
        );
        let version = python.get(job.path()).await.unwrap().unwrap().1.version;
        let consume = vec![Op::delete(&lock, Some(0)), Op::delete(job.path(), Some(version))];
        python.commit(consume).await.unwrap();
    }
}

on_both_backends!(
    sixteen_workers_consume_each_of_two_hundred_jobs_once,
    no_worker_claims_a_job_that_is_being_trashed,
    a_claim_that_is_abandoned_while_its_session_ends_is_another_s_once,
    a_stale_holder_does_not_affect_a_python_conductor_that_has_the_job,
);

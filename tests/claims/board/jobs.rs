//! The behaviour that the tests and the documentation of the original describe.

use std::{
    collections::HashSet,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use apportion::{
    backend::Memory,
    board::{BoardEvent, JobState, Priority},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::support::{
    MS, alive_tasks,
    fleet::{exists, on_both_backends, znode},
    path,
};

async fn a_board_is_connected_until_it_or_its_coordinator_is_closed(store: Store) {
    let (agent, first) = worker(&store, "a").await;
    let second = board(&store, &agent).await;
    let job = first.post("x").await.unwrap();
    assert!(first.is_connected() && second.is_connected());
    first.close().await;
    assert!(!first.is_connected() && second.is_connected());
    assert!(matches!(refused(first.state(&job).await), BoardError::Closed { .. }));
    assert!(matches!(refused(first.post("y").await), BoardError::Closed { .. }));
    assert!(matches!(refused(first.jobs().await), BoardError::Closed { .. }));
    assert!(matches!(refused(first.claim_next().await), BoardError::Closed { .. }));
    assert!(matches!(refused(job.wait_for_end().await), BoardError::Closed { .. }));
    assert!(first.events().next().await.is_none());
    agent.coordinator.shutdown().await.unwrap();
    assert!(!second.is_connected());
    assert!(matches!(refused(second.claim_next().await), BoardError::Closed { .. }));
    let late = agent.coordinator.job_board(place(&store)).at_once().await;
    assert!(matches!(refused(late), BoardError::Closed { .. }));
}

async fn an_empty_board_has_no_jobs_and_a_fresh_listing_has_the_jobs_of_others(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    assert!(ours.jobs().await.unwrap().is_empty() && ours.jobs().ensure_fresh().await.unwrap().is_empty());
    assert!(ours.try_claim_next().await.unwrap().is_none());
    for number in 0..20 {
        theirs.post(number.to_string()).await.unwrap();
        assert_eq!(ours.jobs().ensure_fresh().await.unwrap().len(), number + 1);
    }
    knows(&ours, 20).await;
    assert_eq!(theirs.len().await.unwrap(), 20);
    assert!(!theirs.is_empty().await.unwrap());
}

async fn a_wait_for_jobs_ends_with_one_that_is_posted_later_or_without(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let waits = || async { timeout(100 * MS, ours.wait_for_work()).await.is_err() };
    assert!(waits().await);
    let later = async {
        store.for_a_moment(5).await;
        theirs.post("later").await.unwrap();
    };
    let (found, ()) = tokio::join!(ours.wait_for_work(), later);
    found.unwrap();
    let found = ours.jobs().only_unclaimed().await.unwrap();
    assert_eq!(found.iter().map(Job::name).collect::<Vec<_>>(), ["later"]);
    let claim = ours.claim(found.iter().next().unwrap()).await.unwrap();
    assert!(waits().await, "unlike in the original, claimed jobs do not count");
    claim.abandon().await.unwrap();
    timeout(TIMEOUT, ours.wait_for_work()).await.unwrap().unwrap();
}

async fn a_job_is_unclaimed_then_claimed_then_complete(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "worker-a").await, worker(&store, "b").await);
    let job = ours.post("x").await.unwrap();
    assert_eq!((ours.len().await.unwrap(), ours.state(&job).await.unwrap()), (1, JobState::Unclaimed));
    assert_eq!(ours.find_owner(&job).await.unwrap(), None);
    let claim = ours.claim(&job).await.unwrap();
    assert_eq!(claim.lease().path().as_str(), format!("{}.lock", job.path()));
    assert!(claim.lease().is_held());
    for board in [&ours, &theirs] {
        assert_eq!(board.state(&job).await.unwrap(), JobState::Claimed);
        assert_eq!(board.find_owner(&job).await.unwrap().as_deref(), Some("worker-a"));
        assert!(unclaimed(board).await.is_empty());
        assert_eq!(names(board).await, ["x"]);
        assert!(board.jobs().await.unwrap().iter().all(Job::is_claimed));
        let BoardError::Unclaimable { owner, .. } = refused(board.claim(&job).await) else { panic!() };
        assert_eq!(owner.as_deref(), Some("worker-a"));
    }
    assert!(claim.lease().is_held());
    assert!(timeout(100 * MS, job.wait_for_end()).await.is_err());
    let (gone, consumed) = tokio::join!(timeout(TIMEOUT, job.wait_for_end()), claim.consume());
    consumed.unwrap();
    gone.unwrap().unwrap();
    assert!(ours.is_empty().await.unwrap());
    for board in [&ours, &theirs] {
        assert_eq!(board.state(&job).await.unwrap(), JobState::Complete);
        assert_eq!(board.find_owner(&job).await.unwrap(), None);
        assert!(names(board).await.is_empty());
        assert!(matches!(refused(board.claim(&job).await), BoardError::Gone { .. }));
    }
}

async fn an_abandoned_or_dropped_claim_can_be_claimed_again_under_a_higher_token(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let job = ours.post("x").details(json!({"key": 1.5})).await.unwrap();
    let observer = store.session().await;
    let posted = znode(&*observer, job.path()).await.0;
    let mut last = None;
    for round in 0..6 {
        let claim = claim([&ours, &theirs][round % 2]).await;
        assert!(last < Some(claim.token()));
        last = Some(claim.token());
        let lease = claim.lease().clone();
        let lock = znode(&*observer, lease.path()).await.1;
        assert_eq!((lease.token().get(), lock.version), (lock.czxid.unsigned_abs(), 1));
        if round < 4 {
            claim.abandon().await.unwrap();
        } else {
            drop(claim);
        }
        assert!(!lease.is_held());
    }
    eventually("given back", TIMEOUT, || async {
        (theirs.state(&job).await.unwrap() == JobState::Unclaimed).then_some(())
    })
    .await;
    assert_eq!(znode(&*observer, job.path()).await.0, posted, "to the byte");
}

async fn a_lock_without_an_owner_is_no_claim_and_a_job_whose_lock_is_deleted_is_free(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let job = board.post("x").await.unwrap();
    let claim = board.claim(&job).await.unwrap();
    let observer = store.session().await;
    for data in ["{}", "{\"owner\": null}"] {
        observer.commit(vec![Op::set(claim.lease().path(), data, None)]).await.unwrap();
        assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed);
        assert_eq!(board.find_owner(&job).await.unwrap(), None);
    }
    observer.commit(vec![Op::set(claim.lease().path(), "garbage", None)]).await.unwrap();
    assert_eq!(board.state(&job).await.unwrap(), JobState::Claimed);
    assert_eq!(board.find_owner(&job).await.unwrap().as_deref(), Some("garbage"));
    observer.commit(vec![Op::delete(claim.lease().path(), None)]).await.unwrap();
    assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed);
    assert_eq!(unclaimed(&board).await, ["x"]);
    assert!(matches!(refused(claim.consume().await), BoardError::Lost { .. }));
    assert_eq!(names(&board).await, ["x"]);
}

async fn what_is_posted_is_what_is_written_and_read(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let (id, book) = (Uuid::new_v4(), Uuid::new_v4());
    let details = json!({"z": [1, null], "a": {"é": 0.5}});
    let job =
        ours.post("näme").uuid(id).details(details.clone()).book("book", book).priority(Priority::Low).await;
    let job = job.unwrap();
    let observer = store.session().await;
    let (data, stat) = znode(&*observer, job.path()).await;
    let expected = format!(
        "{{\"uuid\": \"{id}\", \"name\": \"n\\u00e4me\", \"priority\": \"LOW\", \"details\": {{\"z\": [1, null], \
         \"a\": {{\"\\u00e9\": 0.5}}}}, \"book\": {{\"name\": \"book\", \"uuid\": \"{book}\"}}}}"
    );
    assert_eq!(String::from_utf8(data).unwrap(), expected);
    let plain = ours.post("plain").await.unwrap();
    let plain_data: Value = serde_json::from_slice(&znode(&*observer, plain.path()).await.0).unwrap();
    let expected = json!({"uuid": plain.uuid().unwrap().to_string(), "name": "plain", "priority": "NORMAL", "details": {}});
    assert_eq!(plain_data, expected);
    let seen = theirs.jobs().ensure_fresh().await.unwrap();
    let seen: Vec<_> = seen.into_iter().collect();
    assert_eq!(seen[1].posting(), job.posting());
    assert_eq!((seen[1].uuid(), seen[1].details(), seen[1].priority()), (Some(id), &details, Priority::Low));
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(stat.created_ms.unsigned_abs());
    for job in [&job, &seen[1]] {
        assert_eq!((job.created_on(), job.last_modified()), (created, created));
    }
    assert_eq!(job.to_string(), format!("`näme` at {}", job.path()));
}

async fn a_trashed_job_is_beside_the_board_to_the_byte(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let job = board.post("x").details(json!({"k": "é"})).await.unwrap();
    let observer = store.session().await;
    let data = znode(&*observer, job.path()).await.0;
    let trash = board.path().parent().unwrap().join(".trash").unwrap();
    // Also if an operator has deleted the folder of the trash.
    observer.commit(vec![Op::delete(&trash, None)]).await.unwrap();
    claim(&board).await.trash().await.unwrap();
    assert_eq!(children(&*observer, &trash).await, [job.path().name()]);
    assert_eq!(znode(&*observer, &trash.join(job.path().name()).unwrap()).await.0, data);
    assert!(children(&*observer, board.path()).await.is_empty());
    assert!(board.is_empty().await.unwrap());
}

async fn conductors_are_registered_until_the_board_is_closed(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let observer = store.session().await;
    let entity = path(&format!("{}/.entities/conductor/me@host:7", ours.path().parent().unwrap()));
    ours.register_entity("conductor", "me@host:7", json!({"hostname": "host", "pid": 7})).await.unwrap();
    let (data, stat) = znode(&*observer, &entity).await;
    let expected = "{\"kind\": \"conductor\", \"name\": \"me@host:7\", \"metadata\": {\"hostname\": \"host\", \"pid\": 7}}";
    assert_eq!(String::from_utf8(data).unwrap(), expected);
    assert!(stat.ephemeral_owner.is_some());
    ours.register_entity("conductor", "me@host:7", json!({"pid": 8})).await.unwrap();
    assert!(String::from_utf8(znode(&*observer, &entity).await.0).unwrap().ends_with("{\"pid\": 8}}"));
    let taken = refused(theirs.register_entity("conductor", "me@host:7", json!({})).await);
    assert!(matches!(taken, BoardError::EntityTaken { .. }));
    ours.close().await;
    assert!(!exists(&*observer, &entity).await);
    theirs.register_entity("conductor", "me@host:7", json!({})).await.unwrap();
    // Or its last handle is dropped.
    drop(theirs);
    let gone = || async { (!exists(&*observer, &entity).await).then_some(()) };
    eventually("unregistered", TIMEOUT, gone).await;
}

async fn events_report_the_changes_of_each_job_in_order(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    theirs.post("old").await.unwrap();
    knows(&ours, 1).await;
    let mut events = ours.events();
    let mut next = async || {
        let event = tokio::time::timeout(TIMEOUT, events.next()).await.expect("something happens").unwrap();
        let what = match event {
            BoardEvent::Posted(_) => "posted",
            BoardEvent::Removed(_) => "removed",
            BoardEvent::Claimed(_) => "claimed",
            BoardEvent::Released(_) => "released",
            _ => "something else",
        };
        format!("{what} {}", event.job().name())
    };
    theirs.post("new").await.unwrap();
    assert_eq!(next().await, "posted new");
    let claim = theirs.try_claim_next().await.unwrap().unwrap();
    assert_eq!(next().await, "claimed old");
    claim.abandon().await.unwrap();
    assert_eq!(next().await, "released old");
    let claim = ours.try_claim_next().await.unwrap().unwrap();
    assert_eq!(next().await, "claimed old");
    claim.consume().await.unwrap();
    assert_eq!(next().await, "removed old");
    let quiet = tokio::time::timeout(a_while(&store), events.next()).await;
    assert!(quiet.is_err(), "no event came twice: {quiet:?}");
}

async fn a_waiting_worker_gets_a_job_that_is_posted_or_given_back_later(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let (first, job) = tokio::join!(claim(&ours), async {
        store.for_a_moment(5).await;
        theirs.post("x").await.unwrap()
    });
    assert_eq!(first.job().path(), job.path());
    let (second, ()) = tokio::join!(claim(&theirs), async {
        store.for_a_moment(5).await;
        first.abandon().await.unwrap();
    });
    assert_eq!(second.job().path(), job.path());
}

async fn workers_on_one_board_do_each_job_once(store: Store) {
    const JOBS: usize = 60;
    let (_p, poster) = worker(&store, "poster").await;
    let mut workers = Vec::new();
    for number in 0..4 {
        workers.push(worker(&store, &format!("worker-{number}")).await);
    }
    let work = |board: JobBoard| async move {
        let mut done = Vec::new();
        while let Ok(Some(claim)) = board.try_claim_next().await {
            done.push(claim.job().name().into_owned());
            claim.consume().await.unwrap();
        }
        done
    };
    for number in 0..JOBS {
        poster.post(number.to_string()).await.unwrap();
    }
    let (a, b, c, d) = tokio::join!(
        work(workers[0].1.clone()),
        work(workers[1].1.clone()),
        // Two loops in one process are two workers as well.
        work(workers[2].1.clone()),
        work(workers[2].1.clone()),
    );
    let done = [a, b, c, d].concat();
    assert_eq!((done.len(), done.iter().collect::<HashSet<_>>().len()), (JOBS, JOBS));
    assert!(names(&poster).await.is_empty());
}

async fn a_wait_that_is_dropped_at_any_point_leaves_nothing_held(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let job = board.post("x").await.unwrap();
    for polls in 0..12 {
        offers(&board, &["x"]).await;
        {
            let mut waiting = pin!(board.claim_next());
            for _ in 0..polls {
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(claimed) = waiting.as_mut().poll(&mut context) {
                    drop(claimed.unwrap());
                    break;
                }
                store.for_a_moment(1).await;
            }
        }
        let given_back = || async {
            // Only a claim by another worker proves it.
            board.claim(&job).await.ok().map(drop)
        };
        eventually("given back", TIMEOUT, given_back).await;
    }
}

async fn an_answer_for_many_jobs_costs_few_requests(store: Store) {
    const JOBS: u64 = 300;
    let observer = store.session().await;
    let (agent, board) = worker(&store, "a").await;
    for number in 0..JOBS {
        let job = board.path().join(&format!("job{number:010}")).unwrap();
        create(&*observer, &job, format!("{{\"uuid\": \"u\", \"name\": \"{number}\"}}")).await;
    }
    knows(&board, JOBS as usize).await;
    tokio::time::sleep(200 * MS).await;
    let before = agent.faults().calls();
    for _ in 0..10 {
        assert_eq!(board.jobs().await.unwrap().len() as u64, JOBS);
    }
    assert_eq!(board.jobs().ensure_fresh().await.unwrap().len() as u64, JOBS);
    let after = agent.faults().calls();
    assert_eq!((after.lists - before.lists, after.gets - before.gets), (1, 0));
    assert!(after.get_manys - before.get_manys <= 1);
    let (writes, gets) = (after.writes, after.gets);
    claim(&board).await.consume().await.unwrap();
    let calls = agent.faults().calls();
    assert_eq!((calls.writes - writes, calls.gets - gets), (2, 0), "one to claim, one to consume");
}

#[tokio::test]
async fn a_board_in_one_process_is_closed_with_its_last_handle_and_leaves_no_tasks() {
    let coordinator = apportion::PartitionCoordinator::connect(apportion::Config::for_backend(Memory::new()));
    let coordinator = coordinator.await.unwrap();
    let before = alive_tasks();
    let board = coordinator.job_board("/jobs").at_once().await.unwrap();
    let job = board.post("x").await.unwrap();
    drop(board);
    assert!(timeout(MS, job.wait_for_end()).await.is_err(), "a job keeps its board");
    drop(job);
    until("no tasks", TIMEOUT, || alive_tasks() == before).await;
}

on_both_backends!(
    a_board_is_connected_until_it_or_its_coordinator_is_closed,
    an_empty_board_has_no_jobs_and_a_fresh_listing_has_the_jobs_of_others,
    a_wait_for_jobs_ends_with_one_that_is_posted_later_or_without,
    a_job_is_unclaimed_then_claimed_then_complete,
    an_abandoned_or_dropped_claim_can_be_claimed_again_under_a_higher_token,
    a_lock_without_an_owner_is_no_claim_and_a_job_whose_lock_is_deleted_is_free,
    what_is_posted_is_what_is_written_and_read,
    a_trashed_job_is_beside_the_board_to_the_byte,
    conductors_are_registered_until_the_board_is_closed,
    events_report_the_changes_of_each_job_in_order,
    a_waiting_worker_gets_a_job_that_is_posted_or_given_back_later,
    workers_on_one_board_do_each_job_once,
    a_wait_that_is_dropped_at_any_point_leaves_nothing_held,
    an_answer_for_many_jobs_costs_few_requests,
);

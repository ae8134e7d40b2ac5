//! Locks that were deleted by hand, and Python conductors that claim the jobs.

use apportion::board::JobState;

use super::*;
use crate::support::{
    fleet::{exists, on_both_backends, znode},
    path,
};

async fn a_holder_whose_lock_was_deleted_notices_it_and_does_not_affect_the_next_holder(store: Store) {
    let (_a, ours) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    let observer = store.session().await;
    let job = ours.post("x").await.unwrap();
    for end in 0..4 {
        let stale = claim(&ours).await;
        observer.commit(vec![Op::delete(stale.lease().path(), None)]).await.unwrap();
        let fresh = claim(&theirs).await;
        // Both locks have the same data.
        assert_eq!(znode(&*observer, fresh.lease().path()).await.1.version, 1);
        tokio::time::timeout(TIMEOUT, stale.lease().lost()).await.expect("a heartbeat finds out");
        match end {
            0 => assert!(stale.consume().await.is_err()),
            1 => assert!(stale.trash().await.is_err()),
            2 => assert!(stale.abandon().await.is_err()),
            _ => drop(stale),
        }
        tokio::time::sleep(a_while(&store)).await;
        assert!(fresh.lease().is_held());
        assert_eq!(ours.find_owner(&job).await.unwrap().as_deref(), Some("b"));
        fresh.abandon().await.unwrap();
        offers(&ours, &["x"]).await;
    }
}

async fn a_python_claim_is_respected_by_a_worker_that_lost_its_own(store: Store) {
    let (_a, ours) = worker(&store, "a").await;
    let job = ours.post("x").await.unwrap();
    let python = store.session().await;
    let stale = claim(&ours).await;
    let lock = stale.lease().path().clone();
    // An operator deletes the lock, and a Python conductor of the same name claims the job.
    python.commit(vec![Op::delete(&lock, None)]).await.unwrap();
    let create = Op::create(&lock, "{\"owner\": \"a\"}", CreateMode::Ephemeral);
    python.commit(vec![Op::Check { path: job.path().clone(), version: Some(1) }, create]).await.unwrap();
    assert!(matches!(refused(stale.consume().await), BoardError::Lost { .. }));
    assert_eq!(ours.state(&job).await.unwrap(), JobState::Claimed);
    assert!(matches!(refused(ours.claim(&job).await), BoardError::Unclaimable { owner: Some(_), .. }));
    python.commit(vec![Op::delete(&lock, Some(0))]).await.unwrap();
    claim(&ours).await.consume().await.unwrap();
}

async fn a_python_conductor_that_has_read_a_job_before_our_claim_is_refused_and_reads_again(store: Store) {
    let (_a, ours) = worker(&store, "a").await;
    let job = ours.post("x").await.unwrap();
    let python = store.session().await;
    let (before, stat) = znode(&*python, job.path()).await;
    ours.claim(&job).await.unwrap().abandon().await.unwrap();
    let lock = path(&format!("{}.lock", job.path()));
    let claim = |version| {
        let create = Op::create(&lock, "{\"owner\": \"p\"}", CreateMode::Ephemeral);
        python.commit(vec![Op::Check { path: job.path().clone(), version: Some(version) }, create])
    };
    assert_eq!(claim(stat.version).await.unwrap_err().index, Some(0));
    assert!(!exists(&*python, &lock).await);
    let (again, stat) = znode(&*python, job.path()).await;
    assert_eq!(again, before);
    claim(stat.version).await.unwrap();
    let ends = vec![Op::delete(&lock, Some(0)), Op::delete(job.path(), Some(stat.version))];
    python.commit(ends).await.unwrap();
    assert!(names(&ours).await.is_empty());
}

on_both_backends!(
    a_holder_whose_lock_was_deleted_notices_it_and_does_not_affect_the_next_holder,
    a_python_claim_is_respected_by_a_worker_that_lost_its_own,
    a_python_conductor_that_has_read_a_job_before_our_claim_is_refused_and_reads_again,
);

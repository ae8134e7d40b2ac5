use super::*;
use crate::{
    backend::memory::LostReply,
    session::tests::{Bench, create, path},
};

fn sequential() -> Vec<Op> {
    vec![Op::create(&path("/ns/n-"), [], CreateMode::PersistentSequential)]
}

#[tokio::test(start_paused = true)]
async fn the_receipt_tells_the_transaction_that_created_what_lies_beside_it() {
    let bench = Bench::new().await;
    let receipts = Receipts::new(path("/receipts"));
    for lost in [None, Some(LostReply::BeforeApplying), Some(LostReply::AfterApplying)] {
        for _ in 0..3 {
            if let Some(lost) = lost {
                bench.faults.lose_nth_write(bench.faults.calls().writes + 1, lost);
            }
            let before = bench.names("/ns").await.len();
            let live = bench.live().await;
            let Receipted { stat, .. } = receipts.commit(&live, sequential()).await.unwrap();
            let names = bench.names("/ns").await;
            assert_eq!(names.len(), before + 1, "{lost:?}");
            let newest = path("/ns").join(names.iter().max().unwrap()).unwrap();
            let (_, created) = bench.observer.get(&newest).await.unwrap().unwrap();
            assert_eq!((stat.mzxid, stat.modified_ms), (created.czxid, created.created_ms), "{lost:?}");
        }
    }
    assert_eq!(bench.names("/receipts").await.len(), 1, "one at a time needs one");
}

#[tokio::test(start_paused = true)]
async fn receipts_are_used_again_and_cleared_with_what_they_belong_to() {
    let bench = Bench::new().await;
    let receipts = Receipts::new(path("/receipts"));
    let live = bench.live().await;
    for _ in 0..5 {
        let (one, two) =
            tokio::join!(receipts.commit(&live, sequential()), receipts.commit(&live, sequential()));
        assert!(one.is_ok() && two.is_ok());
    }
    assert_eq!(bench.names("/ns").await.len(), 10);
    assert!(bench.names("/receipts").await.len() <= 2);
    receipts.clear(&bench.access).await;
    assert!(bench.names("/receipts").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_an_operator_has_changed_or_deleted_is_replaced() {
    let bench = Bench::new().await;
    let receipts = Receipts::new(path("/receipts"));
    let live = bench.live().await;
    for change in [|at: &ZnodePath| Op::set(at, "x", None), |at: &ZnodePath| Op::delete(at, None)] {
        receipts.commit(&live, sequential()).await.unwrap();
        let name = bench.names("/receipts").await.pop().unwrap();
        let receipt = path("/receipts").join(&name).unwrap();
        bench.observer.commit(vec![change(&receipt)]).await.unwrap();
        receipts.commit(&live, sequential()).await.unwrap();
    }
    assert_eq!(bench.names("/ns").await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_passed_on_and_leaves_nothing() {
    let bench = Bench::new().await;
    let receipts = Receipts::new(path("/receipts"));
    let live = bench.live().await;
    let refused = receipts.commit(&live, vec![create("/ns/a"), create("/ns/a")]).await.unwrap_err();
    assert_eq!(
        refused,
        Unapplied::Refused { index: 1, path: path("/ns/a"), error: backend::Error::NodeExists }
    );
    assert!(bench.names("/ns").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_receipt_of_what_was_under_way_when_they_were_cleared_does_not_stay() {
    let bench = Bench::new().await;
    let receipts = Receipts::new(path("/receipts"));
    let live = bench.live().await;
    receipts.commit(&live, sequential()).await.unwrap();
    bench.memory.suspend(live.id());
    let clearing = async {
        receipts.clear(&bench.access).await;
        bench.memory.resume(live.id());
    };
    let (applied, ()) = tokio::join!(receipts.commit(&live, sequential()), clearing);
    applied.unwrap();
    assert_eq!(bench.names("/ns").await.len(), 2);
    assert!(bench.names("/receipts").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn receipts_that_may_not_be_deleted_are_asked_for_once() {
    let bench = Bench::new().await;
    let receipts = Receipts::new(path("/receipts"));
    let live = bench.live().await;
    bench.memory.suspend(live.id());
    let commits = (0..20).map(|_| receipts.commit(&live, sequential()));
    let (committed, ()) = tokio::join!(futures_util::future::join_all(commits), async {
        bench.memory.resume(live.id());
    });
    assert!(committed.iter().all(Result::is_ok));
    assert_eq!(bench.names("/receipts").await.len(), 20);
    bench.faults.deny(&path("/receipts"));
    let writes = bench.faults.calls().writes;
    receipts.clear(&bench.access).await;
    assert_eq!(bench.faults.calls().writes, writes + 1);
}

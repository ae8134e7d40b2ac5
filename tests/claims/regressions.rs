//! Defects that the other tests of this binary have found, each reduced to what it takes to see it.

use std::time::Duration;

use apportion::{
    PartitionCoordinator,
    backend::{
        CreateMode, Op,
        memory::LostReply::{AfterApplying, BeforeApplying},
        path::ZnodePath,
    },
    board::BoardError,
};

use super::{
    bench::{Bench, EITHER, Trouble, soon},
    ledger::{Says, Told},
    queue::between::lists,
    session_faults::Fault,
};
use crate::support::{
    eventually,
    fleet::{MS, SECOND, Store},
    hold::Hold,
};

/// The job was on the board, and the poster was told that nothing was done: it would have posted it again.
#[tokio::test(start_paused = true)]
async fn a_post_whose_session_ends_while_its_job_is_looked_for_is_never_taken_for_a_refusal() {
    for nth_read in 1..=8 {
        let bench = Bench::new().await;
        let board = bench.board_of(&bench.victim).await;
        bench.plan(Trouble::Both((1, AfterApplying), (nth_read, Fault::ExpiresAtRead)));
        let posted = soon(board.post("x")).await;
        assert_ne!(posted.says(), Told::NotDone, "at read {nth_read}: {posted:?}");
        assert_eq!(bench.children("/place/jb").await.len(), 1);
    }
}

/// The receipts of a board stay with it, and go with it, whatever gets lost.
#[tokio::test(start_paused = true)]
async fn the_receipts_of_posts_are_few_and_go_with_the_board_whatever_replies_are_lost() {
    for first in EITHER {
        for second in EITHER {
            let bench = Bench::new().await;
            let board = bench.board_of(&bench.victim).await;
            board.post("x").await.unwrap();
            bench.plan(Trouble::Replies(1, first, second));
            board.post("y").await.unwrap();
            board.post("z").await.unwrap();
            assert_eq!(bench.children("/place/.posting").await.len(), 1, "one post at a time");
            board.close().await;
            let gone = || async { bench.children("/place/.posting").await.is_empty().then_some(()) };
            eventually("no receipts", 60 * SECOND, gone).await;
        }
    }
}

/// Opening a board failed where opening a queue did not.
#[tokio::test(start_paused = true)]
async fn a_board_is_opened_whatever_replies_are_lost() {
    for n in 1..=4 {
        for lost in [AfterApplying, BeforeApplying] {
            let bench = Bench::new().await;
            bench.plan(Trouble::Replies(n, lost, BeforeApplying));
            soon(bench.victim.job_board("/place/jb")).await.unwrap();
        }
    }
}

/// A process could not have a job again as long as somebody in it kept the claim that was lost with an earlier
/// session; whoever waited for the job had the board listed all the time.
#[tokio::test(start_paused = true)]
async fn a_lost_claim_that_is_still_in_hand_does_not_keep_its_process_from_claiming_again() {
    let bench = Bench::new().await;
    let board = bench.board_of(&bench.victim).await;
    board.post("x").await.unwrap();
    let stale = board.claim_next().await.unwrap();
    bench.memory().expire(bench.victim.session_id().unwrap());
    stale.lease().lost().await;
    let lists = bench.faults.calls().lists;
    let fresh = tokio::time::timeout(20 * SECOND, board.claim_next()).await;
    let lists = bench.faults.calls().lists - lists;
    let fresh = fresh.unwrap_or_else(|_| panic!("not claimed, with {lists} listings")).unwrap();
    assert!(fresh.token() > stale.token() && fresh.lease().is_held());
    let refused = stale.consume().await;
    assert!(
        matches!(refused, Err(BoardError::Lost { .. } | BoardError::OutcomeUnknown { .. })),
        "{refused:?}"
    );
    tokio::time::sleep(100 * MS).await;
    assert!(fresh.lease().is_held());
    // The stale one must not have taken the fresh one from the books either.
    let again = tokio::time::timeout(Duration::from_secs(5), board.claim(fresh.job())).await.unwrap();
    assert!(matches!(again, Err(BoardError::Unclaimable { .. })), "{again:?}");
    fresh.consume().await.unwrap();
}

/// What was taken and abandoned between two readings of a look stayed owned until any claim changed again.
#[tokio::test(start_paused = true)]
async fn what_is_taken_and_abandoned_in_the_middle_of_a_look_is_given_back() {
    for passing in 0..2 {
        let store = Store::memory();
        let (connector, hold) = Hold::on(store.ensemble());
        let heir = PartitionCoordinator::connect(store.config_via(connector, "heir")).await.unwrap();
        let _heirs = heir.queue("/queue").await.unwrap();
        let doomed = store.agent("doomed").await;
        let queue = doomed.coordinator.queue("/queue").await.unwrap();
        for name in ["x", "y"] {
            queue.put(name).await.unwrap();
        }
        tokio::time::sleep(2 * SECOND).await;
        let mut held = hold.after(passing, lists(&["owned", "claims"]));
        // A change of the claims has the heir look; another look may be the one that is held back.
        queue.take().await.unwrap().done(()).await.unwrap();
        tokio::time::timeout(10 * SECOND, held.reached()).await.expect("it looks");
        std::mem::forget(queue.take().await.unwrap());
        let _line = doomed.crash();
        tokio::time::sleep(2 * store.session_timeout).await;
        held.release();
        let (looker, unowned) = (store.session().await, ZnodePath::parse("/queue/unowned").unwrap());
        let back = || async { (looker.children(&unowned).await.unwrap().0.len() == 1).then_some(()) };
        eventually("it is given back", 60 * SECOND, back).await;
    }
}

/// A result was acknowledged that was nowhere: the reply was lost, and the claim and the entry were gone for another
/// reason.
#[tokio::test(start_paused = true)]
async fn done_is_never_acknowledged_because_the_entry_has_gone_another_way() {
    let bench = Bench::new().await;
    let queue = bench.queue_of(&bench.victim).await;
    queue.put("x").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    // A person deletes the claim, and some process gives the entry back.
    let path = |text: &str| ZnodePath::parse(text).unwrap();
    let owned = path(&format!("/queue/owned/{}", bench.children("/queue/owned").await[0]));
    let back = vec![
        Op::delete(delivery.lease().path(), None),
        Op::delete(&owned, None),
        Op::create(&path("/queue/unowned/entry-100--"), r#""x""#, CreateMode::PersistentSequential),
    ];
    bench.looker.commit(back).await.unwrap();
    bench.plan(Trouble::Reply(1, BeforeApplying));
    let done = soon(delivery.done("result")).await;
    assert_ne!(done.says(), Told::Done);
    assert_eq!(bench.children("/queue/done").await.len(), 0);
}

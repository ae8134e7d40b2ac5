//! Lost replies at each write of an entry: it is done once, and nothing stays behind.

use apportion::backend::{CreateMode, Op, memory::LostReply};
use serde_json::json;

use super::{counts, counts_become, payload, values, worker};
use crate::support::{EITHER, fleet::Store, path, soon};
use crate::{
    ledger::{HasOutcome, Outcome},
    setup::{Setup, Trouble},
};

#[tokio::test(start_paused = true)]
async fn after_any_lost_reply_an_entry_is_done_once_and_nothing_stays_behind() {
    for lost in EITHER {
        // Put, take, update, release, take, done, confirm.
        for nth in 1..=7 {
            let store = Store::memory();
            let (agent, queue) = worker(&store, "a").await;
            agent.faults().lose_nth_write(agent.faults().calls().writes + nth, lost);
            queue.put("x").label("l:1").await.unwrap();
            let mut delivery = soon(queue.take()).await.unwrap();
            delivery.update("y").await.unwrap();
            delivery.release().await.unwrap();
            let delivery = soon(queue.take()).await.unwrap();
            assert_eq!((payload(&delivery), delivery.attempt()), (json!("y"), 2), "{lost:?} {nth}");
            delivery.done("z").await.unwrap();
            assert_eq!(counts(&store).await, [0, 0, 1, 0, 0], "{lost:?} {nth}");
            let results = soon(queue.collect(10)).await.unwrap();
            assert_eq!(results.len(), 1, "{lost:?} {nth}");
            assert_eq!(results.confirm().await.unwrap().len(), 1, "{lost:?} {nth}");
            assert_eq!(counts(&store).await, [0; 5], "{lost:?} {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_any_lost_reply_a_dropped_delivery_is_given_back() {
    for lost in EITHER {
        // Take, give back.
        for nth in 1..=2 {
            let store = Store::memory();
            let (agent, queue) = worker(&store, "a").await;
            queue.put("x").await.unwrap();
            agent.faults().lose_nth_write(agent.faults().calls().writes + nth, lost);
            drop(soon(queue.take()).await.unwrap());
            counts_become(&store, [1, 0, 0, 0, 0]).await;
            let attempts = values(&store, "unowned").await;
            assert!(attempts.values().all(|value| value["attempt"] == 1), "{lost:?} {nth} {attempts:?}");
        }
    }
}

/// A bug: a result was acknowledged that did not exist. The reply was lost, and the claim and the entry were gone for
/// another reason.
#[tokio::test(start_paused = true)]
async fn done_is_never_acknowledged_because_the_entry_has_gone_another_way() {
    let setup = Setup::new().await;
    let queue = setup.queue_of(&setup.victim).await;
    queue.put("x").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    // An operator deletes the claim, and a process gives the entry back.
    let owned = path(&format!("/queue/owned/{}", setup.children("/queue/owned").await[0]));
    let back = vec![
        Op::delete(delivery.lease().path(), None),
        Op::delete(&owned, None),
        Op::create(&path("/queue/unowned/entry-100--"), r#""x""#, CreateMode::PersistentSequential),
    ];
    setup.observer.commit(back).await.unwrap();
    setup.plan(Trouble::Reply(1, LostReply::BeforeApplying));
    let done = soon(delivery.done("result")).await;
    assert_ne!(done.outcome(), Outcome::Done);
    assert_eq!(setup.children("/queue/done").await.len(), 0);
}

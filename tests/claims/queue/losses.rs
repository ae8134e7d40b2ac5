//! Replies that are lost at each write of an entry's life: it is done once, and nothing stays behind.

use apportion::backend::memory::LostReply;
use serde_json::json;

use super::{counts, counts_become, payload, soon, values, worker};
use crate::support::fleet::Store;

#[tokio::test(start_paused = true)]
async fn whichever_reply_is_lost_an_entry_is_done_once_and_nothing_stays_behind() {
    for lost in [LostReply::BeforeApplying, LostReply::AfterApplying] {
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
async fn whichever_reply_is_lost_what_is_dropped_is_given_back() {
    for lost in [LostReply::BeforeApplying, LostReply::AfterApplying] {
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

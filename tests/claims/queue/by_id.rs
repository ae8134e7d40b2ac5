//! An entry that its putter knows by its id: waiting for its result, and removing it.

use tokio::task::JoinSet;

use super::*;
use crate::support::{fleet::on_both_backends, soon};

on_both_backends!(
    who_puts_an_entry_can_wait_for_its_result,
    a_waiting_entry_can_be_removed_and_a_taken_one_cannot,
);

async fn who_puts_an_entry_can_wait_for_its_result(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(ours.put(number).label(format!("l:{}", number % 2)).await.unwrap());
    }
    let (waits, id) = (ours.clone(), ids[4].clone());
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { waits.wait_result(&id).await });
    // The others end before it, and it goes back once.
    for _ in 0..7 {
        let delivery = soon(theirs.take()).await.unwrap();
        match (payload(&delivery).as_u64().unwrap(), delivery.attempt()) {
            (4, 1) => delivery.release().await.unwrap(),
            (3, _) => delivery.fail("no").await.unwrap(),
            (number, _) => delivery.done(number * 10).await.unwrap(),
        }
    }
    let result = soon(waiting.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((result.result(), result.payload()), (Some(&json!(40)), Some(&json!(4))));
    assert_eq!(soon(theirs.wait_result(&ids[3])).await.unwrap().error(), Some("no"));
    assert_eq!(counts(&store).await, [0, 0, 6, 0, 0], "they stay");
    assert!(ours.discard(&result).await.unwrap() && !ours.discard(&result).await.unwrap());
    assert!(!ours.revive(&result).await.unwrap());
    assert_eq!(counts(&store).await, [0, 0, 5, 0, 0]);
    // The id travels as text.
    let text = serde_json::to_string(&ids[5]).unwrap();
    let id = serde_json::from_str(&text).unwrap();
    assert_eq!(soon(ours.wait_result(&id)).await.unwrap().result(), Some(&json!(50)));
    // A dead letter is an end, too.
    let mortal = store.agent("c").await;
    let mortal = mortal.coordinator.queue(root(&store)).max_attempts(1).await.unwrap();
    let id = mortal.put("poison").await.unwrap();
    let waits = ours.clone();
    waiting.spawn(async move { waits.wait_result(&id).await });
    soon(mortal.take()).await.unwrap().release().because("always").await.unwrap();
    let letter = soon(waiting.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((letter.is_dead_letter(), letter.error()), (true, Some("always")));
}

async fn a_waiting_entry_can_be_removed_and_a_taken_one_cannot(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(ours.put(number).await.unwrap());
    }
    let later = ours.put("later").delay(3600 * SECOND).await.unwrap();
    assert!(theirs.remove(&ids[2]).await.unwrap(), "by any process");
    assert!(!ours.remove(&ids[2]).await.unwrap());
    assert!(ours.remove(&later).await.unwrap());
    let taken = soon(ours.take()).await.unwrap();
    assert!(!ours.remove(&ids[0]).await.unwrap());
    taken.release_after(Duration::ZERO).await.unwrap();
    assert!(ours.remove(&ids[0]).await.unwrap(), "under another name");
    let mut left = Vec::new();
    while let Some(delivery) = ours.try_take().await.unwrap() {
        left.push(payload(&delivery));
        delivery.done(()).await.unwrap();
    }
    assert_eq!(left, [json!(1), json!(3), json!(4)]);
    assert!(!ours.remove(&ids[1]).await.unwrap(), "it has ended");
}

//! Entries of other programs that leave no room for a reason: however their delivery ends, they are not lost. In memory
//! only: the servers of these tests have little memory. `limits.rs` has the same on a server.

use apportion::{
    backend::{CreateMode, MAX_REQUEST_BYTES, Op},
    queue::State,
};

use super::{counts, counts_become, path, worker};
use crate::support::{SECOND, fleet::Store, soon};

/// The longest reason that is kept: each of its characters takes six bytes.
fn reason() -> String {
    "\u{1}".repeat(1000)
}

/// Puts an entry, as another program does, that leaves so many bytes of the largest request.
async fn put_foreign(store: &Store, left: usize) -> String {
    let value = format!(r#"{{"groupid": 7, "text": "{}"}}"#, "x".repeat(MAX_REQUEST_BYTES - left));
    let entry = path(store, "unowned").join("entry-300-large-").unwrap();
    let create = Op::create(&entry, &*value, CreateMode::PersistentSequential);
    store.session().await.commit(vec![create]).await.unwrap();
    value
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_leaves_no_room_for_a_reason_is_given_back_with_a_shorter_one() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    let value = put_foreign(&store, 8000).await;
    let delivery = soon(queue.take()).await.unwrap();
    delivery.release().because(reason()).await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    let kept = delivery.last_error().unwrap().len();
    assert!((100..1000).contains(&kept), "{kept} of it");
    assert_eq!((delivery.raw(), delivery.attempt()), (value.as_bytes(), 2));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_leaves_no_room_at_all_ends_in_each_way_without_the_reason() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    let value = put_foreign(&store, 800).await;
    let delivery = soon(queue.take()).await.unwrap();
    delivery.release().because(reason()).await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!((delivery.last_error(), delivery.attempt()), (None, 2));
    drop(delivery);
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!((delivery.raw(), delivery.attempt()), (value.as_bytes(), 3));
    delivery.fail(reason().repeat(2000)).await.unwrap();
    let results = queue.collect(1).await.unwrap();
    assert_eq!((results[0].state(), results[0].error()), (Some(State::Failed), Some("")));
    assert_eq!(counts(&store).await[..4], [0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_leaves_no_room_at_all_is_a_dead_letter_after_its_attempts() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let queue = agent.coordinator.queue(super::root(&store)).max_attempts(1).await.unwrap();
    put_foreign(&store, 800).await;
    soon(queue.take()).await.unwrap().release().because(reason()).await.unwrap();
    assert_eq!(counts(&store).await[..4], [0, 0, 0, 1]);
}

/// The reason of the recovery is shorter than what the take has beside it.
#[tokio::test(start_paused = true)]
async fn an_entry_that_leaves_no_room_at_all_comes_back_when_its_worker_is_gone() {
    let store = Store::memory();
    let (agent, queue) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    let value = put_foreign(&store, 800).await;
    let _delivery = soon(queue.take()).await.unwrap();
    agent.coordinator.shutdown().await.unwrap();
    counts_become(&store, [1, 0, 0, 0, 0]).await;
    let delivery = tokio::time::timeout(30 * SECOND, theirs.take()).await.expect("it is back").unwrap();
    assert_eq!((delivery.raw(), delivery.attempt()), (value.as_bytes(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_long_error_is_shortened_to_what_fits() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    queue.put("x").await.unwrap();
    soon(queue.take()).await.unwrap().fail("e".repeat(2 << 20)).await.unwrap();
    let results = queue.collect(1).await.unwrap();
    let kept = results[0].error().unwrap().len();
    assert!((MAX_REQUEST_BYTES - 8192..MAX_REQUEST_BYTES).contains(&kept), "{kept}");
}

//! The entries of a worker that is gone are delivered again, and an entry whose caller no longer waits is given back.

use std::{future::Future, pin::pin, task::Poll};

use apportion::{
    backend::{CreateMode, Op, memory::LostReply},
    queue::QueueError,
};
use serde_json::json;

use super::{counts, counts_become, names, open, path, payload, values, worker};
use crate::{
    setup::AtOnce as _,
    support::{
        MS, SECOND, alive_tasks, eventually,
        fleet::{Store, delete_recursively, on_both_backends, znode},
        soon,
    },
};

on_both_backends!(
    an_entry_of_a_dead_worker_is_given_back_by_another_process_with_its_attempts,
    a_worker_whose_session_expired_is_refused_and_its_work_goes_on_elsewhere,
    a_delivery_whose_claim_was_deleted_is_lost,
    a_fresh_take_is_never_mistaken_for_an_abandoned_one,
    a_caller_that_stops_waiting_holds_nothing,
    an_entry_of_a_dead_worker_becomes_a_dead_letter_after_the_last_attempt,
    the_receipts_and_tasks_of_a_queue_that_is_dropped_go_with_it,
    waiting_outlasts_the_session,
);

async fn an_entry_of_a_dead_worker_is_given_back_by_another_process_with_its_attempts(store: Store) {
    let (doomed, queue) = worker(&store, "doomed").await;
    queue.put("x").label("l:1").priority(7).await.unwrap();
    let mut delivery = soon(queue.take()).await.unwrap();
    delivery.update("half-way").await.unwrap();
    let (_heir, heirs) = worker(&store, "heir").await;
    let token = delivery.lease().token();
    let _line = doomed.crash();
    let again = tokio::time::timeout(store.expiry() + 10 * SECOND, heirs.take()).await.unwrap().unwrap();
    assert_eq!((payload(&again), again.attempt()), (json!("half-way"), 2));
    assert_eq!((again.entry().priority(), again.entry().label()), (7, "l:1"));
    assert!(again.lease().token() > token);
    assert!(!delivery.lease().is_held());
    again.done("fine").await.unwrap();
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0]);
    drop(delivery);
}

async fn a_worker_whose_session_expired_is_refused_and_its_work_goes_on_elsewhere(store: Store) {
    let (agent, queue) = worker(&store, "a").await;
    for number in 0..4 {
        queue.put(number).await.unwrap();
    }
    let mut deliveries = soon(queue.take_many(4)).await.unwrap();
    agent.expire(&store).await;
    for delivery in &deliveries {
        soon(delivery.lease().lost()).await;
    }
    let lost = |outcome: Result<(), QueueError>| {
        assert!(
            matches!(outcome, Err(QueueError::Lost(_) | QueueError::OutcomeUnknown { .. })),
            "{outcome:?}"
        );
    };
    lost(deliveries[0].update("late").await);
    lost(deliveries.remove(0).done("late").await);
    lost(deliveries.remove(0).fail("late").await);
    lost(deliveries.remove(0).release().await);
    drop(deliveries);
    // Its own tasks, in the new session, have given them back, or the store has theirs to give.
    for _ in 0..4 {
        let again = soon(queue.take()).await.unwrap();
        assert_eq!(again.attempt(), 2);
        again.done("in time").await.unwrap();
    }
    assert_eq!(counts(&store).await, [0, 0, 4, 0, 0]);
    assert!(values(&store, "done").await.values().all(|value| value["result"] == "in time"));
}

async fn a_delivery_whose_claim_was_deleted_is_lost(store: Store) {
    let (_agent, queue) = worker(&store, "a").await;
    queue.put("x").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    let session = store.session().await;
    session.commit(vec![Op::delete(delivery.lease().path(), None)]).await.unwrap();
    assert!(matches!(delivery.done(()).await, Err(QueueError::Lost(_))));
    counts_become(&store, [1, 0, 0, 0, 0]).await;
    assert_eq!(soon(queue.take()).await.unwrap().attempt(), 2);
}

async fn a_fresh_take_is_never_mistaken_for_an_abandoned_one(store: Store) {
    // Several processes check all the time, because the claims change all the time.
    let mut agents = Vec::new();
    for id in 0..3 {
        agents.push(worker(&store, &format!("w-{id}")).await);
    }
    let ended = soon(async {
        let mut ended = 0;
        for number in 0..40 {
            let (_, queue) = &agents[number % 3];
            queue.put(number).await.unwrap();
            let delivery = queue.take().await.unwrap();
            assert_eq!(delivery.attempt(), 1, "it was taken from a live worker");
            if store.is_memory() {
                tokio::time::sleep(37 * MS).await;
            }
            delivery.done(()).await.unwrap();
            ended += 1;
        }
        ended
    });
    assert_eq!(ended.await, 40);
}

async fn a_caller_that_stops_waiting_holds_nothing(store: Store) {
    let (_agent, queue) = worker(&store, "a").await;
    let (_other, puts) = worker(&store, "b").await;
    let mut given_back = 0;
    for stage in 0..40 {
        puts.put(stage).await.unwrap();
        // Seen, so that it is asked for at once.
        let seen = || async { queue.entries().await.unwrap().pop() };
        let put = eventually("seen", 10 * SECOND, seen).await;
        let mut waiting = Box::pin(queue.take());
        // Not only at waits for the store, but at each poll.
        let taken = std::future::poll_fn(|context| match waiting.as_mut().poll(context) {
            Poll::Ready(taken) => Poll::Ready(Some(taken)),
            Poll::Pending => Poll::Ready(None),
        });
        let mut taken = taken.await;
        if taken.is_none() {
            let mut moment = pin!(store.for_a_moment(stage));
            tokio::select! {
                biased;
                () = moment.as_mut() => {}
                outcome = waiting.as_mut() => taken = Some(outcome),
            }
        }
        drop(waiting);
        match taken {
            Some(delivery) => delivery.unwrap().done(()).await.unwrap(),
            None => {
                let back = || async { (counts(&store).await[..2] == [1, 0]).then_some(()) };
                eventually("given back", 10 * SECOND, back).await;
                // It was not delivered, so it does not count.
                let delivery = soon(queue.take()).await.unwrap();
                assert_eq!((payload(&delivery), delivery.attempt()), (json!(stage), 1));
                given_back += usize::from(delivery.entry() != &put);
                delivery.done(()).await.unwrap();
            }
        }
        assert_eq!(counts(&store).await[0], 0);
    }
    assert!(given_back > 0, "no take was dropped half-way");
    counts_become(&store, [0, 0, 40, 0, 0]).await;
}

async fn an_entry_of_a_dead_worker_becomes_a_dead_letter_after_the_last_attempt(store: Store) {
    let agent = store.agent("a").await;
    let queue = agent.coordinator.queue(super::root(&store)).max_attempts(1).at_once().await.unwrap();
    queue.put("poison").label("l").await.unwrap();
    let _delivery = soon(queue.take()).await.unwrap();
    agent.expire(&store).await;
    counts_become(&store, [0, 0, 0, 1, 0]).await;
    let letters = queue.dead_letters().await.unwrap();
    assert_eq!((letters[0].payload(), letters[0].attempts()), (Some(&json!("poison")), 1));
}

async fn the_receipts_and_tasks_of_a_queue_that_is_dropped_go_with_it(store: Store) {
    let agent = store.agent("a").await;
    let tasks = alive_tasks();
    let queue = open(&store, &agent).await;
    for number in 0..5 {
        queue.put(number).await.unwrap();
    }
    assert_eq!(names(&store, "receipts").await.len(), 1, "one for puts that follow each other");
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..4 {
        puts.spawn(queue.put(number).into_future());
    }
    puts.join_all().await.into_iter().for_each(|put| drop(put.unwrap()));
    let receipts = names(&store, "receipts").await.len();
    assert!((1..=4).contains(&receipts), "{receipts}");
    let other = queue.clone();
    drop(queue);
    let delivery = soon(other.take()).await.unwrap();
    drop(other);
    // The delivery keeps what it needs.
    delivery.done(()).await.unwrap();
    drop(delivery);
    // On a server, the sessions of the observers have tasks as well.
    let has_ended = || !store.is_memory() || alive_tasks() <= tasks;
    let gone = || async { (names(&store, "receipts").await.is_empty() && has_ended()).then_some(()) };
    eventually("nothing left", 10 * SECOND, gone).await;
    assert_eq!(counts(&store).await, [8, 0, 1, 0, 0]);
}

async fn waiting_outlasts_the_session(store: Store) {
    let (agent, queue) = worker(&store, "a").await;
    let (_other, puts) = worker(&store, "b").await;
    let mut waiting = pin!(queue.take());
    assert!(tokio::time::timeout(100 * MS, waiting.as_mut()).await.is_err());
    let mut collecting = pin!(queue.collect(1));
    assert!(tokio::time::timeout(100 * MS, collecting.as_mut()).await.is_err());
    agent.expire(&store).await;
    puts.put("x").await.unwrap();
    let delivery = soon(waiting).await.unwrap();
    assert_eq!(payload(&delivery), json!("x"));
    let (done, collected) = tokio::join!(delivery.done("y"), soon(collecting));
    done.unwrap();
    assert_eq!(collected.unwrap()[0].result(), Some(&json!("y")));
    let (data, _) = znode(&*store.session().await, &path(&store, "unowned")).await;
    assert!(data.is_empty());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_results_outlasts_an_outage_of_any_length() {
    let store = Store::memory();
    let (agent, queue) = worker(&store, "a").await;
    queue.put("x").await.unwrap();
    let mut collecting = pin!(queue.collect(1));
    assert!(tokio::time::timeout(100 * MS, collecting.as_mut()).await.is_err());
    store.ensemble().refuse_connections(true);
    store.ensemble().expire(agent.coordinator.session_id().unwrap());
    let waited = tokio::time::timeout(600 * SECOND, collecting.as_mut()).await;
    assert!(waited.is_err(), "{waited:?}");
    store.ensemble().refuse_connections(false);
    let (done, collected) =
        tokio::join!(async { soon(queue.take()).await.unwrap().done("y").await }, soon(collecting));
    done.unwrap();
    assert_eq!(collected.unwrap()[0].result(), Some(&json!("y")));
}

#[tokio::test(start_paused = true)]
async fn an_entry_with_the_name_of_an_earlier_one_is_not_given_back() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    let (_looks, _other) = worker(&store, "b").await;
    let session = store.session().await;
    queue.put("x").label("l").await.unwrap();
    let first = soon(queue.take()).await.unwrap();
    // Time for all processes to see it.
    tokio::time::sleep(5 * SECOND).await;
    delete_recursively(&*session, &store.path("queue")).await;
    queue.put("y").label("l").await.unwrap();
    let second = soon(queue.take()).await.unwrap();
    assert_eq!(payload(&second), json!("y"));
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(counts(&store).await, [0, 1, 0, 0, 1]);
    second.done(()).await.unwrap();
    assert!(matches!(first.done(()).await, Err(QueueError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_was_removed_costs_no_work() {
    for folder in ["done", "dead", "unowned", "labels"] {
        let store = Store::memory();
        let agent = store.agent("a").await;
        let queue = agent.coordinator.queue(super::root(&store)).max_attempts(2).at_once().await.unwrap();
        let session = store.session().await;
        let mut waiting = Box::pin(queue.collect(1));
        assert!(tokio::time::timeout(SECOND, waiting.as_mut()).await.is_err());
        queue.put("x").label("l").await.unwrap();
        for attempt in 1..=2 {
            let delivery = soon(queue.take()).await.unwrap();
            assert_eq!(delivery.attempt(), attempt, "{folder}");
            delete_recursively(&*session, &path(&store, folder)).await;
            // The folder of the labels is not created in the same transaction: the entry comes back a moment later.
            let released = delivery.release().await;
            assert_eq!(released.is_err(), folder == "labels" && attempt == 1, "{folder} {released:?}");
            let free = || async { names(&store, "owned").await.is_empty().then_some(()) };
            eventually("nothing owned", 30 * SECOND, free).await;
        }
        assert_eq!(queue.dead_letters().await.unwrap().len(), 1, "{folder}");
        queue.put("y").label("l").await.unwrap();
        let delivery = soon(queue.take()).await.unwrap();
        delete_recursively(&*session, &path(&store, folder)).await;
        delivery.done("fine").await.unwrap();
        assert_eq!(soon(waiting).await.unwrap()[0].result(), Some(&json!("fine")), "{folder}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_had_comes_back_although_the_connection_breaks_at_each_attempt_for_a_while() {
    let store = Store::memory();
    let (doomed, queue) = worker(&store, "doomed").await;
    queue.put("x").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    let (heir, heirs) = worker(&store, "heir").await;
    let writes = heir.faults().calls().writes;
    (1..=20).for_each(|n| heir.faults().lose_nth_write(writes + n, LostReply::BeforeApplying));
    let _line = doomed.crash();
    let again = soon(heirs.take()).await.unwrap();
    assert_eq!((payload(&again), again.attempt()), (json!("x"), 2));
    assert!(heir.faults().calls().writes > writes + 20);
    drop(delivery);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_had_comes_back_however_many_numbers_are_taken_in_a_restored_tree() {
    let store = Store::memory();
    let (doomed, queue) = worker(&store, "doomed").await;
    queue.put("x").label("l").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    let (_heir, heirs) = worker(&store, "heir").await;
    let session = store.session().await;
    // A tree that was restored from a backup: the names are there, and the numbers begin anew.
    let name = |number: usize| path(&store, "unowned").join(&format!("entry-100-l-{number:010}")).unwrap();
    for number in 9_001..18_001 {
        session.commit(vec![Op::create(&name(number), "{}", CreateMode::Persistent)]).await.unwrap();
    }
    let _line = doomed.crash();
    let free = || async { names(&store, "owned").await.is_empty().then_some(()) };
    eventually("nothing owned", 120 * SECOND, free).await;
    assert_eq!(heirs.entries().await.unwrap().len(), 9_001);
    drop(delivery);
}

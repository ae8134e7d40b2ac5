//! Entries and folders that an access control list denies to one process.

use apportion::{
    backend::{Error as BackendError, Op},
    queue::QueueError,
};
use serde_json::json;

use super::{fated, names, path, payload, root, worker};
use crate::setup::AtOnce as _;
use crate::support::{SECOND, eventually, fate::Fate, fleet::Store, soon};

#[tokio::test(start_paused = true)]
async fn a_result_that_is_denied_does_not_keep_later_ones_from_being_collected() {
    let store = Store::memory();
    let (agent, queue) = worker(&store, "a").await;
    for number in 0..4 {
        queue.put(number).await.unwrap();
        soon(queue.take()).await.unwrap().done(number).await.unwrap();
    }
    for name in &names(&store, "done").await[..2] {
        agent.faults().deny(&path(&store, "done").join(name).unwrap());
    }
    let results =
        tokio::time::timeout(60 * SECOND, queue.collect(1)).await.expect("there are results").unwrap();
    assert_eq!(results[0].result(), Some(&json!(2)));
    let results = queue.try_collect(10).await.unwrap();
    assert_eq!(
        results.iter().map(|it| it.result().cloned().unwrap()).collect::<Vec<_>>(),
        [json!(2), json!(3)]
    );
}

#[tokio::test(start_paused = true)]
async fn results_that_may_not_be_deleted_are_not_taken_for_those_of_another_collector() {
    let store = Store::memory();
    let (agent, queue) = worker(&store, "a").await;
    queue.put("x").await.unwrap();
    soon(queue.take()).await.unwrap().done("y").await.unwrap();
    let results = queue.try_collect(10).await.unwrap();
    agent.faults().deny(&path(&store, "done"));
    let confirmed = results.confirm().await;
    let refused = matches!(&confirmed, Err(QueueError::Service(apportion::Error::NotPermitted { .. })));
    assert!(refused, "{confirmed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_denied_counts_as_queued() {
    let store = Store::memory();
    let (agent, queue) = worker(&store, "a").await;
    let (_other, others) = worker(&store, "b").await;
    others.put("x").label("l").await.unwrap();
    agent.faults().deny(&path(&store, "unowned").join(&names(&store, "unowned").await[0]).unwrap());
    for _ in 0..2 {
        let again = queue.put("again").unless_queued("l").await;
        assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn owned_entries_that_are_denied_cost_no_other_and_are_not_asked_for_again_and_again() {
    let store = Store::memory();
    let (doomed, queue) = worker(&store, "doomed").await;
    for number in 0..6 {
        queue.put(number).await.unwrap();
    }
    let deliveries = soon(queue.take_many(6)).await.unwrap();
    let (heir, heirs) = worker(&store, "heir").await;
    // It has read all of them.
    tokio::time::sleep(5 * SECOND).await;
    for name in &names(&store, "owned").await[..3] {
        heir.faults().deny(&path(&store, "owned").join(name).unwrap());
    }
    let _line = doomed.crash();
    let back = || async { (heirs.len().await.unwrap() == 3).then_some(()) };
    eventually("what is not denied", 120 * SECOND, back).await;
    let lists = heir.faults().calls().lists;
    tokio::time::sleep(60 * SECOND).await;
    let lists = heir.faults().calls().lists - lists;
    assert!(lists < 10, "{lists} listings in a minute in which nothing has happened");
    drop(deliveries);
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_reply_is_lost_is_unknown_where_results_cannot_be_listed() {
    let store = Store::memory();
    let (_coordinator, queue, fates) = fated(&store).await;
    queue.put("x").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    let done = path(&store, "done");
    fates.decide(move |request| match request {
        request if request.is_write() => Fate::LoseReply,
        request if request.is_list() && request.paths()[0] == &done => {
            Fate::Refuse(BackendError::NotPermitted)
        }
        _ => Fate::Pass,
    });
    let ended = tokio::time::timeout(60 * SECOND, delivery.done("y")).await.expect("it comes to an end");
    assert!(matches!(ended, Err(QueueError::OutcomeUnknown { .. })), "{ended:?}");
    assert_eq!(names(&store, "done").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_given_back_if_its_reply_is_lost_and_it_cannot_be_found() {
    let store = Store::memory();
    let (_coordinator, queue, fates) = fated(&store).await;
    let (_heir, _heirs) = worker(&store, "heir").await;
    queue.put("x").await.unwrap();
    let (owned, mut is_lost) = (path(&store, "owned"), false);
    fates.decide(move |request| match request {
        request if request.is_write() && !std::mem::replace(&mut is_lost, true) => Fate::LoseReply,
        request if request.is_list() && request.paths()[0] == &owned => {
            Fate::Refuse(BackendError::NotPermitted)
        }
        _ => Fate::Pass,
    });
    let delivery = tokio::time::timeout(60 * SECOND, queue.take()).await.expect("it is taken again").unwrap();
    assert_eq!(payload(&delivery), json!("x"));
    delivery.done("y").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_ends_at_once_although_a_claim_cannot_be_given_back() {
    let store = Store::memory();
    let (coordinator, queue, fates) = fated(&store).await;
    queue.put("x").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    fates.decide(|request| match request {
        request if request.is_write() => Fate::Refuse(BackendError::NotPermitted),
        _ => Fate::Pass,
    });
    drop(delivery);
    tokio::time::sleep(20 * SECOND).await;
    let ended = tokio::time::timeout(SECOND, coordinator.shutdown()).await;
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn an_update_under_a_claim_that_an_operator_has_changed_is_lost() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    queue.put("x").await.unwrap();
    let mut delivery = soon(queue.take()).await.unwrap();
    let change = vec![Op::set(delivery.lease().path(), "changed", None)];
    store.session().await.commit(change).await.unwrap();
    let updated = delivery.update("y").await;
    assert!(matches!(updated, Err(QueueError::Lost(_))), "{updated:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_release_is_refused_once_keeps_the_reason() {
    let store = Store::memory();
    let (coordinator, _, fates) = fated(&store).await;
    let queue = coordinator.queue(root(&store)).max_attempts(1).at_once().await.unwrap();
    let (dead, mut is_refused) = (path(&store, "dead"), false);
    fates.decide(move |request| {
        let is_dead = request.paths().iter().any(|path| path.parent().as_ref() == Some(&dead));
        match request.is_write() && is_dead && !std::mem::replace(&mut is_refused, true) {
            true => Fate::Refuse(BackendError::NotPermitted),
            false => Fate::Pass,
        }
    });
    queue.put("x").await.unwrap();
    soon(queue.take()).await.unwrap().release().because("no space left").await.unwrap_err();
    let letter = || async { queue.dead_letters().await.unwrap().pop() };
    let letter = eventually("a dead letter", 60 * SECOND, letter).await;
    assert_eq!(letter.error(), Some("no space left"));
}

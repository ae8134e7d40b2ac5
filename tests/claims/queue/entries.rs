//! Entries that are put, taken, ended and collected, and the znodes after each step.

use super::*;
use crate::support::{MS, fleet::on_both_backends, soon};

on_both_backends!(
    an_entry_goes_from_unowned_to_owned_to_done_and_to_the_collector,
    the_highest_priority_comes_first_and_the_oldest_within_one,
    a_worker_chooses_by_label_and_by_preference,
    several_are_taken_at_once,
    a_waiting_worker_gets_an_entry_that_another_process_puts_later,
    a_failed_entry_is_collected_with_its_error,
    a_released_entry_is_delivered_again_with_its_updated_payload,
    an_entry_that_is_delivered_too_often_is_a_dead_letter_that_can_be_revived_or_discarded,
    each_result_is_confirmed_by_one_collector,
    the_oldest_results_are_removed_if_they_are_not_collected,
    each_of_many_entries_is_done_once_by_several_workers,
);

async fn an_entry_goes_from_unowned_to_owned_to_done_and_to_the_collector(store: Store) {
    let (agent, queue) = worker(&store, "w").await;
    queue.put(json!({ "x": 1 })).label("taxi:42").await.unwrap();
    let waiting = values(&store, "unowned").await;
    let value = json!({ "dataset": "taxi", "groupid": "42", "state": 1, "payload": { "x": 1 } });
    assert_eq!(waiting, BTreeMap::from([("entry-100-taxi:42-0000000000".into(), value)]));
    assert_eq!(queue.len().await.unwrap(), 1);

    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!((delivery.entry().label(), delivery.entry().priority()), ("taxi:42", 100));
    assert_eq!((payload(&delivery), delivery.attempt()), (json!({ "x": 1 }), 1));
    assert!(delivery.lease().is_held());
    assert_eq!(Some(delivery.lease().session_id()), agent.coordinator.session_id());
    assert_eq!(counts(&store).await, [0, 1, 0, 0, 1]);
    let claim = names(&store, "claims").await.remove(0);
    let value = json!({
        "dataset": "taxi", "groupid": "42", "state": 3, "payload": { "x": 1 },
        "worker": "w", "claim": claim, "attempt": 1,
    });
    assert_eq!(
        values(&store, "owned").await,
        BTreeMap::from([("entry-100-taxi:42-0000000000".into(), value)])
    );

    delivery.done(json!(["fine"])).await.unwrap();
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0]);
    let value = &values(&store, "done").await["entry-100-taxi:42-0000000000"];
    assert_eq!((&value["state"], &value["result"]), (&json!(4), &json!(["fine"])));

    let results = soon(queue.collect(10)).await.unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].state(), Some(State::Successful));
    assert_eq!(
        (results[0].result(), results[0].payload()),
        (Some(&json!(["fine"])), Some(&json!({ "x": 1 })))
    );
    assert_eq!((results[0].worker(), results[0].attempts(), results[0].error()), (Some("w"), 1, None));
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0], "they stay until they are confirmed");
    assert_eq!(results.confirm().await.unwrap().len(), 1);
    assert_eq!(counts(&store).await, [0; 5]);
    assert!(queue.try_take().await.unwrap().is_none() && queue.try_collect(9).await.unwrap().is_empty());
}

async fn the_highest_priority_comes_first_and_the_oldest_within_one(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    for (priority, name) in [(100, "a"), (5, "b"), (999, "c"), (100, "d"), (0, "e"), (999, "f"), (42, "g")] {
        queue.put(name).priority(priority).label(format!("label-{name}:1")).await.unwrap();
    }
    let order: Vec<_> = queue.entries().await.unwrap().iter().map(|it| it.label().to_owned()).collect();
    let expected = ["c", "f", "a", "d", "g", "b", "e"];
    assert_eq!(order, expected.map(|name| format!("label-{name}:1")));
    let (_other, other) = worker(&store, "other").await;
    for (number, name) in expected.into_iter().enumerate() {
        // Two workers, one order.
        let queue = if number % 2 == 0 { &queue } else { &other };
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(payload(&delivery), json!(name));
        let priority = delivery.entry().priority();
        delivery.done(()).await.unwrap();
        let done = names(&store, "done").await;
        assert!(
            done.iter().any(|it| it.starts_with(&format!("entry-{priority:03}-label-{name}:1-"))),
            "{done:?}"
        );
    }
}

async fn a_worker_chooses_by_label_and_by_preference(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    for (priority, label) in [(100, "a"), (100, "b"), (200, "c"), (50, "a")] {
        queue.put(label).priority(priority).label(label).await.unwrap();
    }
    let one = soon(queue.take_where(|entry| entry.label() == "b")).await.unwrap();
    assert_eq!(one.entry().label(), "b");
    assert!(queue.try_take_where(|entry| entry.label() == "b").await.unwrap().is_none());
    let two = soon(queue.take_preferring(|entry| entry.label() == "a")).await.unwrap();
    assert_eq!((two.entry().label(), two.entry().priority()), ("a", 100));
    let three = queue.try_take_preferring(|entry| entry.label() == "x").await.unwrap().unwrap();
    assert_eq!(three.entry().label(), "c", "nothing matches: the head");
    let waits = tokio::time::timeout(200 * MS, queue.take_where(|entry| entry.label() == "c")).await;
    assert!(waits.is_err(), "it waits for a match");
    assert_eq!(counts(&store).await, [1, 3, 0, 0, 3]);
}

async fn several_are_taken_at_once(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    for number in 0..5 {
        queue.put(number).priority(number).await.unwrap();
    }
    let taken = soon(queue.take_many(3)).await.unwrap();
    assert_eq!(taken.iter().map(payload).collect::<Vec<_>>(), [4, 3, 2].map(|number| json!(number)));
    let rest = queue.try_take_many(10).await.unwrap();
    assert_eq!(rest.iter().map(payload).collect::<Vec<_>>(), [1, 0].map(|number| json!(number)));
    assert!(queue.try_take_many(10).await.unwrap().is_empty());
    assert!(soon(queue.take_many(0)).await.unwrap().is_empty());
    assert_eq!(counts(&store).await, [0, 5, 0, 0, 5]);
}

async fn a_waiting_worker_gets_an_entry_that_another_process_puts_later(store: Store) {
    let (_one, takes) = worker(&store, "takes").await;
    let (_two, puts) = worker(&store, "puts").await;
    let mut ready = std::pin::pin!(takes.wait_for_work());
    assert!(tokio::time::timeout(100 * MS, ready.as_mut()).await.is_err());
    puts.put("late").await.unwrap();
    soon(ready).await.unwrap();
    let first = soon(takes.take()).await.unwrap();
    assert_eq!(payload(&first), json!("late"));
    let mut waiting = std::pin::pin!(takes.take());
    assert!(tokio::time::timeout(100 * MS, waiting.as_mut()).await.is_err());
    puts.put("later").await.unwrap();
    assert_eq!(payload(&soon(waiting).await.unwrap()), json!("later"));
}

async fn a_failed_entry_is_collected_with_its_error(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    queue.put("bad").label("l:1").await.unwrap();
    soon(queue.take()).await.unwrap().fail("out of cheese").await.unwrap();
    let value = &values(&store, "done").await["entry-100-l:1-0000000000"];
    assert_eq!((&value["state"], &value["error"]), (&json!(5), &json!("out of cheese")));
    let results = soon(queue.collect(1)).await.unwrap();
    assert_eq!((results[0].state(), results[0].error()), (Some(State::Failed), Some("out of cheese")));
    assert_eq!(results[0].result(), None);
}

async fn a_released_entry_is_delivered_again_with_its_updated_payload(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    queue.put(json!({ "step": 0 })).label("l:1").priority(7).await.unwrap();
    let mut delivery = soon(queue.take()).await.unwrap();
    for step in 1..=3 {
        delivery.update(json!({ "step": step })).await.unwrap();
        assert_eq!(payload(&delivery), json!({ "step": step }));
    }
    let first = delivery.lease().token();
    delivery.release().await.unwrap();
    assert_eq!(counts(&store).await, [1, 0, 0, 0, 0]);
    let waiting = values(&store, "unowned").await;
    let value = json!({ "dataset": "l", "groupid": "1", "state": 1, "payload": { "step": 3 }, "attempt": 1 });
    assert_eq!(waiting.into_values().next(), Some(value));
    let again = soon(queue.take()).await.unwrap();
    assert_eq!((payload(&again), again.attempt()), (json!({ "step": 3 }), 2));
    assert_eq!((again.entry().label(), again.entry().priority()), ("l:1", 7));
    assert!(again.token() > first);
    // Dropped, it is given back as well, and the attempt counts.
    drop(again);
    counts_become(&store, [1, 0, 0, 0, 0]).await;
    let third = soon(queue.take()).await.unwrap();
    assert_eq!((payload(&third), third.attempt()), (json!({ "step": 3 }), 3));
}

async fn an_entry_that_is_delivered_too_often_is_a_dead_letter_that_can_be_revived_or_discarded(
    store: Store,
) {
    let agent = store.agent("w").await;
    let queue = agent.coordinator.queue(root(&store)).max_attempts(2).at_once().await.unwrap();
    for label in ["poison", "other"] {
        queue.put(label).label(label).await.unwrap();
    }
    for _ in 0..2 {
        soon(queue.take_where(|entry| entry.label() == "poison")).await.unwrap().release().await.unwrap();
    }
    assert_eq!(counts(&store).await, [1, 0, 0, 1, 0]);
    let letters = queue.dead_letters().await.unwrap();
    assert_eq!((letters.len(), letters[0].attempts(), letters[0].payload()), (1, 2, Some(&json!("poison"))));
    assert!(queue.revive(&letters[0]).await.unwrap());
    assert!(!queue.revive(&letters[0]).await.unwrap(), "it is gone");
    assert_eq!(counts(&store).await, [2, 0, 0, 0, 0]);
    for _ in 0..2 {
        let delivery = soon(queue.take_where(|entry| entry.label() == "poison")).await.unwrap();
        drop(delivery);
        counts_become_without_claims(&store).await;
    }
    assert_eq!(counts(&store).await, [1, 0, 0, 1, 0]);
    let letters = queue.dead_letters().await.unwrap();
    assert!(queue.discard(&letters[0]).await.unwrap() && !queue.discard(&letters[0]).await.unwrap());
    assert_eq!(counts(&store).await, [1, 0, 0, 0, 0]);
}

async fn counts_become_without_claims(store: &Store) {
    let free = || async { (counts(store).await[4] == 0).then_some(()) };
    eventually("no claims", 30 * SECOND, free).await;
}

async fn each_result_is_confirmed_by_one_collector(store: Store) {
    let (_one, one) = worker(&store, "one").await;
    let (_two, two) = worker(&store, "two").await;
    for number in 0..7 {
        one.put(number).await.unwrap();
        soon(one.take()).await.unwrap().done(number).await.unwrap();
    }
    let first = soon(one.collect(5)).await.unwrap();
    let second = soon(two.collect(7)).await.unwrap();
    assert_eq!((first.len(), second.len()), (5, 7));
    let (first, second) = tokio::join!(first.confirm(), second.confirm());
    let results = [first.unwrap(), second.unwrap()].concat();
    let confirmed: Vec<_> = results.iter().map(|result| result.result().unwrap().as_i64().unwrap()).collect();
    assert_eq!(confirmed.len(), 7);
    assert_eq!(BTreeSet::from_iter(confirmed), BTreeSet::from_iter(0..7));
    assert_eq!(counts(&store).await, [0; 5]);
}

async fn the_oldest_results_are_removed_if_they_are_not_collected(store: Store) {
    let agent = store.agent("w").await;
    let queue = agent.coordinator.queue(root(&store)).keep_results(3).at_once().await.unwrap();
    for number in 0..8 {
        queue.put(number).priority(number * 10).await.unwrap();
        soon(queue.take()).await.unwrap().done(number).await.unwrap();
    }
    counts_become(&store, [0, 0, 3, 0, 0]).await;
    let results = queue.try_collect(100).await.unwrap();
    let kept: Vec<_> = results.iter().map(|result| result.result().unwrap().as_i64().unwrap()).collect();
    assert_eq!(kept, [5, 6, 7]);
}

async fn each_of_many_entries_is_done_once_by_several_workers(store: Store) {
    const ENTRIES: usize = 60;
    let (_agent, puts) = worker(&store, "puts").await;
    for number in 0..ENTRIES {
        puts.put(number).label(format!("l:{}", number % 7)).await.unwrap();
    }
    let mut workers = tokio::task::JoinSet::new();
    for id in 0..5 {
        let (agent, queue) = worker(&store, &format!("w-{id}")).await;
        workers.spawn(async move {
            let mut count = 0;
            while let Some(delivery) = queue.try_take().await.unwrap() {
                let number = payload(&delivery);
                tokio::task::yield_now().await;
                delivery.done(number).await.unwrap();
                count += 1;
            }
            drop(agent);
            count
        });
    }
    let counted: Vec<usize> = soon(workers.join_all()).await;
    assert_eq!(counted.iter().sum::<usize>(), ENTRIES, "{counted:?}");
    assert_eq!(counts(&store).await, [0, 0, ENTRIES, 0, 0]);
    let done = values(&store, "done").await;
    let results: BTreeSet<_> = done.values().map(|value| value["result"].as_u64().unwrap()).collect();
    assert_eq!(results.len(), ENTRIES);
    assert!(done.values().all(|value| value["attempt"] == 1), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_backend_there_is_no_queue_and_the_error_says_what_to_do() {
    let alone = PartitionCoordinator::standalone();
    let error = alone.queue("/q").at_once().await.unwrap_err();
    assert!(
        matches!(error, QueueError::NoBackend) && error.to_string().contains("backend::Memory"),
        "{error}"
    );
    let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await.unwrap();
    for bad in ["", "q", "/q/", "/q//r", "/\u{0}"] {
        let error = coordinator.queue(bad).at_once().await.unwrap_err();
        assert!(matches!(error, QueueError::Path { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_each_call_returns_an_error() {
    let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await.unwrap();
    let queue = coordinator.queue("/q").at_once().await.unwrap();
    queue.put(1).await.unwrap();
    let delivery = queue.take().await.unwrap();
    coordinator.shutdown().await.unwrap();
    let hour = Duration::from_secs(3600);
    let closed = |outcome: Result<(), QueueError>| {
        assert!(matches!(outcome, Err(QueueError::Closed { .. })), "{outcome:?}");
    };
    tokio::time::timeout(hour, async {
        closed(queue.put(2).await.map(drop));
        closed(queue.take().await.map(drop));
        closed(queue.try_take().await.map(drop));
        closed(queue.wait_for_work().await);
        closed(queue.entries().await.map(drop));
        closed(queue.collect(1).await.map(drop));
        closed(queue.len().await.map(drop));
        closed(delivery.done(()).await);
        closed(coordinator.queue("/q").at_once().await.map(drop));
    })
    .await
    .expect("it answers");
}

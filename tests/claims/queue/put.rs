//! Valid entries are put once, and invalid ones are refused.

use apportion::{
    backend::{CreateMode, Op},
    queue::{MAX_VALUE_BYTES, QueueError},
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{counts, fated, names, open, path, payload, root, values, worker};
use crate::{
    setup::AtOnce as _,
    support::{
        EITHER, SECOND, eventually,
        fleet::{Store, delete_recursively, on_both_backends},
        soon,
    },
};

on_both_backends!(
    a_full_queue_refuses_a_put_until_an_entry_was_taken,
    an_entry_with_a_label_is_put_once_while_it_is_queued,
    of_many_puts_of_the_same_label_at_once_one_succeeds,
    an_invalid_entry_is_refused_before_it_is_sent,
    the_largest_entry_can_be_put_taken_given_back_updated_and_ended,
    a_result_that_is_too_large_leaves_the_delivery_in_hand,
    what_is_put_every_process_can_read,
    many_puts_at_once_do_not_exceed_the_limit,
    payloads_of_all_kinds_arrive_as_they_were_put,
);

async fn a_full_queue_refuses_a_put_until_an_entry_was_taken(store: Store) {
    let agent = store.agent("a").await;
    let queue = agent.coordinator.queue(root(&store)).max_len(3).at_once().await.unwrap();
    for number in 0..3 {
        queue.put(number).await.unwrap();
    }
    let full = queue.put(3).await;
    assert!(matches!(full, Err(QueueError::Full { len: 3, max_len: 3 })), "{full:?}");
    // Another process that has not put anything yet counts first.
    let other = store.agent("b").await;
    let others = other.coordinator.queue(root(&store)).max_len(3).at_once().await.unwrap();
    assert!(matches!(others.put(3).await, Err(QueueError::Full { .. })));
    let _taken = soon(others.take()).await.unwrap();
    queue.put(3).await.unwrap();
    assert!(matches!(queue.put(4).await, Err(QueueError::Full { .. })));
    let none = agent.coordinator.queue(root(&store)).max_len(0).at_once().await.unwrap();
    assert!(matches!(none.put(4).await, Err(QueueError::Full { max_len: 0, .. })));
    assert_eq!(counts(&store).await[..2], [3, 1]);
}

async fn an_entry_with_a_label_is_put_once_while_it_is_queued(store: Store) {
    let (_agent, queue) = worker(&store, "a").await;
    let (_other, others) = worker(&store, "b").await;
    let refused = async |label: &str| {
        for queue in [&queue, &others] {
            let again = queue.put("again").unless_queued(label).await;
            assert!(
                matches!(&again, Err(QueueError::AlreadyQueued { label: it }) if it == label),
                "{again:?}"
            );
        }
    };
    queue.put("x").unless_queued("l:1").await.unwrap();
    refused("l:1").await;
    others.put("y").unless_queued("l:2").await.unwrap();
    let delivery = soon(queue.take_where(|entry| entry.label() == "l:1")).await.unwrap();
    refused("l:1").await;
    delivery.release().await.unwrap();
    refused("l:1").await;
    soon(others.take_where(|entry| entry.label() == "l:1")).await.unwrap().done(()).await.unwrap();
    others.put("z").unless_queued("l:1").await.unwrap();
    refused("l:1").await;
    // One that was put without asking counts as well, and so does one of the original's dispatcher.
    queue.put("w").label("l:3").await.unwrap();
    refused("l:3").await;
    let session = store.session().await;
    let python = path(&store, "owned").join("entry-100-taxi:42-").unwrap();
    session.commit(vec![Op::create(&python, "{}", CreateMode::PersistentSequential)]).await.unwrap();
    for agent in ["c", "d"] {
        let (_agent, queue) = worker(&store, agent).await;
        let again = queue.put("again").unless_queued("taxi:42").await;
        assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");
    }
    // Also one that was put since this process has listed what waits.
    let python = path(&store, "unowned").join("entry-100-bus:7-").unwrap();
    session.commit(vec![Op::create(&python, "{}", CreateMode::PersistentSequential)]).await.unwrap();
    refused("bus:7").await;
    // Without a label there is nothing to be equal to.
    queue.put("a").unless_queued("").await.unwrap();
    queue.put("a").unless_queued("").await.unwrap();
}

async fn of_many_puts_of_the_same_label_at_once_one_succeeds(store: Store) {
    let mut agents = Vec::new();
    for id in 0..4 {
        agents.push(worker(&store, &format!("w-{id}")).await);
    }
    for round in 0..5 {
        let label = format!("l:{round}");
        let mut puts = JoinSet::new();
        for (_, queue) in agents.iter().chain(&agents) {
            puts.spawn(queue.put("x").unless_queued(&*label).into_future());
        }
        let mut through = 0;
        for put in soon(puts.join_all()).await {
            match put {
                Ok(_) => through += 1,
                Err(QueueError::AlreadyQueued { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(through, 1, "round {round}");
        let queued = names(&store, "unowned").await;
        assert_eq!(queued.iter().filter(|name| name.contains(&label)).count(), 1, "{queued:?}");
    }
}

async fn an_invalid_entry_is_refused_before_it_is_sent(store: Store) {
    let (agent, queue) = worker(&store, "a").await;
    let writes = agent.faults().calls().writes;
    for priority in [1000, u16::MAX] {
        assert!(matches!(queue.put(1).priority(priority).await, Err(QueueError::Priority { .. })));
    }
    for label in ["a/b", "l-", "\u{0}", "\u{1f600}", &"x".repeat(201)] {
        for put in [queue.put(1).label(label), queue.put(1).unless_queued(label)] {
            assert!(matches!(put.await, Err(QueueError::Label { .. })), "{label}");
        }
    }
    let large = queue.put("x".repeat(MAX_VALUE_BYTES)).await;
    assert!(matches!(large, Err(QueueError::TooLarge { bytes, .. }) if bytes > MAX_VALUE_BYTES), "{large:?}");
    let unwritable = std::collections::BTreeMap::from([(vec![1], 2)]);
    assert!(matches!(queue.put(unwritable).await, Err(QueueError::Payload { .. })));
    assert_eq!(agent.faults().calls().writes, writes);
    assert_eq!(counts(&store).await, [0; 5]);
}

async fn what_is_put_every_process_can_read(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let nested = |depth| (0..depth).fold(json!(7), |inner, _| json!([inner]));
    for depth in [101, 126, 200] {
        let refused = ours.put(nested(depth)).await;
        assert!(matches!(refused, Err(QueueError::Payload { .. })), "{depth}: {refused:?}");
    }
    ours.put(nested(100)).await.unwrap();
    let delivery = soon(theirs.take()).await.unwrap();
    assert_eq!(delivery.payload(), Some(&nested(100)));
    delivery.done(nested(100)).await.unwrap();
    assert_eq!(ours.collect(1).await.unwrap()[0].result(), Some(&nested(100)));
}

async fn many_puts_at_once_do_not_exceed_the_limit(store: Store) {
    let agents = [store.agent("a").await, store.agent("b").await, store.agent("c").await];
    let mut queues = Vec::new();
    for agent in &agents {
        queues.push(agent.coordinator.queue(root(&store)).max_len(100).await.unwrap());
    }
    let put_all = async |queues: &[apportion::queue::WorkQueue]| {
        let mut puts = JoinSet::new();
        for number in 0..300 {
            puts.spawn(queues[number % queues.len()].put(number).into_future());
        }
        let outcomes = soon(puts.join_all()).await;
        let is_full = |put: &Result<_, QueueError>| matches!(put, Err(QueueError::Full { .. }));
        assert!(outcomes.iter().all(|put| put.is_ok() || is_full(put)), "{outcomes:?}");
        outcomes.iter().filter(|put| put.is_ok()).count()
    };
    assert_eq!(put_all(&queues[..1]).await, 100, "one process is exact");
    while let Some(delivery) = soon(queues[0].try_take()).await.unwrap() {
        delivery.done(()).await.unwrap();
    }
    let put = put_all(&queues).await;
    assert!((100..=102).contains(&put), "{put} by three processes");
    assert_eq!(counts(&store).await[0], put);
}

/// The largest payload that can be put.
fn largest() -> String {
    let id = "0".repeat(32);
    let rest = format!(r#"{{"dataset":"","groupid":"","state":1,"payload":"","id":"{id}"}}"#).len();
    "x".repeat(MAX_VALUE_BYTES - rest)
}

async fn the_largest_entry_can_be_put_taken_given_back_updated_and_ended(store: Store) {
    let (_agent, queue) = worker(&store, "a").await;
    let larger = queue.put(largest() + "x").await;
    assert!(matches!(larger, Err(QueueError::TooLarge { .. })), "{larger:?}");
    queue.put(largest()).await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    // The longest reason that is kept: each of its characters takes six bytes.
    delivery.release().because("\u{1}".repeat(2000)).await.unwrap();
    let mut delivery = soon(queue.take()).await.unwrap();
    assert_eq!(delivery.last_error().map(str::len), Some(1000));
    delivery.update(largest()).await.unwrap();
    delivery.done("a result").await.unwrap();
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0]);
}

async fn a_result_that_is_too_large_leaves_the_delivery_in_hand(store: Store) {
    let (_agent, queue) = worker(&store, "a").await;
    queue.put("x").await.unwrap();
    let mut delivery = soon(queue.take()).await.unwrap();
    for _ in 0..2 {
        let large = delivery.done("y".repeat(MAX_VALUE_BYTES + 16 * 1024)).await;
        assert!(matches!(large, Err(QueueError::TooLarge { .. })), "{large:?}");
        let deep = (0..200).fold(json!(null), |inner, _| json!([inner]));
        assert!(matches!(delivery.done(deep).await, Err(QueueError::Payload { .. })));
        let large = delivery.update("x".repeat(MAX_VALUE_BYTES + 8 * 1024)).await;
        assert!(matches!(large, Err(QueueError::TooLarge { .. })), "{large:?}");
    }
    delivery.fail("the result is too large").await.unwrap();
    assert!(matches!(delivery.done("y").await, Err(QueueError::Lost(_))), "it ends once");
    drop(delivery);
    let results = queue.collect(10).await.unwrap();
    assert_eq!((results.len(), results[0].attempts()), (1, 1));
    assert_eq!(results[0].error(), Some("the result is too large"));
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0]);
}

async fn payloads_of_all_kinds_arrive_as_they_were_put(store: Store) {
    let (_agent, queue) = worker(&store, "a").await;
    let deep = (0..50).fold(json!(null), |inner, _| json!([inner]));
    for payload_put in
        [json!(null), json!(-1.5), json!("группа\u{1f600}\n"), json!([]), json!({ "z": 1, "a": {} }), deep]
    {
        queue.put(&payload_put).await.unwrap();
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(payload(&delivery), payload_put);
        assert_eq!(delivery.payload_as::<serde_json::Value>().unwrap(), payload_put);
        delivery.done(&payload_put).await.unwrap();
        let result = soon(queue.collect(1)).await.unwrap();
        assert_eq!((result[0].payload(), result[0].result()), (Some(&payload_put), Some(&payload_put)));
        result.confirm().await.unwrap();
    }
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Report {
        day: u32,
    }
    queue.put(Report { day: 3 }).await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!(delivery.payload_as::<Report>().unwrap(), Report { day: 3 });
    assert!(delivery.payload_as::<String>().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_caller_no_longer_waits_is_done_once() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    for stage in 0..20 {
        let mut put = Box::pin(queue.put(stage).into_future());
        let mut moment = std::pin::pin!(store.for_a_moment(stage));
        tokio::select! {
            biased;
            () = moment.as_mut() => {}
            done = put.as_mut() => drop(done.unwrap()),
        }
        drop(put);
    }
    let known = || async {
        let values = values(&store, "unowned").await;
        let mut put: Vec<_> = values.values().map(|value| value["payload"].as_u64().unwrap()).collect();
        let count = put.len();
        put.dedup();
        assert_eq!(put.len(), count, "{put:?}");
        // Those that were never polled have done nothing.
        (count >= 18).then_some(())
    };
    eventually("all that were begun", 10 * SECOND, known).await;
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_reply_is_lost_is_there_once_whether_it_arrived_or_not() {
    for lost in EITHER {
        let store = Store::memory();
        let (agent, queue) = worker(&store, "a").await;
        // The first makes its receipt, the others use it again.
        for number in 0..3 {
            agent.faults().lose_nth_write(agent.faults().calls().writes + 1, lost);
            queue.put(number).unless_queued(format!("l:{number}")).await.unwrap();
        }
        assert_eq!(counts(&store).await, [3, 0, 0, 0, 0], "{lost:?}");
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(payload(&queue.try_take().await.unwrap().unwrap()));
        }
        assert_eq!(taken, [json!(0), json!(1), json!(2)], "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_session_ends_before_the_reply_has_an_unknown_outcome() {
    let store = Store::memory();
    let (agent, queue) = worker(&store, "a").await;
    queue.put("first").await.unwrap();
    agent.suspend();
    let session = agent.coordinator.session_id().unwrap();
    let mut put = std::pin::pin!(queue.put("x").into_future());
    assert!(tokio::time::timeout(SECOND, put.as_mut()).await.is_err(), "it is under way");
    store.ensemble().expire(session);
    let outcome = soon(put).await;
    assert!(matches!(outcome, Err(QueueError::OutcomeUnknown { .. })), "{outcome:?}");
    assert_eq!(queue.len().await.unwrap(), 1, "here, it was not put");
    queue.put("second").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_labels_of_a_queue_and_its_folders_are_created_again_after_they_were_deleted() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    let session = store.session().await;
    let root = store.path("queue");
    delete_recursively(&*session, &root).await;
    queue.put("x").unless_queued("l:1").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!(payload(&delivery), json!("x"));
    for folder in ["labels", "claims", "receipts", "dead", "done"] {
        delete_recursively(&*session, &path(&store, folder)).await;
        queue.put(folder).label("l:2").await.unwrap();
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(payload(&delivery), json!(folder));
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_unless_queued_does_not_list_the_waiting_entries_each_time() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let queue = open(&store, &agent).await;
    for number in 0..100 {
        queue.put(number).label(format!("l:{number}")).await.unwrap();
    }
    let before = agent.faults().calls();
    for number in 90..150 {
        let put = queue.put(number).unless_queued(format!("l:{number}")).await;
        assert_eq!(put.is_err(), number < 100, "{number}");
    }
    let lists = agent.faults().calls().lists - before.lists;
    // What is being worked on is listed each time: it is little.
    assert!((50..=55).contains(&lists), "{lists} listings for 50 puts and 10 refusals");
}

#[tokio::test(start_paused = true)]
async fn a_put_costs_one_request_and_a_take_one_or_two() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let queue = open(&store, &agent).await;
    queue.put(0).await.unwrap();
    soon(queue.take()).await.unwrap().done(()).await.unwrap();
    let before = agent.faults().calls();
    for number in 0..10 {
        queue.put(number).label("l:1").await.unwrap();
    }
    let put = agent.faults().calls();
    assert_eq!((put.writes - before.writes, put.lists - before.lists), (10, 0));
    assert!(put.gets - before.gets <= 1, "what waits is counted beside a write now and then");
    for _ in 0..10 {
        soon(queue.take()).await.unwrap().done(()).await.unwrap();
    }
    let taken = agent.faults().calls();
    assert_eq!(taken.writes - put.writes, 20, "one to take, one to end");
    let reads = taken.get_manys - put.get_manys;
    assert!(reads < 5, "{reads} requests for the values of ten: some are prefetched");
    assert!(taken.lists - put.lists < 10, "{} listings", taken.lists - put.lists);
}

#[tokio::test(start_paused = true)]
async fn however_many_entries_have_the_label_it_counts_as_queued_and_few_are_read() {
    let store = Store::memory();
    let (_coordinator, queue, fates) = fated(&store).await;
    let label = "x".repeat(200);
    for number in 0..5_000 {
        queue.put(format!("{number:0200}")).label(&*label).await.unwrap();
    }
    for _ in 0..3 {
        let again = queue.put("again").unless_queued(&*label).await;
        assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");
        // The first has to list.
        fates.largest_reply();
    }
    let again = queue.put("again").unless_queued(&*label).await;
    assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");
    assert!(fates.largest_reply() < 10_000);
    while !queue
        .try_take_many(100)
        .await
        .unwrap()
        .into_iter()
        .map(|it| async move { it.done(()).await })
        .collect::<JoinSet<_>>()
        .join_all()
        .await
        .is_empty()
    {}
    queue.put("again").unless_queued(&*label).await.unwrap();
    assert_eq!(counts(&store).await[..2], [1, 0]);
}

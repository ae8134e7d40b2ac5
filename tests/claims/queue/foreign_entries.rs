//! Znodes of other writers in the folders: entries of Python, and znodes that are no entries.

use apportion::{
    backend::{CreateMode, Op},
    queue::QueueError,
};
use serde_json::{Value, json};

use super::{counts, counts_become, names, names_in, path, payload, values, worker};
use crate::support::{
    MS, SECOND,
    events::Events,
    eventually,
    fleet::{Store, on_both_backends, znode},
    soon,
};

on_both_backends!(
    an_entry_of_the_original_is_taken_and_ended_so_that_the_original_can_read_it,
    an_entry_that_a_worker_of_the_original_has_taken_is_not_given_back,
    a_value_that_is_not_an_object_is_delivered_unchanged,
    invalid_entry_names_in_any_folder_do_not_affect_others_and_stay,
    an_entry_with_a_child_is_set_aside,
    an_entry_to_which_permission_is_denied_does_not_affect_the_others,
    an_entry_that_python_takes_meanwhile_is_not_taken_again,
    what_another_program_put_goes_out_as_it_came_in,
);

/// Puts as the dispatcher of the original does.
async fn python_puts(store: &Store, folder: &str, prefix: &str, value: &str) -> String {
    let session = store.session().await;
    let parent = path(store, folder);
    let before = names_in(&*session, &parent).await;
    let create = Op::create(&parent.join(prefix).unwrap(), value, CreateMode::PersistentSequential);
    session.commit(vec![create]).await.unwrap();
    names_in(&*session, &parent).await.into_iter().find(|name| !before.contains(name)).unwrap()
}

async fn an_entry_of_the_original_is_taken_and_ended_so_that_the_original_can_read_it(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    let written = r#"{"groupid": 42, "state": 1, "dataset": "taxi", "more": [1.50, "\u00e9"]}"#;
    python_puts(&store, "unowned", "entry-300-taxi:42-", written).await;
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!((delivery.entry().priority(), delivery.entry().label()), (300, "taxi:42"));
    assert_eq!(delivery.raw(), written.as_bytes());
    assert_eq!(payload(&delivery), serde_json::from_str::<Value>(written).unwrap());
    let owned = values(&store, "owned").await;
    let (name, value) = owned.first_key_value().unwrap();
    assert!(name.starts_with("entry-300-taxi:42-"), "{name}");
    assert_eq!((&value["state"], &value["worker"], &value["groupid"]), (&json!(3), &json!("w"), &json!(42)));
    delivery.release().await.unwrap();
    let back = values(&store, "unowned").await;
    let expected = json!({ "groupid": 42, "state": 1, "dataset": "taxi", "more": [1.5, "é"], "foreign": 4, "attempt": 1 });
    assert_eq!(back.values().collect::<Vec<_>>(), [&expected]);
    soon(queue.take()).await.unwrap().done("r").await.unwrap();
    let done = values(&store, "done").await;
    let value = done.values().next().unwrap();
    assert_eq!(
        (&value["state"], &value["dataset"], &value["more"][1]),
        (&json!(4), &json!("taxi"), &json!("é"))
    );
}

async fn what_another_program_put_goes_out_as_it_came_in(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    for written in [
        r#"{"groupid": 18, "state": 1, "dataset": "taxi"}"#,
        r#" { "n": 123456789012345678901234567890, "x" :12345678901234567.89, "n": 7, "x": 1e400 } "#,
        r#"{"attempt": 1, "error": "theirs", "state": 2, "worker": null}"#,
        r#"[123456789012345678901234567890]"#,
        "no JSON",
    ] {
        python_puts(&store, "unowned", "entry-100-taxi:42-", written).await;
        for _ in 0..2 {
            let delivery = soon(queue.take()).await.unwrap();
            assert_eq!(std::str::from_utf8(delivery.raw()), Ok(written));
            delivery.release().because("for a test").await.unwrap();
        }
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(std::str::from_utf8(delivery.raw()), Ok(written));
        delivery.done("fine").await.unwrap();
        let results = soon(queue.collect(1)).await.unwrap().confirm().await.unwrap();
        assert_eq!(std::str::from_utf8(results[0].raw()), Ok(written));
        assert_eq!((results[0].result(), results[0].error()), (Some(&json!("fine")), None));
    }
}

async fn an_entry_that_a_worker_of_the_original_has_taken_is_not_given_back(store: Store) {
    let taken = r#"{"dataset": "taxi", "groupid": "42", "state": 2, "worker": "python-1"}"#;
    let (_agent, queue) = worker(&store, "w").await;
    let name = python_puts(&store, "owned", "entry-100-taxi:42-", taken).await;
    // Claims come and go, so that the owned entries are checked.
    for number in 0..3 {
        queue.put(number).await.unwrap();
        soon(queue.take()).await.unwrap().done(()).await.unwrap();
        tokio::time::sleep(if store.is_memory() { 2 * SECOND } else { 700 * MS }).await;
    }
    assert_eq!(names(&store, "owned").await, [name]);
    let finished = r#"{"dataset": "taxi", "groupid": "42", "state": 4, "worker": "python-1"}"#;
    python_puts(&store, "done", "entry-100-taxi:42-", finished).await;
    let results = soon(queue.collect(10)).await.unwrap();
    assert_eq!(results.len(), 4);
    assert_eq!((results[3].worker(), results[3].state().unwrap().number()), (Some("python-1"), 4));
    assert_eq!(results[3].payload().unwrap()["dataset"], "taxi");
    assert_eq!(results.confirm().await.unwrap().len(), 4);
}

async fn a_value_that_is_not_an_object_is_delivered_unchanged(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    let session = store.session().await;
    for bytes in [&b""[..], b"not json", b"[1, 2]", b"\xff\x00", b"{\"cut", b"{\"a\": NaN}"] {
        let prefix = path(&store, "unowned").join("entry-100-l-").unwrap();
        session.commit(vec![Op::create(&prefix, bytes, CreateMode::PersistentSequential)]).await.unwrap();
        for attempt in 1..=2 {
            let delivery = soon(queue.take()).await.unwrap();
            let raw_again = delivery.attempt() > 1;
            assert_eq!((delivery.raw(), delivery.attempt()), (bytes, attempt));
            assert_eq!(delivery.payload().is_some(), bytes == b"[1, 2]");
            if raw_again {
                delivery.done("fine").await.unwrap();
            } else {
                delivery.release().await.unwrap();
            }
        }
        let results = soon(queue.collect(1)).await.unwrap();
        assert_eq!((results[0].raw(), results[0].result()), (bytes, Some(&json!("fine"))));
        results.confirm().await.unwrap();
    }
}

async fn invalid_entry_names_in_any_folder_do_not_affect_others_and_stay(store: Store) {
    let events = Events::of("apportion::queue::cache");
    let (_agent, queue) = worker(&store, "w").await;
    let session = store.session().await;
    let invalid =
        ["entry-abc-d:g-0000000001", "entry--05-d:g-0000000001", "lock", "entry-", "entry-100", "группа"];
    for folder in ["unowned", "owned", "done", "dead", "claims", "receipts", "labels"] {
        for name in invalid {
            let path = path(&store, folder).join(name).unwrap();
            session.commit(vec![Op::create(&path, "", CreateMode::Persistent)]).await.unwrap();
        }
    }
    for number in 0..5 {
        queue.put(number).unless_queued(format!("l:{number}")).await.unwrap();
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(payload(&delivery), json!(number));
        delivery.done(()).await.unwrap();
    }
    assert!(queue.try_take().await.unwrap().is_none());
    assert!(queue.entries().await.unwrap().is_empty());
    assert_eq!(queue.len().await.unwrap(), invalid.len(), "the store counts them");
    assert!(queue.dead_letters().await.unwrap().is_empty());
    assert_eq!(soon(queue.collect(100)).await.unwrap().confirm().await.unwrap().len(), 5);
    counts_become(&store, [invalid.len(); 5]).await;
    // The check of the owned entries follows some time later.
    let reported = std::cell::RefCell::new(Vec::new());
    let times = |folder: &str, name: &str| {
        let path = format!("/{folder}/{name} ");
        reported.borrow().iter().filter(|line: &&String| line.contains(&path)).count()
    };
    let all = || async {
        reported.borrow_mut().extend(events.take(tracing::Level::WARN));
        invalid.iter().all(|name| times("owned", name) > 0).then_some(())
    };
    eventually("reports", 20 * SECOND, all).await;
    for folder in ["unowned", "owned"] {
        for name in invalid {
            assert_eq!(times(folder, name), 1, "{folder}/{name} in {reported:#?}");
        }
    }
}

async fn an_entry_with_a_child_is_set_aside(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    queue.put("first").await.unwrap();
    let name = names(&store, "unowned").await.remove(0);
    let child = path(&store, "unowned").join(&name).unwrap().join("child").unwrap();
    let session = store.session().await;
    session.commit(vec![Op::create(&child, "", CreateMode::Persistent)]).await.unwrap();
    queue.put("second").await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!(payload(&delivery), json!("second"));
    assert!(queue.try_take().await.unwrap().is_none());
    delivery.done(()).await.unwrap();
    znode(&*session, &child).await;
    assert_eq!(counts(&store).await, [1, 0, 1, 0, 0]);
    let again = queue.put("third").await;
    assert!(!matches!(again, Err(QueueError::Full { .. })), "{again:?}");
}

async fn an_entry_to_which_permission_is_denied_does_not_affect_the_others(store: Store) {
    let (agent, queue) = worker(&store, "w").await;
    for folder in ["unowned", "owned", "done"] {
        let name = python_puts(&store, folder, "entry-999-secret:1-", "{}").await;
        agent.faults().deny(&path(&store, folder).join(&name).unwrap());
    }
    let (doomed, others) = worker(&store, "doomed").await;
    queue.put("open").await.unwrap();
    let _taken = soon(others.take_where(|entry| entry.label() != "secret:1")).await.unwrap();
    let _line = doomed.crash();
    let delivery = tokio::time::timeout(store.expiry() + 10 * SECOND, queue.take()).await.unwrap().unwrap();
    assert_eq!(payload(&delivery), json!("open"));
    delivery.done("fine").await.unwrap();
    let results = soon(queue.collect(10)).await.unwrap();
    assert_eq!((results.len(), results[0].result()), (1, Some(&json!("fine"))));
    assert!(queue.try_take().await.unwrap().is_none());
}

async fn an_entry_that_python_takes_meanwhile_is_not_taken_again(store: Store) {
    let (_agent, queue) = worker(&store, "w").await;
    let session = store.session().await;
    for number in 0..10 {
        queue.put(number).await.unwrap();
    }
    // The queue has seen all of them; every second one goes without its knowledge.
    assert_eq!(queue.entries().await.unwrap().len(), 10);
    for name in names(&store, "unowned").await.iter().step_by(2) {
        session.commit(vec![Op::delete(&path(&store, "unowned").join(name).unwrap(), None)]).await.unwrap();
    }
    let mut taken = Vec::new();
    while let Some(delivery) = queue.try_take().await.unwrap() {
        taken.push(payload(&delivery).as_i64().unwrap());
        delivery.done(()).await.unwrap();
    }
    taken.sort_unstable();
    assert_eq!(taken, [1, 3, 5, 7, 9]);
}

//! The dispatcher and the slave of femto-mesos, and those of this crate, on one queue.

use std::collections::BTreeMap;

use apportion::{
    PartitionCoordinator,
    backend::Connector as _,
    queue::{QueueError, State, WorkQueue},
};
use serde_json::{Value, json};

use crate::{
    member::coordinator,
    support::{SECOND, driven::Driven, path, python::python, shared_server, soon, zookeeper},
};

/// A queue that both have open.
async fn queue(root: &str) -> (PartitionCoordinator, WorkQueue, Driven) {
    let server = shared_server().await;
    let mut theirs = python("interop/femto_queue.py", &[&server.connect_string(), root, "slave"]);
    assert_eq!(theirs.says().await["ready"], true);
    let coordinator = coordinator(server, "", "ours").await;
    let queue = coordinator.queue(root).await.unwrap();
    (coordinator, queue, theirs)
}

/// What the folder has, in JSON.
async fn values(folder: &str) -> BTreeMap<String, Value> {
    let session = zookeeper(&shared_server().await.connect_string()).open(10 * SECOND).await.unwrap();
    let mut values = BTreeMap::new();
    for name in session.children(&path(folder)).await.unwrap().0 {
        let (data, _) = session.get(&path(&format!("{folder}/{name}"))).await.unwrap().unwrap();
        values.insert(name, serde_json::from_slice(&data).unwrap());
    }
    values
}

#[tokio::test]
async fn a_worker_of_this_crate_takes_and_ends_what_a_dispatcher_in_python_put() {
    let (coordinator, queue, mut theirs) = queue("/reports").await;
    for (groupid, priority) in [("1", 100), ("2", 900), ("3", 5)] {
        let put = json!({"do": "put", "dataset": "taxi", "groupid": groupid, "priority": priority});
        assert!(theirs.ask(put).await["put"].is_string());
    }
    let again = json!({"do": "put", "dataset": "taxi", "groupid": "1", "priority": 100});
    assert_eq!(theirs.ask(again).await, json!({"put": null}), "the dispatcher adds nothing twice");
    let mut order = Vec::new();
    for _ in 0..3 {
        let delivery = soon(queue.take()).await.unwrap();
        let entry = delivery.entry();
        let value = delivery.payload().expect("the value of another program is the payload");
        assert_eq!(
            format!("{}:{}", value["dataset"].as_str().unwrap(), value["groupid"].as_str().unwrap()),
            entry.label()
        );
        order.push((value["groupid"].as_str().unwrap().to_owned(), value["state"].clone()));
        delivery.done(json!("written")).await.unwrap();
    }
    assert_eq!(
        order.iter().map(|(id, _)| &**id).collect::<Vec<_>>(),
        ["2", "1", "3"],
        "the highest priority first"
    );
    // A dispatcher reads the state of what is done, and a slave finds nothing more.
    let done = values("/reports/done").await;
    assert_eq!(done.len(), 3);
    for value in done.values() {
        assert_eq!(
            (&value["dataset"], &value["state"], &value["worker"]),
            (&json!("taxi"), &json!(4), &json!("ours"))
        );
    }
    assert_eq!(theirs.ask(json!({"do": "take"})).await, json!({"taken": null}));
    coordinator.shutdown().await.unwrap();
}

/// The delay is a field of this crate, as `Put::delay` says: a slave takes the first entry that there is.
#[tokio::test]
async fn a_slave_in_python_takes_a_delayed_entry_at_once_and_a_worker_of_this_crate_does_not() {
    let (coordinator, queue, mut theirs) = queue("/delayed").await;
    let payload = json!({"dataset": "bus", "groupid": "1", "state": 1});
    queue.put(payload).label("bus:1").delay(3600 * SECOND).await.unwrap();
    assert!(soon(queue.try_take()).await.unwrap().is_none());
    let taken = theirs.ask(json!({"do": "take"})).await;
    let value = &taken["taken"]["value"];
    assert!(value["groupid"] == "1" && value["not_before"].is_u64(), "{taken}");
    assert!(theirs.ask(json!({"do": "finish"})).await["done"].is_string());
    let results = queue.collect(1).await.unwrap();
    assert_eq!((results[0].state(), results[0].worker()), (Some(State::Successful), Some("slave")));
    coordinator.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_slave_in_python_takes_and_ends_what_a_dispatcher_of_this_crate_put() {
    let (coordinator, queue, mut theirs) = queue("/tasks").await;
    for (groupid, priority) in [("1", 100), ("2", 900)] {
        let payload = json!({"dataset": "bus", "groupid": groupid, "state": 1});
        queue.put(payload).label(format!("bus:{groupid}")).priority(priority).await.unwrap();
    }
    // The dispatchers of both sides see what waits.
    let again = json!({"do": "put", "dataset": "bus", "groupid": "1", "priority": 100});
    assert_eq!(theirs.ask(again).await, json!({"put": null}));
    let again = queue.put(json!({})).unless_queued("bus:1").await;
    assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");

    for groupid in ["2", "1"] {
        let taken = theirs.ask(json!({"do": "take"})).await;
        assert_eq!(taken["taken"]["value"]["groupid"], groupid, "{taken}");
        // No claim shows whose it is, so it is left to the slave.
        let owned = values("/tasks/owned").await;
        assert_eq!(owned.len(), 1);
        assert_eq!(owned.values().next().unwrap()["worker"], "slave");
        assert!(theirs.ask(json!({"do": "finish"})).await["done"].is_string());
    }
    assert!(queue.is_empty().await.unwrap());
    let results = queue.collect(10).await.unwrap();
    assert_eq!(results.len(), 2);
    for result in results.iter() {
        assert_eq!((result.state(), result.worker()), (Some(State::Successful), Some("slave")));
    }
    results.confirm().await.unwrap();
    assert_eq!(values("/tasks/done").await.len(), 0);
    coordinator.shutdown().await.unwrap();
}

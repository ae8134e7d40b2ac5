use apportion::{
    queue::{QueueError, WorkQueue},
    run::{EntryTask, Failure},
};
use serde_json::json;

use super::{BOUND, Crowd, Log, Run, panic_quietly};
use crate::support::{
    MS, SECOND, eventually,
    fleet::{Agent, Store, on_both_backends},
    until,
};

async fn worker(store: &Store, id: &str) -> (Agent, WorkQueue) {
    let agent = store.agent(id).await;
    let queue = agent.coordinator.queue(format!("/runner-{}", store.namespace)).pauses(20 * MS, 40 * MS);
    let queue = queue.await.unwrap();
    (agent, queue)
}

fn text(entry: &EntryTask) -> String {
    entry.payload_as().unwrap()
}

async fn results_are_kept_and_an_entry_that_always_fails_is_a_dead_letter(store: Store) {
    let (_a, queue) = worker(&store, "a").await;
    let poison = queue.put("poison").priority(900).await.unwrap();
    let mut ids = Vec::new();
    for number in 0..40 {
        ids.push(queue.put(format!("good-{number}")).label(format!("l:{number}")).await.unwrap());
    }
    let log = Log::default();
    let noting = log.clone();
    let handler = move |entry: EntryTask| {
        let log = noting.clone();
        async move {
            log.note(text(&entry));
            match (&*text(&entry), entry.attempt()) {
                ("poison", 1) => panic_quietly("first").map(|()| json!(null)),
                ("poison", _) => Err(Failure::new(format!("after {:?}", entry.last_error()))),
                (good, _) => Ok(json!({ "of": good })),
            }
        }
    };
    let mut run = Run::start(|stopped| queue.run(handler).concurrency(4).max_attempts(2).until(stopped));
    for (number, id) in ids.iter().enumerate() {
        let result = tokio::time::timeout(BOUND, queue.wait_result(id)).await.expect("it ends").unwrap();
        assert_eq!(result.result(), Some(&json!({ "of": format!("good-{number}") })));
    }
    let letter = tokio::time::timeout(BOUND, queue.wait_result(&poison)).await.expect("it ends").unwrap();
    assert!(letter.is_dead_letter());
    assert_eq!((letter.error(), letter.attempts()), (Some(r#"after Some("it panicked: first")"#), 2));
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.failed, counts.given_back, counts.given_up), (40, 2, 1, 1));
    assert_eq!(log.len(), 42);
}

/// Its session ends in mid-run: the entry is given back, and the runner goes on in the next session.
async fn an_entry_whose_lease_is_lost_is_done_again(store: Store) {
    let (a, queue) = worker(&store, "a").await;
    let id = queue.put("x").await.unwrap();
    let log = Log::default();
    let noting = log.clone();
    let handler = move |entry: EntryTask| {
        noting.note("began");
        async move {
            if entry.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(entry.attempt())
        }
    };
    let mut run = Run::start(|stopped| queue.run(handler).until(stopped));
    until("it works", BOUND, || log.len() == 1).await;
    a.expire(&store).await;
    let result = || async { queue.wait_result(&id).await.ok() };
    let result = eventually("done in the next session", BOUND, result).await;
    assert_eq!(result.result_as::<u32>().unwrap(), 2);
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.lost), (1, 1));
}

on_both_backends!(
    results_are_kept_and_an_entry_that_always_fails_is_a_dead_letter,
    an_entry_whose_lease_is_lost_is_done_again,
);

#[tokio::test(start_paused = true)]
async fn as_many_entries_are_done_at_the_same_time_as_allowed_and_no_more() {
    for is_preferring in [false, true] {
        let store = Store::memory();
        let (_a, queue) = worker(&store, "a").await;
        for _ in 0..20 {
            queue.put("x").await.unwrap();
        }
        let crowd = Crowd::default();
        let entering = crowd.clone();
        let handler = move |_: EntryTask| entering.clone().work();
        let mut run = Run::start(|stopped| {
            let run = queue.run(handler).concurrency(4).until(stopped);
            if is_preferring { run.preferring(|_| true) } else { run }
        });
        crowd.is_always(4, 20).await;
        let counts = run.stop().await.unwrap();
        assert_eq!((counts.finished, counts.given_back), (20, 0), "{is_preferring}");
    }
}

/// The layers of a service apply, and what it returns is the result.
#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn a_service_is_a_handler_of_a_queue_with_its_layers_and_its_response_is_the_result() {
    use apportion::run::service;
    use tower::ServiceBuilder;

    let store = Store::memory();
    let (_a, queue) = worker(&store, "a").await;
    let slow = queue.put("slow").priority(900).await.unwrap();
    let good = queue.put("good").await.unwrap();
    let handler = ServiceBuilder::new().timeout(2 * SECOND).service_fn(async |entry: EntryTask| {
        if text(&entry) == "slow" {
            std::future::pending::<()>().await;
        }
        Ok::<_, String>(json!({ "of": text(&entry) }))
    });
    let mut run = Run::start(|stopped| queue.run(service(handler)).max_attempts(2).until(stopped));
    let ended =
        async |id| tokio::time::timeout(BOUND, queue.wait_result(id)).await.expect("it ends").unwrap();
    assert_eq!(ended(&good).await.result(), Some(&json!({ "of": "good" })));
    let letter = ended(&slow).await;
    assert!(letter.is_dead_letter() && letter.error().unwrap().contains("timed out"), "{letter:?}");
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.failed, counts.given_up), (1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn delayed_entries_are_taken_when_it_is_time() {
    let store = Store::memory();
    let (_a, queue) = worker(&store, "a").await;
    queue.put("later").priority(900).delay(100 * SECOND).await.unwrap();
    queue.put("now").await.unwrap();
    let log = Log::default();
    let noting = log.clone();
    let handler = move |entry: EntryTask| {
        noting.note(text(&entry));
        async { Ok::<_, Failure>(()) }
    };
    let mut run = Run::start(|stopped| queue.run(handler).until(stopped));
    tokio::time::sleep(99 * SECOND).await;
    assert_eq!((log.has("now"), log.has("later")), (1, 0));
    until("it is time", 2 * SECOND, || log.has("later") == 1).await;
    assert_eq!(run.stop().await.unwrap().finished, 2);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_does_not_fit_is_a_failure() {
    let store = Store::memory();
    let (_a, queue) = worker(&store, "a").await;
    let large = queue.put("large").label("a").await.unwrap();
    let malformed = queue.put("malformed").label("b").await.unwrap();
    let handler = async |entry: EntryTask| match &*text(&entry) {
        "large" => Ok("x".repeat(2 << 20)),
        _ => Err(Failure::permanent("not a report")),
    };
    let mut run = Run::start(|stopped| queue.run(handler).max_attempts(2).until(stopped));
    let letter = tokio::time::timeout(BOUND, queue.wait_result(&large)).await.expect("it ends").unwrap();
    assert!(letter.is_dead_letter() && letter.error().unwrap().contains("exceeds the limit"), "{letter:?}");
    let letter = tokio::time::timeout(BOUND, queue.wait_result(&malformed)).await.expect("it ends").unwrap();
    assert_eq!((letter.is_dead_letter(), letter.error(), letter.attempts()), (true, Some("not a report"), 1));
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.given_up, counts.given_back, counts.failed), (2, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_choice_that_panics_prefers_nothing_and_does_not_end_the_runner() {
    let store = Store::memory();
    let (_a, queue) = worker(&store, "a").await;
    for label in ["first", "panics", "preferred"] {
        queue.put(label).label(label).await.unwrap();
    }
    let log = Log::default();
    let noting = log.clone();
    let handler = move |entry: EntryTask| {
        noting.note(text(&entry));
        async { Ok::<_, Failure>(()) }
    };
    let prefers = |entry: &apportion::queue::Entry| {
        if entry.label() == "panics" {
            panic_quietly("a choice").unwrap();
        }
        entry.label() == "preferred"
    };
    let mut run = Run::start(|stopped| queue.run(handler).preferring(prefers).until(stopped));
    until("all are done", BOUND, || log.len() == 3).await;
    assert_eq!(*log.0.lock().unwrap(), ["preferred", "first", "panics"]);
    assert_eq!(run.stop().await.unwrap().finished, 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_denies_permission_ends_the_runner_of_a_queue_with_that_error() {
    let store = Store::memory();
    let (a, queue) = worker(&store, "a").await;
    let mut run = Run::start(|stopped| queue.run(async |_| Ok::<_, Failure>(())).until(stopped));
    tokio::time::sleep(SECOND).await;
    a.faults().deny(queue.path());
    let (_b, theirs) = worker(&store, "b").await;
    theirs.put("x").await.unwrap();
    let ended = run.ended().await;
    assert!(matches!(ended, Err(QueueError::Service(apportion::Error::NotPermitted { .. }))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn it_takes_what_it_prefers_and_gives_back_what_it_cannot_finish() {
    let store = Store::memory();
    let (_a, queue) = worker(&store, "a").await;
    for label in ["bus:1", "taxi:1", "bus:2", "taxi:2"] {
        queue.put(label).label(label).await.unwrap();
    }
    let log = Log::default();
    let noting = log.clone();
    let handler = move |entry: EntryTask| {
        noting.note(text(&entry));
        async move {
            if text(&entry) == "bus:2" {
                entry.stopping().await;
                assert!(entry.is_stopping());
                return Err(Failure::interrupted("the process ends"));
            }
            Ok(())
        }
    };
    let prefers = |entry: &apportion::queue::Entry| entry.label().starts_with("taxi");
    let mut run = Run::start(|stopped| queue.run(handler).preferring(prefers).until(stopped));
    until("it is at the last one", BOUND, || log.len() == 4).await;
    assert_eq!(*log.0.lock().unwrap(), ["taxi:1", "taxi:2", "bus:1", "bus:2"]);
    let counts = run.stop().await.unwrap();
    assert_eq!(
        (counts.finished, counts.given_back, counts.failed),
        (3, 1, 0),
        "an interruption is no failure"
    );
    assert_eq!(queue.take().await.unwrap().attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_worker_died_in_its_last_attempt_is_not_begun_again() {
    let store = Store::memory();
    let (_a, queue) = worker(&store, "a").await;
    let id = queue.put("x").await.unwrap();
    for _ in 0..2 {
        drop(queue.take().await.unwrap());
    }
    let log = Log::default();
    let noting = log.clone();
    let handler = move |_: EntryTask| {
        noting.note("began");
        async { Ok::<_, Failure>(()) }
    };
    let mut run = Run::start(|stopped| queue.run(handler).max_attempts(2).until(stopped));
    let letter = tokio::time::timeout(BOUND, queue.wait_result(&id)).await.expect("it ends").unwrap();
    assert_eq!((letter.is_dead_letter(), letter.attempts(), log.len()), (true, 2, 0));
    assert_eq!(run.stop().await.unwrap().given_up, 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_coordinator_ends_the_runner_with_an_error() {
    let store = Store::memory();
    let (a, queue) = worker(&store, "a").await;
    let mut run = Run::start(|stopped| queue.run(async |_| Ok::<_, Failure>(())).until(stopped));
    tokio::time::sleep(SECOND).await;
    a.coordinator.shutdown().await.unwrap();
    let ended = run.ended().await;
    assert!(ended.as_ref().is_err_and(QueueError::is_closed), "{ended:?}");
}

//! Entries whose handler fails: pauses, attempts, dead letters with their reason; and entries that are delayed.
#![expect(clippy::disallowed_methods, reason = "these tests measure pauses")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use apportion::{
    backend::{BoxFuture, CreateMode, Error as BackendError, Op},
    testing::{Call, Hook, Intercept, Outcome, Request},
};

use super::*;
use crate::support::{
    MS,
    fate::{Fate, Fates},
    fleet::on_both_backends,
    soon,
};

on_both_backends!(
    an_entry_that_fails_does_not_keep_the_others_waiting,
    an_outage_of_a_second_does_not_turn_entries_into_dead_letters,
    an_entry_that_fails_too_often_is_a_dead_letter_with_the_reason_and_its_worker,
    a_dead_letter_of_a_worker_that_died_says_so,
    no_process_takes_an_entry_during_its_pause,
    a_dropped_delivery_pauses_and_an_uncounted_one_does_not,
    a_delayed_entry_is_taken_when_it_is_time,
    what_a_dead_worker_has_left_is_there_for_the_first_call_after_opening,
);

/// The queue with its usual pauses.
async fn pausing(store: &Store, agent: &Agent) -> WorkQueue {
    agent.coordinator.queue(root(store)).await.unwrap()
}

/// Longer on the clock of the test than on a real one.
fn pause(store: &Store) -> Duration {
    if store.is_memory() { 30 * SECOND } else { 3 * SECOND }
}

async fn an_entry_that_fails_does_not_keep_the_others_waiting(store: Store) {
    let agent = store.agent("w").await;
    let queue = pausing(&store, &agent).await;
    queue.put("fails").priority(900).await.unwrap();
    for number in 0..50 {
        queue.put(number).await.unwrap();
    }
    let (mut done, mut failed) = (0, 0);
    while done < 50 {
        assert!(failed < 5, "it was delivered {failed} times before {done} of the others");
        let delivery = soon(queue.take()).await.unwrap();
        if payload(&delivery) == json!("fails") {
            failed += 1;
            delivery.release().because("as always").await.unwrap();
        } else {
            delivery.done(()).await.unwrap();
            done += 1;
        }
    }
    assert!(failed > 0, "it has the highest priority");
}

async fn an_outage_of_a_second_does_not_turn_entries_into_dead_letters(store: Store) {
    let agent = store.agent("w").await;
    let queue = pausing(&store, &agent).await;
    for number in 0..30 {
        queue.put(number).await.unwrap();
    }
    let mut failures = 0;
    let _ = tokio::time::timeout(SECOND, async {
        loop {
            queue.take().await.unwrap().release().because("the other service is down").await.unwrap();
            failures += 1;
            assert!(failures < 30 * 4, "more than four attempts each");
        }
    })
    .await;
    assert_eq!(queue.dead_letters().await.unwrap().len(), 0, "after {failures} failures");
}

async fn an_entry_that_fails_too_often_is_a_dead_letter_with_the_reason_and_its_worker(store: Store) {
    let agent = store.agent("w").await;
    let queue = agent.coordinator.queue(root(&store)).max_attempts(2).await.unwrap();
    queue.put("x").await.unwrap();
    for (attempt, before, reason) in [(1, None, "first"), (2, Some("first"), "no space left")] {
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!((delivery.attempt(), delivery.last_error()), (attempt, before));
        delivery.release_after(Duration::ZERO).because(reason).await.unwrap();
    }
    let letters = queue.dead_letters().await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.error(), letter.worker(), letter.attempts()), (Some("no space left"), Some("w"), 2));
    assert!(letter.is_dead_letter());
    assert!(queue.revive(letter).await.unwrap());
    let delivery = soon(queue.take()).await.unwrap();
    assert_eq!((delivery.attempt(), delivery.last_error()), (1, None));
    delivery.done(1).await.unwrap();
    let results = queue.collect(1).await.unwrap();
    assert_eq!((results[0].error(), results[0].is_dead_letter()), (None, false));
}

async fn a_dead_letter_of_a_worker_that_died_says_so(store: Store) {
    let doomed = store.agent("doomed").await;
    let queue = doomed.coordinator.queue(root(&store)).max_attempts(1).await.unwrap();
    queue.put("x").await.unwrap();
    let _taken = soon(queue.take()).await.unwrap();
    let heir = store.agent("heir").await;
    let heirs = heir.coordinator.queue(root(&store)).max_attempts(1).await.unwrap();
    let _line = doomed.crash();
    let letter = || async { heirs.dead_letters().await.unwrap().pop() };
    let letter = eventually("a dead letter", store.expiry() + 30 * SECOND, letter).await;
    let reason = letter.error().unwrap();
    assert!(reason.contains("`doomed`") && letter.worker() == Some("doomed"), "{letter:?}");
}

async fn no_process_takes_an_entry_during_its_pause(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (ours, theirs) = (pausing(&store, &a).await, pausing(&store, &b).await);
    ours.put("x").label("l").await.unwrap();
    let pause = pause(&store);
    soon(ours.take()).await.unwrap().release_after(pause).await.unwrap();
    let released = tokio::time::Instant::now();
    for queue in [&ours, &theirs] {
        assert!(queue.try_take().await.unwrap().is_none());
        assert!(tokio::time::timeout(pause / 10, queue.wait_for_work()).await.is_err());
        assert_eq!((queue.entries().await.unwrap().len(), queue.len().await.unwrap()), (1, 1), "it waits");
    }
    let again = theirs.put("again").unless_queued("l").await;
    assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");
    theirs.put("another").await.unwrap();
    let another = soon(theirs.take()).await.unwrap();
    assert_eq!(payload(&another), json!("another"));
    another.done(()).await.unwrap();
    let delivery = soon(theirs.take()).await.unwrap();
    // The moments of two clocks, in whole milliseconds.
    assert!(released.elapsed() + 20 * MS >= pause, "{:?}", released.elapsed());
    assert!(released.elapsed() < pause + 10 * SECOND);
    assert_eq!((payload(&delivery), delivery.attempt()), (json!("x"), 2));
}

async fn a_dropped_delivery_pauses_and_an_uncounted_one_does_not(store: Store) {
    let agent = store.agent("w").await;
    let queue = pausing(&store, &agent).await;
    queue.put("x").await.unwrap();
    for _ in 0..10 {
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(delivery.attempt(), 1);
        delivery.release().uncounted().await.unwrap();
        assert_eq!(counts(&store).await, [1, 0, 0, 0, 0]);
    }
    drop(soon(queue.take()).await.unwrap());
    counts_become(&store, [1, 0, 0, 0, 0]).await;
    let dropped = tokio::time::Instant::now();
    let delivery = soon(queue.take()).await.unwrap();
    assert!(dropped.elapsed() >= SECOND / 4, "{:?}", dropped.elapsed());
    assert_eq!(delivery.attempt(), 2);
    assert!(delivery.last_error().unwrap().contains("dropped"));
}

async fn a_delayed_entry_is_taken_when_it_is_time(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (ours, theirs) = (pausing(&store, &a).await, pausing(&store, &b).await);
    let delay = pause(&store);
    let put = tokio::time::Instant::now();
    ours.put("late").priority(900).delay(delay).await.unwrap();
    let tomorrow = std::time::SystemTime::now() + Duration::from_secs(24 * 3600);
    ours.put("tomorrow").priority(999).not_before(tomorrow).await.unwrap();
    ours.put("past").priority(1).not_before(std::time::SystemTime::UNIX_EPOCH).await.unwrap();
    for queue in [&ours, &theirs] {
        assert_eq!(queue.entries().await.unwrap().len(), 3);
    }
    let past = soon(theirs.take()).await.unwrap();
    assert_eq!(payload(&past), json!("past"));
    past.done(()).await.unwrap();
    assert!(ours.try_take().await.unwrap().is_none());
    let delivery = soon(ours.take()).await.unwrap();
    assert_eq!((payload(&delivery), delivery.attempt()), (json!("late"), 1));
    assert!(put.elapsed() + 20 * MS >= delay, "{:?}", put.elapsed());
    assert!(put.elapsed() < delay + 10 * SECOND);
}

async fn what_a_dead_worker_has_left_is_there_for_the_first_call_after_opening(store: Store) {
    let doomed = store.agent("doomed").await;
    let queue = pausing(&store, &doomed).await;
    for number in 0..4 {
        queue.put(number).await.unwrap();
    }
    let _taken = soon(queue.take_many(4)).await.unwrap();
    let _line = doomed.crash();
    let gone = || async { (counts(&store).await == [0, 4, 0, 0, 0]).then_some(()) };
    eventually("the claims are gone", store.expiry() + 30 * SECOND, gone).await;
    // A worker that opens the queue, takes an entry, and closes it.
    let agent = store.agent("w").await;
    let delivery = pausing(&store, &agent).await.try_take().await.unwrap();
    let delivery = delivery.expect("the first of them");
    assert_eq!(delivery.attempt(), 2);
    assert_eq!(pausing(&store, &agent).await.len().await.unwrap(), 3);
    assert_eq!(pausing(&store, &agent).await.entries().await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_opening_waits_for_the_first_check_of_the_claims() {
    let store = Store::memory();
    let (doomed, queue) = worker(&store, "doomed").await;
    queue.put("x").await.unwrap();
    let _taken = soon(queue.take()).await.unwrap();
    let _line = doomed.crash();
    counts_become(&store, [0, 1, 0, 0, 0]).await;
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    fates.decide(|request| match request.paths().iter().any(|path| path.name() == "claims") {
        true if !request.is_write() => Fate::Late(SECOND),
        _ => Fate::Pass,
    });
    let queue = coordinator.queue(root(&store)).await.unwrap();
    let delivery = queue.try_take().await.unwrap().expect("what the dead worker has left");
    assert_eq!(delivery.attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_could_not_be_taken_is_tried_again_after_a_while() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    queue.put("x").priority(900).await.unwrap();
    let entry = path(&store, "unowned").join(&names(&store, "unowned").await[0]).unwrap();
    let below = entry.join("below").unwrap();
    let observer = store.session().await;
    observer.commit(vec![Op::create(&below, [], CreateMode::Persistent)]).await.unwrap();
    for _ in 0..3 {
        assert!(queue.try_take().await.unwrap().is_none());
    }
    observer.commit(vec![Op::delete(&below, None)]).await.unwrap();
    let delivery = tokio::time::timeout(70 * SECOND, queue.take()).await.expect("it is tried again").unwrap();
    assert_eq!(payload(&delivery), json!("x"));
}

#[tokio::test(start_paused = true)]
async fn an_owned_entry_that_could_not_be_given_back_is_tried_again_after_a_while() {
    let store = Store::memory();
    let (doomed, queue) = worker(&store, "doomed").await;
    queue.put("x").await.unwrap();
    let _taken = soon(queue.take()).await.unwrap();
    let (heir, heirs) = worker(&store, "heir").await;
    tokio::time::sleep(5 * SECOND).await;
    heir.faults().deny(&path(&store, "owned").join(&names(&store, "owned").await[0]).unwrap());
    let _line = doomed.crash();
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(counts(&store).await, [0, 1, 0, 0, 0]);
    heir.faults().allow();
    let delivery = tokio::time::timeout(70 * SECOND, heirs.take()).await.expect("it is tried again").unwrap();
    assert_eq!(payload(&delivery), json!("x"));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_gets_the_refusal_of_a_quota() {
    let store = Store::memory();
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let queue = coordinator.queue(root(&store)).await.unwrap();
    queue.put("x").await.unwrap();
    fates.decide(|request| match request {
        Request::Commit(_) => Fate::Refuse(BackendError::Other("quota exceeded".into())),
        _ => Fate::Pass,
    });
    let taken = tokio::time::timeout(60 * SECOND, queue.take()).await.expect("it does not wait");
    assert!(taken.unwrap_err().to_string().contains("quota exceeded"));
}

/// Counts how many transactions are under way at the same time.
#[derive(Default)]
struct Concurrency {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Hook for Concurrency {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if !matches!(call.request(), Request::Commit(_)) {
                return call.send().await;
            }
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(10 * MS).await;
            let outcome = call.send().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            outcome
        })
    }
}

#[tokio::test(start_paused = true)]
async fn taking_many_entries_runs_a_bounded_number_of_transactions_at_once() {
    let store = Store::memory();
    let hook = Arc::new(Concurrency::default());
    let connector = Intercept::new(Arc::new(store.ensemble().clone()), hook.clone());
    let coordinator = store.connect(connector, "a").await;
    let queue = coordinator.queue(root(&store)).await.unwrap();
    for number in 0..200 {
        queue.put(number).await.unwrap();
    }
    let taken = soon(queue.take_many(200)).await.unwrap();
    let payloads: Vec<_> = taken.iter().map(payload).collect();
    assert_eq!(payloads, (0..200).map(Value::from).collect::<Vec<_>>(), "in their order");
    let most = hook.most.load(Ordering::SeqCst);
    assert!((2..=32).contains(&most), "{most} at once");
}

#[tokio::test(start_paused = true)]
async fn the_pauses_grow_with_each_attempt_up_to_the_longest() {
    let store = Store::memory();
    let agent = store.agent("w").await;
    let open = agent.coordinator.queue(root(&store)).max_attempts(None);
    let queue = open.pauses(SECOND, 8 * SECOND).await.unwrap();
    queue.put("x").await.unwrap();
    let mut pauses = BTreeMap::new();
    for attempt in 1..=6 {
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!(delivery.attempt(), attempt);
        delivery.release().await.unwrap();
        let released = tokio::time::Instant::now();
        soon(queue.wait_for_work()).await.unwrap();
        pauses.insert(attempt, released.elapsed());
    }
    for (attempt, full) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (6, 8)] {
        let (pause, full) = (pauses[&attempt], full * SECOND);
        assert!(pause + 5 * MS >= full / 2 && pause <= full + 5 * MS, "{pauses:?}");
    }
}

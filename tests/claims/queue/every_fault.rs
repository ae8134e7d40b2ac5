//! Faults at each write of each operation of a queue: its reply is lost, or the session ends before or after it, or the
//! connection breaks. And at each read: the session ends before the reply.

use apportion::queue::{Delivery, QueueError, WorkQueue};

use crate::{
    ledger::{HasOutcome, Ledger, Outcome},
    setup::{AtOnce as _, Context, Counts, Setup, Trouble, all_troubles, done, name_of, put, troubles},
    support::{SECOND, soon},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Open,
    Put,
    PutUnlessQueued,
    TakeAndEnd,
    TakeAndRelease,
    TakeAndDrop,
    TakeMany,
    Update,
    Recover,
    Collect,
    DeadLetters,
}

/// Takes an entry; `None` if there is none, because the put has failed.
async fn take(queue: &WorkQueue, ledger: &Ledger) -> Option<Delivery> {
    let delivery = tokio::time::timeout(30 * SECOND, queue.take()).await.ok()?.expect("it waits");
    ledger.claimed(&name_of(delivery.payload()), delivery.lease().token().get());
    Some(delivery)
}

async fn fail(delivery: Delivery, ledger: &Ledger) {
    let (name, token) = (name_of(delivery.payload()), delivery.lease().token().get());
    ledger.ended(&name, token, &soon(delivery.fail("no")).await);
}

/// Collects the results that there are.
async fn collect(queue: &WorkQueue, ledger: &Ledger) {
    let Ok(results) = soon(queue.try_collect(100)).await else { return };
    let names: Vec<_> = results.iter().map(|result| name_of(result.payload())).collect();
    match soon(results.confirm()).await {
        Ok(results) => results.iter().for_each(|result| ledger.collected(&name_of(result.payload()))),
        Err(QueueError::OutcomeUnknown { .. }) => names.iter().for_each(|name| ledger.may_be_collected(name)),
        Err(_) => {}
    }
}

impl Script {
    const ALL: [Script; 11] = [
        Script::Open,
        Script::Put,
        Script::PutUnlessQueued,
        Script::TakeAndEnd,
        Script::TakeAndRelease,
        Script::TakeAndDrop,
        Script::TakeMany,
        Script::Update,
        Script::Recover,
        Script::Collect,
        Script::DeadLetters,
    ];

    /// Which entries are there at the beginning.
    fn entries(self) -> &'static [&'static str] {
        match self {
            Script::Open | Script::Put | Script::PutUnlessQueued => &[],
            Script::TakeAndRelease | Script::TakeAndDrop | Script::Update => &["a"],
            Script::TakeAndEnd | Script::TakeMany | Script::Recover => &["a", "b"],
            Script::Collect | Script::DeadLetters => &["a", "b", "c"],
        }
    }

    /// Runs it with one trouble.
    async fn run(self, trouble: Trouble) -> Counts {
        let _context = Context((self, trouble));
        let setup = Setup::new().await;
        let Setup { ledger, .. } = &setup;
        let mut queue = None;
        if self != Script::Open {
            // Dropped before the fault, so that no other process helps the victim.
            let theirs = setup.other.queue("/queue").max_attempts(1).at_once().await.unwrap();
            for name in self.entries() {
                put(&theirs, ledger, name).await;
            }
            match self {
                Script::Recover => setup.a_worker_dies().await,
                Script::Collect => {
                    for _ in self.entries() {
                        done(take(&theirs, ledger).await.unwrap(), ledger).await;
                    }
                }
                Script::DeadLetters => {
                    for _ in self.entries() {
                        take(&theirs, ledger).await.unwrap().release().await.unwrap();
                    }
                }
                _ => {}
            }
            drop(theirs);
            queue = Some(setup.queue_of(&setup.victim).await);
        }
        // It is kept until all is well again.
        let work = async {
            if queue.is_none() {
                queue = Some(open(&setup).await);
            }
            self.act(queue.as_ref().expect("it is open"), &setup).await;
        };
        let counts = setup.in_trouble(trouble, work).await;
        drop(queue);
        setup.finish_queue().await;
        counts
    }

    async fn act(self, queue: &WorkQueue, setup: &Setup) {
        let ledger = &setup.ledger;
        match self {
            Script::Open => put(queue, ledger, "a").await,
            Script::Put => {
                put(queue, ledger, "a").await;
                tokio::join!(put(queue, ledger, "b"), put(queue, ledger, "c"));
            }
            Script::PutUnlessQueued => {
                let (one, two) =
                    tokio::join!(queue.put("a").unless_queued("l"), queue.put("b").unless_queued("l"));
                ledger.put_result("a", &one);
                ledger.put_result("b", &two);
                assert!(one.is_err() || two.is_err(), "both were put");
                let there = setup.children("/queue/unowned").await;
                assert!(there.len() <= 1, "{there:?}");
                for result in [one, two] {
                    let Err(error) = result else { continue };
                    let is_expected = matches!(
                        error,
                        QueueError::AlreadyQueued { .. }
                            | QueueError::OutcomeUnknown { .. }
                            | QueueError::Service(_)
                    );
                    assert!(is_expected, "{error}");
                }
            }
            Script::TakeAndEnd => {
                let one = take(queue, ledger).await.unwrap();
                let two = take(queue, ledger).await.unwrap();
                done(one, ledger).await;
                fail(two, ledger).await;
            }
            Script::TakeAndRelease => {
                let _ = soon(take(queue, ledger).await.unwrap().release()).await;
                done(take(queue, ledger).await.expect("it is back"), ledger).await;
            }
            Script::TakeAndDrop => {
                drop(take(queue, ledger).await.unwrap());
                done(take(queue, ledger).await.expect("it is back"), ledger).await;
            }
            Script::TakeMany => {
                let mut taken = soon(queue.take_many(2)).await.unwrap();
                for delivery in &taken {
                    ledger.claimed(&name_of(delivery.payload()), delivery.lease().token().get());
                }
                done(taken.pop().unwrap(), ledger).await;
                drop(taken);
            }
            Script::Update => {
                let mut delivery = take(queue, ledger).await.unwrap();
                let updated = soon(delivery.update("a further")).await;
                drop(delivery);
                let delivery = take(queue, ledger).await.expect("it is back");
                if updated.is_ok() {
                    assert_eq!(delivery.payload().unwrap(), "a further");
                }
                done(delivery, ledger).await;
            }
            Script::Recover => {
                for _ in self.entries() {
                    let delivery = take(queue, ledger).await.expect("it is given back");
                    done(delivery, ledger).await;
                }
            }
            Script::Collect => {
                collect(queue, ledger).await;
                collect(queue, ledger).await;
            }
            Script::DeadLetters => {
                let Ok(letters) = soon(queue.dead_letters()).await else { return };
                assert_eq!(letters.len(), 3);
                let before = setup.children("/queue/unowned").await.len();
                let revived = soon(queue.revive(&letters[0])).await;
                if let Ok(revived) = revived {
                    assert!(revived);
                    assert_eq!(setup.children("/queue/unowned").await.len(), before + 1);
                }
                // Discarding an entry ends it.
                let (name, discarded) =
                    (name_of(letters[1].payload()), soon(queue.discard(&letters[1])).await);
                assert!(!matches!(&discarded, Ok(false)), "no other process discards it");
                ledger.ended(&name, 0, &discarded);
                if discarded.is_ok() {
                    // There is no result to collect.
                    ledger.may_be_collected(&name);
                }
                let _ = soon(queue.revive(&letters[2])).await;
            }
        }
    }

    async fn with_all_troubles(self) {
        let counts = self.run(Trouble::Nothing).await;
        assert!(counts.writes > 0);
        for trouble in troubles(counts) {
            self.run(trouble).await;
        }
    }
}

/// Opens the queue, again if the session was lost meanwhile.
async fn open(setup: &Setup) -> WorkQueue {
    let open = || async { soon(setup.victim.queue("/queue").max_attempts(None).at_once()).await };
    let first = open().await;
    assert_ne!(first.outcome(), Outcome::Unknown);
    match first {
        Ok(queue) => queue,
        Err(error) => open().await.unwrap_or_else(|again| panic!("{error}, and again {again}")),
    }
}

impl Setup {
    /// Has a worker take everything and die.
    async fn a_worker_dies(&self) {
        let doomed = self.store.agent("doomed").await;
        let queue = self.queue_of(&doomed.coordinator).await;
        for delivery in queue.try_take_many(100).await.unwrap() {
            self.ledger.claimed(&name_of(delivery.payload()), delivery.lease().token().get());
            // No process gives it back.
            std::mem::forget(delivery);
        }
        let _line = doomed.crash();
    }
}

all_troubles!(
    a_queue_is_opened_whatever_gets_lost: Open,
    an_entry_is_put_once_whatever_gets_lost: Put,
    of_two_entries_with_one_label_one_is_put_whatever_gets_lost: PutUnlessQueued,
    an_entry_ends_once_whatever_gets_lost: TakeAndEnd,
    an_entry_is_released_and_done_whatever_gets_lost: TakeAndRelease,
    a_delivery_that_is_dropped_comes_back_whatever_gets_lost: TakeAndDrop,
    of_many_that_are_taken_each_is_done_once_whatever_gets_lost: TakeMany,
    an_update_that_was_acknowledged_stays_whatever_gets_lost: Update,
    what_a_dead_worker_had_is_done_once_whatever_gets_lost: Recover,
    each_result_is_collected_once_whatever_gets_lost: Collect,
    a_dead_letter_is_revived_or_discarded_once_whatever_gets_lost: DeadLetters,
);

//! Each write of each thing that is done with a queue: its reply is lost, or the session ends before or after it, or
//! the connection breaks. And each read: the session ends before it is answered.

use apportion::queue::{Delivery, QueueError, WorkQueue};

use crate::{
    bench::{Bench, Trouble, name_of, soon, troubles},
    board::every_fault::Context,
    ledger::{Ledger, Says},
    session_faults::Fault,
    support::fleet::SECOND,
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

pub(crate) async fn put(queue: &WorkQueue, ledger: &Ledger, name: &str) {
    ledger.put_result(name, &soon(queue.put(name).label(format!("label:{name}"))).await);
}

/// Takes what there is; `None` if there is nothing, since what was to be put was not.
async fn take(queue: &WorkQueue, ledger: &Ledger) -> Option<Delivery> {
    let delivery = tokio::time::timeout(30 * SECOND, queue.take()).await.ok()?.expect("it waits");
    ledger.claimed(&name_of(delivery.payload()), delivery.lease().token().get());
    Some(delivery)
}

pub(crate) async fn done(delivery: Delivery, ledger: &Ledger) {
    let (name, token) = (name_of(delivery.payload()), delivery.lease().token().get());
    ledger.ended(&name, token, &soon(delivery.done(())).await);
}

async fn fail(delivery: Delivery, ledger: &Ledger) {
    let (name, token) = (name_of(delivery.payload()), delivery.lease().token().get());
    ledger.ended(&name, token, &soon(delivery.fail("no")).await);
}

/// Collects what there is by now.
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

    /// Runs it with one trouble. Returns how many writes it made, and at how many calls each fault can happen.
    async fn run(self, trouble: Trouble) -> (u64, Vec<u64>) {
        let _context = Context((self, trouble));
        let bench = Bench::new().await;
        let Bench { ledger, .. } = &bench;
        let mut queue = None;
        if self != Script::Open {
            // Dropped before anything goes wrong: the victim has nobody to help it.
            let theirs = bench.other.queue("/queue").max_attempts(1).await.unwrap();
            for name in self.entries() {
                put(&theirs, ledger, name).await;
            }
            match self {
                Script::Recover => bench.a_worker_dies().await,
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
            queue = Some(bench.queue_of(&bench.victim).await);
        }
        let (writes, calls) =
            (bench.faults.calls().writes, Fault::ALL.map(|fault| bench.session_faults.calls(fault)));
        bench.plan(trouble);
        let queue = match queue {
            None => open(&bench).await,
            Some(queue) => queue,
        };
        self.act(&queue, &bench).await;
        bench.heals().await;
        let writes = bench.faults.calls().writes - writes;
        let calls = Fault::ALL
            .into_iter()
            .zip(calls)
            .map(|(fault, before)| bench.session_faults.calls(fault) - before);
        let calls = calls.collect();
        drop(queue);
        bench.settle_queue().await;
        (writes, calls)
    }

    async fn act(self, queue: &WorkQueue, bench: &Bench) {
        let ledger = &bench.ledger;
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
                let there = bench.children("/queue/unowned").await;
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
                let before = bench.children("/queue/unowned").await.len();
                let revived = soon(queue.revive(&letters[0])).await;
                if let Ok(revived) = revived {
                    assert!(revived);
                    assert_eq!(bench.children("/queue/unowned").await.len(), before + 1);
                }
                // Whoever discards something ends it.
                let (name, discarded) =
                    (name_of(letters[1].payload()), soon(queue.discard(&letters[1])).await);
                assert!(!matches!(&discarded, Ok(false)), "nobody else discards it");
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
        let (writes, calls) = self.run(Trouble::Nothing).await;
        assert!(writes > 0);
        for trouble in troubles(writes, &calls) {
            self.run(trouble).await;
        }
    }
}

/// Opens the queue, again if the session was lost meanwhile.
async fn open(bench: &Bench) -> WorkQueue {
    let open = || async { soon(bench.victim.queue("/queue").max_attempts(None)).await };
    let first = open().await;
    assert_ne!(first.says(), crate::ledger::Told::Unknown);
    match first {
        Ok(queue) => queue,
        Err(error) => open().await.unwrap_or_else(|again| panic!("{error}, and again {again}")),
    }
}

impl Bench {
    /// Has a worker take everything and die.
    async fn a_worker_dies(&self) {
        let doomed = self.store.agent("doomed").await;
        let queue = self.queue_of(&doomed.coordinator).await;
        for delivery in queue.try_take_many(100).await.unwrap() {
            self.ledger.claimed(&name_of(delivery.payload()), delivery.lease().token().get());
            // Nobody gives it back.
            std::mem::forget(delivery);
        }
        let _line = doomed.crash();
    }
}

macro_rules! all_troubles {
    ($($test:ident: $script:ident,)+) => {
        $(#[tokio::test(start_paused = true)]
        async fn $test() {
            Script::$script.with_all_troubles().await;
        })+

        #[test]
        fn no_script_is_forgotten() {
            assert_eq!([$(Script::$script),+], Script::ALL);
        }
    };
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

//! Many workers at one queue, in memory and on a real server.

use apportion::queue::{QueueError, WorkQueue};
use tokio::task::JoinSet;

use super::root;
use crate::{
    ledger::{Ledger, Outcome},
    setup::{AtOnce as _, name_of},
    support::{
        MS, SECOND,
        fleet::{Agent, Store, on_both_backends},
        soon,
    },
};

const WORKERS: usize = 16;
const ENTRIES: usize = 200;

/// An agent and the queue, from which nothing goes to the dead letters.
async fn worker(store: &Store, id: &str) -> (Agent, WorkQueue) {
    let agent = store.agent(id).await;
    let queue = agent.coordinator.queue(root(store)).max_attempts(None).at_once().await.unwrap();
    (agent, queue)
}

/// Workers with sessions of their own, connected all at once.
async fn workers(store: &Store, count: usize) -> Vec<(Agent, WorkQueue)> {
    let connecting = (0..count).map(|number| {
        let store = store.clone();
        async move { worker(&store, &format!("w-{number}")).await }
    });
    JoinSet::from_iter(connecting).join_all().await
}

async fn sixteen_workers_do_each_of_two_hundred_entries_once(store: Store) {
    let (_putter, puts) = worker(&store, "putter").await;
    let ledger = Ledger::default();
    let mut tasks = JoinSet::new();
    for (number, (agent, queue)) in workers(&store, WORKERS).await.into_iter().enumerate() {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            while ledger.ended_for_certain() < ENTRIES {
                let taken = match number % 3 {
                    0 => match tokio::time::timeout(SECOND / 2, queue.take()).await {
                        Ok(taken) => taken.map(|delivery| vec![delivery]),
                        Err(_) => Ok(Vec::new()),
                    },
                    1 => queue.try_take().await.map(|taken| taken.into_iter().collect()),
                    _ => queue.try_take_many(4).await,
                };
                let taken: Vec<_> = match taken {
                    // A busy machine can be late with a new session.
                    Err(error) if error.is_transient() => Vec::new(),
                    taken => taken.unwrap(),
                };
                if taken.is_empty() {
                    tokio::time::sleep(5 * MS).await;
                }
                for delivery in taken {
                    let (name, token) = (name_of(delivery.payload()), delivery.lease().token().get());
                    ledger.claimed(&name, token);
                    assert!(ledger.write(&name, token), "{name} was given to a later one");
                    match token % 7 {
                        0 => drop(delivery),
                        1 => delivery.release().await.unwrap(),
                        _ => ledger.ended(&name, token, &delivery.done(()).await),
                    }
                }
            }
            drop(queue);
            // The whole agent, because its connection must not be dropped before.
            let agent: Agent = agent;
            agent.coordinator.shutdown().await.unwrap();
        });
    }
    let mut putting = JoinSet::new();
    for number in 0..ENTRIES {
        let (puts, ledger) = (puts.clone(), ledger.clone());
        putting.spawn(async move {
            let name = format!("entry-{number}");
            let result = puts.put(&name).label(format!("l:{}", number % 5)).await;
            ledger.put_result(&name, &result);
        });
    }
    soon(putting.join_all()).await;
    soon(tasks.join_all()).await;
    assert_eq!(ledger.len(), ENTRIES);
    for result in puts.try_collect(2 * ENTRIES).await.unwrap().confirm().await.unwrap() {
        ledger.collected(&name_of(result.payload()));
    }
    ledger.judge_results();
    assert!(puts.is_empty().await.unwrap());
}

async fn of_many_processes_that_put_one_label_at_once_one_succeeds(store: Store) {
    let putters = workers(&store, 6).await;
    for round in 0..8_u32 {
        let mut putting = JoinSet::new();
        for (number, (_, queue)) in putters.iter().enumerate() {
            let (queue, store) = (queue.clone(), store.clone());
            putting.spawn(async move {
                store.for_a_moment(u32::try_from(number).unwrap() % 3 * round).await;
                queue.put(number).unless_queued(format!("label:{round}")).await
            });
        }
        let mut results = soon(putting.join_all()).await;
        results.retain(|result| !matches!(result, Err(QueueError::AlreadyQueued { .. })));
        assert_eq!(results.len(), 1, "{results:?}");
        results.pop().unwrap().unwrap();
        let there = putters[0].1.entries().await.unwrap();
        assert_eq!(there.len(), 1);
        // Also while it is being worked on, and again when it is given back.
        let delivery = soon(putters[1].1.take()).await.unwrap();
        let (again, released) = tokio::join!(
            putters[2].1.put("again").unless_queued(format!("label:{round}")),
            delivery.release()
        );
        released.unwrap();
        assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })), "{again:?}");
        soon(putters[1].1.take()).await.unwrap().done(()).await.unwrap();
    }
}

async fn each_result_goes_to_one_of_several_collectors(store: Store) {
    let ledger = Ledger::default();
    let collectors = workers(&store, 5).await;
    let (_worker, works) = worker(&store, "worker").await;
    let mut tasks = JoinSet::new();
    for (_agent, queue) in &collectors {
        let (queue, ledger) = (queue.clone(), ledger.clone());
        tasks.spawn(async move {
            while ledger.count_collected() < 60 {
                let found = tokio::time::timeout(SECOND / 4, queue.collect(10)).await;
                let Ok(found) = found else { continue };
                for result in found.unwrap().confirm().await.unwrap() {
                    ledger.collected(&name_of(result.payload()));
                }
            }
        });
    }
    for number in 0..60 {
        let name = format!("entry-{number}");
        ledger.put_result(&name, &works.put(&name).await);
        let delivery = soon(works.take()).await.unwrap();
        let token = delivery.lease().token().get();
        // Before: a collector may be quicker than the acknowledgement.
        ledger.end(&name_of(delivery.payload()), token, Outcome::Unknown);
        delivery.done(()).await.unwrap();
    }
    soon(tasks.join_all()).await;
    assert!(works.try_collect(9).await.unwrap().is_empty());
}

async fn an_entry_that_is_given_back_while_its_session_ends_is_there_once(store: Store) {
    let (_other, queue) = worker(&store, "other").await;
    let rounds = if store.is_memory() { 12 } else { 2 };
    for round in 0..rounds {
        let (agent, holds) = worker(&store, &format!("holder-{round}")).await;
        holds.put(round).await.unwrap();
        let delivery = soon(holds.take()).await.unwrap();
        let token = delivery.lease().token();
        let (released, (), next) = tokio::join!(
            async {
                store.for_a_moment(round).await;
                delivery.release().await
            },
            agent.expire(&store),
            soon(queue.take())
        );
        assert!(matches!(released, Ok(()) | Err(QueueError::Lost(_))), "{released:?}");
        let next = next.unwrap();
        assert!(next.lease().token() > token);
        assert_eq!(next.attempt(), 2);
        assert!(holds.try_take().await.unwrap().is_none(), "another worker has it");
        next.done(()).await.unwrap();
    }
}

on_both_backends!(
    sixteen_workers_do_each_of_two_hundred_entries_once,
    of_many_processes_that_put_one_label_at_once_one_succeeds,
    each_result_goes_to_one_of_several_collectors,
    an_entry_that_is_given_back_while_its_session_ends_is_there_once,
);

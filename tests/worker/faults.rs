//! Messages that are lost, come twice, late or never leave; connections and acknowledgements that break.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::worker::{
    Arguments, Context, Executor, Failure, LocalBroker, Request, RequestError, Worker,
    transport::{Message, Transport, TransportError},
};
use tokio::time::{sleep, timeout};

use crate::faulty::{Faults, Faulty};
use crate::peer::LONG;

const REQUESTS: u64 = 60;
const SEEDS: u64 = 20;

/// How often each request has run.
type Runs = Arc<Mutex<BTreeMap<u64, u32>>>;

async fn worker(transport: &Faulty, topic: &str, seed: u64, runs: &Runs) -> Worker {
    let runs = runs.clone();
    let task = move |context: Context, arguments: Arguments| {
        let runs = runs.clone();
        async move {
            let number: u64 = arguments.get("number")?;
            *runs.lock().unwrap().entry(number).or_default() += 1;
            for step in 0..3_u8 {
                context.update_progress(f64::from(step) / 3.0).await;
                sleep(Duration::from_millis(number * 97)).await;
            }
            match number % 5 {
                0 => Err("unlucky".into()),
                1 => panic!("very unlucky"),
                _ => Ok::<_, Box<dyn std::error::Error + Send + Sync>>(number * 2),
            }
        }
    };
    let worker = Worker::builder(transport.clone()).topic(topic).task("double", task).concurrency(8);
    worker.seed(seed).await.unwrap()
}

async fn each_request_ends_once(seed: u64, faults: Faults) -> BTreeMap<&'static str, u32> {
    each_request_ends_once_at(["a", "b"], seed, faults).await
}

/// With a worker at each of the topics.
async fn each_request_ends_once_at(
    topics: [&str; 2],
    seed: u64,
    faults: Faults,
) -> BTreeMap<&'static str, u32> {
    println!("seed {seed}, {faults:?}");
    let broker = LocalBroker::new();
    let transport = Faulty::new(&broker, seed, faults);
    let runs = Runs::default();
    // Each has a seed of its own, so that a run can be repeated.
    let [first, second, third] = [1, 2, 3].map(|number| 3 * seed + number);
    let _workers = [
        worker(&transport, topics[0], first, &runs).await,
        worker(&transport, topics[1], second, &runs).await,
    ];
    let executor = Executor::builder(transport.clone()).topics(topics).seed(third).await.unwrap();
    let mut requests = Vec::new();
    for number in 0..REQUESTS {
        requests.push((number, executor.submit(Request::execute("double").argument("number", number))));
        sleep(Duration::from_millis(50)).await;
    }
    let mut ends = BTreeMap::new();
    for (number, request) in requests {
        let outcome =
            timeout(LONG, request).await.unwrap_or_else(|_| panic!("request {number} hangs, seed {seed}"));
        let run = runs.lock().unwrap().get(&number).copied().unwrap_or(0);
        assert!(run <= 1, "request {number} ran {run} times, seed {seed}");
        let end = match outcome {
            Ok(value) => {
                assert_eq!((value, run), ((number * 2).into(), 1));
                "success"
            }
            Err(RequestError::Failed(failure)) if failure.exception_str().ends_with("so it was not run") => {
                assert_eq!(run, 0, "request {number}: {failure}, seed {seed}");
                "not started"
            }
            Err(RequestError::Failed(failure)) => {
                assert!(number % 5 < 2, "{failure}, seed {seed}");
                "failure"
            }
            Err(RequestError::Expired { .. }) => "expiry",
            Err(RequestError::WorkerVanished { .. }) => "vanished",
            Err(RequestError::OutcomeUnknown { .. }) => "unknown",
            Err(error) => panic!("request {number}: {error}, seed {seed}"),
        };
        *ends.entry(end).or_default() += 1;
    }
    assert_eq!(ends.values().sum::<u32>(), u32::try_from(REQUESTS).unwrap());
    ends
}

#[tokio::test(start_paused = true)]
async fn without_faults_every_request_ends_as_its_task_does() {
    let ends = each_request_ends_once(0, Faults::default()).await;
    assert_eq!(ends, BTreeMap::from([("success", 36), ("failure", 24)]));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_takes_an_hour_is_not_taken_for_lost() {
    let broker = LocalBroker::new();
    let nap = async |_, _| {
        sleep(Duration::from_secs(3600)).await;
        Ok::<_, Failure>("rested")
    };
    let _worker = Worker::builder(broker.clone()).topic("a").task("nap", nap).await.unwrap();
    let executor = Executor::builder(broker).topics(["a"]).await.unwrap();
    assert_eq!(executor.submit(Request::execute("nap")).await, Ok("rested".into()));
}

/// The faults keep to what a transport promises, or they would find faults that no broker has.
#[tokio::test(start_paused = true)]
async fn a_message_that_the_sender_got_back_never_comes() {
    let faulty = Faulty::new(&LocalBroker::new(), 0, Faults { twice: 100, ..Faults::default() });
    let message = |kind: &str| Message::new(kind, "{}").mandatory();
    for _ in 0..100 {
        let sent = faulty.publish("w", message("RETURNED")).await;
        assert_eq!(sent, Err(TransportError::NoConsumer { topic: "w".into() }));
    }
    let mut consumer = faulty.consume("w", u16::MAX).await.unwrap();
    for _ in 0..100 {
        faulty.publish("w", message("SENT")).await.unwrap();
    }
    let mut received = 0;
    while let Ok(Some(incoming)) = timeout(Duration::from_secs(1), consumer.next()).await {
        assert_eq!(incoming.ack().await.unwrap().kind.as_deref(), Some("SENT"));
        received += 1;
    }
    assert!(received > 100, "no message came twice: {received}");
}

#[tokio::test(start_paused = true)]
async fn under_lost_messages_each_request_ends_exactly_once() {
    let mut all = BTreeMap::new();
    for seed in 0..SEEDS {
        let faults = Faults { lost: 10, ..Faults::default() };
        all.append(&mut each_request_ends_once(seed, faults).await);
    }
    // Otherwise the faults would not have had any effect: what the broker has confirmed and lost.
    assert!(all.len() > 2, "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn under_duplicated_and_reordered_messages_each_request_ends_exactly_once() {
    for seed in 0..SEEDS {
        let faults = Faults { twice: 30, late: 20, ..Faults::default() };
        each_request_ends_once(seed, faults).await;
    }
}

#[tokio::test(start_paused = true)]
async fn under_duplicated_messages_alone_every_request_ends_as_its_task_does() {
    for seed in 0..SEEDS {
        let ends = each_request_ends_once(seed, Faults { twice: 50, ..Faults::default() }).await;
        assert_eq!(ends, BTreeMap::from([("success", 36), ("failure", 24)]), "seed {seed}");
    }
}

/// What is sent again to a topic that workers share may reach another worker than the first copy.
#[tokio::test(start_paused = true)]
async fn a_request_to_a_shared_topic_that_may_have_been_sent_runs_once() {
    let mut all = BTreeMap::new();
    for seed in 0..SEEDS {
        let faults = Faults { refused: 10, broken: 2, unacknowledged: 5, ..Faults::default() };
        all.append(&mut each_request_ends_once_at(["a", "a"], seed, faults).await);
    }
    assert!(all.contains_key("success") && all.len() > 2, "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn under_all_faults_at_once_each_request_ends_exactly_once() {
    let faults = Faults { lost: 5, twice: 10, late: 10, refused: 10, broken: 2, unacknowledged: 5 };
    let mut all = BTreeMap::new();
    for seed in 0..SEEDS {
        all.append(&mut each_request_ends_once(seed, faults).await);
    }
    assert!(all.contains_key("success") && all.len() > 2, "{all:?}");
}

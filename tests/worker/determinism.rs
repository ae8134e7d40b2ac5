//! One seed gives one run: the same messages to the byte, in the same order and at the same time.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    BoxFuture,
    clock::Clock,
    worker::{
        Arguments, Context, Executor, Failure, LocalBroker, Request, Submission, Submitted, Worker,
        transport::{Consumer, Message, Transport, TransportError},
    },
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};

use crate::faulty::{Faults, Faulty};
use crate::peer::LONG;

const REQUESTS: u64 = 60;

/// A transport that writes down what is sent and consumed through it.
#[derive(Debug, Clone)]
struct Recording {
    inner: Faulty,
    log: Arc<Mutex<String>>,
}

impl Recording {
    fn note(&self, what: &str) {
        let mut log = self.log.lock().unwrap();
        writeln!(log, "{:?} {what}", self.clock().now()).unwrap();
    }
}

impl Transport for Recording {
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>> {
        let Message { kind, reply_to, correlation_id, sender, body, .. } = &message;
        let body = String::from_utf8_lossy(body);
        self.note(&format!("-> {topic} {kind:?} {reply_to:?} {correlation_id:?} {sender:?} {body}"));
        self.inner.publish(topic, message)
    }

    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>> {
        self.note(&format!("<- {topic}"));
        self.inner.consume(topic, prefetch)
    }

    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>> {
        self.inner.is_consumed(topic)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// Returns all messages of an executor and three workers with seeds from `seed` on, and the ends of the requests. The
/// faults are the same each time.
fn run(seed: u64) -> String {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let faults = Faults { lost: 2, twice: 5, late: 5, refused: 5, broken: 1, unacknowledged: 2 };
        let broker = LocalBroker::new();
        let recording = Recording { inner: Faulty::new(&broker, 7, faults), log: Arc::default() };
        let mut workers = Vec::new();
        for (number, topic) in (1..).zip(["a", "b", "c"]) {
            let double = async |context: Context, arguments: Arguments| {
                let number: u64 = arguments.get("number")?;
                context.update_progress(0.5).await;
                sleep(Duration::from_millis(number * 97)).await;
                if number.is_multiple_of(5) { Err(Failure::new("Unlucky", "no")) } else { Ok(number * 2) }
            };
            let worker = Worker::builder(recording.clone()).topic(topic).task("double", double);
            workers.push(worker.concurrency(2).seed(seed + number).await.unwrap());
        }
        let executor = Executor::builder(recording.clone()).topics(["a", "b", "c"]).seed(seed).await.unwrap();
        let requests = FuturesUnordered::new();
        let end = async |request: Submitted| {
            let id = request.id().to_owned();
            let end = request.await.map_or_else(|error| error.to_string(), |outcome| outcome.to_string());
            recording.note(&format!("{id} {end}"));
        };
        for number in 0..REQUESTS {
            let mut request = Submission::new(Request::execute("double").argument("number", number));
            if number.is_multiple_of(2) {
                request = request.key((number % 7).to_string());
            }
            requests.push(end(executor.submit(request)));
            // Several at once, while answers come and requests expire.
            if number % 4 == 3 {
                sleep(Duration::from_secs(1)).await;
            }
        }
        for _ in 0..10 {
            requests.push(end(executor.submit(Request::execute("no worker lists this"))));
        }
        let ends = requests.collect::<Vec<()>>();
        let shutdown = async {
            sleep(Duration::from_secs(30)).await;
            executor.shutdown().await;
        };
        let (ends, ()) =
            timeout(LONG, async { tokio::join!(ends, shutdown) }).await.expect("a request hangs");
        assert_eq!(ends.len() as u64, REQUESTS + 10);
        for worker in workers {
            worker.shutdown(LONG).await;
        }
        recording.log.lock().unwrap().clone()
    })
}

#[test]
fn one_seed_gives_one_run_to_the_byte_and_another_seed_another() {
    let (first, second, other) = (run(1), run(1), run(1000));
    let differs = first.lines().zip(second.lines()).find(|(first, second)| first != second);
    assert_eq!(differs, None);
    assert_eq!(first, second);
    assert_ne!(first, other);
    // Otherwise the run would not depend on random numbers.
    let count = |what: &str| first.lines().filter(|line| line.contains(what)).count();
    assert!(count("<- ") > 4, "no consumer broke:\n{first}");
    assert!(count("REQUEST") > usize::try_from(REQUESTS).unwrap(), "no request was sent again:\n{first}");
    assert!(count("RESPONSE") > 100 && count("NOTIFY") > 10, "{first}");
}

//! The other side of an executor or a worker, played by the test message by message.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use apportion::worker::{
    Executor, LocalBroker, Request, RequestError, Submitted,
    transport::{Consumer, Message, Transport},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::SECOND;

/// Longer than any expected event takes, in paused time.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// An executor or worker that the test plays: the test reads its messages and sends its answers.
pub(crate) struct Peer {
    pub(crate) broker: LocalBroker,
    pub(crate) name: String,
    consumer: Consumer,
}

impl Peer {
    pub(crate) async fn new(broker: &LocalBroker, name: &str) -> Self {
        let consumer = broker.consume(name, 100).await.unwrap();
        Peer { broker: broker.clone(), name: name.into(), consumer }
    }

    /// The next message for it.
    pub(crate) async fn next(&mut self) -> Message {
        let incoming = timeout(LONG, self.consumer.next()).await.expect("nothing came").unwrap();
        incoming.ack().await.unwrap()
    }

    /// The next message of a kind; what comes before is thrown away.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Message {
        loop {
            let message = self.next().await;
            if message.kind.as_deref() == Some(kind) {
                return message;
            }
        }
    }

    /// The next response for it, with the id of its request.
    pub(crate) async fn next_response(&mut self) -> (String, Value) {
        let message = self.next_of("RESPONSE").await;
        assert_eq!(message.reply_to, None);
        (message.correlation_id.clone().unwrap(), body(&message))
    }

    /// The next response about `id`, without its failure's details.
    pub(crate) async fn next_state(&mut self, id: &str) -> String {
        let (about, said) = self.next_response().await;
        assert_eq!(about, id);
        said["state"].as_str().unwrap().into()
    }

    /// Whether no message comes for this time.
    pub(crate) async fn receives_nothing_for(&mut self, time: Duration) -> bool {
        timeout(time, self.consumer.next()).await.is_err()
    }

    pub(crate) async fn send(&self, topic: &str, message: Message) {
        self.broker.publish(topic, message).await.unwrap();
    }

    /// Asks a worker for a run, as TaskFlow would.
    pub(crate) async fn request(&self, topic: &str, id: &str, request: &Value) {
        let message = Message::new("REQUEST", request.to_string()).reply_to(&*self.name).correlation_id(id);
        self.send(topic, message).await;
    }

    /// Reports the tasks of this worker to an executor.
    pub(crate) async fn list(&self, executor: &str, tasks: &[&str]) {
        let body = json!({"topic": self.name, "tasks": tasks});
        self.send(executor, Message::new("NOTIFY", body.to_string())).await;
    }

    /// Sends a response about a request to an executor, as TaskFlow does.
    pub(crate) async fn respond(&self, to: &Message, response: &Value) {
        let message =
            Message::new("RESPONSE", response.to_string()).correlation_id(to.correlation_id.clone().unwrap());
        self.send(to.reply_to.as_ref().unwrap(), message).await;
    }
}

pub(crate) fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.body).unwrap()
}

/// A request to execute `task`.
pub(crate) fn execute(task: &str) -> Value {
    json!({"task_cls": task, "task_name": task, "task_version": [1, 0], "action": "execute", "arguments": {}})
}

pub(crate) fn running() -> Value {
    json!({"state": "RUNNING", "data": {}})
}

pub(crate) fn success(result: impl Into<Value>) -> Value {
    json!({"state": "SUCCESS", "data": {"result": result.into()}})
}

/// Polls `future` at most `polls` times and drops it then.
pub(crate) async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for poll in 0..polls {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        if poll + 1 < polls {
            // Everything else goes on.
            sleep(Duration::from_millis(7)).await;
        }
    }
    None
}

/// An executor, a worker played by the test, and a request of the former that the latter was sent.
pub(crate) struct Asked {
    pub(crate) executor: Executor,
    pub(crate) peer: Peer,
    pub(crate) request: Submitted,
    pub(crate) sent: Message,
}

impl Asked {
    pub(crate) async fn new() -> Self {
        let broker = LocalBroker::new();
        let mut peer = Peer::new(&broker, "w").await;
        let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
        peer.list(executor.name(), &["t"]).await;
        let request = executor.submit(Request::execute("t"));
        let sent = peer.next_of("REQUEST").await;
        Asked { executor, peer, request, sent }
    }

    pub(crate) async fn receives(&self, response: &Value) {
        self.peer.respond(&self.sent, response).await;
        sleep(SECOND).await;
    }

    /// The executor still does its work for this and for further requests.
    pub(crate) async fn goes_on(mut self) {
        self.receives(&running()).await;
        self.receives(&success(1)).await;
        assert_eq!(self.request.await, Ok(1.into()));
        let next = self.executor.submit(Request::execute("t"));
        let sent = self.peer.next_of("REQUEST").await;
        self.peer.respond(&sent, &running()).await;
        self.peer.respond(&sent, &success(2)).await;
        assert_eq!(next.await, Ok(2.into()));
    }

    /// The request ends as one whose response is invalid, and the executor goes on.
    pub(crate) async fn ends_badly(mut self, about: &str) {
        let outcome = timeout(SECOND, &mut self.request).await.expect("it hangs");
        let Err(RequestError::InvalidResponse(reason)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason.field(), about);
        self.request = self.executor.submit(Request::execute("t"));
        self.sent = self.peer.next_of("REQUEST").await;
        self.goes_on().await;
    }
}

pub(crate) fn failure() -> Value {
    json!({"exception_str": "boom", "traceback_str": "", "exc_type_names": ["E", "Exception"], "version": 1,
        "exc_args": [], "causes": []})
}

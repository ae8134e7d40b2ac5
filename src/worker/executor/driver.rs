//! Runs the executor's [`Engine`] over a transport. No message ends any of its loops.

use std::{
    collections::BTreeMap,
    future::{Future, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::unconstrained,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::command::{Command, Status, Workers};
use crate::{
    clock::{Clock, Moment},
    metrics,
    task::Tasks,
    watch,
    worker::{
        engine::{Action, Ended, Engine, Handled},
        error::RequestError,
        link::{self, Link},
        message::{
            InvalidResponse, Inventory, Notify, NotifyReply, Response, WireResponse, request::Request,
        },
        sender::Sender,
        state::RequestState,
        transport::{Consumer, Message, TransportError},
    },
};

/// How many responses are taken from the broker before they are handled.
pub(super) const PREFETCH: u16 = 256;

/// The states of a request that has not ended, and their words in the gauge.
const OPEN_STATES: [(RequestState, &str); 3] = [
    (RequestState::Waiting, "waiting"),
    (RequestState::Pending, "pending"),
    (RequestState::Running, "running"),
];

/// How often it is checked which requests have expired. As in TaskFlow.
const TICK: Duration = Duration::from_secs(1);

/// A message that was received.
#[derive(Debug)]
pub(super) enum Received {
    Notify {
        reply: NotifyReply,
        /// Whether the worker is one of this crate.
        is_ours: bool,
    },
    Response {
        id: String,
        response: Result<Response, InvalidResponse>,
        /// The name of the worker, if it is one of this crate.
        name: Option<String>,
    },
    Inventory {
        inventory: Inventory,
        sender: Sender,
    },
    /// The consumer has ended: nothing comes until [`Received::Connected`].
    Disconnected,
    /// The topic is consumed again.
    Connected,
}

/// The ends of an open request that its handle waits for, and when it has begun to wait and to run.
pub(super) struct Open {
    ended: oneshot::Sender<Ended>,
    status: watch::Sender<Status>,
    submitted: Moment,
    started: Option<Moment>,
    span: Span,
}

/// The task that owns the requests.
pub(super) struct Driver {
    pub(super) link: Link,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) engine: Engine,
    pub(super) handles: BTreeMap<String, Open>,
    pub(super) workers: watch::Sender<Workers>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) received: mpsc::Receiver<Received>,
    pub(super) own_commands: mpsc::WeakUnboundedSender<Command>,
    /// The requests to the broker that are under way.
    pub(super) sending: Tasks,
}

impl Drop for Driver {
    fn drop(&mut self) {
        OPEN_STATES.iter().for_each(|(_, word)| metrics::EXECUTOR_OPEN.set(&[word], 0.0));
    }
}

impl Driver {
    pub(super) async fn run(mut self, cancelled: CancellationToken) {
        // At any end of this task, also by a panic, the tasks beside it end too.
        let _end = cancelled.clone().drop_guard();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                // Seldom ready, so it does not delay the other branches.
                _ = ticks.tick() => self.tick(),
                received = self.received.recv() => match received {
                    Some(received) => {
                        self.handle(received);
                        // Messages may come without a pause, and must not delay the callers.
                        if let Ok(command) = self.commands.try_recv() {
                            self.execute(command);
                        }
                    }
                    // The transport is closed: nothing more will come.
                    None => break,
                },
                Some(command) = self.commands.recv() => self.execute(command),
            }
            self.act();
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            // Requests that were submitted before the end get the same end.
            self.execute(command);
        }
        self.engine.close();
        self.act();
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Submit { id, new, ended, status, span } => {
                if !self.engine.is_offered(&new.task) {
                    tracing::debug!(
                        id,
                        task = new.task,
                        "no worker lists the task yet, so the request waits"
                    );
                }
                let submitted = self.clock.now();
                self.handles.insert(id.clone(), Open { ended, status, submitted, started: None, span });
                self.engine.submit(id, new, submitted);
            }
            Command::Forget { id } => {
                if self.handles.remove(&id).is_some() {
                    metrics::EXECUTOR_ENDED.add(&["dropped"]);
                }
                self.engine.forget(&id);
            }
            Command::NotSent { id, error } => {
                tracing::warn!(id, %error, "the request could not be sent");
                self.engine.on_not_sent(&id, error);
            }
            Command::Returned { id, topic } => {
                tracing::debug!(
                    id,
                    topic = &*topic,
                    "the request was returned, because the topic has no consumer"
                );
                self.engine.on_returned(&id, &topic, self.clock.now());
            }
            Command::Absent { topic, asked } => {
                self.engine.on_absent(&topic, asked, self.clock.now());
            }
            Command::Checked { topic, is_consumed } => {
                self.engine.on_checked(&topic, is_consumed, self.clock.now());
            }
        }
    }

    fn handle(&mut self, received: Received) {
        let now = self.clock.now();
        match received {
            Received::Notify { reply, is_ours } => {
                if self.engine.on_notify(&reply, is_ours, now) {
                    tracing::info!(topic = reply.topic(), tasks = ?reply.tasks(), "a worker lists its tasks");
                    self.publish_workers();
                }
            }
            Received::Inventory { inventory, sender } => {
                self.engine.on_inventory(&inventory, &sender, now);
            }
            Received::Disconnected => self.engine.on_disconnected(),
            Received::Connected => self.engine.on_connected(now),
            Received::Response { id, response, name } => {
                match self.engine.on_response(&id, response, name.as_deref(), now) {
                    Handled::Applied => {}
                    Handled::UnknownRequest => {
                        tracing::debug!(id, "a response to an unknown request is ignored");
                    }
                    Handled::Ignored(reason) => tracing::warn!(id, reason, "an invalid response is ignored"),
                }
            }
        }
    }

    fn tick(&mut self) {
        self.measure();
        let gone = self.engine.tick(self.clock.now());
        if !gone.is_empty() {
            tracing::warn!(?gone, "workers were silent for too long");
            self.publish_workers();
        }
    }

    fn measure(&self) {
        if !cfg!(feature = "metrics") {
            return;
        }
        for (state, word) in OPEN_STATES {
            let count = self.handles.values().filter(|open| open.status.borrow().state == state).count();
            metrics::EXECUTOR_OPEN.set(&[word], count as f64);
        }
    }

    fn publish_workers(&self) {
        let workers = self.engine.finder().workers();
        let listed = workers.map(|(topic, tasks)| (topic.to_string(), tasks.iter().cloned().collect()));
        self.workers.send_replace(listed.collect());
    }

    fn act(&mut self) {
        for action in self.engine.take_actions() {
            match action {
                Action::Send { id, topic, body, is_ours, only_for } => {
                    if let Some(open) = self.handles.get(&id) {
                        open.span.in_scope(|| tracing::debug!(topic = &*topic, "sent"));
                    }
                    self.set_status(&id, |status| {
                        status.state = RequestState::Pending;
                        status.topic = Some(topic.clone());
                    });
                    let message = Message { only_for, ..Message::new(Request::KIND, body) };
                    self.send(id, topic, message, is_ours);
                }
                Action::Check { topic } => self.check(topic),
                Action::Moved { id, state } => {
                    if let Some(open) = self.handles.get_mut(&id).filter(|_| state == RequestState::Running) {
                        let now = self.clock.now();
                        open.started = Some(now);
                        open.span.in_scope(|| tracing::debug!("a worker runs the request"));
                        metrics::EXECUTOR_QUEUE_DURATION.record(&[], now.saturating_since(open.submitted));
                    }
                    self.set_status(&id, |status| status.state = state);
                }
                Action::Event { id, event } => self.set_status(&id, |status| status.add(event)),
                Action::End { id, ended } => {
                    if let Some(Open { ended: handle, status, started, span, .. }) = self.handles.remove(&id)
                    {
                        span.in_scope(|| tracing::debug!(error = ended.as_ref().err().map(display), "ended"));
                        metrics::EXECUTOR_ENDED
                            .add(&[ended.as_ref().err().map_or("success", RequestError::word)]);
                        if let Some(started) = started {
                            let took = self.clock.now().saturating_since(started);
                            metrics::EXECUTOR_RUN_DURATION.record(&[], took);
                        }
                        let state = if ended.is_ok() { RequestState::Success } else { RequestState::Failure };
                        status.send_modify(|status| status.state = state);
                        // An error means that the handle was dropped just now.
                        let _ = handle.send(ended);
                    }
                }
            }
        }
    }

    fn set_status(&self, id: &str, change: impl FnOnce(&mut Status)) {
        if let Some(open) = self.handles.get(id) {
            open.status.send_modify(change);
        }
    }

    fn send(&self, id: String, topic: Arc<str>, message: Message, is_ours: bool) {
        let link = self.link.clone();
        let mut sending = Box::pin(async move {
            let message = message.reply_to(&*link.name).correlation_id(&*id).mandatory();
            let sent = match is_ours {
                true => link.send_once(&topic, message).await,
                false => link.send(&topic, message).await,
            };
            Some(match sent.err()? {
                TransportError::NoConsumer { .. } => Command::Returned { id, topic },
                error => Command::NotSent { id, error },
            })
        });
        // The first poll decides the order of messages, so it is done here, where the requests are in order. It is
        // unconstrained, because a poll that fails for lack of tokio's budget would change the order.
        let first = pin!(unconstrained(sending.as_mut())).poll(&mut Context::from_waker(Waker::noop()));
        match first {
            Poll::Ready(None) => {}
            Poll::Ready(failed) => self.beside("send", ready(failed)),
            Poll::Pending => self.beside("send", sending),
        }
    }

    fn check(&self, topic: Arc<str>) {
        let link = self.link.clone();
        self.beside("check", async move {
            let checked = link.is_consumed(&topic).await;
            if let Err(error) = &checked {
                tracing::warn!(topic = &*topic, %error, "the consumers of the topic could not be checked");
            }
            Some(Command::Checked { topic, is_consumed: checked.ok() })
        });
    }

    /// Does `work` in a task beside the driver, so that a slow or unreachable broker does not delay the driver. Its
    /// result is a command.
    fn beside(&self, name: &'static str, work: impl Future<Output = Option<Command>> + Send + 'static) {
        let (commands, cancelled) = (self.own_commands.clone(), self.sending.cancelled());
        self.sending.spawn(name, async move {
            let done = cancelled.run_until_cancelled(work).await.flatten();
            if let (Some(command), Some(commands)) = (done, commands.upgrade()) {
                // An error means that the executor is gone, and with it the request.
                let _ = commands.send(command);
            }
        });
    }
}

/// Asks the worker of every topic for its tasks, periodically and whenever `at_once` says so.
pub(super) async fn ask(
    link: Link,
    topics: Arc<[String]>,
    period: Duration,
    at_once: Arc<tokio::sync::Notify>,
    commands: mpsc::WeakUnboundedSender<Command>,
    cancelled: CancellationToken,
) {
    let clock = link.transport.clock();
    let asking = async {
        let mut rounds = interval(period.max(Duration::from_millis(1)));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = rounds.tick() => {}
                () = at_once.notified() => {}
            }
            for topic in &*topics {
                let message = Message::new(Notify::KIND, Notify {}.to_json()).reply_to(&*link.name);
                let asked = clock.now();
                match link.send_once(topic, message.mandatory()).await {
                    Ok(()) => {}
                    Err(TransportError::Closed) => return,
                    Err(TransportError::NoConsumer { topic }) => {
                        if let Some(commands) = commands.upgrade() {
                            // An error means that the executor is gone.
                            let _ = commands.send(Command::Absent { topic, asked });
                        }
                    }
                    Err(error) => tracing::warn!(topic, %error, "the worker could not be asked"),
                }
            }
        }
    };
    cancelled.run_until_cancelled(asking).await;
}

/// Receives the answers of workers. When it can receive again after an interruption, the workers are asked `at_once`:
/// so they learn that answers are lost.
pub(super) async fn receive(
    link: Link,
    mut consumer: Consumer,
    topics: Arc<[String]>,
    received: mpsc::Sender<Received>,
    at_once: Arc<tokio::sync::Notify>,
    cancelled: CancellationToken,
) {
    let name = link.name.clone();
    loop {
        let Some(next) = cancelled.run_until_cancelled(consumer.next()).await else {
            return;
        };
        let Some(incoming) = next else {
            tracing::warn!(topic = &*name, "the connection is gone");
            if received.send(Received::Disconnected).await.is_err() {
                return;
            }
            match link.consume_again(&name, PREFETCH, &cancelled).await {
                Some(again) => consumer = again,
                None => return,
            }
            if received.send(Received::Connected).await.is_err() {
                return;
            }
            at_once.notify_one();
            continue;
        };
        let decoded = match decode(incoming.message(), &topics) {
            Ok(decoded) => decoded,
            Err(reason) => {
                link::reject(incoming, &reason).await;
                continue;
            }
        };
        // Before the acknowledgement: the message is for this process only, and a second copy does no harm, but if the
        // connection breaks now, the broker drops it together with the queue.
        if received.send(decoded).await.is_err() {
            return;
        }
        if let Err(error) = incoming.ack().await {
            tracing::debug!(%error, "a message could not be acknowledged");
        }
    }
}

/// The content of a message, or why it is rejected.
fn decode(message: &Message, topics: &[String]) -> Result<Received, String> {
    let known = |topic: &str| match topics.iter().any(|known| known == topic) {
        true => Ok(()),
        false => Err(format!("topic {topic:?} is not one of the executor's topics")),
    };
    let sender = message.sender.as_deref().map(Sender::parse);
    match message.kind.as_deref() {
        Some(NotifyReply::KIND) => {
            let reply = NotifyReply::from_json(&message.body).map_err(|error| error.to_string())?;
            known(reply.topic())?;
            Ok(Received::Notify { reply, is_ours: sender.is_some() })
        }
        Some(Response::KIND) => {
            let id = message.correlation_id.clone().ok_or("it has no correlation id")?;
            let response =
                WireResponse::from_json(&message.body).map_err(|error| error.to_string())?.decode();
            Ok(Received::Response { id, response, name: sender.map(|sender| sender.name) })
        }
        Some(Inventory::KIND) => {
            let sender = sender.ok_or("it has no sender")?;
            let inventory = Inventory::from_json(&message.body).map_err(|error| error.to_string())?;
            known(inventory.topic())?;
            Ok(Received::Inventory { inventory, sender })
        }
        _ => Err("an executor does not accept messages of this kind".into()),
    }
}

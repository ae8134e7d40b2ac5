//! Runs the executor's [`Engine`] over a transport. No message ends any of its loops.

use std::{
    collections::HashMap,
    future::{Future, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::unconstrained,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{PREFETCH, Workers, submitted::Life};
use crate::{
    clock::Clock,
    task::Tasks,
    worker::{
        engine::{Action, Engine, Heard, New, Outcome},
        lifecycle::State,
        link::{self, Link},
        message::{Notify, NotifyReply, OddResponse, Request, Response, WireResponse},
        transport::{Consumer, Message, TransportError},
    },
};

/// How often expiry is looked at. As the original has it.
const TICK: Duration = Duration::from_secs(1);

/// What handles ask of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Submit {
        id: String,
        new: New,
        ended: oneshot::Sender<Outcome>,
        life: watch::Sender<Life>,
    },
    Forget {
        id: String,
    },
    NotSent {
        id: String,
        error: TransportError,
    },
    /// `None`: nobody could tell.
    Looked {
        topic: Arc<str>,
        is_consumed: Option<bool>,
    },
}

/// What was received.
#[derive(Debug)]
pub(super) enum Said {
    Notify(NotifyReply),
    Response { id: String, said: Result<Response, OddResponse>, is_repeated: bool },
}

/// Owns the requests.
pub(super) struct Driver {
    pub(super) link: Link,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) engine: Engine,
    pub(super) handles: HashMap<String, (oneshot::Sender<Outcome>, watch::Sender<Life>)>,
    pub(super) workers: watch::Sender<Workers>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) heard: mpsc::Receiver<Said>,
    pub(super) own_commands: mpsc::WeakUnboundedSender<Command>,
    /// What is sent, and asked of the broker, at this moment.
    pub(super) sending: Tasks,
}

impl Driver {
    pub(super) async fn run(mut self, cancelled: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancelled.cancelled() => break,
                Some(command) = self.commands.recv() => self.obey(command),
                said = self.heard.recv() => match said {
                    Some(said) => self.hear(said),
                    // Nothing will be heard again: the transport is closed.
                    None => break,
                },
                _ = ticks.tick() => self.tick(),
            }
            self.act();
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            // What was submitted before the end gets the same end.
            self.obey(command);
        }
        self.engine.close();
        self.act();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { id, new, ended, life } => {
                self.handles.insert(id.clone(), (ended, life));
                self.engine.submit(id, new, self.clock.now());
            }
            Command::Forget { id } => {
                self.handles.remove(&id);
                self.engine.forget(&id);
            }
            Command::NotSent { id, error } => {
                tracing::warn!(id, %error, "the request could not be sent");
                self.engine.on_not_sent(&id, error);
            }
            Command::Looked { topic, is_consumed } => {
                self.engine.on_looked(&topic, is_consumed, self.clock.now());
            }
        }
    }

    fn hear(&mut self, said: Said) {
        let now = self.clock.now();
        match said {
            Said::Notify(reply) => {
                if self.engine.on_notify(&reply, now) {
                    tracing::info!(topic = reply.topic(), tasks = ?reply.tasks(), "a worker says what it can run");
                    self.publish_workers();
                }
            }
            Said::Response { id, said, is_repeated } => {
                match self.engine.on_response(&id, said, is_repeated, now) {
                    Heard::Taken => {}
                    Heard::NotAsked => tracing::debug!(id, "a response that nobody waits for"),
                    Heard::Odd(reason) => tracing::warn!(id, reason, "a response that makes no sense"),
                }
            }
        }
    }

    fn tick(&mut self) {
        let gone = self.engine.tick(self.clock.now());
        if !gone.is_empty() {
            tracing::warn!(?gone, "workers were silent for too long");
            self.publish_workers();
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
                Action::Send { id, topic, body } => {
                    self.tell(&id, |life| {
                        life.state = State::Pending;
                        life.topic = Some(topic.clone());
                    });
                    self.send(id, topic, body);
                }
                Action::Look { topic } => self.look(topic),
                Action::Moved { id, state } => self.tell(&id, |life| life.state = state),
                Action::Event { id, event } => self.tell(&id, |life| life.add(event)),
                Action::End { id, outcome } => {
                    if let Some((ended, life)) = self.handles.remove(&id) {
                        let state = if outcome.is_ok() { State::Success } else { State::Failure };
                        life.send_modify(|life| life.state = state);
                        // An error means that the handle was dropped just now.
                        let _ = ended.send(outcome);
                    }
                }
            }
        }
    }

    fn tell(&self, id: &str, change: impl FnOnce(&mut Life)) {
        if let Some((_, life)) = self.handles.get(id) {
            life.send_modify(change);
        }
    }

    fn send(&self, id: String, topic: Arc<str>, body: Vec<u8>) {
        let link = self.link.clone();
        let mut sending = Box::pin(async move {
            let message = Message::new(Request::KIND, body).reply_to(&*link.sender).correlation_id(&*id);
            let error = link.send(&topic, message).await.err()?;
            Some(Command::NotSent { id, error })
        });
        // The first poll gives a message its place, so it is done here, where the requests are in order. If it were
        // refused by tokio's budget, the place would be lost. All else takes place beside.
        let first = pin!(unconstrained(sending.as_mut())).poll(&mut Context::from_waker(Waker::noop()));
        match first {
            Poll::Ready(None) => {}
            Poll::Ready(failed) => self.beside("send", ready(failed)),
            Poll::Pending => self.beside("send", sending),
        }
    }

    fn look(&self, topic: Arc<str>) {
        let link = self.link.clone();
        self.beside("look", async move {
            let looked = link.is_consumed(&topic).await;
            if let Err(error) = &looked {
                tracing::warn!(topic = &*topic, %error, "nobody can tell whether the worker is there");
            }
            Some(Command::Looked { topic, is_consumed: looked.ok() })
        });
    }

    /// Does `work` beside the driver, so that a broker that is slow or away holds up nobody else. What comes of it
    /// is a command.
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

/// Asks every topic what the worker there can run, again and again.
pub(super) async fn ask(link: Link, topics: Arc<[String]>, period: Duration, cancelled: CancellationToken) {
    let asking = async {
        let mut rounds = interval(period.max(Duration::from_millis(1)));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            for topic in &*topics {
                let message = Message::new(Notify::KIND, Notify {}.to_json()).reply_to(&*link.sender);
                match link.send_once(topic, message).await {
                    Ok(()) => {}
                    Err(TransportError::Closed) => return,
                    Err(error) => tracing::warn!(topic, %error, "the worker could not be asked"),
                }
            }
        }
    };
    cancelled.run_until_cancelled(asking).await;
}

/// Takes in what workers answer.
pub(super) async fn receive(
    link: Link,
    mut consumer: Consumer,
    topics: Arc<[String]>,
    heard: mpsc::Sender<Said>,
    cancelled: CancellationToken,
) {
    let name = link.sender.clone();
    loop {
        let Some(next) = cancelled.run_until_cancelled(consumer.next()).await else {
            return;
        };
        let Some(incoming) = next else {
            tracing::warn!(%name, "the connection is gone");
            match link.consume_again(&name, PREFETCH, &cancelled).await {
                Some(again) => consumer = again,
                None => return,
            }
            continue;
        };
        let said = match understand(incoming.message(), &topics) {
            Ok(said) => said,
            Err(reason) => {
                link::reject(incoming, &reason).await;
                continue;
            }
        };
        if link::acknowledge(incoming).await.is_none() {
            continue;
        }
        if heard.send(said).await.is_err() {
            return;
        }
    }
}

/// What a message says, or why it is rejected.
fn understand(message: &Message, topics: &[String]) -> Result<Said, String> {
    match message.kind.as_deref() {
        Some(NotifyReply::KIND) => {
            let reply = NotifyReply::from_json(&message.body).map_err(|error| error.to_string())?;
            if topics.iter().any(|topic| topic == reply.topic()) {
                Ok(Said::Notify(reply))
            } else {
                Err(format!("topic {:?} was not asked", reply.topic()))
            }
        }
        Some(Response::KIND) => {
            let id = message.correlation_id.clone().ok_or("it does not say which request it is about")?;
            let said = WireResponse::from_json(&message.body).map_err(|error| error.to_string())?.meaning();
            Ok(Said::Response { id, said, is_repeated: message.sender.is_some() })
        }
        _ => Err("a message of no kind that an executor knows".into()),
    }
}

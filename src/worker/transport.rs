//! The interface to a message broker: [`Transport`], [`Message`], [`Consumer`], [`Incoming`].
//!
//! This crate has two transports: [`LocalBroker`](crate::worker::LocalBroker) within the process, and, with the feature
//! `amqp`, `worker::amqp::AmqpTransport`. Use this module to write another one.
//!
//! A transport behaves as a direct exchange of AMQP whose queues are created by their consumers, as in TaskFlow's
//! worker-based engine:
//!
//! - A message goes to the queue of its topic. If there is none, it is dropped. The sender of a
//!   [mandatory](Message::is_mandatory) message gets an error then.
//! - Several consumers of one topic compete for its messages.
//! - A queue ends with its last consumer, together with the messages in it.
//! - A message is delivered at least once until it is acknowledged.
//! - Messages that are sent to one topic through one transport arrive in the order in which
//!   [`publish`](Transport::publish) was first polled, unless a message is lost or sent again. The sender has to poll
//!   in the order that it wants.
//!
//! A transport does not repeat calls by itself. Executors and workers consume again when a consumer has ended, and
//! repeat a publish that has failed, because they know how long that is useful.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::{
    clock::{BootClock, Clock},
    future::BoxFuture,
};

/// Carries messages between executors and workers. Clones of one transport share its connection.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `message` to `topic`, the routing key. If the topic has no consumer, the message is dropped, as by a
    /// direct exchange; that is an error only if the message is [mandatory](Message::is_mandatory).
    ///
    /// The first poll decides the place of the message among the others. The caller may do the first poll with another
    /// waker than the next ones.
    ///
    /// # Errors
    ///
    /// [`TransportError`]. The message may still have been sent, unless the error is
    /// [`Refused`](TransportError::Refused) or [`NoConsumer`](TransportError::NoConsumer).
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the message may be sent or not.
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Starts to receive the messages to `topic`, with at most `prefetch` unacknowledged messages at a time (at least
    /// 1). After it has returned, no message to the topic is dropped.
    ///
    /// # Errors
    ///
    /// [`TransportError`].
    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>>;

    /// Whether `topic` has a consumer at this moment.
    ///
    /// # Errors
    ///
    /// [`TransportError`].
    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>>;

    /// The clock by which requests expire and silent workers are removed. The default is [`BootClock`], which is right
    /// for real brokers. A transport that wraps another one has to return the clock of that one.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }

    /// Ends all consumers and refuses further calls. It can be called twice.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One message as a broker carries it.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Message {
    /// The kind of the body: `NOTIFY`, `REQUEST` or `RESPONSE`, and among processes of this crate `INVENTORY`. The AMQP
    /// property `type`.
    pub kind: Option<String>,
    /// The topic for an answer.
    pub reply_to: Option<String>,
    /// The id of the request that the message belongs to.
    pub correlation_id: Option<String>,
    /// The name of the sender, a new one for each start of an executor or worker of this crate, with a number behind it
    /// once its connection has broken. The AMQP property `app_id`. Python peers neither send nor read it. A message with
    /// a sender is from a peer that keeps rules that Python peers do not keep: an executor uses a correlation id only
    /// once, and a worker repeats which requests it has.
    pub sender: Option<String>,
    /// The [`sender`](Self::sender) name of the only worker that may run the request: several may share a topic, and this
    /// is a copy of a request that may have arrived. Another worker of this crate drops it. The AMQP header `only_for`.
    /// Python peers neither send nor read it.
    pub only_for: Option<String>,
    /// The content, JSON as UTF-8.
    pub body: Vec<u8>,
    /// Whether it is an error if the topic has no consumer, who would get the message. The flag `mandatory` of an AMQP
    /// publish: it is for the broker and is not delivered, so it is false in a message that was received.
    pub is_mandatory: bool,
}

impl Message {
    /// A message with this `kind` and body, and nothing else.
    pub fn new(kind: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Message { kind: Some(kind.into()), body: body.into(), ..Message::default() }
    }

    /// Sets the topic for an answer.
    #[must_use]
    pub fn reply_to(mut self, topic: impl Into<String>) -> Self {
        self.reply_to = Some(topic.into());
        self
    }

    /// Sets the id of the request that the message belongs to.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Makes it an error if the topic has no consumer.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.is_mandatory = true;
        self
    }

    /// Names the only worker that may run the request.
    #[must_use]
    pub fn only_for(mut self, worker: impl Into<String>) -> Self {
        self.only_for = Some(worker.into());
        self
    }

    /// Sets the name of the sender.
    #[must_use]
    pub fn sender(mut self, name: impl Into<String>) -> Self {
        self.sender = Some(name.into());
        self
    }
}

/// Shows only the beginning of the body, because a body may be large, comes from another process, and goes into logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        let shown = &self.body[..self.body.len().min(SHOWN)];
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("reply_to", &self.reply_to)
            .field("correlation_id", &self.correlation_id)
            .field("sender", &self.sender)
            .field("only_for", &self.only_for)
            .field("body", &String::from_utf8_lossy(shown))
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// Receives the messages of one topic: a [`Stream`] of [`Incoming`] messages. From [`Transport::consume`].
///
/// Dropping it ends the consumption, and gives back the messages that it has not yielded yet. Acknowledge the messages
/// that it has yielded before you drop it.
#[must_use = "dropping it ends the consumption of its topic"]
pub struct Consumer(Pin<Box<dyn Stream<Item = Incoming> + Send>>);

impl Consumer {
    /// A consumer of the messages of `deliveries`. That stream has to end when the connection is gone. It is dropped
    /// together with the consumer.
    pub fn new(deliveries: impl Stream<Item = Incoming> + Send + 'static) -> Self {
        Consumer(Box::pin(deliveries))
    }

    /// Waits for a message. `None` if the connection is gone: then consume the topic again.
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn next(&mut self) -> Option<Incoming> {
        poll_fn(|cx| self.0.as_mut().poll_next(cx)).await
    }
}

impl Stream for Consumer {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consumer")
    }
}

/// A message that was delivered and is not acknowledged yet. Dropping it gives the message back to the broker. From
/// [`Consumer::next`].
#[must_use = "dropping it gives the message back to the broker"]
pub struct Incoming {
    message: Message,
    acker: Box<dyn Acker>,
}

/// The ways to acknowledge a delivered message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acknowledgement {
    /// It was handled.
    Ack,
    /// It cannot be read: the broker drops it.
    Reject,
    /// The broker delivers it again, to another consumer or to the same one.
    Requeue,
}

/// Acknowledges a delivered message. A transport implements it. If it is dropped without an acknowledgement, it has to
/// give the message back, as [`Acknowledgement::Requeue`] does.
pub trait Acker: Send + 'static {
    /// Sends the acknowledgement to the broker. The future has to do its work even if it is dropped after the first
    /// poll.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver the message again.
    fn acknowledge(self: Box<Self>, how: Acknowledgement) -> BoxFuture<'static, Result<(), TransportError>>;
}

impl Incoming {
    /// `message`, to be acknowledged through `acker`.
    pub fn new(message: Message, acker: impl Acker) -> Self {
        Incoming { message, acker: Box::new(acker) }
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Takes the body out, so that a message that waits for its acknowledgement needs no room for it.
    pub(super) fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.message.body)
    }

    /// Acknowledges the message and returns it.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver it again, so it must not be acted on.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the message may be acknowledged or given back to the broker.
    pub async fn ack(self) -> Result<Message, TransportError> {
        self.acker.acknowledge(Acknowledgement::Ack).await?;
        Ok(self.message)
    }

    /// Rejects the message: the broker drops it.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver it again.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the message may be rejected or given back to the broker.
    pub async fn reject(self) -> Result<(), TransportError> {
        self.acker.acknowledge(Acknowledgement::Reject).await
    }

    /// Gives the message back to the broker.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the connection is gone, and the broker takes the message back by itself.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the message is still given back.
    pub async fn requeue(self) -> Result<(), TransportError> {
        self.acker.acknowledge(Acknowledgement::Requeue).await
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(&self.message).finish()
    }
}

/// The error of a call on a transport. There is one variant for each case that a caller would handle differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The transport was closed, and stays closed.
    #[error("the transport is closed")]
    Closed,
    /// The broker cannot be reached, or cannot accept the call now. A later attempt may succeed.
    #[error("the broker is not available: {reason}")]
    Unavailable {
        /// The reason.
        reason: String,
    },
    /// The topic has no consumer, and the message was mandatory: it was dropped. A later attempt may succeed.
    #[error("the topic {topic:?} has no consumer")]
    NoConsumer {
        /// The topic.
        topic: String,
    },
    /// The broker refuses it for good: it is too large, not permitted, or invalid.
    #[error("refused: {reason}")]
    Refused {
        /// The reason.
        reason: String,
    },
}

impl TransportError {
    /// Whether trying again later may help, with nothing changed by an operator.
    pub const fn is_transient(&self) -> bool {
        matches!(self, TransportError::Unavailable { .. } | TransportError::NoConsumer { .. })
    }
}

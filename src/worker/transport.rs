//! What carries messages between executors and workers: [`Transport`], [`Message`], [`Consumer`], [`Incoming`].
//!
//! Two are here: [`LocalBroker`](crate::worker::LocalBroker) within the process, and, with the feature `amqp`,
//! `worker::amqp::AmqpTransport`. This module is for those who write another one.
//!
//! A transport behaves as a direct exchange of AMQP whose queues are made by their consumers. That is how kombu lays
//! out TaskFlow's worker-based engine:
//!
//! - A message goes to the queue of its topic. If there is none, it is dropped.
//! - Several consumers of one topic compete for its messages.
//! - A queue ends with its last consumer, together with the messages in it.
//! - A message is delivered at least once until it is acknowledged.
//! - Messages that are sent to one topic through one transport arrive in the order in which
//!   [`publish`](Transport::publish) was first polled, unless something goes wrong. The sender has to see to it that this
//!   is the order it wants.
//!
//! A transport repeats nothing by itself. Executors and workers ask again for a consumer that has ended, and repeat a
//! publish that has failed: they know for how long that is worth it.

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
    /// Sends `message` to `topic`, the routing key. A topic that has no consumer drops it, as a direct exchange does;
    /// that is no error.
    ///
    /// Its place among the other messages is that of the first poll. The caller may do the first poll with another waker
    /// than the next ones.
    ///
    /// # Errors
    ///
    /// [`TransportError`]. The message may have been sent nevertheless, unless it was
    /// [`Refused`](TransportError::Refused).
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Starts to receive what is sent to `topic`, with at most `prefetch` unacknowledged messages at a time (at least
    /// one). After it has returned, no message to the topic is dropped.
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
    /// for real brokers. A transport that wraps another one has to pass on the clock of that.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }

    /// Ends all consumers and refuses further calls. Calling it twice does no harm.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One message as a broker carries it.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Message {
    /// What the body is: `NOTIFY`, `REQUEST` or `RESPONSE`. The AMQP property `type`.
    pub kind: Option<String>,
    /// The topic that an answer goes to.
    pub reply_to: Option<String>,
    /// Which request an answer belongs to.
    pub correlation_id: Option<String>,
    /// The sender, with a new name for each start of an executor or worker of this crate; the AMQP property `app_id`.
    /// Python peers send none and read none. It tells that the sender makes two promises that they do not make: an
    /// executor uses a correlation id only once, and a worker repeats that a request is running.
    pub sender: Option<String>,
    /// The content, JSON as UTF-8.
    pub body: Vec<u8>,
}

impl Message {
    /// A message with this `kind` and body, and nothing else.
    pub fn new(kind: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Message { kind: Some(kind.into()), body: body.into(), ..Message::default() }
    }

    /// Sets the topic that an answer goes to.
    #[must_use]
    pub fn reply_to(mut self, topic: impl Into<String>) -> Self {
        self.reply_to = Some(topic.into());
        self
    }

    /// Sets the id of the request that this belongs to.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the name of the sender.
    #[must_use]
    pub fn sender(mut self, name: impl Into<String>) -> Self {
        self.sender = Some(name.into());
        self
    }
}

/// Shows only the beginning of the body. It may be large, another process chose it, and it is written into logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        let shown = &self.body[..self.body.len().min(SHOWN)];
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("reply_to", &self.reply_to)
            .field("correlation_id", &self.correlation_id)
            .field("sender", &self.sender)
            .field("body", &String::from_utf8_lossy(shown))
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// Receives the messages of one topic: a [`Stream`] of [`Incoming`] messages. From [`Transport::consume`].
///
/// Dropping it ends that, and gives back the messages that it did not yield yet. Acknowledge those that it did yield
/// before.
#[must_use = "dropping it ends the consumption of its topic"]
pub struct Consumer(Pin<Box<dyn Stream<Item = Incoming> + Send>>);

impl Consumer {
    /// A consumer that takes its messages from `deliveries`, which ends when the connection is gone, and is dropped
    /// together with the consumer.
    pub fn new(deliveries: impl Stream<Item = Incoming> + Send + 'static) -> Self {
        Consumer(Box::pin(deliveries))
    }

    /// Waits for a message. `None`: the connection is gone, consume again.
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

/// A message that was delivered and is not acknowledged yet. Dropping it gives the message back to the broker.
#[must_use = "dropping it gives the message back to the broker"]
pub struct Incoming {
    message: Message,
    acker: Box<dyn Acker>,
}

/// What becomes of a delivered message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acknowledgement {
    /// It is done.
    Ack,
    /// It cannot be read: the broker drops it.
    Reject,
    /// Another consumer may have it, or the same one again.
    Requeue,
}

/// How a transport learns what becomes of a delivered message. If it is dropped without an acknowledgement, it has to do
/// what [`Acknowledgement::Requeue`] does.
pub trait Acker: Send + 'static {
    /// Tells the broker. The future has to do its work even if it is dropped after the first poll.
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

    /// What was delivered.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Tells the broker that the message is done, and returns it.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver it again, so it must not be acted on.
    pub async fn ack(self) -> Result<Message, TransportError> {
        self.acker.acknowledge(Acknowledgement::Ack).await?;
        Ok(self.message)
    }

    /// Tells the broker to drop the message.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver it again.
    pub async fn reject(self) -> Result<(), TransportError> {
        self.acker.acknowledge(Acknowledgement::Reject).await
    }

    /// Gives the message back to the broker.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the connection is gone, and the broker takes it back by itself.
    pub async fn requeue(self) -> Result<(), TransportError> {
        self.acker.acknowledge(Acknowledgement::Requeue).await
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(&self.message).finish()
    }
}

/// Why a transport could not do what it was asked for. A variant exists where a caller would act differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// It was closed, and stays closed.
    #[error("the transport is closed")]
    Closed,
    /// The broker cannot be reached, or cannot take it now. A later attempt may succeed.
    #[error("the broker is not available: {reason}")]
    Unavailable {
        /// What was wrong.
        reason: String,
    },
    /// It will never be taken: it is too large, not permitted, or invalid.
    #[error("refused: {reason}")]
    Refused {
        /// What was wrong.
        reason: String,
    },
}

impl TransportError {
    /// Whether trying again later may help, with nothing changed by an operator.
    pub const fn is_transient(&self) -> bool {
        matches!(self, TransportError::Unavailable { .. })
    }
}

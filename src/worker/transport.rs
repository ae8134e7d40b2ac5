//! The seam between executor or worker and a broker: [`Transport`], [`Message`], [`Consumer`], [`Incoming`].
//!
//! It has the semantics of a direct exchange whose queues are made by those who consume: a message goes to the
//! queue of its topic, and to nobody if there is none; several consumers of one topic compete for its messages; a
//! queue ends with its last consumer, together with what waits in it. That is how kombu lays out TaskFlow's
//! worker-based engine. [`LocalBroker`](crate::worker::local::LocalBroker) does it within the process.
//!
//! A message is delivered at least once until it is settled. Those that are sent to one topic through one transport
//! arrive in the order in which [`publish`](Transport::publish) was first polled, unless something goes wrong; to keep
//! that in mind is up to who sends. A transport repeats nothing by itself: a consumer that ended is asked for again, and a failed publish is repeated, by the
//! executor and the worker, which know for how long it is worth it.

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{clock::Clock, future::BoxFuture};

/// Carries messages between executors and workers. Clones of one transport share its connection.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `message` to `topic` (the routing key). A topic that nobody consumes swallows it, as a direct
    /// exchange does, and that is no error.
    ///
    /// Its place among the other messages is that of the first poll, which has to be safe to do with another waker
    /// than the next.
    ///
    /// # Errors
    ///
    /// [`TransportError`]. The message may have been sent nevertheless, unless it was
    /// [`Refused`](TransportError::Refused).
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Starts to receive what is sent to `topic`, with at most `prefetch` unsettled messages at a time (at least
    /// one). Once it returns, nothing that is sent to the topic is swallowed.
    ///
    /// # Errors
    ///
    /// [`TransportError`].
    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>>;

    /// Whether anybody consumes `topic` at this moment.
    ///
    /// # Errors
    ///
    /// [`TransportError`].
    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>>;

    /// The clock by which requests expire and silent workers are dropped.
    fn clock(&self) -> Arc<dyn Clock>;

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
    /// Who sent it, one name for each start of an executor or worker of this crate; the AMQP property `app_id`.
    /// Python peers send none and read none. It tells that the sender keeps two promises beyond theirs: an executor
    /// uses a correlation id once only, and a worker goes on saying that a request is running.
    pub sender: Option<String>,
    /// The content, JSON as UTF-8.
    pub body: Vec<u8>,
}

impl Message {
    /// A message that says what its body is, and no more.
    pub fn new(kind: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Message { kind: Some(kind.into()), body: body.into(), ..Message::default() }
    }

    /// Asks for answers at `topic`.
    #[must_use]
    pub fn reply_to(mut self, topic: impl Into<String>) -> Self {
        self.reply_to = Some(topic.into());
        self
    }

    /// Says which request this is about.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Says who sends it.
    #[must_use]
    pub fn sender(mut self, name: impl Into<String>) -> Self {
        self.sender = Some(name.into());
        self
    }
}

/// Shows the beginning of the body: it is of any size, a stranger may have sent it, and it ends up in logs.
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

/// Receives the messages of one topic. Dropping it stops that, and gives back what it did not hand out yet. What
/// was handed out should be settled before.
pub struct Consumer(Box<dyn Deliveries>);

/// What a transport implements to hand out messages.
pub trait Deliveries: Send + 'static {
    /// The next message, `None` for good when the connection is gone.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>>;
}

impl Consumer {
    /// A consumer that takes its messages from `deliveries`; dropping the one drops the other.
    pub fn new(deliveries: impl Deliveries) -> Self {
        Consumer(Box::new(deliveries))
    }

    /// Waits for a message. `None`: the connection is gone, consume again.
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn next(&mut self) -> Option<Incoming> {
        poll_fn(|cx| self.0.poll_next(cx)).await
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consumer")
    }
}

/// A message that was delivered and not yet settled. Dropping it unsettled gives it back to the broker.
pub struct Incoming {
    message: Message,
    receipt: Box<dyn Receipt>,
}

/// What becomes of a delivered message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Settlement {
    /// It is done with.
    Ack,
    /// Nobody can make anything of it: it is thrown away.
    Reject,
    /// Somebody else may have it, or the same consumer again.
    Requeue,
}

/// What a transport implements to hear what becomes of a delivered message. Dropping it unsettled has to do what
/// [`Settlement::Requeue`] does.
pub trait Receipt: Send + 'static {
    /// Tells the broker. The future has to do its work even if it is dropped after the first poll.
    fn settle(self: Box<Self>, how: Settlement) -> BoxFuture<'static, Result<(), TransportError>>;
}

impl Incoming {
    /// `message`, to be settled through `receipt`.
    pub fn new(message: Message, receipt: impl Receipt) -> Self {
        Incoming { message, receipt: Box::new(receipt) }
    }

    /// What was delivered.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Tells the broker that the message is done with, and returns it.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver it again, so it must not be acted on.
    pub async fn ack(self) -> Result<Message, TransportError> {
        self.receipt.settle(Settlement::Ack).await?;
        Ok(self.message)
    }

    /// Tells the broker to throw the message away.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the broker may deliver it again.
    pub async fn reject(self) -> Result<(), TransportError> {
        self.receipt.settle(Settlement::Reject).await
    }

    /// Gives the message back to the broker.
    ///
    /// # Errors
    ///
    /// [`TransportError`]: the connection is gone, and the broker takes it back by itself.
    pub async fn requeue(self) -> Result<(), TransportError> {
        self.receipt.settle(Settlement::Requeue).await
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming").field(&self.message).finish()
    }
}

/// Why a transport could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// It was closed: nothing will ever go through it again.
    #[error("the transport is closed")]
    Closed,
    /// The broker cannot be reached, or cannot take it now. A later attempt may succeed.
    #[error("the broker is not available: {reason}")]
    Unavailable {
        /// What was wrong.
        reason: String,
    },
    /// It will never be taken: it is too large, not permitted, or makes no sense.
    #[error("refused: {reason}")]
    Refused {
        /// What was wrong.
        reason: String,
    },
}

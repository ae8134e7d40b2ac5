//! [`Link`]: a transport as executors and workers use it. Failed calls are tried again, as often as the protocol
//! demands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    lifecycle::ATTEMPT_TIMEOUT,
    sender::Sender,
    transport::{Consumer, Incoming, Message, Transport, TransportError},
};
use crate::{backoff::Backoff, future::BoxFuture, random::Random};

/// How often a message is tried, and the pause between two attempts. As in TaskFlow.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest pause between attempts to consume again: while the broker cannot be reached, because it may be back at
/// any moment, and what is sent to this process meanwhile is lost; and after it has refused.
const LONGEST_WHILE_AWAY: Duration = Duration::from_secs(1);
const LONGEST_AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// The growing delay between attempts, `longest` at most.
pub(super) fn backoff(longest: Duration) -> Backoff {
    Backoff::new(FIRST_DELAY, longest)
}

async fn in_time<T>(attempt: BoxFuture<'_, Result<T, TransportError>>) -> Result<T, TransportError> {
    timeout(ATTEMPT_TIMEOUT, attempt).await.unwrap_or_else(|_| {
        Err(TransportError::Unavailable { reason: format!("no answer within {ATTEMPT_TIMEOUT:?}") })
    })
}

/// A transport, and the name of the executor or worker that uses it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) name: Arc<str>,
    /// How often the topic was consumed again.
    connections: Arc<AtomicU64>,
    pub(super) random: Random,
}

impl Link {
    /// A link with a new name. Its random numbers and ids are determined by `seed`, if there is one.
    pub(super) fn new(transport: Arc<dyn Transport>, seed: Option<u64>) -> Self {
        let random = Random::new(seed);
        Link { transport, name: random.uuid().to_string().into(), connections: Arc::default(), random }
    }

    /// The sender of every message.
    fn sender(&self) -> Sender {
        Sender { name: self.name.to_string(), connections: self.connections.load(Ordering::Relaxed) }
    }

    /// Sends `message`, or gives up after one attempt.
    pub(super) async fn send_once(&self, topic: &str, message: Message) -> Result<(), TransportError> {
        in_time(self.transport.publish(topic, message.sender(self.sender().to_string()))).await
    }

    /// Whether `topic` has a consumer.
    pub(super) async fn is_consumed(&self, topic: &str) -> Result<bool, TransportError> {
        in_time(self.transport.is_consumed(topic)).await
    }

    /// Consumes `topic`, or gives up after one attempt.
    pub(super) async fn consume(&self, topic: &str, prefetch: u16) -> Result<Consumer, TransportError> {
        in_time(self.transport.consume(topic, prefetch)).await
    }

    /// Sends `message`, or gives up after three attempts. It may be sent more than once. If the error is
    /// [`TransportError::NoConsumer`], no attempt can have reached a consumer.
    pub(super) async fn send(&self, topic: &str, message: Message) -> Result<(), TransportError> {
        let mut unknown = None;
        for _ in 1..TRIES {
            match self.send_once(topic, message.clone()).await {
                Err(error @ TransportError::Unavailable { .. }) => {
                    tracing::debug!(topic, %error, "the message is sent again in a second");
                    unknown = Some(error);
                    sleep(BETWEEN_TRIES).await;
                }
                Err(TransportError::NoConsumer { .. }) if unknown.is_some() => break,
                end => return end,
            }
        }
        match self.send_once(topic, message).await {
            Err(missing @ TransportError::NoConsumer { .. }) => Err(unknown.unwrap_or(missing)),
            end => end,
        }
    }

    /// Consumes `topic` again, however long that takes. From then on the peers see that the connection broke. `None` if
    /// the transport is closed or `cancelled` is.
    pub(super) async fn consume_again(
        &self,
        topic: &str,
        prefetch: u16,
        cancelled: &CancellationToken,
    ) -> Option<Consumer> {
        let (mut away, mut refused) = (backoff(LONGEST_WHILE_AWAY), backoff(LONGEST_AFTER_REFUSAL));
        let mut delay = away.next_delay(self.random.unit());
        let again = async {
            loop {
                sleep(delay).await;
                match self.consume(topic, prefetch).await {
                    Ok(consumer) => {
                        self.connections.fetch_add(1, Ordering::Relaxed);
                        return Some(consumer);
                    }
                    Err(TransportError::Closed) => return None,
                    Err(error) => {
                        tracing::warn!(topic, %error, "could not consume; trying again");
                        let backoff = if error.is_transient() { &mut away } else { &mut refused };
                        delay = backoff.next_delay(self.random.unit());
                    }
                }
            }
        };
        cancelled.run_until_cancelled(again).await.flatten()
    }
}

/// Rejects a message that cannot be read: the broker drops it.
pub(super) async fn reject(incoming: Incoming, reason: &str) {
    tracing::warn!(message = ?incoming.message(), reason, "a message is rejected");
    if let Err(error) = incoming.reject().await {
        tracing::debug!(%error, "the rejection could not be sent");
    }
}

/// Acknowledges a message and returns it; `None` if the broker may deliver it again, so that it must not be acted on.
pub(super) async fn acknowledge(incoming: Incoming) -> Option<Message> {
    incoming
        .ack()
        .await
        .map_err(|error| tracing::warn!(%error, "a message could not be acknowledged and is ignored"))
        .ok()
}

//! A transport that is worth some patience: what fails is tried again, as often as the protocol asks for.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::transport::{Consumer, Incoming, Message, Transport, TransportError};
use crate::{backoff::Backoff, future::BoxFuture};

/// How often a message is sent before that has failed, and how long after each other. As the original has it.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// How long one attempt may take. A connection that hangs must not hold up a request for longer than it lives.
const PATIENCE: Duration = Duration::from_secs(10);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// A growing delay between attempts to get the connection back.
pub(super) fn backoff() -> Backoff {
    Backoff::new(FIRST_DELAY, LONGEST_DELAY)
}

async fn patiently<T>(work: BoxFuture<'_, Result<T, TransportError>>) -> Result<T, TransportError> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        Err(TransportError::Unavailable { reason: format!("no word from it within {PATIENCE:?}") })
    })
}

/// A transport, and who speaks through it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) transport: Arc<dyn Transport>,
    /// What every message says of its sender.
    pub(super) sender: Arc<str>,
}

impl Link {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Link { transport, sender: uuid::Uuid::new_v4().to_string().into() }
    }

    /// Sends `message`, or gives up after one attempt.
    pub(super) async fn send_once(&self, topic: &str, message: Message) -> Result<(), TransportError> {
        patiently(self.transport.publish(topic, message.sender(&*self.sender))).await
    }

    /// Whether anybody consumes `topic`.
    pub(super) async fn is_consumed(&self, topic: &str) -> Result<bool, TransportError> {
        patiently(self.transport.is_consumed(topic)).await
    }

    /// Sends `message`, or gives up after three attempts. It may be sent more than once.
    pub(super) async fn send(&self, topic: &str, message: Message) -> Result<(), TransportError> {
        for _ in 1..TRIES {
            match self.send_once(topic, message.clone()).await {
                Err(error @ TransportError::Unavailable { .. }) => {
                    tracing::debug!(topic, %error, "sending again in a moment");
                    sleep(BETWEEN_TRIES).await;
                }
                end => return end,
            }
        }
        self.send_once(topic, message).await
    }

    /// Consumes `topic` again, however long that takes. `None` if the transport is closed or `cancelled` is.
    pub(super) async fn consume_again(
        &self,
        topic: &str,
        prefetch: u16,
        cancelled: &CancellationToken,
    ) -> Option<Consumer> {
        let mut dice = fastrand::Rng::new();
        let mut backoff = backoff();
        let again = async {
            loop {
                sleep(backoff.next_delay(dice.f64())).await;
                match self.transport.consume(topic, prefetch).await {
                    Ok(consumer) => return Some(consumer),
                    Err(TransportError::Closed) => return None,
                    Err(error) => tracing::warn!(topic, %error, "not receiving; trying again"),
                }
            }
        };
        cancelled.run_until_cancelled(again).await.flatten()
    }
}

/// Throws away what nobody can make anything of.
pub(super) async fn reject(incoming: Incoming, reason: &str) {
    tracing::warn!(message = ?incoming.message(), reason, "rejected");
    if let Err(error) = incoming.reject().await {
        tracing::debug!(%error, "and could not even be rejected");
    }
}

/// What is to be acted on: nothing, if the broker may deliver it again.
pub(super) async fn acknowledge(incoming: Incoming) -> Option<Message> {
    incoming.ack().await.map_err(|error| tracing::warn!(%error, "could not acknowledge, so it is left")).ok()
}

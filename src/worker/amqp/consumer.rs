//! [`Subscription`]: the messages of one topic, and their acknowledgements.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use lapin::{
    Acker as LapinAcker, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicRejectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{sync::oneshot, time::timeout};
use tracing::debug;

use super::{
    connection::{Broker, ONLY_FOR},
    error::failed,
};
use crate::{
    future::BoxFuture,
    worker::transport::{Acker, Acknowledgement, Incoming, Message, TransportError},
};

/// How long an acknowledgement or a cancellation may take. The client may not complete one that is under way when the
/// connection breaks.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A consumer on a channel of its own.
pub(super) struct Subscription {
    consumer: lapin::Consumer,
    line: Arc<Line>,
    ended: bool,
}

/// The channel that a consumer and its unacknowledged messages share.
struct Line {
    /// It is closed with its last handle, and an acknowledgement after that would fail.
    channel: Channel,
    broker: Arc<Broker>,
}

impl Subscription {
    pub(super) fn new(broker: Arc<Broker>, channel: Channel, consumer: lapin::Consumer) -> Self {
        Subscription { consumer, line: Arc::new(Line { channel, broker }), ended: false }
    }
}

fn only_for(headers: &FieldTable) -> Option<String> {
    match headers.inner().get(ONLY_FOR)? {
        AMQPValue::LongString(name) => Some(name.to_string()),
        _ => None,
    }
}

impl Stream for Subscription {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match ready!(Pin::new(&mut self.consumer).poll_next(cx)) {
            Some(Ok(Delivery { properties, data, acker, .. })) => {
                let text = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
                let message = Message {
                    kind: text(properties.kind()),
                    reply_to: text(properties.reply_to()),
                    correlation_id: text(properties.correlation_id()),
                    sender: text(properties.app_id()),
                    only_for: properties.headers().as_ref().and_then(only_for),
                    body: data,
                    is_mandatory: false,
                };
                let unacknowledged = Unacknowledged { acker, line: self.line.clone() };
                Some(Incoming::new(message, Delivered(Some(unacknowledged))))
            }
            Some(Err(error)) => {
                debug!(queue = %self.consumer.queue(), %error, "the consumer ended");
                None
            }
            None => {
                debug!(queue = %self.consumer.queue(), "the consumer was cancelled");
                None
            }
        };
        self.ended = next.is_none();
        Poll::Ready(next)
    }
}

/// Gives back the messages that were not yielded. Until then the broker reserves them for this consumer.
impl Drop for Subscription {
    fn drop(&mut self) {
        if self.ended || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (mut consumer, line) = (self.consumer.clone(), self.line.clone());
        let spawner = line.clone();
        spawner.broker.tasks.spawn("cancel", async move {
            // An error means that the channel is gone, and so are the messages.
            let cancel = line.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            let _ = timeout(TIMEOUT, cancel).await;
            let next =
                |consumer: &mut lapin::Consumer, cx: &mut Context<'_>| Pin::new(consumer).poll_next(cx);
            while let Ok(Some(Ok(delivery))) = timeout(TIMEOUT, poll_fn(|cx| next(&mut consumer, cx))).await {
                let _ = timeout(TIMEOUT, delivery.acker.nack(requeue())).await;
            }
        });
    }
}

/// `None` once it is acknowledged.
struct Delivered(Option<Unacknowledged>);

struct Unacknowledged {
    acker: LapinAcker,
    line: Arc<Line>,
}

impl Unacknowledged {
    /// Acknowledges in a task, so that it happens also if the caller does not wait for it.
    fn acknowledge(self, how: Acknowledgement) -> oneshot::Receiver<Result<(), TransportError>> {
        let Unacknowledged { acker, line } = self;
        let (done, answer) = oneshot::channel();
        let spawner = line.clone();
        spawner.broker.tasks.spawn("acknowledge", async move {
            let sending = async {
                match how {
                    Acknowledgement::Ack => acker.ack(BasicAckOptions::default()).await,
                    Acknowledgement::Reject => acker.reject(BasicRejectOptions::default()).await,
                    Acknowledgement::Requeue => acker.nack(requeue()).await,
                }
            };
            let sent = timeout(TIMEOUT, sending).await;
            drop(line);
            let unavailable = |reason: &str| Err(TransportError::Unavailable { reason: reason.into() });
            let _ = done.send(match sent {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => unavailable("the connection is gone"),
                Ok(Err(error)) => Err(failed(error)),
                Err(_) => unavailable("the acknowledgement was not sent in time"),
            });
        });
        answer
    }
}

fn requeue() -> BasicNackOptions {
    BasicNackOptions { requeue: true, ..Default::default() }
}

impl Acker for Delivered {
    fn acknowledge(
        mut self: Box<Self>,
        how: Acknowledgement,
    ) -> BoxFuture<'static, Result<(), TransportError>> {
        let unacknowledged = self.0.take().expect("only this takes it, and takes the acker with it");
        let answer = unacknowledged.acknowledge(how);
        Box::pin(async { answer.await.unwrap_or(Err(TransportError::Closed)) })
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        // Without a runtime the connection ends, too, and the broker takes back the message.
        if let Some(unacknowledged) = self.0.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            drop(unacknowledged.acknowledge(Acknowledgement::Requeue));
        }
    }
}

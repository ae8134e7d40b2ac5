//! [`Broker`]: one connection to the broker, which is opened again when it breaks, and the calls on it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::sync::Mutex;
use tracing::{debug, info};

use super::{
    error::{INTERNAL_ERROR, NOT_FOUND, failed, protocol_error, queue_refused, short},
    handshake,
    url::Address,
};
use crate::{
    clock::{BootClock, Clock, Moment},
    future::BoxFuture,
    task::Tasks,
    worker::transport::{Message, TransportError},
};

/// The header that names the only worker that may run a request.
pub(super) const ONLY_FOR: &str = "only_for";

/// How long a call waits for the broker.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long all calls together wait for one attempt to connect. An attempt that is dropped ends only when the broker
/// answers it or its TCP connection breaks, so attempts must not pile up.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a durable queue stays without a consumer, in milliseconds. Less than the time after which an executor gives
/// the requests in it to another worker.
const QUEUE_EXPIRES_MS: i32 = 60_000;

/// How long closing waits for acknowledgements that are being sent, and for the answer of the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The state that the clones of a transport and its consumers share.
pub(super) struct Broker {
    pub(super) address: Address,
    pub(super) exchange: String,
    /// Whether queues are durable: the URL says so, or the broker refuses others.
    has_durable_queues: AtomicBool,
    state: Mutex<State>,
    /// Held while a message is handed to the client. It is fair, which keeps the messages in order.
    publishing: Mutex<()>,
    pub(super) clock: Arc<dyn Clock>,
    /// Acknowledgements and cancellations of consumers. Cancelled when the transport is closed.
    pub(super) tasks: Tasks,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    /// If the call that began it is dropped, the next call goes on with it.
    opening: Option<Opening>,
}

struct Opening {
    since: Moment,
    attempt: BoxFuture<'static, Result<Open, TransportError>>,
}

struct Open {
    connection: Connection,
    /// One for all messages, because a channel keeps their order. An error of the broker closes it.
    publisher: Mutex<Option<Channel>>,
}

impl Broker {
    /// Opens the first connection.
    pub(super) async fn connect(address: Address, exchange: &str) -> Result<Self, TransportError> {
        let broker = Broker {
            has_durable_queues: address.has_durable_queues().into(),
            address,
            exchange: exchange.to_owned(),
            state: Mutex::default(),
            publishing: Mutex::default(),
            clock: Arc::new(BootClock),
            tasks: Tasks::new(),
        };
        broker.until_closed(broker.open()).await?;
        Ok(broker)
    }

    /// Ends `work` when it takes too long or the transport is closed.
    pub(super) async fn until_closed<T>(
        &self,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let closed = self.tasks.cancelled();
        tokio::select! {
            biased;
            () = closed.cancelled() => Err(TransportError::Closed),
            done = tokio::time::timeout(TIMEOUT, work) => done.unwrap_or_else(|_| {
                Err(TransportError::Unavailable { reason: format!("no answer within {TIMEOUT:?}") })
            }),
        }
    }

    /// The open connection; a new one if the last one broke.
    async fn open(&self) -> Result<Arc<Open>, TransportError> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| open.connection.status().connected()) {
            return Ok(open.clone());
        }
        state.open = None;
        let now = self.clock.now();
        if state.opening.as_ref().is_some_and(|opening| now.saturating_since(opening.since) > ATTEMPT_TIMEOUT)
        {
            state.opening = None;
        }
        let opening = state.opening.get_or_insert_with(|| {
            debug!(broker = ?self.address, "connecting");
            Opening { since: now, attempt: Box::pin(Open::new(self.address.clone())) }
        });
        let opened = opening.attempt.as_mut().await;
        state.opening = None;
        let open = Arc::new(opened?);
        state.open = Some(open.clone());
        Ok(open)
    }

    pub(super) async fn publish(&self, topic: &str, message: Message) -> Result<(), TransportError> {
        let Message { kind, reply_to, correlation_id, sender, only_for, body, is_mandatory } = message;
        let mut headers = FieldTable::default();
        if let Some(only_for) = only_for {
            headers.insert(ONLY_FOR.into(), AMQPValue::LongString(only_for.into()));
        }
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(0);
        if let Some(kind) = kind {
            properties = properties.with_type(short("the message type", kind)?);
        }
        if let Some(reply_to) = reply_to {
            properties = properties.with_reply_to(short("the topic for answers", reply_to)?);
        }
        if let Some(correlation_id) = correlation_id {
            properties = properties.with_correlation_id(short("the correlation id", correlation_id)?);
        }
        if let Some(sender) = sender {
            properties = properties.with_app_id(short("the name of the sender", sender)?);
        }
        let name = short("the topic", topic)?;
        if self.publish_to(&name, &body, &properties, is_mandatory).await? {
            return Ok(());
        }
        // The queue may be there and not be bound, because the exchange was deleted. Its consumer does not notice.
        let is_bound = self.bind_again(topic).await?;
        match is_bound && self.publish_to(&name, &body, &properties, is_mandatory).await? {
            true => Ok(()),
            false => Err(TransportError::NoConsumer { topic: topic.to_owned() }),
        }
    }

    /// Returns false if the broker returned the message, because there is no queue for it.
    async fn publish_to(
        &self,
        topic: &ShortString,
        body: &[u8],
        properties: &BasicProperties,
        is_mandatory: bool,
    ) -> Result<bool, TransportError> {
        let publishing = self.publishing.lock().await;
        let channel = self.open().await?.publisher().await?;
        // The broker deletes the exchange with its last queue, and a message to a missing one closes the channel.
        self.declare(&channel, true).await?;
        let exchange = self.exchange.as_str().into();
        let options = BasicPublishOptions { mandatory: is_mandatory, ..Default::default() };
        let sent = channel.basic_publish(exchange, topic.clone(), options, body, properties.clone());
        let mut sent = pin!(sent);
        // The client takes the message at the first poll. The wait for its confirmation does not block other messages.
        let handed_over = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx))).await;
        drop(publishing);
        let sent = match handed_over {
            Poll::Ready(sent) => sent,
            Poll::Pending => sent.await,
        };
        match sent.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(returned) => Ok(returned.is_none()),
            Confirmation::NotRequested => Ok(true),
            Confirmation::Nack(_) => {
                Err(TransportError::Unavailable { reason: "it did not confirm the message".into() })
            }
        }
    }

    /// Binds the queue of `topic`. Returns false if there is none.
    async fn bind_again(&self, topic: &str) -> Result<bool, TransportError> {
        let queue = self.queue(topic)?;
        // A channel of its own, because binding a queue that is not there closes it.
        let channel = self.open().await?.connection.create_channel().await.map_err(failed)?;
        self.declare(&channel, false).await?;
        match self.bind(&channel, queue, topic).await {
            Ok(()) => Ok(true),
            Err(error) if protocol_error(&error) == Some(NOT_FOUND) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn bind(&self, channel: &Channel, queue: ShortString, topic: &str) -> Result<(), lapin::Error> {
        let exchange = self.exchange.as_str().into();
        channel
            .queue_bind(queue, exchange, topic.into(), QueueBindOptions::default(), FieldTable::default())
            .await
    }

    async fn declare(&self, channel: &Channel, nowait: bool) -> Result<(), TransportError> {
        let options = ExchangeDeclareOptions { auto_delete: true, nowait, ..Default::default() };
        let exchange = self.exchange.as_str().into();
        channel
            .exchange_declare(exchange, ExchangeKind::Direct, options, FieldTable::default())
            .await
            .map_err(failed)
    }

    pub(super) async fn consume(
        &self,
        topic: &str,
        prefetch: u16,
    ) -> Result<(Channel, lapin::Consumer), TransportError> {
        let queue = self.queue(topic)?;
        let channel = match self.declare_queue(&queue, prefetch).await {
            Err(DeclareError::Queue(error))
                if protocol_error(&error) == Some(INTERNAL_ERROR)
                    && !self.has_durable_queues.swap(true, Ordering::Relaxed) =>
            {
                info!(broker = ?self.address, %error, "the broker refuses transient queues; trying durable ones");
                self.declare_queue(&queue, prefetch).await
            }
            end => end,
        };
        let channel = channel.map_err(DeclareError::into_transport_error)?;
        self.bind(&channel, queue.clone(), topic).await.map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let consumer = consume.await.map_err(failed)?;
        Ok((channel, consumer))
    }

    /// Opens a channel and declares exchange and queue on it.
    async fn declare_queue(&self, queue: &ShortString, prefetch: u16) -> Result<Channel, DeclareError> {
        let channel = self.open().await?.connection.create_channel().await.map_err(failed)?;
        channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await.map_err(failed)?;
        self.declare(&channel, false).await?;
        let durable = self.has_durable_queues.load(Ordering::Relaxed);
        let options = QueueDeclareOptions { durable, auto_delete: !durable, ..Default::default() };
        let mut arguments = FieldTable::default();
        if durable {
            arguments.insert("x-expires".into(), AMQPValue::LongInt(QUEUE_EXPIRES_MS));
        }
        match channel.queue_declare(queue.clone(), options, arguments).await {
            Ok(_) => Ok(channel),
            Err(error) => Err(DeclareError::Queue(error)),
        }
    }

    pub(super) async fn is_consumed(&self, topic: &str) -> Result<bool, TransportError> {
        let queue = self.queue(topic)?;
        // A channel of its own, because asking for a queue that is not there closes it.
        let channel = self.open().await?.connection.create_channel().await.map_err(failed)?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        match channel.queue_declare(queue, options, FieldTable::default()).await {
            // TaskFlow's engines make the queue of a worker, too, so a queue alone is no sign of a worker.
            Ok(queue) => Ok(queue.consumer_count() > 0),
            Err(error) if protocol_error(&error) == Some(NOT_FOUND) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn queue(&self, topic: &str) -> Result<ShortString, TransportError> {
        short("the name of the queue", format!("{}_{topic}", self.exchange))
    }

    pub(super) async fn close(&self) {
        self.tasks.shutdown(CLOSE_TIMEOUT).await;
        // A call that is not polled any more, and not dropped, may have the lock.
        let closing = async {
            let mut state = self.state.lock().await;
            state.opening = None;
            if let Some(open) = state.open.take() {
                let _ = open.connection.close(200, "OK".into()).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Why a queue could not be declared.
enum DeclareError {
    /// The broker does not accept the queue.
    Queue(lapin::Error),
    Other(TransportError),
}

impl DeclareError {
    fn into_transport_error(self) -> TransportError {
        match self {
            DeclareError::Queue(error) => queue_refused(error),
            DeclareError::Other(error) => error,
        }
    }
}

impl From<TransportError> for DeclareError {
    fn from(error: TransportError) -> Self {
        DeclareError::Other(error)
    }
}

impl Open {
    async fn new(address: Address) -> Result<Open, TransportError> {
        let properties = ConnectionProperties::default().with_connection_name("apportion".into());
        let connection = handshake::connect(&address, properties).await?;
        Ok(Open { connection, publisher: Mutex::default() })
    }

    /// The channel for sending.
    async fn publisher(&self) -> Result<Channel, TransportError> {
        let mut publisher = self.publisher.lock().await;
        if let Some(channel) = publisher.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.connection.create_channel().await.map_err(failed)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        Ok(publisher.insert(channel).clone())
    }
}

//! Carries messages over an AMQP 0-9-1 broker, laid out as kombu lays out TaskFlow's: [`AmqpTransport`].
//!
//! So a worker here serves a TaskFlow engine in Python, and an executor here uses TaskFlow's workers, over one
//! exchange. On the broker there is, as for TaskFlow (`taskflow/engines/worker_based/proxy.py`):
//!
//! | | |
//! |---|---|
//! | exchange | the given name, type direct, not durable, deleted with its last queue |
//! | queue | `<exchange>_<topic>`, bound by the topic, not durable, not exclusive, deleted with its last consumer |
//! | properties | `type`, `reply_to`, `correlation_id`, `app_id` (ours alone), delivery mode 2, priority 0, `application/json`, `utf-8`, no headers |
//!
//! Two differences. TaskFlow makes the queue of a topic when it sends to it, and a queue that never has a consumer
//! stays for ever; here only who consumes makes one, so what is sent to an absent worker is gone, and no queue is
//! left behind for every executor that has ended. And a message counts as sent when the broker has confirmed it.
//!
//! # When the connection breaks
//!
//! Consumers end, and the next call opens a new connection; a broker that answers nothing is given up after two
//! heartbeats. An acknowledgement that was on its way then is lost, and another consumer of the topic gets the message
//! again: AMQP confirms messages, not acknowledgements.

mod url;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream as _;
use lapin::{
    Acker, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
        BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
    uri::AMQPUri,
};
use tokio::sync::{Mutex, oneshot};
use tracing::debug;

use self::url::Address;
use crate::{
    clock::{BootClock, Clock, Moment},
    future::BoxFuture,
    task::Tasks,
    worker::transport::{
        Consumer, Deliveries, Incoming, Message, Receipt, Settlement, Transport, TransportError,
    },
};

/// How long a call waits for the broker.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one attempt to connect is waited for, by however many calls. An attempt that is given up ends only when
/// the broker answers it or its TCP connection breaks, so they must not pile up.
const ATTEMPT: Duration = Duration::from_secs(60);

/// How long closing waits for settlements that are on their way, and for the broker to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection to an AMQP broker that opens again when it broke. Clones share it.
///
/// It lives on the runtime that it was made on, and on a thread of the AMQP client. When the last clone and the last
/// consumer are gone, so is the connection.
///
/// ```no_run
/// use apportion::worker::amqp::AmqpTransport;
///
/// # async fn doc() -> Result<(), apportion::worker::amqp::ConnectError> {
/// let transport = AmqpTransport::connect("amqp://user:password@rabbit:5672/", "default").await?;
/// # drop(transport); Ok(()) }
/// ```
#[derive(Clone)]
pub struct AmqpTransport(Arc<Inner>);

struct Inner {
    address: Address,
    exchange: String,
    link: Mutex<Link>,
    /// Whose turn it is to hand over a message. It is fair, which keeps the messages in order.
    turn: Mutex<()>,
    clock: Arc<dyn Clock>,
    /// Settlements and cancellations of consumers. Told to stop when the transport is closed.
    tasks: Tasks,
}

#[derive(Default)]
struct Link {
    open: Option<Arc<Open>>,
    /// Stays when the call that began it is dropped, for the next call to go on with.
    opening: Option<Opening>,
}

struct Opening {
    since: Moment,
    attempt: BoxFuture<'static, Result<Open, lapin::Error>>,
}

struct Open {
    connection: Connection,
    /// One for all, because channels keep the order. An error of the broker closes it.
    publisher: Mutex<Option<Channel>>,
}

/// Why [`AmqpTransport::connect`] failed. No message ever contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is malformed.
    #[error("bad AMQP URL, {part}: {problem}")]
    Url {
        /// The part of the URL: scheme, credentials, host, path, fragment or options.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An exchange cannot have this name.
    #[error("bad exchange name `{}`: {problem}", .name.escape_debug())]
    Exchange {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The broker is not there, or does not let us in.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl AmqpTransport {
    /// A connection to the broker at `url`, for messages through `exchange` (TaskFlow's default is `default`).
    ///
    /// The URL is read as kombu reads it: `amqp://[user:password@]host[:port][/vhost][?heartbeat=seconds]`, where
    /// user, password and virtual host may have percent escapes. Without them it is `guest`, `guest` and `/`; the
    /// heartbeat is 10 s, or what the broker wants if that is less.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: [`Unavailable`](TransportError::Unavailable) after 10 s if the broker does not answer,
    /// [`Refused`](TransportError::Refused) if it does not know the user or the virtual host.
    pub async fn connect(url: &str, exchange: &str) -> Result<AmqpTransport, ConnectError> {
        let bad = |problem| ConnectError::Exchange { name: exchange.to_owned(), problem };
        if exchange.is_empty() {
            return Err(bad("it is empty"));
        }
        if exchange.starts_with("amq.") {
            return Err(bad("names that begin with `amq.` belong to the broker"));
        }
        if exchange.len() > 127 {
            return Err(bad("it has more than 127 bytes"));
        }
        let inner = Inner {
            address: Address::parse(url)?,
            exchange: exchange.to_owned(),
            link: Mutex::default(),
            turn: Mutex::default(),
            clock: Arc::new(BootClock),
            tasks: Tasks::new(),
        };
        inner.until_closed(inner.open()).await?;
        Ok(AmqpTransport(Arc::new(inner)))
    }
}

impl Transport for AmqpTransport {
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(self.0.until_closed(self.0.publish(topic, message)))
    }

    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>> {
        let consumer = async move {
            let (channel, consumer) = self.0.consume(topic, prefetch).await?;
            let line = Arc::new(Line { channel, inner: self.0.clone() });
            Ok(Consumer::new(Subscription { consumer, line, ended: false }))
        };
        Box::pin(self.0.until_closed(consumer))
    }

    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>> {
        Box::pin(self.0.until_closed(self.0.is_consumed(topic)))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock.clone()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }
}

impl fmt::Debug for AmqpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpTransport")
            .field("address", &self.0.address)
            .field("exchange", &self.0.exchange)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Ends `work` when it takes too long or the transport is closed.
    async fn until_closed<T>(
        &self,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let closed = self.tasks.cancelled();
        tokio::select! {
            biased;
            () = closed.cancelled() => Err(TransportError::Closed),
            done = tokio::time::timeout(PATIENCE, work) => done.unwrap_or_else(|_| {
                Err(TransportError::Unavailable { reason: format!("no answer within {PATIENCE:?}") })
            }),
        }
    }

    /// The connection, a new one if the last broke.
    async fn open(&self) -> Result<Arc<Open>, TransportError> {
        let mut link = self.link.lock().await;
        if let Some(open) = link.open.as_ref().filter(|open| open.connection.status().connected()) {
            return Ok(open.clone());
        }
        link.open = None;
        let now = self.clock.now();
        if link.opening.as_ref().is_some_and(|opening| now.saturating_since(opening.since) > ATTEMPT) {
            link.opening = None;
        }
        let opening = link.opening.get_or_insert_with(|| {
            debug!(broker = ?self.address, "connecting");
            Opening { since: now, attempt: Box::pin(Open::new(self.address.uri())) }
        });
        let opened = opening.attempt.as_mut().await;
        link.opening = None;
        let open = Arc::new(opened.map_err(failed)?);
        link.open = Some(open.clone());
        Ok(open)
    }

    async fn publish(&self, topic: &str, message: Message) -> Result<(), TransportError> {
        let Message { kind, reply_to, correlation_id, sender, body } = message;
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(FieldTable::default())
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
        let topic = short("the topic", topic)?;
        let turn = self.turn.lock().await;
        let channel = self.open().await?.publisher().await?;
        // The broker deletes the exchange with its last queue, and a message to a missing one closes the channel.
        self.declare(&channel, true).await?;
        let exchange = self.exchange.as_str().into();
        let sent = channel.basic_publish(exchange, topic, BasicPublishOptions::default(), &body, properties);
        let mut sent = pin!(sent);
        // The client takes it with the first poll, and what comes then is waited for side by side.
        let handed_over = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx))).await;
        drop(turn);
        let sent = match handed_over {
            Poll::Ready(sent) => sent,
            Poll::Pending => sent.await,
        };
        match sent.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(_) | Confirmation::NotRequested => Ok(()),
            Confirmation::Nack(_) => {
                Err(TransportError::Unavailable { reason: "it did not take the message".into() })
            }
        }
    }

    async fn declare(&self, channel: &Channel, nowait: bool) -> Result<(), TransportError> {
        let options = ExchangeDeclareOptions { auto_delete: true, nowait, ..Default::default() };
        let exchange = self.exchange.as_str().into();
        channel
            .exchange_declare(exchange, ExchangeKind::Direct, options, FieldTable::default())
            .await
            .map_err(failed)
    }

    async fn consume(
        &self,
        topic: &str,
        prefetch: u16,
    ) -> Result<(Channel, lapin::Consumer), TransportError> {
        let queue = self.queue(topic)?;
        let none = FieldTable::default;
        let channel = self.open().await?.connection.create_channel().await.map_err(failed)?;
        channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await.map_err(failed)?;
        self.declare(&channel, false).await?;
        let options = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        channel.queue_declare(queue.clone(), options, none()).await.map_err(failed)?;
        let exchange = self.exchange.as_str().into();
        let bind =
            channel.queue_bind(queue.clone(), exchange, topic.into(), QueueBindOptions::default(), none());
        bind.await.map_err(failed)?;
        let consume = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), none());
        let consumer = consume.await.map_err(failed)?;
        Ok((channel, consumer))
    }

    async fn is_consumed(&self, topic: &str) -> Result<bool, TransportError> {
        let queue = self.queue(topic)?;
        // A channel of its own, because asking for a queue that is not there closes it.
        let channel = self.open().await?.connection.create_channel().await.map_err(failed)?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        match channel.queue_declare(queue, options, FieldTable::default()).await {
            // TaskFlow's engines make the queue of a worker, too, so that it is there does not tell.
            Ok(queue) => Ok(queue.consumer_count() > 0),
            Err(error) if protocol_error(&error) == Some(NOT_FOUND) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn queue(&self, topic: &str) -> Result<ShortString, TransportError> {
        short("the name of the queue", format!("{}_{topic}", self.exchange))
    }

    async fn close(&self) {
        self.tasks.shutdown(GOODBYE).await;
        let mut link = self.link.lock().await;
        link.opening = None;
        if let Some(open) = link.open.take() {
            let _ = tokio::time::timeout(GOODBYE, open.connection.close(200, "OK".into())).await;
        }
    }
}

impl Open {
    async fn new(uri: AMQPUri) -> Result<Open, lapin::Error> {
        let properties = ConnectionProperties::default().with_connection_name("apportion".into());
        let connection = Connection::connect_uri(uri, properties).await?;
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

struct Subscription {
    consumer: lapin::Consumer,
    line: Arc<Line>,
    ended: bool,
}

/// What a consumer and its unsettled messages share.
struct Line {
    /// Closed with its last handle. Then an acknowledgement would come too late.
    channel: Channel,
    inner: Arc<Inner>,
}

impl Deliveries for Subscription {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
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
                    body: data,
                };
                let unsettled = Unsettled { acker, line: self.line.clone() };
                Some(Incoming::new(message, Delivered(Some(unsettled))))
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

/// Gives back what was not handed out: until then the broker keeps it for us.
impl Drop for Subscription {
    fn drop(&mut self) {
        if self.ended || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (mut consumer, line) = (self.consumer.clone(), self.line.clone());
        let spawner = line.clone();
        spawner.inner.tasks.spawn("cancel", async move {
            // An error means that the channel is gone, and so are the messages.
            let _ = line.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
            while let Some(Ok(delivery)) = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await {
                let _ = delivery.acker.nack(requeue()).await;
            }
        });
    }
}

/// `None` once it is settled.
struct Delivered(Option<Unsettled>);

struct Unsettled {
    acker: Acker,
    line: Arc<Line>,
}

impl Unsettled {
    /// In a task, so that it happens although nobody waits for it.
    fn settle(self, how: Settlement) -> oneshot::Receiver<Result<(), TransportError>> {
        let Unsettled { acker, line } = self;
        let (done, answer) = oneshot::channel();
        let spawner = line.clone();
        spawner.inner.tasks.spawn("settle", async move {
            let settled = match how {
                Settlement::Ack => acker.ack(BasicAckOptions::default()).await,
                Settlement::Reject => acker.reject(BasicRejectOptions::default()).await,
                Settlement::Requeue => acker.nack(requeue()).await,
            };
            drop(line);
            let gone = || TransportError::Unavailable { reason: "the connection is gone".into() };
            let _ = done.send(settled.map_err(failed).and_then(|sent| sent.then_some(()).ok_or_else(gone)));
        });
        answer
    }
}

fn requeue() -> BasicNackOptions {
    BasicNackOptions { requeue: true, ..Default::default() }
}

impl Receipt for Delivered {
    fn settle(mut self: Box<Self>, how: Settlement) -> BoxFuture<'static, Result<(), TransportError>> {
        let unsettled = self.0.take().expect("only this takes it, and takes the receipt with it");
        let answer = unsettled.settle(how);
        Box::pin(async { answer.await.unwrap_or(Err(TransportError::Closed)) })
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        // Without a runtime the connection ends too, and the broker takes back what was not settled.
        if let Some(unsettled) = self.0.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            drop(unsettled.settle(Settlement::Requeue));
        }
    }
}

/// AMQP's short string, of at most 255 bytes.
fn short(what: &str, text: impl Into<String>) -> Result<ShortString, TransportError> {
    ShortString::try_new(text)
        .map_err(|_| TransportError::Refused { reason: format!("{what} has more than 255 bytes") })
}

const NOT_FOUND: u16 = 404;

/// The reply code of the broker, if the error is one of its.
fn protocol_error(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// What the errors of the client mean for who called.
#[allow(clippy::needless_pass_by_value, reason = "it is for map_err")]
fn failed(error: lapin::Error) -> TransportError {
    /// Content too large, access refused, precondition failed (declared otherwise by somebody else), not allowed.
    const FOR_GOOD: [u16; 4] = [311, 403, 406, 530];
    let for_good = protocol_error(&error).is_some_and(|code| FOR_GOOD.contains(&code))
        || matches!(error.kind(), ErrorKind::SerialisationError(_));
    let reason = error.to_string();
    if for_good { TransportError::Refused { reason } } else { TransportError::Unavailable { reason } }
}

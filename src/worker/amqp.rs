//! Carries messages over an AMQP 0-9-1 broker, in the layout that kombu uses for TaskFlow: [`AmqpTransport`].
//!
//! Over it a worker of this crate serves a TaskFlow engine in Python, and an executor of this crate uses TaskFlow's
//! workers. The broker has the same objects as for TaskFlow (`taskflow/engines/worker_based/proxy.py`):
//!
//! | | |
//! |---|---|
//! | exchange | the given name, type direct, not durable, deleted with its last queue |
//! | queue | `<exchange>_<topic>`, bound by the topic, not durable, not exclusive, deleted with its last consumer |
//! | properties | `type`, `reply_to`, `correlation_id`, `app_id` (this crate only), delivery mode 2, priority 0, `application/json`, `utf-8`, no header but `only_for` (this crate only) |
//!
//! Two things differ:
//!
//! - TaskFlow also creates the queue of a topic when it sends to it, and a queue that never has a consumer stays for
//!   ever. Here only consumers create queues. A message to a missing worker is dropped, and an executor that has ended
//!   leaves no queue behind.
//! - A message counts as sent when the broker has confirmed it, and has not returned it. A message that was returned
//!   although its queue exists is sent once more after the queue is bound: the exchange was deleted.
//!
//! # Durable queues
//!
//! From version 4.3 RabbitMQ refuses transient queues that are not exclusive, unless its configuration permits them. Then
//! queues are declared durable, not deleted with their last consumer, and with `x-expires` of one minute. The option
//! `queues=durable` of the URL chooses that from the beginning. All peers of an exchange have to declare the same:
//! TaskFlow does so only if its own queues are configured like this.
//!
//! # When the connection breaks
//!
//! Consumers end, and the next call opens a new connection. Executors and workers call again after a second at most, and
//! after 5 s at most if the broker has refused. If the broker does not answer for two heartbeats, the client closes the
//! connection. An acknowledgement that is being sent at that moment is lost, and another consumer of the topic gets the
//! message again: AMQP confirms messages, not acknowledgements. No call waits for the client for more than 10 s, no
//! acknowledgement for more than 3 s.

mod connection;
mod consumer;
mod error;
mod handshake;
#[cfg(feature = "tls")]
mod tls;
mod url;

use std::{fmt, sync::Arc};

pub use self::error::ConnectError;
use self::{connection::Broker, consumer::Subscription, url::Address};
use crate::{
    clock::Clock,
    future::BoxFuture,
    worker::transport::{Consumer, Message, Transport, TransportError},
};

/// A connection to an AMQP broker, which is opened again when it breaks. Clones share it.
///
/// It runs on the runtime on which it was connected, and on a thread of the AMQP client. It is closed with the last
/// clone and the last consumer.
///
/// ```no_run
/// use apportion::worker::amqp::AmqpTransport;
///
/// # async fn doc() -> Result<(), apportion::worker::amqp::ConnectError> {
/// let transport = AmqpTransport::connect("amqp://user:password@rabbit:5672/", "default").await?;
/// # drop(transport); Ok(()) }
/// ```
#[derive(Clone)]
pub struct AmqpTransport(Arc<Broker>);

impl AmqpTransport {
    /// Connects to the broker at `url`, for messages through `exchange` (TaskFlow's default is `default`).
    ///
    /// The URL is read as kombu reads it: `amqp://[user:password@]host[:port][/vhost][?options]`, where
    /// user, password and virtual host may have percent escapes. Without them it is `guest`, `guest` and `/`; the
    /// heartbeat is 10 s, or that of the broker if it is less. The options are `heartbeat=seconds`, and `queues=durable`
    /// or `queues=transient` (see the [module](self)).
    ///
    /// With `amqps://` (feature `tls`) the connection is encrypted; the default port is 5671. The certificate of the broker
    /// has to be for the host of the URL and signed by an authority in the file `ssl_ca_certs`. The certificate of this
    /// client, if the broker asks for one, and its key are in the files `ssl_certfile` and `ssl_keyfile`. The files are
    /// PEM. kombu has the same options, and does not check the host by default.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: [`Unavailable`](TransportError::Unavailable) if the broker does not answer within 10 s,
    /// [`Refused`](TransportError::Refused) if it refuses the user or the virtual host.
    ///
    /// # Cancel safety
    ///
    /// Safe: the connection is closed.
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
        let broker = Broker::connect(Address::parse(url)?, exchange).await?;
        Ok(AmqpTransport(Arc::new(broker)))
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
            Ok(Consumer::new(Subscription::new(self.0.clone(), channel, consumer)))
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

//! The AMQP transport against a real RabbitMQ broker.

mod brokers;
mod chaos;
mod connections;
mod tampering;
#[cfg(feature = "tls")]
mod tls;

use std::{
    future::poll_fn,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
};

use apportion::worker::{
    amqp::{AmqpTransport, ConnectError},
    transport::{Consumer, Incoming, Message, Transport, TransportError},
};

use crate::support::{Proxy, SECOND, eventually, shared_broker};

/// The exchange of one test.
fn exchange() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("exchange-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn connect(exchange: &str) -> AmqpTransport {
    AmqpTransport::connect(&shared_broker().await.url(), exchange).await.unwrap()
}

async fn through(proxy: &Proxy, exchange: &str) -> AmqpTransport {
    let url = format!("amqp://{}/?heartbeat=1", proxy.connect_string());
    AmqpTransport::connect(&url, exchange).await.unwrap()
}

fn text(body: &str) -> Message {
    Message::new("NOTIFY", body)
}

async fn next(consumer: &mut Consumer) -> Incoming {
    let next = tokio::time::timeout(5 * SECOND, consumer.next()).await;
    next.expect("a message within 5 s").expect("the connection stands")
}

/// The bodies of the next messages, each acknowledged.
async fn bodies(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let message = next(consumer).await.ack().await.unwrap();
        bodies.push(String::from_utf8(message.body).unwrap());
    }
    bodies
}

async fn is_idle(consumer: &mut Consumer) -> bool {
    tokio::time::timeout(SECOND / 5, consumer.next()).await.is_err()
}

fn is_unavailable<T>(result: &Result<T, TransportError>) -> bool {
    matches!(result, Err(TransportError::Unavailable { .. }))
}

#[tokio::test]
async fn a_message_with_any_body_arrives_as_it_was_sent() {
    let transport = connect(&exchange()).await;
    let mut consumer = transport.consume("workers", 10).await.unwrap();
    let big = vec![b'x'; 1 << 20];
    for body in [&b"{}"[..], b"", b"\x00\xff no JSON", &big] {
        let mut message = Message::new("REQUEST", body)
            .reply_to("executor")
            .correlation_id("42")
            .sender("me")
            .only_for("you");
        transport.publish("workers", message.clone()).await.unwrap();
        assert_eq!(next(&mut consumer).await.ack().await.unwrap(), message);
        message.kind = None;
        message.reply_to = None;
        message.correlation_id = None;
        message.sender = None;
        message.only_for = None;
        transport.publish("workers", message.clone()).await.unwrap();
        assert_eq!(next(&mut consumer).await.ack().await.unwrap(), message);
    }
}

#[tokio::test]
async fn a_topic_without_a_consumer_drops_its_messages() {
    let transport = connect(&exchange()).await;
    transport.publish("workers", text("lost")).await.unwrap();
    assert_eq!(transport.is_consumed("workers").await, Ok(false));
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    assert_eq!(transport.is_consumed("workers").await, Ok(true));
    transport.publish("others", text("lost")).await.unwrap();
    transport.publish("workers", text("kept")).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
}

#[tokio::test]
async fn exchange_and_queue_are_declared_as_kombu_does_and_go_with_the_last_consumer() {
    let (broker, exchange) = (shared_broker().await, exchange());
    let transport = connect(&exchange).await;
    let consumers =
        [transport.consume("workers", 1).await.unwrap(), transport.consume("me", 1).await.unwrap()];
    let lines = |listing: String| -> Vec<String> {
        let mut lines: Vec<_> =
            listing.lines().filter(|line| line.contains(&exchange)).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let exchanges = ["list_exchanges", "name", "type", "durable", "auto_delete", "internal", "arguments"];
    assert_eq!(lines(broker.ctl(&exchanges).await), [format!("{exchange}\tdirect\tfalse\ttrue\tfalse\t[]")]);
    let queues = ["list_queues", "name", "durable", "auto_delete", "exclusive", "arguments"];
    assert_eq!(
        lines(broker.ctl(&queues).await),
        [
            format!("{exchange}_me\tfalse\ttrue\tfalse\t[]"),
            format!("{exchange}_workers\tfalse\ttrue\tfalse\t[]")
        ]
    );
    let bindings = ["list_bindings", "source_name", "destination_name", "routing_key"];
    let bound: Vec<_> =
        lines(broker.ctl(&bindings).await).into_iter().filter(|line| line.starts_with(&exchange)).collect();
    assert_eq!(
        bound,
        [format!("{exchange}\t{exchange}_me\tme"), format!("{exchange}\t{exchange}_workers\tworkers")]
    );
    drop(consumers);
    eventually("queues and exchange are gone", 10 * SECOND, || async {
        let left =
            broker.ctl(&["list_exchanges", "name"]).await + &broker.ctl(&["list_queues", "name"]).await;
        (!left.contains(&exchange)).then_some(())
    })
    .await;
    // The exchange is created again for the next caller.
    transport.publish("workers", text("no consumer")).await.unwrap();
}

#[tokio::test]
async fn no_more_than_prefetch_messages_are_unacknowledged_at_a_time() {
    let transport = connect(&exchange()).await;
    let mut consumer = transport.consume("workers", 2).await.unwrap();
    for body in ["a", "b", "c"] {
        transport.publish("workers", text(body)).await.unwrap();
    }
    let (a, b) = (next(&mut consumer).await, next(&mut consumer).await);
    assert!(is_idle(&mut consumer).await);
    a.ack().await.unwrap();
    let c = next(&mut consumer).await;
    assert_eq!((&*b.message().body, &*c.message().body), (&b"b"[..], &b"c"[..]));
}

#[tokio::test]
async fn a_rejected_message_is_gone_and_an_unacknowledged_one_comes_again() {
    let transport = connect(&exchange()).await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    for body in ["reject", "requeue", "drop"] {
        transport.publish("workers", text(body)).await.unwrap();
    }
    next(&mut consumer).await.reject().await.unwrap();
    next(&mut consumer).await.requeue().await.unwrap();
    drop(next(&mut consumer).await);
    let mut again = bodies(&mut consumer, 2).await;
    again.sort();
    assert_eq!(again, ["drop", "requeue"]);
    assert!(is_idle(&mut consumer).await);
}

#[tokio::test]
async fn an_acknowledgement_that_was_begun_happens_although_its_caller_does_not_wait() {
    let transport = connect(&exchange()).await;
    let mut busy = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("acknowledged")).await.unwrap();
    let incoming = next(&mut busy).await;
    // Keeps the queue when the consumer goes, together with its channel.
    let mut idle = transport.consume("workers", 1).await.unwrap();
    drop(busy);
    let mut ack = Box::pin(incoming.ack());
    poll_fn(|cx| {
        assert!(ack.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(ack);
    assert!(is_idle(&mut idle).await);
    transport.publish("workers", text("next")).await.unwrap();
    assert_eq!(bodies(&mut idle, 1).await, ["next"]);
}

#[tokio::test]
async fn a_message_that_a_dropped_consumer_has_not_acknowledged_goes_to_another() {
    let transport = connect(&exchange()).await;
    let mut first = transport.consume("workers", 10).await.unwrap();
    for body in ["a", "b"] {
        transport.publish("workers", text(body)).await.unwrap();
    }
    let taken = next(&mut first).await;
    let mut second = transport.consume("workers", 10).await.unwrap();
    drop(first);
    assert_eq!(bodies(&mut second, 1).await, ["b"]);
    assert!(is_idle(&mut second).await);
    drop(taken);
    assert_eq!(bodies(&mut second, 1).await, ["a"]);
}

#[tokio::test]
async fn consumers_of_one_topic_compete_for_its_messages() {
    let exchange = exchange();
    let (a, b) = (connect(&exchange).await, connect(&exchange).await);
    let mut consumers = [a.consume("workers", 1).await.unwrap(), b.consume("workers", 1).await.unwrap()];
    for body in ["1", "2"] {
        a.publish("workers", text(body)).await.unwrap();
    }
    let (one, other) = (next(&mut consumers[0]).await, next(&mut consumers[1]).await);
    assert_ne!(one.message(), other.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_one_connection() {
    let transport = connect(&exchange()).await;
    let mut consumer = transport.consume("workers", 100).await.unwrap();
    let mut sending = tokio::task::JoinSet::new();
    for sender in 0..20 {
        let transport = transport.clone();
        sending.spawn(async move {
            for number in 0..20 {
                transport.publish("workers", text(&format!("{sender:02}-{number:02}"))).await.unwrap();
            }
        });
    }
    let received = bodies(&mut consumer, 400).await;
    for sender in 0..20 {
        let prefix = format!("{sender:02}-");
        let of_sender: Vec<_> = received.iter().filter(|body| body.starts_with(&prefix)).collect();
        assert_eq!(of_sender.len(), 20);
        assert!(of_sender.is_sorted(), "{of_sender:?}");
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_the_order_in_which_they_were_begun() {
    let transport = connect(&exchange()).await;
    let mut consumer = transport.consume("workers", 1000).await.unwrap();
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let transport = transport.clone();
        let mut publish = Box::pin(tokio::task::unconstrained(async move {
            transport.publish("workers", text(&format!("{number:04}"))).await
        }));
        let begun = poll_fn(|cx| Poll::Ready(publish.as_mut().poll(cx))).await;
        assert_eq!(begun, Poll::Pending);
        sending.spawn(publish);
    }
    let received = bodies(&mut consumer, 1000).await;
    assert_eq!(received.windows(2).filter(|pair| pair[0] > pair[1]).count(), 0);
    for sent in sending.join_all().await {
        sent.unwrap();
    }
}

#[tokio::test]
async fn a_queue_that_was_deleted_ends_its_consumer_alone() {
    let exchange = exchange();
    let transport = connect(&exchange).await;
    let mut doomed = transport.consume("doomed", 1).await.unwrap();
    let mut other = transport.consume("other", 1).await.unwrap();
    shared_broker().await.ctl(&["delete_queue", &format!("{exchange}_doomed")]).await;
    assert!(tokio::time::timeout(5 * SECOND, doomed.next()).await.unwrap().is_none());
    transport.publish("other", text("kept")).await.unwrap();
    assert_eq!(bodies(&mut other, 1).await, ["kept"]);
    assert!(transport.consume("doomed", 1).await.is_ok());
}

#[tokio::test]
async fn invalid_urls_and_names_are_refused_before_anything_is_sent() {
    for url in ["", "localhost", "amqps://h", "amqp://", "amqp://h?frame_max=1", "amqp://u@h"] {
        let error = AmqpTransport::connect(url, "e").await.unwrap_err();
        assert!(matches!(error, ConnectError::Url { .. }), "{url}: {error:?}");
    }
    for exchange in ["", "amq.direct", &"x".repeat(128)] {
        let error = AmqpTransport::connect(&shared_broker().await.url(), exchange).await.unwrap_err();
        assert!(matches!(error, ConnectError::Exchange { .. }), "{exchange}: {error:?}");
    }
    let transport = connect(&exchange()).await;
    let long = "x".repeat(256);
    let refused = |result: Result<(), TransportError>| matches!(result, Err(TransportError::Refused { .. }));
    assert!(refused(transport.publish(&long, text("x")).await));
    assert!(refused(transport.publish("t", text("x").reply_to(&*long)).await));
    assert!(refused(transport.publish("t", text("x").correlation_id(&*long)).await));
    assert!(refused(transport.publish("t", text("x").sender(&*long)).await));
    assert!(refused(transport.publish("t", Message::new(&*long, "x")).await));
    assert!(refused(transport.consume(&long, 1).await.map(drop)));
    transport.publish("t", text("x")).await.unwrap();
}

#[tokio::test]
async fn an_exchange_or_queue_of_another_kind_is_a_refusal_that_does_not_affect_others() {
    let broker = shared_broker().await;
    let fanout = exchange();
    broker.ctl(&["eval", &declare_fanout(&fanout)]).await;
    let transport = connect(&fanout).await;
    let error = transport.publish("workers", text("x")).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error:?}");
    let error = transport.consume("workers", 1).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error:?}");
    broker.ctl(&["eval", &delete_exchange(&fanout)]).await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("kept")).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
}

fn resource(exchange: &str) -> String {
    format!("rabbit_misc:r(<<\"/\">>, exchange, <<\"{exchange}\">>)")
}

fn declare_fanout(exchange: &str) -> String {
    format!(
        "rabbit_exchange:declare({}, fanout, true, false, false, [], <<\"test\">>), ok.",
        resource(exchange)
    )
}

fn delete_exchange(exchange: &str) -> String {
    format!("rabbit_exchange:delete({}, false, <<\"test\">>), ok.", resource(exchange))
}

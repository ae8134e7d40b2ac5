//! Brokers that break, refuse or lose what others keep.

use apportion::worker::{
    Executor, Failure, Request, Worker,
    amqp::AmqpTransport,
    transport::{Transport, TransportError},
};
use tokio::time::timeout;

use super::{
    bodies, connect, exchange, is_idle, next,
    tampering::{OPEN, TUNE, TUNE_OK, Tampering},
    text, through,
};
use crate::support::{Mode, Proxy, SECOND, eventually, shared_broker};

#[tokio::test]
async fn a_connection_that_is_lost_late_in_the_handshake_costs_no_time() {
    let broker = Tampering::start(shared_broker().await.port()).await;
    for method in [TUNE, TUNE_OK, OPEN] {
        // Every second one with a reset, the others with an orderly end of the stream.
        broker.breaks_at(method, 4);
        let exchange = exchange();
        let connecting = async {
            loop {
                match AmqpTransport::connect(&broker.url(), &exchange).await {
                    Ok(transport) => return transport,
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        };
        let transport =
            timeout(8 * SECOND, connecting).await.unwrap_or_else(|_| panic!("it hangs at {method:?}"));
        assert_eq!(broker.breaks_left(), 0);
        transport.close().await;
    }
}

#[tokio::test]
async fn a_mandatory_message_to_a_topic_without_a_consumer_is_an_error_and_others_are_not() {
    let transport = connect(&exchange()).await;
    transport.publish("workers", text("lost")).await.unwrap();
    let missing = Err(TransportError::NoConsumer { topic: "workers".into() });
    assert_eq!(transport.publish("workers", text("returned").mandatory()).await, missing);
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("kept").mandatory()).await.unwrap();
    let message = next(&mut consumer).await.ack().await.unwrap();
    assert_eq!(message, text("kept"), "the flag is for the broker");
}

#[tokio::test]
async fn a_queue_whose_exchange_was_deleted_is_bound_again_by_the_next_mandatory_message() {
    let exchange = exchange();
    let transport = connect(&exchange).await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    shared_broker().await.ctl(&["eval", &super::delete_exchange(&exchange)]).await;
    transport.publish("workers", text("kept").mandatory()).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
}

#[tokio::test]
async fn a_request_is_done_although_the_exchange_was_deleted() {
    let exchange = exchange();
    let task = async |_, _| Ok::<_, Failure>(7);
    let worker = Worker::builder(connect(&exchange).await).topic("w").task("t", task);
    let _worker = worker.await.unwrap();
    let executor = Executor::builder(connect(&exchange).await).topics(["w"]).await.unwrap();
    assert_eq!(executor.submit(Request::execute("t")).await, Ok(7.into()));
    shared_broker().await.ctl(&["eval", &super::delete_exchange(&exchange)]).await;
    let outcome = timeout(20 * SECOND, executor.submit(Request::execute("t"))).await;
    assert_eq!(outcome.expect("it hangs"), Ok(7.into()));
}

#[tokio::test]
async fn a_broker_that_refuses_transient_queues_gets_durable_ones() {
    let broker = Tampering::start(shared_broker().await.port()).await;
    broker.refuses_transient_queues();
    let exchange = exchange();
    let transport = AmqpTransport::connect(&broker.url(), &exchange).await.unwrap();
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("kept").mandatory()).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
    let _other = transport.consume("others", 1).await.unwrap();
    assert_eq!(broker.refusals(), 1, "it is known after the first refusal");
    let queues = ["list_queues", "name", "durable", "auto_delete", "exclusive", "arguments"];
    let listing = shared_broker().await.ctl(&queues).await;
    let line = format!("{exchange}_workers\ttrue\tfalse\tfalse\t[{{\"x-expires\",60000}}]");
    assert!(listing.lines().any(|found| found == line), "{listing}");
}

/// A broker that refuses durable queues, too: here because there is a transient one of that name.
#[tokio::test]
async fn a_broker_that_refuses_the_queue_is_a_refusal_with_its_reason() {
    let exchange = exchange();
    let transient = connect(&exchange).await;
    let _consumer = transient.consume("workers", 1).await.unwrap();
    let url = format!("{}?queues=durable", shared_broker().await.url());
    let durable = AmqpTransport::connect(&url, &exchange).await.unwrap();
    let error = durable.consume("workers", 1).await.unwrap_err();
    let TransportError::Refused { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("inequivalent arg 'durable'"), "{reason}");
}

#[tokio::test]
async fn a_durable_queue_keeps_its_messages_while_its_consumer_is_away() {
    let proxy = Proxy::start(shared_broker().await.port()).await;
    let exchange = exchange();
    let url = format!("{}?queues=durable", shared_broker().await.url());
    let sender = AmqpTransport::connect(&url, &exchange).await.unwrap();
    let url = format!("amqp://{}/?heartbeat=1&queues=durable", proxy.connect_string());
    let receiver = AmqpTransport::connect(&url, &exchange).await.unwrap();
    let mut consumer = receiver.consume("workers", 1).await.unwrap();
    proxy.set(Mode::Cut);
    assert!(timeout(5 * SECOND, consumer.next()).await.unwrap().is_none());
    sender.publish("workers", text("kept").mandatory()).await.unwrap();
    proxy.set(Mode::Pass);
    let mut consumer = receiver.consume("workers", 1).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
    assert!(is_idle(&mut consumer).await);
}

/// The client may not complete an acknowledgement that is queued when the connection breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledgement_ends_although_the_connection_breaks_under_load() {
    let proxy = Proxy::start(shared_broker().await.port()).await;
    let exchange = exchange();
    let (sender, receiver) = (connect(&exchange).await, through(&proxy, &exchange).await);
    // Keeps the queue while the other consumer is away.
    let _idle = sender.consume("workers", 1).await.unwrap();
    let mut acknowledged = 0;
    for round in 0..60 {
        let mut consumer =
            eventually("consumed", 10 * SECOND, || async { receiver.consume("workers", 200).await.ok() })
                .await;
        let sending = async {
            for _ in 0..40 {
                sender.publish("workers", text("x")).await.unwrap();
            }
        };
        let receiving = async {
            let mut acks = tokio::task::JoinSet::new();
            while let Some(incoming) = consumer.next().await {
                acks.spawn(incoming.ack());
                if acks.len() == 10 + round % 20 {
                    proxy.reset();
                }
            }
            acks
        };
        let ((), acks) =
            tokio::join!(sending, async { timeout(10 * SECOND, receiving).await.expect("it ends") });
        let ends = timeout(10 * SECOND, acks.join_all()).await.expect("an acknowledgement never ends");
        acknowledged += ends.iter().filter(|end| end.is_ok()).count();
    }
    assert!(acknowledged > 0);
}

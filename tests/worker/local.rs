//! The broker in the process.

use std::time::Duration;

use apportion::worker::{
    LocalBroker,
    transport::{Consumer, Incoming, Message, Transport, TransportError},
};
use tokio::time::timeout;

use crate::peer::LONG;

fn message(text: &str) -> Message {
    Message::new("REQUEST", text)
}

async fn send(broker: &LocalBroker, text: &str) {
    broker.publish("t", message(text)).await.unwrap();
}

async fn next(consumer: &mut Consumer) -> Incoming {
    timeout(LONG, consumer.next()).await.expect("nothing came").unwrap()
}

async fn next_text(consumer: &mut Consumer) -> String {
    let message = next(consumer).await.ack().await.unwrap();
    String::from_utf8(message.body).unwrap()
}

async fn is_idle(consumer: &mut Consumer) -> bool {
    timeout(Duration::from_secs(1), consumer.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_a_consumer_drops_its_messages() {
    let broker = LocalBroker::new();
    send(&broker, "swallowed").await;
    assert_eq!(broker.is_consumed("t").await, Ok(false));
    let mut consumer = broker.consume("t", 10).await.unwrap();
    assert_eq!(broker.is_consumed("t").await, Ok(true));
    send(&broker, "kept").await;
    assert_eq!(next_text(&mut consumer).await, "kept");
    drop(consumer);
    assert_eq!(broker.is_consumed("t").await, Ok(false));
    send(&broker, "swallowed, too").await;
    let mut consumer = broker.consume("t", 10).await.unwrap();
    assert!(is_idle(&mut consumer).await);
}

#[tokio::test(start_paused = true)]
async fn consumers_of_one_topic_get_its_messages_in_turn() {
    let broker = LocalBroker::new();
    let (mut a, mut b) = (broker.consume("t", 10).await.unwrap(), broker.consume("t", 10).await.unwrap());
    for text in ["1", "2", "3", "4"] {
        send(&broker, text).await;
    }
    let mut texts = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        texts[0].push(next_text(&mut a).await);
        texts[1].push(next_text(&mut b).await);
    }
    texts.sort();
    assert_eq!(texts, [["1", "3"], ["2", "4"]]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_has_at_most_its_prefetch_unacknowledged() {
    let broker = LocalBroker::new();
    let mut consumer = broker.consume("t", 2).await.unwrap();
    for text in ["1", "2", "3"] {
        send(&broker, text).await;
    }
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    assert!(is_idle(&mut consumer).await);
    second.ack().await.unwrap();
    assert_eq!(next_text(&mut consumer).await, "3");
    assert_eq!(first.message().body, b"1");
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_message_is_delivered_again_and_a_rejected_one_is_not() {
    let broker = LocalBroker::new();
    let mut consumer = broker.consume("t", 1).await.unwrap();
    for text in ["1", "2"] {
        send(&broker, text).await;
    }
    drop(next(&mut consumer).await);
    next(&mut consumer).await.requeue().await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.message().body, b"1");
    again.reject().await.unwrap();
    assert_eq!(next_text(&mut consumer).await, "2");
    assert_eq!(broker.message_count("t"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_messages_that_a_dropped_consumer_has_not_yielded_go_to_another() {
    let broker = LocalBroker::new();
    let a = broker.consume("t", 10).await.unwrap();
    for text in ["1", "2", "3"] {
        send(&broker, text).await;
    }
    let mut b = broker.consume("t", 10).await.unwrap();
    assert!(is_idle(&mut b).await);
    drop(a);
    assert_eq!([next_text(&mut b).await, next_text(&mut b).await, next_text(&mut b).await], ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn an_acker_of_a_queue_that_has_ended_does_not_affect_the_next_one() {
    let broker = LocalBroker::new();
    let mut old = broker.consume("t", 1).await.unwrap();
    send(&broker, "old").await;
    let incoming = next(&mut old).await;
    drop(old);
    let mut consumer = broker.consume("t", 1).await.unwrap();
    send(&broker, "new").await;
    drop(incoming);
    assert_eq!(broker.message_count("t"), 1);
    assert_eq!(next_text(&mut consumer).await, "new");
    assert!(is_idle(&mut consumer).await);
}

#[tokio::test(start_paused = true)]
async fn a_full_topic_refuses_further_messages_until_some_are_acknowledged() {
    let broker = LocalBroker::new().limit(2);
    let mut consumer = broker.consume("t", 1).await.unwrap();
    send(&broker, "1").await;
    send(&broker, "2").await;
    let full = broker.publish("t", message("3")).await;
    assert!(matches!(full, Err(TransportError::Unavailable { .. })), "{full:?}");
    assert_eq!(next_text(&mut consumer).await, "1");
    send(&broker, "3").await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_broker_ends_its_consumers_and_refuses_everything() {
    let broker = LocalBroker::new();
    let mut consumer = broker.consume("t", 1).await.unwrap();
    send(&broker, "1").await;
    let incoming = next(&mut consumer).await;
    let ended = async { timeout(LONG, consumer.next()).await.expect("it did not end").is_none() };
    let (ended, ()) = tokio::join!(ended, broker.close());
    assert!(ended);
    assert_eq!(incoming.ack().await, Err(TransportError::Closed));
    assert_eq!(broker.publish("t", message("2")).await, Err(TransportError::Closed));
    assert_eq!(broker.consume("t", 1).await.map(drop), Err(TransportError::Closed));
    assert_eq!(broker.is_consumed("t").await, Err(TransportError::Closed));
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn thirty_mixed_messages_all_arrive_in_order() {
    let broker = LocalBroker::new();
    let mut consumer = broker.consume("t", 3).await.unwrap();
    let kinds = ["NOTIFY", "REQUEST", "RESPONSE"];
    for number in 0..30 {
        let message = Message::new(kinds[number % 3], number.to_string()).reply_to("r").correlation_id("c");
        broker.publish("t", message).await.unwrap();
    }
    for number in 0..30 {
        let message = next(&mut consumer).await.ack().await.unwrap();
        assert_eq!(message.kind.as_deref(), Some(kinds[number % 3]));
        assert_eq!(message.body, number.to_string().into_bytes());
        assert_eq!((message.reply_to.as_deref(), message.correlation_id.as_deref()), (Some("r"), Some("c")));
    }
}

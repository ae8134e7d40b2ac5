//! Connections that break, are refused, and end.

use apportion::worker::{
    amqp::{AmqpTransport, ConnectError},
    transport::{Transport, TransportError},
};

use super::{bodies, connect, exchange, is_idle, is_unavailable, next, text, through};
use crate::support::{Broker, Mode, Proxy, SECOND, eventually, shared_broker};

#[tokio::test]
async fn a_cut_connection_ends_the_consumer_and_the_next_call_opens_a_new_one() {
    let proxy = Proxy::start(shared_broker().await.port()).await;
    let transport = through(&proxy, &exchange()).await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    proxy.set(Mode::Cut);
    assert!(tokio::time::timeout(5 * SECOND, consumer.next()).await.unwrap().is_none());
    assert!(consumer.next().await.is_none());
    assert!(is_unavailable(&transport.publish("workers", text("lost")).await));
    assert!(is_unavailable(&transport.consume("workers", 1).await));
    assert!(is_unavailable(&transport.is_consumed("workers").await));
    proxy.set(Mode::Pass);
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("kept")).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
}

#[tokio::test]
async fn a_message_that_was_unacknowledged_when_the_connection_broke_is_delivered_again() {
    let proxy = Proxy::start(shared_broker().await.port()).await;
    let exchange = exchange();
    let direct = connect(&exchange).await;
    let transport = through(&proxy, &exchange).await;
    let mut cut = transport.consume("workers", 1).await.unwrap();
    direct.publish("workers", text("again")).await.unwrap();
    let incoming = next(&mut cut).await;
    let mut other = direct.consume("workers", 1).await.unwrap();
    proxy.set(Mode::Cut);
    assert!(tokio::time::timeout(5 * SECOND, cut.next()).await.unwrap().is_none());
    let ack = incoming.ack().await;
    assert!(ack.as_ref().is_err_and(|error| matches!(error, TransportError::Unavailable { .. })), "{ack:?}");
    assert_eq!(bodies(&mut other, 1).await, ["again"]);
}

#[tokio::test]
async fn a_broker_that_is_silent_is_given_up_after_two_heartbeats() {
    let proxy = Proxy::start(shared_broker().await.port()).await;
    let transport = through(&proxy, &exchange()).await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    proxy.set(Mode::BlackHole);
    let (clock, began) = (transport.clock(), transport.clock().now());
    assert!(is_unavailable(&transport.publish("workers", text("lost")).await));
    assert!(tokio::time::timeout(SECOND, consumer.next()).await.unwrap().is_none());
    let took = clock.now().saturating_since(began);
    assert!(took > SECOND && took < 6 * SECOND, "{took:?}");
    proxy.set(Mode::Pass);
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("kept")).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
}

#[tokio::test]
async fn an_attempt_to_connect_outlives_the_call_that_began_it() {
    let proxy = Proxy::start(shared_broker().await.port()).await;
    let transport = through(&proxy, &exchange()).await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    proxy.set(Mode::Cut);
    assert!(tokio::time::timeout(5 * SECOND, consumer.next()).await.unwrap().is_none());
    proxy.set(Mode::BlackHole);
    for _ in 0..3 {
        let call = transport.publish("workers", text("lost"));
        assert!(tokio::time::timeout(SECOND / 10, call).await.is_err());
    }
    proxy.set(Mode::Pass);
    let call = transport.publish("workers", text("sent"));
    tokio::time::timeout(5 * SECOND, call).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broker_that_was_killed_is_used_again_once_it_is_back() {
    let mut broker = Broker::start().await;
    let transport = AmqpTransport::connect(&broker.url(), "e").await.unwrap();
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    broker.kill();
    assert!(tokio::time::timeout(5 * SECOND, consumer.next()).await.unwrap().is_none());
    assert!(is_unavailable(&transport.publish("workers", text("lost")).await));
    broker.restart().await;
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("kept")).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["kept"]);
}

#[tokio::test]
async fn a_closed_transport_ends_its_consumers_and_refuses_calls() {
    let exchange = exchange();
    let transport = connect(&exchange).await;
    let clone = transport.clone();
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("acknowledged at the last moment")).await.unwrap();
    let incoming = next(&mut consumer).await;
    let other = connect(&exchange).await;
    let mut heir = other.consume("workers", 1).await.unwrap();
    let (acked, ()) = tokio::join!(incoming.ack(), clone.close());
    acked.unwrap();
    assert!(tokio::time::timeout(5 * SECOND, consumer.next()).await.unwrap().is_none());
    assert_eq!(transport.publish("workers", text("x")).await, Err(TransportError::Closed));
    assert_eq!(transport.consume("workers", 1).await.unwrap_err(), TransportError::Closed);
    transport.close().await;
    assert!(is_idle(&mut heir).await);
}

#[tokio::test]
async fn the_connection_ends_with_the_last_handle() {
    let broker = Broker::start().await;
    let connections = || async { broker.ctl(&["list_connections", "pid"]).await.matches("<").count() };
    let transport = AmqpTransport::connect(&broker.url(), "e").await.unwrap();
    let mut consumer = transport.clone().consume("workers", 1).await.unwrap();
    transport.publish("workers", text("x")).await.unwrap();
    drop(transport);
    bodies(&mut consumer, 1).await;
    assert_eq!(connections().await, 1);
    drop(consumer);
    eventually("the connection is closed", 10 * SECOND, || async {
        (connections().await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unknown_user_or_virtual_host_is_refused_and_the_password_is_never_shown() {
    let port = shared_broker().await.port();
    let connect = |url: String| async move { AmqpTransport::connect(&url, "e").await };
    for url in [format!("amqp://guest:secret@127.0.0.1:{port}"), format!("amqp://127.0.0.1:{port}/nowhere")] {
        let error = connect(url).await.unwrap_err();
        assert!(matches!(error, ConnectError::Transport(TransportError::Refused { .. })), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
    let unreachable = connect(format!("amqp://127.0.0.1:{}", crate::support::free_port())).await.unwrap_err();
    assert!(
        matches!(unreachable, ConnectError::Transport(TransportError::Unavailable { .. })),
        "{unreachable:?}"
    );
    let transport = connect(shared_broker().await.url()).await.unwrap();
    let shown = format!("{transport:?}");
    assert!(shown.contains("guest:(hidden)@127.0.0.1") && shown.contains("\"e\""), "{shown}");
}

//! Encrypted connections to a real broker.

use apportion::worker::{
    amqp::{AmqpTransport, ConnectError},
    transport::{Transport, TransportError},
};

use super::{bodies, exchange, text};
use crate::support::{
    Broker, SECOND, eventually,
    files::certificates::{Authority, Identity},
    free_port,
};

/// A broker with an encrypted port that needs the certificate of the client.
async fn start(authority: &Authority, identity: &Identity) -> (Broker, u16) {
    let port = free_port();
    let broker = Broker::start_with(&[
        format!("listeners.ssl.1 = 127.0.0.1:{port}"),
        format!("ssl_options.cacertfile = {}", authority.ca),
        format!("ssl_options.certfile = {}", identity.certificate),
        format!("ssl_options.keyfile = {}", identity.key),
        "ssl_options.verify = verify_peer".into(),
        "ssl_options.fail_if_no_peer_cert = true".into(),
    ])
    .await;
    (broker, port)
}

/// Asserts that no connection is opened, and that the error says why. It may take several attempts: if the broker refuses
/// the certificate of a client that has sent something already, the connection can be reset before its reason arrives.
async fn fails(url: &str, why: &str) {
    let says_why = || async {
        match AmqpTransport::connect(url, &exchange()).await {
            Err(ConnectError::Transport(TransportError::Unavailable { reason })) => {
                println!("{why}: {reason}");
                reason.contains(why).then_some(())
            }
            connected => panic!("{why}: {connected:?}"),
        }
    };
    eventually(why, 30 * SECOND, says_why).await;
}

#[tokio::test]
async fn a_connection_is_encrypted_if_the_certificates_are_right_and_refused_if_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (broker, port) = start(&authority, &authority.server(false)).await;
    let client = authority.client();
    let url = |host: &str, ca: &str, client: &Identity| {
        let (certificate, key) = (&client.certificate, &client.key);
        format!("amqps://{host}:{port}?ssl_ca_certs={ca}&ssl_certfile={certificate}&ssl_keyfile={key}")
    };
    let exchange = exchange();
    let transport =
        AmqpTransport::connect(&url("127.0.0.1", &authority.ca, &client), &exchange).await.unwrap();
    let mut consumer = transport.consume("workers", 1).await.unwrap();
    transport.publish("workers", text("encrypted")).await.unwrap();
    assert_eq!(bodies(&mut consumer, 1).await, ["encrypted"]);
    // The broker says that it is.
    let encrypted = || async {
        let connections = broker.ctl(&["list_connections", "ssl"]).await;
        connections.lines().any(|line| line.trim() == "true").then_some(())
    };
    eventually("the broker counts an encrypted connection", 30 * SECOND, encrypted).await;
    transport.close().await;

    fails(&url("127.0.0.1", &other.ca, &client), "UnknownIssuer").await;
    fails(&url("localhost", &authority.ca, &client), "not valid for name").await;
    let without = format!("amqps://127.0.0.1:{port}?ssl_ca_certs={}", authority.ca);
    fails(&without, "CertificateRequired").await;
    fails(&url("127.0.0.1", &authority.ca, &other.client()), "fatal alert").await;
    fails(&url("127.0.0.1", "/none.pem", &client), "/none.pem").await;
}

#[tokio::test]
async fn an_expired_certificate_of_a_broker_is_refused() {
    let authority = Authority::new();
    let (_broker, port) = start(&authority, &authority.server(true)).await;
    fails(&format!("amqps://127.0.0.1:{port}?ssl_ca_certs={}", authority.ca), "expired").await;
}

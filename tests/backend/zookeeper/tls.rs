//! Encrypted connections to real servers.

use std::time::Duration;

use apportion::{
    Config, ConfigError, Error as CoordinatorError, PartitionCoordinator,
    backend::{Connector, CreateMode, Error, Op, zookeeper::ZooKeeper},
    tls::Tls,
};

use crate::support::{
    RELEASES, Release, SECOND, Server, Settings,
    files::certificates::{Authority, ENCRYPTED_CLIENT_KEY, Identity},
    free_port, path, until, zookeeper,
};

/// A server with an encrypted port beside the usual one.
struct Secure {
    server: Server,
    port: u16,
}

impl Secure {
    /// `client` is `none` or `need`: whether clients need a certificate.
    async fn start(release: Release, authority: &Authority, identity: &Identity, client: &str) -> Secure {
        let port = free_port();
        let lines = [
            format!("secureClientPort={port}"),
            "secureClientPortAddress=127.0.0.1".into(),
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".into(),
            format!("ssl.keyStore.location={}", identity.both),
            "ssl.keyStore.type=PEM".into(),
            format!("ssl.trustStore.location={}", authority.ca),
            "ssl.trustStore.type=PEM".into(),
            format!("ssl.clientAuth={client}"),
        ];
        let settings = Settings { release, lines: lines.into(), ..Settings::default() };
        let server = Server::start_with(&settings).await;
        // It serves there a moment later.
        until("the encrypted port is open", 10 * SECOND, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Secure { server, port }
    }

    fn at(&self, host: &str) -> ZooKeeper {
        zookeeper(&format!("{host}:{}", self.port))
    }
}

/// Opens a session and uses it.
async fn works(connector: &ZooKeeper) {
    let session = connector.open(10 * SECOND).await.unwrap();
    let node = path("/encrypted");
    session.commit(vec![Op::create(&node, "", CreateMode::Ephemeral)]).await.unwrap();
    assert!(session.get(&node).await.unwrap().is_some());
    session.close().await;
}

/// How long opening is tried. A handshake of a debug build on a busy machine takes half a second.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asserts that no session can be opened, and that the error says why.
async fn fails(connector: ZooKeeper, why: impl Into<String>) {
    let why = why.into();
    let opened = connector.open(TIMEOUT).await;
    let Err(Error::Unreachable(reason)) = opened else { panic!("{why}: {opened:?}") };
    assert!(reason.contains(&why), "{why}: {reason}");
}

#[tokio::test]
async fn a_session_is_encrypted_if_the_certificate_is_right_and_refused_if_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let identity = authority.server(false);
    for release in RELEASES {
        let secure = Secure::start(release, &authority, &identity, "none").await;
        works(&secure.at("127.0.0.1").tls(Tls::new(&authority.ca))).await;
        let here = secure.at("127.0.0.1");
        let tls = || Tls::new(&authority.ca);
        tokio::join!(
            fails(here.clone().tls(Tls::new(&other.ca)), "UnknownIssuer"),
            // The certificate is for the address.
            fails(secure.at("localhost").tls(tls()), "not valid for name"),
            // Neither side falls back to a connection in the clear.
            fails(here.clone(), format!("127.0.0.1:{}", secure.port)),
            fails(zookeeper(&secure.server.connect_string()).tls(tls()), secure.server.connect_string()),
        );
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let secure = Secure::start(Release::V39, &authority, &authority.server(true), "none").await;
    fails(secure.at("127.0.0.1").tls(Tls::new(&authority.ca)), "expired").await;
}

#[tokio::test]
async fn a_server_that_needs_the_certificate_of_the_client_gets_it_or_refuses() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secure = Secure::start(Release::System, &authority, &authority.server(false), "need").await;
    let here = secure.at("127.0.0.1");
    let tls = || Tls::new(&authority.ca);
    let client = authority.client();
    works(&here.clone().tls(tls().identity(&client.certificate, &client.key))).await;
    let encrypted = authority.folder.write("encrypted.key", ENCRYPTED_CLIENT_KEY);
    let with_password =
        |password: &str| tls().identity(&client.certificate, &encrypted).key_password(password);
    works(&here.clone().tls(with_password("hunter2"))).await;

    let foreign = other.client();
    tokio::join!(
        fails(here.clone().tls(tls()), "TLS: "),
        fails(here.clone().tls(tls().identity(&foreign.certificate, &foreign.key)), "TLS: "),
        fails(here.clone().tls(with_password("wrong")), "it cannot be decrypted"),
        fails(
            here.clone().tls(tls().identity(&client.certificate, &encrypted)),
            "it is encrypted, and no password is given",
        ),
    );
}

#[tokio::test]
async fn a_url_names_the_files_as_the_python_drivers_do() {
    let authority = Authority::new();
    let secure = Secure::start(Release::System, &authority, &authority.server(false), "need").await;
    let client = authority.client();
    let encrypted = authority.folder.write("encrypted.key", ENCRYPTED_CLIENT_KEY);
    let url = |options: &str| {
        let ca = &authority.ca;
        format!("zookeeper://127.0.0.1:{}?use_ssl=True&verify_certs=True&ca={ca}{options}", secure.port)
    };
    let certificate = &client.certificate;
    let options = format!("&certfile={certificate}&keyfile={encrypted}&keyfile_password=hunter2");
    let config = Config::from_url(url(&options)).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let coordinator = PartitionCoordinator::connect(config.member_id("a")).await.unwrap();
    coordinator.shutdown().await.unwrap();

    // What is missing or wrong is an error before any attempt to connect.
    let missing = authority.folder.path().join("none.pem").display().to_string();
    for (url, setting, why) in [
        (url(&format!("&certfile={certificate}")), "keyfile", "needs its key"),
        (url(&format!("&keyfile={encrypted}")), "certfile", "needs its certificate"),
        (url(&format!("&certfile={certificate}&keyfile={missing}")), "use_ssl", "none.pem"),
        (url(&format!("&ca={encrypted}")), "use_ssl", "there is no certificate in it"),
        ("zookeeper://h?use_ssl=true".into(), "ca", "it is missing"),
        ("zookeeper://h?ca=/ca.pem".into(), "use_ssl", "`ca` is given"),
    ] {
        let refused = match Config::from_url(&url) {
            Ok(config) => PartitionCoordinator::connect(config.member_id("a")).await.unwrap_err(),
            Err(error) => error.into(),
        };
        let CoordinatorError::Config(ConfigError::Setting { setting: wrong, problem }) = &refused else {
            panic!("{url}: {refused:?}")
        };
        assert_eq!(*wrong, setting, "{url}");
        assert!(problem.contains(why), "{url}: {problem}");
    }
    let unverified = Config::from_url(url("&verify_certs=false"));
    assert!(
        matches!(unverified, Err(ConfigError::Setting { setting: "verify_certs", .. })),
        "{unverified:?}"
    );
}

#[tokio::test]
async fn files_are_read_again_for_each_session() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secure = Secure::start(Release::System, &authority, &authority.server(false), "none").await;
    let ca = other.folder.write("renewed.pem", &std::fs::read_to_string(&other.ca).unwrap());
    let connector = secure.at("127.0.0.1").tls(Tls::new(&ca));
    fails(connector.clone(), "UnknownIssuer").await;
    other.folder.write("renewed.pem", &std::fs::read_to_string(&authority.ca).unwrap());
    works(&connector).await;
}

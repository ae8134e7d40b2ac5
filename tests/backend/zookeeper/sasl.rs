//! SASL with DIGEST-MD5 on real servers.

use apportion::backend::{Connector, CreateMode, Error, Loss, Op};

use crate::support::{RELEASES, SECOND, Server, Settings, files::Folder, path, zookeeper};

const JAAS: &str = r#"Server {
  org.apache.zookeeper.server.auth.DigestLoginModule required
  user_ember="secret"
  user_pearl="other";
};
"#;

#[tokio::test]
async fn a_session_over_sasl_owns_what_it_creates_and_a_wrong_password_is_refused() {
    for release in RELEASES {
        let folder = Folder::new();
        let jaas = folder.write("jaas.conf", JAAS);
        let settings = Settings {
            release,
            lines: vec!["authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider".into()],
            java: vec![format!("-Djava.security.auth.login.config={jaas}")],
            ..Settings::default()
        };
        let server = Server::start_with(&settings).await;
        let at = || zookeeper(&server.connect_string());
        let ember = at().sasl_digest_md5("ember", "secret").open(5 * SECOND).await.unwrap();
        let node = path("/sasl");
        ember.commit(vec![Op::create(&node, "data", CreateMode::Ephemeral)]).await.unwrap();
        assert!(ember.get(&node).await.unwrap().is_some());
        let reader = zookeeper_client::Client::connector()
            .with_sasl(zookeeper_client::SaslOptions::digest_md5("ember", "secret"))
            .connect(&server.connect_string())
            .await
            .unwrap();
        let (acls, _) = reader.get_acl(node.as_str()).await.unwrap();
        assert_eq!((acls[0].scheme(), acls[0].id(), acls.len()), ("sasl", "ember", 1));
        for other in [at(), at().sasl_digest_md5("pearl", "other")] {
            let other = other.open(5 * SECOND).await.unwrap();
            assert_eq!(other.get(&node).await, Err(Error::NotPermitted));
        }
        let refused = at().sasl_digest_md5("ember", "wrong").open(5 * SECOND).await;
        assert_eq!(refused.unwrap_err(), Error::Lost(Loss::AuthFailed));
    }
}

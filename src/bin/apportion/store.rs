//! [`Store`]: one session, with which the command reads what is there, and a coordinator for what the library does.

use std::{env, sync::Arc};

use apportion::{
    Config, PartitionCoordinator,
    backend::{self, Session, Stat, Znode, path::ZnodePath},
};

use crate::{arguments::Common, failure::Failure};

/// The servers that the caller has named.
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) namespace: ZnodePath,
    pub(crate) session: Arc<dyn Session>,
}

/// How many znodes are read in one request.
pub(crate) const AT_ONCE: usize = 64;

/// The configuration that the caller has given. No message has its password.
pub(crate) fn config(common: &Common) -> Result<Config, Failure> {
    let url = match &common.url {
        Some(url) => url.clone(),
        None => env::var("APPORTION_URL").map_err(|_| {
            let how = "--url zookeeper://host:2181, or set APPORTION_URL";
            Failure::Usage(format!("which servers? Give {how}"))
        })?,
    };
    let base = match common.tooz {
        Some(partitions) => Config::tooz(partitions),
        None if common.aodh => Config::aodh(),
        None => Config::default(),
    };
    let mut config = base.url(url.as_str())?;
    if let Some(namespace) = &common.namespace {
        config = config.namespace(namespace);
    }
    if config.member_id.is_none() {
        let user = env::var("USER").ok().filter(|user| !user.is_empty());
        let name = format!("operator-{}-{}", user.as_deref().unwrap_or("unknown"), std::process::id());
        // A user name that cannot be in the name of a znode is not worth an error.
        let is_ascii = name.chars().all(|c| c.is_ascii_graphic() && c != '/');
        config = config.member_id(if is_ascii { name } else { format!("operator-{}", std::process::id()) });
    }
    config.validate()?;
    Ok(config)
}

impl Store {
    /// Opens a session for `work`, and closes it however that ends.
    pub(crate) async fn with<T>(
        common: &Common,
        work: impl AsyncFnOnce(&Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let store = Store::open(common).await?;
        let done = work(&store).await;
        store.close().await;
        done
    }

    pub(crate) async fn open(common: &Common) -> Result<Store, Failure> {
        let config = config(common)?;
        let namespace = config.namespace_path()?;
        let opened = config.connector()?.open(config.session_timeout).await;
        let session = opened.map_err(Failure::at(&ZnodePath::root()))?;
        Ok(Store { config, namespace, session })
    }

    /// A coordinator for what the library does.
    ///
    /// It creates the namespace, so the caller has checked that it is there, or does not care.
    pub(crate) async fn coordinator(&self) -> Result<PartitionCoordinator, Failure> {
        Ok(PartitionCoordinator::connect(self.config.clone()).await?)
    }

    /// A coordinator for boards and queues, which has `folder` as its namespace, because it makes sure that that exists.
    pub(crate) async fn coordinator_at(&self, folder: &ZnodePath) -> Result<PartitionCoordinator, Failure> {
        let namespace = folder.as_str().trim_start_matches('/');
        Ok(PartitionCoordinator::connect(self.config.clone().namespace(namespace)).await?)
    }

    /// The znode as the leader has it; `None` if there is none.
    pub(crate) async fn get(&self, path: &ZnodePath) -> Result<Option<Znode>, Failure> {
        self.session.sync(path).await.map_err(Failure::at(path))?;
        self.session.get(path).await.map_err(Failure::at(path))
    }

    /// The names of the children and the stat of the folder; `None` if there is none.
    pub(crate) async fn children(&self, path: &ZnodePath) -> Result<Option<(Vec<String>, Stat)>, Failure> {
        self.session.sync(path).await.map_err(Failure::at(path))?;
        match self.session.children(path).await {
            Ok((mut names, stat)) => {
                names.sort_unstable();
                Ok(Some((names, stat)))
            }
            Err(backend::Error::NoNode) => Ok(None),
            Err(error) => Err(Failure::at(path)(error)),
        }
    }

    /// The znodes at these paths, in their order. `Err` if permission is denied.
    pub(crate) async fn read(&self, paths: &[ZnodePath]) -> Result<Vec<Result<Option<Znode>, ()>>, Failure> {
        let mut found = Vec::with_capacity(paths.len());
        for some in paths.chunks(AT_ONCE) {
            match self.session.get_many(some).await {
                Ok(read) => found.extend(read.into_iter().map(Ok)),
                Err(backend::Error::NotPermitted) => {
                    for path in some {
                        found.push(match self.session.get(path).await {
                            Ok(read) => Ok(read),
                            Err(backend::Error::NotPermitted) => Err(()),
                            Err(error) => return Err(Failure::at(path)(error)),
                        });
                    }
                }
                Err(error) => return Err(Failure::at(&some[0])(error)),
            }
        }
        Ok(found)
    }

    /// Ends the session, so that the servers need not wait for its timeout.
    pub(crate) async fn close(self) {
        self.session.close().await;
    }
}

//! Entities: processes that show that they serve a board, as TaskFlow's conductors do.

use serde_json::Value;
use tracing::{debug, warn};

use super::{BoardError, JobBoard, Shared, posting};
use crate::{
    backend::{self, CommitError, CreateMode, Op, path::ZnodePath},
    error::Error,
    session::{Live, requests::ensure},
};

/// The only kind that TaskFlow knows.
const CONDUCTOR: &str = "conductor";

/// A registered entity.
#[derive(Debug)]
pub(super) struct Entity {
    pub(super) path: ZnodePath,
    data: Vec<u8>,
    /// Whether its znode belongs to the present session.
    pub(super) is_there: bool,
}

/// What became of an attempt to register.
enum Registered {
    Ours,
    Another,
}

impl JobBoard {
    /// Shows that this process serves the board: an ephemeral znode beside it, which comes back after a lost session
    /// and goes with the board or the coordinator. `kind` is `conductor`; TaskFlow names its own
    /// `name@host:pid` and gives them the metadata `hostname` and `pid`.
    ///
    /// Registering the same name again replaces the metadata.
    ///
    /// # Errors
    ///
    /// [`BoardError::EntityKind`] and [`BoardError::EntityName`] for what cannot be, [`BoardError::EntityTaken`] if
    /// another session has that name: after a crash its own former one, until it has expired.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn register_entity(
        &self,
        kind: &str,
        name: &str,
        metadata: impl Into<Value>,
    ) -> Result<(), BoardError> {
        if kind != CONDUCTOR {
            return Err(BoardError::EntityKind { kind: kind.into() });
        }
        let folder = self.shared().layout.entities.join(kind).expect("it is the name of a znode");
        let path =
            folder.join(name).map_err(|reason| BoardError::EntityName { name: name.into(), reason })?;
        let data = posting::entity_data(kind, name, &metadata.into());
        let board = self.clone();
        self.shared().run("register", async move { board.register(path, data).await }).await?
    }

    async fn register(self, path: ZnodePath, data: Vec<u8>) -> Result<(), BoardError> {
        let shared = self.shared();
        let live = shared.live().await?;
        match register(&live, &path, &data).await {
            Ok(Registered::Ours) => {}
            Ok(Registered::Another) => return Err(BoardError::EntityTaken { name: path.name().into() }),
            Err(error) => return Err(Error::from_backend(error, &path).into()),
        }
        let mut entities = shared.entities();
        entities.retain(|entity| entity.path != path);
        entities.push(Entity { path, data, is_there: true });
        Ok(())
    }
}

/// Creates the znode of an entity, or sets it if this session has it.
async fn register(live: &Live, path: &ZnodePath, data: &[u8]) -> Result<Registered, backend::Error> {
    loop {
        let error = match live.session.commit(vec![Op::create(path, data, CreateMode::Ephemeral)]).await {
            Ok(_) => return Ok(Registered::Ours),
            Err(CommitError { error, .. }) => error,
        };
        match error {
            backend::Error::NoNode => {
                let Some(folder) = path.parent() else { return Err(error) };
                ensure(&*live.session, &folder).await?;
            }
            backend::Error::NodeExists => {
                let Some((written, stat)) = live.session.get(path).await? else { continue };
                if stat.ephemeral_owner != Some(live.id()) {
                    return Ok(Registered::Another);
                }
                if written == data {
                    return Ok(Registered::Ours);
                }
                match live.session.commit(vec![Op::set(path, data, None)]).await {
                    Ok(_) => return Ok(Registered::Ours),
                    Err(CommitError { error: backend::Error::NoNode, .. }) => {}
                    Err(CommitError { error, .. }) if error.is_unknown() => wait_for_word(live, path).await?,
                    Err(CommitError { error, .. }) => return Err(error),
                }
            }
            error if error.is_unknown() => wait_for_word(live, path).await?,
            error => return Err(error),
        }
    }
}

/// Waits until the store answers again: then it is seen what was done.
async fn wait_for_word(live: &Live, path: &ZnodePath) -> Result<(), backend::Error> {
    live.read_back(path).await.map(drop).map_err(backend::Error::Lost)
}

impl Shared {
    /// Registers again what an earlier session has taken with it.
    pub(super) async fn register_again(&self, live: &Live) {
        let all: Vec<_> = self.entities().iter().map(|it| (it.path.clone(), it.data.clone())).collect();
        for (path, data) in all {
            let is_there = match register(live, &path, &data).await {
                Ok(Registered::Ours) => true,
                Ok(Registered::Another) => {
                    debug!(entity = %path, "the znode of an earlier session is still there");
                    false
                }
                Err(error) => {
                    warn!(entity = %path, %error, "could not be registered again");
                    false
                }
            };
            if let Some(entity) = self.entities().iter_mut().find(|entity| entity.path == path) {
                entity.is_there = is_there;
            }
        }
    }

    pub(super) fn has_unregistered(&self) -> bool {
        self.entities().iter().any(|entity| !entity.is_there)
    }

    pub(super) fn take_entities(&self) -> Vec<Entity> {
        std::mem::take(&mut *self.entities())
    }

    /// Takes registrations back.
    pub(super) async fn unregister(&self, all: Vec<Entity>) {
        let Some(live) = self.present() else { return };
        for entity in all.into_iter().filter(|entity| entity.is_there) {
            let deleted = live.session.commit(vec![Op::delete(&entity.path, None)]).await;
            if let Err(error) = deleted {
                debug!(entity = %entity.path, %error, "it ends with the session");
            }
        }
    }
}

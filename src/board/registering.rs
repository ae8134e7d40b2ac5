//! How a [`JobBoard`] shows that this process serves it, and how it is closed.

use serde::Serialize;

use super::{JobBoard, entity, error::BoardError, posting};
use crate::{error::Error, session::commit::Unapplied};

impl JobBoard {
    /// Closes the board for all of its handles and unregisters its entities. Claims stay valid: they belong to the
    /// coordinator, not to the board. If the store does not answer, it tries again until the session ends.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the entities are unregistered in the background.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.listing.close();
        // Here and not in the task, so that the entities are gone when this returns.
        let closing = shared.clone();
        let unregister = async move { closing.entities.unregister(closing.leases.access()).await };
        // If the coordinator is shut down, they are gone with its session.
        let _ = shared.leases.run("close", unregister).await;
    }

    /// Registers an entity: it shows to other processes that this one serves the board. The entity is an ephemeral
    /// znode beside the board. It is created again after a lost session, and removed when the board or the coordinator
    /// is closed.
    ///
    /// `kind` is `conductor`. TaskFlow names its conductors `name@host:pid` and gives them the metadata `hostname` and
    /// `pid`. `metadata` is anything that can be written as JSON. Registering the same name again replaces the
    /// metadata.
    ///
    /// # Errors
    ///
    /// [`BoardError::EntityKind`], [`BoardError::EntityName`] and [`BoardError::Details`] for a kind, a name or
    /// metadata that are not valid. [`BoardError::EntityTaken`] if another session has registered the name; after a
    /// crash of this process that is its own earlier session, until it has expired. [`BoardError::Closed`] if the board
    /// or the coordinator is closed, [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the registration goes on in the background.
    pub async fn register_entity(
        &self,
        kind: &str,
        name: &str,
        metadata: impl Serialize,
    ) -> Result<(), BoardError> {
        if kind != entity::CONDUCTOR {
            return Err(BoardError::EntityKind { kind: kind.into() });
        }
        let folder = self.shared().layout.entities.join(kind).expect("it is the name of a znode");
        let path =
            folder.join(name).map_err(|reason| BoardError::EntityName { name: name.into(), reason })?;
        let refused =
            |error: serde_json::Error| BoardError::Details { name: name.into(), reason: error.to_string() };
        let data = posting::entity_data(kind, name, &serde_json::to_value(metadata).map_err(refused)?);
        let handle = self.handle.clone();
        // Here and not in the task, which may begin after it was withdrawn.
        let asked = handle.shared.entities.ask(path.clone());
        let register = async move {
            let shared = &handle.shared;
            let live = shared.live().await?;
            match shared.entities.register(&live, &asked, data).await {
                // Closed meanwhile: what takes registrations back may not have seen this one.
                Ok(()) if shared.is_closed() => {
                    shared.entities.unregister(shared.leases.access()).await;
                    Err(shared.closed_error())
                }
                Ok(()) => Ok(()),
                Err(Unapplied::Overtaken) => Err(BoardError::EntityTaken { name: path.name().into() }),
                Err(
                    Unapplied::Refused { error, .. } | Unapplied::Failed(error) | Unapplied::Unknown(error),
                ) => Err(Error::from_backend(error, &path).into()),
            }
        };
        self.shared().run("register", register).await?
    }

    /// Removes an entity that this process has registered, or is registering. If the store does not answer, it tries again until the session
    /// ends.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn unregister_entity(&self, kind: &str, name: &str) {
        if let Some(unregister) = self.unregistering(kind, name) {
            // If the coordinator is shut down, the entity is gone with its session.
            let _ = self.shared().leases.run("unregister", unregister).await;
        }
    }

    /// The same in the background.
    pub(crate) fn unregister_entity_later(&self, kind: &str, name: &str) {
        if let Some(unregister) = self.unregistering(kind, name) {
            self.shared().leases.in_background(unregister);
        }
    }

    fn unregistering(
        &self,
        kind: &str,
        name: &str,
    ) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        let path = self.shared().layout.entities.join(kind).and_then(|folder| folder.join(name)).ok()?;
        let handle = self.handle.clone();
        // Here and not in the task, which may begin after the name was registered again.
        handle.shared.entities.withdraw(&path);
        Some(async move {
            let shared = &handle.shared;
            shared.entities.unregister_one(shared.leases.access(), &path).await;
        })
    }
}

//! Entities: processes that show that they serve a board, as TaskFlow's conductors do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tracing::{debug, warn};

use crate::{
    backend::{self, CreateMode, Op, SessionId, Znode, path::ZnodePath},
    session::{
        Live,
        access::Access,
        commit::{Evidence, Unapplied, Verdict},
        follow::Follower,
        requests::{delete_each, persist},
    },
};

/// The only kind that TaskFlow knows.
pub(super) const CONDUCTOR: &str = "conductor";

/// The pause before another attempt to register an entity that another session still has.
const RETRY: Duration = Duration::from_secs(1);

/// The entities that this process has registered at one board.
#[derive(Debug, Default)]
pub(super) struct Entities {
    state: Mutex<State>,
    /// Wakes the registrar: an entity was registered in a session that has ended meanwhile.
    missing: Notify,
    /// Held while the store registers or unregisters, so that the last call for a name counts, and that a caller
    /// who unregisters returns after the znodes are gone.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    all: Vec<Entity>,
    /// The registrations that were asked for and are not done, and whether each was withdrawn meanwhile.
    asked: BTreeMap<u64, (ZnodePath, bool)>,
    numbers: u64,
}

impl State {
    fn is_withdrawn(&self, asked: &Asked) -> bool {
        self.asked.get(&asked.number).is_some_and(|(_, is_withdrawn)| *is_withdrawn)
    }
}

/// A registration that was asked for, until this is dropped.
pub(super) struct Asked {
    entities: Arc<Entities>,
    number: u64,
    path: ZnodePath,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.entities.lock().asked.remove(&self.number);
    }
}

#[derive(Debug, Clone)]
struct Entity {
    path: ZnodePath,
    data: Vec<u8>,
    /// The session to which its znode belonged last.
    session: Option<SessionId>,
}

impl Entities {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes before [`Entities::register`]: from here on, [`Entities::withdraw`] withdraws it.
    pub(super) fn ask(self: &Arc<Self>, path: ZnodePath) -> Asked {
        let mut state = self.lock();
        state.numbers += 1;
        let number = state.numbers;
        state.asked.insert(number, (path.clone(), false));
        Asked { entities: self.clone(), number, path }
    }

    /// Registers an entity, in this session and in later ones. [`Unapplied::Overtaken`] if another session has it.
    pub(super) async fn register(&self, live: &Live, asked: &Asked, data: Vec<u8>) -> Result<(), Unapplied> {
        let path = &asked.path;
        let _turn = self.turn.lock().await;
        if self.is_withdrawn(asked) {
            return Ok(());
        }
        register(live, path, &data).await?;
        if !self.note(asked, data, live.id()) {
            self.delete(live, path).await;
            return Ok(());
        }
        if live.is_over() {
            // The registrar may have registered the entities of the next session already.
            self.missing.notify_one();
        }
        Ok(())
    }

    /// Notes that it is registered. Returns whether its znode is wanted: it may have been withdrawn meanwhile.
    fn note(&self, asked: &Asked, data: Vec<u8>, session: SessionId) -> bool {
        let (path, mut state) = (&asked.path, self.lock());
        if state.is_withdrawn(asked) {
            let again = state.asked.values().any(|(other, is_withdrawn)| other == path && !is_withdrawn);
            return again || state.all.iter().any(|entity| entity.path == *path);
        }
        state.all.retain(|entity| entity.path != *path);
        state.all.push(Entity { path: path.clone(), data, session: Some(session) });
        true
    }

    fn is_withdrawn(&self, asked: &Asked) -> bool {
        self.lock().is_withdrawn(asked)
    }

    async fn delete(&self, live: &Live, path: &ZnodePath) {
        if let Err(error) = persist(live, || unregister(live, path)).await {
            debug!(entity = %path, %error, "the entity could not be unregistered: it stays until the session ends");
        }
    }

    /// Removes all registrations of this session. Tries again while the store does not answer, until the session ends.
    pub(super) async fn unregister(&self, access: &Access) {
        let _turn = self.turn.lock().await;
        let all = std::mem::take(&mut self.lock().all);
        let Some(live) = access.present() else { return };
        for Entity { path, .. } in all {
            self.delete(&live, &path).await;
        }
    }

    /// Withdraws the registrations of a name, also one that was asked for and is not done.
    /// [`Entities::unregister_one`] comes next.
    pub(super) fn withdraw(&self, path: &ZnodePath) {
        let mut state = self.lock();
        state.all.retain(|entity| entity.path != *path);
        let asked = state.asked.values_mut().filter(|(asked, _)| asked == path);
        asked.for_each(|(_, is_withdrawn)| *is_withdrawn = true);
    }

    /// Removes the znode of a name that was withdrawn, unless it was registered again meanwhile. Tries again while the
    /// store does not answer, until the session ends.
    pub(super) async fn unregister_one(&self, access: &Access, path: &ZnodePath) {
        let _turn = self.turn.lock().await;
        if self.is_registered(path) {
            return;
        }
        let Some(live) = access.present() else { return };
        self.delete(&live, path).await;
    }

    fn is_registered(&self, path: &ZnodePath) -> bool {
        self.lock().all.iter().any(|entity| entity.path == *path)
    }

    /// Registers the entities again whose znodes have ended with an earlier session. Returns whether all are
    /// registered.
    async fn register_again(&self, live: &Live) -> bool {
        let id = Some(live.id());
        let is_missing = |entity: &&Entity| entity.session != id;
        let missing: Vec<_> = self.lock().all.iter().filter(is_missing).map(|it| it.path.clone()).collect();
        for path in missing {
            let _turn = self.turn.lock().await;
            // It may have been withdrawn, or registered with other metadata.
            let now = self.lock().all.iter().filter(is_missing).find(|entity| entity.path == path).cloned();
            let Some(Entity { data, .. }) = now else { continue };
            let is_there = match register(live, &path, &data).await {
                Ok(()) => true,
                Err(Unapplied::Overtaken) => {
                    debug!(entity = %path, "the znode of an earlier session is still there");
                    false
                }
                Err(error) => {
                    warn!(entity = %path, %error, "an entity could not be registered again");
                    false
                }
            };
            if let Some(entity) = self.lock().all.iter_mut().find(|entity| is_there && entity.path == path) {
                entity.session = id;
            }
        }
        self.lock().all.iter().all(|entity| entity.session == id)
    }
}

/// Registers the entities in each session.
pub(super) struct Registrar(pub(super) Arc<Entities>);

impl Follower for Registrar {
    async fn run(&mut self, live: &Arc<Live>) {
        loop {
            if self.0.register_again(live).await {
                self.0.missing.notified().await;
            } else {
                sleep(RETRY).await;
            }
        }
    }

    fn close(&mut self) {}
}

/// Deletes the znode of an entity if this session has it: whether a request to register it again was applied is not known
/// where its caller has stopped waiting.
async fn unregister(live: &Live, path: &ZnodePath) -> Result<(), backend::Error> {
    let found = live.session.get(path).await?;
    if found.and_then(|(_, stat)| stat.ephemeral_owner) != Some(live.id()) {
        return Ok(());
    }
    delete_each(&*live.session, vec![path.clone()]).await
}

/// Creates the znode of an entity, or sets it if this session has it.
async fn register(live: &Live, path: &ZnodePath, data: &[u8]) -> Result<(), Unapplied> {
    let is_ours = |found: &Znode| found.1.ephemeral_owner == Some(live.id());
    let judge = |found: Option<&Znode>| match found {
        Some(found) if is_ours(found) && found.0 == data => Verdict::Applied,
        Some(found) if !is_ours(found) => Verdict::Overtaken,
        Some(_) | None => Verdict::NotApplied,
    };
    let evidence = || Evidence::new(path, &judge).if_denied(Verdict::Overtaken);
    let create = [Op::create(path, data, CreateMode::Ephemeral)];
    match live.commit_once(&create, evidence()).await {
        Err(Unapplied::Refused { error: backend::Error::NodeExists, .. }) => {}
        outcome => return outcome.map(drop),
    }
    let found = live.read_back(path).await.map_err(Unapplied::Unknown)?;
    match found.map_or(Verdict::Overtaken, |found| judge(found.as_ref())) {
        Verdict::Applied => Ok(()),
        Verdict::Overtaken => Err(Unapplied::Overtaken),
        Verdict::NotApplied => live.commit_once(&[Op::set(path, data, None)], evidence()).await.map(drop),
    }
}

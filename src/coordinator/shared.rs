//! [`Shared`]: what all handles of a coordinator share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tracing::info;

use crate::{
    backend::path::ZnodePath, clock::Clock, config::Config, group::Group, lease::Leases, member::MemberId,
    random::Random, session::Keeper, task::Tasks,
};

/// See the module documentation.
pub(super) struct Shared {
    pub(super) me: MemberId,
    pub(super) config: Config,
    /// `None` where there is nobody to share with.
    pub(super) backing: Option<Backing>,
    /// `None` once it is shut down or dropped: then nothing is joined any more.
    pub(super) groups: Mutex<Option<BTreeMap<String, Entry>>>,
    pub(super) tasks: Arc<Tasks>,
    /// Whether the backend was told of the end, once all has ended. Held by the call that sees to it.
    pub(super) end: tokio::sync::Mutex<Option<bool>>,
}

pub(super) struct Backing {
    pub(super) keeper: Keeper,
    pub(super) leases: Arc<Leases>,
    pub(super) namespace: ZnodePath,
    pub(super) clock: Arc<dyn Clock>,
    /// Written into our znodes: they are ours in whatever session.
    pub(super) nonce: uuid::Uuid,
    pub(super) random: Random,
    /// Whether a join waits until it is done.
    pub(super) waits: bool,
}

/// A group that was joined.
pub(super) struct Entry {
    pub(super) group: Group,
    pub(super) options: Options,
    /// Joins that wait for it, and whether a handle was ever given out: a join that nobody waits for any more
    /// is taken back.
    pub(super) waiting: usize,
    pub(super) is_wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) weight: u32,
    pub(super) settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { weight: 1, settle: Duration::ZERO }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<String, Entry>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all groups out; from here on every join is refused.
    pub(super) fn take_groups(&self) -> Vec<Group> {
        let groups = self.lock().take().unwrap_or_default();
        groups.into_values().map(|entry| entry.group).collect()
    }

    /// Ends everything; returns whether the backend was told.
    pub(super) async fn shut_down(&self) -> bool {
        let groups = self.take_groups();
        let Some(backing) = &self.backing else {
            groups.iter().for_each(Group::start_leaving);
            self.tasks.cancel();
            return true;
        };
        let limit = backing.keeper.close_timeout();
        let telling = async {
            // Without a session there is nobody to tell.
            let Some(live) = backing.keeper.live() else { return true };
            if live.is_connected() {
                groups.iter().for_each(Group::start_leaving);
                for group in groups {
                    group.has_left().await;
                }
            }
            live.confirm().await
        };
        let told = timeout(limit, telling).await.unwrap_or(false);
        let closed = backing.keeper.close().await;
        let ended = self.tasks.shutdown(limit).await;
        info!(member = %self.me, told, "shut down");
        told && closed && ended
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let groups = self.take_groups();
        self.tasks.cancel();
        match &self.backing {
            Some(backing) => backing.keeper.cancel(),
            // There is no task that would end them.
            None => groups.iter().for_each(Group::start_leaving),
        }
    }
}

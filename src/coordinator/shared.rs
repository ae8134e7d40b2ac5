//! [`Shared`]: the state of a coordinator, which all its handles share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tracing::info;

use crate::{
    backend::path::ZnodePath,
    board,
    clock::Clock,
    config::Config,
    group::{
        Group,
        engine::MAX_SETTLES,
        handover::{self, Presence},
    },
    lease::Leases,
    member::MemberId,
    opened::Opened,
    queue,
    random::Random,
    session::Keeper,
    task::Tasks,
};

/// See the module documentation.
pub(super) struct Shared {
    pub(super) me: MemberId,
    pub(super) config: Config,
    /// `None` without a backend.
    pub(super) backing: Option<Backing>,
    /// `None` once it is shut down or dropped: then no group can be joined.
    pub(super) groups: Mutex<Option<BTreeMap<String, Entry>>>,
    pub(super) tasks: Arc<Tasks>,
    /// Whether the backend has confirmed the end; `None` before the end. The call that shuts down holds the lock.
    pub(super) end: tokio::sync::Mutex<Option<bool>>,
}

pub(super) struct Backing {
    pub(super) keeper: Keeper,
    pub(super) leases: Arc<Leases>,
    /// The boards and queues that are open.
    pub(super) boards: Arc<Opened<board::Shared>>,
    pub(super) queues: Arc<Opened<queue::Shared>>,
    pub(super) namespace: ZnodePath,
    pub(super) clock: Arc<dyn Clock>,
    /// Written into the znodes of this member, which recognizes them by it in any session.
    pub(super) nonce: uuid::Uuid,
    pub(super) random: Random,
    /// Whether a join waits until it is done.
    pub(super) waits: bool,
}

/// A group that was joined.
pub(super) struct Entry {
    pub(super) group: Group,
    pub(super) options: Options,
    /// How many joins wait for it, and whether a caller has ever got a handle: a join is undone if no caller waits for
    /// it any more and no caller has a handle.
    pub(super) waiting: usize,
    pub(super) is_wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) weight: u32,
    pub(super) settle: Duration,
    /// Whether another member may own a key for a moment while this one acts on it.
    pub(super) is_immediate: bool,
    pub(super) is_strict: bool,
    pub(super) is_warming: bool,
    pub(super) max_drain: Duration,
    pub(super) plain_grace: Duration,
    pub(super) mass_loss: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            weight: 1,
            settle: Duration::ZERO,
            is_immediate: false,
            is_strict: false,
            is_warming: false,
            max_drain: Duration::from_secs(300),
            plain_grace: Duration::from_secs(60),
            mass_loss: None,
        }
    }
}

impl Options {
    /// The settings of the handover of keys.
    pub(super) fn handover(&self, config: &Config, me: &MemberId) -> handover::Settings {
        let defaults = handover::Settings::new(me.clone(), config.label, config.replicas);
        let defaults = match self.settle {
            Duration::ZERO => defaults,
            // Those who publish only if the first members do not have to wait at least as long.
            settle => handover::Settings {
                settle,
                max_settle: settle,
                settles: MAX_SETTLES,
                joiner_delay: defaults.joiner_delay.max(settle.saturating_mul(MAX_SETTLES)),
                rank_delay: defaults.rank_delay.max(settle),
                ..defaults
            },
        };
        handover::Settings {
            is_strict: self.is_strict,
            presence: if self.is_warming { Presence::Warming } else { Presence::Ready },
            max_drain: self.max_drain,
            plain_grace: self.plain_grace,
            recheck: config.membership_check,
            max_retry: config.max_retry_interval,
            mass_loss: self.mass_loss,
            ..defaults
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<String, Entry>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all groups; from now on every join is refused.
    pub(super) fn take_groups(&self) -> Vec<Group> {
        let groups = self.lock().take().unwrap_or_default();
        groups.into_values().map(|entry| entry.group).collect()
    }

    /// Ends everything; returns whether the backend has confirmed it.
    pub(super) async fn shut_down(&self) -> bool {
        let groups = self.take_groups();
        let Some(backing) = &self.backing else {
            groups.iter().for_each(|group| group.start_leaving(Duration::ZERO));
            self.tasks.cancel();
            return true;
        };
        let limit = backing.keeper.close_timeout();
        let leaving = async {
            // Without a session there is nothing to end.
            let Some(live) = backing.keeper.live() else { return true };
            if live.is_connected() {
                // Half of the time is for the work in progress, the rest for the end of it all.
                groups.iter().for_each(|group| group.start_leaving(limit / 2));
                for group in groups {
                    group.has_left().await;
                }
            }
            live.confirm().await
        };
        let is_confirmed = timeout(limit, leaving).await.unwrap_or(false);
        let closed = backing.keeper.close().await;
        let ended = self.tasks.shutdown(limit).await;
        info!(member = %self.me, is_confirmed, "shut down");
        is_confirmed && closed && ended
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let groups = self.take_groups();
        self.tasks.cancel();
        match &self.backing {
            Some(backing) => backing.keeper.cancel(),
            // No task ends these groups.
            None => groups.iter().for_each(|group| group.start_leaving(Duration::ZERO)),
        }
    }
}

//! [`Status`]: how a coordinator is, with all that it has open.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{PartitionCoordinator, shared::Shared};
use crate::{
    board::BoardStatus,
    group::{self, Group, Standing, View},
    member::MemberId,
    queue::QueueStatus,
    session::{self, Keeper, shown::SessionState},
};

/// How a coordinator is, with its groups, boards and queues, for an operator. From [`PartitionCoordinator::status`]. No I/O.
///
/// `Display` has a line for each part.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The id of this member.
    pub member: MemberId,
    /// Its session.
    pub session: SessionStatus,
    /// The groups that it has joined, sorted by name.
    pub groups: Vec<GroupStatus>,
    /// The boards that it has open.
    pub boards: Vec<BoardStatus>,
    /// The queues that it has open.
    pub queues: Vec<QueueStatus>,
}

/// How the session of a coordinator is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Its state.
    pub state: SessionState,
    /// Its id, as servers log it; `None` without a session.
    pub id: Option<String>,
    /// The servers of the configuration.
    pub servers: Vec<String>,
    /// The session timeout that the server granted.
    pub timeout: Option<Duration>,
    /// For how long this process may act if no further heartbeat is confirmed; `None` without a backend: for ever.
    pub remaining: Option<Duration>,
    /// Why there is no session.
    pub problem: Option<String>,
}

/// How a membership is, and which part each member has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// How the membership is.
    #[serde(flatten)]
    pub status: group::Status,
    /// The part of each member, sorted by id.
    pub parts: Vec<Part>,
}

/// A member of a group, and its part of all keys.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// The id of the member.
    pub member: MemberId,
    /// Its weight.
    pub weight: u32,
    /// The part of all keys that it owns, from 0 to 1.
    pub owned: f64,
    /// Whether it does not use this library, as a Python peer.
    pub is_plain: bool,
}

impl Status {
    /// What keeps this member from acting, in words; empty if it may act. This is what `/healthz` answers, with the feature
    /// `http`.
    ///
    /// A new process will seldom be better off, so let an orchestrator use it to decide whether the process is *ready*, and
    /// not whether to restart it.
    pub fn obstacles(&self) -> Vec<String> {
        let groups = self.groups.iter().filter_map(|GroupStatus { status, .. }| {
            obstacle(&status.group, status.standing, || status.problem.clone())
        });
        self.session.obstacle().into_iter().chain(groups).collect()
    }
}

/// Why a membership does not act.
fn obstacle(group: &str, standing: Standing, problem: impl FnOnce() -> Option<String>) -> Option<String> {
    match standing {
        Standing::Member | Standing::Left => None,
        _ => Some(match problem() {
            Some(problem) => format!("group {group}: {standing}: {problem}"),
            None => format!("group {group}: {standing}"),
        }),
    }
}

impl SessionStatus {
    /// Why nothing of this process acts.
    fn obstacle(&self) -> Option<String> {
        match (self.state, &self.problem) {
            (SessionState::Standalone, _) => None,
            (SessionState::Closed, _) => Some("the coordinator is closed".to_owned()),
            (SessionState::Opening, Some(problem)) => Some(format!("no session: {problem}")),
            (SessionState::Opening, None) => Some("no session yet".to_owned()),
            (SessionState::Connected | SessionState::Suspended, _) => {
                let has_lapsed = self.remaining.is_some_and(|remaining| remaining.is_zero());
                has_lapsed.then(|| "no heartbeat is confirmed: shares and leases have lapsed".to_owned())
            }
        }
    }

    fn of(shared: &Shared) -> Self {
        let servers = shared.config.hosts().to_vec();
        let without = |state, remaining, problem| SessionStatus {
            state,
            id: None,
            servers: servers.clone(),
            timeout: None,
            remaining,
            problem,
        };
        let Some(keeper) = shared.backing.as_ref().map(|backing| &backing.keeper) else {
            let is_closed = shared.lock().is_none();
            let state = if is_closed { SessionState::Closed } else { SessionState::Standalone };
            return without(state, None, None);
        };
        match &*Keeper::status(keeper).borrow() {
            session::Status::Opening { error } => {
                let problem = error.as_ref().map(ToString::to_string);
                without(SessionState::Opening, Some(Duration::ZERO), problem)
            }
            session::Status::Closed => without(SessionState::Closed, Some(Duration::ZERO), None),
            session::Status::Live(live) => SessionStatus {
                state: match live.is_connected() {
                    true => SessionState::Connected,
                    false => SessionState::Suspended,
                },
                id: Some(live.id().to_string()),
                timeout: Some(live.timing.timeout),
                ..without(SessionState::Connected, Some(live.remaining()), None)
            },
        }
    }
}

impl GroupStatus {
    fn of(group: &Group) -> Self {
        let view = group.view();
        let parts = parts(&view);
        let ours = parts.iter().find(|part| part.member == *view.me());
        GroupStatus { status: group::Status::owning(&view, ours.map_or(0.0, |part| part.owned)), parts }
    }
}

fn parts(view: &View) -> Vec<Part> {
    let owned: BTreeMap<_, _> = view.ring().fractions().into_iter().collect();
    let members = view.members().iter().map(|member| Part {
        member: member.id().clone(),
        weight: member.weight(),
        owned: owned.get(member.id().as_str()).copied().unwrap_or(0.0),
        is_plain: member.is_plain(),
    });
    members.collect()
}

impl Shared {
    fn present_groups(&self) -> Vec<Group> {
        self.lock().iter().flatten().map(|(_, entry)| entry.group.clone()).collect()
    }

    pub(super) fn status(&self) -> Status {
        let groups = self.present_groups();
        let opened = self.backing.as_ref();
        let boards = opened.map(|backing| backing.boards.all()).unwrap_or_default();
        let queues = opened.map(|backing| backing.queues.all()).unwrap_or_default();
        Status {
            member: self.me.clone(),
            session: SessionStatus::of(self),
            groups: groups.iter().map(GroupStatus::of).collect(),
            boards: boards.iter().filter_map(|board| BoardStatus::of(board)).collect(),
            queues: queues.iter().filter_map(|queue| QueueStatus::of(queue)).collect(),
        }
    }

    /// [`Status::obstacles`] alone: the rest of a status takes time in a large group, and this is asked often.
    #[cfg(feature = "http")]
    pub(super) fn obstacles(&self) -> Vec<String> {
        let groups = self.present_groups().into_iter().filter_map(|group| {
            let view = group.view();
            obstacle(view.group(), view.standing(), || group::status::problem(&view))
        });
        SessionStatus::of(self).obstacle().into_iter().chain(groups).collect()
    }

    pub(super) fn record_metrics(&self) {
        if !cfg!(feature = "metrics") {
            return;
        }
        let state = SessionStatus::of(self).state;
        if state == SessionState::Standalone {
            return;
        }
        state.measure();
        self.present_groups().iter().for_each(|group| group::status::measure(&group.view(), None));
        let Some(backing) = &self.backing else { return };
        backing.boards.all().iter().for_each(|board| board.measure());
        backing.queues.all().iter().for_each(|queue| queue.measure());
    }
}

impl PartitionCoordinator {
    /// How this member is, with its groups, boards and queues, for an operator. It comes from what the process knows
    /// already: no I/O, and nothing waits.
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let config = Config::for_backend(backend::Memory::new());
    /// let coordinator = PartitionCoordinator::connect(config).await?;
    /// let _group = coordinator.join("pollsters").await?;
    /// let status = coordinator.status();
    /// assert!(status.obstacles().is_empty());
    /// println!("{status}");
    /// # Ok::<(), apportion::Error>(()) }).unwrap();
    /// ```
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Sets the state of the session and the gauges of the groups, boards and queues of this coordinator to what holds
    /// now, for a recorder that is read next: see [`metrics`](crate::metrics). The time until which it may act is set at
    /// each heartbeat. Nothing without the feature `metrics`.
    pub fn record_metrics(&self) {
        self.shared.record_metrics();
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.member, self.session)?;
        self.groups.iter().try_for_each(|group| write!(f, "\ngroup {}", group.status))?;
        self.boards.iter().try_for_each(|board| write!(f, "\nboard {board}"))?;
        self.queues.iter().try_for_each(|queue| write!(f, "\nqueue {queue}"))
    }
}

impl fmt::Display for SessionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(id) = &self.id {
            write!(f, ", session {id}")?;
        }
        if !self.servers.is_empty() {
            write!(f, ", servers {}", self.servers.join(","))?;
        }
        match self.remaining {
            Some(Duration::ZERO) => write!(f, ", may not act")?,
            Some(remaining) => write!(f, ", may act for {remaining:.1?}")?,
            None => {}
        }
        self.problem.iter().try_for_each(|problem| write!(f, ", {problem}"))
    }
}

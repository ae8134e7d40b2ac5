//! [`Status`]: how a membership is, for an operator.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    handover,
    large::LARGE,
    view::{Shown, Standing, View},
};
use crate::{member::MemberId, metrics, session::validity::Validity};

/// How a membership is, for an operator. From [`Group::status`](super::Group::status). No I/O.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The name of the group.
    pub group: String,
    /// The id of this member.
    pub member: MemberId,
    /// Its standing.
    pub standing: Standing,
    /// The generation of the membership that it follows: [`View::epoch`](super::View::epoch).
    pub epoch: i64,
    /// The digest of the ring: the same at all members that follow one epoch.
    pub digest: u64,
    /// How many members there are.
    pub members: usize,
    /// The part of all keys that this member owns, from 0 to 1.
    pub owned: f64,
    /// The part of all keys that it may start to work on now. It is less than `owned` while it waits for other members.
    pub startable: f64,
    /// Whether no other member can act on those.
    pub is_exclusive: bool,
    /// For how long it may act if no further heartbeat is confirmed.
    pub remaining: Duration,
    /// How many items of its shares are in progress.
    pub in_progress: usize,
    /// How many ranges of keys that it has lost it still works on.
    pub kept: usize,
    /// The members that it waits for, and why.
    pub waiting: Vec<Waiting>,
    /// The last handover of keys to this member that has ended; `None` before the first, and in an immediate group.
    pub last_handover: Option<HandoverEnded>,
    /// Whether an operator has [paused](super::Group::pause) the group.
    pub is_paused: bool,
    /// What keeps it from acting or from publishing a change.
    pub problem: Option<String>,
}

/// A handover of keys that has ended: this member may start on every key that it owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HandoverEnded {
    /// Why it has gained keys. If several changes were published at once, the first of these that applies: `Head`, `Leave`,
    /// `Restart`, `Weights`.
    pub kind: HandoverKind,
    /// How long it took since this member knew of the cause: for `Join` since its znode was created, or was ready; else
    /// since it read the new membership, or, if it watches the group, since it saw the change. If another change came
    /// before the end, since the first of them.
    pub waited: Duration,
}

/// Why a member has gained keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HandoverKind {
    /// It has joined, or has joined again.
    Join,
    /// Another member has left, has crashed, or was cut off.
    Leave,
    /// Another member was replaced by one with the same id.
    Restart,
    /// The weights of members have changed, or count again.
    Weights,
    /// The znode that names the members was deleted, and made anew.
    Head,
}

impl HandoverKind {
    /// Its name, as in the serialized form.
    pub fn as_str(self) -> &'static str {
        match self {
            HandoverKind::Join => "join",
            HandoverKind::Leave => "leave",
            HandoverKind::Restart => "restart",
            HandoverKind::Weights => "weights",
            HandoverKind::Head => "head",
        }
    }
}

impl From<handover::Ended> for HandoverEnded {
    fn from(ended: handover::Ended) -> Self {
        let kind = match ended.cause {
            handover::Cause::Join => HandoverKind::Join,
            handover::Cause::Leave => HandoverKind::Leave,
            handover::Cause::Restart => HandoverKind::Restart,
            handover::Cause::Weights => HandoverKind::Weights,
            handover::Cause::Head => HandoverKind::Head,
        };
        HandoverEnded { kind, waited: ended.waited }
    }
}

/// A member that this one waits for: it may still act on keys that this one owns now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Waiting {
    /// Its id.
    pub member: MemberId,
    /// Its incarnation: [`Member::incarnation`](super::Member::incarnation).
    pub incarnation: i64,
    /// The part of all keys that wait for it, from 0 to 1.
    pub fraction: f64,
    /// For how long.
    pub since: Duration,
    /// Why.
    pub why: Why,
}

/// Why keys wait for a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It has not acknowledged that it lost them. If it does not, they wait until its lease has ended.
    NotAcknowledged,
    /// It still works on some of them: until that work ends, or for [`max_drain`](crate::Join::max_drain).
    StillAtWork,
    /// It is gone, and its lease may not have ended ([`strict`](crate::Join::strict) groups).
    Gone,
    /// It hands no keys over, as a Python peer: for [`plain_grace`](crate::Join::plain_grace).
    Plain,
}

impl Why {
    /// All of them.
    pub const ALL: &'static [Why] = &[Why::NotAcknowledged, Why::StillAtWork, Why::Gone, Why::Plain];

    /// In one word, as in the serialized form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::NotAcknowledged => "not_acknowledged",
            Why::StillAtWork => "still_at_work",
            Why::Gone => "gone",
            Why::Plain => "plain",
        }
    }
}

impl Status {
    pub(crate) fn of(view: &View) -> Status {
        Self::owning(view, view.ring.fraction(view.me.as_str()))
    }

    /// The same, if the part that it owns is known: to compute it hashes all points of this member.
    pub(crate) fn owning(view: &View, owned: f64) -> Status {
        let (register, validity) = (view.register.as_ref(), view.acting());
        let has_part = view.standing() == Standing::Member;
        let shown = view.shown.as_ref();
        Status {
            group: view.group().to_owned(),
            member: view.me.clone(),
            standing: view.standing(),
            epoch: view.epoch,
            digest: view.ring.digest(),
            members: view.members.len(),
            owned: if has_part { owned } else { 0.0 },
            startable: if has_part { view.mine.fraction() } else { 0.0 },
            is_exclusive: view.is_exclusive,
            remaining: validity.map_or(Duration::ZERO, Validity::remaining),
            in_progress: register.map_or(0, |register| register.counts().sum()),
            kept: shown.map_or(0, |shown| shown.status.kept),
            waiting: shown.map(waiting).unwrap_or_default(),
            last_handover: shown.and_then(|shown| shown.status.ended).map(HandoverEnded::from),
            is_paused: shown.is_some_and(|shown| shown.status.is_paused),
            problem: problem(view),
        }
    }
}

/// What keeps this member from acting or from publishing a change.
pub(crate) fn problem(view: &View) -> Option<String> {
    view.refusal().or(view.blocked.as_ref()).map(ToString::to_string).or_else(|| {
        let problem = view.shown.as_ref()?.status.problem.as_ref()?;
        Some(problem.to_string())
    })
}

/// Sets the gauge of the items in progress.
pub(crate) fn measure_items(view: &View) {
    if !cfg!(feature = "metrics") {
        return;
    }
    let items = view.register.as_ref().map_or(0, |register| register.counts().sum());
    metrics::GROUP_ITEMS.set(&[view.group()], items as f64);
}

/// Sets the gauges of a membership to those of one that is over. The driver of the group has it until its end.
pub(crate) struct Gauges(pub(crate) Arc<str>);

impl Drop for Gauges {
    fn drop(&mut self) {
        forget(&self.0);
    }
}

fn forget(group: &str) {
    set_standing(group, Standing::Left);
    let others = [
        metrics::GROUP_MEMBERS,
        metrics::GROUP_EPOCH,
        metrics::GROUP_OWNED,
        metrics::GROUP_STARTABLE,
        metrics::GROUP_ITEMS,
        metrics::GROUP_KEPT,
        metrics::GROUP_PAUSED,
    ];
    others.iter().for_each(|gauge| gauge.set(&[group], 0.0));
    Why::ALL.iter().for_each(|why| metrics::GROUP_WAITING.set(&[group, why.as_str()], 0.0));
}

fn set_standing(group: &str, standing: Standing) {
    let all = Standing::ALL.iter().map(|it| it.as_str());
    metrics::GROUP_STANDING.set_state(Some(group), all, standing.as_str());
}

/// Sets the gauges of a membership, and counts a change of it.
pub(crate) fn measure(view: &View, previous: Option<&View>) {
    if !cfg!(feature = "metrics") {
        return;
    }
    if view.standing() == Standing::Left {
        return forget(view.group());
    }
    // What it owns of a large ring would take too long here. If it waits for none, that is what it may start.
    let is_large = view.ring.points() as u64 > LARGE;
    let owned = if is_large { view.mine.fraction() } else { view.ring.fraction(view.me.as_str()) };
    let status = Status::owning(view, owned);
    let group = &*status.group;
    let count = |metric: metrics::Metric, count: usize| metric.set(&[group], count as f64);
    set_standing(group, status.standing);
    count(metrics::GROUP_MEMBERS, status.members);
    count(metrics::GROUP_ITEMS, status.in_progress);
    count(metrics::GROUP_KEPT, status.kept);
    count(metrics::GROUP_PAUSED, usize::from(status.is_paused));
    metrics::GROUP_EPOCH.set(&[group], status.epoch as f64);
    if !is_large || status.waiting.is_empty() {
        metrics::GROUP_OWNED.set(&[group], status.owned);
    }
    metrics::GROUP_STARTABLE.set(&[group], status.startable);
    for why in Why::ALL {
        let waiting = status.waiting.iter().filter(|waiting| waiting.why == *why).count();
        metrics::GROUP_WAITING.set(&[group, why.as_str()], waiting as f64);
    }
    let Some(previous) = previous else { return };
    if view.epoch != previous.epoch {
        metrics::GROUP_CHANGES.add(&[group]);
    }
}

fn waiting(shown: &Shown) -> Vec<Waiting> {
    let now = shown.clock.now();
    let waiting = shown.status.waiting.iter().map(|it| Waiting {
        member: it.member.id.clone(),
        incarnation: it.member.czxid,
        fraction: it.ranges.fraction(),
        since: now.saturating_since(it.since),
        why: match it.why {
            handover::Why::NotAcknowledged => Why::NotAcknowledged,
            handover::Why::StillAtWork => Why::StillAtWork,
            handover::Why::Gone => Why::Gone,
            handover::Why::Plain => Why::Plain,
        },
    });
    waiting.collect()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { group, member, standing, epoch, members, .. } = self;
        write!(f, "{member} in {group}: {standing}, epoch {epoch}, {members} members, ")?;
        write!(f, "owns {:.1} %, may start {:.1} %", 100.0 * self.owned, 100.0 * self.startable)?;
        for waiting in &self.waiting {
            write!(f, "; waits for {waiting}")?;
        }
        if let Some(HandoverEnded { kind, waited }) = &self.last_handover {
            write!(f, "; last handover: {} in {waited:.1?}", kind.as_str())?;
        }
        self.problem.iter().try_for_each(|problem| write!(f, "; {problem}"))
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waiting { member, since, why, .. } = self;
        write!(f, "{member} with {:.2} % of the keys for {since:.1?}: {why}", 100.0 * self.fraction)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::NotAcknowledged => "it has not acknowledged that it lost them",
            Why::StillAtWork => "it still works on some of them",
            Why::Gone => "it is gone, and its lease may not have ended",
            Why::Plain => "it hands no keys over",
        })
    }
}

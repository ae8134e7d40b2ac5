// Pure: no runtime, no clock, no socket, no random numbers.

//! How a membership is shown.

use super::{
    history::History,
    parts::Blocking,
    settings::Problem,
    shown::{Startable, Status, Waiting, Why},
    state::Handover,
    types::Epoch,
};

impl Handover {
    /// What work may start on.
    pub(crate) fn startable(&self) -> Startable {
        let history = self.history.as_ref().filter(|_| self.followed.is_some());
        let has_plain = history.is_some_and(|it| it.members().values().any(|entry| entry.is_plain));
        let waits_for_plain = self.donors.blocking.iter().any(|it| self.donors.plain.contains(&it.who));
        Startable {
            epoch: self.followed,
            token: history.map_or(0, |history| history.token),
            members: history.map(|history| history.members().clone()),
            ring: history.map(|history| history.ring.clone()),
            ranges: self.donors.startable.clone(),
            unclear: history.and_then(History::unclear).map(|(id, why)| (id.clone(), why)),
            is_exclusive: self.followed.is_some() && !has_plain && !waits_for_plain,
        }
    }

    /// How the membership is.
    pub(crate) fn status(&self) -> Status {
        let history = self.history.as_ref().filter(|_| self.followed.is_some());
        Status {
            kept: self.marks.kept(self.now).len(),
            waiting: self.donors.blocking.iter().map(|it| self.waiting(it)).collect(),
            is_paused: history.is_some_and(|history| history.head.is_paused),
            problem: self.problem.clone(),
            tooz_hint: self.tooz_hint.clone(),
            ended: self.ended,
        }
    }

    fn waiting(&self, Blocking { who, version, ranges }: &Blocking) -> Waiting {
        let seen = version.and_then(|version| self.seen.epochs.get(&version)).copied();
        let acked = self.donors.read.get(&who.id).and_then(|donor| donor.read.as_ref()?.part.as_ref()?.ack);
        let has_acked = acked.is_some_and(|ack| {
            Some(ack.head) == self.followed.map(|followed| followed.head) && Some(ack.version) >= *version
        });
        let why = if self.donors.plain.contains(who) {
            Why::Plain
        } else if self.gone.contains_key(who) {
            Why::Gone
        } else if has_acked || version.is_none() {
            Why::StillAtWork
        } else {
            Why::NotAcknowledged
        };
        Waiting { member: who.clone(), ranges: ranges.clone(), since: seen.unwrap_or(self.seen.since), why }
    }

    /// What a change of shows that the status has changed.
    pub(super) fn status_changes(&self) -> (Option<Epoch>, usize, usize, Option<Problem>, bool, bool) {
        let waiting = self.donors.blocking.len();
        (
            self.followed,
            waiting,
            self.marks.batches.len(),
            self.problem.clone(),
            self.lease.has_lapsed,
            self.tooz_hint.is_some(),
        )
    }
}

//! What the log has said of a membership, so that each fact is said once.

use std::mem;

use tracing::{info, warn};

use super::{
    super::{
        handover::Problem,
        view::{self, View},
    },
    present::Present,
};
use crate::clock::Moment;

#[derive(Debug, Default)]
pub(super) struct Said {
    /// Whether shares are exclusive; they are taken for it before anything was said.
    is_exclusive: Option<bool>,
    /// A problem beside which this member acts on, since the last epoch.
    problem: Option<Problem>,
    /// That the lease of the group has lapsed, and whether it was said.
    lapse: Option<bool>,
}

impl Said {
    /// Logs what has changed.
    pub(super) fn report(&mut self, view: &View, previous: &View, present: Option<&Present>, now: Moment) {
        view::report(view, previous);
        let hint = |view: &View| view.shown.as_ref().and_then(|shown| shown.status.tooz_hint.clone());
        if let (Some(other), None) = (hint(view), hint(previous)) {
            view::hint_at_tooz(view, &other);
        }
        self.report_lapse(view, present, now);
        if view.acting().is_none() {
            return;
        }
        self.report_problem(view, previous);
        let View { group, me, is_exclusive, .. } = view;
        let said = self.is_exclusive.replace(*is_exclusive);
        if said.unwrap_or(true) == *is_exclusive {
            return;
        }
        if *is_exclusive {
            info!(%group, member = %me, "shares are exclusive");
        } else {
            warn!(%group, member = %me, "a member is in the group that hands no keys over, as a Python peer: shares are not exclusive while it is there");
        }
    }

    /// A group has a lease of its own, which may end before that of the session. When both end at about the same time, the
    /// session says so for all its groups.
    fn report_lapse(&mut self, View { group, me, .. }: &View, present: Option<&Present>, now: Moment) {
        let Some((present, own)) = present.and_then(|present| Some((present, present.own.as_ref()?))) else {
            self.lapse = None;
            return;
        };
        let live = &present.store.live;
        let has_lapsed = own.is_granted && !own.register.validity().is_valid();
        if has_lapsed && self.lapse.is_none() {
            let is_alone = live.remaining() > live.timing.server_tick;
            self.lapse = Some(is_alone);
            if !is_alone {
                return;
            }
            let since_confirmation = now.saturating_since(own.confirmed);
            warn!(%group, member = %me, ?since_confirmation, "no heartbeat of this group is confirmed: its shares have lapsed");
        }
        if !has_lapsed && self.lapse.take() == Some(true) {
            let valid_for = own.register.validity().remaining();
            info!(%group, member = %me, ?valid_for, "heartbeats of this group are confirmed again: its shares are valid");
        }
    }

    fn report_problem(&mut self, view: &View, previous: &View) {
        if view.epoch != previous.epoch {
            self.problem = None;
        }
        let Some(problem) = view.shown.as_ref().and_then(|shown| shown.status.problem.clone()) else {
            return;
        };
        // One of a kind is enough: some have numbers in them that change.
        if self.problem.as_ref().is_some_and(|said| mem::discriminant(said) == mem::discriminant(&problem)) {
            return;
        }
        let View { group, me, .. } = view;
        warn!(%group, member = %me, %problem, "the share is as before, but this member cannot follow or publish changes of the group");
        self.problem = Some(problem);
    }
}

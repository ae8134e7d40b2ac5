//! What callers see of the membership.

use std::sync::Arc;

use tracing::{Span, debug, info_span};

use super::{
    super::{
        engine::Picture,
        handover::{self, Handover, Places, Presence, Problem},
        member::Member,
        placement,
        view::{Shown, View},
    },
    present::Own,
};
use crate::{clock::Clock, error::Error, member::MemberId};

/// What a view is made of.
pub(super) struct Sight<'a> {
    pub(super) me: &'a MemberId,
    pub(super) core: &'a Handover,
    pub(super) picture: &'a Picture,
    pub(super) places: &'a Places,
    /// Our znode.
    pub(super) own: Option<&'a Own>,
    pub(super) is_leaving: bool,
    pub(super) clock: &'a Arc<dyn Clock>,
}

impl Sight<'_> {
    /// The view after `previous`.
    pub(super) fn view(&self, previous: &View) -> View {
        let (startable, status) = (self.core.startable(), self.core.status());
        let (picture, own) = (self.picture, self.own);
        let is_member = |own: &&Own| {
            let entry = startable.members.as_ref().and_then(|members| members.get(self.me));
            own.is_granted && entry.is_some_and(|entry| entry.czxid == own.incarnation.czxid)
        };
        let (has_znode, has_lease) = (own.is_some(), own.is_some_and(|own| own.is_granted));
        let own = own.filter(is_member);
        let no_place = startable.members.as_ref().filter(|_| has_znode && own.is_none());
        let no_place = no_place.and_then(|members| self.no_place(members));
        let token = startable.token;
        let (members, ring) = match (startable.members, startable.ring) {
            _ if token == previous.epoch && startable.epoch.is_some() => {
                (previous.members.clone(), previous.ring.clone())
            }
            (Some(members), Some(ring)) => {
                let ours = self.places.payload.ours.as_ref();
                let members = members.iter().map(|(id, entry)| {
                    Member::published(id, entry.weight, entry.czxid, ours.filter(|_| !entry.is_plain))
                });
                (members.collect(), ring)
            }
            // Nothing is followed in this session yet; what was known last may still interest an operator.
            _ => (previous.members.clone(), previous.ring.clone()),
        };
        let group = || self.places.group.name().to_owned();
        let unclear = startable.unclear.filter(|_| own.is_some());
        let unclear = unclear.map(|(member, reason)| Error::RingUnclear { group: group(), member, reason });
        let problem = status.problem.clone().map(|problem| self.error(problem));
        let is_acting = own.is_some_and(|own| own.register.validity().is_valid());
        View {
            group: previous.group.clone(),
            me: previous.me.clone(),
            epoch: if startable.epoch.is_some() { token } else { previous.epoch },
            is_read: startable.epoch.is_some() || previous.is_read,
            mine: Arc::new(startable.ranges),
            is_exclusive: startable.is_exclusive,
            left_out: [].into(),
            validity: own.map(|own| own.register.validity().clone()),
            register: own.map(|own| own.register.clone()),
            is_settling: self.core.is_settling(),
            is_warming: has_lease && self.core.presence() == Presence::Warming,
            shown: Some(Shown { status, clock: self.clock.clone() }),
            blocked: picture.blocked.clone(),
            refusal: picture.refusal.clone().or(unclear).or(problem.filter(|_| !is_acting)).or(no_place),
            has_left: self.is_leaving || picture.has_left,
            members,
            ring,
        }
    }

    /// Why this member gets no place among `members`, if their points leave no room for its own.
    fn no_place(&self, members: &handover::Members) -> Option<Error> {
        let payload = &self.places.payload;
        let has_plain = members.values().any(|entry| entry.is_plain);
        let label = payload.ours.as_ref()?.label?;
        let weight = |weight| placement::counted_weight(label, has_plain, weight);
        let others = members.iter().filter(|(id, _)| **id != *self.me);
        let others = others.map(|(id, entry)| (entry.czxid, id, weight(entry.weight)));
        let me = (i64::MAX, self.me, weight(payload.weight));
        let replicas = payload.ours.as_ref()?.replicas?;
        let left_out = placement::left_out(replicas, others.chain([me]));
        let (_, reason) = left_out.into_iter().find(|(id, _)| *id == *self.me)?;
        Some(Error::Ring { group: self.places.group.name().to_owned(), reason })
    }

    fn error(&self, problem: Problem) -> Error {
        let path = self.places.head.to_string();
        match problem {
            Problem::NotPermitted => Error::NotPermitted { path },
            other => {
                let group = self.places.group.name().to_owned();
                Error::Head { group, path, reason: other.to_string() }
            }
        }
    }
}

/// The span of the handover that is under way, `handover`: from the first member for which this one waits until it waits for
/// none.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Option<Span>);

impl UnderWay {
    pub(super) fn follow(&mut self, view: &View) {
        let waiting = view.shown.as_ref().map_or(&[][..], |shown| &shown.status.waiting);
        if waiting.is_empty() {
            self.0 = None;
            return;
        }
        let View { group, me, epoch, .. } = view;
        let span =
            self.0.get_or_insert_with(|| info_span!(parent: None, "handover", %group, member = %me, epoch));
        span.in_scope(|| {
            for it in waiting {
                debug!(for_member = %it.member.id, incarnation = it.member.czxid, why = ?it.why, "waiting");
            }
        });
    }
}

//! [`OwnedEntry`]: an entry that this process has taken, until it is ended or given back once.

use std::{sync::Arc, time::Duration};

use serde_json::Value as Json;
use tracing::Instrument as _;

use super::{
    error::{QueueError, Room},
    moves::{CREATED, DELETED, Owned},
    shared::{Shared, unapplied},
    value::{Back, Value},
};
use crate::{
    ages::Age,
    backend::{self, Op, Znode, path::ZnodePath},
    lease::{Around, GivenBack, Lease, LeaseGuard, LeaseLost, Ways},
    metrics,
    session::commit::{Applied, Evidence, Unapplied, Verdict},
};

/// An entry that this process has taken: as its last write left it, with the guard of its claim. Dropped, it is given
/// back.
pub(super) struct OwnedEntry {
    /// `None` once it has ended.
    guard: Option<LeaseGuard>,
    lease: Lease,
    shared: Arc<Shared>,
    pub(super) owned: Owned,
    /// How it is given back if it is dropped or its end fails. The attempt counts once a caller has got it.
    if_dropped: GivenBack,
    /// Since when this process has it.
    age: Age,
}

/// The reason of a delivery that was dropped.
const DROPPED: &str = "its worker dropped the delivery without ending it";
/// The reason of one whose end the store did not take.
const UNENDED: &str = "the store did not take the end of the entry, for instance because it is too large";

/// The operations of a move, in the first of these ways that the store takes.
fn one_of(ways: Vec<Vec<Op>>) -> Ways {
    let mut ways = ways.into_iter().map(|before| Around { before, after: Vec::new() });
    let first = ways.next().expect("there is always one");
    ways.fold(first.into(), Ways::or)
}

impl OwnedEntry {
    /// An entry that was just taken. It does not count as an attempt until a caller gets it.
    pub(super) fn new(shared: Arc<Shared>, guard: LeaseGuard, owned: Owned) -> Self {
        let lease = guard.lease().clone();
        let age = shared.held.begin(shared.clock.now());
        OwnedEntry { guard: Some(guard), lease, shared, owned, if_dropped: GivenBack::uncounted(), age }
    }

    /// From here on it counts as an attempt.
    pub(super) fn deliver(&mut self) {
        self.if_dropped = GivenBack::because(DROPPED);
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    fn lost(&self) -> QueueError {
        LeaseLost { lock: self.lease.path().to_string() }.into()
    }

    /// How it is given back now, and the pause.
    fn back(&self, how: GivenBack) -> (Back, Duration) {
        let shared = &self.shared;
        let random = shared.leases.random().unit();
        let (attempt, pause) = how.attempts_and_pause(self.owned.value.attempt(), shared.pauses, random);
        let not_before = (!pause.is_zero()).then(|| shared.clock.unix_ms_in(pause));
        (Back { attempt, reason: how.reason, not_before, has_no_room: false }, pause)
    }

    /// For when it is dropped, or when its end fails.
    fn set_back(&mut self) {
        let back = self.ways_back(&self.back(self.if_dropped.clone()).0);
        if let Some(guard) = &mut self.guard {
            guard.set_back(back);
        }
    }

    fn ways_back(&self, back: &Back) -> Ways {
        one_of(self.shared.moves.ways_back(&self.owned, back, self.shared.room()))
    }

    /// Replaces the payload.
    pub(super) async fn update(&mut self, value: Value) -> Result<(), QueueError> {
        if self.guard.is_none() {
            return Err(self.lost());
        }
        let data = self.shared.checked(&value, Room::Update)?;
        let (before, after) = (self.owned.version, self.owned.version.wrapping_add(1));
        let mut ops = vec![self.shared.moves.update(&self.owned, data)];
        ops.extend(self.lease.checks());
        let judge = |found: Option<&Znode>| match found.map(|(_, stat)| stat.version) {
            Some(version) if version == before => Verdict::NotApplied,
            Some(version) if version == after => Verdict::Applied,
            _ => Verdict::Overtaken,
        };
        match self.lease.live().commit_once(&ops, Evidence::new(&self.owned.path, &judge)).await {
            Ok(_) => {}
            Err(Unapplied::Overtaken | Unapplied::Refused { error: backend::Error::NoNode, .. }) => {
                return Err(self.lost());
            }
            // The claim is not ours any more: the first operation is that on the entry.
            Err(Unapplied::Refused { index: 1.., error: backend::Error::BadVersion, .. }) => {
                return Err(self.lost());
            }
            Err(error) => return Err(unapplied(&self.owned.path, error)),
        }
        (self.owned.version, self.owned.value) = (after, value);
        Ok(())
    }

    /// Ends it with a result or an error. If the result is too large, nothing is done. Of the error, as much is kept as
    /// fits.
    pub(super) async fn end(&mut self, outcome: Result<Json, String>) -> Result<(), QueueError> {
        let how = if outcome.is_ok() { "done" } else { "failed" };
        let ways = match outcome {
            Ok(result) => {
                let data = self.shared.checked(&self.owned.value.ended(Ok(result)), Room::End)?;
                vec![self.shared.moves.end(&self.owned, data)]
            }
            Err(error) => self.shared.moves.ways_to_fail(&self.owned, &error, self.shared.room()),
        };
        self.if_dropped = GivenBack::because(UNENDED);
        let (shared, entry, path) = (self.shared.clone(), self.owned.entry.clone(), self.owned.path.clone());
        let live = self.lease.live().clone();
        let claim = self.owned.value.claim().unwrap_or_default();
        let applied = self.finish(how, one_of(ways), Some(path.clone())).await?;
        // The reply was lost. Claim and entry are gone, but that does not prove that it has ended: an operator may have
        // deleted the claim, and another process may have given the entry back.
        if let Applied::Seen(_) = applied
            && shared.find(&live, &shared.layout().done, &shared.sizes.done, &entry, &claim).await.is_none()
        {
            return Err(QueueError::OutcomeUnknown { path: path.to_string() });
        }
        shared.ended.notify_one();
        Ok(())
    }

    /// Gives it back for another attempt.
    pub(super) async fn release(&mut self, how: GivenBack) -> Result<(), QueueError> {
        self.if_dropped = how.clone();
        let (back, pause) = self.back(how);
        let is_dead = self.shared.moves.is_dead_after(back.attempt);
        let how = if is_dead { "dead" } else { "released" };
        let created = self.finish(how, self.ways_back(&back), None).await?.created(CREATED);
        match created {
            Some(_) if is_dead => {}
            path => self.shared.added(path.as_ref(), pause),
        }
        Ok(())
    }

    /// Makes it a dead letter. `None`: it had its last attempt before this delivery.
    pub(super) async fn give_up(&mut self, reason: Option<String>) -> Result<(), QueueError> {
        let how = GivenBack { is_uncounted: reason.is_none(), reason, after: None };
        self.if_dropped = how.clone();
        let (mut back, _) = self.back(how);
        back.not_before = None;
        let ways = self.shared.moves.ways_up(&self.owned, &back, self.shared.room());
        self.finish("dead", one_of(ways), None).await.map(drop)
    }

    /// Ends the delivery. `how` is for the count of the ends.
    async fn finish(
        &mut self,
        how: &str,
        ways: Ways,
        evidence: Option<ZnodePath>,
    ) -> Result<Applied, QueueError> {
        let had_it = self.guard.is_some();
        let span = self.lease.span();
        let finished = self.send(ways, evidence).instrument(span).await;
        match &finished {
            _ if !had_it => {}
            Ok(_) => self.count(how),
            Err(QueueError::Lost(_)) => self.count("lost"),
            Err(_) => self.count(self.when_given_back("error")),
        }
        finished
    }

    /// How it counts that the entry is given back in the background.
    fn when_given_back(&self, otherwise: &'static str) -> &'static str {
        let attempt = self.owned.value.attempt();
        let (attempts, _) = self.if_dropped.attempts_and_pause(attempt, self.shared.pauses, 0.0);
        if self.shared.moves.is_dead_after(attempts) { "dead" } else { otherwise }
    }

    fn count(&self, how: &str) {
        let labels = [self.shared.layout().root.as_str(), how];
        metrics::QUEUE_ENDED.add(&labels);
        let took = self.shared.clock.now().saturating_since(self.age.since());
        metrics::QUEUE_HELD_DURATION.record(&labels, took);
    }

    async fn send(&mut self, ways: Ways, evidence: Option<ZnodePath>) -> Result<Applied, QueueError> {
        self.set_back();
        let guard = self.guard.take().ok_or_else(|| self.lost())?;
        match guard.finish(ways, evidence).await.map_err(|error| self.shared.service(error))? {
            Ok(applied) => Ok(applied),
            Err(
                Unapplied::Overtaken
                | Unapplied::Refused { index: DELETED, error: backend::Error::NoNode, .. },
            ) => Err(self.lost()),
            Err(error) => Err(unapplied(&self.owned.path, error)),
        }
    }
}

impl Drop for OwnedEntry {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.count(if self.lease.is_held() { self.when_given_back("dropped") } else { "lost" });
            self.set_back();
        }
    }
}

//! [`Spectator`]: reads a group, and again when it changes.
//!
//! It watches the head and the list of members. Of the members themselves it watches only those that others wait for: so an
//! observer of a large group gets a handful of events at a change, not one for each member.

mod head;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::debug;

use super::{
    known::{Child, Known, since_1970, wall_clock},
    observation::{MemberState, Observation, PendingHandover},
    pending::{self, Pending, Read, Waits},
};
use crate::{
    backend::{self, Session, path::ZnodePath},
    backoff::Backoff,
    clock::Clock,
    error::Error,
    group::{
        handover::{Incarnation, Places},
        large,
        member::{Member, Ours, Payload},
        placement::Rings,
        python,
        status::Why,
        watches::Watches,
    },
    member::MemberId,
    ring::{HashRing, Label, RingError},
    session::{
        Live,
        follow::Follower,
        read::{Denied, Sizes, read_each},
        requests::Failure,
    },
    watch,
};

/// What is observed, and how.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) places: Places,
    /// The parameters of the ring where no member says its own.
    pub(crate) rings: Rings,
    pub(crate) plain_grace: Duration,
    /// How often all is read again although no watch has fired.
    pub(crate) recheck: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Spectator {
    target: Target,
    seen: watch::Sender<Arc<Observation>>,
    sizes: Sizes,
    known: Known,
    problem: Option<Error>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Watched {
    Head,
    /// Whether the group exists, while it does not.
    Group,
    Children,
    Member(MemberId),
}

/// The shortest and the longest pause between two reads. While many changes come, it is twice as long as a read takes.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(5);
/// The pauses after a read that failed, and the one after a refusal.
const RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// How often head and snapshot are read until they are of the same time.
const TRIES: u32 = 5;
/// How many watches are set at the same time.
const WATCHED_AT_ONCE: usize = 64;
/// If others wait for more members than that, they are read once more after a while, before they are watched.
const MANY: usize = 16;
const SETTLING: Duration = Duration::from_millis(100);
/// Says that what was read is not current any more, when the session ends.
struct WhileCurrent<'a>(&'a watch::Sender<Arc<Observation>>);

impl Drop for WhileCurrent<'_> {
    fn drop(&mut self) {
        let seen = self.0.borrow().clone();
        if seen.is_current {
            self.0.send_replace(Arc::new(Observation { is_current: false, ..Observation::clone(&seen) }));
        }
    }
}

impl Follower for Spectator {
    async fn run(&mut self, live: &Arc<Live>) {
        self.known = Known::default();
        self.problem = None;
        let Spectator { target, seen, sizes, known, problem } = self;
        let _current = WhileCurrent(seen);
        let mut reading = Reading { target, seen, sizes, known, problem, watches: Watches::default() };
        let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
        loop {
            let began = target.clock.now();
            let pause = match reading.refresh(live).await {
                Ok(()) => {
                    backoff.reset();
                    let took = target.clock.now().saturating_since(began);
                    (2 * took).clamp(SHORTEST, LONGEST)
                }
                Err(failure) => {
                    reading.watches = Watches::default();
                    debug!(group = %target.places.group, error = %failure.error, "could not be observed");
                    if !failure.error.is_unknown() {
                        *reading.problem = Some(failure.into_error(&target.places.group));
                        reading.publish(false, &[]).await;
                    }
                    sleep(backoff.next_delay(live.random.unit())).await;
                    continue;
                }
            };
            let due = reading.due(live).min(target.recheck);
            let recheck = tokio::select! {
                biased;
                watched = reading.watches.fired() => { reading.changed(watched); false }
                () = sleep(due) => due == target.recheck,
            };
            if recheck {
                reading.read_all_again();
            } else {
                sleep(pause).await;
            }
        }
    }

    fn refused(&mut self, error: Error) {
        let seen = self.seen.borrow().clone();
        let refused = Observation { problem: Some(error), is_current: false, ..Observation::clone(&seen) };
        self.seen.send_replace(Arc::new(refused));
    }

    fn close(&mut self) {}
}

impl Spectator {
    pub(crate) fn new(group: &str, target: Target) -> (Spectator, watch::Receiver<Arc<Observation>>) {
        let ring = Arc::new(target.rings.empty());
        let (seen, receiver) = watch::channel(Arc::new(Observation::nothing(group.into(), ring)));
        let (sizes, known) = (Sizes::default(), Known::default());
        (Spectator { target, seen, sizes, known, problem: None }, receiver)
    }
}

/// The work in one session.
struct Reading<'a> {
    target: &'a Target,
    seen: &'a watch::Sender<Arc<Observation>>,
    sizes: &'a Sizes,
    known: &'a mut Known,
    problem: &'a mut Option<Error>,
    watches: Watches<Watched>,
}

impl Reading<'_> {
    /// Reads what may have changed, and publishes it.
    async fn refresh(&mut self, live: &Live) -> Result<(), Failure> {
        let session = &*live.session;
        if !self.watches.has(&Watched::Head) {
            self.read_head(session).await?;
        }
        *self.problem = self.known.head_problem.clone();
        if !self.watches.has(&Watched::Children) {
            self.read_group(session).await?;
        }
        let asked: Vec<_> = self.known.history.iter().flat_map(pending::asked).cloned().collect();
        // Those that were read before the epoch may have written since.
        let unwatched = asked.iter().filter(|who| !self.is_watched(&who.id));
        let mut ids: BTreeSet<_> = unwatched.map(|who| who.id.clone()).collect();
        ids.retain(|id| self.known.children.contains_key(id));
        ids.extend(self.known.unread());
        self.read_members(session, ids).await?;
        let mut waited_for = self.waited_for(live);
        if waited_for.iter().filter(|id| !self.is_watched(id)).count() > MANY {
            // Most of them will acknowledge soon, and then need no watch.
            sleep(SETTLING).await;
            let unwatched = waited_for.into_iter().filter(|id| !self.is_watched(id)).collect();
            self.read_members(session, unwatched).await?;
            waited_for = self.waited_for(live);
        }
        self.watch_members(session, &waited_for).await?;
        self.watches.retain(|watched| match watched {
            Watched::Member(id) => waited_for.contains(id),
            Watched::Head | Watched::Group | Watched::Children => true,
        });
        let pending = self.pending(live);
        self.publish(!live.is_over(), &pending).await;
        Ok(())
    }

    async fn read_group(&mut self, session: &dyn Session) -> Result<(), Failure> {
        let path = &self.target.places.group;
        loop {
            match session.watch_children(path).await {
                Ok((names, stat, watch)) => {
                    self.watches.retain(|watched| *watched != Watched::Group);
                    self.watches.extend([(Watched::Children, watch)]);
                    self.known.list(&names, stat);
                    return Ok(());
                }
                Err(backend::Error::NoNode) => {}
                Err(error) => return Err(Failure::at(path)(error)),
            }
            let (stat, watch) = session.watch_node(path).await.map_err(Failure::at(path))?;
            self.known.group = None;
            self.known.children.clear();
            self.watches.retain(|watched| *watched != Watched::Group);
            self.watches.extend([(Watched::Group, watch)]);
            if stat.is_none() {
                return Ok(());
            }
            // It has been created in between: this watch says when it changes, but not that it is there.
            sleep(SETTLING).await;
        }
    }

    async fn read_members(&mut self, session: &dyn Session, ids: BTreeSet<MemberId>) -> Result<(), Failure> {
        let paths: Vec<ZnodePath> = ids.iter().map(|id| self.target.places.member(id)).collect();
        let found = read_each(session, &paths, self.sizes).await?;
        for (id, found) in ids.into_iter().zip(found) {
            let child = match found {
                // An election under the group leaves a persistent child, which is no member.
                Ok(Some((_, stat))) if stat.ephemeral_owner.is_none() => None,
                Ok(Some((data, stat))) => Member::read(id.as_str(), &data, stat.czxid).map(|member| {
                    let member = member.with_version(stat.version);
                    Child { member, payload: Payload::decode(&data), stat: Some(stat) }
                }),
                Ok(None) => None,
                Err(Denied) => Member::denied(id.as_str()).map(|member| Child {
                    member,
                    payload: Payload { weight: 1, ours: None },
                    stat: None,
                }),
            };
            match child {
                Some(child) => drop(self.known.children.insert(id, Some(child))),
                None => drop(self.known.children.remove(&id)),
            }
        }
        Ok(())
    }

    /// Watches these members, and reads those anew that were not watched before.
    async fn watch_members(
        &mut self,
        session: &dyn Session,
        ids: &BTreeSet<MemberId>,
    ) -> Result<(), Failure> {
        let new: BTreeSet<MemberId> = ids.iter().filter(|id| !self.is_watched(id)).cloned().collect();
        let all: Vec<_> = new.iter().map(|id| (id, self.target.places.member(id))).collect();
        for some in all.chunks(WATCHED_AT_ONCE) {
            let set = join_all(some.iter().map(|(_, path)| session.watch_node(path))).await;
            for ((id, path), set) in some.iter().zip(set) {
                match set {
                    Ok((_, watch)) => self.watches.extend([(Watched::Member((*id).clone()), watch)]),
                    Err(backend::Error::NotPermitted) => {}
                    Err(error) => return Err(Failure::at(path)(error)),
                }
            }
        }
        self.read_members(session, new).await
    }

    fn is_watched(&self, id: &MemberId) -> bool {
        self.watches.has(&Watched::Member(id.clone()))
    }

    /// The members that others wait for.
    fn waited_for(&self, live: &Live) -> BTreeSet<MemberId> {
        self.pending(live).into_iter().map(|it| it.who.id).collect()
    }

    /// Notes that a watch has fired.
    fn changed(&mut self, watched: Watched) {
        if let Watched::Member(id) = watched
            && let Some(child) = self.known.children.get_mut(&id)
        {
            *child = None;
        }
    }

    fn read_all_again(&mut self) {
        self.watches = Watches::default();
        self.known.children.values_mut().for_each(|child| *child = None);
    }

    fn pending(&self, live: &Live) -> Vec<Pending> {
        let Some(history) = &self.known.history else { return Vec::new() };
        let read = |who: &Incarnation| match self.known.children.get(&who.id) {
            None => Read::Gone,
            Some(None) => Read::Unknown,
            Some(Some(child)) => match child.stat {
                None => Read::Unknown,
                Some(stat) if stat.czxid != who.czxid => Read::Gone,
                Some(_) => Read::There(child.part()),
            },
        };
        let lapse = history.head.common.lease + live.timing.margin;
        let waits = Waits { plain: self.target.plain_grace, lapse };
        // The wall clock, because an observer may come long after the epoch. It only decides what is shown.
        let now = self.target.clock.unix_time();
        let age = |version| now.saturating_sub(since_1970(self.known.published_at(version)));
        pending::pending(history, read, age, waits)
    }

    /// After which time others wait for fewer members, if nothing is written, or the head has to be read again.
    fn due(&self, live: &Live) -> Duration {
        let left = self.pending(live).into_iter().filter_map(|it| it.left).min();
        let left = left.map_or(Duration::MAX, |left| left + Duration::from_millis(1));
        if self.watches.has(&Watched::Head) { left } else { left.min(LONGEST_RETRY) }
    }

    async fn publish(&mut self, is_current: bool, pending: &[Pending]) {
        let (known, before) = (&*self.known, self.seen.borrow().clone());
        let children = || known.children.values().flatten();
        let history = known.history.as_ref().filter(|_| children().any(|child| child.part().is_some()));
        let group = || self.target.places.group.name().to_owned();
        let (ring, mut members, disagreement) = match history {
            Some(history) => {
                let unclear = history.unclear().map(|(member, reason)| Error::RingUnclear {
                    group: group(),
                    member: member.clone(),
                    reason,
                });
                (history.ring.clone(), known.named(history), unclear)
            }
            None => {
                let observed: Vec<_> = children().map(|child| known.unnamed(child)).collect();
                let rings = known.announced().unwrap_or(self.target.rings);
                let members: Vec<_> = children().map(|child| child.member.clone()).collect();
                let ring = match ring(rings, &members, &before.ring).await {
                    Ok(ring) => ring,
                    Err(reason) => {
                        *self.problem = Some(Error::Ring { group: group(), reason });
                        before.ring.clone()
                    }
                };
                (ring, observed, disagreement(&group(), rings, &members))
            }
        };
        let is_owned = disagreement.is_none();
        // What may not be read is the first thing to mend.
        *self.problem = self.problem.take().or(disagreement);
        let owned = if is_owned { fractions(&ring).await } else { BTreeMap::new() };
        for member in &mut members {
            let owns = matches!(member.state, MemberState::Member | MemberState::Gone);
            let part = owned.get(member.member.id().as_str()).copied();
            member.owned = part.filter(|_| owns).unwrap_or_default();
        }
        let pending: Arc<[_]> = pending
            .iter()
            .filter(|_| history.is_some())
            .map(|it| PendingHandover {
                member: it.who.id.clone(),
                incarnation: it.who.czxid,
                is_present: known.has(&it.who),
                fraction: it.ranges.fraction(),
                since: wall_clock(it.version.map_or_else(|| known.oldest(), |at| known.published_at(at))),
                why: it.why,
                ranges: it.ranges.clone(),
            })
            .collect();
        let newest = history.map(|history| known.published_at(history.epoch.version));
        let observation = Observation {
            group: before.group.clone(),
            is_read: known.is_read(self.problem.as_ref()) || before.is_read,
            exists: known.group.is_some(),
            is_current,
            hands_over: history.is_some(),
            lacks_epoch: known.lacks_epoch(),
            is_exclusive: history.is_some_and(|history| {
                let waits_for_plain = pending.iter().any(|it| it.why == Why::Plain);
                !history.members().values().any(|entry| entry.is_plain) && !waits_for_plain
            }),
            is_owned,
            is_paused: history.is_some_and(|history| history.head.is_paused),
            epoch: history.map_or_else(|| known.group.map_or(0, |stat| stat.pzxid), |history| history.token),
            since: wall_clock(newest.unwrap_or_default()),
            members: members.into(),
            ring,
            pending,
            problem: self.problem.clone(),
        };
        if !observation.is_same(&before) {
            self.seen.send_replace(Arc::new(observation));
        }
    }
}

/// The ring of a group whose members hand no keys over.
///
/// # Errors
///
/// If there would be too many points.
async fn ring(rings: Rings, members: &[Member], before: &Arc<HashRing>) -> Result<Arc<HashRing>, RingError> {
    let is_alike = before.label() == rings.label && before.replicas() == rings.replicas;
    let before = if is_alike { before.clone() } else { Arc::new(rings.empty()) };
    let plan = rings.plan(members, &before);
    large::on_points(plan.work(), move || plan.ring()).await
}

/// The part of all keys that each member of a ring owns.
async fn fractions(ring: &Arc<HashRing>) -> BTreeMap<String, f64> {
    let (points, ring) = (ring.points() as u64, ring.clone());
    let fractions =
        move || ring.fractions().into_iter().map(|(id, fraction)| (id.to_owned(), fraction)).collect();
    large::on_points(points, fractions).await
}

/// Why no member of a group without epochs has a share: its members do not agree on the ring.
fn disagreement(group: &str, rings: Rings, members: &[Member]) -> Option<Error> {
    let ours = Ours { label: Some(rings.label), replicas: Some(rings.replicas), ..Ours::default() };
    let group = || group.to_owned();
    if let Some((member, theirs)) =
        members.iter().find_map(|it| Some((it.id().clone(), it.other_ring(&ours)?)))
    {
        return Some(Error::RingMismatch { group: group(), member, theirs, ours: ours.ring_as_text() });
    }
    if rings.label != Label::Tooz {
        return None;
    }
    let (member, reason) = python::unclear(members.iter().map(Member::as_peer), rings.replicas)?;
    Some(Error::RingUnclear { group: group(), member: member.clone(), reason })
}

// Pure: no runtime, no clock, no socket, no random numbers.

//! [`History`]: the epochs of one head, and who lost what at each.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::types::{Common, Entry, Epoch, Head, HeadRead, Incarnation, Members, Snapshot};
use crate::{
    error::unclear::Unclear,
    group::{
        placement::{Rings, counted_weight},
        python::{self, Peer},
    },
    member::MemberId,
    ring::{HashRing, Label, Ranges, RingError},
};

/// Who lost what at one epoch.
pub(crate) type Losses = BTreeMap<Incarnation, Arc<Ranges>>;

/// The epochs of one head from its floor on, or from earlier, up to the newest that was read.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) epoch: Epoch,
    /// The transaction that wrote the newest epoch.
    pub(crate) token: i64,
    pub(crate) head: Arc<Head>,
    /// The ring of the newest epoch.
    pub(crate) ring: Arc<HashRing>,
    /// The members of each epoch from the floor on.
    members: BTreeMap<i32, Arc<Members>>,
    /// The losses at each epoch after the oldest in `members`.
    losses: BTreeMap<i32, Arc<Losses>>,
}

/// Why a head gives no history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HistoryError {
    /// Head and snapshot are not of the same time: read both again.
    DoNotFit,
    /// They contradict each other, or themselves.
    Inconsistent(&'static str),
    Ring(RingError),
}

impl History {
    /// From a head and its snapshot.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]
    pub(crate) fn new(read: &HeadRead, snapshot: &Snapshot) -> Result<History, HistoryError> {
        if snapshot.epoch != read.head.base {
            return Err(HistoryError::DoNotFit);
        }
        let members = Arc::new(snapshot.members.clone());
        let start = History {
            epoch: Epoch { head: read.czxid, version: snapshot.epoch },
            token: read.mzxid,
            head: read.head.clone(),
            ring: ring(&read.head.common, &members, None)?,
            members: BTreeMap::from([(snapshot.epoch, members)]),
            losses: BTreeMap::new(),
        };
        start.extended(read)
    }

    /// Whether the log of `read` continues this history.
    pub(crate) fn reaches(&self, read: &HeadRead) -> bool {
        self.epoch.head == read.czxid && (read.head.base..=read.version).contains(&self.epoch.version)
    }

    /// This history and the newer epochs of `read`, which [reaches](History::reaches) back to it.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]
    pub(crate) fn extended(&self, read: &HeadRead) -> Result<History, HistoryError> {
        if read.head.version() != read.version {
            return Err(HistoryError::Inconsistent("its data version is not that of its log"));
        }
        let mut next = self.clone();
        let known = usize::try_from(self.epoch.version - read.head.base).unwrap_or(0);
        for (change, version) in read.head.log.iter().skip(known).zip(self.epoch.version + 1..) {
            let before = next.members().clone();
            let mut members = (*before).clone();
            for gone in &change.del {
                match members.remove(&gone.id) {
                    Some(entry) if entry.czxid == gone.czxid => {}
                    _ => {
                        return Err(HistoryError::Inconsistent("its log deletes a member that is not there"));
                    }
                }
            }
            for (id, entry) in &change.add {
                if members.insert(id.clone(), entry.clone()).is_some() {
                    return Err(HistoryError::Inconsistent("its log adds a member twice"));
                }
            }
            let after = ring(&read.head.common, &members, Some(&next.ring))?;
            let mut lost = losses(&before, &next.ring, &members, &after);
            for (who, ranges) in unseen_by_us(&read.head.common, &before, &members, &after)? {
                let lost = lost.entry(who).or_default();
                *lost = Arc::new(lost.union(&ranges));
            }
            if !change.released.is_empty() {
                lost.retain(|who, _| !change.released.contains(who));
                for earlier in next.losses.values_mut() {
                    Arc::make_mut(earlier).retain(|who, _| !change.released.contains(who));
                }
            }
            next.ring = after;
            next.members.insert(version, Arc::new(members));
            next.losses.insert(version, Arc::new(lost));
        }
        if next.ring.digest() != read.head.digest {
            return Err(HistoryError::Inconsistent("its digest is that of another ring"));
        }
        next.epoch.version = read.version;
        next.token = read.mzxid;
        next.head = read.head.clone();
        let floor = read.head.floor;
        next.members.retain(|version, _| *version >= floor);
        // What we lose between two views is asked for once more, even if the floor has passed it.
        next.losses.retain(|version, _| *version > floor.min(self.epoch.version));
        Ok(next)
    }

    pub(crate) fn floor(&self) -> i32 {
        self.head.floor
    }

    /// The members of the newest epoch.
    pub(crate) fn members(&self) -> &Arc<Members> {
        self.members.last_key_value().map(|(_, members)| members).expect("there is at least one epoch")
    }

    /// The members of the newest epoch that can publish the next one, in the order of their ranks.
    pub(crate) fn publishers(&self) -> impl Iterator<Item = &MemberId> {
        self.members().iter().filter(|(_, entry)| !entry.is_plain).map(|(id, _)| id)
    }

    /// The members of an epoch from the floor on.
    pub(crate) fn members_at(&self, version: i32) -> Option<&Arc<Members>> {
        self.members.get(&version)
    }

    /// The losses at each epoch after `version`, oldest first.
    pub(crate) fn losses_after(&self, version: i32) -> impl DoubleEndedIterator<Item = (i32, &Losses)> {
        let after = (Bound::Excluded(version), Bound::Unbounded);
        self.losses.range(after).map(|(version, losses)| (*version, &**losses))
    }

    /// Whether `who`, which has lost something at this epoch, was a plain member.
    pub(crate) fn was_plain(&self, version: i32, who: &Incarnation) -> bool {
        [version - 1, version].into_iter().any(|version| {
            let entry = self.members_at(version).and_then(|members| members.get(&who.id));
            entry.is_some_and(|entry| entry.is_plain && entry.czxid == who.czxid)
        })
    }

    /// With the ring of tooz: a member because of which the Python members may not agree on the ring.
    pub(crate) fn unclear(&self) -> Option<(&MemberId, Unclear)> {
        unclear(&self.head.common, self.members())
    }

    /// The members that have released all that they ever had, as the log says.
    pub(crate) fn released(&self) -> impl Iterator<Item = &Incarnation> {
        self.head.log.iter().flat_map(|change| &change.released)
    }

    /// Whether others wait, or would wait, for what `it` has had: it is in the newest epoch, or has lost something after
    /// the floor, or is carried.
    pub(crate) fn waits_for(&self, it: &Incarnation) -> bool {
        let has_lost = || self.losses_after(self.floor()).any(|(_, losses)| losses.contains_key(it));
        self.has(it) || has_lost() || self.head.carried.contains(it)
    }

    /// Whether `it` is in the newest epoch.
    pub(crate) fn has(&self, it: &Incarnation) -> bool {
        self.members().get(&it.id).is_some_and(|entry| entry.czxid == it.czxid)
    }
}

/// A member of a group of tooz because of which the Python members may not agree on the ring, and why.
fn unclear<'a>(common: &Common, members: &'a Members) -> Option<(&'a MemberId, Unclear)> {
    if common.label != Label::Tooz {
        return None;
    }
    let peer = |(id, entry): (&'a MemberId, &'a Entry)| Peer {
        id,
        weight: entry.weight,
        unclear: entry.unclear.as_ref(),
        is_plain: entry.is_plain,
    };
    python::unclear(members.iter().map(peer), common.replicas)
}

/// The ring of these members. Without members, if Python peers may not agree on it: then no member may act. `before` is a
/// ring of the same group: it is faster to change it than to make a new one.
///
/// # Errors
///
/// [`RingError`] if there would be too many points.
pub(crate) fn ring(
    common: &Common,
    members: &Members,
    before: Option<&Arc<HashRing>>,
) -> Result<Arc<HashRing>, HistoryError> {
    #[cfg(test)]
    if let Some(ring) = cached::get(common, members) {
        return Ok(ring);
    }
    let is_mixed = members.values().any(|entry| entry.is_plain);
    let is_clear = unclear(common, members).is_none();
    let weighted = members
        .iter()
        .map(|(id, entry)| (id.clone(), counted_weight(common.label, is_mixed, entry.weight)))
        .filter(|(_, weight)| is_clear && *weight > 0);
    let rings = Rings { label: common.label, replicas: common.replicas };
    let plan = match before {
        Some(before) => rings.plan_of(weighted.collect(), before),
        None => rings.plan_of(weighted.collect(), &Arc::new(rings.empty())),
    };
    let ring = plan.ring().map_err(HistoryError::Ring)?;
    #[cfg(test)]
    cached::put(common, members, &ring);
    Ok(ring)
}

/// Who loses what from one epoch to the next, in positions of 32 bits: on a ring of tooz, of which a point may divide one,
/// who loses a part of it loses all. The owner is an incarnation: if an id has a new one, the old one loses
/// all that the id keeps.
fn losses(before: &Members, ring: &HashRing, after: &Members, new: &HashRing) -> Losses {
    if ring.is_empty() {
        // The first members of a large group: to compare the rings would take longer than to make one.
        return Losses::new();
    }
    let mut lost: BTreeMap<&str, Vec<(u32, u32)>> = BTreeMap::new();
    for moved in ring.moves(new) {
        if let Some(from) = moved.from {
            lost.entry(from).or_default().push((*moved.range.start(), *moved.range.end()));
        }
    }
    let is_another = |id: &MemberId| matches!((before.get(id), after.get(id)), (Some(old), Some(new)) if old.czxid != new.czxid);
    for (id, entry) in before {
        if is_another(id) && entry.weight > 0 {
            let all = ring.ranges(id.as_str()).rounded_out();
            lost.insert(id.as_str(), all.iter().map(|range| (*range.start(), *range.end())).collect());
        }
    }
    let lost = lost.into_iter().filter_map(|(id, parts)| {
        let (id, entry) = before.get_key_value(&MemberId::new(id).ok()?)?;
        Some((Incarnation { id: id.clone(), czxid: entry.czxid }, Ranges::from_parts(parts)))
    });
    lost.filter(|(_, ranges)| !ranges.is_empty()).map(|(who, ranges)| (who, Arc::new(ranges))).collect()
}

/// What plain members may have had between two epochs, and do not have in the later one.
///
/// A plain member follows each change of the group, and an epoch has many changes at once: of two members that were
/// replaced one after the other, for instance, or all that went on before the first epoch. A plain member may have had a
/// key if no member that was there all the time comes before it on the ring.
fn unseen_by_us(
    common: &Common,
    before: &Members,
    after: &Members,
    new: &HashRing,
) -> Result<BTreeMap<Incarnation, Ranges>, HistoryError> {
    let is_in = |members: &Members, (id, entry): (&MemberId, &Entry)| {
        members.get(id).is_some_and(|other| other.czxid == entry.czxid)
    };
    let ours = |members: &Members, others: &Members| {
        members.iter().any(|(id, entry)| !entry.is_plain && !is_in(others, (id, entry)))
    };
    if unclear(common, before).is_some() {
        return Ok(anything(before, new));
    }
    let plain = |members: &Members| members.values().any(|entry| entry.is_plain);
    if !(plain(before) || plain(after)) || !(ours(before, after) || ours(after, before)) {
        return Ok(BTreeMap::new());
    }
    let there = before.iter().filter(|(id, entry)| entry.is_plain || is_in(after, (id, entry)));
    let there = there.chain(after.iter().filter(|(_, entry)| entry.is_plain));
    let there: Members = there.map(|(id, entry)| (id.clone(), entry.clone())).collect();
    if unclear(common, &there).is_some() {
        return Ok(anything(&there, new));
    }
    let ring = ring(common, &there, None)?;
    let mut lost: BTreeMap<&str, Vec<(u32, u32)>> = BTreeMap::new();
    for moved in ring.moves(new) {
        if let Some(from) = moved.from {
            lost.entry(from).or_default().push((*moved.range.start(), *moved.range.end()));
        }
    }
    let lost = lost.into_iter().filter_map(|(id, parts)| {
        let (id, entry) = there.iter().find(|(it, entry)| it.as_str() == id && entry.is_plain)?;
        Some((Incarnation { id: id.clone(), czxid: entry.czxid }, Ranges::from_parts(parts)))
    });
    Ok(lost.collect())
}

/// What plain members of `before` do not have in the ring `new`: they may have had anything, by rings of their own.
fn anything(before: &Members, new: &HashRing) -> BTreeMap<Incarnation, Ranges> {
    let lost = before.iter().filter(|(_, entry)| entry.is_plain).map(|(id, entry)| {
        let all = Ranges::all().difference(&new.ranges(id.as_str())).rounded_out();
        (Incarnation { id: id.clone(), czxid: entry.czxid }, all)
    });
    lost.filter(|(_, ranges)| !ranges.is_empty()).collect()
}

/// The checker builds the same few rings millions of times.
#[cfg(test)]
mod cached {
    use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

    use super::{Common, HashRing, MemberId, Members, Unclear};

    type Key = (u8, u32, Vec<(MemberId, u32, bool, Option<Unclear>)>);

    std::thread_local! {
        static RINGS: RefCell<BTreeMap<Key, Arc<HashRing>>> = const { RefCell::new(BTreeMap::new()) };
    }

    fn key(common: &Common, members: &Members) -> Key {
        let members = members
            .iter()
            .map(|(id, entry)| (id.clone(), entry.weight, entry.is_plain, entry.unclear.clone()));
        (common.label as u8, common.replicas, members.collect())
    }

    pub(super) fn get(common: &Common, members: &Members) -> Option<Arc<HashRing>> {
        (members.len() <= 8).then(|| RINGS.with_borrow(|rings| rings.get(&key(common, members)).cloned()))?
    }

    pub(super) fn put(common: &Common, members: &Members, ring: &Arc<HashRing>) {
        if members.len() <= 8 {
            RINGS.with_borrow_mut(|rings| {
                if rings.len() > 10_000 {
                    rings.clear();
                }
                rings.insert(key(common, members), ring.clone());
            });
        }
    }
}

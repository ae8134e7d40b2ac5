// Pure: no runtime, no clock, no socket, no random numbers.

//! Which members others wait for, as far as the store shows it: the rules of [`release`](crate::guide::handover), seen from
//! outside.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    group::{
        handover::{History, Incarnation, Part},
        status::Why,
    },
    ring::{Label, Ranges},
};

/// Keys that a member may still act on, although it owns them no more.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Pending {
    pub(super) who: Incarnation,
    pub(super) ranges: Ranges,
    pub(super) why: Why,
    /// The oldest epoch at which it lost some of them; `None` if that was before the floor.
    pub(super) version: Option<i32>,
    /// When others wait no longer, if nothing is written.
    pub(super) left: Option<Duration>,
}

/// What is known of the znode of a member.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read<'a> {
    /// It was not read, or permission is denied.
    Unknown,
    Gone,
    There(Option<&'a Part>),
}

/// For how long members are waited for that say nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// A member that hands no keys over.
    pub(super) plain: Duration,
    /// A member that does not acknowledge what it lost: until its lease has certainly ended.
    pub(super) lapse: Duration,
}

/// Who has not released what it lost, sorted. `read` gives the znode of an incarnation, `age` the time since an epoch was
/// published.
pub(super) fn pending<'a>(
    history: &History,
    read: impl Fn(&Incarnation) -> Read<'a>,
    age: impl Fn(i32) -> Duration,
    waits: Waits,
) -> Vec<Pending> {
    let mut found: BTreeMap<(Incarnation, Order), Pending> = BTreeMap::new();
    let mut note = |it: Pending| {
        // What it has lost at the newest epoch it does not own, except on a ring of tooz, where losses are whole positions
        // and it may own a part of one. To find what it owns takes time in a large ring.
        let is_older = it.version.is_none_or(|version| version < history.epoch.version);
        let may_own = is_older || history.head.common.label == Label::Tooz;
        let it = match may_own && !it.ranges.is_empty() {
            true => Pending { ranges: it.ranges.difference(&owned(history, &it.who)), ..it },
            false => it,
        };
        if it.ranges.is_empty() {
            return;
        }
        let known = found.entry((it.who.clone(), order(it.why))).or_insert_with(|| it.clone());
        known.ranges = known.ranges.union(&it.ranges);
        known.left = known.left.max(it.left);
    };
    for who in &history.head.carried {
        if let Read::There(Some(part)) = read(who) {
            let (ranges, why) = (part.keep.clone(), Why::StillAtWork);
            note(Pending { who: who.clone(), ranges, why, version: None, left: None });
        }
    }
    for (version, losses) in history.losses_after(history.floor()) {
        for (who, lost) in losses {
            let since = age(version);
            let is_plain = history.was_plain(version, who);
            let still =
                |ranges, why, left| Pending { who: who.clone(), ranges, why, version: Some(version), left };
            let waits_for = |why, limit: Duration| {
                let left = limit.saturating_sub(since);
                (!left.is_zero()).then(|| still((**lost).clone(), why, Some(left)))
            };
            let pending = match read(who) {
                _ if is_plain => waits_for(Why::Plain, waits.plain),
                Read::Gone => None,
                Read::There(Some(part))
                    if part
                        .ack
                        .is_some_and(|ack| ack.head == history.epoch.head && ack.version >= version) =>
                {
                    Some(still(lost.intersection(&part.keep), Why::StillAtWork, None))
                }
                Read::Unknown | Read::There(_) => waits_for(Why::NotAcknowledged, waits.lapse),
            };
            pending.into_iter().for_each(&mut note);
        }
    }
    found.into_values().collect()
}

/// Whose znode has to be read for [`pending`].
pub(super) fn asked(history: &History) -> impl Iterator<Item = &Incarnation> {
    let losers = history.losses_after(history.floor()).flat_map(|(_, losses)| losses.keys());
    history.head.carried.iter().chain(losers)
}

/// Whether `who` has acknowledged all that it lost.
pub(super) fn is_behind(history: &History, who: &Incarnation, part: &Part) -> bool {
    let newest = history.losses_after(history.floor()).rfind(|(_, losses)| losses.contains_key(who));
    newest.is_some_and(|(version, _)| {
        !part.ack.is_some_and(|ack| ack.head == history.epoch.head && ack.version >= version)
    })
}

/// What an incarnation owns in the newest epoch.
fn owned(history: &History, who: &Incarnation) -> Ranges {
    if history.has(who) { history.ring.ranges(who.id.as_str()) } else { Ranges::none() }
}

/// A place for each reason, for a fixed order.
type Order = u8;

fn order(why: Why) -> Order {
    match why {
        Why::NotAcknowledged => 0,
        Why::StillAtWork => 1,
        Why::Gone => 2,
        Why::Plain => 3,
    }
}

//! Reads many znodes in few requests. The size of the replies is bounded.
//!
//! The size of a znode is not known before it is read, and a server that is asked for a thousand large ones at once
//! runs out of memory. So the first request is small, and each further one is as large as the sizes so far allow. The
//! order in which znodes are read is spread evenly over the list. So the first ones are a fair sample of the rest, even
//! if the large ones are neighbours.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::backend::{self, Session, Znode, path::ZnodePath};

/// Permission to read this znode is denied by an access control list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied;

/// What was found at each path.
pub(crate) type Found = Vec<Result<Option<Znode>, Denied>>;

/// How many bytes one reply should have at most. No limit of the protocol: it bounds the memory of the server.
const REPLY_BYTES: usize = 1024 * 1024;

/// How many replies are under way at the same time.
const AT_ONCE: usize = 2;

/// How many znodes the first request reads, and how many any of them reads at most.
const FIRST: usize = 8;
const MOST: usize = 256;

/// How much smaller the first request of a later call is than one that the sizes of earlier ones allow: another process
/// may have created large ones since.
const CAUTION: usize = 16;

/// The sizes of the znodes of one folder that were read so far.
#[derive(Default)]
pub(crate) struct Sizes(Mutex<Seen>);

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    znodes: usize,
    bytes: usize,
}

impl Sizes {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

/// Plans the requests of one call.
#[derive(Debug)]
struct Plan {
    /// The sizes in this call, and before it.
    now: Seen,
    before: Seen,
}

impl Plan {
    /// How many znodes the next request reads.
    fn next(&self) -> usize {
        let fitting = |seen: Seen| (REPLY_BYTES * seen.znodes / seen.bytes.max(1)).clamp(1, MOST);
        match (self.now.znodes, self.before.znodes) {
            (0, 0) => FIRST,
            (0, before) => (fitting(self.before) / CAUTION).min(before.max(FIRST)).max(1),
            // At most as many as were read so far: if no large one was among them, there are few among as many more.
            (seen, before) => fitting(self.now).min((seen + before).max(FIRST)),
        }
    }

    fn note(&mut self, found: &Found) {
        let bytes = found.iter().flatten().flatten().map(|(data, _)| data.len());
        self.now.znodes += found.len();
        self.now.bytes += bytes.sum::<usize>();
    }
}

/// Reads each of `paths`; the result has their order. If one is denied, the others are still read.
pub(crate) async fn read_each(
    session: &dyn Session,
    paths: &[ZnodePath],
    sizes: &Sizes,
) -> Result<Found, backend::Error> {
    let mut plan = Plan { now: Seen::default(), before: *sizes.lock() };
    let mut order = spread(paths.len());
    let mut found: Found = vec![Ok(None); paths.len()];
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE {
            let mut some: Vec<usize> = order.by_ref().take(plan.next()).collect();
            if some.is_empty() {
                break;
            }
            // Neighbours of the list are close to each other at the server, too.
            some.sort_unstable();
            under_way.push(async move {
                let asked: Vec<_> = some.iter().map(|&at| paths[at].clone()).collect();
                read_together(session, &asked).await.map(|read| (some, read))
            });
        }
        let Some(answer) = under_way.next().await else { break };
        let (some, read) = answer?;
        plan.note(&read);
        for (at, znode) in some.into_iter().zip(read) {
            found[at] = znode;
        }
    }
    let Seen { znodes, bytes } = plan.now;
    let mut seen = sizes.lock();
    // Sizes from earlier calls count less and less.
    *seen = Seen { znodes: seen.znodes / 2 + znodes, bytes: seen.bytes / 2 + bytes };
    Ok(found)
}

/// How many znodes are read at once to find one.
const FOUND_AT_ONCE: usize = 64;

/// Reads `paths` in their order, some at a time, until there is a znode that `is_wanted` accepts. Returns its index in
/// `paths`, and the znode.
pub(crate) async fn find_first(
    session: &dyn Session,
    paths: &[ZnodePath],
    sizes: &Sizes,
    is_wanted: impl Fn(&Znode) -> bool,
) -> Result<Option<(usize, Znode)>, backend::Error> {
    for (part, some) in paths.chunks(FOUND_AT_ONCE).enumerate() {
        let found = read_each(session, some, sizes).await?.into_iter();
        let there =
            found.enumerate().filter_map(|(at, found)| Some((part * FOUND_AT_ONCE + at, found.ok()??)));
        if let Some(found) = there.into_iter().find(|(_, znode)| is_wanted(znode)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The numbers below `count` in an order in which each part is spread evenly over all of them.
fn spread(count: usize) -> impl Iterator<Item = usize> + Send {
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    // The golden ratio spreads best; 610 / 987 is close to it.
    let start = count.saturating_mul(610) / 987;
    let step = (start.max(1)..).find(|step| gcd(*step, count) <= 1).unwrap_or(1);
    (0..count).scan(0, move |at, _| {
        let this = *at;
        *at = (*at + step) % count;
        Some(this)
    })
}

/// Reads znodes in one request, or in several if one of them is denied.
async fn read_together(session: &dyn Session, paths: &[ZnodePath]) -> Result<Found, backend::Error> {
    let mut found = Vec::with_capacity(paths.len());
    let mut parts = vec![paths];
    while let Some(part) = parts.pop() {
        match session.get_many(part).await {
            Ok(read) => found.extend(read.into_iter().map(Ok)),
            Err(backend::Error::NotPermitted) if part.len() > 1 => {
                let (first, rest) = part.split_at(part.len() / 2);
                parts.extend([rest, first]);
            }
            Err(backend::Error::NotPermitted) => found.push(Err(Denied)),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the replies if znodes of these sizes are read, in the order of the requests.
    fn replies(sizes: &[usize]) -> Vec<usize> {
        replies_after(Seen::default(), sizes)
    }

    fn replies_after(before: Seen, sizes: &[usize]) -> Vec<usize> {
        let mut plan = Plan { now: Seen::default(), before };
        let mut order = spread(sizes.len());
        let mut replies = Vec::new();
        loop {
            let some: Vec<_> = order.by_ref().take(plan.next()).collect();
            if some.is_empty() {
                return replies;
            }
            let znode = |at: &usize| Ok(Some((vec![0; sizes[*at]], backend::Stat::default())));
            let found: Found = some.iter().map(znode).collect();
            replies.push(some.iter().map(|at| sizes[*at]).sum());
            plan.note(&found);
        }
    }

    #[test]
    fn the_order_is_spread_evenly_and_has_every_number() {
        for count in [0, 1, 2, 3, 8, 100, 987, 1000, 1024] {
            let mut all: Vec<_> = spread(count).collect();
            let few = all.len().min(16);
            let mut first = all[..few].to_vec();
            first.sort_unstable();
            let widest = first.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            assert!(count < 16 || widest <= count / 4, "{count}: {first:?}");
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn a_reply_stays_small_when_large_znodes_follow_small_ones() {
        let large = vec![990_000; 200];
        for znodes in [1, 10, 10_000] {
            let before = Seen { znodes, bytes: 200 * znodes };
            let largest = replies_after(before, &large).into_iter().max();
            assert!(largest <= Some(2 * FIRST * 990_000), "{largest:?} after {znodes}");
        }
    }

    #[test]
    fn a_reply_stays_small_whatever_the_sizes_are() {
        const MIB: usize = 1024 * 1024;
        let large = 990_000;
        let (small, late) = (vec![200; 10_000], [vec![200; 5000], vec![large; 200]].concat());
        let early = [vec![large; 200], vec![200; 5000]].concat();
        assert!(replies(&small).len() < 60, "{}", replies(&small).len());
        assert_eq!(replies(&vec![large; 50])[0], FIRST * large);
        for sizes in [small, vec![large; 50], late, early] {
            let largest = replies(&sizes).into_iter().max();
            assert!(largest <= Some(FIRST * MIB), "{largest:?}");
        }
    }
}

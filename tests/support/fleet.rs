//! Members of a fleet for tests, so that the same scenario runs on the in-memory backend, under paused time, and
//! on a real server.

mod store;
mod znodes;

use std::{collections::BTreeMap, time::Duration};

use apportion::{
    Group, Held, Join, PartitionCoordinator,
    backend::Memory,
    group::{Rebalance, Rebalances, Standing},
    testing::Faults,
};

#[allow(unused_imports, reason = "each test binary uses its own part of it")]
pub use self::{
    store::{Reach, Store, Via},
    znodes::{create_with_ancestors, delete_recursively, exists, znode},
};
use super::{Mode, Proxy, SECOND, eventually};

/// The way of one member to the store.
#[derive(Debug)]
pub struct Line {
    pub faults: Faults,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Memory(Memory),
    Proxy(Proxy),
}

/// A member of the fleet, with its own way to the store.
#[derive(Debug)]
pub struct Agent {
    pub coordinator: PartitionCoordinator,
    pub line: Line,
    /// Whether it joins without the handover of keys.
    pub is_immediate: bool,
}

impl Agent {
    /// Joins in the mode of its store.
    pub async fn join(&self, group: &str) -> Group {
        self.joining(group).await.expect("it can join the group")
    }

    /// A join in the mode of its store, for further options.
    pub fn joining(&self, group: &str) -> Join {
        store::joining(&self.coordinator, group, self.is_immediate)
    }

    pub fn faults(&self) -> &Faults {
        &self.line.faults
    }

    /// Cuts the line in both directions, without a reset.
    pub fn suspend(&self) {
        match &self.line.way {
            Way::Memory(memory) => memory.suspend(self.coordinator.session_id().expect("it has a session")),
            Way::Proxy(proxy) => proxy.set(Mode::BlackHole),
        }
    }

    /// Restores the line. In memory the line is that of a session, which must still be the current one.
    pub fn resume(&self) {
        match &self.line.way {
            Way::Memory(memory) => memory.resume(self.coordinator.session_id().expect("it has a session")),
            Way::Proxy(proxy) => proxy.set(Mode::Pass),
        }
    }

    /// The proxy on the way to a real server.
    pub fn proxy(&self) -> &Proxy {
        match &self.line.way {
            Way::Memory(_) => panic!("there is no proxy in memory"),
            Way::Proxy(proxy) => proxy,
        }
    }

    /// Ends without a request to the store. The line stays cut as long as the returned value lives.
    pub fn crash(self) -> Line {
        self.suspend();
        self.line
    }

    /// Lets the session expire, and restores the line afterwards.
    pub async fn expire(&self, store: &Store) {
        let old = self.coordinator.session_id().expect("it has a session");
        if let Way::Memory(memory) = &self.line.way {
            memory.expire(old);
            return;
        }
        self.suspend();
        tokio::time::sleep(store.session_timeout + 2 * store.server_tick).await;
        self.resume();
        let gone = || async { (self.coordinator.session_id()? != old).then_some(()) };
        eventually("a new session", 10 * SECOND, gone).await;
    }
}

/// The work that is shared in most tests.
pub fn universe() -> Vec<String> {
    (0..100).map(|number| format!("alarm-{number}")).collect()
}

/// The owners of each key of the universe, as the members see it at this moment.
pub fn owners(groups: &[&Group]) -> BTreeMap<String, Vec<String>> {
    let views: Vec<_> = groups.iter().map(|group| group.view()).collect();
    let owners_of =
        |key: &String| views.iter().filter(|view| view.owns(key)).map(|view| view.me().to_string()).collect();
    universe().into_iter().map(|key| (key.clone(), owners_of(&key))).collect()
}

/// Whether each key of the universe has exactly one owner.
pub fn is_settled(groups: &[&Group]) -> bool {
    owners(groups).values().all(|owners| owners.len() == 1)
}

/// Waits until all of `groups` are members, each key of the universe has exactly one owner among them, all of them see
/// the same ring, and what they extract is the same as what their views say.
///
/// # Panics
///
/// If that was not so within `bound`.
pub async fn settles_within(bound: Duration, groups: &[&Group]) {
    let probe = || async {
        let mut digests: Vec<_> = groups.iter().map(|group| group.view().ring().digest()).collect();
        digests.dedup();
        // One that has just come back follows an epoch without itself, in which another one owns everything.
        let is_in = groups.iter().all(|group| group.view().standing() == Standing::Member);
        (is_in && digests.len() == 1 && is_settled(groups)).then_some(())
    };
    let settled = tokio::time::timeout(bound, eventually("settled", bound + SECOND, probe)).await;
    if settled.is_err() {
        let views: Vec<_> = groups.iter().map(|group| group.view()).collect();
        let orphans = owners(groups).into_iter().filter(|(_, owners)| owners.len() != 1).take(5);
        panic!("not within {bound:?} one owner each: {:?} {views:#?}", orphans.collect::<Vec<_>>());
    }
    let mut extracted = Vec::new();
    for group in groups {
        let share = group.extract_my_subset(universe()).await.expect("a settled member has a share");
        assert!(share.is_valid());
        extracted.extend(share.into_iter().map(Held::into_inner));
    }
    extracted.sort_unstable();
    let mut all = universe();
    all.sort_unstable();
    assert_eq!(extracted, all);
}

/// The next change. Panics if there is none for a long time.
pub async fn next_change(rebalances: &mut Rebalances) -> Rebalance {
    let next = tokio::time::timeout(300 * SECOND, rebalances.next()).await;
    next.expect("nothing changes").expect("the group is not left")
}

/// Whether no further change can come.
pub async fn is_over(rebalances: &mut Rebalances) -> bool {
    matches!(tokio::time::timeout(300 * SECOND, rebalances.next()).await, Ok(None))
}

/// Waits until `group` counts exactly these members.
pub async fn sees(group: &Group, bound: Duration, members: &[&str]) {
    let view = || async { (ids(group) == members).then_some(()) };
    let seen = tokio::time::timeout(bound, eventually("seen", bound + SECOND, view)).await;
    assert!(seen.is_ok(), "not within {bound:?} {members:?}: {:?}", group.view());
}

/// The ids of the members that `group` counts.
pub fn ids(group: &Group) -> Vec<String> {
    group.view().members().iter().map(|member| member.id().to_string()).collect()
}

/// Has each scenario run twice: in memory under paused time, and on a real server, if the feature for that is on.
macro_rules! on_both_backends {
    ($($scenario:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario($crate::support::fleet::Store::memory()).await;
            })+
        }
        #[cfg(feature = "zookeeper")]
        mod server {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario($crate::support::fleet::Store::shared(stringify!($scenario)).await).await;
            })+
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part of it")]
pub(crate) use on_both_backends;

/// The same, and once more each with members that join without the handover of keys.
macro_rules! in_both_modes_on_both_backends {
    ($($scenario:ident),+ $(,)?) => {
        $crate::support::fleet::on_both_backends!($($scenario),+);
        $crate::support::fleet::immediate_on_both_backends!($($scenario),+);
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part of it")]
pub(crate) use in_both_modes_on_both_backends;

/// Has each scenario run in memory under paused time, with members that hand keys over, and with members that do not.
macro_rules! in_both_modes {
    ($($scenario:ident),+ $(,)?) => {
        mod exclusive {
            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario($crate::support::fleet::Store::memory()).await;
            })+
        }
        mod immediate {
            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario($crate::support::fleet::Store::memory().immediate()).await;
            })+
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part of it")]
pub(crate) use in_both_modes;

/// Has each scenario run on both backends with members that join without the handover of keys.
macro_rules! immediate_on_both_backends {
    ($($scenario:ident),+ $(,)?) => {
        mod immediate {
            mod memory {
                $(#[tokio::test(start_paused = true)]
                async fn $scenario() {
                    super::super::$scenario($crate::support::fleet::Store::memory().immediate()).await;
                })+
            }
            #[cfg(feature = "zookeeper")]
            mod server {
                $(#[tokio::test]
                async fn $scenario() {
                    let namespace = concat!("immediate-", stringify!($scenario));
                    let store = $crate::support::fleet::Store::shared(namespace).await;
                    super::super::$scenario(store.immediate()).await;
                })+
            }
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part of it")]
pub(crate) use immediate_on_both_backends;

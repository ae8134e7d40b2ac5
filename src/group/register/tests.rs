use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{loss::End, *};
use crate::{
    clock::{Clock as _, TokioClock},
    group::held::Held,
    ring::{self, HashRing},
    session::validity::SessionValidity,
};

const SECOND: Duration = Duration::from_secs(1);
/// The lease of a session in these tests.
const LEASE: Duration = Duration::from_secs(5);
const KEYS: u32 = 200;

/// Member `a` of a group: a session, and the rings before and after `b` has joined.
struct Member {
    clock: Arc<TokioClock>,
    session: SessionValidity,
    register: Arc<Register>,
    alone: HashRing,
    with_b: HashRing,
    turn: usize,
}

impl Member {
    /// Owns everything.
    fn new() -> Member {
        let clock = Arc::new(TokioClock::new());
        let session = SessionValidity::new(clock.clone(), clock.now() + LEASE);
        let alone = HashRing::builder().member("a").build().unwrap();
        let with_b = alone.with_member("b", 1).unwrap();
        let register = Register::new("g".into(), Validity::new(&session));
        register.admit(&Admission::within(alone.ranges("a")));
        Member { clock, session, register, alone, with_b, turn: 0 }
    }

    fn start(&mut self, key: u32) -> Option<InFlight> {
        self.turn += 1;
        self.register.start(ring::position(&key), &self.alone.ranges("a"), self.turn)
    }

    /// The guards of all keys, in the order of the keys.
    fn start_all(&mut self) -> Vec<InFlight> {
        (0..KEYS).map(|key| self.start(key).expect("it is ours")).collect()
    }

    /// What `a` loses when `b` joins.
    fn lost(&self) -> Ranges {
        self.alone.ranges("a").difference(&self.with_b.ranges("a"))
    }

    fn is_lost(&self, key: usize) -> bool {
        self.lost().contains(&key)
    }

    /// `b` joins a group with exclusive shares: what is in flight of its part is marked and frozen.
    fn freeze(&self, mark: u64) -> Vec<Position> {
        self.register.admit(&Admission::within(self.with_b.ranges("a")));
        self.register.freeze(mark, &self.lost(), self.deadline())
    }

    fn heartbeat(&self) {
        self.session.move_to(self.clock.now() + LEASE);
    }

    fn deadline(&self) -> Moment {
        self.register.validity().deadline()
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn len(&self) -> usize {
        self.register.counts().sum()
    }
}

fn positions(keys: impl IntoIterator<Item = u32>) -> Vec<Position> {
    let mut positions: Vec<_> = keys.into_iter().map(|key| ring::position(&key)).collect();
    positions.sort_unstable();
    positions
}

#[tokio::test(start_paused = true)]
async fn an_item_is_in_flight_from_its_start_until_its_guard_is_dropped_in_any_order() {
    let mut member = Member::new();
    let mut guards = member.start_all();
    let (lost, everything) = (member.lost(), member.alone.ranges("a"));
    let is_lost = |key: &u32| lost.contains(key);
    assert_eq!(member.register.in_flight(&everything), positions(0..KEYS));
    assert_eq!(member.register.in_flight(&lost), positions((0..KEYS).filter(is_lost)));
    let counts: Vec<usize> = member.register.counts().collect();
    assert!(counts.len() == SHARDS && counts.iter().all(|count| (12..=13).contains(count)), "{counts:?}");

    // The same key twice is two guards at one position.
    let again = member.start(7).unwrap();
    assert_eq!((member.len(), member.register.in_flight(&everything).len()), (201, 200));
    let mut key = 0;
    guards.retain(|_| {
        key += 1;
        key % 3 == 0
    });
    let left = (0..KEYS).filter(|key| (key + 1) % 3 == 0);
    assert_eq!(member.register.in_flight(&everything), positions(left.chain([7])));
    drop((guards, again));
    assert_eq!((member.len(), member.register.in_flight(&everything).len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_many_guards_is_given_back_when_all_have_ended() {
    let member = Member::new();
    let room = || member.register.shards.iter().map(|shard| shard.lock().slots.capacity()).sum::<usize>();
    let everything = Ranges::all();
    let start = |turn| member.register.start(0, &everything, turn).unwrap();
    let many: Vec<_> = (0..100_000).map(start).collect();
    assert!(room() >= 100_000);
    drop(many);
    assert_eq!(room(), 0);
    let few: Vec<_> = (0..100).map(start).collect();
    drop(few);
    assert!(room() > 0, "a little room is kept");
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_before_it_is_admitted_nor_after_it_is_lost() {
    let mut member = Member::new();
    let fresh = Register::new("g".into(), Validity::new(&member.session));
    assert!(fresh.start(0, &Ranges::all(), 0).is_none());
    member.register.admit(&Admission::within(member.with_b.ranges("a")));
    for key in 0..KEYS {
        let owner = member.with_b.owner(&key) == Some("a");
        assert_eq!(member.start(key).is_some(), owner);
    }
    member.register.admit(&Admission::none());
    assert!((0..KEYS).all(|key| member.start(key).is_none()));
}

#[tokio::test]
async fn no_thread_starts_an_item_by_an_old_snapshot_once_it_was_replaced() {
    for _ in 0..20 {
        let member = Member::new();
        let (register, started) = (&member.register, AtomicUsize::new(0));
        let (found, guards) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3usize)
                .map(|thread| {
                    let started = &started;
                    scope.spawn(move || {
                        let everything = Ranges::all();
                        let begin = |turn| {
                            let position = (turn as Position).wrapping_mul(1_000_003);
                            register.start(position, &everything, turn + thread)
                        };
                        let guards: Vec<_> =
                            (0..).map_while(|turn| begin(turn).inspect(|_| note(started))).collect();
                        guards
                    })
                })
                .collect();
            while started.load(Ordering::Relaxed) < 3000 {
                std::hint::spin_loop();
            }
            register.admit(&Admission::none());
            let found = register.counts().sum::<usize>();
            let guards: Vec<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
            (found, guards)
        });
        assert_eq!(found, guards.len(), "each guard that started was found");
    }
}

fn note(started: &AtomicUsize) {
    started.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(start_paused = true)]
async fn in_an_immediate_group_the_guards_of_what_is_lost_end_at_once_and_for_good() {
    let mut member = Member::new();
    let guards = member.start_all();
    let lost = guards.iter().enumerate().find(|(key, _)| member.is_lost(*key)).unwrap().1;
    let register = member.register.clone();
    let (wake, ()) = tokio::join!(timeout(SECOND / 2, lost.lost()), async {
        tokio::task::yield_now().await;
        register.admit_only(&Admission::within(member.with_b.ranges("a")));
    });
    assert!(wake.is_ok(), "a task that waits for the end is woken");
    for (key, guard) in guards.iter().enumerate() {
        assert_eq!(guard.is_valid(), !member.is_lost(key));
        assert_eq!(guard.remaining().is_zero(), member.is_lost(key));
    }
    register.admit_only(&Admission::within(member.alone.ranges("a")));
    member.heartbeat();
    assert!(guards.iter().enumerate().all(|(key, guard)| guard.is_valid() != member.is_lost(key)));
    let later = member.start_all();
    assert!(later.iter().all(InFlight::is_valid), "only later guards are valid");
    register.admit_only(&Admission::none());
    assert!(!guards.iter().chain(&later).any(InFlight::is_valid));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_guard_keeps_its_deadline_and_ends_there() {
    let mut member = Member::new();
    let guards = member.start_all();
    let deadline = member.deadline();
    let marked = member.freeze(1);
    assert_eq!(marked, positions((0..KEYS).filter(|key| member.is_lost(*key as usize))));
    tokio::time::sleep(SECOND).await;
    member.heartbeat();
    for (key, guard) in guards.iter().enumerate() {
        let expected = if member.is_lost(key) { deadline } else { deadline + SECOND };
        assert!(guard.is_valid());
        assert_eq!(guard.deadline(), expected);
        assert_eq!(guard.remaining(), expected.saturating_since(member.now()));
    }
    let lost = guards.iter().enumerate().find(|(key, _)| member.is_lost(*key)).unwrap().1;
    assert!(timeout(4 * SECOND + Duration::from_millis(5), lost.lost()).await.is_ok(), "at its own deadline");
    assert!(member.now() >= deadline);
    member.heartbeat();
    assert!(guards.iter().enumerate().all(|(key, guard)| guard.is_valid() != member.is_lost(key)));
}

#[tokio::test(start_paused = true)]
async fn a_thaw_lets_the_guards_of_one_mark_live_as_long_as_the_lease_and_no_others() {
    let mut member = Member::new();
    let guards = member.start_all();
    let first = member.freeze(1);
    member.register.admit(&Admission::none());
    let everything = member.alone.ranges("a");
    let second = member.register.freeze(2, &everything, member.deadline());
    assert_eq!(first.len() + second.len(), KEYS as usize, "a marked guard is not marked again");

    tokio::time::sleep(2 * SECOND).await;
    member.register.thaw(1);
    member.heartbeat();
    for (key, guard) in guards.iter().enumerate() {
        let remaining = if member.is_lost(key) { LEASE } else { LEASE - 2 * SECOND };
        assert_eq!((guard.is_valid(), guard.remaining()), (true, remaining));
    }
    tokio::time::sleep(3 * SECOND).await;
    assert!(guards.iter().enumerate().all(|(key, guard)| guard.is_valid() == member.is_lost(key)));
    member.heartbeat();
    let end = member.now() + SECOND;
    member.register.freeze_again(1, end);
    member.register.freeze_again(1, end + SECOND);
    assert!(
        guards.iter().enumerate().all(|(key, guard)| !member.is_lost(key) || guard.deadline() == end),
        "a deadline that it has already is not extended"
    );
    tokio::time::sleep(SECOND).await;
    member.heartbeat();
    assert!(!guards.iter().any(InFlight::is_valid));
}

#[tokio::test(start_paused = true)]
async fn a_guard_of_a_key_that_was_lost_and_regained_has_no_mark_and_the_old_one_keeps_its_own() {
    let mut member = Member::new();
    let guards = member.start_all();
    let marked = member.freeze(1);
    let everything = member.alone.ranges("a");
    member.register.admit(&Admission::within(everything.clone()));
    let again = member.start_all();
    assert_eq!(member.register.freeze(2, &member.lost(), member.deadline()), marked);
    drop(guards);
    let mut ends = Vec::new();
    for _ in &marked {
        ends.push(member.register.next_end().await);
    }
    assert!(ends.iter().all(|end| matches!(end, End::Marked { mark: 1, .. })), "{ends:?}");
    drop(again);
    assert!(matches!(member.register.next_end().await, End::Marked { mark: 2, .. }));
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_marked_guard_is_reported_and_that_of_the_last_guard_when_asked_for() {
    let mut member = Member::new();
    let guards = member.start_all();
    let register = member.register.clone();
    let soon = || timeout(SECOND, register.next_end());
    let (lost, mut kept): (Vec<_>, Vec<_>) =
        guards.into_iter().enumerate().partition(|(key, _)| member.is_lost(*key));
    let marked = member.freeze(7);
    kept.pop();
    assert!(soon().await.is_err(), "it had no mark");
    drop(lost);
    let mut ended = Vec::new();
    while ended.len() < marked.len() {
        match register.next_end().await {
            End::Marked { mark: 7, position } => ended.push(position),
            other => panic!("{other:?}"),
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, marked);
    assert!(soon().await.is_err());

    register.admit(&Admission::none());
    register.watch_idle();
    kept.truncate(1);
    assert!(soon().await.is_err(), "one is left");
    let (end, ()) = tokio::join!(register.next_end(), async { drop(kept.pop()) });
    assert_eq!(end, End::Last);
    assert!(soon().await.is_err(), "once");
    register.watch_idle();
    assert_eq!(register.next_end().await, End::Last, "also if none was there");
}

#[tokio::test(start_paused = true)]
async fn the_guards_of_an_incarnation_end_with_it_and_not_those_of_the_next() {
    let mut member = Member::new();
    let guards = member.start_all();
    member.freeze(1);
    let next = Register::new("g".into(), Validity::new(&member.session));
    next.admit(&Admission::within(member.alone.ranges("a")));
    member.register.validity().end();
    member.register.thaw(1);
    member.heartbeat();
    assert!(guards.iter().all(|guard| !guard.is_valid() && guard.remaining().is_zero()));
    let later = next.start(0, &Ranges::all(), 0).unwrap();
    assert!(later.is_valid() && next.in_flight(&member.alone.ranges("a")) == [0]);
    member.session.end();
    assert!(!later.is_valid());
}

#[tokio::test(start_paused = true)]
async fn an_item_is_in_flight_until_its_own_drop_has_ended() {
    struct Work(Arc<Register>);
    impl Drop for Work {
        fn drop(&mut self) {
            assert_eq!(self.0.counts().sum::<usize>(), 1);
        }
    }
    let mut member = Member::new();
    let in_flight = member.start(1).unwrap();
    let held = Held::new(Work(member.register.clone()), in_flight);
    drop(held.map(|work| work));
    assert_eq!(member.len(), 0);
}

/// Keys of members `host-1` and `host-2` of a ring of tooz whose hashes begin with the same 32 bits as a point.
const CLOSE: [(&str, &str); 6] = [
    ("k623042", "host-1"),
    ("k829689", "host-1"),
    ("k2719974", "host-2"),
    ("k3856740", "host-1"),
    ("k5723662", "host-2"),
    ("k7190429", "host-2"),
];

#[tokio::test(start_paused = true)]
async fn a_key_beside_a_point_of_a_ring_of_tooz_starts_only_where_all_of_its_position_is_that_of_its_share() {
    let hosts = ["host-1", "host-2", "host-3"];
    let add = |ring: crate::ring::HashRingBuilder, id: &&str| ring.weighted_member(*id, 100);
    let ring = hosts.iter().fold(HashRing::builder().tooz(32), add).build().unwrap();
    let member = Member::new();
    let mut divided = 0;
    for (key, owner) in CLOSE {
        assert_eq!(ring.owner(key), Some(owner));
        let (mine, position) = (ring.ranges(owner), ring::position(key));
        // On both sides of some points the owner is the same.
        divided += usize::from(!mine.contains_position(position));
        let may = |ring: &HashRing, id: &str| Admission::within(ring.ranges(id)).may_start(position, &mine);
        assert!(may(&ring, owner), "nothing has changed");
        for other in hosts.into_iter().filter(|it| *it != owner) {
            assert!(!may(&ring, other));
            assert!(may(&ring.without_member(other), owner), "what it had, it keeps");
        }
        // An immediate group: what goes on to belong to this member goes on.
        member.register.admit(&Admission::within(mine.clone()));
        let guard = member.register.start(position, &mine, 0).unwrap();
        member.register.admit_only(&Admission::within(mine.clone()));
        for other in hosts.into_iter().filter(|it| *it != owner) {
            member.register.admit_only(&Admission::within(ring.without_member(other).ranges(owner)));
            assert!(guard.is_valid());
            drop(member.register.start(position, &mine, 0).unwrap());
            member.register.admit(&Admission::within(mine.clone()));
        }
        member.register.admit_only(&Admission::none());
        assert!(!guard.is_valid());
    }
    assert!((1..CLOSE.len()).contains(&divided), "{divided}: of some positions, 32 bits do not decide");
}

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{loss::BUNDLE, *};
use crate::{
    clock::{Clock as _, TokioClock},
    group::held::Held,
    ring::{self, HashRing},
    session::validity::SessionValidity,
    token::FencingToken,
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
        self.register.start(ring::position(&key), self.turn)
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
    fn mark(&self) -> usize {
        self.register.admit(&Admission::within(self.with_b.ranges("a")));
        self.register.mark(&self.lost(), self.clock.now(), self.deadline())
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
    let start = |turn| member.register.start(0, turn).unwrap();
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
    assert!(fresh.start(0, 0).is_none());
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
                        let begin =
                            |turn| register.start((turn as Position).wrapping_mul(1_000_003), turn + thread);
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
async fn a_frozen_guard_keeps_its_deadline_and_ends_there_for_good() {
    let mut member = Member::new();
    let guards = member.start_all();
    let deadline = member.deadline();
    let marked = member.mark();
    assert_eq!(marked, (0..KEYS as usize).filter(|key| member.is_lost(*key)).count());
    let (_, written) = member.register.marked(member.now());
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
    assert!(guards.iter().enumerate().all(|(key, guard)| guard.is_valid() != member.is_lost(key)));
    // Too late: another member may act on these items.
    member.register.unfreeze(written, member.now());
    member.heartbeat();
    assert!(guards.iter().enumerate().all(|(key, guard)| guard.is_valid() != member.is_lost(key)));
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_write_unfreezes_the_guards_that_were_marked_when_it_was_made_and_no_others() {
    let mut member = Member::new();
    let first = member.start_all();
    member.mark();
    let lost: Vec<u32> = (0..KEYS).filter(|key| member.is_lost(*key as usize)).collect();
    let (kept, written) = member.register.marked(member.now());
    assert_eq!(kept, positions(lost.clone()));
    // All else is lost, too, while the write is under way.
    member.register.admit(&Admission::none());
    let everything = member.alone.ranges("a");
    let rest = member.register.mark(&everything, member.now(), member.deadline());
    assert_eq!(rest, KEYS as usize - lost.len(), "a marked guard is not marked again");
    assert_eq!(member.register.marked(member.now()).0, positions(0..KEYS));

    tokio::time::sleep(2 * SECOND).await;
    member.register.unfreeze(written, member.now());
    member.heartbeat();
    for (key, guard) in first.iter().enumerate() {
        let remaining = if member.is_lost(key) { LEASE } else { LEASE - 2 * SECOND };
        assert_eq!((guard.is_valid(), guard.remaining()), (true, remaining));
    }
    tokio::time::sleep(3 * SECOND).await;
    assert!(first.iter().enumerate().all(|(key, guard)| guard.is_valid() == member.is_lost(key)));
    member.heartbeat();
    assert!(first.iter().enumerate().all(|(key, guard)| guard.is_valid() == member.is_lost(key)));
    tokio::time::sleep(LEASE).await;
    assert!(!first.iter().any(InFlight::is_valid), "they live as long as the session");
}

#[tokio::test(start_paused = true)]
async fn a_marked_guard_stays_marked_until_it_is_dropped_also_if_its_key_is_regained() {
    let mut member = Member::new();
    let mut guards = member.start_all();
    member.mark();
    let (lost, everything) = (member.lost(), member.alone.ranges("a"));
    let (_, written) = member.register.marked(member.now());
    member.register.unfreeze(written, member.now());
    member.register.admit(&Admission::within(everything.clone()));
    let kept = everything.difference(&lost);
    assert!(member.register.has_marked(&lost, member.now()));
    assert!(!member.register.has_marked(&kept, member.now()));
    // New guards of the regained keys have no mark.
    let again = member.start_all();
    let lost_keys = (0..KEYS).filter(|key| lost.contains(key));
    assert_eq!(member.register.marked(member.now()).0, positions(lost_keys));
    guards.clear();
    assert!(member.register.marked(member.now()).0.is_empty());
    assert!(!member.register.has_marked(&everything, member.now()));
    assert_eq!(member.register.in_flight(&everything).len(), again.len());
}

#[tokio::test(start_paused = true)]
async fn guards_that_are_frozen_for_good_are_never_unfrozen() {
    let mut member = Member::new();
    let guards = member.start_all();
    member.mark();
    let (_, early) = member.register.marked(member.now());
    member.register.unfreeze(early, member.now());
    let deadline = member.deadline();
    member.register.freeze_all_for_good(member.now(), deadline);
    let (all, written) = member.register.marked(member.now());
    assert_eq!(all.len(), KEYS as usize, "they may act until the deadline");
    tokio::time::sleep(SECOND).await;
    member.register.unfreeze(written, member.now());
    member.heartbeat();
    assert!(guards.iter().all(|guard| guard.is_valid() && guard.deadline() == deadline));
    tokio::time::sleep(4 * SECOND).await;
    assert!(!guards.iter().any(InFlight::is_valid));
    assert!(member.register.marked(member.now()).0.is_empty(), "no other member need wait for them");
    assert!(!member.register.has_marked(&member.alone.ranges("a"), member.now()));
}

#[tokio::test(start_paused = true)]
async fn work_that_takes_longer_than_max_drain_is_frozen_for_good_and_says_when_the_next_is_due() {
    let mut member = Member::new();
    let guards = member.start_all();
    let (begin, drain) = (member.now(), 60 * SECOND);
    let overdue = |member: &Member| {
        let until = member.deadline();
        member.register.freeze_overdue(drain, member.now(), until)
    };
    assert_eq!(overdue(&member), None);
    member.mark();
    let (_, written) = member.register.marked(member.now());
    member.register.unfreeze(written, member.now());
    tokio::time::sleep(SECOND).await;
    member.heartbeat();
    let rest = member.alone.ranges("a");
    member.register.mark(&rest, member.now(), member.deadline());
    let (_, written) = member.register.marked(member.now());
    member.register.unfreeze(written, member.now());
    assert_eq!(overdue(&member), Some(begin + drain));

    for _ in 0..59 {
        tokio::time::sleep(SECOND).await;
        member.heartbeat();
    }
    assert!(guards.iter().all(InFlight::is_valid));
    let end = member.deadline();
    assert_eq!(overdue(&member), Some(begin + SECOND + drain));
    tokio::time::sleep(SECOND / 2).await;
    member.heartbeat();
    member.register.unfreeze(written, member.now());
    for (key, guard) in guards.iter().enumerate() {
        let expected = if member.is_lost(key) { end } else { member.deadline() };
        assert_eq!(guard.deadline(), expected);
    }
    assert_eq!(overdue(&member), Some(begin + SECOND + drain), "it is not due twice");
}

#[tokio::test(start_paused = true)]
async fn the_driver_is_woken_when_marked_guards_end_at_once_for_the_last_and_else_bundled() {
    let mut member = Member::new();
    let mut guards = member.start_all();
    let register = member.register.clone();
    guards.truncate(100);
    assert!(timeout(SECOND, register.marked_ended()).await.is_err(), "none of these was marked");
    member.mark();
    register.marked(member.now());
    let lost = |key: &usize| member.is_lost(*key);
    let mut marked: Vec<_> = guards.drain(..).enumerate().filter(|(key, _)| lost(key)).collect();
    assert!(timeout(SECOND, register.marked_ended()).await.is_err(), "none of these was marked either");

    let begin = member.now();
    let end_two = async {
        drop(marked.pop());
        tokio::time::sleep(BUNDLE / 2).await;
        drop(marked.pop());
        // Not lost if the wait is cancelled, and not later because of it.
        timeout(BUNDLE / 4, register.marked_ended()).await.unwrap_err();
    };
    tokio::join!(end_two, register.marked_ended());
    let took = member.now().saturating_since(begin);
    assert!(took >= BUNDLE && took <= BUNDLE + Duration::from_millis(2), "{took:?}");
    assert_eq!(register.marked(member.now()).0.len(), marked.len());
    assert!(timeout(SECOND, register.marked_ended()).await.is_err(), "the driver knows of them");

    let begin = member.now();
    drop(marked);
    register.marked_ended().await;
    assert_eq!(member.now(), begin, "no other member has to wait longer");
}

#[tokio::test(start_paused = true)]
async fn the_guards_of_an_incarnation_end_with_it_and_not_those_of_the_next() {
    let mut member = Member::new();
    let guards = member.start_all();
    member.mark();
    let (_, written) = member.register.marked(member.now());
    let next = Register::new("g".into(), Validity::new(&member.session));
    next.admit(&Admission::within(member.alone.ranges("a")));
    member.register.validity().end();
    member.register.unfreeze(written, member.now());
    member.heartbeat();
    assert!(guards.iter().all(|guard| !guard.is_valid() && guard.remaining().is_zero()));
    let later = next.start(0, 0).unwrap();
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
    let held = Held::new(Work(member.register.clone()), in_flight, FencingToken::new(1));
    drop(held.map(|work| work));
    assert_eq!(member.len(), 0);
}

//! A member never acts on items that may belong to another member: the deadline of its share, in memory.

mod outages;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use apportion::{
    Config, Group, PartitionCoordinator, Share,
    backend::{BoxFuture, Connector, Error, Memory, Session},
    clock::{Clock, Moment},
    group::Standing,
    testing::Request,
};
use tracing::Level;

use crate::support::{
    MS, SECOND,
    events::Events,
    fate::{Fate, Fates},
    fleet::{Agent, Store, next_change, owners, settles_within, universe},
    until,
};

/// The steps in which tokio's timers go.
const STEP: Duration = MS;

/// A member alone in its group. Its heartbeats go out at full seconds after the opening of its session.
async fn member(store: &Store) -> (Agent, Group) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    (agent, group)
}

async fn share(group: &Group) -> Share<String> {
    group.extract_my_subset(universe()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_share_is_valid_for_the_heartbeat_validity_after_the_last_confirmed_heartbeat_and_not_longer() {
    let store = Store::memory();
    let clock = store.connector().clock();
    let opened = clock.now();
    let (agent, group) = member(&store).await;
    tokio::time::sleep(7500 * MS).await;
    agent.suspend();
    let last_heartbeat = opened + 7 * SECOND;
    let held = share(&group).await;
    assert_eq!(held.deadline(), last_heartbeat + 5 * SECOND);

    tokio::time::sleep((held.deadline() - STEP).saturating_since(clock.now())).await;
    assert!(held.is_valid() && group.view().owns("alarm-1"));
    assert_eq!(share(&group).await.len(), universe().len(), "the last view answers while out of contact");
    tokio::time::sleep(2 * STEP).await;
    assert!(!held.is_valid() && !group.view().owns("alarm-1"));
    assert_eq!(group.view().standing(), Standing::Lapsed);
    let late = share(&group).await;
    assert!(late.is_empty() && !late.is_valid());
    assert_eq!(held.len(), universe().len(), "what was handed out stays as it is");
}

/// A store whose host shows a wall clock that is wrong.
#[derive(Debug)]
struct WrongTime {
    store: Arc<dyn Connector>,
    clock: Arc<WrongClock>,
}

#[derive(Debug)]
struct WrongClock {
    clock: Arc<dyn Clock>,
    /// The wall clock, in seconds since 1970.
    shown: AtomicU64,
}

impl Clock for WrongClock {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn unix_time(&self) -> Duration {
        Duration::from_secs(self.shown.load(Ordering::SeqCst))
    }
}

impl Connector for WrongTime {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        self.store.open(timeout)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_by_an_hour_changes_no_share() {
    let store: Arc<dyn Connector> = Arc::new(Memory::new());
    let noon = 12 * 3600;
    let clock = Arc::new(WrongClock { clock: store.clock(), shown: AtomicU64::new(noon) });
    let mut members = Vec::new();
    for id in ["a", "b"] {
        let backend = WrongTime { store: store.clone(), clock: clock.clone() };
        let config = Config::for_backend(backend).member_id(id);
        let coordinator = PartitionCoordinator::connect(config).await.unwrap();
        let group = coordinator.join("g").await.unwrap();
        members.push((coordinator, group));
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    settles_within(10 * SECOND, &groups).await;
    let before = owners(&groups);
    let (in_a, in_b) = (share(groups[0]).await, share(groups[1]).await);
    for shown in [noon + 3600, noon, noon - 3600, noon] {
        clock.shown.store(shown, Ordering::SeqCst);
        // Longer than a session: what went wrong would show.
        for _ in 0..300 {
            tokio::time::sleep(SECOND / 20).await;
            assert!(in_a.is_valid() && in_b.is_valid(), "at {shown}");
            assert_eq!(owners(&groups), before, "at {shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_heartbeat_bounds_the_deadline_when_the_newest_may_not_have_reached_the_leaders_clock() {
    for store in [Store::memory(), Store::memory().immediate()] {
        an_earlier_heartbeat_bounds_the_deadline(store).await;
    }
}

async fn an_earlier_heartbeat_bounds_the_deadline(store: Store) {
    let clock = store.connector().clock();
    let opened = clock.now();
    let (agent, group) = member(&store).await;
    tokio::time::sleep((opened + 5500 * MS).saturating_since(clock.now())).await;
    // The heartbeats of an exclusive group begin with its lease.
    let fifth = share(&group).await.deadline() - 5 * SECOND;
    let late = fifth.saturating_since(opened + 5 * SECOND);
    assert!(late < 100 * MS, "{late:?}");
    agent.suspend();
    tokio::time::sleep(4400 * MS).await;
    agent.resume();
    // The heartbeat of 9.9 s is confirmed, but the one before it is from 5 s: 5 s + 10 s - 1 s comes before
    // 9.9 s + 5 s. One that was sent meanwhile reached the server no sooner than 9.9 s.
    tokio::time::sleep(10 * MS).await;
    let held = share(&group).await;
    assert_eq!(held.deadline(), fifth + 9_000 * MS);
    tokio::time::sleep(SECOND).await;
    assert_eq!(held.deadline(), fifth + 9_000 * MS, "9.9 s is not a server tick ago");
    tokio::time::sleep(SECOND).await;
    let anchored = opened + 11_900 * MS + 5 * SECOND;
    let late = held.deadline().saturating_since(anchored);
    assert!(
        held.deadline() >= anchored && late <= 10 * MS,
        "now 9.9 s was reported to the leader, and the heartbeat validity counts: {late:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_held_moves_along_with_each_heartbeat() {
    let store = Store::memory();
    let (_agent, group) = member(&store).await;
    let held = share(&group).await;
    tokio::time::sleep(SECOND / 2).await;
    let mut before = held.deadline();
    for _ in 0..100 {
        tokio::time::sleep(SECOND).await;
        assert!(held.is_valid() && held.deadline() > before);
        before = held.deadline();
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_of_the_host_a_share_is_invalid_and_empty_from_the_first_use_until_it_has_rejoined()
 {
    let store = Store::memory();
    let (_agent, group) = member(&store).await;
    let held = share(&group).await;
    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    store.ensemble().clock().jump(60 * SECOND);
    // No task has run since.
    assert!(!held.is_valid() && !group.view().owns("alarm-1"));
    assert_eq!(held.iter().count(), 0);
    let first = share(&group).await;
    assert!(first.is_empty() && !first.is_valid());
    assert!(next_change(&mut rebalances).await.is_total_loss());
    // The longest pause that the jitter can choose, the one before an epoch, and the interval of the checks in this test.
    settles_within(2 * SECOND + 100 * MS + 2 * store.slack(), &[&group]).await;
    assert!(!held.is_valid(), "it is from an earlier membership");
}

#[tokio::test(start_paused = true)]
async fn a_suspension_shorter_than_the_heartbeat_validity_changes_nothing() {
    let store = Store::memory();
    let (_agent, group) = member(&store).await;
    tokio::time::sleep(3 * SECOND).await;
    let held = share(&group).await;
    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    store.ensemble().clock().jump(3500 * MS);
    assert!(held.is_valid());
    let change = tokio::time::timeout(20 * SECOND, rebalances.next()).await;
    assert!(change.is_err(), "{change:?}");
    assert!(held.is_valid());
}

#[tokio::test(start_paused = true)]
async fn both_iterators_end_at_the_deadline_with_one_warning_that_says_how_many_are_left() {
    let warnings = Events::of("apportion::share");
    let store = Store::memory();
    let (agent, group) = member(&store).await;
    let (lent, owned) = (share(&group).await, share(&group).await);
    agent.suspend();

    let (mut done, mut also_done) = (0, 0);
    let mut lending = lent.iter();
    assert_eq!(lending.size_hint(), (0, Some(100)));
    for _item in owned {
        // The work on one item.
        tokio::time::sleep(SECOND / 2).await;
        done += 1;
        also_done += usize::from(lending.next().is_some());
    }
    assert_eq!(done, 10, "five seconds of heartbeat validity");
    assert!(also_done == 9 || also_done == 10, "the last call comes half a second later");
    assert!(lending.next().is_none() && lending.next().is_none());
    let said = warnings.take(Level::WARN);
    assert_eq!(said.len(), 2, "{said:?}");
    for left in ["left=90 ".to_owned(), format!("left={} ", 100 - also_done)] {
        assert!(said.iter().any(|text| text.contains(&left) && text.contains("group=g ")), "{left} {said:?}");
    }

    // Nothing is left, so there is nothing to warn of. After five seconds the newest heartbeat from before is too old: one
    // that is sent a server tick after the first has to be confirmed.
    agent.resume();
    settles_within(3 * SECOND, &[&group]).await;
    let mut complete = share(&group).await.into_iter();
    assert_eq!(complete.by_ref().count(), universe().len());
    group.leave().await.unwrap();
    assert!(complete.next().is_none());
    assert_eq!(warnings.take(Level::WARN), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_share_ends_for_ever_with_the_membership_it_came_from() {
    for store in [Store::memory(), Store::memory().immediate()] {
        a_share_ends_for_ever(store).await;
    }
}

async fn a_share_ends_for_ever(store: Store) {
    let (agent, group) = member(&store).await;
    let first = share(&group).await;
    agent.expire(&store).await;
    tokio::time::sleep(2 * SECOND).await;
    settles_within(SECOND, &[&group]).await;
    let second = share(&group).await;
    assert!(!first.is_valid() && second.is_valid());
    assert!(second.epoch() > first.epoch() && second.token() > first.token());
    assert_eq!(second.is_exclusive(), !store.is_immediate);
    let leaving = group.clone();
    leaving.leave().await.unwrap();
    assert!(!second.is_valid());
    assert_eq!(second.into_iter().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_out_of_contact_has_stopped_before_another_takes_over() {
    let store = Store::memory();
    let (a, in_a) = member(&store).await;
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    tokio::time::sleep(6300 * MS).await;
    store.ensemble().refuse_connections(true);
    a.suspend();
    let clock = store.connector().clock();
    let begin = clock.now();
    let (mut stopped, mut taken) = (None, None);
    while taken.is_none() {
        tokio::time::sleep(20 * MS).await;
        let owners = owners(&[&in_a, &in_b]);
        assert!(owners.values().all(|owners| owners.len() <= 1), "{owners:?}");
        let after = clock.now().saturating_since(begin);
        if stopped.is_none() && !in_a.view().owns("alarm-0") && in_a.view().standing() != Standing::Member {
            stopped = Some(after);
        }
        if owners.values().all(|owners| owners.iter().eq(["b"])) {
            taken = Some(after);
        }
        assert!(after < store.expiry() + store.round(), "no member takes over");
    }
    let (stopped, taken) = (stopped.unwrap(), taken.unwrap());
    assert!(stopped <= 5 * SECOND, "{stopped:?}");
    assert!(taken - stopped >= 4 * SECOND, "stopped after {stopped:?}, taken over after {taken:?}");
}

#[tokio::test(start_paused = true)]
async fn tokens_never_decrease_from_owner_to_owner() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let mut highest = apportion::FencingToken::default();
    for _ in 0..5 {
        let in_a = a.join("g").await;
        let first = share(&in_a).await;
        let in_b = b.join("g").await;
        settles_within(store.round(), &[&in_a, &in_b]).await;
        let second = share(&in_b).await;
        assert!(first.token() > highest && second.token() > first.token());
        in_a.leave().await.unwrap();
        settles_within(store.round(), &[&in_b]).await;
        highest = share(&in_b).await.token();
        assert!(highest > second.token());
        in_b.leave().await.unwrap();
    }
}

/// Ten million in a release build. Without optimization a key costs ten times as much, so a debug build makes do
/// with fewer of them: as many turns of the runtime a second, for as long.
const KEYS: u64 = if cfg!(debug_assertions) { 2_000_000 } else { 10_000_000 };

#[tokio::test]
async fn extracting_from_millions_of_keys_misses_no_heartbeat() {
    for store in [Store::memory(), Store::memory().immediate()] {
        extracting_misses_no_heartbeat(store).await;
    }
}

async fn extracting_misses_no_heartbeat(store: Store) {
    let interval = 100 * MS;
    let fast =
        |config: Config| config.heartbeat(interval).heartbeat_validity(SECOND).session_timeout(4 * SECOND);
    let agent = store.agent_with("a", fast).await;
    let group = agent.join("g").await;
    // The lease of an exclusive group has to have room for three heartbeats of each member.
    let other = store.agent_with("b", fast).await;
    let in_b = other.join("g").await;
    settles_within(5 * SECOND, &[&group, &in_b]).await;

    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    let clock = store.connector().clock();
    let fraction = group.view().ring().fraction("a");
    let (begin, before) = (clock.now(), agent.faults().calls().commits);
    let mut took = Duration::ZERO;
    // Repeated until it has taken several heartbeat intervals.
    while took < 10 * interval {
        let share = tokio::select! {
            share = group.extract_my_subset(0..KEYS) => share.unwrap(),
            lapse = rebalances.next() => panic!("{lapse:?} after {:?}", clock.now().saturating_since(begin)),
        };
        assert!(share.is_valid());
        let part = share.len() as f64 / KEYS as f64;
        assert!((part - fraction).abs() < 0.01, "{part} {fraction}");
        took = clock.now().saturating_since(begin);
    }
    let confirmed = agent.faults().calls().commits - before;
    // One turn is done in a fraction of an interval; each heartbeat may be late by that much.
    let expected = took.as_millis() / interval.as_millis();
    assert!(u128::from(confirmed) * 10 >= expected * 8, "{confirmed} heartbeats of {expected} in {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_is_lapsed_and_back_without_losing_its_place_when_contact_returns_before_expiry() {
    let store = Store::memory();
    let (agent, group) = member(&store).await;
    let held = share(&group).await;
    let before = group.view().members()[0].incarnation();
    tokio::time::sleep(3 * SECOND).await;
    agent.suspend();
    tokio::time::sleep(8 * SECOND).await;
    assert!(!held.is_valid());
    agent.resume();
    // The heartbeat before the outage is so old that the share would lapse again before that of now counts: it counts
    // when another one is confirmed that is sent a server tick later.
    until("valid again", 3 * SECOND, || held.is_valid()).await;
    assert_eq!(group.view().members()[0].incarnation(), before);
    settles_within(100 * MS, &[&group]).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_share_of_a_lapsed_member_stays_invalid() {
    let (agent, group) = member(&Store::memory()).await;
    let session = agent.coordinator.session_id();
    agent.suspend();
    tokio::time::sleep(8 * SECOND).await;
    let share = share(&group).await;
    assert!(share.is_empty() && !share.is_valid());
    agent.resume();
    until("back before the expiry", 120 * SECOND, || group.view().owns("alarm-1")).await;
    assert_eq!(agent.coordinator.session_id(), session);
    assert!(!share.is_valid(), "nothing was handed out with it");
}

/// A group has a lease of its own, which may lapse while that of the session goes on.
#[tokio::test(start_paused = true)]
async fn a_lapse_of_one_group_alone_is_said_and_one_of_the_session_is_not_said_for_each_group() {
    let store = Store::memory();
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let group = coordinator.join("g").await.unwrap();
    settles_within(store.round(), &[&group]).await;
    let of_group = Events::of("apportion::group::exclusive::said");

    let head = store.head("g");
    fates.decide(move |request| {
        let is_heartbeat = !request.is_write() && request.paths().contains(&&head);
        let lost = Fate::Refuse(Error::Unknown("the connection broke".into()));
        if matches!(request, Request::Commit(_)) && is_heartbeat { lost } else { Fate::Pass }
    });
    until("lapsed", store.session_timeout, || group.view().standing() == Standing::Lapsed).await;
    tokio::time::sleep(SECOND).await;
    fates.pass();
    settles_within(store.round() + 3 * SECOND, &[&group]).await;
    let (lapses, returns) = (of_group.take(Level::WARN), of_group.take(Level::INFO));
    assert!(matches!(&lapses[..], [one] if one.contains("since_confirmation=")), "{lapses:?}");
    assert!(matches!(&returns[..], [one] if one.contains("valid_for=")), "{returns:?}");

    let session = coordinator.session_id().unwrap();
    store.ensemble().suspend(session);
    until("lapsed", store.session_timeout, || group.view().standing() == Standing::Lapsed).await;
    tokio::time::sleep(SECOND).await;
    store.ensemble().resume(session);
    settles_within(store.round() + 3 * SECOND, &[&group]).await;
    let all = [of_group.take(Level::WARN), of_group.take(Level::INFO)].concat();
    assert_eq!(all, [""; 0]);
}

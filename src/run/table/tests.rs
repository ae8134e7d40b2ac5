use super::*;
use crate::ring::HashRing;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Moment {
    Moment::from_origin(Duration::from_millis(3_600_000 + ms))
}

fn settings() -> Settings {
    let pauses = Pauses { first: SECOND, longest: 60 * SECOND };
    Settings { drain: 30 * SECOND, starts_per_second: None, pauses }
}

fn table(keys: u32) -> Table<u32> {
    Table::new(settings(), (0..keys).map(Arc::new))
}

fn all() -> Ranges {
    HashRing::builder().member("a").build().unwrap().ranges("a")
}

/// The halves of two members.
fn halves() -> (Ranges, Ranges) {
    let ring = HashRing::builder().members(["a", "b"]).build().unwrap();
    (ring.ranges("a"), ring.ranges("b"))
}

fn start(table: &mut Table<u32>, now: Moment) -> Vec<(Id, u32)> {
    std::iter::from_fn(|| table.next_start(now).map(|(id, key)| (id, *key))).collect()
}

fn state(table: &Table<u32>, key: u32, now: Moment) -> KeyState {
    table.state(&key, now).expect("it is in the set")
}

fn failed(reason: &str) -> Ended {
    Ended::Failed(Failure::new(reason))
}

#[test]
fn a_key_has_a_task_as_long_as_it_is_owned() {
    let (mut table, (mine, theirs)) = (table(100), halves());
    assert!(start(&mut table, at(0)).is_empty(), "nothing is owned");
    table.own(&mine, at(0));
    let started = start(&mut table, at(0));
    assert!(started.iter().all(|(_, key)| mine.contains(key)) && started.len() > 20);
    assert_eq!((table.running(), table.due()), (started.len(), None));

    table.own(&all(), at(1));
    assert!(start(&mut table, at(1)).iter().all(|(_, key)| theirs.contains(key)));
    assert_eq!((table.running(), table.take_signals()), (100, vec![]));

    table.own(&mine, at(2));
    let stopped = table.take_signals();
    assert_eq!(stopped.len(), 100 - started.len());
    assert_eq!(table.due(), Some(at(30_002)), "the end of the drain");
    for signal in stopped {
        let Signal::Stop(id) = signal else { panic!("{signal:?}") };
        assert_eq!(table.ended(id, Ended::Finished, at(3), 1.0), None);
    }
    assert_eq!((table.running(), table.due(), start(&mut table, at(3)).len()), (started.len(), None, 0));
    let counts = table.counts();
    assert_eq!((counts.started, counts.finished), (100, 100 - started.len() as u64));
}

#[test]
fn a_task_that_does_not_stop_is_forced_once_at_the_end_of_the_drain() {
    let mut table = table(1);
    table.own(&all(), at(0));
    let [(id, _)] = start(&mut table, at(0))[..] else { panic!() };
    table.own(&Ranges::none(), at(5));
    assert_eq!(table.take_signals(), [Signal::Stop(id)]);
    table.tick(at(30_004));
    assert_eq!(table.take_signals(), []);
    table.tick(at(30_005));
    assert_eq!((table.take_signals(), table.due()), (vec![Signal::Force(id)], None));
    let stopping = KeyState::Stopping { since: 31 * SECOND, is_forced: true };
    assert_eq!(state(&table, 0, at(31_005)), stopping);
    table.ended(id, Ended::Forced, at(31_005), 1.0);
    assert_eq!(
        (state(&table, 0, at(31_005)), table.running(), table.counts().forced),
        (KeyState::Waiting, 0, 1)
    );
}

#[test]
fn a_key_that_comes_back_while_its_task_stops_gets_another_task_only_after_it() {
    let permanent = || Ended::Failed(Failure::permanent("x"));
    for ended in [Ended::Finished, Ended::Forced, Ended::Lost, failed("x"), permanent()] {
        for is_removed in [false, true] {
            let mut table = table(1);
            table.own(&all(), at(0));
            let [(id, _)] = start(&mut table, at(0))[..] else { panic!() };
            assert_eq!(table.ended(id, failed("before"), at(0), 1.0), Some((1, SECOND)));
            table.tick(at(1000));
            assert_eq!(start(&mut table, at(1000)), [(id, 0)]);
            if is_removed {
                assert!(table.remove(&0, at(1001)) && table.insert(Arc::new(0)));
            } else {
                table.own(&Ranges::none(), at(1001));
                table.own(&all(), at(1002));
            }
            assert!(start(&mut table, at(1002)).is_empty() && table.running() == 1);
            assert_eq!(table.ended(id, ended.clone(), at(1003), 1.0), None);
            assert_eq!(start(&mut table, at(1003)), [(id, 0)], "{ended:?}");
            table.tick(at(60_000));
            assert_eq!(table.take_signals(), [Signal::Stop(id)], "the drain of the first is over");
            assert_eq!(
                table.ended(id, failed("after"), at(1004), 1.0),
                Some((1, SECOND)),
                "a new row of errors"
            );
        }
    }
}

#[test]
fn failures_in_a_row_have_growing_pauses_until_a_task_has_run_well() {
    let mut table = table(1);
    table.own(&all(), at(0));
    let mut now = at(0);
    for (errors, pause) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let [(id, _)] = start(&mut table, now)[..] else { panic!() };
        assert_eq!(table.ended(id, failed("x"), now, 1.0), Some((errors, pause * SECOND)));
        let shown = KeyState::Restarting { errors, pause: pause * SECOND, error: "x".into() };
        assert_eq!((state(&table, 0, now), table.due()), (shown, Some(now + pause * SECOND)));
        assert!(start(&mut table, now).is_empty());
        now = now + pause * SECOND;
        table.tick(now);
    }
    let [(id, _)] = start(&mut table, now)[..] else { panic!() };
    let later = now + 60 * SECOND;
    assert_eq!(table.ended(id, failed("x"), later, 0.0), Some((1, SECOND / 2)));
}

#[test]
fn a_task_chooses_its_pause_and_an_interruption_is_no_error_in_the_row() {
    let mut table = table(1);
    table.own(&all(), at(0));
    let mut now = at(0);
    let steps = [
        (Failure::new("x"), (1, SECOND)),
        (Failure::interrupted("x"), (1, SECOND)),
        (Failure::interrupted("x").after(5 * SECOND), (1, 5 * SECOND)),
        (Failure::new("x").after(9 * SECOND), (2, 9 * SECOND)),
        (Failure::new("x"), (3, 4 * SECOND)),
    ];
    for (failure, (errors, pause)) in steps {
        let [(id, _)] = start(&mut table, now)[..] else { panic!() };
        assert_eq!(table.ended(id, Ended::Failed(failure), now, 1.0), Some((errors, pause)));
        now = now + pause;
        table.tick(now);
    }
    assert_eq!((table.counts().failed, table.counts().interrupted), (3, 2));
}

#[test]
fn a_task_that_has_finished_or_failed_for_good_starts_again_when_its_key_comes_back() {
    for (ended, shown) in [
        (Ended::Finished, KeyState::Finished),
        (Ended::Failed(Failure::permanent("x")), KeyState::GivenUp { error: "x".into() }),
    ] {
        let mut table = table(1);
        table.own(&all(), at(0));
        let [(id, _)] = start(&mut table, at(0))[..] else { panic!() };
        assert_eq!(table.ended(id, ended, at(1), 1.0), None);
        table.tick(at(3_600_000));
        assert_eq!((start(&mut table, at(3_600_000)).len(), table.due()), (0, None));
        assert_eq!(state(&table, 0, at(1)), shown);
        table.own(&Ranges::none(), at(2));
        table.own(&all(), at(3));
        assert_eq!(start(&mut table, at(3)).len(), 1);
    }
}

#[test]
fn a_key_that_cannot_be_held_is_tried_again_after_a_second() {
    let mut table = table(1);
    table.own(&all(), at(0));
    let [(id, _)] = start(&mut table, at(0))[..] else { panic!() };
    table.not_held(id, at(0));
    assert_eq!((table.running(), table.counts().started, table.due()), (0, 0, Some(at(1000))));
    table.tick(at(1000));
    assert_eq!(start(&mut table, at(1000)), [(id, 0)]);
    table.ended(id, Ended::Lost, at(1001), 1.0);
    assert_eq!((start(&mut table, at(1001)).len(), table.due()), (0, Some(at(2001))));
    table.own(&Ranges::none(), at(1500));
    assert_eq!(table.due(), None);
}

#[test]
fn the_set_of_keys_changes_while_tasks_run() {
    let mut table = table(3);
    table.own(&all(), at(0));
    let started = start(&mut table, at(0));
    assert!(!table.insert(Arc::new(1)) && table.insert(Arc::new(7)));
    assert_eq!(start(&mut table, at(1)).iter().map(|(_, key)| *key).collect::<Vec<_>>(), [7]);
    assert!(table.remove(&1, at(2)) && !table.remove(&1, at(2)) && !table.remove(&9, at(2)));
    let one = started.iter().find(|(_, key)| *key == 1).unwrap().0;
    assert_eq!(
        (table.take_signals(), table.state(&1, at(2)), table.len()),
        (vec![Signal::Stop(one)], None, 3)
    );
    table.replace([0, 1, 2].map(Arc::new), at(3));
    assert_eq!((table.len(), table.running()), (3, 4));
    assert!(start(&mut table, at(3)).is_empty(), "that of 1 has not ended");
    table.ended(one, Ended::Finished, at(4), 1.0);
    assert_eq!(start(&mut table, at(4)), [(one, 1)]);
    let [Signal::Stop(seven)] = table.take_signals()[..] else { panic!() };
    table.ended(seven, failed("x"), at(5), 1.0);
    assert_eq!((table.running(), table.due(), table.states(at(5)).len()), (3, None, 3));
}

#[test]
fn after_the_shutdown_nothing_is_started() {
    let mut table =
        Table::new(Settings { starts_per_second: NonZeroU32::new(10), ..settings() }, (0..9).map(Arc::new));
    table.own(&all(), at(0));
    let started = start(&mut table, at(0));
    assert_eq!((started.len(), table.due()), (2, Some(at(100))));
    let (one, other) = (started[0].0, started[1].0);
    table.ended(one, failed("x"), at(1), 1.0);
    table.stop_all(at(2));
    assert_eq!(table.take_signals(), [Signal::Stop(other)]);
    table.own(&Ranges::none(), at(3));
    table.own(&all(), at(3));
    table.insert(Arc::new(100));
    table.tick(at(20_000));
    assert_eq!((start(&mut table, at(20_000)).len(), table.running()), (0, 1));
    table.ended(other, failed("x"), at(20_001), 1.0);
    assert_eq!((table.running(), table.due()), (0, None));
    assert!(table.states(at(0)).iter().all(|(_, state)| *state == KeyState::Waiting));
}

#[test]
fn what_waits_for_its_turn_is_in_the_queue_once_and_leaves_it_when_it_is_lost_or_removed() {
    let mut table =
        Table::new(Settings { starts_per_second: NonZeroU32::new(1), ..settings() }, (0..3).map(Arc::new));
    table.own(&all(), at(0));
    assert_eq!((start(&mut table, at(0)).len(), table.queue.len()), (1, 2));
    for _ in 0..100 {
        table.own(&Ranges::none(), at(1));
        assert_eq!(table.queue.len(), 0);
        table.own(&all(), at(1));
        assert!(table.insert(Arc::new(9)) && table.queue.len() == 3);
        assert!(table.remove(&9, at(1)) && table.queue.len() == 2);
    }
    table.stop_all(at(2));
    assert_eq!(table.queue.len(), 0);
}

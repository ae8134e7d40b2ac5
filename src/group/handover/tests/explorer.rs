//! The explorer: visits every state that a small fleet can be in, breadth first, and finds the shortest way to one in
//! which two members may act on one key.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    super::rules::{Rule, Rules},
    canonical::fingerprint,
    world::{Move, Scope, World},
};

/// Fingerprints are random enough.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Known = HashMap<u64, (u64, Move), BuildHasherDefault<Same>>;

#[derive(Debug)]
struct Found {
    states: usize,
    transitions: usize,
    depth: usize,
    /// The steps to two members that act on one key.
    violation: Option<Vec<Move>>,
    is_complete: bool,
}

/// Visits every state, up to `limit` of them.
fn explore(scope: Scope, rules: &Rules, limit: usize) -> Found {
    let start = World::new(scope, rules.clone());
    let first = fingerprint(&start);
    let mut known = Known::default();
    known.insert(first, (0, Move::Tick));
    let mut layer = vec![(first, start)];
    let mut found = Found { states: 1, transitions: 0, depth: 0, violation: None, is_complete: true };
    while !layer.is_empty() && found.violation.is_none() {
        let mut next = Vec::new();
        for (number, world) in layer {
            for step in world.moves() {
                let after = world.after(step);
                found.transitions += 1;
                let name = fingerprint(&after);
                if known.contains_key(&name) {
                    continue;
                }
                known.insert(name, (number, step));
                if after.acting().len() > 1 {
                    found.violation = Some(way_to(&known, first, name));
                    found.states = known.len();
                    return found;
                }
                next.push((name, after));
            }
            if known.len() > limit {
                found.states = known.len();
                found.is_complete = false;
                return found;
            }
        }
        layer = next;
        found.depth += 1;
        if std::env::var_os("EXPLORER_VERBOSE").is_some() {
            eprintln!("depth {} layer {} states {}", found.depth, layer.len(), known.len());
        }
    }
    found.states = known.len();
    found
}

fn way_to(known: &Known, first: u64, name: u64) -> Vec<Move> {
    let (mut steps, mut at) = (Vec::new(), name);
    while at != first {
        let (before, step) = known[&at];
        steps.push(step);
        at = before;
    }
    steps.reverse();
    steps
}

#[test]
fn probe() {
    let env = |name: &str, other: i64| std::env::var(name).ok().map_or(other, |it| it.parse().unwrap());
    let scope = Scope {
        faults: env("FAULTS", 255) as u8,
        window: env("WINDOW", 3) as i32,
        guards: env("GUARDS", 1) as usize,
        may_expire: env("EXPIRE", 1) == 1,
        may_crash: env("CRASH", 1) == 1,
        publishers: env("PUBLISHERS", 8) as usize,
        is_full: env("FULL", 0) == 1,
        ..Scope::TWO
    };
    let _ = Rule::GainerWaits;
    let found = explore(scope, &Rules::default(), env("LIMIT", 300_000) as usize);
    println!("{found:?}");
    assert!(found.violation.is_none(), "{found:#?}");
}

/// With `rule` switched off, two members act on one key within `scope`.
#[track_caller]
fn finds(rule: Rule, scope: Scope) {
    let found = explore(scope, &Rules::without(rule), 1_500_000);
    println!("{rule:?}: {} steps, {} states", found.violation.as_ref().map_or(0, Vec::len), found.states);
    let Some(steps) = found.violation else { panic!("{rule:?} is not needed in {scope:?}: {found:?}") };
    let mut world = World::new(scope, Rules::without(rule));
    steps.iter().for_each(|step| world.take(*step));
    assert!(world.acting().len() > 1, "the steps can be repeated: {steps:?}");
}

const STARTS: Scope = Scope { faults: 2, ..Scope::TWO };
const FOUR: Scope = Scope { faults: 4, ..Scope::TWO };

macro_rules! without {
    ($($name:ident: $rule:ident in $scope:expr;)*) => { $(
        #[test]
        fn $name() {
            finds(Rule::$rule, $scope);
        }
    )* };
}

without! {
    gainer_waits: GainerWaits in STARTS;
    ack_lists_kept: AckListsKept in STARTS;
    mark_stays: MarkStays in FOUR;
    lost_is_union: LostIsUnion in Scope { faults: 4, may_hold: true, may_crash: false, may_expire: false, ..Scope::TWO };
    lapse_is_checked: LapseIsChecked in STARTS;
    lapse_waits: LapseWaits in STARTS;
    ended_stays_ended: EndedStaysEnded in Scope { is_full: true, ..STARTS };
    heartbeat_checks_head: HeartbeatChecksHead in Scope { lease: 2, ..STARTS };
    all_losers_asked: AllLosersAsked in Scope { slots: 3, faults: 4, may_crash: false, ..Scope::TWO };
    floor_checks_unacked: FloorChecksUnacked in FOUR;
    floor_waits: FloorWaits in FOUR;
    carried: Carried in FOUR;
    carried_stays: CarriedStays in Scope { faults: 5, may_hold: true, may_expire: false, may_crash: false, ..Scope::TWO };
    carried_read_afresh: CarriedReadAfresh in Scope { faults: 5, may_hold: true, may_expire: false, may_crash: false, ..Scope::TWO };
    identity_has_creation: IdentityHasCreation in FOUR;
    thaw_only_what_was_sent: ThawOnlyWhatWasSent in FOUR;
    strict_gone_waits: StrictGoneWaits in Scope { faults: 3, is_strict: true, may_delete: true, ..Scope::TWO };
    strict_floor_waits: StrictFloorWaits in Scope { faults: 5, is_strict: true, may_delete: true, may_crash: false, may_expire: false, ..Scope::TWO };
    strict_carried_waits: StrictCarriedWaits in Scope { faults: 5, is_strict: true, may_delete: true, may_crash: false, may_expire: false, ..Scope::TWO };
    new_head_waits: NewHeadWaits in Scope { recreations: 1, ..STARTS };
    ack_names_head: AckNamesHead in Scope { recreations: 1, faults: 3, ..Scope::TWO };
    new_head_freezes_for_good: NewHeadFreezesForGood in Scope { recreations: 1, ..FOUR };
    guards_end_with_their_znode: GuardsEndWithTheirZnode in FOUR;
    absent_follows: AbsentFollows in Scope { faults: 4, may_hold: true, may_crash: false, may_expire: false, ..Scope::TWO };
    publish_checks_snapshot: PublishChecksSnapshot in Scope { recreations: 1, faults: 3, ..Scope::TWO };
    snapshot_up_to_floor: SnapshotUpToFloor in FOUR;
}

//! Who acts on which key: asks all members every millisecond, and finds the times without an owner and with two.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use apportion::{
    Group, Held, KeySet,
    group::{Standing, View},
};

/// How many keys there are.
pub(crate) const KEYS: usize = 300;
const PERIOD: Duration = Duration::from_millis(1);

/// Of each key, which members act on it: a bit for each.
type Masks = [u8; KEYS];

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A member, as the recorder asks it.
pub(crate) struct Seat {
    pub(crate) group: Group,
    bit: u8,
    /// Its work in progress.
    guards: Mutex<Vec<Held<&'static u64>>>,
    known: Mutex<Known>,
    /// It does not count as an owner any more: its process would not run.
    is_dead: AtomicBool,
    /// What it owns still has to go to others.
    is_leaving: AtomicBool,
}

/// What a view says of each key.
#[derive(Default)]
struct Known {
    view: Option<Arc<View>>,
    is_member: bool,
    owns: Vec<bool>,
}

impl Seat {
    /// Which keys this member acts on: those that it may start, and those in progress.
    fn acts(&self) -> Vec<bool> {
        let mut known = lock(&self.known);
        let view = self.group.view();
        let is_member = view.standing() == Standing::Member;
        let is_same = known.view.as_ref().is_some_and(|known| Arc::ptr_eq(known, &view));
        if !is_same || known.is_member != is_member {
            let owns = (0..KEYS as u64).map(|key| is_member && view.owns(&key)).collect();
            *known = Known { view: Some(view), is_member, owns };
        }
        let mut acts = known.owns.clone();
        for guard in lock(&self.guards).iter().filter(|guard| guard.is_valid()) {
            acts[usize::try_from(***guard).expect("a small number")] = true;
        }
        acts
    }

    /// Begins to work on those of `wanted` that are its own.
    pub(crate) async fn begin(&self, keys: &'static KeySet<u64>, wanted: &[usize]) {
        let share = self.group.share(keys).await.expect("it is in the group");
        let guards = share.into_iter().filter(|guard| wanted.contains(&(***guard as usize)));
        lock(&self.guards).extend(guards);
    }

    /// Ends all work.
    pub(crate) fn end(&self) {
        let guards = std::mem::take(&mut *lock(&self.guards));
        drop(guards);
    }

    pub(crate) fn leaves(&self) {
        self.is_leaving.store(true, SeqCst);
    }

    pub(crate) fn dies(&self) {
        self.is_dead.store(true, SeqCst);
    }
}

#[derive(Clone)]
struct Sample {
    at: Instant,
    /// Who of those that run acts on each key.
    owners: Masks,
    /// Who certainly acts on each key at the same moment, also if it should not run any more.
    both: Masks,
    /// The members that others wait for.
    leaving: u8,
}

/// What an event has done.
pub(crate) struct Finding {
    /// Until the member that came had its first key.
    pub(crate) first: Option<Duration>,
    /// Until each key had one owner, and none of those that left.
    pub(crate) all: Duration,
    /// For each key that has changed hands: how long it had no owner.
    pub(crate) gaps: Vec<Duration>,
    /// For each key that had two owners at the same time: how long.
    pub(crate) doubles: Vec<Duration>,
}

pub(crate) struct Recorder {
    seats: Mutex<Vec<Arc<Seat>>>,
    log: Mutex<Vec<Sample>>,
}

impl Recorder {
    pub(crate) fn start() -> Arc<Recorder> {
        let recorder = Arc::new(Recorder { seats: Mutex::default(), log: Mutex::default() });
        let asking = Arc::downgrade(&recorder);
        #[allow(clippy::disallowed_methods, reason = "it ends with the recorder")]
        thread::spawn(move || {
            while let Some(recorder) = asking.upgrade() {
                recorder.sample();
                drop(recorder);
                thread::sleep(PERIOD);
            }
        });
        recorder
    }

    /// Asks this member as well from now on.
    pub(crate) fn seat(&self, group: &Group) -> Arc<Seat> {
        let mut seats = lock(&self.seats);
        let bit = (0..8).find(|bit| seats.iter().all(|seat| seat.bit != 1 << bit)).expect("a free seat");
        let seat = Arc::new(Seat {
            group: group.clone(),
            bit: 1 << bit,
            guards: Mutex::default(),
            known: Mutex::default(),
            is_dead: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
        });
        seats.push(seat.clone());
        seat
    }

    /// Asks it no more.
    pub(crate) fn remove(&self, seat: &Seat) {
        lock(&self.seats).retain(|other| other.bit != seat.bit);
    }

    /// Asks all members now.
    pub(crate) fn sample(&self) {
        let (mut log, seats) = (lock(&self.log), lock(&self.seats));
        let pass = || {
            let (mut all, mut alive, mut leaving) = ([0; KEYS], [0; KEYS], 0);
            for seat in seats.iter() {
                let (bit, is_dead) = (seat.bit, seat.is_dead.load(SeqCst));
                leaving |= if seat.is_leaving.load(SeqCst) { bit } else { 0 };
                for (key, _) in seat.acts().iter().enumerate().filter(|(_, acts)| **acts) {
                    all[key] |= bit;
                    alive[key] |= if is_dead { 0 } else { bit };
                }
            }
            (all, alive, leaving)
        };
        // One member is asked after another, and a key may change hands in between. Two that act in both passes have
        // acted at the same moment, between the passes.
        let (mut both, ..) = pass();
        let (again, owners, leaving) = pass();
        let at = now();
        drop(seats);
        for (both, again) in both.iter_mut().zip(again) {
            *both &= again;
        }
        let is_same = |last: &Sample| (last.owners, last.both, last.leaving) == (owners, both, leaving);
        if !log.last().is_some_and(is_same) {
            log.push(Sample { at, owners, both, leaving });
        }
    }

    /// The beginning of an event: forgets what was before.
    pub(crate) fn begin(&self) -> Instant {
        self.sample();
        let mut log = lock(&self.log);
        let last = log.len() - 1;
        log.drain(..last);
        now()
    }

    /// Whether each key but those of `except` has one owner, none of which leaves.
    pub(crate) fn is_owned(&self, except: &[usize]) -> bool {
        lock(&self.log).last().is_some_and(|last| is_owned(last, except))
    }

    /// The keys that this member acts on.
    pub(crate) fn keys_of(&self, seat: &Seat) -> Vec<usize> {
        let log = lock(&self.log);
        let owners = log.last().map(|last| last.owners).expect("it has asked");
        (0..KEYS).filter(|key| owners[*key] & seat.bit != 0).collect()
    }

    /// What has happened since `begin`, apart from the keys of `except`, which are in progress. `gone` is a member that
    /// was dead from then on.
    pub(crate) fn find(
        &self,
        begin: Instant,
        except: &[usize],
        newcomer: Option<&Seat>,
        gone: Option<&Seat>,
    ) -> Finding {
        let log = lock(&self.log).clone();
        let gone = gone.map_or(0, |gone| gone.bit);
        let owner = |sample: &Sample, key: usize| {
            let dead = if sample.at <= begin { gone } else { 0 };
            sample.owners[key] & !dead
        };
        let end = now();
        let spans: Vec<_> = (0..log.len())
            .map(|number| (&log[number], log.get(number + 1).map_or(end, |next| next.at)))
            .collect();
        let time = |sample: &Sample, until: Instant| until.max(begin) - sample.at.max(begin);
        let total = |holds: &dyn Fn(&Sample) -> bool| -> Duration {
            spans.iter().filter(|(sample, _)| holds(sample)).map(|(sample, until)| time(sample, *until)).sum()
        };
        let (first, last) = (&log[0], &log[log.len() - 1]);
        let has_moved = |key: &usize| owner(first, *key) != owner(last, *key) && !except.contains(key);
        let gaps = (0..KEYS).filter(has_moved).map(|key| total(&|sample| owner(sample, key) == 0));
        let doubles = (0..KEYS).map(|key| total(&|sample| sample.both[key].count_ones() > 1));
        let is_change = |pair: &&[Sample]| {
            (0..KEYS).any(|key| pair[0].owners[key] != pair[1].owners[key] && !except.contains(&key))
        };
        let all = log.windows(2).rfind(is_change).map_or(begin, |pair| pair[1].at.max(begin));
        let bit = newcomer.map_or(0, |newcomer| newcomer.bit);
        let came = log.iter().find(|sample| sample.owners.iter().any(|mask| mask & bit != 0));
        Finding {
            first: came.map(|sample| sample.at.saturating_duration_since(begin)),
            all: all - begin,
            gaps: gaps.collect(),
            doubles: doubles.filter(|time| !time.is_zero()).collect(),
        }
    }
}

fn is_owned(sample: &Sample, except: &[usize]) -> bool {
    (0..KEYS)
        .filter(|key| !except.contains(key))
        .all(|key| sample.owners[key].count_ones() == 1 && sample.owners[key] & sample.leaving == 0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with it")
}

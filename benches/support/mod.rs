//! Shared by the benchmarks: keys and members, the baseline, and rounds that take turns.
#![allow(dead_code, reason = "each benchmark uses its part")]

pub(crate) mod straightforward;

use std::hint::black_box;

use apportion::{
    HashRing,
    ring::{HashRingBuilder, Kernel},
};
use criterion::Criterion;
use uuid::Uuid;

/// Texts of random uuids, each allocated after the other.
pub(crate) fn uuids(count: usize) -> Vec<String> {
    (0..count).map(|_| Uuid::new_v4().to_string()).collect()
}

pub(crate) fn members(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("agent-{number}")).collect()
}

pub(crate) fn builder(members: &[String], kernel: Kernel) -> HashRingBuilder {
    HashRing::builder().members(members).keep_order().kernel(kernel)
}

pub(crate) fn ring(members: &[String], kernel: Kernel) -> HashRing {
    builder(members, kernel).build().expect("the settings are valid")
}

/// Whether the arguments select the table with this title.
pub(crate) fn is_chosen(title: &str) -> bool {
    std::env::args().skip(1).all(|arg| arg.starts_with('-') || title.contains(&arg))
}

/// A number that shows whether two variants have the same result.
pub(crate) type Check = u64;

/// Variants of the same task, and other tasks to compare with.
pub(crate) struct Comparison<'a> {
    title: &'a str,
    /// The units by whose number the time is divided: keys, points.
    units: usize,
    rounds: usize,
    clock: Time,
    ways: Vec<Way<'a>>,
    /// The index of the straightforward variant.
    baseline: Option<usize>,
}

struct Way<'a> {
    name: String,
    /// Whether its check has to be equal to that of the first.
    is_same: bool,
    run: Box<dyn FnMut() -> Check + 'a>,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(title: &'a str, units: usize) -> Self {
        Comparison { title, units, rounds: 15, clock: Time::Cpu, ways: Vec::new(), baseline: None }
    }

    pub(crate) fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    pub(crate) fn wall_time(mut self) -> Self {
        self.clock = Time::Wall;
        self
    }

    /// Adds a variant. All are compared with the first one, which is that of this crate.
    pub(crate) fn way(mut self, name: impl Into<String>, run: impl FnMut() -> Check + 'a) -> Self {
        self.ways.push(Way { name: name.into(), is_same: true, run: Box::new(run) });
        self
    }

    /// Adds the straightforward variant: the table has the speed of all others relative to it.
    pub(crate) fn baseline(mut self, name: impl Into<String>, run: impl FnMut() -> Check + 'a) -> Self {
        self.baseline = Some(self.ways.len());
        self.way(name, run)
    }

    /// Adds one with another mapping or another task: another crate, or a lower bound.
    pub(crate) fn other(mut self, name: impl Into<String>, run: impl FnMut() -> Check + 'a) -> Self {
        self.ways.push(Way { name: name.into(), is_same: false, run: Box::new(run) });
        self
    }

    /// Prints the ratios of rounds in which all variants take turns, then criterion measures each.
    pub(crate) fn measure(mut self, criterion: &mut Criterion) {
        if !is_chosen(self.title) {
            return;
        }
        self.take_turns();
        let mut group = criterion.benchmark_group(self.title);
        group.sample_size(10);
        for way in &mut self.ways {
            group.bench_function(&way.name, |bencher| bencher.iter(&mut way.run));
        }
        group.finish();
    }

    fn take_turns(&mut self) {
        let checks: Vec<Check> = self.ways.iter_mut().map(|way| (way.run)()).collect();
        for (way, check) in self.ways.iter().zip(&checks).filter(|(way, _)| way.is_same) {
            assert_eq!(*check, checks[0], "{}: {} has another result", self.title, way.name);
        }
        // Short ones are repeated often enough for the clock.
        let clock = self.clock;
        let often = |way: &mut Way<'a>| {
            (way.run)();
            (300_000.0 / clock.time_of(1, &mut way.run)).clamp(1.0, 1000.0) as usize
        };
        let times: Vec<usize> = self.ways.iter_mut().map(often).collect();
        let mut rounds: Vec<Vec<f64>> = Vec::new();
        for _ in 0..self.rounds {
            let ways = self.ways.iter_mut().zip(&times);
            rounds.push(ways.map(|(way, &times)| clock.time_of(times, &mut way.run)).collect());
        }
        println!("\n{} ({} rounds, {:?} time)", self.title, self.rounds, self.clock);
        let gain =
            self.baseline.map_or(String::new(), |baseline| format!("   {} / it", self.ways[baseline].name));
        println!("{:44} {:>12}   to ours: min, median, max{gain}", "", "ns a unit");
        for (place, way) in self.ways.iter().enumerate() {
            let median = |values: Vec<f64>| values[values.len() / 2];
            let time = median(sorted(rounds.iter().map(|round| round[place] / self.units as f64)));
            let ratios = sorted(rounds.iter().map(|round| round[place] / round[0]));
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            let gain = self.baseline.map_or(String::new(), |baseline| {
                format!("{:12.2}", median(sorted(rounds.iter().map(|round| round[baseline] / round[place]))))
            });
            println!("{:44} {time:12.2}   {least:8.2} {:8.2} {most:8.2}{gain}", way.name, median(ratios));
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Time {
    /// CPU time of this thread, which other programs change little.
    Cpu,
    /// Wall-clock time, for work of several threads. Valid only on a quiet machine.
    Wall,
}

impl Time {
    /// The nanoseconds of one run, as the mean of so many.
    fn time_of(self, times: usize, run: &mut dyn FnMut() -> Check) -> f64 {
        if times > 1 {
            // A first run fills the caches, because the variant before has replaced their content.
            black_box(run());
        }
        let start = self.now();
        for _ in 0..times {
            black_box(run());
        }
        (self.now() - start) / times as f64
    }

    /// Nanoseconds, since some moment.
    pub(crate) fn now(self) -> f64 {
        let now = rustix::time::clock_gettime(match self {
            Time::Cpu => rustix::time::ClockId::ThreadCPUTime,
            Time::Wall => rustix::time::ClockId::Monotonic,
        });
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    }
}

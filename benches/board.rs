//! The time of claimed work: a job board and a queue, in memory and on a real ZooKeeper server.
//!
//! `cargo bench --bench board`, with a part of a title to select a table. Takes some minutes, and needs what the tests
//! need: run scripts/test once. Each worker is a thread with a session of its own. What is measured is mostly waiting,
//! for the other threads and the server.

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/work.rs"]
mod work;

use std::{collections::BTreeMap, time::Duration};

use apportion::backend::Memory;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};

use support::Server;
use work::{Place, block_on};

const JOBS: usize = 1000;
const LISTED: usize = 10_000;
const QUEUED: usize = 20_000;
const LABELLED: usize = 100;
const WORKERS: [usize; 3] = [1, 4, 16];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    measure(&mut criterion, "memory", Place::Memory(Memory::new()));
    let server = block_on(Server::start());
    measure(&mut criterion, "server", Place::Server(server.connect_string()));
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, name: &str, place: Place) {
    let mut store = Store { place, fresh: 0 };
    let mut group = criterion.benchmark_group(format!("{JOBS} jobs, {name}"));
    group.throughput(Throughput::Elements(JOBS as u64));
    few_samples(&mut group);
    group.bench_function("post", |bencher| {
        bencher.iter_custom(|times| store.each(times, |place, path| work::post(place, path, JOBS)));
    });
    for workers in WORKERS {
        group.bench_function(format!("claim and consume, {workers} workers"), |bencher| {
            bencher.iter_custom(|times| {
                store.each(times, |place, path| {
                    work::post(place, path, JOBS);
                    work::consume(place, path, workers, JOBS)
                })
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group(format!("{JOBS} entries of a queue, {name}"));
    group.throughput(Throughput::Elements(JOBS as u64));
    few_samples(&mut group);
    group.bench_function("put", |bencher| {
        bencher.iter_custom(|times| store.each(times, |place, path| work::put(place, path, JOBS)));
    });
    for workers in WORKERS {
        group.bench_function(format!("take and finish, {workers} workers"), |bencher| {
            bencher.iter_custom(|times| {
                store.each(times, |place, path| {
                    work::put(place, path, JOBS);
                    work::finish(place, path, workers, JOBS)
                })
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group(format!("one more that always fails among {JOBS}, {name}"));
    few_samples(&mut group);
    let mut ratios = BTreeMap::<_, Vec<f64>>::new();
    for (kind, workers) in [("job", 1), ("job", 4), ("entry", 1), ("entry", 4), ("runner", 1), ("runner", 4)]
    {
        let title = format!("{kind}, {workers} workers");
        group.bench_function(&title, |bencher| {
            bencher.iter_custom(|times| {
                let mut with_it = Duration::ZERO;
                for _ in 0..times {
                    let (with, without) = store.beside_a_failure(kind, workers);
                    with_it += with;
                    let ratios = ratios.entry(title.clone()).or_default();
                    ratios.push(with.as_secs_f64() / without.as_secs_f64());
                }
                with_it
            });
        });
    }
    group.finish();
    for (title, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        let [first, .., last] = ratios[..] else { continue };
        let median = ratios[ratios.len() / 2];
        println!("{title}, {name}: with it / without it {median:.2} ({first:.2} .. {last:.2})");
    }

    let mut group = criterion.benchmark_group(format!("a board of {LISTED} jobs, {name}"));
    group.throughput(Throughput::Elements(LISTED as u64));
    few_samples(&mut group);
    let (mut path, place) = (None, store.place.clone());
    for (number, title) in ["connect, open and iterate", "iterate again, fresh"].into_iter().enumerate() {
        group.bench_function(title, |bencher| {
            // Only if it is selected.
            let path = path.get_or_insert_with(|| {
                let path = store.path();
                work::post(&place, &path, LISTED);
                path
            });
            bencher
                .iter_custom(|times| (0..times).map(|_| work::iterate(&place, path, LISTED)[number]).sum());
        });
    }
    for workers in [4, 16] {
        group.bench_function(format!("claim and consume {JOBS} of them, {workers} workers"), |bencher| {
            bencher.iter_custom(|times| {
                store.each(times, |place, path| {
                    work::post(place, path, LISTED);
                    work::consume(place, path, workers, JOBS)
                })
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group(format!("a queue of {QUEUED} entries, {name}"));
    few_samples(&mut group);
    group.bench_function(format!("put {LABELLED} unless queued"), |bencher| {
        bencher.iter_custom(|times| {
            store.each(times, |place, path| work::put_labelled(place, path, QUEUED, LABELLED))
        });
    });
    group.finish();
}

fn few_samples(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(1));
}

struct Store {
    place: Place,
    fresh: usize,
}

impl Store {
    fn path(&mut self) -> String {
        self.fresh += 1;
        format!("/bench{}/jobs", self.fresh)
    }

    /// The times with one that always fails, and without it, one after the other.
    fn beside_a_failure(&mut self, kind: &str, workers: usize) -> (Duration, Duration) {
        let (with, without, place) = (self.path(), self.path(), &self.place);
        match kind {
            "job" => {
                let with = work::consume_beside_a_failure(place, &with, workers, JOBS);
                work::post(place, &without, JOBS);
                (with, work::consume(place, &without, workers, JOBS))
            }
            "runner" => {
                let with = work::run_jobs(place, &with, workers, JOBS, true);
                (with, work::run_jobs(place, &without, workers, JOBS, false))
            }
            _ => {
                let with = work::finish_beside_a_failure(place, &with, workers, JOBS);
                work::put(place, &without, JOBS);
                (with, work::finish(place, &without, workers, JOBS))
            }
        }
    }

    fn each(&mut self, times: u64, mut work: impl FnMut(&Place, &str) -> Duration) -> Duration {
        (0..times)
            .map(|_| {
                let path = self.path();
                work(&self.place, &path)
            })
            .sum()
    }
}

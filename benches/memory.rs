//! The memory of rings, key sets, boards and queues: the bytes that they get from the allocator.
//!
//! Separate from the other benchmarks, because counting takes time.

mod support;

use std::future::IntoFuture as _;

use apportion::{Config, KeySet, PartitionCoordinator, backend::Memory, ring::Kernel};
use peak_alloc::PeakAlloc;

use support::{members, ring, uuids};

#[global_allocator]
static COUNTING: PeakAlloc = PeakAlloc;

fn main() {
    for count in [10, 100, 1000] {
        let ids = members(count);
        report(&format!("ring of {count} members, a point"), 100 * count, 0, || ring(&ids, Kernel::best()));
    }
    for count in [1_000_000, 10_000_000] {
        let keys = uuids(count);
        // References, so that the items themselves do not count; their 8 bytes are subtracted.
        let set = || keys.iter().collect::<KeySet<&String>>();
        report(&format!("key set of {count}, a key beside its item"), count, 8, set);
        let grown = || {
            let mut set = KeySet::default();
            keys.iter().for_each(|key| set.insert(key));
            set
        };
        report("the same, grown key by key", count, 8, grown);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for bytes in [100, 10_000] {
        runtime.block_on(board(10_000, bytes));
    }
    runtime.block_on(queue(10_000, 10_000));
    runtime.block_on(run_each(10_000));
}

/// The memory of a task for each key, beside its key and what the task has itself.
async fn run_each(count: usize) {
    let member = connect(&Memory::new()).await;
    let group = member.join("g").await.expect("it is joined");
    let keys = uuids(count);
    let before = COUNTING.current_usage();
    let run = group.run_each(keys, |key| async move { key.stopping().await }).starts_per_second(None);
    let keys = run.keys();
    let started = async {
        while keys.running() < count {
            tokio::task::yield_now().await;
        }
        print(&format!("run_each with {count} keys, a key and its task"), before, count, 0);
    };
    tokio::select! {
        ended = run.into_future() => panic!("{ended:?}"),
        () = started => {}
    }
}

/// The memory that a process needs for a board that another process has filled.
async fn board(jobs: usize, bytes: usize) {
    let memory = Memory::new();
    let poster = connect(&memory).await;
    let board = poster.job_board("/jobs").await.expect("a board");
    let details = serde_json::json!({ "text": "x".repeat(bytes) });
    for number in 0..jobs {
        board.post(number.to_string()).details(&details).await.expect("it is posted");
    }
    poster.shutdown().await.expect("it is left");
    let worker = connect(&memory).await;
    let before = COUNTING.current_usage();
    let board = worker.job_board("/jobs").await.expect("a board");
    let found = board.jobs().ensure_fresh().await.expect("its jobs");
    assert_eq!(found.len(), jobs);
    drop(found);
    print(&format!("board of {jobs} jobs with {bytes} bytes of details, a job"), before, jobs, 0);
}

/// The memory that a process needs for a queue that another process has filled.
async fn queue(entries: usize, bytes: usize) {
    let memory = Memory::new();
    let producer = connect(&memory).await;
    let queue = producer.queue("/queue").await.expect("a queue");
    let payload = "x".repeat(bytes);
    for _ in 0..entries {
        queue.put(&payload).label("taxi:42").await.expect("it is put");
    }
    producer.shutdown().await.expect("it is left");
    let worker = connect(&memory).await;
    let before = COUNTING.current_usage();
    let queue = worker.queue("/queue").await.expect("a queue");
    assert_eq!(queue.entries().await.expect("its entries").len(), entries);
    print(&format!("queue of {entries} entries of {bytes} bytes, an entry"), before, entries, 0);
}

async fn connect(memory: &Memory) -> PartitionCoordinator {
    PartitionCoordinator::connect(Config::for_backend(memory.clone())).await.expect("a coordinator")
}

fn report<T>(what: &str, units: usize, other: usize, make: impl Fn() -> T) {
    let before = COUNTING.current_usage();
    let made = make();
    print(what, before, units, other);
    drop(made);
}

fn print(what: &str, before: usize, units: usize, other: usize) {
    let bytes = COUNTING.current_usage() - before;
    println!("{what:56} {:8.1} bytes", (bytes - units * other) as f64 / units as f64);
}

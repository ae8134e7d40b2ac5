//! Real processes of the examples `job_worker` and `priority_queue` on a real server. They are killed, stopped, or
//! started late.
//!
//! The tests check the records that the processes write, and the znodes that are left in the store.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use apportion::backend::Connector as _;
use serde_json::Value;

use crate::support::{
    Example, eventually,
    example::{Processes, TIMEOUT, url},
    shared_server, zookeeper,
};

/// The time for each piece of work in processes that are killed during one.
const SLOW: &str = "800ms";

#[tokio::test]
async fn the_job_of_a_killed_worker_comes_back_and_each_job_is_done_once() {
    let mut fleet = Fleet::new("job_worker", &["--board", "/jobs/board"]).await;
    let results = fleet.processes.folder().join("results.jsonl");
    let files = sources();
    assert!(files.len() > 20, "{files:?}");
    for (worker, pace) in [("a", "200ms"), ("b", SLOW), ("c", SLOW)] {
        fleet.start(worker, &["--pace", pace]);
    }
    let file = results.to_string_lossy().into_owned();
    let mut args = vec!["--role", "post", "--results", &file];
    args.extend(files.iter().map(String::as_str));
    fleet.start("poster", &args);

    let lost = fleet.kill_at_work("b").await;
    fleet.start("d", &["--pace", "200ms"]);
    // Halfway through a job, which the others get at once.
    fleet.at_work("c").await;
    fleet["c"].signal("TERM");
    fleet.ends("c", 0).await;
    assert!(
        fleet["c"].output().contains("stopped; the others can have what it had"),
        "{}",
        fleet.processes.report()
    );
    fleet.ends("poster", 0).await;

    // Each job: taken off the board once, under the latest claim, which has a result. One that is stopped between its
    // result and that leaves another result, under an earlier claim.
    let lines = fs::read_to_string(&results).unwrap();
    let mut jobs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        jobs.entry(record["job"].as_str().unwrap().into()).or_default().push(record);
    }
    assert_eq!(jobs.len(), files.len());
    let mut by_others = 0;
    for (job, records) in &jobs {
        let of = |what: &str| records.iter().filter(|it| it["what"] == what).collect::<Vec<_>>();
        let (taken, results, consumed) = (of("taken"), of("result"), of("consumed"));
        let tokens = |of: &[&Value]| of.iter().map(|it| it["token"].as_u64().unwrap()).collect::<Vec<_>>();
        let latest = tokens(&taken).into_iter().max().expect("a worker took it");
        assert_eq!(tokens(&consumed), [latest], "{job}: {records:?}");
        assert_eq!(tokens(&results).last(), Some(&latest), "{job}: {records:?}");
        assert!(tokens(&results).is_sorted_by(|one, next| one < next), "{job}: {records:?}");
        if taken.iter().any(|it| it["worker"] == "b") && consumed[0]["worker"] != "b" {
            by_others += 1;
        }
    }
    assert_eq!(by_others, 1, "the one that b had, {lost}");
    fleet.is_empty("/jobs/board").await;
    fleet.is_empty("/jobs/.posting").await;
}

#[tokio::test]
async fn the_entry_of_a_killed_node_is_delivered_again_and_each_is_answered_once() {
    let mut fleet = Fleet::new("priority_queue", &["--queue", "/questions"]).await;
    for (node, pace) in [("a", "200ms"), ("b", SLOW), ("c", SLOW)] {
        fleet.start(node, &["--pace", pace, "--load", "100ms"]);
    }
    fleet.start("dispatcher", &["--role", "dispatch"]);

    let lost = fleet.kill_at_work("b").await;
    fleet.start("d", &["--pace", "100ms", "--load", "100ms"]);
    fleet.at_work("c").await;
    fleet["c"].signal("TERM");
    fleet.ends("c", 0).await;
    fleet.ends("dispatcher", 0).await;

    let label = label_of(&lost);
    let mut answered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (node, process) in fleet.processes.iter() {
        for line in process.output().lines().filter(|line| line.contains("  done  ")) {
            answered.entry(label_of(line)).or_default().push(format!("{node}: {line}"));
        }
    }
    assert_eq!(answered.len(), 48, "{}", fleet.processes.report());
    let twice: Vec<_> = answered.values().filter(|by| by.len() != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(answered[&label][0].contains("(attempt 2)"), "{lost} and then {:?}", answered[&label]);
    for folder in ["unowned", "owned", "claims", "done", "dead"] {
        fleet.is_empty(&format!("/questions/{folder}")).await;
    }
}

/// `tram:4`, of a line that has `entry-100-tram:4-0000000017` in it.
fn label_of(line: &str) -> String {
    line.split("entry-").nth(1).and_then(|name| name.split('-').nth(1)).expect("it names an entry").to_owned()
}

/// Some files with something in them.
fn sources() -> Vec<String> {
    let folders = ["src/board", "src/queue", "src/worker"];
    let folders = folders.map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let files = folders.into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| path.to_string_lossy().into_owned()).collect()
}

/// Processes of one example.
struct Fleet {
    example: &'static str,
    common: Vec<String>,
    servers: String,
    processes: Processes,
}

impl Fleet {
    async fn new(example: &'static str, common: &[&str]) -> Fleet {
        let servers = shared_server().await.connect_string();
        let common = ["--backend", &url(&servers)].iter().chain(common).map(ToString::to_string).collect();
        Fleet { example, common, servers, processes: Processes::new() }
    }

    fn start(&mut self, id: &str, args: &[&str]) {
        let common = self.common.iter().map(String::as_str).chain(["--member-id", id]);
        let args: Vec<_> = common.chain(args.iter().copied()).collect();
        self.processes.start(id, self.example, &args);
    }

    /// Waits until a process begins with something new after it has done something; returns that line.
    async fn at_work(&self, id: &str) -> String {
        let last =
            |text: &str| text.lines().last().filter(|line| line.contains("  takes ")).map(str::to_owned);
        let before = last(&self[id].output());
        eventually(&format!("{id} takes something"), TIMEOUT, || async {
            let text = self[id].output();
            // The last line may be half written.
            let now = last(&text).filter(|now| text.ends_with('\n') && Some(now) != before.as_ref());
            now.filter(|_| text.contains("  done  "))
        })
        .await
    }

    /// Kills a process that has just begun with something; returns the line that says so.
    async fn kill_at_work(&self, id: &str) -> String {
        let line = self.at_work(id).await;
        self[id].signal("KILL");
        self.ends(id, 128 + 9).await;
        assert_eq!(self[id].output().lines().last(), Some(&*line), "it was quicker than the signal");
        line
    }

    async fn ends(&self, id: &str, code: i32) {
        let ended = async { eventually("it ends", TIMEOUT * 2, || async { self[id].exit_code() }).await };
        match tokio::time::timeout(TIMEOUT, ended).await {
            Ok(found) => assert_eq!(found, code, "{id}\n{}", self.processes.report()),
            Err(_) => panic!("{id} does not end\n{}", self.processes.report()),
        }
    }

    /// Waits until a znode has no children.
    async fn is_empty(&self, path: &str) {
        let session = zookeeper(&self.servers).open(Duration::from_secs(10)).await.unwrap();
        let path = crate::support::path(path);
        eventually(&format!("{path} is empty"), TIMEOUT, || async {
            session.sync(&path).await.unwrap();
            session.children(&path).await.unwrap().0.is_empty().then_some(())
        })
        .await;
        session.close().await;
    }
}

impl std::ops::Index<&str> for Fleet {
    type Output = Example;

    fn index(&self, id: &str) -> &Example {
        &self.processes[id]
    }
}

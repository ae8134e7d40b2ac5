//! The operator's command on boards and queues, as a process and against a real server.

use std::sync::Arc;

use apportion::{
    Config, PartitionCoordinator,
    backend::{CommitError, Connector as _, CreateMode, Op, Session, path::ZnodePath},
    board::JobState,
};
use serde_json::{Value, json};

use crate::support::{
    SECOND, Server, Settings,
    command::{Ran, command, run},
    eventually, example, path, shared_server, zookeeper,
};

/// The URL of the shared server, a session of another process, and a coordinator.
async fn setup() -> (String, Arc<dyn Session>, PartitionCoordinator) {
    let servers = shared_server().await.connect_string();
    let url = example::url(&servers);
    let session = zookeeper(&servers).open(20 * SECOND).await.unwrap();
    let config = Config::from_url(url.as_str()).unwrap().namespace("command").member_id("worker");
    (url, session, PartitionCoordinator::connect(config).await.unwrap())
}

/// A run that succeeds.
async fn well(url: &str, arguments: &[&str]) -> Ran {
    let ran = run(url, arguments).await;
    assert!(ran.code == 0 && ran.err.is_empty(), "{arguments:?}: {ran:?}");
    ran
}

/// A run that ends with this code, and says this.
async fn says(url: &str, arguments: &[&str], code: i32, parts: &[&str]) -> Ran {
    let ran = run(url, arguments).await;
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    for part in parts {
        assert!(
            ran.out.contains(part) || ran.err.contains(part),
            "{arguments:?} does not say {part:?}: {ran:?}"
        );
    }
    ran
}

async fn write(session: &dyn Session, ops: Vec<Op>) {
    let done: Result<_, CommitError> = session.commit(ops).await;
    done.expect("it can be written");
}

async fn exists(session: &dyn Session, at: &str) -> bool {
    session.sync(&path(at)).await.unwrap();
    session.get(&path(at)).await.unwrap().is_some()
}

#[tokio::test]
async fn jobs_are_posted_listed_claimed_given_back_trashed_and_restored() {
    let (url, session, coordinator) = setup().await;
    let at = ["--board", "/command-board/jobs"];
    let with = |arguments: &[&'static str]| -> Vec<&'static str> { [&["board"], arguments, &at].concat() };

    // Nothing is created by a look, and a post says so.
    says(&url, &with(&["list"]), 4, &["no board `/command-board/jobs`"]).await;
    says(&url, &with(&["post", "resize"]), 4, &["--create"]).await;
    assert!(!exists(&*session, "/command-board").await);
    let ran = well(&url, &with(&["post", "resize", "--create", "--details", r#"{"volume":"v-17"}"#])).await;
    assert_eq!(ran.out, "posted /command-board/jobs/job0000000000\n");
    well(&url, &with(&["post", "delete", "--priority", "high"])).await;
    well(&url, &with(&["post", "later", "--delay", "1h"])).await;
    says(&url, &with(&["post", "x", "--details", "{"]), 2, &["no JSON"]).await;
    says(&url, &with(&["post", "x", "--priority", "urgent"]), 2, &["VERY_HIGH"]).await;

    let board = coordinator.job_board("/command-board/jobs").await.unwrap();
    let claim = board.claim_where(|job| job.name() == "resize").await.unwrap();
    let lines = well(&url, &with(&["list"])).await.lines();
    assert_eq!(
        lines,
        [
            "JOB NAME PRIORITY STATE OWNER AGE ATTEMPTS LAST PROBLEM",
            "job0000000001 delete HIGH waits AGE",
            "job0000000000 resize NORMAL claimed worker AGE 1",
            "job0000000002 later NORMAL in AGE AGE",
            "3 jobs, 1 claimed",
        ]
    );
    let shown = well(&url, &with(&["show", "0", "--json"])).await.json();
    assert!(
        shown["owner"] == "worker" && shown["state"] == "claimed" && shown["details"]["volume"] == "v-17"
    );
    let holder = coordinator.session_id().unwrap().to_string();
    assert!(shown["session"] == holder.as_str(), "{shown}");
    let uuid = shown["uuid"].as_str().unwrap().to_owned();
    let by_uuid = run(&url, &["board", "show", &uuid, "--board", "/command-board/jobs"]).await;
    assert!(
        by_uuid.code == 0 && by_uuid.out.contains("job0000000000") && by_uuid.out.contains("v-17"),
        "{by_uuid:?}"
    );

    // To end the claim of another process needs a yes, and a claimed job cannot be trashed.
    says(&url, &with(&["trash", "0", "--yes"]), 4, &["owner `worker`"]).await;
    says(&url, &with(&["abandon", "0"]), 4, &["`worker`", &holder, "lives", "--yes"]).await;
    assert_eq!(board.state(claim.job()).await.unwrap(), JobState::Claimed);
    well(&url, &with(&["abandon", "0", "--yes"])).await;
    assert_eq!(board.state(claim.job()).await.unwrap(), JobState::Unclaimed);
    assert!(claim.consume().await.is_err(), "its worker cannot end it any more");
    says(&url, &with(&["abandon", "0", "--yes"]), 4, &["not claimed"]).await;

    says(&url, &with(&["trash", "0"]), 4, &["--yes"]).await;
    well(&url, &with(&["trash", "0", "--because", "no such volume", "--yes"])).await;
    let lines = well(&url, &with(&["list", "--trash"])).await.lines();
    assert_eq!(lines[1..], ["job0000000000 resize 2 AGE no such volume", "1 job in the trash"]);
    let restored = well(&url, &with(&["restore", "job0000000000", "--json"])).await.json();
    let new = restored["restored"].as_str().unwrap().to_owned();
    assert!(exists(&*session, &new).await && !exists(&*session, "/command-board/.trash/job0000000000").await);
    let again = run(&url, &["board", "show", &new, "--board", "/command-board/jobs", "--json"]).await.json();
    assert!(again["uuid"] == uuid.as_str() && again["details"]["volume"] == "v-17", "{again}");
    says(&url, &with(&["restore", "job0000000000"]), 4, &["board list --trash"]).await;
    assert_eq!(board.jobs().ensure_fresh().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_job_is_claimed_for_a_command_which_does_it_or_gives_it_back() {
    let (url, session, coordinator) = setup().await;
    let board = coordinator.job_board("/command-claim/jobs").await.unwrap();
    board.post("copy").details(json!({ "from": "a" })).await.unwrap();
    board.post("fail").await.unwrap();
    let claim = ["board", "claim", "--board", "/command-claim/jobs"];
    let script = r#"read -r details; echo "$APPORTION_JOB $APPORTION_TOKEN $details""#;
    let ran = well(&url, &[&claim[..], &["0", "--", "sh", "-c", script]].concat()).await;
    let job = "/command-claim/jobs/job0000000000";
    assert!(ran.out.starts_with(&format!("{job} ")) && ran.out.contains(r#"{"from":"a"}"#), "{ran:?}");
    assert!(ran.out.ends_with(&format!("done {job}\n")) && !exists(&*session, job).await, "{ran:?}");

    let name = board.jobs().ensure_fresh().await.unwrap().into_iter().next().unwrap();
    let ran = run(&url, &[&claim[..], &[name.path().name(), "--", "false"]].concat()).await;
    assert!(
        ran.code == 1 && ran.out.contains("given back") && ran.out.contains("false ended with"),
        "{ran:?}"
    );
    let ran = well(&url, &["board", "list", "--board", "/command-claim/jobs"]).await;
    assert!(ran.out.contains("false ended with exit status: 1"), "the reason is kept: {ran:?}");

    // Without a command it is kept until the command ends.
    let held = [&claim[..], &[name.path().name()]].concat();
    let mut holding = command(&url, &held);
    let mut child = holding.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let claimed = || async { (board.state(&name).await.unwrap() == JobState::Claimed).then_some(()) };
    eventually("it is claimed", 20 * SECOND, claimed).await;
    let owner = board.find_owner(&name).await.unwrap().unwrap();
    assert!(owner.starts_with("operator-"), "{owner}");
    let pid = child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(killed.success());
    let ended = tokio::time::timeout(20 * SECOND, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(board.state(&name).await.unwrap(), JobState::Unclaimed);
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_shown_with_the_attempts_that_the_next_claim_counts() {
    let (url, session, coordinator) = setup().await;
    let board = coordinator.job_board("/command-poison/jobs").await.unwrap();
    let job = board.post("poison").await.unwrap();
    let at = ["--board", "/command-poison/jobs"];
    let attempts = async || {
        let shown = run(&url, &[&["board", "show", "0", "--json"], &at[..]].concat()).await.json();
        let listed = run(&url, &[&["board", "list", "--json"], &at[..]].concat()).await.json();
        assert_eq!(listed["items"][0]["attempts"], shown["attempts"]);
        shown["attempts"].clone()
    };
    assert_eq!(attempts().await, 0);
    for died in 1..=2 {
        let claim = board.claim(&job).await.unwrap();
        assert_eq!((claim.attempt(), attempts().await), (died, json!(died)), "that of its worker counts");
        // A worker that dies leaves nothing but the posting that it has set.
        write(&*session, vec![Op::delete(claim.lease().path(), None)]).await;
        drop(claim);
        let is_free = || async { (board.state(&job).await.unwrap() == JobState::Unclaimed).then_some(()) };
        eventually("it may be claimed", 20 * SECOND, is_free).await;
        assert_eq!(attempts().await, died, "no record says it");
    }
    let lines = well(&url, &[&["board", "list"], &at[..]].concat()).await.lines();
    assert_eq!(lines[1], "job0000000000 poison NORMAL waits AGE 2");
    says(&url, &[&["board", "show", "0"], &at[..]].concat(), 0, &["attempts  2"]).await;
    let claim = board.claim(&job).await.unwrap();
    assert_eq!((claim.attempt(), attempts().await), (3, json!(3)));
    claim.trash_because("it kills its workers").await.unwrap();
    let lines = well(&url, &[&["board", "list", "--trash"], &at[..]].concat()).await.lines();
    assert_eq!(lines[1], "job0000000000 poison 3 AGE it kills its workers");
}

#[tokio::test]
async fn a_command_is_ended_before_another_worker_can_have_its_job() {
    let (url, _session, coordinator) = setup().await;
    let board = coordinator.job_board("/command-term/jobs").await.unwrap();
    let job = board.post("long").await.unwrap();
    let written = std::env::temp_dir().join(format!("apportion-command-{}", std::process::id()));
    let signal = |name: &str, pid: &str| {
        std::process::Command::new("kill").args([name, pid]).status().unwrap().success()
    };
    // A process that has ended may be listed until its parent has noticed it.
    let is_alive = |pid: &str| {
        let shown = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        shown.is_ok_and(|shown| !shown.contains(") Z "))
    };
    // A child of the command, which outlives its shell if that alone is ended; and one that does not obey.
    for (name, before) in [("-TERM", ""), ("-HUP", ""), ("-INT", "trap '' TERM; ")] {
        let script =
            format!("{before}sleep 600 & echo $! > {0}.new && mv {0}.new {0}; wait; true", written.display());
        let claim = ["board", "claim", "--board", "/command-term/jobs", "0", "--", "sh", "-c", &script];
        let mut child = command(&url, &claim).spawn().unwrap();
        let probe = || async { std::fs::read_to_string(&written).ok() };
        let pid = eventually("the command runs", 20 * SECOND, probe).await;
        std::fs::remove_file(&written).unwrap();
        assert!(is_alive(&pid) && signal(name, &child.id().unwrap().to_string()));
        let ended = tokio::time::timeout(20 * SECOND, child.wait()).await.unwrap().unwrap();
        assert!(ended.code() == Some(1) && !is_alive(&pid), "{name}: {ended}");
        assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed);
        let shown =
            run(&url, &["board", "show", "0", "--json", "--board", "/command-term/jobs"]).await.json();
        assert_eq!(shown["attempts"], 0, "it does not count: {shown}");
    }

    let missing = "no\u{1b}[31m such program";
    let claim = ["board", "claim", "--board", "/command-term/jobs", "0", "--", missing];
    let ran = run(&url, &claim).await;
    assert!(ran.code == 1 && ran.out.contains("given back"), "{ran:?}");
    assert!(!ran.out.contains('\u{1b}') && ran.out.contains("no\\u{1b}[31m such"), "{ran:?}");
    let shown = run(&url, &["board", "show", "0", "--json", "--board", "/command-term/jobs"]).await.json();
    assert_eq!(shown["attempts"], 0, "it does not count: {shown}");
}

#[tokio::test]
async fn a_job_of_another_board_in_the_shared_trash_is_restored_only_with_a_yes() {
    let (url, session, coordinator) = setup().await;
    let one = coordinator.job_board("/command-shared/one").await.unwrap();
    let _other = coordinator.job_board("/command-shared/other").await.unwrap();
    one.post("resize").await.unwrap();
    let claim = one.claim_where(|_| true).await.unwrap();
    claim.trash_because("no such volume").await.unwrap();
    let to_other = ["board", "restore", "job0000000000", "--board", "/command-shared/other"];
    says(&url, &to_other, 4, &["of the board `one`", "--yes"]).await;
    assert!(exists(&*session, "/command-shared/.trash/job0000000000").await);
    well(&url, &["board", "restore", "job0000000000", "--board", "/command-shared/one"]).await;
}

#[tokio::test]
async fn a_job_of_python_in_the_trash_has_no_reason_of_another_job_of_its_name() {
    let (url, session, coordinator) = setup().await;
    let one = coordinator.job_board("/command-python-trash/one").await.unwrap();
    one.post("resize").await.unwrap();
    one.claim_where(|_| true).await.unwrap().trash_because("no such volume").await.unwrap();
    let at = ["--board", "/command-python-trash/one"];
    let list = [&["board", "list", "--trash"], &at[..]].concat();
    says(&url, &list, 0, &["no such volume"]).await;
    // TaskFlow keeps no record, so what was known of this name is of the job before.
    let trashed = path("/command-python-trash/.trash/job0000000000");
    let posting = r#"{"uuid": "u", "name": "of python", "details": {}}"#;
    write(&*session, vec![Op::delete(&trashed, None)]).await;
    write(&*session, vec![Op::create(&trashed, posting, CreateMode::Persistent)]).await;
    let ran = says(&url, &list, 0, &["of python"]).await;
    assert!(!ran.out.contains("no such volume"), "{ran:?}");
    let show = run(&url, &[&list[..], &["--json"]].concat()).await.json();
    assert!(show["total"] == 1 && show["items"][0]["last_error"].is_null(), "{show}");
    // Which board it is of is certain if there is one only.
    let other = path("/command-python-trash/other");
    write(&*session, vec![Op::create(&other, "", CreateMode::Persistent)]).await;
    let restore = [&["board", "restore", "job0000000000"], &at[..]].concat();
    says(&url, &restore, 4, &["not known which board", "--yes"]).await;
    write(&*session, vec![Op::delete(&other, None)]).await;
    well(&url, &restore).await;
}

#[tokio::test]
async fn a_lock_without_an_owner_is_shown_and_ended_and_a_broken_posting_is_moved() {
    let (url, session, coordinator) = setup().await;
    let board = coordinator.job_board("/command-locked/jobs").await.unwrap();
    let job = board.post("resize").await.unwrap();
    let lock = Op::create(&path(&format!("{}.lock", job.path())), "{}", CreateMode::Persistent);
    write(&*session, vec![lock]).await;
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        [arguments, &["--board", "/command-locked/jobs"]].concat()
    };
    let said = ["job0000000000.lock is persistent (no owner", "board abandon --yes"];
    says(&url, &with(&["doctor", "--quiet"]), 1, &said).await;
    says(&url, &with(&["board", "list"]), 1, &[&said[..], &["NORMAL    locked"]].concat()).await;
    let shown = run(&url, &with(&["board", "show", "0", "--json"])).await.json();
    assert!(shown["state"] == "locked" && shown["owner"].is_null(), "{shown}");
    let unclaimed = run(&url, &with(&["board", "list", "--unclaimed"])).await;
    // The lock counts, as it does in the listings of the library: no worker gets the job.
    assert!(unclaimed.out.starts_with("1 job, 1 claimed, of which 0 are shown\n"), "{unclaimed:?}");
    says(&url, &with(&["board", "trash", "0", "--yes"]), 4, &["has a lock (no owner): abandon it"]).await;
    says(&url, &with(&["board", "abandon", "0"]), 4, &["no owner", "persistent", "--yes"]).await;
    well(&url, &with(&["board", "abandon", "0", "--yes"])).await;
    assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed);
    assert!(well(&url, &with(&["board", "list"])).await.out.contains("waits"));

    let broken = Op::create(&path("/command-locked/jobs/job0000000009"), "{", CreateMode::Persistent);
    write(&*session, vec![broken]).await;
    says(&url, &with(&["board", "trash", "9"]), 4, &["--yes"]).await;
    well(&url, &with(&["board", "trash", "9", "--yes"])).await;
    assert!(!exists(&*session, "/command-locked/jobs/job0000000009").await);
    let (data, _) = session.get(&path("/command-locked/.trash/job0000000009")).await.unwrap().unwrap();
    assert_eq!(data, b"{", "as it was");
    assert!(!exists(&*session, "/command-locked/jobs/job0000000009.lock").await);
}

#[tokio::test]
async fn a_doctor_tries_all_folders_of_a_board() {
    let (url, session, _coordinator) = setup().await;
    let servers = shared_server().await.connect_string();
    let owner = zookeeper(&servers).digest("owner", "secret").open(20 * SECOND).await.unwrap();
    for at in ["/command-beside", "/command-beside/jobs"] {
        write(&*session, vec![Op::create(&path(at), "", CreateMode::Persistent)]).await;
    }
    for name in [".attempts", ".entities", ".posting"] {
        let at = format!("/command-beside/{name}");
        write(&*owner, vec![Op::create(&path(&at), "", CreateMode::Persistent)]).await;
        let denied = format!("permission to read `{at}` is denied by its ACL");
        says(&url, &["doctor", "--quiet", "--board", "/command-beside/jobs"], 1, &[&denied]).await;
    }
    owner.close().await;
}

#[tokio::test]
async fn the_first_thousand_jobs_are_shown_and_one_is_read_by_its_name() {
    let (url, session, coordinator) = setup().await;
    let _board = coordinator.job_board("/command-thousand/jobs").await.unwrap();
    let posting = |number: usize| {
        let priority = if number == 1001 { "HIGH" } else { "LOW" };
        json!({ "uuid": format!("u{number}"), "name": "n", "priority": priority, "details": {} }).to_string()
    };
    for numbers in (0..1002).collect::<Vec<_>>().chunks(167) {
        let create = |number: &usize| {
            let at = path(&format!("/command-thousand/jobs/job{number:010}"));
            Op::create(&at, posting(*number).as_str(), CreateMode::Persistent)
        };
        write(&*session, numbers.iter().map(create).collect()).await;
    }
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        [&["board"], arguments, &["--board", "/command-thousand/jobs"]].concat()
    };
    let shown = run(&url, &with(&["list", "--json"])).await.json();
    assert!(shown["total"] == 1002 && shown["items"].as_array().unwrap().len() == 1000, "{}", shown["total"]);
    assert_eq!(shown["items"][0]["job"], "job0000001001", "the first to be claimed, of all");
    let ran = well(&url, &with(&["list"])).await;
    assert!(ran.out.ends_with("1002 jobs, 0 claimed, of which 1000 are shown\n"), "{}", ran.err);
    for wanted in ["1000", "job0000001000", "/command-thousand/jobs/job0000001000", "u1000"] {
        let shown = run(&url, &with(&["show", wanted, "--json"])).await.json();
        assert!(shown["uuid"] == "u1000" && shown["state"] == "waits", "{wanted}: {shown}");
    }
}

#[tokio::test]
async fn dead_letters_behind_the_first_thousand_are_found_by_name() {
    let (url, session, coordinator) = setup().await;
    let queue = coordinator.queue("/command-many").await.unwrap();
    let name = |number: usize| format!("entry-100--{number:010}");
    let value = json!({ "payload": 1 }).to_string();
    for numbers in (0..1002).collect::<Vec<_>>().chunks(167) {
        let create = |number: &usize| {
            let at = path(&format!("/command-many/dead/{}", name(*number)));
            Op::create(&at, value.as_str(), CreateMode::Persistent)
        };
        write(&*session, numbers.iter().map(create).collect()).await;
    }
    let with = |arguments: &[&str]| -> Vec<String> {
        let all = [&["queue"], arguments, &["--queue", "/command-many"]].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let run = async |arguments: &[&str]| {
        let arguments = with(arguments);
        run(&url, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let dead = run(&["dead", "--json"]).await.json();
    assert!(dead["total"] == 1002 && dead["items"].as_array().unwrap().len() == 1000);
    assert!(run(&["dead"]).await.out.ends_with("1002 dead letters, of which 1000 are shown\n"));
    let shown = run(&["show", &name(1001), "--json"]).await;
    assert!(shown.code == 0 && shown.json()["state"] == "dead", "{shown:?}");
    let ran = run(&["revive", &name(1001)]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "revived 1 dead letter\n"), "{ran:?}");
    assert_eq!(queue.len().await.unwrap(), 1);
    let ran = run(&["discard", &name(1000), "--yes"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "discarded 1 dead letter\n"), "{ran:?}");
}

#[tokio::test]
async fn a_board_of_python_alone_is_shown_and_what_is_left_over_is_named() {
    let (url, session, _coordinator) = setup().await;
    for at in ["/command-python", "/command-python/jobs"] {
        write(&*session, vec![Op::create(&path(at), "", CreateMode::Persistent)]).await;
    }
    let create = |name: &str, data: &str, mode| {
        vec![Op::create(&path(&format!("/command-python/jobs/{name}")), data, mode)]
    };
    let posting = r#"{"uuid": "4b9a", "name": "flow", "priority": "LOW", "details": {"store": {}}}"#;
    for name in ["job0000000000", "job0000000001"] {
        write(&*session, create(name, posting, CreateMode::Persistent)).await;
    }
    write(&*session, create("job0000000007", "{", CreateMode::Persistent)).await;
    write(&*session, create("job0000000000.lock", r#"{"owner": "conductor"}"#, CreateMode::Ephemeral)).await;
    let at = ["--board", "/command-python/jobs"];
    let ran = says(&url, &[&["board", "list"], &at[..]].concat(), 1, &[]).await;
    let lines = ran.lines();
    assert_eq!(
        lines[1..3],
        ["job0000000000 flow LOW claimed conductor AGE", "job0000000001 flow LOW waits AGE"]
    );
    assert!(lines[3].starts_with("job0000000007 ? ? set aside AGE"), "{lines:?}");
    let unclaimed = run(&url, &[&["board", "list", "--unclaimed"], &at[..]].concat()).await;
    let summary = "3 jobs, 1 claimed, of which 1 is shown";
    assert_eq!(unclaimed.lines()[1..3], ["job0000000001 flow LOW waits AGE", summary]);
    let unclaimed = run(&url, &[&["board", "list", "--unclaimed", "--json"], &at[..]].concat()).await.json();
    assert_eq!(unclaimed["total"], 1, "of those that were asked for: {unclaimed}");

    let doctor = ["doctor", "--quiet", "--board", "/command-python/jobs"];
    says(&url, &doctor, 1, &["job0000000007 is set aside"]).await;
    write(&*session, create("job0000000001.lock", r#"{"owner": "crashed"}"#, CreateMode::Persistent)).await;
    write(&*session, create("job0000000009.lock", "{}", CreateMode::Ephemeral)).await;
    let said =
        ["job0000000001.lock is persistent (owner `crashed`", "job0000000009.lock is the lock of a job"];
    says(&url, &doctor, 1, &said).await;
    says(&url, &[&["board", "abandon", "1"], &at[..]].concat(), 4, &["persistent"]).await;
    well(&url, &[&["board", "abandon", "1", "--yes"], &at[..]].concat()).await;
    assert!(!exists(&*session, "/command-python/jobs/job0000000001.lock").await);
    let (names, _) = session.children(&path("/command-python")).await.unwrap();
    assert_eq!(names, ["jobs"], "nothing was created beside it");
}

#[tokio::test]
async fn a_full_board_and_a_full_queue_are_named() {
    let server =
        Server::start_with(&Settings { lines: vec!["enforceQuota=true".into()], ..Settings::default() })
            .await;
    let url = format!("{}&namespace=full", example::url(&server.connect_string()));
    let session = zookeeper(&server.connect_string()).open(20 * SECOND).await.unwrap();
    let post = ["board", "post", "job", "--board", "/tf/jobs", "--create"];
    well(&url, &post).await;
    // A quota as `setquota` writes it.
    let quota = |name: &str, data: &'static str| {
        let at = ZnodePath::parse(&format!("/zookeeper/quota/tf{name}")).unwrap();
        vec![Op::create(&at, data, CreateMode::Persistent)]
    };
    let limit = "count=4,bytes=-1;byteHardLimit=-1;countHardLimit=4";
    for (name, data) in [("", ""), ("/zookeeper_limits", limit), ("/zookeeper_stats", "count=0,bytes=0")] {
        write(&*session, quota(name, data)).await;
    }
    let mut refused = None;
    for _ in 0..20 {
        let ran = run(&url, &post).await;
        if ran.code != 0 {
            refused = Some(ran);
            break;
        }
    }
    let refused = refused.expect("the quota is enforced");
    assert_eq!(refused.code, 4, "{refused:?}");
    let doctor = ["doctor", "--quiet", "--board", "/tf/jobs"];
    says(&url, &doctor, 1, &["the quota of /tf is used up", "setquota"]).await;
    for command in
        [&doctor[..], &["board", "list", "--board", "/tf/jobs"], &["status", "--board", "/tf/jobs"]]
    {
        let full = [command, &["--max-len", "1"]].concat();
        says(&url, &full, 1, &["board /tf/jobs is full", "the quota of /tf is used up"]).await;
    }

    let config = Config::from_url(url.as_str()).unwrap();
    let coordinator = PartitionCoordinator::connect(config).await.unwrap();
    let queue = coordinator.queue("/q").max_len(2).await.unwrap();
    queue.put(1).await.unwrap();
    queue.put(2).label("taxi:42").await.unwrap();
    let full = ["queue", "list", "--queue", "/q", "--max-len", "2"];
    says(
        &url,
        &full,
        1,
        &["queue /q is full: 2 entries wait, and the limit is 2", "Are its workers running?"],
    )
    .await;
    says(&url, &["doctor", "--quiet", "--queue", "/q", "--max-len", "2"], 1, &["queue /q is full"]).await;
    let status = ["status", "--queue", "/q", "--max-len", "2"];
    says(&url, &status, 1, &["queue /q: 2 entries wait, 0 are taken", "queue /q is full"]).await;
    let shown = run(&url, &[&status[..], &["--json"]].concat()).await.json();
    assert!(shown["findings"].as_array().unwrap().iter().any(|it| it["code"] == "full"), "{shown}");
    let all = ["--board", "/tf/jobs", "--queue", "/q", "--queue", "/none", "--json", "--max-len", "7"];
    let shown = run(&url, &[&["status"], &all[..]].concat()).await.json();
    let ages = [&shown["boards"][0]["oldest_seconds"], &shown["queues"][0]["oldest_seconds"]];
    assert!(ages.iter().all(|age| age.as_f64().is_some_and(|age| (0.0..600.0).contains(&age))), "{shown}");
    let jobs = run(&url, &["board", "list", "--board", "/tf/jobs", "--json"]).await.json()["total"].clone();
    let board = json!({
        "path": "/tf/jobs", "jobs": jobs, "claimed": 0, "set_aside": 0, "oldest_seconds": ages[0], "limit": 7
    });
    assert_eq!(shown["boards"], json!([board]));
    let queue = json!({
        "path": "/q", "waiting": 2, "taken": 0, "set_aside": 0, "oldest_seconds": ages[1], "limit": 7
    });
    assert_eq!(shown["queues"], json!([queue]), "one that is not there has no numbers");
    let shown = run(&url, &["status", "--queue", "/q"]).await.lines();
    let note = "note: queue /q: 2 entries wait, 0 are taken; the oldest has waited for AGE";
    assert!(shown.contains(&note.to_owned()), "{shown:?}");
    let put = ["queue", "put", "3", "--queue", "/q", "--max-len", "2"];
    says(&url, &put, 4, &["the queue is full"]).await;
}

#[tokio::test]
async fn entries_are_put_listed_shown_revived_and_discarded() {
    let (url, session, coordinator) = setup().await;
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        [&["queue"], arguments, &["--queue", "/command-queue"]].concat()
    };
    says(&url, &with(&["list"]), 4, &["no queue `/command-queue`"]).await;
    says(&url, &with(&["put", "1"]), 4, &["--create"]).await;
    assert!(!exists(&*session, "/command-queue").await);
    says(&url, &with(&["put", "text", "--create"]), 2, &["quotes"]).await;
    let put =
        well(&url, &with(&["put", r#"{"day":3}"#, "--create", "--priority", "900", "--label", "taxi:42"]))
            .await;
    let id = put.out.trim().strip_prefix("put ").unwrap().to_owned();
    well(&url, &with(&["put", "4"])).await;
    let lines = well(&url, &with(&["list"])).await.lines();
    assert_eq!(lines[0], "ENTRY PRIORITY LABEL AGE ATTEMPTS WORKER DELAYED LAST ERROR");
    assert!(
        lines[1].starts_with("entry-900-taxi:42-") && lines[1].ends_with(" 900 taxi:42 AGE"),
        "{lines:?}"
    );
    assert_eq!(lines.last().map(String::as_str), Some("2 entries"));
    let shown = run(&url, &["queue", "show", &id, "--queue", "/command-queue", "--json"]).await.json();
    assert!(shown["value"]["payload"]["day"] == 3 && shown["state"] == "waits", "{shown}");

    // A worker takes one and dies of it; another one becomes a dead letter.
    let queue = coordinator.queue("/command-queue").max_attempts(1).await.unwrap();
    let delivery = queue.take().await.unwrap();
    let owned = well(&url, &with(&["list", "--owned"])).await.lines();
    assert!(owned[1].contains("taxi:42") && owned[1].contains("worker"), "{owned:?}");
    delivery.release().because("no such day").await.unwrap();
    says(&url, &with(&["dead"]), 1, &["no such day", "worker", "1 dead letter"]).await;
    let dead = run(&url, &with(&["dead", "--json"])).await.json();
    assert_eq!(dead["total"], 1, "{dead}");
    let name = dead["items"][0]["entry"].as_str().unwrap().to_owned();
    let one = |verb: &'static str, more: &[&'static str]| -> Vec<String> {
        let all = [&["queue", verb, &name, "--queue", "/command-queue"], more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let arguments = one("discard", &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    says(&url, &arguments, 4, &["remove 1 dead letter for good", "--yes"]).await;
    let arguments = one("revive", &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(well(&url, &arguments).await.out, "revived 1 dead letter\n");
    assert_eq!(well(&url, &with(&["dead"])).await.out, "0 dead letters\n");

    queue.take().await.unwrap().release().because("again").await.unwrap();
    assert_eq!(well(&url, &with(&["discard", "--all", "--yes"])).await.out, "discarded 1 dead letter\n");
    says(&url, &with(&["discard", "entry-1", "--yes"]), 4, &["queue dead"]).await;
    assert_eq!(run(&url, &with(&["revive"])).await.code, 2);
    let left = run(&url, &with(&["list", "--json"])).await.json();
    assert!(left["total"] == 1 && left["items"][0]["priority"] == 100, "{left}");
}

#[tokio::test]
async fn dead_letters_that_are_named_and_cannot_be_ended_are_a_failure_that_names_them() {
    let (url, session, coordinator) = setup().await;
    let queue = coordinator.queue("/command-odd").await.unwrap();
    let value = json!({ "payload": 1 }).to_string();
    for name in ["odd", "entry-100--0000000000", "entry-100--0000000001"] {
        let at = path(&format!("/command-odd/dead/{name}"));
        write(&*session, vec![Op::create(&at, value.as_str(), CreateMode::Persistent)]).await;
    }
    let at = ["--queue", "/command-odd"];
    let revive = [&["queue", "revive", "odd", "entry-100--0000000000", "odd"], &at[..]].concat();
    let said = ["revived 1 dead letter\n", "not revived: `odd`. ", "queue dead"];
    says(&url, &revive, 4, &said).await;
    assert_eq!(queue.len().await.unwrap(), 1);
    let discard = [&["queue", "discard", "odd", "--yes", "--json"], &at[..]].concat();
    let ran = says(&url, &discard, 4, &["not discarded: `odd`"]).await;
    assert_eq!(ran.json()["discarded"], 0);
    // All that are dead letters; the other one is named by `queue dead`.
    let all = well(&url, &[&["queue", "revive", "--all"], &at[..]].concat()).await;
    assert_eq!(all.out, "revived 1 dead letter\n");
    says(&url, &[&["queue", "dead"], &at[..]].concat(), 1, &["/dead/odd is set aside"]).await;
}

#[tokio::test]
async fn a_queue_of_python_alone_is_shown_and_entries_without_a_worker_are_named() {
    let (url, session, _coordinator) = setup().await;
    for at in ["", "/unowned", "/owned", "/done"] {
        let at = path(&format!("/command-femto{at}"));
        write(&*session, vec![Op::create(&at, "", CreateMode::Persistent)]).await;
    }
    let create = |name: &str, data: &str| {
        vec![Op::create(&path(&format!("/command-femto/{name}")), data, CreateMode::Persistent)]
    };
    let value = r#"{"dataset": "taxi", "groupid": "42", "state": 1}"#;
    let taken = r#"{"dataset": "taxi", "groupid": "43", "state": 3, "worker": "python-1"}"#;
    write(&*session, create("unowned/entry-100-taxi:42-0000000000", value)).await;
    write(&*session, create("unowned/odd", value)).await;
    write(&*session, create("owned/entry-100-taxi:43-0000000000", taken)).await;
    write(&*session, create("unowned/entry-050--0000000002", "no JSON")).await;
    let list = ["queue", "list", "--queue", "/command-femto"];
    let aside = [
        "/unowned/entry-050--0000000002 is set aside: its value is no JSON",
        "/unowned/odd is set aside: its name is not that of an entry",
    ];
    let lines = says(&url, &list, 1, &aside).await.lines();
    assert_eq!(
        lines[1..5],
        [
            "entry-100-taxi:42-0000000000 100 taxi:42 AGE",
            "entry-050--0000000002 50 AGE",
            "odd ? ? AGE",
            "3 entries"
        ]
    );
    let shown = run(&url, &[&list[..], &["--json"]].concat()).await.json();
    assert!(shown["items"][0]["state"] == "waits" && shown["items"][1]["state"] == "set_aside", "{shown}");
    let show = ["queue", "show", "odd", "--queue", "/command-femto"];
    says(&url, &show, 1, &["set aside: its name is not that of an entry"]).await;
    assert_eq!(well(&url, &["queue", "dead", "--queue", "/command-femto"]).await.out, "0 dead letters\n");
    let said = ["`python-1`, which makes no claims", "/unowned/odd is set aside: its name is not"];
    says(&url, &["doctor", "--queue", "/command-femto"], 1, &said).await;

    // One of this library whose worker is gone, while no process has the queue open.
    let orphan =
        r#"{"dataset": "taxi", "groupid": "44", "state": 3, "worker": "w", "claim": "gone", "attempt": 1}"#;
    write(&*session, create("owned/entry-100-taxi:44-0000000001", orphan)).await;
    says(&url, &["doctor", "--quiet", "--queue", "/command-femto"], 1, &["its worker `w` is gone"]).await;
    let (names, _) = session.children(&path("/command-femto")).await.unwrap();
    assert_eq!(names.len(), 3, "nothing was created: {names:?}");
    let answer: Value = run(&url, &["doctor", "--json", "--queue", "/command-femto"]).await.json();
    assert!(answer["findings"].as_array().unwrap().iter().any(|it| it["section"] == "queue"), "{answer}");
}

//! The operator's command on groups, as a process and against a real server.

use std::process::Stdio;

use apportion::{
    Config, HashRing, Held, Label,
    backend::{CreateMode, Op, path::ZnodePath},
    group::{Standing, Why},
};
use serde_json::Value;

use crate::support::{
    SECOND,
    command::{Ran, command, run, run_with},
    eventually, example,
    fleet::{Store, create_with_ancestors, settles_within, universe},
    shared_server, zookeeper,
};

/// A store with a namespace of its own, and the URL by which the command reaches it.
async fn store(namespace: &str) -> (Store, String) {
    let servers = shared_server().await.connect_string();
    let url = format!("{}&namespace={namespace}", example::url(&servers));
    (Store::shared(namespace).await, url)
}

/// The only group of the namespace in an answer of `status --json`.
fn group(ran: &Ran) -> Value {
    let groups = ran.json()["items"].clone();
    assert_eq!(groups.as_array().map(Vec::len), Some(1), "{groups}");
    groups[0].clone()
}

/// What the findings of an answer say.
fn findings(value: &Value) -> String {
    let findings = value.as_array().expect("there are findings").iter();
    findings.map(|it| it["what"].as_str().unwrap().to_owned() + "\n").collect()
}

#[tokio::test]
async fn status_members_and_owner_show_a_group_that_is_well() {
    let (store, url) = store("command-well").await;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.joining("g").weight(3).await.unwrap());
    settles_within(store.round(), &[&in_a, &in_b]).await;

    let ran = run(&url, &["status"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let (pid, epoch) = (std::process::id(), in_a.view().epoch());
    let host =
        group(&run(&url, &["status", "--json"]).await)["members"][0]["host"].as_str().unwrap().to_owned();
    let owns = |group: &apportion::Group| format!("{:.1}", 100.0 * group.status().owned);
    let table = [
        format!("group g: 2 members, epoch {epoch} for AGE, exclusive"),
        "MEMBER STATE OWNS WEIGHT KIND HOST PID JOINED".into(),
        format!("a member {} % 1 apportion {host} {pid} AGE", owns(&in_a)),
        format!("b member {} % 3 apportion {host} {pid} AGE", owns(&in_b)),
    ];
    assert_eq!(ran.lines(), table);
    assert_eq!(run(&url, &["members", "--group", "g"]).await.lines(), table[1..]);

    let shown = group(&run(&url, &["status", "--json"]).await);
    assert!(shown["exclusive"] == true && shown["paused"] == false && shown["epoch"] == epoch, "{shown}");
    assert_eq!(shown["digest"], format!("{:016x}", in_a.view().ring().digest()));
    let session = a.coordinator.session_id().unwrap().to_string();
    assert!(shown["members"][0]["session"] == session.as_str() && shown["members"][0]["state"] == "member");
    assert!(shown["pending"] == serde_json::json!([]) && shown["findings"] == serde_json::json!([]));

    // The owners are those of the members, for each key.
    let keys = universe();
    let arguments: Vec<&str> =
        ["owner", "--json"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let ran = run(&url, &arguments).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown = ran.json();
    assert!(shown["total"] == keys.len() && shown["findings"] == serde_json::json!([]), "{shown}");
    for (key, answer) in keys.iter().zip(shown["items"].as_array().unwrap()) {
        let owner = if in_a.view().owns(key) { "a" } else { "b" };
        assert!(answer["key"] == key.as_str() && answer["owner"] == owner, "{key}: {answer}");
    }
    let owner = if in_a.view().owns("alarm-1") { "a" } else { "b" };
    let ran = run(&url, &["owner", "alarm-1"]).await;
    assert_eq!(ran.out, format!("KEY      OWNER\nalarm-1  {owner}\n"));
    let ran = run(&url, &["why", "alarm-1"]).await;
    let well = format!(
        "alarm-1: owned by `{owner}` on host {host}, pid {pid}, and nothing keeps it from acting on it\n"
    );
    assert_eq!((ran.code, ran.out), (0, well));
}

/// Runs the command once the cause of a stall is known: it has to be named by the first run.
async fn named(url: &str, arguments: &[&str], parts: &[&str]) -> Ran {
    let ran = run(url, arguments).await;
    assert_eq!(ran.code, 1, "{arguments:?}: {ran:?}");
    for part in parts {
        assert!(ran.out.contains(part), "{arguments:?} does not say {part:?}: {ran:?}");
    }
    ran
}

#[tokio::test]
async fn a_stuck_item_is_named_with_its_member_and_process() {
    let (store, url) = store("command-stuck").await;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.join("g").await;
    let held: Vec<Held<String>> = in_a.extract_my_subset(universe()).await.unwrap().into_iter().collect();
    let in_b = b.join("g").await;
    let waits = || async { in_b.status().waiting.iter().any(|it| it.why == Why::StillAtWork).then_some(()) };
    eventually("b waits", store.round(), waits).await;
    let stuck = universe().into_iter().find(|key| in_b.view().ring().owner(key) == Some("b")).unwrap();
    let session = a.coordinator.session_id().unwrap().to_string();
    let pid = format!("pid {}", std::process::id());
    let said = [
        "goes to `b`",
        "waits for member `a`",
        &pid,
        "a guard of this key is held there",
        &session,
        "max_drain",
    ];
    named(&url, &["why", &stuck], &said).await;
    named(&url, &["status"], &["of the keys wait for member `a`", "still works on some of them"]).await;
    let answer = named(&url, &["why", &stuck, "--json"], &[]).await.json()["items"][0].clone();
    let waits_for = &answer["waits_for"][0];
    assert!(answer["owner"] == "b" && waits_for["member"] == "a", "{answer}");
    assert!(waits_for["why"] == "still_at_work" && waits_for["guard_of_this_key"] == true, "{answer}");
    assert_eq!(answer["causes"][0]["code"], "still_at_work");
    let seconds = waits_for["seconds"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&seconds), "{answer}");
    assert_eq!(run(&url, &["owner", &stuck]).await.code, 1, "it waits");
    drop(held);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    assert_eq!(run(&url, &["why", &stuck]).await.code, 0);
}

#[tokio::test]
async fn a_paused_member_is_named_while_its_keys_wait_and_while_it_does_not_act() {
    let (mut store, url) = store("command-paused-member").await;
    // Long enough for runs of the command before the lease has ended, on a busy machine.
    store.session_timeout = 16 * SECOND;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    a.suspend();
    let c = store.agent("c").await;
    let in_c = c.join("g").await;
    let waits = || async {
        in_c.status()
            .waiting
            .iter()
            .any(|it| it.why == Why::NotAcknowledged && it.member.as_str() == "a")
            .then_some(())
    };
    eventually("c waits", store.round(), waits).await;
    let of_a = |key: &String| in_b.view().ring().owner(key) == Some("a");
    let ring = in_c.view();
    let before = HashRing::builder().members(["a", "b"]).build().unwrap();
    let moved = |key: &String| before.owner(key) == Some("a") && ring.ring().owner(key) == Some("c");
    let key = universe().into_iter().find(moved).expect("some go from a to c");
    named(&url, &["why", &key], &["goes to `c`", "waits for member `a`", "has not acknowledged"]).await;
    named(&url, &["status"], &["wait for member `a`", "has not acknowledged", "behind"]).await;
    let shown = group(&run(&url, &["status", "--json"]).await);
    assert!(shown["members"][0]["state"] == "behind" && shown["members"][1]["state"] == "member", "{shown}");
    // What it owns still is not certain either, although no other member waits for that.
    let kept = universe().into_iter().find(of_a).expect("it owns some");
    named(&url, &["why", &kept], &["owned by `a`", "does not follow the newest epoch"]).await;
    named(&url, &["owner", &kept], &["behind: see why", "does not follow the newest epoch"]).await;
    let answer = named(&url, &["owner", &kept, "--json"], &[]).await.json();
    assert!(answer["items"][0]["state"] == "behind" && answer["findings"][0]["code"] == "behind", "{answer}");
    let text = named(&url, &["status"], &["has not acknowledged that it lost them"]).await;
    assert!(!text.out.contains("does not follow the newest epoch"), "it is said once: {text:?}");
    assert!(text.out.contains("for at least "), "an observer that comes now knows no more: {text:?}");
    a.resume();
    settles_within(60 * SECOND, &[&in_a, &in_b, &in_c]).await;
    assert_eq!(run(&url, &["status"]).await.code, 0);
}

#[tokio::test]
async fn a_paused_group_and_a_member_that_waits_for_its_place_are_named() {
    let (store, url) = store("command-paused-group").await;
    let (a, b) = (store.agent("a").await, store.started("b").await);
    let in_a = a.join("g").await;
    in_a.pause().await.unwrap();
    let in_b = b.join("g").await;
    let seen = || async {
        let ran = run(&url, &["status"]).await;
        let is_named = ran.out.contains("group `g` is paused") && ran.out.contains("`b` has joined");
        (ran.code == 1 && is_named).then_some(())
    };
    eventually("both are named", 10 * SECOND, seen).await;
    named(&url, &["why", "alarm-1"], &["owned by `a`", "is paused"]).await;
    // An owner that is gone is none, as long as no epoch gives its keys away.
    let session = store.session().await;
    session.commit(vec![Op::delete(&store.path("g/a"), None)]).await.unwrap();
    let gone = || async {
        let ran = run(&url, &["owner", "alarm-1"]).await;
        (ran.code == 1 && ran.out.contains("a      gone: see why")).then_some(())
    };
    eventually("the owner is gone", 10 * SECOND, gone).await;
    named(&url, &["why", "alarm-1"], &["member `a` is gone"]).await;
    let answer = named(&url, &["owner", "alarm-1", "--json"], &[]).await.json();
    assert!(answer["items"][0]["state"] == "gone" && answer["findings"][0]["code"] == "gone", "{answer}");
    in_a.resume().await.unwrap();
    settles_within(store.round() + SECOND, &[&in_a, &in_b]).await;
}

#[tokio::test]
async fn a_missing_permission_is_named_with_its_znode() {
    let (store, url) = store("command-denied").await;
    // The namespace is open, but the folder of the heads belongs to another user: no member can publish.
    let mine = zookeeper(&shared_server().await.connect_string()).digest("owner", "secret");
    let session = apportion::backend::Connector::open(&mine, 20 * SECOND).await.unwrap();
    let heads = ZnodePath::parse("/command-denied.ring").unwrap();
    create_with_ancestors(&*session, &heads).await;
    let a = store.started("a").await;
    let in_a = a.join("g").await;
    let refused = || async { (in_a.view().standing() == Standing::Refused).then_some(()) };
    eventually("the member is refused", 10 * SECOND, refused).await;
    named(&url, &["doctor"], &["`/command-denied.ring` is denied by its ACL", "Grant it"]).await;

    // The group itself.
    let denied = store.path("denied");
    create_with_ancestors(&*session, &denied).await;
    let ran = run(&url, &["status", "--group", "denied"]).await;
    assert!(ran.code == 4 && ran.err.contains("not permitted on znode `/command-denied/denied`"), "{ran:?}");
    named(&url, &["doctor", "--quiet"], &["permission to read `/command-denied/denied` is denied"]).await;
    session.close().await;
}

#[tokio::test]
async fn members_that_may_not_write_the_head_are_shown_as_those_that_do_not_act() {
    let (store, url) = store("command-no-epoch").await;
    let servers = shared_server().await.connect_string();
    // Each client may read the folder of the heads, and its owner alone may write it.
    let mine = zookeeper(&servers).digest("owner", "secret");
    let session = apportion::backend::Connector::open(&mine, 20 * SECOND).await.unwrap();
    let heads = ZnodePath::parse("/command-no-epoch.ring").unwrap();
    create_with_ancestors(&*session, &heads).await;
    let admin = zookeeper_client::Client::connector().with_auth("digest", b"owner:secret");
    let admin = admin.connect(&servers).await.unwrap();
    let acl = |permission, who| zookeeper_client::Acl::new(permission, who);
    let read = acl(zookeeper_client::Permission::READ, zookeeper_client::AuthId::anyone());
    let own = acl(zookeeper_client::Permission::ALL, zookeeper_client::AuthId::authed());
    admin.set_acl(heads.as_str(), &[read, own], None).await.unwrap();

    let a = store.started("a").await;
    let in_a = a.join("g").await;
    let there = || async { session.get(&store.path("g/a")).await.unwrap().map(drop) };
    eventually("the member is there", 10 * SECOND, there).await;
    let ran = named(&url, &["status"], &["no epoch names the members", "write the head", "doctor"]).await;
    assert_eq!(ran.lines()[0], "group g: 1 member, no epoch", "{ran:?}");
    assert!(ran.lines()[2].starts_with("a joining 0.0 % "), "{ran:?}");
    named(&url, &["why", "k"], &["k: no owner", "no epoch names the members"]).await;
    named(&url, &["owner", "k"], &["no epoch names the members"]).await;
    let answer = named(&url, &["owner", "k", "--json"], &[]).await.json();
    assert!(answer["items"][0]["owner"].is_null() && answer["findings"][0]["code"] == "no_epoch", "{answer}");
    let denied = "permission to create children of `/command-no-epoch.ring` is denied";
    named(&url, &["doctor"], &[denied]).await;
    assert!(!in_a.view().owns("k"));
    session.close().await;
}

#[tokio::test]
async fn a_missing_permission_to_create_the_folder_of_the_heads_is_named() {
    let url = format!("{}&namespace=command-begin/ns", example::url(&shared_server().await.connect_string()));
    let mine = zookeeper(&shared_server().await.connect_string()).digest("owner", "secret");
    let session = apportion::backend::Connector::open(&mine, 20 * SECOND).await.unwrap();
    create_with_ancestors(&*session, &ZnodePath::parse("/command-begin/ns").unwrap()).await;
    let said = ["`/command-begin/ns.ring` is not there", "create children of `/command-begin` is denied"];
    named(&url, &["doctor"], &said).await;
    let ran = run(&url, &["doctor", "--read-only"]).await;
    assert!(!ran.out.contains("is not there"), "{ran:?}");
    session.close().await;
}

#[tokio::test]
async fn a_group_of_python_members_is_shown_with_their_ring() {
    let (store, _) = store("command-python").await;
    let url = example::url(&shared_server().await.connect_string());
    let _one = store.plain("alarm_evaluator", "host-1", b"\xc0").await;
    let _two = store.plain("alarm_evaluator", "host-2", b"\xc0").await;
    let fleet = ["--aodh", "--namespace", "command-python"];
    let ran = run(&url, &[&["members"], &fleet[..]].concat()).await;
    let ring = HashRing::builder().label(Label::PythonBytes).members(["host-1", "host-2"]).build().unwrap();
    let owns = |id: &str| format!("{:.1}", 100.0 * ring.fraction(id));
    let assumed =
        "no member says which ring it has: assumed is the one of label `python-bytes` with 100 replicas";
    let table = [
        "MEMBER STATE OWNS WEIGHT KIND HOST PID JOINED".to_owned(),
        format!("host-1 member {} % 1 plain - - AGE", owns("host-1")),
        format!("host-2 member {} % 1 plain - - AGE", owns("host-2")),
        format!("note: {assumed}. --aodh and --tooz PARTITIONS assume others"),
    ];
    assert_eq!((ran.code, ran.lines()), (0, table.to_vec()), "{ran:?}");
    let answers = run(&url, &[&["owner", "--json", "k1", "k2", "k3"], &fleet[..]].concat()).await.json();
    for answer in answers["items"].as_array().unwrap() {
        assert_eq!(answer["owner"].as_str(), ring.owner(answer["key"].as_str().unwrap()), "{answer}");
    }
    // Which ring that is no member says, so each answer about owners says what it assumes.
    for command in [&["status"][..], &["owner", "k"], &["why", "k"], &["simulate", "--leave", "host-1"]] {
        let ran = run_with(&url, &[command, &fleet[..]].concat(), "k").await;
        assert!(ran.code == 0 && ran.out.contains(assumed), "{ran:?}");
        let shown = run_with(&url, &[command, &fleet[..], &["--json"]].concat(), "k").await.json();
        let found = shown["items"].get(0).and_then(|item| item.get("findings")).unwrap_or(&shown["findings"]);
        assert!(findings(found).contains(assumed), "{command:?}: {shown}");
    }
}

#[tokio::test]
async fn a_group_of_tooz_that_stands_still_is_named_with_the_member_that_is_the_reason() {
    let (store, url) = store("command-unclear").await;
    let tooz = |config: Config| config.label(Label::Tooz).replicas(32);
    let a = store.agent_with("a", tooz).await;
    let in_a = a.coordinator.join("g").await.unwrap();
    let _odd = store.plain("g", "odd", b"\xc0").await;
    let refused = || async { (in_a.view().standing() == Standing::Refused).then_some(()) };
    eventually("the member is refused", 10 * SECOND, refused).await;
    let said = "the ring of group `g` is not certain: member `odd`";
    named(&url, &["status", "--tooz", "32"], &[said]).await;
    named(&url, &["why", "k", "--tooz", "32"], &["k: no owner", said]).await;
    named(&url, &["owner", "k", "--tooz", "32"], &[said]).await;
}

#[tokio::test]
async fn a_member_of_tooz_in_a_group_with_another_ring_is_noted() {
    let (store, url) = store("command-hint").await;
    let _python = store.plain("g", "python", b"\x81\xa6weight\x01").await;
    let ran = run(&url, &["status"]).await;
    assert!(ran.code == 0 && ran.out.contains("note: member `python` announces a weight"), "{ran:?}");
    let ran = run(&url, &["status", "--tooz", "32"]).await;
    assert!(ran.code == 0 && !ran.out.contains("announces"), "{ran:?}");
}

#[tokio::test]
async fn an_answer_is_not_certain_while_the_head_cannot_be_read() {
    let (store, url) = store("command-head").await;
    let session = store.session().await;
    create_with_ancestors(&*session, &store.head("g")).await;
    let _python = store.plain("g", "python", b"\xc0").await;
    for answer in ["why", "owner"] {
        let ran = named(&url, &[answer, "k"], &["problem: ", "/command-head.ring/g", "python"]).await;
        assert!(!ran.out.contains("nothing keeps it"), "{ran:?}");
    }
}

#[tokio::test]
async fn what_would_move_is_simulated_for_keys_of_standard_input() {
    let (store, url) = store("command-simulate").await;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let keys = universe().join("\n");
    let before = HashRing::builder().members(["a", "b"]).build().unwrap();
    let after = HashRing::builder().member("b").weighted_member("c", 2).build().unwrap();
    let count =
        |ring: &HashRing, id: &str| universe().iter().filter(|key| ring.owner(*key) == Some(id)).count();
    let moves = |key: &&String| before.owner(*key) != after.owner(*key);
    let moved = universe().iter().filter(moves).count();
    let change = ["simulate", "--leave", "a", "--join", "c=2"];
    let ran = run_with(&url, &change, &keys).await;
    let (of_a, b_before, b_after, of_c) =
        (count(&before, "a"), count(&before, "b"), count(&after, "b"), count(&after, "c"));
    let lines = ran.lines();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(lines[0], "MEMBER BEFORE AFTER GAINS LOSES");
    assert_eq!(lines[1], format!("a {of_a} 0 0 {of_a}"));
    assert!(lines[2].starts_with(&format!("b {b_before} {b_after} ")), "{lines:?}");
    assert_eq!(lines[3], format!("c 0 {of_c} {of_c} 0"));
    assert_eq!(lines[4], format!("{moved} of 100 keys would move"));
    let shown = run_with(&url, &[&change[..], &["--json", "--list"]].concat(), &keys).await.json();
    assert!(shown["moved"] == moved && shown["list"].as_array().map(Vec::len) == Some(moved), "{shown}");

    let ran = run_with(&url, &["simulate", "--leave", "x"], &keys).await;
    assert!(ran.code == 4 && ran.err.contains("no member `x`") && ran.err.contains("a, b"), "{ran:?}");
    // A group that is not there has no owners, whatever would join it.
    for arguments in [&["simulate", "--join", "c"][..], &["owner", "k"], &["members"], &["why", "k"]] {
        let ran = run_with(&url, &[arguments, &["--group", "typo"]].concat(), &keys).await;
        assert!(ran.code == 1 && ran.out.contains("there is no group `typo`"), "{arguments:?}: {ran:?}");
        assert!(!ran.out.contains("would move"), "{ran:?}");
        let ran = run_with(&url, &[arguments, &["--group", "typo", "--json"]].concat(), &keys).await;
        assert!(ran.code == 1 && ran.json()["findings"][0]["code"] == "no_group", "{arguments:?}: {ran:?}");
    }
    assert_eq!(run(&url, &["simulate"]).await.code, 2);
    for wrong in ["c=0", "c/d", "."] {
        assert_eq!(run(&url, &["simulate", "--join", wrong]).await.code, 2, "{wrong}");
    }

    // The reader of a pipe may end before the command.
    let many: String = (0..100_000).map(|number| format!("key-{number}\n")).collect();
    let mut piped = command(&url, &["simulate", "--leave", "a", "--list"]);
    piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, many.as_bytes()).await.unwrap();
    drop(input);
    let ended = tokio::time::timeout(60 * SECOND, child.wait_with_output()).await.unwrap().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn weights_are_simulated_as_they_would_count_beside_python_members_and_without_them() {
    let (store, url) = store("command-weights").await;
    let a = store.agent("a").await;
    let in_a = a.joining("g").weight(3).await.unwrap();
    let _python = store.plain("g", "python", b"\xc0").await;
    let mixed = || async { in_a.view().ring().contains("python").then_some(()) };
    eventually("both are members", store.round() + 10 * SECOND, mixed).await;
    let keys = universe().join("\n");
    let simulate = async |change: &[&str], after: &HashRing, notes: &[&str]| {
        let ran = run_with(&url, &[&["simulate", "--json"], change].concat(), &keys).await;
        let shown = ran.json();
        for member in shown["members"].as_array().unwrap() {
            let id = member["id"].as_str().unwrap();
            let keys = universe().iter().filter(|key| after.owner(*key) == Some(id)).count();
            assert_eq!(member["after"], keys, "{change:?}: {shown}");
        }
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(findings(&shown["findings"]).lines().collect::<Vec<_>>(), notes, "{change:?}");
    };
    let all_one = HashRing::builder().members(["a", "python", "c"]).build().unwrap();
    let ignored = "beside a plain or immediate member each weight counts as 1, also `a` with 3, `c` with 2";
    simulate(&["--join", "c=2"], &all_one, &[ignored]).await;
    let weighted = HashRing::builder().weighted_member("a", 3).weighted_member("c", 2).build().unwrap();
    let counted = "without a plain or immediate member the weights count again: `a` with 3";
    simulate(&["--leave", "python", "--join", "c=2"], &weighted, &[counted]).await;
}

#[tokio::test]
async fn a_watch_prints_each_change_and_ends_when_it_is_told_to() {
    let (store, url) = store("command-watch").await;
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let watching = {
        let url = url.clone();
        async move { run(&url, &["watch", "--count", "4"]).await }
    };
    let changing = async {
        // The first lines come before the change or after it; both are changes.
        let b = store.agent("b").await;
        let in_b = b.join("g").await;
        settles_within(store.round(), &[&in_a, &in_b]).await;
        tokio::time::sleep(60 * SECOND).await;
    };
    let ran = tokio::select! {
        biased;
        ran = watching => ran,
        () = changing => panic!("the watch does not end"),
    };
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with("epoch ") && ran.out.contains("  a: ") && !ran.out.contains('\u{1b}'),
        "{ran:?}"
    );
    assert_eq!(ran.out.lines().count(), 4, "{ran:?}");
    assert_eq!(run(&url, &["watch", "--count", "1"]).await.out.lines().count(), 1);
    let ran = run(&url, &["watch", "--json", "--for", "500ms"]).await;
    let first: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    assert!(ran.code == 0 && first["group"] == "g", "{ran:?}");
    assert!(first["current"] == true && first["problem"].is_null(), "{first}");
}

/// No server is there.
const NOWHERE: &str = "zookeeper://127.0.0.1:1?timeout=1&server_tick=100ms";

#[tokio::test]
async fn a_command_that_cannot_do_its_work_says_what_to_do_and_never_the_password() {
    let (store, url) = store("command-errors").await;
    for (arguments, code, said) in [
        (&["status"][..], 4, "no namespace `/command-errors`"),
        (&["owner", "k", "--group", "g"], 4, "no namespace"),
        (
            &["status", "--url", "zookeeper://u:topsecret@127.0.0.1:1?timeout=1&server_tick=100ms"],
            3,
            "connection refused",
        ),
        (&["status", "--url", "zookeeper://u:topsecret@127.0.0.1:1?tiemout=1"], 2, "tiemout"),
        (&["status", "--url", "http://u:topsecret@127.0.0.1"], 2, "scheme"),
        (&["status", "--url", "zookeeper://h", "--namespace", "/a"], 2, "namespace"),
        (
            &["doctor", "--url", "zookeeper://u:topsecret@127.0.0.1:1?timeout=1&server_tick=100ms"],
            3,
            "refused",
        ),
        (&["frobnicate"], 2, "unrecognized"),
        (&["owner"], 2, "KEY"),
        // Wrong arguments are found before a server is asked.
        (&["queue", "put", "1", "--priority", "5000", "--url", NOWHERE], 2, "5000"),
        (&["owner", "k", "-g", "a/b", "--url", NOWHERE], 2, "a/b"),
        (&["doctor", "--board", "nopath", "--url", NOWHERE], 2, "nopath"),
        (&["status", "--queue", "/q/", "--url", NOWHERE], 2, "/q/"),
        (&["simulate", "--join", "c=x", "--url", NOWHERE], 2, "MEMBER=WEIGHT"),
    ] {
        let ran = run(&url, arguments).await;
        assert!(ran.code == code && ran.err.contains(said), "{arguments:?}: {ran:?}");
        assert!(!ran.err.contains("topsecret") && !ran.out.contains("topsecret"), "{arguments:?}: {ran:?}");
    }
    for (arguments, code, word) in [
        (&["status"][..], 4, "not_done"),
        (&["owner"], 2, "usage"),
        (&["status", "--url", NOWHERE], 3, "unreachable"),
    ] {
        let ran = run(&url, &[arguments, &["--json"]].concat()).await;
        let said: Value = serde_json::from_str(&ran.err).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        assert!(ran.code == code && said["code"] == word && said["error"].is_string(), "{ran:?}");
    }
    let mut without = command(&url, &["status"]);
    let ended = without.env_remove("APPORTION_URL").output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(2) && said.contains("APPORTION_URL"), "{said}");
    let session = store.session().await;
    for path in ["/command-errors", "/command-errors.ring"] {
        let there = session.get(&ZnodePath::parse(path).unwrap()).await.unwrap();
        assert!(there.is_none(), "the command has created {path}");
    }

    // Several groups: which one?
    create_with_ancestors(&*session, &store.path("g")).await;
    create_with_ancestors(&*session, &store.path("h")).await;
    let ran = run(&url, &["members"]).await;
    assert!(ran.code == 2 && ran.err.contains("--group with one of: g, h"), "{ran:?}");
    let ran = run(&url, &["status"]).await;
    assert!(
        ran.code == 1 && ran.out.contains("group `g` has no member") && ran.out.contains("group `h`"),
        "{ran:?}"
    );
    let ran = run(&url, &["why", "k", "--group", "nope"]).await;
    assert!(ran.code == 1 && ran.out.contains("no group `nope`"), "{ran:?}");
    // Nothing of all this was written.
    let (names, _) = session.children(&store.path("g").parent().unwrap()).await.unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn a_doctor_finds_unsafe_settings_and_leaves_nothing() {
    let (store, _) = store("command-doctor").await;
    let servers = shared_server().await.connect_string();
    let session = store.session().await;
    create_with_ancestors(&*session, &store.path("g")).await;
    let leader = Op::create(&store.path("g/leader"), "", CreateMode::Persistent);
    session.commit(vec![leader]).await.unwrap();
    let tree = || async {
        let (mut root, _) = session.children(&ZnodePath::root()).await.unwrap();
        root.retain(|name| name.starts_with("command-doctor") || name.starts_with("apportion-doctor"));
        root
    };
    let before = tree().await;
    let url = format!("zookeeper://{servers}?namespace=command-doctor&timeout=2&server_tick=50ms");
    let ran =
        named(&url, &["doctor"], &["tickTime is 100ms", "server_tick=50ms", "ZooKeeper 3.", "clocks"]).await;
    assert!(ran.out.contains("group `g` has no member"), "{ran:?}");
    assert!(ran.out.contains("`/command-doctor/g/leader` is no member"), "{ran:?}");
    let url = format!("zookeeper://{servers}?namespace=command-doctor&timeout=100&server_tick=100ms");
    named(&url, &["doctor"], &["maxSessionTimeout is 60s", "granted a session timeout of 60s"]).await;
    assert_eq!(tree().await, before);
    let ran = run(&url, &["doctor", "--json", "--read-only"]).await;
    let found = ran.json()["findings"].clone();
    assert!(found[0]["section"] == "servers" && found[0]["code"].is_string(), "{found}");
    let all = findings(&found);
    assert!(
        all.contains("could not find out: the clock") && all.contains("what this user may write"),
        "{all}"
    );
}

#[tokio::test]
async fn the_permission_to_read_is_enough_to_observe() {
    let (store, url) = store("command-read-only").await;
    let servers = shared_server().await.connect_string();
    let owner = || zookeeper(&servers).digest("owner", "secret");
    let (a, b) = (store.connect(owner(), "a").await, store.connect(owner(), "b").await);
    let in_a = store.join(&a, "g").await.unwrap();
    let in_b = store.join(&b, "g").await.unwrap();
    settles_within(store.round(), &[&in_a, &in_b]).await;
    // What they have created is theirs alone. Now every client may read it, and no more.
    let admin = zookeeper_client::Client::connector()
        .with_auth("digest", b"owner:secret")
        .connect(&servers)
        .await
        .unwrap();
    let mut ahead = vec!["/command-read-only".to_owned(), "/command-read-only.ring".to_owned()];
    let read =
        zookeeper_client::Acl::new(zookeeper_client::Permission::READ, zookeeper_client::AuthId::anyone());
    let own =
        zookeeper_client::Acl::new(zookeeper_client::Permission::ALL, zookeeper_client::AuthId::authed());
    while let Some(at) = ahead.pop() {
        let children = admin.list_children(&at).await.unwrap();
        ahead.extend(children.iter().map(|child| format!("{at}/{child}")));
        admin.set_acl(&at, &[read.clone(), own.clone()], None).await.unwrap();
    }
    let anonymous = store.session().await;
    let refused = anonymous.commit(vec![Op::create(&store.path("g/x"), "", CreateMode::Ephemeral)]).await;
    assert_eq!(refused.unwrap_err().error, apportion::backend::Error::NotPermitted);

    let watcher = store.agent("watcher").await;
    let observer = watcher.coordinator.observe("g").await.unwrap();
    let seen = observer.observation();
    let ids: Vec<_> = seen.members().iter().map(|it| it.member.id().as_str()).collect();
    assert!(ids == ["a", "b"] && seen.is_exclusive() && seen.problem().is_none(), "{seen:?}");
    in_b.leave().await.unwrap();
    let alone = || async { (observer.observation().members().len() == 1).then_some(()) };
    eventually("the change is seen", store.round(), alone).await;
    let ran = run(&url, &["status"]).await;
    assert!(ran.code == 0 && ran.out.contains("1 member"), "{ran:?}");
    let denied = "permission to create children of `/command-read-only/g` is denied";
    named(&url, &["doctor"], &[denied]).await;
}

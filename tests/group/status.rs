//! The status of a coordinator: its session, groups, boards and queues.

use std::time::Duration;

use apportion::{
    Config, PartitionCoordinator,
    backend::Memory,
    group::MemberState,
    status::{SessionState, Standing, Status, Why},
};

use crate::support::SECOND;

async fn member(memory: &Memory, id: &str) -> PartitionCoordinator {
    PartitionCoordinator::connect(Config::for_backend(memory.clone()).member_id(id)).await.unwrap()
}

/// Waits until `is` is true of the status.
async fn until(coordinator: &PartitionCoordinator, is: impl Fn(&Status) -> bool) -> Status {
    let waiting = async {
        loop {
            let status = coordinator.status();
            if is(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(120 * SECOND, waiting).await.unwrap_or_else(|_| panic!("{}", coordinator.status()))
}

#[tokio::test(start_paused = true)]
async fn it_shows_everything_that_is_open_and_can_be_read_back() {
    let memory = Memory::new();
    let a = member(&memory, "a").await;
    let board = a.job_board("/jobs").await.unwrap();
    let queue = a.queue("/entries").max_len(7).await.unwrap();
    let _group = a.join("g").await.unwrap();
    board.post("early").await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    board.post("claimed").await.unwrap();
    board.post("late").delay(60 * SECOND).await.unwrap();
    let claim = board.claim_where(|job| job.name() == "claimed").await.unwrap();
    queue.put(1).await.unwrap();
    queue.put(2).await.unwrap();
    let delivery = queue.take().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let status = a.status();
    assert!(status.obstacles().is_empty());
    assert_eq!(status.session.state, SessionState::Connected);
    assert!(status.session.remaining > Some(SECOND) && status.session.id.is_some());
    let [group] = &status.groups[..] else { panic!("{status}") };
    assert_eq!((group.status.members, group.parts.len(), group.parts[0].owned), (1, 1, 1.0));
    let [jobs] = &status.boards[..] else { panic!("{status}") };
    assert_eq!((jobs.unclaimed, jobs.delayed, jobs.claimed, jobs.held), (1, 1, 1, 1));
    assert!(jobs.oldest >= Some(7 * SECOND) && jobs.oldest < Some(8 * SECOND), "{jobs}");
    assert!(jobs.oldest_held >= Some(2 * SECOND) && jobs.oldest_held < Some(3 * SECOND), "{jobs}");
    let [entries] = &status.queues[..] else { panic!("{status}") };
    assert_eq!((entries.waiting, entries.held, entries.max_len), (1, 1, 7));
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    let shown = status.to_string();
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(
        shown.contains("/jobs") && shown.contains("/entries") && shown.contains("a in g: member"),
        "{shown}"
    );
    claim.consume().await.unwrap();
    delivery.done("well").await.unwrap();
    drop(delivery);
    drop(board);
    drop(queue);
    let status = until(&a, |status| status.boards.is_empty() && status.queues.is_empty()).await;
    assert_eq!(status.groups.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_entry_of_a_queue_has_waited_since_it_was_seen() {
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let ours = a.queue("/entries").await.unwrap();
    assert_eq!((a.status().queues[0].oldest, a.status().queues[0].listed), (None, None), "it was not listed");
    b.queue("/entries").await.unwrap().put("x").await.unwrap();
    assert_eq!(ours.entries().await.unwrap().len(), 1);
    tokio::time::sleep(9 * SECOND).await;
    b.queue("/entries").await.unwrap().put("y").await.unwrap();
    assert_eq!(ours.entries().await.unwrap().len(), 2);
    let oldest = |coordinator: &PartitionCoordinator| coordinator.status().queues[0].oldest;
    assert!(oldest(&a) >= Some(9 * SECOND), "{:?}", oldest(&a));
    ours.take().await.unwrap().done("well").await.unwrap();
    assert!(oldest(&a) < Some(SECOND), "{:?}", oldest(&a));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_takes_nothing_knows_a_queue_ten_seconds_later() {
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let (ours, theirs) = (a.queue("/entries").await.unwrap(), b.queue("/entries").await.unwrap());
    for number in 0..3 {
        ours.put(number).await.unwrap();
    }
    ours.put("later").delay(3600 * SECOND).await.unwrap();
    let counts = || (a.status().queues[0].waiting, a.status().queues[0].delayed);
    assert_eq!(counts(), (3, 1));
    for _ in 0..3 {
        theirs.take().await.unwrap().done("well").await.unwrap();
    }
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(counts(), (0, 1), "another process has taken them");
    for number in 0..5 {
        theirs.put(number).await.unwrap();
    }
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(counts(), (5, 1), "another process has put them");
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(counts(), (6, 0), "its time has come");
}

#[tokio::test(start_paused = true)]
async fn it_says_what_keeps_the_member_from_acting() {
    let memory = Memory::new();
    let a = member(&memory, "a").await;
    let _group = a.join("g").await.unwrap();
    let session = a.session_id().unwrap();
    memory.suspend(session);
    let status = until(&a, |status| !status.obstacles().is_empty()).await;
    let said = status.obstacles().join("\n");
    assert!(said.contains("no heartbeat is confirmed") && said.contains("group g: lapsed"), "{said}");
    assert_eq!(status.session.state, SessionState::Suspended);
    memory.resume(session);
    until(&a, |status| status.obstacles().is_empty()).await;
    a.shutdown().await.unwrap();
    assert_eq!(a.status().obstacles(), ["the coordinator is closed"]);
    let alone = PartitionCoordinator::standalone();
    let _ours = alone.join("g").await.unwrap();
    assert_eq!(alone.status().session.state, SessionState::Standalone);
    assert!(alone.status().obstacles().is_empty());
    alone.shutdown().await.unwrap();
    assert_eq!(alone.status().obstacles(), ["the coordinator is closed"]);
}

#[tokio::test(start_paused = true)]
async fn it_says_for_whom_the_keys_of_a_group_wait() {
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let at_work: Vec<_> =
        a.join("g").await.unwrap().extract_my_subset(0..100).await.unwrap().into_iter().collect();
    let theirs = b.join("g").await.unwrap();
    let status = until(&b, |status| {
        status
            .groups
            .iter()
            .any(|group| group.status.waiting.iter().any(|waiting| waiting.why == Why::StillAtWork))
    })
    .await;
    let group = &status.groups[0];
    assert_eq!(group.status.waiting[0].member.as_str(), "a");
    assert!(status.obstacles().is_empty(), "it may act on what it has");
    let sum: f64 = group.parts.iter().map(|part| part.owned).sum();
    assert_eq!((sum, group.parts.len()), (1.0, 2));
    drop(at_work);
    until(&b, |status| status.groups[0].status.waiting.is_empty()).await;
    theirs.pause().await.unwrap();
    assert!(until(&a, |status| status.groups[0].status.is_paused).await.obstacles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_stall_is_named_within_a_second_after_its_cause_is_known() {
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let (_ours, theirs) = (a.join("g").await.unwrap(), b.join("g").await.unwrap());
    until(&b, |status| status.groups[0].status.members == 2).await;
    while !theirs.status().waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A member that is stopped: a new one waits for it.
    memory.suspend(a.session_id().unwrap());
    let c = member(&memory, "c").await;
    let _new = c.join("g").await.unwrap();
    tokio::time::sleep(SECOND).await;
    let waiting = &c.status().groups[0].status.waiting;
    let named = waiting.iter().find(|it| it.member.as_str() == "a" && it.why == Why::NotAcknowledged);
    assert!(named.is_some(), "{}", c.status());
    memory.resume(a.session_id().unwrap());
    // A queue without room.
    let queue = b.queue("/entries").max_len(1).await.unwrap();
    queue.put(1).await.unwrap();
    queue.put(2).await.unwrap_err();
    assert_eq!(queue.entries().await.unwrap().len(), 1);
    let entries = &b.status().queues[0];
    assert_eq!((entries.waiting, entries.max_len), (1, 1));
    // A permission that is missing.
    let private = memory.as_user("owner");
    let owner =
        PartitionCoordinator::connect(Config::for_backend(private).namespace("private")).await.unwrap();
    let _private = owner.join("g").await.unwrap();
    let other = Config::for_backend(memory.as_user("other")).namespace("private");
    let other = PartitionCoordinator::start(other).unwrap();
    let _denied = other.join("g").await.unwrap();
    tokio::time::sleep(SECOND).await;
    let said = other.status().obstacles().join("\n");
    assert!(said.contains("not permitted on znode `/private`"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_called_full() {
    let memory = Memory::new();
    let a = member(&memory, "a").await;
    let queue = a.queue("/entries").max_len(2).await.unwrap();
    queue.put(1).await.unwrap();
    assert_eq!(queue.entries().await.unwrap().len(), 1);
    assert!(a.status().to_string().contains("/entries: 1 waiting, 0 delayed, limit 2"), "{}", a.status());
    queue.put(2).delay(60 * SECOND).await.unwrap();
    assert_eq!(queue.entries().await.unwrap().len(), 2);
    let status = until(&a, |status| status.queues[0].is_full()).await;
    let text = status.to_string();
    assert!(text.contains("/entries: full: ") && text.contains(", limit 2"), "{text}");
}

#[test]
fn the_word_of_a_state_is_that_of_its_serialized_form() {
    fn same<T: serde::Serialize + Copy>(all: &[T], word: impl Fn(T) -> &'static str) {
        for state in all {
            assert_eq!(serde_json::to_value(state).unwrap(), word(*state));
        }
    }
    same(SessionState::ALL, SessionState::as_str);
    same(Standing::ALL, Standing::as_str);
    same(Why::ALL, Why::as_str);
    same(MemberState::ALL, MemberState::as_str);
    let counts = [SessionState::ALL.len(), Standing::ALL.len(), Why::ALL.len(), MemberState::ALL.len()];
    assert_eq!(counts, [5, 5, 4, 5]);
}

//! The in-memory backend: what every backend promises, and the failures that only this one can simulate.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use apportion::{
    backend::{
        Connector, CreateMode, Error, Fired, Loss, Memory, Op, Session, SessionState, Watch,
        memory::LostReply, path::ZnodePath,
    },
    clock::Clock,
    testing::{Faults, conformance, differential},
};

use crate::support::path;

const TIMEOUT: Duration = Duration::from_secs(10);
const JUST_BEFORE: Duration = Duration::from_millis(9_999);
const MOMENT: Duration = Duration::from_millis(1);

fn ephemeral(path: &ZnodePath) -> Vec<Op> {
    vec![Op::create(path, "", CreateMode::Ephemeral)]
}

fn persistent(path: &ZnodePath) -> Vec<Op> {
    vec![Op::create(path, "", CreateMode::Persistent)]
}

async fn open(memory: &Memory) -> Arc<dyn Session> {
    memory.open(TIMEOUT).await.unwrap()
}

fn state(session: &Arc<dyn Session>) -> SessionState {
    *session.state().borrow()
}

async fn exists(session: &Arc<dyn Session>, path: &ZnodePath) -> bool {
    session.get(path).await.unwrap().is_some()
}

async fn has_fired(watch: &mut Watch) -> bool {
    is_ready(watch.fired()).await
}

/// Whether `future` is ready after the other tasks had their turn. Drops it.
async fn is_ready<T>(future: impl Future<Output = T>) -> bool {
    let mut future = pin!(future);
    tokio::task::yield_now().await;
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[tokio::test]
async fn it_keeps_the_promises_of_a_backend() {
    let memory = Memory::new();
    conformance::run(Arc::new(memory.clone()), &path("/a/root")).await;
    assert!(memory.sessions().is_empty(), "all sessions were closed");
}

#[tokio::test(start_paused = true)]
async fn it_keeps_them_under_paused_time_and_under_a_decorator() {
    let faults = Faults::new(Arc::new(Memory::new()));
    conformance::run(Arc::new(faults), &path("/suite")).await;
}

#[tokio::test]
#[should_panic(expected = "conformance: a znode is read as it was written: [Create")]
async fn the_conformance_suite_names_the_promise_that_is_broken() {
    let faults = Faults::new(Arc::new(Memory::new()));
    faults.deny(&path("/suite/a_znode_is_read_as_it_was_written/n"));
    conformance::run(Arc::new(faults), &path("/suite")).await;
}

#[tokio::test]
async fn two_of_them_do_the_same_on_random_transactions() {
    for seed in 0..16 {
        let [a, b] = [Memory::new(), Memory::new()].map(|memory| Arc::new(memory) as Arc<dyn Connector>);
        // Another past shifts zxids and session ids, which must not matter.
        let earlier = b.open(TIMEOUT).await.unwrap();
        earlier.commit(persistent(&path("/earlier"))).await.unwrap();
        differential::run(a, b, &path("/random/work"), seed, 300).await;
    }
}

#[tokio::test]
#[should_panic(expected = "differential: seed 7, step ")]
async fn the_differential_test_names_the_step_at_which_two_differ() {
    let faults = Faults::new(Arc::new(Memory::new()));
    faults.lose_nth_write(40, LostReply::BeforeApplying);
    differential::run(Arc::new(Memory::new()), Arc::new(faults), &path("/suite"), 7, 300).await;
}

#[test]
fn the_suites_can_run_on_any_runtime() {
    fn sendable(_: impl Send) {}
    let memory: Arc<dyn Connector> = Arc::new(Memory::new());
    sendable(conformance::run(Arc::clone(&memory), &path("/suite")));
    sendable(differential::run(Arc::clone(&memory), memory, &path("/suite"), 0, 0));
}

#[tokio::test]
async fn an_expired_session_is_over_and_its_znodes_are_gone_before_it_learns_of_it() {
    let memory = Memory::new();
    let (session, other) = (open(&memory).await, open(&memory).await);
    let member = path("/member");
    session.commit(ephemeral(&member)).await.unwrap();
    let (_, mut own) = session.watch_node(&member).await.unwrap();
    let (.., mut theirs) = other.watch_children(&ZnodePath::root()).await.unwrap();
    memory.expire(session.id());
    assert_eq!(state(&session), SessionState::Lost(Loss::Expired));
    assert!(!exists(&other, &member).await);
    assert_eq!(
        own.fired().await,
        Fired::Lost(Loss::Expired),
        "its own watch fires with the loss of the session"
    );
    assert_eq!(theirs.fired().await, Fired::Changed);
    let lost = Error::Lost(Loss::Expired);
    assert_eq!(session.get(&member).await, Err(lost.clone()));
    assert_eq!(session.commit(ephemeral(&member)).await, Err(lost.into()));
    session.close().await;
    assert_eq!(state(&session), SessionState::Lost(Loss::Expired), "the first reason stays");
    assert_eq!(memory.sessions(), [other.id()]);
    memory.expire(session.id());
}

#[tokio::test(start_paused = true)]
async fn operations_of_a_suspended_session_hang_until_it_resumes() {
    let memory = Memory::new();
    let (session, other) = (open(&memory).await, open(&memory).await);
    let a = path("/a");
    memory.suspend(session.id());
    assert_eq!(state(&session), SessionState::Suspended);
    assert!(!is_ready(session.get(&a)).await);
    let mut write = session.commit(persistent(&a));
    assert!(tokio::time::timeout(JUST_BEFORE, &mut write).await.is_err());
    assert!(!exists(&other, &a).await);
    memory.resume(session.id());
    write.await.unwrap();
    assert!(exists(&other, &a).await);
    assert_eq!(state(&session), SessionState::Connected { epoch: 2 });
    memory.resume(session.id());
    assert_eq!(state(&session), SessionState::Connected { epoch: 2 }, "there was nothing to resume");
}

#[tokio::test(start_paused = true)]
async fn operations_that_hang_fail_when_the_session_is_lost() {
    let memory = Memory::new();
    let other = open(&memory).await;
    let a = path("/a");
    for (close, loss) in [(false, Loss::Expired), (true, Loss::Closed)] {
        let session = open(&memory).await;
        memory.suspend(session.id());
        let end = async {
            if close {
                session.close().await;
            }
        };
        let (read, write, ()) = tokio::join!(session.get(&a), session.commit(persistent(&a)), end);
        assert_eq!(read, Err(Error::Lost(loss)));
        assert_eq!(write, Err(Error::Lost(loss).into()));
    }
    assert!(!exists(&other, &a).await);
}

#[tokio::test(start_paused = true)]
async fn writes_during_a_suspension_are_applied_in_order_after_it_even_if_no_caller_waits_for_them() {
    let memory = Memory::new();
    let session = open(&memory).await;
    let a = path("/a");
    memory.suspend(session.id());
    for data in ["one", "two"] {
        let ops = if data == "one" { persistent(&a) } else { vec![Op::set(&a, data, Some(0))] };
        assert!(tokio::time::timeout(MOMENT, session.commit(ops)).await.is_err());
    }
    memory.resume(session.id());
    let (data, stat) = session.get(&a).await.unwrap().unwrap();
    assert_eq!((data.as_slice(), stat.version), (&b"two"[..], 1));
}

#[tokio::test]
async fn changes_during_a_suspension_fire_watches_after_it_and_no_others() {
    let memory = Memory::new();
    let (session, other) = (open(&memory).await, open(&memory).await);
    let [a, b] = ["/a", "/b"].map(path);
    let (_, mut on_a) = session.watch_node(&a).await.unwrap();
    let (_, mut on_b) = session.watch_node(&b).await.unwrap();
    let (.., mut on_root) = session.watch_children(&ZnodePath::root()).await.unwrap();
    memory.suspend(session.id());
    other.commit(persistent(&a)).await.unwrap();
    assert!(!has_fired(&mut on_a).await && !has_fired(&mut on_root).await);
    memory.resume(session.id());
    assert_eq!(on_a.fired().await, Fired::Changed);
    assert_eq!(on_root.fired().await, Fired::Changed);
    assert!(!has_fired(&mut on_b).await);
    other.commit(persistent(&b)).await.unwrap();
    assert_eq!(on_b.fired().await, Fired::Changed, "it stayed armed");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_session_expires_by_itself_after_its_timeout() {
    let memory = Memory::new();
    let (session, other) = (open(&memory).await, open(&memory).await);
    let member = path("/member");
    session.commit(ephemeral(&member)).await.unwrap();
    let (_, mut own) = session.watch_node(&member).await.unwrap();
    memory.suspend(session.id());
    tokio::time::sleep(JUST_BEFORE).await;
    assert_eq!(state(&session), SessionState::Suspended);
    assert!(exists(&other, &member).await);
    memory.suspend(session.id());
    tokio::time::sleep(2 * MOMENT).await;
    assert_eq!(state(&session), SessionState::Lost(Loss::Expired), "a second suspension is none");
    assert_eq!(own.fired().await, Fired::Lost(Loss::Expired));
    assert!(!exists(&other, &member).await);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_session_lives_on_and_each_suspension_has_the_whole_timeout() {
    let memory = Memory::new();
    let session = open(&memory).await;
    for epoch in 2..5 {
        memory.suspend(session.id());
        tokio::time::sleep(JUST_BEFORE).await;
        assert_eq!(state(&session), SessionState::Suspended);
        memory.resume(session.id());
        assert_eq!(state(&session), SessionState::Connected { epoch });
    }
    tokio::time::sleep(3 * TIMEOUT).await;
    session.commit(ephemeral(&path("/member"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_crashes_keeps_its_znodes_for_the_session_timeout() {
    let memory = Memory::new();
    let (session, other) = (open(&memory).await, open(&memory).await);
    let (member, id) = (path("/member"), session.id());
    session.commit(ephemeral(&member)).await.unwrap();
    let (_, mut watch) = other.watch_node(&member).await.unwrap();
    memory.suspend(id);
    drop(session);
    tokio::time::sleep(JUST_BEFORE).await;
    assert!(exists(&other, &member).await);
    assert_eq!(memory.sessions(), [id, other.id()]);
    tokio::time::timeout(2 * MOMENT, watch.fired()).await.unwrap();
    assert!(!exists(&other, &member).await);
    assert_eq!(memory.sessions(), [other.id()]);
}

#[tokio::test(start_paused = true)]
async fn neither_sessions_nor_the_ensemble_leave_tasks_behind() {
    let running = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let memory = Memory::new();
    for _ in 0..3 {
        let session = open(&memory).await;
        memory.suspend(session.id());
        memory.resume(session.id());
        memory.suspend(session.id());
    }
    assert_ne!(running(), 0, "something waits for the sessions to expire");
    tokio::time::sleep(TIMEOUT + MOMENT).await;
    assert_eq!(running(), 0);
    let session = open(&memory).await;
    memory.suspend(session.id());
    drop((session, memory));
    tokio::time::sleep(MOMENT).await;
    assert_eq!(running(), 0, "no handle is left, so no task waits for the session to expire");
}

#[tokio::test(start_paused = true)]
async fn closing_a_suspended_session_does_not_reach_the_ensemble() {
    let memory = Memory::new();
    let other = open(&memory).await;
    let members = ["/expires", "/resumes"].map(path);
    let mut sessions = Vec::new();
    for member in &members {
        let session = open(&memory).await;
        session.commit(ephemeral(member)).await.unwrap();
        let (_, mut own) = session.watch_node(member).await.unwrap();
        memory.suspend(session.id());
        tokio::time::timeout(MOMENT, session.close()).await.unwrap();
        assert_eq!(state(&session), SessionState::Lost(Loss::Closed));
        assert_eq!(own.fired().await, Fired::Lost(Loss::Closed));
        assert!(exists(&other, member).await);
        sessions.push(session);
    }
    memory.resume(sessions[1].id());
    assert!(!exists(&other, &members[1]).await, "the connection is back, and the close goes through");
    tokio::time::sleep(TIMEOUT + MOMENT).await;
    assert!(!exists(&other, &members[0]).await);
    assert_eq!(state(&sessions[0]), SessionState::Lost(Loss::Closed), "the client ended it first");
}

#[tokio::test]
async fn a_reply_is_lost_before_or_after_the_write_is_applied() {
    for (lost, applied) in [(LostReply::BeforeApplying, false), (LostReply::AfterApplying, true)] {
        let memory = Memory::new();
        let (session, other) = (open(&memory).await, open(&memory).await);
        let member = path("/member");
        let (_, mut watch) = session.watch_node(&member).await.unwrap();
        memory.lose_reply(session.id(), lost);
        other.commit(persistent(&path("/other"))).await.unwrap();
        let error = session.commit(ephemeral(&member)).await.unwrap_err();
        assert!(error.index.is_none() && matches!(error.error, Error::Unknown(_)), "{error}");
        assert_eq!(state(&session), SessionState::Connected { epoch: 2 });
        assert_eq!(exists(&other, &member).await, applied);
        assert_eq!(has_fired(&mut watch).await, applied);
        session.commit(vec![Op::set(&path("/other"), "", None)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_reply_also_hides_a_refusal() {
    let memory = Memory::new();
    let session = open(&memory).await;
    memory.lose_reply(session.id(), LostReply::AfterApplying);
    let error = session.commit(vec![Op::exists(&path("/missing"))]).await.unwrap_err();
    assert!(error.error.is_unknown() && error.index.is_none(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_ensemble_lets_open_fail_after_the_timeout() {
    let memory = Memory::new();
    let session = open(&memory).await;
    memory.refuse_connections(true);
    let start = memory.clock().now();
    assert!(matches!(memory.open(TIMEOUT).await, Err(Error::Unreachable(_))));
    assert_eq!(memory.clock().now().saturating_since(start), TIMEOUT);
    session.commit(persistent(&path("/a"))).await.unwrap();
    let late = memory.open(TIMEOUT);
    let back = async {
        tokio::time::sleep(JUST_BEFORE).await;
        memory.refuse_connections(false);
    };
    let (late, ()) = tokio::join!(late, back);
    assert!(late.is_ok(), "it was reachable in time");
}

#[tokio::test(start_paused = true)]
async fn its_clock_follows_paused_time_and_jumps() {
    let memory = Memory::new();
    let clock = Connector::clock(&memory);
    let start = clock.now();
    tokio::time::sleep(TIMEOUT).await;
    assert_eq!(clock.now().saturating_since(start), TIMEOUT);
    memory.clock().jump(3 * TIMEOUT);
    assert_eq!(clock.now().saturating_since(start), 4 * TIMEOUT, "all handles see the same clock");
}

#[tokio::test]
async fn clones_are_one_ensemble_and_it_outlives_them_with_its_sessions() {
    let memory = Memory::new();
    let first = open(&memory.clone()).await;
    let second = open(&memory).await;
    assert_eq!(memory.sessions(), [first.id(), second.id()]);
    drop(memory);
    first.commit(persistent(&path("/a"))).await.unwrap();
    assert!(exists(&second, &path("/a")).await);
}

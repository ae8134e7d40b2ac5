//! The executor, tested from the side of a worker.

mod ends;
mod invalid_responses;
mod vanished_workers;

use std::time::Duration;

use apportion::worker::{
    Executor, LocalBroker, Request, RequestError, RequestState, Submission, TaskResult,
    transport::{Message, TransportError},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::faulty::{Faults, Faulty};
use crate::peer::{LONG, Peer, body, running, success};
use crate::support::SECOND;

async fn start(broker: &LocalBroker) -> Executor {
    Executor::builder(broker.clone()).topics(["w", "v"]).await.unwrap()
}

/// An executor that knows a worker at `w`, played by the test, that lists `t`.
async fn meet(broker: &LocalBroker) -> (Executor, Peer) {
    let mut peer = Peer::new(broker, "w").await;
    let executor = start(broker).await;
    let asked = peer.next_of("NOTIFY").await;
    peer.list(asked.reply_to.as_ref().unwrap(), &["t"]).await;
    assert!(executor.wait_for_workers("t", 1).await);
    (executor, peer)
}

/// An executor that knows a worker and asks for no others, on a transport with faults.
async fn meet_over_faulty() -> (Faulty, Executor, Peer) {
    let broker = LocalBroker::new();
    let mut peer = Peer::new(&broker, "w").await;
    let faulty = Faulty::new(&broker, 0, Faults::default());
    let executor = Executor::builder(faulty.clone()).topics(["w"]).notify_period(LONG).await.unwrap();
    peer.list(executor.name(), &["t"]).await;
    assert!(executor.wait_for_workers("t", 1).await);
    peer.next_of("NOTIFY").await;
    (faulty, executor, peer)
}

fn t() -> Request {
    Request::execute("t")
}

#[tokio::test(start_paused = true)]
async fn every_topic_is_asked_at_the_start_and_every_five_seconds() {
    let broker = LocalBroker::new();
    let (mut w, mut v) = (Peer::new(&broker, "w").await, Peer::new(&broker, "v").await);
    let executor = start(&broker).await;
    for peer in [&mut w, &mut v] {
        let message = peer.next().await;
        assert_eq!((message.kind.as_deref(), &*message.body), (Some("NOTIFY"), b"{}".as_slice()));
        assert_eq!((message.reply_to.as_deref(), message.correlation_id), (Some(executor.name()), None));
    }
    for _ in 0..3 {
        assert!(w.receives_nothing_for(Duration::from_millis(4990)).await);
        w.next_of("NOTIFY").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_executor_needs_topics() {
    let refused = Executor::builder(LocalBroker::new()).await;
    let text = "refused: an executor needs the topics of its workers";
    assert_eq!(refused.unwrap_err().to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_worker_and_goes_through_its_life() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    let mut request = executor.submit(t().argument("x", 1));
    sleep(Duration::from_secs(30)).await;
    assert_eq!((request.state(), request.topic()), (RequestState::Waiting, None));
    let mut peer = Peer::new(&broker, "w").await;
    peer.list(executor.name(), &["t"]).await;
    let sent = peer.next_of("REQUEST").await;
    assert_eq!(sent.reply_to.as_deref(), Some(executor.name()));
    assert_eq!(sent.correlation_id.as_deref(), Some(request.id()));
    let expected = json!({"task_cls": "t", "task_name": "t", "task_version": [1, 0], "action": "execute", "arguments": {"x": 1}});
    assert_eq!(body(&sent), expected);
    assert_eq!((request.state(), request.topic().as_deref()), (RequestState::Pending, Some("w")));
    peer.respond(&sent, &running()).await;
    assert_eq!(request.wait_for_state(|state| state == RequestState::Running).await, RequestState::Running);
    peer.respond(&sent, &success("done")).await;
    assert_eq!((&mut request).await, Ok("done".into()));
    assert_eq!((request.state(), request.topic().as_deref()), (RequestState::Success, Some("w")));
}

#[tokio::test(start_paused = true)]
async fn a_revert_is_sent_with_its_result_and_failures() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let request = executor.submit(Request::revert("t", TaskResult::Success(333.into())));
    let sent = peer.next_of("REQUEST").await;
    assert_eq!(body(&sent)["action"], "revert");
    assert_eq!(body(&sent)["result"], json!(["success", 333]));
    peer.respond(&sent, &running()).await;
    peer.respond(&sent, &success("reverted")).await;
    assert_eq!(request.await, Ok("reverted".into()));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_outcome_with_its_causes() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let request = executor.submit(t());
    let sent = peer.next_of("REQUEST").await;
    let failure = |text: &str, causes| {
        json!({"exception_str": text, "traceback_str": "", "exc_type_names": ["KeyError", "Exception"],
        "version": 1, "exc_args": [], "causes": causes})
    };
    let chain = failure("outer", json!([failure("inner", json!([]))]));
    peer.respond(&sent, &json!({"state": "FAILURE", "data": {"result": chain}})).await;
    let Err(RequestError::Failed(failure)) = request.await else { panic!("it did not fail") };
    assert_eq!(failure.to_string(), "KeyError: outer, caused by KeyError: inner");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_worker_starts_on_expires_after_a_minute_and_not_before() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let (waiting, pending) = (executor.submit(Request::execute("unknown")), executor.submit(t()));
    peer.next_of("REQUEST").await;
    sleep(Duration::from_millis(59_900)).await;
    assert_eq!((waiting.state(), pending.state()), (RequestState::Waiting, RequestState::Pending));
    let both = async { (waiting.await, pending.await) };
    let expired = |was_sent| Err(RequestError::Expired { timeout: Duration::from_secs(60), was_sent });
    assert_eq!(timeout(3 * SECOND, both).await.expect("late"), (expired(false), expired(true)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_expires_waiting_requests() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    let request = executor.submit(Submission::new(t()).timeout(Duration::from_secs(3600)));
    sleep(SECOND).await;
    broker.clock().jump(Duration::from_secs(3600));
    let outcome = timeout(2 * SECOND, request).await.expect("late");
    assert_eq!(outcome, Err(RequestError::Expired { timeout: Duration::from_secs(3600), was_sent: false }));
}

#[tokio::test(start_paused = true)]
async fn an_executor_without_a_timeout_waits_for_ever() {
    let broker = LocalBroker::new();
    let executor = Executor::builder(broker).topics(["w"]).request_timeout(None).await.unwrap();
    let mut request = executor.submit(t());
    assert!(timeout(100 * LONG, &mut request).await.is_err());
    assert_eq!(request.state(), RequestState::Waiting);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_runs_does_not_expire_as_long_as_its_worker_answers() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let request = executor.submit(t());
    let sent = peer.next_of("REQUEST").await;
    peer.respond(&sent, &running()).await;
    for _ in 0..100 {
        peer.next_of("NOTIFY").await;
        peer.list(executor.name(), &["t"]).await;
    }
    assert_eq!(request.state(), RequestState::Running);
    peer.respond(&sent, &success(1)).await;
    assert_eq!(request.await, Ok(1.into()));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_silent_for_a_minute_is_dropped() {
    let broker = LocalBroker::new();
    let (executor, _peer) = meet(&broker).await;
    sleep(Duration::from_secs(58)).await;
    assert_eq!(executor.workers().keys().collect::<Vec<_>>(), ["w"]);
    sleep(Duration::from_secs(3)).await;
    assert!(executor.workers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_process_at_another_topic_is_not_taken_for_a_worker() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    let other = Peer::new(&broker, "other").await;
    other.list(executor.name(), &["t"]).await;
    sleep(SECOND).await;
    assert!(executor.workers().is_empty());
    assert_eq!(broker.message_count(executor.name()), 0);
}

#[tokio::test(start_paused = true)]
async fn progress_comes_from_the_start_and_ends_with_the_request() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let request = executor.submit(t());
    let sent = peer.next_of("REQUEST").await;
    peer.respond(&sent, &running()).await;
    let (mut live, mut late) = (request.progress(), request.progress());
    for percent in 0..100 {
        let details = json!({"progress": f64::from(percent) / 100.0});
        let event = json!({"state": "EVENT", "data": {"event_type": "update_progress", "details": details}});
        peer.respond(&sent, &event).await;
        let found = live.next().await.and_then(|event| event.as_progress());
        assert_eq!(found, Some(f64::from(percent) / 100.0));
    }
    assert_eq!(late.next().await.and_then(|event| event.as_progress()), Some(0.36));
    peer.respond(&sent, &success(1)).await;
    assert_eq!(request.await, Ok(1.into()));
    let mut rest = 1;
    while late.next().await.is_some() {
        rest += 1;
    }
    assert_eq!(rest, 64);
    assert_eq!(live.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_three_times_a_second_apart_before_that_has_failed() {
    let (faulty, executor, mut peer) = meet_over_faulty().await;
    let away = TransportError::Unavailable { reason: "on purpose".into() };

    let asked = faulty.attempts("w");
    faulty.refuse("w", 2, away.clone());
    let mut third = executor.submit(t());
    assert!(timeout(Duration::from_millis(1900), &mut third).await.is_err());
    assert_eq!(faulty.attempts("w") - asked, 2);
    let sent = peer.next_of("REQUEST").await;
    peer.respond(&sent, &success(1)).await;
    assert_eq!(third.await, Ok(1.into()));

    faulty.refuse("w", 3, away);
    let outcome = timeout(3 * SECOND, executor.submit(t())).await.expect("late");
    assert_eq!(outcome, Err(RequestError::OutcomeUnknown { reason: "on purpose".into() }));
}

/// A first copy may have arrived before its worker went.
#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_sent_does_not_wait_for_another_worker_when_its_worker_is_gone() {
    let (faulty, executor, peer) = meet_over_faulty().await;
    faulty.refuse("w", 1, TransportError::Unavailable { reason: "on purpose".into() });
    let request = executor.submit(t());
    drop(peer);
    let outcome = timeout(3 * SECOND, request).await.expect("it waits");
    assert_eq!(outcome, Err(RequestError::OutcomeUnknown { reason: "on purpose".into() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_one_worker_leave_in_the_order_in_which_they_were_submitted() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    for _ in 0..10 {
        let requests: Vec<_> = (0..1000).map(|_| executor.submit(t())).collect();
        for request in &requests {
            let sent = peer.next_of("REQUEST").await;
            assert_eq!(sent.correlation_id.as_deref(), Some(request.id()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_waited_for_a_worker_leave_in_order_too() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    let requests: Vec<_> = (0..1000).map(|_| executor.submit(t())).collect();
    let mut peer = Peer::new(&broker, "w").await;
    peer.list(executor.name(), &["t"]).await;
    for request in &requests {
        assert_eq!(peer.next_of("REQUEST").await.correlation_id.as_deref(), Some(request.id()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_to_be_sent_again_does_not_delay_others() {
    let (faulty, executor, mut peer) = meet_over_faulty().await;
    faulty.refuse("w", 1, TransportError::Unavailable { reason: "on purpose".into() });
    let [first, second, third] = [(); 3].map(|()| executor.submit(t()));
    for request in [&second, &third] {
        let sent = timeout(SECOND / 2, peer.next()).await.expect("it is held up");
        assert_eq!(sent.correlation_id.as_deref(), Some(request.id()));
    }
    assert_eq!(peer.next().await.correlation_id.as_deref(), Some(first.id()));
}

#[tokio::test(start_paused = true)]
async fn invalid_messages_are_rejected() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let request = executor.submit(t());
    let sent = peer.next_of("REQUEST").await;
    let id = request.id().to_owned();
    let mut untyped = Message::new("", running().to_string()).correlation_id(&*id);
    untyped.kind = None;
    for message in [
        untyped,
        Message::new("OTHER", running().to_string()).correlation_id(&*id),
        Message::new("REQUEST", running().to_string()).correlation_id(&*id),
        Message::new("RESPONSE", running().to_string()),
        Message::new("RESPONSE", running().to_string()).correlation_id("unknown"),
        Message::new("RESPONSE", r#"{"state": "OTHER", "data": {}}"#).correlation_id(&*id),
        Message::new("RESPONSE", r#"{"state": "RUNNING"}"#).correlation_id(&*id),
        Message::new("RESPONSE", b"\xff\xfe".as_slice()).correlation_id(&*id),
        Message::new("NOTIFY", "{}"),
        Message::new("NOTIFY", r#"{"topic": "w", "tasks": [1]}"#),
    ] {
        peer.send(executor.name(), message).await;
    }
    sleep(SECOND).await;
    assert_eq!(request.state(), RequestState::Pending);
    assert_eq!(broker.message_count(executor.name()), 0);
    peer.respond(&sent, &success(1)).await;
    assert_eq!(request.await, Ok(1.into()));
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_key_go_to_one_worker() {
    let broker = LocalBroker::new();
    let (mut w, mut v) = (Peer::new(&broker, "w").await, Peer::new(&broker, "v").await);
    let executor = start(&broker).await;
    w.list(executor.name(), &["t"]).await;
    v.list(executor.name(), &["t"]).await;
    assert!(executor.wait_for_workers("t", 2).await);
    let mut requests = Vec::new();
    for key in 0..20 {
        for _ in 0..2 {
            requests.push(executor.submit(Submission::new(t().argument("key", key)).key(key.to_string())));
        }
    }
    sleep(SECOND).await;
    assert!(requests.iter().all(|request| request.state() == RequestState::Pending));
    let mut keys = [Vec::new(), Vec::new()];
    for (peer, keys) in [&mut w, &mut v].into_iter().zip(&mut keys) {
        while broker.message_count(&peer.name) > 0 {
            let message = peer.next().await;
            if message.kind.as_deref() == Some("REQUEST") {
                keys.push(body(&message)["arguments"]["key"].as_u64().unwrap());
            }
        }
    }
    let [w, v] = keys;
    assert_eq!(w.len() + v.len(), 40);
    assert!(!w.is_empty() && !v.is_empty() && w.iter().all(|key| !v.contains(key)), "{w:?} {v:?}");
}

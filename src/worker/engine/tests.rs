//! The table of requests, event by event, and a property over random events.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::worker::{arguments::ArgumentError, message::failure::Failure, validate::FormatError};

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Moment {
    Moment::from_origin(Duration::from_secs(seconds))
}

fn new(task: &str) -> New {
    New { task: task.into(), key: None, body: b"{}".to_vec(), timeout: Some(MINUTE), run_timeout: None }
}

fn lists(engine: &mut Engine, topic: &str, now: Moment) -> bool {
    engine.on_notify(&NotifyReply::new(topic, ["t"]), false, now)
}

/// An engine with a request that was sent to a worker at topic `w`.
fn with_pending(run_timeout: Option<Duration>) -> Engine {
    let mut engine = Engine::new(MINUTE);
    lists(&mut engine, "w", at(0));
    engine.submit("r".into(), New { run_timeout, ..new("t") }, at(0));
    engine.take_actions();
    engine
}

fn progress(fraction: f64) -> Response {
    Response::Event(Event::progress(fraction))
}

fn failure() -> Failure {
    Failure::new("E", "no")
}

fn ends(engine: &mut Engine) -> Vec<Ended> {
    let ended = |action| match action {
        Action::End { ended, .. } => Some(ended),
        _ => None,
    };
    engine.take_actions().into_iter().filter_map(ended).collect()
}

#[test]
fn a_request_waits_until_a_worker_lists_its_task_and_is_sent_once() {
    let mut engine = Engine::new(MINUTE);
    engine.submit("r".into(), new("t"), at(0));
    assert!(engine.on_notify(&NotifyReply::new("other", ["u"]), false, at(1)));
    assert_eq!(engine.take_actions(), []);
    assert!(lists(&mut engine, "w", at(2)));
    let sent = Action::Send {
        id: "r".into(),
        topic: "w".into(),
        body: b"{}".to_vec(),
        is_ours: false,
        only_for: None,
    };
    assert_eq!(engine.take_actions(), [sent]);
    assert!(!lists(&mut engine, "w", at(3)));
    assert!(lists(&mut engine, "w2", at(3)));
    assert_eq!(engine.take_actions(), []);
}

#[test]
fn requests_that_wait_leave_in_the_order_in_which_they_were_submitted_also_those_that_came_back() {
    let mut engine = Engine::new(MINUTE);
    lists(&mut engine, "w", at(0));
    for id in ["c", "b"] {
        engine.submit(id.into(), new("t"), at(0));
    }
    engine.on_returned("b", "w", at(1));
    engine.submit("a".into(), new("t"), at(1));
    engine.on_returned("c", "w", at(1));
    engine.take_actions();
    lists(&mut engine, "w", at(2));
    let sent = engine.take_actions().into_iter().map(|action| match action {
        Action::Send { id, .. } => id,
        other => panic!("{other:?}"),
    });
    assert_eq!(sent.collect::<Vec<_>>(), ["c", "b", "a"]);
}

#[test]
fn a_request_expires_strictly_after_its_timeout_and_not_once_it_runs() {
    let mut waiting = Engine::new(MINUTE);
    waiting.submit("r".into(), new("t"), at(0));
    for (mut engine, was_sent) in [(waiting, false), (with_pending(None), true)] {
        engine.tick(at(60));
        assert_eq!(ends(&mut engine), []);
        engine.tick(Moment::from_origin(MINUTE + Duration::from_nanos(1)));
        assert_eq!(ends(&mut engine), [Err(RequestError::Expired { timeout: MINUTE, was_sent })]);
    }
    let mut engine = with_pending(None);
    engine.on_response("r", Ok(Response::Running), None, at(59));
    for now in 60..600 {
        lists(&mut engine, "w", at(now));
        engine.tick(at(now));
    }
    assert_eq!(ends(&mut engine), []);
}

#[test]
fn a_request_on_a_worker_of_this_crate_is_lost_when_no_response_comes_although_the_topic_answers() {
    let mut engine = with_pending(None);
    engine.on_response("r", Ok(Response::Running), Some("n"), at(10));
    engine.on_response("r", Ok(Response::Running), Some("n"), at(15));
    lists(&mut engine, "w", at(70));
    engine.tick(at(74));
    assert_eq!(ends(&mut engine), []);
    engine.tick(at(75));
    assert_eq!(ends(&mut engine), [Err(RequestError::WorkerVanished { topic: "w".into() })]);
}

#[test]
fn a_request_that_is_submitted_again_does_not_go_to_the_worker_that_lost_it_until_that_answers() {
    let sent = |engine: &mut Engine| {
        let topic = |action| match action {
            Action::Send { topic, .. } => Some(topic),
            _ => None,
        };
        engine.take_actions().into_iter().find_map(topic)
    };
    let lost = |others: &[&str]| {
        let mut engine = with_pending(None);
        engine.on_response("r", Ok(Response::Running), Some("n"), at(0));
        // The answer to a question comes later than the last response about the request: the topic is still listed.
        for topic in ["w"].iter().chain(others) {
            lists(&mut engine, topic, at(4));
        }
        assert!(engine.tick(at(60)).is_empty());
        assert_eq!(ends(&mut engine), [Err(RequestError::WorkerVanished { topic: "w".into() })]);
        engine
    };

    let mut engine = lost(&["v"]);
    for id in ["again", "and again"] {
        engine.submit(id.into(), new("t"), at(60));
        assert_eq!(sent(&mut engine).as_deref(), Some("v"));
    }

    let mut engine = lost(&[]);
    engine.submit("again".into(), new("t"), at(60));
    assert_eq!(sent(&mut engine), None);
    assert!(!lists(&mut engine, "w", at(61)), "that it is back is nothing new about its tasks");
    assert_eq!(sent(&mut engine).as_deref(), Some("w"));

    let mut engine = with_pending(None);
    engine.submit("other".into(), new("t"), at(30));
    engine.on_response("r", Ok(Response::Running), Some("n"), at(0));
    lists(&mut engine, "w", at(4));
    engine.tick(at(60));
    engine.submit("again".into(), new("t"), at(60));
    engine.take_actions();
    engine.on_response("other", Ok(Response::Running), Some("n"), at(61));
    assert_eq!(sent(&mut engine).as_deref(), Some("w"));
}

#[test]
fn a_request_on_a_worker_of_taskflow_is_lost_when_its_topic_is_silent_and_has_no_consumer() {
    let mut engine = with_pending(None);
    engine.on_response("r", Ok(Response::Running), None, at(10));
    lists(&mut engine, "w", at(65));
    engine.tick(at(124));
    assert_eq!(ends(&mut engine), []);
    assert_eq!(engine.tick(at(125)), ["w".into()]);
    assert_eq!(engine.take_actions(), [Action::Check { topic: "w".into() }]);
    engine.on_checked(&"w".into(), Some(false), at(125));
    assert_eq!(ends(&mut engine), [Err(RequestError::WorkerVanished { topic: "w".into() })]);
}

#[test]
fn a_worker_that_was_removed_and_still_starts_on_a_request_is_not_taken_for_lost() {
    let mut engine = Engine::new(MINUTE);
    lists(&mut engine, "w", at(0));
    engine.submit("r".into(), New { timeout: None, ..new("t") }, at(0));
    assert_eq!(engine.tick(at(60)), ["w".into()]);
    engine.on_response("r", Ok(Response::Running), None, at(70));
    engine.tick(at(129));
    assert_eq!(
        engine.take_actions().last(),
        Some(&Action::Moved { id: "r".into(), state: RequestState::Running })
    );
    engine.tick(at(130));
    assert_eq!(engine.take_actions(), [Action::Check { topic: "w".into() }]);
}

#[test]
fn a_topic_that_is_silent_is_checked_once_at_a_time_and_again_after_the_expiry() {
    let mut engine = with_pending(None);
    engine.on_response("r", Ok(Response::Running), None, at(0));
    engine.take_actions();
    let (topic, check) = ("w".into(), [Action::Check { topic: "w".into() }]);
    engine.tick(at(60));
    assert_eq!(engine.take_actions(), check);
    engine.tick(at(61));
    assert_eq!(engine.take_actions(), []);
    // The broker did not answer, so it is asked again soon.
    engine.on_checked(&topic, None, at(62));
    engine.tick(at(63));
    assert_eq!(engine.take_actions(), check);
    engine.on_checked(&topic, Some(true), at(64));
    engine.tick(at(123));
    assert_eq!(engine.take_actions(), []);
    engine.tick(at(124));
    assert_eq!(engine.take_actions(), check);
    // It answers after all, while the broker says that it was gone.
    lists(&mut engine, "w", at(124));
    engine.on_checked(&topic, Some(false), at(124));
    assert_eq!(engine.take_actions(), []);
}

#[test]
fn a_request_may_run_for_its_run_timeout_and_no_longer() {
    let timeout = Duration::from_secs(20);
    let mut engine = with_pending(Some(timeout));
    engine.on_response("r", Ok(Response::Running), None, at(10));
    engine.tick(at(30));
    assert_eq!(ends(&mut engine), []);
    engine.tick(at(31));
    assert_eq!(ends(&mut engine), [Err(RequestError::Overdue { timeout })]);
}

#[test]
fn a_failed_send_ends_a_request_that_no_worker_has_started_on() {
    let reason = || String::from("away");
    for (error, ended) in [
        (TransportError::Unavailable { reason: reason() }, RequestError::OutcomeUnknown { reason: reason() }),
        (TransportError::Refused { reason: reason() }, RequestError::Refused { reason: reason() }),
        (TransportError::Closed, RequestError::Closed),
    ] {
        let mut engine = with_pending(None);
        engine.on_not_sent("r", error.clone());
        assert_eq!(ends(&mut engine), [Err(ended)]);

        let mut engine = with_pending(None);
        engine.on_response("r", Ok(Response::Running), Some("n"), at(1));
        engine.on_not_sent("r", error);
        assert_eq!(ends(&mut engine), []);
    }
}

#[test]
fn an_error_tells_whether_to_try_again() {
    let timeout = MINUTE;
    let invalid: FormatError = Failure::from_json(b"{}").unwrap_err();
    let text = || String::from("away");
    for (error, may_have_run, is_transient) in [
        (RequestError::Failed(failure()), true, false),
        (RequestError::Expired { timeout, was_sent: false }, false, true),
        (RequestError::Expired { timeout, was_sent: true }, true, true),
        (RequestError::WorkerVanished { topic: "w".into() }, true, true),
        (RequestError::Overdue { timeout }, true, true),
        (RequestError::Argument(ArgumentError::new("x", "it is missing")), false, false),
        (RequestError::Refused { reason: text() }, false, false),
        (RequestError::OutcomeUnknown { reason: text() }, true, true),
        (RequestError::InvalidResponse(invalid), true, false),
        (RequestError::Closed, true, false),
    ] {
        assert_eq!((error.may_have_run(), error.is_transient()), (may_have_run, is_transient), "{error}");
    }
    let expired = |was_sent| RequestError::Expired { timeout, was_sent }.to_string();
    assert_eq!(expired(false), "no worker was found for the request within 60s");
    assert_eq!(expired(true), "the worker has not started on the request within 60s");
}

#[test]
fn a_report_that_only_a_running_task_sends_means_that_it_runs() {
    for response in [progress(0.5), Response::Success(1.into())] {
        let mut engine = with_pending(None);
        assert_eq!(engine.on_response("r", Ok(response), Some("n"), at(1)), Handled::Applied);
        let running = Action::Moved { id: "r".into(), state: RequestState::Running };
        assert_eq!(engine.take_actions().first(), Some(&running));
    }
}

#[test]
fn responses_about_a_request_that_was_not_sent_or_has_ended_are_ignored() {
    let mut engine = Engine::new(MINUTE);
    engine.submit("r".into(), new("t"), at(0));
    assert!(matches!(
        engine.on_response("r", Ok(Response::Success(1.into())), Some("n"), at(0)),
        Handled::Ignored(_)
    ));
    lists(&mut engine, "w", at(0));
    engine.on_response("r", Ok(Response::Failure(failure())), Some("n"), at(0));
    assert_eq!(ends(&mut engine), [Err(RequestError::Failed(failure()))]);
    for late in [Response::Success(1.into()), Response::Running, progress(1.0)] {
        assert_eq!(engine.on_response("r", Ok(late), Some("n"), at(0)), Handled::UnknownRequest);
    }
    assert_eq!(engine.take_actions(), []);
}

#[test]
fn a_request_that_was_not_sent_before_the_end_is_not_sent_at_the_end() {
    let mut engine = Engine::new(MINUTE);
    lists(&mut engine, "w", at(0));
    engine.submit("r".into(), new("t"), at(0));
    engine.close();
    let actions = engine.take_actions();
    assert!(!actions.iter().any(|action| matches!(action, Action::Send { .. })), "{actions:?}");
    assert!(matches!(actions.last(), Some(Action::End { ended: Err(RequestError::Closed), .. })));
}

#[test]
fn a_request_whose_handle_is_dropped_is_not_sent_and_leaves_nothing_behind() {
    let mut engine = Engine::new(MINUTE);
    for id in 0..100 {
        engine.submit(id.to_string(), new("t"), at(0));
        engine.forget(&id.to_string());
    }
    engine.tick(at(1));
    assert!(engine.waiting.is_empty() && engine.requests.is_empty());
    lists(&mut engine, "w", at(1));
    assert_eq!(engine.take_actions(), []);
}

#[derive(Debug, Clone)]
enum Input {
    Submit,
    Lists(u8),
    Responds { id: u8, what: u8, is_repeated: bool },
    NotSent(u8),
    Forget(u8),
    Passes(u8),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Submit),
        (0..3_u8).prop_map(Input::Lists),
        (any::<u8>(), 0..7_u8, any::<bool>()).prop_map(|(id, what, is_repeated)| Input::Responds {
            id,
            what,
            is_repeated
        }),
        any::<u8>().prop_map(Input::NotSent),
        any::<u8>().prop_map(Input::Forget),
        (0..40_u8).prop_map(Input::Passes),
    ]
}

fn response(what: u8) -> Result<Response, InvalidResponse> {
    use crate::worker::message::WireResponse;
    let json = match what {
        0 => r#"{"state": "RUNNING", "data": {}}"#,
        1 => r#"{"state": "EVENT", "data": {"event_type": "x", "details": {}}}"#,
        2 => r#"{"state": "SUCCESS", "data": {"result": 1}}"#,
        3 => r#"{"state": "FAILURE", "data": {"result": 1}}"#,
        4 => r#"{"state": "WAITING", "data": {}}"#,
        5 => r#"{"state": "EVENT", "data": {"result": 1}}"#,
        _ => return Ok(Response::Failure(failure())),
    };
    WireResponse::from_json(json.as_bytes()).unwrap().decode()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_request_ends_exactly_once_after_any_events_unless_its_handle_is_dropped(
        inputs in prop::collection::vec(input(), 0..200)
    ) {
        let mut engine = Engine::new(MINUTE);
        let (mut now, mut made) = (at(0), 0_usize);
        let (mut ended, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
        let pick = |id: u8, made: usize| (usize::from(id) % made.max(1)).to_string();
        for input in inputs.into_iter().map(Some).chain([None]) {
            match input {
                Some(Input::Submit) => {
                    engine.submit(made.to_string(), new("t"), now);
                    made += 1;
                }
                Some(Input::Lists(topic)) => {
                    lists(&mut engine, &topic.to_string(), now);
                }
                Some(Input::Responds { id, what, is_repeated }) => {
                    engine.on_response(&pick(id, made), response(what), is_repeated.then_some("n"), now);
                }
                Some(Input::NotSent(id)) => engine.on_not_sent(&pick(id, made), TransportError::Closed),
                Some(Input::Forget(id)) => {
                    let id = pick(id, made);
                    engine.forget(&id);
                    if made > 0 && !ended.contains(&id) {
                        forgotten.insert(id);
                    }
                }
                Some(Input::Passes(seconds)) => {
                    now = now + Duration::from_secs(seconds.into());
                    engine.tick(now);
                }
                // In the end: silence, for longer than any request waits.
                None => {
                    engine.tick(now + 2 * MINUTE);
                }
            }
            let mut actions = VecDeque::from(engine.take_actions());
            while let Some(action) = actions.pop_front() {
                let id = match &action {
                    Action::Check { topic } => {
                        engine.on_checked(topic, Some(false), now + 2 * MINUTE);
                        actions.extend(engine.take_actions());
                        continue;
                    }
                    Action::Send { id, .. } | Action::Moved { id, .. } | Action::Event { id, .. } => id,
                    Action::End { id, .. } => id,
                };
                prop_assert!(!ended.contains(id) && !forgotten.contains(id), "{action:?} comes too late");
                if matches!(action, Action::End { .. }) {
                    ended.insert(id.clone());
                }
            }
        }
        prop_assert_eq!(ended.len() + forgotten.len(), made);
        prop_assert!(engine.requests.is_empty());
        prop_assert!(engine.finder.workers().next().is_none());
    }
}

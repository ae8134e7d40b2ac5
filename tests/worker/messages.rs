//! Messages and lifecycle of the worker protocol against what was recorded from TaskFlow itself.

mod failures;
mod invalid_messages;
mod json;
mod properties;

use std::{sync::LazyLock, time::Duration};

use apportion::{
    clock::Moment,
    worker::{
        Failure, Request, RequestState, TaskResult,
        lifecycle::{self, Lifecycle, Transition},
        message::{Action, Notify, NotifyReply, Response, WireResponse},
        validate::{self, FormatError},
    },
};
use serde_json::{Map, Value, json};

use crate::support::golden::{golden, list, text};

static GOLDEN: LazyLock<Value> = LazyLock::new(|| golden("messages.json"));

static ENVELOPES: LazyLock<Value> = LazyLock::new(|| golden("wbe_envelopes.json"));

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("it is JSON")
}

/// The samples of a kind that TaskFlow accepts.
fn valid(kind: &str) -> Vec<&'static Value> {
    let samples = list(&GOLDEN["samples"]).iter();
    samples.filter(|sample| sample["kind"] == kind && sample["verdict"] == "valid").collect()
}

fn validated(kind: &str, message: &Value) -> Result<(), FormatError> {
    match kind {
        "notify_sender" => validate::notify(message),
        "notify_response" => validate::notify_reply(message),
        "request" => validate::request(message),
        "response" => validate::response(message),
        "failure" => validate::failure(message),
        kind => panic!("unknown kind {kind}"),
    }
}

#[test]
fn every_message_is_accepted_or_refused_as_taskflow_does() {
    let (mut accepted, mut refused) = (0, 0);
    for sample in list(&GOLDEN["samples"]) {
        let (kind, message) = (text(&sample["kind"]), &sample["message"]);
        let verdict = validated(kind, message);
        assert_eq!(verdict.is_ok(), sample["verdict"] == "valid", "{sample}\n{verdict:?}");
        *if verdict.is_ok() { &mut accepted } else { &mut refused } += 1;
    }
    assert_eq!((accepted, refused), (228, 234));
}

#[test]
fn readers_and_validators_give_the_same_error() {
    for sample in list(&GOLDEN["samples"]) {
        let (kind, message) = (text(&sample["kind"]), bytes(&sample["message"]));
        let read = match kind {
            "notify_sender" => Notify::from_json(&message).map(drop),
            "notify_response" => NotifyReply::from_json(&message).map(drop),
            "request" => Request::from_json(&message).map(drop),
            "response" => WireResponse::from_json(&message).map(drop),
            _ => Failure::from_json(&message).map(drop),
        };
        if let Err(error) = validated(kind, &sample["message"]) {
            assert_eq!(read, Err(error), "{sample}");
        }
    }
}

/// A request in the form in which TaskFlow reads it.
fn parsed(request: &Request) -> Value {
    let mut arguments = Map::from_iter([
        ("arguments".into(), json!(request.arguments())),
        ("task_uuid".into(), json!("the-uuid")),
    ]);
    match request.result() {
        Some(TaskResult::Success(value)) => drop(arguments.insert("result".into(), value.clone())),
        Some(TaskResult::Failure(failure)) => drop(arguments.insert("result".into(), json!(failure))),
        None => {}
    }
    arguments.insert("failures".into(), json!(request.failures()));
    json!({
        "task_cls": request.task_cls(),
        "task_name": request.task_name(),
        "action": request.action(),
        "arguments": arguments,
    })
}

#[test]
fn a_request_is_read_as_taskflow_reads_it() {
    let (mut read, mut invalid) = (0, 0);
    for sample in valid("request") {
        let (message, mut expected) = (bytes(&sample["message"]), sample["parsed"].clone());
        match text(expected.get("raises").unwrap_or(&json!("nothing"))) {
            "nothing" => {
                // For us no failures and an empty map of them are the same.
                let arguments = expected["arguments"].as_object_mut().expect("an object");
                arguments.entry("failures").or_insert_with(|| json!({}));
                assert_eq!(
                    parsed(&Request::from_json(&message).expect("TaskFlow reads it")),
                    expected,
                    "{sample}"
                );
                read += 1;
            }
            "ValueError" => {
                assert!(Request::from_json(&message).unwrap_err().field().ends_with("version"), "{sample}");
                invalid += 1;
            }
            "TypeError" => drop(Request::from_json(&message).expect("surplus keys of a failure are let be")),
            other => panic!("unknown exception {other}"),
        }
    }
    assert_eq!((read, invalid), (72, 2));
}

/// The same failure without the keys that no failure has, and with those that may be absent.
fn tidied(failure: &Value) -> Value {
    let causes: Vec<_> =
        failure["causes"].as_array().map_or_else(Vec::new, |causes| causes.iter().map(tidied).collect());
    json!({
        "exception_str": failure["exception_str"],
        "traceback_str": failure["traceback_str"],
        "exc_type_names": failure["exc_type_names"],
        "version": failure["version"],
        "exc_args": failure.get("exc_args").cloned().unwrap_or_else(|| json!([])),
        "causes": causes,
    })
}

#[test]
fn a_failure_is_read_as_taskflow_reads_it() {
    let (mut read, mut surplus, mut invalid) = (0, 0, 0);
    for sample in valid("failure") {
        let (failure, parsed) = (Failure::from_json(&bytes(&sample["message"])), &sample["parsed"]);
        match parsed.get("raises").map(text) {
            None => {
                assert_eq!(json!(failure.expect("TaskFlow reads it")), *parsed, "{sample}");
                read += 1;
            }
            Some("TypeError") => {
                assert_eq!(json!(failure.expect("surplus keys are let be")), tidied(&sample["message"]));
                surplus += 1;
            }
            Some(_) => {
                assert!(failure.unwrap_err().field().ends_with("version"), "{sample}");
                invalid += 1;
            }
        }
    }
    assert_eq!((read, surplus, invalid), (44, 10, 1));
}

#[test]
fn a_failure_of_any_exception_survives_the_way_here_and_back() {
    for case in list(&GOLDEN["failures"]) {
        let failure = Failure::from_json(&bytes(&case["failure_to_dict"])).expect("TaskFlow wrote it");
        assert_eq!(failure.to_json(), bytes(&case["failure_to_dict"]), "{case}");
    }
}

#[test]
fn a_valid_response_is_decoded_as_taskflow_reads_it_or_is_invalid() {
    let (mut read, mut invalid) = (0, 0);
    for sample in valid("response") {
        let (message, parsed) = (&sample["message"], &sample["parsed"]);
        let response = WireResponse::from_json(&bytes(message)).expect("it is valid");
        let promise = match text(&message["state"]) {
            "RUNNING" => Some("state"),
            "SUCCESS" | "FAILURE" => Some("result"),
            "EVENT" => Some("event_type"),
            _ => None,
        };
        match response.decode() {
            Ok(Response::Failure(failure)) => {
                assert!(validate::failure(&message["data"]["result"]).is_ok(), "{sample}");
                match parsed.get("raises").map(text) {
                    None => assert_eq!(json!(failure), parsed["data"]["result"]["failure"], "{sample}"),
                    Some(exception) => assert_eq!(exception, "TypeError", "{sample}"),
                }
                read += 1;
            }
            Ok(response) => {
                assert_eq!(json!(response), *message);
                read += 1;
            }
            Err(why) if message["state"] == "FAILURE" && !message["data"]["result"].is_null() => {
                let failure = &message["data"]["result"];
                let is_readable = validate::failure(failure).is_ok() && failure["version"] == 1;
                let is_cause_readable = || list(&failure["causes"]).iter().all(|cause| cause["version"] == 1);
                assert!(!is_readable || !is_cause_readable(), "{sample}\n{why}");
                invalid += 1;
            }
            Err(why) => {
                let is_kept = promise.is_some_and(|key| key == "state" || message["data"].get(key).is_some());
                assert!(!is_kept, "{sample}\n{why}");
                invalid += 1;
            }
        }
    }
    assert_eq!((read, invalid), (50, 25));
}

#[test]
fn recorded_messages_are_written_again_to_the_byte_except_blanks() {
    let mut bodies = 0;
    for (scene, case) in ENVELOPES.as_object().expect("an object") {
        let messages = case.get("messages").unwrap_or(case);
        for message in messages.as_array().into_iter().flatten() {
            let message = &message["message"];
            let body = text(&message["body_decoded"]).as_bytes();
            let kind = text(&message["properties"]["type"]);
            let written = match kind {
                Notify::KIND => match Notify::from_json(body) {
                    Ok(notify) => notify.to_json(),
                    Err(_) => NotifyReply::from_json(body).unwrap().to_json(),
                },
                Request::KIND => Request::from_json(body).unwrap().to_json().unwrap(),
                Response::KIND => WireResponse::from_json(body).unwrap().decode().unwrap().to_json(),
                kind => panic!("unknown type {kind}"),
            };
            let expected: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected.to_string(), "{scene}");
            bodies += 1;
        }
    }
    assert_eq!(bodies, 19);
}

/// The body of the first message of a recorded scene: the request.
fn recorded_request(scene: &str) -> Value {
    serde_json::from_str(text(&ENVELOPES[scene]["messages"][0]["message"]["body_decoded"])).expect("JSON")
}

#[test]
fn a_request_to_execute_is_what_a_taskflow_executor_sends() {
    let recorded = recorded_request("execute_ok");
    let request = Request::execute("__main__.Good").with_task_name("g").argument("x", 1);
    assert_eq!(request.to_json().unwrap(), bytes(&recorded));
}

#[test]
fn a_request_to_revert_is_what_a_taskflow_executor_sends() {
    let recorded = recorded_request("revert_with_failure_result");
    let failure = Failure::new("ValueError", "boom");
    let request = Request::revert("__main__.Good", TaskResult::Failure(failure.clone()))
        .with_task_name("g")
        .argument("x", 1)
        .failure("g", failure);
    assert_eq!(request.to_json().unwrap(), bytes(&recorded));
}

#[test]
fn the_constants_are_those_of_taskflow() {
    let constants = &GOLDEN["constants"];
    for (name, ours) in [
        ("REQUEST_TIMEOUT", lifecycle::REQUEST_TIMEOUT),
        ("NOTIFY_PERIOD", lifecycle::NOTIFY_PERIOD),
        ("EXPIRES_AFTER", lifecycle::WORKER_EXPIRY),
    ] {
        assert_eq!(constants[name], ours.as_secs(), "{name}");
    }
    let names = |is: fn(RequestState) -> bool| -> Vec<_> {
        RequestState::ALL.into_iter().filter(|state| is(*state)).map(RequestState::as_str).collect()
    };
    assert_eq!(constants["WAITING_STATES"], json!(names(RequestState::is_waiting)));
    assert_eq!(constants["STOP_TIMER_STATES"], json!(names(|state| !state.is_waiting())));
    let events = [Action::Execute, Action::Revert].map(|action| (action.to_string(), json!(action.event())));
    assert_eq!(constants["ACTION_TO_EVENT"], json!(Map::from_iter(events)));
}

/// A request in `state`, made at the origin of time.
fn request_in(state: RequestState, timeout: Option<Duration>) -> Lifecycle {
    let mut life = Lifecycle::new(Moment::default(), timeout);
    let way = match state {
        RequestState::Waiting => &[][..],
        RequestState::Pending => &[RequestState::Pending],
        RequestState::Running => &[RequestState::Pending, RequestState::Running],
        RequestState::Success => &[RequestState::Pending, RequestState::Running, RequestState::Success],
        RequestState::Failure => &[RequestState::Failure],
    };
    for step in way {
        assert_eq!(life.step(*step), Ok(Transition::Moved));
    }
    life
}

#[test]
fn a_request_takes_the_steps_that_it_takes_in_taskflow() {
    let mut steps = 0;
    for (step, outcome) in GOLDEN["transitions"].as_object().expect("an object") {
        let (from, to) = step.split_once("->").expect("an arrow");
        let from: RequestState = from.parse().expect("a state");
        let Ok(to) = to.parse::<RequestState>() else {
            // Not a state, so no request can step there.
            assert!(["EVENT", "running", "", "NOPE"].contains(&to), "{step}");
            continue;
        };
        let mut life = request_in(from, None);
        let moved = life.step(to);
        match &outcome[0] {
            Value::Bool(true) => assert_eq!(moved, Ok(Transition::Moved), "{step}"),
            Value::Bool(false) => assert_eq!(moved, Ok(Transition::Unchanged), "{step}"),
            _ => {
                let refused = moved.unwrap_err();
                assert_eq!((refused.from, refused.to), (from, to), "{step}");
            }
        }
        assert_eq!(outcome[1], life.state().as_str(), "{step}");
        steps += 1;
    }
    assert_eq!(steps, 25);
}

#[test]
fn a_request_expires_when_it_does_in_taskflow() {
    let cases = list(&GOLDEN["expiry"]);
    assert_eq!(cases.len(), 160);
    for case in cases {
        let seconds = |value: &Value| value.as_f64().map(Duration::from_secs_f64);
        let state: RequestState = text(&case[1]).parse().expect("a state");
        let life = request_in(state, seconds(&case[0]));
        let now = Moment::default() + seconds(&case[2]).expect("a number");
        assert_eq!(life.is_expired(now), case[3] == true, "{case}");
    }
}

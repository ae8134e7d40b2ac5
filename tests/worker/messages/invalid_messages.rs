//! Messages on which TaskFlow's own readers fail: each is read, or refused with the field and the reason.

use apportion::worker::{
    Failure, Request, RequestState, TaskResult,
    message::{InvalidResponse, Response, WireResponse},
    validate,
};
use serde_json::{Value, json};

use super::bytes;

/// Decodes a valid response.
fn decoded(response: &Value) -> Result<Response, InvalidResponse> {
    WireResponse::from_json(&bytes(response)).expect("it is valid").decode()
}

/// The field because of which an outcome cannot be used.
fn unusable(response: &Value) -> (RequestState, String) {
    match decoded(response).unwrap_err() {
        InvalidResponse::Result { state, reason } => (state, reason.to_string()),
        other => panic!("{other:?}"),
    }
}

fn failure() -> Value {
    json!({
        "exception_str": "boom", "traceback_str": "", "exc_type_names": ["ValueError", "Exception"],
        "version": 1, "exc_args": [], "causes": [],
    })
}

fn with(mut value: Value, key: &str, field: Value) -> Value {
    value[key] = field;
    value
}

#[test]
fn a_response_with_a_malformed_failure_is_the_end_of_the_request_alone() {
    let response = |result| json!({"state": "FAILURE", "data": {"result": result}});
    for (result, why) in [
        (json!("boom"), "`data.result` of the response is not an object"),
        (json!({}), "`data.result.exception_str` of the response is missing"),
        (
            with(failure(), "exc_type_names", json!(["ValueError"])),
            "`data.result.exc_type_names` of the response ends neither with `Exception` nor with `BaseException`",
        ),
        (
            with(failure(), "causes", json!([failure(), with(failure(), "exc_args", json!(1))])),
            "`data.result.causes[1].exc_args` of the response is not a list",
        ),
    ] {
        assert_eq!(unusable(&response(result)), (RequestState::Failure, why.to_owned()));
    }
    let empty = json!({"state": "FAILURE", "data": {}});
    assert_eq!(
        unusable(&empty),
        (RequestState::Failure, "`data.result` of the response is missing".to_owned())
    );
}

#[test]
fn a_response_with_a_failure_of_version_2_is_the_end_of_the_request_alone() {
    let response = |failure| json!({"state": "FAILURE", "data": {"result": failure}});
    let (_, why) = unusable(&response(with(failure(), "version", json!(2))));
    assert_eq!(why, "`data.result.version` of the response is 2, and only 1 can be read");
    let cause = with(failure(), "causes", json!([with(failure(), "version", json!(2))]));
    let (_, why) = unusable(&response(cause));
    assert_eq!(why, "`data.result.causes[0].version` of the response is 2, and only 1 can be read");
    assert!(decoded(&response(with(failure(), "version", json!(1.0)))).is_ok(), "1.0 is 1 in Python");
}

#[test]
fn a_success_without_a_result_is_the_end_of_the_request_alone() {
    for data in [json!({}), json!({"event_type": "x", "details": {}})] {
        let (state, why) = unusable(&json!({"state": "SUCCESS", "data": data}));
        assert_eq!((state, &*why), (RequestState::Success, "`data.result` of the response is missing"));
    }
    assert_eq!(
        decoded(&json!({"state": "SUCCESS", "data": {"result": null}})),
        Ok(Response::Success(Value::Null))
    );
}

#[test]
fn an_event_with_completion_data_is_invalid_and_ends_nothing() {
    for data in [json!({"result": 1}), json!({})] {
        let invalid = decoded(&json!({"state": "EVENT", "data": data}));
        assert!(matches!(invalid, Err(InvalidResponse::Event(_))), "{invalid:?}");
    }
}

#[test]
fn a_state_that_a_worker_never_reports_is_invalid_and_ends_nothing() {
    for state in [RequestState::Waiting, RequestState::Pending] {
        let invalid = decoded(&json!({"state": state.as_str(), "data": {}}));
        assert_eq!(invalid, Err(InvalidResponse::State(state)));
    }
}

#[test]
fn running_with_any_data_is_running() {
    for data in [json!({}), json!({"result": 1}), json!({"event_type": "x", "details": {}})] {
        assert_eq!(decoded(&json!({"state": "RUNNING", "data": data})), Ok(Response::Running));
    }
}

#[test]
fn a_state_in_lower_case_is_no_state() {
    for state in RequestState::ALL {
        let name = state.as_str().to_lowercase();
        assert!(name.parse::<RequestState>().is_err());
        let refused = WireResponse::from_json(&bytes(&json!({"state": name, "data": {}}))).unwrap_err();
        assert_eq!(refused.field(), "state");
    }
}

fn request() -> Value {
    json!({"task_cls": "t", "task_name": "t", "task_version": [1, 0], "action": "revert", "arguments": {}})
}

#[test]
fn a_result_that_is_not_a_pair_is_refused_and_any_value_that_python_unpacks_is_a_pair() {
    for result in
        [json!(["success"]), json!(["success", 1, 2]), json!(""), json!("abc"), json!({"a": 1}), json!(7)]
    {
        let refused = Request::from_json(&bytes(&with(request(), "result", result))).unwrap_err();
        assert_eq!((refused.field(), refused.reason()), ("result", "is not a pair of a kind and a value"));
    }
    for (result, value) in [
        (json!(["success", 1]), json!(1)),
        (json!([null, 1]), json!(1)),
        (json!("ab"), json!("b")),
        (json!({"a": 1, "b": 2}), json!("b")),
    ] {
        let read = Request::from_json(&bytes(&with(request(), "result", result))).unwrap();
        assert_eq!(read.result(), Some(&TaskResult::Success(value)));
    }
    let unpaired = with(request(), "result", json!({"failure": 1, "b": 2}));
    assert_eq!(Request::from_json(&bytes(&unpaired)).unwrap_err().field(), "result[1]");
}

#[test]
fn a_failure_with_a_surplus_key_is_read_without_it() {
    let surplus = with(failure(), "surplus", json!(1));
    let read = Failure::from_json(&bytes(&surplus)).unwrap();
    assert_eq!(json!(read), failure());
    let request = with(request(), "failures", json!({"other": surplus}));
    assert_eq!(Request::from_json(&bytes(&request)).unwrap().failures()["other"], read);
}

/// Recorded from TaskFlow: its executor leaves `failures` out when there are none, and its worker then fails.
#[test]
fn a_revert_with_no_failures_says_so() {
    let scene = &super::ENVELOPES["revert_with_success_result"];
    let body =
        |index: usize| scene["messages"][index]["message"]["body_decoded"].as_str().unwrap().to_owned();
    let theirs = body(0);
    let answer = WireResponse::from_json(body(2).as_bytes()).unwrap().decode().unwrap();
    let Response::Failure(failure) = answer else { panic!("{answer:?}") };
    assert!(failure.to_string().ends_with("missing 1 required positional argument: 'failures'"), "{failure}");

    let ours = Request::revert("__main__.Good", TaskResult::Success(json!({"old": 1})))
        .with_task_name("g")
        .argument("x", 1);
    let written: Value = serde_json::from_slice(&ours.to_json().unwrap()).unwrap();
    assert_eq!(written, with(serde_json::from_str(&theirs).unwrap(), "failures", json!({})));
}

#[test]
fn a_result_that_is_nested_too_deeply_is_sent_as_a_failure_and_not_lost() {
    let nested = |levels| (0..levels).fold(json!(1), |inside, _| json!([inside]));
    let sent = |response: Response| WireResponse::from_json(&response.to_json()).unwrap().decode().unwrap();
    let fits = Response::Success(nested(125));
    assert_eq!(sent(fits.clone()), fits);
    let Response::Failure(failure) = sent(Response::Success(nested(126))) else { panic!("it fits") };
    assert_eq!(failure.to_string(), "ValueError: the result is nested in more than 125 levels");

    let fits = Response::Failure(Failure::new("E", "boom").args([nested(123)]));
    assert_eq!(sent(fits.clone()), fits);
    for failure in [
        Failure::new("E", "boom").args([nested(124)]),
        (0..63).fold(Failure::new("E", "boom"), |cause, _| Failure::new("E", "boom").caused_by(cause)),
    ] {
        assert_eq!(sent(Response::Failure(failure)), Response::Failure(Failure::new("E", "boom").args([])));
    }
}

#[test]
fn an_error_names_the_field_and_the_reason() {
    let bad = |failure: Value| {
        with(request(), "failures", json!({"x": with(self::failure(), "causes", json!([failure]))}))
    };
    for (message, error) in [
        (json!([]), "the request is not an object"),
        (json!({}), "`task_cls` of the request is missing"),
        (with(request(), "task_name", json!(1)), "`task_name` of the request is not a text"),
        (
            with(request(), "task_version", json!(1)),
            "`task_version` of the request is neither a text nor a list",
        ),
        (
            with(request(), "action", json!("EXECUTE")),
            "`action` of the request is neither `execute` nor `revert`",
        ),
        (with(request(), "arguments", Value::Null), "`arguments` of the request is not an object"),
        (with(request(), "failures", json!({"x": 1})), "`failures.x` of the request is not an object"),
        (
            bad(with(failure(), "version", json!(-1))),
            "`failures.x.causes[0].version` of the request is not an integer from 0 on",
        ),
        (
            bad(with(failure(), "version", json!(true))),
            "`failures.x.causes[0].version` of the request is not an integer from 0 on",
        ),
        (
            bad(with(failure(), "exc_type_names", json!(["a", 1]))),
            "`failures.x.causes[0].exc_type_names[1]` of the request is not a text",
        ),
        (
            bad(with(failure(), "exc_type_names", json!([]))),
            "`failures.x.causes[0].exc_type_names` of the request is empty",
        ),
        (
            with(request(), "result", json!(["failure", {}])),
            "`result[1].exception_str` of the request is missing",
        ),
    ] {
        assert_eq!(validate::request(&message).unwrap_err().to_string(), error);
    }
    let reply = json!({"topic": "t", "tasks": ["a"], "more": 1});
    assert_eq!(
        validate::notify_reply(&reply).unwrap_err().to_string(),
        "`more` of the notify reply is not expected there"
    );
}

#[test]
fn a_key_chosen_by_another_process_does_not_flood_or_forge_the_log() {
    let key = format!("a\n{}", "x".repeat(10_000));
    let refused = validate::notify(&json!({ key: 1 })).unwrap_err();
    assert_eq!(refused.field(), format!("a\\n{}...", "x".repeat(62)));
}

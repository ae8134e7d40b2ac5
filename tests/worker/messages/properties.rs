//! Properties of all messages and lifecycles, of any writer.

use std::time::Duration;

use apportion::{
    clock::Moment,
    worker::{
        Event, Failure, Request, RequestState, TaskResult,
        lifecycle::{Lifecycle, Transition},
        message::{Notify, NotifyReply, Response, TaskVersion, WireResponse},
        validate::{self, FormatError},
    },
};
use proptest::{collection, option, prelude::*, sample};
use serde_json::{Map, Value, json};

use super::{GOLDEN, bytes};
use crate::support::golden::text;

/// The keys and texts that messages use.
const WORDS: &[&str] = &[
    "task_cls",
    "task_name",
    "task_version",
    "action",
    "arguments",
    "result",
    "failures",
    "state",
    "data",
    "event_type",
    "details",
    "exception_str",
    "traceback_str",
    "exc_type_names",
    "version",
    "exc_args",
    "causes",
    "topic",
    "tasks",
    "execute",
    "revert",
    "success",
    "failure",
    "RUNNING",
    "SUCCESS",
    "FAILURE",
    "EVENT",
    "PENDING",
    "Exception",
    "BaseException",
];

/// Any JSON; the keys and texts are mostly those that messages use.
fn values() -> impl Strategy<Value = Value> {
    let word = prop_oneof![4 => sample::select(WORDS).prop_map(String::from), 1 => ".{0,6}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1..3i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1.0)),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::vec((word.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Finite numbers, because JSON has no others, in a form that JSON returns unchanged.
fn own_values() -> impl Strategy<Value = Value> {
    values().prop_map(|value| serde_json::from_slice(&bytes(&value)).expect("it was written as JSON"))
}

fn failures() -> impl Strategy<Value = Failure> {
    let plain = (".{0,8}", ".{0,8}", ".{0,8}", option::of(collection::vec(own_values(), 0..3))).prop_map(
        |(name, message, traceback, args)| {
            let failure = Failure::new(name, message).traceback(traceback);
            match args {
                Some(args) => failure.args(args),
                None => failure,
            }
        },
    );
    plain.prop_recursive(4, 8, 2, |inner| {
        (inner.clone(), collection::vec(inner, 0..3))
            .prop_map(|(failure, causes)| causes.into_iter().fold(failure, Failure::caused_by))
    })
}

fn objects() -> impl Strategy<Value = Map<String, Value>> {
    collection::vec((".{0,6}", own_values()), 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn requests() -> impl Strategy<Value = Request> {
    let results =
        prop_oneof![own_values().prop_map(TaskResult::Success), failures().prop_map(TaskResult::Failure)];
    let versions = prop_oneof![
        ".{0,6}".prop_map(TaskVersion::Text),
        collection::vec(own_values(), 0..3).prop_map(TaskVersion::Parts)
    ];
    let failures = collection::btree_map(".{0,6}", failures(), 0..3);
    (".{0,8}", option::of(results), ".{0,8}", versions, objects(), failures).prop_map(
        |(task, result, name, version, arguments, failures)| {
            let request = match result {
                Some(result) => Request::revert(task, result),
                None => Request::execute(task),
            };
            let request = request.with_task_name(name).with_task_version(version).with_arguments(arguments);
            failures.into_iter().fold(request, |request, (atom, failure)| request.failure(atom, failure))
        },
    )
}

fn responses() -> impl Strategy<Value = Response> {
    prop_oneof![
        Just(Response::Running),
        (0.0..1.0).prop_map(|fraction| Response::Event(Event::progress(fraction))),
        (".{0,8}", objects())
            .prop_map(|(event_type, details)| Response::Event(Event::new(event_type, details).unwrap())),
        own_values().prop_map(Response::Success),
        failures().prop_map(Response::Failure),
    ]
}

/// Reads `json` as every kind of message, and checks that readers and validators agree.
fn read_all(json: &[u8]) {
    let results = [
        (Notify::from_json(json).map(drop), validate::notify as fn(&Value) -> Result<(), FormatError>),
        (NotifyReply::from_json(json).map(drop), validate::notify_reply),
        (Request::from_json(json).map(drop), validate::request),
        (WireResponse::from_json(json).map(drop), validate::response),
        (Failure::from_json(json).map(drop), validate::failure),
    ];
    if let Ok(response) = WireResponse::from_json(json) {
        let _ = response.decode();
    }
    let Ok(value) = serde_json::from_slice(json) else { return };
    for (read, validator) in results {
        match read {
            Ok(()) => assert_eq!(validator(&value), Ok(())),
            Err(error) => {
                let of_version = error.field().ends_with("version");
                assert!(validator(&value).is_err() || of_version, "{value}\n{error}");
            }
        }
    }
}

/// How many values there are in `value`, itself included.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(fields) => fields.values().map(places).sum(),
        _ => 0,
    }
}

/// Replaces the value at that place, counted as [`places`] counts.
fn replace(value: &mut Value, place: &mut usize, other: &Value) {
    if *place == 0 {
        *value = other.clone();
        *place = usize::MAX;
        return;
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, place, other)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, place, other)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_harm_a_reader(json in collection::vec(any::<u8>(), 0..64)) {
        read_all(&json);
    }

    #[test]
    fn no_text_of_the_right_characters_harms_a_reader(json in r#"[\[\]{}",:\\ud8cNaInfinty0-9eE.+ -]{0,48}"#) {
        read_all(json.as_bytes());
    }

    #[test]
    fn no_json_harms_a_reader(value in values()) {
        read_all(&bytes(&value));
    }

    #[test]
    fn a_message_with_one_thing_changed_harms_no_reader(
        message in prop_oneof![requests().prop_map(|request| json!(request)), responses().prop_map(|response| json!(response))],
        place in any::<sample::Index>(),
        other in values(),
    ) {
        let count = places(&message);
        let mut message = message;
        replace(&mut message, &mut place.index(count), &other);
        read_all(&bytes(&message));
    }

    #[test]
    fn a_request_that_was_built_is_valid_and_comes_back(request in requests()) {
        prop_assert_eq!(validate::request(&json!(request)), Ok(()));
        prop_assert_eq!(Request::from_json(&request.to_json().unwrap()), Ok(request));
    }

    #[test]
    fn a_response_that_was_built_is_valid_and_comes_back(response in responses()) {
        prop_assert_eq!(validate::response(&json!(response)), Ok(()));
        prop_assert_eq!(WireResponse::from_json(&response.to_json()).map(WireResponse::decode), Ok(Ok(response)));
    }

    #[test]
    fn a_failure_that_was_built_is_valid_and_comes_back(failure in failures()) {
        prop_assert_eq!(validate::failure(&json!(failure)), Ok(()));
        prop_assert_eq!(Failure::from_json(&failure.to_json()), Ok(failure));
    }

    #[test]
    fn an_answer_that_was_built_is_valid_and_comes_back(topic in ".*", tasks in collection::vec(".*", 0..4)) {
        let reply = NotifyReply::new(topic, tasks);
        prop_assert_eq!(NotifyReply::from_json(&reply.to_json()), Ok(reply));
    }

    #[test]
    fn a_life_follows_the_table_and_its_time_counts_until_a_worker_starts(
        steps in collection::vec((sample::select(&RequestState::ALL[..]), 0..40u64), 0..8),
        timeout in option::of(0..100u64),
    ) {
        let born = Moment::from_origin(Duration::from_secs(1000));
        let mut life = Lifecycle::new(born, timeout.map(Duration::from_secs));
        let (mut state, mut age) = ("WAITING".to_owned(), 0);
        for (to, later) in steps {
            age += later;
            let row = &GOLDEN["transitions"][format!("{state}->{to}")];
            let moved = match life.step(to) {
                Ok(Transition::Moved) => json!(true),
                Ok(Transition::Unchanged) => json!(false),
                Err(_) => json!("InvalidState"),
            };
            prop_assert_eq!(&row[0], &moved);
            state = text(&row[1]).to_owned();
            prop_assert_eq!(&state, life.state().as_str());
            let waits = state == "WAITING" || state == "PENDING";
            let is_expired = life.is_expired(born + Duration::from_secs(age));
            prop_assert_eq!(is_expired, waits && timeout.is_some_and(|timeout| age > timeout));
        }
    }
}

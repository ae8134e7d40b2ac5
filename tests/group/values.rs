//! Values that travel: into configuration files and logs, and back.

use std::{collections::HashSet, time::Duration};

use apportion::{
    Config, FencingToken, Label, MemberId,
    board::{JobState, Priority},
    group::Standing,
    queue::State,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[track_caller]
fn travels<T>(value: &T, written: Value)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_value(value).unwrap(), written);
    assert_eq!(serde_json::from_value::<T>(written).unwrap(), *value);
}

#[test]
fn values_are_written_as_one_would_and_read_back() {
    travels(&MemberId::new("evaluator-3").unwrap(), json!("evaluator-3"));
    travels(&FencingToken::default(), json!(0));
    travels(&Priority::VeryHigh, json!("VERY_HIGH"));
    travels(&JobState::Unclaimed, json!("UNCLAIMED"));
    travels(&Standing::Member, json!("member"));
    travels(&State::Successful, json!("successful"));
    travels(&Label::PythonBytes, json!("python-bytes"));
    for priority in [Priority::VeryLow, Priority::Low, Priority::Normal, Priority::High, Priority::VeryHigh] {
        travels(&priority, json!(priority.to_string()));
    }
    for state in [JobState::Unclaimed, JobState::Claimed, JobState::Complete] {
        travels(&state, json!(state.to_string()));
    }
}

#[test]
fn a_value_that_can_be_none_is_refused() {
    assert!(serde_json::from_value::<MemberId>(json!("a/b")).is_err());
    assert!(serde_json::from_value::<MemberId>(json!("")).is_err());
    assert!(serde_json::from_value::<Priority>(json!("very high")).is_err());
    assert!(serde_json::from_value::<FencingToken>(json!(-1)).is_err());
}

#[test]
fn tokens_are_numbers_that_can_be_compared_and_counted() {
    let seven: FencingToken = serde_json::from_value(json!(7)).unwrap();
    assert!(seven > FencingToken::default());
    assert_eq!((u64::from(seven), seven.get(), seven.to_string()), (7, 7, "0x7".to_string()));
    assert_eq!(HashSet::from([seven, seven]).len(), 1);
}

#[test]
fn a_configuration_is_read_from_a_url_or_from_a_map_of_its_options() {
    let config: Config = serde_json::from_value(json!({
        "url": "zookeeper://zk1,zk2:5",
        "timeout": 6,
        "heartbeat": 0.5,
        "lease": "3s",
        "namespace": "a/b",
        "member_id": "m",
        "replicas": 7,
        "randomize_hosts": true,
    }))
    .unwrap();
    assert_eq!(config.hosts(), ["zk1:2181", "zk2:5"]);
    assert_eq!((config.namespace.as_str(), config.member_id.as_deref()), ("a/b", Some("m")));
    assert_eq!((config.replicas, config.session_timeout), (7, Duration::from_secs(6)));
    assert_eq!(config.heartbeat, Some(Duration::from_millis(500)));
    assert_eq!(config.heartbeat_validity, Some(Duration::from_secs(3)));
    let short: Config = serde_json::from_value(json!("zookeeper://zk1?timeout=6")).unwrap();
    assert_eq!(short.session_timeout, config.session_timeout);
    for (bad, says) in [
        (json!({ "timeout": 6 }), "url"),
        (json!({ "url": "zookeeper://zk1", "tiemout": 6 }), "tiemout"),
        (json!({ "url": "zookeeper://zk1", "timeout": [6] }), "did not match"),
        (json!({ "url": "zookeeper://zk1", "replicas": 0 }), "replicas"),
        (json!({ "url": "zookeeper://u:secret@zk1,," }), "hosts"),
        (json!(7), "URL"),
    ] {
        let error = serde_json::from_value::<Config>(bad).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("secret"), "{error}");
    }
}

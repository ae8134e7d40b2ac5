//! Invalid input is refused with a typed error before anything is sent, and what other processes write into a group
//! does no harm. Nothing panics, nothing hangs.

use std::{sync::Arc, time::Duration};

use apportion::{
    Config, ConfigError, Error, MemberId, PartitionCoordinator,
    backend::{
        self, BoxFuture, Connector, CreateMode, MAX_REQUEST_BYTES, Memory, Op, Session, path::ZnodePath,
    },
    clock::Clock,
    config::TimingError,
    group::Standing,
};
use proptest::prelude::*;
use rmpv::Value;

use crate::support::{
    MS, SECOND,
    fleet::{Store, create_with_ancestors, in_both_modes_on_both_backends, sees, settles_within, universe},
    until,
};

/// Names that no znode can have.
const BAD_NAMES: [&str; 18] = [
    "/",
    "a/b",
    "/a",
    "a/",
    "//",
    ".",
    "..",
    "\0",
    "a\u{1}b",
    "line\nbreak",
    "\u{1f}",
    "\u{7f}",
    "\u{9f}",
    "\u{e000}",
    "\u{f8ff}",
    "\u{fff0}",
    "\u{ffff}",
    "\u{1f600}",
];

/// Unusual names that a znode can have.
const UNUSUAL_NAMES: [&str; 10] =
    [" ", "%", "a b", "\u{a0}", "группа", "組", "\u{feff}", "...", "-", "zookeeper.quota"];

in_both_modes_on_both_backends!(
    a_bad_group_name_is_refused_and_an_unusual_one_is_not,
    what_other_processes_write_does_no_harm,
    members_for_whose_points_the_ring_has_no_room_change_nothing_for_the_others,
    a_member_that_does_not_say_what_ring_it_uses_is_a_mismatch,
    a_group_that_can_have_no_members_is_an_error_until_it_can,
    a_name_that_exceeds_a_request_is_an_error,
);

async fn a_bad_group_name_is_refused_and_an_unusual_one_is_not(store: Store) {
    let agent = store.agent("a").await;
    let before = agent.faults().calls().writes;
    for name in BAD_NAMES.into_iter().chain([""]) {
        let outcome = agent.joining(name).await;
        let Err(Error::GroupName { group, .. }) = &outcome else { panic!("{name:?}: {outcome:?}") };
        assert_eq!(group, name);
        let message = outcome.unwrap_err().to_string();
        assert!(message.chars().all(|c| !c.is_control()), "{message:?} would garble a log");
        if !name.is_empty() {
            let outcome = agent.coordinator.extract_my_subset(name, universe()).await;
            assert!(matches!(outcome, Err(Error::GroupName { .. })), "{name:?}: {outcome:?}");
        }
    }
    assert_eq!(agent.faults().calls().writes, before, "something was sent");
    for name in UNUSUAL_NAMES {
        let group = agent.join(name).await;
        assert_eq!(group.name(), name);
        assert_eq!(group.extract_my_subset(universe()).await.unwrap().len(), universe().len());
        group.leave().await.unwrap();
    }
}

#[test]
fn a_bad_member_id_is_refused_and_an_unusual_one_is_not() {
    for id in BAD_NAMES.into_iter().chain([""]) {
        assert_eq!(MemberId::new(id).unwrap_err().id, id);
        let outcome = PartitionCoordinator::start(Config::for_backend(Memory::new()).member_id(id));
        let Err(Error::Config(error @ ConfigError::MemberId(_))) = outcome else {
            panic!("{id:?}: {outcome:?}")
        };
        assert!(error.to_string().chars().all(|c| !c.is_control()), "{error}");
    }
    for id in UNUSUAL_NAMES {
        assert_eq!(MemberId::new(id).unwrap(), id);
    }
}

#[test]
fn a_bad_namespace_or_setting_is_refused_by_its_name() {
    let config = || Config::for_backend(Memory::new());
    let cases = [
        ("namespace", config().namespace("")),
        ("namespace", config().namespace("/a")),
        ("namespace", config().namespace("a/")),
        ("namespace", config().namespace("a//b")),
        ("namespace", config().namespace("a/../b")),
        ("namespace", config().namespace("a\n")),
        ("replicas", config().replicas(0)),
        ("replicas", config().replicas(u32::MAX)),
        ("session_timeout", config().session_timeout(Duration::ZERO)),
        ("session_timeout", config().session_timeout(Duration::MAX)),
        ("heartbeat", config().heartbeat(Duration::ZERO)),
        ("heartbeat_validity", config().heartbeat_validity(Duration::ZERO)),
        ("server_tick", config().server_tick(Duration::ZERO)),
        ("retry_backoff", config().retry_backoff(Duration::ZERO)),
        ("max_retry_interval", config().max_retry_interval(Duration::ZERO)),
        ("membership_check", config().membership_check(Duration::ZERO)),
    ];
    for (name, config) in cases {
        let outcome = PartitionCoordinator::start(config);
        let Err(Error::Config(ConfigError::Setting { setting, .. })) = outcome else {
            panic!("{name}: {outcome:?}")
        };
        assert_eq!(setting, name);
    }
    for config in [
        config().session_timeout(SECOND),
        config().heartbeat(4 * SECOND),
        config().heartbeat_validity(9 * SECOND),
        config().heartbeat_validity(SECOND),
        config().margin(9 * SECOND),
    ] {
        let outcome = PartitionCoordinator::start(config);
        assert!(matches!(outcome, Err(Error::Config(ConfigError::Timing(_)))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_malformed_url_is_refused_before_anything_connects() {
    for url in [
        "",
        "zookeeper",
        "zookeeper:",
        "zookeeper://",
        "://host",
        "zk://host",
        "http://host",
        "redis://host",
        "tcp+tls://host:2281",
        "zookeeper://tcp+tls://host:2281",
        "zookeeper://host:0",
        "zookeeper://host:65536",
        "zookeeper://host:port",
        "zookeeper://host,,other",
        "zookeeper://ho st",
        "zookeeper://host/path",
        "zookeeper://host?nope=1",
        "zookeeper://host?timeout=0",
        "zookeeper://host?timeout=-1",
        "zookeeper://host?timeout=soon",
        "zookeeper://host?heartbeat=0s",
        "zookeeper://host?lease=0ms",
        "zookeeper://host?namespace=/a",
        "zookeeper://host?namespace=a//b",
        "zookeeper://host?use_ssl=true",
        "zookeeper://host?randomize_hosts=false",
        "zookeeper://host?timeout=1s&heartbeat=1s",
        "zookeeper://host#fragment",
    ] {
        for outcome in [PartitionCoordinator::start(url), PartitionCoordinator::connect(url).await] {
            assert!(matches!(outcome, Err(Error::Config(_))), "{url:?}: {outcome:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_weight_of_nothing_or_beyond_reason_is_refused() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    for bad in [0, 100_001, u32::MAX] {
        let outcome = agent.coordinator.join("g").weight(bad).await;
        let Err(Error::Weight { weight, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(weight, bad);
    }
    let group = agent.coordinator.join("g").weight(1000).await.unwrap();
    settles_within(store.round(), &[&group]).await;
}

#[tokio::test(start_paused = true)]
async fn no_settling_time_makes_anything_panic() {
    let store = Store::memory();
    for store in [store.clone(), store.immediate()] {
        no_settling_time_panics(store).await;
    }
}

async fn no_settling_time_panics(store: Store) {
    let agent = store.started(if store.is_immediate { "b" } else { "a" }).await;
    for (number, settle) in
        [Duration::MAX, Duration::MAX / 2, Duration::from_nanos(1)].into_iter().enumerate()
    {
        let group = agent.joining(&format!("{}-{number}", store.is_immediate)).settle(settle).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        let expected = if settle < SECOND { Standing::Member } else { Standing::Joining };
        assert_eq!(group.view().standing(), expected);
        let left = tokio::time::timeout(SECOND, group.leave()).await;
        left.expect("it leaves").unwrap();
    }
}

/// Grants less than it is asked for, as a server with a low `maxSessionTimeout` does.
#[derive(Debug)]
struct Stingy(Memory, Duration);

impl Connector for Stingy {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, backend::Error>> {
        self.0.open(timeout.min(self.1))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Connector::clock(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_validity_that_does_not_fit_the_granted_timeout_is_refused_at_connecting() {
    for (granted, change) in [
        (8 * SECOND, Config::heartbeat_validity as fn(Config, Duration) -> Config),
        (3 * SECOND, |config: Config, _| config),
        (9 * SECOND, |config: Config, _| config.heartbeat(1600 * MS)),
    ] {
        let memory = Memory::new();
        let config = || change(Config::for_backend(Stingy(memory.clone(), granted)), 6 * SECOND);
        config().validate().expect("for the timeout that is asked for, it fits");
        let outcome = PartitionCoordinator::connect(config()).await;
        let Err(Error::Config(ConfigError::Timing(error))) = outcome else { panic!("{outcome:?}") };
        let shown = match error {
            TimingError::Timeout { timeout, .. }
            | TimingError::HeartbeatValidity { timeout, .. }
            | TimingError::Margin { timeout, .. } => timeout,
            other => panic!("{other}"),
        };
        assert_eq!(shown, granted);
        assert!(memory.sessions().is_empty(), "the session is given back");

        let started = PartitionCoordinator::start(config()).unwrap();
        let group = started.join("g").await.unwrap();
        tokio::time::sleep(SECOND).await;
        let outcome = group.extract_my_subset(universe()).await;
        assert!(matches!(outcome, Err(Error::Config(ConfigError::Timing(_)))), "{outcome:?}");
    }
}

/// A payload in the form of this library, with these fields.
fn ours(weight: u32, fields: &[(&str, Value)]) -> Vec<u8> {
    let fields = fields.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
    let map = vec![("weight".into(), weight.into()), ("apportion".into(), Value::Map(fields))];
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &Value::Map(map)).unwrap();
    bytes
}

async fn what_other_processes_write_does_no_harm(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    let payloads = [
        vec![0x91; 100_000],
        vec![0xde; 3],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
        b"\x81\xa6weight\x00".to_vec(),
        b"\x81\xa6weight\xff".to_vec(),
        b"\x81\xa6weight\xcf\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x81\xa6weight\xcb\x7f\xf8\0\0\0\0\0\0".to_vec(),
        b"\x81\xa9apportion\xc0".to_vec(),
        b"\x81\xa9apportion\x80".to_vec(),
        b"{\"weight\": 5}".to_vec(),
        vec![0; MAX_REQUEST_BYTES / 4],
    ];
    let other = store.session().await;
    let mut expected = vec!["a".to_owned(), "b".to_owned()];
    for (number, payload) in payloads.into_iter().enumerate() {
        let id = format!("s-{number:02}");
        let create = Op::create(&store.path("g").join(&id).unwrap(), payload, CreateMode::Ephemeral);
        other.commit(vec![create]).await.unwrap();
        expected.push(id);
    }
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    for group in [&in_a, &in_b] {
        sees(group, 2 * store.round() + SECOND, &expected).await;
        let view = group.view();
        assert_eq!(view.standing(), Standing::Member);
        assert!(expected.iter().all(|id| view.ring().weight(id) == Some(1)), "{view:?}");
    }
    other.close().await;
    settles_within(2 * store.round() + SECOND, &[&in_a, &in_b]).await;
}

async fn members_for_whose_points_the_ring_has_no_room_change_nothing_for_the_others(store: Store) {
    let agent = store.agent_with("a", |config| config.replicas(200)).await;
    let group = agent.join("g").await;
    let share = group.extract_my_subset(universe()).await.unwrap();
    let ready = Value::Map(vec![("state".into(), "ready".into())]);
    let same_ring =
        [("v", 1.into()), ("label", "plain".into()), ("replicas", 200.into()), ("handover", ready)];
    let greedy = store.session().await;
    // Each asks for twenty million points.
    let creates = ["_", "y"].map(|id| {
        Op::create(&store.path("g").join(id).unwrap(), ours(100_000, &same_ring), CreateMode::Ephemeral)
    });
    greedy.commit(creates.into()).await.unwrap();
    if store.is_immediate {
        sees(&group, store.round() + SECOND, &["_", "a", "y"]).await;
    } else {
        // They are not published. What is published next comes after they were seen.
        let other = store.agent_with("other", |config| config.replicas(200)).await;
        let in_other = other.join("g").await;
        sees(&group, store.round() + SECOND, &["a", "other"]).await;
        in_other.leave().await.unwrap();
        sees(&group, store.round() + SECOND, &["a"]).await;
    }
    assert!(share.is_valid() && group.view().ring().members().eq(["a"]));
    settles_within(store.round(), &[&group]).await;
    greedy.close().await;
    sees(&group, store.round() + SECOND, &["a"]).await;
    settles_within(store.round(), &[&group]).await;
}

async fn a_member_that_does_not_say_what_ring_it_uses_is_a_mismatch(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let newer = store.plain("g", "newer", &ours(1, &[("v", 2.into()), ("label", "chacha".into())])).await;
    if !store.is_immediate {
        // The group has the ring of its head, so the newer one alone is left out.
        let other = store.plain("g", "other", b"\xc0").await;
        sees(&group, store.round() + SECOND, &["a", "other"]).await;
        other.close().await;
        sees(&group, store.round() + SECOND, &["a"]).await;
        settles_within(store.round(), &[&group]).await;
        newer.close().await;
        return settles_within(store.round(), &[&group]).await;
    }
    until("refused", store.round() + SECOND, || group.view().standing() == Standing::Refused).await;
    let outcome = group.extract_my_subset(universe()).await;
    let Err(Error::RingMismatch { member, theirs, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(member, "newer");
    assert!(theirs.contains("unknown"), "{theirs}");
    newer.close().await;
    settles_within(2 * store.round(), &[&group]).await;
}

async fn a_group_that_can_have_no_members_is_an_error_until_it_can(store: Store) {
    let other = store.session().await;
    let namespace = store.path("g").parent().unwrap();
    create_with_ancestors(&*other, &namespace).await;
    other.commit(vec![Op::create(&store.path("g"), "", CreateMode::Ephemeral)]).await.unwrap();
    let agent = store.agent("a").await;
    let outcome = agent.joining("g").await;
    let Err(Error::Backend { path, error }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((path.as_str(), error), (store.path("g/a").as_str(), backend::Error::EphemeralParent));
    other.close().await;
    let group = agent.join("g").await;
    settles_within(store.round(), &[&group]).await;
}

async fn a_name_that_exceeds_a_request_is_an_error(store: Store) {
    let agent = store.agent("a").await;
    let outcome = agent.joining(&"g".repeat(MAX_REQUEST_BYTES)).await;
    let Err(Error::Backend { error: backend::Error::TooLarge { .. }, .. }) = &outcome else {
        panic!("{}", outcome.map(drop).unwrap_err())
    };
    // The session has not suffered.
    let group = agent.join("g").await;
    settles_within(store.round(), &[&group]).await;
}

#[tokio::test(start_paused = true)]
async fn keys_of_any_shape_have_an_owner() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let keys = [String::new(), "\0".into(), "x".repeat(1 << 20), "\u{1f600}".into(), " ".into(), "/".into()];
    for key in keys {
        assert_ne!(in_a.view().owns(&key), in_b.view().owns(&key));
    }
    let none: [String; 0] = [];
    assert!(in_a.extract_my_subset(none).await.unwrap().is_valid());
    let twice = in_a.extract_my_subset(["k", "k", "k"]).await.unwrap();
    assert!(twice.len() == 3 || twice.is_empty(), "a repeated key is kept as often as it was given");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_name_is_a_group_or_a_typed_error(name in any::<String>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await.unwrap();
            match coordinator.join(&*name).await {
                Ok(group) => {
                    prop_assert!(ZnodePath::root().join(&name).is_ok());
                    prop_assert!(group.extract_my_subset(universe()).await.is_ok());
                }
                Err(error) => prop_assert!(matches!(error, Error::GroupName { .. }), "{}", error),
            }
            Ok(())
        })?;
    }
}

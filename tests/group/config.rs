//! What a configuration accepts, and the golden URLs as the Python drivers read them.

use std::{sync::Arc, time::Duration};

use apportion::{
    backend::{BoxFuture, Connector, Error, Session},
    clock::{BootClock, Clock},
    config::{Config, ConfigError, TimingError},
    ring::Label,
};
use proptest::prelude::*;

use crate::support::golden::golden;

/// Leads nowhere.
#[derive(Debug)]
struct Nowhere;

impl Connector for Nowhere {
    fn open(&self, _: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async { Err(Error::Unreachable("nowhere".into())) })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }
}

fn refused(url: &str) -> ConfigError {
    match Config::from_url(url) {
        Err(error) => error,
        Ok(config) => panic!("{url} was accepted: {config:?}"),
    }
}

/// The URL without what the module documentation refuses although Python takes it, and what that was.
fn without_what_is_refused(url: &str) -> (String, Vec<&'static str>) {
    let (scheme, rest) = url.split_once("://").expect("golden URLs have a scheme");
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut reasons = Vec::new();
    let authority = match authority.rsplit_once('@') {
        Some((user_info, netloc)) if !user_info.contains(':') || user_info.starts_with(':') => {
            reasons.push("credentials");
            netloc
        }
        _ => authority,
    };
    if scheme == "zk" {
        reasons.push("scheme");
    }
    if !path.is_empty() {
        reasons.push("path");
    }
    if authority.is_empty() && query.is_empty() {
        reasons.push("hosts");
    }
    let mut accepted = vec!["randomize_hosts=true"];
    let options: Vec<_> = query.split('&').filter(|option| !option.is_empty()).collect();
    for (at, option) in options.iter().enumerate() {
        match option.split_once('=').unwrap_or((option, "")) {
            (name, "") => {
                let is_overruled =
                    options[at + 1..].iter().any(|later| later.split('=').next() == Some(name));
                reasons.extend((!is_overruled).then_some("timeout"));
            }
            ("timeout" | "namespace" | "hosts", _) | ("randomize_hosts", "True") | ("use_ssl", "false") => {
                accepted.push(option);
            }
            ("randomize_hosts", _) => reasons.push("randomize_hosts"),
            ("use_ssl", _) => reasons.push("use_ssl"),
            _ => reasons.push("unknown option"),
        }
    }
    (format!("{scheme}://{authority}?{}", accepted.join("&")), reasons)
}

fn reason(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::Url { part, .. } => part,
        ConfigError::UnknownOption(_) => "unknown option",
        ConfigError::Setting { setting, .. } => setting,
        other => panic!("{other}"),
    }
}

#[test]
fn golden_urls_are_read_as_python_reads_them_except_for_what_is_refused_on_purpose() {
    let golden = golden("urls.json");
    let (mut alike, mut stricter, mut both_refuse) = (0, 0, 0);
    for row in golden["rows"].as_array().unwrap() {
        let url = row["url"].as_str().unwrap();
        let (accepted, mut reasons) = without_what_is_refused(url);
        if row["raises"] == "ValueError" {
            reasons.push("timeout");
        }
        match Config::aodh().url(url) {
            Ok(_) => assert!(reasons.is_empty(), "{url} was accepted"),
            Err(error) => assert!(reasons.contains(&reason(&error)), "{url}: {error}"),
        }
        if !row["raises"].is_null() {
            assert!(Config::aodh().url(&accepted).is_err(), "{accepted}");
            both_refuse += 1;
            continue;
        }
        *(if reasons.is_empty() { &mut alike } else { &mut stricter }) += 1;

        let config = Config::aodh().url(&accepted).unwrap_or_else(|error| panic!("{accepted}: {error}"));
        let mut hosts = config.hosts().to_vec();
        hosts.sort();
        assert_eq!(serde_json::json!(hosts), row["hosts"], "{url}");
        assert_eq!(serde_json::json!(config.session_timeout.as_millis()), row["session_timeout_ms"], "{url}");
        assert_eq!(serde_json::json!(config.namespace), row["namespace"], "{url}");
        let user = row["acl_id"].as_str().map(|id| id.split(':').next().unwrap());
        assert_eq!(config.user(), user, "{url}");
        config.validate().unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    assert_eq!((alike, stricter, both_refuse), (11, 29, 20));
}

#[test]
fn a_url_without_a_host_means_localhost_only_if_it_says_something_else() {
    assert_eq!(Config::from_url("zookeeper://?namespace=n").unwrap().hosts(), ["localhost:2181"]);
    for bare in ["zookeeper://", "kazoo://", "zookeeper:///", "zookeeper://?", "zookeeper://u:p@"] {
        assert_eq!(reason(&refused(bare)), "hosts", "{bare}");
    }
}

#[test]
fn refusals_say_what_to_write_instead() {
    for (url, advice) in [
        ("", "PartitionCoordinator::standalone()"),
        (" \n", "PartitionCoordinator::standalone()"),
        ("memory://", "Config::for_backend(backend::Memory::new())"),
        ("zk://h", "zookeeper://"),
        ("zk1:2181", "zookeeper://"),
        ("etcd3://h", "`etcd3`"),
        ("zookeeper://h/tooz", "?namespace="),
        ("zookeeper://h?chek_watchers=3", "`chek_watchers`"),
        ("zookeeper://h?randomize_hosts=false", "random order"),
        ("zookeeper://h?verify_certs=false", "always checked"),
        ("zookeeper://h?timeout=1.5", "1500ms"),
        ("zookeeper://h?label=bytes", "`plain`, `python-bytes` or `tooz`"),
        ("zookeeper://h?namespace=/a", "without a slash in front"),
        ("zookeeper://alice@h", "`user:password`"),
        ("zookeeper://h?namespace=", "leave it out"),
    ] {
        let error = refused(url).to_string();
        assert!(error.contains(advice), "{url}: {error}");
    }
    assert_eq!(refused(""), ConfigError::NoBackend);
    assert_eq!(refused("zookeeper://h?bogus="), ConfigError::UnknownOption("bogus".into()));
}

#[test]
fn bad_values_are_refused_by_the_name_of_their_setting() {
    for (option, setting) in [
        ("timeout=abc", "timeout"),
        ("timeout=-1", "timeout"),
        ("timeout=0", "session_timeout"),
        ("timeout=0s", "session_timeout"),
        ("timeout=2200000", "session_timeout"),
        ("timeout=99999999999999999999", "timeout"),
        ("heartbeat=0", "heartbeat"),
        ("lease=0ms", "heartbeat_validity"),
        ("margin=0.0", "margin"),
        ("server_tick=0", "server_tick"),
        ("membership_check=0", "membership_check"),
        ("check_watchers=soon", "check_watchers"),
        ("retry_backoff=1h", "retry_backoff"),
        ("max_retry_interval=0", "max_retry_interval"),
        ("replicas=0", "replicas"),
        ("replicas=100001", "replicas"),
        ("replicas=-1", "replicas"),
        ("namespace=a//b", "namespace"),
        ("namespace=a/", "namespace"),
        ("namespace=a%2F..", "namespace"),
        ("namespace=a%00", "namespace"),
        ("namespace=%F0%9F%98%80", "namespace"),
        ("randomize_hosts=maybe", "randomize_hosts"),
        ("use_ssl=maybe", "use_ssl"),
    ] {
        assert_eq!(reason(&refused(&format!("zookeeper://h?{option}"))), setting, "{option}");
    }
    assert_eq!(reason(&refused("zookeeper://h?max_request_bytes=1000")), "max_request_bytes");
    assert!(matches!(refused("zookeeper://h?member_id=a%2Fb"), ConfigError::MemberId(_)));
}

#[test]
fn half_a_credential_and_an_empty_option_are_refused_and_not_ignored() {
    for half in ["alice@h", "alice:@h", ":pw@h", "@h", ":@h", "alice@h,i?timeout=6"] {
        assert_eq!(reason(&refused(&format!("zookeeper://{half}"))), "credentials", "{half}");
    }
    for option in [
        "timeout",
        "heartbeat",
        "lease",
        "margin",
        "server_tick",
        "membership_check",
        "check_watchers",
        "retry_backoff",
        "max_retry_interval",
        "namespace",
        "member_id",
        "label",
        "replicas",
        "max_request_bytes",
        "randomize_hosts",
        "use_ssl",
        "hosts",
    ] {
        for url in [format!("zookeeper://h?{option}="), format!("zookeeper://h?{option}")] {
            let error = refused(&url);
            assert_eq!(reason(&error), option, "{url}");
            assert!(error.to_string().contains("empty"), "{url}: {error}");
        }
        let map = serde_json::json!({ "url": "zookeeper://h", option: "" });
        let error = serde_json::from_value::<Config>(map);
        assert!(error.is_err() || option == "hosts", "{option}: {error:?}");
    }
}

#[test]
fn every_option_reaches_its_field_and_the_last_value_counts() {
    let config = Config::from_url(
        "zookeeper://h?timeout=abc&timeout=&timeout=20&heartbeat=1.5&lease=8s&margin=250ms&server_tick=3\
         &check_watchers=10.0&membership_check=20&retry_backoff=2&max_retry_interval=1.0&member_id=a%40b\
         &label=python-bytes&replicas=64&namespace=&namespace=a%2Fb&randomize_hosts=True&use_ssl=no",
    )
    .unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(config.session_timeout, 20 * second);
    assert_eq!((config.heartbeat, config.heartbeat_validity), (Some(second * 3 / 2), Some(8 * second)));
    assert_eq!((config.margin, config.server_tick), (Some(second / 4), 3 * second));
    assert_eq!(config.membership_check, 20 * second);
    assert_eq!((config.retry_backoff, config.max_retry_interval), (2 * second, second));
    assert_eq!(config.member_id.as_deref(), Some("a@b"));
    assert_eq!((config.label, config.replicas, config.namespace.as_str()), (Label::PythonBytes, 64, "a/b"));
    config.validate().unwrap();
}

#[test]
fn a_url_changes_only_what_it_names() {
    let config = Config::aodh().replicas(50).url("zookeeper://u:p@h").unwrap();
    assert_eq!((config.namespace.as_str(), config.label, config.replicas), ("tooz", Label::PythonBytes, 50));
    let moved = config.url("zookeeper://i?namespace=n").unwrap();
    assert_eq!((moved.hosts(), moved.user()), (&["i:2181".to_owned()][..], None));
    assert_eq!((moved.namespace.as_str(), moved.replicas), ("n", 50));
}

#[test]
fn a_configuration_for_tooz_has_its_namespace_and_ring() {
    let config = Config::tooz(48).url("zookeeper://h?member_id=host-1").unwrap();
    assert_eq!((config.namespace.as_str(), config.label, config.replicas), ("tooz", Label::Tooz, 48));
    config.validate().unwrap();
    let by_url = Config::from_url("zookeeper://h?namespace=tooz&label=tooz&replicas=48").unwrap();
    assert_eq!((by_url.label, by_url.replicas), (config.label, config.replicas));
    for partitions in [0, 100_001] {
        let refused = Config::tooz(partitions).url("zookeeper://h").unwrap_err();
        assert!(matches!(refused, ConfigError::Setting { setting: "replicas", .. }), "{refused:?}");
    }
    // Python could not list the group.
    for config in [Config::tooz(32), Config::aodh()] {
        let refused = config.url("zookeeper://h").unwrap().member_id("höst").validate().unwrap_err();
        assert!(matches!(refused, ConfigError::Setting { setting: "member_id", .. }), "{refused:?}");
    }
}

#[test]
fn a_configuration_for_ironic_has_its_partitions_and_md5_only() {
    let config = Config::ironic(7, "md5").unwrap();
    assert_eq!((config.namespace.as_str(), config.label, config.replicas), ("tooz", Label::Tooz, 128));
    for (exponent, algorithm) in [(5, "sha256"), (5, "sha1"), (5, ""), (25, "md5"), (64, "md5")] {
        let refused = Config::ironic(exponent, algorithm).unwrap_err();
        assert!(matches!(refused, ConfigError::Ring(_)), "{refused:?}");
    }
}

#[test]
fn the_defaults_are_valid_once_there_is_a_backend() {
    assert_eq!(Config::default().validate(), Err(ConfigError::NoBackend));
    assert_eq!(Config::aodh().validate(), Err(ConfigError::NoBackend));
    Config::for_backend(Nowhere).validate().unwrap();
    Config::for_backend(Nowhere).member_id("a").validate().unwrap();
    assert!(Config::for_backend(Nowhere).hosts().is_empty());
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_connects() {
    let config = || Config::for_backend(Nowhere);
    for (config, setting) in [
        (config().namespace(""), "namespace"),
        (config().namespace("/a"), "namespace"),
        (config().replicas(0), "replicas"),
        (config().session_timeout(Duration::ZERO), "session_timeout"),
        (config().session_timeout(Duration::MAX), "session_timeout"),
        (config().heartbeat(Duration::ZERO), "heartbeat"),
        (config().heartbeat_validity(Duration::MAX), "heartbeat_validity"),
        (config().margin(Duration::ZERO), "margin"),
        (config().server_tick(Duration::from_micros(999)), "server_tick"),
        (config().membership_check(Duration::ZERO), "membership_check"),
        (config().retry_backoff(Duration::ZERO), "retry_backoff"),
        (config().max_retry_interval(Duration::ZERO), "max_retry_interval"),
    ] {
        assert_eq!(reason(&config.validate().unwrap_err()), setting);
    }
    for id in ["", "a/b", ".", "a\0", "\u{1f600}"] {
        let error = config().member_id(id).validate().unwrap_err();
        assert!(matches!(error, ConfigError::MemberId(_)), "{id:?}: {error}");
    }
    let timing = |config: Config| match config.validate() {
        Err(ConfigError::Timing(error)) => error,
        other => panic!("{other:?}"),
    };
    let second = Duration::from_secs(1);
    assert!(matches!(timing(config().session_timeout(3 * second)), TimingError::Timeout { .. }));
    assert!(matches!(timing(config().heartbeat_validity(7 * second)), TimingError::HeartbeatValidity { .. }));
    assert!(matches!(
        timing(config().heartbeat(second / 2).heartbeat_validity(second)),
        TimingError::HeartbeatValidity { .. }
    ));
    assert!(matches!(timing(config().margin(5 * second)), TimingError::Margin { .. }));
    config().session_timeout(second).server_tick(second / 5).validate().unwrap();
}

#[test]
fn only_fleets_with_python_peers_need_ascii_member_ids() {
    let config = Config::for_backend(Nowhere).member_id("знак");
    config.validate().unwrap();
    let error = config.label(Label::PythonBytes).validate().unwrap_err();
    assert_eq!(reason(&error), "member_id");
}

#[test]
fn urls_and_configurations_are_taken_alike() {
    fn taken<C: TryInto<Config>>(config: C) -> Result<Config, ConfigError>
    where
        ConfigError: From<C::Error>,
    {
        Ok(config.try_into()?)
    }
    let url = String::from("zookeeper://h");
    assert_eq!(taken(&url).unwrap().hosts(), ["h:2181"]);
    assert_eq!(taken(url.as_str()).unwrap().hosts(), ["h:2181"]);
    assert_eq!(taken(url.clone()).unwrap().hosts(), ["h:2181"]);
    assert_eq!(taken(Config::from_url(url).unwrap()).unwrap().hosts(), ["h:2181"]);
    assert_eq!(taken("").unwrap_err(), ConfigError::NoBackend);
}

/// A stretch of the password that appears nowhere else in the URLs of these tests.
const SECRET: &str = "S3cReT";

fn assert_hidden(result: &Result<Config, ConfigError>, url: &str) {
    let mut shown = format!("{result:?}");
    if let Err(error) = result {
        shown += &error.to_string();
    }
    assert!(!shown.contains(SECRET), "{url}: {shown}");
}

#[test]
fn no_output_contains_the_password_even_if_it_breaks_the_url() {
    for url in [
        "zookeeper://u:S3cReT@h",
        "zookeeper://u:S3cReT@h?bogus=1",
        "zookeeper://u:S3cReT@h/path",
        "zookeeper://u:S3cReT@h:x",
        "zookeeper://u:S3cReT@",
        "zookeeper://u:S3cReT",
        "zookeeper://u:S3cReT/S3cReT@h",
        "zookeeper://u:1/S3cReT@h",
        "zookeeper://u:1?S3cReT@h",
        "zookeeper://u:1?namespace=S3cReT@h",
        "zookeeper://u:1#S3cReT@h",
        "zookeeper://u:S3cReT@S3cReT@h,",
        "zookeeper://u:a:S3cReT@h:0",
        "zk://u:S3cReT@h",
        "u:S3cReT://x@h",
        "u:S3cReT@h",
        "zookeeper:u:S3cReT@h",
    ] {
        assert_hidden(&Config::from_url(url), url);
    }
    assert!(format!("{:?}", Config::from_url("zookeeper://me:S3cReT@h").unwrap()).contains("me"));
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_a_typed_error(
        text in any::<String>(),
        query in "[a-z_]{0,9}=[ -~é]{0,12}(&timeout=[0-9.]{0,22}(s|ms)?)?(&[%&=+a-f0-9]{0,9})?",
        hosts in r"[a-z0-9:,.@\[\]/-]{0,20}",
    ) {
        for url in [text.clone(), format!("zookeeper://{text}"), format!("zookeeper://{hosts}?{query}")] {
            if let Ok(config) = Config::from_url(&url) {
                prop_assert!(!config.hosts().is_empty());
                let _ = config.validate();
            }
        }
    }

    #[test]
    fn a_password_of_any_characters_is_sent_or_refused_but_never_shown(
        before in "[!-~é]{0,4}",
        after in "[!-~é]{0,4}",
        tail in prop_oneof![Just(""), Just("/x"), Just("?bogus=1"), Just("?timeout=0"), Just(":0"), Just(",")],
    ) {
        let url = format!("zookeeper://u:{before}{SECRET}{after}{SECRET}@h{tail}");
        assert_hidden(&Config::from_url(&url), &url);
    }
}

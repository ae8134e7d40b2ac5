//! Reads a [`Config`] from the configuration file of a service.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use super::{Config, option};

/// Reads either a URL, or a map with `url` and the options that a URL can have, with the same names and values:
///
/// ```
/// use std::time::Duration;
///
/// use apportion::Config;
/// use serde_json::json;
///
/// let short: Config = serde_json::from_value(json!("zookeeper://zk1,zk2?timeout=6"))?;
/// let long: Config = serde_json::from_value(json!({
///     "url": "zookeeper://zk1,zk2",
///     "timeout": 6,
///     "namespace": "pollsters",
///     "heartbeat": "500ms",
/// }))?;
/// assert_eq!((short.session_timeout, short.hosts()), (long.session_timeout, long.hosts()));
/// assert_eq!(long.heartbeat, Some(Duration::from_millis(500)));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// There is no `Serialize`: a configuration may hold a password.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        deserializer.deserialize_any(ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL such as `zookeeper://zk1:2181`, or a map with `url` and options")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<Config, E> {
        Config::from_url(url).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
        let mut options = BTreeMap::new();
        while let Some((name, Text(value))) = map.next_entry::<String, Text>()? {
            options.insert(name, value);
        }
        let url = options.remove("url").ok_or_else(|| de::Error::missing_field("url"))?;
        let mut config = Config::from_url(url).map_err(de::Error::custom)?;
        for (name, value) in options {
            option::apply(&mut config, &name, Some(&value)).map_err(de::Error::custom)?;
        }
        config.check_each().map_err(de::Error::custom)?;
        Ok(config)
    }
}

/// A value in the form that a URL has it.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Text(String),
            Whole(u64),
            Number(f64),
            Switch(bool),
        }
        Ok(Text(match Value::deserialize(deserializer)? {
            Value::Text(text) => text,
            Value::Whole(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Switch(switch) => switch.to_string(),
        }))
    }
}

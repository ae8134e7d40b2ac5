// Pure: no runtime, no clock, no socket, no random numbers.

//! The options of a URL, applied to a [`Config`].

use std::time::Duration;

use super::{Backend, Config, error::ConfigError, url};
use crate::ring::Label;

impl Config {
    /// The default settings, on the servers of `url` and changed by its options. See [`config`](crate::config) for the
    /// format.
    ///
    /// # Errors
    ///
    /// As [`Config::url`].
    pub fn from_url(url: impl AsRef<str>) -> Result<Config, ConfigError> {
        Config::default().url(url)
    }

    /// This configuration on the servers of `url`, changed by its options. See [`config`](crate::config) for the
    /// format.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoBackend`] if `url` is empty, otherwise [`ConfigError::Url`],
    /// [`ConfigError::UnknownOption`], [`ConfigError::Setting`] or [`ConfigError::MemberId`]. [`Config::validate`]
    /// checks whether all settings fit each other.
    pub fn url(mut self, url: impl AsRef<str>) -> Result<Config, ConfigError> {
        let parsed = url::parse(url.as_ref())?;
        // The last value of an option counts. As in Python, the values before it are not even checked.
        let options = &parsed.options;
        for (at, (name, value)) in options.iter().enumerate() {
            let is_overruled = options[at + 1..].iter().any(|(other, _)| other == name);
            apply(&mut self, name, (!is_overruled).then_some(value))?;
        }
        self.backend = Backend::Servers(parsed.servers);
        self.check_each()?;
        Ok(self)
    }
}

impl TryFrom<&str> for Config {
    type Error = ConfigError;

    /// [`Config::from_url`].
    fn try_from(url: &str) -> Result<Config, ConfigError> {
        Config::from_url(url)
    }
}

impl TryFrom<&String> for Config {
    type Error = ConfigError;

    /// [`Config::from_url`].
    fn try_from(url: &String) -> Result<Config, ConfigError> {
        Config::from_url(url)
    }
}

impl TryFrom<String> for Config {
    type Error = ConfigError;

    /// [`Config::from_url`].
    fn try_from(url: String) -> Result<Config, ConfigError> {
        Config::from_url(url)
    }
}

/// Sets the field that belongs to the option `name` of a URL. Without a value, checks only that there is such an option.
pub(super) fn apply(config: &mut Config, name: &str, value: Option<&String>) -> Result<(), ConfigError> {
    let target = match name {
        "timeout" => {
            // Python peers of the fleet accept whole seconds only in this option.
            if let Some(value) = value.filter(|value| value.contains('.')) {
                return Err(bad("timeout", value, "whole seconds, or a duration such as `1500ms`"));
            }
            Target::Duration("timeout", &mut config.session_timeout)
        }
        "heartbeat" => Target::Derived("heartbeat", &mut config.heartbeat),
        "lease" => Target::Derived("lease", &mut config.heartbeat_validity),
        "margin" => Target::Derived("margin", &mut config.margin),
        "server_tick" => Target::Duration("server_tick", &mut config.server_tick),
        "membership_check" => Target::Duration("membership_check", &mut config.membership_check),
        "check_watchers" => Target::Duration("check_watchers", &mut config.membership_check),
        "retry_backoff" => Target::Duration("retry_backoff", &mut config.retry_backoff),
        "max_retry_interval" => Target::Duration("max_retry_interval", &mut config.max_retry_interval),
        "namespace" => Target::Text(&mut config.namespace),
        "member_id" => Target::MaybeText("member_id", &mut config.member_id),
        "label" => Target::Label(&mut config.label),
        "replicas" => Target::Number(&mut config.replicas),
        "max_request_bytes" => Target::Bytes(&mut config.max_request_bytes),
        "randomize_hosts" => {
            Target::Only("randomize_hosts", true, "true: the hosts are always tried in random order")
        }
        "use_ssl" => Target::Switch("use_ssl", &mut config.tls.use_ssl),
        "verify_certs" => {
            Target::Only("verify_certs", true, "true: the certificates of servers are always checked")
        }
        "ca" => Target::MaybeText("ca", &mut config.tls.ca),
        "certfile" => Target::MaybeText("certfile", &mut config.tls.certfile),
        "keyfile" => Target::MaybeText("keyfile", &mut config.tls.keyfile),
        "keyfile_password" => Target::MaybeText("keyfile_password", &mut config.tls.keyfile_password),
        _ => return Err(ConfigError::UnknownOption(name.into())),
    };
    match value {
        None => Ok(()),
        // Most likely a variable of a template was not set. Python ignores it.
        Some(value) if value.is_empty() => Err(ConfigError::Setting {
            setting: target.name(),
            problem: "it is empty: give it a value or leave it out".into(),
        }),
        Some(value) => target.set(value),
    }
}

/// The field that an option sets, and the type of its value.
enum Target<'a> {
    Duration(&'static str, &'a mut Duration),
    Derived(&'static str, &'a mut Option<Duration>),
    Text(&'a mut String),
    MaybeText(&'static str, &'a mut Option<String>),
    Label(&'a mut Label),
    Number(&'a mut u32),
    Bytes(&'a mut usize),
    Switch(&'static str, &'a mut bool),
    /// Only one value is allowed: its name, the value, and why.
    Only(&'static str, bool, &'static str),
}

impl Target<'_> {
    /// The name of the option.
    fn name(&self) -> &'static str {
        match self {
            Target::Duration(name, _)
            | Target::Derived(name, _)
            | Target::MaybeText(name, _)
            | Target::Switch(name, _)
            | Target::Only(name, ..) => name,
            Target::Text(_) => "namespace",
            Target::Label(_) => "label",
            Target::Number(_) => "replicas",
            Target::Bytes(_) => "max_request_bytes",
        }
    }

    fn set(self, value: &str) -> Result<(), ConfigError> {
        match self {
            Target::Duration(name, target) => *target = duration(name, value)?,
            Target::Derived(name, target) => *target = Some(duration(name, value)?),
            Target::Text(target) => *target = value.into(),
            Target::MaybeText(_, target) => *target = Some(value.into()),
            Target::Label(target) => {
                *target =
                    value.parse().map_err(|_| bad("label", value, "`plain`, `python-bytes` or `tooz`"))?;
            }
            Target::Number(target) => {
                *target = value.parse().map_err(|_| bad("replicas", value, "a whole number"))?;
            }
            Target::Bytes(target) => {
                *target = value.parse().map_err(|_| bad("max_request_bytes", value, "a whole number"))?;
            }
            Target::Switch(name, target) => {
                *target = truth(value).ok_or_else(|| bad(name, value, "`true` or `false`"))?;
            }
            Target::Only(name, allowed, expected) => {
                if truth(value) != Some(allowed) {
                    return Err(bad(name, value, expected));
                }
            }
        }
        Ok(())
    }
}

fn duration(name: &'static str, text: &str) -> Result<Duration, ConfigError> {
    parse_duration(text).ok_or_else(|| bad(name, text, "seconds, or a duration such as `1.5s` or `500ms`"))
}

/// `3`, `0.25`, `3s` or `250ms`; `None` if it is something else or too large.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, second) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (text.strip_suffix('s').unwrap_or(text), Duration::from_secs(1)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole = second.checked_mul(whole.parse().ok()?)?;
    let fraction =
        second.checked_mul(fraction.parse().ok()?)? / 10_u32.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(fraction)
}

/// A truth value in the spellings of OpenStack.
fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

fn bad(setting: &'static str, value: &str, expected: &str) -> ConfigError {
    let problem = format!("it is `{}`, but should be {expected}", value.escape_debug());
    ConfigError::Setting { setting, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_carry_a_unit() {
        for (text, millis) in [
            ("10", 10_000),
            ("10.0", 10_000),
            ("0.25", 250),
            ("1.000000001", 1000),
            ("1s", 1000),
            ("1.5s", 1500),
            ("500ms", 500),
            ("0.5ms", 0),
            ("0", 0),
            ("007", 7000),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), Some(millis), "{text}");
        }
        assert_eq!(parse_duration("2.000000001"), Some(Duration::new(2, 1)));
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1 s",
            "1m",
            "1h",
            "ms",
            "s",
            "inf",
            "1.2.3",
            "0x1",
            "1_0",
            "١",
            "1.0000000001",
            "99999999999",
            "99999999999s",
            "99999999999999999999ms",
            "18446744073709551616",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}

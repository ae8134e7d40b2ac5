//! Alarm definitions, and their evaluation against the metrics of a host.

use std::{borrow::Cow, collections::HashSet, fmt, path::Path};

use apportion::{RingKey, serde_json};
use serde::Deserialize;

use super::host::{Metric, Metrics};
use crate::support::{Failure, read};

/// One threshold on one metric.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    pub id: String,
    pub name: String,
    pub metric: Metric,
    /// The device to check: a core, a mount point, an interface, the name of a process. Without it, all devices.
    device: Option<String>,
    statistic: Statistic,
    comparison: Comparison,
    threshold: f64,
    pub severity: Severity,
}

/// How the values of several devices are combined.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Statistic {
    Max,
    Min,
    Avg,
    Sum,
    Count,
}

/// On which side of the threshold the alarm fires.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Comparison {
    Gt,
    Ge,
    Lt,
    Le,
    Eq,
    Ne,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Moderate,
    Critical,
}

/// The result of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    Ok,
    /// The alarm fires, at this value.
    Alarm(f64),
    /// The host does not have such a metric or device, or not yet.
    InsufficientData,
}

/// The ring hashes the id of an alarm, which is the same in every process.
impl RingKey for Alarm {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.id.ring_key()
    }
}

impl Alarm {
    /// Compares the present value of the alarm's metric with its threshold.
    pub fn evaluate(&self, metrics: &Metrics) -> State {
        let Some(value) = self.value(metrics) else { return State::InsufficientData };
        let fires = match self.comparison {
            Comparison::Gt => value > self.threshold,
            Comparison::Ge => value >= self.threshold,
            Comparison::Lt => value < self.threshold,
            Comparison::Le => value <= self.threshold,
            Comparison::Eq => value == self.threshold,
            Comparison::Ne => value != self.threshold,
        };
        if fires { State::Alarm(value) } else { State::Ok }
    }

    fn value(&self, metrics: &Metrics) -> Option<f64> {
        let samples = metrics.get(&self.metric)?;
        let counts = |device: &str| self.device.as_deref().is_none_or(|wanted| wanted == device);
        let values: Vec<f64> =
            samples.iter().filter(|(device, _)| counts(device)).map(|(_, value)| *value).collect();
        let number = values.len() as f64;
        match self.statistic {
            Statistic::Count => Some(number),
            _ if values.is_empty() => None,
            Statistic::Max => values.into_iter().reduce(f64::max),
            Statistic::Min => values.into_iter().reduce(f64::min),
            Statistic::Sum => Some(values.iter().sum()),
            Statistic::Avg => Some(values.iter().sum::<f64>() / number),
        }
    }

    /// `97.2 > 95`.
    pub fn reason(&self, value: f64) -> String {
        let comparison = match self.comparison {
            Comparison::Gt => ">",
            Comparison::Ge => ">=",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Eq => "=",
            Comparison::Ne => "is not",
        };
        format!("{} {comparison} {}", (value * 100.0).round() / 100.0, self.threshold)
    }
}

impl State {
    /// The name that aodh gives it.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Alarm(_) => "alarm",
            State::InsufficientData => "insufficient data",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Low => "low",
            Severity::Moderate => "moderate",
            Severity::Critical => "critical",
        })
    }
}

/// The alarms of `file`, or else those of `examples/alarms.json`.
pub fn load(file: Option<&Path>) -> Result<Vec<Alarm>, Failure> {
    let (name, text) = match file {
        Some(file) => (file.display().to_string(), read(file)?),
        None => ("examples/alarms.json".into(), include_str!("../alarms.json").into()),
    };
    let alarms: Vec<Alarm> = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
    let mut ids = HashSet::new();
    if let Some(twice) = alarms.iter().find(|alarm| !ids.insert(&alarm.id)) {
        return Err(format!("{name}: there are two alarms with the id `{}`", twice.id).into());
    }
    if alarms.is_empty() {
        return Err(format!("{name}: there is no alarm").into());
    }
    Ok(alarms)
}

//! What this library counts and measures, for the exporter that a service installs.
//!
//! With the cargo feature `metrics`, all of [`METRICS`] go to the recorder of the crate [`metrics`](::metrics): a service
//! installs one, for instance that of `metrics-exporter-prometheus`, before it opens a coordinator. Without the feature
//! nothing is measured. Labels have few values: names of groups, paths of boards and queues, topics and tasks of workers,
//! and fixed words. There is never a key, a member, a job or a request in a label.
//!
//! Gauges are set when what they show changes, those of a board at each listing of this process. [`PartitionCoordinator::record_metrics`] sets the state of its session
//! and the gauges of its groups, boards and queues to what holds at that moment: call it before each scrape. The HTTP
//! service of the feature `http` does. The time until which it may act is set at each heartbeat; those of workers and
//! executors by themselves.
//!
//! When a group is left, or what is measured is closed or dropped, its gauges are set to 0.
//!
//! Two coordinators in one process set the same gauges. So do two executors, two workers of one topic, and two runners of
//! one group, board or queue: the last one that sets a gauge counts, also if it is at its end.
//!
//! [`PartitionCoordinator::record_metrics`]: crate::PartitionCoordinator::record_metrics
//!
#![doc = include_str!("../docs/metrics.md")]

mod emit;
mod list;

pub use self::list::METRICS;
pub(crate) use self::list::*;

/// One metric. A histogram in seconds has the suffix `_seconds`, a counter `_total`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The unit of its values: `seconds`, `ratio`, or empty for a number.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it shows.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

impl Metric {
    const fn new(
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Metric { name, kind, unit, labels, help }
    }

    /// Sets the gauge to 1 for the present one of `states`, its last label, and to 0 for the others.
    #[inline]
    pub(crate) fn set_state<'a>(
        &self,
        label: Option<&str>,
        states: impl IntoIterator<Item = &'a str>,
        present: &str,
    ) {
        for state in states {
            let value = if state == present { 1.0 } else { 0.0 };
            match label {
                Some(label) => self.set(&[label, state], value),
                None => self.set(&[state], value),
            }
        }
    }
}

/// Gives the recorder the unit and the meaning of each metric. Coordinators, executors and workers do it when they start;
/// call it for a recorder that was installed later.
pub fn describe() {
    METRICS.iter().for_each(Metric::describe);
}

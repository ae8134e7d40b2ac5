//! The figures of all rounds of an event, and their table.

use std::time::Duration;

use super::recorder::Finding;

/// What all rounds of one event have shown.
#[derive(Default)]
pub(crate) struct Figures {
    rounds: usize,
    first: Vec<Duration>,
    all: Vec<Duration>,
    gaps: Vec<Duration>,
    doubles: Vec<Duration>,
}

impl Figures {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.rounds += 1;
        self.first.extend(finding.first);
        self.all.push(finding.all);
        self.gaps.extend(finding.gaps);
        self.doubles.extend(finding.doubles);
    }

    /// For another program: milliseconds, and `-` where there are none.
    pub(crate) fn line(&self) -> String {
        let mut fields = vec![self.rounds.to_string()];
        for (times, percents) in [
            (&self.first, &[50.0, 100.0][..]),
            (&self.all, &[50.0, 100.0]),
            (&self.gaps, &[50.0, 99.0, 100.0]),
            (&self.doubles, &[50.0, 100.0]),
        ] {
            fields.extend(percents.iter().map(|percent| milliseconds(percentile(times, *percent))));
        }
        fields.push(self.doubles.len().to_string());
        fields.join("\t")
    }

    /// The cells of a row: first work, every key owned, a key without an owner, keys with two owners, and for how long.
    pub(crate) fn cells(&self) -> String {
        let of = |times: &[Duration], percents: &[f64]| {
            let each = percents.iter().map(|percent| milliseconds(percentile(times, *percent)));
            if times.is_empty() { "-".to_owned() } else { each.collect::<Vec<_>>().join(" / ") }
        };
        format!(
            "{} | {} | {} | {:.1} | {}",
            of(&self.first, &[50.0, 100.0]),
            of(&self.all, &[50.0, 100.0]),
            of(&self.gaps, &[50.0, 99.0, 100.0]),
            self.doubles.len() as f64 / self.rounds as f64,
            of(&self.doubles, &[50.0, 100.0]),
        )
    }

    /// How the time until every key is owned compares with that of `other`, by their medians.
    pub(crate) fn ratio(&self, other: &Figures) -> f64 {
        let median = |figures: &Figures| percentile(&figures.all, 50.0).unwrap_or_default().as_secs_f64();
        median(self) / median(other)
    }
}

/// The smallest value that is not below so many percent of all.
fn percentile(times: &[Duration], percent: f64) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{:.0}", time.as_secs_f64() * 1000.0))
}

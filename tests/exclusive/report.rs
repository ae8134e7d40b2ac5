//! The report of a run, in Markdown.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::{
    agent::Mode,
    crew::{KEYS, SESSION_TIMEOUT, TICK, WORK},
    oracle::Gap,
    season::{Season, Step},
    support::Release,
};

/// All that happened on one ensemble.
pub(crate) struct Run {
    pub(crate) release: Release,
    pub(crate) seed: u64,
    pub(crate) seasons: Vec<Season>,
    pub(crate) took: Duration,
}

/// The name of the report of a release.
pub(crate) fn name(release: Release) -> &'static str {
    match release {
        Release::System => "zookeeper-3.8",
        Release::V39 => "zookeeper-3.9",
    }
}

impl Run {
    pub(crate) fn steps(&self) -> impl Iterator<Item = (Mode, &Step)> {
        self.seasons.iter().flat_map(|season| season.steps.iter().map(|step| (season.mode, step)))
    }

    /// The sum of something over all seasons.
    fn sum(&self, of: impl Fn(&Season) -> usize) -> usize {
        self.seasons.iter().map(of).sum()
    }
}

/// The value below which `part` of the sorted values are, by the nearest rank.
fn percentile(sorted: &[u64], part: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "few"
    )]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn seconds(nanos: u64) -> String {
    format!("{:.2}", Duration::from_nanos(nanos).as_secs_f64())
}

/// The report.
pub(crate) fn markdown(run: &Run) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).and_then(|()| text.write_char('\n')).expect("a string takes every write");
    };
    let faults: usize = run.steps().map(|(_, step)| step.faults.len()).sum();
    line(format_args!(
        "# Random faults on {}\n\nWritten by `scripts/soak`; the timeline is the page of the same name beside this one.\n",
        name(run.release)
    ));
    line(format_args!(
        "{faults} faults in {} steps and {} s, seed {}. Three servers with a tick of {} ms; three to six agents, each a \
         process of its own behind proxies; {KEYS} keys; session timeout {} s; most actions take {} to {} ms, and one \
         in sixteen eight times as long. Half of the seasons with fast groups, half \
         with strict ones.\n",
        run.steps().count(),
        run.took.as_secs(),
        run.seed,
        TICK.as_millis(),
        SESSION_TIMEOUT.as_secs(),
        WORK.0,
        WORK.1,
    ));
    line(format_args!("| | |\n|---|---|"));
    line(format_args!("| actions | {} |", run.sum(|season| season.acts.len())));
    line(format_args!(
        "| actions that overlap one of another process on the same key | {} |",
        run.sum(|it| it.overlaps.len())
    ));
    line(format_args!("| lower tokens of later owners | {} |", run.sum(|season| season.decreases.len())));
    line(format_args!(
        "| steps after which not each key had one owner in time | {} |",
        run.sum(|it| it.failures.len())
    ));
    line(format_args!("| processes | {} |\n", run.sum(|season| season.names.len())));
    line(format_args!(
        "The longest gap is the longest time for which one of the keys had no owner, from one action on it to the next. \
         It has the time that the fault itself lasts in it, and that of the action of the owner before, which is waited for. A step is settled when each key has exactly one owner, \
         which has acted on it, and each agent has keys; that is counted from the end of the fault. \
         In a step named *joined more than five times a minute* an agent was held back, as `docs/guarantees.md` says: its keys had other owners, and it got keys later. All times in seconds.\n"
    ));
    line(format_args!("| step | mode | steps | longest gap: p50 | p99 | max | settled: p50 | max |"));
    line(format_args!("|---|---|---|---|---|---|---|---|"));
    let mut kinds: BTreeMap<_, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for (mode, step) in run.steps() {
        let mode = if mode == Mode::Strict { "strict" } else { "fast" };
        let kind =
            (step.faults.len(), step.faults.first().filter(|_| step.faults.len() == 1), step.name(), mode);
        let (gaps, settled) = kinds.entry(kind).or_default();
        gaps.push(step.gap.as_ref().map_or(0, Gap::length));
        settled.push(step.settled.saturating_sub(step.healed));
    }
    for ((_, _, name, mode), (mut gaps, mut settled)) in kinds {
        gaps.sort_unstable();
        settled.sort_unstable();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| seconds(percentile(&gaps, part)));
        let [middle, last] = [0.5, 1.0].map(|part| seconds(percentile(&settled, part)));
        line(format_args!(
            "| {name} | {mode} | {} | {p50} | {p99} | {max} | {middle} | {last} |",
            gaps.len()
        ));
    }
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    run.steps().flat_map(|(_, step)| &step.faults).for_each(|fault| *counts.entry(fault).or_default() += 1);
    let counts: Vec<_> = counts.iter().map(|(fault, count)| format!("{} {count}", fault.name())).collect();
    line(format_args!("\nThe faults, those that came two at once as well: {}.", counts.join(", ")));
    text
}

#[test]
fn a_percentile_is_the_nearest_rank() {
    let values: Vec<_> = (1..=10).collect();
    assert_eq!([0.01, 0.5, 0.51, 0.99, 1.0].map(|part| percentile(&values, part)), [1, 5, 6, 10, 10]);
    assert_eq!(percentile(&[7], 0.5), 7);
}

//! The result of one trial, and the statistics of many.

use std::time::Duration;

/// One membership: the shares of its members, and the effect of a join and a leave.
pub struct Trial {
    /// The part of all keys that each member has.
    pub shares: Vec<f64>,
    pub join: Change,
    pub leave: Change,
    /// The memory of the membership, in bytes.
    pub bytes: usize,
    /// For one key.
    pub lookup: Duration,
}

/// One member more or less. Parts of all keys.
pub struct Change {
    pub moved: f64,
    /// The part that moved although neither its old nor its new owner joined or left.
    pub between: f64,
    pub took: Duration,
    /// How long it took to know what moves, where that does not mean to ask for every key.
    pub ranges: Option<Duration>,
}

/// The settings of a case.
pub struct Case {
    pub scheme: &'static str,
    pub members: u32,
    /// Points a member, for the ring.
    pub replicas: Option<u32>,
    /// The size of the sample of keys; `None` if all positions are counted.
    pub keys: Option<usize>,
}

/// The statistics of the trials of a case. Ratios of 1 are ideal.
pub struct Cost {
    pub case: Case,
    pub trials: usize,
    pub max_to_mean: Average,
    pub min_to_mean: Average,
    /// Coefficient of variation: the standard deviation of the shares by their mean.
    pub cv: f64,
    pub join: ChangeCost,
    pub leave: ChangeCost,
    pub bytes: usize,
    pub lookup: Duration,
}

pub struct ChangeCost {
    /// The mean part of all keys that moved.
    pub moved: f64,
    /// The part that has to move.
    pub ideal: f64,
    /// `moved` by `ideal`.
    pub ratio: Average,
    /// The most that moved between members that stay: exactly 0 is possible, and for many schemes it is that.
    pub between: f64,
    /// Medians.
    pub took: Duration,
    pub ranges: Option<Duration>,
}

/// The mean of all trials, and how far single ones were from it.
#[derive(Clone, Copy)]
pub struct Average {
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

impl Cost {
    pub fn of(case: Case, trials: &[Trial]) -> Cost {
        let members = f64::from(case.members);
        let extreme = |pick: fn(f64, f64) -> f64, start: f64| {
            Average::of(trials.iter().map(|trial| members * trial.shares.iter().copied().fold(start, pick)))
        };
        Cost {
            trials: trials.len(),
            max_to_mean: extreme(f64::max, 0.0),
            min_to_mean: extreme(f64::min, 1.0),
            cv: Average::of(trials.iter().map(|trial| variation(&trial.shares))).mean,
            join: ChangeCost::of(
                1.0 / (members + 1.0),
                &trials.iter().map(|trial| &trial.join).collect::<Vec<_>>(),
            ),
            leave: ChangeCost::of(
                1.0 / members,
                &trials.iter().map(|trial| &trial.leave).collect::<Vec<_>>(),
            ),
            // The same for all of them, but for a few collisions of points.
            bytes: trials[0].bytes,
            lookup: median(trials.iter().map(|trial| trial.lookup).collect()),
            case,
        }
    }
}

impl ChangeCost {
    fn of(ideal: f64, changes: &[&Change]) -> ChangeCost {
        let ratio = Average::of(changes.iter().map(|change| change.moved / ideal));
        let ranges: Option<Vec<Duration>> = changes.iter().map(|change| change.ranges).collect();
        ChangeCost {
            moved: ratio.mean * ideal,
            ideal,
            ratio,
            between: changes.iter().map(|change| change.between).fold(0.0, f64::max),
            took: median(changes.iter().map(|change| change.took).collect()),
            ranges: ranges.map(median),
        }
    }
}

impl Average {
    fn of(values: impl Iterator<Item = f64>) -> Average {
        let values: Vec<f64> = values.collect();
        Average {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The coefficient of variation.
fn variation(shares: &[f64]) -> f64 {
    let count = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / count;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / count;
    variance.sqrt() / mean
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(shares: [f64; 4], joined: f64) -> Trial {
        let change = |moved| Change {
            moved,
            between: 0.0,
            took: Duration::from_micros((moved * 100.0) as u64),
            ranges: None,
        };
        Trial {
            shares: shares.into(),
            join: change(joined),
            leave: change(0.25),
            bytes: 17,
            lookup: Duration::ZERO,
        }
    }

    #[test]
    fn a_cost_compares_the_mean_of_all_trials_with_the_ideal() {
        let trials = [trial([0.25; 4], 0.1), trial([0.4, 0.2, 0.3, 0.1], 0.3), trial([0.25; 4], 0.2)];
        let cost = Cost::of(Case { scheme: "test", members: 4, replicas: None, keys: None }, &trials);
        assert!((cost.max_to_mean.mean - 1.2).abs() < 1e-9 && (cost.max_to_mean.most - 1.6).abs() < 1e-9);
        assert!((cost.min_to_mean.least - 0.4).abs() < 1e-9);
        assert!((cost.cv - 0.447_213_595_5 / 3.0).abs() < 1e-9);
        assert!((cost.join.moved - 0.2).abs() < 1e-9, "a fifth is ideal for the fifth member");
        assert!((cost.join.ratio.mean - 1.0).abs() < 1e-9 && (cost.join.ratio.most - 1.5).abs() < 1e-9);
        assert_eq!(cost.join.took, Duration::from_micros(20));
        assert!((cost.leave.ratio.mean - 1.0).abs() < 1e-9);
    }
}

//! Pure: everything as comma-separated values, for whoever wants to look at it in another way.

use std::borrow::Cow;

use super::number::micros;
use crate::{
    study::Results,
    trial::{ChangeCost, Cost},
};

const COLUMNS: &str = "scheme,replicas,members,exact,keys,trials,\
max_to_mean,max_to_mean_worst,min_to_mean,min_to_mean_worst,cv,\
join_moved,join_ideal,join_ratio,join_ratio_least,join_ratio_most,join_between_stayers,join_us,join_ranges_us,\
leave_moved,leave_ideal,leave_ratio,leave_ratio_least,leave_ratio_most,leave_between_stayers,leave_us,leave_ranges_us,\
bytes,lookup_ns";

pub fn of(results: &Results) -> String {
    lines(COLUMNS, results.ring.iter().chain(&results.others).map(row))
}

fn row(cost: &Cost) -> String {
    let case = &cost.case;
    let optional = |number: Option<usize>| number.map_or(String::new(), |number| number.to_string());
    format!(
        "{},{},{},{},{},{},{:.5},{:.5},{:.5},{:.5},{:.5},{},{},{},{:.0}",
        quoted(case.scheme),
        optional(case.replicas.map(|replicas| replicas as usize)),
        case.members,
        case.keys.is_none(),
        optional(case.keys),
        cost.trials,
        cost.max_to_mean.mean,
        cost.max_to_mean.most,
        cost.min_to_mean.mean,
        cost.min_to_mean.least,
        cost.cv,
        change(&cost.join),
        change(&cost.leave),
        cost.bytes,
        cost.lookup.as_secs_f64() * 1e9
    )
}

fn change(change: &ChangeCost) -> String {
    format!(
        "{:.8},{:.8},{:.4},{:.4},{:.4},{},{:.2},{}",
        change.moved,
        change.ideal,
        change.ratio.mean,
        change.ratio.least,
        change.ratio.most,
        change.between,
        micros(change.took),
        change.ranges.map_or(String::new(), |time| format!("{:.2}", micros(time)))
    )
}

/// Rows under a title, each with the end that all programs take.
pub fn lines(title: &str, rows: impl Iterator<Item = String>) -> String {
    std::iter::once(title.to_string()).chain(rows).map(|row| row + "\n").collect()
}

/// A text as a field, in quotes if it would not be one otherwise.
pub fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) || text.trim() != text {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_only_if_it_has_to_be() {
        assert_eq!(quoted("host 1"), "host 1");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(quoted(" x"), "\" x\"");
    }
}

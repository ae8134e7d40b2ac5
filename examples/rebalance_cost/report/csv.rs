//! Pure: all figures as comma-separated values, for other programs.

use csv::{Error, Writer};
use serde::Serialize;

use super::number::micros;
use crate::{
    study::Results,
    support::Failure,
    trial::{ChangeCost, Cost},
};

const COLUMNS: &str = "scheme,replicas,members,exact,keys,trials,\
max_to_mean,max_to_mean_worst,min_to_mean,min_to_mean_worst,cv,\
join_moved,join_ideal,join_ratio,join_ratio_least,join_ratio_most,join_between_stayers,join_us,join_ranges_us,\
leave_moved,leave_ideal,leave_ratio,leave_ratio_least,leave_ratio_most,leave_between_stayers,leave_us,leave_ranges_us,\
bytes,lookup_ns";

pub fn of(results: &Results) -> Result<String, Failure> {
    table(COLUMNS, results.ring.iter().chain(&results.others).map(row))
}

/// Rows below their titles.
pub fn table<R: Serialize>(titles: &str, rows: impl IntoIterator<Item = R>) -> Result<String, Failure> {
    let mut csv = Writer::from_writer(Vec::new());
    csv.write_record(titles.split(','))?;
    rows.into_iter().try_for_each(|row| csv.serialize(row))?;
    Ok(String::from_utf8(csv.into_inner().map_err(|error| Error::from(error.into_error()))?)?)
}

fn row(cost: &Cost) -> impl Serialize {
    let case = &cost.case;
    (
        (case.scheme, case.replicas, case.members, case.keys.is_none(), case.keys, cost.trials),
        (
            cost.max_to_mean.mean,
            cost.max_to_mean.most,
            cost.min_to_mean.mean,
            cost.min_to_mean.least,
            cost.cv,
        ),
        (change(&cost.join), change(&cost.leave)),
        (cost.bytes, cost.lookup.as_nanos()),
    )
}

fn change(change: &ChangeCost) -> impl Serialize {
    let ratio = change.ratio;
    let times = (micros(change.took), change.ranges.map(micros));
    (change.moved, change.ideal, (ratio.mean, ratio.least, ratio.most), change.between, times)
}

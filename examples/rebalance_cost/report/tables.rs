//! The results, on the screen.

use indicatif::{HumanBytes, HumanCount};

use super::number::{short, time};
use crate::{
    study::{RANDOM, REFERENCE, Results},
    support::{
        Column::{self, Left, Right},
        say,
        screen::{bold, dim},
        table,
    },
    trial::{Average, ChangeCost, Cost},
};

/// Prints all tables.
pub fn print(results: &Results) {
    if cfg!(debug_assertions) {
        say!("Built without optimisation: the times below say nothing. Use cargo run --release.\n");
    }
    say!("{}", bold("The ring of this crate, by its exact arcs"));
    say!("{}", dim("max: the largest share by the mean, worst: in all trials;"));
    say!("{}", dim("cv: coefficient of variation; join, leave: what moves by what has to;"));
    say!("{}", dim("+: what moves between members that stay."));
    for &members in &results.plan.members {
        of_membership(members);
        let costs = results.ring.iter().filter(|cost| cost.case.members == members);
        table(&RING_COLUMNS, costs.map(ring_row));
    }
    say!("\n{}", bold("Other schemes beside it, by a sample of keys"));
    say!(
        "{}",
        dim(format!(
            "{} fixed keys; (random) shows the figures of a perfect scheme in such a sample.",
            HumanCount(results.plan.keys as u64)
        ))
    );
    say!("{}", dim("A change of bounded loads includes placing all keys again."));
    for &members in &results.plan.members {
        of_membership(members);
        table(&SCHEME_COLUMNS, beside_each_other(results, members).map(scheme_row));
    }
    verdict(results);
}

/// The reference ring and the other schemes.
pub fn beside_each_other(results: &Results, members: u32) -> impl Iterator<Item = &Cost> {
    let ring = results.ring.iter().filter(|cost| cost.case.replicas == Some(REFERENCE));
    ring.chain(&results.others).filter(move |cost| cost.case.members == members)
}

fn of_membership(members: u32) {
    say!(
        "\n{}{}",
        bold(format!("{members} members")),
        dim(format!(
            ": a join has to move {} % of the keys, a leave {} %",
            short(100.0 / f64::from(members + 1)),
            short(100.0 / f64::from(members))
        ))
    );
}

const RING_COLUMNS: [Column; 10] = [
    Right("points"),
    Right("max"),
    Right("worst"),
    Right("cv"),
    Right("join"),
    Right("leave"),
    Right("+"),
    Right("add"),
    Right("remove"),
    Right("B/point"),
];

fn ring_row(cost: &Cost) -> Vec<String> {
    let replicas = cost.case.replicas.unwrap_or_default();
    let points = f64::from(replicas) * f64::from(cost.case.members);
    vec![
        replicas.to_string(),
        format!("{:.3}", cost.max_to_mean.mean),
        format!("{:.2}", cost.max_to_mean.most),
        format!("{:.3}", cost.cv),
        ratio(cost.join.ratio),
        ratio(cost.leave.ratio),
        between(cost),
        time(cost.join.took),
        time(cost.leave.took),
        format!("{:.0}", cost.bytes as f64 / points),
    ]
}

const SCHEME_COLUMNS: [Column; 9] = [
    Left("scheme"),
    Right("max"),
    Right("cv"),
    Right("join"),
    Right("leave"),
    Right("+ %"),
    Right("change"),
    Right("memory"),
    Right("a key"),
];

fn scheme_row(cost: &Cost) -> Vec<String> {
    let name = cost.case.replicas.map_or(cost.case.scheme.into(), |replicas| format!("ring, {replicas}"));
    let mut row = vec![
        name,
        format!("{:.3}", cost.max_to_mean.mean),
        format!("{:.3}", cost.cv),
        ratio(cost.join.ratio),
        ratio(cost.leave.ratio),
        between(cost),
        time(cost.join.took.max(cost.leave.took)),
        HumanBytes(cost.bytes as u64).to_string(),
        time(cost.lookup),
    ];
    if cost.case.scheme == RANDOM {
        row[3..].iter_mut().for_each(|cell| *cell = "-".into());
    }
    row
}

pub fn ratio(ratio: Average) -> String {
    if ratio.mean < 10.0 { format!("{:.2}", ratio.mean) } else { short(ratio.mean) }
}

/// The larger of both changes, in percent of all keys.
pub fn between(cost: &Cost) -> String {
    let ChangeCost { between, .. } = cost.join;
    short(100.0 * between.max(cost.leave.between))
}

fn verdict(results: &Results) {
    let between: f64 = results.ring.iter().map(|cost| cost.join.between + cost.leave.between).sum();
    let trials: usize = results.ring.iter().map(|cost| 2 * cost.trials).sum();
    say!(
        "\nIn {trials} changes of rings, {} moved between members that stay.",
        bold(if between == 0.0 { "exactly nothing".into() } else { format!("{} %", 100.0 * between) })
    );
}

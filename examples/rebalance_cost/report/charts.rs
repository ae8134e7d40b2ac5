//! The charts of the page, and their descriptions.

use super::{
    chart::{Chart, Line},
    number::micros,
};
use crate::{
    schemes::SCHEMES,
    study::{RANDOM, REFERENCE, RING, Results},
    trial::Cost,
};

/// As many trials as the largest of them takes to mean something.
const ENOUGH: usize = 20;

type Value = fn(&Cost) -> f64;

/// Of the ring, by its exact arcs.
pub fn of_ring(results: &Results) -> Vec<Chart> {
    let mut cv = by_replicas(
        results,
        "Coefficient of variation",
        "standard deviation of the shares / mean",
        |cost| cost.cv,
        "It falls with the square root of the points, however many members there are: four times the \
         points, half the difference.",
    );
    cv.lines.push(Line {
        name: "1 / √points".into(),
        colour: 6,
        is_dashed: true,
        points: cv.marks.iter().map(|&replicas| (replicas, 1.0 / replicas.sqrt())).collect(),
    });
    let mut single = by_replicas(
        results,
        "The largest join of all trials",
        "moved / has to move",
        |cost| cost.join.ratio.most,
        "On average a join moves exactly what it has to. A single joiner takes a share as uneven as all \
         others have; more points make that predictable.",
    );
    // Few trials say nothing about the largest of them.
    let is_sure =
        |members: u32| results.ring.iter().any(|cost| cost.case.members == members && cost.trials >= ENOUGH);
    let mut sure = results.plan.members.iter().map(|&members| is_sure(members));
    single.lines.retain(|_| sure.next().unwrap_or_default());
    vec![
        by_replicas(
            results,
            "Largest share",
            "largest share / mean",
            |cost| cost.max_to_mean.mean,
            "What the busiest member carries; 1 is ideal. More members have a larger maximum only because \
             it is the largest of more.",
        ),
        cv,
        single,
        by_members(
            results,
            "Adding a member: the new ring",
            "µs",
            |cost| micros(cost.join.took),
            "Points of the joiner are hashed, sorted and merged into a copy of the ring. Linear in the \
             points of the whole ring as soon as copying is most of it.",
        ),
        by_members(
            results,
            "Adding a member: which ranges move",
            "µs",
            |cost| cost.join.ranges.map_or(0.0, micros),
            "Only the points of the joiner are searched for, so this depends on them and hardly on the rest \
             of the ring.",
        ),
        by_members(
            results,
            "Memory of the ring",
            "KiB",
            |cost| cost.bytes as f64 / 1024.0,
            "Counted by the allocator, with everything that the ring holds: points, index, members.",
        ),
    ]
}

/// Of all schemes, beside the ring with the points that the reference has.
pub fn of_schemes(results: &Results) -> Vec<Chart> {
    let mut largest = by_scheme(
        results,
        "Largest share",
        "largest share / mean",
        |cost| cost.max_to_mean.mean,
        "The dashed line is a perfect random choice: a sample of so many keys shows no difference below it. \
         Rendezvous, jump, AnchorHash and Maglev are there; the ring is not, unless it gets more points or \
         a bound.",
    );
    largest.lines.push(line("perfect random choice".into(), 6, true, of(results, RANDOM), |cost| {
        cost.max_to_mean.mean
    }));
    vec![
        largest,
        by_scheme(
            results,
            "A join",
            "moved / has to move",
            |cost| cost.join.ratio.mean,
            "What is above 1 moves between members that stay, for nothing. Single joins of the ring differ \
             more than these means.",
        ),
        by_scheme(
            results,
            "A leave",
            "moved / has to move",
            |cost| cost.leave.ratio.mean,
            "Jump numbers its buckets: when any but the last one leaves, the others move up and most keys \
             move.",
        ),
        by_scheme(
            results,
            "Time of a join",
            "µs",
            |cost| micros(cost.join.took).max(0.001),
            "Until lookups see the new member. With bounded loads all keys have to be placed again, \
             because the owner of one depends on all others.",
        ),
        by_scheme(
            results,
            "Time of a lookup",
            "ns a key",
            |cost| cost.lookup.as_secs_f64() * 1e9,
            "The ring hashes texts of 36 bytes with MD5, many at once; the others get numbers that are \
             hashed already. Rendezvous asks every member.",
        ),
        by_scheme(
            results,
            "Memory",
            "KiB",
            |cost| cost.bytes as f64 / 1024.0,
            "What one membership keeps. Jump and rendezvous keep their members and nothing else.",
        ),
    ]
}

fn by_replicas(
    results: &Results,
    title: &'static str,
    y: &'static str,
    value: Value,
    text: &'static str,
) -> Chart {
    let lines = results.plan.members.iter().enumerate().map(|(colour, &members)| {
        let costs = results.ring.iter().filter(move |cost| cost.case.members == members);
        let points = costs.map(|cost| (f64::from(cost.case.replicas.unwrap_or_default()), value(cost)));
        Line { name: format!("{members} members"), colour, is_dashed: false, points: points.collect() }
    });
    let marks = results.plan.replicas.iter().copied().map(f64::from).collect();
    Chart { title, x: "points a member", y, marks, lines: lines.collect(), text }
}

fn by_members(
    results: &Results,
    title: &'static str,
    y: &'static str,
    value: Value,
    text: &'static str,
) -> Chart {
    let lines = results.plan.replicas.iter().enumerate().map(|(colour, &replicas)| {
        let costs = results.ring.iter().filter(move |cost| cost.case.replicas == Some(replicas));
        let s = if replicas == 1 { "" } else { "s" };
        line(format!("{replicas} point{s}"), colour, false, costs, value)
    });
    Chart { title, x: "members", y, marks: members(results), lines: lines.collect(), text }
}

fn by_scheme(
    results: &Results,
    title: &'static str,
    y: &'static str,
    value: Value,
    text: &'static str,
) -> Chart {
    let ring = line(format!("ring, {REFERENCE} points"), 0, false, of(results, RING), value);
    let others = SCHEMES
        .iter()
        .zip([1, 2, 3, 4, 5, 6, 7])
        .map(|(scheme, colour)| line(scheme.name.into(), colour, false, of(results, scheme.name), value));
    let lines = std::iter::once(ring).chain(others).collect();
    Chart { title, x: "members", y, marks: members(results), lines, text }
}

fn members(results: &Results) -> Vec<f64> {
    results.plan.members.iter().copied().map(f64::from).collect()
}

/// The costs of a scheme, of the ring those with the points of the reference.
fn of<'a>(results: &'a Results, scheme: &'a str) -> impl Iterator<Item = &'a Cost> {
    let is_meant = move |cost: &&Cost| {
        cost.case.scheme == scheme && cost.case.replicas.is_none_or(|replicas| replicas == REFERENCE)
    };
    results.ring.iter().chain(&results.others).filter(is_meant)
}

fn line<'a>(
    name: String,
    colour: usize,
    is_dashed: bool,
    costs: impl Iterator<Item = &'a Cost>,
    value: Value,
) -> Line {
    Line {
        name,
        colour,
        is_dashed,
        points: costs.map(|cost| (f64::from(cost.case.members), value(cost))).collect(),
    }
}

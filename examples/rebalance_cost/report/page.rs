//! The page: plots with a short description each, and all figures. It is one file without scripts that needs no
//! network, for a light and a dark background.

use std::fmt::Write as _;

use indicatif::{HumanBytes, HumanCount};

use super::{
    chart::{COLOURS, Chart, GRID, INK},
    charts,
    number::time,
    tables::{beside_each_other, between, ratio},
};
use crate::{
    study::{RANDOM, Results},
    support::Failure,
    trial::Cost,
};

const TITLE: &str = "What a change of the membership costs";

pub fn of(results: &Results) -> Result<String, Failure> {
    let figures = |charts: Vec<Chart>| -> Result<String, Failure> {
        charts.iter().map(Chart::figure).collect::<Result<Vec<_>, _>>().map(|all| all.concat())
    };
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{TITLE}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<h1>{TITLE}</h1>\n{introduction}\n\
         <h2>The ring</h2>\n<p>By its exact arcs, without sampling. {zero}</p>\n\
         <div class=\"charts\">\n{of_ring}</div>\n\
         <h2>Beside other schemes</h2>\n<p>The ring with 100 points a member, which is what the reference \
         has, exact as above. The others by {keys} fixed keys.</p>\n<div \
         class=\"charts\">\n{of_schemes}</div>\n\
         <h2>All figures</h2>\n{tables}\n</body>\n</html>\n",
        style = style(),
        introduction = introduction(results),
        zero = zero(results),
        of_ring = figures(charts::of_ring(results))?,
        of_schemes = figures(charts::of_schemes(results))?,
        keys = HumanCount(results.plan.keys as u64),
        tables = tables(results)
    ))
}

/// The style of the page and of the charts.
fn style() -> String {
    let mut style = include_str!("page.css").to_string();
    let mut dark = String::new();
    for (number, (light_code, dark_code)) in COLOURS.iter().enumerate() {
        writeln!(style, ".c{number} {{ --line: {light_code}; }}").expect(CANNOT_FAIL);
        writeln!(
            dark,
            ".c{number} {{ --line: {dark_code}; }}\nsvg [stroke=\"{light_code}\"] {{ stroke: {dark_code}; }}\n\
             svg [fill=\"{light_code}\"] {{ fill: {dark_code}; }}"
        )
        .expect(CANNOT_FAIL);
    }
    for (code, name) in [(GRID, "--grid"), (INK, "--ink")] {
        writeln!(
            style,
            "svg [stroke=\"{code}\"] {{ stroke: var({name}); }}\nsvg [fill=\"{code}\"] {{ fill: var({name}); }}"
        )
        .expect(CANNOT_FAIL);
    }
    write!(style, "@media (prefers-color-scheme: dark) {{\n{dark}}}\n").expect(CANNOT_FAIL);
    style
}

const CANNOT_FAIL: &str = "writing to a text cannot fail";

fn introduction(results: &Results) -> String {
    let command = if results.plan.is_quick {
        "cargo run --release --example rebalance_cost -- --quick"
    } else {
        "cargo run --release --example rebalance_cost"
    };
    let profile = if cfg!(debug_assertions) {
        "<strong>Built without optimisation: the times say nothing.</strong> "
    } else {
        ""
    };
    format!(
        "<p>When a member of a fleet leaves or joins, some keys get another owner. Which scheme moves how \
         many, how even are the shares, and what does it take? Axes are logarithmic; 1 is ideal where \
         something is divided by what it should be.</p>\n\
         <ul class=\"choose\">\n\
         <li><strong>Nothing special?</strong> Keep the ring with 100 points: shares differ by about a \
         tenth, and a change moves only what it has to.</li>\n\
         <li><strong>Shares should be more even?</strong> Take 400 points: half the difference, for four \
         times the memory and building time; lookups stay as fast. All members have to use the same \
         number.</li>\n\
         <li><strong>A limit on the largest share?</strong> Bounded loads keep it, if all members hold the \
         same keys; tight bounds move far more.</li>\n\
         <li><strong>Even shares and few members?</strong> Rendezvous is perfect in shares and moves, and \
         reads every member for every key. Jump is only for members that leave in the reverse order of \
         their coming.</li>\n\
         <li><strong>Even shares and many members?</strong> AnchorHash, if all members see joins and \
         leaves in one order: what it keeps depends on the history, not on the membership alone.</li>\n\
         </ul>\n\
         <p class=\"note\">{profile}Made by <code>{command}</code>, apportion {version}, on {arch} {os}, \
         keys hashed by {kernel:?}. Memberships and keys are the same in every run; times depend on the \
         machine and on what else it did.</p>",
        version = env!("CARGO_PKG_VERSION"),
        arch = std::env::consts::ARCH,
        os = std::env::consts::OS,
        kernel = results.kernel,
    )
}

fn zero(results: &Results) -> String {
    let trials: usize = results.ring.iter().map(|cost| 2 * cost.trials).sum();
    let between: f64 = results.ring.iter().map(|cost| cost.join.between + cost.leave.between).sum();
    let moved = if between == 0.0 { "exactly nothing".into() } else { format!("{} %", 100.0 * between) };
    format!("In {trials} joins and leaves, <strong>{moved}</strong> moved between members that stay.")
}

fn tables(results: &Results) -> String {
    let heads = "<th>max/mean</th><th>worst</th><th>min/mean</th><th>cv</th><th>join</th><th>leave</th>\
                 <th>between stayers, %</th><th>time of join</th><th>of leave</th><th>memory</th>\
                 <th>a lookup</th><th>trials</th></tr>\n";
    let note = "<p class=\"note\">join, leave: what moved by what had to. Between stayers: the most that \
                any trial moved between members that stay, in percent of all keys. Times are medians.</p>";
    let mut text =
        format!("{note}\n<div class=\"scroll\"><table>\n<tr><th>ring of</th><th>points</th>{heads}");
    for &members in &results.plan.members {
        for (place, cost) in results.ring.iter().filter(|cost| cost.case.members == members).enumerate() {
            let of = if place == 0 { format!("{members} members") } else { String::new() };
            row(&mut text, place == 0, &of, &cost.case.replicas.unwrap_or_default().to_string(), cost);
        }
    }
    write!(text, "</table></div>\n<div class=\"scroll\"><table>\n<tr><th></th><th>scheme</th>{heads}")
        .expect(CANNOT_FAIL);
    for &members in &results.plan.members {
        let costs = beside_each_other(results, members).filter(|cost| cost.case.scheme != RANDOM);
        for (place, cost) in costs.enumerate() {
            let of = if place == 0 { format!("{members} members") } else { String::new() };
            row(&mut text, place == 0, &of, cost.case.scheme, cost);
        }
    }
    text + "</table></div>"
}

fn row(text: &mut String, is_first: bool, of: &str, name: &str, cost: &Cost) {
    let first = if is_first { " class=\"first\"" } else { "" };
    writeln!(
        text,
        "<tr{first}><td>{of}</td><td>{name}</td><td>{:.3}</td><td>{:.2}</td><td>{:.2}</td><td>{:.3}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        cost.max_to_mean.mean,
        cost.max_to_mean.most,
        cost.min_to_mean.mean,
        cost.cv,
        ratio(cost.join.ratio),
        ratio(cost.leave.ratio),
        between(cost),
        time(cost.join.took),
        time(cost.leave.took),
        HumanBytes(cost.bytes as u64),
        time(cost.lookup),
        cost.trials
    )
    .expect(CANNOT_FAIL);
}

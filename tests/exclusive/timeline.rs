//! Who owned what and when, as an HTML page of its own, with the faults marked.

use std::fmt::Write as _;

use crate::{
    agent::Mode,
    crew::{IDS, KEYS},
    report::{Run, name},
    season::Season,
};

/// The keys that are shown: every fourth.
const EVERY: usize = 4;
/// Shorter pauses between two actions are not shown, in nanoseconds.
const PAUSE: u64 = 400_000_000;
/// The time in one row of the page.
const SECONDS: u32 = 30;
const ROW: u64 = SECONDS as u64 * 1_000_000_000;
/// The size of a row, in pixels.
const WIDTH: f64 = 1200.0;
const KEY_HEIGHT: u32 = 4;
const TOP: u32 = 44;
/// The names of faults are on so many lines, in turn.
const LINES: usize = 3;

const HEAD: &str = r#"<style>
:root { color-scheme: light dark; --text: #1f2328; --page: #ffffff; --faint: #d0d7de; --soft: #57606a; --fault: #8c959f33;
  --bad: #cf222e; --a: #2f6fc4; --b: #d9822b; --c: #2c9a6a; --d: #b8458f; --e: #9a7d0a; --f: #7257d6; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --page: #0d1117; --faint: #30363d; --soft: #9198a1;
  --fault: #9198a133; --bad: #ff7b72; --a: #6ea8f2; --b: #f0a35e; --c: #56c596; --d: #e27ac0; --e: #d3b544; --f: #a391f5; } }
body { background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px;
  padding: 0 1rem; }
h2 { font-size: 1rem; margin: 1.6rem 0 .2rem; }
svg { display: block; width: 100%; height: auto; }
path { fill: none; stroke-width: 3; }
text { fill: var(--soft); font: 9.5px system-ui, sans-serif; }
.t { fill: var(--text); }
.k { fill: var(--fault); }
.l { stroke: var(--soft); stroke-width: 1; }
.x { stroke: var(--faint); stroke-width: 1; }
.a { stroke: var(--a) } .b { stroke: var(--b) } .c { stroke: var(--c) } .d { stroke: var(--d) } .e { stroke: var(--e) }
.f { stroke: var(--f) } .bad { stroke: var(--bad) }
.key span { border-radius: 2px; display: inline-block; height: .7em; margin: 0 .35em 0 1em; width: 1.4em; }
</style>"#;

/// The page.
pub(crate) fn html(run: &Run) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Owners under faults, {0}</title>{HEAD}</head><body>\n<h1>Owners under \
         faults, {0}</h1>\n<p>Each line is a key, {1} of {KEYS}; its colour is the agent that acts on it. Empty space is a \
         time without an owner. A mark at the top is the begin of a fault, and the grey area its duration. Each row is \
         {SECONDS} seconds. Point at a name for details. Two owners at once would be a thick line in red; there are {2}.</p>\n<p \
         class=\"key\">Agents:",
        name(run.release),
        (KEYS as usize).div_ceil(EVERY),
        run.seasons.iter().map(|season| season.overlaps.len()).sum::<usize>(),
    );
    for id in IDS {
        let _ = write!(page, " <span style=\"background: var(--{id})\"></span>{id}");
    }
    page += "</p>\n";
    for (number, season) in run.seasons.iter().enumerate() {
        let mode = if season.mode == Mode::Strict { "strict" } else { "fast" };
        let _ = writeln!(page, "<h2>Season {}: {mode}</h2>", number + 1);
        for row in 0..(season.to - season.from).div_ceil(ROW) {
            draw(&mut page, season, season.from + row * ROW);
        }
    }
    page + "</body></html>\n"
}

/// The part of a row at which a moment is, in pixels.
fn at(moment: u64, from: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown in pixels")]
    let part = moment.saturating_sub(from).min(ROW) as f64 / ROW as f64;
    part * WIDTH
}

/// A number of pixels with at most one digit after the point.
fn px(pixels: f64) -> String {
    let text = format!("{pixels:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

fn draw(page: &mut String, season: &Season, from: u64) {
    let keys: Vec<u32> = (0..KEYS).step_by(EVERY).collect();
    let to = from + ROW;
    let bottom = TOP + KEY_HEIGHT * u32::try_from(keys.len()).expect("there are few");
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", bottom + 14);
    for second in (0..=SECONDS).step_by(5) {
        let x = f64::from(second) * WIDTH / f64::from(SECONDS);
        let anchor = if second == SECONDS { "end" } else { "start" };
        let seconds = (from - season.from) / 1_000_000_000 + u64::from(second);
        let _ = write!(
            page,
            "<path class=\"x\" d=\"M{x} {TOP}V{bottom}\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{seconds} s</text>",
            bottom + 11
        );
    }
    faults(page, season, from, bottom);
    for id in IDS {
        let mut path = String::new();
        for (row, key) in keys.iter().enumerate() {
            let y = TOP + KEY_HEIGHT * u32::try_from(row).expect("there are few") + KEY_HEIGHT / 2;
            for own in season.acts.ownerships(*key, PAUSE) {
                if season.names[own.process] == id && own.from < to && own.to > from {
                    let (begin, end) = (at(own.from, from), at(own.to, from));
                    let _ = write!(path, "M{} {y}h{}", px(begin), px((end - begin).max(0.5)));
                }
            }
        }
        if !path.is_empty() {
            let _ = write!(page, "<path class=\"{id}\" d=\"{path}\"/>");
        }
    }
    for overlap in season.overlaps.iter().filter(|it| (from..to).contains(&it.later.action.start)) {
        let x = at(overlap.later.action.start, from);
        let _ =
            write!(page, "<path class=\"bad\" style=\"stroke-width:4\" d=\"M{} {TOP}V{bottom}\"/>", px(x));
    }
    *page += "</svg>\n";
}

/// Marks the faults of a row, with their names on several lines in turn.
fn faults(page: &mut String, season: &Season, from: u64, bottom: u32) {
    for (number, step) in
        season.steps.iter().enumerate().filter(|(_, it)| (from..from + ROW).contains(&it.at))
    {
        let (begin, end) = (at(step.at, from), at(step.healed, from));
        let what: Vec<_> =
            step.faults.iter().zip(&step.who).map(|(fault, who)| format!("{} {who}", fault.name())).collect();
        let y = 10 + 11 * (number % LINES);
        let gap = step.gap.as_ref().map_or(0, |gap| gap.length() / 1_000_000);
        let _ = write!(
            page,
            "<rect class=\"k\" x=\"{0}\" y=\"{TOP}\" width=\"{1}\" height=\"{2}\"/><path class=\"l\" d=\"M{0} {3}V{TOP}\"/>\
             <text class=\"t\" x=\"{4}\" y=\"{y}\">{5}<title>{6}: lasted {7} ms, settled {8} ms later, longest gap {gap} \
             ms</title></text>",
            px(begin),
            px((end - begin).max(1.0)),
            bottom - TOP,
            y + 2,
            px(begin.min(WIDTH - 80.0)),
            step.name(),
            what.join(", "),
            (step.healed - step.at) / 1_000_000,
            step.settled.saturating_sub(step.healed) / 1_000_000,
        );
    }
}

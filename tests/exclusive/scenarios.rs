//! The scenarios: random faults on both releases, and the proof that the oracle sees what must not be.

use std::{env, fs, path::Path, sync::OnceLock, time::Duration};

use crate::{
    agent::{Mode, now},
    crew::{Crew, TICK},
    faults::Deck,
    report::{self, Run},
    season::{self, Season},
    support::{Ensemble, MS, Mode as Link, Release, SECOND, on_both_releases},
    timeline,
};

/// The number of faults on each release, unless `APPORTION_EXCLUSIVE_FAULTS` says another one.
pub(crate) const FAULTS: usize = 22;
/// The most faults with one namespace.
const SEASON: usize = 25;

on_both_releases!(no_two_processes_act_on_one_key_under_faults);

async fn no_two_processes_act_on_one_key_under_faults(release: Release) {
    let faults = setting("APPORTION_EXCLUSIVE_FAULTS").map_or(FAULTS, |it| usize::try_from(it).unwrap());
    // One for both releases, so that together they have all kinds of faults.
    static SEED: OnceLock<u64> = OnceLock::new();
    let random = || u64::from(fastrand::Rng::new().u32(..));
    let seed = *SEED.get_or_init(|| setting("APPORTION_EXCLUSIVE_SEED").unwrap_or_else(random));
    println!("APPORTION_EXCLUSIVE_SEED={seed} repeats these faults");
    let mut deck = Deck::new(seed, release);
    let mut ensemble = Ensemble::start_of(release, TICK).await;
    let begin = now();
    let mut run = Run { release, seed, seasons: Vec::new(), took: Duration::ZERO };
    let mut left = faults;
    while left > 0 {
        // Half of them with each mode.
        let mode = if run.seasons.len().is_multiple_of(2) { Mode::Fast } else { Mode::Strict };
        let part = left.min(SEASON).min(faults.div_ceil(2));
        let namespace = format!("season-{}", run.seasons.len());
        let season = season::run(&mut ensemble, mode, namespace, part, &mut deck).await;
        let done: usize = season.steps.iter().map(|step| step.faults.len()).sum();
        left = left.saturating_sub(done.max(1));
        println!("{:?}: {done} faults, {} actions, {left} faults left", mode, season.acts.len());
        let is_over = !season.wrong().is_empty();
        run.seasons.push(season);
        run.took = Duration::from_nanos(now() - begin);
        write_report(&run);
        if is_over {
            break;
        }
    }
    println!("{}", report::markdown(&run));
    let wrong: Vec<_> = run.seasons.iter().flat_map(Season::wrong).collect();
    assert!(
        wrong.is_empty(),
        "APPORTION_EXCLUSIVE_SEED={seed}, {} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Writes the report into the folder that `APPORTION_EXCLUSIVE_REPORT` names.
fn write_report(run: &Run) {
    let Some(folder) = env::var_os("APPORTION_EXCLUSIVE_REPORT") else { return };
    let (folder, name) = (Path::new(&folder), report::name(run.release));
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(format!("{name}.md")), report::markdown(run)).unwrap();
    fs::write(folder.join(format!("{name}.html")), timeline::html(run)).unwrap();
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// Two agents that hold guards for long, and see everything late, while others join and leave.
async fn slow_agents_beside_quick_ones(mode: Mode) -> Season {
    let mut ensemble = Ensemble::start_of(Release::System, TICK).await;
    let mut crew = Crew::new(&mut ensemble, mode, format!("slow-{mode:?}"), 1).await;
    let from = now();
    for id in ["a", "b"] {
        crew.start_with(id, (300, 400), 100);
    }
    let mut failures: Vec<_> = crew.settles(20 * SECOND).await.err().map(|it| it.what).into_iter().collect();
    for id in ["a", "b"] {
        crew.set(id, Link::Delay(150 * MS));
    }
    crew.start("c");
    failures.extend(crew.settles(10 * SECOND).await.err().map(|it| it.what));
    crew.leave("c").await;
    crew.start("c");
    crew.start("d");
    failures.extend(crew.settles(10 * SECOND).await.err().map(|it| it.what));
    let (acts, names) = (crew.acts(), crew.names());
    drop(crew);
    let (overlaps, decreases) = (acts.overlaps(), acts.decreases());
    Season { mode, from, to: now(), steps: Vec::new(), acts, names, overlaps, decreases, failures }
}

#[tokio::test]
async fn the_oracle_finds_overlaps_of_immediate_members_and_none_of_exclusive_ones() {
    let immediate = slow_agents_beside_quick_ones(Mode::Immediate).await;
    assert_eq!(immediate.failures, [""; 0]);
    let overlaps = &immediate.overlaps;
    let longest = overlaps.iter().map(|it| Duration::from_nanos(it.length())).max();
    println!(
        "immediate: {} overlaps in {} actions, at most {longest:?}",
        overlaps.len(),
        immediate.acts.len()
    );
    assert!(overlaps.len() > 10, "{overlaps:?}");

    let exclusive = slow_agents_beside_quick_ones(Mode::Fast).await;
    println!("exclusive: {} actions", exclusive.acts.len());
    assert!(exclusive.acts.len() > 100);
    assert_eq!(exclusive.wrong(), [""; 0]);
}

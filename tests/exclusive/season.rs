//! One fleet under a row of faults: after each, everything heals, and each key has to have exactly one owner again.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    agent::{LONG, Mode, now},
    crew::{Crew, SESSION_TIMEOUT, TICK, Unsettled, WORK, nanos},
    faults::{Deck, Fault, begin, heal},
    oracle::{Acts, Decrease, Gap, Overlap},
    support::{Ensemble, MS, SECOND},
};

/// The longest time for which a member is held back that joins again and again.
const FLAPPING: Duration = Duration::from_secs(60);

/// A step: one fault, or two at once, until everything is settled again.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) faults: Vec<Fault>,
    /// Which agents or servers, for each fault.
    pub(crate) who: Vec<String>,
    pub(crate) at: u64,
    pub(crate) healed: u64,
    pub(crate) settled: u64,
    /// The longest time for which a key had no owner.
    pub(crate) gap: Option<Gap>,
    /// Whether an agent was held back because it had joined often.
    pub(crate) is_held_back: bool,
}

impl Step {
    /// The kind of the step in reports.
    pub(crate) fn name(&self) -> &'static str {
        match &self.faults[..] {
            _ if self.is_held_back => "joined more than five times a minute",
            [fault] => fault.name(),
            _ => "two at once",
        }
    }

    /// How many of its faults may have made this agent join again.
    fn joins(&self, id: &str) -> usize {
        let of_it = |(fault, who): &(&Fault, &String)| match fault {
            Fault::Reset | Fault::BriefStop | Fault::Twin | Fault::StuckItem | Fault::Delay => false,
            Fault::RollingRestart | Fault::HeadDeleted | Fault::GroupDeleted => true,
            fault => fault.is_of_servers() || **who == id,
        };
        self.faults.iter().zip(&self.who).filter(of_it).count()
    }
}

/// Whether this agent may be held back, as a member is that has joined more than five times within a minute.
fn may_be_held_back(id: &str, steps: &[Step], last: &Step) -> bool {
    let recent = steps.iter().filter(|step| step.settled + nanos(FLAPPING) > last.at);
    recent.chain([last]).map(|step| step.joins(id)).sum::<usize>() > 5
}

/// What happened in a season.
#[derive(Debug)]
pub(crate) struct Season {
    pub(crate) mode: Mode,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) acts: Acts,
    /// The id of each process.
    pub(crate) names: Vec<&'static str>,
    pub(crate) overlaps: Vec<Overlap>,
    pub(crate) decreases: Vec<Decrease>,
    /// What did not settle in time, and other things that must not be.
    pub(crate) failures: Vec<String>,
}

/// How long it may take until each key has an owner after everything is healed.
fn bound(faults: &[Fault], mode: Mode) -> Duration {
    // What is in the way may be the longest action.
    let action = MS * LONG.1 * u32::try_from(WORK.1).expect("it is short");
    let lease = SESSION_TIMEOUT / 2 + SESSION_TIMEOUT / 20;
    // Where the member before has not left in good order, or may not have.
    let strict = if mode == Mode::Strict { lease } else { Duration::ZERO };
    match faults {
        // As `docs/guarantees.md` says.
        [Fault::Reset | Fault::BriefStop | Fault::Twin | Fault::StuckItem] => action,
        [Fault::Join | Fault::Leave | Fault::LeaveAndRestart | Fault::RollingRestart] => {
            SECOND + strict + action
        }
        [Fault::KillAndRestart] => SECOND / 2 + strict + action,
        [Fault::Kill] => SESSION_TIMEOUT + TICK + 300 * MS + strict + action,
        [Fault::HeadDeleted] => lease + SECOND + action,
        // An agent that was away for a session timeout has to notice it, to open a session and to join; so has one whose
        // servers elect a leader.
        _ => {
            let has_servers = faults.iter().any(|fault| fault.is_of_servers());
            let servers = if has_servers { 6 * SECOND } else { Duration::ZERO };
            SESSION_TIMEOUT + TICK + 4 * SECOND + servers
        }
    }
}

/// Starts four agents in a new namespace, and lets `faults` faults happen.
pub(crate) async fn run(
    ensemble: &mut Ensemble,
    mode: Mode,
    namespace: String,
    faults: usize,
    deck: &mut Deck,
) -> Season {
    let seed = deck.rng.u64(..);
    let mut crew = Crew::new(ensemble, mode, namespace, seed).await;
    let (from, mut steps, mut failures) = (now(), Vec::new(), Vec::new());
    ["a", "b", "c", "d"].into_iter().for_each(|id| crew.start(id));
    if let Err(Unsettled { what, .. }) = crew.settles(20 * SECOND).await {
        failures.push(format!("the first agents: {what}\n{}", crew.outputs().await));
    }
    let mut done = 0;
    while done < faults && failures.is_empty() {
        let mut step = step(&mut crew, deck).await;
        done += step.faults.len();
        let mut settled = crew.settles(bound(&step.faults, mode)).await;
        let is_held_back = |it: &Unsettled| it.idle.is_some_and(|id| may_be_held_back(id, &steps, &step));
        if settled.as_ref().is_err_and(is_held_back) {
            step.is_held_back = true;
            settled = crew.settles(FLAPPING).await;
        }
        match settled {
            Ok(at) => {
                let took = Duration::from_nanos(at.saturating_sub(step.healed));
                println!("{:?} {:?}: settled after {took:.1?}", step.faults, step.who);
                step.settled = at;
            }
            Err(Unsettled { what, .. }) => {
                let Step { faults, who, .. } = &step;
                failures
                    .push(format!("{mode:?}, after {faults:?} of {who:?}: {what}\n{}", crew.outputs().await));
            }
        }
        steps.push(step);
    }
    let (acts, names, to) = (crew.acts(), crew.names(), now());
    drop(crew);
    for step in &mut steps {
        step.gap = acts.longest_gap(step.at, step.settled);
        if step.faults.contains(&Fault::PlainMember) && !acts.is_shared_with_plain(step.at, step.settled) {
            failures.push(format!("{mode:?}: all shares were exclusive beside a plain member: {step:?}"));
        }
        let moved = acts.moved(step.at, step.settled);
        if matches!(step.faults[..], [Fault::BriefStop | Fault::Twin | Fault::Reset]) && !moved.is_empty() {
            failures.push(format!("{mode:?}: keys {moved:?} have moved: {step:?}"));
        }
    }
    let (overlaps, decreases) = (acts.overlaps(), acts.decreases());
    Season { mode, from, to, steps, acts, names, overlaps, decreases, failures }
}

async fn step(crew: &mut Crew<'_>, deck: &mut Deck) -> Step {
    let faults = deck.step(crew.mode, crew.ids().len());
    sleep(Duration::from_millis(deck.rng.u64(0..200))).await;
    let at = now();
    let mut open = Vec::new();
    for fault in &faults {
        let one = begin(*fault, crew, &open, &mut deck.rng).await;
        open.push(one);
    }
    let who = open.iter().map(|open| open.who.clone()).collect();
    open.sort_by_key(|open| open.lasts);
    for one in open {
        sleep(one.lasts.saturating_sub(Duration::from_nanos(now() - at))).await;
        heal(one, crew).await;
    }
    let healed = now();
    Step { faults, who, at, healed, settled: healed + nanos(SECOND), gap: None, is_held_back: false }
}

impl Season {
    /// Everything that must not be.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let name = |process: usize| format!("{} ({process})", self.names[process]);
        let overlaps = self.overlaps.iter().map(|it| {
            let (earlier, later) = (it.earlier, it.later);
            format!(
                "{:?}: {} and {} both acted on {} for {:?}: {earlier:?} {later:?}; last step: {:?}",
                self.mode,
                name(earlier.process),
                name(later.process),
                earlier.action.key,
                Duration::from_nanos(it.length()),
                self.steps.iter().rfind(|step| step.at <= later.action.start),
            )
        });
        let decreases = self.decreases.iter().map(|it| {
            let step = self.steps.iter().rfind(|step| step.at <= it.after.action.start);
            format!("{:?}: a lower token of a later owner: {it:?}; last step: {step:?}", self.mode)
        });
        self.failures.iter().cloned().chain(overlaps).chain(decreases).collect()
    }
}

//! Four evaluators in one process, on the in-memory backend: one comes late, one leaves, one crashes. The evaluations
//! that they carry out are counted, not those that were planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use apportion::{Config, Group, PartitionCoordinator, backend::Memory};
use comfy_table::{Cell, Color};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    alarm::{Alarm, Severity, State},
    evaluate_my_alarms,
    host::{Host, Metrics},
};
use crate::support::{
    Column, Failure, say,
    screen::{and, bold, count, dim, green, red, some_of, yellow},
    seconds, table, time,
};

const TIMEOUT: Duration = Duration::from_secs(4);
const NAMES: [&str; 4] = ["eval-1", "eval-2", "eval-3", "eval-4"];
/// How many cycles in a row have to be stable after each change.
const SETTLED_IN_A_ROW: usize = 2;

/// Runs the demonstration; fails if an alarm was not evaluated exactly once in a stable cycle.
pub async fn run(alarms: Vec<Alarm>, period: Duration) -> Result<(), Failure> {
    let mut demo = Demo::new(alarms, period);
    say!(
        "{} about this host, shared by alarm evaluators in one process.\n\
         A cycle takes {}; a session that is silent expires after {}.",
        bold(count(demo.alarms.len(), "alarm")),
        seconds(period),
        seconds(TIMEOUT),
    );

    demo.title("START", &format!("{} come up.", and(&NAMES[..3])));
    let start = time::now();
    for name in &NAMES[..3] {
        demo.start(name).await?;
    }
    demo.until_stable("start", start).await?;
    demo.print_who_evaluates_what();

    demo.title("JOIN", "eval-4 joins. It takes alarms from the others; no other alarm moves.");
    let start = time::now();
    demo.start("eval-4").await?;
    demo.until_stable("join", start).await?;

    demo.title("LEAVE", "eval-2 leaves its group and shuts down: the others see it at once.");
    let start = time::now();
    demo.stop("eval-2").await?;
    demo.until_stable("leave", start).await?;

    demo.title("CRASH", "eval-3 stops without leaving. Its session has to expire first.");
    let start = time::now();
    demo.crash("eval-3");
    demo.until_stable("crash", start).await?;
    demo.print_who_evaluates_what();

    demo.print_results();
    demo.stop("eval-1").await?;
    demo.stop("eval-4").await?;
    demo.summary()
}

/// One evaluator. It runs until its group is left. It gets no information about the others from this program.
async fn evaluator(
    group: Group,
    alarms: Arc<[Alarm]>,
    mut cycles: watch::Receiver<Cycle>,
    events: mpsc::UnboundedSender<Event>,
) {
    let member = group.view().me().to_string();
    while cycles.changed().await.is_ok() {
        let Cycle { number: cycle, metrics } = cycles.borrow_and_update().clone();
        let record = |alarm: &Alarm, state, _| {
            let _ = events.send(Event::Evaluated {
                cycle,
                alarm: alarm.id.clone(),
                member: member.clone(),
                state,
            });
        };
        let Ok(turn) = evaluate_my_alarms(&group, &alarms, &metrics, record).await else { return };
        let view = group.view();
        let members = view.members().iter().map(|member| member.id().to_string()).collect();
        let epoch = Some(turn.epoch).filter(|&epoch| epoch == view.epoch() && turn.evaluated == turn.share);
        let _ = events.send(Event::Finished { cycle, member: member.clone(), members, epoch });
    }
}

/// The signal that starts a cycle in all evaluators at once.
#[derive(Clone, Default)]
struct Cycle {
    number: u32,
    metrics: Arc<Metrics>,
}

/// A report of an evaluator.
enum Event {
    Evaluated {
        cycle: u32,
        alarm: String,
        member: String,
        state: State,
    },
    /// `epoch`: the membership from start to end of the turn, `None` if it changed or the turn was cut short.
    Finished {
        cycle: u32,
        member: String,
        members: BTreeSet<String>,
        epoch: Option<i64>,
    },
}

/// The evaluations of one cycle.
#[derive(Default)]
struct Record {
    /// For each alarm, the evaluators that evaluated it.
    by: BTreeMap<String, Vec<String>>,
    states: BTreeMap<String, State>,
    /// The evaluators that finished, and the views of the group that they acted on.
    finished: BTreeSet<String>,
    views: BTreeSet<(Option<i64>, BTreeSet<String>)>,
}

impl Record {
    /// Whether the membership was stable: all its members took part, with the same view of it.
    fn is_stable(&self) -> bool {
        self.views.len() == 1 && self.views.iter().all(|(epoch, it)| epoch.is_some() && *it == self.finished)
    }

    fn evaluations(&self) -> usize {
        self.by.values().map(Vec::len).sum()
    }

    fn twice(&self) -> usize {
        self.by.values().filter(|by| by.len() > 1).count()
    }

    fn of(&self, member: &str) -> Vec<&str> {
        let is_theirs = |by: &Vec<String>| by.iter().any(|it| it == member);
        self.by.iter().filter(|(_, by)| is_theirs(by)).map(|(alarm, _)| alarm.as_str()).collect()
    }
}

struct Running {
    coordinator: PartitionCoordinator,
    task: AbortHandle,
}

/// How one change went.
struct Change {
    what: &'static str,
    moved: usize,
    took: Duration,
}

struct Demo {
    alarms: Arc<[Alarm]>,
    ensemble: Memory,
    host: Option<Host>,
    period: Duration,
    ticks: Interval,
    cycles: watch::Sender<Cycle>,
    reports: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    running: BTreeMap<&'static str, Running>,
    tasks: JoinSet<()>,
    /// The last stable cycle.
    last: Record,
    changes: Vec<Change>,
    stable: usize,
    evaluations: usize,
    inexact: Vec<u32>,
    /// For each cycle that was not stable, how many alarms were not evaluated, and how many twice.
    unstable: Vec<(usize, usize)>,
}

impl Demo {
    fn new(alarms: Vec<Alarm>, period: Duration) -> Demo {
        let (reports, events) = mpsc::unbounded_channel();
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Demo {
            host: Some(Host::new(&alarms)),
            alarms: alarms.into(),
            ensemble: Memory::new(),
            period,
            ticks,
            cycles: watch::Sender::default(),
            reports,
            events,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            last: Record::default(),
            changes: Vec::new(),
            stable: 0,
            evaluations: 0,
            inexact: Vec::new(),
            unstable: Vec::new(),
        }
    }

    async fn start(&mut self, name: &'static str) -> Result<(), Failure> {
        let config = Config::for_backend(self.ensemble.clone())
            .member_id(name)
            .session_timeout(TIMEOUT)
            .server_tick(Duration::from_millis(500));
        let coordinator = PartitionCoordinator::connect(config).await?;
        let group = coordinator.join("alarm-evaluator").await?;
        let evaluator = evaluator(group, self.alarms.clone(), self.cycles.subscribe(), self.reports.clone());
        let task = self.tasks.spawn(evaluator);
        self.running.insert(name, Running { coordinator, task });
        Ok(())
    }

    async fn stop(&mut self, name: &str) -> Result<(), Failure> {
        let Some(Running { coordinator, .. }) = self.running.remove(name) else { return Ok(()) };
        // The loop of the evaluator sees that its group is left, and ends.
        Ok(coordinator.shutdown().await?)
    }

    /// Cuts the connection, so that not even the end of the program reaches the others.
    fn crash(&mut self, name: &str) {
        let Some(Running { coordinator, task }) = self.running.remove(name) else { return };
        if let Some(session) = coordinator.session_id() {
            self.ensemble.suspend(session);
        }
        task.abort();
        drop(coordinator);
    }

    fn title(&self, word: &str, text: &str) {
        say!("\n{} {text}", bold(format!("{word:<5}")));
        let mut columns = vec![format!("{:>5}", "cycle")];
        columns.extend(NAMES.iter().map(|name| format!("{name:>7}")));
        say!("  {}", dim(columns.concat() + "   alarms evaluated"));
    }

    /// Runs cycles until some in a row were stable, and prints what moved and how long it took.
    async fn until_stable(&mut self, what: &'static str, start: Instant) -> Result<(), Failure> {
        let before = std::mem::take(&mut self.last);
        let mut in_a_row = 0;
        let mut completed = None;
        let deadline = start + TIMEOUT * 2 + self.period * 5;
        while in_a_row < SETTLED_IN_A_ROW {
            let (record, end) = self.cycle().await;
            if record.is_stable() {
                in_a_row += 1;
                completed.get_or_insert(end);
                self.last = record;
            } else {
                (in_a_row, completed) = (0, None);
                if time::now() > deadline {
                    return Err(format!("the evaluators did not agree after the {what}").into());
                }
            }
        }
        let took = completed.map_or(Duration::ZERO, |end| end - start);
        let moves = moves(&before, &self.last);
        let moved = moves.values().map(Vec::len).sum();
        if !moves.is_empty() {
            say!("");
            let row = |((from, to), alarms): (&(String, String), &Vec<&str>)| {
                vec![format!("{from} -> {to}"), alarms.len().to_string(), some_of(alarms, 100)]
            };
            let columns = [Column::Left("moved"), Column::Right("alarms"), Column::Left("which")];
            table(&columns, moves.iter().map(row));
        }
        say!("  Complete {} after the {what}.", bold(seconds(took)));
        self.changes.push(Change { what, moved, took });
        Ok(())
    }

    /// Runs one cycle, of which the first half is for the evaluators and the rest is free.
    async fn cycle(&mut self) -> (Record, Instant) {
        self.ticks.tick().await;
        let mut host = self.host.take().expect("it is given back below");
        let sampled = tokio::task::spawn_blocking(move || (host.sample(), host));
        let (metrics, host) = sampled.await.expect("sampling does not panic");
        self.host = Some(host);
        let number = self.cycles.borrow().number + 1;
        self.cycles.send_replace(Cycle { number, metrics: metrics.into() });

        let mut record = Record::default();
        let mut end = time::now();
        let deadline = end + self.period / 2;
        while let Ok(Some(event)) = timeout(deadline - time::now(), self.events.recv()).await {
            match event {
                Event::Evaluated { cycle, alarm, member, state } if cycle == number => {
                    record.by.entry(alarm.clone()).or_default().push(member);
                    record.states.insert(alarm, state);
                }
                Event::Finished { cycle, member, members, epoch } if cycle == number => {
                    record.finished.insert(member);
                    record.views.insert((epoch, members));
                    end = time::now();
                }
                // Too late: the cycle of the report was not stable.
                Event::Evaluated { .. } | Event::Finished { .. } => {}
            }
        }
        self.account(number, &record);
        (record, end)
    }

    /// Counts what happened in a cycle, and prints a line.
    fn account(&mut self, number: u32, record: &Record) {
        let all = self.alarms.len();
        let (missing, twice) = (all - record.by.len(), record.twice());
        let mut verdict = format!("{} of {all}", record.by.len());
        if missing == 0 && twice == 0 {
            verdict += ", each once";
        }
        if missing > 0 {
            verdict += &yellow(format!(", {missing} not evaluated"));
        }
        if twice > 0 {
            verdict += &yellow(format!(", {twice} twice"));
        }
        if record.is_stable() {
            self.stable += 1;
            self.evaluations += record.evaluations();
            if missing == 0 && twice == 0 {
                verdict += &green("  stable");
            } else {
                verdict += &red("  WRONG, because it is stable");
                self.inexact.push(number);
            }
        } else {
            self.unstable.push((missing, twice));
        }
        let shares = NAMES.iter().map(|name| match record.of(name).len() {
            0 => format!("{:>7}", "-"),
            share => format!("{share:>7}"),
        });
        say!("  {number:>5}{}   {verdict}", shares.collect::<String>());
    }

    fn print_who_evaluates_what(&self) {
        say!("");
        let rows = self.last.finished.iter().map(|member| {
            let alarms = self.last.of(member);
            vec![member.clone(), alarms.len().to_string(), some_of(&alarms, 170)]
        });
        let columns = [Column::Left("evaluator"), Column::Right("alarms"), Column::Left("which")];
        table(&columns, rows);
    }

    fn print_results(&self) {
        let number =
            |wanted: fn(&State) -> bool| self.last.states.values().filter(|state| wanted(state)).count();
        say!(
            "\n{} of the last cycle: {} ok, {} firing, {} without data\n  \
             (this host has no such metric or device)",
            bold("RESULTS"),
            number(|state| matches!(state, State::Ok)),
            number(|state| matches!(state, State::Alarm(_))),
            number(|state| matches!(state, State::InsufficientData)),
        );
        let mut firing: Vec<_> = self.alarms.iter().filter_map(|alarm| self.firing(alarm)).collect();
        firing.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
        let columns = [Column::Left("severity"), Column::Left("alarm"), Column::Left("because")];
        if !firing.is_empty() {
            table(&columns, firing.into_iter().map(|(_, row)| row));
        }
    }

    fn firing(&self, alarm: &Alarm) -> Option<(Severity, [Cell; 3])> {
        let Some(&State::Alarm(value)) = self.last.states.get(&alarm.id) else { return None };
        let severity = Cell::new(alarm.severity);
        let severity = if alarm.severity == Severity::Critical { severity.fg(Color::Red) } else { severity };
        let because = format!("{}: {}", alarm.name, alarm.reason(value));
        Some((alarm.severity, [severity, Cell::new(&alarm.id), Cell::new(because)]))
    }

    fn summary(&self) -> Result<(), Failure> {
        say!("\n{}", bold("SUMMARY"));
        let row = |change: &Change| vec![change.what.into(), change.moved.to_string(), seconds(change.took)];
        let columns =
            [Column::Left("change"), Column::Right("alarms moved"), Column::Right("complete after")];
        table(&columns, self.changes.iter().map(row));
        let (missing, twice) = self.unstable.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        say!(
            "  {} while members were changing: {} left out, {} done twice.",
            count(self.unstable.len(), "cycle"),
            count(missing, "evaluation"),
            twice,
        );
        if twice > 0 {
            return Err("two evaluators evaluated one alarm at once, and shares are exclusive".into());
        }
        if !self.inexact.is_empty() {
            return Err(format!(
                "in the stable cycles {:?} not every alarm was evaluated once",
                self.inexact
            )
            .into());
        }
        say!(
            "  {} stable: in each of them every alarm was evaluated exactly once\n  \
             ({} x {} = {} evaluations, as counted by the evaluations themselves).",
            green(count(self.stable, "cycle")),
            self.stable,
            self.alarms.len(),
            self.evaluations,
        );
        Ok(())
    }
}

/// The alarms that moved from one evaluator to another.
fn moves<'a>(before: &'a Record, after: &'a Record) -> BTreeMap<(String, String), Vec<&'a str>> {
    let mut moves: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (alarm, by) in &before.by {
        if let (Some(from), Some(to)) = (by.first(), after.by.get(alarm).and_then(|by| by.first()))
            && from != to
        {
            moves.entry((from.clone(), to.clone())).or_default().push(alarm);
        }
    }
    moves
}

//! One evaluator of a real fleet.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    Config, Error, Group, PartitionCoordinator,
    group::{Rebalance, Standing},
    serde_json::{Value, json},
};

use super::{
    Args, Turn,
    alarm::{Alarm, State},
    evaluate_my_alarms,
    host::{Host, Metrics},
};
use crate::support::{
    Cycles, Failure, say,
    screen::{count, dim, some_of, yellow},
    stopped, time, time_of_day,
};

/// Evaluates its share of `alarms` in each cycle until it is stopped.
pub async fn run(config: Config, args: &Args, alarms: Vec<Alarm>) -> Result<(), Failure> {
    let servers = config.hosts().join(", ");
    let period = args.cycle.unwrap_or(Duration::from_secs(5));
    let mut log = args.log_evaluations.as_deref().map(Log::append_to).transpose()?;
    let host = Arc::new(Mutex::new(Host::new(&alarms)));
    let mut stop = pin!(stopped());

    // Neither call waits, so a service starts while its servers are down, and joins when they are up.
    let coordinator = PartitionCoordinator::start(config)?;
    let group = coordinator.join(args.fleet.group("alarm-evaluator")).await?;

    let me = coordinator.member_id().clone();
    say!("evaluator {me}: {}\nat {servers}; times are UTC, Ctrl-C ends it", count(alarms.len(), "alarm"));
    let mut rebalances = group.rebalances();
    let mut cycles = Cycles::every(period);
    let mut evaluated_in = None;
    let failure = loop {
        let cycle = tokio::select! {
            () = &mut stop => break None,
            change = rebalances.next() => {
                let Some(change) = change else { break Some(Error::Closed { group: group.name() }) };
                report(&change, &alarms, &group);
                // Back in the group: no need to wait for the next cycle, if this one was missed.
                let was_without = change.members().0 == 0 && evaluated_in != Some(cycles.current());
                if !was_without { continue }
                cycles.current()
            }
            cycle = cycles.next() => cycle,
        };
        let metrics = sample(&host).await;
        let record = |alarm: &Alarm, state: State, epoch: i64| {
            let Some(log) = &mut log else { return };
            let view = group.view();
            log.write(&json!({
                "at_ms": time::unix_ms(), "cycle": cycle, "alarm": alarm.id, "state": state.name(),
                "member": me.as_str(), "epoch": epoch,
                "members": (view.epoch() == epoch).then(|| view.members().len()),
            }));
        };
        let turn = tokio::select! {
            () = &mut stop => break None,
            turn = evaluate_my_alarms(&group, &alarms, &metrics, record) => turn,
        };
        match turn {
            Ok(turn) => {
                if turn.evaluated > 0 {
                    evaluated_in = Some(cycle);
                }
                report_turn(&turn, &alarms, &group, coordinator.session_id().is_some());
            }
            Err(error @ (Error::MemberIdTaken { .. } | Error::Closed { .. })) => break Some(error),
            Err(error) => say!("{}  {}", time_of_day(), yellow(format!("nothing evaluated: {error}"))),
        }
    };

    // The others take over now instead of a session timeout later.
    match coordinator.shutdown().await {
        Ok(()) => say!("{}  stopped; the others know", time_of_day()),
        Err(error) => say!("{}  stopped; {error}", time_of_day()),
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Prints which alarms this evaluator gained and lost.
fn report(change: &Rebalance, alarms: &[Alarm], group: &Group) {
    let ids = |some: Vec<&Alarm>| some.iter().map(|alarm| alarm.id.clone()).collect::<Vec<_>>();
    let (lost, gained) = (change.lost_ranges(), change.gained_ranges());
    let (lost, gained) = (ids(lost.select(alarms).collect()), ids(gained.select(alarms).collect()));
    let why = match (change.is_total_loss(), group.view().standing()) {
        (true, Standing::Lapsed) => "no connection to the servers".into(),
        (true, _) => "not in the group any more".into(),
        (false, _) => count(change.members().1, "member"),
    };
    for (word, ids) in [("lost", lost), ("gained", gained)] {
        if !ids.is_empty() {
            let what = format!("{}  {word} {} ({why}): ", time_of_day(), count(ids.len(), "alarm"));
            say!("{what}{}", dim(some_of(&ids, 80 - what.len())));
        }
    }
}

/// One line for one cycle.
fn report_turn(turn: &Turn, alarms: &[Alarm], group: &Group, has_session: bool) {
    let view = group.view();
    let now = time_of_day();
    if view.standing() != Standing::Member {
        let state = match view.standing() {
            Standing::Lapsed => "no connection to the servers",
            _ if !has_session => "waiting for a server",
            _ => "joining",
        };
        return say!("{now}  {}", yellow(format!("{state}: evaluating nothing")));
    }
    let members = count(view.members().len(), "member");
    let unfinished = match turn.share - turn.evaluated {
        0 => String::new(),
        left => format!(", {left} of them left to others"),
    };
    say!(
        "{now}  {members}, {} of {} alarms mine{unfinished}, {} firing",
        turn.share,
        alarms.len(),
        turn.firing
    );
}

/// Reads the metrics on another thread, because that takes a while and must not delay the heartbeats.
async fn sample(host: &Arc<Mutex<Host>>) -> Metrics {
    let host = host.clone();
    let sample = move || host.lock().expect("sampling does not panic").sample();
    tokio::task::spawn_blocking(sample).await.expect("sampling does not panic")
}

/// A file that shows an outside observer which evaluator evaluated which alarm.
struct Log(File);

impl Log {
    fn append_to(path: &Path) -> Result<Log, Failure> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        Ok(Log(file.map_err(|error| format!("{}: {error}", path.display()))?))
    }

    /// Written in one piece, so that a process that is killed leaves no half of a line.
    fn write(&mut self, line: &Value) {
        if let Err(error) = self.0.write_all(format!("{line}\n").as_bytes()) {
            eprintln!("evaluation log: {error}");
        }
    }
}

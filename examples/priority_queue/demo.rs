//! Three nodes in one process, on the in-memory backend: without preference, with it, and with a crash.

use std::{collections::BTreeMap, future::pending, time::Duration};

use apportion::{Config, PartitionCoordinator, backend::Memory, queue::WorkQueue};
use tokio::{sync::watch, task::JoinSet};

use super::{
    Event, Node, compute,
    data::{GROUPS, SETS},
    dispatch::{self, Answers, Score},
};
use crate::support::{
    Column, Failure, Gate, say,
    screen::{and, bold, count, dim, green},
    seconds, table, time,
};

const TIMEOUT: Duration = Duration::from_secs(3);
const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];
const WITHOUT: &str = "WITHOUT PREFERENCE";
const WITH: &str = "WITH PREFERENCE";
const CRASH: &str = "CRASH";

/// Runs the demonstration; fails if a question was not answered exactly once.
pub async fn run(node: &Node) -> Result<(), Failure> {
    say!(
        "{} about {}, for three compute nodes in one process. Each has\n\
         room for {}; to load one takes {}, an answer {}.\n\
         A session that is silent expires after {}.",
        bold(count(SETS.len() * GROUPS as usize, "question")),
        count(SETS.len(), "data set"),
        count(node.cache, "data set"),
        seconds(node.load),
        format_args!("{:.2} s", node.pace.as_secs_f64()),
        seconds(TIMEOUT),
    );
    say!(
        "{}",
        dim(format!(
            "A letter for each answer: {};\na capital where the data had to be loaded, `*` after a second delivery.",
            and(&SETS)
        ))
    );
    let ensemble = Memory::new();
    let mut scores = Vec::new();
    for (title, text) in [
        (WITHOUT, "each node takes the most urgent, then the oldest."),
        (WITH, "each node first takes entries whose data it has."),
        (CRASH, "once more, and node-2 is killed while it has an entry."),
    ] {
        say!("\n{} {text}", bold(format!("{title}:")));
        let node = Node { prefers: title != WITHOUT, ..node.clone() };
        scores.push((title, act(&ensemble, title, &node).await?));
    }

    say!("\n{}", bold("SUMMARY"));
    let row = |(title, score): &(&str, Score)| {
        vec![
            title.to_lowercase(),
            score.hits.to_string(),
            (score.entries - score.hits).to_string(),
            format!("{} %", score.hit_rate()),
            seconds(score.urgent),
            seconds(score.took),
            score.again.to_string(),
        ]
    };
    let columns = ["hits", "misses", "hit rate", "urgent done", "all done", "redelivered"];
    table(&[&[Column::Left("run")], &columns.map(Column::Right)[..]].concat(), scores.iter().map(row));
    let of = |title| scores.iter().find(|(it, _)| *it == title).map_or(0, |(_, score)| score.hits);
    if node.cache > 0 && of(WITH) <= of(WITHOUT) {
        return Err("the preference did not help".into());
    }
    if !scores.iter().any(|(title, score)| *title == CRASH && score.again == 1) {
        return Err("after the crash, not one entry was delivered again".into());
    }
    say!("  {}", green("In each run every question was answered exactly once, and rightly."));
    Ok(())
}

struct Running {
    coordinator: PartitionCoordinator,
    gate: Gate,
    /// One task; dropping it ends the node at any point.
    task: JoinSet<()>,
    has: watch::Receiver<String>,
}

/// One run with nodes of its own.
async fn act(ensemble: &Memory, title: &str, node: &Node) -> Result<Score, Failure> {
    let root = format!("/{}", title.to_lowercase().replace(' ', "-"));
    let dispatcher = connect(ensemble, "dispatcher").await?;
    let queue = dispatcher.queue(&root).await?;
    let (new, _) = dispatch::put(&queue).await?;
    let (none, known) = dispatch::put(&queue).await?;
    if title == WITHOUT {
        say!("  {new} entries put; when put again, {none} are new and {known} queued already.");
    }
    let start = time::now();
    let mut answers = Answers::new(start);
    let mut nodes = BTreeMap::new();
    for name in NAMES {
        nodes.insert(name, start_node(ensemble, name, &root, node).await?);
    }
    if title == CRASH {
        crash(ensemble, &queue, &mut answers, nodes.get_mut("node-2").ok_or("there is no node-2")?).await?;
    }
    while !answers.is_complete() {
        answers.next(&queue).await?;
    }
    answers.print_letters();
    answers.check()?;
    for (name, node) in nodes {
        if !(title == CRASH && name == "node-2") {
            node.coordinator.shutdown().await?;
        }
    }
    dispatcher.shutdown().await?;
    Ok(answers.score())
}

/// Kills a node when it has an entry, after a quarter of the work; waits until another node has done that.
async fn crash(
    ensemble: &Memory,
    queue: &WorkQueue,
    answers: &mut Answers,
    node: &mut Running,
) -> Result<(), Failure> {
    while answers.seen.len() < answers.all() / 4 {
        answers.next(queue).await?;
    }
    node.gate.close();
    node.gate.reached().await;
    // It is stopped now, with this entry.
    let entry = node.has.borrow().clone();
    let session = node.coordinator.session_id().ok_or("a node without a session")?;
    ensemble.suspend(session);
    node.task.abort_all();
    let crashed = time::now();
    say!("  node-2 is killed; it has {entry}");
    loop {
        let again = answers.next(queue).await?.iter().find(|(it, _)| it.attempts() > 1);
        if let Some((finished, _)) = again {
            let text = format!(
                "{} is done by {}, attempt {}, {} later",
                finished.entry().label(),
                finished.worker().unwrap_or("an unknown node"),
                finished.attempts(),
                seconds(crashed.elapsed()),
            );
            say!("  {}", green(text));
            return Ok(());
        }
    }
}

async fn connect(ensemble: &Memory, name: &str) -> Result<PartitionCoordinator, Failure> {
    let config = Config::for_backend(ensemble.clone())
        .member_id(name)
        .session_timeout(TIMEOUT)
        .server_tick(Duration::from_millis(300));
    Ok(PartitionCoordinator::connect(config).await?)
}

async fn start_node(
    ensemble: &Memory,
    name: &'static str,
    root: &str,
    node: &Node,
) -> Result<Running, Failure> {
    let coordinator = connect(ensemble, name).await?;
    let queue = coordinator.queue(root).await?;
    let node = Node { gate: Gate::default(), ..node.clone() };
    let gate = node.gate.clone();
    let (sender, has) = watch::channel(String::new());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let report = |delivery: &str, event: &Event| {
            if matches!(event, Event::Taken) {
                sender.send_replace(delivery.into());
            }
        };
        // It ends when its coordinator is shut down.
        let _ = compute(&queue, &node, pending(), report).await;
    });
    Ok(Running { coordinator, gate, task, has })
}

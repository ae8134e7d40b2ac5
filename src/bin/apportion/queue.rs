//! `queue`: a work queue.
//!
//! Lists are read from the store as they are, so they create nothing, and show the queues of Python alone as well.

mod read;

use std::{collections::BTreeSet, time::Duration};

use apportion::{
    PartitionCoordinator, WorkQueue,
    backend::path::ZnodePath,
    queue::{Entry, EntryId, Finished},
    serde_json::{Value, json},
};

use self::read::{Row, first, names, read, with_id};
use crate::{
    arguments::{Common, Letters, Queue, QueueCommand},
    failure::Failure,
    findings::Finding,
    outcome::Outcome,
    output::{Output, count, listed, shown},
    state::State,
    store::Store,
    time::{from_ms, now, short},
};

/// The folders of a queue.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) root: ZnodePath,
    pub(crate) unowned: ZnodePath,
    pub(crate) owned: ZnodePath,
    done: ZnodePath,
    dead: ZnodePath,
    pub(crate) claims: ZnodePath,
}

impl Folders {
    pub(crate) fn parse(text: &str) -> Result<Folders, String> {
        let root = ZnodePath::parse(text).map_err(|error| error.to_string())?;
        let below = |name: &str| root.join(name).map_err(|error| error.to_string());
        Ok(Folders {
            unowned: below("unowned")?,
            owned: below("owned")?,
            done: below("done")?,
            dead: below("dead")?,
            claims: below("claims")?,
            root,
        })
    }

    pub(crate) fn all(&self) -> [&ZnodePath; 6] {
        [&self.root, &self.unowned, &self.owned, &self.done, &self.dead, &self.claims]
    }

    /// The state of the entries of a folder.
    fn state(&self, folder: &ZnodePath) -> State {
        match folder {
            _ if *folder == self.owned => State::Taken,
            _ if *folder == self.done => State::Done,
            _ if *folder == self.dead => State::Dead,
            _ => State::Waits,
        }
    }
}

pub(crate) async fn run(common: &Common, queue: &Queue, output: Output) -> Result<Outcome, Failure> {
    Store::with(common, async |store: &Store| run_with(store, queue, output).await).await
}

async fn run_with(store: &Store, queue: &Queue, output: Output) -> Result<Outcome, Failure> {
    let folders = &queue.folders;
    match &queue.command {
        QueueCommand::List { owned, done, max_len } => {
            let folder = match (owned, done) {
                (true, _) => &folders.owned,
                (_, true) => &folders.done,
                _ => &folders.unowned,
            };
            list(store, folders, folder, *max_len, output).await
        }
        QueueCommand::Show { entry } => show(store, folders, entry, output).await,
        QueueCommand::Put { payload, priority, label, delay, create, max_len } => {
            let put = Putting {
                payload,
                priority: *priority,
                label,
                delay: *delay,
                create: *create,
                max_len: *max_len,
            };
            self::put(store, folders, &put, output).await
        }
        QueueCommand::Dead => dead(store, folders, output).await,
        QueueCommand::Revive { letters } => end_letters(store, folders, letters, &End::Revive, output).await,
        QueueCommand::Discard { letters, yes } => {
            end_letters(store, folders, letters, &End::Discard { yes: yes.yes }, output).await
        }
    }
}

/// Whether a queue takes no more entries.
pub(crate) fn fullness(folders: &Folders, waiting: usize, max_len: usize) -> Option<Finding> {
    (waiting >= max_len).then(|| {
        Finding::problem(
            "full",
            format!("queue {} is full: {waiting} entries wait, and the limit is {max_len}", folders.root),
            "Puts are refused until entries are taken. Are its workers running? Else raise `max_len` in the services",
        )
    })
}

async fn list(
    store: &Store,
    folders: &Folders,
    folder: &ZnodePath,
    max_len: usize,
    output: Output,
) -> Result<Outcome, Failure> {
    let (rows, total) = first(store, folders, folder).await?;
    let full = (*folder == folders.unowned).then(|| fullness(folders, total, max_len)).flatten();
    let found: Vec<Finding> = full.into_iter().chain(rows.iter().filter_map(Row::finding)).collect();
    if output.is_json {
        output.json(&listed(rows.iter().map(Row::json), total, &found))?;
        return Ok(Outcome::of(!found.is_empty()));
    }
    let table = rows.iter().map(|row| {
        let delayed = row.field("not_before").and_then(Value::as_i64).map(from_ms);
        let left = delayed.and_then(|then| then.duration_since(now()).ok());
        let state = left.map_or_else(String::new, |left| format!("in {}", short(left)));
        let entry = row.entry.as_ref();
        vec![
            row.name().to_owned(),
            entry.map_or_else(|| "?".into(), |entry| entry.priority().to_string()),
            entry.map_or("?", Entry::label).to_owned(),
            row.age(),
            row.text("attempt"),
            row.text("worker"),
            state,
            row.text("last_error"),
        ]
    });
    let header = ["ENTRY", "PRIORITY", "LABEL", "AGE", "ATTEMPTS", "WORKER", "DELAYED", "LAST ERROR"];
    output.table(&header, table.collect())?;
    let more = shown(rows.len(), total);
    let entries = if total == 1 { "1 entry".to_owned() } else { format!("{total} entries") };
    output.line(format_args!("{entries}{more}"))?;
    output.findings(&found)?;
    Ok(Outcome::of(!found.is_empty()))
}

async fn show(store: &Store, folders: &Folders, wanted: &str, output: Output) -> Result<Outcome, Failure> {
    let id: Option<String> = wanted.parse::<EntryId>().ok().and_then(|_| {
        let uuid = wanted.rsplit('-').next()?;
        (uuid.len() == 32).then(|| uuid.to_owned())
    });
    for folder in [&folders.unowned, &folders.owned, &folders.done, &folders.dead] {
        let row = match &id {
            Some(id) => with_id(store, folders, folder, wanted, id).await?,
            None => read(store, folders, folder, &[wanted.to_owned()]).await?.into_iter().next(),
        };
        let Some(row) = row else { continue };
        let found: Vec<Finding> = row.finding().into_iter().collect();
        let mut value = row.json();
        value["value"] = row.value.clone().unwrap_or_default();
        value["findings"] = found.iter().map(Finding::json).collect();
        if output.is_json {
            output.json(&value)?;
            return Ok(Outcome::of(!found.is_empty()));
        }
        let mut fields = vec![
            vec!["path".to_owned(), row.path.to_string()],
            vec!["state".into(), row.state.text().into()],
            vec!["in this folder".into(), format!("for {}", row.age())],
        ];
        for field in ["worker", "attempt", "last_error", "error", "result"] {
            if !row.text(field).is_empty() {
                fields.push(vec![field.replace('_', " "), row.text(field)]);
            }
        }
        output.table(&["FIELD", "VALUE"], fields)?;
        if let Some(value) = &row.value {
            output.value("value", value)?;
        }
        output.findings(&found)?;
        return Ok(Outcome::of(!found.is_empty()));
    }
    Err(Failure::NotDone(format!(
        "there is no entry `{wanted}` in {}: it may have another name in another folder; see `queue list`",
        folders.root
    )))
}

/// An entry to put.
struct Putting<'a> {
    payload: &'a Value,
    priority: u16,
    label: &'a str,
    delay: Option<Duration>,
    create: bool,
    max_len: usize,
}

async fn put(
    store: &Store,
    folders: &Folders,
    put: &Putting<'_>,
    output: Output,
) -> Result<Outcome, Failure> {
    if !put.create && store.get(&folders.unowned).await?.is_none() {
        let root = &folders.root;
        return Err(Failure::NotDone(format!("there is no queue `{root}`: --create makes it")));
    }
    let (coordinator, queue) = open(store, folders, put.max_len).await?;
    let mut putting = queue.put(put.payload).priority(put.priority).label(put.label);
    if let Some(delay) = put.delay {
        putting = putting.delay(delay);
    }
    let id = putting.await;
    let _ = coordinator.shutdown().await;
    let id = id?.to_string();
    if output.is_json {
        output.json(&json!({ "put": id }))?;
    } else {
        output.line(format_args!("put {id}"))?;
    }
    Ok(Outcome::Fine)
}

/// Opens the queue. While it is open it gives back what dead workers had, as each process does; it makes no dead letters and
/// removes no results, because it does not know the limits of the services.
async fn open(
    store: &Store,
    folders: &Folders,
    max_len: usize,
) -> Result<(PartitionCoordinator, WorkQueue), Failure> {
    let coordinator = store.coordinator_at(&folders.root).await?;
    let opening = coordinator.queue(folders.root.as_str());
    match opening.max_attempts(None).keep_results(usize::MAX).max_len(max_len).await {
        Ok(queue) => Ok((coordinator, queue)),
        Err(error) => {
            let _ = coordinator.shutdown().await;
            Err(error.into())
        }
    }
}

async fn dead(store: &Store, folders: &Folders, output: Output) -> Result<Outcome, Failure> {
    let (rows, total) = first(store, folders, &folders.dead).await?;
    let found: Vec<Finding> = rows.iter().filter_map(Row::finding).collect();
    if output.is_json {
        output.json(&listed(rows.iter().map(Row::json), total, &found))?;
        return Ok(Outcome::of(total > 0));
    }
    let table = rows.iter().map(|row| {
        let last_error = row.text("last_error");
        vec![row.name().to_owned(), row.age(), row.text("attempt"), row.text("worker"), last_error]
    });
    output.table(&["ENTRY", "SINCE", "ATTEMPTS", "LAST WORKER", "REASON"], table.collect())?;
    output.line(count(total, "dead letter") + &shown(rows.len(), total))?;
    output.findings(&found)?;
    Ok(Outcome::of(total > 0))
}

/// How dead letters end.
enum End {
    Revive,
    Discard { yes: bool },
}

async fn end_letters(
    store: &Store,
    folders: &Folders,
    letters: &Letters,
    end: &End,
    output: Output,
) -> Result<Outcome, Failure> {
    let total = names(store, folders, &folders.dead).await?.len();
    let known = read(store, folders, &folders.dead, &letters.entries).await?;
    if let Some(entry) = letters.entries.iter().find(|name| !known.iter().any(|row| row.name() == **name)) {
        return Err(Failure::NotDone(format!("there is no dead letter `{entry}`: see `queue dead`")));
    }
    let named: BTreeSet<_> = letters.entries.iter().collect();
    let number = if letters.all { total } else { named.len() };
    if matches!(end, End::Discard { yes: false }) {
        let letters = count(number, "dead letter");
        return Err(Failure::needs_yes(&format!("this would remove {letters} for good")));
    }
    let (coordinator, queue) = open(store, folders, usize::MAX).await?;
    let ended = async {
        let wanted = |letter: &Finished| {
            letters.all || letters.entries.iter().any(|name| name == letter.entry().name())
        };
        let mut ended = BTreeSet::new();
        for letter in queue.dead_letters().await?.iter().filter(|letter| wanted(letter)) {
            let done = match end {
                End::Revive => queue.revive(letter).await?,
                End::Discard { .. } => queue.discard(letter).await?,
            };
            ended.extend(done.then(|| letter.entry().name().to_owned()));
        }
        Ok::<_, Failure>(ended)
    };
    let ended = ended.await;
    let _ = coordinator.shutdown().await;
    let ended = ended?;
    let verb = if matches!(end, End::Revive) { "revived" } else { "discarded" };
    if output.is_json {
        output.json(&json!({ verb: ended.len() }))?;
    } else {
        output.line(format_args!("{verb} {}", count(ended.len(), "dead letter")))?;
    }
    let left: BTreeSet<_> = letters.entries.iter().filter(|name| !ended.contains(*name)).collect();
    if !left.is_empty() {
        let left: Vec<_> = left.into_iter().map(|name| format!("`{name}`")).collect();
        return Err(Failure::NotDone(format!(
            "not {verb}: {}. They are gone, or cannot be read as entries: see `queue dead`",
            left.join(", ")
        )));
    }
    Ok(Outcome::Fine)
}

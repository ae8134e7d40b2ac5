//! `queue`: a work queue.
//!
//! Lists are read from the store as they are, so they create nothing, and show the queues of Python alone as well.

use std::time::Duration;

use apportion::{
    PartitionCoordinator, WorkQueue,
    backend::{Stat, path::ZnodePath},
    queue::{Entry, EntryId, Finished},
    serde_json::{self, Value, json},
};

use crate::{
    arguments::{Common, Letters, Queue, QueueCommand},
    failure::Failure,
    findings::Finding,
    outcome::Outcome,
    output::{Output, count},
    store::{Store, path},
    time::{age, from_ms, now, short},
};

/// The folders of a queue.
pub(crate) struct Folders {
    pub(crate) root: ZnodePath,
    pub(crate) unowned: ZnodePath,
    pub(crate) owned: ZnodePath,
    done: ZnodePath,
    dead: ZnodePath,
    pub(crate) claims: ZnodePath,
}

impl Folders {
    pub(crate) fn new(text: &str) -> Result<Folders, Failure> {
        let root = path(text)?;
        let below = |name: &str| {
            root.join(name).map_err(|error| Failure::Usage(format!("`{text}` cannot be a queue: {error}")))
        };
        Ok(Folders {
            unowned: below("unowned")?,
            owned: below("owned")?,
            done: below("done")?,
            dead: below("dead")?,
            claims: below("claims")?,
            root,
        })
    }
}

pub(crate) async fn run(common: &Common, queue: &Queue, output: Output) -> Result<Outcome, Failure> {
    let folders = Folders::new(&queue.path)?;
    let store = Store::open(common).await?;
    let done = match &queue.command {
        QueueCommand::List { owned, done, max_len } => {
            let folder = match (owned, done) {
                (true, _) => &folders.owned,
                (_, true) => &folders.done,
                _ => &folders.unowned,
            };
            list(&store, &folders, folder, *max_len, output).await
        }
        QueueCommand::Show { entry } => show(&store, &folders, entry, output).await,
        QueueCommand::Put { payload, priority, label, delay, create, max_len } => {
            let put = Putting {
                payload,
                priority: *priority,
                label,
                delay: *delay,
                create: *create,
                max_len: *max_len,
            };
            self::put(&store, &folders, &put, output).await
        }
        QueueCommand::Dead => dead(&store, &folders, output).await,
        QueueCommand::Revive { letters } => {
            end_letters(&store, &folders, letters, &End::Revive, output).await
        }
        QueueCommand::Discard { letters, yes } => {
            end_letters(&store, &folders, letters, &End::Discard { yes: yes.yes }, output).await
        }
    };
    store.close().await;
    done
}

/// An entry with its value.
struct Row {
    path: ZnodePath,
    entry: Entry,
    stat: Option<Stat>,
    value: Option<Value>,
}

impl Row {
    fn field(&self, name: &str) -> Option<&Value> {
        self.value.as_ref()?.get(name)
    }

    fn text(&self, name: &str) -> String {
        match self.field(name) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    fn age(&self) -> String {
        self.stat.map_or_else(|| "?".into(), |stat| short(age(from_ms(stat.created_ms))))
    }

    fn json(&self) -> Value {
        json!({
            "entry": self.entry.name(),
            "path": self.path.as_str(),
            "priority": self.entry.priority(),
            "label": self.entry.label(),
            "created_ms": self.stat.map(|stat| stat.created_ms),
            "attempts": self.field("attempt"),
            "worker": self.field("worker"),
            "claim": self.field("claim"),
            "not_before_ms": self.field("not_before"),
            "last_error": self.field("last_error"),
        })
    }
}

/// How many entries are shown whose values are read.
const SHOWN: usize = 1000;

/// The entries of a folder in their order; of the first `limit`, the values. Also how many znodes there are.
async fn rows(
    store: &Store,
    folders: &Folders,
    folder: &ZnodePath,
    limit: usize,
) -> Result<(Vec<Row>, usize), Failure> {
    let Some((names, _)) = store.children(folder).await? else {
        if store.get(&folders.unowned).await?.is_some() {
            // A queue that Python alone uses has no such folder.
            return Ok((Vec::new(), 0));
        }
        return Err(Failure::NotDone(format!(
            "there is no queue `{}`: name it with --queue. `queue put --create` makes one",
            folders.root
        )));
    };
    let total = names.len();
    let mut entries: Vec<Entry> = names.iter().filter_map(|name| name.parse().ok()).collect();
    entries.sort_unstable();
    entries.truncate(limit);
    Ok((read(store, folder, entries).await?, total))
}

/// Those of these entries that are in the folder.
async fn read(store: &Store, folder: &ZnodePath, entries: Vec<Entry>) -> Result<Vec<Row>, Failure> {
    let places =
        entries.into_iter().filter_map(|entry| folder.join(entry.name()).ok().map(|path| (entry, path)));
    let places: Vec<_> = places.collect();
    let paths: Vec<_> = places.iter().map(|(_, path)| path.clone()).collect();
    let found = store.read(&paths).await?;
    let rows = places.into_iter().zip(found).filter_map(|((entry, path), found)| match found {
        Ok(None) => None,
        Ok(Some((data, stat))) => {
            Some(Row { path, entry, stat: Some(stat), value: serde_json::from_slice(&data).ok() })
        }
        Err(()) => Some(Row { path, entry, stat: None, value: None }),
    });
    Ok(rows.collect())
}

/// How many of them are shown, if not all.
fn shown(rows: &[Row], total: usize) -> String {
    if total > rows.len() { format!(", of which {} are shown", rows.len()) } else { String::new() }
}

/// Whether a queue takes no more entries.
pub(crate) fn fullness(folders: &Folders, waiting: usize, max_len: usize) -> Option<Finding> {
    (waiting >= max_len).then(|| {
        Finding::problem(
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
    let (rows, total) = rows(store, folders, folder, SHOWN).await?;
    let full = (*folder == folders.unowned).then(|| fullness(folders, total, max_len)).flatten();
    if output.is_json {
        let findings: Vec<_> = full.iter().map(Finding::json).collect();
        let entries: Vec<_> = rows.iter().map(Row::json).collect();
        output.json(&json!({ "total": total, "entries": entries, "findings": findings }))?;
        return Ok(Outcome::of(full.is_some()));
    }
    let table = rows.iter().map(|row| {
        let delayed = row.field("not_before").and_then(Value::as_i64).map(from_ms);
        let left = delayed.and_then(|then| then.duration_since(now()).ok());
        let state = left.map_or_else(String::new, |left| format!("in {}", short(left)));
        vec![
            row.entry.name().to_owned(),
            row.entry.priority().to_string(),
            row.entry.label().to_owned(),
            row.age(),
            row.text("attempt"),
            row.text("worker"),
            state,
            row.text("last_error"),
        ]
    });
    let header = ["ENTRY", "PRIORITY", "LABEL", "AGE", "ATTEMPTS", "WORKER", "DELAYED", "LAST ERROR"];
    output.table(&header, table.collect())?;
    let more = shown(&rows, total);
    let entries = if total == 1 { "1 entry".to_owned() } else { format!("{total} entries") };
    output.line(format_args!("{entries}{more}"))?;
    output.findings(full.as_slice())?;
    Ok(Outcome::of(full.is_some()))
}

async fn show(store: &Store, folders: &Folders, wanted: &str, output: Output) -> Result<Outcome, Failure> {
    let id: Option<String> = wanted.parse::<EntryId>().ok().and_then(|_| {
        let uuid = wanted.rsplit('-').next()?;
        (uuid.len() == 32).then(|| uuid.to_owned())
    });
    for (name, folder) in [
        ("waits", &folders.unowned),
        ("taken", &folders.owned),
        ("done", &folders.done),
        ("dead letter", &folders.dead),
    ] {
        let rows = match &id {
            // The value has it, so all are read.
            Some(id) => {
                let (mut rows, _) = rows(store, folders, folder, usize::MAX).await?;
                rows.retain(|row| row.entry.name() == wanted || row.text("id") == *id);
                rows
            }
            None => read(store, folder, wanted.parse().ok().into_iter().collect()).await?,
        };
        let Some(row) = rows.first() else { continue };
        let mut value = row.json();
        value["state"] = name.into();
        value["value"] = row.value.clone().unwrap_or_default();
        if output.is_json {
            output.json(&value)?;
            return Ok(Outcome::Fine);
        }
        let mut fields = vec![
            vec!["path".to_owned(), row.path.to_string()],
            vec!["state".into(), name.into()],
            vec!["in this folder".into(), format!("for {}", row.age())],
        ];
        for field in ["worker", "attempt", "last_error", "error", "result"] {
            if !row.text(field).is_empty() {
                fields.push(vec![field.replace('_', " "), row.text(field)]);
            }
        }
        output.table(&["FIELD", "VALUE"], fields)?;
        output.value("value", &row.value.clone().unwrap_or_default())?;
        return Ok(Outcome::Fine);
    }
    Err(Failure::NotDone(format!(
        "there is no entry `{wanted}` in {}: it may have another name in another folder; see `queue list`",
        folders.root
    )))
}

/// An entry to put.
struct Putting<'a> {
    payload: &'a str,
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
    let payload: Value = serde_json::from_str(put.payload).map_err(|error| {
        Failure::Usage(format!("the payload is no JSON: {error}. A text has quotes: '\"text\"'"))
    })?;
    if !put.create && store.get(&folders.unowned).await?.is_none() {
        let root = &folders.root;
        return Err(Failure::NotDone(format!("there is no queue `{root}`: --create makes it")));
    }
    let (coordinator, queue) = open(store, folders, put.max_len).await?;
    let mut putting = queue.put(payload).priority(put.priority).label(put.label);
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
    let (rows, total) = rows(store, folders, &folders.dead, SHOWN).await?;
    if output.is_json {
        let entries: Vec<_> = rows.iter().map(Row::json).collect();
        output.json(&json!({ "total": total, "entries": entries }))?;
        return Ok(Outcome::of(total > 0));
    }
    let table = rows.iter().map(|row| {
        let last_error = row.text("last_error");
        vec![row.entry.name().to_owned(), row.age(), row.text("attempt"), row.text("worker"), last_error]
    });
    output.table(&["ENTRY", "SINCE", "ATTEMPTS", "LAST WORKER", "REASON"], table.collect())?;
    output.line(count(total, "dead letter") + &shown(&rows, total))?;
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
    let (_, total) = rows(store, folders, &folders.dead, 0).await?;
    let named = letters.entries.iter().filter_map(|name| name.parse().ok()).collect();
    let known = read(store, &folders.dead, named).await?;
    if let Some(entry) =
        letters.entries.iter().find(|name| !known.iter().any(|row| row.entry.name() == **name))
    {
        return Err(Failure::NotDone(format!("there is no dead letter `{entry}`: see `queue dead`")));
    }
    let number = if letters.all { total } else { letters.entries.len() };
    if matches!(end, End::Discard { yes: false }) {
        let letters = count(number, "dead letter");
        return Err(Failure::needs_yes(&format!("this would remove {letters} for good")));
    }
    let (coordinator, queue) = open(store, folders, usize::MAX).await?;
    let ended = async {
        let wanted = |letter: &Finished| {
            letters.all || letters.entries.iter().any(|name| name == letter.entry().name())
        };
        let mut ended = 0;
        for letter in queue.dead_letters().await?.iter().filter(|letter| wanted(letter)) {
            let done = match end {
                End::Revive => queue.revive(letter).await?,
                End::Discard { .. } => queue.discard(letter).await?,
            };
            ended += usize::from(done);
        }
        Ok::<usize, Failure>(ended)
    };
    let ended = ended.await;
    let _ = coordinator.shutdown().await;
    let ended = ended?;
    let verb = if matches!(end, End::Revive) { "revived" } else { "discarded" };
    if output.is_json {
        output.json(&json!({ verb: ended }))?;
    } else {
        output.line(format_args!("{verb} {}", count(ended, "dead letter")))?;
    }
    Ok(Outcome::Fine)
}

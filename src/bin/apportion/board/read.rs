//! What a board has in the store.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use apportion::{
    backend::{Stat, Znode, path::ZnodePath},
    board::{Posting, PostingError, Priority, attempts_so_far},
    serde_json::{self, Value},
};

use crate::{
    failure::Failure,
    state::State,
    store::{AT_ONCE, Store},
    time::{from_ms, now},
};

/// The znodes of a board.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) board: ZnodePath,
    pub(crate) trash: ZnodePath,
    pub(crate) attempts: ZnodePath,
    pub(crate) entities: ZnodePath,
    pub(crate) posting: ZnodePath,
    pub(crate) parent: ZnodePath,
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Place, String> {
        let board = ZnodePath::parse(text).map_err(|error| error.to_string())?;
        let parent = board.parent().ok_or("the root cannot be a board")?;
        let beside = |name: &str| parent.join(name).map_err(|error| error.to_string());
        let (trash, attempts) = (beside(".trash")?, beside(".attempts")?);
        let (entities, posting) = (beside(".entities")?, beside(".posting")?);
        Ok(Place { board, trash, attempts, entities, posting, parent })
    }

    /// The lock of a job.
    pub(crate) fn lock_of(&self, job: &str) -> Option<ZnodePath> {
        self.board.join(&format!("{job}{LOCK}")).ok()
    }
}

/// The end of the name of a lock.
pub(crate) const LOCK: &str = ".lock";

/// What one listing of a board has shown.
pub(crate) struct Listing {
    pub(crate) stat: Stat,
    /// All children.
    pub(crate) names: Vec<String>,
    /// The jobs, in the order in which they are claimed; those that cannot be read come last.
    pub(crate) jobs: Vec<Listed>,
}

/// What is kept of each job, however many there are.
pub(crate) struct Listed {
    pub(crate) name: String,
    /// Its priority, or why it cannot be read.
    pub(crate) posting: Result<Priority, PostingError>,
    /// Whether the listing had its lock.
    pub(crate) is_locked: bool,
    uuid: Option<String>,
    czxid: i64,
    /// `None` if permission is denied.
    created_ms: Option<i64>,
    /// Until when its poster wants it to wait, in milliseconds since 1970.
    not_before: Option<i64>,
}

/// The time before which the poster of a job does not want it claimed, in milliseconds since 1970.
fn posted_for(data: &[u8]) -> Option<i64> {
    serde_json::from_slice::<Value>(data).ok()?.get("not_before")?.as_i64()
}

impl Listing {
    pub(crate) fn claimed(&self) -> usize {
        self.jobs.iter().filter(|job| job.is_locked).count()
    }

    /// When the oldest job was posted that no worker has claimed, in milliseconds since 1970. Those that wait for their time
    /// are left out; the pause after a failed attempt is no such time.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        let now = now();
        let is_due = |job: &&Listed| job.not_before.is_none_or(|then| from_ms(then) <= now);
        let waits = self.jobs.iter().filter(|job| !job.is_locked && job.posting.is_ok()).filter(is_due);
        waits.filter_map(|job| job.created_ms).min()
    }
}

/// A job on the board, or in the trash.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) path: ZnodePath,
    pub(crate) posting: Result<Posting, PostingError>,
    /// `None` if permission is denied.
    pub(crate) stat: Option<Stat>,
    pub(crate) data: Vec<u8>,
    /// The lock; the inner `Err` if permission is denied.
    pub(crate) lock: Option<Result<Znode, ()>>,
    /// What is known of its attempts.
    record: Option<Value>,
    /// How many there were. `None` if that is not known.
    pub(crate) attempts: Option<u32>,
    /// The board that has moved it to the trash, if a record proves it.
    pub(super) trashed_by: Option<String>,
}

impl Row {
    /// The owner of the claim; a lock without one is no claim, as in TaskFlow.
    pub(crate) fn owner(&self) -> Option<String> {
        match self.lock.as_ref()? {
            Err(()) => Some("another process, which may not be read".into()),
            Ok((data, _)) => match serde_json::from_slice::<Value>(data) {
                Ok(Value::Object(map)) => map
                    .get("owner")
                    .filter(|it| !it.is_null())
                    .map(|owner| owner.as_str().map_or_else(|| owner.to_string(), str::to_owned)),
                _ => Some(String::from_utf8_lossy(data).into_owned()),
            },
        }
    }

    /// The owner in words, of a job that has a lock.
    pub(crate) fn owner_text(&self) -> String {
        self.owner().map_or_else(|| "no owner".into(), |owner| format!("owner `{owner}`"))
    }

    pub(crate) fn state(&self) -> State {
        let is_delayed = self.not_before().is_some_and(|then| from_ms(then) > now());
        match (&self.posting, &self.lock) {
            (Err(_), _) => State::SetAside,
            (Ok(_), Some(_)) if self.owner().is_some() => State::Claimed,
            (Ok(_), Some(_)) => State::Locked,
            (Ok(_), None) if is_delayed => State::Delayed,
            (Ok(_), None) => State::Waits,
        }
    }

    pub(crate) fn lock_stat(&self) -> Option<Stat> {
        Some(self.lock.as_ref()?.as_ref().ok()?.1)
    }

    pub(crate) fn record_field(&self, name: &str) -> Option<&Value> {
        self.record.as_ref()?.get(name)
    }

    /// Before when it is not to be claimed, in milliseconds since 1970.
    pub(crate) fn not_before(&self) -> Option<i64> {
        self.record_field("not_before").and_then(Value::as_i64).max(posted_for(&self.data))
    }

    /// Why it cannot be read, or why the last attempt at it has failed.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.posting {
            Err(error) => Some(error.to_string()),
            Ok(_) => self.record_field("error").and_then(Value::as_str).map(str::to_owned),
        }
    }
}

/// The jobs on the board. Of each, only what orders it is kept.
pub(crate) async fn list(store: &Store, place: &Place) -> Result<Listing, Failure> {
    let Some((names, stat)) = store.children(&place.board).await? else {
        return Err(Failure::NotDone(format!(
            "there is no board `{}`: name it with --board. `board post --create` makes one",
            place.board
        )));
    };
    let locks: BTreeSet<&str> = names.iter().filter_map(|name| name.strip_suffix(LOCK)).collect();
    let is_job = |name: &&String| name.starts_with("job") && !name.contains(LOCK);
    let mut jobs = read_each(store, &place.board, names.iter().filter(is_job)).await?;
    jobs.iter_mut().for_each(|job| job.is_locked = locks.contains(job.name.as_str()));
    jobs.sort_by_key(|job| (Reverse(job.posting.as_ref().ok().copied()), job.czxid));
    Ok(Listing { stat, names, jobs })
}

/// The jobs in the trash, the oldest first. Boards with one parent share it.
pub(crate) async fn list_trash(store: &Store, place: &Place) -> Result<Vec<Listed>, Failure> {
    let Some((names, _)) = store.children(&place.trash).await? else { return Ok(Vec::new()) };
    let mut jobs = read_each(store, &place.trash, names.iter()).await?;
    jobs.sort_by_key(|job| job.czxid);
    Ok(jobs)
}

async fn read_each(
    store: &Store,
    folder: &ZnodePath,
    names: impl Iterator<Item = &String>,
) -> Result<Vec<Listed>, Failure> {
    let names: Vec<_> = names.collect();
    let mut jobs = Vec::with_capacity(names.len());
    for some in names.chunks(AT_ONCE) {
        let paths: Vec<_> = some.iter().filter_map(|name| folder.join(name).ok()).collect();
        for (path, found) in paths.iter().zip(store.read(&paths).await?) {
            let (posting, stat, not_before) = match found {
                Ok(None) => continue,
                Ok(Some((data, stat))) => (Posting::decode(&data), Some(stat), posted_for(&data)),
                Err(()) => (Err(PostingError::NotPermitted), None, None),
            };
            let (czxid, created_ms) =
                (stat.map_or(i64::MAX, |stat| stat.czxid), stat.map(|stat| stat.created_ms));
            let uuid = posting.as_ref().ok().and_then(|it| it.uuid().as_str().map(str::to_owned));
            let posting = posting.map(|it| it.priority());
            let name = path.name().to_owned();
            jobs.push(Listed { name, posting, is_locked: false, uuid, czxid, created_ms, not_before });
        }
    }
    Ok(jobs)
}

/// Reads these jobs of the board with their locks and records. Those that are gone are missing.
pub(crate) async fn rows(store: &Store, place: &Place, names: &[&str]) -> Result<Vec<Row>, Failure> {
    let mut rows = postings(store, &place.board, names).await?;
    let locks: Vec<_> = rows.iter().filter_map(|row| place.lock_of(&row.name)).collect();
    let mut locks: HashMap<_, _> = locks.iter().cloned().zip(store.read(&locks).await?).collect();
    for row in &mut rows {
        let lock = place.lock_of(&row.name).and_then(|lock| locks.remove(&lock));
        row.lock = lock.and_then(|lock| lock.map_or(Some(Err(())), |lock| lock.map(Ok)));
    }
    // The name of a record has the creation of its job, because a name may belong to another job later.
    let record = |row: &Row| {
        let name = format!("{}.{}.{:x}", place.board.name(), row.name, row.stat?.czxid);
        place.attempts.join(&name).ok()
    };
    let records: Vec<_> = rows.iter().filter_map(record).collect();
    let mut records: HashMap<_, _> = records.iter().cloned().zip(store.read(&records).await?).collect();
    for row in &mut rows {
        let found = record(row).and_then(|path| records.remove(&path));
        let data = found.and_then(|found| Some(found.ok()??.0));
        row.record = data.as_deref().and_then(|data| serde_json::from_slice(data).ok());
        // As the next claim counts them: a worker that has died has written no record.
        row.attempts = row.stat.map(|stat| attempts_so_far(data.as_deref(), stat.version));
    }
    Ok(rows)
}

/// Reads these jobs of the trash with their records.
pub(crate) async fn trash_rows(store: &Store, place: &Place, names: &[&str]) -> Result<Vec<Row>, Failure> {
    let mut rows = postings(store, &place.trash, names).await?;
    let listed = store.children(&place.attempts).await?.map(|(names, _)| names).unwrap_or_default();
    // A job in the trash has its name, or its name and its creation, if the name was taken.
    let mut by_place: HashMap<String, Vec<(&str, ZnodePath)>> = HashMap::new();
    for name in &listed {
        let Some((of_job, czxid)) = name.rsplit_once('.') else { continue };
        let Some((board, job)) = of_job.rsplit_once('.') else { continue };
        let Ok(path) = place.attempts.join(name) else { continue };
        by_place.entry(job.to_owned()).or_default().push((board, path.clone()));
        by_place.entry(format!("{job}.{czxid}")).or_default().push((board, path));
    }
    for row in &mut rows {
        let Some(known) = by_place.get(&row.name) else { continue };
        let paths: Vec<_> = known.iter().map(|(_, path)| path.clone()).collect();
        let mut newest = None;
        for ((board, _), found) in known.iter().zip(store.read(&paths).await?) {
            let Ok(Some((data, stat))) = found else { continue };
            let Ok(record) = serde_json::from_slice::<Value>(&data) else { continue };
            let is_trashed = record.get("is_trashed").and_then(Value::as_bool).unwrap_or(false);
            // It was written in the transaction that moved the job. Another one is that of another job of this name.
            let is_proof = is_trashed && row.stat.is_none_or(|it| it.czxid == stat.mzxid);
            if is_proof && row.stat.is_some() {
                row.trashed_by = Some((*board).to_owned());
            }
            let order = (is_trashed, stat.mzxid);
            let is_its = *board == place.board.name() && (is_proof || !is_trashed);
            if is_its && newest.is_none_or(|newest| newest < order) {
                newest = Some(order);
                // The record alone: the posting was created anew in the trash.
                row.attempts =
                    record.get("attempts").and_then(Value::as_u64).and_then(|it| it.try_into().ok());
                row.record = Some(record);
            }
        }
    }
    Ok(rows)
}

async fn postings(store: &Store, folder: &ZnodePath, names: &[&str]) -> Result<Vec<Row>, Failure> {
    let paths: Vec<_> = names.iter().filter_map(|name| folder.join(name).ok()).collect();
    let found = store.read(&paths).await?;
    let rows = paths.into_iter().zip(found).filter_map(|(path, found)| {
        let (posting, stat, data) = match found {
            Ok(None) => return None,
            Ok(Some((data, stat))) => (Posting::decode(&data), Some(stat), data),
            Err(()) => (Err(PostingError::NotPermitted), None, Vec::new()),
        };
        let name = path.name().to_owned();
        Some(Row {
            name,
            path,
            posting,
            stat,
            data,
            lock: None,
            record: None,
            attempts: None,
            trashed_by: None,
        })
    });
    Ok(rows.collect())
}

/// Whether there are other folders beside the board that may be boards with the same trash.
pub(super) async fn may_be_shared(store: &Store, place: &Place) -> Result<bool, Failure> {
    let beside = store.children(&place.parent).await?.map(|(names, _)| names).unwrap_or_default();
    Ok(beside.iter().any(|name| !name.starts_with('.') && name != place.board.name()))
}

/// The job that the caller means, by number, name or uuid.
pub(crate) async fn find(store: &Store, place: &Place, wanted: &str) -> Result<Row, Failure> {
    let named = name(&place.board, wanted);
    let mut found = rows(store, place, &named.as_deref().into_iter().collect::<Vec<_>>()).await?;
    if found.is_empty() {
        let listing = list(store, place).await?;
        if let Some(job) = listing.jobs.iter().find(|job| is(job, wanted)) {
            found = rows(store, place, &[&job.name]).await?;
        }
    }
    found.into_iter().next().ok_or_else(|| {
        Failure::NotDone(format!(
            "there is no job `{wanted}` on the board {}: it is done, or in the trash. See `board list`",
            place.board
        ))
    })
}

/// The same in the trash.
pub(crate) async fn find_in_trash(store: &Store, place: &Place, wanted: &str) -> Result<Row, Failure> {
    let named = name(&place.trash, wanted);
    let mut found = trash_rows(store, place, &named.as_deref().into_iter().collect::<Vec<_>>()).await?;
    if found.is_empty()
        && let Some(job) = list_trash(store, place).await?.iter().find(|job| is(job, wanted))
    {
        found = trash_rows(store, place, &[&job.name]).await?;
    }
    found.into_iter().next().ok_or_else(|| {
        Failure::NotDone(format!("there is no job `{wanted}` in {}: see `board list --trash`", place.trash))
    })
}

/// The name of a job by its name, path or number: then no other job has to be read.
fn name(folder: &ZnodePath, wanted: &str) -> Option<String> {
    if let Ok(number) = wanted.parse::<i64>() {
        return Some(format!("job{number:010}"));
    }
    let name = wanted.strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(wanted);
    let is_job = name.starts_with("job") && !name.contains('/') && !name.ends_with(LOCK);
    is_job.then(|| name.to_owned())
}

fn is(job: &Listed, wanted: &str) -> bool {
    let number = |name: &str| name.strip_prefix("job").and_then(|number| number.parse::<i64>().ok());
    wanted.parse().is_ok_and(|wanted: i64| number(&job.name) == Some(wanted))
        || job.uuid.as_deref() == Some(wanted)
}

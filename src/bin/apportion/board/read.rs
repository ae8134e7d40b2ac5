//! What a board has in the store.

use std::cmp::Reverse;

use apportion::{
    backend::{Stat, Znode, path::ZnodePath},
    board::{JobState, Posting, PostingError},
    serde_json::{self, Value},
};

use crate::{
    failure::Failure,
    store::{Store, path},
};

/// The znodes of a board.
pub(crate) struct Place {
    pub(crate) board: ZnodePath,
    pub(crate) trash: ZnodePath,
    attempts: ZnodePath,
}

impl Place {
    pub(crate) fn new(text: &str) -> Result<Place, Failure> {
        let board = path(text)?;
        let beside = |name: &str| board.parent().and_then(|parent| parent.join(name).ok());
        let (Some(trash), Some(attempts)) = (beside(".trash"), beside(".attempts")) else {
            return Err(Failure::Usage("the root cannot be a board".into()));
        };
        Ok(Place { board, trash, attempts })
    }

    pub(super) fn parent(&self) -> ZnodePath {
        self.board.parent().expect("the root is refused")
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

    pub(crate) fn state(&self) -> JobState {
        if self.owner().is_some() { JobState::Claimed } else { JobState::Unclaimed }
    }

    pub(crate) fn lock_stat(&self) -> Option<Stat> {
        Some(self.lock.as_ref()?.as_ref().ok()?.1)
    }

    pub(crate) fn record_field(&self, name: &str) -> Option<&Value> {
        self.record.as_ref()?.get(name)
    }

    /// Before when it is not to be claimed, in milliseconds since 1970.
    pub(crate) fn not_before(&self) -> Option<i64> {
        let posted: Option<Value> = serde_json::from_slice(&self.data).ok();
        let posted = posted.as_ref().and_then(|posted| posted.get("not_before")).and_then(Value::as_i64);
        self.record_field("not_before").and_then(Value::as_i64).max(posted)
    }

    /// Why it cannot be read, or why the last attempt at it has failed.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.posting {
            Err(error) => Some(error.to_string()),
            Ok(_) => self.record_field("error").and_then(Value::as_str).map(str::to_owned),
        }
    }
}

/// The jobs on the board, in the order in which they are claimed; those that cannot be read come last.
pub(crate) async fn jobs(store: &Store, place: &Place) -> Result<Vec<Row>, Failure> {
    let Some((names, _)) = store.children(&place.board).await? else {
        return Err(Failure::NotDone(format!(
            "there is no board `{}`: name it with --board. `board post --create` makes one",
            place.board
        )));
    };
    let is_job = |name: &&String| name.starts_with("job") && !name.contains(".lock");
    let names: Vec<String> = names.iter().filter(is_job).cloned().collect();
    let mut rows = rows(store, place, &place.board, names).await?;
    rows.sort_by_key(|row| {
        let priority = row.posting.as_ref().ok().map(Posting::priority);
        (Reverse(priority), row.stat.map_or(i64::MAX, |stat| stat.czxid))
    });
    Ok(rows)
}

/// The jobs in the trash, the oldest first. Boards with one parent share it.
pub(crate) async fn trash(store: &Store, place: &Place) -> Result<Vec<Row>, Failure> {
    let Some((names, _)) = store.children(&place.trash).await? else { return Ok(Vec::new()) };
    let mut rows = rows(store, place, &place.trash, names).await?;
    rows.sort_by_key(|row| row.stat.map_or(i64::MAX, |stat| stat.czxid));
    Ok(rows)
}

async fn rows(
    store: &Store,
    place: &Place,
    folder: &ZnodePath,
    names: Vec<String>,
) -> Result<Vec<Row>, Failure> {
    let named: Vec<_> =
        names.into_iter().filter_map(|name| folder.join(&name).ok().map(|path| (name, path))).collect();
    let paths: Vec<_> = named.iter().map(|(_, path)| path.clone()).collect();
    let locks: Vec<_> =
        paths.iter().filter_map(|path| ZnodePath::parse(&format!("{path}.lock")).ok()).collect();
    let is_board = *folder == place.board;
    let found = store.read(&paths).await?;
    let locks = if is_board { store.read(&locks).await? } else { Vec::new() };
    let mut locks = locks.into_iter();
    let records = records(store, place).await?;
    let mut rows = Vec::new();
    for ((name, path), found) in named.into_iter().zip(found) {
        let lock = match locks.next() {
            Some(Ok(lock)) => lock.map(Ok),
            Some(Err(())) => Some(Err(())),
            None => None,
        };
        let (posting, stat, data) = match found {
            Ok(None) => continue,
            Ok(Some((data, stat))) => (Posting::decode(&data), Some(stat), data),
            Err(()) => (Err(PostingError::NotPermitted), None, Vec::new()),
        };
        let of_this = |(job, czxid, record): &(String, i64, Value)| {
            // In the trash it is another znode, and may have another name behind the dot.
            let is_its =
                if is_board { stat.is_some_and(|it| it.czxid == *czxid) } else { is_trashed(record) };
            (*job == name || !is_board && name.starts_with(&format!("{job}."))) && is_its
        };
        let record = records.iter().rfind(|it| of_this(it)).map(|(_, _, record)| record.clone());
        rows.push(Row { name, path, posting, stat, data, lock, record });
    }
    Ok(rows)
}

/// The other board that a job of the trash is from, by what that one knows of its attempts. Boards with one parent share the
/// trash. `None` if it is of this board, or no board knows.
pub(super) async fn other_board(store: &Store, place: &Place, row: &Row) -> Result<Option<String>, Failure> {
    if row.record.is_some() {
        return Ok(None);
    }
    let Some((names, _)) = store.children(&place.attempts).await? else { return Ok(None) };
    let of_this = |name: &String| {
        let (board, job) = name.rsplit_once('.')?.0.rsplit_once('.')?;
        let is_it = row.name == job || row.name.starts_with(&format!("{job}."));
        Some((board.to_owned(), place.attempts.join(name).ok()?))
            .filter(|_| is_it && board != place.board.name())
    };
    let (boards, paths): (Vec<_>, Vec<_>) = names.iter().filter_map(of_this).unzip();
    let found = store.read(&paths).await?;
    let trashed = boards.into_iter().zip(found).find(|(_, found)| {
        let Ok(Some((data, _))) = found else { return false };
        serde_json::from_slice(data).is_ok_and(|record| is_trashed(&record))
    });
    Ok(trashed.map(|(board, _)| board))
}

fn is_trashed(record: &Value) -> bool {
    record.get("is_trashed").and_then(Value::as_bool).unwrap_or(false)
}

/// What is known of attempts: the name of the job, its creation, and the record.
async fn records(store: &Store, place: &Place) -> Result<Vec<(String, i64, Value)>, Failure> {
    let Some((names, _)) = store.children(&place.attempts).await? else { return Ok(Vec::new()) };
    let board = place.board.name();
    let ours = names.into_iter().filter_map(|name| {
        let (job, czxid) = name.strip_prefix(board)?.strip_prefix('.')?.rsplit_once('.')?;
        let czxid = i64::from_str_radix(czxid, 16).ok()?;
        Some((job.to_owned(), czxid, place.attempts.join(&name).ok()?))
    });
    let ours: Vec<_> = ours.collect();
    let paths: Vec<_> = ours.iter().map(|(_, _, path)| path.clone()).collect();
    let found = store.read(&paths).await?;
    let records = ours.into_iter().zip(found).filter_map(|((job, czxid, _), found)| {
        let (data, _) = found.ok()??;
        Some((job, czxid, serde_json::from_slice(&data).ok()?))
    });
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|(_, czxid, _)| *czxid);
    Ok(records)
}

/// The job that the caller means, by number, name or uuid.
pub(crate) async fn find(store: &Store, place: &Place, wanted: &str) -> Result<Row, Failure> {
    let rows = jobs(store, place).await?;
    rows.into_iter().find(|row| is(row, wanted)).ok_or_else(|| {
        Failure::NotDone(format!(
            "there is no job `{wanted}` on the board {}: it is done, or in the trash. See `board list`",
            place.board
        ))
    })
}

/// The same in the trash.
pub(crate) async fn find_in_trash(store: &Store, place: &Place, wanted: &str) -> Result<Row, Failure> {
    let rows = trash(store, place).await?;
    rows.into_iter().find(|row| is(row, wanted)).ok_or_else(|| {
        Failure::NotDone(format!("there is no job `{wanted}` in {}: see `board list --trash`", place.trash))
    })
}

fn is(row: &Row, wanted: &str) -> bool {
    let number = |name: &str| name.strip_prefix("job").and_then(|number| number.parse::<i64>().ok());
    let is_uuid = |posting: &Posting| posting.uuid().as_str() == Some(wanted);
    row.name == wanted
        || row.path.as_str() == wanted
        || wanted.parse().ok().is_some_and(|wanted| number(&row.name) == Some(wanted))
        || row.posting.as_ref().is_ok_and(is_uuid)
}

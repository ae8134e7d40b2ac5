//! Boards and queues: what is full, broken, or left over.

use std::collections::BTreeSet;

use apportion::{
    backend::{Stat, path::ZnodePath},
    queue::Entry,
    serde_json::{Value, json},
};

use crate::{
    arguments::Work,
    board::{self, LOCK, Listing, Place, Row},
    failure::Failure,
    findings::Finding,
    output::count,
    queue::{Folders, fullness},
    store::{self, Store},
    time::{age, from_ms, ms, now, short},
};

/// A listing of more bytes is refused by clients in Java, by default.
const LISTING_BYTES: usize = 900 * 1024;
/// Numbers go to 2147483647; then they are negative, which not all readers decode.
const NUMBERS: i32 = i32::MAX - 10_000_000;
/// How many locks are examined at a time.
const AT_ONCE: usize = 500;

/// A board or a queue that was examined.
pub(crate) struct Examined {
    pub(crate) kind: Kind,
    /// Its numbers, for programs. `None` if it could not be read.
    pub(crate) numbers: Option<Value>,
    /// How it is, and what is wrong with it.
    pub(crate) found: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Board,
    Queue,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Board => "board",
            Kind::Queue => "queue",
        }
    }
}

/// Examines each board and queue that the caller names.
pub(crate) async fn examine(store: &Store, work: &Work) -> Vec<Examined> {
    let mut examined = Vec::new();
    for place in &work.board {
        examined.push(board(store, place, work.max_len).await);
    }
    for folders in &work.queue {
        examined.push(queue(store, folders, work.max_len).await);
    }
    examined
}

/// How long ago that was, in seconds, for programs.
fn seconds(created_ms: Option<i64>) -> Option<f64> {
    created_ms.map(|created| age(from_ms(created)).as_secs_f64())
}

async fn board(store: &Store, place: &Place, max_len: usize) -> Examined {
    let kind = Kind::Board;
    examine_board(store, place, max_len).await.unwrap_or_else(|failure| {
        let found = Finding::problem("not_examined", failure.to_string(), "The board was not examined");
        Examined { kind, numbers: None, found: vec![found] }
    })
}

async fn examine_board(store: &Store, place: &Place, max_len: usize) -> Result<Examined, Failure> {
    let listing = board::listing(store, place).await?;
    let (path, jobs, claimed) = (&place.board, listing.jobs.len(), listing.claimed());
    let oldest = listing.oldest_ms();
    let mut what = format!("board {path}: {}, {claimed} claimed", count(jobs, "job"));
    if let Some(oldest) = oldest {
        let oldest = short(age(from_ms(oldest)));
        what += &format!("; the oldest that is not claimed was posted {oldest} ago");
    }
    let mut found = vec![Finding::note("board", what)];
    found.extend(of_board(store, place, &listing, max_len).await?);
    let numbers = json!({
        "path": path.as_str(),
        "jobs": jobs,
        "claimed": claimed,
        "set_aside": listing.jobs.iter().filter(|job| job.posting.is_err()).count(),
        "oldest_seconds": seconds(oldest),
        "limit": max_len,
    });
    Ok(Examined { kind: Kind::Board, numbers: Some(numbers), found })
}

/// What is wrong with a board that was listed.
pub(crate) async fn of_board(
    store: &Store,
    place: &Place,
    listing: &Listing,
    max_len: usize,
) -> Result<Vec<Finding>, Failure> {
    let path = &place.board;
    let jobs = &listing.jobs;
    let mut found = size(path, &listing.names, &listing.stat);
    found.extend(quota(store, path).await);
    if jobs.len() >= max_len {
        found.push(Finding::problem(
            "full",
            format!("board {path} is full: it has {}, and --max-len is {max_len}", count(jobs.len(), "job")),
            "Are its workers running? See `board list`",
        ));
    }
    for job in jobs {
        let Err(why) = &job.posting else { continue };
        found.push(Finding::problem(
            "set_aside",
            format!("{path}/{} is set aside: {why}", job.name),
            "No worker of this library claims it, and TaskFlow's board may fail on it: repair it, or `board trash` it",
        ));
    }
    let locked: Vec<_> = jobs.iter().filter(|job| job.is_locked).map(|job| job.name.as_str()).collect();
    for some in locked.chunks(AT_ONCE) {
        found.extend(board::rows(store, place, some).await?.iter().filter_map(leftover));
    }
    found.extend(orphans(store, place, listing).await?);
    Ok(found)
}

/// Locks of jobs that are not on the board.
async fn orphans(store: &Store, place: &Place, listing: &Listing) -> Result<Vec<Finding>, Failure> {
    let names: BTreeSet<&str> = listing.names.iter().map(String::as_str).collect();
    let suspects = names.iter().filter_map(|name| name.strip_suffix(LOCK)).filter(|job| !names.contains(job));
    let mut found = Vec::new();
    for job in suspects {
        let (Some(lock), Ok(path)) = (place.lock_of(job), place.board.join(job)) else { continue };
        // The same lock before and after the job was missing: no worker has just claimed it or done it.
        let read = store.read(&[lock.clone(), path, lock.clone()]).await?;
        if let [Ok(Some((_, before))), Ok(None), Ok(Some((_, after)))] = &read[..]
            && before.czxid == after.czxid
        {
            found.push(Finding::problem(
                "orphan_lock",
                format!("{lock} is the lock of a job that is not on the board"),
                "It does no harm unless a job of that name is posted. Delete it",
            ));
        }
    }
    Ok(found)
}

/// A lock that no session ends.
fn leftover(row: &Row) -> Option<Finding> {
    let stat = row.lock_stat().filter(|stat| stat.ephemeral_owner.is_none())?;
    let since = short(age(from_ms(stat.created_ms)));
    Some(Finding::problem(
        "persistent_lock",
        format!("{}{LOCK} is persistent ({}, for {since})", row.path, row.owner_text()),
        "No session ends it, so no worker can claim the job: end it with `board abandon --yes`",
    ))
}

/// An entry that is not taken.
pub(crate) fn set_aside_entry(path: &ZnodePath, why: &str) -> Finding {
    Finding::problem(
        "set_aside",
        format!("{path} is set aside: {why}"),
        "No worker of this library takes it, and the Python original may fail on it: repair it or remove it",
    )
}

async fn queue(store: &Store, folders: &Folders, max_len: usize) -> Examined {
    examine_queue(store, folders, max_len).await.unwrap_or_else(|failure| {
        let found = Finding::problem("not_examined", failure.to_string(), "The queue was not examined");
        Examined { kind: Kind::Queue, numbers: None, found: vec![found] }
    })
}

async fn examine_queue(store: &Store, folders: &Folders, max_len: usize) -> Result<Examined, Failure> {
    let Some((waiting, stat)) = store.children(&folders.unowned).await? else {
        return Err(Failure::NotDone(format!("there is no queue `{}`", folders.root)));
    };
    let owned = store.children(&folders.owned).await?.map(|(names, _)| names).unwrap_or_default();
    let root = &folders.root;
    let oldest = oldest_entry(store, folders, &waiting).await?;
    let entries = if waiting.len() == 1 { "entry waits" } else { "entries wait" };
    let verb = if owned.len() == 1 { "is" } else { "are" };
    let mut what = format!("queue {root}: {} {entries}, {} {verb} taken", waiting.len(), owned.len());
    if let Some(oldest) = oldest {
        what += &format!("; the oldest has waited for {}", short(age(from_ms(oldest))));
    }
    let mut found = vec![Finding::note("queue", what)];
    found.extend(fullness(folders, waiting.len(), max_len));
    found.extend(size(&folders.unowned, &waiting, &stat));
    found.extend(quota(store, root).await);
    let invalid: Vec<_> = waiting.iter().filter(|name| name.parse::<Entry>().is_err()).collect();
    let set_aside = invalid.len();
    let invalid = invalid.into_iter().filter_map(|name| folders.unowned.join(name).ok());
    found.extend(invalid.map(|path| set_aside_entry(&path, "its name is not that of an entry")));
    for some in owned.chunks(AT_ONCE) {
        found.extend(orphaned(store, folders, some).await?);
    }
    let numbers = json!({
        "path": root.as_str(),
        "waiting": waiting.len(),
        "taken": owned.len(),
        "set_aside": set_aside,
        "oldest_seconds": seconds(oldest),
        "limit": max_len,
    });
    Ok(Examined { kind: Kind::Queue, numbers: Some(numbers), found })
}

/// When the oldest entry that may be taken was put or given back, in milliseconds since 1970. Its number says which one that
/// is, so only as many are read as are taken meanwhile, or delayed. `None` if the first ones all are.
async fn oldest_entry(store: &Store, folders: &Folders, waiting: &[String]) -> Result<Option<i64>, Failure> {
    let mut entries: Vec<Entry> = waiting.iter().filter_map(|name| name.parse().ok()).collect();
    // After the highest number come the negative ones.
    entries.sort_unstable_by_key(|entry| entry.sequence().cast_unsigned());
    // The first ones may have been taken since.
    let first = entries.iter().take(store::AT_ONCE);
    let paths: Vec<_> = first.filter_map(|entry| folders.unowned.join(entry.name()).ok()).collect();
    let read = store.read(&paths).await?;
    let now = ms(now());
    let waits = |(data, _): &(Vec<u8>, Stat)| {
        let value: Option<Value> = apportion::serde_json::from_slice(data).ok();
        let not_before = value.and_then(|value| value.get("not_before")?.as_u64());
        not_before.is_none_or(|not_before| not_before <= now)
    };
    let found = read.into_iter().filter_map(|found| found.ok()?).find(waits);
    Ok(found.map(|(_, stat)| stat.created_ms))
}

/// Entries whose worker is gone, or may be.
async fn orphaned(store: &Store, folders: &Folders, names: &[String]) -> Result<Vec<Finding>, Failure> {
    let paths: Vec<_> = names.iter().filter_map(|name| folders.owned.join(name).ok()).collect();
    let mut found = Vec::new();
    for (path, read) in paths.iter().zip(store.read(&paths).await?) {
        let Ok(Some((data, stat))) = read else { continue };
        let value: Option<Value> = apportion::serde_json::from_slice(&data).ok();
        let field = |name: &str| value.as_ref().and_then(|value| value.get(name)?.as_str());
        let worker = field("worker").unwrap_or("?");
        let Some(claim) = field("claim").and_then(|claim| folders.claims.join(claim).ok()) else {
            let since = short(age(from_ms(stat.created_ms)));
            found.push(Finding::note(
                "no_claim",
                format!(
                    "{path} was taken {since} ago by `{worker}`, which makes no claims: if it is dead, the entry stays there"
                ),
            ));
            continue;
        };
        // The same entry before and after its claim was missing: no worker has just done it.
        let read = store.read(&[claim, path.clone()]).await?;
        if let [Ok(None), Ok(Some((_, after)))] = &read[..]
            && after.mzxid == stat.mzxid
        {
            found.push(Finding::problem(
                "worker_gone",
                format!("{path} has no claim any more: its worker `{worker}` is gone"),
                "Any process that has the queue open gives it back within a second. Is one running?",
            ));
        }
    }
    Ok(found)
}

/// Listings that some clients refuse, and numbers that come to their end.
fn size(folder: &ZnodePath, names: &[String], stat: &Stat) -> Vec<Finding> {
    let bytes: usize = names.iter().map(|name| name.len() + 4).sum();
    let mut found = Vec::new();
    if bytes > LISTING_BYTES {
        found.push(Finding::problem(
            "large_listing",
            format!("a listing of {folder} has {bytes} bytes"),
            "Clients in Java refuse replies of more than a mebibyte: let workers catch up, or remove what is not needed",
        ));
    }
    if stat.cversion > NUMBERS {
        found.push(Finding::note(
            "numbers_end",
            format!("the numbers in {folder} come to their end: they go on from -2147483648"),
        ));
    }
    found
}

/// Whether the quota of a folder, or of one above it, is used up.
async fn quota(store: &Store, folder: &ZnodePath) -> Vec<Finding> {
    let mut found = Vec::new();
    for at in folder.with_ancestors() {
        let Ok(limits) = ZnodePath::parse(&format!("/zookeeper/quota{at}/zookeeper_limits")) else {
            continue;
        };
        let Ok(stats) = ZnodePath::parse(&format!("/zookeeper/quota{at}/zookeeper_stats")) else { continue };
        let (Ok(Some((limit, _))), Ok(Some((used, _)))) =
            (store.session.get(&limits).await, store.session.get(&stats).await)
        else {
            continue;
        };
        let (limit, used) = (numbers(&limit), numbers(&used));
        let of = |values: &[(String, i64)], names: &[&str]| {
            let named = |name: &&str| values.iter().find(|(key, _)| key == *name).map(|(_, value)| *value);
            names.iter().find_map(|name| named(name).filter(|value| *value >= 0))
        };
        for (what, used_as, limited_as) in
            [("znodes", "count", ["countHardLimit", "count"]), ("bytes", "bytes", ["byteHardLimit", "bytes"])]
        {
            let (Some(most), Some(used)) = (of(&limit, &limited_as), of(&used, &[used_as])) else { continue };
            if used >= most {
                found.push(Finding::problem(
                    "quota",
                    format!("the quota of {at} is used up: {used} of {most} {what}, so posts and puts may be refused"),
                    "Raise it with `setquota` in zkCli, or let workers catch up",
                ));
            }
        }
    }
    found
}

/// `count=5,bytes=-1;byteHardLimit=-1;countHardLimit=5`, as servers write it.
fn numbers(data: &[u8]) -> Vec<(String, i64)> {
    let text = String::from_utf8_lossy(data);
    let pairs = text.split([',', ';', '=']).collect::<Vec<_>>();
    pairs
        .chunks(2)
        .filter_map(|pair| match pair {
            [key, value] => Some(((*key).to_owned(), value.trim().parse().ok()?)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;

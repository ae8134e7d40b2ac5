//! Boards and queues: what is full, broken, or left over.

use std::collections::BTreeSet;

use apportion::{
    backend::{Stat, path::ZnodePath},
    board::JobState,
    queue::Entry,
    serde_json::Value,
};

use crate::{
    arguments::Doctor,
    board::{Place, Row},
    failure::Failure,
    findings::Finding,
    output::count,
    queue::{Folders, fullness},
    store::Store,
    time::{age, from_ms, short},
};

/// A listing of more bytes is refused by clients in Java, by default.
const LISTING_BYTES: usize = 900 * 1024;
/// Numbers go to 2147483647; then they are negative, which not all readers decode.
const NUMBERS: i32 = i32::MAX - 10_000_000;

pub(super) async fn board(store: &Store, place: &Place, doctor: &Doctor) -> Vec<Finding> {
    match examine_board(store, place, doctor).await {
        Ok(found) => found,
        Err(failure) => vec![Finding::problem(failure.to_string(), "The board was not examined")],
    }
}

async fn examine_board(store: &Store, place: &Place, doctor: &Doctor) -> Result<Vec<Finding>, Failure> {
    let rows = crate::board::jobs(store, place).await?;
    let path = &place.board;
    let (names, stat) = store.children(path).await?.unwrap_or_default();
    let claimed = rows.iter().filter(|row| row.state() == JobState::Claimed).count();
    let mut found =
        vec![Finding::note(format!("board {path}: {}, {claimed} claimed", count(rows.len(), "job")))];
    found.extend(size(path, &names, &stat));
    found.extend(quota(store, path).await);
    if rows.len() >= doctor.max_len {
        found.push(Finding::problem(
            format!(
                "board {path} is full: it has {}, and --max-len is {}",
                count(rows.len(), "job"),
                doctor.max_len
            ),
            "Are its workers running? See `board list`",
        ));
    }
    for row in rows.iter().filter(|row| row.posting.is_err()) {
        let why = row.problem().unwrap_or_default();
        found.push(Finding::problem(
            format!("{} is set aside: {why}", row.path),
            "No worker of this library claims it, and TaskFlow's board may fail on it: repair or remove it",
        ));
    }
    found.extend(rows.iter().filter_map(leftover));
    let jobs: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let orphans = names.iter().filter_map(|name| name.strip_suffix(".lock"));
    for job in orphans.filter(|job| !jobs.contains(job)) {
        found.push(Finding::problem(
            format!("{path}/{job}.lock is the lock of a job that is not on the board"),
            "It does no harm unless a job of that name is posted. Delete it",
        ));
    }
    Ok(found)
}

/// A lock that no session ends.
fn leftover(row: &Row) -> Option<Finding> {
    let stat = row.lock_stat().filter(|stat| stat.ephemeral_owner.is_none())?;
    let owner = row.owner().map_or_else(|| "no owner".into(), |owner| format!("owner `{owner}`"));
    Some(Finding::problem(
        format!("{}.lock is persistent ({owner}, for {})", row.path, short(age(from_ms(stat.created_ms)))),
        "No session ends it, so no worker can claim the job: end it with `board abandon --yes`",
    ))
}

pub(super) async fn queue(store: &Store, folders: &Folders, doctor: &Doctor) -> Vec<Finding> {
    match examine_queue(store, folders, doctor).await {
        Ok(found) => found,
        Err(failure) => vec![Finding::problem(failure.to_string(), "The queue was not examined")],
    }
}

async fn examine_queue(store: &Store, folders: &Folders, doctor: &Doctor) -> Result<Vec<Finding>, Failure> {
    let Some((waiting, stat)) = store.children(&folders.unowned).await? else {
        return Err(Failure::NotDone(format!("there is no queue `{}`", folders.root)));
    };
    let owned = store.children(&folders.owned).await?.map(|(names, _)| names).unwrap_or_default();
    let claims = store.children(&folders.claims).await?.map(|(names, _)| names);
    let root = &folders.root;
    let mut found = vec![Finding::note(format!(
        "queue {root}: {} entries wait, {} are taken",
        waiting.len(),
        owned.len()
    ))];
    found.extend(fullness(folders, waiting.len(), doctor.max_len));
    found.extend(size(&folders.unowned, &waiting, &stat));
    found.extend(quota(store, root).await);
    let invalid = waiting.iter().filter(|name| name.parse::<Entry>().is_err());
    for name in invalid {
        found.push(Finding::problem(
            format!("{}/{name} is not the name of an entry", folders.unowned),
            "It is set aside by this library; the Python original fails on it: remove it",
        ));
    }
    let paths: Vec<_> = owned.iter().filter_map(|name| folders.owned.join(name).ok()).collect();
    let read = store.read(&paths).await?;
    let claims: BTreeSet<String> = claims.unwrap_or_default().into_iter().collect();
    for (path, read) in paths.iter().zip(read) {
        let Ok(Some((data, stat))) = read else { continue };
        let value: Option<Value> = apportion::serde_json::from_slice(&data).ok();
        let claim = value.as_ref().and_then(|value| value.get("claim")?.as_str());
        let since = short(age(from_ms(stat.created_ms)));
        let worker = value.as_ref().and_then(|value| value.get("worker")?.as_str()).unwrap_or("?");
        match claim {
            Some(claim) if claims.contains(claim) => {}
            Some(_) => found.push(Finding::problem(
                format!("{path} has no claim any more: its worker `{worker}` is gone"),
                "Any process that has the queue open gives it back within a second. Is one running?",
            )),
            None => found.push(Finding::note(format!(
                "{path} was taken {since} ago by `{worker}`, which makes no claims: if it is dead, the entry stays there"
            ))),
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
            format!("a listing of {folder} has {bytes} bytes"),
            "Clients in Java refuse replies of more than a mebibyte: let workers catch up, or remove what is not needed",
        ));
    }
    if stat.cversion > NUMBERS {
        found.push(Finding::note(format!(
            "the numbers in {folder} come to their end: they go on from -2147483648"
        )));
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

//! `board`: a job board.
//!
//! Lists are read from the store as they are, so they create nothing, and show the boards of TaskFlow alone as well.

mod change;
mod claim;
mod process;
mod read;

use apportion::{
    board::{Posting, PostingError},
    serde_json::{Value, json},
};

pub(crate) use self::read::{LOCK, Listing, Place, Row, list as listing, rows};
use crate::{
    arguments::{Board, BoardCommand, Common},
    failure::Failure,
    outcome::Outcome,
    output::{Output, count, listed, shown},
    state::State,
    store::Store,
    time::{age, from_ms, now, short},
    work,
};

pub(crate) async fn run(common: &Common, board: &Board, output: Output) -> Result<Outcome, Failure> {
    Store::with(common, async |store: &Store| run_with(store, board, output).await).await
}

async fn run_with(store: &Store, board: &Board, output: Output) -> Result<Outcome, Failure> {
    let place = &board.place;
    match &board.command {
        BoardCommand::List { trash: true, .. } => trash(store, place, output).await,
        BoardCommand::List { unclaimed, max_len, .. } => {
            list(store, place, *unclaimed, *max_len, output).await
        }
        BoardCommand::Show { job } => show(store, place, job, output).await,
        BoardCommand::Claim { job, command } => claim::claim(store, place, job, command, output).await,
        BoardCommand::Abandon { job, yes } => change::abandon(store, place, job, yes.yes, output).await,
        BoardCommand::Trash { job, because, yes } => {
            change::trash(store, place, job, because.as_deref(), yes.yes, output).await
        }
        BoardCommand::Restore { job, yes } => change::restore(store, place, job, yes.yes, output).await,
        BoardCommand::Post { name, details, priority, delay, create } => {
            let post = change::Posted { name, details, priority: *priority, delay: *delay, create: *create };
            change::post(store, place, &post, output).await
        }
    }
}

/// How many jobs are shown.
const SHOWN: usize = 1000;

/// What an operator calls the state of a job.
fn state(row: &Row) -> String {
    let left = row.not_before().map(from_ms).and_then(|then| then.duration_since(now()).ok());
    match (row.state(), left) {
        (State::Delayed, Some(left)) => format!("in {}", short(left)),
        (state, _) => state.text().into(),
    }
}

fn json_of(row: &Row) -> Value {
    let posting = row.posting.as_ref().ok();
    json!({
        "job": row.name,
        "path": row.path.as_str(),
        "name": posting.map(|it| it.name()),
        "uuid": posting.map(Posting::uuid),
        "priority": posting.map(|it| it.priority().as_str()),
        "state": row.state().as_str(),
        "owner": row.owner(),
        "claimed_ms": row.lock_stat().map(|stat| stat.created_ms),
        "session": row.lock_stat().and_then(|stat| stat.ephemeral_owner).map(|id| id.to_string()),
        "posted_ms": row.stat.map(|stat| stat.created_ms),
        "not_before_ms": row.not_before(),
        "attempts": row.attempts,
        "last_error": row.record_field("error"),
        "set_aside": row.posting.as_ref().err().map(PostingError::to_string),
    })
}

async fn list(
    store: &Store,
    place: &Place,
    unclaimed: bool,
    max_len: usize,
    output: Output,
) -> Result<Outcome, Failure> {
    let mut listing = read::list(store, place).await?;
    let found = work::of_board(store, place, &listing, max_len).await?;
    // The summary is about the whole board, whatever is shown of it.
    let (on_board, claimed) = (listing.jobs.len(), listing.claimed());
    listing.jobs.retain(|job| !unclaimed || job.posting.is_ok() && !job.is_locked);
    let total = listing.jobs.len();
    let names: Vec<_> = listing.jobs.iter().take(SHOWN).map(|job| job.name.as_str()).collect();
    let mut rows = rows(store, place, &names).await?;
    // One may have been claimed since.
    rows.retain(|row| !unclaimed || row.lock.is_none());
    let has_problems = found.iter().any(|it| it.is_problem);
    if output.is_json {
        output.json(&listed(rows.iter().map(json_of), total, &found))?;
        return Ok(Outcome::of(has_problems));
    }
    let table = rows.iter().map(|row| {
        let posting = row.posting.as_ref().ok();
        vec![
            row.name.clone(),
            posting.map_or_else(|| "?".into(), |it| it.name().into_owned()),
            posting.map_or_else(|| "?".into(), |it| it.priority().to_string()),
            state(row),
            row.owner().unwrap_or_default(),
            row.stat.map_or_else(|| "?".into(), |stat| short(age(from_ms(stat.created_ms)))),
            // As with an entry of a queue, nothing stands for none.
            row.attempts.filter(|it| *it > 0).map_or_else(String::new, |it| it.to_string()),
            row.problem().unwrap_or_default(),
        ]
    });
    let header = ["JOB", "NAME", "PRIORITY", "STATE", "OWNER", "AGE", "ATTEMPTS", "LAST PROBLEM"];
    output.table(&header, table.collect())?;
    let more = shown(rows.len(), on_board);
    output.line(format_args!("{}, {claimed} claimed{more}", count(on_board, "job")))?;
    output.findings(&found)?;
    Ok(Outcome::of(has_problems))
}

async fn trash(store: &Store, place: &Place, output: Output) -> Result<Outcome, Failure> {
    let jobs = read::list_trash(store, place).await?;
    let names: Vec<_> = jobs.iter().take(SHOWN).map(|job| job.name.as_str()).collect();
    let rows = read::trash_rows(store, place, &names).await?;
    if output.is_json {
        output.json(&listed(rows.iter().map(json_of), jobs.len(), &[]))?;
        return Ok(Outcome::Fine);
    }
    let table = rows.iter().map(|row| {
        let posting = row.posting.as_ref().ok();
        vec![
            row.name.clone(),
            posting.map_or_else(|| "?".into(), |it| it.name().into_owned()),
            row.attempts.map_or_else(String::new, |it| it.to_string()),
            row.stat.map_or_else(|| "?".into(), |stat| short(age(from_ms(stat.created_ms)))),
            row.problem().unwrap_or_default(),
        ]
    });
    output.table(&["JOB", "NAME", "ATTEMPTS", "SINCE", "REASON"], table.collect())?;
    let more = shown(rows.len(), jobs.len());
    output.line(format_args!("{} in the trash{more}", count(jobs.len(), "job")))?;
    Ok(Outcome::Fine)
}

async fn show(store: &Store, place: &Place, job: &str, output: Output) -> Result<Outcome, Failure> {
    let row = read::find(store, place, job).await?;
    let mut value = json_of(&row);
    value["details"] = row.posting.as_ref().map_or(Value::Null, |it| it.details().clone());
    value["book"] = row.posting.as_ref().ok().and_then(|it| it.book().cloned()).unwrap_or_default();
    if output.is_json {
        output.json(&value)?;
        return Ok(Outcome::of(row.posting.is_err()));
    }
    let mut rows = vec![vec!["path".to_owned(), row.path.to_string()], vec!["state".into(), state(&row)]];
    let mut add = |name: &str, value: Option<String>| {
        rows.extend(value.map(|value| vec![name.to_owned(), value]));
    };
    if let Ok(posting) = &row.posting {
        add("name", Some(posting.name().into_owned()));
        add("uuid", posting.parsed_uuid().map(|uuid| uuid.to_string()));
        add("priority", Some(posting.priority().to_string()));
    }
    add("posted", row.stat.map(|stat| format!("{} ago", short(age(from_ms(stat.created_ms))))));
    let lock = row.lock_stat();
    add("owner", row.owner());
    add("claimed", lock.map(|stat| format!("{} ago", short(age(from_ms(stat.created_ms))))));
    let session = |stat: apportion::backend::Stat| match stat.ephemeral_owner {
        Some(session) => session.to_string(),
        None => "none: this lock is persistent and never ends by itself, see `board abandon`".into(),
    };
    add("session", lock.map(session));
    add("attempts", row.attempts.map(|it| it.to_string()));
    add("problem", row.problem());
    output.table(&["FIELD", "VALUE"], rows)?;
    if let Ok(posting) = &row.posting {
        output.value("details", posting.details())?;
    }
    Ok(Outcome::of(row.posting.is_err()))
}

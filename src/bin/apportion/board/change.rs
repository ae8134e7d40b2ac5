//! What changes a board.

use std::time::Duration;

use apportion::{
    JobBoard, PartitionCoordinator,
    backend::{self, CommitError, CreateMode, Done, Op, path::ZnodePath},
    board::{Job, Priority},
    serde_json::{Value, json},
};

use super::read::{Place, Row, find, find_in_trash, may_be_shared};
use crate::{
    failure::Failure,
    outcome::Outcome,
    output::Output,
    store::Store,
    time::{age, from_ms, short},
};

/// A job to post.
pub(super) struct Posted<'a> {
    pub(super) name: &'a str,
    pub(super) details: &'a Value,
    pub(super) priority: Priority,
    pub(super) delay: Option<Duration>,
    pub(super) create: bool,
}

pub(super) fn done(output: Output, text: &str, value: &Value) -> Result<Outcome, Failure> {
    if output.is_json {
        output.json(value)?;
    } else {
        output.line(text)?;
    }
    Ok(Outcome::Fine)
}

pub(super) async fn post(
    store: &Store,
    place: &Place,
    post: &Posted<'_>,
    output: Output,
) -> Result<Outcome, Failure> {
    if !post.create && store.get(&place.board).await?.is_none() {
        return Err(Failure::NotDone(format!("there is no board `{}`: --create makes it", place.board)));
    }
    let (coordinator, board) = open(store, place).await?;
    let mut posting = board.post(post.name).details(post.details).priority(post.priority);
    if let Some(delay) = post.delay {
        posting = posting.delay(delay);
    }
    let posted = posting.await;
    let _ = coordinator.shutdown().await;
    let job = posted?;
    let (path, uuid) = (job.path().to_string(), job.uuid().map(|uuid| uuid.to_string()));
    done(output, &format!("posted {path}"), &json!({ "posted": path, "uuid": uuid }))
}

pub(super) async fn open(store: &Store, place: &Place) -> Result<(PartitionCoordinator, JobBoard), Failure> {
    let coordinator = store.coordinator_at(&place.board).await?;
    match coordinator.job_board(place.board.as_str()).await {
        Ok(board) => Ok((coordinator, board)),
        Err(error) => {
            let _ = coordinator.shutdown().await;
            Err(error.into())
        }
    }
}

/// The job of a row, as the library has it.
pub(super) async fn job_of(board: &JobBoard, row: &Row) -> Result<Job, Failure> {
    let jobs = board.jobs().ensure_fresh().await?;
    let found = jobs.into_iter().find(|job| *job.path() == row.path);
    found.ok_or_else(|| Failure::NotDone(format!("job {} is off the board, or set aside", row.path)))
}

pub(super) async fn abandon(
    store: &Store,
    place: &Place,
    wanted: &str,
    yes: bool,
    output: Output,
) -> Result<Outcome, Failure> {
    let row = find(store, place, wanted).await?;
    let Some(stat) = row.lock_stat() else {
        return Err(Failure::NotDone(match &row.lock {
            Some(Err(())) => format!("the lock of {} may not be read by this user", row.path),
            _ => format!("job {} is not claimed", row.path),
        }));
    };
    let whose = row.owner_text();
    if !yes {
        let since = short(age(from_ms(stat.created_ms)));
        let lives = match stat.ephemeral_owner {
            Some(session) => format!(
                "its session {session} lives: the worker may go on for some seconds while another one begins"
            ),
            None => "the lock is persistent, so no session ends it".into(),
        };
        return Err(Failure::needs_yes(&format!(
            "this would end the lock of {} ({whose}), held for {since}; {lives}",
            row.path
        )));
    }
    let lock = place.lock_of(&row.name).expect("it was read under this name");
    // The version of the lock that was read, and its job, so that no later claim ends.
    let version = row.stat.map(|stat| stat.version);
    let ops = vec![Op::Check { path: row.path.clone(), version }, Op::delete(&lock, Some(stat.version))];
    match store.session.commit(ops).await {
        Ok(_) => {
            let ended = json!({ "abandoned": row.path.as_str(), "owner": row.owner() });
            done(output, &format!("ended the lock of {} ({whose})", row.path), &ended)
        }
        Err(error) => Err(refused(error, &row.path, &lock)),
    }
}

/// Why a transaction about `job` was not applied, which writes `written`.
fn refused(CommitError { index, error }: CommitError, job: &ZnodePath, written: &ZnodePath) -> Failure {
    match (index, &error) {
        (Some(_), backend::Error::NotPermitted) | (None, _) => Failure::writing(written)(error),
        (Some(_), _) => Failure::NotDone(format!("{job} has changed or gone meanwhile: read it again")),
    }
}

pub(super) async fn trash(
    store: &Store,
    place: &Place,
    wanted: &str,
    because: Option<&str>,
    yes: bool,
    output: Output,
) -> Result<Outcome, Failure> {
    let row = find(store, place, wanted).await?;
    let path = &row.path;
    if row.lock.is_some() {
        let whose = row.owner_text();
        return Err(Failure::NotDone(format!("job {path} has a lock ({whose}): abandon it first")));
    }
    if !yes {
        return Err(Failure::needs_yes(&format!("this would take {path} off the board")));
    }
    let (coordinator, board) = open(store, place).await?;
    let trashed = async {
        if row.posting.is_err() {
            return trash_set_aside(store, place, &row, because).await;
        }
        let claim = board.claim(&job_of(&board, &row).await?).await?;
        match because {
            Some(reason) => claim.trash_because(reason).await?,
            None => claim.trash().await?,
        }
        Ok::<(), Failure>(())
    };
    let trashed = trashed.await;
    let _ = coordinator.shutdown().await;
    trashed?;
    let value = json!({ "trashed": path.as_str() });
    done(output, &format!("moved {path} to {}", place.trash), &value)
}

/// Moves a posting to the trash that no worker can claim.
async fn trash_set_aside(
    store: &Store,
    place: &Place,
    row: &Row,
    because: Option<&str>,
) -> Result<(), Failure> {
    if because.is_some() {
        return Err(Failure::Usage("the reason of a posting that cannot be read is not kept".into()));
    }
    let Some(stat) = row.stat else {
        return Err(Failure::NotDone(format!("{} may not be read by this user", row.path)));
    };
    let lock = place.lock_of(&row.name).expect("it was read under this name");
    for name in [row.name.clone(), format!("{}.{:x}", row.name, stat.czxid)] {
        let to = place.trash.join(&name).expect("it has the characters of a name");
        // With the lock, no other process works on it.
        let ops = vec![
            Op::create(&lock, "", CreateMode::Ephemeral),
            Op::create(&to, row.data.clone(), CreateMode::Persistent),
            Op::delete(&row.path, Some(stat.version)),
            Op::delete(&lock, None),
        ];
        match store.session.commit(ops).await {
            Ok(_) => return Ok(()),
            // The name is that of another job.
            Err(CommitError { index: Some(1), error: backend::Error::NodeExists }) => {}
            Err(error) => return Err(refused(error, &row.path, &to)),
        }
    }
    Err(Failure::NotDone(format!("{} has a job of this name already", place.trash)))
}

pub(super) async fn restore(
    store: &Store,
    place: &Place,
    wanted: &str,
    yes: bool,
    output: Output,
) -> Result<Outcome, Failure> {
    let row = find_in_trash(store, place, wanted).await?;
    let board = place.board.name();
    let doubt = match &row.trashed_by {
        _ if yes => None,
        Some(other) if other == board => None,
        Some(other) => Some(format!("{} is of the board `{other}`, which shares this trash", row.path)),
        None if may_be_shared(store, place).await? => Some(format!(
            "it is not known which board {} is of: there is more beside {} that may be one",
            row.path, place.board
        )),
        None => None,
    };
    if let Some(doubt) = doubt {
        return Err(Failure::needs_yes(&format!("{doubt}; this would put it on {}", place.board)));
    }
    let (Ok(_), Some(stat)) = (&row.posting, row.stat) else {
        let why = row.problem().unwrap_or_default();
        return Err(Failure::NotDone(format!("{} cannot be read as a job: {why}", row.path)));
    };
    let job = place.board.join("job").expect("it is a name");
    let ops = vec![
        Op::create(&job, row.data.clone(), CreateMode::PersistentSequential),
        Op::delete(&row.path, Some(stat.version)),
    ];
    match store.session.commit(ops).await {
        Ok(applied) => {
            let restored = match applied.first() {
                Some(Done::Created(path)) => path.to_string(),
                _ => place.board.to_string(),
            };
            let value = json!({ "restored": restored, "from": row.path.as_str() });
            done(output, &format!("restored {} as {restored}", row.path), &value)
        }
        Err(CommitError { index: Some(0), error }) => Err(Failure::writing(&place.board)(error)),
        Err(error) => Err(refused(error, &row.path, &place.parent)),
    }
}

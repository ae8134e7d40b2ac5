//! What changes a board.

use std::{io, process::Stdio, time::Duration};

use apportion::{
    JobBoard, PartitionCoordinator,
    backend::{CommitError, CreateMode, Done, Op},
    board::{Job, Priority},
    serde_json::{Value, json},
};
use tokio::process::Command;

use super::read::{Place, Row, find, find_in_trash, other_board};
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
    pub(super) details: &'a str,
    pub(super) priority: &'a str,
    pub(super) delay: Option<Duration>,
    pub(super) create: bool,
}

fn done(output: Output, text: &str, value: &Value) -> Result<Outcome, Failure> {
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
    let details: Value = apportion::serde_json::from_str(post.details)
        .map_err(|error| Failure::Usage(format!("--details is no JSON: {error}")))?;
    let priority: Priority = post.priority.parse().map_err(|_| {
        Failure::Usage(format!(
            "--priority `{}` is none of VERY_HIGH, HIGH, NORMAL, LOW, VERY_LOW",
            post.priority
        ))
    })?;
    if !post.create && store.get(&place.board).await?.is_none() {
        return Err(Failure::NotDone(format!("there is no board `{}`: --create makes it", place.board)));
    }
    let (coordinator, board) = open(store, place).await?;
    let mut posting = board.post(post.name).details(details).priority(priority);
    if let Some(delay) = post.delay {
        posting = posting.delay(delay);
    }
    let posted = posting.await;
    let _ = coordinator.shutdown().await;
    let job = posted?;
    let (path, uuid) = (job.path().to_string(), job.uuid().map(|uuid| uuid.to_string()));
    done(output, &format!("posted {path}"), &json!({ "posted": path, "uuid": uuid }))
}

async fn open(store: &Store, place: &Place) -> Result<(PartitionCoordinator, JobBoard), Failure> {
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
async fn job_of(board: &JobBoard, row: &Row) -> Result<Job, Failure> {
    let jobs = board.jobs().ensure_fresh().await?;
    let found = jobs.into_iter().find(|job| *job.path() == row.path);
    found.ok_or_else(|| Failure::NotDone(format!("job {} is off the board, or set aside", row.path)))
}

pub(super) async fn claim(
    store: &Store,
    place: &Place,
    wanted: &str,
    command: &[String],
    output: Output,
) -> Result<Outcome, Failure> {
    let row = find(store, place, wanted).await?;
    let (coordinator, board) = open(store, place).await?;
    let worked = work(&board, &row, command, output).await;
    let _ = coordinator.shutdown().await;
    worked
}

async fn work(board: &JobBoard, row: &Row, command: &[String], output: Output) -> Result<Outcome, Failure> {
    let claim = board.claim(&job_of(board, row).await?).await?;
    let path = row.path.to_string();
    let Some((program, arguments)) = command.split_first() else {
        let token = claim.token().get();
        let held = json!({ "claimed": path, "token": token });
        done(output, &format!("claimed {path}; until this is interrupted, no worker gets it"), &held)?;
        let lost = claim.lease().while_held(interruption()?).await.is_err();
        if lost {
            return Err(Failure::NotDone(format!("the claim of {path} was lost: a worker may have it")));
        }
        claim.abandon().uncounted().await?;
        return done(output, &format!("given back {path}"), &json!({ "given_back": path }));
    };
    let mut child = Command::new(program);
    child.args(arguments).kill_on_drop(true).stdin(Stdio::piped());
    if output.is_json {
        // Standard output has JSON alone.
        child.stdout(std::io::stderr());
    }
    child.env("APPORTION_JOB", &path).env("APPORTION_TOKEN", claim.token().to_string());
    let interrupted = interruption()?;
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(error) => {
            // That says nothing about the job.
            claim.abandon().uncounted().await?;
            return given_back(&path, &format!("{program}: {error}"), output);
        }
    };
    let details = claim.job().details().to_string();
    let running = async {
        if let Some(mut input) = child.stdin.take() {
            use tokio::io::AsyncWriteExt as _;
            // A command that does not read it is no failure.
            let _ = input.write_all(details.as_bytes()).await;
        }
        child.wait().await
    };
    let ended = claim.lease().while_held(async {
        tokio::select! {
            biased;
            () = interrupted => None,
            ended = running => Some(ended),
        }
    });
    match ended.await {
        Ok(Some(Ok(status))) if status.success() => {
            claim.consume().await?;
            done(output, &format!("done {path}"), &json!({ "done": path }))
        }
        Ok(Some(ended)) => {
            let reason = match ended {
                Ok(status) => format!("{program} ended with {status}"),
                Err(error) => format!("{program}: {error}"),
            };
            claim.abandon().because(&reason).await?;
            given_back(&path, &reason, output)
        }
        Ok(None) => {
            // Before another worker can have the job.
            child.kill().await?;
            claim.abandon().uncounted().await?;
            given_back(&path, &format!("interrupted, and {program} was ended"), output)
        }
        Err(_) => {
            child.kill().await?;
            Err(Failure::NotDone(format!("the claim of {path} was lost: {program} was ended")))
        }
    }
}

fn given_back(path: &str, reason: &str, output: Output) -> Result<Outcome, Failure> {
    let given_back = json!({ "given_back": path, "reason": reason });
    done(output, &format!("given back {path}: {reason}"), &given_back)?;
    Ok(Outcome::Problem)
}

/// Waits until this process is told to end. From the call on, those signals no longer end it.
#[cfg(unix)]
fn interruption() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn interruption() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a handler the signal ends the process.
        let _ = tokio::signal::ctrl_c().await;
    })
}

pub(super) async fn abandon(
    store: &Store,
    place: &Place,
    wanted: &str,
    yes: bool,
    output: Output,
) -> Result<Outcome, Failure> {
    let row = find(store, place, wanted).await?;
    let (Some(owner), Some(stat)) = (row.owner(), row.lock_stat()) else {
        return Err(Failure::NotDone(match &row.lock {
            Some(Err(())) => format!("the lock of {} may not be read by this user", row.path),
            _ => format!("job {} is not claimed", row.path),
        }));
    };
    if !yes {
        let since = short(age(from_ms(stat.created_ms)));
        let lives = match stat.ephemeral_owner {
            Some(session) => format!(
                "its session {session} lives: the worker may go on for some seconds while another one begins"
            ),
            None => "the lock is persistent, so no session ends it".into(),
        };
        return Err(Failure::needs_yes(&format!(
            "this would end the claim of `{owner}` on {}, held for {since}; {lives}",
            row.path
        )));
    }
    let lock = place.board.join(&format!("{}.lock", row.name)).expect("it was read under this name");
    // The version of the lock that was read, and its job, so that no later claim ends.
    let version = row.stat.map(|stat| stat.version);
    let ops = vec![Op::Check { path: row.path.clone(), version }, Op::delete(&lock, Some(stat.version))];
    match store.session.commit(ops).await {
        Ok(_) => {
            let ended = json!({ "abandoned": row.path.as_str(), "owner": owner });
            done(output, &format!("ended the claim of `{owner}` on {}", row.path), &ended)
        }
        Err(CommitError { index: Some(_), error: apportion::backend::Error::NotPermitted }) => {
            Err(Failure::at(&lock)(apportion::backend::Error::NotPermitted))
        }
        Err(CommitError { index: Some(_), .. }) => {
            Err(Failure::NotDone(format!("job {} has changed meanwhile: read it again", row.path)))
        }
        Err(CommitError { error, .. }) => Err(Failure::at(&lock)(error)),
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
    if let Some(owner) = row.owner() {
        let path = &row.path;
        return Err(Failure::NotDone(format!("job {path} is claimed by `{owner}`: abandon it first")));
    }
    if !yes {
        return Err(Failure::needs_yes(&format!("this would take {} off the board", row.path)));
    }
    let (coordinator, board) = open(store, place).await?;
    let trashed = async {
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
    let path = row.path.to_string();
    done(output, &format!("moved {path} to {}", place.trash), &json!({ "trashed": path }))
}

pub(super) async fn restore(
    store: &Store,
    place: &Place,
    wanted: &str,
    yes: bool,
    output: Output,
) -> Result<Outcome, Failure> {
    let row = find_in_trash(store, place, wanted).await?;
    if !yes && let Some(other) = other_board(store, place, &row).await? {
        return Err(Failure::needs_yes(&format!(
            "{} is of the board `{other}`, which shares this trash; this would put it on {}",
            row.path, place.board
        )));
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
        Err(CommitError { index: Some(0), error }) => Err(Failure::at(&place.board)(error)),
        Err(CommitError { index: Some(_), .. }) => {
            Err(Failure::NotDone(format!("{} has changed or gone meanwhile: read it again", row.path)))
        }
        Err(CommitError { error, .. }) => Err(Failure::at(&place.parent())(error)),
    }
}

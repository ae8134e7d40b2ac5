//! `board claim`: works on a job by hand.

use std::{io, process::Stdio, time::Duration};

use apportion::{JobBoard, serde_json::json};
use tokio::process::Command;

use super::{
    change::{done, job_of, open},
    process::Processes,
    read::{Place, Row, find},
};
use crate::{failure::Failure, outcome::Outcome, output::Output, store::Store};

/// How long a command has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

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
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    if output.is_json {
        // Standard output has JSON alone.
        command.stdout(std::io::stderr());
    }
    command.env("APPORTION_JOB", &path).env("APPORTION_TOKEN", claim.token().to_string());
    let interrupted = interruption()?;
    let mut running = match Processes::spawn(command) {
        Ok(running) => running,
        Err(error) => {
            // That says nothing about the job.
            claim.abandon().uncounted().await?;
            return given_back(&path, &format!("{program}: {error}"), output);
        }
    };
    let details = claim.job().details().to_string();
    let ended = claim.lease().while_held(async {
        tokio::select! {
            biased;
            () = interrupted => None,
            ended = running.wait(details.as_bytes()) => Some(ended),
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
            // What it has started and left, before another worker can have the job.
            running.end(GRACE).await;
            claim.abandon().because(&reason).await?;
            given_back(&path, &reason, output)
        }
        Ok(None) => {
            running.end(GRACE).await;
            claim.abandon().uncounted().await?;
            given_back(&path, &format!("interrupted, and {program} was ended"), output)
        }
        Err(_) => {
            // Another worker may have the job already.
            running.end(Duration::ZERO).await;
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
    // The terminal is closed.
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
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

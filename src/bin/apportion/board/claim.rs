//! `board claim`: works on a job by hand.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

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
    let worked = work(&board, &row, command, GRACE, output).await;
    let _ = coordinator.shutdown().await;
    worked
}

/// Works on the job. A command that does not end has `grace` to do so after SIGTERM.
async fn work(
    board: &JobBoard,
    row: &Row,
    command: &[String],
    grace: Duration,
    output: Output,
) -> Result<Outcome, Failure> {
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
    let is_done =
        |ended: &Option<io::Result<ExitStatus>>| matches!(ended, Some(Ok(status)) if status.success());
    // What ends the processes is watched as well: if the claim is lost meanwhile, another worker may have the job.
    let ended = claim.lease().while_held(async {
        let ended = tokio::select! {
            biased;
            () = interrupted => None,
            ended = running.wait(details.as_bytes()) => Some(ended),
        };
        if !is_done(&ended) {
            // Also what a command that has failed has started and left, before another worker can have the job.
            running.end(grace).await;
        }
        ended
    });
    match ended.await {
        Ok(ended) if is_done(&ended) => {
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

// Only Linux shows which processes run in /proc.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{env, fs, path::PathBuf};

    use apportion::{
        Config,
        backend::{Connector as _, Memory, Op},
    };

    use super::*;

    /// Longer than anything takes that is not wrong.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Waits until another process has written this file.
    async fn written(file: &PathBuf) -> String {
        let read = async {
            loop {
                match fs::read_to_string(file) {
                    Ok(text) if text.ends_with('\n') => break text,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, read).await.expect("it is written")
    }

    #[tokio::test]
    async fn what_a_command_has_left_is_ended_at_once_if_the_claim_is_lost_in_its_grace() {
        let folder = env::temp_dir().join(format!("apportion-grace-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let memory = Memory::new();
        let session = memory.open(LIMIT).await.unwrap();
        let place = Place::parse("/grace/jobs").unwrap();
        let config = Config::for_backend(memory);
        let store = Store { namespace: config.namespace_path().unwrap(), config, session };
        let (coordinator, board) = open(&store, &place).await.unwrap();
        board.post("stubborn").await.unwrap();
        let row = find(&store, &place, "0").await.unwrap();

        // It fails, and leaves a process that says that it was told to end, and goes on.
        let script = "(trap 'echo asked > asked' TERM; echo ready > ready; for at in $(seq 900); do sleep 0.1; done) & \
                      echo $! > pid; while [ ! -s ready ]; do sleep 0.01; done; exit 1";
        let script = format!("cd {}; {script}", folder.display());
        let command = ["sh", "-c", &script].map(str::to_owned);
        let working = work(&board, &row, &command, 10 * LIMIT, Output::new(true));
        let losing = async {
            let pid = written(&folder.join("pid")).await;
            written(&folder.join("asked")).await;
            // Another operator ends the claim.
            store.session.commit(vec![Op::delete(&place.lock_of(&row.name).unwrap(), None)]).await.unwrap();
            pid
        };
        let (worked, pid) = tokio::time::timeout(LIMIT, async { tokio::join!(working, losing) })
            .await
            .expect("the grace does not go on without the claim");
        let failure = worked.unwrap_err().to_string();
        assert!(failure.contains("was lost: sh was ended"), "{failure}");
        // A process that has ended may be listed until its parent has noticed it.
        let shown = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        assert!(shown.is_err() || shown.is_ok_and(|shown| shown.contains(") Z ")), "{pid} goes on");
        coordinator.shutdown().await.unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}

//! A worker with a thread and a runtime of its own, so that it can die as a process does.

use std::{
    future::{Future, IntoFuture},
    io,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use apportion::worker::WorkerBuilder;
use tokio::{runtime, sync::oneshot, task::spawn_blocking};

use crate::support::Failure;

/// How long a worker may take to finish what it runs.
const TIMEOUT: Duration = Duration::from_secs(5);

pub struct Process {
    pub name: &'static str,
    end: oneshot::Sender<End>,
    thread: JoinHandle<bool>,
}

enum End {
    ShutDown,
    Crash,
}

impl Process {
    /// Starts `worker`, and waits until it takes requests.
    pub async fn start(name: &'static str, worker: WorkerBuilder) -> Result<Process, Failure> {
        let (started, is_started) = oneshot::channel();
        let (end, is_ended) = oneshot::channel();
        let live = move || live(worker, started, is_ended);
        let thread = Builder::new().name(name.into()).spawn(live)?;
        is_started.await??;
        Ok(Process { name, end, thread })
    }

    /// Lets it finish what it runs. Returns whether it did so in time.
    pub fn shut_down(self) -> impl Future<Output = bool> {
        self.finish(End::ShutDown)
    }

    /// Ends it between one instruction and the next, as a crash of a process does.
    pub async fn crash(self) {
        self.finish(End::Crash).await;
    }

    async fn finish(self, end: End) -> bool {
        // An error means that the thread has ended already.
        let _ = self.end.send(end);
        spawn_blocking(|| self.thread.join()).await.is_ok_and(|ended| ended.unwrap_or(false))
    }
}

fn live(
    worker: WorkerBuilder,
    started: oneshot::Sender<Result<(), Failure>>,
    end: oneshot::Receiver<End>,
) -> bool {
    let start = |runtime: io::Result<runtime::Runtime>| {
        let runtime = runtime?;
        let worker = runtime.block_on(worker.into_future())?;
        Ok((runtime, worker))
    };
    let (runtime, worker) = match start(runtime::Builder::new_current_thread().enable_all().build()) {
        Ok(both) => both,
        Err(failure) => {
            let _ = started.send(Err(failure));
            return false;
        }
    };
    let _ = started.send(Ok(()));
    match runtime.block_on(end) {
        Ok(End::ShutDown) => runtime.block_on(worker.shutdown(TIMEOUT)),
        Ok(End::Crash) | Err(_) => {
            // The runtime goes first, so that the worker cannot report its end to the executors when it is dropped.
            drop(runtime);
            drop(worker);
            false
        }
    }
}

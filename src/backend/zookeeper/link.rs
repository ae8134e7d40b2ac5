//! [`Link`]: one connection of a session.
//!
//! The client crate connects again by itself, with pauses that grow without a cap (D5), for longer than the session can
//! live (D6), and without saying that the server has given it another session. So each of its clients is used for one
//! connection only: it is stopped as soon as that breaks, and the session opens the next one.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use zookeeper_client as zk;

use crate::task::Tasks;

/// A client of the crate, and the task that serves it.
pub(super) struct Link {
    target: String,
    client: zk::Client,
    serving: Serving,
}

impl Link {
    /// Tries once to open a connection to the server with this connection string. The task that serves it is one of
    /// `tasks`.
    pub(super) async fn open(
        connector: zk::Connector,
        target: &str,
        tasks: &Arc<Tasks>,
    ) -> Result<Link, zk::Error> {
        let serving = Serving::new();
        let spawner = Spawner { tasks: tasks.clone(), serving: serving.clone() };
        let mut connecting = pin!(connector.with_fail_eagerly().connect(target));
        let connected = poll_fn(|context| {
            let _scope = spawns_core::enter(&spawner);
            connecting.as_mut().poll(context)
        });
        let client = connected.await?;
        let _ = serving.state.set(client.state_watcher());
        Ok(Link { target: target.to_owned(), client, serving })
    }

    /// The connection string of the server.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn client(&self) -> &zk::Client {
        &self.client
    }

    /// The task that serves the connection.
    pub(super) fn serving(&self) -> &Serving {
        &self.serving
    }
}

/// The task that serves one connection. Clones are the same task.
#[derive(Clone)]
pub(super) struct Serving {
    stop: CancellationToken,
    ended: CancellationToken,
    /// The state of the client, once it is connected.
    state: Arc<OnceLock<zk::StateWatcher>>,
    /// Whether the client still exists. A watch is polled under this lock only, because it panics once its client is
    /// gone (D7).
    is_alive: Arc<RwLock<bool>>,
}

impl Serving {
    fn new() -> Self {
        let token = CancellationToken::new;
        Serving {
            stop: token(),
            ended: token(),
            state: Arc::default(),
            is_alive: Arc::new(RwLock::new(true)),
        }
    }

    /// Closes the connection, without a request to end the session. No attempt to connect again is made.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether the task has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until the task has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits for the event of a watch; `None` if the connection has ended before.
    pub(super) async fn event(&self, watcher: zk::OneshotWatcher) -> Option<zk::WatchedEvent> {
        let mut event = pin!(watcher.changed());
        let fired = poll_fn(|context| {
            let is_alive = self.is_alive.read().unwrap_or_else(PoisonError::into_inner);
            if !*is_alive {
                return Poll::Ready(None);
            }
            event.as_mut().poll(context).map(Some)
        });
        tokio::select! {
            biased;
            fired = fired => fired,
            () = self.ended() => None,
        }
    }
}

/// Runs the task of a client among those of its session, so that it can be stopped.
struct Spawner {
    tasks: Arc<Tasks>,
    serving: Serving,
}

impl spawns_core::Spawn for Spawner {
    fn spawn(&self, task: spawns_core::Task) {
        let served = Served { work: Box::into_pin(task.future), serving: self.serving.clone() };
        let stop = self.serving.stop.clone();
        self.tasks.spawn("zookeeper connection", async move {
            let _ = stop.run_until_cancelled(served).await;
        });
    }
}

/// The work of the task. Its drop says that the client is gone: after its end, a panic in it, or the end of the runtime.
struct Served {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    serving: Serving,
}

impl Future for Served {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = self.serving.state.get().map(zk::StateWatcher::peek_state);
        if state == Some(zk::SessionState::Disconnected) {
            // The crate has begun to connect again, and has not sent a request yet.
            return Poll::Ready(());
        }
        self.work.as_mut().poll(context)
    }
}

impl Drop for Served {
    // The work is dropped after this.
    fn drop(&mut self) {
        *self.serving.is_alive.write().unwrap_or_else(PoisonError::into_inner) = false;
        self.serving.ended.cancel();
    }
}

/// How long a connection may be silent, and how long one attempt to connect may wait for the server, for a session of
/// this timeout.
pub(super) fn silence(timeout: Duration) -> Duration {
    timeout / 4
}

/// Whether a server that has not replied for this long is silent. A reset comes earlier.
pub(super) fn counts_as_silent(waited: Duration, timeout: Duration) -> bool {
    waited >= silence(timeout) / 2
}

/// The longest silence that the crate accepts.
pub(super) fn longest_silence(timeout: Duration) -> Duration {
    timeout * 3 / 5
}

//! Shows other processes that this one serves a board, as TaskFlow's conductors do.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::{
    board::{BoardError, JobBoard},
    future::BoxFuture,
    group::member::Process,
};

/// The kind of entity that TaskFlow knows.
const KIND: &str = "conductor";
/// The pause before another attempt to register it.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the end of a runner waits until it is unregistered.
const END: Duration = Duration::from_secs(1);

/// The entity of a runner. Dropped, it is unregistered in the background.
pub(super) struct Conductor {
    board: JobBoard,
    /// `None` once it has ended.
    name: Option<String>,
}

impl Conductor {
    /// Unregisters it. If the store does not answer in time, that goes on in the background until the session ends.
    pub(super) async fn end(mut self) {
        let Some(name) = self.name.take() else { return };
        if timeout(END, self.board.unregister_entity(KIND, &name)).await.is_err() {
            debug!(board = %self.board.path(), name, "the runner is not unregistered yet");
        }
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.board.unregister_entity_later(KIND, &name);
        }
    }
}

/// An entity of this board, and the future that registers it.
pub(super) fn show(board: &JobBoard, name: Option<String>) -> (BoxFuture<'static, ()>, Conductor) {
    let host = Process::current().map_or_else(|| "localhost".into(), |process| process.host);
    let pid = std::process::id();
    let name = format!("{}@{host}:{pid}", name.unwrap_or_else(|| board.me().to_owned()));
    let conductor = Conductor { board: board.clone(), name: Some(name.clone()) };
    let board = board.clone();
    let registering = async move {
        let metadata = json!({ "hostname": host, "pid": pid });
        loop {
            let error = match board.register_entity(KIND, &name, &metadata).await {
                Ok(()) | Err(BoardError::Closed { .. }) => return,
                Err(error) => error,
            };
            // The work does not depend on it.
            warn!(board = %board.path(), name, %error, "the runner could not be registered as an entity");
            if !error.is_transient() {
                return;
            }
            sleep(PAUSE).await;
        }
    };
    (Box::pin(registering), conductor)
}

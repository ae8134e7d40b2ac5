//! [`Release`]: gives an entry back for another attempt.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

use super::{error::QueueError, owned::OwnedEntry, shared::Handle};
use crate::lease::GivenBack;

/// Gives an entry back when it is awaited. From [`Delivery::release`](super::Delivery::release).
#[must_use = "nothing is sent until it is awaited"]
pub struct Release {
    owned: Arc<Mutex<OwnedEntry>>,
    handle: Arc<Handle>,
    how: GivenBack,
}

impl Release {
    pub(super) fn new(owned: Arc<Mutex<OwnedEntry>>, handle: Arc<Handle>) -> Self {
        Release { owned, handle, how: GivenBack::default() }
    }

    /// The pause instead of the growing one. Zero: the entry can be taken again at once.
    pub fn after(mut self, pause: Duration) -> Self {
        self.how.after = Some(pause);
        self
    }

    /// Why it failed: the next delivery has it as its [`last_error`](super::Delivery::last_error), a dead letter as its
    /// [`error`](super::Finished::error). At most 1000 characters are kept; fewer or none, if the value of another program
    /// leaves no room for them in a request.
    pub fn because(mut self, reason: impl fmt::Display) -> Self {
        self.how.reason = Some(reason.to_string());
        self
    }

    /// This delivery does not count as an attempt: for a worker that stops before it has tried. Without
    /// [`after`](Release::after) there is no pause.
    pub fn uncounted(mut self) -> Self {
        self.how.is_uncounted = true;
        self
    }

    async fn run(self) -> Result<(), QueueError> {
        let Release { owned, handle, how } = self;
        handle.shared.run("release", async move { owned.lock().await.release(how).await }).await?
    }
}

impl IntoFuture for Release {
    type Output = Result<(), QueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release").field("how", &self.how).finish_non_exhaustive()
    }
}

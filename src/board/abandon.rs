//! [`Abandon`]: gives a job back for another attempt.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use super::{claimed::ClaimedJob, error::BoardError};
use crate::lease::GivenBack;

/// Gives a job back when it is awaited. From [`Claim::abandon`](super::Claim::abandon).
///
/// What this says is in a record beside the board. If the store does not take that, because another user has written it or
/// the posting leaves no room for it, the job is given back without it: then the attempt counts, the reason is lost, and other
/// processes do not know the pause. A warning says so.
#[must_use = "nothing is sent until it is awaited"]
pub struct Abandon {
    claimed: ClaimedJob,
    how: GivenBack,
}

impl Abandon {
    pub(super) fn new(claimed: ClaimedJob) -> Self {
        Abandon { claimed, how: GivenBack::default() }
    }

    /// The pause instead of the growing one. Zero: the job can be claimed again at once.
    pub fn after(mut self, pause: Duration) -> Self {
        self.how.after = Some(pause);
        self
    }

    /// Why it failed: the next claim has it as its [`last_error`](super::Claim::last_error), the trash as the
    /// [`reason`](super::Trashed::reason). At most 1000 characters are kept, beside the posting, which stays as it is.
    pub fn because(mut self, reason: impl fmt::Display) -> Self {
        self.how.reason = Some(reason.to_string());
        self
    }

    /// This claim does not count as an attempt: for a worker that stops before it has tried. Without
    /// [`after`](Abandon::after) there is no pause.
    pub fn uncounted(mut self) -> Self {
        self.how.is_uncounted = true;
        self
    }

    async fn run(self) -> Result<(), BoardError> {
        self.claimed.abandon(self.how).await
    }
}

impl IntoFuture for Abandon {
    type Output = Result<(), BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Abandon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abandon").field("job", self.claimed.job()).field("how", &self.how).finish()
    }
}

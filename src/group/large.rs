//! Large rings: work on one takes so long that the runtime could not serve others meanwhile.

use crate::task;

/// Work on more points than that is done on another thread.
pub(super) const LARGE: u64 = 50_000;

/// Does `work` on so many points of a ring: on another thread if they are many.
pub(super) async fn on_points<T: Send + 'static>(
    points: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if points > LARGE { task::off_runtime(work).await } else { work() }
}

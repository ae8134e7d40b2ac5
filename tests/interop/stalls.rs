//! How late this machine is. What runs on a busy one takes longer, so the bounds of tests grow with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{evaluator::now, fleet::nanos, support::MS};

/// How often it is measured.
const PAUSE: Duration = MS.saturating_mul(10);
/// What a step of a fleet may take on a machine that is never late.
const LEAST: Duration = Duration::from_secs(3);
/// A step has so many parts, in several processes, each of which may be as late as the worst.
const PARTS: u32 = 20;

/// Fleets start many processes, and need most of two cores while they do: so few at a time.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    static TURNS: Semaphore = Semaphore::const_new(3);
    TURNS.acquire().await.expect("it is never closed")
}

/// Measures how late a thread wakes.
#[derive(Debug)]
pub(crate) struct Stalls(Arc<AtomicU64>);

impl Stalls {
    #[allow(
        clippy::disallowed_methods,
        reason = "the thread ends with this value, and a task would measure its runtime"
    )]
    pub(crate) fn start() -> Stalls {
        let worst = Arc::<AtomicU64>::default();
        let measured = Arc::downgrade(&worst);
        std::thread::spawn(move || {
            while let Some(worst) = measured.upgrade() {
                let before = now();
                std::thread::sleep(PAUSE);
                worst.fetch_max((now() - before).saturating_sub(nanos(PAUSE)), Ordering::SeqCst);
            }
        });
        Stalls(worst)
    }

    /// Forgets what was before.
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// What has to be added to a bound because this machine is busy.
    pub(crate) fn slack(&self) -> Duration {
        LEAST + PARTS * Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use super::*;
use crate::clock::{Clock as _, Moment, TokioClock};

const SECOND: Duration = Duration::from_secs(1);
/// Of the timers.
const ROUNDING: Duration = Duration::from_millis(2);

/// It has no work, and its takes end as told, each at once. After those they wait.
struct Script {
    clock: TokioClock,
    random: Random,
    outcomes: Mutex<VecDeque<Result<(), &'static str>>>,
    takes: Mutex<Vec<Moment>>,
}

impl Source for Script {
    type Taken = ();
    type Output = ();
    type Error = &'static str;

    fn place(&self) -> String {
        "/a test".into()
    }

    fn name(&self, (): &()) -> String {
        unreachable!()
    }

    fn random(&self) -> &Random {
        &self.random
    }

    fn take(&self, _most: usize) -> BoxFuture<'_, Result<Vec<()>, &'static str>> {
        Box::pin(async {
            self.takes.lock().unwrap_or_else(PoisonError::into_inner).push(self.clock.now());
            let outcome = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match outcome {
                Some(outcome) => outcome.map(|()| Vec::new()),
                None => std::future::pending().await,
            }
        })
    }

    fn lease<'a>(&self, (): &'a ()) -> &'a Lease {
        unreachable!()
    }

    fn attempt(&self, (): &()) -> u32 {
        unreachable!()
    }

    fn work(&self, (): &(), _stopping: Stopping) -> BoxFuture<'static, Result<(), Failure>> {
        unreachable!()
    }

    fn end(&self, (): (), _end: End<()>) -> BoxFuture<'static, Result<Ended, &'static str>> {
        unreachable!()
    }

    fn is_final(&self, error: &&'static str) -> bool {
        *error == "final"
    }
}

#[tokio::test(start_paused = true)]
async fn the_pauses_after_errors_grow_until_a_take_succeeds() {
    let outcomes = VecDeque::from([Err("x"), Err("x"), Err("x"), Err("x"), Ok(()), Err("x")]);
    let source = Arc::new(Script {
        clock: TokioClock::new(),
        random: Random::new(Some(1)),
        outcomes: Mutex::new(outcomes),
        takes: Mutex::default(),
    });
    let until = Box::pin(sleep(100 * SECOND));
    let counts = run(source.clone(), Settings::default(), until, Box::pin(std::future::pending())).await;
    assert_eq!(counts, Ok(Counts::default()));
    let takes = source.takes.lock().unwrap_or_else(PoisonError::into_inner);
    let pauses: Vec<_> = takes.windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect();
    let longest = [1, 2, 4, 8, 0, 1].map(|seconds| seconds * SECOND);
    let is_so =
        |(pause, longest): (&Duration, Duration)| *pause >= longest / 2 && *pause <= longest + ROUNDING;
    assert!(pauses.len() == 6 && pauses.iter().zip(longest).all(is_so), "{pauses:?}");
}

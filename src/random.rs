//! [`Random`]: the one source of random numbers and ids.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

/// A source of random numbers and ids. All parts of one coordinator use the same source, so that a seed determines a
/// whole run if time is paused and the runtime has one thread. Cheap to clone; clones share the source.
#[derive(Clone)]
pub(crate) struct Random {
    rng: Arc<Mutex<fastrand::Rng>>,
    is_seeded: bool,
}

impl Random {
    /// A source that gives the same numbers and ids for the same seed; without a seed, different ones in each run.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let rng = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Random { rng: Arc::new(Mutex::new(rng)), is_seeded: seed.is_some() }
    }

    /// A uniform number from zero up to, but not including, one.
    pub(crate) fn unit(&self) -> f64 {
        self.lock().f64()
    }

    /// 64 random bits.
    pub(crate) fn bits(&self) -> u64 {
        self.lock().u64(..)
    }

    /// A uniform number below `limit`, which is at least 1.
    pub(crate) fn below(&self, limit: usize) -> usize {
        self.lock().usize(..limit)
    }

    /// Puts the items into a random order.
    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        self.lock().shuffle(items);
    }

    /// A version 4 uuid.
    pub(crate) fn uuid(&self) -> Uuid {
        // The state of the seeded generator has 64 bits: enough to repeat a run, too few for unique names.
        if self.is_seeded {
            uuid::Builder::from_random_bytes(self.lock().u128(..).to_be_bytes()).into_uuid()
        } else {
            Uuid::new_v4()
        }
    }

    fn lock(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").field("is_seeded", &self.is_seeded).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_numbers_and_ids() {
        let draw = |seed| {
            let random = Random::new(seed);
            let mut order: Vec<_> = (0..10).collect();
            random.shuffle(&mut order);
            (random.uuid(), random.below(1000), random.unit().to_bits(), order)
        };
        assert_eq!(draw(Some(7)), draw(Some(7)));
        assert_ne!(draw(Some(7)), draw(Some(8)));
        assert_ne!(draw(None), draw(None));
        assert_eq!(draw(Some(7)).0.get_version_num(), 4);
    }
}

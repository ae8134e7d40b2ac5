//! [`Ages`]: how many things are in progress, and since when.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::Moment;

/// Things in progress, by the moment at which each began.
#[derive(Debug, Default)]
pub(crate) struct Ages(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    count: u64,
    present: BTreeSet<(Moment, u64)>,
}

/// One thing in progress, until this is dropped.
#[derive(Debug)]
pub(crate) struct Age {
    ages: Arc<Ages>,
    key: (Moment, u64),
}

impl Ages {
    /// A thing that begins now.
    pub(crate) fn begin(self: &Arc<Self>, now: Moment) -> Age {
        let mut begun = self.lock();
        begun.count += 1;
        let key = (now, begun.count);
        begun.present.insert(key);
        drop(begun);
        Age { ages: self.clone(), key }
    }

    /// How many there are, and since when the oldest is.
    pub(crate) fn present(&self) -> (usize, Option<Moment>) {
        let begun = self.lock();
        (begun.present.len(), begun.present.first().map(|(since, _)| *since))
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Age {
    pub(crate) fn since(&self) -> Moment {
        self.key.0
    }
}

impl Drop for Age {
    fn drop(&mut self) {
        self.ages.lock().present.remove(&self.key);
    }
}

/// Writes what this process has in progress of a folder, and when it was listed: the end of the text of a status.
pub(crate) fn write_present(
    f: &mut fmt::Formatter<'_>,
    (held, oldest): (usize, Option<Duration>),
    listed: Option<Duration>,
    problem: Option<&str>,
) -> fmt::Result {
    write!(f, "; {held} held here")?;
    if let Some(age) = oldest {
        write!(f, ", the oldest for {age:.1?}")?;
    }
    match listed {
        Some(age) => write!(f, "; listed {age:.1?} ago")?,
        None => write!(f, "; not listed yet")?,
    }
    problem.iter().try_for_each(|problem| write!(f, "; {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_still_in_progress_counts() {
        let at = |seconds| Moment::from_origin(Duration::from_secs(seconds));
        let ages = Arc::new(Ages::default());
        let (first, second) = (ages.begin(at(1)), ages.begin(at(1)));
        let third = ages.begin(at(3));
        assert_eq!((ages.present(), third.since()), ((3, Some(at(1))), at(3)));
        drop(first);
        assert_eq!(ages.present(), (2, Some(at(1))), "another began at the same moment");
        drop(second);
        assert_eq!(ages.present(), (1, Some(at(3))));
        drop(third);
        assert_eq!(ages.present(), (0, None));
    }
}

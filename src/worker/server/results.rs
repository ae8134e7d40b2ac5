//! [`Results`]: the last results of a worker. An executor of this crate whose connection has broken gets them again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many results are kept, and how many bytes all together.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 64 << 20;

/// The results that were sent or are being sent, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Results(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    kept: VecDeque<(u64, Arc<Kept>)>,
    bytes: usize,
    last: u64,
}

/// One result.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) reply_to: String,
    pub(super) correlation_id: String,
    pub(super) body: Vec<u8>,
}

impl Results {
    /// Keeps a result, and forgets the oldest if there are too many. Returns its number.
    pub(super) fn keep(&self, result: Kept) -> u64 {
        let mut table = self.table();
        table.last += 1;
        table.bytes += result.body.len();
        let number = table.last;
        table.kept.push_back((number, Arc::new(result)));
        while table.kept.len() > 1 && (table.kept.len() > KEPT || table.bytes > KEPT_BYTES) {
            if let Some((_, oldest)) = table.kept.pop_front() {
                table.bytes -= oldest.body.len();
            }
        }
        number
    }

    /// Forgets a result that the broker does not take.
    pub(super) fn forget(&self, number: u64) {
        let mut table = self.table();
        let at = table.kept.iter().position(|(kept, _)| *kept == number);
        if let Some((_, forgotten)) = at.and_then(|at| table.kept.remove(at)) {
            table.bytes -= forgotten.body.len();
        }
    }

    /// Whether the result is still kept.
    pub(super) fn has(&self, number: u64) -> bool {
        self.table().kept.iter().any(|(kept, _)| *kept == number)
    }

    /// The results for the executor at `reply_to`, the oldest first.
    pub(super) fn of(&self, reply_to: &str) -> Vec<Arc<Kept>> {
        let table = self.table();
        table
            .kept
            .iter()
            .filter(|(_, kept)| kept.reply_to == reply_to)
            .map(|(_, kept)| kept.clone())
            .collect()
    }

    /// No code panics under the lock, so a poisoned lock has a valid table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(reply_to: &str, bytes: usize) -> Kept {
        Kept { reply_to: reply_to.into(), correlation_id: bytes.to_string(), body: vec![0; bytes] }
    }

    #[test]
    fn the_last_results_are_kept_within_a_number_and_a_number_of_bytes() {
        let results = Results::default();
        let first = results.keep(kept("a", 1));
        let second = results.keep(kept("b", 2));
        assert_eq!(results.of("a").iter().map(|kept| kept.body.len()).collect::<Vec<_>>(), [1]);
        let large = results.keep(kept("a", KEPT_BYTES));
        assert!(!results.has(first) && !results.has(second) && results.has(large));
        for _ in 0..KEPT {
            results.keep(kept("a", 1));
        }
        assert!(!results.has(large));
        assert_eq!(results.of("a").len(), KEPT);
    }
}

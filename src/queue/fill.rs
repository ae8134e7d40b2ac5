// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Fill`]: the last known number of entries of a queue, and how many puts are under way.

use std::time::Duration;

use crate::clock::Moment;

/// How long a count is used.
const VALID_FOR: Duration = Duration::from_millis(50);
/// For how many processes the free room of a count is divided: each puts at most its part without counting again.
const PROCESSES: usize = 64;

/// How many entries waited at the last count, and what this process has put since. Counting before each put would make a
/// put take twice as long.
#[derive(Debug, Default)]
pub(super) struct Fill {
    counted: Option<Counted>,
    under_way: usize,
}

#[derive(Debug)]
struct Counted {
    /// The entries, and the puts of this process that were under way at that moment: it may have missed them.
    len: usize,
    at: Moment,
    /// How many puts this process has begun since.
    puts: usize,
}

/// Whether one more entry may be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is room.
    Go,
    /// There is room, and it is time for another count, which may be made at the same time.
    GoAndCount,
    /// Another count is needed before.
    CountFirst,
}

impl Fill {
    /// Whether one more entry may be put. If so, it is under way until [`Fill::ended`].
    pub(super) fn admit(&mut self, now: Moment, max_len: usize) -> Admission {
        let Some(counted) = &mut self.counted else { return Admission::CountFirst };
        let part = max_len.saturating_sub(counted.len) / PROCESSES;
        if counted.puts >= part {
            return Admission::CountFirst;
        }
        counted.puts += 1;
        self.under_way += 1;
        if now.saturating_since(counted.at) < VALID_FOR { Admission::Go } else { Admission::GoAndCount }
    }

    /// Notes a count that was sent at this moment, while `before` puts were under way.
    pub(super) fn set(&mut self, len: usize, at: Moment, before: usize) {
        // Those that have begun meanwhile may not be in it either.
        let puts = self.under_way.saturating_sub(before);
        self.counted = Some(Counted { len: len.saturating_add(before), at, puts });
    }

    /// A put is under way that is not admitted by [`Fill::admit`], because its caller has counted.
    pub(super) fn begin(&mut self) {
        self.under_way += 1;
        if let Some(counted) = &mut self.counted {
            counted.puts += 1;
        }
    }

    /// A put has ended.
    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// How many puts are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_count_admits_a_part_of_the_room_and_not_what_is_under_way() {
        let mut fill = Fill::default();
        assert_eq!(fill.admit(at(0), 1000), Admission::CountFirst);
        fill.set(0, at(0), 0);
        let admitted: Vec<_> = (0..20).map(|_| fill.admit(at(1), 1000)).collect();
        assert_eq!(admitted.iter().filter(|it| **it == Admission::Go).count(), 1000 / PROCESSES);
        assert_eq!((admitted[19], fill.under_way()), (Admission::CountFirst, 15));
        fill.set(900, at(2), 15);
        assert_eq!(fill.admit(at(3), 1000), Admission::Go, "85 are left");
        fill.set(936, at(4), 1);
        assert_eq!(fill.admit(at(5), 1000), Admission::CountFirst, "fewer than the processes there may be");
    }

    #[test]
    fn an_old_count_is_used_while_another_one_is_made() {
        let mut fill = Fill::default();
        fill.set(0, at(0), 0);
        assert_eq!(fill.admit(at(49), 1000), Admission::Go);
        assert_eq!(fill.admit(at(50), 1000), Admission::GoAndCount);
        fill.ended();
        fill.begin();
        assert_eq!(fill.under_way(), 2);
    }
}

//! Compares what all members of a fleet acted on: which keys had two of them at once, and which had none.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::holdings::{Holdings, Interval};

/// What kind of member it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    Python,
    Rust,
}

/// A member as the oracle sees it.
pub(crate) struct Seen<'a> {
    pub(crate) id: &'a str,
    pub(crate) side: Side,
    pub(crate) holdings: &'a Holdings,
}

/// Two members acted on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Overlap {
    pub(crate) key: u32,
    /// The index of the member that had it, and of the one that began later.
    pub(crate) old: usize,
    pub(crate) new: usize,
    pub(crate) at: Interval,
}

/// What went on in a certain time.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) overlaps: Vec<Overlap>,
    /// The longest time in which a key had no member, and the key.
    pub(crate) gap: (u64, u32),
    /// The longest overlap by the sides of both: the one that had it first.
    longest: BTreeMap<(Side, Side), u64>,
}

impl Report {
    /// Compares all keys below `keys` within these bounds.
    pub(crate) fn of(members: &[Seen<'_>], keys: u32, within: Interval) -> Report {
        let mut report = Report { overlaps: Vec::new(), gap: (0, 0), longest: BTreeMap::new() };
        for key in 0..keys {
            report.compare(members, key, within);
        }
        for overlap in &report.overlaps {
            let sides = (members[overlap.old].side, members[overlap.new].side);
            let longest = report.longest.entry(sides).or_default();
            *longest = (*longest).max(overlap.at.1 - overlap.at.0);
        }
        report
    }

    fn compare(&mut self, members: &[Seen<'_>], key: u32, (from, to): Interval) {
        let mut all: Vec<(Interval, usize)> = Vec::new();
        for (number, member) in members.iter().enumerate() {
            let intervals = member.holdings.intervals(key, to).into_iter();
            let within = intervals.filter(|(start, end)| *start < to && *end > from);
            all.extend(within.map(|interval| (interval, number)));
        }
        all.sort_unstable();
        let mut covered = from;
        for (place, &((start, end), new)) in all.iter().enumerate() {
            if start > covered {
                self.gap = self.gap.max((start - covered, key));
            }
            covered = covered.max(end);
            for &((_, old_end), old) in &all[..place] {
                let at = (start.max(from), end.min(old_end));
                if old != new && at.0 < at.1 {
                    self.overlaps.push(Overlap { key, old, new, at });
                }
            }
        }
        if to > covered {
            self.gap = self.gap.max((to - covered, key));
        }
    }

    /// The longest overlap of a member of one side with one of another side that began later.
    pub(crate) fn longest(&self, old: Side, new: Side) -> Duration {
        Duration::from_nanos(self.longest.get(&(old, new)).copied().unwrap_or(0))
    }

    /// The longest time without a member.
    pub(crate) fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.gap.0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Side::{Python, Rust};
        let overlap = |old, new| self.longest(old, new).as_millis();
        write!(
            f,
            "overlap Python to Python {:4} ms, Python to Rust {:4} ms, Rust to Python {:4} ms, Rust to Rust {} ms; gap {:4} ms",
            overlap(Python, Python),
            overlap(Python, Rust),
            overlap(Rust, Python),
            overlap(Rust, Rust),
            self.longest_gap().as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn overlaps_and_gaps_are_found_with_their_members() {
        let mut holdings = [Holdings::default(), Holdings::default(), Holdings::default()];
        let holds = |it: &mut Holdings, key: u32, (from, to): Interval| {
            it.hear(
                &json!({"started": [key], "at": from, "ended": [], "checked": 0, "lost": [], "lost_at": 0}),
            );
            it.hear(
                &json!({"started": [], "at": to, "ended": [key], "checked": to, "lost": [], "lost_at": 0}),
            );
        };
        holds(&mut holdings[0], 0, (0, 60));
        holds(&mut holdings[1], 0, (40, 100));
        holds(&mut holdings[1], 1, (20, 100));
        holds(&mut holdings[2], 1, (70, 80));
        let sides = [Side::Python, Side::Rust, Side::Rust];
        let ids = ["a", "b", "c"];
        let seen = |number: usize| Seen { id: ids[number], side: sides[number], holdings: &holdings[number] };
        let members = [seen(0), seen(1), seen(2)];
        assert_eq!(members[2].id, "c");
        let report = Report::of(&members, 2, (10, 110));
        let expected = [
            Overlap { key: 0, old: 0, new: 1, at: (40, 60) },
            Overlap { key: 1, old: 1, new: 2, at: (70, 80) },
        ];
        assert_eq!(report.overlaps, expected);
        assert_eq!(report.gap, (10, 1));
        assert_eq!(report.longest(Side::Python, Side::Rust), Duration::from_nanos(20));
        assert_eq!(Report::of(&members, 2, (10, 50)).gap, (10, 1), "key 1, from 10 to 20");
    }
}

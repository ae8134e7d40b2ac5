// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Sightings`]: for how long an entry has certainly waited, although neither its name nor a listing says it.

use std::{collections::VecDeque, time::Duration};

use crate::clock::Moment;

/// How many are kept.
const MOST: usize = 64;

/// When which entry was the newest one. Entries are numbered in the order in which they are added, so all with a lower
/// number were there by then.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    seen: VecDeque<(u32, Moment)>,
    /// How far apart they are. It grows when there are too many.
    apart: Duration,
}

impl Sightings {
    /// Notes that entries with numbers from `oldest` to `newest` are there.
    pub(super) fn note(&mut self, oldest: u32, newest: u32, now: Moment) {
        let seen = &mut self.seen;
        // The folder was created anew.
        if seen.back().is_some_and(|(last, _)| *last > newest) {
            seen.clear();
        }
        if seen.back().is_none_or(|(last, _)| *last < newest) {
            // A later moment for some entries is still right.
            if let [.., (_, before), (_, last)] = &*seen.make_contiguous()
                && last.saturating_since(*before) < self.apart
            {
                seen.pop_back();
            }
            seen.push_back((newest, now));
        }
        while seen.front().is_some_and(|(number, _)| *number < oldest) {
            seen.pop_front();
        }
        match (seen.front(), seen.back()) {
            (Some((_, first)), Some((_, last))) if seen.len() > MOST => {
                let (first, last) = (*first, *last);
                self.apart = last.saturating_since(first) / (MOST as u32 / 2);
                let mut next = first;
                seen.retain(|(_, since)| {
                    let is_kept = *since >= next || *since == last;
                    if is_kept {
                        next = *since + self.apart;
                    }
                    is_kept
                });
            }
            _ if seen.len() < 2 => self.apart = Duration::ZERO,
            _ => {}
        }
    }

    /// Since when, at the latest, the entry with this number has been there.
    pub(super) fn since(&self, number: u32) -> Option<Moment> {
        self.seen.iter().find(|(newest, _)| *newest >= number).map(|(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn an_entry_waits_since_it_or_a_later_one_was_seen() {
        let mut seen = Sightings::default();
        seen.note(3, 5, at(10));
        seen.note(3, 5, at(11));
        seen.note(4, 9, at(20));
        assert_eq!((seen.since(4), seen.since(5), seen.since(6)), (Some(at(10)), Some(at(10)), Some(at(20))));
        seen.note(6, 9, at(30));
        assert_eq!((seen.since(6), seen.since(10)), (Some(at(20)), None));
        seen.note(0, 1, at(40));
        assert_eq!(seen.since(0), Some(at(40)), "the folder was created anew");
    }

    #[test]
    fn few_sightings_are_kept_and_none_says_too_long() {
        let mut seen = Sightings::default();
        for number in 0..10_000 {
            seen.note(0, number, at(number.into()));
            assert!(seen.seen.len() <= MOST && seen.since(number) == Some(at(number.into())), "{number}");
        }
        for number in 0..10_000 {
            assert!(seen.since(number) >= Some(at(number.into())), "{number}");
        }
        assert!(seen.since(100) < Some(at(1000)), "{:?}", seen.since(100));
    }
}

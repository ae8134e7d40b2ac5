//! What one member may act on, and when, from what it said.

use std::collections::BTreeMap;

use serde_json::Value;

/// A member of Python keeps its answer until it asks again. If the next answer comes as soon as this, in nanoseconds, what
/// is in both was not interrupted.
const ONE_POLL: u64 = 400_000_000;

/// From when to when, in nanoseconds.
pub(crate) type Interval = (u64, u64);

/// A member of Python asked for its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Poll {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// Whether it was not in the group when it asked, and joined again.
    pub(crate) has_joined: bool,
}

/// What one member acted on so far.
#[derive(Default, Debug)]
pub(crate) struct Holdings {
    /// What it acts on now, and since when.
    open: BTreeMap<u32, u64>,
    /// What it acted on before.
    closed: BTreeMap<u32, Vec<Interval>>,
    /// When it asked for its part: a member of Python at each cycle.
    polls: Vec<Poll>,
    /// Since when it waits for the answer.
    asks_since: Option<u64>,
    /// When it was stopped.
    stops: Vec<Interval>,
    stopped_since: Option<u64>,
    /// What went wrong.
    pub(crate) errors: Vec<String>,
    /// What the newest share said, if it said something of that.
    pub(crate) is_exclusive: Option<bool>,
}

impl Holdings {
    /// Takes in a line. Returns whether it was about what the member acts on.
    pub(crate) fn hear(&mut self, line: &Value) -> bool {
        let time = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        if let Some(error) = line["error"].as_str() {
            self.errors.push(error.to_owned());
        }
        if line["asks"].is_u64() {
            self.asks_since = Some(time("asks"));
        } else if line["keys"].is_array() {
            self.answered(time("at"), &numbers(&line["keys"]), line["has_joined"] == true);
        } else if line["started"].is_array() {
            self.end(&numbers(&line["ended"]), time("checked"));
            self.end(&numbers(&line["lost"]), time("lost_at"));
            let at = time("at");
            self.open.extend(numbers(&line["started"]).into_iter().map(|key| (key, at)));
            self.is_exclusive = line["is_exclusive"].as_bool();
        } else {
            return line["error"].is_string();
        }
        true
    }

    fn answered(&mut self, at: u64, keys: &[u32], has_joined: bool) {
        let asked = self.asks_since.take().expect("it asks before it has an answer");
        self.polls.push(Poll { asked, answered: at, has_joined });
        let is_one_poll = at - asked < ONE_POLL;
        let ends = |key: &u32| !is_one_poll || keys.binary_search(key).is_err();
        let ended: Vec<_> = self.open.keys().copied().filter(ends).collect();
        self.end(&ended, asked);
        for key in keys {
            self.open.entry(*key).or_insert(at);
        }
    }

    fn end(&mut self, keys: &[u32], at: u64) {
        for key in keys {
            if let Some(since) = self.open.remove(key) {
                self.closed.entry(*key).or_default().push((since, at.max(since)));
            }
        }
    }

    /// It acts on nothing from now on: its process has ended.
    pub(crate) fn over(&mut self, at: u64) {
        let at = self.asks_since.take().unwrap_or(at);
        let all: Vec<_> = self.open.keys().copied().collect();
        self.end(&all, at);
        self.is_exclusive = None;
    }

    /// It is stopped from now on.
    pub(crate) fn stopped(&mut self, at: u64) {
        self.stopped_since = Some(at);
    }

    /// It is not stopped any more.
    pub(crate) fn resumed(&mut self, at: u64) {
        self.stops.extend(self.stopped_since.take().map(|since| (since, at)));
    }

    /// How many keys it acts on now.
    pub(crate) fn count(&self, now: u64) -> usize {
        if self.is_active(now) { self.open.len() } else { 0 }
    }

    /// Whether it acts on a key now.
    pub(crate) fn acts_on(&self, key: u32, now: u64) -> bool {
        self.is_active(now) && self.open.contains_key(&key)
    }

    fn is_active(&self, now: u64) -> bool {
        self.stopped_since.is_none() && self.asks_since.is_none_or(|since| now < since + ONE_POLL)
    }

    /// When it asked for its part, in these bounds.
    pub(crate) fn polls_within(&self, (from, to): Interval) -> impl Iterator<Item = Poll> + Clone {
        self.polls.iter().copied().filter(move |poll| (from..=to).contains(&poll.asked))
    }

    /// When it acted on a key, up to now, without the times at which it was stopped.
    pub(crate) fn intervals(&self, key: u32, now: u64) -> Vec<Interval> {
        let closed = self.closed.get(&key).into_iter().flatten().copied();
        let open = self.open.get(&key).map(|since| (*since, self.end_of_open(now)));
        let stops = self.stops.iter().copied().chain(self.stopped_since.map(|since| (since, now)));
        let mut intervals: Vec<_> = closed.chain(open).filter(|(from, to)| from < to).collect();
        for (stop, go) in stops {
            let around = |(from, to): Interval| [(from, to.min(stop)), (from.max(go), to)];
            intervals = intervals.into_iter().flat_map(around).filter(|(from, to)| from < to).collect();
        }
        intervals
    }

    fn end_of_open(&self, now: u64) -> u64 {
        self.asks_since.filter(|since| now >= since + ONE_POLL).unwrap_or(now)
    }
}

fn numbers(list: &Value) -> Vec<u32> {
    let number =
        |value: &Value| value.as_u64().and_then(|number| number.try_into().ok()).expect("keys are numbers");
    let mut numbers: Vec<u32> = list.as_array().expect("a list").iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_answer_lasts_until_the_next_question_and_on_if_the_next_answer_has_it_too() {
        let mut it = Holdings::default();
        for (asks, at, keys) in
            [(0, 1, [1, 2]), (SECOND, SECOND + 2, [2, 3]), (2 * SECOND, 4 * SECOND, [2, 3])]
        {
            it.hear(&json!({"asks": asks}));
            it.hear(&json!({"at": at, "keys": keys}));
        }
        assert_eq!(it.intervals(1, 5 * SECOND), [(1, SECOND)]);
        assert_eq!(
            it.intervals(2, 5 * SECOND),
            [(1, 2 * SECOND), (4 * SECOND, 5 * SECOND)],
            "a poll of two seconds"
        );
        assert_eq!(it.intervals(3, 5 * SECOND), [(SECOND + 2, 2 * SECOND), (4 * SECOND, 5 * SECOND)]);
        assert_eq!(it.polls_within((1, 5 * SECOND)).collect::<Vec<_>>().len(), 2);
        it.stopped(5 * SECOND);
        assert_eq!((it.count(6 * SECOND), it.acts_on(2, 6 * SECOND)), (0, false));
        it.resumed(7 * SECOND);
        assert_eq!(it.count(8 * SECOND), 2);
        it.over(8 * SECOND);
        let around = [(SECOND + 2, 2 * SECOND), (4 * SECOND, 5 * SECOND), (7 * SECOND, 8 * SECOND)];
        assert_eq!(it.intervals(3, 9 * SECOND), around);
    }

    #[test]
    fn guards_last_from_when_they_were_valid_first_to_when_they_were_valid_last() {
        let mut it = Holdings::default();
        let line = |checked, ended: &[u32], lost: &[u32], lost_at, at, started: &[u32]| {
            json!({
                "checked": checked, "ended": ended, "lost": lost, "lost_at": lost_at, "at": at,
                "started": started, "is_exclusive": false,
            })
        };
        it.hear(&line(0, &[], &[], 0, 10, &[1, 2, 3]));
        it.hear(&line(60, &[1], &[2], 10, 62, &[4]));
        assert_eq!(it.intervals(1, 100), [(10, 60)]);
        assert_eq!(it.intervals(2, 100), [(0, 0); 0], "it was lost at an unknown moment after 10");
        assert_eq!(it.intervals(3, 100), [(10, 100)]);
        assert_eq!(it.intervals(4, 100), [(62, 100)]);
        assert_eq!(it.is_exclusive, Some(false));
    }
}

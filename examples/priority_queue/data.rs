//! Data sets, questions about them, and the small cache of a node.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// They start with different letters, which stand for them on the screen.
pub const SETS: [&str; 6] = ["airport", "bus", "cab", "ferry", "metro", "tram"];
/// How many groups each has.
pub const GROUPS: u32 = 8;
const ROWS: usize = 20_000;

/// A question to a node: the payload of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    pub dataset: String,
    pub group: u32,
}

/// The answer of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub rows: usize,
    pub total: i64,
    /// Whether the data was in the cache.
    pub hit: bool,
}

impl Question {
    /// All questions, in a mixed order that is always the same.
    pub fn all() -> Vec<Question> {
        let of = |set: &'static str| (0..GROUPS).map(move |group| Question { dataset: set.into(), group });
        let mut all: Vec<_> = SETS.into_iter().flat_map(of).collect();
        fastrand::Rng::with_seed(4).shuffle(&mut all);
        all
    }

    /// As the original spells it: `dataset:group`.
    pub fn label(&self) -> String {
        format!("{}:{}", self.dataset, self.group)
    }

    /// One group of each data set is urgent.
    pub fn is_urgent(&self) -> bool {
        self.group == 0
    }
}

/// The data set that an entry of this label is about.
pub fn set_of(label: &str) -> &str {
    label.split(':').next().unwrap_or(label)
}

/// Passengers, each with the group that it belongs to.
#[derive(Debug)]
pub struct DataSet {
    name: String,
    rows: Vec<(u32, i64)>,
}

impl DataSet {
    /// The same rows for the same name, everywhere.
    pub fn generate(name: &str) -> DataSet {
        let seed = name.bytes().fold(0, |seed: u64, byte| seed * 31 + u64::from(byte));
        let mut rng = fastrand::Rng::with_seed(seed);
        let rows = (0..ROWS).map(|_| (rng.u32(..GROUPS), rng.i64(1..500))).collect();
        DataSet { name: name.into(), rows }
    }

    pub fn answer(&self, group: u32, hit: bool) -> Answer {
        let rows = self.rows.iter().filter(|(of, _)| *of == group);
        let (rows, total) = rows.fold((0, 0), |(rows, total), (_, value)| (rows + 1, total + value));
        Answer { rows, total, hit }
    }
}

/// The data sets in the cache of a node, the last used one at the end.
#[derive(Debug)]
pub struct Cache {
    room: usize,
    sets: Vec<Arc<DataSet>>,
}

impl Cache {
    pub fn of(room: usize) -> Cache {
        Cache { room, sets: Vec::new() }
    }

    pub fn has(&self, name: &str) -> bool {
        self.sets.iter().any(|set| set.name == name)
    }

    /// The data set, and whether it was in the cache. Loading it takes the time `load`, as over a network.
    pub async fn load(&mut self, name: &str, load: Duration) -> (Arc<DataSet>, bool) {
        let found = self.sets.iter().position(|set| set.name == name);
        let set = match found {
            Some(at) => self.sets.remove(at),
            None => {
                sleep(load).await;
                if !self.sets.is_empty() && self.sets.len() >= self.room {
                    self.sets.remove(0);
                }
                Arc::new(DataSet::generate(name))
            }
        };
        if self.room > 0 {
            self.sets.push(set.clone());
        }
        (set, found.is_some())
    }
}

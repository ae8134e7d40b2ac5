//! The dispatcher: puts questions, collects the answers, and checks that each came once and is right.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use apportion::{
    queue::{Collected, Finished, QueueError, WorkQueue},
    serde_json,
};

use crate::{
    data::{Answer, DataSet, Question, SETS, set_of},
    support::{
        Column, Failure, say,
        screen::{count, green},
        table,
    },
};

/// The usual priority of the original, and one for urgent questions.
const USUAL: u16 = 100;
const URGENT: u16 = 900;

/// Puts all questions. Returns how many were put, and how many were queued already.
pub async fn put(queue: &WorkQueue) -> Result<(usize, usize), QueueError> {
    let (mut new, mut known) = (0, 0);
    for question in Question::all() {
        let priority = if question.is_urgent() { URGENT } else { USUAL };
        match queue.put(&question).unless_queued(question.label()).priority(priority).await {
            Ok(_) => new += 1,
            Err(QueueError::AlreadyQueued { .. }) => known += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((new, known))
}

/// The answers to all questions that were put together.
pub struct Answers {
    start: Instant,
    all: HashMap<String, Question>,
    /// In the order in which they were given, and when they were seen.
    pub seen: Vec<(Finished, Duration)>,
    names: HashSet<String>,
}

impl Answers {
    pub fn new(start: Instant) -> Answers {
        let all = Question::all().into_iter().map(|question| (question.label(), question)).collect();
        Answers { start, all, seen: Vec::new(), names: HashSet::new() }
    }

    pub fn all(&self) -> usize {
        self.all.len()
    }

    /// Whether there is an answer to each question.
    pub fn is_complete(&self) -> bool {
        let mut labels: Vec<_> = self.seen.iter().map(|(it, _)| it.entry().label()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels.len() >= self.all.len()
    }

    /// Waits for some more, and takes them out of the queue.
    pub async fn next(&mut self, queue: &WorkQueue) -> Result<&[(Finished, Duration)], QueueError> {
        let collected = queue.collect(100).await?;
        self.take(collected).await
    }

    /// Takes answers out of the queue, and returns those that are new.
    pub async fn take(&mut self, collected: Collected) -> Result<&[(Finished, Duration)], QueueError> {
        let (before, at) = (self.seen.len(), self.start.elapsed());
        // Stored first and confirmed then: after a failure in between, an answer comes again and is recognised by its
        // name. In the other order, answers would be lost if this is dropped, or if the reply to the confirmation is
        // lost.
        for finished in &collected {
            if self.names.insert(finished.entry().name().to_owned()) {
                self.seen.push((finished.clone(), at));
            }
        }
        match collected.confirm().await {
            Ok(_) | Err(QueueError::OutcomeUnknown { .. }) => {}
            Err(QueueError::Service(error)) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
        Ok(&self.seen[before..])
    }

    /// Fails unless each question has exactly one answer, and the right one.
    pub fn check(&self) -> Result<(), Failure> {
        let mut answers: HashMap<&str, Vec<&Finished>> = HashMap::new();
        for (finished, _) in &self.seen {
            answers.entry(finished.entry().label()).or_default().push(finished);
        }
        let sets: HashMap<_, _> = SETS.map(|set| (set, DataSet::generate(set))).into();
        let wrong = self.all.iter().filter_map(|(label, question)| {
            let [finished] = answers.remove(label.as_str()).unwrap_or_default()[..] else {
                return Some(format!("{label} has not one answer"));
            };
            let answer = answer_of(finished)?;
            let right = sets[set_of(label)].answer(question.group, answer.hit);
            (answer != right).then(|| format!("{label} has a wrong answer"))
        });
        let mut wrong: Vec<_> = wrong.collect();
        let failed = self.seen.iter().filter_map(|(it, _)| Some(format!("{}: {}", it.entry(), it.error()?)));
        wrong.extend(failed);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
    }

    /// A letter for each answer, by node: what it was about, a capital where the data had to be loaded.
    pub fn print_letters(&self) {
        let mut nodes: BTreeMap<&str, String> = BTreeMap::new();
        for (finished, _) in &self.seen {
            let letters = nodes.entry(finished.worker().unwrap_or("?")).or_default();
            let letter = finished.entry().label().chars().next().unwrap_or('?');
            let hit = answer_of(finished).is_some_and(|answer| answer.hit);
            letters.push(if hit { letter } else { letter.to_ascii_uppercase() });
            if finished.attempts() > 1 {
                letters.push('*');
            }
        }
        for (node, letters) in nodes {
            say!("  {node}  {letters}");
        }
    }

    pub fn print_nodes(&self) {
        let mut nodes: BTreeMap<&str, Vec<&Finished>> = BTreeMap::new();
        for (finished, _) in &self.seen {
            nodes.entry(finished.worker().unwrap_or("?")).or_default().push(finished);
        }
        let row = |(node, answers): (&&str, &Vec<&Finished>)| {
            let hits = hits(answers.iter().copied());
            let again = answers.iter().filter(|it| it.attempts() > 1).count();
            vec![
                (*node).to_owned(),
                answers.len().to_string(),
                hits.to_string(),
                (answers.len() - hits).to_string(),
                again.to_string(),
            ]
        };
        let columns = ["entries", "hits", "misses", "redelivered"].map(Column::Right);
        table(&[&[Column::Left("node")], &columns[..]].concat(), nodes.iter().map(row));
    }

    pub fn score(&self) -> Score {
        let urgent = self.seen.iter().filter(|(it, _)| it.entry().priority() == u32::from(URGENT));
        Score {
            entries: self.seen.len(),
            hits: hits(self.seen.iter().map(|(it, _)| it)),
            again: self.seen.iter().filter(|(it, _)| it.attempts() > 1).count(),
            urgent: urgent.map(|(_, at)| *at).max().unwrap_or_default(),
            took: self.seen.iter().map(|(_, at)| *at).max().unwrap_or_default(),
        }
    }

    pub fn say_that_it_is_right(&self) {
        say!("  {}: each exactly once, and it is right.", green(count(self.all.len(), "answer")));
    }
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    pub entries: usize,
    pub hits: usize,
    pub again: usize,
    /// When the last of the urgent ones was answered.
    pub urgent: Duration,
    pub took: Duration,
}

impl Score {
    pub fn hit_rate(&self) -> usize {
        100 * self.hits / self.entries.max(1)
    }
}

fn hits<'a>(answers: impl Iterator<Item = &'a Finished>) -> usize {
    answers.filter(|it| answer_of(it).is_some_and(|answer| answer.hit)).count()
}

fn answer_of(finished: &Finished) -> Option<Answer> {
    serde_json::from_value(finished.result()?.clone()).ok()
}

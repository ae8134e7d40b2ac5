// Pure: no runtime, no clock, no socket, no random numbers.

//! The worker processes of this crate behind each topic, as their inventories show them.
//!
//! A topic may have several workers, and a worker that was restarted is another one. A request that was sent to the
//! topic is at one of them, at the broker, or lost. It is lost if none of them lists it, although each lists what it
//! has, and no request waits at the broker. Then it can be sent again. Two things limit that:
//!
//! - A worker lists a request only after it has received it. So the executor waits for three inventories of each worker.
//!   A worker that sends none may be about to start on it, and has a limited time to do so ([`START_HEARTBEATS`]).
//! - A worker that lists no request may have run it, if its report was lost, or may still get it. So a request whose
//!   reports may be lost, or that may have been sent, is sent again only to the very worker that has the first copy if one
//!   has it: that drops a copy of what it has run. The copy is for that worker only, and others drop it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{lifecycle::START_HEARTBEATS, message::Inventory, sender::Sender};
use crate::clock::Moment;

/// How many inventories have to come without a request before it counts as lost.
const INVENTORIES: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Instances {
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    /// Whether a worker of this crate has answered there.
    is_ours: bool,
    instances: BTreeMap<String, Instance>,
    /// How often its workers send inventories: the longest.
    every: Option<Duration>,
    /// When an inventory said last that the worker had room.
    last_room: Option<Moment>,
    /// Since when the topic has had no consumer.
    absent_since: Option<Moment>,
}

/// One worker process.
#[derive(Debug, Clone, Copy)]
struct Instance {
    first_seen: Moment,
    last_seen: Moment,
    connections: u64,
    /// When the first inventory of its present connection came.
    connected: Moment,
    every: Duration,
}

impl Instances {
    /// A worker of this crate has sent a message that names its topic.
    pub(super) fn meet(&mut self, topic: &str) {
        let topic = self.topics.entry(topic.to_owned()).or_default();
        topic.is_ours = true;
        topic.absent_since = None;
    }

    /// Whether a worker of this crate has answered at the topic.
    pub(super) fn is_ours(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.is_ours)
    }

    /// A worker has sent its inventory.
    pub(super) fn report(&mut self, inventory: &Inventory, sender: &Sender, now: Moment) {
        let topic = self.topics.entry(inventory.topic().to_owned()).or_default();
        topic.is_ours = true;
        topic.absent_since = None;
        if inventory.has_room() {
            topic.last_room = Some(now);
        }
        let connections = sender.connections;
        let every = inventory.every();
        topic.every = topic.every.max(Some(every));
        let new = Instance { first_seen: now, last_seen: now, connections, connected: now, every };
        let instance = topic.instances.entry(sender.name.clone()).or_insert(new);
        instance.last_seen = now;
        instance.every = every;
        if instance.connections < connections {
            instance.connections = connections;
            instance.connected = now;
        }
    }

    /// The broker reports that the topic has no consumer.
    pub(super) fn absent(&mut self, topic: &str, now: Moment) {
        self.topics.entry(topic.to_owned()).or_default().absent_since.get_or_insert(now);
    }

    /// For how long the topic has had no consumer.
    pub(super) fn absence(&self, topic: &str, now: Moment) -> Option<Duration> {
        Some(now.saturating_since(self.topics.get(topic)?.absent_since?))
    }

    /// Whether at `now` the topic had had no consumer for so long that its workers had started on all that they would
    /// start on.
    pub(super) fn is_over(&self, topic: &str, now: Moment) -> bool {
        let Some(Topic { every: Some(every), absent_since: Some(since), .. }) = self.topics.get(topic) else {
            return false;
        };
        now.saturating_since(*since) >= (START_HEARTBEATS + 1) * *every
    }

    /// Removes the workers that have been silent for `expiry`.
    pub(super) fn remove_silent(&mut self, expiry: Duration, now: Moment) {
        for topic in self.topics.values_mut() {
            topic.instances.retain(|_, instance| now.saturating_since(instance.last_seen) < expiry);
        }
    }

    /// Whether this worker has sent an inventory lately.
    pub(super) fn is_alive(&self, topic: &str, name: &str) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.instances.contains_key(name))
    }

    /// Whether this worker is known at another topic only.
    pub(super) fn is_elsewhere(&self, topic: &str, name: &str) -> bool {
        let mut known = self.topics.iter().filter(|(_, found)| found.instances.contains_key(name));
        known.clone().next().is_some() && known.all(|(found, _)| found != topic)
    }

    /// Whether a request that was sent at `first_sent`, and was last sent or listed at `since`, is lost: inventories of
    /// each worker have come for long enough, without it, and a worker had room for it.
    pub(super) fn is_lost(&self, topic: &str, first_sent: Moment, since: Moment, now: Moment) -> bool {
        let Some(topic) = self.topics.get(topic) else { return false };
        let every = topic.instances.values().map(|instance| instance.every).max();
        let (Some(every), Some(room)) = (every, topic.last_room) else { return false };
        room >= since + INVENTORIES * every
            && topic.instances.values().all(|instance| instance.does_not_have(first_sent, since, now))
    }

    /// Whether `name` is the only worker of the topic, and has consumed the topic again after `sent`. Then what was sent
    /// and is not in its inventory is lost.
    pub(super) fn has_come_back(&self, topic: &str, name: &str, sent: Moment) -> bool {
        self.only(topic).is_some_and(|(only, instance)| {
            only == name && instance.connections > 0 && instance.connected >= sent
        })
    }

    /// The one worker that the topic has, if a request that was sent at `sent`, and listed last by `holder`, can only be
    /// there. It has been known for long enough that another worker would be known as well.
    pub(super) fn only_holder(
        &self,
        topic: &str,
        holder: Option<&str>,
        sent: Moment,
        now: Moment,
    ) -> Option<&str> {
        let (only, instance) = self.only(topic)?;
        let is_known = now >= instance.first_seen + INVENTORIES * instance.every;
        let is_there = match holder {
            Some(holder) => holder == only,
            None => instance.first_seen <= sent,
        };
        (is_known && is_there).then_some(only)
    }

    /// The worker of the topic, if it has one only.
    fn only(&self, topic: &str) -> Option<(&str, Instance)> {
        let mut instances = self.topics.get(topic)?.instances.iter();
        let (name, instance) = instances.next()?;
        instances.next().is_none().then_some((name, *instance))
    }
}

impl Instance {
    /// Whether it has not got, and will not start, a request that was sent at `first_sent`, and was last sent or listed
    /// at `since`. No inventory since then lists it.
    fn does_not_have(&self, first_sent: Moment, since: Moment, now: Moment) -> bool {
        let Instance { last_seen, every, .. } = *self;
        let was_gone = first_sent > last_seen + 2 * every;
        // It may have acknowledged the request until its next inventory was due.
        let is_too_late = now.saturating_since(last_seen) >= (START_HEARTBEATS + 2) * every;
        was_gone || is_too_late || last_seen >= since + INVENTORIES * every
    }
}

/// What an inventory lists, to be searched.
pub(super) struct Listed<'a> {
    waiting: BTreeSet<&'a str>,
    running: BTreeSet<&'a str>,
}

impl<'a> Listed<'a> {
    pub(super) fn new(inventory: &'a Inventory) -> Self {
        let set = |ids: &'a [String]| ids.iter().map(String::as_str).collect();
        Listed { waiting: set(inventory.waiting()), running: set(inventory.running()) }
    }

    pub(super) fn is_waiting(&self, id: &str) -> bool {
        self.waiting.contains(id)
    }

    pub(super) fn is_running(&self, id: &str) -> bool {
        self.running.contains(id)
    }
}

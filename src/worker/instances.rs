// Pure: no runtime, no clock, no socket, no random numbers.

//! The worker processes of this crate behind each topic, as their inventories show them.
//!
//! A topic may have several workers, and a worker that was restarted is another one. A request that was sent to the
//! topic is at one of them, at the broker, or lost. It is lost if none of them lists it, although each lists what it
//! has, and no request waits at the broker. Then it can be sent again. Two things limit that:
//!
//! - A worker lists a request only after it has received it. So the executor waits for three inventories.
//! - A worker that lists no request may have run it, if its report was lost. So a request whose reports may be lost is
//!   sent again only to the very worker that it was sent to: that drops a copy of what it has run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{message::Inventory, sender::Sender};
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

    /// Whether a request that was last sent or listed at `since` is lost: inventories have come for long enough, without
    /// it, and a worker had room for it.
    pub(super) fn is_lost(&self, topic: &str, since: Moment) -> bool {
        let Some(topic) = self.topics.get(topic) else { return false };
        let every = topic.instances.values().map(|instance| instance.every).max();
        let (Some(every), Some(room)) = (every, topic.last_room) else { return false };
        room >= since + INVENTORIES * every
    }

    /// Whether `name` has been the only worker of the topic for long enough to know that, and has consumed the topic
    /// again after `sent`. Then what was sent and is not in its inventory is lost.
    pub(super) fn has_come_back(&self, topic: &str, name: &str, sent: Moment, now: Moment) -> bool {
        self.only(topic).is_some_and(|(only, instance)| {
            only == name
                && instance.connections > 0
                && instance.connected >= sent
                && now.saturating_since(instance.first_seen) >= INVENTORIES * instance.every
        })
    }

    /// Whether a request that was sent at `sent`, and listed last by `holder`, can only be at the one worker that the
    /// topic has.
    pub(super) fn is_at_only_worker(&self, topic: &str, holder: Option<&str>, sent: Moment) -> bool {
        self.only(topic).is_some_and(|(only, instance)| match holder {
            Some(holder) => holder == only,
            None => instance.first_seen <= sent,
        })
    }

    /// The worker of the topic, if it has one only.
    fn only(&self, topic: &str) -> Option<(&str, Instance)> {
        let mut instances = self.topics.get(topic)?.instances.iter();
        let (name, instance) = instances.next()?;
        instances.next().is_none().then_some((name, *instance))
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

// Pure: no runtime, no clock, no socket, no random numbers.

//! The requests that are lost before a worker has started on them: how the executor notices, and what it does.

use super::{Action, Engine, entry::Entry};
use crate::{
    clock::Moment,
    worker::{
        error::RequestError, instances::Listed, message::Inventory, sender::Sender, state::RequestState,
    },
};

/// What to do about a request that is lost before a worker has started on it.
enum Loss {
    /// To the same topic.
    SendAgain,
    /// To any worker.
    TakeBack,
    End(RequestError),
}

impl Engine {
    /// A worker reports which requests it has. What it does not have is sent again.
    pub(in crate::worker) fn on_inventory(&mut self, inventory: &Inventory, sender: &Sender, now: Moment) {
        let (topic, name) = (inventory.topic(), &*sender.name);
        self.instances.report(inventory, sender, now);
        if self.finder.seen(topic, now) {
            self.send_waiting(now);
        }
        let listed = Listed::new(inventory);
        let (mut started, mut lost) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.requests {
            if entry.topic.as_deref() != Some(topic) {
                continue;
            }
            if listed.is_running(id) {
                entry.reported(name, now);
                started.push(id.clone());
            } else if listed.is_waiting(id) {
                entry.reported(name, now);
                entry.listed(now);
            } else if entry.is_pending() {
                if !inventory.has_room() {
                    // It may wait at the broker, behind those that the worker has.
                    entry.life.acknowledge(now);
                }
                let holder = entry.holder.as_deref();
                if holder.is_none_or(|holder| holder == name)
                    && self.instances.is_at_only_worker(topic, holder, entry.sent)
                    && self.instances.has_come_back(topic, name, entry.sent, now)
                {
                    lost.push((entry.number, id.clone()));
                }
            }
        }
        for id in started {
            self.run(&id, now);
        }
        lost.sort_unstable();
        for (_, id) in lost {
            self.send_again(&id, now);
        }
    }

    /// The broker returned the request `id`, because `topic` has no consumer. If that was the only copy, it is certain
    /// that the worker has not got it.
    pub(in crate::worker) fn on_returned(&mut self, id: &str, topic: &str, now: Moment) {
        self.finder.suspect(topic);
        let is_only_copy = |entry: &Entry| entry.topic.as_deref() == Some(topic) && entry.copies == 1;
        if self.requests.get(id).is_some_and(is_only_copy) {
            self.take_back(id, now);
        }
    }

    /// A question to `topic`, asked at `asked`, was returned: the topic has no consumer. No request goes there until a
    /// worker answers.
    pub(in crate::worker) fn on_absent(&mut self, topic: &str, asked: Moment, now: Moment) {
        if !self.finder.was_seen_since(topic, asked) {
            self.instances.absent(topic, now);
            self.finder.suspect(topic);
        }
    }

    /// The executor receives no answers any more.
    pub(in crate::worker) fn on_disconnected(&mut self) {
        self.is_connected = false;
    }

    /// The executor receives answers again. Those that were on their way are lost, and the workers need time to repeat
    /// them.
    pub(in crate::worker) fn on_connected(&mut self, now: Moment) {
        self.is_connected = true;
        for entry in self.requests.values_mut() {
            let Some(topic) = &entry.topic else { continue };
            entry.last_response = now;
            // What a worker reported before it was absent has come.
            entry.is_in_doubt |= self.instances.absence(topic, now).is_none();
        }
    }

    /// Sends the requests again that are lost.
    pub(super) fn mend(&mut self, now: Moment) {
        let mut lost: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(id, entry)| Some((entry.number, id.clone(), self.loss(entry, now)?)))
            .collect();
        lost.sort_unstable_by_key(|(number, ..)| *number);
        for (_, id, loss) in lost {
            match loss {
                Loss::SendAgain => self.send_again(&id, now),
                Loss::TakeBack => self.take_back(&id, now),
                Loss::End(error) => self.end(&id, Err(error)),
            }
        }
    }

    /// What to do about this request, if it was sent, no worker has started on it, and it is lost.
    fn loss(&self, entry: &Entry, now: Moment) -> Option<Loss> {
        let topic = entry.topic.as_deref().filter(|_| entry.is_pending() && self.is_connected)?;
        let vanished = || Loss::End(RequestError::WorkerVanished { topic: topic.to_owned() });
        // A worker has a much shorter time to start on a request that it has acknowledged.
        let is_gone =
            self.instances.absence(topic, now).is_some_and(|absence| absence >= self.expiry * 3 / 4);
        if is_gone && !entry.is_in_doubt && self.instances.is_ours(topic) {
            return Some(Loss::TakeBack);
        }
        if is_gone && (self.instances.is_ours(topic) || entry.life.timeout().is_none()) {
            return Some(vanished());
        }
        if !self.instances.is_lost(topic, entry.last_known()) {
            return None;
        }
        let is_safe = !entry.is_in_doubt
            || self.instances.is_at_only_worker(topic, entry.holder.as_deref(), entry.first_sent);
        Some(if is_safe { Loss::SendAgain } else { vanished() })
    }

    /// Sends the request `id` to the same topic once more.
    fn send_again(&mut self, id: &str, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        let Some(topic) = entry.topic.clone().filter(|_| entry.is_pending()) else { return };
        let body = entry.send_again(now);
        self.actions.push(Action::Send { id: id.to_owned(), topic, body });
    }

    /// Makes the request `id` wait for a worker again: the one that it was sent to does not have it, and will not.
    fn take_back(&mut self, id: &str, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        let Some(topic) = entry.take_back() else { return };
        self.finder.release(&topic);
        self.actions.push(Action::Moved { id: id.to_owned(), state: RequestState::Waiting });
        if let Some(id) = self.send(id.to_owned(), now) {
            self.waiting.push_back(id);
        }
    }
}

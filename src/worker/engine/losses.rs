// Pure: no runtime, no clock, no socket, no random numbers.

//! The requests that are lost before a worker has started on them: how the executor notices, and what it does.

use std::time::Duration;

use super::{Action, Engine, entry::Entry};
use crate::{
    clock::Moment,
    worker::{
        error::RequestError,
        instances::Listed,
        lifecycle::{ATTEMPT_TIMEOUT, NOTIFY_PERIOD},
        message::Inventory,
        sender::Sender,
        state::RequestState,
    },
};

/// For how long after it was sent a copy may be on its way: an attempt, and what its end needs to be reported.
const ON_ITS_WAY: Duration = ATTEMPT_TIMEOUT.saturating_add(Duration::from_secs(5));

/// How long workers may need to repeat their results to an executor that is back. It asks them at once and in each period.
const REPEATING: Duration = NOTIFY_PERIOD.saturating_mul(2);

/// What to do about a request that is lost before a worker has started on it.
enum Loss {
    /// To the same topic: to this worker, or to any.
    SendAgain(Option<String>),
    /// To any worker.
    TakeBack,
    End(RequestError),
}

impl Engine {
    /// A worker reports which requests it has. What it does not have is sent again.
    pub(in crate::worker) fn on_inventory(&mut self, inventory: &Inventory, sender: &Sender, now: Moment) {
        let (topic, name) = (inventory.topic(), &*sender.name);
        self.last_message = now;
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
                if self.instances.only_holder(topic, entry.holder.as_deref(), entry.sent, now) == Some(name)
                    && self.instances.has_come_back(topic, name, entry.sent)
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
            self.send_again(&id, Some(name.to_owned()), now);
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
        self.connected = now;
        for entry in self.requests.values_mut() {
            let Some(topic) = &entry.topic else { continue };
            entry.last_response = now;
            entry.is_in_doubt |= !self.instances.is_over(topic, self.last_message);
        }
    }

    /// Sends the requests again that are lost.
    pub(super) fn mend(&mut self, now: Moment) {
        let mut lost: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(id, entry)| Some((self.loss(entry, now)?, entry.number, id.clone())))
            .collect();
        lost.sort_unstable_by_key(|(_, number, _)| *number);
        for (loss, _, id) in lost {
            match loss {
                Loss::SendAgain(only_for) => self.send_again(&id, only_for, now),
                Loss::TakeBack => self.take_back(&id, now),
                Loss::End(error) => self.end(&id, Err(error)),
            }
        }
    }

    /// What to do about this request, if it was sent, no worker has started on it, and it is lost.
    fn loss(&self, entry: &Entry, now: Moment) -> Option<Loss> {
        let topic = entry.topic.as_deref().filter(|_| entry.is_pending() && self.is_connected)?;
        let vanished = || Loss::End(RequestError::WorkerVanished { topic: topic.to_owned() });
        let is_ours = self.instances.is_ours(topic);
        // Until then another worker must not get a copy.
        let is_settled = now.saturating_since(entry.sent) >= ON_ITS_WAY;
        let is_gone =
            self.instances.absence(topic, now).is_some_and(|absence| absence >= self.expiry * 3 / 4);
        if is_gone && !entry.is_in_doubt && is_ours {
            return (is_settled && self.instances.is_over(topic, now)).then_some(Loss::TakeBack);
        }
        if is_gone && (is_ours || entry.life.timeout().is_none()) {
            return Some(vanished());
        }
        let is_lost = self.instances.is_lost(topic, entry.first_sent, entry.last_known(), now);
        if let Some(only) = self.instances.only_holder(topic, entry.holder.as_deref(), entry.first_sent, now)
        {
            // That drops a copy.
            return (is_lost || entry.has_failed).then(|| Loss::SendAgain(Some(only.to_owned())));
        }
        if entry.is_in_doubt {
            let is_back = now.saturating_since(self.connected) >= REPEATING;
            if !(is_lost && is_settled && is_back) {
                return None;
            }
            let reason = format!("no worker at {topic:?} has it any more, and one may have run it");
            return Some(Loss::End(RequestError::OutcomeUnknown { reason }));
        }
        (is_lost && is_settled).then_some(Loss::SendAgain(None))
    }

    /// Sends the request `id` to the same topic once more, to any worker there or `only_for` one.
    fn send_again(&mut self, id: &str, only_for: Option<String>, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        let Some(topic) = entry.topic.clone().filter(|_| entry.is_pending()) else { return };
        let body = entry.send_again(now);
        let is_ours = self.instances.is_ours(&topic);
        self.actions.push(Action::Send { id: id.to_owned(), topic, body, is_ours, only_for });
    }

    /// Makes the request `id` wait for a worker again: the one that it was sent to does not have it, and will not.
    fn take_back(&mut self, id: &str, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        let Some(topic) = entry.take_back() else { return };
        self.finder.release(&topic);
        self.actions.push(Action::Moved { id: id.to_owned(), state: RequestState::Waiting });
        self.send(id.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{
        engine::New,
        message::{NotifyReply, Response},
        transport::TransportError,
    };

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    fn new() -> New {
        New { task: "t".into(), key: None, body: b"{}".to_vec(), timeout: None, run_timeout: None }
    }

    fn lists(engine: &mut Engine, topic: &str, now: Moment) {
        engine.on_notify(&NotifyReply::new(topic, ["t"]), true, now);
    }

    /// `worker`, which shares the topic `a`, lists nothing.
    fn reports(engine: &mut Engine, worker: &str, now: Moment) {
        let inventory = Inventory::new("a", true, Duration::from_secs(5));
        engine.on_inventory(&inventory, &Sender { name: worker.into(), connections: 0 }, now);
    }

    /// An engine with a request that was sent to the workers of topic `a` at 20 s. They are known since 0 s.
    fn with_sent(workers: &[&str]) -> Engine {
        let mut engine = Engine::new(Duration::from_secs(60));
        for seconds in [0, 5, 10, 15, 20] {
            lists(&mut engine, "a", at(seconds));
            workers.iter().for_each(|worker| reports(&mut engine, worker, at(seconds)));
        }
        engine.submit("r".into(), new(), at(20));
        engine.take_actions();
        engine
    }

    /// The topics to which the request is sent, and the workers that copies are for.
    fn sent(engine: &mut Engine) -> Vec<(String, Option<String>)> {
        let sent = |action| match action {
            Action::Send { topic, only_for, .. } => Some((topic.to_string(), only_for)),
            _ => None,
        };
        engine.take_actions().into_iter().filter_map(sent).collect()
    }

    fn ended(engine: &mut Engine) -> Vec<RequestError> {
        let ended = |action| match action {
            Action::End { ended: Err(error), .. } => Some(error),
            _ => None,
        };
        engine.take_actions().into_iter().filter_map(ended).collect()
    }

    fn away() -> TransportError {
        TransportError::Unavailable { reason: "away".into() }
    }

    #[test]
    fn a_request_is_not_sent_again_while_a_silent_worker_of_its_topic_may_start_it() {
        let mut engine = with_sent(&["one", "other"]);
        // The other may have acknowledged the request at 25 s, when its connection broke, and starts it at 65 s.
        for seconds in 21..70 {
            lists(&mut engine, "a", at(seconds));
            reports(&mut engine, "one", at(seconds));
            engine.tick(at(seconds));
            assert_eq!(sent(&mut engine), [], "at {seconds} s");
        }
        engine.tick(at(70));
        assert_eq!(sent(&mut engine), [("a".to_owned(), None)]);
    }

    #[test]
    fn a_request_that_may_have_been_sent_is_sent_again_to_the_only_worker_and_for_that_one_only() {
        let mut engine = with_sent(&["one"]);
        engine.on_not_sent("r", away());
        engine.tick(at(21));
        assert_eq!(sent(&mut engine), [("a".to_owned(), Some("one".to_owned()))]);
    }

    #[test]
    fn a_request_that_may_have_been_sent_is_not_sent_again_while_other_workers_of_its_topic_may_be_unknown() {
        let mut engine = Engine::new(Duration::from_secs(60));
        lists(&mut engine, "a", at(0));
        reports(&mut engine, "one", at(0));
        engine.submit("r".into(), new(), at(1));
        engine.on_not_sent("r", away());
        engine.take_actions();
        for seconds in 2..15 {
            reports(&mut engine, "one", at(seconds));
            engine.tick(at(seconds));
            assert_eq!(sent(&mut engine), [], "at {seconds} s");
        }
        engine.tick(at(15));
        assert_eq!(sent(&mut engine), [("a".to_owned(), Some("one".to_owned()))]);
    }

    #[test]
    fn a_request_whose_second_copy_is_returned_stays_at_its_topic_because_the_first_may_have_arrived() {
        let mut engine = with_sent(&["one"]);
        engine.on_not_sent("r", away());
        engine.tick(at(21));
        assert_eq!(sent(&mut engine).len(), 1);
        lists(&mut engine, "b", at(21));
        engine.on_returned("r", "a", at(21));
        assert_eq!(sent(&mut engine), []);
        // The only copy of a request goes to another topic.
        let mut engine = with_sent(&["one"]);
        lists(&mut engine, "b", at(21));
        engine.on_returned("r", "a", at(21));
        assert_eq!(sent(&mut engine), [("b".to_owned(), None)]);
    }

    #[test]
    fn a_request_that_may_have_been_sent_to_several_workers_is_not_sent_again() {
        let mut engine = with_sent(&["one", "other"]);
        engine.on_not_sent("r", away());
        for seconds in 21..=35 {
            for worker in ["one", "other"] {
                reports(&mut engine, worker, at(seconds));
            }
            engine.tick(at(seconds));
        }
        let ended = ended(&mut engine);
        assert!(matches!(ended[..], [RequestError::OutcomeUnknown { .. }]), "{ended:?}");
    }

    #[test]
    fn a_request_whose_result_may_be_lost_is_not_given_up_before_its_worker_can_repeat_it() {
        let mut engine = with_sent(&["one", "other"]);
        engine.on_disconnected();
        engine.on_connected(at(45));
        for seconds in 21..55 {
            for worker in ["one", "other"] {
                reports(&mut engine, worker, at(seconds));
            }
            engine.tick(at(seconds));
            assert_eq!(ended(&mut engine), [], "at {seconds} s");
        }
        engine.tick(at(55));
        let ended = ended(&mut engine);
        assert!(matches!(ended[..], [RequestError::OutcomeUnknown { .. }]), "{ended:?}");
    }

    #[test]
    fn a_request_goes_to_another_topic_only_if_a_report_of_its_start_cannot_be_lost() {
        // When the executor received a message last before its connection broke, while the worker was gone since 25 s.
        for (last_message, is_sent) in [(30, false), (69, false), (70, true)] {
            let mut engine = with_sent(&["one"]);
            engine.on_absent("a", at(25), at(25));
            lists(&mut engine, "b", at(last_message));
            engine.on_disconnected();
            engine.on_connected(at(72));
            lists(&mut engine, "b", at(80));
            engine.tick(at(80));
            match is_sent {
                true => assert_eq!(sent(&mut engine), [("b".to_owned(), None)]),
                false => {
                    assert_eq!(ended(&mut engine), [RequestError::WorkerVanished { topic: "a".into() }]);
                }
            }
        }
    }

    #[test]
    fn a_copy_that_is_on_its_way_keeps_a_request_at_its_topic() {
        let mut engine = Engine::new(Duration::from_secs(12));
        lists(&mut engine, "a", at(0));
        let inventory = Inventory::new("a", true, Duration::from_millis(500));
        engine.on_inventory(&inventory, &Sender { name: "one".into(), connections: 0 }, at(0));
        engine.submit("r".into(), new(), at(1));
        engine.on_absent("a", at(1), at(1));
        engine.take_actions();
        for seconds in 2..16 {
            lists(&mut engine, "b", at(seconds));
            engine.tick(at(seconds));
            assert_eq!(sent(&mut engine), [], "at {seconds} s");
        }
        engine.tick(at(16));
        assert_eq!(sent(&mut engine), [("b".to_owned(), None)]);
        let running = engine.on_response("r", Ok(Response::Running), Some("two"), at(17));
        assert_eq!(running, crate::worker::engine::Handled::Applied);
    }
}

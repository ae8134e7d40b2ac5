// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Entry`]: one request in the executor's table.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Moment,
    worker::{
        finder::Finder,
        lifecycle::{Lifecycle, Transition},
        state::RequestState,
    },
};

/// A request as it is submitted.
#[derive(Debug)]
pub(in crate::worker) struct New {
    pub(in crate::worker) task: String,
    pub(in crate::worker) key: Option<String>,
    pub(in crate::worker) body: Vec<u8>,
    pub(in crate::worker) timeout: Option<Duration>,
    pub(in crate::worker) run_timeout: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) life: Lifecycle,
    /// Its place among all that were submitted.
    pub(super) number: u64,
    pub(super) task: String,
    pub(super) key: Option<String>,
    /// Empty once a worker has started on it.
    body: Vec<u8>,
    /// The topic of the worker that it was sent to, and that may have got it.
    pub(super) topic: Option<Arc<str>>,
    /// How often it was sent to that topic.
    pub(super) copies: u32,
    /// When it was sent to its topic for the first time, and for the last time.
    pub(super) first_sent: Moment,
    pub(super) sent: Moment,
    /// When an inventory listed it last as waiting.
    listed: Option<Moment>,
    /// The name of the worker of this crate that has reported it last. That promises to repeat RUNNING.
    pub(super) holder: Option<Arc<str>>,
    /// Whether reports about it may have been lost since it was listed last, or a copy may have been sent or not.
    pub(super) is_in_doubt: bool,
    /// Whether the last attempt to send it failed, and it may have been sent.
    pub(super) has_failed: bool,
    /// When the last response about it came.
    pub(super) last_response: Moment,
    pub(super) run_timeout: Option<Duration>,
    pub(super) started: Moment,
}

impl Entry {
    pub(super) fn new(new: New, number: u64, now: Moment) -> Self {
        let New { task, key, body, timeout, run_timeout } = new;
        Entry {
            life: Lifecycle::new(now, timeout),
            number,
            task,
            key,
            body,
            topic: None,
            copies: 0,
            first_sent: now,
            sent: now,
            listed: None,
            holder: None,
            is_in_doubt: false,
            has_failed: false,
            last_response: now,
            run_timeout,
            started: now,
        }
    }

    /// Whether it was sent, and no worker has started on it.
    pub(super) fn is_pending(&self) -> bool {
        self.life.state() == RequestState::Pending
    }

    /// When it was sent or listed last.
    pub(super) fn last_known(&self) -> Moment {
        self.listed.map_or(self.sent, |listed| listed.max(self.sent))
    }

    /// It is sent to the worker of `topic`. Returns what to send.
    pub(super) fn send(&mut self, topic: Arc<str>, now: Moment) -> Vec<u8> {
        self.life.step(RequestState::Pending).expect("only a waiting request is sent");
        self.topic = Some(topic);
        self.first_sent = now;
        self.copies = 0;
        self.send_again(now)
    }

    /// It is sent once more. Returns what to send.
    pub(super) fn send_again(&mut self, now: Moment) -> Vec<u8> {
        self.copies += 1;
        self.sent = now;
        self.has_failed = false;
        self.body.clone()
    }

    /// It is unknown whether the last copy was sent.
    pub(super) fn may_be_sent(&mut self) {
        // What is listed has arrived.
        if self.listed.is_none_or(|listed| listed < self.sent) {
            (self.is_in_doubt, self.has_failed) = (true, true);
        }
    }

    /// Its worker does not have it. Returns the topic of that worker; `None` if a worker has started on it.
    pub(super) fn take_back(&mut self) -> Option<Arc<str>> {
        if !self.life.take_back() {
            return None;
        }
        (self.listed, self.holder, self.is_in_doubt) = (None, None, false);
        self.topic.take()
    }

    /// The worker `name` of this crate has sent a report about it.
    pub(super) fn reported(&mut self, name: &str, now: Moment) {
        self.last_response = now;
        if self.holder.as_deref() != Some(name) {
            self.holder = Some(name.into());
        }
    }

    /// An inventory lists it as waiting.
    pub(super) fn listed(&mut self, now: Moment) {
        self.listed = Some(now);
        (self.is_in_doubt, self.has_failed) = (false, false);
        self.life.acknowledge(now);
    }

    /// A worker has started on it. Returns whether that is new.
    pub(super) fn run(&mut self, now: Moment) -> bool {
        let is_new = self.life.step(RequestState::Running) == Ok(Transition::Moved);
        if is_new {
            self.started = now;
            self.body = Vec::new();
        }
        is_new
    }

    /// Whether no response about it came for too long.
    pub(super) fn is_silent(&self, expiry: Duration, now: Moment) -> bool {
        now.saturating_since(self.last_response) >= expiry
    }

    /// Whether it runs on a worker of TaskFlow that is silent: the worker is busy, or dead.
    pub(super) fn needs_check(&self, finder: &Finder, expiry: Duration, now: Moment) -> bool {
        self.life.state() == RequestState::Running
            && self.holder.is_none()
            && self.is_silent(expiry, now)
            && self.topic.as_ref().is_some_and(|topic| !finder.knows(topic))
    }
}

//! A transport with faults.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use apportion::{
    BoxFuture,
    clock::Clock,
    worker::{
        LocalBroker,
        transport::{Acker, Acknowledgement, Consumer, Incoming, Message, Transport, TransportError},
    },
};
use futures_core::Stream;
use tokio::time::sleep;

/// The faults of a [`Faulty`] transport, in percent of the messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u8,
    pub(crate) twice: u8,
    /// Sent only after a later message.
    pub(crate) late: u8,
    /// Reported as not sent, half of them after they were.
    pub(crate) refused: u8,
    /// The connection breaks when the next message is asked for.
    pub(crate) broken: u8,
    /// The acknowledgement fails.
    pub(crate) unacknowledged: u8,
}

/// A transport that fails at random, or as a rule says.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    inner: LocalBroker,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    faults: Faults,
    held_back: Vec<(String, Message)>,
    /// How often a message to this topic is still refused.
    refusals: HashMap<String, (u32, TransportError)>,
    attempts: HashMap<String, u32>,
    /// How much later than its arrival the sender of a message gets the confirmation.
    lag: Duration,
}

impl State {
    fn happens(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }
}

impl Faulty {
    pub(crate) fn new(inner: &LocalBroker, seed: u64, faults: Faults) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            faults,
            held_back: Vec::new(),
            refusals: HashMap::new(),
            attempts: HashMap::new(),
            lag: Duration::ZERO,
        };
        Faulty { inner: inner.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// From now on the next `times` messages to `topic` are not sent.
    pub(crate) fn refuse(&self, topic: &str, times: u32, error: TransportError) {
        self.state.lock().unwrap().refusals.insert(topic.into(), (times, error));
    }

    /// How often it was tried to send to `topic`.
    pub(crate) fn attempts(&self, topic: &str) -> u32 {
        self.state.lock().unwrap().attempts.get(topic).copied().unwrap_or(0)
    }

    /// From now on the confirmation of a message comes so much later than its arrival.
    pub(crate) fn lag(&self, lag: Duration) {
        self.state.lock().unwrap().lag = lag;
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }
}

fn unavailable() -> TransportError {
    TransportError::Unavailable { reason: "on purpose".into() }
}

impl Transport for Faulty {
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>> {
        let mut copies = Vec::new();
        // A second copy that comes later.
        let mut second = None;
        let id = (topic.to_owned(), message.correlation_id.clone());
        let lag;
        let result = {
            let mut state = self.state.lock().unwrap();
            lag = state.lag;
            *state.attempts.entry(topic.into()).or_default() += 1;
            let faults = state.faults;
            let refusal = state.refusals.get_mut(topic).filter(|(left, _)| *left > 0).map(|(left, error)| {
                *left -= 1;
                error.clone()
            });
            if let Some(error) = refusal {
                Err(error)
            } else if state.happens(faults.refused) {
                if state.rng.bool() {
                    copies.push((topic.to_owned(), message));
                }
                Err(unavailable())
            } else {
                if state.happens(faults.late) {
                    state.held_back.push((topic.to_owned(), message));
                } else if !state.happens(faults.lost) {
                    if state.happens(faults.twice) {
                        let copy = (topic.to_owned(), message.clone());
                        if state.rng.bool() { copies.push(copy) } else { second = Some(copy) }
                    }
                    copies.push((topic.to_owned(), message));
                    if state.happens(10) {
                        copies.append(&mut state.held_back);
                    }
                }
                Ok(())
            }
        };
        Box::pin(async move {
            let mut result = result;
            for (topic, message) in copies {
                let is_own = (&topic, &message.correlation_id) == (&id.0, &id.1);
                // What was held back was accepted before.
                if let Err(error) = self.inner.publish(&topic, message).await
                    && is_own
                    && result.is_ok()
                {
                    result = Err(error);
                }
            }
            // What the sender gets back with an error that says so is nowhere.
            if result.is_ok() {
                self.state.lock().unwrap().held_back.extend(second);
            }
            if !lag.is_zero() {
                sleep(lag).await;
            }
            result
        })
    }

    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>> {
        Box::pin(async move {
            let inner = Some(self.inner.consume(topic, prefetch).await?);
            Ok(Consumer::new(FaultyDeliveries { inner, state: self.state.clone() }))
        })
    }

    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>> {
        self.inner.is_consumed(topic)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

struct FaultyDeliveries {
    inner: Option<Consumer>,
    state: Arc<Mutex<State>>,
}

impl Stream for FaultyDeliveries {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let next = Pin::new(inner).poll_next(cx);
        if let Poll::Ready(Some(incoming)) = next {
            let mut state = self.state.lock().unwrap();
            let faults = state.faults;
            if state.happens(faults.broken) {
                drop(state);
                drop(incoming);
                self.inner = None;
                return Poll::Ready(None);
            }
            let fails = state.happens(faults.unacknowledged);
            let message = incoming.message().clone();
            return Poll::Ready(Some(Incoming::new(message, FaultyAcker { inner: incoming, fails })));
        }
        next
    }
}

struct FaultyAcker {
    inner: Incoming,
    fails: bool,
}

impl Acker for FaultyAcker {
    fn acknowledge(self: Box<Self>, how: Acknowledgement) -> BoxFuture<'static, Result<(), TransportError>> {
        let FaultyAcker { inner, fails } = *self;
        let fails = fails && how == Acknowledgement::Ack;
        Box::pin(async move {
            match how {
                // The broker gets it, and its answer is lost.
                Acknowledgement::Ack => inner.ack().await.map(drop)?,
                Acknowledgement::Reject => inner.reject().await?,
                Acknowledgement::Requeue => inner.requeue().await?,
            }
            if fails { Err(unavailable()) } else { Ok(()) }
        })
    }
}

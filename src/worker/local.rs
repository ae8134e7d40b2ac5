//! A broker in the process: [`LocalBroker`], the embedded default, with the semantics that
//! [`transport`](crate::worker::transport) asks for.
//!
//! Messages of one topic go to its consumers in turn, in the order in which they were sent; one that is given back
//! goes to the front. Memory is bounded: a topic holds a limited number of messages, those in the hands of
//! consumers included, and refuses further ones with [`TransportError::Unavailable`] until some are settled.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{
    clock::{Clock, TokioClock},
    future::BoxFuture,
    worker::transport::{
        Consumer, Deliveries, Incoming, Message, Receipt, Settlement, Transport, TransportError,
    },
};

/// How many messages a topic holds unless told otherwise.
const LIMIT: usize = 100_000;

/// A broker in the process, on tokio's clock. Clones are handles to the same one.
#[derive(Clone)]
pub struct LocalBroker {
    exchange: Arc<Mutex<Exchange>>,
    clock: Arc<TokioClock>,
    limit: usize,
}

impl LocalBroker {
    /// A broker that nobody uses yet.
    pub fn new() -> Self {
        LocalBroker { exchange: Arc::default(), clock: Arc::new(TokioClock::new()), limit: LIMIT }
    }

    /// The handle with another limit: through it, a message is refused if its topic holds `messages` already. The
    /// default is 100 000.
    #[must_use]
    pub fn limit(mut self, messages: usize) -> Self {
        self.limit = messages;
        self
    }

    /// How many messages a topic holds: those that wait, and those in the hands of a consumer.
    pub fn held(&self, topic: &str) -> usize {
        self.act(|exchange| exchange.queues.get(topic).map_or(0, |queue| queue.held))
    }

    /// The clock that executors and workers on this broker go by, which can be told to jump.
    pub fn tokio_clock(&self) -> &TokioClock {
        &self.clock
    }

    fn act<T>(&self, act: impl FnOnce(&mut Exchange) -> T) -> T {
        act_on(&self.exchange, act)
    }
}

/// Acts on the exchange, and wakes the consumers that this concerns when the lock is free again. Nothing panics
/// under the lock, so a poisoned one is as good as any.
fn act_on<T>(exchange: &Mutex<Exchange>, act: impl FnOnce(&mut Exchange) -> T) -> T {
    let mut exchange = exchange.lock().unwrap_or_else(PoisonError::into_inner);
    let done = act(&mut exchange);
    let woken = std::mem::take(&mut exchange.woken);
    drop(exchange);
    woken.into_iter().for_each(Waker::wake);
    done
}

impl Default for LocalBroker {
    fn default() -> Self {
        LocalBroker::new()
    }
}

impl fmt::Debug for LocalBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.act(|exchange| {
            let held = exchange.queues.iter().map(|(topic, queue)| (topic, queue.held));
            f.write_str("LocalBroker ")?;
            f.debug_map().entries(held).finish()
        })
    }
}

impl Transport for LocalBroker {
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move { self.act(|exchange| exchange.publish(topic, message, self.limit)) })
    }

    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>> {
        Box::pin(async move {
            let place = self.act(|exchange| exchange.consume(topic, prefetch))?;
            Ok(Consumer::new(LocalConsumer { exchange: self.exchange.clone(), place }))
        })
    }

    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>> {
        Box::pin(async move {
            self.act(|exchange| match exchange.closed {
                true => Err(TransportError::Closed),
                false => Ok(exchange.queues.contains_key(topic)),
            })
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.act(Exchange::close) })
    }
}

/// All queues, by topic.
#[derive(Default)]
struct Exchange {
    queues: HashMap<String, Queue>,
    /// The wakers to call once the lock is free.
    woken: Vec<Waker>,
    last_id: u64,
    closed: bool,
}

struct Queue {
    /// Tells this queue from an earlier one of the same topic.
    id: u64,
    ready: VecDeque<Message>,
    /// How many messages it holds: ready, or with a consumer and not settled.
    held: usize,
    /// The one that was served longest ago comes first.
    consumers: VecDeque<Member>,
}

struct Member {
    id: u64,
    prefetch: usize,
    unsettled: usize,
    /// Those of the unsettled that it has not picked up yet.
    inbox: VecDeque<Message>,
    waker: Option<Waker>,
}

/// Which consumer of which queue.
#[derive(Clone)]
struct Place {
    topic: Arc<str>,
    queue: u64,
    member: u64,
}

impl Exchange {
    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn publish(&mut self, topic: &str, message: Message, limit: usize) -> Result<(), TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        let Some(queue) = self.queues.get_mut(topic) else {
            return Ok(());
        };
        if queue.held >= limit {
            let reason = format!("topic {topic:?} holds {} messages already", queue.held);
            return Err(TransportError::Unavailable { reason });
        }
        queue.held += 1;
        queue.ready.push_back(message);
        queue.hand_out(&mut self.woken);
        Ok(())
    }

    fn consume(&mut self, topic: &str, prefetch: u16) -> Result<Place, TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        let (new_queue, member) = (self.new_id(), self.new_id());
        let queue = self.queues.entry(topic.to_owned()).or_insert_with(|| Queue {
            id: new_queue,
            ready: VecDeque::new(),
            held: 0,
            consumers: VecDeque::new(),
        });
        queue.consumers.push_front(Member {
            id: member,
            prefetch: usize::from(prefetch.max(1)),
            unsettled: 0,
            inbox: VecDeque::new(),
            waker: None,
        });
        let queue_id = queue.id;
        queue.hand_out(&mut self.woken);
        Ok(Place { topic: topic.into(), queue: queue_id, member })
    }

    fn poll_next(&mut self, place: &Place, waker: &Waker) -> Poll<Option<Message>> {
        let member = queue_of(&mut self.queues, place).and_then(|queue| queue.member(place.member));
        let Some(member) = member else {
            return Poll::Ready(None);
        };
        if let Some(message) = member.inbox.pop_front() {
            return Poll::Ready(Some(message));
        }
        member.waker = Some(waker.clone());
        Poll::Pending
    }

    /// `given_back` is the message, if it is to be delivered again.
    fn settle(&mut self, place: &Place, given_back: Option<Message>) -> Result<(), TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        let Some(queue) = queue_of(&mut self.queues, place) else {
            return Ok(());
        };
        if let Some(member) = queue.member(place.member) {
            member.unsettled -= 1;
        }
        match given_back {
            Some(message) => queue.ready.push_front(message),
            None => queue.held -= 1,
        }
        queue.hand_out(&mut self.woken);
        Ok(())
    }

    fn leave(&mut self, place: &Place) {
        let Some(queue) = queue_of(&mut self.queues, place) else {
            return;
        };
        let Some(index) = queue.consumers.iter().position(|member| member.id == place.member) else {
            return;
        };
        let left = queue.consumers.remove(index).expect("it was just found");
        if queue.consumers.is_empty() {
            self.queues.remove(&*place.topic);
            return;
        }
        for message in left.inbox.into_iter().rev() {
            queue.ready.push_front(message);
        }
        queue.hand_out(&mut self.woken);
    }

    fn close(&mut self) {
        self.closed = true;
        for (_, queue) in self.queues.drain() {
            self.woken.extend(queue.consumers.into_iter().filter_map(|member| member.waker));
        }
    }
}

/// The queue that this place is in, unless it has ended.
fn queue_of<'a>(queues: &'a mut HashMap<String, Queue>, place: &Place) -> Option<&'a mut Queue> {
    queues.get_mut(&*place.topic).filter(|queue| queue.id == place.queue)
}

impl Queue {
    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.consumers.iter_mut().find(|member| member.id == id)
    }

    /// Gives what is ready to consumers that may have more, in turn.
    fn hand_out(&mut self, woken: &mut Vec<Waker>) {
        while !self.ready.is_empty() {
            let free = self.consumers.iter().position(|member| member.unsettled < member.prefetch);
            let Some(mut member) = free.and_then(|index| self.consumers.remove(index)) else {
                return;
            };
            member.unsettled += 1;
            member.inbox.extend(self.ready.pop_front());
            woken.extend(member.waker.take());
            self.consumers.push_back(member);
        }
    }
}

struct LocalConsumer {
    exchange: Arc<Mutex<Exchange>>,
    place: Place,
}

impl Deliveries for LocalConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let polled = act_on(&self.exchange, |exchange| exchange.poll_next(&self.place, cx.waker()));
        polled.map(|next| {
            next.map(|message| {
                let receipt = LocalReceipt {
                    exchange: self.exchange.clone(),
                    place: self.place.clone(),
                    unsettled: Some(message.clone()),
                };
                Incoming::new(message, receipt)
            })
        })
    }
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        act_on(&self.exchange, |exchange| exchange.leave(&self.place));
    }
}

struct LocalReceipt {
    exchange: Arc<Mutex<Exchange>>,
    place: Place,
    unsettled: Option<Message>,
}

impl Receipt for LocalReceipt {
    fn settle(mut self: Box<Self>, how: Settlement) -> BoxFuture<'static, Result<(), TransportError>> {
        let message = self.unsettled.take().filter(|_| how == Settlement::Requeue);
        let settled = act_on(&self.exchange, |exchange| exchange.settle(&self.place, message));
        Box::pin(async move { settled })
    }
}

impl Drop for LocalReceipt {
    fn drop(&mut self) {
        if let Some(message) = self.unsettled.take() {
            // An error means that the broker was closed, with all it held.
            let _ = act_on(&self.exchange, |exchange| exchange.settle(&self.place, Some(message)));
        }
    }
}

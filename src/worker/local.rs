//! [`LocalBroker`]: a broker in the process, which behaves as [`transport`](crate::worker::transport) demands.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_core::Stream;

use crate::{
    clock::{Clock, TokioClock},
    future::BoxFuture,
    worker::transport::{Acker, Acknowledgement, Consumer, Incoming, Message, Transport, TransportError},
};

/// How many messages a topic may have, by default.
const LIMIT: usize = 100_000;

/// A broker in the process, on tokio's clock. Clones are handles to the same one.
///
/// The messages of one topic go to its consumers in turn, in the order in which they were sent. A message that is given
/// back is delivered next. Memory is bounded: a topic has a limited number of messages, including those that were
/// delivered and not acknowledged yet. It refuses further messages with [`TransportError::Unavailable`] until some are
/// acknowledged.
#[derive(Clone)]
pub struct LocalBroker {
    exchange: Arc<Mutex<Exchange>>,
    clock: Arc<TokioClock>,
    limit: usize,
}

impl LocalBroker {
    /// A broker without topics.
    pub fn new() -> Self {
        LocalBroker { exchange: Arc::default(), clock: Arc::new(TokioClock::new()), limit: LIMIT }
    }

    /// Returns this handle with another limit: through it, a message is refused if its topic already has `messages`
    /// messages. Default: 100,000.
    #[must_use]
    pub fn limit(mut self, messages: usize) -> Self {
        self.limit = messages;
        self
    }

    /// The number of messages of a topic: those that wait, and those that were delivered and not acknowledged yet.
    pub fn message_count(&self, topic: &str) -> usize {
        self.act(|exchange| exchange.queues.get(topic).map_or(0, |queue| queue.messages))
    }

    /// The clock of the executors and workers on this broker. A test can let it [`jump`](TokioClock::jump).
    pub fn clock(&self) -> Arc<TokioClock> {
        self.clock.clone()
    }

    fn act<T>(&self, act: impl FnOnce(&mut Exchange) -> T) -> T {
        act_on(&self.exchange, act)
    }
}

/// Acts on the exchange, and wakes its consumers after the lock is released. No code panics under the lock, so a
/// poisoned lock has a valid exchange.
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
            let messages = exchange.queues.iter().map(|(topic, queue)| (topic, queue.messages));
            f.write_str("LocalBroker ")?;
            f.debug_map().entries(messages).finish()
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

/// All queues, by topic. Ordered, so that consumers are woken in the same order each time.
#[derive(Default)]
struct Exchange {
    queues: BTreeMap<String, Queue>,
    /// The wakers to call after the lock is released.
    woken: Vec<Waker>,
    last_id: u64,
    closed: bool,
}

struct Queue {
    /// Another number than that of an earlier queue of the same topic.
    id: u64,
    ready: VecDeque<Message>,
    /// How many messages it has: ready, or delivered and not acknowledged.
    messages: usize,
    /// The consumer that was served longest ago comes first.
    consumers: VecDeque<Member>,
}

struct Member {
    id: u64,
    prefetch: usize,
    unacknowledged: usize,
    /// Its unacknowledged messages that it has not yielded yet.
    inbox: VecDeque<Message>,
    waker: Option<Waker>,
}

/// Identifies a consumer of a queue.
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

    fn publish(&mut self, topic: &str, mut message: Message, limit: usize) -> Result<(), TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        let is_mandatory = std::mem::take(&mut message.is_mandatory);
        let Some(queue) = self.queues.get_mut(topic) else {
            let missing = || Err(TransportError::NoConsumer { topic: topic.to_owned() });
            return if is_mandatory { missing() } else { Ok(()) };
        };
        if queue.messages >= limit {
            let reason = format!("topic {topic:?} already has {} messages", queue.messages);
            return Err(TransportError::Unavailable { reason });
        }
        queue.messages += 1;
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
            messages: 0,
            consumers: VecDeque::new(),
        });
        queue.consumers.push_front(Member {
            id: member,
            prefetch: usize::from(prefetch.max(1)),
            unacknowledged: 0,
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
    fn acknowledge(&mut self, place: &Place, given_back: Option<Message>) -> Result<(), TransportError> {
        if self.closed {
            return Err(TransportError::Closed);
        }
        let Some(queue) = queue_of(&mut self.queues, place) else {
            return Ok(());
        };
        if let Some(member) = queue.member(place.member) {
            member.unacknowledged -= 1;
        }
        match given_back {
            Some(message) => queue.ready.push_front(message),
            None => queue.messages -= 1,
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
        for queue in std::mem::take(&mut self.queues).into_values() {
            self.woken.extend(queue.consumers.into_iter().filter_map(|member| member.waker));
        }
    }
}

/// The queue of this place, unless it has ended.
fn queue_of<'a>(queues: &'a mut BTreeMap<String, Queue>, place: &Place) -> Option<&'a mut Queue> {
    queues.get_mut(&*place.topic).filter(|queue| queue.id == place.queue)
}

impl Queue {
    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.consumers.iter_mut().find(|member| member.id == id)
    }

    /// Gives the ready messages to consumers below their prefetch limit, in turn.
    fn hand_out(&mut self, woken: &mut Vec<Waker>) {
        while !self.ready.is_empty() {
            let free = self.consumers.iter().position(|member| member.unacknowledged < member.prefetch);
            let Some(mut member) = free.and_then(|index| self.consumers.remove(index)) else {
                return;
            };
            member.unacknowledged += 1;
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

impl Stream for LocalConsumer {
    type Item = Incoming;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let polled = act_on(&self.exchange, |exchange| exchange.poll_next(&self.place, cx.waker()));
        polled.map(|next| {
            next.map(|message| {
                let acker = LocalAcker {
                    exchange: self.exchange.clone(),
                    place: self.place.clone(),
                    unacknowledged: Some(message.clone()),
                };
                Incoming::new(message, acker)
            })
        })
    }
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        act_on(&self.exchange, |exchange| exchange.leave(&self.place));
    }
}

struct LocalAcker {
    exchange: Arc<Mutex<Exchange>>,
    place: Place,
    unacknowledged: Option<Message>,
}

impl Acker for LocalAcker {
    fn acknowledge(
        mut self: Box<Self>,
        how: Acknowledgement,
    ) -> BoxFuture<'static, Result<(), TransportError>> {
        let message = self.unacknowledged.take().filter(|_| how == Acknowledgement::Requeue);
        let acknowledged = act_on(&self.exchange, |exchange| exchange.acknowledge(&self.place, message));
        Box::pin(async move { acknowledged })
    }
}

impl Drop for LocalAcker {
    fn drop(&mut self) {
        if let Some(message) = self.unacknowledged.take() {
            // An error means that the broker was closed, with all its messages.
            let _ = act_on(&self.exchange, |exchange| exchange.acknowledge(&self.place, Some(message)));
        }
    }
}

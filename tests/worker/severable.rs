//! A transport whose connection the test cuts, over a broker in the process.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use apportion::{
    BoxFuture,
    clock::Clock,
    worker::{
        LocalBroker,
        transport::{Consumer, Incoming, Message, Transport, TransportError},
    },
};
use futures_core::Stream;

/// One connection to a broker. As with AMQP, what waits for its consumers is lost with it, unless others consume the
/// same topic.
#[derive(Debug, Clone)]
pub(crate) struct Severable {
    inner: LocalBroker,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: bool,
    is_frozen: bool,
    /// How many calls to consume a topic will never end.
    hanging: u32,
    /// Consumers of earlier connections have ended.
    connection: u32,
    woken: Vec<Waker>,
}

impl Severable {
    pub(crate) fn new(inner: &LocalBroker) -> Self {
        Severable { inner: inner.clone(), state: Arc::default() }
    }

    /// Cuts the connection. There is none until [`Severable::mend`].
    pub(crate) fn cut(&self) {
        self.change(|state| {
            state.is_cut = true;
            state.is_frozen = false;
            state.connection += 1;
        });
    }

    /// A new connection is possible.
    pub(crate) fn mend(&self) {
        self.change(|state| state.is_cut = false);
    }

    /// Messages come to the process and are not read, until [`Severable::cut`].
    pub(crate) fn freeze(&self) {
        self.change(|state| state.is_frozen = true);
    }

    /// The next `calls` to consume a topic never end.
    pub(crate) fn hang(&self, calls: u32) {
        self.change(|state| state.hanging = calls);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        std::mem::take(&mut state.woken).into_iter().for_each(Waker::wake);
    }

    fn check(&self) -> Result<u32, TransportError> {
        let state = self.state.lock().unwrap();
        match state.is_cut {
            true => Err(TransportError::Unavailable { reason: "cut".into() }),
            false => Ok(state.connection),
        }
    }
}

impl Transport for Severable {
    fn publish<'a>(&'a self, topic: &'a str, message: Message) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.publish(topic, message).await
        })
    }

    fn consume<'a>(
        &'a self,
        topic: &'a str,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Consumer, TransportError>> {
        Box::pin(async move {
            let connection = self.check()?;
            let is_hanging = {
                let mut state = self.state.lock().unwrap();
                let left = state.hanging.checked_sub(1);
                state.hanging = left.unwrap_or(0);
                left.is_some()
            };
            if is_hanging {
                pending::<()>().await;
            }
            let inner = Some(self.inner.consume(topic, prefetch).await?);
            Ok(Consumer::new(Deliveries { inner, connection, state: self.state.clone() }))
        })
    }

    fn is_consumed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<bool, TransportError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.is_consumed(topic).await
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

struct Deliveries {
    inner: Option<Consumer>,
    connection: u32,
    state: Arc<Mutex<State>>,
}

impl Stream for Deliveries {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let this = &mut *self;
        let mut state = this.state.lock().unwrap();
        if state.connection != this.connection {
            drop(state);
            this.inner = None;
            return Poll::Ready(None);
        }
        state.woken.push(cx.waker().clone());
        if state.is_frozen {
            return Poll::Pending;
        }
        drop(state);
        this.inner.as_mut().map_or(Poll::Ready(None), |inner| Pin::new(inner).poll_next(cx))
    }
}

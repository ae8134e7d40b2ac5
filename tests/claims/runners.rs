//! The runners of boards and queues: what handlers do ends as they say, one that fails keeps no other waiting, and the end
//! of a runner loses nothing.

mod boards;
mod one_of_many;
mod queues;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use apportion::run::Failure;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{SECOND, until};

/// Longer than any expected event takes.
const BOUND: Duration = Duration::from_secs(60);

/// What handlers have done, in its order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn has(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|it| *it == what).count()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Handlers that work until they are let go, and how many do so at the same time.
#[derive(Debug, Clone, Default)]
struct Crowd(Arc<Mutex<Numbers>>, Arc<Notify>);

#[derive(Debug, Default)]
struct Numbers {
    here: usize,
    most: usize,
    done: usize,
    is_free: bool,
}

impl Crowd {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap()
    }

    async fn work(self) -> Result<(), Failure> {
        {
            let mut numbers = self.numbers();
            numbers.here += 1;
            numbers.most = numbers.most.max(numbers.here);
        }
        let let_go = self.1.notified();
        if !self.numbers().is_free {
            let_go.await;
        }
        let mut numbers = self.numbers();
        numbers.here -= 1;
        numbers.done += 1;
        Ok(())
    }

    /// Waits until so many work, and until all are done; there are never more.
    async fn is_always(&self, allowed: usize, all: usize) {
        while self.numbers().done + allowed <= all {
            until("as many work as allowed", BOUND, || self.numbers().here == allowed).await;
            // There is time for more.
            sleep(5 * SECOND).await;
            assert_eq!(self.numbers().here, allowed);
            self.1.notify_one();
            let done = self.numbers().done;
            until("one is done", BOUND, || self.numbers().done > done).await;
        }
        self.numbers().is_free = true;
        self.1.notify_waiters();
        until("all are done", BOUND, || self.numbers().done == all).await;
        assert_eq!(self.numbers().most, allowed);
    }
}

/// A runner in a task of its own.
struct Run<T> {
    stop: Option<oneshot::Sender<()>>,
    task: JoinSet<T>,
}

impl<T: Send + 'static> Run<T> {
    fn start<R>(runner: impl FnOnce(oneshot::Receiver<()>) -> R) -> Run<T>
    where
        R: IntoFuture<Output = T, IntoFuture: Send + 'static>,
    {
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(runner(stopped).into_future());
        Run { stop: Some(stop), task }
    }

    /// Ends it, and waits for it.
    async fn stop(&mut self) -> T {
        drop(self.stop.take());
        self.ended().await
    }

    async fn ended(&mut self) -> T {
        timeout(120 * SECOND, self.task.join_next()).await.expect("it ends").unwrap().unwrap()
    }
}

/// A panic without a message on the screen.
fn panic_quietly(message: &str) -> Result<(), Failure> {
    std::panic::resume_unwind(Box::new(message.to_owned()))
}

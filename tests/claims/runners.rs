//! The runners of boards and queues: what handlers do ends as they say, one that fails keeps no other waiting, and the end
//! of a runner loses nothing.

mod boards;
mod one_of_many;
mod queues;

use std::sync::{Arc, Mutex};

use apportion::run::Failure;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use crate::support::SECOND;

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

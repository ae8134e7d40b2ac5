//! A hook that decides for each call what becomes of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apportion::{
    backend::{BoxFuture, Error, Memory},
    testing::{Call, Hook, Intercept, Outcome, Request},
};

/// What becomes of a call.
#[derive(Debug, Clone)]
pub enum Fate {
    Pass,
    /// It is not sent.
    Refuse(Error),
    /// It is sent, and its reply does not arrive.
    LoseReply,
    /// It is sent, and its reply arrives so much later.
    Late(Duration),
}

type Decide = Box<dyn FnMut(&Request<'_>) -> Fate + Send>;

/// Decides by a closure, and keeps the size of the largest reply.
#[derive(Default)]
pub struct Fates {
    decide: Mutex<Option<Decide>>,
    largest: AtomicUsize,
}

impl Fates {
    /// A way to `memory`, and the hook on it.
    pub fn on(memory: &Memory) -> (Intercept, Arc<Fates>) {
        let fates = Arc::<Fates>::default();
        (Intercept::new(Arc::new(memory.clone()), fates.clone()), fates)
    }

    /// Asks `decide` from now on.
    pub fn decide(&self, decide: impl FnMut(&Request<'_>) -> Fate + Send + 'static) {
        *self.decide.lock().expect("no test panics with it") = Some(Box::new(decide));
    }

    /// Lets all calls through from now on.
    pub fn pass(&self) {
        *self.decide.lock().expect("no test panics with it") = None;
    }

    /// The largest reply since this was asked last, in bytes.
    pub fn largest_reply(&self) -> usize {
        self.largest.swap(0, Ordering::SeqCst)
    }
}

impl Hook for Fates {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        let fate = match &mut *self.decide.lock().expect("no test panics with it") {
            Some(decide) => decide(call.request()),
            None => Fate::Pass,
        };
        Box::pin(async move {
            if let Fate::Refuse(error) = fate {
                let index = matches!(call.request(), Request::Commit(_)) && !error.is_unknown();
                return Err(apportion::backend::CommitError { index: index.then_some(0), error });
            }
            let outcome = call.send().await;
            if let Ok(reply) = &outcome {
                self.largest.fetch_max(reply.bytes(), Ordering::SeqCst);
            }
            match fate {
                Fate::LoseReply => Err(Error::Unknown("lost on purpose".into()).into()),
                Fate::Late(by) => {
                    tokio::time::sleep(by).await;
                    outcome
                }
                Fate::Pass | Fate::Refuse(_) => outcome,
            }
        })
    }
}

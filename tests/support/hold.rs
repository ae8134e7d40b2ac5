//! A hook that holds calls to a store back, so that others come in between.

use std::sync::{Arc, Mutex};

use apportion::{
    backend::{BoxFuture, Memory},
    testing::{Call, Hook, Intercept, Outcome, Request},
};
use tokio::sync::oneshot;

type Matches = Box<dyn Fn(&Request<'_>) -> bool + Send>;

/// Holds chosen calls back before they are sent.
#[derive(Default)]
pub struct Hold(Mutex<Option<Plan>>);

struct Plan {
    matches: Matches,
    how: How,
}

enum How {
    /// One call, after so many that match, until it is released.
    One { passing: usize, reached: oneshot::Sender<()>, released: oneshot::Receiver<()> },
    /// Each call, for ever.
    Each,
}

/// A call that is held back, or will be.
pub struct Held {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the call is made.
    pub async fn reached(&mut self) {
        (&mut self.reached).await.expect("it is reached once");
    }

    /// Lets it go on.
    pub fn release(self) {
        self.release.send(()).expect("the caller still waits");
    }
}

impl Hold {
    /// A way to `memory`, and the hook on it.
    pub fn on(memory: &Memory) -> (Intercept, Arc<Hold>) {
        let hold = Arc::<Hold>::default();
        (Intercept::new(Arc::new(memory.clone()), hold.clone()), hold)
    }

    /// Lets the next `passing` calls that match through, and holds the one after that.
    pub fn after(&self, passing: usize, matches: impl Fn(&Request<'_>) -> bool + Send + 'static) -> Held {
        let (reached, is_reached) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.plan(matches, How::One { passing, reached, released });
        Held { reached: is_reached, release }
    }

    /// Leaves each call that matches without an answer, until [`Hold::nothing`].
    pub fn each(&self, matches: impl Fn(&Request<'_>) -> bool + Send + 'static) {
        self.plan(matches, How::Each);
    }

    /// Lets all calls through from now on.
    pub fn nothing(&self) {
        *self.0.lock().expect("no test panics with it") = None;
    }

    fn plan(&self, matches: impl Fn(&Request<'_>) -> bool + Send + 'static, how: How) {
        *self.0.lock().expect("no test panics with it") = Some(Plan { matches: Box::new(matches), how });
    }

    async fn pass(&self, request: &Request<'_>) {
        let held = {
            let mut plan = self.0.lock().expect("no test panics with it");
            match plan.as_mut().filter(|plan| (plan.matches)(request)).map(|plan| &mut plan.how) {
                None => return,
                Some(How::Each) => None,
                Some(How::One { passing, .. }) if *passing > 0 => {
                    *passing -= 1;
                    return;
                }
                Some(How::One { .. }) => plan.take(),
            }
        };
        match held.map(|plan| plan.how) {
            Some(How::One { reached, released, .. }) => {
                let _ = reached.send(());
                let _ = released.await;
            }
            _ => std::future::pending().await,
        }
    }
}

impl Hook for Hold {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.pass(call.request()).await;
            call.send().await
        })
    }
}

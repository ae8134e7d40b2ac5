//! Tools to test a backend, or an application on one (feature `testing`).
//!
//! - [`conformance`]: a suite that checks the guarantees of a [`Connector`](crate::backend::Connector).
//! - [`differential`]: runs the same random transactions on two backends, and panics at the first difference.
//! - [`Intercept`]: a decorator of any backend that passes each call to a [`Hook`].
//! - [`Faults`]: a decorator with a ready hook, which counts calls, loses replies and denies access.
//!
//! ```
//! use std::sync::Arc;
//! use apportion::{backend::{Memory, path::ZnodePath}, testing::conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! conformance::run(Arc::new(Memory::new()), &ZnodePath::parse("/conformance")?).await;
//! # Ok(())
//! # }
//! ```

mod call;
pub mod conformance;
pub mod differential;
mod faults;
mod intercept;

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

pub use self::{
    call::{Call, Outcome, Reply, Request},
    faults::{Calls, Faults},
    intercept::{Hook, Intercept},
};
use crate::backend::{CreateMode, Error, Fired, Op, Session, Watch, path::ZnodePath};

/// Session timeout of the suites. Much longer than [`TIMEOUT`], so that a znode that vanishes in time was
/// removed because a session was closed, not because it expired.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the suites wait for each expected event.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for `future`; panics if it takes longer than [`TIMEOUT`].
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {TIMEOUT:?}"),
    }
}

/// Runs `future`. If it panics, `context` is put before the message of the panic.
async fn with_context<T>(context: impl Fn() -> String, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(panic) => panic!("{}: {}", context(), message(&*panic)),
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

/// How `watch` has fired so far, without waiting.
async fn fired_by_now(watch: &mut Watch) -> Option<Fired> {
    let mut fired = pin!(watch.fired());
    poll_fn(|cx| {
        Poll::Ready(match fired.as_mut().poll(cx) {
            Poll::Ready(fired) => Some(fired),
            Poll::Pending => None,
        })
    })
    .await
}

/// Waits until `session` has received the events of all changes that were acknowledged before the call: a server sends
/// the events of a session in order with its replies.
async fn fence(session: &dyn Session, path: &ZnodePath) -> Result<(), Error> {
    session.sync(path).await?;
    session.get(path).await?;
    tokio::task::yield_now().await;
    Ok(())
}

/// Creates `path` and those of its ancestors that are missing.
async fn create_with_ancestors(session: &dyn Session, path: &ZnodePath) {
    for path in path.with_ancestors() {
        match session.commit(vec![Op::create(&path, "", CreateMode::Persistent)]).await {
            Ok(_) => {}
            Err(error) if error.error == Error::NodeExists => {}
            Err(error) => panic!("{path} cannot be created: {error}"),
        }
    }
}

/// All znodes from `path` down, parents before their children, siblings by name. Empty if there is none. What is below
/// a znode that may not be read is left out.
async fn subtree(session: &dyn Session, path: &ZnodePath) -> Vec<ZnodePath> {
    let mut found = Vec::new();
    let mut rest = vec![path.clone()];
    while let Some(path) = rest.pop() {
        let mut names = match session.children(&path).await {
            Ok((names, _)) => names,
            Err(Error::NoNode) => continue,
            Err(Error::NotPermitted) => Vec::new(),
            Err(error) => panic!("{path} cannot be listed: {error}"),
        };
        names.sort_unstable_by(|a, b| b.cmp(a));
        rest.extend(names.iter().map(|name| path.join(name).expect("a listed name is a name")));
        found.push(path);
    }
    found
}

/// Deletes what is below `path`, but for what the user of `session` may not delete, and for `path` itself.
async fn delete_what_it_may(session: &dyn Session, path: &ZnodePath) {
    for path in subtree(session, path).await[1..].iter().rev() {
        match session.commit(vec![Op::delete(path, None)]).await {
            Ok(_) => {}
            Err(error) if matches!(error.error, Error::NoNode | Error::NotEmpty | Error::NotPermitted) => {}
            Err(error) => panic!("{path} cannot be deleted: {error}"),
        }
    }
}

/// Deletes `path` and everything below it.
async fn delete_subtree(session: &dyn Session, path: &ZnodePath) {
    for path in subtree(session, path).await.iter().rev() {
        match session.commit(vec![Op::delete(path, None)]).await {
            Ok(_) => {}
            Err(error) if error.error == Error::NoNode => {}
            Err(error) => panic!("{path} cannot be deleted: {error}"),
        }
    }
}

//! [`BoxFuture`]: what the methods of traits return that can be used as `dyn`.

use std::{future::Future, pin::Pin};

/// A boxed future, so that a trait with asynchronous methods is object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

//! [`BoxFuture`]: the return type of asynchronous methods in traits that are used as `dyn`.

use std::{future::Future, pin::Pin};

/// A boxed future. With it a trait with asynchronous methods can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

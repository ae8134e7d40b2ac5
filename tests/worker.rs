//! Executor and worker over the broker in the process, in paused time.

#[path = "worker/local.rs"]
mod local;
#[path = "worker/peer.rs"]
mod peer;
#[path = "worker/server.rs"]
mod server;

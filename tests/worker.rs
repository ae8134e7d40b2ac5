//! Executor and worker over the broker in the process, in paused time.

#[path = "worker/defects.rs"]
mod defects;
#[path = "worker/executor.rs"]
mod executor;
#[path = "worker/faults.rs"]
mod faults;
#[path = "worker/local.rs"]
mod local;
#[path = "worker/peer.rs"]
mod peer;
#[path = "worker/server.rs"]
mod server;

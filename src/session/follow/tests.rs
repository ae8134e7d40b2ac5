use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;
use crate::session::tests::{Bench, T};

/// Notes its calls.
struct Noting {
    notes: Arc<Mutex<Vec<String>>>,
    panics: bool,
}

impl Noting {
    fn note(&self, what: impl Into<String>) {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(what.into());
    }
}

impl Follower for Noting {
    async fn run(&mut self, live: &Arc<Live>) {
        self.note(format!("session {}", live.id()));
        assert!(!self.panics, "a panic for a test");
        std::future::pending::<()>().await;
    }

    fn close(&mut self) {
        self.note("closed");
    }
}

fn noting(panics: bool) -> (Noting, impl Fn() -> Vec<String>) {
    let notes = Arc::<Mutex<Vec<String>>>::default();
    (Noting { notes: notes.clone(), panics }, move || notes.lock().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn each_session_is_followed_until_it_is_cancelled() {
    let bench = Bench::new().await;
    let (follower, notes) = noting(false);
    let cancelled = CancellationToken::new();
    let mut following = JoinSet::new();
    following.spawn(follow(Sessions::new(&bench.access), follower, cancelled.clone()));
    let mut expected = Vec::new();
    for _ in 0..3 {
        let id = bench.live().await.id();
        expected.push(format!("session {id}"));
        while notes() != expected {
            tokio::task::yield_now().await;
        }
        bench.memory.expire(id);
        while bench.keeper.live().is_none_or(|live| live.id() == id) {
            tokio::time::sleep(T / 100).await;
        }
    }
    cancelled.cancel();
    following.join_next().await.unwrap().unwrap();
    assert_eq!(notes().last().unwrap(), "closed");
}

#[tokio::test(start_paused = true)]
async fn however_it_ends_it_is_closed() {
    let bench = Bench::new().await;
    let (follower, notes) = noting(true);
    let mut following = JoinSet::new();
    following.spawn(follow(Sessions::new(&bench.access), follower, CancellationToken::new()));
    assert!(following.join_next().await.unwrap().unwrap_err().is_panic());
    assert_eq!(notes().last().unwrap(), "closed", "by a panic");

    let (follower, notes) = noting(false);
    following.spawn(follow(Sessions::new(&bench.access), follower, CancellationToken::new()));
    bench.keeper.close().await;
    following.join_next().await.unwrap().unwrap();
    assert_eq!(notes().last().unwrap(), "closed", "by the end of all sessions");
}

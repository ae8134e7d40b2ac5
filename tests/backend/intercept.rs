//! What a hook can do to the calls of a backend.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use apportion::{
    backend::{
        BoxFuture, Connector, CreateMode, Error, Loss, Memory, Op, Session, SessionId, SessionState,
        path::ZnodePath,
    },
    testing::{Call, Hook, Intercept, Outcome, Reply, Request, conformance, differential},
};
use tokio::time::timeout;

use crate::support::{SECOND, path};

fn create(path: &ZnodePath, data: impl Into<Vec<u8>>) -> Vec<Op> {
    vec![Op::create(path, data, CreateMode::Persistent)]
}

/// An ensemble, and a session whose calls go through `hook`.
async fn through(hook: Arc<dyn Hook>) -> (Memory, Arc<dyn Session>) {
    let memory = Memory::new();
    let session = Intercept::new(Arc::new(memory.clone()), hook).open(10 * SECOND).await.unwrap();
    (memory, session)
}

async fn exists(memory: &Memory, path: &ZnodePath) -> bool {
    memory.open(SECOND).await.unwrap().get(path).await.unwrap().is_some()
}

/// Notes each call and lets it pass.
#[derive(Default)]
struct Notes(Mutex<Vec<(u64, Option<SessionId>, String)>>);

impl Hook for Notes {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        let request = format!("{:?}", call.request());
        let kind = request.split(['(', ' ']).next().unwrap().to_owned();
        self.0.lock().unwrap().push((call.number(), call.session(), kind));
        call.send()
    }
}

#[tokio::test]
async fn each_call_of_each_session_is_seen_with_its_number_and_session() {
    let notes = Arc::new(Notes::default());
    let intercept = Intercept::new(Arc::new(Memory::new()), notes.clone());
    let (first, second) =
        (intercept.open(SECOND).await.unwrap(), intercept.clone().open(SECOND).await.unwrap());
    let node = path("/a");
    first.commit(create(&node, "data")).await.unwrap();
    assert_eq!(second.get(&node).await.unwrap().unwrap().0, b"data");
    assert_eq!(first.get_many(&[node.clone(), path("/b")]).await.unwrap().len(), 2);
    assert_eq!(first.children(&path("/")).await.unwrap().0, ["a"]);
    assert_eq!(first.watch_children(&path("/")).await.unwrap().0, ["a"]);
    assert_eq!(first.watch_node(&node).await.unwrap().0.unwrap().data_length, 4);
    first.sync(&node).await.unwrap();
    second.close().await;
    assert_eq!(*second.state().borrow(), SessionState::Lost(Loss::Closed));
    let (one, two) = (Some(first.id()), Some(second.id()));
    let expected = [
        (None, "Open"),
        (None, "Open"),
        (one, "Commit"),
        (two, "Get"),
        (one, "GetMany"),
        (one, "Children"),
        (one, "WatchChildren"),
        (one, "WatchNode"),
        (one, "Sync"),
        (two, "Close"),
    ];
    let expected = (1..).zip(expected).map(|(number, (session, kind))| (number, session, kind.to_owned()));
    assert_eq!(*notes.0.lock().unwrap(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hook_that_lets_all_calls_pass_keeps_every_promise_of_the_backend() {
    let memory = Memory::new();
    let through = || Arc::new(Intercept::new(Arc::new(memory.clone()), Arc::new(Notes::default())));
    conformance::run(through(), &path("/conformance")).await;
    differential::run(through(), Arc::new(Memory::new()), &path("/differential"), 1, 300).await;
}

/// Does one thing to the calls for which a condition holds.
struct When<F>(F, Deed);

#[derive(Clone)]
enum Deed {
    Wait(Duration),
    Refuse(Error),
    LoseReply,
    ReplyWith(fn() -> Reply),
    Break(Memory),
}

impl<F: Fn(&Call<'_>) -> bool + Send + Sync + 'static> Hook for When<F> {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if !self.0(&call) {
                return call.send().await;
            }
            match &self.1 {
                Deed::Wait(delay) => tokio::time::sleep(*delay).await,
                Deed::Refuse(error) => return Err(error.clone().into()),
                Deed::LoseReply => {
                    let _ = call.send().await;
                    return Err(Error::Unknown("lost".into()).into());
                }
                Deed::ReplyWith(reply) => return Ok(reply()),
                Deed::Break(memory) => memory.suspend(call.session().unwrap()),
            }
            call.send().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_delayed_is_made_later_and_one_that_waits_for_ever_can_be_dropped() {
    let node = path("/a");
    let slow = When(|call: &Call<'_>| call.request().is_list(), Deed::Wait(3600 * SECOND));
    let (memory, session) = through(Arc::new(slow)).await;
    let lister = session.clone();
    let mut list = Box::pin(async move { lister.children(&path("/")).await.unwrap().0 });
    assert!(timeout(SECOND, list.as_mut()).await.is_err());
    session.commit(create(&node, "")).await.unwrap();
    assert_eq!(list.await, ["a"], "it was asked for after the delay");

    let never = When(|call: &Call<'_>| call.request().is_write(), Deed::Wait(Duration::MAX));
    let session = Intercept::new(Arc::new(memory.clone()), Arc::new(never)).open(SECOND).await.unwrap();
    assert!(timeout(SECOND, session.commit(vec![Op::delete(&node, None)])).await.is_err());
    session.commit(vec![Op::exists(&node)]).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_refused_is_not_sent() {
    let node = path("/a");
    let refuses = When(|call: &Call<'_>| call.request().is_write(), Deed::Refuse(Error::NotPermitted));
    let (memory, session) = through(Arc::new(refuses)).await;
    assert_eq!(session.commit(create(&node, "")).await.unwrap_err().error, Error::NotPermitted);
    assert!(!exists(&memory, &node).await);

    let refuses =
        When(|call: &Call<'_>| call.session().is_none(), Deed::Refuse(Error::Unreachable("no".into())));
    let opened = Intercept::new(Arc::new(memory.clone()), Arc::new(refuses)).open(SECOND).await;
    assert!(matches!(opened, Err(Error::Unreachable(_))), "{opened:?}");
    assert_eq!(memory.sessions(), [session.id()]);
}

#[tokio::test]
async fn a_reply_can_be_lost_after_the_write_was_applied() {
    let node = path("/a");
    let loses = When(|call: &Call<'_>| call.request().is_write(), Deed::LoseReply);
    let (memory, session) = through(Arc::new(loses)).await;
    let error = session.commit(create(&node, "")).await.unwrap_err();
    assert!(error.index.is_none() && error.error.is_unknown(), "{error}");
    assert!(exists(&memory, &node).await);
}

#[tokio::test]
async fn a_reply_can_be_replaced() {
    let nothing = When(
        |call: &Call<'_>| matches!(call.request(), Request::Get(_)),
        Deed::ReplyWith(|| Reply::Znode(None)),
    );
    let (_memory, session) = through(Arc::new(nothing)).await;
    session.commit(create(&path("/a"), "")).await.unwrap();
    assert_eq!(session.get(&path("/a")).await, Ok(None));
    assert!(session.get_many(&[path("/a")]).await.unwrap()[0].is_some());
}

#[tokio::test]
#[should_panic(expected = "the hook returned the reply to another request: Synced")]
async fn a_reply_to_another_request_is_a_panic() {
    let wrong =
        When(|call: &Call<'_>| matches!(call.request(), Request::Get(_)), Deed::ReplyWith(|| Reply::Synced));
    let (_memory, session) = through(Arc::new(wrong)).await;
    let _ = session.get(&path("/a")).await;
}

#[tokio::test(start_paused = true)]
async fn the_connection_can_be_broken_at_any_request_of_a_list() {
    // The opening is the first call, so the k-th of these is the k+1-th.
    for k in 1..=4 {
        let memory = Memory::new();
        let breaks = When(move |call: &Call<'_>| call.number() == k + 1, Deed::Break(memory.clone()));
        let intercept = Intercept::new(Arc::new(memory.clone()), Arc::new(breaks));
        let session = intercept.open(10 * SECOND).await.unwrap();
        let nodes = ["/a", "/b", "/c", "/d"].map(path);
        let mut done = 0;
        for node in &nodes {
            match timeout(SECOND, session.commit(create(node, ""))).await {
                Ok(committed) => drop(committed.unwrap()),
                Err(_) => break,
            }
            done += 1;
        }
        assert_eq!(done, k - 1);
        assert_eq!(*session.state().borrow(), SessionState::Suspended);
        memory.resume(session.id());
        assert!(session.get(&nodes[usize::try_from(k).unwrap() - 1]).await.unwrap().is_some(), "it was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_can_be_broken_at_any_request_that_is_too_large() {
    const MOST: usize = 1000;
    let memory = Memory::new();
    let breaks = When(|call: &Call<'_>| call.request().bytes() > MOST, Deed::Break(memory.clone()));
    let session = Intercept::new(Arc::new(memory.clone()), Arc::new(breaks)).open(SECOND).await.unwrap();
    let node = path("/a");
    session.commit(create(&node, vec![0; MOST - node.as_str().len()])).await.unwrap();
    let larger = vec![Op::set(&node, vec![0; MOST - node.as_str().len() + 1], None)];
    let lost = timeout(10 * SECOND, session.commit(larger)).await.expect("the session ends").unwrap_err();
    assert_eq!(lost.error, Error::Lost(Loss::Expired));
}

/// Adds up what goes to the store and what comes back.
#[derive(Default)]
struct Traffic {
    requests: AtomicU64,
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl Hook for Traffic {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.sent.fetch_add(call.request().bytes(), Ordering::Relaxed);
            let outcome = call.send().await;
            let received = outcome.as_ref().map_or(0, Reply::bytes);
            self.received.fetch_add(received, Ordering::Relaxed);
            outcome
        })
    }
}

#[tokio::test]
async fn requests_and_their_bytes_can_be_counted_in_both_directions() {
    let traffic = Arc::new(Traffic::default());
    let (_memory, session) = through(traffic.clone()).await;
    let mut before = [0; 3];
    let mut costs = || {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let requests = usize::try_from(traffic.requests.load(Ordering::Relaxed)).unwrap();
        let now = [requests, read(&traffic.sent), read(&traffic.received)];
        let cost: Vec<_> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        before = now;
        cost
    };
    assert_eq!(costs(), [1, 0, 0], "the opening");
    let (root, node) = (path("/"), path("/node"));
    session
        .commit(vec![Op::create(&node, "12345678", CreateMode::Persistent), Op::exists(&node)])
        .await
        .unwrap();
    assert_eq!(costs(), [1, 5 + 8 + 5, 5]);
    session.commit(vec![Op::set(&node, "123", Some(0)), Op::delete(&node, None)]).await.unwrap();
    assert_eq!(costs(), [1, 5 + 3 + 5, 0]);
    session.commit(create(&node, "1234")).await.unwrap();
    costs();
    session.get(&node).await.unwrap();
    assert_eq!(costs(), [1, 5, 4]);
    session.get_many(&[node.clone(), path("/none"), node.clone()]).await.unwrap();
    assert_eq!(costs(), [1, 5 + 5 + 5, 4 + 4]);
    session.children(&root).await.unwrap();
    drop(session.watch_children(&root).await.unwrap());
    assert_eq!(costs(), [2, 1 + 1, 4 + 4]);
    drop(session.watch_node(&node).await.unwrap());
    session.sync(&node).await.unwrap();
    assert_eq!(costs(), [2, 5 + 5, 0]);
    session.close().await;
    assert_eq!(costs(), [1, 0, 0]);
}

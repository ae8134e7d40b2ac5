//! The connection breaks at a request of a list or a join, again and again: the member goes on as soon as it is up.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use apportion::{
    Group, PartitionCoordinator,
    backend::{BoxFuture, CommitError, Connector, Error, Op, memory::LostReply, path::ZnodePath},
    group::{Member, Standing},
    testing::{Call, Hook, Intercept, Outcome, Request},
};

use crate::support::{
    EITHER, MS, Mode, Proxy, SECOND,
    fleet::{Agent, Store, delete_recursively, ids, in_both_modes_on_both_backends, sees, settles_within},
    until,
};
#[cfg(feature = "zookeeper")]
use crate::support::{fleet::Reach, zookeeper};

in_both_modes_on_both_backends!(
    a_list_goes_on_as_soon_as_the_connection_is_up_however_often_it_breaks,
    a_join_goes_on_as_soon_as_the_connection_is_up_however_often_it_breaks,
);

/// The requests that a member makes to follow a change, and to come back after the loss of its znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    List,
    Read,
    Join,
    CreateGroup,
    Inspect,
    /// Of an exclusive group: reading the head, and writing what was acknowledged.
    Head,
    Acknowledge,
}

impl Step {
    fn is(self, request: &Request<'_>, own: &ZnodePath, head: &ZnodePath) -> bool {
        match (self, request) {
            (Step::Head, Request::Get(path) | Request::WatchNode(path)) => *path == head,
            (Step::Acknowledge, Request::Commit(ops)) => {
                ops.iter().any(|op| op.path() == own && matches!(op, Op::Set { .. }))
            }
            (Step::List, Request::WatchChildren(_)) | (Step::Read, Request::GetMany(_)) => true,
            (Step::Join, Request::Commit(ops)) => ops.iter().any(|op| creates(op, own)),
            (Step::CreateGroup, Request::Commit(ops)) => {
                ops.iter().any(|op| Some(op.path()) == own.parent().as_ref())
            }
            (Step::Inspect, Request::Get(path) | Request::WatchNode(path)) => *path == own,
            _ => false,
        }
    }
}

fn creates(op: &Op, path: &ZnodePath) -> bool {
    matches!(op, Op::Create { .. }) && op.path() == path
}

/// Breaks the connection at a request, so many times: before the request arrives, or before its reply does.
struct Breaks {
    own: ZnodePath,
    head: ZnodePath,
    plan: Mutex<Option<(Step, LostReply)>>,
    left: AtomicU32,
    /// On the way to a real server.
    proxy: Option<Proxy>,
    /// Requests that are sent together break one connection after the other.
    one: tokio::sync::Mutex<()>,
}

impl Breaks {
    fn plan(&self, step: Step, lost: LostReply, times: u32) {
        *self.plan.lock().unwrap() = Some((step, lost));
        self.left.store(times, SeqCst);
    }

    fn is_due(&self, request: &Request<'_>) -> Option<LostReply> {
        let (step, lost) = (*self.plan.lock().unwrap())?;
        let is_due = step.is(request, &self.own, &self.head)
            && self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        is_due.then_some(lost)
    }
}

impl Hook for Breaks {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Some(lost) = self.is_due(call.request()) else { return call.send().await };
            if let Some(proxy) = &self.proxy {
                let _one = self.one.lock().await;
                proxy.set(match lost {
                    LostReply::BeforeApplying => Mode::SwallowToServer,
                    LostReply::AfterApplying => Mode::SwallowToClient,
                });
                let mut sent = call.send();
                assert!(tokio::time::timeout(50 * MS, &mut sent).await.is_err(), "nothing passes");
                proxy.reset();
                // A request that waited for the connection to come back is sent only then: its reply is lost, too.
                let _ = sent.await;
            } else if lost == LostReply::AfterApplying {
                let _ = call.send().await;
            }
            Err(CommitError { index: None, error: Error::Unknown("the connection broke".into()) })
        })
    }
}

/// A member `a` of the group `g`, whose connection can be broken.
async fn breakable(store: &Store) -> (Arc<Breaks>, PartitionCoordinator) {
    let (plan, left, own) = (Mutex::default(), AtomicU32::new(0), store.path("g/a"));
    let head = store.head("g");
    #[cfg(feature = "zookeeper")]
    if let Reach::Server(port) = store.reach {
        let proxy = Proxy::start(port).await;
        let connector = zookeeper(&proxy.connect_string());
        let breaks = Arc::new(Breaks { own, head, plan, left, proxy: Some(proxy), one: Default::default() });
        return connect(store, Arc::new(connector), breaks).await;
    }
    let breaks = Arc::new(Breaks { own, head, plan, left, proxy: None, one: Default::default() });
    connect(store, store.connector(), breaks).await
}

async fn connect(
    store: &Store,
    connector: Arc<dyn Connector>,
    breaks: Arc<Breaks>,
) -> (Arc<Breaks>, PartitionCoordinator) {
    let config = store.config_via(Intercept::new(connector, breaks.clone()), "a");
    // The pauses of production, on a real server as well.
    let config = config.retry_backoff(SECOND).max_retry_interval(30 * SECOND);
    (breaks, PartitionCoordinator::connect(config).await.unwrap())
}

/// A session timeout that outlives six broken connections on a loaded machine.
fn with_a_long_timeout(store: Store) -> Store {
    if store.is_memory() { store } else { Store { session_timeout: 8 * SECOND, ..store } }
}

async fn a_list_goes_on_as_soon_as_the_connection_is_up_however_often_it_breaks(store: Store) {
    let store = with_a_long_timeout(store);
    let (breaks, a) = breakable(&store).await;
    let in_a = store.join(&a, "g").await.unwrap();
    let b = store.agent("b").await;
    if !store.is_immediate {
        return an_epoch_is_followed_as_soon_as_the_connection_is_up(&store, &breaks, &in_a, &b).await;
    }
    for (times, lost) in (1..=6).flat_map(|times| EITHER.map(|lost| (times, lost))) {
        for step in [Step::List, Step::Read] {
            breaks.plan(step, lost, times);
            let in_b = b.join("g").await;
            sees(&in_a, store.round(), &["a", "b"]).await;
            assert_eq!(breaks.left.load(SeqCst), 0, "{step:?} {times}");
            breaks.plan(Step::List, lost, times);
            in_b.leave().await.unwrap();
            sees(&in_a, store.round(), &["a"]).await;
            settles_within(store.round(), &[&in_a]).await;
        }
    }
}

async fn an_epoch_is_followed_as_soon_as_the_connection_is_up(
    store: &Store,
    breaks: &Breaks,
    in_a: &Group,
    b: &Agent,
) {
    for (times, lost) in rounds(store) {
        for step in [Step::List, Step::Read, Step::Head, Step::Acknowledge] {
            breaks.plan(step, lost, times);
            let in_b = b.join("g").await;
            settles_within(2 * store.round(), &[in_a, &in_b]).await;
            assert_eq!(ids(in_a), ["a", "b"]);
            // The other member may have published before all of them were met.
            assert!(breaks.left.load(SeqCst) < times, "{step:?} {times} {lost:?}");
            breaks.plan(Step::Head, lost, times);
            in_b.leave().await.unwrap();
            settles_within(2 * store.round(), &[in_a]).await;
            assert!(breaks.left.load(SeqCst) < times, "{step:?} {times} {lost:?}");
            calm_down(store).await;
        }
    }
}

/// How often the connection breaks, and how. On a real server an exclusive member can join few times before it is held
/// back for a minute.
fn rounds(store: &Store) -> Vec<(u32, LostReply)> {
    if store.is_memory() || store.is_immediate {
        return (1..=6).flat_map(|times| EITHER.map(|lost| (times, lost))).collect();
    }
    vec![(6, LostReply::AfterApplying)]
}

/// An exclusive group holds a member back that joins again and again, for at most a minute.
async fn calm_down(store: &Store) {
    if store.is_memory() && !store.is_immediate {
        tokio::time::sleep(61 * SECOND).await;
    }
}

async fn a_join_goes_on_as_soon_as_the_connection_is_up_however_often_it_breaks(store: Store) {
    let store = with_a_long_timeout(store);
    let (breaks, a) = breakable(&store).await;
    let in_a = store.join(&a, "g").await.unwrap();
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let admin = store.session().await;
    // The znode of `a` is gone: its next heartbeat finds it, and it joins again.
    let back = store.round() + SECOND;
    for (times, lost) in rounds(&store) {
        for step in [Step::Join, Step::List, Step::Inspect] {
            calm_down(&store).await;
            let before = incarnation(&in_a);
            if step == Step::Inspect {
                // A lost reply to the join is read back, and those reads are lost as well.
                breaks.plan(Step::Join, LostReply::AfterApplying, 1);
            } else {
                breaks.plan(step, lost, times);
            }
            admin.commit(vec![Op::delete(&store.path("g/a"), None)]).await.unwrap();
            if step == Step::Inspect {
                until("the reply is lost", back, || breaks.left.load(SeqCst) == 0).await;
                breaks.plan(Step::Inspect, lost, times);
            }
            until(&format!("{step:?} {times} {lost:?}"), back, || incarnation(&in_a) > before).await;
            settles_within(back, &[&in_a, &in_b]).await;
            assert_eq!(ids(&in_b), ["a", "b"]);
        }
    }
    drop(in_b);
    b.coordinator.shutdown().await.unwrap();
    for (times, _) in rounds(&store) {
        calm_down(&store).await;
        breaks.plan(Step::CreateGroup, LostReply::BeforeApplying, times);
        let before = incarnation(&in_a);
        delete_recursively(&*admin, &store.path("g")).await;
        until("the group is there again", back, || incarnation(&in_a) > before).await;
        settles_within(back, &[&in_a]).await;
        assert_eq!(breaks.left.load(SeqCst), 0, "{times}");
    }
}

/// Which znode of `a` the group counts, if it has a share.
fn incarnation(group: &Group) -> i64 {
    let view = group.view();
    let me = view.members().iter().find(|member| member.id() == view.me());
    me.filter(|_| view.standing() == Standing::Member).map_or(0, Member::incarnation)
}

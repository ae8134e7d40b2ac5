//! Members on real servers that break: black holes, one-way links, restarts, lost leaders, cut followers, access
//! control lists. After each, every key has exactly one owner again, and in between none has two.

mod ensemble;
mod links;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    Config, Error, Group, PartitionCoordinator,
    backend::{BoxFuture, Connector, CreateMode, Error as BackendError, Op, Session},
    clock::{Clock, Moment},
    group::Standing,
    testing::Faults,
};
use tracing::Level;

use crate::support::{
    MS, Mode, Proxy, RELEASES, SECOND, Server,
    events::Events,
    eventually,
    fleet::{Store, next_change, owners, sees, settles_within, universe, znode},
    free_port, until, zookeeper,
};

/// What two members did during an outage.
#[derive(Debug, Default)]
struct Outage {
    /// After how long the first member had no share any more.
    stopped: Option<Duration>,
    /// After how long the second one had all of it.
    taken: Option<Duration>,
}

/// Watches two members until the second one owns everything. At no moment may both own a key.
async fn watch_takeover(
    clock: &dyn Clock,
    begin: Moment,
    from: &Group,
    to: &Group,
    bound: Duration,
) -> Outage {
    let mut outage = Outage::default();
    loop {
        // The order matters: `to` is read first, so a key that `from` still owns after that must not be one of `to`.
        let after = clock.now().saturating_since(begin);
        let taken: Vec<_> = universe().into_iter().filter(|key| to.view().owns(key)).collect();
        let double: Vec<_> = taken.iter().filter(|key| from.view().owns(*key)).collect();
        assert!(double.is_empty(), "after {after:?} both own {double:?}");
        if outage.stopped.is_none() && from.view().standing() != Standing::Member {
            outage.stopped = Some(after);
        }
        if taken.len() == universe().len() {
            outage.taken = Some(after);
            return outage;
        }
        assert!(after < bound, "not taken over within {bound:?}: {outage:?}");
        tokio::time::sleep(10 * MS).await;
    }
}

async fn two_members(
    store: &Store,
) -> (crate::support::fleet::Agent, Group, crate::support::fleet::Agent, Group) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    (a, in_a, b, in_b)
}

/// The default heartbeat validity: half the session timeout.
fn heartbeat_validity(store: &Store) -> Duration {
    store.session_timeout / 2
}

async fn a_link_that_fails(mode: Mode, namespace: &str) {
    let immediate = Store::shared(&format!("immediate-{namespace}")).await.immediate();
    tokio::join!(a_link_fails_in(Store::shared(namespace).await, mode), a_link_fails_in(immediate, mode));
}

async fn a_link_fails_in(store: Store, mode: Mode) {
    let clock = store.connector().clock();
    let (a, in_a, _b, in_b) = two_members(&store).await;
    let share = in_a.extract_my_subset(universe()).await.unwrap();
    let begin = clock.now();
    a.proxy().set(mode);
    let outage = watch_takeover(&*clock, begin, &in_a, &in_b, store.expiry() + store.round()).await;
    let (stopped, taken) = (outage.stopped.unwrap(), outage.taken.unwrap());
    // A share reads the clock at each use, so a loaded machine does not delay it. Only the sampling may be late.
    assert!(stopped <= heartbeat_validity(&store) + SECOND / 2, "{outage:?}");
    assert!(taken > stopped, "{outage:?}");
    assert!(!share.is_valid() && in_a.extract_my_subset(universe()).await.unwrap().is_empty());

    a.proxy().set(Mode::Pass);
    settles_within(10 * SECOND, &[&in_a, &in_b]).await;
    assert!(!share.is_valid());
}

#[tokio::test]
async fn a_member_behind_a_black_hole_has_stopped_before_another_takes_over() {
    a_link_that_fails(Mode::BlackHole, "black-hole").await;
}

#[tokio::test]
async fn a_member_whose_requests_are_lost_has_stopped_before_another_takes_over() {
    a_link_that_fails(Mode::SwallowToServer, "to-server").await;
}

#[tokio::test]
async fn a_member_whose_connections_are_reset_has_stopped_before_another_takes_over() {
    a_link_that_fails(Mode::Cut, "cut").await;
}

#[tokio::test]
async fn a_member_that_receives_nothing_stops_although_the_server_receives_its_requests() {
    let store = Store::shared("to-client").await;
    let clock = store.connector().clock();
    let (a, in_a, _b, in_b) = two_members(&store).await;
    let begin = clock.now();
    a.proxy().set(Mode::SwallowToClient);
    until("lapsed", 5 * SECOND, || in_a.view().standing() != Standing::Member).await;
    let stopped = clock.now().saturating_since(begin);
    assert!(stopped <= heartbeat_validity(&store) + SECOND / 2, "{stopped:?}");
    a.proxy().set(Mode::Pass);
    settles_within(10 * SECOND, &[&in_a, &in_b]).await;
}

#[tokio::test]
async fn a_slow_link_does_not_end_a_membership() {
    let store = Store { session_timeout: 4 * SECOND, ..Store::shared("slow").await };
    let (a, in_a, _b, in_b) = two_members(&store).await;
    let mut rebalances = in_a.rebalances();
    next_change(&mut rebalances).await;
    a.proxy().set(Mode::Delay(200 * MS));
    let change = tokio::time::timeout(3 * SECOND, rebalances.next()).await;
    assert!(change.is_err(), "{change:?}");
    settles_within(SECOND, &[&in_a, &in_b]).await;
}

#[tokio::test]
async fn a_connection_that_is_reset_now_and_then_does_not_end_a_membership() {
    let store = Store { session_timeout: 4 * SECOND, ..Store::shared("resets").await };
    let (a, in_a, _b, in_b) = two_members(&store).await;
    let (_, before) = znode(&*store.session().await, &store.path("g/a")).await;
    let mut rebalances = in_a.rebalances();
    next_change(&mut rebalances).await;
    for _ in 0..4 {
        a.proxy().reset();
        let change = tokio::time::timeout(600 * MS, rebalances.next()).await;
        assert!(change.is_err(), "{change:?}");
    }
    let (_, after) = znode(&*store.session().await, &store.path("g/a")).await;
    assert_eq!(before.czxid, after.czxid);
    settles_within(SECOND, &[&in_a, &in_b]).await;
}

/// Opens each session by another connector: the first by the first, and all further ones by the last.
#[derive(Debug)]
struct Ways(Mutex<Vec<Arc<dyn Connector>>>);

impl Connector for Ways {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, BackendError>> {
        let way = {
            let mut ways = self.0.lock().unwrap();
            if ways.len() > 1 { ways.remove(0) } else { ways[0].clone() }
        };
        Box::pin(async move { way.open(timeout).await })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.lock().unwrap()[0].clock()
    }
}

#[tokio::test]
async fn our_znode_from_an_earlier_session_is_taken_over() {
    let store = Store::shared("earlier-session").await;
    let server = crate::support::shared_server().await;
    let proxy = Proxy::start(server.port()).await;
    let first: Arc<dyn Connector> = Arc::new(zookeeper(&proxy.connect_string()));
    let ways = Ways(Mutex::new(vec![first, store.connector()]));
    let coordinator = PartitionCoordinator::connect(store.config_via(ways, "a")).await.unwrap();
    let group = coordinator.join("g").await.unwrap();
    settles_within(store.round(), &[&group]).await;
    let old = coordinator.session_id();
    // The server receives the requests of the first session, which keeps it alive, and the member receives nothing. So
    // the member gives the session up long before the server ends it.
    proxy.set(Mode::SwallowToClient);
    tokio::time::sleep(store.session_timeout * 3 / 4).await;
    proxy.set(Mode::BlackHole);
    let admin = store.session().await;
    let again = || async {
        let (_, stat) = admin.get(&store.path("g/a")).await.unwrap()?;
        (stat.ephemeral_owner != old && stat.ephemeral_owner == coordinator.session_id()).then_some(())
    };
    eventually("taken over", store.session_timeout + store.slack(), again).await;
    settles_within(store.round(), &[&group]).await;
    let (_, before) = znode(&*admin, &store.path("g/a")).await;
    // Its end deletes nothing of the new session.
    tokio::time::sleep(store.session_timeout + 3 * store.server_tick).await;
    assert_eq!(znode(&*admin, &store.path("g/a")).await.1.czxid, before.czxid);
}

#[tokio::test]
async fn members_survive_the_restart_of_the_server_or_come_back_by_themselves() {
    let mut server = Server::start().await;
    let store = Store { session_timeout: 3 * SECOND, ..Store::on(&server, "restart") };
    let (_a, in_a, _b, in_b) = two_members(&store).await;
    server.kill();
    server.restart().await;
    settles_within(10 * SECOND, &[&in_a, &in_b]).await;

    // Down for longer than the sessions are kept: no member has a share, and nothing hangs.
    server.kill();
    until("no member acts", heartbeat_validity(&store) + SECOND, || {
        owners(&[&in_a, &in_b]).values().all(Vec::is_empty)
    })
    .await;
    let share = tokio::time::timeout(SECOND, in_a.extract_my_subset(universe())).await.expect("it hangs");
    assert!(share.unwrap().is_empty());
    tokio::time::sleep(store.session_timeout).await;
    server.restart().await;
    settles_within(10 * SECOND, &[&in_a, &in_b]).await;
}

#[tokio::test]
async fn a_server_that_pauses_for_less_than_the_heartbeat_validity_changes_nothing() {
    let server = Server::start().await;
    let store = Store { session_timeout: 4 * SECOND, ..Store::on(&server, "pause") };
    let (_a, in_a, _b, in_b) = two_members(&store).await;
    let mut rebalances = in_a.rebalances();
    next_change(&mut rebalances).await;
    server.pause();
    let change = tokio::time::timeout(700 * MS, rebalances.next()).await;
    server.resume();
    assert!(change.is_err(), "{change:?}");
    let change = tokio::time::timeout(SECOND, rebalances.next()).await;
    assert!(change.is_err(), "{change:?}");
    settles_within(SECOND, &[&in_a, &in_b]).await;
}

#[tokio::test]
async fn a_member_that_starts_before_its_server_comes_up_with_it() {
    let mut server = Server::start().await;
    let store = Store::on(&server, "late");
    server.kill();
    let agent = store.started("a").await;
    let group = agent.join("g").await;
    let clock = store.connector().clock();
    let begin = clock.now();
    for _ in 0..20 {
        let share = group.extract_my_subset(universe()).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
        tokio::task::yield_now().await;
    }
    assert!(clock.now().saturating_since(begin) < SECOND, "shares are empty at once");
    assert!(agent.coordinator.is_active());
    server.restart().await;
    settles_within(5 * SECOND, &[&group]).await;
}

#[tokio::test]
async fn connecting_where_no_server_listens_or_answers_is_unreachable_after_the_session_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let unused = format!("127.0.0.1:{}", free_port());
    let attempt = async |hosts: &str| {
        let config =
            Config::from_url(format!("zookeeper://{hosts}?timeout=1")).unwrap().server_tick(100 * MS);
        let clock = zookeeper(hosts).clock();
        let begin = clock.now();
        let outcome = PartitionCoordinator::connect(config).await;
        let waited = clock.now().saturating_since(begin);
        let Err(Error::Unreachable { reason }) = outcome else { panic!("{outcome:?}") };
        assert!(waited >= SECOND / 2 && waited <= 4 * SECOND, "{waited:?}");
        assert!(reason.contains(hosts), "{reason}");
    };
    tokio::join!(attempt(&silent), attempt(&unused));
}

#[tokio::test]
async fn a_group_behind_an_access_control_list_is_a_typed_error_and_tried_at_most_once_a_second() {
    let store = Store::shared("acl").await;
    let hosts = crate::support::shared_server().await.connect_string();
    let with_auth = |connector: Faults| store.config_via(connector, "owner").namespace("acl-ns");
    let owner = Faults::new(Arc::new(zookeeper(&hosts).digest("user", "secret")));
    let owner = PartitionCoordinator::connect(with_auth(owner)).await.unwrap();
    let in_owner = owner.join("g").await.unwrap();

    let anonymous = Faults::new(Arc::new(zookeeper(&hosts)));
    let config = store.config_via(anonymous.clone(), "anonymous").namespace("acl-ns");
    let outcome = PartitionCoordinator::connect(config.clone()).await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    let started = PartitionCoordinator::start(config).unwrap();
    let group = started.join("g").await.unwrap();
    let refused = || async {
        matches!(group.extract_my_subset(universe()).await, Err(Error::NotPermitted { .. })).then_some(())
    };
    eventually("refused", 3 * SECOND, refused).await;
    let before = anonymous.calls().opens;
    tokio::time::sleep(3 * SECOND).await;
    let tries = anonymous.calls().opens - before;
    assert!((1..=3).contains(&tries), "{tries} tries in three seconds");

    // In an open namespace it is the group that refuses.
    let open = Faults::new(Arc::new(zookeeper(&hosts).digest("user", "secret")));
    let ensured = store.agent("maker").await;
    let _made = ensured.join("other").await;
    let config = store.config_via(open, "owner");
    let owner = PartitionCoordinator::connect(config).await.unwrap();
    let _private = owner.join("private").await.unwrap();
    let other = store.agent("other").await;
    let outcome = other.coordinator.join("private").await;
    let Err(Error::NotPermitted { path }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(path, "/acl/private/other");
    settles_within(store.round(), &[&in_owner]).await;
}

#[tokio::test]
async fn a_wrong_password_is_not_permitted() {
    let store = Store::shared("password").await;
    let hosts = crate::support::shared_server().await.connect_string();
    let url = |password: &str| format!("zookeeper://user:{password}@{hosts}?timeout=2&namespace=of-one-user");
    let config = |password: &str| Config::from_url(url(password)).unwrap().server_tick(store.server_tick);
    let owner = PartitionCoordinator::connect(config("right").member_id("a")).await.unwrap();
    let _group = owner.join("g").await.unwrap();
    let outcome = PartitionCoordinator::connect(config("wrong").member_id("b")).await;
    let Err(error) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&error, Error::NotPermitted { path } if path == "/of-one-user"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn a_folder_that_every_client_can_change_is_a_warning_for_a_member_with_credentials() {
    let store = Store::shared("open-to-all").await;
    let hosts = crate::support::shared_server().await.connect_string();
    let open = store.agent("maker").await;
    let _made = open.join("g").await;
    let _board = open.coordinator.job_board("/open-board/jobs").await.unwrap();
    let warnings = Events::of("apportion::session::requests");
    let _again = open.coordinator.job_board("/open-board/jobs").await.unwrap();
    assert_eq!(warnings.take(Level::WARN), [""; 0], "without credentials there is nothing to protect");

    let connector = zookeeper(&hosts).digest("user", "secret");
    let owner = PartitionCoordinator::connect(store.config_via(connector, "owner")).await.unwrap();
    let said = warnings.take(Level::WARN);
    assert!(matches!(&said[..], [one] if one.contains("znode=/open-to-all ")), "{said:?}");
    let _board = owner.job_board("/open-board/jobs").await.unwrap();
    let said = warnings.take(Level::WARN);
    for folder in ["/open-board/jobs", "/open-board/.trash", "/open-board/.posting"] {
        assert!(said.iter().any(|one| one.contains(&format!("znode={folder} "))), "{folder}: {said:?}");
    }
    // The maker cannot read the znode of the owner, so it could hand no keys over.
    let outcome = owner.join("g").await;
    assert!(matches!(outcome, Err(Error::Head { .. })), "{outcome:?}");
    let _group = owner.join("g").immediate().await.unwrap();
    let mut said = Vec::new();
    until("a warning of the group", 5 * SECOND, || {
        said.extend(warnings.take(Level::WARN));
        said.iter().any(|one: &String| one.contains("znode=/open-to-all/g "))
    })
    .await;
    // What it has created itself is its own.
    let _private = owner.join("private").await.unwrap();
    let _private = owner.job_board("/closed-board/jobs").await.unwrap();
    tokio::time::sleep(SECOND / 5).await;
    let said = warnings.take(Level::WARN);
    // The maker has made the folder of all heads.
    assert!(matches!(&said[..], [one] if one.contains("znode=/open-to-all.ring ")), "{said:?}");
}

#[tokio::test]
async fn another_session_timeout_than_the_one_of_the_configuration_is_a_warning() {
    let warnings = Events::of("apportion::session");
    let hosts = crate::support::shared_server().await.connect_string();
    let coordinator =
        PartitionCoordinator::connect(format!("zookeeper://{hosts}?timeout=10000")).await.unwrap();
    let said = warnings.take(Level::WARN);
    assert!(matches!(&said[..], [one] if one.contains("wanted=10000s granted=60s")), "{said:?}");
    coordinator.shutdown().await.unwrap();
    let coordinator = PartitionCoordinator::connect(format!("zookeeper://{hosts}?timeout=10")).await.unwrap();
    assert_eq!(warnings.take(Level::WARN), [""; 0]);
    coordinator.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_peer_whose_znode_cannot_be_read_is_a_plain_member_on_both_releases() {
    let [system, current] = RELEASES.map(|release| async move {
        a_peer_that_cannot_be_read_is_a_plain_member(&Store::shared_of(release, "private-peer").await).await;
    });
    tokio::join!(system, current);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_znode_cannot_be_read_is_a_plain_member_in_memory() {
    a_peer_that_cannot_be_read_is_a_plain_member(&Store::memory()).await;
}

async fn a_peer_that_cannot_be_read_is_a_plain_member(store: &Store) {
    let (a, in_a, _b, in_b) = two_members(store).await;
    let peer = store.connector_of("user").open(20 * SECOND).await.unwrap();
    let own = store.path("g/python");
    peer.commit(vec![Op::create(&own, b"\xc0", CreateMode::Ephemeral)]).await.unwrap();
    let reader = store.session().await;
    assert_eq!(reader.get(&own).await, Err(BackendError::NotPermitted));
    for group in [&in_a, &in_b] {
        sees(group, store.round() + SECOND, &["a", "b", "python"]).await;
        assert_eq!(group.view().standing(), Standing::Member);
        assert!(group.view().members()[2].is_plain());
    }
    // If such a znode has the id of a member, that member cannot join.
    let private = Op::create(&store.path("h"), "", CreateMode::Persistent);
    reader.commit(vec![private]).await.unwrap();
    peer.commit(vec![Op::create(&store.path("h/a"), b"\xc0", CreateMode::Ephemeral)]).await.unwrap();
    let outcome = a.joining("h").await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    peer.close().await;
    settles_within(2 * store.round(), &[&in_a, &in_b]).await;
}

#[tokio::test]
async fn a_znode_that_an_administrator_deletes_all_the_time_is_not_created_again_without_a_pause() {
    let store = Store::shared("deleted-all-the-time").await;
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let admin = store.session().await;
    let own = store.path("g/a");
    let before = agent.faults().calls().writes;
    let clock = store.connector().clock();
    let begin = clock.now();
    while clock.now().saturating_since(begin) < 2 * SECOND {
        let _ = admin.commit(vec![Op::delete(&own, None)]).await;
        tokio::task::yield_now().await;
    }
    let tries = agent.faults().calls().writes - before;
    assert!(tries <= 60, "{tries} joins in two seconds");
    settles_within(5 * SECOND, &[&group]).await;
}

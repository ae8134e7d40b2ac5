//! Other processes in the group: dead ones, living ones with the same id, Python peers, members with another ring.

use std::process::Command;

use apportion::{
    Error, HashRing, Label, PartitionCoordinator,
    backend::{CreateMode, Op},
    group::Standing,
};
use rmpv::Value;
use tracing::Level;

use crate::support::{
    MS, SECOND,
    events::Events,
    eventually,
    fleet::{Store, exists, ids, in_both_modes_on_both_backends, sees, settles_within, universe, znode},
    until,
};

in_both_modes_on_both_backends!(
    the_znode_of_a_dead_process_of_this_host_is_taken_over_at_once,
    the_znode_of_a_process_that_may_live_is_not_taken_over,
    a_second_member_with_the_same_id_is_refused_and_the_first_is_undisturbed,
    a_second_member_with_the_same_id_learns_at_once_who_has_it,
    a_started_member_joins_by_itself_when_the_other_process_with_its_id_leaves,
    a_member_whose_znode_another_process_has_replaced_has_no_share,
    members_with_different_rings_share_nothing_until_one_of_them_leaves,
    a_join_with_another_ring_fails_and_leaves_no_znode,
    plain_members_count_and_weights_do_not_while_they_are_there,
    a_persistent_child_of_the_group_is_no_member,
);

/// The payload of a member of this library, with other values under our key.
async fn payload_with(store: &Store, changes: &[(&str, Value)]) -> Vec<u8> {
    let model = store.agent("model").await;
    let _group = model.join("models").await;
    let (data, _) = znode(&*store.session().await, &store.path("models/model")).await;
    let mut value = rmpv::decode::read_value(&mut &*data).unwrap();
    let Value::Map(map) = &mut value else { panic!("{value} is no map") };
    let ours = map.iter_mut().find(|(key, _)| key.as_str() == Some("apportion")).unwrap();
    let Value::Map(ours) = &mut ours.1 else { panic!("{value} has no map of ours") };
    for (key, new) in changes {
        let (_, old) = ours.iter_mut().find(|(name, _)| name.as_str() == Some(key)).expect("a known key");
        *old = new.clone();
    }
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &value).unwrap();
    bytes
}

const ANOTHER_NONCE: &str = "00000000-0000-4000-8000-000000000000";

fn dead_pid() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[cfg(target_os = "linux")]
async fn the_znode_of_a_dead_process_of_this_host_is_taken_over_at_once(store: Store) {
    let changes = [("nonce", ANOTHER_NONCE.into()), ("pid", dead_pid().into())];
    let ghost = store.plain("g", "me", &payload_with(&store, &changes).await).await;
    let me = store.agent("me").await;
    let joined = tokio::time::timeout(SECOND / 2 + store.slack(), me.join("g")).await;
    let group = joined.expect("within half a second");
    let (_, stat) = znode(&*ghost, &store.path("g/me")).await;
    assert_eq!(stat.ephemeral_owner, me.coordinator.session_id());
    settles_within(store.round(), &[&group]).await;
}

#[cfg(not(target_os = "linux"))]
async fn the_znode_of_a_dead_process_of_this_host_is_taken_over_at_once(_: Store) {
    // Elsewhere a death cannot be proved, and nothing is taken over.
    let _ = dead_pid;
}

async fn the_znode_of_a_process_that_may_live_is_not_taken_over(store: Store) {
    let elsewhere =
        [("nonce", ANOTHER_NONCE.into()), ("pid", dead_pid().into()), ("host", "another-host".into())];
    let here = [("nonce", ANOTHER_NONCE.into())];
    let mut others = Vec::new();
    for (name, changes) in [("elsewhere", &elsewhere[..]), ("here", &here[..])] {
        others.push(store.plain(name, "me", &payload_with(&store, changes).await).await);
    }
    let me = store.agent("me").await;
    let (first, second) = tokio::join!(me.joining("elsewhere"), me.joining("here"));
    for (group, outcome) in [("elsewhere", first), ("here", second)] {
        assert!(matches!(outcome, Err(Error::MemberIdTaken { .. })), "{group}: {outcome:?}");
        let (_, stat) = znode(&*others[0], &store.path(group).join("me").unwrap()).await;
        assert_ne!(stat.ephemeral_owner, me.coordinator.session_id());
    }
}

async fn a_second_member_with_the_same_id_is_refused_and_the_first_is_undisturbed(store: Store) {
    let first = store.agent("same-id").await;
    let in_first = first.join("g").await;
    let share = in_first.extract_my_subset(universe()).await.unwrap();
    let python = store.plain("h", "same-id", b"\xc0").await;
    let before =
        [znode(&*python, &store.path("g/same-id")).await, znode(&*python, &store.path("h/same-id")).await];

    let second = store.agent("same-id").await;
    let clock = store.connector().clock();
    let begin = clock.now();
    let (one, other) = tokio::join!(second.joining("g"), second.joining("h"));
    let waited = clock.now().saturating_since(begin);
    for outcome in [one, other] {
        let Err(Error::MemberIdTaken { member, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(member, "same-id");
    }
    assert!(waited >= store.lifetime(), "the znode of a dead process could still exist: {waited:?}");
    assert!(waited <= store.lifetime() + SECOND + store.slack(), "{waited:?}");

    let after =
        [znode(&*python, &store.path("g/same-id")).await, znode(&*python, &store.path("h/same-id")).await];
    assert_eq!(before, after);
    assert!(share.is_valid() && share.len() == universe().len());
}

async fn a_started_member_joins_by_itself_when_the_other_process_with_its_id_leaves(store: Store) {
    let python = store.plain("g", "me", b"\xc0").await;
    let (config, _line) = store.prepare("me").await;
    // The pauses of production, on a real server as well.
    let config = config.retry_backoff(SECOND).max_retry_interval(30 * SECOND);
    let me = PartitionCoordinator::start(config).unwrap();
    let group = store.join(&me, "g").await.unwrap();
    let refused = || async {
        match group.extract_my_subset(universe()).await {
            Ok(share) => assert_eq!(share.len(), 0, "shared with another process of the same id"),
            Err(Error::MemberIdTaken { .. }) => return Some(()),
            Err(Error::NotInGroup { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        None
    };
    // The five tries of an extraction that began just before take up to ten seconds.
    eventually("refused", store.lifetime() + 11 * SECOND + store.slack(), refused).await;
    until("refused", store.lifetime() + SECOND + store.slack(), || {
        group.view().standing() == Standing::Refused
    })
    .await;
    // The pauses between two tries have grown. The watch on its znode ends them.
    tokio::time::sleep(if store.is_memory() { 120 * SECOND } else { 6 * SECOND }).await;
    python.close().await;
    settles_within(store.round(), &[&group]).await;
}

async fn a_second_member_with_the_same_id_learns_at_once_who_has_it(store: Store) {
    let first = store.agent("same-id").await;
    let _in_first = first.join("g").await;
    let events = Events::of("apportion::group::view");
    let second = store.started("same-id").await;
    let group = second.join("g").await;
    let logged =
        || async { events.take(Level::WARN).into_iter().find(|text| text.contains("already in use")) };
    let logged = eventually("logged", store.round(), logged).await;
    let (_, stat) = znode(&*store.session().await, &store.path("g/same-id")).await;
    let (pid, session) = (std::process::id(), first.coordinator.session_id().unwrap());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    for part in [format!("session {session}"), "it is tried again".into()] {
        assert!(logged.contains(&part), "{part} in {logged}");
    }
    if cfg!(target_os = "linux") {
        assert!(logged.contains(&format!("process {pid} on host `{}`", host.trim())), "{logged}");
    }
    tokio::time::sleep(store.lifetime() + 2 * SECOND).await;
    assert_eq!(group.view().standing(), Standing::Refused);
    let outcome = group.extract_my_subset(universe()).await;
    let Err(Error::MemberIdTaken { holder, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((holder.session, holder.since_ms), (Some(session), stat.created_ms));
    let again = events.take(Level::WARN);
    assert!(again.iter().all(|text| !text.contains("already in use")), "once: {again:?}");
}

async fn a_member_whose_znode_another_process_has_replaced_has_no_share(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let share = in_a.extract_my_subset(universe()).await.unwrap();

    let other = store.session().await;
    let own = store.path("g/a");
    // With the data version of the old znode: a heartbeat does not notice the new one.
    let swap = vec![
        Op::delete(&own, None),
        Op::create(&own, "", CreateMode::Ephemeral),
        Op::set(&own, "\u{c0}", None),
    ];
    other.commit(swap).await.unwrap();
    let out = || async { (in_a.view().standing() != Standing::Member).then_some(()) };
    tokio::time::timeout(store.round(), eventually("out", 10 * SECOND, out)).await.expect("at the next view");
    assert!(!share.is_valid());
    assert!(universe().iter().all(|key| !in_a.view().owns(key)));
    let outcome = in_a.extract_my_subset(universe()).await;
    assert!(outcome.is_err() || outcome.is_ok_and(|share| share.is_empty()));
    let (_, stat) = znode(&*other, &own).await;
    assert_eq!(stat.ephemeral_owner, Some(other.id()), "the other znode is not taken over");

    other.close().await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
}

async fn members_with_different_rings_share_nothing_until_one_of_them_leaves(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let (config, _line) = store.prepare("b").await;
    let b = PartitionCoordinator::start(config.label(Label::PythonBytes)).unwrap();
    let in_b = store.join(&b, "g").await.unwrap();
    if !store.is_immediate {
        // The ring of the group is that of its head: only the member with another one is refused.
        until("refused", store.round(), || in_b.view().standing() == Standing::Refused).await;
        let outcome = in_b.extract_my_subset(universe()).await;
        assert!(matches!(outcome, Err(Error::Head { .. })), "{outcome:?}");
        settles_within(store.round(), &[&in_a]).await;
        b.shutdown().await.unwrap();
        return settles_within(store.round(), &[&in_a]).await;
    }
    for group in [&in_a, &in_b] {
        until("refused", store.round(), || group.view().standing() == Standing::Refused).await;
        let outcome = group.extract_my_subset(universe()).await;
        let Err(Error::RingMismatch { theirs, ours, .. }) = outcome else { panic!("{outcome:?}") };
        assert_ne!(theirs, ours);
        assert!(universe().iter().all(|key| !group.view().owns(key)));
    }
    b.shutdown().await.unwrap();
    settles_within(store.round(), &[&in_a]).await;
}

async fn a_join_with_another_ring_fails_and_leaves_no_znode(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let b = store.agent_with("b", |config| config.replicas(99)).await;
    match b.joining("g").await {
        Err(Error::RingMismatch { .. }) if store.is_immediate => {}
        Err(Error::Head { reason, .. }) if !store.is_immediate => {
            assert!(reason.contains("100 replicas"), "{reason}");
        }
        outcome => panic!("{outcome:?}"),
    }
    let admin = store.session().await;
    let gone = || async { (!exists(&*admin, &store.path("g/b")).await).then_some(()) };
    eventually("b is gone", store.round(), gone).await;
    settles_within(store.round(), &[&in_a]).await;
}

async fn plain_members_count_and_weights_do_not_while_they_are_there(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.joining("g").weight(3).await.unwrap();
    let in_b = b.join("g").await;
    sees(&in_b, store.round(), &["a", "b"]).await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    assert_eq!(in_b.view().ring().weight("a"), Some(3));

    let data: [&[u8]; 6] = [b"\xc0", b"\xc4\x00", b"", b"\xff garbage", b"\x81\xa6weight\x05", &[0x91; 5000]];
    let mut peers = Vec::new();
    for (number, data) in data.iter().enumerate() {
        peers.push(store.plain("g", &format!("python-{number}"), data).await);
    }
    let all = ["a", "b", "python-0", "python-1", "python-2", "python-3", "python-4", "python-5"];
    for group in [&in_a, &in_b] {
        sees(group, 2 * store.round(), &all).await;
        let view = group.view();
        assert!(all.iter().all(|id| view.ring().weight(id) == Some(1)), "{view:?}");
        assert_eq!(view.members().iter().filter(|member| member.is_plain()).count(), 6);
    }
    // What a Python peer computes: each child once, whatever its data.
    let theirs = HashRing::builder().members(all).build().unwrap();
    assert!(universe().iter().all(|key| {
        let owner = theirs.owner(key);
        in_a.view().owns(key) == (owner == Some("a")) && in_b.view().owns(key) == (owner == Some("b"))
    }));
    drop(peers);
    sees(&in_a, store.expiry() + 2 * store.round(), &["a", "b"]).await;
    settles_within(2 * store.round(), &[&in_a, &in_b]).await;
    assert_eq!(in_b.view().ring().weight("a"), Some(3));
}

async fn a_persistent_child_of_the_group_is_no_member(store: Store) {
    let a = store.agent("a").await;
    let group = a.join("g").await;
    let election = store.path("g/leader");
    let admin = store.session().await;
    admin.commit(vec![Op::create(&election, "", CreateMode::Persistent)]).await.unwrap();
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    sees(&group, store.round(), &["a", "b"]).await;
    settles_within(store.round(), &[&group, &in_b]).await;

    // Also under the name of a member: it is not taken over, and the join does not wait for ever.
    let outcome = store.agent("leader").await.joining("g").await;
    assert!(matches!(outcome, Err(Error::MemberIdTaken { .. })), "{outcome:?}");
    assert!(exists(&*admin, &election).await);
    assert_eq!(ids(&group), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn our_znode_from_an_earlier_session_is_taken_over() {
    for store in [Store::memory(), Store::memory().immediate()] {
        an_earlier_session(store).await;
    }
}

async fn an_earlier_session(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let old = agent.coordinator.session_id().unwrap();
    // The last report of the session reaches the ensemble half a second after its last confirmed heartbeat. So the
    // client gives the session up half a second before it expires.
    tokio::time::sleep(5500 * MS).await;
    agent.suspend();
    tokio::time::sleep(store.session_timeout - 100 * MS).await;
    let admin = store.session().await;
    let (_, stat) = znode(&*admin, &store.path("g/a")).await;
    assert!(store.ensemble().sessions().contains(&old), "the old session still lives");
    assert_ne!(stat.ephemeral_owner, Some(old));
    assert_eq!(stat.ephemeral_owner, agent.coordinator.session_id());
    settles_within(50 * MS, &[&group]).await;
    // Its end deletes nothing of the new session.
    tokio::time::sleep(SECOND).await;
    assert!(!store.ensemble().sessions().contains(&old));
    settles_within(10 * MS, &[&group]).await;
}

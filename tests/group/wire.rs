//! Groups as a real server has them: the znodes, their bytes and their access control lists, compared with what
//! the Python client library wrote there (`tests/golden/group.json`), and seen as one of its peers sees them.

use std::{collections::BTreeMap, time::Duration};

use apportion::{
    Config, Group, HashRing, Join, Label, PartitionCoordinator,
    backend::{CommitError, Connector, CreateMode, Error as BackendError, Op, Session, path::ZnodePath},
};
use rmpv::Value as Msgpack;
use serde_json::Value;
use zookeeper_client as zk;

use crate::support::{
    Release, SECOND, eventually,
    fleet::{create_with_ancestors, delete_recursively, exists, sees, settles_within, universe, znode},
    golden::{golden, hex, text, texts},
    on_both_releases, shared_server_of, until, zookeeper,
};

/// One znode as a dump shows it.
#[derive(Debug, Clone, PartialEq)]
struct Znode {
    data: Vec<u8>,
    is_ephemeral: bool,
    /// Permissions, scheme and id of each entry.
    acl: Vec<(i64, String, String)>,
}

/// The subtree at `root`, by path.
async fn dump(client: &zk::Client, root: &str) -> BTreeMap<String, Znode> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let (children, _) = client.get_children(&path).await.unwrap();
        ahead.extend(children.iter().map(|child| format!("{path}/{child}")));
        let (data, stat) = client.get_data(&path).await.unwrap();
        let (acl, _) = client.get_acl(&path).await.unwrap();
        let acl = acl.iter().map(|entry| {
            let permissions = if entry.permission() == zk::Permission::ALL { 31 } else { -1 };
            (permissions, entry.scheme().to_owned(), entry.id().to_owned())
        });
        let znode = Znode { data, is_ephemeral: stat.ephemeral_owner != 0, acl: acl.collect() };
        found.insert(path, znode);
    }
    found
}

/// A step of the golden file.
fn golden_step(golden: &Value, name: &str) -> BTreeMap<String, Znode> {
    let steps = golden["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step[0] == name).unwrap_or_else(|| panic!("no step {name}"));
    let znodes = step[1].as_array().unwrap().iter().map(|znode| {
        let acl = znode["acl"].as_array().unwrap();
        let acl = acl.iter().map(|entry| {
            (entry[0].as_i64().unwrap(), text(&entry[1]).to_owned(), text(&entry[2]).to_owned())
        });
        let is_ephemeral = znode["ephemeral"].as_bool().unwrap();
        (
            text(&znode["path"]).to_owned(),
            Znode { data: hex(&znode["data_hex"]), is_ephemeral, acl: acl.collect() },
        )
    });
    znodes.collect()
}

/// The payload of a member without what only this library reads, as bytes; and what this library reads.
fn apart(payload: &[u8]) -> (Vec<u8>, Vec<(String, Msgpack)>) {
    let value = rmpv::decode::read_value(&mut &*payload).unwrap();
    let mut again = Vec::new();
    rmpv::encode::write_value(&mut again, &value).unwrap();
    assert_eq!(again, payload, "in the shortest encoding, with nothing after it");
    let Msgpack::Map(mut map) = value else { panic!("{value} is no map") };
    let at = map.iter().position(|(key, _)| key.as_str() == Some("apportion")).expect("our key");
    let Msgpack::Map(ours) = map.remove(at).1 else { panic!("our key holds no map") };
    let mut rest = Vec::new();
    rmpv::encode::write_value(&mut rest, &Msgpack::Map(map)).unwrap();
    (rest, ours.into_iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), value)).collect())
}

async fn hosts(release: Release) -> String {
    shared_server_of(release).await.connect_string()
}

fn config(hosts: &str, namespace: &str, id: &str) -> Config {
    Config::from_url(format!("zookeeper://{hosts}")).unwrap().namespace(namespace).member_id(id)
}

async fn connect(config: Config) -> PartitionCoordinator {
    PartitionCoordinator::connect(config).await.unwrap()
}

/// Both modes of a group.
const IMMEDIATE_AND_EXCLUSIVE: [bool; 2] = [true, false];

/// A join in one of the modes.
fn join(coordinator: &PartitionCoordinator, group: &str, is_immediate: bool) -> Join {
    let join = coordinator.join(group);
    // The Python peers of these tests never act, so no key has to wait for them.
    if is_immediate { join.immediate() } else { join.plain_grace(Duration::ZERO) }
}

async fn the_znodes_of_a_fleet_are_those_of_a_python_fleet_but_for_one_key_in_the_payloads(release: Release) {
    for is_immediate in IMMEDIATE_AND_EXCLUSIVE {
        the_znodes_of_a_fleet(release, is_immediate).await;
    }
}

async fn the_znodes_of_a_fleet(release: Release, is_immediate: bool) {
    let (golden, hosts) = (golden("group.json"), hosts(release).await);
    let (namespace, group) = (text(&golden["namespace"]), text(&golden["group"]));
    let root = format!("/{namespace}");
    let observer = zk::Client::connect(&hosts).await.unwrap();
    let members = texts(&golden["members"]);

    let first = connect(config(&hosts, namespace, members[0])).await;
    assert_eq!(dump(&observer, &root).await, golden_step(&golden, "start"));
    let one = join(&first, group, is_immediate).weight(10).await.unwrap();
    let second = connect(config(&hosts, namespace, members[1])).await;
    let _two = join(&second, group, is_immediate).weight(9).await.unwrap();

    let mut found = dump(&observer, &root).await;
    for member in &members {
        let znode = found.get_mut(&format!("{root}/{group}/{member}")).expect("a znode for each member");
        let (theirs, ours) = apart(&znode.data);
        znode.data = theirs;
        let keys: Vec<_> = ours.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys[..4], ["v", "label", "replicas", "nonce"]);
        assert_eq!(ours[0].1, Msgpack::from(1));
        assert_eq!((ours[1].1.as_str(), ours[2].1.as_u64()), (Some("plain"), Some(100)));
        #[cfg(target_os = "linux")]
        assert_eq!(keys[4..9], ["host", "boot", "pidns", "pid", "start"]);
        assert_eq!(keys.get(9).copied(), (!is_immediate).then_some("handover"));
    }
    // Nothing is left that Python would not have written.
    assert_eq!(found, golden_step(&golden, "update_capabilities(member0, weight=10)"));

    one.leave().await.unwrap();
    second.shutdown().await.unwrap();
    assert_eq!(dump(&observer, &root).await, golden_step(&golden, "create_group"));
    let session = zookeeper(&hosts).open(20 * SECOND).await.unwrap();
    delete_recursively(&*session, &ZnodePath::parse(&root).unwrap()).await;
}

async fn credentials_in_the_url_guard_every_znode_with_one_entry(release: Release) {
    let (golden, hosts) = (golden("group.json"), hosts(release).await);
    let digest = &golden["digest_acl"];
    let (user, password) = (text(&digest["user"]), text(&digest["password"]));
    let url = format!("zookeeper://{user}:{password}@{hosts}?namespace=guarded/deeply");
    let coordinator = connect(Config::from_url(url).unwrap().member_id("a")).await;
    let group = coordinator.join("g").await.unwrap();
    settles_within(5 * SECOND, &[&group]).await;

    let observer = zk::Client::connector()
        .with_auth("digest", format!("{user}:{password}").as_bytes())
        .connect(&hosts)
        .await
        .unwrap();
    let found = dump(&observer, "/guarded").await;
    let paths: Vec<_> = found.keys().map(String::as_str).collect();
    let [rest @ .., "/guarded/deeply/g", "/guarded/deeply/g/a"] = &paths[..] else { panic!("{paths:?}") };
    let ["/guarded", "/guarded/deeply", "/guarded/deeply.ring", "/guarded/deeply.ring/g", snapshot] = rest
    else {
        panic!("{paths:?}")
    };
    let snapshot = snapshot.strip_prefix("/guarded/deeply.ring/g/").expect("a child of the head");
    assert!(snapshot.len() == 16 && snapshot.bytes().all(|byte| byte.is_ascii_hexdigit()), "{snapshot}");
    let only = vec![(31, "digest".to_owned(), text(&digest["id"]).to_owned())];
    assert!(found.values().all(|znode| znode.acl == only), "{found:?}");

    let anonymous = zk::Client::connect(&hosts).await.unwrap();
    assert!(matches!(anonymous.get_children("/guarded/deeply/g").await, Err(zk::Error::NoAuth)));
}

async fn heartbeats_and_reads_change_nothing_on_the_server(release: Release) {
    for is_immediate in IMMEDIATE_AND_EXCLUSIVE {
        heartbeats_and_reads_change_nothing(release, is_immediate).await;
    }
}

async fn heartbeats_and_reads_change_nothing(release: Release, is_immediate: bool) {
    let hosts = hosts(release).await;
    let (namespace, below) = if is_immediate {
        ("unchanged", &["/g", "/g/a"][..])
    } else {
        ("unchanged-exclusive", &["/g", "/g/a", ".ring/g", ".ring"][..])
    };
    let coordinator = connect(config(&hosts, namespace, "a").heartbeat(SECOND / 20)).await;
    let group = join(&coordinator, "g", is_immediate).await.unwrap();
    let observer = zk::Client::connect(&hosts).await.unwrap();
    let stats = async || {
        let mut stats = vec![observer.check_stat(&format!("/{namespace}")).await.unwrap().unwrap()];
        for path in below {
            stats.push(observer.check_stat(&format!("/{namespace}{path}")).await.unwrap().unwrap());
        }
        stats
    };
    let (before, held) = (stats().await, group.extract_my_subset(universe()).await.unwrap());
    let deadline = held.deadline();
    until("several heartbeats", 5 * SECOND, || held.deadline() > deadline + SECOND / 4).await;
    assert_eq!(stats().await, before);
    if is_immediate {
        assert_eq!(group.view().epoch(), before[1].pzxid, "the generation is that of the children");
    } else {
        assert_eq!(group.view().epoch(), before[3].mzxid, "the generation is that of the head");
    }
    assert_eq!(group.view().members()[0].incarnation(), before[2].czxid);
}

/// A Python peer, as far as the server sees one.
struct Peer {
    session: std::sync::Arc<dyn Session>,
    id: String,
}

impl Peer {
    async fn start(hosts: &str, id: &str) -> Peer {
        Peer { session: zookeeper(hosts).open(20 * SECOND).await.unwrap(), id: id.into() }
    }

    async fn join_group(&self, group: &ZnodePath, capabilities: &[u8]) -> Result<(), BackendError> {
        let create = Op::create(&group.join(&self.id).unwrap(), capabilities, CreateMode::Ephemeral);
        self.session.commit(vec![create]).await.map(drop).map_err(|error| error.error)
    }

    /// Each child is a member, whatever it is.
    async fn get_members(&self, group: &ZnodePath) -> Vec<String> {
        self.session.sync(group).await.unwrap();
        let (mut names, _) = self.session.children(group).await.unwrap();
        assert!(names.iter().all(|name| name.is_ascii()), "get_members raises on {names:?}");
        names.sort_unstable();
        names
    }

    /// What the partitioner of the Python library reads as the weight.
    async fn weight_of(&self, group: &ZnodePath, member: &str) -> u64 {
        let (data, _) = znode(&*self.session, &group.join(member).unwrap()).await;
        let capabilities = rmpv::decode::read_value(&mut &*data).expect("unpacking does not raise");
        match capabilities {
            Msgpack::Map(map) => {
                let weight = map.iter().find(|(key, _)| key.as_str() == Some("weight"));
                weight.expect("a map without a weight raises").1.as_u64().unwrap()
            }
            _ => 1,
        }
    }
}

async fn a_python_peer_and_this_library_see_one_fleet_and_place_each_key_alike(release: Release) {
    let hosts = hosts(release).await;
    let aodh = |id: &str| Config::aodh().url(format!("zookeeper://{hosts}")).unwrap().member_id(id);
    let (first, second) = (connect(aodh("agent-0")).await, connect(aodh("agent-1")).await);
    let group =
        |coordinator: &PartitionCoordinator| join(coordinator, "alarm_evaluator", false).into_future();
    let (one, two): (Group, Group) = (group(&first).await.unwrap(), group(&second).await.unwrap());
    let path = ZnodePath::parse("/tooz/alarm_evaluator").unwrap();

    let python = Peer::start(&hosts, "agent-2").await;
    python.join_group(&path, b"\xc0").await.unwrap();
    assert_eq!(python.get_members(&path).await, ["agent-0", "agent-1", "agent-2"]);
    for member in ["agent-0", "agent-1", "agent-2"] {
        assert_eq!(python.weight_of(&path, member).await, 1);
    }
    assert_eq!(python.join_group(&path, b"\xc0").await, Err(BackendError::NodeExists), "MemberAlreadyExist");
    for seen in [&one, &two] {
        sees(seen, 5 * SECOND, &["agent-0", "agent-1", "agent-2"]).await;
    }
    let theirs = HashRing::builder()
        .label(Label::PythonBytes)
        .members(python.get_members(&path).await)
        .build()
        .unwrap();
    for key in universe() {
        let owner = theirs.owner(&key).unwrap();
        assert_eq!(one.view().owns(&key), owner == "agent-0");
        assert_eq!(two.view().owns(&key), owner == "agent-1");
    }

    // It leaves, we leave: then the group can be deleted, and a join makes it again.
    python.session.close().await;
    settles_within(5 * SECOND, &[&one, &two]).await;
    second.shutdown().await.unwrap();
    let python = Peer::start(&hosts, "agent-3").await;
    let delete = || async {
        python.session.commit(vec![Op::delete(&path, None)]).await.map(drop).map_err(|error| error.error)
    };
    assert_eq!(delete().await, Err(BackendError::NotEmpty), "GroupNotEmpty");
    one.leave().await.unwrap();
    assert_eq!(delete().await, Ok(()));
    assert_eq!(delete().await, Err(BackendError::NoNode), "GroupNotCreated");
    let again = group(&first).await.unwrap();
    assert_eq!(python.get_members(&path).await, ["agent-0"]);
    settles_within(5 * SECOND, &[&again]).await;
}

async fn a_python_peer_reads_our_weight_and_we_read_its(release: Release) {
    let hosts = hosts(release).await;
    let golden = golden("group.json");
    let coordinator = connect(config(&hosts, "weights", "ours")).await;
    let group = coordinator.join("g").weight(7).await.unwrap();
    let path = ZnodePath::parse("/weights/g").unwrap();
    let python = Peer::start(&hosts, "python").await;
    assert_eq!(python.weight_of(&path, "ours").await, 7);

    let mut expected = BTreeMap::from([("ours".to_owned(), 7)]);
    let capabilities = golden["capabilities"].as_array().unwrap().iter();
    let foreign = golden["foreign_capabilities"].as_array().unwrap().iter();
    let mut creates = Vec::new();
    for (number, entry) in capabilities.chain(foreign).enumerate() {
        let id = format!("python-{number:03}");
        creates.push(Op::create(&path.join(&id).unwrap(), hex(&entry["hex"]), CreateMode::Ephemeral));
        // What makes the partitioner raise is a plain member to us.
        expected.insert(id, entry["partitioner_weight"].as_u64().unwrap_or(1));
    }
    python.session.commit(creates).await.unwrap();
    let ids: Vec<_> = expected.keys().map(String::as_str).collect();
    sees(&group, 5 * SECOND, &ids).await;
    for member in group.view().members() {
        assert_eq!(u64::from(member.weight()), expected[member.id().as_str()], "{member:?}");
        assert_eq!(member.is_plain(), *member.id() != "ours");
    }
    assert!(group.view().ring().members().all(|id| group.view().ring().weight(id) == Some(1)));
}

async fn elections_and_locks_of_python_peers_do_not_disturb_a_group(release: Release) {
    let hosts = hosts(release).await;
    let coordinator = connect(config(&hosts, "elections", "a")).await;
    let group = coordinator.join("g").await.unwrap();
    let python = Peer::start(&hosts, "python").await;
    let root = ZnodePath::parse("/elections").unwrap();
    let leader = root.join("g").unwrap().join("leader").unwrap();
    let lock = root.join("locks").unwrap().join("a-lock").unwrap();
    for path in [&leader, &lock] {
        create_with_ancestors(&*python.session, path).await;
        let entry = path.join("4ced7f6701e641b7a1921a26f618adcb__lock__").unwrap();
        let queued = Op::create(&entry, "python", CreateMode::EphemeralSequential);
        python.session.commit(vec![queued]).await.unwrap();
    }
    let second = connect(config(&hosts, "elections", "b")).await;
    let other = second.join("g").await.unwrap();
    settles_within(5 * SECOND, &[&group, &other]).await;
    sees(&group, SECOND, &["a", "b"]).await;
}

async fn a_stopped_member_is_gone_for_its_peers_at_once(release: Release) {
    let hosts = hosts(release).await;
    let python = Peer::start(&hosts, "python").await;
    let path = ZnodePath::parse("/stops/g").unwrap();
    for way in ["leave", "shutdown", "drop"] {
        let coordinator = connect(config(&hosts, "stops", "a").session_timeout(30 * SECOND)).await;
        let group = coordinator.join("g").await.unwrap();
        assert_eq!(python.get_members(&path).await, ["a"]);
        match way {
            "leave" => group.leave().await.unwrap(),
            "shutdown" => coordinator.shutdown().await.unwrap(),
            _ => {
                drop(coordinator);
                let gone = || async { python.get_members(&path).await.is_empty().then_some(()) };
                eventually("gone long before the session could expire", 5 * SECOND, gone).await;
            }
        }
        assert_eq!(python.get_members(&path).await, [""; 0], "{way}");
    }
}

async fn nothing_but_members_is_ever_put_under_a_group(release: Release) {
    let hosts = hosts(release).await;
    let coordinator = connect(config(&hosts, "children", "a")).await;
    let group = coordinator.join("g").await.unwrap();
    let observer = Peer::start(&hosts, "observer").await;
    let path = ZnodePath::parse("/children/g").unwrap();
    delete_recursively(&*observer.session, &path).await;
    let back = || async { exists(&*observer.session, &path.join("a").unwrap()).await.then_some(()) };
    eventually("it is back", Duration::from_secs(10), back).await;
    settles_within(5 * SECOND, &[&group]).await;
    group.leave().await.unwrap();
    let (_, stat) = znode(&*observer.session, &path).await;
    assert_eq!((stat.cversion, stat.num_children), (2, 0), "one child ever: created and deleted");
    let gone = observer.session.commit(vec![Op::delete(&path, None)]).await;
    assert!(!matches!(gone, Err(CommitError { .. })), "{gone:?}");
}

on_both_releases!(
    the_znodes_of_a_fleet_are_those_of_a_python_fleet_but_for_one_key_in_the_payloads,
    credentials_in_the_url_guard_every_znode_with_one_entry,
    heartbeats_and_reads_change_nothing_on_the_server,
    a_python_peer_and_this_library_see_one_fleet_and_place_each_key_alike,
    a_python_peer_reads_our_weight_and_we_read_its,
    elections_and_locks_of_python_peers_do_not_disturb_a_group,
    a_stopped_member_is_gone_for_its_peers_at_once,
    nothing_but_members_is_ever_put_under_a_group,
);

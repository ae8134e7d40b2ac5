//! Members of tooz's partitioned groups, with weights, and polling agents of ceilometer, each in one group with members of
//! this crate.

use crate::{
    fleet::Fleet,
    support::{SECOND, python::Versions, shared_server},
};

const PARTITIONER: &str = "interop/partitioner.py";

const PYTHON: [&str; 3] = ["python-a", "python-b", "python-c"];
const RUST: [&str; 3] = ["rust-a", "rust-b", "rust-c"];

/// Three members of each side with the weights 1, 2 and 3, not in the group yet.
async fn fleet(group: &str) -> Fleet<'static> {
    let mut fleet = Fleet::of_tooz(shared_server().await, group).await;
    for ((python, rust), weight) in PYTHON.into_iter().zip(RUST).zip(1..) {
        fleet.tooz(Versions::Current, python, PARTITIONER, weight).await;
        fleet.rust(rust, weight).await;
    }
    fleet.ready().await;
    fleet
}

/// All of `first` join, then all of `second`. One after the other: a partitioner of tooz that is being made may miss a
/// member that joins at this moment, for good.
async fn join(fleet: &mut Fleet<'_>, first: [&str; 3], second: [&str; 3]) {
    for id in first {
        fleet.member(id).join().await;
        fleet.settles(30 * SECOND).await;
    }
    for id in second {
        fleet.join(id).await;
    }
}

#[tokio::test]
async fn members_of_this_crate_join_those_of_tooz_with_their_weights() {
    let mut fleet = fleet("tooz-first").await;
    join(&mut fleet, PYTHON, RUST).await;
    for id in [PYTHON[0], RUST[0]] {
        fleet.leave(id).await;
        fleet.join(id).await;
    }
    for id in [PYTHON[1], RUST[1]] {
        fleet.kill(id).await;
        fleet.join(id).await;
    }
    for id in [PYTHON[2], RUST[2]] {
        fleet.expire(id).await;
    }
    fleet.is_exclusive(false).await;
    for id in PYTHON {
        fleet.leave(id).await;
    }
    fleet.is_exclusive(true).await;
    println!("{}:\n{}", fleet.group, fleet.table);
}

#[tokio::test]
async fn members_of_tooz_join_those_of_this_crate() {
    let mut fleet = fleet("tooz-second").await;
    join(&mut fleet, RUST, PYTHON).await;
    for id in [RUST[1], PYTHON[1]] {
        fleet.cut(id).await;
        fleet.pause(id).await;
    }
    for id in [RUST[2], PYTHON[2]] {
        fleet.kill(id).await;
        fleet.join(id).await;
    }
    println!("{}:\n{}", fleet.group, fleet.table);
}

/// Of the versions that this crate was modelled on, and of today.
#[tokio::test]
async fn members_of_old_and_new_tooz_and_of_this_crate_share() {
    let mut fleet = Fleet::of_tooz(shared_server().await, "tooz-versions").await;
    fleet.tooz(Versions::Old, "old", PARTITIONER, 2).await;
    fleet.tooz(Versions::Current, "new", PARTITIONER, 3).await;
    fleet.rust("rust", 2).await;
    fleet.ready().await;
    assert_eq!(fleet.member("old").versions["tooz"], "1.58.0");
    for id in ["old", "new", "rust"] {
        fleet.member(id).join().await;
        fleet.settles(30 * SECOND).await;
    }
    for id in ["old", "rust"] {
        fleet.leave(id).await;
        fleet.join(id).await;
        fleet.kill(id).await;
        fleet.join(id).await;
    }
    println!("{}:\n{}", fleet.group, fleet.table);
}

/// In the group that the agents give their discoveries, with the keys that they hash.
#[tokio::test]
async fn members_of_this_crate_poll_beside_agents_of_ceilometer() {
    let mut fleet = Fleet::of_tooz(shared_server().await, "central-global").await;
    for id in &PYTHON[..2] {
        fleet.tooz(Versions::Current, id, "interop/polling_agent.py", 1).await;
    }
    fleet.rust(RUST[0], 1).await;
    fleet.rust(RUST[1], 1).await;
    fleet.ready().await;
    fleet.member(PYTHON[0]).join().await;
    fleet.settles(30 * SECOND).await;
    for id in [RUST[0], PYTHON[1], RUST[1]] {
        fleet.join(id).await;
    }
    for id in [PYTHON[0], RUST[0]] {
        fleet.leave(id).await;
    }
    println!("{}:\n{}", fleet.group, fleet.table);
}

//! The path of `docs/coming_from_aodh.md`: a fleet of aodh is replaced, one member at a time, and the way back.

use crate::{
    fleet::Fleet,
    support::{SECOND, shared_server},
};

#[tokio::test]
async fn a_fleet_of_aodh_is_replaced_one_by_one_and_back() {
    let mut fleet = Fleet::new(shared_server().await, "migration").await;
    for id in ["python-a", "python-b"] {
        fleet.aodh(id).await;
    }
    for (id, weight) in [("rust-a", 1), ("rust-b", 3)] {
        fleet.rust(id, weight).await;
    }
    fleet.ready().await;
    for id in ["python-a", "python-b"] {
        fleet.member(id).join().await;
    }
    fleet.settles(30 * SECOND).await;

    // One agent after the other. Weights do not count, and no share is exclusive.
    fleet.leave("python-a").await;
    fleet.join("rust-a").await;
    fleet.is_exclusive(false).await;
    fleet.join("rust-b").await;
    fleet.is_exclusive(false).await;

    // The last one goes: from then on weights count, and shares are exclusive.
    fleet.leave("python-b").await;
    fleet.is_exclusive(true).await;

    // The way back begins with the first one that comes.
    fleet.join("python-b").await;
    fleet.is_exclusive(false).await;
    fleet.leave("rust-b").await;
    fleet.join("python-a").await;
    fleet.leave("rust-a").await;
    println!("migration:\n{}", fleet.table);
}

/// A cycle that is longer than any lease: the first member of this crate knows of no epoch before its own.
#[tokio::test]
async fn the_first_member_of_this_crate_waits_until_those_of_aodh_have_asked_again() {
    let mut fleet = Fleet::new(shared_server().await, "first").await;
    (fleet.cycle, fleet.grace) = (3 * SECOND, 4 * SECOND);
    fleet.aodh("python").await;
    fleet.rust("rust", 1).await;
    fleet.ready().await;
    fleet.member("python").join().await;
    fleet.settles(30 * SECOND).await;
    fleet.join("rust").await;
    println!("first:\n{}", fleet.table);
}

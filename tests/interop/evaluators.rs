//! Alarm evaluators of aodh and of this crate in one group: joins, leaves, kills, expiries, cuts and pauses of each side,
//! in both orders.

use crate::{
    fleet::Fleet,
    support::{SECOND, shared_server},
};

const PYTHON: [&str; 3] = ["python-a", "python-b", "python-c"];
const RUST: [&str; 3] = ["rust-a", "rust-b", "rust-c"];

/// Three members of each side join, those of the first side first. Then all that can happen to a member happens to one of
/// the first side, and to one of the second.
async fn all_that_can_happen(group: &str, first: [&str; 3], second: [&str; 3]) {
    let mut fleet = Fleet::new(shared_server().await, group).await;
    for id in PYTHON {
        fleet.aodh(id).await;
    }
    for id in RUST {
        fleet.rust(id, 1).await;
    }
    fleet.ready().await;
    for id in first {
        fleet.member(id).join().await;
    }
    fleet.settles(30 * SECOND).await;
    let from = fleet.begin();
    for id in second {
        fleet.member(id).join().await;
    }
    let settled = fleet.settles(30 * SECOND).await;
    fleet.check("the other side joins", from, settled, fleet.cycle + fleet.grace);
    for id in [first[0], second[0]] {
        fleet.leave(id).await;
        fleet.join(id).await;
    }
    for id in [first[1], second[1]] {
        fleet.expire(id).await;
        fleet.kill(id).await;
        fleet.join(id).await;
    }
    for id in [first[2], second[2]] {
        fleet.cut(id).await;
        fleet.pause(id).await;
    }
    println!("{group}:\n{}", fleet.table);
}

#[tokio::test]
async fn evaluators_of_this_crate_join_those_of_aodh() {
    all_that_can_happen("rust-joins", PYTHON, RUST).await;
}

#[tokio::test]
async fn evaluators_of_aodh_join_those_of_this_crate() {
    all_that_can_happen("python-joins", RUST, PYTHON).await;
}

//! Evaluators of aodh 5.1.1 with tooz 1.58.0, which this crate was modelled on, beside those of today and of this crate.

use serde_json::json;

use crate::{
    fleet::Fleet,
    support::{SECOND, python::Versions, shared_server},
};

#[tokio::test]
async fn evaluators_of_old_and_new_aodh_and_of_this_crate_share() {
    let mut fleet = Fleet::new(shared_server().await, "versions").await;
    fleet.aodh_of(Versions::Old, "old").await;
    fleet.aodh("new").await;
    fleet.rust("rust", 1).await;
    fleet.ready().await;
    let versions: Vec<_> = fleet.members.iter().map(|member| member.versions.clone()).collect();
    println!("{} and {}", versions[0], versions[1]);
    assert_eq!((&versions[0]["aodh"], &versions[0]["tooz"]), (&json!("5.1.1"), &json!("1.58.0")));
    assert_ne!(versions[1]["aodh"], "5.1.1");
    for id in ["old", "new", "rust"] {
        fleet.member(id).join().await;
    }
    fleet.settles(30 * SECOND).await;
    for id in ["old", "new", "rust"] {
        fleet.leave(id).await;
        fleet.join(id).await;
    }
    fleet.kill("old").await;
    fleet.join("old").await;
    fleet.expire("old").await;
    fleet.cut("old").await;
    fleet.pause("old").await;
    fleet.kill("rust").await;
    println!("old and new versions:\n{}", fleet.table);
}

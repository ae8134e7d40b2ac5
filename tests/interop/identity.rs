//! Members of both sides with one id, and with credentials.

use apportion::backend::{Connector as _, Error};

use crate::{
    fleet::{Fleet, KEYS},
    member::Member,
    oracle::Side,
    support::{SECOND, Server, path, shared_server, until, zookeeper},
};

async fn two_of_one_id(group: &str) -> (Fleet<'static>, usize, usize) {
    let mut fleet = Fleet::new(shared_server().await, group).await;
    fleet.aodh("twin").await;
    fleet.rust("twin", 1).await;
    fleet.ready().await;
    (fleet, 0, 1)
}

/// How many keys each of them acts on.
fn counts(members: &mut [Member]) -> Vec<usize> {
    members.iter_mut().for_each(Member::hear);
    let now = crate::evaluator::now();
    members.iter().map(|member| member.holdings.count(now)).collect()
}

#[tokio::test]
async fn a_member_with_the_id_of_one_in_python_is_refused_until_that_is_gone() {
    let (mut fleet, python, rust) = two_of_one_id("python-twin").await;
    let all = KEYS as usize;
    fleet.members[python].join().await;
    until("it has all keys", 20 * SECOND, || counts(&mut fleet.members) == [all, 0]).await;
    fleet.members[rust].join().await;
    fleet.members[rust].is_refused("member id `twin` is already in use").await;
    assert_eq!(counts(&mut fleet.members), [all, 0], "the first one is not disturbed");

    fleet.members[python].leave().await;
    until("the second one has them", 20 * SECOND, || counts(&mut fleet.members) == [0, all]).await;
    fleet.members[rust].leave().await;
}

/// It takes the znode of the other one for its own. This is what `docs/guarantees.md` excepts.
#[tokio::test]
async fn a_member_in_python_with_the_id_of_another_one_works_on_the_same_keys() {
    let (mut fleet, python, rust) = two_of_one_id("rust-twin").await;
    let all = KEYS as usize;
    fleet.members[rust].join().await;
    until("it has all keys", 20 * SECOND, || counts(&mut fleet.members) == [0, all]).await;
    fleet.members[python].join().await;
    until("both have them", 20 * SECOND, || counts(&mut fleet.members) == [all, all]).await;
    // The znode is that of the member of this crate: when it goes, the other one joins at its next cycle.
    fleet.members[rust].leave().await;
    let znode = path("/tooz/rust-twin/twin");
    let session = zookeeper(&shared_server().await.connect_string()).open(10 * SECOND).await.unwrap();
    crate::support::eventually("the other one has joined", 20 * SECOND, || async {
        session.get(&znode).await.unwrap()
    })
    .await;
    assert_eq!(counts(&mut fleet.members), [all, 0]);
    fleet.members[python].leave().await;
}

/// On a server of its own, because the first member decides to whom `/tooz` belongs.
#[tokio::test]
async fn members_of_both_sides_with_the_same_credentials_share_and_others_are_refused() {
    let server = Server::start().await;
    let mut fleet = Fleet::new(&server, "closed").await;
    fleet.rust("outsider", 1).await;
    fleet.credentials = "fleet:secret@";
    fleet.aodh("python").await;
    fleet.rust("rust", 1).await;
    fleet.ready().await;
    fleet.join("python").await;
    fleet.join("rust").await;
    let outsider = zookeeper(&server.connect_string()).open(10 * SECOND).await.unwrap();
    for znode in ["/tooz/closed/python", "/tooz/closed/rust", "/tooz.ring/closed"] {
        let read = outsider.get(&path(znode)).await;
        assert!(matches!(read, Err(Error::NotPermitted)), "{znode}: {read:?}");
    }
    let member = fleet.member("outsider");
    assert_eq!(member.side(), Side::Rust);
    member.join().await;
    member.is_refused("not permitted on znode `/tooz`").await;
    member.is_in = false;
    fleet.leave("python").await;
    fleet.leave_last("rust").await;
}

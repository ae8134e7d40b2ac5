//! What a member reads when the membership changes: the names, and the znodes that are new.

use std::sync::{Arc, Mutex};

use apportion::{
    backend::{BoxFuture, CreateMode, Op, path::ZnodePath},
    testing::{Call, Hook, Intercept, Outcome, Request},
};

use crate::support::{
    SECOND, eventually,
    fleet::{Store, ids, immediate_on_both_backends, sees, settles_within},
};

immediate_on_both_backends!(
    a_member_reads_the_znodes_that_are_new_and_no_others,
    a_znode_that_was_replaced_by_one_of_the_same_name_is_read_again,
    a_znode_that_was_replaced_while_the_others_were_read_is_read_again,
);

/// Records which znodes are read, and can act in between.
#[derive(Default)]
struct Reads {
    paths: Mutex<Vec<ZnodePath>>,
    before_next_read: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Reads {
    fn take(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.paths.lock().unwrap().drain(..).map(|path| path.name().to_owned()).collect();
        names.sort();
        names
    }
}

impl Hook for Reads {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if let Request::GetMany(paths) = call.request() {
                self.paths.lock().unwrap().extend(paths.iter().cloned());
                let between = self.before_next_read.lock().unwrap().take();
                if let Some(between) = between {
                    between.await;
                }
            }
            call.send().await
        })
    }
}

async fn watched(store: &Store) -> (Arc<Reads>, apportion::PartitionCoordinator, apportion::Group) {
    let reads = Arc::<Reads>::default();
    let coordinator = store.connect(Intercept::new(store.connector(), reads.clone()), "a").await;
    let group = store.join(&coordinator, "g").await.unwrap();
    settles_within(store.round(), &[&group]).await;
    (reads, coordinator, group)
}

async fn a_member_reads_the_znodes_that_are_new_and_no_others(store: Store) {
    let (reads, _a, in_a) = watched(&store).await;
    assert_eq!(reads.take(), ["a"]);
    let mut others = Vec::new();
    for id in ["b", "c", "d"] {
        others.push(store.plain("g", id, b"\xc0").await);
        eventually("seen", store.round() + SECOND, || async {
            ids(&in_a).contains(&id.to_owned()).then_some(())
        })
        .await;
        assert_eq!(reads.take(), [id]);
    }
    others.remove(1).close().await;
    sees(&in_a, store.round() + SECOND, &["a", "b", "d"]).await;
    assert_eq!(reads.take(), [""; 0]);
    others.push(store.plain("g", "c", b"\xc0").await);
    sees(&in_a, store.round() + SECOND, &["a", "b", "c", "d"]).await;
    assert_eq!(reads.take(), ["c"]);
}

/// The payload of a plain member of this weight.
fn weight(weight: u8) -> Vec<u8> {
    [b"\x81\xa6weight".as_slice(), &[weight]].concat()
}

fn replaced(path: &ZnodePath, data: Vec<u8>) -> Vec<Op> {
    vec![Op::delete(path, None), Op::create(path, data, CreateMode::Ephemeral)]
}

async fn a_znode_that_was_replaced_by_one_of_the_same_name_is_read_again(store: Store) {
    let (_reads, _a, in_a) = watched(&store).await;
    let b = store.plain("g", "b", &weight(2)).await;
    let _c = store.plain("g", "c", b"\xc0").await;
    sees(&in_a, store.round() + SECOND, &["a", "b", "c"]).await;
    b.commit(replaced(&store.path("g/b"), weight(5))).await.unwrap();
    has_weight(&store, &in_a, 5).await;
}

async fn a_znode_that_was_replaced_while_the_others_were_read_is_read_again(store: Store) {
    let (reads, _a, in_a) = watched(&store).await;
    let b = store.plain("g", "b", &weight(2)).await;
    sees(&in_a, store.round() + SECOND, &["a", "b"]).await;
    let path = store.path("g/b");
    let replace =
        async move { drop(b.commit(replaced(&path, weight(7))).await.map(|_| Box::leak(Box::new(b)))) };
    *reads.before_next_read.lock().unwrap() = Some(Box::pin(replace));
    let _c = store.plain("g", "c", b"\xc0").await;
    has_weight(&store, &in_a, 7).await;
    assert_eq!(ids(&in_a), ["a", "b", "c"]);
}

async fn has_weight(store: &Store, group: &apportion::Group, weight: u32) {
    let seen = || async {
        let view = group.view();
        let b = view.members().iter().find(|member| *member.id() == "b")?;
        (b.weight() == weight).then(|| b.incarnation())
    };
    let incarnation = eventually("the new weight", store.round() + SECOND, seen).await;
    let (_, stat) = crate::support::fleet::znode(&*store.session().await, &store.path("g/b")).await;
    assert_eq!(incarnation, stat.czxid);
}

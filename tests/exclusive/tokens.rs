//! The fencing token of a guard, where the share is older than its turn.

use std::collections::BTreeMap;

use apportion::{FencingToken, Group};

use crate::support::fleet::{Store, on_both_backends, settles_within, universe};

/// The tokens of the guards of all that a member owns.
async fn tokens(group: &Group) -> BTreeMap<String, FencingToken> {
    let share = group.extract_my_subset(universe()).await.unwrap();
    share.into_iter().map(|held| (held.clone(), held.token())).collect()
}

async fn the_guard_of_an_older_share_has_no_lower_token_than_an_owner_in_between(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let old = in_a.extract_my_subset(universe()).await.unwrap();
    let before = old.token();
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let between = tokens(&in_b).await;
    assert!(between.len() > 20 && between.values().all(|token| *token > before));
    in_b.leave().await.unwrap();
    settles_within(store.round(), &[&in_a]).await;

    // The keys have come back, so the share gives all of them.
    let again: BTreeMap<_, _> = old.into_iter().map(|held| (held.clone(), held.token())).collect();
    assert_eq!(again.len(), universe().len());
    for (key, token) in between {
        assert!(again[&key] >= token, "{key}: {:?} after {token:?}", again[&key]);
    }
    assert!(tokens(&in_a).await.values().all(|token| again.values().all(|earlier| earlier <= token)));
}

async fn the_guard_of_an_immediate_member_has_no_lower_token_either(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.coordinator.join("g").immediate().await.unwrap();
    settles_within(store.round(), &[&in_a]).await;
    let old = in_a.extract_my_subset(universe()).await.unwrap();
    let in_b = b.coordinator.join("g").immediate().await.unwrap();
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let between = tokens(&in_b).await;
    in_b.leave().await.unwrap();
    settles_within(store.round(), &[&in_a]).await;
    for held in old {
        assert!(between.get(&*held).is_none_or(|token| held.token() >= *token), "{held:?} after {between:?}");
    }
}

on_both_backends!(
    the_guard_of_an_older_share_has_no_lower_token_than_an_owner_in_between,
    the_guard_of_an_immediate_member_has_no_lower_token_either,
);

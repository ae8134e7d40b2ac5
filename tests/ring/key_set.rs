//! A key set without a group: owners of items, and their order.

use apportion::{HashRing, KeySet};

#[test]
fn sets_of_nothing_of_empty_texts_and_of_kilobytes_are_divided_like_all_others() {
    let empty = HashRing::builder().build().unwrap();
    let alone = HashRing::builder().members(["a", "a"]).build().unwrap();
    let several = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    assert_eq!(alone.len(), 1, "the same id is the same member");
    let long = "x".repeat(300_000);
    for items in [vec![], vec!["", "", ""], vec![&long, "short", &long, ""]] {
        let mut set = KeySet::new(items.clone());
        assert!(set.owned_by(&empty, "a").is_empty());
        assert_eq!(set.owned_by(&alone, "a"), items.iter().collect::<Vec<_>>());
        let shares: Vec<_> = several.members().map(|member| set.owned_by(&several, member)).collect();
        for (member, share) in several.members().zip(&shares) {
            assert_eq!(*share, several.extract(member, &items));
        }
        assert_eq!(shares.concat().len(), items.len());
        assert_eq!(set.within(&alone.ranges("a").difference(&empty.ranges("a"))).count(), items.len());
        for item in &items {
            assert_eq!(set.remove(item), Some(*item));
        }
        assert!(set.is_empty() && set.remove("").is_none());
    }
}

#[test]
fn a_set_that_grows_and_shrinks_stays_in_order() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    let (mut set, mut list) = (KeySet::default(), Vec::new());
    for number in 0..3000u32 {
        set.insert(number % 1000);
        list.push(number % 1000);
    }
    assert_eq!(set.owned_by(&ring, "b"), ring.extract("b", &list));
    for number in 0..1000u32 {
        assert_eq!((set.remove(&number), set.remove(&number)), (Some(number), Some(number)));
    }
    // The first of each is left.
    assert!(set.iter().copied().eq(0..1000));
    assert_eq!(set.owned_by(&ring, "b"), ring.extract("b", &list[..1000]));
}

#[test]
fn few_items_of_many_are_in_the_order_of_insertion_as_well() {
    let fleet = (0..1000).map(|number| number.to_string());
    let ring = HashRing::builder().replicas(10).members(fleet).build().unwrap();
    let set: KeySet<u32> = (0..5000).collect();
    let small = |member: &&str| (3..9).contains(&set.owned_by(&ring, member).len());
    for member in ring.members().filter(small).take(3) {
        let by_position: Vec<&u32> = set.within(&ring.ranges(member)).collect();
        let mine = set.owned_by(&ring, member);
        assert!(mine.is_sorted() && by_position.iter().all(|item| mine.contains(item)));
        assert_eq!(mine, ring.extract(member, 0..5000).iter().collect::<Vec<_>>());
    }
}

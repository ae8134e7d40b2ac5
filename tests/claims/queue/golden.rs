//! The names and the order of the original (`tests/golden/queue.json`), as its Python code has them.

use apportion::{
    backend::{CreateMode, Op},
    queue::{Entry, LabelError, QueueError},
};

use super::{names, open, path};
use crate::support::{
    fleet::{Store, on_both_backends},
    golden::{golden, texts},
    soon,
};

on_both_backends!(
    entries_have_the_names_that_the_original_gives,
    a_listing_is_sorted_as_the_original_sorts_it,
    numbers_that_are_taken_are_skipped_in_every_folder,
    entries_past_the_largest_number_come_after_those_before_it,
);

async fn entries_have_the_names_that_the_original_gives(store: Store) {
    let agent = store.agent("a").await;
    let queue = open(&store, &agent).await;
    for made in golden("queue.json")["made"].as_array().unwrap() {
        let part = |key: &str| made[key].as_str().unwrap();
        let label = format!("{}:{}", part("dataset"), part("groupid"));
        let priority = u16::try_from(made["priority"].as_u64().unwrap()).unwrap();
        let put = queue.put("x").label(label).priority(priority).await;
        if made["raises"].is_null() {
            put.unwrap();
            let name = part("name");
            assert!(names(&store, "unowned").await.iter().any(|found| found == name), "{name}");
        } else {
            assert!(matches!(put, Err(QueueError::Label { reason: LabelError::Name(_), .. })), "{put:?}");
        }
    }
}

async fn a_listing_is_sorted_as_the_original_sorts_it(store: Store) {
    let agent = store.agent("a").await;
    let queue = open(&store, &agent).await;
    let session = store.session().await;
    for list in golden("queue.json")["lists"].as_array().unwrap() {
        let mut created = Vec::new();
        for name in texts(&list["names"]) {
            // A name that the server refuses cannot have been put.
            let Ok(path) = path(&store, "unowned").join(name) else { continue };
            session.commit(vec![Op::create(&path, "{}", CreateMode::Persistent)]).await.unwrap();
            created.push(path);
        }
        let sorted: Vec<_> = texts(&list["sorted"])
            .into_iter()
            .filter(|name| created.iter().any(|path| path.name() == *name))
            .collect();
        let seen = || async {
            let entries = queue.entries().await.unwrap();
            let names: Vec<_> = entries.iter().map(|entry| entry.name().to_owned()).collect();
            (names == sorted).then_some(())
        };
        crate::support::eventually("sorted as there", super::SECOND * 5, seen).await;
        session.commit(created.iter().map(|path| Op::delete(path, None)).collect()).await.unwrap();
    }
}

#[test]
fn the_order_of_names_is_the_original_s_also_where_no_server_takes_them() {
    for list in golden("queue.json")["lists"].as_array().unwrap() {
        let mut entries: Vec<Entry> =
            texts(&list["names"]).iter().map(|name| name.parse().unwrap()).collect();
        entries.sort();
        let names: Vec<_> = entries.iter().map(Entry::name).collect();
        assert_eq!(names, texts(&list["sorted"]));
    }
}

#[test]
fn the_prefix_is_the_original_s_for_each_priority_that_can_be_put() {
    for format in golden("queue.json")["format"].as_array().unwrap() {
        let (priority, prefix) = (format[0].as_i64().unwrap(), format[1].as_str().unwrap());
        let entry: Result<Entry, _> = format!("{prefix}0000000003").parse();
        match entry {
            Ok(entry) => {
                assert_eq!(
                    (i64::from(entry.priority()), entry.label(), entry.sequence()),
                    (priority, "d:g", 3)
                );
            }
            // For these every reader of the original raises.
            Err(_) => assert!(priority < 0, "{prefix}"),
        }
    }
}

/// Names that the original reads and takes, although it never writes them.
const READ_BY_THE_ORIGINAL_ONLY: [&str; 6] = [
    "entry-100",
    "other-050-d:g-0000000002",
    "entry- 7-d:g-0000000003",
    "entry-1_0-d:g-0000000004",
    "entry-+5-d:g-0000000005",
    "entry-\u{665}-d:g-0000000006",
];

#[test]
fn an_invalid_name_that_raises_in_the_original_is_no_entry() {
    for invalid in golden("queue.json")["odd_names"].as_array().unwrap() {
        let name = invalid["name"].as_str().unwrap();
        let entry: Result<Entry, _> = name.parse();
        match entry {
            Ok(entry) => {
                assert_eq!(u64::from(entry.priority()), invalid["priority"].as_u64().unwrap(), "{name}");
                let text = entry.sequence().unsigned_abs().to_string();
                assert_eq!(text, invalid["sequence_text"].as_str().unwrap(), "{name}");
                assert_eq!((entry.label(), entry.sequence()), ("d:g", i32::MIN), "the one past 2147483647");
            }
            Err(_) => {
                let raises = !invalid["raises"].is_null();
                assert!(raises != READ_BY_THE_ORIGINAL_ONLY.contains(&name), "{name}");
            }
        }
    }
}

/// In a tree that was restored from a backup the store numbers from the beginning, and comes to names that are there.
async fn numbers_that_are_taken_are_skipped_in_every_folder(store: Store) {
    let agent = store.agent("a").await;
    let queue = open(&store, &agent).await;
    let session = store.session().await;
    for folder in ["unowned", "owned"] {
        for number in [1, 2, 3] {
            let restored = path(&store, folder).join(&format!("entry-100-l-{number:010}")).unwrap();
            session.commit(vec![Op::create(&restored, "{}", CreateMode::Persistent)]).await.unwrap();
        }
    }
    // Creations count from 0, so the next number is 3.
    queue.put("x").label("l").await.unwrap();
    assert!(names(&store, "unowned").await.contains(&"entry-100-l-0000000004".to_owned()));
    for number in [1, 2, 3, 4] {
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!((delivery.entry().sequence(), delivery.attempt()), (number, 1));
        delivery.done(number).await.unwrap();
    }
    assert_eq!(names(&store, "owned").await.len(), 3);
}

/// The store goes on below zero after 2147483647.
async fn entries_past_the_largest_number_come_after_those_before_it(store: Store) {
    let agent = store.agent("a").await;
    let queue = open(&store, &agent).await;
    let session = store.session().await;
    let numbers = [5, i32::MAX - 1, i32::MAX, i32::MIN, i32::MIN + 1, -7];
    for number in numbers.into_iter().rev() {
        let name = format!("entry-100-taxi:42-{number:010}");
        let path = path(&store, "unowned").join(&name).unwrap();
        session.commit(vec![Op::create(&path, "{}", CreateMode::Persistent)]).await.unwrap();
    }
    for number in numbers {
        let delivery = soon(queue.take()).await.unwrap();
        assert_eq!((delivery.entry().sequence(), delivery.entry().label()), (number, "taxi:42"));
        delivery.done(()).await.unwrap();
    }
}

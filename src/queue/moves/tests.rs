use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A store that applies transactions, as far as these moves need it.
#[derive(Debug, Clone)]
struct Store {
    znodes: BTreeMap<ZnodePath, (Vec<u8>, i32)>,
    next: u32,
}

impl Store {
    fn new(layout: &Layout) -> Self {
        let made = layout.znodes().into_iter().map(|path| (path, (Vec::new(), 0)));
        Store { znodes: made.collect(), next: 0 }
    }

    /// Applies all operations or none. Returns the path of the created znode, or the index of the operation that is
    /// refused.
    fn commit(&mut self, ops: Vec<Op>) -> Result<Option<ZnodePath>, usize> {
        let mut after = self.clone();
        let mut created = None;
        for (index, op) in ops.into_iter().enumerate() {
            let is_wrong = |store: &Store, path: &ZnodePath, version: Option<i32>| {
                store.znodes.get(path).is_none_or(|(_, now)| version.is_some_and(|it| it != *now))
            };
            match op {
                Op::Create { path, data, mode } => {
                    assert!(mode.is_sequential() && !mode.is_ephemeral());
                    let path: ZnodePath = format!("{path}{:010}", after.next).parse().unwrap();
                    after.next += 1;
                    after.znodes.insert(path.clone(), (data, 0));
                    created = Some(path);
                }
                Op::Set { path, data, version } if !is_wrong(&after, &path, version) => {
                    let znode = after.znodes.get_mut(&path).unwrap();
                    *znode = (data, znode.1 + 1);
                }
                Op::Delete { path, version } if !is_wrong(&after, &path, version) => {
                    after.znodes.remove(&path);
                }
                Op::Check { path, version } if !is_wrong(&after, &path, version) => {}
                _ => return Err(index),
            }
        }
        *self = after;
        Ok(created)
    }

    /// The entries in a folder.
    fn entries(&self, folder: &ZnodePath) -> Vec<(Entry, Value, i32)> {
        let below = self.znodes.iter().filter(|(path, _)| path.parent().as_ref() == Some(folder));
        let entry = |(path, (data, version)): (&ZnodePath, &(Vec<u8>, i32))| {
            Some((path.name().parse().ok()?, Value::read(data), *version))
        };
        below.filter_map(entry).collect()
    }
}

fn moves(max_attempts: Option<u32>) -> Moves {
    Moves { layout: Layout::new("/q").unwrap(), max_attempts }
}

fn put(moves: &Moves, store: &mut Store, label: &str) {
    store.commit(moves.put(100, label, Value::new(label, json!(1)).data(), None)).unwrap();
}

/// Takes the first entry that waits.
fn take(moves: &Moves, store: &mut Store) -> Owned {
    let (entry, value, version) = store.entries(&moves.layout.unowned).remove(0);
    let value = value.taken("w", "c");
    let path = store.commit(moves.take(&entry, version, &value)).unwrap().unwrap();
    Owned { entry, path, version: 0, value }
}

fn back(attempt: u32) -> Back {
    Back { attempt, ..Back::default() }
}

fn counts(moves: &Moves, store: &Store) -> [usize; 4] {
    let Layout { unowned, owned, done, dead, .. } = &moves.layout;
    [unowned, owned, done, dead].map(|folder| store.entries(folder).len())
}

#[test]
fn an_entry_goes_from_put_to_done_in_three_moves() {
    let moves = moves(None);
    let mut store = Store::new(&moves.layout);
    put(&moves, &mut store, "a:1");
    assert_eq!(counts(&moves, &store), [1, 0, 0, 0]);
    let owned = take(&moves, &mut store);
    assert_eq!(counts(&moves, &store), [0, 1, 0, 0]);
    assert_eq!((owned.value.attempt(), owned.value.worker()), (1, Some("w".into())));
    let ended = owned.value.ended(Ok(json!(2)));
    store.commit(moves.end(&owned, ended.data())).unwrap();
    assert_eq!(counts(&moves, &store), [0, 0, 1, 0]);
    let (entry, value, version) = store.entries(&moves.layout.done).remove(0);
    assert_eq!((entry.label(), entry.priority(), value.result()), ("a:1", 100, Some(json!(2))));
    store.commit(vec![moves.remove(&moves.layout.done, &entry, version)]).unwrap();
    assert_eq!(counts(&moves, &store), [0; 4]);
}

#[test]
fn an_entry_that_is_given_back_too_often_is_dead_until_it_is_revived() {
    let moves = moves(Some(2));
    let mut store = Store::new(&moves.layout);
    put(&moves, &mut store, "a");
    for folder in [[1, 0, 0, 0], [0, 0, 0, 1]] {
        let owned = take(&moves, &mut store);
        store.commit(moves.give_back(&owned, &back(owned.value.attempt()))).unwrap();
        assert_eq!(counts(&moves, &store), folder);
    }
    let (letter, value, version) = store.entries(&moves.layout.dead).remove(0);
    assert_eq!((value.attempt(), value.worker(), value.claim()), (2, Some("w".into()), None));
    store.commit(moves.revive(&letter, version, &value)).unwrap();
    assert_eq!(counts(&moves, &store), [1, 0, 0, 0]);
    assert_eq!(take(&moves, &mut store).value.attempt(), 1);
}

#[test]
fn a_move_of_an_entry_that_another_process_has_moved_is_refused_at_the_delete() {
    let moves = moves(None);
    let mut store = Store::new(&moves.layout);
    put(&moves, &mut store, "a");
    let stale = store.clone().entries(&moves.layout.unowned).remove(0);
    let owned = take(&moves, &mut store);
    assert_eq!(store.commit(moves.take(&stale.0, stale.2, &stale.1)), Err(DELETED));
    store.commit(vec![moves.update(&owned, owned.value.updated(json!(3)).data())]).unwrap();
    assert_eq!(store.commit(moves.give_back(&owned, &back(1))), Err(DELETED), "it has another version now");
}

/// So an entry that could be taken has an end.
#[test]
fn each_end_without_a_reason_needs_less_room_than_the_take() {
    let bytes = |ops: &[Op]| ops.iter().map(Op::encoded_len).sum::<usize>();
    for (label, data) in
        [("", "{}"), ("a:1", r#"{"state":1}"#), ("taxi", "no JSON"), ("a", r#"{"state":2,"x":"}"}"#)]
    {
        let moves = moves(None);
        let mut store = Store::new(&moves.layout);
        store.commit(moves.put(100, label, data.into(), None)).unwrap();
        let (entry, value, version) = store.entries(&moves.layout.unowned).remove(0);
        let claim = "c".repeat(32);
        let lock = moves.layout.claims.join(&claim).unwrap();
        let value = value.taken("w", &claim);
        let create = Op::create(&lock, "w", CreateMode::Ephemeral);
        let take = [moves.take(&entry, version, &value), vec![create, Op::set(&lock, "w", Some(0))]].concat();
        let path = path_of(&moves.layout.owned, &entry);
        let owned = Owned { entry, path, version: 0, value };
        let back = Back { not_before: Some(1_700_000_000_000), ..back(1) };
        let failed = owned.value.ended(Err(String::new())).data();
        for end in [moves.give_back(&owned, &back), moves.give_up(&owned, &back), moves.end(&owned, failed)] {
            let end = [end, vec![Op::delete(&lock, Some(1))]].concat();
            assert!(bytes(&end) < bytes(&take), "{} and {}: {end:?}", bytes(&end), bytes(&take));
        }
    }
}

#[test]
fn a_put_unless_queued_is_refused_when_an_entry_of_its_label_was_added() {
    let moves = moves(None);
    let mut store = Store::new(&moves.layout);
    let bucket = moves.layout.bucket("a").unwrap();
    let seen = store.znodes[&bucket].1;
    let puts_again = |store: &mut Store| store.clone().commit(moves.put(1, "a", Vec::new(), Some(seen)));
    assert!(puts_again(&mut store).is_ok());
    put(&moves, &mut store, "a");
    assert_eq!(puts_again(&mut store), Err(PUT_BUCKET));
    let owned = take(&moves, &mut store);
    assert_eq!(store.znodes[&bucket].1, seen + 1, "none was added");
    store.commit(moves.give_back(&owned, &back(1))).unwrap();
    assert_eq!(store.znodes[&bucket].1, seen + 2);
    assert!(moves.layout.bucket("").is_none());
}

proptest! {
    #[test]
    fn an_entry_is_in_one_folder_after_any_moves(steps in proptest::collection::vec(0_u8..7, 0..60)) {
        let moves = moves(Some(3));
        let layout = &moves.layout;
        let mut store = Store::new(layout);
        let (mut put_so_far, mut removed) = (0, 0);
        let mut held: Vec<Owned> = Vec::new();
        for step in steps {
            match step {
                0 => {
                    put(&moves, &mut store, "a");
                    put_so_far += 1;
                }
                1 if counts(&moves, &store)[0] > 0 => held.push(take(&moves, &mut store)),
                2 if !held.is_empty() => {
                    let owned = held.remove(0);
                    store.commit(moves.end(&owned, owned.value.ended(Err("x".into())).data())).unwrap();
                }
                3 if !held.is_empty() => {
                    let owned = held.remove(0);
                    store.commit(moves.give_back(&owned, &back(owned.value.attempt()))).unwrap();
                }
                4 => {
                    if let Some(owned) = held.first_mut() {
                        let value = owned.value.updated(json!(step));
                        store.commit(vec![moves.update(owned, value.data())]).unwrap();
                        (owned.version, owned.value) = (owned.version + 1, value);
                    }
                }
                5 => {
                    if let Some((letter, value, version)) = store.entries(&layout.dead).first() {
                        store.commit(moves.revive(letter, *version, value)).unwrap();
                    }
                }
                6 => {
                    for folder in [&layout.done, &layout.dead] {
                        if let Some((entry, _, version)) = store.entries(folder).first() {
                            store.commit(vec![moves.remove(folder, entry, *version)]).unwrap();
                            removed += 1;
                        }
                    }
                }
                _ => {}
            }
            let counts = counts(&moves, &store);
            prop_assert_eq!(counts.iter().sum::<usize>() + removed, put_so_far);
            prop_assert_eq!(counts[1], held.len());
        }
    }
}

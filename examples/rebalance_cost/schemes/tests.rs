use super::*;

const KEYS: u64 = 20_000;

fn keys() -> Vec<u64> {
    (0..KEYS).map(|number| hash(number + 1_000_000)).collect()
}

fn scheme(name: &str) -> &'static Scheme {
    static ALL: [Scheme; 7] = SCHEMES;
    ALL.iter().find(|scheme| scheme.name == name).unwrap()
}

/// How many keys move to or from `changed`, and how many between two others.
fn moves(before: &[Member], after: &[Member], changed: Member) -> (usize, usize) {
    let moved = before.iter().zip(after).filter(|(from, to)| from != to);
    let (of_it, between): (Vec<_>, Vec<_>) =
        moved.partition(|(from, to)| **from == changed || **to == changed);
    (of_it.len(), between.len())
}

#[test]
fn every_scheme_gives_all_members_keys_and_nobody_else() {
    for scheme in SCHEMES {
        let members: Vec<Member> = (70..80).collect();
        let owners = (scheme.place)(&members).owners(&keys());
        for member in members {
            let share = owners.iter().filter(|&&owner| owner == member).count();
            assert!(share > 200, "{}: {member} has {share} keys", scheme.name);
        }
        assert!(owners.iter().all(|owner| (70..80).contains(owner)), "{}", scheme.name);
    }
}

#[test]
fn who_moves_keys_between_members_that_stay_is_known() {
    for scheme in SCHEMES {
        let mut placement = (scheme.place)(&(0..10).collect::<Vec<_>>());
        let before = placement.owners(&keys());
        placement.join(10);
        let joined = placement.owners(&keys());
        let (moved, between_at_join) = moves(&before, &joined, 10);
        assert!((800..3500).contains(&moved), "{}: the joiner got {moved} keys", scheme.name);
        placement.leave(4);
        let (_, between_at_leave) = moves(&joined, &placement.owners(&keys()), 4);
        assert_eq!(between_at_join > 0, ["Maglev", "bounded 1.05"].contains(&scheme.name), "{}", scheme.name);
        let moving = ["jump", "Maglev", "bounded 1.25", "bounded 1.05"];
        if between_at_leave > 0 {
            assert!(moving.contains(&scheme.name), "{}: {between_at_leave}", scheme.name);
        }
    }
}

#[test]
fn a_member_that_joins_and_leaves_again_leaves_no_trace() {
    for scheme in SCHEMES {
        let mut placement = (scheme.place)(&(0..10).collect::<Vec<_>>());
        let before = placement.owners(&keys());
        placement.join(10);
        placement.leave(10);
        assert_eq!(placement.owners(&keys()), before, "{}", scheme.name);
    }
}

#[test]
fn many_keys_on_many_processors_have_the_owners_that_they_have_one_by_one() {
    let many: Vec<u64> = (0..3 * FEW as u64 + 1).collect();
    let placement = (scheme("jump").place)(&[1, 2, 3]);
    let one_by_one: Vec<Member> = many.iter().flat_map(|&key| placement.owners(&[key])).collect();
    assert_eq!(placement.owners(&many), one_by_one);
}

#[test]
fn a_bound_is_kept() {
    let members: Vec<Member> = (0..10).collect();
    let owners = (scheme("bounded 1.05").place)(&members).owners(&keys());
    let most = members.iter().map(|member| owners.iter().filter(|owner| *owner == member).count()).max();
    assert!(most.unwrap() <= 2100, "{most:?}");
}

/// Values of the paper's function, as other implementations give them.
#[test]
fn jump_agrees_with_the_published_function() {
    let bucket =
        |key: u64, buckets: u32| (scheme("jump").place)(&(0..buckets).collect::<Vec<_>>()).owners(&[key])[0];
    assert_eq!(bucket(0, 60), 0);
    assert_eq!(bucket(1, 60), 55);
    assert_eq!(bucket(2, 60), 46);
    assert_eq!(bucket(10_863_919_174_838_991, 11), 6);
    assert_eq!(bucket(2_016_238_256_797_177_309, 11), 3);
    assert_eq!(bucket(1_673_758_223_894_951_030, 11), 5);
}

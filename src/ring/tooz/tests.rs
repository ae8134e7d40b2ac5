//! The inside of a ring of tooz against the golden data.

use serde_json::Value;

use crate::ring::{
    HashRing,
    point::{Point as _, Position as _, Wide},
    points::{AllPoints, Points},
};

fn points_of(ring: &HashRing) -> &Points<Wide> {
    let AllPoints::Wide(points) = &ring.points else { panic!("a ring of 128 bits") };
    points
}

#[test]
fn points_are_those_of_the_reference() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/ring_tooz.json")).unwrap();
    let mut cases = 0;
    for case in golden["cases"].as_array().unwrap().iter().filter(|case| case["hash"] == "md5") {
        let list = |value: &Value| value.as_array().unwrap().clone();
        let members: Vec<String> =
            list(&case["members"]).iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        let mut builder = HashRing::builder().tooz(case["partitions"].as_u64().unwrap().try_into().unwrap());
        for (id, weight) in members.iter().zip(list(&case["weights"])) {
            builder = builder.weighted_member(id, weight.as_u64().unwrap().try_into().unwrap());
        }
        let ring = builder.build().unwrap();
        let rows = |end: &str| -> Vec<(u128, String)> {
            let row = |row: &Value| {
                let position = u128::from_str_radix(row[0].as_str().unwrap(), 16).unwrap();
                (position, members[usize::try_from(row[1].as_u64().unwrap()).unwrap()].clone())
            };
            list(&case["ring"][end]).iter().map(row).collect()
        };
        let sorted = points_of(&ring).as_slice();
        assert_eq!(sorted.len() as u64, case["ring"]["points"], "{}", case["name"]);
        let points: Vec<_> =
            sorted.iter().map(|point| (point.position(), ring.id(point.member()).to_owned())).collect();
        assert!(points.is_sorted_by(|one, other| one.0 < other.0), "{}", case["name"]);
        assert!(points.starts_with(&rows("first")) && points.ends_with(&rows("last")), "{}", case["name"]);
        assert!(!rows("first").is_empty());
        cases += 1;
    }
    assert_eq!(cases, 19);
}

#[test]
fn the_first_32_bits_give_the_owner_unless_they_are_those_of_a_point() {
    let ring = HashRing::builder().tooz(32).members(["a", "b", "c"]).build().unwrap();
    let points = points_of(&ring);
    let is_beside_point =
        |hash: u128| points.as_slice().iter().any(|point| point.position().prefix() == hash.prefix());
    let (mut asked, mut beside) = (0, 0);
    for point in points.as_slice() {
        let prefix = point.position().prefix();
        for prefix in [prefix.wrapping_sub(1), prefix, prefix.wrapping_add(1)] {
            let all = [0, 1, u128::MAX >> 33, u128::MAX >> 32].map(|rest| u128::from(prefix) << 96 | rest);
            for hash in all.into_iter().chain([point.position(), point.position() - 1, point.position() + 1])
            {
                beside += u32::from(is_beside_point(hash));
                let expected = points.owner(hash);
                let owner = ring.points.owner(hash.prefix(), || {
                    asked += 1;
                    hash
                });
                assert_eq!(owner, expected, "{hash:032x}");
            }
        }
    }
    assert_eq!(asked, beside, "only beside a point");
    assert_eq!(ring.points.owner(0, || 0), points.owner(0));
    assert_eq!(ring.points.owner(u32::MAX, || u128::MAX), points.owner(u128::MAX));
}

#[test]
fn ranges_are_exact_to_the_last_of_128_bits() {
    let ring = HashRing::builder().tooz(7).members(["a", "b", "c"]).build().unwrap();
    let points = points_of(&ring);
    let ranges = ["a", "b", "c"].map(|member| ring.ranges(member));
    let ends = points.as_slice().iter().flat_map(|point| {
        let position = point.position();
        [position - 1, position, position + 1]
    });
    for hash in ends.chain([0, 1, u128::MAX]) {
        let owner = ring.id(points.owner(hash).unwrap());
        let having: Vec<&str> = ["a", "b", "c"]
            .into_iter()
            .zip(&ranges)
            .filter(|(_, ranges)| ranges.contains_hash(hash.prefix(), || hash))
            .map(|(member, _)| member)
            .collect();
        assert_eq!(having, [owner], "{hash:032x}");
        for (member, ranges) in ["a", "b", "c"].into_iter().zip(&ranges) {
            let exact = ranges.iter_wide().filter(|range| range.contains(&hash)).count();
            assert_eq!(exact, usize::from(member == owner), "{hash:032x}");
        }
    }
}

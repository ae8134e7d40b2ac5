//! The inside of a ring against the golden data: positions and points.

use serde_json::Value;

use super::{
    point::{Narrow, Point as _},
    points::Points,
    *,
};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/ring_aodh.json")).expect("golden data is JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a number").try_into().expect("it fits")
}

fn label(value: &Value) -> Label {
    if text(value) == "bytes" { Label::PythonBytes } else { Label::Plain }
}

fn narrow(ring: &HashRing) -> &Points<Narrow> {
    let AllPoints::Narrow(points) = &ring.points else { panic!("a ring of 32 bits") };
    points
}

/// The member that has the point at `position`.
fn at(ring: &HashRing, position: u32) -> &str {
    let points = narrow(ring).as_slice();
    let index = points.binary_search_by_key(&position, |point| point.position()).expect("there is a point");
    ring.id(points[index].member())
}

#[test]
fn positions_are_those_of_the_reference() {
    let golden = golden();
    let rows = list(&golden["hash"]);
    assert_eq!(rows.len(), 60);
    for row in rows {
        assert_eq!(kernel::position(text(&row[0]).as_bytes()) as usize, number(&row[1]), "{row}");
    }
}

#[test]
fn points_are_those_of_the_reference() {
    let golden = golden();
    for case in list(&golden["cases"]) {
        let (name, expected) = (text(&case["name"]), &case["ring"]);
        let members: Vec<&str> =
            list(&golden["membersets"][text(&case["members"])]).iter().map(text).collect();
        let ring = HashRing::builder()
            .label(label(&case["labels"]))
            .replicas(number(&case["replicas"]).try_into().unwrap())
            .members(members.iter().copied())
            .keep_order()
            .build()
            .unwrap();
        assert_eq!(ring.points(), number(&expected["distinct_points"]), "{name}");
        assert!(narrow(&ring).as_slice().is_sorted_by(|a, b| a.position() < b.position()), "{name}");
        let rows = |end: &str| -> Vec<(u32, &str)> {
            let row = |row: &Value| (number(&row[0]).try_into().unwrap(), members[number(&row[1])]);
            let mut rows: Vec<_> = list(&expected[end]).iter().map(row).collect();
            // The reference lists the points of a repeated member twice.
            rows.dedup();
            rows
        };
        let points: Vec<_> = narrow(&ring)
            .as_slice()
            .iter()
            .map(|point| (point.position(), ring.id(point.member())))
            .collect();
        assert!(points.starts_with(&rows("first")), "{name}");
        assert!(points.ends_with(&rows("last")), "{name}");
        assert!(ring.is_empty() || !rows("first").is_empty(), "{name}");
    }
}

#[test]
fn a_collided_point_belongs_to_the_later_member() {
    let golden = golden();
    for case in list(&golden["collisions"]) {
        let position = number(&case["point"]).try_into().unwrap();
        for row in list(&case["rings"]) {
            let members: Vec<&str> = list(&row["members"]).iter().map(text).collect();
            let builder = HashRing::builder().label(label(&case["labels"])).members(members.iter().copied());
            let kept = builder.clone().keep_order().build().unwrap();
            assert_eq!(kept.points(), number(&row["distinct_points"]), "{row}");
            assert_eq!(at(&kept, position), members[number(&row["owner_of_point"])], "{row}");

            let sorted = builder.build().unwrap();
            assert_eq!(at(&sorted, position), text(&case["a"]).max(text(&case["b"])), "{row}");
        }
    }
}

#[test]
fn a_thousand_members_have_the_collided_points_of_the_reference() {
    let golden = golden();
    for case in list(&golden["thousand"]) {
        let ids: Vec<String> = list(&case["members"])
            .iter()
            .map(|member| format!("{}{}", text(&case["members_pool"]), number(member)))
            .collect();
        let builder = HashRing::builder().label(label(&case["labels"]));
        let ring = match text(&case["order"]) {
            "given" => builder.members(&ids).keep_order(),
            "reversed" => builder.members(ids.iter().rev()).keep_order(),
            "sorted" => builder.members(&ids),
            other => panic!("unknown order {other}"),
        }
        .build()
        .unwrap();
        assert_eq!(ring.points(), number(&case["distinct_points"]));
        assert!(!list(&case["collided_points"]).is_empty());
        for row in list(&case["collided_points"]) {
            assert_eq!(at(&ring, number(&row[0]).try_into().unwrap()), ids[number(&row[1])], "{row}");
        }
    }
}

#[test]
fn a_position_belongs_to_the_next_point_and_past_the_last_to_the_first() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    let last = ring.points() - 1;
    for (index, point) in narrow(&ring).as_slice().iter().enumerate() {
        let next = if index == last { 0 } else { index + 1 };
        assert_eq!(narrow(&ring).locate(point.position()), next, "at point {index}");
        assert_eq!(narrow(&ring).locate(point.position() - 1), index, "just before point {index}");
    }
    assert_eq!((narrow(&ring).locate(0), narrow(&ring).locate(u32::MAX)), (0, 0));
}

#[test]
fn an_index_gives_for_a_block_of_positions_what_the_ranges_give_for_each() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    let ranges = ring.ranges("b");
    let index = ranges.clone().index();
    let ends = ranges.iter().flat_map(|range| [*range.start(), *range.end()]).chain([0, u32::MAX]);
    let around = ends.flat_map(|end| [end.wrapping_sub(1), end, end.wrapping_add(1)]);
    let positions: Vec<u32> = around.collect();
    for positions in positions.windows(kernel::BLOCK) {
        let positions = positions.try_into().unwrap();
        let mut inside = index.lanes(positions, &|_| unreachable!("32 bits are enough"));
        for (lane, position) in positions.iter().enumerate().filter(|(_, p)| ranges.contains_position(**p)) {
            assert_eq!(inside.next(), Some(lane), "{position}");
        }
        assert_eq!(inside.next(), None);
    }
}

#[test]
fn a_subset_that_is_taken_in_turns_is_the_same_for_turns_of_any_length() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    let items = || (0..1000).map(|number| (number, format!("alarm-{number}")));
    let mine: Vec<_> = items().filter(|item| ring.is_owner("b", &item.1)).collect();
    for turn in [1, 4, 5, 31, 32, 33, 100, 999, 1000, 1001] {
        let (mut left, mut found, mut positions, mut turns) = (items(), Vec::new(), Vec::new(), 1);
        let key = By(|item: &(u32, String)| item.1.clone());
        let turns_of = Turn { keys: turn, ..Turn::WHOLE };
        while ring.subset("b").take_from(&mut left, turns_of, &key, &mut found, |it| positions.push(it)) {
            turns += 1;
        }
        assert!(mine.iter().map(|item| position(&item.1)).eq(positions), "{turn} at a time");
        assert_eq!(found, mine, "{turn} at a time");
        assert_eq!(turns, 1000 / turn + 1, "{turn} at a time");
    }
}

#[test]
fn the_fractions_of_all_members_are_those_of_each() {
    let weighted = HashRing::builder().weighted_member("c", 3).members(["b", "a"]).build().unwrap();
    let alone = HashRing::builder().member("a").replicas(1).build().unwrap();
    for ring in [weighted, alone, HashRing::builder().build().unwrap()] {
        let each: Vec<_> = ring.members().map(|member| (member, ring.fraction(member))).collect();
        assert_eq!(ring.fractions(), each);
    }
}

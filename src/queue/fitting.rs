// Pure: no runtime, no clock, no socket, no random numbers.

//! The reason of a failure beside a value that leaves little room for it.
//!
//! The value of another program may be nearly as large as a request may be. Then its entry can be taken, because that
//! request has no reason. The end of a delivery needs less room than the take, apart from the reason: so an end without a
//! reason is always possible.

use crate::{
    backend::{Op, SMALL_REQUEST_BYTES},
    lease::kept,
};

/// The operations of a move with this reason, for a request with room for so many bytes; and others for a store that takes
/// less than that, the best ones first: with a shorter reason, and without one. `ops` makes the operations.
pub(super) fn ways(reason: Option<&str>, room: usize, ops: impl Fn(Option<&str>) -> Vec<Op>) -> Vec<Vec<Op>> {
    let all = ops(reason);
    let Some(reason) = reason else { return vec![all] };
    let bytes: usize = all.iter().map(Op::encoded_len).sum();
    if bytes <= room.min(SMALL_REQUEST_BYTES) {
        return vec![all];
    }
    let (fitting, first) = match bytes.checked_sub(room) {
        None | Some(0) => (reason, Some(all)),
        Some(over) => {
            let fitting = shortened(reason, over);
            (fitting, (!fitting.is_empty()).then(|| ops(Some(fitting))))
        }
    };
    let mut ways: Vec<_> = first.into_iter().collect();
    if kept(reason).len() < fitting.len() {
        ways.push(ops(Some(kept(reason))));
    }
    ways.push(ops(None));
    ways
}

/// The beginning of a text without its last characters, which take at least so many bytes as JSON.
fn shortened(text: &str, bytes: usize) -> &str {
    let mut freed = 0;
    for (at, character) in text.char_indices().rev() {
        freed += in_json(character);
        if freed >= bytes {
            return &text[..at];
        }
    }
    ""
}

/// How many bytes a character takes in a text of JSON.
fn in_json(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CreateMode;

    /// A value of so many bytes with a reason.
    fn ops(rest: usize) -> impl Fn(Option<&str>) -> Vec<Op> {
        move |reason| {
            let data = serde_json::json!({ "rest": "x".repeat(rest), "reason": reason }).to_string();
            vec![Op::create(&"/entry".parse().unwrap(), data, CreateMode::Persistent)]
        }
    }

    fn bytes(ops: &[Op]) -> usize {
        ops.iter().map(Op::encoded_len).sum()
    }

    #[test]
    fn a_character_takes_as_many_bytes_as_serde_writes() {
        for character in ('\0'..='\u{ff}').chain(['\u{2028}', '\u{fffd}', '\u{1f600}']) {
            let written = serde_json::to_string(&character).unwrap().len() - 2;
            assert_eq!(in_json(character), written, "{character:?}");
        }
    }

    #[test]
    fn a_small_move_has_one_way_and_so_has_one_without_a_reason() {
        assert_eq!(ways(Some("x"), 1 << 20, ops(100)), [ops(100)(Some("x"))]);
        assert_eq!(ways(None, 1 << 20, ops(200_000)), [ops(200_000)(None)]);
    }

    #[test]
    fn a_large_move_has_a_way_without_a_reason_and_as_much_of_it_as_fits_before() {
        let room = 200_000;
        for reason in ["r".repeat(900), "\u{1}\"é".repeat(300)] {
            let whole = bytes(&ops(0)(Some(&reason)));
            let rest = |over: usize| room - whole + over;
            assert_eq!(
                ways(Some(&reason), room, ops(rest(0))),
                [ops(rest(0))(Some(&reason)), ops(rest(0))(None)]
            );
            for over in [1, 7, 500] {
                let found = ways(Some(&reason), room, ops(rest(over)));
                let [fitting, without] = &found[..] else { panic!("{} ways", found.len()) };
                assert!((room - 5..=room).contains(&bytes(fitting)), "{} of {room}", bytes(fitting));
                assert_eq!(*without, ops(rest(over))(None));
            }
            assert_eq!(ways(Some(&reason), room, ops(room)), [ops(room)(None)], "there is no room at all");
        }
        let long = "r".repeat(300_000);
        let kept: Vec<_> = ways(Some(&long), room, ops(0)).iter().map(|ops| bytes(ops)).collect();
        assert_eq!(kept, [room, bytes(&ops(0)(Some(&long[..1000]))), bytes(&ops(0)(None))]);
    }
}

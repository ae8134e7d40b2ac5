//! Each kernel against the `md-5` crate.

use std::array;

use super::*;

/// Pseudo-random bytes, the same in every run.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed).take(len).collect()
}

#[track_caller]
fn check(texts: &[Vec<u8>; BLOCK]) {
    let expected = texts.each_ref().map(|text| reference(text));
    for kernel in Kernel::all() {
        let positions = kernel.positions(&texts.each_ref().map(Vec::as_slice));
        for lane in 0..BLOCK {
            let len = texts[lane].len();
            assert_eq!(positions[lane], expected[lane], "{kernel:?}, lane {lane}, {len} bytes");
        }
    }
}

#[test]
fn the_best_kernel_comes_first_and_the_portable_one_is_everywhere() {
    let all = Kernel::all();
    assert_eq!(Kernel::best(), all[0]);
    assert_eq!(all.last(), Some(&Kernel(Set::Portable)));
    #[cfg(target_arch = "x86_64")]
    assert!(all.contains(&Kernel(Set::Sse2)));
}

#[test]
fn keys_of_any_one_length_have_the_positions_of_the_reference() {
    for len in 0..=300 {
        check(&array::from_fn(|lane| text((len * BLOCK + lane) as u64, len)));
    }
}

#[test]
fn keys_of_different_lengths_have_the_positions_of_the_reference() {
    for from in 0..=300 {
        check(&array::from_fn(|lane| text((from + lane) as u64, (from + lane * 7) % 261)));
    }
}

#[test]
fn a_single_key_of_any_length_has_the_position_of_the_reference() {
    for len in 0..=300 {
        for seed in 0..4 {
            let text = text(seed * 1000 + len as u64, len);
            assert_eq!(position(&text), reference(&text), "{len} bytes");
        }
    }
}

#[test]
fn one_key_of_many_kilobytes_among_short_ones_has_the_position_of_the_reference() {
    let mut texts = array::from_fn(|lane| text(lane as u64, 36));
    texts[0] = text(99, 100_000);
    texts[17] = Vec::new();
    check(&texts);
}

#[test]
fn points_of_labels_of_any_length_have_the_positions_of_the_reference() {
    for len in 0..=70 {
        let stem = text(len as u64, len);
        // The count is no multiple of a block and has numbers of one to four digits.
        let numbers = Numbers::first(1050);
        let label = |number: usize| [&stem, number.to_string().as_bytes()].concat();
        for kernel in Kernel::all() {
            let points = kernel.points(&stem, &numbers, 1050);
            assert!(points.eq((0..1050).map(|number| reference(&label(number)))), "{kernel:?}, {len} bytes");
        }
    }
}

#[test]
fn numbers_of_many_digits_end_where_they_should() {
    let numbers = Numbers::first(1_000_001);
    for number in [9, 10, 99, 100, 9_999, 10_000, 99_999, 100_000, 999_999, 1_000_000] {
        let text = numbers.texts[number].to_le_bytes();
        let end = text.iter().position(|byte| *byte == 0x80).unwrap();
        assert_eq!(text[..end], *number.to_string().as_bytes());
        assert!(text[end + 1..].iter().all(|byte| *byte == 0));
    }
    let few = Numbers::first(10);
    let points = Kernel::best().points(b"few-", &few, 40);
    assert!(points.eq((0..40).map(|number| reference(format!("few-{number}").as_bytes()))));
}

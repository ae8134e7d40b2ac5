// Pure: no runtime, no clock, no socket, no random numbers.

//! One loop over the lanes, from which the compiler makes vectors on any processor.

use super::{
    block::{BLOCK, Block, Points, UUID},
    message,
    steps::{self, plain::*},
};

type Words = [[u32; BLOCK]; 16];

/// Hashes 32 messages.
pub(super) fn hash(block: Block<'_>, positions: &mut [u32; BLOCK]) {
    match block {
        Block::Uuids(keys) => texts(&keys.map(<[u8; UUID]>::as_slice), positions),
        Block::Keys(keys) => texts(keys, positions),
        Block::Points(points) => points_of_a_member(points, positions),
    }
}

/// Texts of any length, each with as many blocks as it needs.
fn texts(keys: &[&[u8]; BLOCK], positions: &mut [u32; BLOCK]) {
    let longest = keys.iter().map(|key| key.len()).max().unwrap_or(0);
    let mut states = initial();
    for block in 0..message::blocks(longest) {
        let mut words = [[0; BLOCK]; 16];
        for (lane, key) in keys.iter().enumerate() {
            for part in 0..4 {
                let mut bytes = message::part(key, 64 * block + 16 * part);
                for words in &mut words[4 * part..][..4] {
                    words[lane] = bytes as u32;
                    bytes >>= 32;
                }
            }
            if block + 1 == message::blocks(key.len()) {
                words[14][lane] = 8 * key.len() as u32;
            }
        }
        let before = states;
        compress(&words, &mut states);
        for (lane, key) in keys.iter().enumerate() {
            if block >= message::blocks(key.len()) {
                for (state, before) in states.iter_mut().zip(&before) {
                    state[lane] = before[lane];
                }
            }
        }
    }
    *positions = states[0].map(u32::swap_bytes);
}

/// Points of one member: only the digits at the end of the label differ.
fn points_of_a_member(points: &Points, positions: &mut [u32; BLOCK]) {
    let mut words = points.stem.map(|word| [word; BLOCK]);
    for (words, digits) in words[points.at..].iter_mut().zip(&points.digits) {
        for (word, digits) in words.iter_mut().zip(digits) {
            *word |= digits;
        }
    }
    words[14] = points.bits;
    let mut states = initial();
    compress(&words, &mut states);
    *positions = states[0].map(u32::swap_bytes);
}

fn initial() -> [[u32; BLOCK]; 4] {
    steps::INITIAL.map(|word| [word; BLOCK])
}

#[inline(never)]
fn compress(words: &Words, states: &mut [[u32; BLOCK]; 4]) {
    for lane in 0..BLOCK {
        let [mut a, mut b, mut c, mut d] =
            [states[0][lane], states[1][lane], states[2][lane], states[3][lane]];
        macro_rules! step {
            ($f:ident $a:ident $b:ident $c:ident $d:ident, $w:literal, $k:expr, $s:literal) => {
                let word = words[$w][lane].wrapping_add(const { steps::SINES[$k] });
                let sum = $f($a.wrapping_add(word), $b, $c, $d);
                $a = $b.wrapping_add(sum.rotate_left($s));
            };
        }
        steps!(step! a b c d);
        for (state, word) in states.iter_mut().zip([a, b, c, d]) {
            state[lane] = state[lane].wrapping_add(word);
        }
    }
}

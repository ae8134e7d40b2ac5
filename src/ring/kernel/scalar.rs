// Pure: no runtime, no clock, no socket, no random numbers.

//! One key at a time, for single lookups.

use std::hint::black_box;

use super::{
    block::UUID,
    message,
    steps::{self, plain::*},
};

/// A table in memory: see [`compress`].
static SINES: [u32; 64] = steps::SINES;

/// The position of a text of one block: at most 55 bytes. `None` for longer ones.
#[inline]
pub(super) fn position(text: &[u8]) -> Option<u32> {
    if let Ok(uuid) = <&[u8; UUID]>::try_from(text) {
        let mut words = [0; 16];
        spread(&mut words[0..4], message::sixteen(uuid, 0));
        spread(&mut words[4..8], message::sixteen(uuid, 16));
        words[8] = (message::sixteen(uuid, UUID - 16) >> 96) as u32;
        words[9] = 0x80;
        words[14] = 8 * UUID as u32;
        return Some(compress(&words));
    }
    if message::blocks(text.len()) > 1 {
        return None;
    }
    let mut words = [0; 16];
    for (part, words) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        spread(words, message::part(text, 16 * part));
    }
    words[14] = 8 * text.len() as u32;
    Some(compress(&words))
}

#[inline(always)]
fn spread(words: &mut [u32], part: u128) {
    for (place, word) in words.iter_mut().enumerate() {
        *word = (part >> (32 * place)) as u32;
    }
}

/// The first word of a hash, big endian.
#[inline(always)]
fn compress(words: &[u32; 16]) -> u32 {
    // The constants are in memory: if the compiler knows them, it adds them where the next step waits for the sum,
    // which is 30 % slower.
    let sines = black_box(&SINES);
    let [mut a, mut b, mut c, mut d] = steps::INITIAL;
    macro_rules! step {
        ($f:ident $a:ident $b:ident $c:ident $d:ident, $w:literal, $k:expr, $s:literal) => {
            let sum = $f($a.wrapping_add(words[$w].wrapping_add(sines[$k])), $b, $c, $d);
            $a = $b.wrapping_add(sum.rotate_left($s));
        };
    }
    steps!(step! a b c d);
    let _ = (b, c, d);
    a.wrapping_add(steps::INITIAL[0]).swap_bytes()
}

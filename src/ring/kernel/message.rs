// Pure: no runtime, no clock, no socket, no random numbers.

//! The padded message of MD5 for a text: the text, a byte 0x80, zeros, and the number of bits.

/// How many blocks of 64 bytes a text has, with the padding.
#[inline]
pub(super) fn blocks(len: usize) -> usize {
    (len + 8) / 64 + 1
}

/// The sixteen bytes of `text` from `at` on.
#[inline]
pub(super) fn sixteen<const N: usize>(text: &[u8; N], at: usize) -> u128 {
    u128::from_le_bytes(text[at..at + 16].try_into().expect("the slice has sixteen bytes"))
}

/// Sixteen bytes of the message from `at` on, without the number of bits.
#[inline]
pub(super) fn part(text: &[u8], at: usize) -> u128 {
    if let Some(whole) = text.get(at..at + 16) {
        return u128::from_le_bytes(whole.try_into().expect("the slice has sixteen bytes"));
    }
    if at > text.len() {
        return 0;
    }
    let left = text.len() - at;
    let rest = match text.last_chunk() {
        // Reading bytes of the part before again is faster than copying a few bytes.
        Some(&last) => u128::from_le_bytes(last).checked_shr(128 - 8 * left as u32).unwrap_or(0),
        None => short(text),
    };
    rest | 0x80 << (8 * left)
}

/// A text of less than sixteen bytes: two reads that overlap.
#[inline]
fn short(text: &[u8]) -> u128 {
    let shift = |size: usize| 8 * (text.len() - size);
    if let (Some(&first), Some(&last)) = (text.first_chunk(), text.last_chunk()) {
        u128::from(u64::from_le_bytes(first)) | u128::from(u64::from_le_bytes(last)) << shift(8)
    } else if let (Some(&first), Some(&last)) = (text.first_chunk(), text.last_chunk()) {
        u128::from(u32::from_le_bytes(first)) | u128::from(u32::from_le_bytes(last)) << shift(4)
    } else {
        text.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
    }
}

//! Pure: the hash that puts keys and points on the ring.

use md5::{Digest, Md5};

/// The position of a key or a point.
pub(super) fn position(text: &[u8]) -> u32 {
    let [a, b, c, d, ..] = md5(text);
    u32::from_be_bytes([a, b, c, d])
}

/// A number that stands for `text`.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = md5(text);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn md5(text: &[u8]) -> [u8; 16] {
    Md5::digest(text).into()
}

// Pure: no runtime, no clock, no socket, no random numbers.

//! The hash of a whole ring.

use md5::{Digest, Md5};

/// The hash of `text`.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = md5(text);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn md5(text: &[u8]) -> [u8; 16] {
    Md5::digest(text).into()
}

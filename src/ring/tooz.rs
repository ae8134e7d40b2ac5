// Pure: no runtime, no clock, no socket, no random numbers.

//! The ring of OpenStack's tooz, which ceilometer, ironic and others use.
//!
//! It differs from the ring of aodh in what is hashed and in the length of a position:
//!
//! - Point `r` of a member is the whole MD5, 128 bits, of its id repeated `r + 2` times.
//! - The position of a key is the whole MD5 of its [`RingKey`].
//!
//! Keys are still hashed to 32 bits, by the kernels: the first 32 bits of a hash decide its owner, unless they are
//! those of a point as well. That happens for one key in 2^32 for each point, and only then the whole hash is computed.

use md5::{Digest, Md5};

use super::{RingKey, key::KeyBuffer};

/// The hash of a key: its position on a ring of tooz. The first 32 bits are its position on every other ring.
pub(crate) fn hash<K: RingKey + ?Sized>(key: &K) -> u128 {
    number(Md5::digest(key.ring_key_with(&mut KeyBuffer::new())).into())
}

/// The positions of the first `count` points of the member `id`.
pub(super) fn points(id: &str, count: usize) -> impl Iterator<Item = u128> {
    let mut repeated = Md5::new_with_prefix(id);
    (0..count).map(move |_| {
        repeated.update(id);
        number(repeated.clone().finalize().into())
    })
}

fn number(hash: [u8; 16]) -> u128 {
    u128::from_be_bytes(hash)
}

#[cfg(test)]
mod tests;
